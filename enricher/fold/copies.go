package fold

import (
	"math/bits"

	"github.com/tapweave/tapweave/proto/packet"
)

// A tap point is the list of the source addresses of all carriers around a packet; none: the packet came
// plain. Copies of one packet come from different lists of equal length.
type tap struct {
	index uint16 // in taps, 0 for the empty list
	depth uint8
}

type tapList [packet.MaxCarriers]packet.Addr

// taps gives tap points short names.
type taps struct {
	index map[tapList]tap
	lists []tapList
	depth [packet.MaxCarriers + 1]int // how many lists of each length there are
}

// maxTaps is how many tap points a partition tells apart. Those beyond it share one name: packets from
// there are never taken for copies of each other.
const maxTaps = 1 << 15

func (t *taps) init() {
	t.index = map[tapList]tap{{}: {}}
	t.lists = []tapList{{}}
	t.depth[0] = 1
}

func (t *taps) of(f *packet.Flow) tap {
	if f.NCarriers == 0 {
		return tap{}
	}
	var l tapList
	for i := range f.Carriers[:f.NCarriers] {
		l[i] = f.Carriers[i].Source
	}
	if p, ok := t.index[l]; ok {
		return p
	}
	if len(t.lists) == maxTaps {
		return tap{maxTaps, f.NCarriers}
	}
	p := tap{uint16(len(t.lists)), f.NCarriers}
	t.index[l] = p
	t.lists = append(t.lists, l)
	t.depth[p.depth]++
	return p
}

// copies knows the packets of the last CopyDelay, so as to tell second copies.
//
// The k-th occurrence of a packet at one tap point is paired with the k-th at another. While only one tap
// point of each depth has been seen there can be no copies, and packets are only queued.
type copies struct {
	seen   []sighting // a queue in the order of folding, from head on
	head   int
	index  map[uint64]int // identity to the newest sighting of it, counted from base
	base   int            // number of the sighting at seen[0]
	active bool           // sightings are entered into index
	asked  bool           // the packet that second was last asked about is at the end of seen
	linked int            // number of the first sighting that is not in index yet
}

// sighting is one packet, with the tap points that have seen it.
type sighting struct {
	identity uint64
	time     int64
	to       owner
	before   int // number of an earlier sighting of the same identity
	taps     [7]uint16
	ntaps    uint8
	depth    uint8
}

func (c *copies) init() { c.index = map[uint64]int{} }

// identity is equal for all copies of a packet: it leaves out what changes on the way.
func identity(r *ref, p *packet.Packet) uint64 {
	const k = 0x9e3779b97f4a7c15
	m := func(h, v uint64) uint64 {
		hi, lo := bits.Mul64(h^v, k)
		return hi ^ lo
	}
	h := m(r.hash^uint64(r.side), uint64(p.ID)<<32|uint64(p.Checksum)<<16|uint64(p.FragmentOffset))
	h = m(h^k, uint64(p.Seq)<<32|uint64(p.Ack))
	h = m(h, uint64(p.Payload)<<32|uint64(p.Flags)<<24|uint64(p.Fragment)<<16|uint64(p.Window))
	if r.shared {
		h = m(h, uint64(r.flow.SrcPort)<<48|uint64(r.flow.DstPort)<<32|uint64(r.flow.Protocol)<<16|uint64(r.flow.ICMPID))
	}
	return h
}

// second says whether the packet is a copy of one that another tap point saw, and returns the owner of
// that. A packet that is none is remembered; its owner is told by remember.
func (c *copies) second(t *taps, r *ref, p *packet.Packet, delay int64) (to owner, copied bool) {
	c.asked = r.tap.depth > 0
	if !c.asked {
		return owner{}, false // it came plain: there is but one such tap point
	}
	id := identity(r, p)
	c.active = c.active || t.depth[r.tap.depth] > 1
	if c.active {
		c.link()
		found := -1
		for n, ok := c.last(id); ok; n, ok = c.number(c.at(n).before) {
			g := c.at(n)
			if g.identity == id && g.depth == r.tap.depth && abs(p.Time-g.time) <= delay && !g.saw(r.tap.index) {
				found = n // the earliest that fits
			}
		}
		if found >= 0 {
			g := c.at(found)
			g.taps[g.ntaps] = r.tap.index
			g.ntaps++
			return g.to, true
		}
	}
	c.seen = append(c.seen, sighting{identity: id, time: p.Time, before: -1, taps: [7]uint16{r.tap.index}, ntaps: 1, depth: r.tap.depth})
	return owner{}, false
}

// remember tells the owner of the packet that second was last asked about.
func (c *copies) remember(to owner) {
	if c.asked {
		c.seen[len(c.seen)-1].to = to
	}
}

// owner is where a packet was counted: in a session, or, as a fragment, in a datagram.
type owner struct {
	session  *Session
	datagram *datagram
}

// copied counts a second copy.
func (o owner) copied(r *ref) {
	s := o.session
	if o.datagram != nil {
		if s = o.datagram.session; s == nil {
			o.datagram.copies++
			o.datagram.met(r)
		}
	}
	if s != nil && !s.gone {
		s.duplicates++
		s.met(r)
	}
}

// saw says whether the tap point has seen the packet already, or so many have that no more are recorded.
func (g *sighting) saw(tap uint16) bool {
	for _, t := range g.taps[:g.ntaps] {
		if t == tap {
			return true
		}
	}
	return int(g.ntaps) == len(g.taps)
}

// link enters into the index what was only queued.
func (c *copies) link() {
	for n := max(c.linked, c.base+c.head); n < c.base+len(c.seen); n++ {
		g := c.at(n)
		if before, ok := c.index[g.identity]; ok {
			g.before = before
		}
		c.index[g.identity] = n
	}
	c.linked = c.base + len(c.seen)
}

func (c *copies) at(n int) *sighting { return &c.seen[n-c.base] }

func (c *copies) last(id uint64) (int, bool) {
	n, ok := c.index[id]
	if !ok {
		return 0, false
	}
	return c.number(n)
}

// number says whether sighting n is still known.
func (c *copies) number(n int) (int, bool) { return n, n >= c.base+c.head }

// forget drops what was seen before time t.
func (c *copies) forget(t int64) {
	for c.head < len(c.seen) && c.seen[c.head].time < t {
		g := &c.seen[c.head]
		if n := c.base + c.head; n < c.linked && c.index[g.identity] == n {
			delete(c.index, g.identity)
		}
		g.to = owner{}
		c.head++
	}
	if c.head > 1024 && c.head > len(c.seen)/2 {
		n := copy(c.seen, c.seen[c.head:])
		clear(c.seen[n:])
		c.seen = c.seen[:n]
		c.base += c.head
		c.linked = max(c.linked, c.base)
		c.head = 0
	}
}

func abs(v int64) int64 {
	if v < 0 {
		return -v
	}
	return v
}
