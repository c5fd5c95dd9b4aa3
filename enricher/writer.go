package enricher

import (
	"context"

	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
)

const (
	// queued is how many records wait for a writer. Then the folds wait.
	queued = 16
	// callBytes is the most in one produce call, which Azure Event Hubs takes below 1,000,000 bytes.
	callBytes = record.MaxBytes
	// entryBytes is what a record adds beside its value.
	entryBytes = 100
)

// writer appends records to one partition of tapweave.sessions: in the order in which they came, one call in
// flight, what waits in one call, each until it is acknowledged.
type writer struct {
	client    *kafka.Client
	topic     string
	partition int
	queue     chan entry
	failed    func(error)
}

// entry is one record.
type entry struct {
	kafka.Record
	acknowledged func(offset int64)
}

func newWriter(c *kafka.Client, topic string, partition int, failed func(error)) *writer {
	return &writer{client: c, topic: topic, partition: partition, queue: make(chan entry, queued), failed: failed}
}

// put queues an entry.
func (w *writer) put(ctx context.Context, e entry) error {
	select {
	case w.queue <- e:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run writes until the queue is closed and empty, or until ctx is done.
func (w *writer) run(ctx context.Context) error {
	var records []kafka.Record
	var entries []entry
	next, open := entry{}, true
	for {
		if next.Value == nil {
			if next, open = <-w.queue; !open {
				return nil
			}
		}
		entries, records = entries[:0], records[:0]
		for size := 0; next.Value != nil; {
			size += len(next.Value) + entryBytes
			if len(entries) > 0 && size > callBytes {
				break
			}
			entries, records = append(entries, next), append(records, next.Record)
			next = entry{}
			select {
			case next = <-w.queue: // the zero entry once it is closed
			default:
			}
		}
		offset, err := w.client.ProduceRetry(ctx, w.topic, w.partition, func() ([]kafka.Record, error) { return records, nil }, w.failed)
		if err != nil {
			return err
		}
		for i, e := range entries {
			e.acknowledged(offset + int64(i))
		}
		clear(entries)
	}
}
