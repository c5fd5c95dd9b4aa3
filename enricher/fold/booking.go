package fold

import (
	"github.com/tapweave/tapweave/enricher/application"
	"github.com/tapweave/tapweave/proto/columns"
)

// minute is what a session carried in one minute of its packets' own time, and what of it has been booked.
type minute struct {
	start        int64
	sums, booked sums
	before       *minute
}

// dimensions decide which sums a session is booked in, beside what its key says.
type dimensions struct {
	src uint8
	app application.Name
	// malicious is what was read of it, by a threat list. Its addresses do not change.
	malicious bool
}

// dimensions are those of the session as it stands.
func (s *Session) dimensions() dimensions {
	if s.frozen {
		return s.fixed
	}
	return dimensions{s.orient(), s.application(), s.labels.malicious()}
}

// sums are by end.
type sums struct {
	sessions                int64
	packets, bytes, payload [2]int64
}

// minute returns the minute that t is in. Most packets fall into the last.
func (s *Session) minute(t int64) *minute {
	if m := s.minutes; m != nil && uint64(t-m.start) < 60e9 {
		return m
	}
	start := columns.MinuteOf(t)
	for m := s.minutes; m != nil; m = m.before {
		if m.start == start {
			return m
		}
	}
	m := &minute{start: start, before: s.minutes}
	s.minutes = m
	if !s.begun {
		s.begun = true
		m.sums.sessions = 1
	}
	return m
}

// book puts out what the session carried since it was last booked. Where a dimension has changed since (src has
// turned round, the application was recognised), what was booked is taken out first. Minutes are kept for as
// long as that can happen.
func (f *Fold) book(s *Session) {
	s.freeze(f.now)
	d := s.dimensions()
	for m := s.minutes; m != nil; m = m.before {
		if d != s.booked && m.booked != (sums{}) {
			f.booking(s, s.booked, m.start, sums{}, m.booked)
			m.booked = sums{}
		}
		if m.sums != m.booked {
			f.booking(s, d, m.start, m.sums, m.booked)
			m.booked = m.sums
		}
	}
	s.booked = d
	if s.frozen {
		s.minutes = nil
	}
}

// booking puts out the difference of two sums.
func (f *Fold) booking(s *Session, d dimensions, minute int64, now, was sums) {
	src, dst := d.src, 1-d.src
	t := columns.Traffic{
		TrafficDimensions: columns.TrafficDimensions{Minute: minute, Tenant: s.key.Tenant, IPProtocol: s.key.Protocol, DstPort: s.key.HighPort, App: d.app.String()},
		TrafficSums: columns.TrafficSums{
			Sessions:   now.sessions - was.sessions,
			SrcPackets: now.packets[src] - was.packets[src], DstPackets: now.packets[dst] - was.packets[dst],
			SrcBytes: now.bytes[src] - was.bytes[src], DstBytes: now.bytes[dst] - was.bytes[dst],
			SrcPayloadBytes: now.payload[src] - was.payload[src], DstPayloadBytes: now.payload[dst] - was.payload[dst],
		},
	}
	if src == high {
		t.DstPort = s.key.LowPort
	}
	if s.labels != nil {
		s.labels.book(&t.TrafficDimensions, d)
	}
	f.out.Traffic(s, &t)
}
