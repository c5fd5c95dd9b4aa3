package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	kafka "github.com/segmentio/kafka-go"
)

// Record is one record of a partition's log.
type Record struct {
	Key, Value []byte
	Offset     int64 // set by Fetch
	// Time is when it was produced, by the producer's clock; set by Fetch.
	Time time.Time
}

// Produce appends records to a partition and returns the offset of the first. It tries once; nil means that
// every replica in sync has them. An error may mean that they were written all the same.
//
// For order there is never more than one call in flight a partition.
func (c *Client) Produce(ctx context.Context, topic string, partition int, records ...Record) (int64, error) {
	if len(records) == 0 {
		return 0, nil
	}
	list := make([]kafka.Record, len(records))
	for i, r := range records {
		list[i] = kafka.Record{Key: kafka.NewBytes(r.Key), Value: kafka.NewBytes(r.Value)}
	}
	r, err := c.client.Produce(ctx, &kafka.ProduceRequest{
		Topic: c.name(topic), Partition: partition, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(list...),
	})
	if err == nil {
		err = r.Error
	}
	switch {
	case err == nil:
		return r.BaseOffset, nil
	case errors.Is(err, kafka.MessageSizeTooLarge), errors.Is(err, kafka.RecordListTooLarge):
		return 0, fmt.Errorf("producing to %s/%d: %w (max.message.bytes): %w", topic, partition, ErrTooLarge, c.explain(err))
	}
	return 0, fmt.Errorf("producing to %s/%d: %w", topic, partition, c.explain(err))
}

// ProduceRetry calls Produce until it succeeds, ctx is done, or the broker says ErrTooLarge. make is called
// before every try, so that a clock in the record is the clock of that try; its error ends the tries. failed,
// if not nil, hears of every failed one.
func (c *Client) ProduceRetry(ctx context.Context, topic string, partition int, make func() ([]Record, error), failed func(error)) (int64, error) {
	return produceRetry(ctx, c, Retry{}, topic, partition, make, failed)
}

type producer interface {
	Produce(ctx context.Context, topic string, partition int, records ...Record) (int64, error)
}

func produceRetry(ctx context.Context, p producer, retry Retry, topic string, partition int, make func() ([]Record, error), failed func(error)) (int64, error) {
	var offset int64
	err := retry.Do(ctx, func() error {
		records, err := make()
		if err != nil {
			return Permanent(err)
		}
		offset, err = p.Produce(ctx, topic, partition, records...)
		if errors.Is(err, ErrTooLarge) {
			return Permanent(err)
		}
		return err
	}, failed)
	return offset, err
}

// Fetched is what a call of Fetch read.
type Fetched struct {
	Records []Record
	// Next is the offset to fetch from next.
	Next int64
	// HighWatermark is the offset that the next record of the partition will have, LogStart that of the first
	// that is still there.
	HighWatermark, LogStart int64
}

// Fetch reads records of a partition from an offset on: as many as fit into maxBytes, but at least one; none
// if there are none after maxWait. An offset that is not in the log is ErrOffsetOutOfRange.
func (c *Client) Fetch(ctx context.Context, topic string, partition int, offset int64, maxBytes int, maxWait time.Duration) (Fetched, error) {
	f := Fetched{Next: offset}
	if offset < 0 {
		return f, fmt.Errorf("fetching %s/%d from %d: %w", topic, partition, offset, ErrOffsetOutOfRange)
	}
	r, err := c.client.Fetch(ctx, &kafka.FetchRequest{
		Topic: c.name(topic), Partition: partition, Offset: offset,
		MinBytes: 1, MaxBytes: int64(maxBytes), MaxWait: min(maxWait, callTimeout/2),
	})
	if err == nil {
		err = r.Error
	}
	if errors.Is(err, kafka.OffsetOutOfRange) {
		return f, fmt.Errorf("fetching %s/%d from %d: %w", topic, partition, offset, ErrOffsetOutOfRange)
	} else if err != nil {
		return f, fmt.Errorf("fetching %s/%d from %d: %w", topic, partition, offset, c.explain(err))
	}
	f.HighWatermark, f.LogStart = r.HighWatermark, r.LogStartOffset
	for {
		k, err := r.Records.ReadRecord()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return f, fmt.Errorf("fetching %s/%d from %d: %w", topic, partition, f.Next, c.explain(err))
		}
		key, value, err := contents(k)
		if err != nil {
			return f, fmt.Errorf("fetching %s/%d from %d: %w", topic, partition, f.Next, c.explain(err))
		}
		if k.Offset < f.Next {
			continue // the broker sends whole batches, from their beginning
		}
		f.Records = append(f.Records, Record{Key: key, Value: value, Offset: k.Offset, Time: k.Time})
		f.Next = k.Offset + 1
	}
	return f, nil
}

func contents(r *kafka.Record) (key, value []byte, err error) {
	if r.Key != nil {
		if key, err = kafka.ReadAll(r.Key); err != nil {
			return nil, nil, err
		}
		r.Key.Close()
	}
	if r.Value != nil {
		if value, err = kafka.ReadAll(r.Value); err != nil {
			return nil, nil, err
		}
		r.Value.Close()
	}
	return key, value, nil
}
