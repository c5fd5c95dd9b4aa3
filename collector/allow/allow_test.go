package allow

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/tapweave/tapweave/proto/packet"
)

func TestSource(t *testing.T) {
	prefixes := []string{"10.0.0.0/8", "10.1.0.0/16", "192.0.2.7", "192.0.2.8/31", "2001:db8::/33", "198.51.100.128/25", "fe80::1"}
	l, err := New(prefixes, nil)
	if err != nil {
		t.Fatal(err)
	}
	var judge []netip.Prefix
	for _, s := range prefixes {
		if !strings.Contains(s, "/") {
			a := netip.MustParseAddr(s)
			judge = append(judge, netip.PrefixFrom(a, a.BitLen()))
			continue
		}
		judge = append(judge, netip.MustParsePrefix(s))
	}
	check := func(a netip.Addr) {
		want := false
		for _, p := range judge {
			want = want || p.Contains(a)
		}
		b := packet.AddrFrom(a)
		if got := l.Source(&b); got != want {
			t.Errorf("%v: %v, want %v", a, got, want)
		}
	}
	for _, p := range judge {
		a := p.Masked().Addr()
		check(a)
		check(a.Prev())
		check(a.Next())
		last := a.As16()
		for i := p.Bits() + 128 - a.BitLen(); i < 128; i++ {
			last[i/8] |= 0x80 >> (i % 8)
		}
		check(packet.Addr(last).Netip())
		check(packet.Addr(last).Netip().Next())
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 10000 {
		check(netip.AddrFrom4([4]byte{[]byte{9, 10, 11, 192, 198}[r.IntN(5)], byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))}))
	}
	check(netip.IPv6Unspecified())
	check(netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))
}

func TestVNI(t *testing.T) {
	l, err := New(nil, []uint32{900, 27, 1<<24 - 1})
	if err != nil {
		t.Fatal(err)
	}
	for vni, want := range map[uint32]bool{27: true, 900: true, 1<<24 - 1: true, 0: false, 28: false} {
		if l.VNI(vni) != want {
			t.Errorf("VNI %d: %v", vni, !want)
		}
	}
}

func TestAll(t *testing.T) {
	empty, err := New(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []*List{nil, empty} {
		if !l.Source(new(packet.Addr)) || !l.VNI(5) || !l.AllVNIs() {
			t.Error("something is refused")
		}
	}
}

func TestErrors(t *testing.T) {
	for want, c := range map[string]struct {
		sources []string
		vnis    []uint32
	}{
		`sources: "10.0.0.0/33" is neither`: {sources: []string{"10.0.0.0/33"}},
		`sources: "x" is neither`:           {sources: []string{"x"}},
		"vnis: 16777216 has more than 24":   {vnis: []uint32{1 << 24}},
	} {
		if _, err := New(c.sources, c.vnis); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func BenchmarkSource(b *testing.B) {
	var prefixes []string
	for i := range 1000 {
		prefixes = append(prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 4), byte(i << 4), 0}), 24).String())
	}
	l, err := New(prefixes, nil)
	if err != nil {
		b.Fatal(err)
	}
	a := packet.AddrFrom(netip.MustParseAddr("10.17.64.9"))
	for b.Loop() {
		l.Source(&a)
	}
}
