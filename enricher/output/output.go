// Package output makes the records of tapweave.sessions out of what the fold puts out.
//
//	output.go    records in, numbered outputs out
//	snapshot.go  the state between two records, written and read
//	revision.go  from outputs of an older version of the fold to those of this one
//
// Which rows go into which numbered output follows from the log alone, as everything in the fold does: an
// output ends behind a record that moved the watermark far enough, behind a tick, or where it has grown large,
// and never because time has passed or somebody asked. So whoever folds the same log from the same place
// comes to the same numbers, with the same bytes.
package output

import (
	"errors"
	"math"
	"slices"
	"time"

	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/delivery"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
)

// Settings are what the borders of the outputs depend on beside the log.
type Settings struct {
	// Every is how far the watermark moves from one output to the next, in event time. Rows wait no longer for
	// the next output than that, and never over a tick. Shorter is sooner, and costs bytes: an output of one
	// session has 4 kB, one of a thousand 180 bytes a session.
	Every time.Duration
	// MaxBytes ends an output before that: the size of its rows before compression, up to MaxBytes itself.
	MaxBytes int
}

// MaxBytes keeps a record below [record.MaxBytes] even where nothing in it can be compressed, with Arrow's
// framing and a last row of 150 kB.
const MaxBytes = 640 << 10

// DefaultSettings returns the defaults.
func DefaultSettings() Settings { return Settings{Every: 100 * time.Millisecond, MaxBytes: MaxBytes} }

// Config of a stream.
type Config struct {
	Partition uint32 // of tapweave.packets
	Epoch     delivery.Epoch
	Fold      fold.Settings
	Output    Settings
	// Labels gives the label sets that the log names; nil: none is given.
	Labels fold.LabelSource
	// Emit takes a record of tapweave.sessions, in order of the numbers. It may block; an error ends the
	// stream.
	Emit func(number uint64, value []byte) error
}

// Counts is what a stream has put out so far.
type Counts struct {
	Outputs         uint64
	SessionVersions uint64
	SessionsSettled uint64 // sessions that can get no packet any more
	Bookings        uint64 // rows of traffic
	Packets         uint64
	Alerts          uint64
	Bytes           uint64 // of the records
}

// Stream folds the records of one partition into numbered outputs. It is not safe for concurrent use.
type Stream struct {
	config  Config
	fold    *fold.Fold
	numbers *delivery.Numbers
	counts  Counts
	err     error // nothing is put out any more

	revision *revision // nil: none is under way

	offset  int64 // of the record folded last
	cutAt   int64 // watermark at the last output
	logTime int64 // behind the last record

	row      columns.Session
	sessions *columns.Builder[columns.Session]
	packets  *columns.Builder[columns.Packet]
	alerts   *columns.Builder[columns.Alert]
	// What sessions of the same dimensions carried in a minute is one row of the output.
	traffic      map[columns.TrafficDimensions]columns.TrafficSums
	trafficBytes int
	dimensions   []columns.TrafficDimensions // scratch
	bookings     *columns.Builder[columns.Traffic]
}

// New returns the stream of a partition of which nothing is folded yet. numbers counts its outputs.
func New(c Config, numbers *delivery.Numbers) *Stream {
	s := &Stream{
		config: c, numbers: numbers, cutAt: math.MinInt64, offset: -1,
		sessions: columns.NewBuilder(columns.Sessions),
		packets:  columns.NewBuilder(columns.Packets),
		alerts:   columns.NewBuilder(columns.Alerts),
		bookings: columns.NewBuilder(columns.Bookings),
		traffic:  map[columns.TrafficDimensions]columns.TrafficSums{},
	}
	s.fold = fold.New(int(c.Partition), c.Fold, rows{s})
	s.err = s.fold.Label(c.Labels) // of a fold without a log there is none to fetch
	return s
}

// Fold is what the stream folds with, for a look at its state.
func (s *Stream) Fold() *fold.Fold { return s.fold }

// Counts returns what the stream has put out.
func (s *Stream) Counts() Counts { return s.counts }

// Record folds one record of the partition. An error that wraps [fold.ErrUndecodable] is about that record
// alone, any other ends the stream.
func (s *Stream) Record(offset int64, value []byte) error {
	if s.err != nil {
		return s.err
	}
	s.offset = offset
	undecodable := s.fold.Record(offset, value)
	if undecodable != nil && !errors.Is(undecodable, fold.ErrUndecodable) {
		s.err = undecodable // no label set: what follows cannot be folded
		return s.err
	}
	ticked := s.fold.LogTime() != s.logTime
	s.logTime = s.fold.LogTime()
	if s.revision != nil && offset >= s.revision.input {
		s.revised()
	}
	if s.pending() && (ticked || s.moved() || s.fold.Open() == 0) {
		s.cut()
	}
	if s.err == nil {
		s.err = s.numbers.Folded(offset)
	}
	if s.err != nil {
		return s.err
	}
	return undecodable
}

// Silent says whether outputs that are in the log already are still to come.
func (s *Stream) Silent() bool { return s.revision != nil || s.numbers.Last() < s.numbers.Silent() }

// Last is the number of the last output.
func (s *Stream) Last() uint64 { return s.numbers.Last() }

// Next is the offset of the first record that is not folded yet.
func (s *Stream) Next() int64 { return s.offset + 1 }

// Begin says at which offset a stream begins that has not folded anything.
func (s *Stream) Begin(offset int64) { s.offset = offset - 1 }

func (s *Stream) pending() bool {
	return s.sessions.Len() > 0 || s.packets.Len() > 0 || s.alerts.Len() > 0 || len(s.traffic) > 0
}

// moved says whether the watermark has gone far enough since the last output.
func (s *Stream) moved() bool {
	w, every := s.fold.Watermark(), int64(s.config.Output.Every)
	return s.cutAt == math.MinInt64 || w-every >= s.cutAt
}

// full ends the output where it has grown large.
func (s *Stream) full() {
	if s.sessions.Size()+s.packets.Size()+s.alerts.Size()+s.trafficBytes >= s.config.Output.MaxBytes {
		s.cut()
	}
}

// cut ends the open output.
func (s *Stream) cut() {
	s.cutAt = s.fold.Watermark()
	if s.err == nil {
		s.err = s.put()
	}
}

// put numbers the rows that wait, and hands them out.
func (s *Stream) put() error {
	s.book()
	s.counts.Bookings += uint64(s.bookings.Len())
	if s.sessions.Len()+s.bookings.Len()+s.packets.Len()+s.alerts.Len() == 0 {
		return nil // bookings that cancelled each other out
	}
	at, emit, err := s.numbers.Next(s.offset)
	if err != nil {
		return err
	}
	if !emit {
		s.sessions.Discard()
		s.bookings.Discard()
		s.packets.Discard()
		s.alerts.Discard()
		return nil
	}
	var all []*pb.Rows
	for _, b := range []interface {
		Len() int
		Rows() (*pb.Rows, error)
	}{s.sessions, s.bookings, s.packets, s.alerts} {
		if b.Len() > 0 {
			r, err := b.Rows()
			if err != nil {
				return err
			}
			all = append(all, r)
		}
	}
	value, err := record.MarshalSessions(&pb.SessionsRecord{
		InputPartition: s.config.Partition, LogEpoch: at.Log, OwnerEpoch: at.Owner,
		Body: &pb.SessionsRecord_Output{Output: &pb.Output{Number: at.Number, InputOffset: s.offset, Rows: all}},
	})
	if err != nil {
		return err
	}
	s.counts.Outputs++
	s.counts.Bytes += uint64(len(value))
	return s.config.Emit(at.Number, value)
}

// book turns the sums into rows, in the order of their dimensions.
func (s *Stream) book() {
	s.dimensions = s.dimensions[:0]
	for d := range s.traffic {
		s.dimensions = append(s.dimensions, d)
	}
	slices.SortFunc(s.dimensions, func(a, b columns.TrafficDimensions) int { return a.Compare(&b) })
	for _, d := range s.dimensions {
		if sums := s.traffic[d]; sums != (columns.TrafficSums{}) {
			s.bookings.Append(&columns.Traffic{TrafficDimensions: d, TrafficSums: sums})
		}
	}
	clear(s.traffic)
	s.trafficBytes = 0
}

// rows takes what the fold puts out into the open output.
type rows struct{ s *Stream }

// Session implements [fold.Output].
func (r rows) Session(v *fold.Session) {
	s := r.s
	if s.revision != nil {
		s.revision.session(v)
		return
	}
	v.Row(&s.row)
	s.version(&s.row)
}

// version takes a version of a session into the open output.
func (s *Stream) version(row *columns.Session) {
	row.InputPartition = s.config.Partition
	row.LogEpoch, row.OwnerEpoch = s.config.Epoch.Log, s.config.Epoch.Owner
	row.OutputNumber = s.numbers.Last() + 1
	s.sessions.Append(row)
	s.counts.SessionVersions++
	s.full()
}

// Settled implements [fold.Output].
func (r rows) Settled(int64, *fold.Session) { r.s.counts.SessionsSettled++ }

// Traffic implements [fold.Output].
func (r rows) Traffic(_ *fold.Session, t *columns.Traffic) {
	s := r.s
	if s.revision != nil {
		s.revision.book(t, 1)
		return
	}
	s.addUp(t)
}

// addUp takes a booking into the open output.
func (s *Stream) addUp(t *columns.Traffic) {
	sums, known := s.traffic[t.TrafficDimensions]
	if !known {
		s.trafficBytes += rowBytes(&t.TrafficDimensions)
	}
	sums.Add(t.TrafficSums)
	s.traffic[t.TrafficDimensions] = sums
	s.full()
}

// rowBytes is not less than what a booking of these dimensions adds to an output.
func rowBytes(d *columns.TrafficDimensions) int {
	const numbers, offsets = 100, 4 * 13
	return numbers + offsets + len(d.Tenant) + len(d.App) + len(d.Direction) + len(d.FlowType) +
		endBytes(&d.Src) + endBytes(&d.Dst)
}

func endBytes(e *columns.EndDimensions) int {
	return len(e.Name) + len(e.Subnet) + len(e.VNet) + len(e.Country)
}

// Packet implements [fold.Output].
func (r rows) Packet(p *columns.Packet) {
	s := r.s
	if s.revision != nil {
		q := *p
		q.Data = slices.Clone(p.Data)
		s.revision.packets = append(s.revision.packets, q)
		return
	}
	s.packets.Append(p)
	s.counts.Packets++
	s.full()
}

// Alert implements [fold.Output].
func (r rows) Alert(a *columns.Alert) {
	s := r.s
	if s.revision != nil {
		s.revision.alerts = append(s.revision.alerts, *a)
		return
	}
	s.alerts.Append(a)
	s.counts.Alerts++
	s.full()
}
