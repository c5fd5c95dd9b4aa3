// Package run is Tapweave in one process: collectors, enricher and sink, an embedded Kafka broker, and ClickHouse
// as a child process. The services are those of the stand-alone programs, with other settings.
//
// Everything that is kept lies in one directory, so that a run goes on where the last one ended, however that
// ended. All servers listen on loopback; only the collectors listen where they are told to.
package run

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapweave/tapweave/collector"
	"github.com/tapweave/tapweave/deploy/standalone/servers"
	"github.com/tapweave/tapweave/enricher"
	"github.com/tapweave/tapweave/enricher/labels/source"
	"github.com/tapweave/tapweave/service/admin"
	"github.com/tapweave/tapweave/service/config"
	"github.com/tapweave/tapweave/sink"
)

// Options of a run.
type Options struct {
	// Dir holds all data. One run at a time can use it.
	Dir string
	// Listen are the UDP addresses of the collectors, one for each.
	Listen []string
	// Labels are the files that sessions are labelled by.
	Labels source.Config
	// Demo plays the bundled sample to the collectors, and prints what came out.
	Demo bool
	// Once ends the run after that.
	Once bool
	// Console is where all lines go.
	Console Console
}

// Console shows lines to whoever started the run.
type Console interface {
	Line(text string)   // a line that stays
	Status(text string) // one that the next replaces; nothing without a terminal
	Terminal() bool
}

// DefaultListen are the addresses of two collectors.
var DefaultListen = []string{"127.0.0.1:4789", "127.0.0.1:4790"}

// DefaultDir is tapweave under $XDG_DATA_HOME or ~/.local/share.
func DefaultDir() (string, error) {
	base := os.Getenv("XDG_DATA_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("no place for data: use --data, or set XDG_DATA_HOME or HOME: %w", err)
		}
		base = filepath.Join(home, ".local", "share")
	}
	return filepath.Join(base, "tapweave"), nil
}

const (
	// httpPort is where ClickHouse listens if it is free, so that the address of the SQL page stays the same.
	httpPort = 8123
	// readyTimeout is how long the services may take until they work.
	readyTimeout = 2 * time.Minute
	// versionEvery is the time between two versions of a session that goes on: with one user and one machine,
	// rows may well be newer than a minute.
	versionEvery = 5 * time.Second
)

// run is one run.
type run struct {
	Options
	began time.Time
	log   *slog.Logger
	fail  context.CancelCauseFunc // ends the run

	broker     *servers.Broker
	clickhouse *database
	collectors []*collector.Collector
	enricher   *enricher.Service
	metrics    *prometheus.Registry // of the enricher
	sink       *sink.Sink
}

// Run runs until ctx is done, something fails for good, or, with Options.Once, the demo has ended.
func Run(ctx context.Context, o Options) (err error) {
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	unlock, err := lock(o.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	log, closeLog, err := openLog(o.Dir, o.Console)
	if err != nil {
		return err
	}
	defer closeLog()
	work, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	r := &run{Options: o, began: time.Now(), log: log, fail: fail}
	err = r.run(work)
	if cause := context.Cause(work); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	if ctx.Err() != nil { // whatever failed did so because the run was to end
		return nil
	}
	return err
}

// stage tells of a stage of the start.
func (r *run) stage(format string, args ...any) {
	r.Console.Line(fmt.Sprintf("%6.1f s  ", time.Since(r.began).Seconds()) + fmt.Sprintf(format, args...))
}

func (r *run) run(ctx context.Context) (err error) {
	r.stage("data in %s", r.Dir)
	if r.broker, err = servers.StartBroker(ctx, servers.BrokerOptions{
		Dir: filepath.Join(r.Dir, "broker"),
		Log: func(text string) { r.log.Warn(text, "service", "broker") },
	}); err != nil {
		return err
	}
	defer func() {
		r.broker.Stop()
		r.stage("stopped")
	}()
	r.stage("embedded Kafka broker at %s", r.broker.Addr())
	if err := r.newCollectors(); err != nil {
		return err
	}
	if err := r.newEnricher(); err != nil {
		return err
	}

	// Collectors and enricher do not need ClickHouse, which takes longest. All are stopped in the order of the data.
	var collectors, others []*service
	defer func() {
		r.Console.Status("")
		for _, list := range [][]*service{collectors, others} {
			for _, s := range list {
				s.stop()
			}
			for _, s := range list {
				s.ended.Wait()
			}
		}
		if r.clickhouse != nil {
			r.clickhouse.stop()
		}
	}()
	for i, c := range r.collectors {
		collectors = append(collectors, r.start(ctx, collectorName(i), c.Run))
	}
	others = append(others, r.start(ctx, "enricher", r.enricher.Run))
	password := rand.Text()
	if r.clickhouse, err = r.startDatabase(ctx, password); err != nil {
		return err
	}
	r.newSink(password)
	others = append(others, r.start(ctx, "sink", r.sink.Run))
	if err := r.waitReady(ctx); err != nil {
		return err
	}
	r.stage("SQL in the browser: %s", r.clickhouse.page())
	r.stage("charts in the browser: %s", r.clickhouse.dashboard())
	if !r.Demo {
		r.stage("send captures: tapweave replay --to %s FILE", strings.Join(r.addresses(), ","))
	}

	live, stop := context.WithCancel(ctx)
	var shown sync.WaitGroup
	shown.Go(func() { r.live(live) })
	defer shown.Wait()
	defer stop()
	if r.Demo {
		if err := r.demo(ctx); err != nil || r.Once {
			return err
		}
	}
	<-ctx.Done()
	r.stage("stopping in good order; once more to kill")
	return nil
}

// service is a service that runs.
type service struct {
	stop  context.CancelFunc
	ended sync.WaitGroup
}

// start runs a service until its stop. Where it ends before that, the run does.
func (r *run) start(ctx context.Context, name string, f func(context.Context) error) *service {
	own, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &service{stop: stop}
	s.ended.Go(func() {
		if err := f(own); err != nil {
			r.fail(fmt.Errorf("%s: %w", name, err))
		} else if own.Err() == nil {
			r.fail(fmt.Errorf("%s ended", name))
		}
	})
	return s
}

// addresses are where to send packets to.
func (r *run) addresses() (list []string) {
	for _, c := range r.collectors {
		list = append(list, reachable(c.Addr()))
	}
	return list
}

func collectorName(i int) string { return fmt.Sprintf("collector-%d", i+1) }

// newCollectors makes the collectors and takes their addresses.
func (r *run) newCollectors() error {
	for i, address := range r.Listen {
		c := collector.DefaultConfig()
		c.Name, c.Listen, c.Workers = collectorName(i), address, 1
		c.DrainTime = 0 // no load balancer has to notice
		c.Kafka.Brokers, c.Admin = []string{r.broker.Addr()}, admin.Config{}
		if err := c.Validate(); err != nil {
			return fmt.Errorf("--%w", err) // the key is called as the flag is
		}
		k := collector.New(c, collector.Dependencies{Log: r.log})
		if err := k.Listen(); err != nil {
			return fmt.Errorf("%s: %w; choose other addresses with --listen", c.Name, err)
		}
		r.collectors = append(r.collectors, k)
	}
	return nil
}

func (r *run) newEnricher() (err error) {
	c := enricher.DefaultConfig()
	c.Name, c.Kafka.Brokers, c.Admin = "enricher-1", []string{r.broker.Addr()}, admin.Config{}
	c.Fold.VersionEvery = versionEvery
	c.Labels = r.Labels
	r.metrics = admin.NewRegistry()
	r.enricher, err = enricher.New(c, enricher.Dependencies{Log: r.log, Metrics: r.metrics})
	return err
}

func (r *run) newSink(password string) {
	c := sink.DefaultConfig()
	c.Name, c.Kafka.Brokers, c.Admin = "sink-1", []string{r.broker.Addr()}, admin.Config{}
	c.ClickHouse.Addresses = []string{r.clickhouse.address()}
	c.ClickHouse.Username, c.ClickHouse.Password = servers.WriterUser, config.Secret(password)
	r.sink = sink.New(c, sink.Dependencies{Log: r.log})
}

// waitReady waits until all services say that they work.
func (r *run) waitReady(ctx context.Context) error {
	type service struct {
		name  string
		ready func() (bool, string)
	}
	waiting := []service{{"sink: the tables are there", r.sink.Ready}, {"enricher: has all partitions", r.enricher.Ready}}
	for i, c := range r.collectors {
		waiting = append(waiting, service{fmt.Sprintf("%s: VXLAN at %s", collectorName(i), c.Addr()), c.Ready})
	}
	deadline := time.Now().Add(readyTimeout)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		var still []service
		why := ""
		for _, s := range waiting {
			ok, reason := s.ready()
			if ok {
				r.stage("%s", s.name)
				continue
			}
			still = append(still, s)
			name, _, _ := strings.Cut(s.name, ":")
			why = name + ": " + strings.ReplaceAll(strings.TrimSpace(reason), "\n", "; ")
		}
		if waiting = still; len(waiting) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready after %v: %s; see %s", readyTimeout, why, logFile(r.Dir))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
