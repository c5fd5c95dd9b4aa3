// Package allow says who may send: from which addresses, and for which VXLAN or GENEVE network identifiers.
// It is asked for each packet before anything else is done with it.
package allow

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/tapweave/tapweave/proto/packet"
)

// List is who may send. It does not change, and is safe for concurrent use; nil allows everything.
type List struct {
	prefixes []netip.Prefix
	sources  []addresses // those of prefixes, ordered, without overlap; nil: all
	vnis     []uint32    // ordered; nil: all
}

type addresses struct{ first, last number }

// number is an address as one of 128 bits.
type number struct{ high, low uint64 }

func numberOf(a *packet.Addr) number {
	return number{binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:])}
}

func (n number) less(m number) bool { return n.high < m.high || n.high == m.high && n.low < m.low }

func (n number) compare(m number) int {
	return cmp.Or(cmp.Compare(n.high, m.high), cmp.Compare(n.low, m.low))
}

// New returns a list of prefixes (203.0.113.0/24, 2001:db8::/32, or an address) and network identifiers.
// None of either allows all.
func New(sources []string, vnis []uint32) (*List, error) {
	l := &List{vnis: slices.Sorted(slices.Values(vnis))}
	if n := len(l.vnis); n > 0 && l.vnis[n-1] >= 1<<24 {
		return nil, fmt.Errorf("vnis: %d has more than 24 bits", l.vnis[n-1])
	}
	for _, s := range sources {
		p, err := netip.ParsePrefix(s)
		if a, e := netip.ParseAddr(s); e == nil && a.Zone() == "" {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("sources: %q is neither a prefix like 10.0.0.0/8 nor an address", s)
		}
		l.prefixes = append(l.prefixes, p.Masked())
		l.sources = append(l.sources, within(p))
	}
	slices.SortFunc(l.sources, func(a, b addresses) int { return a.first.compare(b.first) })
	merged := l.sources[:0]
	for _, r := range l.sources {
		if n := len(merged); n > 0 && !merged[n-1].last.less(r.first) {
			if merged[n-1].last.less(r.last) {
				merged[n-1].last = r.last
			}
			continue
		}
		merged = append(merged, r)
	}
	l.sources = merged
	return l, nil
}

// within returns the addresses of a prefix.
func within(p netip.Prefix) addresses {
	first := packet.AddrFrom(p.Masked().Addr())
	last := first
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	for i := bits; i < 128; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	return addresses{numberOf(&first), numberOf(&last)}
}

// Prefixes returns the prefixes of the sources, none if all may send. They are not to be changed.
func (l *List) Prefixes() []netip.Prefix { return l.prefixes }

// Source says whether an address may send. IPv4 is looked for in mapped prefixes (::ffff:0:0/96) too.
func (l *List) Source(a *packet.Addr) bool {
	if l == nil || len(l.sources) == 0 {
		return true
	}
	n := numberOf(a)
	from, to := 0, len(l.sources)
	for from < to {
		m := int(uint(from+to) >> 1)
		if l.sources[m].last.less(n) {
			from = m + 1
		} else {
			to = m
		}
	}
	return from < len(l.sources) && !n.less(l.sources[from].first)
}

// AllVNIs says whether VNI returns true for every one.
func (l *List) AllVNIs() bool { return l == nil || len(l.vnis) == 0 }

// VNI says whether packets of a network may come.
func (l *List) VNI(vni uint32) bool {
	if l.AllVNIs() {
		return true
	}
	_, ok := slices.BinarySearch(l.vnis, vni)
	return ok
}
