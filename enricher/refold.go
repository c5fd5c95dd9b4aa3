package enricher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/enricher/labels"
	"github.com/tapweave/tapweave/enricher/labels/source"
	"github.com/tapweave/tapweave/enricher/output"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/delivery"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/proto/session"
	"github.com/tapweave/tapweave/service/kafka"
)

// Refolded takes what a [Refold] puts out. What is pointed to is only valid during the call.
type Refolded interface {
	// Session is a version of a session of the range; a later one replaces it.
	Session(*columns.Session) error
	// Booking is what a session of the range carried in a minute, to be added to what it is said to have carried
	// in it before; src and dst are those of the session's newest version when all is added up.
	Booking(session.ID, *columns.Traffic) error
	// Alert may be of a session outside of the range.
	Alert(*columns.Alert) error
}

// Refold folds again what is in the log about the sessions that were created within a range of time, and labels them
// by the configured files. It joins no group, commits nothing, and writes to no topic.
//
// Where it can, it begins with a snapshot: then its sessions are the ones that were stored, those among them that
// go on from before a rollover included. Without one it begins with the earliest record of the log.
type Refold struct {
	service  *Service
	from, to int64
	set      *labels.Set
	Settings fold.Settings // configured
}

// NewRefold returns a refold of sessions created from a time on and before another, both in event time.
func NewRefold(c Config, d Dependencies, from, to time.Time) (*Refold, error) {
	s, err := New(c, d)
	if err != nil {
		return nil, err
	}
	set, _, err := source.NewCompiler(c.Labels).Compile()
	if err != nil {
		return nil, fmt.Errorf("labels: %w", err)
	}
	f, _ := c.settings()
	return &Refold{service: s, from: from.UnixNano(), to: to.UnixNano(), set: set, Settings: f}, nil
}

// Close closes idle connections.
func (r *Refold) Close() { r.service.client.Close() }

// Partition folds a partition of tapweave.packets, up to what is in the log now or until no session of the range can
// get another packet. It returns the watermark that it came to, math.MinInt64 for a partition without packets.
func (r *Refold) Partition(ctx context.Context, n int, to Refolded) (watermark int64, err error) {
	p := &partition{Service: r.service, assigned: kafka.Assignment{Topic: record.TopicPackets, Partition: n}}
	first, end, err := p.offsets(ctx, record.TopicPackets, n)
	if err != nil {
		return 0, err
	}
	out := &refolding{from: r.from, to: r.to, partition: uint32(n), out: to}
	f, next, err := r.begin(ctx, p, out, first)
	if err != nil {
		return 0, err
	}
	// Whatever the log names is this set.
	if err := f.Label(func(*pb.LabelSet) (*labels.Set, error) { return r.set, nil }); err != nil {
		return 0, err
	}
	named, err := record.MarshalPackets(&pb.PacketsRecord{Body: &pb.PacketsRecord_LabelSet{LabelSet: r.set.Named()}})
	if err != nil {
		return 0, err
	}
	if err := f.Record(next-1, named); err != nil {
		return 0, err
	}
	set := f.Settings()
	life := set.Rollover + max(set.TCPIdle, set.UDPIdle, set.ICMPIdle, set.OtherIdle) + set.Linger + set.LateLimit
	over := int64(math.MaxInt64)
	if r.to < math.MaxInt64-int64(life) {
		over = r.to + int64(life)
	}
	for next < end && f.Watermark() < over {
		fetched, err := p.read(ctx, record.TopicPackets, n, next)
		if errors.Is(err, kafka.ErrOffsetOutOfRange) {
			return 0, fmt.Errorf("%s/%d: records from offset %d on are gone by retention while they were folded again", record.TopicPackets, n, next)
		} else if err != nil {
			return 0, err
		}
		for _, rec := range fetched.Records {
			value, err := r.relabelled(rec.Value)
			if err != nil {
				return 0, err
			}
			if err := f.Record(rec.Offset, value); err != nil && !errors.Is(err, fold.ErrUndecodable) {
				return 0, err
			}
			if out.err != nil {
				return 0, out.err
			}
		}
		next = fetched.Next
	}
	return f.Watermark(), nil
}

// relabelled is a record, and where it names a label set, one that names ours.
func (r *Refold) relabelled(value []byte) ([]byte, error) {
	m, err := record.UnmarshalPackets(value)
	if err != nil || m.GetLabelSet() == nil {
		return value, nil // the fold counts what does not decode
	}
	named := r.set.Named()
	named.LogEpoch, named.OwnerEpoch = m.GetLabelSet().LogEpoch, m.GetLabelSet().OwnerEpoch
	return record.MarshalPackets(&pb.PacketsRecord{Body: &pb.PacketsRecord_LabelSet{LabelSet: named}})
}

// begin returns the fold before the range and the offset of the first record that it has not folded: that of the newest
// snapshot of the newest log epoch which has nothing of the range, or an empty one.
func (r *Refold) begin(ctx context.Context, p *partition, out fold.Output, first int64) (*fold.Fold, int64, error) {
	list, err := p.snapshots(ctx)
	if err != nil {
		return nil, 0, err
	}
	list = slices.DeleteFunc(list, func(s delivery.Snapshot) bool { return s.Input < first })
	load := func(s delivery.Snapshot) *fold.Fold {
		chunks, _, err := p.fetchSnapshot(ctx, s)
		var f *fold.Fold
		if err == nil {
			err = decompress(chunks, func(in io.Reader) (err error) {
				f, err = output.LoadFold(in, p.assigned.Partition, out)
				return err
			})
		}
		if err != nil {
			if ctx.Err() == nil {
				p.log.Warn("a snapshot cannot be read; trying the one before it", "topic", record.TopicState, "partition", p.assigned.Partition, "offset", s.State, "error", err)
			}
			return nil
		}
		return f
	}
	i := sort.Search(len(list), func(i int) bool {
		f := load(list[i])
		return f == nil || f.Watermark() > r.from
	})
	for i--; i >= 0; i-- {
		if f := load(list[i]); f != nil && f.Watermark() <= r.from {
			p.log.Info("folding again from a snapshot", "partition", p.assigned.Partition, "offset", list[i].Input, "sessions", f.Open())
			return f, list[i].Input, nil
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	p.log.Info("folding again from the earliest record", "partition", p.assigned.Partition, "offset", first)
	return fold.New(p.assigned.Partition, r.Settings, out), first, nil
}

// snapshots lists the snapshots of the newest log epoch that are on tapweave.state, in the order of the log.
func (p *partition) snapshots(ctx context.Context) (list []delivery.Snapshot, err error) {
	next, end, err := p.offsets(ctx, record.TopicState, p.assigned.Partition)
	if err != nil {
		return nil, err
	}
	for next < end {
		f, err := p.read(ctx, record.TopicState, p.assigned.Partition, next)
		if errors.Is(err, kafka.ErrOffsetOutOfRange) {
			return p.snapshots(ctx) // retention was faster
		} else if err != nil {
			return nil, err
		}
		for _, r := range f.Records {
			s, err := record.UnmarshalState(r.Value)
			var version *record.VersionError
			if errors.As(err, &version) {
				return nil, newer(err)
			}
			c := s.GetSnapshot()
			if err != nil || c == nil || c.Chunk != 0 || c.InputPartition != uint32(p.assigned.Partition) {
				continue
			}
			list = append(list, delivery.Snapshot{
				State: r.Offset, Input: c.InputOffset, Output: c.OutputOffset,
				At: delivery.Position{Epoch: delivery.Epoch{Log: c.LogEpoch, Owner: c.OwnerEpoch}, Number: c.Number},
			})
		}
		next = f.Next
	}
	var newest uint64
	for _, s := range list {
		newest = max(newest, s.At.Log)
	}
	list = slices.DeleteFunc(list, func(s delivery.Snapshot) bool { return s.At.Log != newest })
	slices.SortStableFunc(list, func(a, b delivery.Snapshot) int { return int(a.Input - b.Input) })
	return list, nil
}

// refolding hands on what is of the range. Errors stop it.
type refolding struct {
	from, to  int64
	partition uint32
	out       Refolded
	row       columns.Session
	err       error
}

func (o *refolding) within(s *fold.Session) bool {
	return o.err == nil && s.Created() >= o.from && s.Created() < o.to
}

// Session implements [fold.Output].
func (o *refolding) Session(s *fold.Session) {
	if o.within(s) {
		s.Row(&o.row)
		o.row.InputPartition = o.partition
		o.err = o.out.Session(&o.row)
	}
}

// Settled implements [fold.Output].
func (o *refolding) Settled(int64, *fold.Session) {}

// Traffic implements [fold.Output].
func (o *refolding) Traffic(s *fold.Session, t *columns.Traffic) {
	if o.within(s) {
		o.err = o.out.Booking(s.ID(), t)
	}
}

// Packet implements [fold.Output].
func (o *refolding) Packet(*columns.Packet) {}

// Alert implements [fold.Output].
func (o *refolding) Alert(a *columns.Alert) {
	if o.err == nil {
		o.err = o.out.Alert(a)
	}
}
