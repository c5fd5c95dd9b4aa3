// Package intake reads an assigned partition from where its group left off, record by record, for as long as the
// partition is assigned.
package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/logging"
)

// Log is what is read: a Kafka client.
type Log interface {
	Fetch(ctx context.Context, topic string, partition int, offset int64, maxBytes int, maxWait time.Duration) (kafka.Fetched, error)
	Offsets(ctx context.Context, topic string, partition int) (earliest, latest int64, err error)
}

// Partition is one that was assigned.
type Partition struct {
	Log        Log
	Assignment kafka.Assignment
	MaxBytes   int // of one fetch
	Logger     *slog.Logger
	// Lost is told how many records the log no longer had when they were to be read; may be nil.
	Lost func(records uint64)
}

// maxWait is how long the broker holds a fetch where there is nothing new.
const maxWait = 500 * time.Millisecond

// Follow calls each with what is read, in order, until ctx is done, which is no error, or each returns one. A
// broker that does not answer is asked again and again.
//
// A partition that was never committed is read from its beginning. So is one that was made anew and is shorter
// than the committed offset; records that retention removed before they were read are counted and left out.
func (p *Partition) Follow(ctx context.Context, each func(kafka.Fetched) error) error {
	limited := logging.NewLimited(p.Logger)
	a := p.Assignment
	where := fmt.Sprintf("%s/%d", a.Topic, a.Partition)
	offset := a.Offset
	for ctx.Err() == nil {
		var f kafka.Fetched
		err := kafka.Retry{}.Do(ctx, func() (err error) {
			if offset == kafka.NoOffset {
				if offset, _, err = p.Log.Offsets(ctx, a.Topic, a.Partition); err != nil {
					offset = kafka.NoOffset
					return err
				}
			}
			f, err = p.Log.Fetch(ctx, a.Topic, a.Partition, offset, p.MaxBytes, maxWait)
			if errors.Is(err, kafka.ErrOffsetOutOfRange) {
				f.Next, err = p.reposition(ctx, offset)
				offset = f.Next
				return err
			}
			return err
		}, func(err error) { limited.Warn("fetch", "cannot read, trying again", "partition", where, "error", err) })
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if f.Next == offset && len(f.Records) == 0 {
			continue
		}
		if err := each(f); err != nil {
			return err
		}
		offset = f.Next
	}
	return nil
}

// reposition returns the offset in the log to read in place of one that is not in it.
func (p *Partition) reposition(ctx context.Context, offset int64) (int64, error) {
	a := p.Assignment
	earliest, latest, err := p.Log.Offsets(ctx, a.Topic, a.Partition)
	if err != nil {
		return offset, err
	}
	switch {
	case offset < earliest:
		p.Logger.Error("records were removed by retention before they were read",
			"topic", a.Topic, "partition", a.Partition, "from", offset, "to", earliest, "lost", earliest-offset)
		if p.Lost != nil {
			p.Lost(uint64(earliest - offset))
		}
		return earliest, nil
	case offset > latest:
		p.Logger.Error("the log ends before the committed offset: the topic was made anew, reading it from the beginning",
			"topic", a.Topic, "partition", a.Partition, "committed", offset, "end", latest)
		return earliest, nil
	}
	return offset, fmt.Errorf("%s/%d: offset %d is in the log from %d to %d, but cannot be fetched", a.Topic, a.Partition, offset, earliest, latest)
}
