package fold

import (
	"slices"

	"github.com/tapweave/tapweave/enricher/application"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/session"
)

// The two ends of a session, in the order of its key.
const (
	low  = 0
	high = 1
)

type closeReason uint8

const (
	open closeReason = iota
	closeFIN
	closeRST
	closeIdle
	closeReuse
	closeEvicted
	closeRollover
	closeEnd
)

var closeReasons = [...]string{"", "fin", "rst", "idle", "reuse", "evicted", "rollover", "end"}

// Session is what the fold knows of one session.
type Session struct {
	fold   *Fold
	number uint64 // counted from 1 in the fold
	key    session.Key
	hash   uint64

	created, start, last int64
	changed              int64 // when dirty was set
	finalAt              int64

	chain      *Session // next in the table's bucket
	prev, next *Session // in the order of creation
	*extra              // see own

	ends      [2]end
	handshake handshake
	history   history
	minutes   *minute // newest first
	path      path
	app       *application.Session // nil until payload is sampled
	labels    *labelled            // nil where no label set was in force

	version uint32
	timer   int32      // place in the heap of timers, plus one
	fixed   dimensions // once frozen
	booked  dimensions // in the bookings made
	opener  uint8      // who sent the first packet
	begun   bool       // counted in a minute
	frozen  bool
	dirty   bool // changed since the last version
	final   bool
	gone    bool
	told    told
	reason  closeReason
}

// extra is what most sessions do not have.
type extra struct {
	older, newer *Session // of the same key
	held         *heldSYN
	long         *lists // of the path, once one of them has become too long for it
	vlans        []uint16
	letters      [moreLetters]uint64

	icmpErrors, late, duplicates uint64

	sampled uint32 // once final, see whole
}

// plain is what all sessions without anything extra share. It is never written to.
var plain extra

// own returns what the session has extra, to be written to.
func (s *Session) own() *extra {
	if s.extra == &plain {
		s.extra = new(extra)
	}
	return s.extra
}

// end is one side of a session.
type end struct {
	packets, bytes, payload uint64
	sequence                sequence
	ttl                     uint8
	mac                     [6]byte
	firstAt                 int64
}

// path is where the copies of a session's packets came from. Lists are sorted, without repeats. Most are of one or
// two, which need no memory of their own; once one becomes longer, all move to extra.long.
type path struct {
	collectors, vnis                  [2]uint32
	taps, outerPorts                  [2]uint16
	nCollectors, nVNIs, nTaps, nPorts uint8
}

type lists struct {
	taps       []uint16
	collectors []uint32
	vnis       []uint32
	outerPorts []uint16
}

// lists returns what the path holds. It is not to be written to.
func (s *Session) lists() lists {
	if s.long != nil {
		return *s.long
	}
	p := &s.path
	return lists{
		p.taps[:p.nTaps], p.collectors[:p.nCollectors], p.vnis[:p.nVNIs], p.outerPorts[:p.nPorts],
	}
}

// lengthen moves the lists to where they can grow.
func (s *Session) lengthen() {
	l := s.lists()
	s.own().long = &lists{
		slices.Clone(l.taps), slices.Clone(l.collectors), slices.Clone(l.vnis), slices.Clone(l.outerPorts),
	}
}

// take takes in lists that are short enough, and says whether they are.
func (p *path) take(l *lists) bool {
	if max(len(l.taps), len(l.collectors), len(l.vnis), len(l.outerPorts)) > 2 {
		return false
	}
	p.nTaps, p.nCollectors, p.nVNIs = uint8(copy(p.taps[:], l.taps)), uint8(copy(p.collectors[:], l.collectors)), uint8(copy(p.vnis[:], l.vnis))
	p.nPorts = uint8(copy(p.outerPorts[:], l.outerPorts))
	return true
}

// maxPath is how long each list of a path grows.
const maxPath = 256

// add adds v to a short list of n, or to the list that the path has instead.
func add[T ~uint16 | ~uint32](s *Session, few *[2]T, n *uint8, list func(*lists) *[]T, v T) {
	if s.long == nil {
		i := 0
		for i < int(*n) && few[i] < v {
			i++
		}
		switch {
		case i < int(*n) && few[i] == v:
			return
		case int(*n) < len(few):
			copy(few[i+1:], few[i:])
			few[i] = v
			*n++
			return
		}
		s.lengthen()
	}
	l := list(s.long)
	if i, found := slices.BinarySearch(*l, v); !found && len(*l) < maxPath {
		*l = slices.Insert(*l, i, v)
	}
}

func (s *Session) addVLAN(v uint16) {
	if i, found := slices.BinarySearch(s.vlans, v); !found && len(s.vlans) < maxPath {
		x := s.own()
		x.vlans = slices.Insert(x.vlans, i, v)
	}
}

// met notes where a copy of one of the session's packets came from.
func (s *Session) met(r *ref) {
	if r.met == s {
		return
	}
	r.met = s
	p, f := &s.path, r.flow
	add(s, &p.taps, &p.nTaps, func(l *lists) *[]uint16 { return &l.taps }, r.tap.index)
	add(s, &p.collectors, &p.nCollectors, func(l *lists) *[]uint32 { return &l.collectors }, r.name)
	for i := range f.Carriers[:f.NCarriers] {
		add(s, &p.vnis, &p.nVNIs, func(l *lists) *[]uint32 { return &l.vnis }, f.Carriers[i].VNI)
	}
	if f.NCarriers > 0 {
		add(s, &p.outerPorts, &p.nPorts, func(l *lists) *[]uint16 { return &l.outerPorts }, f.OuterPort)
	}
}

// account counts a packet.
func (s *Session) account(r *ref, p *packet.Packet, fr frames, late bool) {
	since := p.Time
	if fr.since != 0 {
		since = fr.since
	}
	s.freeze(p.Time)
	e := &s.ends[r.side]
	if e.packets == 0 || since < e.firstAt {
		e.firstAt, e.mac, e.ttl = since, r.flow.SrcMAC, r.flow.TTL
	}
	e.packets += fr.n
	e.bytes += uint64(p.Length)
	s.start, s.last = min(s.start, since), max(s.last, p.Time)
	if late {
		s.own().late += fr.n
	}
	if r.counted != s {
		r.counted = s
		s.met(r)
		for _, v := range r.flow.VLANs[:r.flow.NVLANs] {
			s.addVLAN(v)
		}
	}
	m := s.minute(p.Time)
	m.sums.packets[r.side] += int64(fr.n)
	m.sums.bytes[r.side] += int64(p.Length)
}

// pay counts payload that had not been seen before.
func (s *Session) pay(side uint8, t int64, n uint64) {
	if n > 0 {
		s.ends[side].payload += n
		s.minute(t).sums.payload[side] += int64(n)
	}
}

// freeze fixes who is src, and the application, once the session is old enough.
func (s *Session) freeze(now int64) {
	if !s.frozen && now-s.created > int64(s.fold.set.Freeze) {
		s.fixed, s.frozen = s.dimensions(), true
	}
}

// orient says which end is src: the sender of the first SYN; else the side that a SYN-ACK answers; else the
// sender of the first packet, unless only the other side can be the client (Zeek's guess).
func (s *Session) orient() uint8 {
	if s.frozen {
		return s.fixed.src
	}
	h := &s.handshake
	switch {
	case s.key.Protocol == packet.ProtoICMP || s.key.Protocol == packet.ProtoICMPv6:
		// Who asks is src, also where the answer was seen first. Its type is its port.
		v6 := s.key.Protocol == packet.ProtoICMPv6
		if session.ICMPRequest(v6, uint8(s.key.LowPort)) != session.ICMPRequest(v6, uint8(s.key.HighPort)) && s.paired() {
			if session.ICMPRequest(v6, uint8(s.key.LowPort)) {
				return low
			}
			return high
		}
	case h.has(sawSYN):
		return h.from
	case s.ends[low].sequence.has(sentSYNACK):
		return high
	case s.ends[high].sequence.has(sentSYNACK):
		return low
	}
	from, to := s.key.LowPort, s.key.HighPort
	dst := s.key.High
	if s.opener == high {
		from, to, dst = to, from, s.key.Low
	}
	if hasPorts(s.key.Protocol) && serverPort(from) && !serverPort(to) && !dst.Netip().IsMulticast() {
		return 1 - s.opener
	}
	return s.opener
}

// paired says whether the session is of an ICMP type and its answer.
func (s *Session) paired() bool {
	answer, ok := session.ICMPPair(s.key.Protocol == packet.ProtoICMPv6, uint8(s.key.LowPort))
	return ok && s.key.HighPort == uint16(answer)
}

func hasPorts(protocol uint8) bool {
	switch protocol {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP, packet.ProtoDCCP, packet.ProtoUDPLite:
		return true
	}
	return false
}

// serverPort says whether a port is a service's rather than a client's: ports of the protocols that are
// recognised, from IANA's registry.
func serverPort(p uint16) bool {
	switch p {
	case 21, 22, 23, 25, 53, 67, 69, 80, 88, 102, 110, 111, 119, 123, 135, 137, 138, 139, 143, 161, 162, 179, 389, 443, 445,
		464, 465, 500, 502, 514, 515, 546, 554, 587, 631, 636, 853, 873, 989, 990, 993, 995, 1080, 1194, 1433, 1434, 1521,
		1645, 1701, 1812, 1813, 1883, 2049, 2181, 2379, 3128, 3268, 3269, 3306, 3389, 3478, 4500, 4789, 5060, 5061, 5222,
		5269, 5432, 5671, 5672, 5900, 5985, 5986, 6379, 6443, 6667, 8000, 8080, 8443, 8883, 9042, 9092, 9200, 11211, 20000,
		27017, 51820:
		return true
	}
	return false
}

// ID is the session_id.
func (s *Session) ID() session.ID { return session.NewID(&s.key, s.created) }

// Created is the time of the packet that created it, in nanoseconds since the Unix epoch: it never changes.
func (s *Session) Created() int64 { return s.created }

// Start is the time of the first packet, in nanoseconds since the Unix epoch.
func (s *Session) Start() int64 { return s.start }

// Row fills in the row of the session's newest version.
func (s *Session) Row(d *columns.Session) {
	d.Reset()
	src := s.orient()
	a, b := &s.ends[src], &s.ends[1-src]
	d.Tenant, d.ID, d.Created = s.key.Tenant, s.ID(), s.created
	d.Start, d.End = s.start, s.last
	d.Src, d.SrcPort, d.Dst, d.DstPort = s.key.Low, s.key.LowPort, s.key.High, s.key.HighPort
	if src == high {
		d.Src, d.SrcPort, d.Dst, d.DstPort = d.Dst, d.DstPort, d.Src, d.SrcPort
	}
	d.IPProtocol = s.key.Protocol
	d.CommunityID = s.communityID(d)
	d.SrcPackets, d.DstPackets = a.packets, b.packets
	d.SrcBytes, d.DstBytes = a.bytes, b.bytes
	d.SrcPayloadBytes, d.DstPayloadBytes = a.payload, b.payload
	d.SrcMAC, d.DstMAC, d.SrcTTL, d.DstTTL = a.mac, b.mac, a.ttl, b.ttl
	if s.key.Protocol == packet.ProtoTCP {
		s.tcpRow(d, &a.sequence, &b.sequence)
		d.HandshakeRTT, d.SrcRTT, d.DstRTT = s.handshake.roundTrips()
	}
	d.ConnState = s.connState(src)
	d.History = s.historyText(src, src != s.opener)
	d.CloseReason, d.IsFinal, d.Version = closeReasons[s.reason], s.final, s.version
	if d.App = s.application().String(); s.app != nil {
		s.app.Fill(d, src)
	}
	d.ICMPErrors, d.LatePackets, d.DuplicatePackets = s.icmpErrors, s.late, s.duplicates
	d.Sampled = s.share()
	if s.labels != nil {
		s.labels.row(d, src)
	}
	f := s.fold
	path := s.lists()
	for _, t := range path.taps {
		d.TapPoints = f.taps.appendNames(d.TapPoints, t)
	}
	slices.Sort(d.TapPoints)
	d.TapPoints = slices.Compact(d.TapPoints)
	for _, c := range path.collectors {
		d.Collectors = append(d.Collectors, f.names[c])
	}
	slices.Sort(d.Collectors)
	d.VNIs = append(d.VNIs, path.vnis...)
	d.OuterPorts = uint32(len(path.outerPorts))
	d.VLANs = append(d.VLANs, s.vlans...)
}

// communityID follows the row's ends: the two types of an ICMP query, or type and code of what has no reply.
func (s *Session) communityID(d *columns.Session) string {
	oneWay := false
	if p := s.key.Protocol; p == packet.ProtoICMP || p == packet.ProtoICMPv6 {
		_, paired := session.ICMPPair(p == packet.ProtoICMPv6, uint8(d.SrcPort))
		oneWay = !paired
	}
	return session.CommunityID(s.key.Protocol, d.Src, d.SrcPort, d.Dst, d.DstPort, oneWay)
}

// appendNames appends the source addresses of a tap point's carriers.
func (t *taps) appendNames(names []string, index uint16) []string {
	if int(index) >= len(t.lists) {
		return names
	}
	for _, a := range t.lists[index] {
		if a == (packet.Addr{}) {
			break
		}
		names = append(names, a.String())
	}
	return names
}

func (f *Fold) packetRow(s *Session, r *ref, p *packet.Packet) {
	row := columns.Packet{
		Time: p.Time, SessionID: s.ID(), Side: columns.SideDst,
		Length: p.Length, PayloadLength: p.Payload, IPID: p.ID, TTL: r.flow.TTL,
		FragmentOffset: p.FragmentOffset, MoreFragments: p.Fragment&packet.MoreFragments != 0,
		Seq: p.Seq, Ack: p.Ack, Flags: p.Flags, Window: p.Window, Checksum: p.Checksum,
		Data: p.Data, Collector: f.names[r.name],
	}
	if s.orient() == r.side {
		row.Side = columns.SideSrc
	}
	if r.flow.NCarriers > 0 {
		row.TapPoint = r.flow.Carriers[0].Source.String()
	}
	f.out.Packet(&row)
}
