package enricher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapweave/tapweave/enricher/internal/synthetic"
	"github.com/tapweave/tapweave/enricher/output"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/delivery"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/proto/session"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/kafka/kafkatest"
	"github.com/tapweave/tapweave/service/logging/logtest"
)

const (
	partitions        = 4
	sessionPartitions = 2
	patience          = 60 * time.Second
)

// In this environment the test binary is an enricher, which can be killed.
const (
	childBroker = "TAPWEAVE_TEST_ENRICHER_BROKER"
	childPrefix = "TAPWEAVE_TEST_ENRICHER_PREFIX"
	// childOther, where set, gives it other settings, on which the outputs depend.
	childOther = "TAPWEAVE_TEST_ENRICHER_OTHER"
	// childPartitions and childAdmin, where set, make it one of a benchmark: with as many partitions, with an address
	// for its metrics, and with snapshots at their usual pace.
	childPartitions = "TAPWEAVE_TEST_ENRICHER_PARTITIONS"
	childAdmin      = "TAPWEAVE_TEST_ENRICHER_ADMIN"
	// childEvery, where set, is the least time between its snapshots.
	childEvery = "TAPWEAVE_TEST_ENRICHER_EVERY"
)

// quick is how often snapshots are taken in tests.
const quick = 200 * time.Millisecond

func TestMain(m *testing.M) {
	broker := os.Getenv(childBroker)
	if broker == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	c := config(kafka.Config{Brokers: []string{broker}, TopicPrefix: os.Getenv(childPrefix)}, "child")
	if os.Getenv(childOther) != "" {
		other(&c)
	}
	every := quick
	if n, err := strconv.Atoi(os.Getenv(childPartitions)); err == nil {
		c.Partitions, c.Admin.Listen, every = n, os.Getenv(childAdmin), snapshotEvery
	}
	if d, err := time.ParseDuration(os.Getenv(childEvery)); err == nil {
		every = d
	}
	s, err := New(c, Dependencies{})
	if err == nil {
		s.snapshotEvery = every
		err = s.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// other changes settings so that the same log gives other outputs, of the same sessions.
func other(c *Config) {
	c.Output.Every, c.Output.MaxBytes = time.Second, 100_000
	c.Fold.FirstVersion, c.Fold.VersionEvery, c.Fold.TCPIdle = 2*time.Second, 3*time.Second, 2*time.Hour
	c.Fold.MaxSessions, c.Fold.PayloadLog = 5000, 1<<20
}

// child is an enricher in a process of its own.
type child struct {
	*exec.Cmd
	log *logtest.Buffer
}

func (b *bench) child(environment ...string) *child {
	b.Helper()
	c := &child{exec.Command(os.Args[0]), new(logtest.Buffer)}
	c.Env = append(append(os.Environ(), childBroker+"="+b.config.Brokers[0], childPrefix+"="+b.config.TopicPrefix), environment...)
	c.Stderr = c.log
	if err := c.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		c.kill()
		if b.Failed() {
			b.Logf("log of a child:\n%s", c.log)
		}
	})
	return c
}

func (c *child) kill() {
	c.Process.Kill()
	c.Wait()
}

// freeAddress is one on loopback that nobody listens on.
func freeAddress(t testing.TB) string {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func config(k kafka.Config, name string) Config {
	c := DefaultConfig()
	c.Name, c.Kafka = name, k
	c.Partitions, c.OutputPartitions = partitions, sessionPartitions
	c.Admin.Listen = ""
	return c
}

// bench is a broker with topics of a test's own.
type bench struct {
	testing.TB
	config kafka.Config
	client *kafka.Client
}

func newBench(t testing.TB) *bench {
	c := kafkatest.Config(t)
	client, err := kafka.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	b := &bench{t, c, client}
	return b
}

// topics makes the topics, tapweave.packets with n partitions.
func (b *bench) topics(n int) {
	b.Helper()
	_, err := b.client.EnsureTopics(b.Context(), true, kafka.Topic{Name: record.TopicPackets, Partitions: n},
		kafka.Topic{Name: record.TopicSessions, Partitions: sessionPartitions}, kafka.Topic{Name: record.TopicStats, Partitions: 1},
		kafka.Topic{Name: record.TopicState, Partitions: n})
	if err != nil {
		b.Fatal(err)
	}
}

// running is a service in this process.
type running struct {
	*Service
	bench   *bench
	metrics *prometheus.Registry
	log     *logtest.Buffer
	cancel  context.CancelFunc
	done    chan struct{}
	err     error
}

func (b *bench) start(name string) *running {
	b.Helper()
	return b.startWith(config(b.config, name))
}

func (b *bench) startWith(c Config) *running {
	b.Helper()
	r := &running{bench: b, metrics: prometheus.NewRegistry(), log: new(logtest.Buffer), done: make(chan struct{})}
	s, err := New(c, Dependencies{Log: r.log.Logger(), Metrics: r.metrics})
	if err != nil {
		b.Fatal(err)
	}
	s.snapshotEvery = quick
	r.Service = s
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	go func() {
		r.err = s.Run(ctx)
		close(r.done)
	}()
	b.Cleanup(func() {
		r.stop()
		if b.Failed() {
			b.Logf("log of %s:\n%s", c.Name, r.log)
		}
	})
	return r
}

func (r *running) stop() {
	r.cancel()
	<-r.done
	if r.err != nil {
		r.bench.Errorf("Run: %v", r.err)
		r.err = nil
	}
}

func (r *running) waitReady() {
	r.bench.Helper()
	r.bench.wait("ready", func() (bool, string) { return r.Ready() })
}

// wait waits until ok.
func (b *bench) wait(what string, ok func() (bool, string)) {
	b.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		is, why := ok()
		if is {
			return
		}
		if time.Now().After(end) {
			b.Fatalf("not %s after %v: %s", what, patience, why)
		}
	}
}

// feed appends records to tapweave.packets.
func (b *bench) feed(records []synthetic.Record) {
	b.Helper()
	byPartition := map[int][]kafka.Record{}
	for _, r := range records {
		byPartition[r.Partition] = append(byPartition[r.Partition], kafka.Record{Value: r.Value})
	}
	for p, list := range byPartition {
		for chunk := range slices.Chunk(list, 50) {
			b.produce(p, chunk...)
		}
	}
}

func (b *bench) produce(partition int, records ...kafka.Record) {
	b.Helper()
	// A topic that has just been made takes a moment to find its leader.
	ctx, cancel := context.WithTimeout(b.Context(), patience)
	defer cancel()
	var last error
	_, err := b.client.ProduceRetry(ctx, record.TopicPackets, partition, func() ([]kafka.Record, error) { return records, nil }, func(err error) { last = err })
	if err != nil {
		b.Fatalf("%v; the last try: %v", err, last)
	}
}

// view is what a reader of tapweave.sessions knows.
type view struct {
	bench    *bench
	next     [sessionPartitions]int64
	readers  [sessionPartitions]*delivery.Reader
	sessions map[session.ID]columns.Session // newest version
	traffic  columns.TrafficSums
	markers  [partitions][]delivery.Epoch
}

func newView(b *bench) *view {
	v := &view{bench: b, sessions: map[session.ID]columns.Session{}}
	for i := range v.readers {
		v.readers[i] = delivery.NewReader(nil)
	}
	return v
}

// read reads on to the end.
func (v *view) read() {
	b := v.bench
	b.Helper()
	for to := range v.next {
		for {
			f, err := b.client.Fetch(b.Context(), record.TopicSessions, to, v.next[to], 1<<20, 10*time.Millisecond)
			if err != nil {
				b.Fatal(err)
			}
			if len(f.Records) == 0 {
				break
			}
			v.next[to] = f.Next
			for _, r := range f.Records {
				v.take(to, r)
			}
		}
	}
}

func (v *view) take(to int, k kafka.Record) {
	b := v.bench
	b.Helper()
	r, err := record.UnmarshalSessions(k.Value)
	if err != nil {
		b.Fatal(err)
	}
	e, err := delivery.EntryOf(r, partitions)
	if err != nil {
		b.Fatal(err)
	}
	if int(e.Partition)%sessionPartitions != to || string(k.Key) != fmt.Sprint(e.Partition) {
		b.Fatalf("partition %d with key %s in partition %d", e.Partition, k.Key, to)
	}
	switch verdict := v.readers[to].Read(e); {
	case verdict == delivery.Gap:
		b.Errorf("partition %d: a gap before %v", e.Partition, e.Position)
	case !verdict.Kept():
		return
	case e.Marker:
		v.markers[e.Partition] = append(v.markers[e.Partition], e.Epoch)
		return
	}
	for _, rows := range r.GetOutput().GetRows() {
		var err error
		switch rows.Kind {
		case pb.Rows_SESSIONS:
			err = columns.Sessions.Read(rows, func(s *columns.Session) error {
				if s.Version >= v.sessions[s.ID].Version {
					v.sessions[s.ID] = *s
				}
				return nil
			})
		case pb.Rows_TRAFFIC:
			err = columns.Bookings.Read(rows, func(t *columns.Traffic) error {
				v.traffic.Add(t.TrafficSums)
				return nil
			})
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

// complete waits until the sessions of the log are there as they are known to be, and no others.
func (v *view) complete(l *synthetic.Log) {
	v.bench.Helper()
	v.bench.wait("complete", func() (bool, string) {
		v.read()
		final := 0
		for _, s := range v.sessions {
			if s.IsFinal {
				final++
			}
		}
		return final >= len(l.Sessions), fmt.Sprintf("%d final sessions of %d", final, len(l.Sessions))
	})
	if len(v.sessions) != len(l.Sessions) {
		v.bench.Errorf("%d sessions, want %d", len(v.sessions), len(l.Sessions))
	}
	byEnds := map[string]columns.Session{}
	for _, s := range v.sessions {
		byEnds[fmt.Sprint(s.Src, s.SrcPort, s.Dst, s.DstPort)] = s
	}
	for _, w := range l.Sessions {
		g := byEnds[fmt.Sprint(w.Src, w.SrcPort, w.Dst, w.DstPort)]
		if !g.IsFinal || g.CloseReason != "fin" || g.ConnState != "SF" || int(g.InputPartition) != w.Partition ||
			g.SrcPackets != w.SrcPackets || g.DstPackets != w.DstPackets || g.SrcBytes != w.SrcBytes || g.DstBytes != w.DstBytes ||
			g.SrcPayloadBytes != w.SrcPayloadBytes || g.DstPayloadBytes != w.DstPayloadBytes {
			v.bench.Errorf("session %s\nwant %+v", columns.AppendJSON(nil, &g), w)
			return
		}
	}
	var want columns.TrafficSums
	for _, w := range l.Sessions {
		want.Add(columns.TrafficSums{
			Sessions: 1, SrcPackets: int64(w.SrcPackets), DstPackets: int64(w.DstPackets), SrcBytes: int64(w.SrcBytes), DstBytes: int64(w.DstBytes),
			SrcPayloadBytes: int64(w.SrcPayloadBytes), DstPayloadBytes: int64(w.DstPayloadBytes),
		})
	}
	if v.traffic != want {
		v.bench.Errorf("traffic %+v\nwant    %+v", v.traffic, want)
	}
}

func options(seed uint64, sessions int) synthetic.Options {
	return synthetic.Options{
		Seed: seed, Sessions: sessions, Partitions: partitions, Start: time.Now().Add(-time.Minute).Truncate(time.Minute),
		Span: 20 * time.Second, Every: 200 * time.Millisecond,
	}
}

// What leaves through Kafka is what the fold gives directly.
func TestThroughKafka(t *testing.T) {
	b := newBench(t)
	b.topics(partitions + 1) // one more than is configured: left alone
	l := synthetic.Write(options(1, 400))
	garbage := kafka.Record{Value: []byte("no record")}
	b.produce(partitions, garbage)
	s := b.start("one")
	s.waitReady()
	half := len(l.Records) / 2
	b.feed(l.Records[:half])
	b.produce(1, garbage, garbage)
	b.feed(l.Records[half:])
	v := newView(b)
	v.complete(l)

	want := map[session.ID]columns.Session{}
	var traffic columns.TrafficSums
	for p := range partitions {
		direct(t, p, l, want, &traffic)
	}
	if !maps.EqualFunc(v.sessions, want, func(a, b columns.Session) bool {
		return bytes.Equal(columns.AppendJSON(nil, &a), columns.AppendJSON(nil, &b))
	}) {
		t.Error("the sessions differ from those of the fold alone")
	}
	if v.traffic != traffic {
		t.Errorf("traffic %+v, that of the fold alone %+v", v.traffic, traffic)
	}
	if n := s.counts.fold[0].Value(); n != 2 {
		t.Errorf("%d undecodable records", n)
	}
	for _, line := range []string{"topic=tapweave.packets partition=1 offset=", "more partitions than are configured; the others are not used\" service=enricher name=one topic=tapweave.packets"} {
		if n := strings.Count(s.log.String(), line); n != 1 {
			t.Errorf("%d lines of the log with %q", n, line)
		}
	}
	checkStats(b, s)
	s.stop()
}

// direct folds one partition of a log without Kafka.
func direct(t *testing.T, partition int, l *synthetic.Log, sessions map[session.ID]columns.Session, traffic *columns.TrafficSums) {
	o, err := delivery.NewOwner(delivery.Assignment{Generation: 1, Committed: delivery.Commit{Offset: -1}})
	if err != nil {
		t.Fatal(err)
	}
	o.Surveyed(0, 0)
	c := config(kafka.Config{}, "direct")
	s := output.New(output.Config{
		Partition: uint32(partition), Epoch: o.Epoch(), Fold: c.Fold.settings(partitions), Output: output.DefaultSettings(),
		Emit: func(_ uint64, value []byte) error {
			r, err := record.UnmarshalSessions(value)
			if err != nil {
				return err
			}
			for _, rows := range r.GetOutput().Rows {
				if rows.Kind == pb.Rows_SESSIONS {
					err = columns.Sessions.Read(rows, func(s *columns.Session) error { sessions[s.ID] = *s; return nil })
				} else {
					err = columns.Bookings.Read(rows, func(b *columns.Traffic) error { traffic.Add(b.TrafficSums); return nil })
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}, o.Numbers(0))
	offset := int64(0)
	for _, r := range l.Records {
		if r.Partition != partition {
			continue
		}
		if err := s.Record(offset, r.Value); err != nil {
			t.Fatal(err)
		}
		offset++
	}
}

// checkStats looks at the counts where operators find them.
func checkStats(b *bench, s *running) {
	b.Helper()
	b.wait("counted", func() (bool, string) {
		f, err := b.client.Fetch(b.Context(), record.TopicStats, 0, 0, 10<<20, time.Second)
		if err != nil {
			b.Fatal(err)
		}
		last := map[string]uint64{}
		for _, k := range f.Records {
			r, err := record.UnmarshalStats(k.Value)
			if err != nil {
				b.Fatal(err)
			}
			if r.Service != "enricher" || r.Instance != "one" {
				b.Fatalf("stats of %s %s", r.Service, r.Instance)
			}
			for _, c := range r.Counts {
				last[c.Stage+"/"+c.Reason] = c.Count
			}
		}
		return last["fold/sessions_begun"] == 400 && last["fold/undecodable_records"] == 2 && last["output/session_versions"] >= 400 && last["group/assignments"] == partitions, fmt.Sprint(last)
	})
	families, err := s.metrics.Gather()
	if err != nil {
		b.Fatal(err)
	}
	have := map[string]int{}
	for _, f := range families {
		have[f.GetName()] = len(f.GetMetric())
	}
	for _, name := range []string{"lag_seconds", "sessions_open", "bytes_buffered", "records_behind"} {
		if n := have["tapweave_enricher_"+name]; n != partitions {
			b.Errorf("%s of %d partitions", name, n)
		}
	}
	if have["tapweave_enricher_fold_total"] == 0 {
		b.Error("no counts of the fold")
	}
}

// An enricher that is killed while sessions are open loses none: the next one folds them again.
func TestKilled(t *testing.T) {
	b := newBench(t)
	b.topics(partitions)
	o := options(2, 300)
	o.Long = true
	l := synthetic.Write(o)
	v := newView(b)
	fed := 0
	for life := range 3 {
		c := b.child()
		next := len(l.Records) * (life + 1) / 4
		b.feed(l.Records[fed:next])
		fed = next
		b.wait("in the middle", func() (bool, string) {
			v.read()
			return len(v.sessions) == len(l.Sessions) && len(v.markers[0]) > life, fmt.Sprintf("%d sessions of %d, markers %v", len(v.sessions), len(l.Sessions), v.markers[0])
		})
		time.Sleep(time.Duration(life) * commitEvery) // sooner or later
		c.kill()
	}
	b.feed(l.Records[fed:])
	s := b.start("last")
	v.complete(l)
	s.stop()
	for p, m := range v.markers {
		if len(m) < 4 || !slices.IsSortedFunc(m, delivery.Epoch.Compare) {
			t.Errorf("partition %d: markers %v", p, m)
		}
	}
}

// Two enrichers share the partitions; one goes, another comes.
func TestSharing(t *testing.T) {
	b := newBench(t)
	b.topics(partitions)
	o := options(3, 300)
	o.Long = true
	l := synthetic.Write(o)
	third := len(l.Records) / 3
	v := newView(b)
	owned := func(r *running) int {
		r.mu.Lock()
		defer r.mu.Unlock()
		n := 0
		for _, p := range r.owned {
			if p.running.Load() {
				n++
			}
		}
		return n
	}
	share := func(a *running, n int, c *running, m int) {
		b.Helper()
		b.wait("shared", func() (bool, string) {
			x, y := owned(a), owned(c)
			return x == n && y == m, fmt.Sprintf("%d and %d partitions", x, y)
		})
	}
	one := b.start("one")
	two := b.start("two")
	share(one, 2, two, 2)
	b.feed(l.Records[:third])
	b.wait("begun", func() (bool, string) { v.read(); return len(v.sessions) == 300, fmt.Sprint(len(v.sessions)) })
	two.stop()
	share(one, 4, two, 0)
	b.feed(l.Records[third : 2*third])
	three := b.start("three")
	share(one, 2, three, 2)
	b.feed(l.Records[2*third:])
	v.complete(l)
	if n := one.counts.degraded.Value(); n != 0 {
		t.Errorf("%d degraded assignments", n)
	}
	assigned := one.counts.assigned.Value() + two.counts.assigned.Value() + three.counts.assigned.Value()
	markers := uint64(0)
	for p, m := range v.markers {
		markers += uint64(len(m))
		if !slices.IsSortedFunc(m, delivery.Epoch.Compare) {
			t.Errorf("partition %d: markers %v", p, m)
		}
	}
	if markers != assigned {
		t.Errorf("%d markers, %d assignments", markers, assigned)
	}
	// More enrichers than partitions: the last stand by, and are ready.
	for i := range 3 {
		b.start(fmt.Sprint("more", i)).waitReady()
	}
}

// An offset that is not in the log any more, or that somebody else committed, is told, and the fold begins at
// the earliest record.
func TestForeignOffset(t *testing.T) {
	b := newBench(t)
	b.topics(partitions)
	l := synthetic.Write(options(4, 100))
	b.feed(l.Records)
	ctx, cancel := context.WithCancel(t.Context())
	err := b.client.Group(kafka.GroupConfig{ID: Group}).Run(ctx, []string{record.TopicPackets}, func(ctx context.Context, g *kafka.Generation) {
		if err := g.Commit(ctx, record.TopicPackets, kafka.Commit{Partition: 2, Offset: 1 << 40}); err != nil {
			t.Error(err)
		}
		cancel()
	})
	if err != nil {
		t.Fatal(err)
	}
	s := b.start("one")
	newView(b).complete(l)
	s.stop()
	if log := s.log.String(); !strings.Contains(log, "offsets were set by hand") || !strings.Contains(log, "outputs begin anew") || s.counts.degraded.Value() != 1 {
		t.Errorf("log:\n%s", log)
	}
}

// Fewer partitions than are configured is no way to begin.
func TestTooFewPartitions(t *testing.T) {
	b := newBench(t)
	b.topics(partitions - 1)
	s := b.start("one")
	<-s.done
	if !errors.Is(s.err, kafka.ErrPartitions) || strings.Contains(s.err.Error(), "\n") {
		t.Errorf("%v", s.err)
	}
	s.err = nil
}

// Without Kafka the service waits, and says so in one line.
func TestNoKafka(t *testing.T) {
	b := &bench{t, kafka.Config{Brokers: []string{"127.0.0.1:1"}}, nil}
	s := b.start("one")
	b.wait("unready", func() (bool, string) {
		_, why := s.Ready()
		return strings.Contains(why, "127.0.0.1:1"), why
	})
	time.Sleep(time.Second)
	s.stop()
	if n := strings.Count(s.log.String(), "\n"); n != 1 {
		t.Errorf("%d lines:\n%s", n, s.log)
	}
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	d := DefaultConfig()
	if err := errors.Join(d.Fold.Validate(), d.Output.Validate()); err != nil {
		t.Error(err)
	}
	if got := foldConfig(d.Fold.settings(16)); got != d.Fold {
		t.Errorf("%+v", got)
	}
	for name, change := range map[string]func(*Config){
		"partitions":        func(c *Config) { c.Partitions = 0 },
		"output_partitions": func(c *Config) { c.OutputPartitions = -1 },
		"name":              func(c *Config) { c.Name = "" },
		"tcp_idle":          func(c *Config) { c.Fold.TCPIdle = 0 },
		"rollover":          func(c *Config) { c.Fold.Rollover = 1 << 62 },
		"max_sessions":      func(c *Config) { c.Fold.MaxSessions = 0 },
		"every":             func(c *Config) { c.Output.Every = -1 },
		"max_bytes":         func(c *Config) { c.Output.MaxBytes = 1 << 20 },
	} {
		c := DefaultConfig()
		change(&c)
		err := errors.Join(c.Validate(), c.Fold.Validate(), c.Output.Validate())
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
