package enricher

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/enricher/output"
	"github.com/tapweave/tapweave/proto/delivery"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
)

const (
	tickEvery = time.Second
	// fetchBytes bounds one fetch. A partition holds two at most: one that is folded, and the next.
	fetchBytes = 1 << 20
	fetchWait  = time.Second
)

// errOver says that the partition is another's now.
var errOver = errors.New("the generation is over")

// partition is one partition of tapweave.packets in one generation.
type partition struct {
	*Service
	gen      *kafka.Generation
	assigned kafka.Assignment
	writer   *writer

	// Of the goroutine that runs it.
	owner        *delivery.Owner
	stream       *output.Stream
	folded       [fold.Reasons]uint64 // counted already
	put          output.Counts        // counted already
	safe, wanted place

	acknowledged atomic.Uint64                // number of the last output that is written
	ready        atomic.Pointer[kafka.Commit] // to be committed next

	// For the gauges.
	running                           atomic.Bool
	watermark, open, buffered, behind atomic.Int64
}

// place is where the fold could begin again, once the outputs up to a number are written.
type place struct {
	offset int64
	number uint64
	known  bool
}

// run takes the partition over and folds it until ctx is done. started is called when the fold begins.
func (p *partition) run(ctx context.Context, started func()) error {
	if err := p.takeOver(ctx); err != nil {
		return err
	}
	p.stream = output.New(output.Config{
		Partition: uint32(p.assigned.Partition), Epoch: p.owner.Epoch(),
		Fold:   p.config.Fold.settings(p.config.Partitions),
		Output: output.Settings{Every: p.config.Output.Every, MaxBytes: p.config.Output.MaxBytes},
		Emit: func(number uint64, value []byte) error {
			return p.writer.put(ctx, p.entry(value, func() { p.acknowledged.Store(number) }))
		},
	}, p.owner.Numbers(0))
	p.count()
	p.running.Store(true)
	started()
	defer func() { p.counts.released.Add(uint64(p.stream.Fold().Open())) }()

	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	fetched := make(chan kafka.Fetched)
	wg.Go(func() { p.fetch(ctx, fetched) })
	wg.Go(func() { p.tick(ctx) })
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case f := <-fetched:
			if err := p.fold(ctx, f); err != nil {
				return err
			}
		}
	}
}

func (p *partition) entry(value []byte, acknowledged func()) entry {
	return entry{kafka.Record{Key: []byte(strconv.Itoa(p.assigned.Partition)), Value: value}, acknowledged}
}

// fold folds what was fetched.
func (p *partition) fold(ctx context.Context, f kafka.Fetched) error {
	for _, r := range f.Records {
		if err := p.stream.Record(r.Offset, r.Value); errors.Is(err, fold.ErrUndecodable) {
			p.limited.Warn("undecodable", "skipped a record that does not decode", "topic", record.TopicPackets, "partition", p.assigned.Partition, "offset", r.Offset, "error", err)
		} else if err != nil {
			p.count()
			return err
		}
		p.counts.records.Inc()
		p.counts.bytes.Add(uint64(len(r.Value)))
		if offset, number, ok := p.stream.Needs(); ok {
			p.safe = place{offset, number, true}
			p.offer()
		}
		if ctx.Err() != nil {
			break
		}
	}
	p.behind.Store(max(f.HighWatermark-f.Next, 0))
	p.count()
	p.offer()
	return nil
}

// offer makes a commit ready when the outputs that stand before it are written. The place that is wanted stays
// until then: a newer one might never be reached in time.
func (p *partition) offer() {
	if !p.wanted.known {
		p.wanted = p.safe
	}
	acknowledged := p.acknowledged.Load()
	if !p.wanted.known || acknowledged < p.wanted.number {
		return
	}
	if acknowledged >= p.safe.number {
		p.wanted = p.safe
	}
	if c, ok := p.owner.Commit(p.wanted.offset, p.wanted.number, acknowledged); ok {
		p.ready.Store(&kafka.Commit{Partition: p.assigned.Partition, Offset: c.Offset, Metadata: c.Metadata})
	}
	p.wanted = place{}
}

// finish offers what can still be committed when nothing is folded or written any more.
func (p *partition) finish() {
	if p.stream != nil {
		p.offer()
	}
}

// takeOver goes through the steps by which the partition becomes this member's.
func (p *partition) takeOver(ctx context.Context) error {
	a := p.assigned
	o, err := delivery.NewOwner(delivery.Assignment{
		Partition: uint32(a.Partition), Generation: uint64(p.gen.ID),
		Committed: delivery.Commit{Offset: a.Offset, Metadata: a.Metadata},
	})
	if err != nil {
		return err
	}
	p.owner = o
	for {
		switch o.Step() {
		case delivery.StepSurvey:
			err = p.survey(ctx)
		case delivery.StepClaim:
			c := o.Claim()
			err = p.gen.Commit(ctx, record.TopicPackets, kafka.Commit{Partition: a.Partition, Offset: c.Offset, Metadata: c.Metadata})
			switch {
			case err == nil:
				o.Claimed(delivery.Done)
			case errors.Is(err, kafka.ErrFenced):
				o.Claimed(delivery.Refused)
				err = nil
			}
		case delivery.StepMark:
			err = p.mark(ctx)
		case delivery.StepRun:
			p.counts.assigned.Inc()
			if lost := o.Lost(); lost != nil {
				p.counts.degraded.Inc()
				p.log.Warn("outputs begin anew: what earlier ones count may be counted again", "partition", a.Partition, "epoch", o.Epoch(), "offset", o.Input(), "reason", lost)
			}
			return nil
		case delivery.StepLeave:
			return errOver
		default:
			return fmt.Errorf("taking it over: no way to %v", o.Step())
		}
		if err != nil {
			return err
		}
	}
}

// survey reads the partition's outputs, of which nothing is known from a commit.
func (p *partition) survey(ctx context.Context) error {
	first, end, err := p.offsets(ctx, record.TopicSessions, p.writer.partition)
	if err != nil {
		return err
	}
	for next := first; next < end; {
		f, err := p.read(ctx, record.TopicSessions, p.writer.partition, next)
		if errors.Is(err, kafka.ErrOffsetOutOfRange) {
			return p.survey(ctx) // retention was faster
		} else if err != nil {
			return err
		}
		for _, r := range f.Records {
			// A record that is none of ours says nothing about epochs.
			if s, err := record.UnmarshalSessions(r.Value); err == nil {
				if e, err := delivery.EntryOf(s, p.config.Partitions); err == nil {
					p.owner.Survey(e)
				}
			}
		}
		next = f.Next
	}
	input, _, err := p.offsets(ctx, record.TopicPackets, p.assigned.Partition)
	if err != nil {
		return err
	}
	p.owner.Surveyed(end, input)
	return nil
}

// mark writes the epoch marker and waits until it is in the log.
func (p *partition) mark(ctx context.Context) error {
	m := p.owner.Marker()
	value, err := record.MarshalSessions(&pb.SessionsRecord{
		InputPartition: m.Partition, LogEpoch: m.Log, OwnerEpoch: m.Owner,
		Body: &pb.SessionsRecord_Marker{Marker: &pb.Marker{Owner: p.config.Name}},
	})
	if err != nil {
		return err
	}
	written := make(chan struct{})
	if err := p.writer.put(ctx, p.entry(value, func() { close(written) })); err != nil {
		return err
	}
	select {
	case <-written:
		p.owner.Marked()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fetch reads the partition on and hands it to the fold, one fetch ahead of it.
func (p *partition) fetch(ctx context.Context, to chan<- kafka.Fetched) {
	next := p.owner.Input()
	for {
		f, err := p.read(ctx, record.TopicPackets, p.assigned.Partition, next)
		if errors.Is(err, kafka.ErrOffsetOutOfRange) {
			first, end, err := p.offsets(ctx, record.TopicPackets, p.assigned.Partition)
			if err != nil {
				return
			}
			if next < first {
				p.counts.passed.Add(uint64(first - next))
			}
			p.limited.Warn("passed", "the offset to go on from is not in the log; going on from the earliest", "topic", record.TopicPackets, "partition", p.assigned.Partition, "offset", next, "earliest", first, "end", end)
			next = first
			continue
		} else if err != nil {
			return
		}
		select {
		case to <- f:
			next = f.Next
		case <-ctx.Done():
			return
		}
	}
}

// read fetches from an offset on, and tries again until ctx is done or the offset is out of range.
func (p *partition) read(ctx context.Context, topic string, partition int, offset int64) (f kafka.Fetched, err error) {
	err = kafka.Retry{}.Do(ctx, func() (err error) {
		f, err = p.client.Fetch(ctx, topic, partition, offset, fetchBytes, fetchWait)
		if errors.Is(err, kafka.ErrOffsetOutOfRange) {
			return kafka.Permanent(err)
		}
		return err
	}, p.failed)
	return f, err
}

func (p *partition) offsets(ctx context.Context, topic string, partition int) (first, end int64, err error) {
	err = kafka.Retry{}.Do(ctx, func() (err error) {
		first, end, err = p.client.Offsets(ctx, topic, partition)
		return err
	}, p.failed)
	return first, end, err
}

// tick appends the time to the partition about once a second. One that fails is left out: the next one says
// more.
func (p *partition) tick(ctx context.Context) {
	every := time.NewTicker(tickEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		value, err := record.MarshalPackets(&pb.PacketsRecord{Body: &pb.PacketsRecord_Tick{
			Tick: &pb.Tick{OwnerEpoch: p.owner.Epoch().Owner, Clock: time.Now().UnixNano()},
		}})
		if err == nil {
			_, err = p.client.Produce(ctx, record.TopicPackets, p.assigned.Partition, kafka.Record{Value: value})
		}
		if err != nil {
			p.failed(err)
		}
	}
}
