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
	ring       []sighting // a queue, in the order of folding; its length is a power of two
	head, tail int        // numbers of the first sighting in the queue and of the next to come

	active    bool              // sightings are entered into buckets
	asked     bool              // the packet that second was last asked about is the last in the queue
	linked    int               // number of the first sighting that is not in buckets yet
	buckets   []int             // by identity, number of the newest sighting plus one; as many as the ring has places
	datagrams map[int]*datagram // of sightings of fragments
}

// sighting is one packet, with the tap points that have seen it. It holds no pointers: there are many.
type sighting struct {
	identity uint64
	time     int64
	session  uint64 // number of the session that it was counted in, 0 for a fragment
	before   int    // number of the sighting before in its bucket; what is not in the queue any more ends it
	taps     [7]uint16
	ntaps    uint8
	depth    uint8
}

// maxSightings bounds the memory for the copies that a producer may still have which was silent for too long.
const maxSightings = 1 << 20

func (c *copies) init() {
	c.ring = make([]sighting, minRing)
	c.datagrams = map[int]*datagram{}
}

func (c *copies) at(n int) *sighting { return &c.ring[n&(len(c.ring)-1)] }

func (c *copies) push(g sighting) {
	if c.tail-c.head == len(c.ring) {
		c.resize(2 * len(c.ring))
	}
	*c.at(c.tail) = g
	c.tail++
}

// minRing is the least number of places.
const minRing = 256

// resize gives the ring another number of places, a power of two.
func (c *copies) resize(places int) {
	old := c.ring
	c.ring = make([]sighting, places)
	for n := c.head; n < c.tail; n++ {
		*c.at(n) = old[n&(len(old)-1)]
	}
	c.buckets = nil
}

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

// second says whether the packet is a copy of one that another tap point saw, and returns the number of the
// sighting of that. A packet that is none is queued; remember tells where it was counted.
func (c *copies) second(t *taps, r *ref, p *packet.Packet, delay int64) (sighted int, copied bool) {
	c.asked = r.tap.depth > 0
	if !c.asked {
		return 0, false // it came plain: there is but one such tap point
	}
	id := identity(r, p)
	c.active = c.active || t.depth[r.tap.depth] > 1
	if c.active {
		c.link()
		found := -1
		for n := *c.bucket(id) - 1; n >= c.head; {
			g := c.at(n)
			if g.identity == id && g.depth == r.tap.depth && abs(p.Time-g.time) <= delay && !g.saw(r.tap.index) {
				found = n // the earliest that fits
			}
			n = g.before
		}
		if found >= 0 {
			g := c.at(found)
			g.taps[g.ntaps] = r.tap.index
			g.ntaps++
			return found, true
		}
	}
	c.push(sighting{identity: id, time: p.Time, taps: [7]uint16{r.tap.index}, ntaps: 1, depth: r.tap.depth})
	return 0, false
}

// remember says in which session the packet was counted that second was last asked about.
func (c *copies) remember(s *Session) {
	if c.asked {
		c.at(c.tail - 1).session = s.number
	}
}

// rememberFragment says to which datagram the fragment belongs that second was last asked about.
func (c *copies) rememberFragment(d *datagram) {
	if c.asked {
		c.datagrams[c.tail-1] = d
	}
}

// copied counts a second copy of the packet of a sighting.
func (f *Fold) copied(sighted int, r *ref, p *packet.Packet) {
	f.counts[SecondCopies]++
	var s *Session
	if d := f.copies.datagrams[sighted]; d != nil {
		if s = d.session; s == nil {
			d.copies++
			d.met(r)
		}
	} else {
		if r.shared {
			r, _, _ = quoted(r, p)
		}
		s = f.table.newest(r.hash, &r.key)
		for number := f.copies.at(sighted).session; s != nil && s.number != number; {
			s = s.older
		}
	}
	if s != nil && !s.gone {
		s.own().duplicates++
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

// link enters into the buckets what was only queued.
func (c *copies) link() {
	if c.buckets == nil {
		c.buckets = make([]int, len(c.ring))
		c.linked = c.head
	}
	for n := max(c.linked, c.head); n < c.tail; n++ {
		g := c.at(n)
		b := c.bucket(g.identity)
		g.before, *b = *b-1, n+1
	}
	c.linked = c.tail
}

func (c *copies) bucket(identity uint64) *int { return &c.buckets[identity&uint64(len(c.buckets)-1)] }

// forget drops what was seen before time t.
func (c *copies) forget(t int64) {
	for c.head < c.tail && c.at(c.head).time < t {
		if len(c.datagrams) > 0 {
			delete(c.datagrams, c.head)
		}
		c.head++
	}
	places := len(c.ring)
	for places > minRing && c.tail-c.head < places/16 {
		places /= 4 // a burst is over
	}
	if places < len(c.ring) {
		c.resize(max(places, minRing))
	}
}

func abs(v int64) int64 {
	if v < 0 {
		return -v
	}
	return v
}
