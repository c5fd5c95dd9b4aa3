package fold

import (
	"math"

	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/session"
)

// table finds the sessions of a key, and holds all sessions in the order of their creation.
type table struct {
	buckets     []*Session // newest session of each key, chained
	keys        int
	first, last *Session
	unanswered  *Session // all before it are answered
	count       int
	touched     int64 // of no meaning, see find
}

func (t *table) init() { t.buckets = make([]*Session, 1024) }

// newest returns the newest session of a key, nil if there is none.
func (t *table) newest(hash uint64, k *session.Key) *Session {
	for s := t.buckets[hash&uint64(len(t.buckets)-1)]; s != nil; s = s.chain {
		if s.hash == hash && s.key == *k {
			return s
		}
	}
	return nil
}

// find looks up the newest sessions of the flows of a batch, step by step for all of them: so the processor waits for
// the memory of many at a time, and has at hand what their packets change.
func (t *table) find(refs []ref) {
	for i := range refs {
		refs[i].s = t.buckets[refs[i].hash&uint64(len(t.buckets)-1)]
	}
	for i := range refs {
		r := &refs[i]
		for r.s != nil && (r.s.hash != r.hash || r.s.key != r.key) {
			r.s = r.s.chain
		}
	}
	for i := range refs {
		if s := refs[i].s; s != nil {
			t.touched += s.last + int64(s.ends[low].packets) + s.ends[low].firstAt + int64(s.ends[high].packets) + int64(s.handshake.facts) + int64(s.timer)
			if s.minutes != nil {
				t.touched += s.minutes.start
			}
		}
	}
}

// add makes s the newest session of its key; older is the one that was.
func (t *table) add(s, older *Session) {
	if older != nil {
		t.unchain(older)
		s.own().older, older.own().newer = older, s
	}
	t.chain(s)
	s.prev = t.last
	if t.last != nil {
		t.last.next = s
	} else {
		t.first = s
	}
	t.last = s
	if t.unanswered == nil {
		t.unanswered = s
	}
	t.count++
}

func (t *table) remove(s *Session) {
	if s.newer == nil {
		t.unchain(s)
		if s.older != nil {
			t.chain(s.older)
		}
	} else {
		s.newer.own().older = s.older
	}
	if s.older != nil {
		s.older.own().newer = s.newer
	}
	if t.unanswered == s {
		t.unanswered = s.next
	}
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		t.first = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	} else {
		t.last = s.prev
	}
	s.prev, s.next = nil, nil
	if s.extra != &plain {
		s.older, s.newer = nil, nil
	}
	t.count--
}

func (t *table) chain(s *Session) {
	if t.keys >= len(t.buckets) {
		old := t.buckets
		t.buckets = make([]*Session, 2*len(old))
		for _, b := range old {
			for b != nil {
				next := b.chain
				i := b.hash & uint64(len(t.buckets)-1)
				b.chain, t.buckets[i] = t.buckets[i], b
				b = next
			}
		}
	}
	i := s.hash & uint64(len(t.buckets)-1)
	s.chain, t.buckets[i] = t.buckets[i], s
	t.keys++
}

func (t *table) unchain(s *Session) {
	p := &t.buckets[s.hash&uint64(len(t.buckets)-1)]
	for *p != s {
		p = &(*p).chain
	}
	*p = s.chain
	s.chain = nil
	t.keys--
}

// timers holds the sessions by the time at which something is due for them.
type timers struct{ heap []timer }

type timer struct {
	due int64
	s   *Session
}

// before orders timers by time; those of the same time by what the sessions are, not by when they came.
func (a timer) before(b timer) bool {
	if a.due != b.due {
		return a.due < b.due
	}
	if a.s.created != b.s.created {
		return a.s.created < b.s.created
	}
	if x, y := a.s.ID(), b.s.ID(); x != y {
		return string(x[:]) < string(y[:])
	}
	return a.s.number < b.s.number // one was evicted, and another began at the same time
}

// due is the time of the first timer, math.MaxInt64 without any.
func (h *timers) due() int64 {
	if len(h.heap) == 0 {
		return math.MaxInt64
	}
	return h.heap[0].due
}

// set makes s due at t.
func (h *timers) set(s *Session, t int64) {
	if s.timer == 0 {
		h.heap = append(h.heap, timer{t, s})
		s.timer = int32(len(h.heap))
		h.up(len(h.heap) - 1)
		return
	}
	i := int(s.timer) - 1
	earlier := t < h.heap[i].due
	h.heap[i].due = t
	if earlier {
		h.up(i)
	} else {
		h.down(i)
	}
}

func (h *timers) remove(s *Session) {
	if s.timer == 0 {
		return
	}
	i, n := int(s.timer)-1, len(h.heap)-1
	s.timer = 0
	last := h.heap[n]
	h.heap[n] = timer{}
	h.heap = h.heap[:n]
	if i < n {
		h.heap[i] = last
		last.s.timer = int32(i + 1)
		h.up(i)
		h.down(int(last.s.timer) - 1)
	}
}

func (h *timers) up(i int) {
	x := h.heap[i]
	for i > 0 {
		p := (i - 1) / 4
		if !x.before(h.heap[p]) {
			break
		}
		h.heap[i] = h.heap[p]
		h.heap[i].s.timer = int32(i + 1)
		i = p
	}
	h.heap[i] = x
	x.s.timer = int32(i + 1)
}

func (h *timers) down(i int) {
	x := h.heap[i]
	for {
		best := -1
		for c := 4*i + 1; c <= 4*i+4 && c < len(h.heap); c++ {
			if best < 0 || h.heap[c].before(h.heap[best]) {
				best = c
			}
		}
		if best < 0 || !h.heap[best].before(x) {
			break
		}
		h.heap[i] = h.heap[best]
		h.heap[i].s.timer = int32(i + 1)
		i = best
	}
	h.heap[i] = x
	x.s.timer = int32(i + 1)
}

// refer fills in what the fold keeps of a flow of a batch.
func (f *Fold) refer(r *ref, fl *packet.Flow, name uint32) {
	f.serial++
	f.describe(r, fl, name)
	r.serial = f.serial
}

// describe is refer without a new serial number.
func (f *Fold) describe(r *ref, fl *packet.Flow, name uint32) {
	*r = ref{flow: fl, tap: f.taps.of(fl), name: name}
	if fl.Protocol == packet.ProtoICMP || fl.Protocol == packet.ProtoICMPv6 {
		r.shared = session.ICMPError(fl.Protocol == packet.ProtoICMPv6, uint8(fl.SrcPort))
	}
	tenant := fl.Tenant
	if tenant == "" {
		tenant = session.DefaultTenant
	}
	var low bool
	r.key, low = session.KeyOf(tenant, fl.Protocol, fl.Src, fl.SrcPort, fl.Dst, fl.DstPort, fl.ICMPID)
	r.hash = r.key.Hash()
	if !low {
		r.side = high
	}
	r.strange = session.Partition(tenant, &fl.Src, &fl.Dst, f.set.Partitions) != f.partition
}

// maxLength is the largest length in bytes that a packet may claim: what the segmentation of network cards
// joins is far below it.
const maxLength = 1 << 20

// sound says whether a packet may be folded, and counts it if not: it has to belong to the partition, and its
// lengths must fit each other. (That the payload is no longer than the packet is the codec's to check.)
func (f *Fold) sound(r *ref, p *packet.Packet) bool {
	if r.strange || r.shared {
		strange := r.strange
		if r.shared && len(p.Head) > 0 && p.Fragment == 0 {
			if src, dst, _, _, _, ok := packet.Quote(p.Head); ok {
				strange = session.Partition(r.key.Tenant, &src, &dst, f.set.Partitions) != f.partition
			}
		}
		if strange {
			f.counts[OtherPartition]++
			return false
		}
	}
	if p.Length > maxLength || len(p.Data) > int(p.Payload) || len(p.Head) > packet.HeadBytes ||
		p.Fragment != 0 && uint32(p.FragmentOffset)+p.Payload > math.MaxUint16 {
		f.counts[Inconsistent]++
		return false
	}
	return true
}

// packet folds one packet.
func (f *Fold) packet(r *ref, p *packet.Packet, late bool) {
	if !f.sound(r, p) {
		return
	}
	if sighted, copied := f.copies.second(&f.taps, r, p, int64(f.set.CopyDelay)); copied {
		f.copied(sighted, r, p)
		return
	}
	if p.Fragment != 0 {
		f.copies.rememberFragment(f.fragment(r, p))
		return
	}
	f.copies.remember(f.deliver(r, p, whole, late))
}

// frames says how a packet came: as how many, and since when.
type frames struct {
	n     uint64
	since int64 // time of the first, 0: the packet's own
}

var whole = frames{n: 1}

// deliver finds the session of a packet and counts the packet there.
func (f *Fold) deliver(r *ref, p *packet.Packet, fr frames, late bool) *Session {
	f.counts[Packets] += fr.n
	if r.shared {
		own, about, ok := quoted(r, p)
		if ok {
			f.quote(&about, p.Time)
		}
		r = own
	}
	s := r.s
	if s == nil || s.gone {
		s = f.table.newest(r.hash, &r.key)
	}
	for s != nil && s.newer != nil {
		s = s.newer
	}
	if r.key.Protocol == packet.ProtoTCP {
		s = f.tcp(s, r, p, fr, late)
	} else {
		s = f.conversation(s, r, p, late)
		s.account(r, p, fr, late)
		s.pay(r.side, p.Time, uint64(p.Payload))
		if r.key.Protocol == packet.ProtoUDP || r.key.Protocol == packet.ProtoUDPLite {
			s.once(eventData, r.side)
		}
		if len(p.Data) > 0 && r.key.Protocol == packet.ProtoUDP {
			f.readDatagram(s, r.side, p)
		}
	}
	r.s = s
	f.schedule(s, p.Time)
	if f.set.Packets {
		f.packetRow(s, r, p)
	}
	return s
}

// quoted returns the reference of the session that an ICMP error belongs to, and the key of the session that
// it is about, if what it quotes can be read.
func quoted(r *ref, p *packet.Packet) (own *ref, about session.Key, ok bool) {
	q := *r
	src, dst, protocol, srcPort, dstPort, ok := packet.Quote(p.Head)
	if ok {
		q.s, q.met, q.counted = nil, nil, nil
		q.key.Extra = session.PairHash(r.key.Tenant, &src, &dst)
		q.hash = q.key.Hash()
		about, _ = session.KeyOf(r.key.Tenant, protocol, src, srcPort, dst, dstPort, packet.QuoteICMPID(p.Head))
	}
	return &q, about, ok
}

// quote counts an ICMP error in the session that it is about.
func (f *Fold) quote(about *session.Key, t int64) {
	if s := f.table.newest(about.Hash(), about); s != nil {
		s.own().icmpErrors++
		f.schedule(s, t)
	} else {
		f.counts[QuotesUnmatched]++
	}
}

// conversation returns the session of a packet that is not TCP: the newest of the key, unless it has ended.
func (f *Fold) conversation(s *Session, r *ref, p *packet.Packet, late bool) *Session {
	if late {
		s = s.at(p.Time)
	}
	if s == nil || f.over(s, p.Time, late) {
		return f.begin(r, p)
	}
	return s
}

// at returns the session that a late packet of time t falls into: the newest that had begun, else the oldest.
func (s *Session) at(t int64) *Session {
	for s != nil && s.older != nil && t < s.created {
		s = s.older
	}
	return s
}

// over says whether a packet at time t is beyond the session's border by time, and closes it then. A late
// packet that is not still belongs to the session, closed or not.
func (f *Fold) over(s *Session, t int64, late bool) bool {
	switch {
	case t-s.latest() > f.idle(s):
		f.close(s, closeIdle)
	case t-s.created >= int64(f.set.Rollover):
		f.close(s, closeRollover)
	default:
		return s.reason > closeRST && !late
	}
	return true
}

// idle is the silence that ends the session.
func (f *Fold) idle(s *Session) int64 {
	switch s.key.Protocol {
	case packet.ProtoTCP:
		if s.halfOpen() {
			return int64(f.set.TCPHalfOpenIdle)
		}
		return int64(f.set.TCPIdle)
	case packet.ProtoUDP:
		return int64(f.set.UDPIdle)
	case packet.ProtoICMP, packet.ProtoICMPv6:
		return int64(f.set.ICMPIdle)
	}
	return int64(f.set.OtherIdle)
}

// begin creates the session of a packet.
func (f *Fold) begin(r *ref, p *packet.Packet) *Session {
	if f.table.count >= f.set.MaxSessions {
		f.evict()
	}
	older := f.table.newest(r.hash, &r.key)
	created := p.Time
	for older.createdAt(created) {
		created++ // no two sessions have the same id
	}
	s := &Session{
		fold: f, extra: &plain, number: f.counts[SessionsBegun] + 1, key: r.key, hash: r.hash,
		created: created, start: p.Time, last: p.Time,
		opener: r.side,
	}
	for i := range s.ends {
		s.ends[i].sequence.flaws = &flawless
	}
	f.counts[SessionsBegun]++
	f.table.add(s, older)
	f.label(s)
	return s
}

// createdAt says whether one of the newest sessions of the key was created by a packet of time t.
func (s *Session) createdAt(t int64) bool {
	for n := 0; s != nil && n < 16; n++ {
		if s.created == t {
			return true
		}
		s = s.older
	}
	return false
}

// evict closes the oldest session that nobody has answered: half-open ones, scans, what is sent to nobody, or
// sent from forged addresses. Where there is none, it closes the one that was idle for longest among the oldest.
func (f *Fold) evict() {
	victim := f.table.oldestUnanswered()
	if victim == nil {
		const oldest = 64
		victim = f.table.first
		for s, n := victim.next, 1; s != nil && n < oldest; s, n = s.next, n+1 {
			if s.last < victim.last {
				victim = s
			}
		}
	}
	f.counts[SessionsEvicted]++
	f.close(victim, closeEvicted)
	f.settle(victim, f.now)
}

// answered says whether both sides have spoken and, of TCP, have gone beyond SYN, SYN-ACK and RST. It stays so.
func (s *Session) answered() bool {
	return s.ends[low].packets > 0 && s.ends[high].packets > 0 && (s.key.Protocol != packet.ProtoTCP || s.handshake.has(sawMore))
}

// oldestUnanswered is the session created first that is not answered, nil without any. Those before it have been
// looked at, and are not looked at again.
func (t *table) oldestUnanswered() *Session {
	for t.unanswered != nil && t.unanswered.answered() {
		t.unanswered = t.unanswered.next
	}
	return t.unanswered
}

// schedule notes that the session changed at time t and sets its timer.
func (f *Fold) schedule(s *Session, t int64) {
	if s.dirty && s.timer != 0 {
		return // due soon enough already
	}
	s.dirty = true
	s.changed = t
	f.rearm(s)
}

// rearm sets the timer to the next thing that is due for the session.
func (f *Fold) rearm(s *Session) {
	f.timers.set(s, s.nextDue(&f.set))
}

// nextDue is the event time of the next thing to be done for the session.
func (s *Session) nextDue(set *Settings) int64 {
	if s.final {
		due := s.settles(set)
		if s.dirty {
			due = min(due, s.changed+int64(set.FinalAfter))
		}
		return due
	}
	var due int64
	if s.reason == open {
		due = min(s.latest()+s.fold.idle(s), s.created+int64(set.Rollover))
	} else {
		due = s.last + int64(set.FinalAfter)
	}
	if s.dirty {
		if s.version == 0 {
			due = min(due, s.created+int64(set.FirstVersion))
		} else {
			every := int64(set.VersionEvery)
			due = min(due, s.created+(s.changed-s.created+every-1)/every*every)
		}
	} else if s.minutes != nil {
		due = min(due, s.created+int64(set.Freeze)+1) // what was booked cannot change any more: its minutes go
	}
	return due
}

// settles is the time from which no packet can belong to a final session any more.
func (s *Session) settles(set *Settings) int64 {
	if s.reason == closeFIN || s.reason == closeRST {
		return s.finalAt + int64(set.Linger) + int64(set.LateLimit)
	}
	return s.finalAt + int64(set.LateLimit)
}

// fire does what is due for the session.
func (f *Fold) fire(s *Session) {
	due := s.nextDue(&f.set)
	if due > f.now {
		f.timers.set(s, due) // it was put off meanwhile
		return
	}
	switch {
	case s.final && due >= s.settles(&f.set):
		f.settle(s, due)
		return
	case s.final:
		f.emit(s)
	case s.reason == open && due >= s.latest()+f.idle(s):
		f.close(s, closeIdle)
	case s.reason == open && due >= s.created+int64(f.set.Rollover):
		f.close(s, closeRollover)
	case s.reason != open && due >= s.last+int64(f.set.FinalAfter):
		f.finish(s, due)
	case s.dirty:
		f.emit(s)
	default:
		f.book(s)
	}
	f.rearm(s)
}

// close ends an open session for a reason, and puts out its last version. A session that FIN or RST had
// closed keeps that reason.
func (f *Fold) close(s *Session, why closeReason) {
	f.decline(s)
	if s.reason == open {
		s.reason = why
	}
	if s.final {
		return
	}
	at := s.last
	switch {
	case why == closeIdle:
		at += f.idle(s)
	case s.reason == closeFIN || s.reason == closeRST:
		at += int64(f.set.FinalAfter)
	case why == closeRollover:
		at = s.created + int64(f.set.Rollover)
	}
	f.finish(s, at)
	f.rearm(s)
}

// finish makes a closed session final at time at.
func (f *Fold) finish(s *Session, at int64) {
	if n := s.whole(); n != 0 {
		s.own().sampled = n
	}
	s.final, s.finalAt = true, at
	f.emit(s)
}

// emit puts out a version of the session, and books what it has carried since the last.
func (f *Fold) emit(s *Session) {
	if s.app != nil {
		f.recognise(s)
		f.compareNames(s)
	}
	s.version++
	s.dirty = false
	f.book(s)
	f.out.Session(s)
	f.watch(s)
}

// settle forgets a session.
func (f *Fold) settle(s *Session, at int64) {
	if s.dirty {
		f.emit(s)
	}
	f.out.Settled(at, s)
	f.timers.remove(s)
	f.table.remove(s)
	if s.app != nil {
		f.applications -= s.app.Bytes
	}
	s.gone = true
}

// expires adds durations to times without passing the end of time.
func expires(t, d int64) int64 {
	if t > math.MaxInt64-d {
		return math.MaxInt64
	}
	return t + d
}
