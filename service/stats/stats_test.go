package stats

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
)

func TestCounters(t *testing.T) {
	r := prometheus.NewRegistry()
	c := New("collector", r)
	c.Counter("refused", "arp").Add(3)
	c.Counter("refused", "arp").Inc()
	c.Counter("refused", "not_ip")
	c.Counter("published", "packets").Add(1 << 40)
	want := `
# HELP tapweave_collector_published_total Count of stage published, by reason; also in pipeline_stats.
# TYPE tapweave_collector_published_total counter
tapweave_collector_published_total{reason="packets"} 1.099511627776e+12
# HELP tapweave_collector_refused_total Count of stage refused, by reason; also in pipeline_stats.
# TYPE tapweave_collector_refused_total counter
tapweave_collector_refused_total{reason="arp"} 4
tapweave_collector_refused_total{reason="not_ip"} 0
`
	if err := testutil.GatherAndCompare(r, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	// A second instance in one process has a registry of its own.
	New("collector", prometheus.NewRegistry()).Counter("refused", "arp").Inc()
	if n := c.Counter("refused", "arp").Value(); n != 4 {
		t.Errorf("%d", n)
	}
}

// topic keeps what is produced, and fails the first time.
type topic struct {
	mu       sync.Mutex
	calls    int
	failures int // calls that will fail
	records  []*pb.StatsRecord
	wrote    chan struct{}
}

func (p *topic) Produce(_ context.Context, name string, partition int, records ...kafka.Record) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	if p.calls == 1 || p.failures > 0 {
		p.failures = max(0, p.failures-1)
		return 0, errors.New("not now")
	}
	if name != record.TopicStats || partition != 0 || string(records[0].Key) != "c1" {
		return 0, kafka.Permanent(errors.New("wrong place"))
	}
	s, err := record.UnmarshalStats(records[0].Value)
	if err != nil {
		return 0, err
	}
	p.records = append(p.records, s)
	select {
	case p.wrote <- struct{}{}:
	default:
	}
	return int64(p.calls), nil
}

func TestPublisher(t *testing.T) {
	c := New("collector", nil)
	n := c.Counter("received", "datagrams")
	n.Add(5)
	out := &topic{wrote: make(chan struct{}, 1)}
	p := Publisher{Instance: "c1", Incarnation: 77, Counters: c, Producer: out, Log: slog.New(slog.DiscardHandler), Every: 5 * time.Millisecond}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	<-out.wrote
	n.Add(2)
	out.mu.Lock()
	out.failures = 3 // the last record is tried again
	cancel()
	out.mu.Unlock()
	<-done
	last := out.records[len(out.records)-1]
	if last.Service != "collector" || last.Instance != "c1" || last.Incarnation != 77 || time.Since(time.Unix(0, last.Time)) > time.Minute {
		t.Errorf("%v", last)
	}
	if len(last.Counts) != 1 || last.Counts[0].Stage != "received" || last.Counts[0].Reason != "datagrams" || last.Counts[0].Count != 7 {
		t.Errorf("the last record says %v", last.Counts)
	}
}
