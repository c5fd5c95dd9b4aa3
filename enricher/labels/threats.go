package labels

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/cespare/xxhash/v2"
	"github.com/gaissmai/bart"

	"github.com/tapweave/tapweave/proto/pb"
)

// Kind is what an indicator is compared with.
type Kind uint8

const (
	Address Kind = iota + 1 // value: 16 bytes, IPv4 mapped
	Prefix                  // value: 16 bytes, and the number of bits in a seventeenth
	Domain                  // value: a name in lower case, without the dot at its end
	Below                   // the same: all names below it
	JA3                     // value: 32 hex digits
	JA4
	numKinds
)

// Threat is an entry of a threat list.
type Threat struct {
	Name       string
	Indicator  string // as people write it
	Confidence uint8  // percent, 0: unknown
}

// Threats are threat lists. Of a million indicators nothing but flat arrays is kept, so that neither their number
// nor a new list is felt by the garbage collector.
type Threats struct {
	values      []byte
	ends        []uint32
	kinds       []byte
	name        []uint32
	confidences []byte
	expires     []uint32
	names       []string
	index       []uint64 // by hash, open addressing, at most half full: half of the hash, and the entry plus one
	prefixes    bart.Table[uint32]
	hasPrefixes bool
	hasNames    bool // domains
	hasBelow    bool
	hasPrints   bool // fingerprints
}

func newThreats(m *pb.Threats) (*Threats, error) {
	n := len(m.Ends)
	t := &Threats{values: m.Values, ends: m.Ends, kinds: m.Kinds, name: m.Name, confidences: m.Confidences, expires: m.Expires, names: m.Names}
	if len(t.kinds) != n || len(t.name) != n || len(t.confidences) != n || len(t.expires) != n || n > 1<<30 {
		return nil, errors.New("indicators of different numbers")
	}
	size := 2
	for size < 2*n {
		size *= 2
	}
	t.index = make([]uint64, size)
	before := uint32(0)
	for i := range n {
		if t.ends[i] < before || int(t.ends[i]) > len(t.values) || int(t.name[i]) >= len(t.names) || t.kinds[i] == 0 || t.kinds[i] >= byte(numKinds) {
			return nil, fmt.Errorf("indicator %d is not sound", i)
		}
		before = t.ends[i]
		v := t.value(uint32(i))
		switch Kind(t.kinds[i]) {
		case Address:
			if len(v) != 16 {
				return nil, fmt.Errorf("indicator %d: an address of %d bytes", i, len(v))
			}
		case Prefix:
			p, ok := prefixOf(v)
			if !ok {
				return nil, fmt.Errorf("indicator %d is no prefix", i)
			}
			t.prefixes.Insert(p, uint32(i))
			t.hasPrefixes = true
			continue
		case Domain, Below:
			t.hasNames = true
			t.hasBelow = t.hasBelow || Kind(t.kinds[i]) == Below
		default:
			t.hasPrints = true
		}
		h := hash(Kind(t.kinds[i]), string(v))
		at := h & uint64(size-1)
		for t.index[at] != 0 {
			at = (at + 1) & uint64(size-1)
		}
		t.index[at] = h>>32<<32 | uint64(i+1)
	}
	return t, nil
}

func prefixOf(v []byte) (p netip.Prefix, ok bool) {
	if len(v) != 17 {
		return p, false
	}
	a, bits := netip.AddrFrom16([16]byte(v)), int(v[16])
	if a.Is4In6() {
		a, bits = a.Unmap(), bits-96
	}
	p = netip.PrefixFrom(a, bits)
	return p, p.IsValid() && p == p.Masked()
}

// Len is the number of indicators.
func (t *Threats) Len() int { return len(t.ends) }

func (t *Threats) value(i uint32) []byte {
	from := uint32(0)
	if i > 0 {
		from = t.ends[i-1]
	}
	return t.values[from:t.ends[i]]
}

func hash(k Kind, v string) uint64 {
	return (xxhash.Sum64String(v) ^ uint64(k)) * 0x9e3779b97f4a7c15
}

// find returns the place of an indicator. What is on no list is mostly told by the index alone: one look into memory.
func (t *Threats) find(k Kind, v string) (uint32, bool) {
	mask, h := uint64(len(t.index)-1), hash(k, v)
	for at := h & mask; ; at = (at + 1) & mask {
		e := t.index[at]
		if e == 0 {
			return 0, false
		}
		if i := uint32(e) - 1; e>>32 == h>>32 && t.kinds[i] == byte(k) && string(t.value(i)) == v {
			return i, true
		}
	}
}

// live says whether an entry counts at a time, and narrows the span to when that is so.
func (t *Threats) live(i uint32, at int64, s *Span) bool {
	if t.expires[i] == 0 {
		return true
	}
	end := int64(t.expires[i]) * 1e9
	if at < end {
		s.Until = min(s.Until, end)
		return true
	}
	s.From = max(s.From, end)
	return false
}

func (t *Threats) threat(i uint32) *Threat {
	v, text := t.value(i), ""
	switch Kind(t.kinds[i]) {
	case Address:
		text = netip.AddrFrom16([16]byte(v)).Unmap().String()
	case Prefix:
		p, _ := prefixOf(v)
		text = p.String()
	case Below:
		text = "*." + string(v)
	default:
		text = string(v)
	}
	return &Threat{Name: t.names[t.name[i]], Indicator: text, Confidence: t.confidences[i]}
}

// Address returns the entry that an address is on at a time, nil for none: its own, else that of the longest
// prefix. It also returns for what times that is so.
func (t *Threats) Address(a netip.Addr, at int64) (*Threat, Span) {
	s := Always
	v := a.As16()
	if i, ok := t.find(Address, string(v[:])); ok && t.live(i, at, &s) {
		return t.threat(i), s
	}
	if !t.hasPrefixes || !t.prefixes.Contains(a) {
		return nil, s
	}
	for _, i := range t.prefixes.Supernets(netip.PrefixFrom(a, a.BitLen())) {
		if t.live(i, at, &s) {
			return t.threat(i), s
		}
	}
	return nil, s
}

// HasNames and HasPrints say whether there is anything to compare names and fingerprints with.
func (t *Threats) HasNames() bool  { return t.hasNames }
func (t *Threats) HasPrints() bool { return t.hasPrints }

// Name returns the entry that a domain name is on at a time, nil for none: its own, else that of the longest name
// that it is below. Case and a dot or a port at its end do not count.
func (t *Threats) Name(name string, at int64) *Threat {
	name = plain(name)
	if name == "" || !t.hasNames {
		return nil
	}
	s := Always
	if i, ok := t.find(Domain, name); ok && t.live(i, at, &s) {
		return t.threat(i)
	}
	for t.hasBelow {
		_, rest, more := strings.Cut(name, ".")
		if !more || rest == "" {
			return nil
		}
		name = rest
		if i, ok := t.find(Below, name); ok && t.live(i, at, &s) {
			return t.threat(i)
		}
	}
	return nil
}

// plain is a name as indicators have it.
func plain(name string) string {
	if i := strings.LastIndexByte(name, ':'); i >= 0 && strings.IndexByte(name, ':') == i {
		name = name[:i] // a port
	}
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

// Print returns the entry that a TLS fingerprint is on at a time, nil for none.
func (t *Threats) Print(k Kind, print string, at int64) *Threat {
	if print == "" || !t.hasPrints {
		return nil
	}
	s := Always
	if i, ok := t.find(k, print); ok && t.live(i, at, &s) {
		return t.threat(i)
	}
	return nil
}
