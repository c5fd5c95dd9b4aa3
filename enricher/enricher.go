// Package enricher is the service that weaves packets into sessions: it reads tapweave.packets, folds each
// partition by itself, and writes tapweave.sessions.
//
//	enricher.go   the service: topics, group, counts
//	partition.go  one partition: taking it over, folding it, ticks
//	state.go      its snapshots on tapweave.state
//	labels.go     label sets: read, written there, named on tapweave.packets, fetched
//	writer.go     records to one partition of tapweave.sessions
//	metrics.go    what operators see
//
// What a session is stands in package fold, what a record of tapweave.sessions is in package output; here are
// the clock, the network and the goroutines. Nothing is acknowledged before it is durable: the offset that is
// committed for a partition is that of the oldest packet that an open session needs, and only once the outputs
// up to there are written. Whoever takes the partition over folds from there again.
//
// Memory, a partition: two fetches of 1 MiB; an output of [output.MaxBytes]; the sessions, up to
// fold.max_sessions; and the packets that wait for the watermark, which a collector that falls silent holds up
// for fold.producer_timeout. Reading cannot stop meanwhile: the ticks that end the wait stand behind these
// packets in the log. Each partition of tapweave.sessions has a queue of 16 records; when it is full the folds
// wait for Kafka.
package enricher

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapweave/tapweave/proto/delivery"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/admin"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/logging"
	"github.com/tapweave/tapweave/service/stats"
)

// Group is the consumer group of all enrichers.
const Group = "tapweave-enricher"

const (
	// commitEvery bounds how much is folded again after a crash. Azure Event Hubs takes 4 commits a second
	// and partition.
	commitEvery = time.Second
	// sessionTimeout is how long the partitions of an enricher that died stay without an owner. Brokers take no
	// less than 6 s by default.
	sessionTimeout = 6 * time.Second
	// rebalanceTimeout is longer than drain.
	rebalanceTimeout = 15 * time.Second
	// drain bounds how long a partition that is taken away holds up the group.
	drain = 5 * time.Second
)

// Dependencies of the service; the zero value will do.
type Dependencies struct {
	Log *slog.Logger // default: slog.Default()
	// Metrics is where the service registers what it counts; default: a registry of its own.
	Metrics *prometheus.Registry
}

// Service is one instance.
type Service struct {
	config   Config
	log      *slog.Logger
	limited  *logging.Limited
	client   *kafka.Client
	counters *stats.Counters
	counts   counts
	ready    *admin.Readiness
	admin    *admin.Server
	stats    stats.Publisher

	snapshotEvery time.Duration   // of one partition
	memory        map[int]*memory // what is left of the generation before, by partition
	labels        *labelStore

	mu    sync.Mutex
	owned []*partition // of this generation
}

// New returns the service. It connects to nothing yet.
func New(c Config, d Dependencies) (*Service, error) {
	if d.Log == nil {
		d.Log = slog.Default()
	}
	if d.Metrics == nil {
		d.Metrics = admin.NewRegistry()
	}
	log := d.Log.With("service", "enricher", "name", c.Name)
	c.Kafka.ClientID = cmp.Or(c.Kafka.ClientID, "tapweave-enricher")
	client, err := kafka.New(c.Kafka)
	if err != nil {
		return nil, err
	}
	s := &Service{
		config: c, log: log, limited: logging.NewLimited(log), client: client,
		counters: stats.New("enricher", d.Metrics), snapshotEvery: snapshotEvery,
		ready: admin.NewReadiness("kafka", "group"), labels: newLabelStore(),
	}
	s.counts = newCounts(s.counters)
	d.Metrics.MustRegister(gauges{s})
	s.admin = admin.New(c.Admin, log, d.Metrics, s.ready)
	s.stats = stats.Publisher{
		Instance: c.Name, Incarnation: uint64(time.Now().UnixNano()), Counters: s.counters, Producer: client, Log: log,
	}
	return s, nil
}

// Ready says whether the service has joined the group and folds its partitions, or stands by without any; and
// if not, why.
func (s *Service) Ready() (bool, string) { return s.ready.Ready() }

// Run runs the service until ctx is done or something is wrong that waiting does not cure.
func (s *Service) Run(ctx context.Context) error {
	defer s.client.Close()
	if err := s.admin.Listen(); err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	served, stop := context.WithCancel(context.WithoutCancel(ctx)) // to the end, also while partitions are drained
	defer stop()
	wg.Go(func() {
		if err := s.admin.Run(served); err != nil {
			fail(err)
		}
	})
	if err := s.topics(ctx); err != nil {
		if ctx.Err() != nil {
			return failure(ctx)
		}
		return err
	}
	s.ready.Hold("kafka")
	wg.Go(func() { s.stats.Run(served) })
	wg.Go(func() { s.runLabels(ctx) })
	s.ready.Fail("group", "joining group "+Group)
	group := s.client.Group(kafka.GroupConfig{
		ID: Group, SessionTimeout: sessionTimeout, RebalanceTimeout: rebalanceTimeout, Failed: s.failed,
	})
	leaving := ctx
	err := group.Run(ctx, []string{record.TopicPackets}, func(ctx context.Context, gen *kafka.Generation) {
		s.generation(ctx, leaving, gen, fail)
	})
	return errors.Join(err, failure(ctx))
}

// failure is why ctx ended, nil if it was asked to.
func failure(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// failed tells of a call to Kafka that failed and is tried again.
func (s *Service) failed(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	s.counts.failures.Inc()
	s.limited.Warn("kafka", "a call to Kafka failed and is tried again", "error", err)
}

// topics waits until the topics are there.
func (s *Service) topics(ctx context.Context) error {
	t := s.config.Topics
	packets := t.Topic(record.TopicPackets, s.config.Partitions)
	state := t.Topic(record.TopicState, s.config.Partitions)
	sessions := t.Topic(record.TopicSessions, s.config.OutputPartitions)
	var have map[string]int
	err := kafka.Retry{}.Do(ctx, func() (err error) {
		have, err = s.client.EnsureTopics(ctx, t.Create, packets, sessions, state, t.Topic(record.TopicStats, 1))
		if errors.Is(err, kafka.ErrPartitions) {
			return kafka.Permanent(err)
		}
		return err
	}, func(err error) {
		s.ready.Fail("kafka", err.Error())
		s.failed(err)
	})
	if err != nil {
		return err
	}
	for _, want := range []kafka.Topic{packets, sessions, state} {
		if n := have[want.Name]; n > want.Partitions {
			s.log.Warn("a topic has more partitions than are configured; the others are not used", "topic", want.Name, "partitions", n, "configured", want.Partitions)
		}
	}
	return nil
}

// generation folds the partitions of one generation of the group. It returns when ctx is done, or when a
// partition cannot go on; the group is then joined again. leaving is done when the service ends.
func (s *Service) generation(ctx, leaving context.Context, gen *kafka.Generation, fail func(error)) {
	defer s.ready.Fail("group", "joining group "+Group)
	var own []int
	for _, a := range gen.Assignments {
		if a.Partition < s.config.Partitions {
			own = append(own, a.Partition)
		}
	}
	s.log.Info("joined the group", "group", Group, "generation", gen.ID, "partitions", fmt.Sprint(own))
	left := s.memory // of partitions that are another's now, nothing is kept
	s.memory = map[int]*memory{}
	if len(own) == 0 {
		s.ready.Hold("group")
		<-ctx.Done()
		return
	}
	work, stop := context.WithCancel(ctx)
	defer stop()
	// Writers and the last commit go on for a while when the partitions are taken away.
	late, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()

	writers := map[int]*writer{}
	var writing sync.WaitGroup
	var partitions []*partition
	var starting atomic.Int64
	var commits sync.Mutex
	for _, a := range gen.Assignments {
		if a.Partition >= s.config.Partitions {
			continue
		}
		to := record.OutputPartition(a.Partition, s.config.OutputPartitions)
		w := writers[to]
		if w == nil {
			w = newWriter(s.client, record.TopicSessions, to, s.failed)
			writers[to] = w
			writing.Go(func() {
				if err := w.run(late); err != nil && late.Err() == nil {
					fail(err)
				}
			})
		}
		partitions = append(partitions, &partition{
			Service: s, gen: gen, assigned: a, writer: w, late: late, memory: left[a.Partition], commits: &commits, gaps: gaps{},
		})
	}
	s.own(partitions)
	defer s.own(nil)

	var folding sync.WaitGroup
	starting.Store(int64(len(partitions)))
	for _, p := range partitions {
		folding.Go(func() {
			defer stop() // one that cannot go on ends the generation
			err := p.run(work, func() {
				if starting.Add(-1) == 0 {
					s.ready.Hold("group")
				}
			})
			switch {
			case err == nil || work.Err() != nil:
			case errors.Is(err, errOver), errors.Is(err, errUnsure):
				s.log.Info("the partition is taken over again", "partition", p.assigned.Partition, "reason", err)
			default:
				fail(fmt.Errorf("%s/%d: %w", record.TopicPackets, p.assigned.Partition, err))
			}
		})
	}
	commit := func(ctx context.Context) {
		commits.Lock()
		defer commits.Unlock()
		pending := map[*partition]*commit{}
		var list []kafka.Commit
		for _, p := range partitions {
			if c := p.pending(false); c != nil {
				pending[p] = c
				list = append(list, c.Commit)
			}
		}
		outcome := delivery.Done
		if err := gen.Commit(ctx, record.TopicPackets, list...); errors.Is(err, kafka.ErrFenced) {
			outcome = delivery.Refused
			s.log.Info("commit refused", "error", err)
			stop()
		} else if err != nil {
			outcome = delivery.Unknown
		}
		for p, c := range pending {
			p.committed(c, outcome)
		}
	}
	tick := time.NewTicker(commitEvery)
	defer tick.Stop()
	for work.Err() == nil {
		select {
		case <-work.Done():
		case <-tick.C:
			commit(work)
		}
	}
	deadline := time.AfterFunc(drain, abandon)
	defer deadline.Stop()
	folding.Wait()
	for _, w := range writers {
		close(w.queue)
	}
	writing.Wait()
	var finishing sync.WaitGroup
	for _, p := range partitions {
		finishing.Go(func() { p.finish(leaving.Err() != nil) })
	}
	finishing.Wait()
	commit(late)
	for _, p := range partitions {
		if m := p.remember(); m != nil {
			s.memory[p.assigned.Partition] = m
		}
	}
}

func (s *Service) own(list []*partition) {
	s.mu.Lock()
	s.owned = list
	s.mu.Unlock()
}
