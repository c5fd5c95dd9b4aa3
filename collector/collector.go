// Package collector is the collector service: it receives mirrored packets, describes them, and publishes them
// in batches to the partition of their addresses. It keeps no state that a session needs.
package collector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapweave/tapweave/collector/allow"
	"github.com/tapweave/tapweave/collector/batcher"
	"github.com/tapweave/tapweave/collector/probe"
	"github.com/tapweave/tapweave/collector/publish"
	"github.com/tapweave/tapweave/collector/scheduledevents"
	"github.com/tapweave/tapweave/collector/source/afpacket"
	"github.com/tapweave/tapweave/collector/source/udp"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/admin"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/logging"
	"github.com/tapweave/tapweave/service/stats"
)

// Source is where a worker's datagrams come from, see [udp.Socket].
type Source interface {
	Receive(wait time.Duration) (b []udp.Datagram, empty int64, err error)
	Dropped() uint64
	Close() error
}

// input is a source, and what its datagrams begin with.
type input struct {
	Source
	form  form
	guard *udp.Guard // of the sockets of an address, at the first of them
}

type form uint8

const (
	inVXLAN form = iota
	inGENEVE
	bare // a frame
)

// Dependencies of a collector.
type Dependencies struct {
	Log *slog.Logger
	// Sources, if any, are read instead of sockets, by a worker each. Their datagrams are VXLAN.
	Sources []Source
	// Reloads are requests to read the allow-lists anew, from what load returns.
	Reloads <-chan func() (Config, error)
}

// Collector is one collector. It is inert until Listen or Run.
type Collector struct {
	config   Config
	log      *slog.Logger
	limited  *logging.Limited
	registry *prometheus.Registry
	ready    *admin.Readiness
	admin    *admin.Server
	probe    *probe.Probe // nil: none
	counters *stats.Counters
	reloads  <-chan func() (Config, error)
	allowed  atomic.Pointer[allow.List]

	drain     chan struct{} // closed when it is to drain
	drainOnce sync.Once

	inputs  []input
	address string // of VXLAN
	geneve  string // of GENEVE
	opened  int64  // before the sources were, nanoseconds since the Unix epoch

	kafka     *kafka.Client
	publisher *publish.Publisher
	greeted   atomic.Int64 // partitions that have the hello
	failing   atomic.Bool  // the last call to Kafka failed
}

// Conditions of /readyz.
const (
	conditionTopics     = "topics"
	conditionPartitions = "partitions"
	conditionServing    = "serving"
)

// New returns a collector. The configuration has been validated.
func New(c Config, d Dependencies) *Collector {
	k := &Collector{
		config: c, log: d.Log.With("service", "collector", "name", c.Name), registry: admin.NewRegistry(),
		ready: admin.NewReadiness(conditionTopics, conditionPartitions), reloads: d.Reloads,
		drain: make(chan struct{}),
	}
	for _, s := range d.Sources {
		k.inputs = append(k.inputs, input{Source: s, form: inVXLAN})
	}
	k.limited = logging.NewLimited(k.log)
	k.admin = admin.New(c.Admin, k.log, k.registry, k.ready)
	k.admin.Handle("POST /drain", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k.Drain("POST /drain from " + r.RemoteAddr)
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintln(w, "draining")
	}))
	if c.Probe.Listen != "" {
		k.probe = probe.New(c.Probe.Listen, k.ready.Ready, k.log)
	}
	k.counters = stats.New("collector", k.registry)
	return k
}

// Listen takes the UDP and the admin address. Run does so where it has not been called.
func (c *Collector) Listen() error {
	if c.opened != 0 {
		return nil
	}
	opened := time.Now().UnixNano()
	if err := c.admin.Listen(); err != nil {
		return err
	}
	if c.probe != nil {
		if err := c.probe.Check(); err != nil {
			c.admin.Close()
			return err
		}
	}
	if len(c.inputs) == 0 {
		if err := c.open(); err != nil {
			c.closeInputs()
			c.admin.Close()
			return err
		}
	}
	c.opened = opened
	return nil
}

// open takes the sockets.
func (c *Collector) open() error {
	workers := c.config.Workers
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	least := math.MaxInt
	listen := func(address string, form form) (string, error) {
		sockets, err := udp.Listen(udp.Config{Address: address, Sockets: workers, ReceiveBytes: c.config.ReceiveBytes}, c.log)
		for i, s := range sockets {
			in := input{Source: s, form: form}
			if i == 0 {
				in.guard = udp.NewGuard(sockets)
			}
			c.inputs = append(c.inputs, in)
			least = min(least, s.ReceiveBytes())
		}
		if err != nil {
			return "", err
		}
		at, err := sockets[0].Addr()
		return at.String(), err
	}
	var err error
	if c.config.Listen != "" {
		if c.address, err = listen(c.config.Listen, inVXLAN); err != nil {
			return err
		}
	}
	if c.config.ListenGENEVE != "" {
		if c.geneve, err = listen(c.config.ListenGENEVE, inGENEVE); err != nil {
			return err
		}
	}
	if len(c.inputs) > 0 {
		c.gauge("receive_buffer_bytes", "Smallest receive buffer of the UDP sockets, as the kernel gave it.", least)
		c.gauge("receive_buffer_wanted_bytes", "What receive_buffer_bytes asks for.", c.config.ReceiveBytes)
	}
	if c.config.Interface != "" {
		sockets, err := afpacket.Listen(afpacket.Config{Interface: c.config.Interface, Sockets: workers, RingBytes: c.config.ReceiveBytes})
		if err != nil {
			return err
		}
		for _, s := range sockets {
			c.inputs = append(c.inputs, input{Source: s, form: bare})
		}
	}
	return nil
}

// gauge registers a metric that does not change.
func (c *Collector) gauge(name, help string, value int) {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "tapweave", Subsystem: "collector", Name: name, Help: help})
	g.Set(float64(value))
	c.registry.MustRegister(g)
}

func (c *Collector) closeInputs() {
	for _, s := range c.inputs {
		if s.guard != nil {
			s.guard.Close()
		}
		s.Close()
	}
	c.inputs = nil
}

// Addr is the UDP address that Listen has taken for VXLAN.
func (c *Collector) Addr() string { return c.address }

// AdminAddr is the address of /readyz that Listen has taken, "" if none.
func (c *Collector) AdminAddr() string { return c.admin.Addr() }

// Ready says whether the collector may be sent packets, and otherwise why not.
func (c *Collector) Ready() (bool, string) { return c.ready.Ready() }

// Counters are what the collector has counted.
func (c *Collector) Counters() *stats.Counters { return c.counters }

// Drain makes Run end as if its context was done: reason says in the log why.
func (c *Collector) Drain(reason string) {
	c.drainOnce.Do(func() {
		c.log.Info("told to drain", "by", reason)
		close(c.drain)
	})
}

// Run collects until ctx is done or Drain is called, and drains: /readyz and the probe fail, packets are still
// taken for the drain time, then what was taken is published, and a goodbye on every partition.
func (c *Collector) Run(ctx context.Context) error {
	if err := c.Listen(); err != nil {
		return err
	}
	defer func() {
		c.closeInputs()
		c.admin.Close()
	}()
	config := c.config.Kafka
	if config.ClientID == "" {
		config.ClientID = "tapweave-collector"
	}
	var err error
	if c.kafka, err = kafka.New(config); err != nil {
		return err
	}
	defer c.kafka.Close()
	allowed, err := c.config.Allow.list()
	if err != nil {
		return err
	}
	c.allow(allowed)
	decoder, err := c.config.decoder()
	if err != nil {
		return err
	}
	sampling, err := c.config.sampler()
	if err != nil {
		return err
	}
	c.publisher = publish.New(publish.Config{Partitions: c.config.Partitions, MemoryBytes: c.config.MemoryBytes},
		c.kafka, c.counters, c.acked, c.failed)

	// The service lives on after ctx is done, until it has drained.
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	defer background.Wait()
	defer end(nil)
	background.Go(func() {
		if err := c.admin.Run(life); err != nil {
			end(err)
		}
	})

	if c.probe != nil {
		background.Go(func() {
			if err := c.probe.Run(life); err != nil {
				end(err)
			}
		})
	}
	background.Go(func() { c.reload(life) })
	var events *scheduledevents.Watch
	var event atomic.Pointer[scheduledevents.Event]
	if c.config.AzureEvents.Enabled {
		events = scheduledevents.New(c.config.AzureEvents, c.log)
		background.Go(func() {
			if e, err := events.Next(life); err == nil {
				event.Store(&e)
				c.Drain(fmt.Sprintf("scheduled event %s, %s, not before %s", e.ID, e.Type, e.Before))
			}
		})
	}

	incarnation := uint64(time.Now().UnixNano())
	var flushBy atomic.Int64 // when publishing has to end, nanoseconds since the Unix epoch
	batchers := batcher.New(c.config.batcher(incarnation), len(c.inputs), c.publisher.Emit)
	batchers[0].Hello(c.opened - settle)
	topics := make(chan struct{}) // closed when they are there
	published := make(chan struct{})
	publishing, stopPublishing := context.WithCancel(life)
	defer stopPublishing()
	go func() {
		defer close(published)
		if err := c.topics(publishing); err != nil {
			if publishing.Err() == nil {
				end(err)
			}
		} else {
			close(topics)
			counts := stats.Publisher{Instance: c.config.Name, Incarnation: incarnation, Counters: c.counters, Producer: c.kafka, Log: c.log,
				Last: func() time.Duration { return time.Until(time.Unix(0, flushBy.Load())) }}
			background.Go(func() { counts.Run(life) })
		}
		c.publisher.Run(publishing)
	}()

	stop := make(chan struct{})
	var workers sync.WaitGroup
	for i, s := range c.inputs {
		w := c.newWorker(s, batchers[i], decoder, sampling, stop)
		workers.Go(func() {
			if err := w.run(life); err != nil {
				end(err)
			}
		})
	}
	c.log.Info("collecting", "listen", c.address, "listen_geneve", c.geneve, "interface", c.config.Interface, "workers", len(c.inputs), "partitions", c.config.Partitions, "admin", c.admin.Addr())

	select {
	case <-ctx.Done():
	case <-c.drain:
	case <-life.Done():
	}
	was, _ := c.ready.Ready()
	c.ready.Fail(conditionServing, "draining")
	if was && life.Err() == nil { // otherwise no load balancer sends anything
		c.log.Info("draining", "drain_time", c.config.DrainTime)
		select {
		case <-time.After(c.config.DrainTime):
		case <-life.Done():
		}
	}
	close(stop)
	workers.Wait()
	if life.Err() == nil {
		flushBy.Store(time.Now().Add(c.config.FlushTimeout).UnixNano())
		select {
		case <-topics:
			flush, cancel := context.WithTimeout(life, c.config.FlushTimeout)
			err = c.publisher.Drain(flush)
			cancel()
		default:
			err = errors.New("Kafka was never reached")
		}
	}
	stopPublishing()
	<-published
	if lost := c.counters.Counter("lost", "undelivered").Value(); err != nil && lost > 0 {
		err = fmt.Errorf("%d packets are lost: %w", lost, err)
	} else {
		err = nil
	}
	if cause := context.Cause(life); cause != nil {
		return cause
	}
	if e := event.Load(); e != nil {
		approving, cancel := context.WithTimeout(life, 5*time.Second)
		defer cancel()
		if err := events.Approve(approving, *e); err != nil {
			c.log.Warn("the scheduled event was not approved, it begins at its time", "event", e.ID, "not_before", e.Before, "error", err)
		} else {
			c.log.Info("approved the scheduled event", "event", e.ID, "type", e.Type)
		}
	}
	c.log.Info("collected", "packets", c.counters.Counter("published", "packets").Value())
	return err
}

// allow takes an allow-list. Workers refuse by it; what the kernel refuses never comes to them.
func (c *Collector) allow(l *allow.List) {
	c.allowed.Store(l)
	for _, s := range c.inputs {
		if s.guard == nil {
			continue
		}
		if err := s.guard.Allow(l.Prefixes()); err != nil {
			c.log.Info("the kernel does not refuse senders for the collector, which does so itself at a higher cost", "error", err)
		}
	}
}

// reload takes new allow-lists whenever it is asked to. A configuration that is wrong changes nothing.
func (c *Collector) reload(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case load := <-c.reloads:
			config, err := load()
			var l *allow.List
			if err == nil {
				l, err = config.Allow.list()
			}
			if err != nil {
				c.log.Error("the allow-lists were not read anew, the old ones hold", "error", err)
				continue
			}
			c.allow(l)
			c.log.Info("allow-lists read anew", "sources", len(config.Allow.Sources), "vnis", len(config.Allow.VNIs))
			if config.Allow = c.config.Allow; !reflect.DeepEqual(config, c.config) {
				c.log.Warn("other keys than allow have changed: they need a restart")
			}
		}
	}
}

// topics makes sure that the topics are there, and have as many partitions as are pinned.
func (c *Collector) topics(ctx context.Context) error {
	var have map[string]int
	err := kafka.Retry{}.Do(ctx, func() (err error) {
		have, err = c.kafka.EnsureTopics(ctx, c.config.Topics.Create,
			c.config.Topics.Topic(record.TopicPackets, c.config.Partitions),
			c.config.Topics.Topic(record.TopicStats, 1))
		if errors.Is(err, kafka.ErrPartitions) {
			return kafka.Permanent(err)
		}
		return err
	}, func(err error) {
		c.ready.Fail(conditionTopics, err.Error())
		c.failed(err)
	})
	if err != nil {
		return err
	}
	if n := have[record.TopicPackets]; n > c.config.Partitions {
		c.log.Warn("the topic has more partitions than the configuration pins; the others stay empty",
			"topic", record.TopicPackets, "partitions", n, "pinned", c.config.Partitions)
	}
	c.ready.Hold(conditionTopics)
	return nil
}

// failed hears of every failed call to Kafka.
func (c *Collector) failed(err error) {
	c.failing.Store(true)
	c.limited.Warn("kafka", "Kafka does not take packets, trying again", "error", err)
}

// acked hears of every batch that is on its partition.
func (c *Collector) acked(_ int, kind pb.PacketBatch_Kind) {
	if c.failing.CompareAndSwap(true, false) {
		c.log.Info("Kafka takes packets")
	}
	if kind == pb.PacketBatch_HELLO && c.greeted.Add(1) == int64(c.config.Partitions) {
		c.ready.Hold(conditionPartitions)
		c.log.Info("ready")
	}
}
