// Package deadletter puts what the sink could not store on tapweave.deadletter, with where it came from and why.
package deadletter

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/logging"
	"github.com/tapweave/tapweave/service/stats"
)

// Producer is what a Writer needs of a Kafka client.
type Producer interface {
	ProduceRetry(ctx context.Context, topic string, partition int, make func() ([]kafka.Record, error), failed func(error)) (int64, error)
}

// Writer writes dead letters. It is safe for concurrent use.
type Writer struct {
	producer Producer // nil: they are counted and logged only
	counters *stats.Counters
	stage    string
	log      *logging.Limited
}

// New returns a writer. Letters are counted by reason under stage, and logged once a minute. Without a producer
// that is all.
func New(p Producer, c *stats.Counters, stage string, log *slog.Logger) *Writer {
	w := &Writer{producer: p, counters: c, stage: stage, log: logging.NewLimited(log)}
	for _, reason := range []string{"undecodable", "unknown_version", "too_large", "refused"} {
		c.Counter(stage, reason)
	}
	return w
}

// Letter is something that could not be stored.
type Letter struct {
	Topic     string
	Partition int
	Offset    int64
	Cause     error
	Value     []byte   // the record, or
	Rows      *pb.Rows // the rows of it that were refused
}

// Send writes a letter. An error says that ctx is done: whoever sends must not go on past the record then.
func (w *Writer) Send(ctx context.Context, l Letter) error {
	w.counters.Counter(w.stage, reason(&l)).Inc()
	w.log.Warn("record", "record not stored", "topic", l.Topic, "partition", l.Partition, "offset", l.Offset, "reason", l.Cause, "deadletter", w.producer != nil)
	if w.producer == nil {
		return nil
	}
	value, err := record.MarshalDeadLetter(letter(&l))
	if errors.Is(err, record.ErrTooLarge) {
		// Where it stands is known; the log keeps it for as long as its topic is retained.
		l.Value, l.Rows = nil, nil
		value, err = record.MarshalDeadLetter(letter(&l))
	}
	if err != nil {
		return err
	}
	_, err = w.producer.ProduceRetry(ctx, record.TopicDeadLetter, 0, func() ([]kafka.Record, error) {
		return []kafka.Record{{Value: value}}, nil
	}, func(err error) { w.log.Warn("produce", "dead letter not written yet, trying again", "error", err) })
	return err
}

func letter(l *Letter) *pb.DeadLetterRecord {
	return &pb.DeadLetterRecord{
		Topic: l.Topic, Partition: int32(l.Partition), Offset: l.Offset, Reason: l.Cause.Error(),
		Time: time.Now().UnixNano(), Value: l.Value, Rows: l.Rows,
	}
}

// reason names the kind of a cause, for counting.
func reason(l *Letter) string {
	var version *record.VersionError
	switch {
	case errors.As(l.Cause, &version):
		return "unknown_version"
	case errors.Is(l.Cause, record.ErrTooLarge):
		return "too_large"
	case errors.Is(l.Cause, record.ErrCorrupt), errors.Is(l.Cause, columns.ErrCorrupt):
		return "undecodable"
	}
	return "refused"
}
