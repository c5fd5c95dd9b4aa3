// Package clickhouse is the sink's output to ClickHouse: the sessions topic becomes rows of the tables, the
// stats topic rows of pipeline_stats.
//
// A partition of the sessions topic is read by one goroutine, put together to blocks by another, and inserted
// by a third: a block is one ArrowStream of the enricher's columns, and one ClickHouse block in each table. Package
// delivery says in which order ranges are committed and inserted, so that whatever dies nothing is lost and nothing
// stored twice.
package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"sync/atomic"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/tapweave/tapweave/proto/delivery"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/config"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/logging"
	"github.com/tapweave/tapweave/service/stats"
	"github.com/tapweave/tapweave/service/tlsclient"
	"github.com/tapweave/tapweave/sink/deadletter"
	"github.com/tapweave/tapweave/sink/intake"
	"github.com/tapweave/tapweave/sink/migrate"
)

// Group is the consumer group of this output.
const Group = "tapweave-sink-clickhouse"

// Config of the output.
type Config struct {
	Enabled      bool             `yaml:"enabled" doc:"Whether sessions, traffic, packets, alerts and counts go to ClickHouse."`
	Partitions   int              `yaml:"-"` // of tapweave.packets
	Addresses    []string         `yaml:"addresses" doc:"HTTP interfaces, HOST:PORT; the first that answers is used."`
	Database     string           `yaml:"database" doc:"Database of all tables; made if it is missing and the user may."`
	Username     string           `yaml:"username" doc:"User that may select and insert, and make tables unless migrate is false."`
	Password     config.Secret    `yaml:"password" doc:"Better by TAPWEAVE_CLICKHOUSE_PASSWORD or password_file."`
	PasswordFile string           `yaml:"password_file" doc:"File whose content is the password."`
	TLS          tlsclient.Config `yaml:"tls" doc:"Encryption (HTTPS)."`

	Cluster string `yaml:"cluster" doc:"Name of a cluster, as under remote_servers: tables are replicated, in DATABASE_local on each server, and DATABASE has tables over all shards. Then addresses names every server. Empty: one server."`

	Migrate   bool              `yaml:"migrate" doc:"Whether the sink makes and changes the tables when it starts. Otherwise they have to be up to date: sink -migrate-only."`
	Retention migrate.Retention `yaml:"retention" doc:"How long rows are kept, counted from the times that are in them: captures of years ago need 0."`

	BlockRows   int           `yaml:"block_rows" doc:"Rows of a kind at which a block is inserted. Larger blocks cost ClickHouse less merging."`
	Linger      time.Duration `yaml:"linger" doc:"Age of its first row at which a block is inserted, if it is not full before."`
	MemoryBytes int64         `yaml:"memory_bytes" doc:"Most bytes of rows that are being inserted, in all partitions together; a block has at most half of it. As much again, compressed, waits to be inserted."`
	FetchBytes  int           `yaml:"fetch_bytes" doc:"Most bytes of one fetch from a partition."`
	Packets     bool          `yaml:"packets" doc:"Whether rows of packets are stored."`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Enabled:     true,
		Partitions:  record.DefaultInputPartitions,
		Addresses:   []string{"localhost:8123"},
		Database:    "tapweave",
		Username:    "default",
		Migrate:     true,
		Retention:   migrate.DefaultRetention(),
		BlockRows:   100_000,
		Linger:      400 * time.Millisecond,
		MemoryBytes: 128 << 20,
		FetchBytes:  2 << 20,
		Packets:     true,
	}
}

// Validate says what is wrong with a configuration. Files are looked at by [Config.Open].
func (c Config) Validate() error {
	if len(c.Addresses) == 0 {
		return errors.New("addresses: none is given")
	}
	for _, a := range c.Addresses {
		if _, _, err := net.SplitHostPort(a); err != nil {
			return fmt.Errorf("addresses: %q is not HOST:PORT", a)
		}
	}
	switch {
	case c.Database == "":
		return errors.New("database: none is given")
	case c.BlockRows < 1 || c.BlockRows > 1_000_000:
		return fmt.Errorf("block_rows: %d is not between 1 and 1000000", c.BlockRows)
	case c.Linger < 0 || c.Linger > time.Minute:
		return fmt.Errorf("linger: %s is not between 0 and 1m", c.Linger)
	case c.MemoryBytes < 1<<20 || c.MemoryBytes > 1<<30:
		return fmt.Errorf("memory_bytes: %d is not between 1 MiB and 1 GiB", c.MemoryBytes)
	case c.FetchBytes < 1<<10 || c.FetchBytes > 64<<20:
		return fmt.Errorf("fetch_bytes: %d is not between 1 KiB and 64 MiB", c.FetchBytes)
	}
	return nil
}

// Output writes to one database.
type Output struct {
	config  Config
	shards  []*Server // of one server, itself
	inputs  int       // input partitions that may share an output partition
	stop    context.CancelCauseFunc
	kafka   *kafka.Client
	letters *deadletter.Writer
	log     *slog.Logger
	limited *logging.Limited
	metrics *metrics
	budget  *semaphore.Weighted
	spares  *spares
	// awaySince is when inserts began to fail, nanoseconds since the Unix epoch; 0 while they succeed.
	awaySince atomic.Int64
	crash     func(delivery.Do) error // of tests
	// Away is told when ClickHouse stops answering, with the reason, and nil when it answers again. May be nil.
	Away func(error)
}

// New returns an output that does nothing yet. shards are those of [Config.Shards].
func New(c Config, shards []*Server, k *kafka.Client, letters *deadletter.Writer, counters *stats.Counters, registry prometheus.Registerer, log *slog.Logger) *Output {
	return &Output{
		config: c, shards: shards, kafka: k, letters: letters,
		inputs: min(c.Partitions, delivery.Capacity(tableNames)),
		log:    log, limited: logging.NewLimited(log),
		metrics: newMetrics(counters, registry),
		budget:  semaphore.NewWeighted(c.MemoryBytes),
		spares:  newSpares(c.MemoryBytes),
	}
}

// Run reads and inserts until ctx is done. What was inserted by then is committed.
func (o *Output) Run(ctx context.Context) error {
	ctx, o.stop = context.WithCancelCause(ctx)
	defer o.stop(nil)
	group := o.kafka.Group(kafka.GroupConfig{ID: Group, Failed: func(err error) {
		o.limited.Warn("group", "consumer group, trying again", "error", err)
	}})
	if err := group.Run(ctx, []string{record.TopicSessions, record.TopicStats}, o.generation); err != nil {
		return err
	}
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// generation works on the partitions of one generation, until they are taken away or one fails.
func (o *Output) generation(ctx context.Context, gen *kafka.Generation) {
	o.log.Info("partitions assigned", "output", "clickhouse", "generation", gen.ID, "partitions", names(gen.Assignments))
	g, all := errgroup.WithContext(ctx)
	sessions := 0
	for _, a := range gen.Assignments {
		if a.Topic == record.TopicSessions {
			sessions++
		}
	}
	for _, a := range gen.Assignments {
		in := &intake.Partition{
			Log: o.kafka, Assignment: a, MaxBytes: o.config.FetchBytes, Logger: o.log,
			Lost: func(n uint64) { o.metrics.lost.Add(n) },
		}
		switch a.Topic {
		case record.TopicSessions:
			p := &partition{Output: o, server: o.shards[a.Partition%len(o.shards)], gen: gen, assignment: a, in: in, limits: o.config.limits(sessions)}
			g.Go(func() error { return p.run(all) })
		case record.TopicStats:
			s := &statsPartition{Output: o, server: o.shards[a.Partition%len(o.shards)], gen: gen, assignment: a, in: in}
			g.Go(func() error { return s.run(all) })
		}
	}
	switch err := g.Wait(); {
	case err == nil, ctx.Err() != nil && !errors.Is(err, kafka.ErrFenced):
	case errors.Is(err, kafka.ErrFenced):
		o.log.Info("partitions are another's now", "output", "clickhouse", "error", err)
	default:
		o.limited.Error("generation", "output failed, joining the group anew", "output", "clickhouse", "error", err)
	}
}

func names(list []kafka.Assignment) []string {
	s := make([]string, len(list))
	for i, a := range list {
		s[i] = fmt.Sprintf("%s/%d@%d", a.Topic, a.Partition, a.Offset)
	}
	return s
}

// limits are those of a block where a sink has some partitions: in each one block waits and one is inserted.
func (c Config) limits(partitions int) limits {
	return limits{rows: c.BlockRows, raw: c.MemoryBytes / 2, compressed: c.MemoryBytes / int64(2*partitions)}
}

// unlimited is for a range that was in flight: it was within the limits when it was chosen.
var unlimited = limits{rows: math.MaxInt, raw: math.MaxInt64, compressed: math.MaxInt64}

// grace is for how long an insert and its commit go on when the partitions are taken away or the sink stops.
const grace = 10 * time.Second

// lingering returns a context that ends some time after ctx.
func lingering(ctx context.Context) (context.Context, context.CancelFunc) {
	long, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	return long, func() { stop(); cancel() }
}

// target is a table and the kind of rows that goes into it.
type target struct {
	kind  pb.Rows_Kind
	table string
}

var targets = []target{
	{pb.Rows_SESSIONS, migrate.Versions},
	{pb.Rows_TRAFFIC, migrate.TrafficMinute},
	{pb.Rows_TRAFFIC, migrate.TrafficHour},
	{pb.Rows_PACKETS, migrate.Packets},
	{pb.Rows_ALERTS, migrate.Alerts},
}

// tableNames are the tables in the order of delivery: the marks last, for they speak of the others.
var tableNames = func() (names []string) {
	for _, t := range targets {
		names = append(names, t.table)
	}
	return append(names, migrate.Marks)
}()

// targetOf returns the target of a table, or says that it is the one of the marks.
func targetOf(table string) (t target, isMark bool) {
	for _, t := range targets {
		if t.table == table {
			return t, false
		}
	}
	return target{}, true
}

// kindOf returns the kind of rows that a table has.
func kindOf(table string) pb.Rows_Kind {
	t, _ := targetOf(table)
	return t.kind
}

// settings makes an insert one block, and an insert that is tried again no second one.
func settings(token string) clickhouse.Settings {
	return clickhouse.Settings{
		"async_insert":                             0,
		"insert_deduplicate":                       1,
		"insert_deduplication_token":               token,
		"max_insert_threads":                       1,
		"max_insert_block_size":                    10_000_000,
		"min_insert_block_size_rows":               10_000_000,
		"min_insert_block_size_bytes":              0,
		"max_partitions_per_insert_block":          0, // captures may hold any times
		"input_format_parallel_parsing":            0,
		"throw_on_max_partitions_per_insert_block": 0,
	}
}

// keepTrying calls try until it succeeds, ctx is done, or it returns a permanent error, and says so once when
// ClickHouse goes away and once when it is back.
func (o *Output) keepTrying(ctx context.Context, server *Server, try func() error) error {
	err := kafka.Retry{}.Do(ctx, func() error { return server.Explain(try()) }, func(err error) {
		o.metrics.retries.Inc()
		o.awaySince.CompareAndSwap(0, time.Now().UnixNano())
		o.limited.Error("insert", "ClickHouse does not take rows, trying again until it does; Kafka keeps what comes", "error", err)
		if o.Away != nil {
			o.Away(err)
		}
	})
	if err != nil {
		return err
	}
	if since := o.awaySince.Swap(0); since != 0 {
		o.limited.Reset("insert")
		o.log.Info("ClickHouse takes rows again", "after", time.Since(time.Unix(0, since)).Round(time.Millisecond))
		if o.Away != nil {
			o.Away(nil)
		}
	}
	return nil
}
