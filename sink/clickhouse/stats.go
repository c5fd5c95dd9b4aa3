package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/sink/deadletter"
	"github.com/tapweave/tapweave/sink/intake"
	"github.com/tapweave/tapweave/sink/migrate"
)

const (
	// statsEvery is how often counts are inserted. Of each the newest is: they are cumulative.
	statsEvery = 2 * time.Second
	// statsRefresh is how often a count that does not change is inserted all the same.
	statsRefresh = time.Minute
	// maxCounts bounds how many counts are remembered.
	maxCounts = 100_000
)

// statsPartition is the partition of tapweave.stats for as long as it is assigned.
type statsPartition struct {
	*Output
	server     *Server
	gen        *kafka.Generation
	assignment kafka.Assignment
	in         *intake.Partition
	counts     counts
}

// countKey names a count.
type countKey struct {
	service, instance string
	incarnation       uint64
	stage, reason     string
}

type count struct {
	time  time.Time
	value uint64
}

// counts are those that were read and not inserted yet, and those that were inserted last.
type counts struct {
	fresh, inserted map[countKey]count
}

// due returns the counts that are worth a row.
func (c *counts) due() map[countKey]count {
	for k, n := range c.fresh {
		if old, ok := c.inserted[k]; ok && old.value == n.value && n.time.Sub(old.time) < statsRefresh {
			delete(c.fresh, k)
		}
	}
	return c.fresh
}

// done says that what was due was inserted.
func (c *counts) done() {
	if len(c.inserted)+len(c.fresh) > maxCounts {
		c.inserted = nil
	}
	if c.inserted == nil {
		c.inserted = map[countKey]count{}
	}
	for k, n := range c.fresh {
		c.inserted[k] = n
	}
	clear(c.fresh)
}

func (s *statsPartition) run(ctx context.Context) error {
	fetched := make(chan kafka.Fetched)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return s.in.Follow(ctx, func(f kafka.Fetched) error {
			select {
			case fetched <- f:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	g.Go(func() error { return s.collect(ctx, fetched) })
	return g.Wait()
}

func (s *statsPartition) collect(ctx context.Context, fetched <-chan kafka.Fetched) error {
	next, committed := int64(kafka.NoOffset), int64(kafka.NoOffset)
	flush := func(ctx context.Context) error {
		if next == committed {
			return nil
		}
		if err := s.insert(ctx); err != nil {
			return err
		}
		committed = next
		return s.gen.Commit(ctx, s.assignment.Topic, kafka.Commit{Partition: s.assignment.Partition, Offset: next})
	}
	tick := time.NewTicker(statsEvery)
	defer tick.Stop()
	for {
		select {
		case f := <-fetched:
			for _, r := range f.Records {
				if err := s.take(ctx, r); err != nil {
					return err
				}
			}
			if next = f.Next; len(s.counts.fresh) < maxCounts {
				continue
			}
		case <-tick.C:
		case <-ctx.Done():
			ctx, cancel := lingering(ctx)
			defer cancel()
			return flush(ctx)
		}
		long, cancel := lingering(ctx)
		err := flush(long)
		cancel()
		if err != nil {
			return err
		}
	}
}

// latestTime is what a DateTime64 of milliseconds holds with a margin.
var latestTime = time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC)

func (s *statsPartition) take(ctx context.Context, r kafka.Record) error {
	m, err := record.UnmarshalStats(r.Value)
	if err == nil && (m.Time < 0 || m.Time > latestTime.UnixNano()) {
		err = fmt.Errorf("stats record: %w: time of %d ns", record.ErrCorrupt, m.Time)
	}
	if err != nil {
		return s.letters.Send(ctx, deadletter.Letter{
			Topic: s.assignment.Topic, Partition: s.assignment.Partition, Offset: r.Offset, Cause: err, Value: r.Value,
		})
	}
	if s.counts.fresh == nil {
		s.counts.fresh = map[countKey]count{}
	}
	for _, c := range m.Counts {
		s.counts.fresh[countKey{m.Service, m.Instance, m.Incarnation, c.Stage, c.Reason}] = count{time.Unix(0, m.Time), c.Count}
	}
	return nil
}

func (s *statsPartition) insert(ctx context.Context) error {
	due := s.counts.due()
	if len(due) == 0 {
		return nil
	}
	query := fmt.Sprintf("INSERT INTO `%s`.`%s` (time, service, instance, incarnation, stage, reason, count)", s.config.Stored(), migrate.PipelineStats)
	err := s.keepTrying(ctx, s.server, func() (err error) {
		began := time.Now()
		batch, err := s.server.PrepareBatch(ctx, query)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, batch.Close()) }()
		for k, n := range due {
			if err := batch.Append(n.time, k.service, k.instance, k.incarnation, k.stage, k.reason, n.value); err != nil {
				return err
			}
		}
		if err := batch.Send(); err != nil {
			return err
		}
		s.metrics.inserted(migrate.PipelineStats, len(due), time.Since(began))
		return nil
	})
	if err == nil {
		s.counts.done()
	}
	return err
}
