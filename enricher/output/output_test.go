package output

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/enricher/internal/synthetic"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/delivery"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/proto/session"
)

var epoch = delivery.Epoch{Log: 1, Owner: 7}

var start = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

// numbersOf returns the counter of an owner that begins with nothing.
func numbersOf(t testing.TB) *delivery.Numbers {
	o, err := delivery.NewOwner(delivery.Assignment{Generation: 7, Committed: delivery.Commit{Offset: -1}})
	if err != nil {
		t.Fatal(err)
	}
	o.Surveyed(0, 0)
	return o.Numbers(0)
}

func newStream(t testing.TB, change func(*Config)) (*Stream, *[][]byte) {
	out := new([][]byte)
	c := Config{Partition: 0, Epoch: epoch, Fold: fold.DefaultSettings(), Output: DefaultSettings(), Emit: func(_ uint64, v []byte) error {
		*out = append(*out, v)
		return nil
	}}
	c.Fold.Partitions = 1
	if change != nil {
		change(&c)
	}
	return New(c, numbersOf(t)), out
}

func feed(t testing.TB, s *Stream, l *synthetic.Log) {
	for i, r := range l.Records {
		if err := s.Record(int64(i), r.Value); err != nil {
			t.Fatal(err)
		}
	}
}

func tick(t testing.TB, clock time.Duration) []byte {
	v, err := record.MarshalPackets(&pb.PacketsRecord{Body: &pb.PacketsRecord_Tick{Tick: &pb.Tick{OwnerEpoch: 7, Clock: int64(clock)}}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// content is what the outputs hold together.
type content struct {
	outputs  []*pb.SessionsRecord
	sessions []columns.Session
	traffic  map[columns.TrafficDimensions]columns.TrafficSums
	packets  int
}

func read(t *testing.T, values [][]byte) *content {
	t.Helper()
	c := &content{traffic: map[columns.TrafficDimensions]columns.TrafficSums{}}
	for i, v := range values {
		r, err := record.UnmarshalSessions(v)
		if err != nil {
			t.Fatal(err)
		}
		o := r.GetOutput()
		if o.GetNumber() != uint64(i+1) {
			t.Fatalf("output %d has number %d", i+1, o.GetNumber())
		}
		c.outputs = append(c.outputs, r)
		for _, rows := range o.Rows {
			var n int
			switch rows.Kind {
			case pb.Rows_SESSIONS:
				n = decode(t, columns.Sessions, rows, func(s *columns.Session) {
					if s.InputPartition != r.InputPartition || s.LogEpoch != r.LogEpoch || s.OwnerEpoch != r.OwnerEpoch || s.OutputNumber != o.Number {
						t.Fatalf("row of %d/%d/%d/%d in output %d", s.InputPartition, s.LogEpoch, s.OwnerEpoch, s.OutputNumber, o.Number)
					}
					c.sessions = append(c.sessions, *s)
				})
			case pb.Rows_TRAFFIC:
				var last *columns.TrafficDimensions
				n = decode(t, columns.Bookings, rows, func(b *columns.Traffic) {
					if last != nil && last.Compare(&b.TrafficDimensions) >= 0 {
						t.Fatalf("output %d: bookings out of order or not summed up", o.Number)
					}
					d := b.TrafficDimensions
					last = &d
					sums := c.traffic[d]
					sums.Add(b.TrafficSums)
					c.traffic[d] = sums
				})
			case pb.Rows_PACKETS:
				n = decode(t, columns.Packets, rows, func(*columns.Packet) { c.packets++ })
			}
			if n != int(rows.Count) || n == 0 {
				t.Fatalf("output %d: %d rows of %v, said to be %d", o.Number, n, rows.Kind, rows.Count)
			}
		}
	}
	return c
}

func decode[R any](t *testing.T, table *columns.Table[R], rows *pb.Rows, each func(*R)) int {
	t.Helper()
	n := 0
	err := table.Read(rows, func(r *R) error {
		n++
		each(r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// final returns the last version of each session, by client port and address.
func final(c *content) map[string]columns.Session {
	all := map[session.ID]columns.Session{}
	for _, s := range c.sessions {
		if s.Version > all[s.ID].Version {
			all[s.ID] = s
		}
	}
	byName := map[string]columns.Session{}
	for _, s := range all {
		byName[fmt.Sprint(s.Src, s.SrcPort, s.Dst, s.DstPort)] = s
	}
	return byName
}

func TestRowsAreTheSessions(t *testing.T) {
	l := synthetic.Write(synthetic.Options{Seed: 1, Sessions: 500, Partitions: 1, Start: start, Span: 20 * time.Second, Every: 200 * time.Millisecond})
	s, out := newStream(t, func(c *Config) { c.Fold.Packets = true })
	feed(t, s, l)
	c := read(t, *out)
	got := final(c)
	if len(got) != len(l.Sessions) {
		t.Fatalf("%d sessions, want %d", len(got), len(l.Sessions))
	}
	var want columns.TrafficSums
	for _, w := range l.Sessions {
		g := got[fmt.Sprint(w.Src, w.SrcPort, w.Dst, w.DstPort)]
		if !g.IsFinal || g.SrcPackets != w.SrcPackets || g.DstPackets != w.DstPackets || g.SrcBytes != w.SrcBytes || g.DstBytes != w.DstBytes ||
			g.SrcPayloadBytes != w.SrcPayloadBytes || g.DstPayloadBytes != w.DstPayloadBytes {
			t.Errorf("session %+v, want %+v", g, w)
		}
		want.Add(columns.TrafficSums{
			Sessions: 1, SrcPackets: int64(w.SrcPackets), DstPackets: int64(w.DstPackets), SrcBytes: int64(w.SrcBytes), DstBytes: int64(w.DstBytes),
			SrcPayloadBytes: int64(w.SrcPayloadBytes), DstPayloadBytes: int64(w.DstPayloadBytes),
		})
	}
	var sum columns.TrafficSums
	for _, s := range c.traffic {
		sum.Add(s)
	}
	if sum != want {
		t.Errorf("booked %+v, want %+v", sum, want)
	}
	if n := int(want.SrcPackets + want.DstPackets); c.packets != n {
		t.Errorf("%d packets, want %d", c.packets, n)
	}
	n := s.Counts()
	if n.Outputs != uint64(len(*out)) || n.SessionVersions != uint64(len(c.sessions)) || n.SessionsSettled != 500 || n.Packets != uint64(c.packets) {
		t.Errorf("counts %+v", n)
	}
}

// The same log gives the same bytes, whatever the order of maps.
func TestDeterminism(t *testing.T) {
	l := synthetic.Write(synthetic.Options{Seed: 2, Sessions: 2000, Partitions: 1, Start: start, Span: 10 * time.Second, Every: 200 * time.Millisecond})
	var first [][]byte
	for range 3 {
		s, out := newStream(t, func(c *Config) { c.Fold.Packets = true })
		feed(t, s, l)
		if first == nil {
			first = *out
		} else if !slices.EqualFunc(first, *out, bytes.Equal) {
			t.Fatal("the same log gave other bytes")
		}
	}
}

// However much one record sets free, each output stays below what a broker takes.
func TestSizeIsBounded(t *testing.T) {
	l := synthetic.Write(synthetic.Options{Seed: 3, Sessions: 8000, Partitions: 1, Start: start, Span: time.Second, Every: 50 * time.Millisecond})
	for _, limit := range []int{20 << 10, MaxBytes} {
		s, out := newStream(t, func(c *Config) { c.Fold.Packets, c.Output.MaxBytes = true, limit })
		feed(t, s, l)
		c := read(t, *out)
		if n := len(final(c)); n != 8000 {
			t.Errorf("limit %d: %d sessions", limit, n)
		}
		var most uint64
		for _, o := range c.outputs {
			var raw uint64
			for _, r := range o.GetOutput().Rows {
				raw += r.RawSize
			}
			most = max(most, raw)
		}
		if most > uint64(limit)+60<<10 {
			t.Errorf("limit %d: an output of %d bytes", limit, most)
		}
		if len(*out) < 10 {
			t.Errorf("limit %d: %d outputs", limit, len(*out))
		}
	}
}

// Outputs end where the watermark has moved far enough, at ticks, and where nothing is open; the state is
// only saved where no rows wait.
func TestBorders(t *testing.T) {
	l := synthetic.Write(synthetic.Options{Seed: 4, Sessions: 300, Partitions: 1, Start: start, Span: 10 * time.Second, Every: 50 * time.Millisecond})
	count := func(every time.Duration) int {
		s, out := newStream(t, func(c *Config) { c.Output.Every = every })
		feed(t, s, l)
		return len(*out)
	}
	if fine, coarse := count(0), count(time.Second); fine < 100 || coarse > 20 || coarse < 5 {
		t.Errorf("%d and %d outputs", fine, coarse)
	}
	s, out := newStream(t, func(c *Config) { c.Output.Every = time.Hour })
	waited, offset := false, int64(0)
	for i, r := range l.Records[:len(l.Records)-2] {
		if err := s.Record(offset, r.Value); err != nil {
			t.Fatal(err)
		}
		offset++
		if s.Whole() {
			continue
		}
		if err := s.Save(io.Discard); !errors.Is(err, ErrPending) {
			t.Errorf("saved while rows wait: %v", err)
		}
		waited = true
		if i%7 == 0 { // a tick frees what waits
			if err := s.Record(offset, tick(t, time.Duration(i)*time.Second)); err != nil {
				t.Fatal(err)
			}
			if err := s.Record(offset+1, tick(t, time.Duration(i+1)*time.Second)); err != nil {
				t.Fatal(err)
			}
			if offset += 2; len(*out) == 0 {
				t.Error("a tick has left the rows waiting")
			}
			if !s.Whole() {
				t.Error("rows wait behind a tick")
			}
		}
	}
	if !waited {
		t.Error("no rows ever waited")
	}
}

func TestErrors(t *testing.T) {
	l := synthetic.Write(synthetic.Options{Seed: 5, Sessions: 50, Partitions: 1, Start: start, Span: 5 * time.Second, Every: 200 * time.Millisecond})
	broken := errors.New("broken")
	s, _ := newStream(t, func(c *Config) { c.Emit = func(uint64, []byte) error { return broken } })
	if err := s.Record(0, []byte("no record")); !errors.Is(err, fold.ErrUndecodable) {
		t.Errorf("%v", err)
	}
	var err error
	for i, r := range l.Records {
		if err = s.Record(int64(i+1), r.Value); err != nil {
			break
		}
	}
	if !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if err := s.Record(1000, l.Records[0].Value); !errors.Is(err, broken) {
		t.Errorf("went on: %v", err)
	}
	if s.Whole() {
		t.Error("a state to go on from behind an error")
	}
}

// A stream that goes on from a state that was saved comes to the same outputs, with the same numbers; what is in
// the log already it does not put out again.
func TestGoesOn(t *testing.T) {
	l := synthetic.Write(synthetic.Options{Seed: 6, Sessions: 1000, Partitions: 1, Start: start, Span: 10 * time.Second, Every: 100 * time.Millisecond})
	s, want := newStream(t, func(c *Config) { c.Output.Every = time.Second; c.Fold.Packets = true })
	feed(t, s, l)
	rng := rand.New(rand.NewPCG(1, 1))
	for range 20 {
		s, out := newStream(t, func(c *Config) { c.Output.Every = time.Second; c.Fold.Packets = true })
		owner := delivery.Epoch{Log: 1, Owner: 7}
		for i := 0; i < len(l.Records); i++ {
			if err := s.Record(int64(i), l.Records[i].Value); err != nil {
				t.Fatal(err)
			}
			if !s.Whole() || rng.IntN(20) > 0 {
				continue
			}
			var b bytes.Buffer
			if err := s.Save(&b); err != nil {
				t.Fatal(err)
			}
			at, next, config := s.Last(), s.Next(), s.config
			ahead := rng.IntN(len(l.Records) - i)
			for j := range ahead { // what the owner puts out behind its last snapshot
				if err := s.Record(next+int64(j), l.Records[i+1+j].Value); err != nil {
					t.Fatal(err)
				}
			}
			n := len(*out)
			config.Fold, config.Output = fold.Settings{}, Settings{} // those of the state count
			var older bool
			var err error
			if s, older, err = Load(&b, config); err != nil || older {
				t.Fatal(older, err)
			}
			if s.Next() != next {
				t.Fatalf("goes on at %d, not %d", s.Next(), next)
			}
			s.Continue(owner, numbersFrom(t, at, *out), config.Emit)
			for j := range ahead {
				if err := s.Record(next+int64(j), l.Records[i+1+j].Value); err != nil {
					t.Fatal(err)
				}
			}
			if i += ahead; len(*out) != n || s.Silent() || s.Last() != uint64(n) {
				t.Fatalf("%d outputs, then %d, last %d", n, len(*out), s.Last())
			}
		}
		if !slices.EqualFunc(*out, *want, bytes.Equal) {
			t.Fatal("other outputs")
		}
	}
}

// numbersFrom returns the counter of an owner that goes on from a state with at outputs, where out is in the log.
// It has the epoch of the one before it, so that the outputs can be compared.
func numbersFrom(t *testing.T, at uint64, out [][]byte) *delivery.Numbers {
	t.Helper()
	m := delivery.Enricher{Epoch: delivery.Epoch{Log: 1, Owner: 6}, Snapshots: []delivery.Snapshot{{At: delivery.Position{Epoch: delivery.Epoch{Log: 1, Owner: 6}, Number: at}}}}
	encoded, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	o, err := delivery.NewOwner(delivery.Assignment{Partition: 0, Generation: 7, Committed: delivery.Commit{Metadata: encoded}})
	if err != nil {
		t.Fatal(err)
	}
	o.Claimed(delivery.Done)
	o.Marked()
	o.Loaded(true)
	for _, v := range out[at:] {
		r, err := record.UnmarshalSessions(v)
		if err != nil {
			t.Fatal(err)
		}
		r.OwnerEpoch = 6
		e, err := delivery.EntryOf(r, 16)
		if err != nil {
			t.Fatal(err)
		}
		o.Learn(e)
	}
	o.Learn(o.Marker())
	return o.Numbers(at)
}
