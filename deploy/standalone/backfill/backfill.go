// Package backfill corrects what is stored of past sessions, e.g. after a mistake in the files of labels.
//
//	fold     packets of the range are folded again, with the labels of now, into a database beside (fold.go)
//	compare  what was counted has to be what is stored; the rest may differ (compare.go)
//	swap     corrected partitions take the place of those that are stored (swap.go)
//
// The packets say what a session carried in each minute, the stored session by which dimensions that was booked, and
// the session folded again by which it is to be. So traffic is corrected by the difference, to the byte, whatever
// corrections there were before; and where nothing differs, nothing is changed.
//
// The range is one of sessions' creation times: a session that begins in it is corrected as a whole, also in the minutes
// behind the range, and one that began before it is left alone.
package backfill

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/tapweave/tapweave/enricher"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/sink"
	"github.com/tapweave/tapweave/sink/clickhouse"
	"github.com/tapweave/tapweave/sink/migrate"
)

// Options say what is corrected.
type Options struct {
	// Enricher has the partitions, the labels, and the connection to Kafka.
	Enricher enricher.Config
	// Sink has the connection to ClickHouse.
	Sink sink.Config
	// Sessions that were created at From and later, before To.
	From, To time.Time
	// Swap changes what is stored. Otherwise it is only said what would be.
	Swap bool
	Log  *slog.Logger // default: slog.Default()
}

// Report says what was found.
type Report struct {
	Sessions  int64 // of the range
	Corrected int64 // sessions that differ from what was stored
	Swapped   int   // partitions of tables that were replaced
}

// suffix is what the database beside has behind the name of the one that is corrected.
const suffix = "_backfill"

// answerTimeout bounds one statement: those that compare a day of sessions take long.
const answerTimeout = time.Hour

// work is one correction.
type work struct {
	Options
	server         *clickhouse.Server
	kafka          *kafka.Client
	stored, beside string // databases
	folded         int64  // least watermark, of partitions with packets
}

// Run corrects, or says what it would. Errors say what to do. It may be called again with the same options wherever it
// was left.
func Run(ctx context.Context, o Options) (Report, error) {
	var r Report
	if o.Log == nil {
		o.Log = slog.Default()
	}
	switch {
	case !o.From.Before(o.To):
		return r, fmt.Errorf("%s is not before %s", o.From.UTC().Format(time.RFC3339), o.To.UTC().Format(time.RFC3339))
	case o.Sink.ClickHouse.Cluster != "":
		return r, errors.New("a cluster cannot be corrected: its tables are replicated, and partitions of such tables are not swapped here")
	case o.Sink.Partitions != o.Enricher.Partitions:
		return r, fmt.Errorf("the enricher's configuration has %d partitions, the sink's %d", o.Enricher.Partitions, o.Sink.Partitions)
	}
	w := &work{Options: o, stored: o.Sink.ClickHouse.Database, beside: o.Sink.ClickHouse.Database + suffix}
	var err error
	if w.server, err = o.Sink.ClickHouse.OpenWithin(answerTimeout); err != nil {
		return r, err
	}
	defer w.server.Close()
	if err := (&migrate.Migrator{Conn: w.server, Database: w.stored}).Check(ctx); err != nil {
		return r, w.server.Explain(err)
	}
	if w.kafka, err = kafka.New(o.Sink.Kafka); err != nil {
		return r, err
	}
	defer w.kafka.Close()

	if err := w.finish(ctx); err != nil {
		return r, err
	}
	if err := w.fold(ctx); err != nil {
		return r, err
	}
	if r.Sessions, r.Corrected, err = w.compare(ctx); err != nil || r.Corrected == 0 || !o.Swap {
		return r, errors.Join(err, w.drop(ctx))
	}
	if err := w.stopped(ctx); err != nil {
		return r, errors.Join(err, w.drop(ctx))
	}
	// Once more: what was stored since counts too, and now nothing is stored any more.
	if r.Sessions, r.Corrected, err = w.compare(ctx); err != nil {
		return r, errors.Join(err, w.drop(ctx))
	}
	planned, err := w.plan(ctx)
	if err != nil {
		return r, err
	}
	if r.Swapped, err = w.swap(ctx, planned); err != nil {
		return r, err
	}
	return r, w.drop(ctx)
}

// finish finishes a correction that was broken off while partitions were swapped.
func (w *work) finish(ctx context.Context) error {
	list, err := w.planned(ctx)
	if err != nil || len(list) == 0 {
		return err
	}
	if !w.Swap {
		return fmt.Errorf("database %s holds a correction that was broken off while partitions were swapped: finish it with --swap", w.beside)
	}
	if err := w.stopped(ctx); err != nil {
		return err
	}
	if _, err := w.swap(ctx, list); err != nil {
		return err
	}
	w.Log.Info("finished a correction that was broken off")
	return w.drop(ctx)
}

// stopped returns an error while sinks run: what they insert into a partition while it is swapped would be lost.
func (w *work) stopped(ctx context.Context) error {
	members, err := w.kafka.Members(ctx, clickhouse.Group)
	if err != nil {
		return err
	}
	if len(members) > 0 {
		return fmt.Errorf("stop the sinks, then do this again: %d are in group %s; Kafka keeps what comes meanwhile", len(members), clickhouse.Group)
	}
	return nil
}

func (w *work) exec(ctx context.Context, format string, args ...any) error {
	return w.server.Explain(w.server.Exec(ctx, fmt.Sprintf(format, args...)))
}

// drop removes the database beside.
func (w *work) drop(ctx context.Context) error {
	return w.exec(context.WithoutCancel(ctx), "DROP DATABASE IF EXISTS %s SYNC", ident(w.beside))
}

func (w *work) at(name string) string       { return ident(w.stored) + "." + ident(name) }
func (w *work) besideAt(name string) string { return ident(w.beside) + "." + ident(name) }

func ident(name string) string { return "`" + strings.ReplaceAll(name, "`", "\\`") + "`" }

// literal is a point in time in SQL.
func literal(t time.Time) string {
	return "toDateTime64('" + t.UTC().Format("2006-01-02 15:04:05.000000000") + "', 9, 'UTC')"
}
