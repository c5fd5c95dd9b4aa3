package fold

import (
	"fmt"
	"math"
	"slices"

	"github.com/tapweave/tapweave/proto/batch"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/session"
)

// merger holds the batches whose packets wait for the watermark, and gives these out in the order of time.
//
// A batch waits as it came, and is decoded when the watermark comes to its oldest packet: what waits is small,
// and what is decoded is used while the processor still has it at hand.
type merger struct {
	heap    []*cursor // by time of the next packet
	free    []*decoded
	waiting int // bytes of the batches, and of what is kept beside each
	group   []item
	done    []*cursor // walked through, their last packets being folded
	broken  []error
	order   orderer
}

// cursor walks through one batch in the order of time.
type cursor struct {
	columns  []byte // encoded packets
	*decoded        // nil while the batch waits
	next     int
	time     int64 // of the next packet; while the batch is not decoded that of the oldest, as the batch says
	offset   int64
	latest   int64  // packets captured later claim a time that had not come when the batch was sent
	name     uint32 // collector
}

// cursorBytes is what a batch that waits takes beside its columns: batches may be small, and many.
const cursorBytes = 128

// decoded is a batch that is walked through. There are few at a time, and they are used again: they stay in the
// processor's caches.
type decoded struct {
	batch batch.Packets
	refs  []ref
}

// ref is what the fold keeps of a flow while the flow's batch waits.
type ref struct {
	flow    *packet.Flow
	key     session.Key
	hash    uint64
	s       *Session // newest session of the key when last looked at
	tap     tap
	name    uint32 // collector
	side    uint8  // of the sender: 0 low, 1 high
	shared  bool   // an ICMP error: its session follows from what it quotes
	strange bool   // its addresses are of another partition
	serial  uint64
	met     *Session // the flow is in its path already
	counted *Session // and so are its VLANs
}

// item is one packet with its flow.
type item struct {
	p *packet.Packet
	r *ref
}

// add takes in a batch of producer p. Packets behind the watermark are folded at once, and so are all of a
// producer whose clock is off.
func (m *merger) add(f *Fold, b *pb.PacketBatch, p *producer, latest int64) {
	c := &cursor{columns: b.Columns, time: min(b.Oldest, latest), offset: f.offset, latest: latest, name: p.name}
	m.waiting += len(c.columns) + cursorBytes
	if p.skewed && f.watermark != math.MinInt64 {
		m.foldNow(f, c)
		return
	}
	if c.time < f.watermark {
		if !m.decode(f, c) {
			return
		}
		for c.time < f.watermark {
			q := &c.batch.Packets[c.next]
			if q.Time < f.watermark-int64(f.set.LateLimit) {
				f.counts[TooLate]++
			} else {
				f.counts[Late]++
				f.packet(&c.refs[q.Flow], q, true)
			}
			if !c.step() {
				m.drop(c)
				return
			}
		}
	}
	m.push(c)
}

// foldNow folds what is left of a batch whose times are not believed, with the watermark as its time.
func (m *merger) foldNow(f *Fold, c *cursor) {
	if c.decoded == nil && !m.decode(f, c) {
		return
	}
	for more := true; more; more = c.step() {
		p := &c.batch.Packets[c.next]
		p.Time = f.watermark
		f.counts[Late]++
		f.packet(&c.refs[p.Flow], p, true)
	}
	m.drop(c)
}

// distrust folds what waits of a collector whose clock has turned out to be off.
func (m *merger) distrust(f *Fold, name uint32) {
	if f.watermark == math.MinInt64 {
		return
	}
	var out []*cursor
	kept := m.heap[:0]
	for _, c := range m.heap {
		if c.name == name {
			out = append(out, c)
		} else {
			kept = append(kept, c)
		}
	}
	clear(m.heap[len(kept):])
	m.heap = m.heap[:0]
	for _, c := range kept {
		m.push(c)
	}
	slices.SortFunc(out, func(a, b *cursor) int { return compare(a.offset, b.offset) })
	for _, c := range out {
		m.foldNow(f, c)
	}
}

// decode makes the packets of a batch ready to be walked through. A batch that does not decode, or holds a
// packet older than it says, is dropped.
func (m *merger) decode(f *Fold, c *cursor) bool {
	if n := len(m.free); n > 0 {
		c.decoded = m.free[n-1]
		m.free = m.free[:n-1]
	} else {
		c.decoded = new(decoded)
	}
	future, err := c.read()
	if err == nil && (len(c.batch.Packets) == 0 || c.batch.Packets[0].Time < max(0, c.time)) {
		err = fmt.Errorf("%w: no packet, or one older than the batch says", batch.ErrCorrupt)
	}
	if err != nil {
		f.counts[Undecodable]++
		m.broken = append(m.broken, &BatchError{c.offset, err})
		m.drop(c)
		return false
	}
	f.counts[InFuture] += future
	c.time = c.batch.Packets[0].Time
	c.refs = slices.Grow(c.refs[:0], len(c.batch.Flows))[:len(c.batch.Flows)]
	for i := range c.batch.Flows {
		f.refer(&c.refs[i], &c.batch.Flows[i], c.name)
	}
	f.table.find(c.refs)
	return true
}

// read decodes the batch, sorts its packets by time, and bounds times that had not come. It returns how many.
func (c *cursor) read() (future uint64, err error) {
	if err := c.batch.Decode(c.columns); err != nil {
		return 0, err
	}
	ps := c.batch.Packets
	if !c.batch.Sorted {
		slices.SortStableFunc(ps, func(a, b packet.Packet) int { return compare(a.Time, b.Time) })
	}
	for i := len(ps) - 1; i >= 0 && ps[i].Time > c.latest; i-- {
		ps[i].Time = c.latest
		future++
	}
	return future, nil
}

// step goes to the next packet and says whether there is one.
func (c *cursor) step() bool {
	c.next++
	if c.next == len(c.batch.Packets) {
		return false
	}
	c.time = c.batch.Packets[c.next].Time
	return true
}

func (m *merger) drop(c *cursor) {
	m.waiting -= len(c.columns) + cursorBytes
	c.columns = nil
	if len(m.free) < 2 {
		m.free = append(m.free, c.decoded)
	}
	c.decoded = nil
}

func (m *merger) push(c *cursor) {
	m.heap = append(m.heap, c)
	i := len(m.heap) - 1
	for i > 0 {
		up := (i - 1) / 2
		if m.heap[up].time <= c.time {
			break
		}
		m.heap[i] = m.heap[up]
		i = up
	}
	m.heap[i] = c
}

// fix restores the heap after its first cursor has moved on.
func (m *merger) fix() {
	h := m.heap
	c, i := h[0], 0
	for {
		d := 2*i + 1
		if d >= len(h) {
			break
		}
		if d+1 < len(h) && h[d+1].time < h[d].time {
			d++
		}
		if c.time <= h[d].time {
			break
		}
		h[i] = h[d]
		i = d
	}
	h[i] = c
}

// pop takes the first cursor off the heap.
func (m *merger) pop() {
	n := len(m.heap) - 1
	m.heap[0] = m.heap[n]
	m.heap[n] = nil
	m.heap = m.heap[:n]
	if n > 0 {
		m.fix()
	}
}

// first returns the first cursor, decoded, if its next packet is older than w.
func (m *merger) first(f *Fold, w int64) *cursor {
	for len(m.heap) > 0 && m.heap[0].time < w {
		c := m.heap[0]
		if c.decoded != nil {
			return c
		}
		if m.decode(f, c) {
			m.fix()
		} else {
			m.pop()
		}
	}
	return nil
}

// run folds all packets older than w.
func (m *merger) run(f *Fold, w int64) {
	for c := m.first(f, w); c != nil; c = m.first(f, w) {
		f.elapse(c.time)
		if m.tied(c) {
			m.runGroup(f, c.time)
			continue
		}
		p := &c.batch.Packets[c.next]
		f.packet(&c.refs[p.Flow], p, false)
		if c.step() {
			m.fix()
		} else {
			m.pop()
			m.drop(c)
		}
	}
}

// tied says whether another packet may have the time of the first cursor's next one.
func (m *merger) tied(c *cursor) bool {
	if n := c.next + 1; n < len(c.batch.Packets) && c.batch.Packets[n].Time == c.time {
		return true
	}
	for _, o := range m.heap[min(1, len(m.heap)):min(3, len(m.heap))] {
		if o.time == c.time {
			return true
		}
	}
	return false
}

// runGroup folds all packets of time t, in causal order.
func (m *merger) runGroup(f *Fold, t int64) {
	group := m.group[:0]
	for c := m.first(f, t+1); c != nil; c = m.first(f, t+1) {
		more := true
		for more && c.time == t {
			p := &c.batch.Packets[c.next]
			group = append(group, item{p, &c.refs[p.Flow]})
			more = c.step()
		}
		if more {
			m.fix()
		} else {
			// Its packets are still to be folded: it is dropped behind them.
			m.done = append(m.done, c)
			m.pop()
		}
	}
	for _, it := range m.order.sort(group) {
		f.packet(it.r, it.p, false)
	}
	clear(group)
	m.group = group[:0]
	for _, c := range m.done {
		m.drop(c)
	}
	m.done = m.done[:0]
}

func compare(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
