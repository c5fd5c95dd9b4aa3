package jsontext

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/tapweave/tapweave/proto/packet"
)

func TestTime(t *testing.T) {
	check := func(ns int64) {
		t.Helper()
		want := time.Unix(0, ns).UTC().Format(`"2006-01-02T15:04:05.000000000Z"`)
		if got := string(AppendTime(nil, ns)); got != want {
			t.Fatalf("%d: %s, want %s", ns, got, want)
		}
	}
	for _, ns := range []int64{0, -1, 1, math.MinInt64, math.MaxInt64, 1772356502123456789} {
		check(ns)
	}
	for year := 1678; year < 2262; year++ {
		for _, day := range []int{1, 59, 60, 61, 365, 366} {
			check(time.Date(year, 1, day, 0, 0, 0, 0, time.UTC).UnixNano())
			check(time.Date(year, 1, day, 0, 0, 0, -1, time.UTC).UnixNano())
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		check(int64(r.Uint64()))
	}
}

func TestAddress(t *testing.T) {
	for _, s := range []string{"0.0.0.0", "255.255.255.255", "10.0.0.4", "9.10.99.100", "::", "2001:db8::1", "::ffff:10.0.0.4"} {
		a := packet.AddrFrom(netip.MustParseAddr(s))
		if got, want := string(AppendAddress(nil, a)), a.Netip().String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// A text reads back as encoding/json has it, whatever its bytes.
func FuzzText(f *testing.F) {
	for _, s := range []string{"", "plain", "\xff\"\\\x00\u2028<>&\u2029\x7f", "\ufffd", "é\n\r\t\b", "\xed\xa0\x80", "{[", "\xe2\x80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b := AppendText(nil, s)
		for _, c := range b {
			if c < ' ' || c == 0x7f {
				t.Fatalf("control character in %q", b)
			}
		}
		var got string
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%q became %s: %v", s, b, err)
		}
		if want := string([]rune(s)); got != want {
			t.Fatalf("%q became %q", s, got)
		}
	})
}
