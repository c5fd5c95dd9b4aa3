package fold

import (
	"encoding/binary"
	"io"
	"math"
	"slices"
	"time"

	"github.com/tapweave/tapweave/enricher/application"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/proto/session"
)

// A snapshot is the whole state of a fold between two records. A fold that is loaded from it puts out what the
// one that was saved would have put out, byte for byte.
//
// The batches that wait for the watermark are in it, as they came. To name their offsets instead, and read them
// again, would make a snapshot worthless as soon as retention takes one of them, and whoever reads them again
// has to leave out what of them was folded already. They are as much as the collectors send between their
// capture and the watermark: about a second's worth, at most Settings.MaxWaiting.
//
// To add a field to the state, name it in the function of its struct below; that writes and reads it. A test
// goes through all structs that a Fold reaches and fails for a field that is neither saved nor listed there as
// one that follows from others. To change the form once it is in use, raise SnapshotVersion and ask for
// coder.version where an older one has to be read.

const (
	// SnapshotVersion is the version of the form of a snapshot.
	SnapshotVersion = 1
	// Version grows with every change of the program by which the same log gives other outputs.
	Version = 1
)

// Save writes the state of the fold. It is called between two records.
func (f *Fold) Save(w io.Writer) error {
	c := newWriter(w)
	f.save(c)
	if c.err == nil {
		c.flush()
	}
	return c.err
}

func (f *Fold) save(c *coder) {
	form, version := uint32(SnapshotVersion), uint32(Version)
	num(c, &form)
	num(c, &version)
	f.code(c)
	for s := f.table.first; s != nil; s = s.next {
		more := true
		flag(c, &more)
		s.code(c)
	}
	more := false
	flag(c, &more)
	f.timers.save(c)
	f.payload.save(c, f)
	f.fragments.save(c, &f.copies)
}

// Load reads the state of the fold of a partition, and returns the fold. A state of a newer form, or of a newer
// version of the fold, is a *record.VersionError; one of an older version of the fold is told by older. All else
// is ErrSnapshot. Whatever the bytes, it does not panic, and allocates no more than a multiple of their number.
func Load(r io.Reader, partition int, out Output) (f *Fold, older bool, err error) {
	c := newReader(r)
	var form, version uint32
	num(c, &form)
	num(c, &version)
	switch {
	case c.err != nil:
		return nil, false, c.err
	case form != SnapshotVersion:
		return nil, false, &record.VersionError{What: "snapshot", Found: form, Understood: SnapshotVersion}
	case version > Version:
		return nil, false, &record.VersionError{What: "state of a fold", Found: version, Understood: Version}
	}
	f = New(partition, Settings{}, out)
	f.load(c)
	if c.err == nil && c.fill(1) > 0 {
		c.fail("something follows")
	}
	if c.err != nil {
		return nil, false, c.err
	}
	return f, version < Version, nil
}

// Sessions returns those in memory by their id.
func (f *Fold) Sessions() map[session.ID]*Session {
	all := map[session.ID]*Session{}
	for s := f.table.first; s != nil; s = s.next {
		all[s.ID()] = s
	}
	return all
}

// Supersede puts out a version of the session that is greater than the one that another version of the fold has
// put out.
func (f *Fold) Supersede(s *Session, version uint32) {
	s.version = max(s.version, version)
	f.emit(s)
	f.rearm(s)
}

func (f *Fold) load(c *coder) {
	partition := f.partition
	f.code(c)
	if f.partition != partition {
		c.fail("of partition %d, not %d", f.partition, partition)
	}
	for more := true; c.err == nil; {
		if flag(c, &more); !more {
			break
		}
		s := &Session{fold: f, extra: &plain}
		s.code(c)
		s.hash = s.key.Hash()
		f.table.add(s, f.table.newest(s.hash, &s.key))
	}
	if c.err == nil {
		f.timers.load(c, f.table.first)
	}
	if c.err == nil {
		f.payload.load(c, f)
	}
	if c.err == nil {
		f.fragments.load(c, f)
	}
}

func (f *Fold) code(c *coder) {
	f.set.code(c)
	num(c, &f.partition)
	for i := range f.counts {
		num(c, &f.counts[i])
	}
	num(c, &f.watermark)
	num(c, &f.behind)
	flag(c, &f.started)
	num(c, &f.logTime)
	num(c, &f.log)
	num(c, &f.owner)
	num(c, &f.ownerClock)
	flag(c, &f.ticked)
	num(c, &f.ownerOffset)
	flag(c, &f.heardOwner)
	num(c, &f.words)
	flag(c, &f.disputed)
	num(c, &f.disputedSince)
	list(c, &f.skewed, maxSkewed, func(c *coder, s *Skewed) { s.code(c) })
	num(c, &f.offset)
	num(c, &f.serial)
	num(c, &f.now)
	num(c, &f.applications)
	c.since(max(f.now, 0))

	list(c, &f.names, math.MaxInt32, (*coder).string)
	c.names = len(f.names)
	spoken := len(f.spoken)
	num(c, &spoken)
	for i := 0; i < spoken && c.err == nil; i++ {
		if c.loading {
			f.spoken = append(f.spoken, new(producer))
		}
		f.spoken[i].code(c)
	}
	f.taps.code(c)
	if c.loading {
		for i, n := range f.names {
			f.nameIndex[n] = uint32(i)
		}
		for _, p := range f.spoken {
			f.producers[p.key] = p
		}
	}
	list(c, &f.sheds.pending, maxSheds, func(c *coder, g *shed) { g.code(c) })
	list(c, &f.sheds.seen, maxSheds, func(c *coder, g *shed) { g.code(c) })
	f.copies.code(c)
	f.merge.code(c, f)
	f.labelling.named.code(c)
	f.scans.code(c, maxScans, (*scan).key, (*scan).code)
	f.prints.code(c, maxServers, (*prints).key, (*prints).code)
}

func (s *Settings) code(c *coder) {
	num(c, &s.Partitions)
	for _, d := range []*time.Duration{
		&s.LateLimit, &s.CopyDelay, &s.Retire, &s.MaxClockSkew,
		&s.TCPIdle, &s.TCPHalfOpenIdle, &s.UDPIdle, &s.ICMPIdle, &s.OtherIdle, &s.FinalAfter, &s.Linger, &s.Rollover,
		&s.FirstVersion, &s.VersionEvery, &s.Freeze, &s.FragmentTimeout,
	} {
		num(c, d)
	}
	num(c, &s.MaxDatagrams)
	num(c, &s.MaxSessions)
	num(c, &s.MaxWaiting)
	num(c, &s.PayloadLog)
	num(c, &s.ScanPorts)
	num(c, &s.ScanWindow)
	num(c, &s.PrintsLearned)
	num(c, &s.MaxApplications)
	num(c, &s.KeepPayload)
	flag(c, &s.Packets)
}

func (p *producer) code(c *coder) {
	c.string(&p.key.name)
	num(c, &p.key.incarnation)
	below(c, &p.name, c.names)
	num(c, &p.sequence)
	num(c, &p.watermark)
	num(c, &p.spoke)
	flag(c, &p.live)
	flag(c, &p.retired)
	flag(c, &p.clocked)
	flag(c, &p.skewed)
	flag(c, &p.suspect)
	flag(c, &p.judged)
	num(c, &p.word)
	num(c, &p.offset)
	num(c, &p.ahead)
}

func (s *Skewed) code(c *coder) {
	c.string(&s.Collector)
	num(c, &s.Batches)
	num(c, &s.Ahead)
}

func (g *shed) code(c *coder) {
	num(c, &g.from)
	num(c, &g.to)
	num(c, &g.threshold)
}

func (t *taps) code(c *coder) {
	// The empty list is always the first.
	n := len(t.lists) - 1
	num(c, &n)
	if n < 0 || n >= maxTaps {
		c.fail("%d tap points", n)
	}
	for i := 1; i <= n && c.err == nil; i++ {
		var l tapList
		var p tap
		if !c.loading {
			l = t.lists[i]
			p = t.index[l]
		}
		below(c, &p.depth, packet.MaxCarriers+1)
		for i := range l[:p.depth] {
			c.array(l[i][:])
		}
		if c.loading {
			p.index = uint16(i)
			t.index[l] = p
			t.lists = append(t.lists, l)
			t.depth[p.depth]++
		}
	}
}

func (t *tap) code(c *coder) {
	below(c, &t.index, maxTaps+1)
	below(c, &t.depth, packet.MaxCarriers+1)
}

func (k *copies) code(c *coder) {
	n := k.tail - k.head
	num(c, &k.head)
	num(c, &n)
	flag(c, &k.active)
	if c.loading {
		k.tail = k.head
	}
	if k.head < 0 || n < 0 {
		c.fail("%d sightings from %d on", n, k.head)
	}
	for i := k.head; i < k.head+n && c.err == nil; i++ {
		if c.loading {
			k.push(sighting{})
		}
		k.at(i).code(c)
	}
}

func (g *sighting) code(c *coder) {
	num(c, &g.identity)
	c.time(&g.time)
	num(c, &g.session)
	below(c, &g.ntaps, len(g.taps)+1)
	for i := range g.taps[:g.ntaps] {
		num(c, &g.taps[i])
	}
	below(c, &g.depth, packet.MaxCarriers+1)
}

// code codes the batches that wait, in the order of the heap.
func (m *merger) code(c *coder, f *Fold) {
	n := len(m.heap)
	num(c, &n)
	for i := 0; i < n && c.err == nil; i++ {
		if c.loading {
			m.heap = append(m.heap, new(cursor))
		}
		m.heap[i].code(c, f)
		if c.loading {
			m.waiting += len(m.heap[i].columns) + cursorBytes
		}
	}
}

func (k *cursor) code(c *coder, f *Fold) {
	c.bytes(&k.columns, record.MaxBytes)
	c.time(&k.time)
	num(c, &k.offset)
	num(c, &k.latest)
	below(c, &k.name, c.names)
	walked := k.decoded != nil
	flag(c, &walked)
	if !walked || c.err != nil {
		return
	}
	num(c, &k.next)
	var serial uint64 // of the first reference; the others follow
	if !c.loading {
		serial = k.refs[0].serial
	}
	num(c, &serial)
	if c.loading {
		k.decoded = new(decoded)
		if _, err := k.read(); err != nil || k.next < 0 || k.next >= len(k.batch.Packets) || k.batch.Packets[k.next].Time != k.time {
			c.fail("a batch that waits: packet %d, %v", k.next, err)
			return
		}
		k.refs = make([]ref, len(k.batch.Flows))
		for i := range k.refs {
			f.describe(&k.refs[i], &k.batch.Flows[i], k.name)
			k.refs[i].serial = serial + uint64(i)
		}
	}
}

func (s *Session) code(c *coder) {
	codeKey(c, &s.key)
	num(c, &s.number)
	c.time(&s.created)
	c.since(s.created)
	c.time(&s.start)
	c.time(&s.last)
	c.instant(&s.changed)
	c.instant(&s.finalAt)
	for i := range s.ends {
		s.ends[i].code(c)
	}
	s.handshake.code(c)
	s.history.code(c)
	for m := &s.minutes; ; m = &(*m).before {
		more := *m != nil
		if flag(c, &more); !more || c.err != nil {
			break
		}
		if c.loading {
			*m = new(minute)
		}
		(*m).code(c)
	}
	x := *s.extra
	if x.code(c); c.loading && x.any() {
		*s.own() = x
	}
	s.codePath(c)
	num(c, &s.version)
	below(c, &s.opener, 2)
	s.fixed.code(c)
	s.booked.code(c)
	codeApplication(c, &s.app)
	flag(c, &s.begun)
	flag(c, &s.frozen)
	flag(c, &s.dirty)
	flag(c, &s.final)
	below(c, &s.reason, len(closeReasons))
	num(c, &s.told)
	optional(c, &s.labels, func(c *coder, l *labelled) { l.code(c) })
}

func (x *extra) code(c *coder) {
	optional(c, &x.held, func(c *coder, h *heldSYN) { h.code(c) })
	for i := range x.letters {
		num(c, &x.letters[i])
	}
	num(c, &x.icmpErrors)
	num(c, &x.late)
	num(c, &x.duplicates)
	num(c, &x.sampled)
	list(c, &x.vlans, maxPath, num[uint16])
}

// any says whether there is anything extra.
func (x *extra) any() bool {
	return x.held != nil || x.letters != [moreLetters]uint64{} || x.icmpErrors|x.late|x.duplicates > 0 || x.sampled > 0 || len(x.vlans) > 0
}

func (d *dimensions) code(c *coder) {
	below(c, &d.src, 2)
	below(c, &d.app, application.Names)
	flag(c, &d.malicious)
}

// codeApplication codes what package application knows of a session, in that package's own form.
func codeApplication(c *coder, s **application.Session) {
	var b []byte
	if !c.loading && *s != nil {
		b = (*s).Append(nil)
	}
	c.bytes(&b, math.MaxInt32)
	if !c.loading || len(b) == 0 || c.err != nil {
		return
	}
	*s = new(application.Session)
	if rest, err := (*s).Load(b); err != nil || len(rest) > 0 {
		c.fail("what was recognised of a session does not decode")
	}
}

func codeKey(c *coder, k *session.Key) {
	c.string(&k.Tenant)
	c.array(k.Low[:])
	c.array(k.High[:])
	num(c, &k.LowPort)
	num(c, &k.HighPort)
	num(c, &k.Protocol)
	num(c, &k.Extra)
}

func (e *end) code(c *coder) {
	num(c, &e.packets)
	num(c, &e.bytes)
	num(c, &e.payload)
	e.sequence.code(c)
	num(c, &e.ttl)
	c.array(e.mac[:])
	c.instant(&e.firstAt)
}

func (q *sequence) code(c *coder) {
	num(c, &q.first)
	used := q.next - q.first
	num(c, &used)
	if c.loading {
		q.next = q.first + used
	}
	var own flaws
	if !c.loading {
		own = *q.flaws
	}
	own.code(c)
	if q.flaws == nil {
		q.flaws = &flawless
	}
	if own.any() && c.loading {
		*q.own() = own
	}
	num(c, &q.sampled)
	num(c, &q.ack)
	num(c, &q.isn)
	num(c, &q.window)
	num(c, &q.scale)
	num(c, &q.lastFIN)
	num(c, &q.lastRST)
	num(c, &q.flags)
	num(c, &q.facts)
}

func (l *flaws) code(c *coder) {
	list(c, &l.holes, maxHoles+1, func(c *coder, h *stretch) { h.code(c) })
	num(c, &l.missed)
	num(c, &l.retransmits)
	num(c, &l.outOfOrder)
	num(c, &l.zeroWindows)
	num(c, &l.overlap)
	num(c, &l.again)
	num(c, &l.noWindows)
	num(c, &l.gaps)
}

// any says whether there is a flaw.
func (l *flaws) any() bool {
	return len(l.holes) > 0 || l.missed > 0 || l.retransmits|l.outOfOrder|l.zeroWindows|l.overlap|l.again|l.noWindows|l.gaps > 0
}

func (h *stretch) code(c *coder) {
	num(c, &h.from)
	num(c, &h.to)
}

func (h *handshake) code(c *coder) {
	c.instant(&h.synAt)
	c.instant(&h.synACKAt)
	c.instant(&h.ackAt)
	below(c, &h.from, 2)
	num(c, &h.isn)
	num(c, &h.facts)
}

func (h *heldSYN) code(c *coder) {
	below(c, &h.side, 2)
	list(c, &h.packets, maxHeld, func(c *coder, p *heldPacket) { p.code(c) })
	if len(h.packets) == 0 {
		c.fail("no SYN where one is held")
	}
}

func (h *heldPacket) code(c *coder) {
	h.r.code(c)
	codePacket(c, &h.p)
	num(c, &h.fr.n)
	c.instant(&h.fr.since)
}

// code codes a reference with a flow of its own.
func (r *ref) code(c *coder) {
	if c.loading {
		r.flow = new(packet.Flow)
	}
	codeFlow(c, r.flow)
	codeKey(c, &r.key)
	num(c, &r.hash)
	r.tap.code(c)
	below(c, &r.name, c.names)
	below(c, &r.side, 2)
	flag(c, &r.shared)
	num(c, &r.serial)
}

func codeFlow(c *coder, f *packet.Flow) {
	c.array(f.Src[:])
	c.array(f.Dst[:])
	num(c, &f.SrcPort)
	num(c, &f.DstPort)
	num(c, &f.ICMPID)
	num(c, &f.Protocol)
	num(c, &f.TTL)
	flag(c, &f.V6)
	c.array(f.SrcMAC[:])
	c.array(f.DstMAC[:])
	below(c, &f.NVLANs, len(f.VLANs)+1)
	below(c, &f.NCarriers, len(f.Carriers)+1)
	num(c, &f.OuterPort)
	for i := range f.VLANs[:f.NVLANs] {
		num(c, &f.VLANs[i])
	}
	for i := range f.Carriers[:f.NCarriers] {
		c.array(f.Carriers[i].Source[:])
		num(c, &f.Carriers[i].VNI)
	}
	c.string(&f.Tenant)
}

func codePacket(c *coder, p *packet.Packet) {
	c.time(&p.Time)
	num(c, &p.Flow)
	num(c, &p.Length)
	num(c, &p.Payload)
	num(c, &p.ID)
	num(c, &p.Checksum)
	num(c, &p.FragmentOffset)
	num(c, &p.Fragment)
	num(c, &p.Flags)
	num(c, &p.Seq)
	num(c, &p.Ack)
	num(c, &p.Window)
	num(c, &p.MSS)
	num(c, &p.WindowScale)
	c.bytes(&p.Head, packet.HeadBytes)
	c.bytes(&p.Data, record.MaxBytes)
}

func (h *history) code(c *coder) {
	below(c, &h.n, maxHistory+1)
	num(c, &h.letters)
	num(c, &h.seen[0])
	num(c, &h.seen[1])
}

func (m *minute) code(c *coder) {
	c.time(&m.start)
	m.sums.code(c)
	m.booked.code(c)
}

func (s *sums) code(c *coder) {
	num(c, &s.sessions)
	for i := range 2 {
		num(c, &s.packets[i])
		num(c, &s.bytes[i])
		num(c, &s.payload[i])
	}
}

func (s *Session) codePath(c *coder) {
	l := s.lists()
	list(c, &l.taps, maxPath, num[uint16])
	list(c, &l.collectors, maxPath, func(c *coder, v *uint32) { below(c, v, c.names) })
	list(c, &l.vnis, maxPath, num[uint32])
	list(c, &l.outerPorts, maxPath, num[uint16])
	if c.loading && !s.path.take(&l) {
		s.own().long = &l
	}
}

// Timers are saved session by session, in the order of the table.

func (h *timers) save(c *coder) {
	var sorted []timer
	sorted = append(sorted, h.heap...)
	slices.SortFunc(sorted, func(a, b timer) int { return compare(int64(a.s.number), int64(b.s.number)) })
	n := len(sorted)
	num(c, &n)
	for i := range sorted {
		num(c, &sorted[i].s.number)
		c.time(&sorted[i].due)
		c.since(sorted[i].due)
	}
}

func (h *timers) load(c *coder, s *Session) {
	var n int
	num(c, &n)
	for ; n > 0 && c.err == nil; n-- {
		var number uint64
		var due int64
		num(c, &number)
		c.time(&due)
		c.since(due)
		for s != nil && s.number < number {
			s = s.next
		}
		if s == nil || s.number != number || s.timer != 0 {
			c.fail("timer of no session")
			return
		}
		h.set(s, due)
	}
}

// Of the payload log only what sessions can still come to is saved. Entries keep their places.

func (l *payloadLog) save(c *coder, f *Fold) {
	num(c, &l.end)
	whole := uint64(f.set.PayloadLog)
	for s := f.table.first; s != nil; s = s.next {
		for i := range s.ends {
			last := s.ends[i].sequence.sampled
			for last != 0 && l.end-(last-1) <= whole {
				more := true
				flag(c, &more)
				at := last - 1
				entry := l.entry(at, whole)
				num(c, &at)
				c.bytes(&entry, int(whole))
				last = binary.LittleEndian.Uint64(entry)
			}
		}
	}
	more := false
	flag(c, &more)
}

func (l *payloadLog) load(c *coder, f *Fold) {
	num(c, &l.end)
	whole := uint64(f.set.PayloadLog)
	for more := true; c.err == nil; {
		if flag(c, &more); !more {
			break
		}
		if whole < entryHeader || whole > maxPayloadLog {
			c.fail("a payload log of %d bytes", f.set.PayloadLog)
			return
		}
		var at uint64
		var entry []byte
		num(c, &at)
		c.bytes(&entry, int(whole))
		n := uint64(len(entry))
		if n < entryHeader || at >= l.end || l.end-at > whole || n > l.end-at || n > pageRest(at, whole) ||
			uint64(binary.LittleEndian.Uint32(entry[16:])) != n-entryHeader {
			c.fail("a payload entry out of place")
			return
		}
		copy(l.room(at, whole), entry)
	}
	// Two entries may have been said to have the same place.
	for s := f.table.first; s != nil && c.err == nil && l.pages != nil; s = s.next {
		for i := range s.ends {
			for n, last := 0, s.ends[i].sequence.sampled; last != 0 && l.end-(last-1) <= whole; n++ {
				if n > maxEntries {
					break
				}
				if !l.has(last-1, whole) {
					c.fail("a payload entry out of place")
					return
				}
				last = binary.LittleEndian.Uint64(l.entry(last-1, whole))
			}
		}
	}
}

// has says whether there is an entry at a place, which lies in one page.
func (l *payloadLog) has(at, whole uint64) bool {
	i, rest := int(at%whole/pageBytes), pageRest(at, whole)
	return i < len(l.pages) && l.pages[i] != nil && rest >= entryHeader &&
		uint64(binary.LittleEndian.Uint32(l.room(at, whole)[16:])) <= rest-entryHeader
}

// maxPayloadLog bounds what is allocated on the word of a snapshot.
const maxPayloadLog = 256 << 20

// Datagrams are those that are open, in the order of their first fragments, and those of which copies may yet
// come, in the order of the sightings.

func (g *fragments) save(c *coder, k *copies) {
	number := map[*datagram]int{}
	var all []*datagram
	note := func(d *datagram) {
		if _, known := number[d]; !known {
			number[d] = len(all)
			all = append(all, d)
		}
	}
	for d := g.head; d != nil; d = d.next {
		note(d)
	}
	open := len(all)
	for n := k.head; n < k.tail && len(k.datagrams) > 0; n++ {
		if d := k.datagrams[n]; d != nil {
			note(d)
		}
	}
	num(c, &open)
	n := len(all)
	num(c, &n)
	for _, d := range all {
		d.code(c)
		var session uint64
		if d.session != nil {
			session = d.session.number
		}
		num(c, &session)
	}
	n = len(k.datagrams)
	num(c, &n)
	for n := k.head; n < k.tail && len(k.datagrams) > 0; n++ {
		if d := k.datagrams[n]; d != nil {
			i := number[d]
			num(c, &n)
			num(c, &i)
		}
	}
}

func (g *fragments) load(c *coder, f *Fold) {
	var open, n int
	num(c, &open)
	num(c, &n)
	if open < 0 || open > n {
		c.fail("%d of %d datagrams are open", open, n)
	}
	var sessions map[uint64]*Session
	var all []*datagram
	for ; n > 0 && c.err == nil; n-- {
		d := new(datagram)
		d.code(c)
		var session uint64
		if num(c, &session); session != 0 {
			if sessions == nil {
				sessions = map[uint64]*Session{}
				for s := f.table.first; s != nil; s = s.next {
					sessions[s.number] = s
				}
			}
			if d.session = sessions[session]; d.session == nil {
				d.session = &Session{number: session, gone: true}
			}
		}
		if all = append(all, d); len(all) <= open {
			if g.open[d.key] != nil {
				c.fail("a datagram twice")
				return
			}
			g.add(d, 0)
		}
	}
	g.expireFirst(f)
	num(c, &n)
	for ; n > 0 && c.err == nil; n-- {
		var at, i int
		num(c, &at)
		below(c, &i, len(all))
		if at < f.copies.head || at >= f.copies.tail || len(all) == 0 {
			c.fail("a datagram of no sighting")
			return
		}
		f.copies.datagrams[at] = all[i]
	}
}

func (d *datagram) code(c *coder) {
	c.array(d.key.src[:])
	c.array(d.key.dst[:])
	num(c, &d.key.id)
	num(c, &d.key.protocol)
	c.string(&d.key.tenant)
	codeFlow(c, &d.flow)
	below(c, &d.name, c.names)
	list(c, &d.refs, maxRefs, func(c *coder, r *ref) { r.code(c) })
	num(c, &d.copies)
	c.time(&d.first)
	c.time(&d.last)
	num(c, &d.fragments)
	num(c, &d.bytes)
	num(c, &d.total)
	list(c, &d.have, maxPieces+1, func(c *coder, h *stretch) { h.code(c) })
	c.array(d.header[:])
	for i := range d.known {
		num(c, &d.known[i])
	}
}

// Settings are those that the fold goes by.
func (f *Fold) Settings() Settings { return f.set }

// Set lets the fold go by other settings from the next record on. What is due for the sessions is due by these.
func (f *Fold) Set(set Settings) {
	if set == f.set {
		return
	}
	if set.PayloadLog != f.set.PayloadLog {
		// What is in the log is forgotten: no session comes to it any more.
		f.payload.end += uint64(f.set.PayloadLog) + uint64(set.PayloadLog)
		f.payload.pages = nil
	}
	f.set = set
	for s := f.table.first; s != nil; s = s.next {
		if s.timer != 0 {
			f.rearm(s)
		}
	}
	f.fragments.expireFirst(f)
}
