// Package siem is the sink's output to SIEMs: one JSON document a finished session, and by configuration one a
// version, in each of the schemas that are switched on, each on a topic of its own.
//
// It is at least once: documents are acknowledged before the offsets of their sessions are committed, and a
// repeat has the same id, session_id:version (event.id of ECS, metadata.uid of OCSF, EventOriginalUid of ASIM). A
// session to which late packets came after it was finished has another document, of a higher version. Alerts are
// documents on the same topics, under session_id:kind:time.
package siem

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"

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
	"github.com/tapweave/tapweave/sink/siem/asim"
	"github.com/tapweave/tapweave/sink/siem/ecs"
	"github.com/tapweave/tapweave/sink/siem/ocsf"
)

// Group is the consumer group of this output.
const Group = "tapweave-sink-siem"

// Config of the output.
type Config struct {
	ECS        bool `yaml:"ecs" doc:"Whether tapweave.siem.ecs gets documents of the Elastic Common Schema."`
	OCSF       bool `yaml:"ocsf" doc:"Whether tapweave.siem.ocsf gets events of the Open Cybersecurity Schema Framework."`
	ASIM       bool `yaml:"asim" doc:"Whether tapweave.siem.asim gets records of Microsoft Sentinel's Advanced Security Information Model."`
	Updates    bool `yaml:"updates" doc:"Whether sessions that go on have documents too, one each version: about one a minute."`
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

// Format is a kind of document, and the topic it goes to.
type Format struct {
	Name  string
	Topic string
	// Append appends the document of a version of a session, without a line end.
	Append func(dst []byte, s *columns.Session) []byte
	// AppendAlert appends that of an alert.
	AppendAlert func(dst []byte, a *columns.Alert) []byte
}

// Formats are all kinds of documents.
var Formats = []Format{
	{"ecs", record.TopicSIEMECS, ecs.Append, ecs.AppendAlert},
	{"ocsf", record.TopicSIEMOCSF, ocsf.Append, ocsf.AppendAlert},
	{"asim", record.TopicSIEMASIM, asim.Append, asim.AppendAlert},
}

// formats are those that are switched on.
func (c Config) formats() []Format {
	return slices.DeleteFunc(slices.Clone(Formats), func(f Format) bool {
		return !map[string]bool{"ecs": c.ECS, "ocsf": c.OCSF, "asim": c.ASIM}[f.Name]
	})
}

// Enabled says whether there is anything to write.
func (c Config) Enabled() bool { return len(c.formats()) > 0 }

// Topics are those that the output writes to.
func (c Config) Topics() (topics []string) {
	for _, f := range c.formats() {
		topics = append(topics, f.Topic)
	}
	return topics
}

// target is where documents of a format go.
type target struct {
	Format
	partitions int
	documents  *stats.Counter
}

// Output writes documents.
type Output struct {
	config                  Config
	targets                 []target
	kafka                   *kafka.Client
	letters                 *deadletter.Writer
	log                     *slog.Logger
	limited                 *logging.Limited
	records, lost, tooLarge *stats.Counter
}

// New returns an output that does nothing yet. partitions says how many each topic of [Config.Topics] has.
func New(c Config, partitions map[string]int, k *kafka.Client, letters *deadletter.Writer, counters *stats.Counters, log *slog.Logger) *Output {
	o := &Output{
		config: c, kafka: k, letters: letters, log: log, limited: logging.NewLimited(log),
		records:  counters.Counter("siem", "records"),
		lost:     counters.Counter("siem", "records_lost_to_retention"),
		tooLarge: counters.Counter("siem", "documents_too_large"),
	}
	for _, f := range c.formats() {
		o.targets = append(o.targets, target{f, partitions[f.Topic], counters.Counter("siem", "documents_"+f.Name)})
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
			p := o.newPartition()
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
	batches []batch // of each target
	stream  []byte  // memory for the rows of a record
}

const (
	// maxProduce is the most bytes of documents in one produce call.
	maxProduce = record.MaxBytes
	// maxHeld is how many bytes of documents of a format are held, and those of one record more, before they are written.
	maxHeld = 8 << 20
	// maxStream is how much memory of the rows of a record is kept for the next one.
	maxStream = 2 << 20
)

// batch is the documents of one format that are written together.
type batch struct {
	text      []byte
	documents []document
	// How much there was before the current record.
	textBefore, documentsBefore int
}

// document is a span of a batch's text: documents are cut out when all are there, for the text moves as it grows.
type document struct {
	id       session.ID
	from, to int
}

func (o *Output) newPartition() *partition {
	return &partition{Output: o, batches: make([]batch, len(o.targets))}
}

// write writes the documents of some records, and returns when they are acknowledged.
func (p *partition) write(ctx context.Context, a kafka.Assignment, records []kafka.Record) error {
	for _, r := range records {
		if err := p.take(r.Value); err != nil {
			if err := p.letters.Send(ctx, deadletter.Letter{Topic: a.Topic, Partition: a.Partition, Offset: r.Offset, Cause: err, Value: r.Value}); err != nil {
				return err
			}
			continue
		}
		p.records.Inc()
		if slices.ContainsFunc(p.batches, func(b batch) bool { return len(b.text) >= maxHeld }) {
			if err := p.flush(ctx); err != nil {
				return err
			}
		}
	}
	return p.flush(ctx)
}

// flush writes all batches, and empties them when they are acknowledged.
func (p *partition) flush(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for i, t := range p.targets {
		g.Go(func() error { return p.produce(ctx, t, &p.batches[i]) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i := range p.batches {
		b := &p.batches[i]
		b.documents, b.text = b.documents[:0], b.text[:0]
		if cap(b.text) > 2*maxHeld {
			*b = batch{}
		}
	}
	return nil
}

// take adds the documents of a record to the batches; all of them, or on an error none.
func (p *partition) take(value []byte) error {
	for i := range p.batches {
		b := &p.batches[i]
		b.textBefore, b.documentsBefore = len(b.text), len(b.documents)
	}
	err := p.rows(value)
	if err != nil {
		for i := range p.batches {
			b := &p.batches[i]
			b.text, b.documents = b.text[:b.textBefore], b.documents[:b.documentsBefore]
		}
	}
	return err
}

func (p *partition) rows(value []byte) error {
	r, err := record.UnmarshalSessions(value)
	if err != nil {
		return err
	}
	for _, rows := range r.GetOutput().GetRows() {
		take := p.sessions
		switch rows.Kind {
		case pb.Rows_SESSIONS:
		case pb.Rows_ALERTS:
			take = p.alerts
		default:
			continue
		}
		s, err := columns.Open(rows, p.stream)
		if err != nil {
			return err
		}
		if err := s.Each(func(b *columns.Batch) error { return take(b.Record()) }); err != nil {
			return err
		}
		if m := s.Memory(); cap(m) > cap(p.stream) && cap(m) <= maxStream {
			p.stream = m
		}
	}
	return nil
}

func (p *partition) sessions(rows arrow.Record) error {
	return columns.Sessions.Load(rows, func(s *columns.Session) error {
		if s.IsFinal || p.config.Updates {
			for i := range p.targets {
				p.batches[i].add(s.ID, p.targets[i].Append(p.batches[i].text, s))
			}
		}
		return nil
	})
}

func (p *partition) alerts(rows arrow.Record) error {
	return columns.Alerts.Load(rows, func(a *columns.Alert) error {
		for i := range p.targets {
			p.batches[i].add(a.SessionID, p.targets[i].AppendAlert(p.batches[i].text, a))
		}
		return nil
	})
}

// add takes a document that was appended to the text.
func (b *batch) add(id session.ID, text []byte) {
	b.documents = append(b.documents, document{id, len(b.text), len(text)})
	b.text = text
}

func (p *partition) produce(ctx context.Context, t target, b *batch) error {
	byPartition := make([][]kafka.Record, t.partitions)
	for _, d := range b.documents {
		// The id is a hash. All versions of a session are in one partition, in order.
		i := int(binary.BigEndian.Uint32(d.id[:]) % uint32(t.partitions))
		byPartition[i] = append(byPartition[i], kafka.Record{Key: []byte(hex.EncodeToString(d.id[:])), Value: b.text[d.from:d.to]})
	}
	g, ctx := errgroup.WithContext(ctx)
	for i, records := range byPartition {
		g.Go(func() error {
			for len(records) > 0 {
				n := fitting(records)
				if err := p.send(ctx, t, i, records[:n]); err != nil {
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
func (p *partition) send(ctx context.Context, t target, i int, records []kafka.Record) error {
	_, err := p.kafka.ProduceRetry(ctx, t.Topic, i, func() ([]kafka.Record, error) { return records, nil }, func(err error) {
		p.limited.Warn("produce", "documents not written yet, trying again", "topic", t.Topic, "error", err)
	})
	switch {
	case err == nil:
		t.documents.Add(uint64(len(records)))
		return nil
	case !errors.Is(err, kafka.ErrTooLarge):
		return err
	case len(records) > 1:
		for j := range records {
			if err := p.send(ctx, t, i, records[j:j+1]); err != nil {
				return err
			}
		}
		return nil
	}
	p.tooLarge.Inc()
	p.limited.Warn("too_large", "a document is larger than the broker takes", "topic", t.Topic, "session_id", string(records[0].Key), "bytes", len(records[0].Value))
	return nil
}
