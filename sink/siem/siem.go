// Package siem is the sink's output to SIEMs: one JSON document a finished session, on a topic of its own.
//
// It is at least once: documents are acknowledged before the offsets of their sessions are committed, and a
// repeat has the same id (event.id, session_id:version). A session to which late packets came after it was
// finished has another document, of a higher version.
package siem

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"

	"github.com/apache/arrow/go/v17/arrow"
	"golang.org/x/sync/errgroup"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/proto/session"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/logging"
	"github.com/tapweave/tapweave/service/stats"
	"github.com/tapweave/tapweave/sink/deadletter"
	"github.com/tapweave/tapweave/sink/intake"
	"github.com/tapweave/tapweave/sink/siem/ecs"
)

// Group is the consumer group of this output.
const Group = "tapweave-sink-siem"

// Config of the output.
type Config struct {
	ECS        bool `yaml:"ecs" doc:"Whether tapweave.siem.ecs gets documents of the Elastic Common Schema."`
	Partitions int  `yaml:"partitions" doc:"Partitions of each SIEM topic when the sink creates it; one that is there has at least as many."`
	FetchBytes int  `yaml:"fetch_bytes" doc:"Most bytes of one fetch from a partition."`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config { return Config{ECS: true, Partitions: 4, FetchBytes: 1 << 20} }

// Validate says what is wrong with a configuration.
func (c Config) Validate() error {
	switch {
	case c.Partitions < 1:
		return fmt.Errorf("partitions: %d is less than 1", c.Partitions)
	case c.FetchBytes < 1<<10 || c.FetchBytes > 64<<20:
		return fmt.Errorf("fetch_bytes: %d is not between 1 KiB and 64 MiB", c.FetchBytes)
	}
	return nil
}

// format is a kind of document, and the topic it goes to.
type format struct {
	topic      string
	partitions int
	append     func([]byte, *columns.Session) []byte
}

// Output writes documents.
type Output struct {
	config  Config
	formats []format
	kafka   *kafka.Client
	letters *deadletter.Writer
	log     *slog.Logger
	limited *logging.Limited
	records, documents, lost,
	tooLarge *stats.Counter
}

// Topics are those that the output writes to.
func (c Config) Topics() []string {
	if c.ECS {
		return []string{record.TopicSIEMECS}
	}
	return nil
}

// New returns an output that does nothing yet. partitions says how many each topic of [Config.Topics] has.
func New(c Config, partitions map[string]int, k *kafka.Client, letters *deadletter.Writer, counters *stats.Counters, log *slog.Logger) *Output {
	o := &Output{
		config: c, kafka: k, letters: letters, log: log, limited: logging.NewLimited(log),
		records:   counters.Counter("siem", "records"),
		documents: counters.Counter("siem", "documents_ecs"),
		lost:      counters.Counter("siem", "records_lost_to_retention"),
		tooLarge:  counters.Counter("siem", "documents_too_large"),
	}
	if c.ECS {
		o.formats = append(o.formats, format{record.TopicSIEMECS, partitions[record.TopicSIEMECS], ecs.Append})
	}
	return o
}

// Run reads and writes until ctx is done.
func (o *Output) Run(ctx context.Context) error {
	group := o.kafka.Group(kafka.GroupConfig{ID: Group, Failed: func(err error) {
		o.limited.Warn("group", "consumer group, trying again", "error", err)
	}})
	return group.Run(ctx, []string{record.TopicSessions}, o.generation)
}

func (o *Output) generation(ctx context.Context, gen *kafka.Generation) {
	g, all := errgroup.WithContext(ctx)
	for _, a := range gen.Assignments {
		g.Go(func() error {
			p := &partition{Output: o, decoder: columns.NewDecoder(pb.Rows_SESSIONS)}
			in := &intake.Partition{Log: o.kafka, Assignment: a, MaxBytes: o.config.FetchBytes, Logger: o.log, Lost: o.lost.Add}
			return in.Follow(all, func(f kafka.Fetched) error {
				if err := p.write(all, a, f.Records); err != nil {
					return err
				}
				return gen.Commit(all, a.Topic, kafka.Commit{Partition: a.Partition, Offset: f.Next})
			})
		})
	}
	switch err := g.Wait(); {
	case err == nil, ctx.Err() != nil && !errors.Is(err, kafka.ErrFenced):
	case errors.Is(err, kafka.ErrFenced):
		o.log.Info("partitions are another's now", "output", "siem", "error", err)
	default:
		o.limited.Error("generation", "output failed, joining the group anew", "output", "siem", "error", err)
	}
}

// partition is one partition of tapweave.sessions for as long as it is assigned.
type partition struct {
	*Output
	decoder *columns.Decoder
	arena   []byte
}

// maxProduce is the most bytes of documents in one produce call.
const maxProduce = record.MaxBytes

// document is a span of the arena: documents are cut out when all are written, for the arena moves as it grows.
type document struct {
	id       session.ID
	from, to int
}

// write writes the documents of the finished sessions in some records, and returns when they are acknowledged.
func (p *partition) write(ctx context.Context, a kafka.Assignment, records []kafka.Record) error {
	for _, f := range p.formats {
		p.arena = p.arena[:0]
		var documents []document
		for _, r := range records {
			before, mark := len(documents), len(p.arena)
			err := p.finished(r.Value, func(s *columns.Session) {
				from := len(p.arena)
				p.arena = f.append(p.arena, s)
				documents = append(documents, document{s.ID, from, len(p.arena)})
			})
			if err != nil {
				documents, p.arena = documents[:before], p.arena[:mark]
				if err := p.letters.Send(ctx, deadletter.Letter{Topic: a.Topic, Partition: a.Partition, Offset: r.Offset, Cause: err, Value: r.Value}); err != nil {
					return err
				}
				continue
			}
			p.records.Inc()
		}
		if err := p.produce(ctx, f, documents); err != nil {
			return err
		}
	}
	return nil
}

// finished calls each with every session of a record that is over.
func (p *partition) finished(value []byte, each func(*columns.Session)) error {
	r, err := record.UnmarshalSessions(value)
	if err != nil {
		return err
	}
	for _, rows := range r.GetOutput().GetRows() {
		if rows.Kind != pb.Rows_SESSIONS {
			continue
		}
		s, err := columns.Open(rows)
		if err != nil {
			return err
		}
		if err := p.decoder.Decode(s, func(batch arrow.Record) error {
			return columns.Sessions.Load(batch, func(s *columns.Session) error {
				if s.IsFinal {
					each(s)
				}
				return nil
			})
		}); err != nil {
			return err
		}
	}
	return nil
}

func (p *partition) produce(ctx context.Context, f format, documents []document) error {
	byPartition := make([][]kafka.Record, f.partitions)
	for _, d := range documents {
		// The id is a hash. All versions of a session are in one partition, in order.
		i := int(binary.BigEndian.Uint32(d.id[:]) % uint32(f.partitions))
		byPartition[i] = append(byPartition[i], kafka.Record{Key: []byte(hex.EncodeToString(d.id[:])), Value: p.arena[d.from:d.to]})
	}
	g, ctx := errgroup.WithContext(ctx)
	for i, records := range byPartition {
		g.Go(func() error {
			for len(records) > 0 {
				n := fitting(records)
				if err := p.send(ctx, f.topic, i, records[:n]); err != nil {
					return err
				}
				records = records[n:]
			}
			return nil
		})
	}
	return g.Wait()
}

// fitting is how many of the first records go into one call, at least one.
func fitting(records []kafka.Record) int {
	const overhead = 100 // of a record in its batch
	size := 0
	for i, r := range records {
		if size += len(r.Key) + len(r.Value) + overhead; size > maxProduce && i > 0 {
			return i
		}
	}
	return len(records)
}

// send writes records; those that the broker says are too large one by one, and leaves out what is too large by
// itself.
func (p *partition) send(ctx context.Context, topic string, i int, records []kafka.Record) error {
	_, err := p.kafka.ProduceRetry(ctx, topic, i, func() ([]kafka.Record, error) { return records, nil }, func(err error) {
		p.limited.Warn("produce", "documents not written yet, trying again", "topic", topic, "error", err)
	})
	switch {
	case err == nil:
		p.documents.Add(uint64(len(records)))
		return nil
	case !errors.Is(err, kafka.ErrTooLarge):
		return err
	case len(records) > 1:
		for j := range records {
			if err := p.send(ctx, topic, i, records[j:j+1]); err != nil {
				return err
			}
		}
		return nil
	}
	p.tooLarge.Inc()
	p.limited.Warn("too_large", "a document is larger than the broker takes", "topic", topic, "session_id", string(records[0].Key), "bytes", len(records[0].Value))
	return nil
}
