package output

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/session"
)

// revision is the work of a stream whose state an older version of the fold has saved, and whose log holds
// outputs behind that state: their numbers say nothing about what this version would put out. So the stream
// takes down what the log holds ([Stream.Emitted]), folds silently up to the input of the last of these outputs,
// taking down what it would have put out, and then puts out the difference.
type revision struct {
	input    int64 // offset of the record at which the last output was put out
	emitted  map[session.ID]emitted
	bookings map[columns.TrafficDimensions]columns.TrafficSums // this version's, less those in the log
	sessions map[session.ID]*columns.Session                   // newest versions, of this version of the fold
	order    []session.ID                                      // of sessions and emitted, as they came
	packets  []columns.Packet
	rows     map[packetRow]int // rows of packets that are in the log
	alerts   []columns.Alert
	raised   map[alertRow]int // alerts that are in the log
}

// emitted is what the log holds of a session.
type emitted struct {
	version uint32
	row     columns.Session // as far as an empty row needs it
}

// packetRow tells one row of packets from another.
type packetRow struct {
	session                session.ID
	time                   int64
	seq, ack, length, ipID uint32
	flags                  uint8
	fragment, checksum     uint16
	collector, tapPoint    string
}

// alertRow tells one alert from another: its time and its text may be another version's.
type alertRow struct {
	session                 session.ID
	kind, threat, indicator string
}

func alertOf(a *columns.Alert) alertRow { return alertRow{a.SessionID, a.Kind, a.Threat, a.Indicator} }

func keyOf(p *columns.Packet) packetRow {
	return packetRow{p.SessionID, p.Time, p.Seq, p.Ack, p.Length, p.IPID, p.Flags, p.FragmentOffset, p.Checksum, p.Collector, p.TapPoint}
}

// Revise prepares the stream for a log with outputs of another version of the fold behind its state.
func (s *Stream) Revise() {
	s.revision = &revision{
		input: math.MinInt64, emitted: map[session.ID]emitted{}, sessions: map[session.ID]*columns.Session{},
		bookings: map[columns.TrafficDimensions]columns.TrafficSums{}, rows: map[packetRow]int{}, raised: map[alertRow]int{},
	}
}

// Revising says whether the stream takes down outputs of another version of the fold, and has not yet put out
// what is different.
func (s *Stream) Revising() bool { return s.revision != nil }

// Emitted takes down an output that is in the log behind the state, while the stream is [Stream.Revising].
func (s *Stream) Emitted(o *pb.Output) error {
	v := s.revision
	v.input = o.InputOffset
	for _, rows := range o.Rows {
		var err error
		switch rows.Kind {
		case pb.Rows_SESSIONS:
			err = columns.Sessions.Read(rows, func(r *columns.Session) error {
				e, known := v.emitted[r.ID]
				if !known {
					v.order = append(v.order, r.ID)
					e.row = columns.Session{
						Tenant: r.Tenant, ID: r.ID, CommunityID: r.CommunityID, Start: r.Start, End: r.Start, Created: r.Created,
						Src: r.Src, SrcPort: r.SrcPort, Dst: r.Dst, DstPort: r.DstPort, IPProtocol: r.IPProtocol,
					}
				}
				e.version = max(e.version, r.Version)
				v.emitted[r.ID] = e
				return nil
			})
		case pb.Rows_TRAFFIC:
			err = columns.Bookings.Read(rows, func(t *columns.Traffic) error {
				v.book(t, -1)
				return nil
			})
		case pb.Rows_PACKETS:
			err = columns.Packets.Read(rows, func(p *columns.Packet) error {
				v.rows[keyOf(p)]++
				return nil
			})
		case pb.Rows_ALERTS:
			err = columns.Alerts.Read(rows, func(a *columns.Alert) error {
				v.raised[alertOf(a)]++
				return nil
			})
		}
		if err != nil {
			return fmt.Errorf("output %d: %w", o.Number, err)
		}
	}
	return nil
}

// allEmitted is told that all outputs have been taken down. Without any there is nothing to revise.
func (s *Stream) allEmitted() {
	if s.revision != nil && s.revision.input == math.MinInt64 {
		s.revision = nil
	}
}

func (v *revision) book(t *columns.Traffic, sign int64) {
	sums := v.bookings[t.TrafficDimensions]
	if sign < 0 {
		sums.Add(t.TrafficSums.Negated())
	} else {
		sums.Add(t.TrafficSums)
	}
	v.bookings[t.TrafficDimensions] = sums
}

func (v *revision) session(f *fold.Session) {
	row := v.sessions[f.ID()]
	if row == nil {
		row = columns.NewSession()
		v.sessions[f.ID()] = row
		if _, known := v.emitted[f.ID()]; !known {
			v.order = append(v.order, f.ID())
		}
	}
	f.Row(row)
}

// revised puts out what this version of the fold makes of the log otherwise than what the log holds. Every session
// that either has put out since the state gets one more version. A session that only the other version knows
// stays, without packets.
func (s *Stream) revised() {
	v := s.revision
	open := s.fold.Sessions()
	for _, id := range slices.Clone(v.order) {
		if o := open[id]; o != nil && v.emitted[id].version > 0 {
			s.fold.Supersede(o, v.emitted[id].version) // taken down in v.sessions
		}
	}
	s.revision = nil
	for _, id := range v.order {
		row := v.sessions[id]
		if row == nil {
			row = new(columns.Session)
			*row = v.emitted[id].row
			row.IsFinal = true
		}
		row.Version = max(row.Version, v.emitted[id].version+1)
		s.version(row)
	}
	for _, d := range slices.SortedFunc(maps.Keys(v.bookings), func(a, b columns.TrafficDimensions) int { return a.Compare(&b) }) {
		if sums := v.bookings[d]; sums != (columns.TrafficSums{}) {
			s.addUp(&columns.Traffic{TrafficDimensions: d, TrafficSums: sums})
		}
	}
	for i := range v.packets {
		p := &v.packets[i]
		if k := keyOf(p); v.rows[k] > 0 {
			v.rows[k]--
			continue
		}
		rows{s}.Packet(p)
	}
	for i := range v.alerts {
		a := &v.alerts[i]
		if k := alertOf(a); v.raised[k] > 0 {
			v.raised[k]--
			continue
		}
		rows{s}.Alert(a)
	}
	if s.pending() {
		s.cut()
	}
}
