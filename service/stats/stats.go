// Package stats counts what moves through a service, and what is lost, by stage and reason. The same counts
// are Prometheus counters, tapweave_<service>_<stage>_total{reason="…"}, and records on tapweave.stats, which
// become the rows of pipeline_stats.
package stats

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/logging"
)

// Counter is a cumulative count. It is safe for concurrent use.
type Counter struct{ n atomic.Uint64 }

// Add adds n.
func (c *Counter) Add(n uint64) { c.n.Add(n) }

// Inc adds one.
func (c *Counter) Inc() { c.n.Add(1) }

// Value is the count.
func (c *Counter) Value() uint64 { return c.n.Load() }

// Counters are the counts of one incarnation of one service instance. They are safe for concurrent use, and
// a prometheus.Collector.
type Counters struct {
	service string

	mu   sync.Mutex
	all  map[key]*Counter
	desc map[string]*prometheus.Desc // by stage
}

type key struct{ stage, reason string }

// New returns the counters of a service, "collector", "enricher" or "sink", registered with r.
func New(service string, r prometheus.Registerer) *Counters {
	c := &Counters{service: service, all: map[key]*Counter{}, desc: map[string]*prometheus.Desc{}}
	if r != nil {
		r.MustRegister(c)
	}
	return c
}

// Counter returns the count of a stage and reason, both in snake case and from a fixed set. The first call
// makes it, so that it is there, as 0, before anything is counted.
func (c *Counters) Counter(stage, reason string) *Counter {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.all[key{stage, reason}]
	if n == nil {
		n = new(Counter)
		c.all[key{stage, reason}] = n
		if c.desc[stage] == nil {
			c.desc[stage] = prometheus.NewDesc(
				prometheus.BuildFQName("tapweave", c.service, stage+"_total"),
				fmt.Sprintf("Count of stage %s, by reason; also in pipeline_stats.", stage), []string{"reason"}, nil)
		}
	}
	return n
}

// Describe implements prometheus.Collector. The counters are not known beforehand.
func (c *Counters) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *Counters) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, n := range c.all {
		ch <- prometheus.MustNewConstMetric(c.desc[k.stage], prometheus.CounterValue, float64(n.Value()), k.reason)
	}
}

// Counts returns all counts, ordered by stage and reason.
func (c *Counters) Counts() []*pb.Count {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := make([]*pb.Count, 0, len(c.all))
	for k, n := range c.all {
		counts = append(counts, &pb.Count{Stage: k.stage, Reason: k.reason, Count: n.Value()})
	}
	slices.SortFunc(counts, func(a, b *pb.Count) int {
		return cmp.Or(cmp.Compare(a.Stage, b.Stage), cmp.Compare(a.Reason, b.Reason))
	})
	return counts
}

// Producer is what a Publisher needs of a Kafka client.
type Producer interface {
	Produce(ctx context.Context, topic string, partition int, records ...kafka.Record) (int64, error)
}

// Publisher writes the counts of one incarnation of an instance to tapweave.stats.
type Publisher struct {
	Instance    string
	Incarnation uint64
	Counters    *Counters
	Producer    Producer
	Log         *slog.Logger
	Every       time.Duration // default: 1 s
	// Last is how long the last record may take, asked for when the others are done: what it says, no other says
	// again. Default: 2 s.
	Last func() time.Duration
	// Before, if set, is called before each record is made, for counts that are fetched from elsewhere.
	Before func()
}

// Run publishes until ctx is done. A record that could not be written is not tried again: the next one says all of it.
// The last one is written when ctx is done, and is tried again.
func (p *Publisher) Run(ctx context.Context) {
	limited := logging.NewLimited(p.Log)
	tick := time.NewTicker(cmp.Or(p.Every, time.Second))
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			c, cancel := context.WithTimeout(ctx, 5*time.Second)
			if err := p.publish(c); err != nil && ctx.Err() == nil {
				limited.Warn("stats", "counts were not published, the next record has them all", "error", err)
			}
			cancel()
		}
	}
	limit := 2 * time.Second
	if p.Last != nil {
		limit = max(limit, p.Last())
	}
	c, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	if err := (kafka.Retry{}).Do(c, func() error { return p.publish(c) }, nil); err != nil {
		p.Log.Warn("the last counts were not published", "error", err)
	}
}

func (p *Publisher) publish(ctx context.Context) error {
	if p.Before != nil {
		p.Before()
	}
	value, err := record.MarshalStats(&pb.StatsRecord{
		Service: p.Counters.service, Instance: p.Instance, Incarnation: p.Incarnation,
		Time: time.Now().UnixNano(), Counts: p.Counters.Counts(),
	})
	if err != nil {
		return err
	}
	_, err = p.Producer.Produce(ctx, record.TopicStats, 0, kafka.Record{Key: []byte(p.Instance), Value: value})
	return err
}
