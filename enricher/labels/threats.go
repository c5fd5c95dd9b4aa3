package labels

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
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
// nor a new list is felt by the garbage collector. They are larger than the processor's caches, where a look into
// memory costs more than all else: an IPv4 address takes one, what is on no list mostly one, other indicators three.
type Threats struct {
	len         int
	hosts       []indicator // IPv4 addresses, by hash, open addressing, at most half full
	values      []byte      // of entries
	entries     []indicator // all others
	index       []uint64    // of them, by hash, likewise: half of the hash, and the entry plus one
	names       []string
	prefixes    bart.Table[uint32]
	hasPrefixes bool
	hasNames    bool // domains
	hasBelow    bool
	hasPrints   bool // fingerprints
}

// indicator is all that is known of one but for the texts: a quarter of a cache line.
type indicator struct {
	from       uint32 // where its value begins in values; in hosts the address
	name       uint32 // in names
	expires    uint32 // seconds since the Unix epoch, 0: never
	length     uint16 // of its value; in hosts 0
	kind       Kind   // 0: an empty place in hosts
	confidence uint8
}

func newThreats(m *pb.Threats) (*Threats, error) {
	n := len(m.Ends)
	if len(m.Kinds) != n || len(m.Name) != n || len(m.Confidences) != n || len(m.Expires) != n || n > 1<<30 {
		return nil, errors.New("indicators of different numbers")
	}
	t := &Threats{len: n, values: m.Values, names: m.Names}
	hosts := 0
	begin := func(i int) uint32 {
		if i == 0 {
			return 0
		}
		return m.Ends[i-1]
	}
	for i, end := range m.Ends {
		from, kind := begin(i), Kind(m.Kinds[i])
		if end < from || end-from > math.MaxUint16 || int(end) > len(m.Values) || int(m.Name[i]) >= len(m.Names) || kind == 0 || kind >= numKinds {
			return nil, fmt.Errorf("indicator %d is not sound", i)
		}
		if kind == Address && isV4(m.Values[from:end]) {
			hosts++
		}
	}
	t.hosts = make([]indicator, room(hosts))
	t.entries = make([]indicator, 0, n-hosts)
	t.index = make([]uint64, room(n-hosts))
	for i, end := range m.Ends {
		from, kind := begin(i), Kind(m.Kinds[i])
		v := m.Values[from:end]
		e := indicator{from, m.Name[i], m.Expires[i], uint16(end - from), kind, m.Confidences[i]}
		if kind == Address && isV4(v) {
			e.from, e.length = binary.BigEndian.Uint32(v[12:]), 0
			*t.host(e.from) = e
			continue
		}
		t.entries = append(t.entries, e)
		switch kind {
		case Address:
			if len(v) != 16 {
				return nil, fmt.Errorf("indicator %d: an address of %d bytes", i, len(v))
			}
		case Prefix:
			p, ok := prefixOf(v)
			if !ok {
				return nil, fmt.Errorf("indicator %d is no prefix", i)
			}
			t.prefixes.Insert(p, uint32(len(t.entries)-1))
			t.hasPrefixes = true
			continue
		case Domain, Below:
			t.hasNames = true
			t.hasBelow = t.hasBelow || kind == Below
		default:
			t.hasPrints = true
		}
		h, mask := hash(kind, string(v)), uint64(len(t.index)-1)
		at := h & mask
		for t.index[at] != 0 {
			at = (at + 1) & mask
		}
		t.index[at] = h>>32<<32 | uint64(len(t.entries))
	}
	return t, nil
}

// room is the size of a table of n entries: a power of two, and never full.
func room(n int) int {
	size := 2
	for size < 2*n {
		size *= 2
	}
	return size
}

// isV4 says whether the value of an address is that of an IPv4 address.
func isV4(v []byte) bool {
	return len(v) == 16 && netip.AddrFrom16([16]byte(v)).Is4In6()
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
func (t *Threats) Len() int { return t.len }

func (t *Threats) value(e *indicator) []byte { return t.values[e.from:][:e.length] }

func hash(k Kind, v string) uint64 {
	return (xxhash.Sum64String(v) ^ uint64(k)) * 0x9e3779b97f4a7c15
}

// host returns the place of an IPv4 address: an empty one if it is on no list.
func (t *Threats) host(a uint32) *indicator {
	mask := uint64(len(t.hosts) - 1)
	for at := uint64(a) * 0x9e3779b97f4a7c15 >> 32 & mask; ; at = (at + 1) & mask {
		if e := &t.hosts[at]; e.from == a || e.kind == 0 {
			return e
		}
	}
}

// find returns any other indicator, nil if it is on no list.
func (t *Threats) find(k Kind, v string) *indicator {
	mask, h := uint64(len(t.index)-1), hash(k, v)
	for at := h & mask; t.index[at] != 0; at = (at + 1) & mask {
		if i := t.index[at]; i>>32 == h>>32 {
			if e := &t.entries[uint32(i)-1]; e.kind == k && string(t.value(e)) == v {
				return e
			}
		}
	}
	return nil
}

// live says whether an indicator counts at a time, and narrows the span to when that is so. None never does.
func (e *indicator) live(at int64, s *Span) bool {
	if e == nil || e.kind == 0 {
		return false
	}
	if e.expires == 0 {
		return true
	}
	end := int64(e.expires) * 1e9
	if at < end {
		s.Until = min(s.Until, end)
		return true
	}
	s.From = max(s.From, end)
	return false
}

func (t *Threats) threat(e *indicator) *Threat {
	text := ""
	switch {
	case e.kind == Address && e.length == 0:
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], e.from)
		text = netip.AddrFrom4(a).String()
	case e.kind == Address:
		text = netip.AddrFrom16([16]byte(t.value(e))).String()
	case e.kind == Prefix:
		p, _ := prefixOf(t.value(e))
		text = p.String()
	case e.kind == Below:
		text = "*." + string(t.value(e))
	default:
		text = string(t.value(e))
	}
	return &Threat{Name: t.names[e.name], Indicator: text, Confidence: e.confidence}
}

// Address returns the entry that an address is on at a time, nil for none: its own, else that of the longest
// prefix. It also returns for what times that is so.
func (t *Threats) Address(a netip.Addr, at int64) (*Threat, Span) {
	s := Always
	var e *indicator
	if a.Is4() {
		v := a.As4()
		e = t.host(binary.BigEndian.Uint32(v[:]))
	} else {
		v := a.As16()
		e = t.find(Address, string(v[:]))
	}
	if e.live(at, &s) {
		return t.threat(e), s
	}
	if !t.hasPrefixes {
		return nil, s
	}
	if i, ok := t.prefixes.Lookup(a); !ok {
		return nil, s
	} else if e := &t.entries[i]; e.live(at, &s) {
		return t.threat(e), s
	}
	for _, i := range t.prefixes.Supernets(netip.PrefixFrom(a, a.BitLen())) {
		if e := &t.entries[i]; e.live(at, &s) {
			return t.threat(e), s
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
	if e := t.find(Domain, name); e.live(at, &s) {
		return t.threat(e)
	}
	for t.hasBelow {
		_, rest, more := strings.Cut(name, ".")
		if !more || rest == "" {
			return nil
		}
		name = rest
		if e := t.find(Below, name); e.live(at, &s) {
			return t.threat(e)
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
	if e := t.find(k, print); e.live(at, &s) {
		return t.threat(e)
	}
	return nil
}
