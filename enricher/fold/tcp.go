package fold

import (
	"math"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/packet"
)

// sequence is what is known of the sequence numbers that one side of a TCP session has used.
//
// Numbers are unwrapped to 64 bits around the highest seen. What was seen lies between first and next, except
// for the holes. SYN and FIN occupy a number each (RFC 9293, 3.4) and are no payload.
type sequence struct {
	// Before any was seen, first is the sequence number of the last packet, as it occupied none.
	first, next int64
	*flaws      // see own

	sampled uint64 // newest entry in the payload log

	ack              uint32 // highest acknowledgement sent
	isn              uint32
	window           uint32 // largest advertised, scaled
	lastFIN, lastRST uint32 // sequence numbers: behind the last FIN's payload, of the last RST
	scale            uint8
	flags            uint8
	facts            facts
}

// flaws are what most sides do not have.
type flaws struct {
	holes  []stretch
	missed uint64 // holes given up: before a jump, or because there were too many

	retransmits, outOfOrder, zeroWindows, overlap uint32

	again, noWindows, gaps uint32 // as history counts them
}

// flawless is what all sides without a flaw share. It is never written to.
var flawless flaws

// own returns the side's flaws to be written to.
func (q *sequence) own() *flaws {
	if q.flaws == &flawless {
		q.flaws = new(flaws)
	}
	return q.flaws
}

// stretch is of sequence numbers, or of bytes of a datagram: from the first to the one behind the last.
type stretch struct{ from, to int64 }

// facts about a side of a TCP session.
type facts uint8

const (
	tracked    facts = 1 << iota // first and next hold
	spoke                        // sent a packet that counts in the state
	acked                        // ack holds
	sentSYN                      // without ACK
	sentSYNACK                   //
	sentFIN                      //
	sentRST                      // a valid one
)

func (q *sequence) has(f facts) bool { return q.facts&f != 0 }

const (
	// maxJump is the largest distance between sequence numbers that is taken for a hole: the largest window
	// (RFC 7323, 2.3). Beyond it the numbers have nothing to do with those before.
	maxJump = 1 << 30
	// maxHoles bounds the memory of a side.
	maxHoles = 256
	// smallWindow is the window assumed where none was seen or only a smaller one.
	smallWindow = 1 << 16
)

// unwrap returns the 64-bit number that is nearest to the highest seen.
func (q *sequence) unwrap(seq uint32) int64 {
	return q.next + int64(int32(seq-uint32(q.next)))
}

// segment takes in the sequence numbers of a packet and returns how many bytes of payload are new. The new numbers
// are appended to fresh, if it is not nil.
func (q *sequence) segment(p *packet.Packet, fresh *[]stretch) (payload uint64) {
	n := span(p)
	if n == 0 {
		q.at(p.Seq)
		return 0
	}
	if !q.has(tracked) {
		q.start(p, n, fresh)
		return uint64(p.Payload)
	}
	from := q.unwrap(p.Seq)
	if d := from - q.next; d > maxJump || d < -maxJump || p.Flags&packet.SYN != 0 && q.has(sentSYN|sentSYNACK) && p.Seq != q.isn {
		if len(q.holes) > 0 {
			q.missed += q.missing()
			q.holes = q.holes[:0]
		}
		q.start(p, n, fresh)
		return uint64(p.Payload)
	}
	to := from + n
	before := q.next
	var seen int64   // for the first time
	ends := int64(0) // of the new numbers, those of SYN and FIN
	if p.Flags&packet.SYN != 0 && !q.covers(from) {
		ends++
	}
	if p.Flags&packet.FIN != 0 && !q.covers(to-1) {
		ends++
	}
	if to > q.next {
		if from > q.next {
			q.open(stretch{q.next, from})
		}
		seen += to - max(from, q.next)
		note(fresh, max(from, q.next), to)
		q.next = to
	}
	filled := int64(0)
	if from < q.first {
		filled += min(to, q.first) - from
		note(fresh, from, min(to, q.first))
		if to < q.first {
			q.open(stretch{to, q.first})
		}
		q.first = from
	}
	if len(q.holes) > 0 && from < before {
		filled += q.fill(from, min(to, before), fresh)
	}
	seen += filled
	switch {
	case seen == 0:
		// RFC 9293, 3.8.4: a keep-alive has the number just below the next, and at most one byte.
		if p.Flags&(packet.SYN|packet.FIN) != 0 || p.Payload > 1 || from != before-1 {
			q.own().retransmits++
		}
	case filled > 0:
		q.own().outOfOrder++
	}
	return uint64(seen - ends)
}

// note appends a stretch to a list, if there is one.
func note(list *[]stretch, from, to int64) {
	if list != nil {
		*list = append(*list, stretch{from, to})
	}
}

// at notes the number of a packet that occupies none.
func (q *sequence) at(seq uint32) {
	if !q.has(tracked) {
		q.first = int64(seq)
	}
}

func (q *sequence) start(p *packet.Packet, n int64, fresh *[]stretch) {
	q.facts |= tracked
	q.first = int64(p.Seq) + 1<<32 // so that what lies before stays positive
	q.next = q.first + n
	note(fresh, q.first, q.next)
}

// covers says whether a number has been seen.
func (q *sequence) covers(n int64) bool {
	if n < q.first || n >= q.next {
		return false
	}
	for _, h := range q.holes {
		if h.from <= n && n < h.to {
			return false
		}
	}
	return true
}

// open adds a hole, which lies beyond or before all others.
func (q *sequence) open(h stretch) {
	q.own()
	if len(q.holes) == maxHoles {
		q.missed += uint64(q.holes[0].to - q.holes[0].from)
		q.holes = append(q.holes[:0], q.holes[1:]...)
	}
	if len(q.holes) > 0 && h.to <= q.holes[0].from {
		q.holes = append(q.holes, stretch{})
		copy(q.holes[1:], q.holes)
		q.holes[0] = h
		return
	}
	q.holes = append(q.holes, h)
}

// fill closes what of the holes lies in [from, to) and returns how much that was.
func (q *sequence) fill(from, to int64, fresh *[]stretch) (filled int64) {
	kept := q.holes[:0]
	var split *stretch
	for _, h := range q.holes {
		a, b := max(h.from, from), min(h.to, to)
		if a >= b {
			kept = append(kept, h)
			continue
		}
		filled += b - a
		note(fresh, a, b)
		switch {
		case h.from < a && b < h.to:
			kept = append(kept, stretch{h.from, a})
			split = &stretch{b, h.to} // only one hole can be split: [from, to) lies inside it
		case h.from < a:
			kept = append(kept, stretch{h.from, a})
		case b < h.to:
			kept = append(kept, stretch{b, h.to})
		}
	}
	q.holes = kept
	if split != nil {
		i := len(kept)
		for i > 0 && kept[i-1].from > split.from {
			i--
		}
		q.holes = append(q.holes, stretch{})
		copy(q.holes[i+1:], q.holes[i:])
		q.holes[i] = *split
	}
	return filled
}

// missing is how many numbers between the first and the last seen were never seen.
func (q *sequence) missing() (n uint64) {
	for _, h := range q.holes {
		n += uint64(h.to - h.from)
	}
	return n
}

// tcp finds the session of a TCP packet and counts the packet there.
func (f *Fold) tcp(s *Session, r *ref, p *packet.Packet, fr frames, late bool) *Session {
	if late {
		s = s.at(p.Time)
		for n := s; n != nil; n = n.newer {
			if n.fits(r.side, p) { // what began n may be late too
				s = n
				break
			}
		}
	}
	if s != nil && s.held != nil && s.takesUp(r, p) {
		s = f.reuse(s)
	}
	switch {
	case s == nil:
		s = f.begin(r, p)
	case s.reason == closeFIN || s.reason == closeRST:
		if f.afterClose(s, r, p) {
			break
		}
		if o := s.earlier(f, r, p); o != nil {
			s = o
			break
		}
		s = f.begin(r, p)
	case f.over(s, p.Time, late):
		s = f.begin(r, p)
	case p.Flags&packet.SYN != 0 && s.renumbers(r.side, p):
		if s.ends[1-r.side].packets == 0 {
			f.close(s, closeReuse)
			s = f.begin(r, p)
			break
		}
		if s.hold(r, p, fr) {
			return s
		}
	case s.older != nil && !s.fits(r.side, p):
		if o := s.earlier(f, r, p); o != nil {
			s = o
		}
	}
	f.countTCP(s, r, p, fr, late)
	return s
}

// afterClose says whether a packet still belongs to a session that FIN or RST closed: in the silence before it
// is final all do, but for a SYN with a new initial sequence number; then what fits its sequence numbers.
func (f *Fold) afterClose(s *Session, r *ref, p *packet.Packet) bool {
	if p.Flags&packet.SYN != 0 && s.numbersAnew(r.side, p) {
		return false
	}
	if p.Time <= s.last || !s.final && p.Time-s.last <= int64(f.set.FinalAfter) {
		return true // captured before it was final, however late it comes
	}
	finalAt := s.finalAt
	if !s.final {
		finalAt = s.last + int64(f.set.FinalAfter)
	}
	return p.Time-finalAt <= int64(f.set.Linger) && s.fits(r.side, p)
}

// earlier returns an older session of the key that the packet fits, if s is not it: one that FIN or RST closed
// and that still lingers.
func (s *Session) earlier(f *Fold, r *ref, p *packet.Packet) *Session {
	if p.Flags&packet.SYN != 0 || s.fits(r.side, p) {
		return nil
	}
	for o := s.older; o != nil; o = o.older {
		if (o.reason == closeFIN || o.reason == closeRST) && p.Time-o.last <= int64(f.set.FinalAfter+f.set.Linger) && o.knows(r.side, p) && o.fits(r.side, p) {
			return o
		}
	}
	return nil
}

// numbersAnew says whether a SYN or SYN-ACK bears another initial sequence number than its side's.
func (s *Session) numbersAnew(side uint8, p *packet.Packet) bool {
	q, o := &s.ends[side].sequence, &s.ends[1-side].sequence
	switch {
	case q.has(sentSYN | sentSYNACK):
		return p.Seq != q.isn
	case q.has(tracked):
		// It may come behind what its side sent next, and of that some may be missing.
		d := q.first - q.unwrap(p.Seq+1)
		return d < 0 || d > smallWindow
	case o.has(acked):
		// Nothing of this side was seen, but the other side has acknowledged some of it.
		d := int32(o.ack - p.Seq)
		return d < 1 || d > smallWindow
	case q.has(spoke):
		// Nothing of what it sent occupied a number.
		d := int32(uint32(q.first) - p.Seq)
		return d < 0 || d > smallWindow
	}
	// What answers a SYN acknowledges it: this RST ended something before it, if it did come before.
	return o.has(sentRST) && !o.has(sentSYN) && p.Time-s.last > settled
}

// renumbers says whether a SYN without ACK, in an open session, bears another initial sequence number.
func (s *Session) renumbers(side uint8, p *packet.Packet) bool {
	return p.Flags&packet.ACK == 0 && s.numbersAnew(side, p)
}

// heldSYN is a SYN with a new initial sequence number in an open session, with its repeats. It begins another
// session once the other side takes it up; else it was a packet of this one.
type heldSYN struct {
	side    uint8
	packets []heldPacket
}

type heldPacket struct {
	r  ref
	p  packet.Packet
	fr frames
}

// latest is the time of the session's last packet, a held one among them: until somebody takes it up, it belongs
// to the session.
func (s *Session) latest() int64 {
	t := s.last
	if s.held != nil {
		for i := range s.held.packets {
			t = max(t, s.held.packets[i].p.Time)
		}
	}
	return t
}

// maxHeld bounds the repeats that are held.
const maxHeld = 8

// hold keeps a SYN back, and says whether it did.
func (s *Session) hold(r *ref, p *packet.Packet, fr frames) bool {
	if s.held != nil && (s.held.side != r.side || s.held.packets[0].p.Seq != p.Seq) {
		s.fold.decline(s)
	}
	if s.held == nil {
		s.own().held = &heldSYN{side: r.side}
	}
	if len(s.held.packets) == maxHeld {
		return false
	}
	h := heldPacket{*r, *p, fr}
	flow := *r.flow // the batch will be gone
	h.r.flow, h.p.Data, h.p.Head = &flow, nil, nil
	s.held.packets = append(s.held.packets, h)
	return true
}

// takesUp says whether a packet shows that the held SYN was taken up: an answer to it, or its sender going on.
func (s *Session) takesUp(r *ref, p *packet.Packet) bool {
	isn := s.held.packets[0].p.Seq
	if r.side == s.held.side {
		return p.Flags&(packet.SYN|packet.RST) == 0 && p.Seq == isn+1
	}
	return p.Flags&packet.ACK != 0 && p.Ack == isn+1
}

// reuse closes s and begins the session of the SYN that s held.
func (f *Fold) reuse(s *Session) *Session {
	h := s.held
	s.own().held = nil
	f.close(s, closeReuse)
	var n *Session
	for i := range h.packets {
		q := &h.packets[i]
		if n == nil {
			n = f.begin(&q.r, &q.p)
		}
		f.countTCP(n, &q.r, &q.p, q.fr, false)
	}
	return n
}

// decline counts a held SYN, which nobody has taken up, in the session itself: in packets and bytes, not in
// state.
func (f *Fold) decline(s *Session) {
	if s.held == nil {
		return
	}
	h := s.held
	s.own().held = nil
	for i := range h.packets {
		q := &h.packets[i]
		s.account(&q.r, &q.p, q.fr, false)
	}
	s.dirty = true
}

// fits says whether a packet fits the sequence numbers of the session: it lies around those that its side has
// used or, where these are not known, acknowledges some that the other side has used.
func (s *Session) fits(side uint8, p *packet.Packet) bool {
	q, o := &s.ends[side].sequence, &s.ends[1-side].sequence
	window := int64(max(o.window, smallWindow))
	switch {
	case q.has(tracked):
		n := q.unwrap(p.Seq)
		return n >= q.first-window && n <= q.next+window
	case q.has(spoke):
		d := int64(int32(p.Seq - uint32(q.first)))
		return d >= -window && d <= window
	case p.Flags&packet.ACK != 0 && o.has(tracked):
		n := o.unwrap(p.Ack)
		return n >= o.first && n <= o.next+window
	}
	return true
}

// knows says whether the session has seen anything that a packet can fit or not fit.
func (s *Session) knows(side uint8, p *packet.Packet) bool {
	q, o := &s.ends[side].sequence, &s.ends[1-side].sequence
	return q.has(tracked|spoke) || p.Flags&packet.ACK != 0 && o.has(tracked)
}

// validReset says whether the other side would take the RST for one (RFC 9293, 3.5.3): it lies in the window,
// or it acknowledges what a side that has not been answered yet has sent.
func (s *Session) validReset(side uint8, p *packet.Packet) bool {
	q, o := &s.ends[side].sequence, &s.ends[1-side].sequence
	window := int64(max(o.window, smallWindow))
	switch {
	case q.has(tracked):
		n := q.unwrap(p.Seq)
		return n >= q.next-window && n <= q.next+window
	case p.Flags&packet.ACK != 0 && o.has(tracked):
		n := o.unwrap(p.Ack)
		return n >= o.first && n <= o.next+window // what it acknowledges may not have been seen
	case o.has(acked):
		d := int64(int32(p.Seq - o.ack))
		return d >= -window && d <= window
	}
	return true
}

// countTCP counts a packet in its session.
func (f *Fold) countTCP(s *Session, r *ref, p *packet.Packet, fr frames, late bool) {
	s.account(r, p, fr, late)
	side := r.side
	q, o := &s.ends[side].sequence, &s.ends[1-side].sequence
	if p.Flags&packet.RST != 0 {
		if !s.validReset(side, p) {
			return
		}
		s.noteFlags(q, p, side)
		q.flags |= p.Flags
		q.facts |= spoke | sentRST
		q.at(p.Seq)
		if p.Flags&packet.ACK != 0 && !q.has(acked) {
			q.ack = p.Ack
			q.facts |= acked
		}
		f.closed(s, closeRST)
		return
	}
	// In a simultaneous open the SYN-ACK bears the number of the SYN before it, and is no repeat (RFC 9293, 3.5).
	answers := p.Flags&(packet.SYN|packet.ACK) == packet.SYN|packet.ACK && q.has(sentSYN) && !q.has(sentSYNACK)
	s.noteFlags(q, p, side)
	if p.Flags&packet.SYN != 0 {
		countSYN(s, q, o, r, p)
	} else {
		s.handshake.facts |= sawMore
	}
	if p.Window == 0 && !o.has(sentFIN) && !q.has(sentRST) {
		s.scaled(eventZeroWindow, side, &q.own().noWindows)
	}
	q.flags |= p.Flags
	before := q.retransmits
	known, next := q.has(tracked), q.next
	var fresh *[]stretch
	if len(p.Data) > 0 {
		f.fresh = f.fresh[:0]
		fresh = &f.fresh
	}
	payload := q.segment(p, fresh)
	if p.Payload > 0 && known && q.next == next && !q.has(sentRST) {
		s.scaled(eventAgain, side, &q.own().again)
	}
	if fresh != nil {
		from := q.unwrap(p.Seq)
		if p.Flags&packet.SYN != 0 {
			from++
		}
		f.payload.compare(q, from, p.Data, payload == uint64(p.Payload), f.fresh, f.set.PayloadLog)
	}
	if p.Payload > 0 && (len(p.Data) > 0 || s.app != nil) {
		f.readSegment(s, side, p)
	}
	s.pay(side, p.Time, payload)
	q.facts |= spoke
	if answers && p.Seq == q.isn && q.retransmits > before {
		q.retransmits = before
	}
	if p.Flags&packet.FIN != 0 {
		q.facts |= sentFIN
	}
	if p.Flags&packet.ACK != 0 {
		was, first := q.ack, !q.has(acked)
		if first || int32(p.Ack-was) > 0 {
			q.ack = p.Ack
			q.facts |= acked
			if n := o.unseen(was, p.Ack); n > 0 && !first && s.running() {
				for range n {
					s.scaled(eventGap, 1-side, &o.own().gaps)
				}
			}
		}
		s.handshake.ack(side, p)
	}
	if p.Flags&packet.SYN == 0 {
		q.window = max(q.window, q.scaled(o, p.Window))
		if p.Window == 0 && p.Flags&packet.FIN == 0 {
			q.own().zeroWindows++
		}
	} else {
		q.window = max(q.window, uint32(p.Window))
	}
	if p.Flags&packet.FIN != 0 && o.has(sentFIN) {
		f.closed(s, closeFIN)
	}
}

// running says whether both sides have opened the connection, and none has aborted it.
func (s *Session) running() bool {
	src := s.orient()
	a, b := &s.ends[src].sequence, &s.ends[1-src].sequence
	return b.has(sentSYN|sentSYNACK) && a.has(sentSYN|sentSYNACK|acked) && !a.has(sentRST) && !b.has(sentRST)
}

// unseen is how many stretches of the numbers from one acknowledgement to the next no packet had.
func (q *sequence) unseen(from, to uint32) (n int) {
	switch {
	case !q.has(spoke):
		return 0
	case !q.has(tracked):
		return 1
	}
	a, b := q.unwrap(from), q.unwrap(to)
	for _, h := range q.holes {
		if h.from < b && h.to > a {
			n++
		}
	}
	if b > q.next && !q.has(sentFIN) {
		n++
	}
	return n
}

// scaled applies the window scale, which both SYNs must have offered (RFC 7323, 2.2). Where a SYN was not
// seen the largest scale is not assumed.
func (q *sequence) scaled(o *sequence, window uint16) uint32 {
	if q.scale == 0 || o.scale == 0 {
		return uint32(window)
	}
	return uint32(window) << min(q.scale-1, 14)
}

// countSYN takes in a SYN or SYN-ACK. sequence.scale holds the shift count plus one.
func countSYN(s *Session, q, o *sequence, r *ref, p *packet.Packet) {
	if p.Flags&packet.ACK == 0 {
		s.handshake.syn(r.side, p)
	} else if d := p.Ack - o.isn; !o.has(sentSYN) || d >= 1 && d <= smallWindow {
		// One that acknowledges something else does not answer the SYN (it may acknowledge data in the SYN, RFC 7413).
		s.handshake.synACK(r.side, p)
	}
	if !q.has(sentSYN | sentSYNACK) {
		q.isn = p.Seq
		if p.WindowScale != packet.NoWindowScale {
			q.scale = min(p.WindowScale, 14) + 1
		}
	}
	if p.Flags&packet.ACK == 0 {
		q.facts |= sentSYN
	} else {
		q.facts |= sentSYNACK
	}
}

// closed notes what closed an open session. Its first version leaves at once if none has.
func (f *Fold) closed(s *Session, why closeReason) {
	if s.reason != open {
		return
	}
	f.decline(s)
	s.reason = why
	if s.version == 0 {
		f.emit(s)
	}
	f.rearm(s)
}

// halfOpen says whether nothing but SYN, SYN-ACK and RST has been seen, and a SYN was.
func (s *Session) halfOpen() bool {
	a, b := &s.ends[low].sequence, &s.ends[high].sequence
	return (a.has(sentSYN) || b.has(sentSYN)) && !s.handshake.has(sawMore)
}

func (s *Session) tcpRow(d *columns.Session, a, b *sequence) {
	d.SrcMissedBytes, d.DstMissedBytes = a.missed+a.missing(), b.missed+b.missing()
	d.SrcRetransmits, d.DstRetransmits = uint64(a.retransmits), uint64(b.retransmits)
	d.SrcOutOfOrder, d.DstOutOfOrder = uint64(a.outOfOrder), uint64(b.outOfOrder)
	d.SrcZeroWindows, d.DstZeroWindows = uint64(a.zeroWindows), uint64(b.zeroWindows)
	d.SrcOverlapBytes, d.DstOverlapBytes = uint64(a.overlap), uint64(b.overlap)
	d.SrcTCPFlags, d.DstTCPFlags = a.flags, b.flags
}

// handshake holds the times of the three packets that open a connection.
type handshake struct {
	synAt, synACKAt, ackAt int64
	isn                    uint32 // of the SYN-ACK
	from                   uint8  // sender of the first SYN
	facts                  handshakeFacts
}

type handshakeFacts uint8

const (
	sawSYN handshakeFacts = 1 << iota
	sawSYNACK
	sawACK
	repeatedSYN    // before the SYN-ACK: which one it answers is not known
	repeatedSYNACK // before the ACK
	sawMore        // anything but SYN, SYN-ACK and RST
)

func (h *handshake) has(f handshakeFacts) bool { return h.facts&f != 0 }

func (h *handshake) syn(side uint8, p *packet.Packet) {
	switch {
	case !h.has(sawSYN):
		h.from, h.synAt = side, p.Time
		h.facts |= sawSYN
	case side == h.from && !h.has(sawSYNACK):
		h.facts |= repeatedSYN
	}
}

func (h *handshake) synACK(side uint8, p *packet.Packet) {
	switch {
	case !h.has(sawSYNACK):
		h.synACKAt, h.isn = p.Time, p.Seq
		h.facts |= sawSYNACK
		if !h.has(sawSYN) {
			h.from = 1 - side
		}
	case !h.has(sawACK):
		h.facts |= repeatedSYNACK
	}
}

// ack takes in a packet with ACK; the first of the client that acknowledges the SYN-ACK ends the handshake.
func (h *handshake) ack(side uint8, p *packet.Packet) {
	if h.has(sawSYNACK) && !h.has(sawACK) && side == h.from && p.Flags&packet.SYN == 0 && int32(p.Ack-h.isn) > 0 {
		h.ackAt = p.Time
		h.facts |= sawACK
	}
}

// roundTrips returns SYN to ACK, SYN-ACK to ACK and SYN to SYN-ACK in seconds, NaN where not seen or ambiguous.
func (h *handshake) roundTrips() (whole, src, dst float64) {
	whole, src, dst = math.NaN(), math.NaN(), math.NaN()
	syn, synACK, ack := h.has(sawSYN), h.has(sawSYNACK), h.has(sawACK)
	if syn && synACK && !h.has(repeatedSYN) && h.synACKAt >= h.synAt {
		dst = float64(h.synACKAt-h.synAt) / 1e9
	}
	if synACK && ack && !h.has(repeatedSYNACK) && h.ackAt >= h.synACKAt {
		src = float64(h.ackAt-h.synACKAt) / 1e9
	}
	if syn && synACK && ack && !h.has(repeatedSYN|repeatedSYNACK) && h.ackAt >= h.synAt {
		whole = float64(h.ackAt-h.synAt) / 1e9
	}
	return whole, src, dst
}
