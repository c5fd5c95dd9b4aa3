package fold

import (
	"slices"

	"github.com/tapweave/tapweave/proto/batch"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/session"
)

// merger holds the batches whose packets wait for the watermark, and gives these out in the order of time.
type merger struct {
	heap    []*cursor // by time of the next packet
	free    []*cursor
	packets []*batch.Packets // to be decoded into
	waiting int
	group   []item
	done    []*cursor // walked through, their last packets being folded
	order   orderer
}

// cursor walks through one batch in the order of time.
type cursor struct {
	batch  *batch.Packets
	refs   []ref
	next   int
	time   int64 // of the next packet
	offset int64
}

// ref is what the fold keeps of a flow while the flow's batch waits.
type ref struct {
	flow   *packet.Flow
	key    session.Key
	hash   uint64
	s      *Session // newest session of the key when last looked at
	tap    tap
	name   uint32 // collector
	side   uint8  // of the sender: 0 low, 1 high
	shared bool   // an ICMP error: its session follows from what it quotes
	serial uint64
}

// item is one packet with its flow.
type item struct {
	p *packet.Packet
	r *ref
}

func (m *merger) take() *batch.Packets {
	if n := len(m.packets); n > 0 {
		p := m.packets[n-1]
		m.packets = m.packets[:n-1]
		return p
	}
	return new(batch.Packets)
}

// give returns what take gave out. A few are kept for reuse.
func (m *merger) give(p *batch.Packets) {
	if len(m.packets) < 4 {
		m.packets = append(m.packets, p)
	}
}

// add takes in a batch of the collector with index name. Packets behind the watermark are folded at once.
func (m *merger) add(f *Fold, b *batch.Packets, name uint32) {
	if len(b.Packets) == 0 {
		m.give(b)
		return
	}
	if !b.Sorted {
		slices.SortStableFunc(b.Packets, func(a, c packet.Packet) int { return compare(a.Time, c.Time) })
	}
	var c *cursor
	if n := len(m.free); n > 0 {
		c = m.free[n-1]
		m.free = m.free[:n-1]
	} else {
		c = new(cursor)
	}
	c.batch, c.next, c.time, c.offset = b, 0, b.Packets[0].Time, f.offset
	c.refs = slices.Grow(c.refs[:0], len(b.Flows))[:len(b.Flows)]
	for i := range b.Flows {
		f.refer(&c.refs[i], &b.Flows[i], name)
	}
	m.waiting += len(b.Packets)
	for c.time < f.watermark {
		p := &b.Packets[c.next]
		if f.watermark-p.Time > int64(f.set.LateLimit) {
			f.counts[TooLate]++
		} else {
			f.counts[Late]++
			f.packet(&c.refs[p.Flow], p, true)
		}
		if m.waiting--; !c.step() {
			m.drop(c)
			return
		}
	}
	m.push(c)
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
	m.give(c.batch)
	clear(c.refs) // or they would keep sessions alive
	c.batch = nil
	if len(m.free) < 64 {
		m.free = append(m.free, c)
	}
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

func (m *merger) pop() {
	c := m.heap[0]
	n := len(m.heap) - 1
	m.heap[0] = m.heap[n]
	m.heap[n] = nil
	m.heap = m.heap[:n]
	if n > 0 {
		m.fix()
	}
	m.drop(c)
}

// run folds all packets older than w.
func (m *merger) run(f *Fold, w int64) {
	for len(m.heap) > 0 && m.heap[0].time < w {
		t := m.heap[0].time
		f.elapse(t)
		c := m.heap[0]
		if !m.tied(c, t) {
			p := &c.batch.Packets[c.next]
			f.packet(&c.refs[p.Flow], p, false)
			m.waiting--
			if c.step() {
				m.fix()
			} else {
				m.pop()
			}
			continue
		}
		m.runGroup(f, t)
	}
}

// tied says whether another packet has the time of c's next one.
func (m *merger) tied(c *cursor, t int64) bool {
	if n := c.next + 1; n < len(c.batch.Packets) && c.batch.Packets[n].Time == t {
		return true
	}
	for _, i := range [2]int{1, 2} {
		if i < len(m.heap) && m.heap[i].time == t {
			return true
		}
	}
	return false
}

// runGroup folds all packets of time t, in causal order.
func (m *merger) runGroup(f *Fold, t int64) {
	group := m.group[:0]
	for len(m.heap) > 0 && m.heap[0].time == t {
		c := m.heap[0]
		for more := true; more && c.time == t; {
			p := &c.batch.Packets[c.next]
			group = append(group, item{p, &c.refs[p.Flow]})
			more = c.step()
			if !more {
				// Its packets are still to be folded: it is dropped behind them.
				m.done = append(m.done, c)
				n := len(m.heap) - 1
				m.heap[0] = m.heap[n]
				m.heap = m.heap[:n]
			}
		}
		if len(m.heap) > 0 {
			m.fix()
		}
	}
	for _, it := range m.order.sort(group) {
		f.packet(it.r, it.p, false)
	}
	m.waiting -= len(group)
	clear(group)
	m.group = group[:0]
	for _, c := range m.done {
		m.drop(c)
	}
	m.done = m.done[:0]
}

// oldest is the least offset of a record that waits, or next where none does.
func (m *merger) oldest(next int64) int64 {
	for _, c := range m.heap {
		next = min(next, c.offset)
	}
	for _, c := range m.done {
		next = min(next, c.offset)
	}
	return next
}

// newest is the time just behind the last packet that waits, or w where none does.
func (m *merger) newest(w int64) int64 {
	for _, c := range m.heap {
		w = max(w, c.batch.Packets[len(c.batch.Packets)-1].Time+1)
	}
	return w
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
