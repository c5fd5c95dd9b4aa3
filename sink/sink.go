// Package sink is the sink service: what the enricher puts out goes to ClickHouse, and as JSON documents to the
// topics of SIEMs. Each output is a package with a consumer group of its own; neither waits for the other.
package sink

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/admin"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/logging"
	"github.com/tapweave/tapweave/service/stats"
	"github.com/tapweave/tapweave/sink/clickhouse"
	"github.com/tapweave/tapweave/sink/deadletter"
	"github.com/tapweave/tapweave/sink/migrate"
	"github.com/tapweave/tapweave/sink/siem"
)

// Dependencies of a sink.
type Dependencies struct {
	Log *slog.Logger
}

// Sink is one sink. It is inert until Listen or Run.
type Sink struct {
	config   Config
	log      *slog.Logger
	limited  *logging.Limited
	registry *prometheus.Registry
	ready    *admin.Readiness
	admin    *admin.Server
	counters *stats.Counters
}

// Conditions of /readyz.
const (
	conditionTopics     = "topics"
	conditionClickHouse = "clickhouse"
)

// New returns a sink. The configuration has been validated.
func New(c Config, d Dependencies) *Sink {
	s := &Sink{
		config: c, log: d.Log.With("service", "sink", "name", c.Name), registry: admin.NewRegistry(),
		ready: admin.NewReadiness(conditionTopics),
	}
	if c.ClickHouse.Enabled {
		s.ready.Fail(conditionClickHouse, "starting")
	}
	s.limited = logging.NewLimited(s.log)
	s.admin = admin.New(c.Admin, s.log, s.registry, s.ready)
	s.counters = stats.New("sink", s.registry)
	return s
}

// Listen takes the admin address. Run does so where it has not been called.
func (s *Sink) Listen() error { return s.admin.Listen() }

// AdminAddr is the address of /readyz that Listen has taken, "" if none.
func (s *Sink) AdminAddr() string { return s.admin.Addr() }

// Ready says whether the sink stores what comes, and otherwise why not.
func (s *Sink) Ready() (bool, string) { return s.ready.Ready() }

// Counters are what the sink has counted.
func (s *Sink) Counters() *stats.Counters { return s.counters }

// Run stores what comes until ctx is done; what it had read by then is stored and committed. An error is one
// that does not go away by itself: a wrong password, a schema that is too new.
func (s *Sink) Run(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	defer s.admin.Close()
	config := s.config.Kafka
	if config.ClientID == "" {
		config.ClientID = "tapweave-sink"
	}
	client, err := kafka.New(config)
	if err != nil {
		return err
	}
	defer client.Close()
	var servers []*clickhouse.Server
	if s.config.ClickHouse.Enabled {
		if servers, err = s.config.ClickHouse.Servers(); err != nil {
			return err
		}
		defer clickhouse.Close(servers)
	}

	// /readyz and the counts live on until the outputs have ended.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	defer background.Wait()
	defer end()
	work, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	background.Go(func() {
		if err := s.admin.Run(life); err != nil {
			stop(err)
		}
	})

	partitions, err := s.topics(work, client)
	if err != nil {
		return outcome(work, err)
	}
	counts := stats.Publisher{
		Instance: s.config.Name, Incarnation: uint64(time.Now().UnixNano()),
		Counters: s.counters, Producer: client, Log: s.log,
	}
	background.Go(func() { counts.Run(life) })

	var outputs sync.WaitGroup
	run := func(f func(context.Context) error) {
		outputs.Go(func() {
			if err := f(work); err != nil && work.Err() == nil {
				stop(err)
			}
		})
	}
	if servers != nil {
		run(func(ctx context.Context) error { return s.runClickHouse(ctx, client, servers) })
	}
	if s.config.SIEM.Enabled() {
		// The other output reads the same records, and writes the letters.
		var producer deadletter.Producer
		if servers == nil {
			producer = client
		}
		letters := deadletter.New(producer, s.counters, "siem_deadletter", s.log)
		run(siem.New(s.config.SIEM, partitions, client, letters, s.counters, s.log).Run)
	}
	s.log.Info("storing", "clickhouse", s.config.ClickHouse.Enabled, "siem", s.config.SIEM.Topics(), "admin", s.admin.Addr())
	outputs.Wait()
	return outcome(work, nil)
}

// outcome is what ended the work, if it was not the caller.
func outcome(work context.Context, err error) error {
	if cause := context.Cause(work); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	if errors.Is(err, context.Canceled) || work.Err() != nil {
		return nil
	}
	return err
}

// topics makes sure that all topics are there, and returns how many partitions they have.
func (s *Sink) topics(ctx context.Context, client *kafka.Client) (map[string]int, error) {
	list := []kafka.Topic{
		s.config.Topics.Topic(record.TopicSessions, s.config.OutputPartitions),
		s.config.Topics.Topic(record.TopicStats, 1),
		s.config.Topics.Topic(record.TopicDeadLetter, 1),
	}
	for _, topic := range s.config.SIEM.Topics() {
		list = append(list, s.config.Topics.Topic(topic, s.config.SIEM.Partitions))
	}
	var have map[string]int
	err := kafka.Retry{}.Do(ctx, func() (err error) {
		have, err = client.EnsureTopics(ctx, s.config.Topics.Create, list...)
		if errors.Is(err, kafka.ErrPartitions) {
			return kafka.Permanent(err)
		}
		return err
	}, func(err error) {
		s.ready.Fail(conditionTopics, err.Error())
		s.limited.Warn("kafka", "Kafka is not ready, trying again", "error", err)
	})
	if err == nil {
		s.ready.Hold(conditionTopics)
	}
	return have, err
}

func (s *Sink) runClickHouse(ctx context.Context, client *kafka.Client, servers []*clickhouse.Server) error {
	for _, server := range servers {
		if err := s.migrate(ctx, server); err != nil {
			return err
		}
	}
	if s.config.ClickHouse.Cluster != "" {
		var err error
		if servers, err = s.shards(ctx); err != nil {
			return err
		}
		defer clickhouse.Close(servers)
	}
	s.ready.Hold(conditionClickHouse)
	letters := deadletter.New(client, s.counters, "deadletter", s.log)
	config := s.config.ClickHouse
	config.Partitions = s.config.Partitions
	output := clickhouse.New(config, servers, client, letters, s.counters, s.registry, s.log)
	output.Away = func(err error) {
		if err != nil {
			s.ready.Fail(conditionClickHouse, err.Error())
			return
		}
		s.ready.Hold(conditionClickHouse)
	}
	return output.Run(ctx)
}

// shards waits until each shard of the cluster answers.
func (s *Sink) shards(ctx context.Context) (list []*clickhouse.Server, err error) {
	err = kafka.Retry{}.Do(ctx, func() (err error) {
		list, err = s.config.ClickHouse.Shards(ctx)
		return err
	}, func(err error) {
		s.ready.Fail(conditionClickHouse, err.Error())
		s.limited.Warn("clickhouse", "ClickHouse is not ready, trying again", "error", err)
	})
	return list, err
}

// migrate brings the tables up to date, or sees that they are. While ClickHouse does not answer it waits.
func (s *Sink) migrate(ctx context.Context, server *clickhouse.Server) error {
	m := &migrate.Migrator{Conn: server, Database: s.config.ClickHouse.Database, Cluster: s.config.ClickHouse.Cluster, Retention: s.config.ClickHouse.Retention, Instance: s.config.Name, Log: s.log}
	apply := m.Run
	if !s.config.ClickHouse.Migrate {
		apply = m.Check
	}
	waiting := false
	err := kafka.Retry{}.Do(ctx, func() error {
		err := server.Explain(apply(ctx))
		if errors.Is(err, migrate.ErrNewer) || errors.Is(err, migrate.ErrOlder) || clickhouse.Stays(err) {
			return kafka.Permanent(err)
		}
		return err
	}, func(err error) {
		waiting = true
		s.ready.Fail(conditionClickHouse, err.Error())
		s.limited.Warn("clickhouse", "ClickHouse is not ready, trying again", "error", err)
	})
	if err == nil && waiting {
		s.log.Info("ClickHouse answers", "addresses", server.Addresses())
	}
	return err
}

// MigrateOnly brings the tables up to date, whatever clickhouse.migrate says, and returns.
func MigrateOnly(ctx context.Context, c Config, log *slog.Logger) error {
	servers, err := c.ClickHouse.Servers()
	if err != nil {
		return err
	}
	defer clickhouse.Close(servers)
	s := New(c, Dependencies{Log: log})
	s.config.ClickHouse.Migrate = true
	for _, server := range servers {
		if err := s.migrate(ctx, server); err != nil {
			return outcome(ctx, err)
		}
	}
	return nil
}

// PrintDDL writes the statements that make all tables from nothing.
func PrintDDL(w io.Writer, c Config) error {
	_, err := io.WriteString(w, strings.Join(migrate.DDL(c.ClickHouse.Database, c.ClickHouse.Cluster, c.ClickHouse.Retention), ";\n\n")+";\n")
	return err
}

// Check reads the files that the configuration names.
func Check(c Config) error {
	client, err := kafka.New(c.Kafka)
	if err != nil {
		return err
	}
	client.Close()
	if !c.ClickHouse.Enabled {
		return nil
	}
	server, err := c.ClickHouse.Open()
	if err != nil {
		return err
	}
	return server.Close()
}

// Keep is for how long the topics should keep what a sink reads: for so long ClickHouse may be away.
const Keep = 12 * time.Hour

// Warnings asks Kafka and ClickHouse, and returns what they do not give that delivery needs.
func Warnings(ctx context.Context, c Config) (warnings []string) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	client, err := kafka.New(c.Kafka)
	if err != nil {
		return []string{err.Error()}
	}
	defer client.Close()
	list, err := client.Durability(ctx, Keep, record.TopicSessions, record.TopicDeadLetter)
	warnings = append(warnings, list...)
	if err != nil {
		warnings = append(warnings, "not checked: "+err.Error())
	}
	if !c.ClickHouse.Enabled {
		return warnings
	}
	server, err := c.ClickHouse.Open()
	if err != nil {
		return append(warnings, err.Error())
	}
	defer server.Close()
	missing, later, err := server.Rights(ctx, c.ClickHouse)
	warnings = append(append(warnings, missing...), later...)
	if err == nil {
		list, err = server.Windows(ctx, c.ClickHouse, c.OutputPartitions)
		warnings = append(warnings, list...)
	}
	if err != nil {
		warnings = append(warnings, "not checked: "+err.Error())
	}
	return warnings
}
