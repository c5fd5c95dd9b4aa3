package fold

import (
	"time"

	"github.com/tapweave/tapweave/enricher/application"
	"github.com/tapweave/tapweave/proto/packet"
)

// settled is how old a session is when the first packets of a side whose SYN was not seen have come, in whatever
// order: more than collectors' clocks may be apart.
const settled = int64(100 * time.Millisecond)

// readSegment reads the payload of a TCP packet whose sequence numbers have been taken in.
func (f *Fold) readSegment(s *Session, side uint8, p *packet.Packet) {
	if s.app == nil {
		s.app = new(application.Session)
	}
	if !s.app.Listens(side) {
		return
	}
	q := &s.ends[side].sequence
	at := application.Place{Pos: q.unwrap(p.Seq), Size: int64(p.Payload), Settled: p.Time-s.created > settled, Seen: len(q.holes) == 0}
	if p.Flags&packet.SYN != 0 {
		at.Pos++
	}
	if q.has(sentSYN | sentSYNACK) {
		at.Begin = q.unwrap(q.isn) + 1
		at.Known = at.Begin <= at.Pos
	}
	before := s.app.Bytes
	s.app.Segment(&application.Settings{Keep: f.set.KeepPayload}, side, at, p.Data)
	f.limit(s, before)
}

// readDatagram reads the payload of a UDP packet.
func (f *Fold) readDatagram(s *Session, side uint8, p *packet.Packet) {
	if s.app == nil {
		s.app = new(application.Session)
	}
	if !s.app.Listens(side) {
		return
	}
	before := s.app.Bytes
	s.app.Datagram(&application.Settings{Keep: f.set.KeepPayload}, side, p.Data, int(p.Payload))
	f.limit(s, before)
}

// recognise reads what waited, where a version is put out that is the last, or late enough.
func (f *Fold) recognise(s *Session) {
	set := application.Settings{Keep: f.set.KeepPayload}
	before := s.app.Bytes
	switch {
	case s.final:
		s.app.End(&set)
	case f.now-s.created > settled:
		s.app.Settle(&set)
	}
	f.limit(s, before)
}

// limit counts what a session holds, and makes it give up what is only needed to read on where all hold too
// much.
func (f *Fold) limit(s *Session, before int) {
	f.applications += s.app.Bytes - before
	if s.app.Bytes > before && f.applications > f.set.MaxApplications {
		f.counts[ApplicationsGivenUp]++
		f.applications -= s.app.Bytes
		s.app.GiveUp()
		f.applications += s.app.Bytes
	}
}

// application is what the session's payload was recognised as.
func (s *Session) application() application.Name {
	switch {
	case s.frozen:
		return s.fixed.app
	case s.app == nil:
		return application.Unknown
	}
	k := &s.key
	return s.app.Name(application.Ends{
		Addresses: [2]packet.Addr{k.Low, k.High}, Ports: [2]uint16{k.LowPort, k.HighPort}, UDP: k.Protocol == packet.ProtoUDP,
	})
}
