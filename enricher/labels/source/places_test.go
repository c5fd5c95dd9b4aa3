package source

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/tapweave/tapweave/enricher/labels"
)

// database is a file in MaxMind's format, written by MaxMind's own library: country with the names of GeoIP2 Country
// (nested) or of databases that are flat, and autonomous systems with those of GeoLite2 ASN.
func database(t testing.TB, kind string, recordSize int, networks map[string]mmdbtype.Map) []byte {
	t.Helper()
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: kind, RecordSize: recordSize, BuildEpoch: 1, IncludeReservedNetworks: true})
	if err != nil {
		t.Fatal(err)
	}
	var prefixes []netip.Prefix
	for prefix := range networks {
		prefixes = append(prefixes, netip.MustParsePrefix(prefix))
	}
	// What is inserted last stands: the longer ones.
	slices.SortFunc(prefixes, func(a, b netip.Prefix) int { return cmp.Or(a.Bits()-b.Bits(), a.Addr().Compare(b.Addr())) })
	for _, prefix := range prefixes {
		_, n, err := net.ParseCIDR(prefix.String())
		if err == nil {
			err = tree.Insert(n, networks[prefix.String()])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if _, err := tree.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func nested(iso string) mmdbtype.Map {
	return mmdbtype.Map{
		"continent": mmdbtype.Map{"code": mmdbtype.String("EU"), "geoname_id": mmdbtype.Uint32(6255148)},
		"country":   mmdbtype.Map{"iso_code": mmdbtype.String(iso), "geoname_id": mmdbtype.Uint32(2921044), "names": mmdbtype.Map{"en": mmdbtype.String("a country")}},
	}
}

func flat(iso string) mmdbtype.Map { return mmdbtype.Map{"country_code": mmdbtype.String(iso)} }

func system(n uint32, org string) mmdbtype.Map {
	return mmdbtype.Map{"autonomous_system_number": mmdbtype.Uint32(n), "autonomous_system_organization": mmdbtype.String(org)}
}

func TestMaxMind(t *testing.T) {
	for _, size := range []int{24, 28, 32} {
		set := compile(t, Config{
			Country: []string{
				write(t, "c.mmdb", string(database(t, "GeoIP2-Country", size, map[string]mmdbtype.Map{"1.0.0.0/24": nested("AU"), "2000::/3": nested("JP")}))),
				write(t, "f.mmdb", string(database(t, "flat", size, map[string]mmdbtype.Map{"2.0.0.0/8": flat("FR")}))),
			},
			ASN: []string{write(t, "a.mmdb", string(database(t, "GeoLite2-ASN", size, map[string]mmdbtype.Map{"1.0.0.0/23": system(13335, "Some Network"), "1.0.0.128/25": system(64500, "Within")})))},
		})
		for address, want := range map[string]labels.Place{
			"1.0.0.1": {Country: "AU", ASN: 13335, ASOrg: "Some Network"}, "1.0.0.200": {Country: "AU", ASN: 64500, ASOrg: "Within"},
			"1.0.1.255": {ASN: 13335, ASOrg: "Some Network"}, "1.0.2.0": {}, "2.255.255.255": {Country: "FR"}, "3.0.0.0": {}, "0.0.0.0": {},
			"2001:200:ffff::1": {Country: "JP"}, "4000::": {},
		} {
			if got := end(set, "default", address, now).Place; got != want {
				t.Errorf("%d bits: %s: %+v, want %+v", size, address, got, want)
			}
		}
	}
}

// A database that was cut anywhere, or in which bytes are others, is refused in one line, or is read as it says; and
// what was read before stays.
func TestDamagedDatabase(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	networks := map[string]mmdbtype.Map{}
	for i := range 300 {
		networks[fmt.Sprintf("%d.%d.0.0/%d", 1+r.IntN(200), r.IntN(256), 10+r.IntN(7))] = nested(string([]byte{'A' + byte(i%26), 'A' + byte(i/26)}))
		networks[fmt.Sprintf("2001:%x::/%d", i+0x200, 24+r.IntN(24))] = system(uint32(64500+i), fmt.Sprintf("Holder %d", i))
	}
	for _, size := range []int{24, 28, 32} {
		whole := database(t, "test", size, networks)
		path := write(t, "places.mmdb", string(whole))
		c := NewCompiler(Config{Country: []string{path}, ASN: []string{path}})
		before, _, err := c.Compile()
		if err != nil {
			t.Fatal(err)
		}
		replace := func(b []byte) error {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			c.kinds[1].files[0] ^= 1 // read it, however coarse the file system's clock is
			_, _, err := c.Compile()
			var own *Error
			if err != nil && (!errors.As(err, &own) || strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), path+": ")) {
				t.Fatalf("%q", err)
			}
			return err
		}
		cuts := []int{0, 1, 2, len(whole) - 1, len(whole) - 2, bytes.LastIndex(whole, []byte("\xab\xcd\xef")), bytes.LastIndex(whole, []byte("\xab\xcd\xef")) + 14}
		for range 60 {
			cuts = append(cuts, r.IntN(len(whole)))
		}
		for _, n := range cuts {
			if err := replace(whole[:n]); err == nil {
				t.Errorf("%d of %d bytes are taken for a database", n, len(whole))
			} else if kept := c.kinds[1].part; kept.Digest() != before.Parts()[0].Digest() {
				t.Errorf("%d bytes changed what was read before", n)
			}
		}
		refused := 0
		for range 400 {
			b := bytes.Clone(whole)
			for range 1 + r.IntN(3) {
				b[r.IntN(len(b))] ^= byte(1 + r.IntN(255))
			}
			if r.IntN(4) == 0 { // a hole
				at := r.IntN(len(b) - 100)
				b = append(b[:at], b[at+1+r.IntN(99):]...)
			}
			if replace(b) != nil {
				refused++
			}
		}
		if refused < 100 {
			t.Errorf("%d of 400 damaged databases were refused", refused)
		}
		if err := replace(whole); err != nil {
			t.Error(err)
		}
	}
}

// A tree both of whose branches lead to the same node, 128 times, has more networks than can be counted.
func TestEndlessDatabase(t *testing.T) {
	b := database(t, "test", 24, map[string]mmdbtype.Map{"2001:db8::1/128": flat("DE")})
	const node = 6
	for at := 0; at < 128*node; at += node {
		left, right := b[at:at+3], b[at+3:at+node]
		if bytes.Compare(left, []byte{0, 0, 128}) < 0 {
			copy(right, left)
		} else {
			copy(left, right)
		}
	}
	_, _, err := NewCompiler(Config{Country: []string{write(t, "e.mmdb", string(b))}}).Compile()
	if err == nil || !strings.Contains(err.Error(), "networks in a tree of") {
		t.Error(err)
	}
}
