package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tapweave/tapweave/proto/delivery"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/sink/intake"
)

// partition is one partition of tapweave.sessions for as long as it is assigned.
type partition struct {
	*Output
	server     *Server // of its shard
	gen        *kafka.Generation
	assignment kafka.Assignment
	in         *intake.Partition
	limits     limits
}

// errAnotherLog says that the partition was made anew while it was read.
var errAnotherLog = errors.New("the topic was made anew")

// run reads, assembles and stores side by side: while one block is inserted, the next one grows.
func (p *partition) run(ctx context.Context) error {
	label := strconv.Itoa(p.assignment.Partition)
	defer p.metrics.lag.DeleteLabelValues(label)

	blocks, err := p.begin(ctx)
	if err != nil {
		return err
	}
	first := blocks.Next()[0].Range
	p.in.Assignment.Offset = first.From

	fetched, filled, stored := make(chan kafka.Fetched), make(chan *block), make(chan struct{})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		next := first.From
		return p.in.Follow(ctx, func(f kafka.Fetched) error {
			if f.Next < next {
				return fmt.Errorf("%s/%d: offset %d after %d: %w", p.assignment.Topic, p.assignment.Partition, f.Next, next, errAnotherLog)
			}
			next = f.Next
			select {
			case fetched <- f:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	g.Go(func() error {
		defer close(filled)
		return p.assemble(ctx, first, fetched, filled, stored)
	})
	g.Go(func() error {
		defer close(stored)
		ctx, cancel := lingering(ctx)
		defer cancel()
		s := &store{partition: p, blocks: blocks, parse: newParser(p.config.Packets), lag: p.metrics.lag.WithLabelValues(label)}
		return s.run(ctx, filled)
	})
	return g.Wait()
}

// begin says where the work goes on: at the committed offset, with the range that was in flight, or where that is
// lost or was damaged, at what the table of marks says.
func (p *partition) begin(ctx context.Context) (*delivery.Blocks, error) {
	a := p.assignment
	where := fmt.Sprintf("%s/%d", a.Topic, a.Partition)
	var earliest, latest int64
	err := kafka.Retry{}.Do(ctx, func() (err error) {
		earliest, latest, err = p.kafka.Offsets(ctx, a.Topic, a.Partition)
		return err
	}, func(err error) {
		p.limited.Warn("offsets", "cannot read, trying again", "partition", where, "error", err)
	})
	if err != nil {
		return nil, err
	}
	offset := a.Offset
	var m delivery.Sink
	if offset != kafka.NoOffset {
		m, err = delivery.DecodeSink(a.Metadata)
	}
	end := offset
	if m.Flight != nil {
		end = m.Flight.Range.To
	}
	var version *record.VersionError
	switch {
	case errors.As(err, &version):
		p.stop(fmt.Errorf("%s: a newer sink has stored this partition: %w; use that one", where, err))
		return nil, context.Cause(ctx)
	case err == nil && end > latest:
		// Its outputs bear other epochs, so what the reader knows does no harm.
		p.log.Error("the log ends before what was committed: the topic was made anew, reading it from the beginning",
			"partition", where, "committed", end, "end", latest)
		offset, m.Flight = earliest, nil
	case err == nil && offset != kafka.NoOffset:
	case errors.Is(err, delivery.ErrNoMetadata):
		// A tool has set the offset, or a sink before there was metadata. What is stored already is left out.
		p.log.Warn("the offset was committed without metadata, going on with the marks in ClickHouse", "partition", where, "offset", offset)
		mark, err := p.mark(ctx)
		if err != nil {
			return nil, err
		}
		m.Positions = mark.positions
	default:
		if err != nil {
			p.log.Error("the committed metadata cannot be used, going on with the marks in ClickHouse", "partition", where, "error", err)
			m = delivery.Sink{}
		}
		if offset, m.Positions, err = p.recover(ctx, offset, earliest, latest); err != nil {
			return nil, err
		}
	}
	blocks, err := delivery.NewBlocks(int32(a.Partition), p.inputs, tableNames, offset, m)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	return blocks, nil
}

// patience is for how many times the linger time a block waits to become full while there is more to read:
// where there is a backlog, rows are late anyway, and large blocks are what makes up for it.
const patience = 5

// assemble makes blocks of what was fetched, the first one of exactly the range that is in flight, where there is
// one. A block goes to the store when it is full, or old enough and the store is free; until then it grows. When ctx
// is done what was begun still goes there.
func (p *partition) assemble(ctx context.Context, first delivery.Range, fetched <-chan kafka.Fetched, filled chan<- *block, stored <-chan struct{}) error {
	var (
		timer   = time.NewTimer(time.Hour)
		b       *block
		began   time.Time      // when the block was
		old     bool           // the block has lingered
		queue   []kafka.Record // fetched, and not in the block yet
		next    = first.From   // the next block begins there
		reached = first.From   // everything before was fetched
		latest  int64          // high watermark
		until   = first.To     // of the range in flight; -1: none
	)
	defer timer.Stop()
	if until >= 0 {
		b = &block{Range: first}
		// Retention may have removed all of it.
		if earliest, _, err := p.kafka.Offsets(ctx, p.assignment.Topic, p.assignment.Partition); err == nil {
			reached = earliest
		}
	}
	for {
		full := false
		for len(queue) > 0 && !full {
			r := queue[0]
			if until >= 0 && r.Offset >= until {
				full = true
				break
			}
			if b == nil {
				b, began, old = &block{Range: delivery.Range{From: next}}, time.Now(), false
				timer.Reset(p.config.Linger)
			}
			b.highWatermark = latest
			most := p.limits
			if until >= 0 {
				most = unlimited
			}
			if full = !b.add(newEntry(r, p.config.Partitions), len(r.Value), most); !full {
				queue = queue[1:]
				b.last = r
				if until < 0 {
					b.To = r.Offset + 1
				}
			}
		}
		if until >= 0 && len(queue) == 0 && reached >= until {
			full = true
		}
		in, out := fetched, filled
		if len(queue) > 0 {
			in = nil
		}
		if b == nil || !full && (until >= 0 || !(old && (b.To >= latest || time.Since(began) >= patience*p.config.Linger))) {
			out = nil
		}
		select {
		case f := <-in:
			queue, latest, reached = f.Records, f.HighWatermark, f.Next
		case out <- b:
			next, b, until = b.To, nil, -1
		case <-timer.C:
			old = true
			timer.Reset(p.config.Linger)
		case <-ctx.Done():
			if b != nil && (until < 0 || full) {
				select {
				case filled <- b:
				case <-stored:
				case <-time.After(grace):
				}
			}
			return nil
		}
	}
}
