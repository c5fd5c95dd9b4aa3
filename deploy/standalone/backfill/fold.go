package backfill

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"runtime"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"golang.org/x/sync/errgroup"

	"github.com/tapweave/tapweave/enricher"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/session"
	"github.com/tapweave/tapweave/sink/migrate"
)

// Tables of the database beside.
const (
	sessions = "sessions" // folded again
	bookings = "bookings" // what each of them carried in each minute
	alerts   = "alerts"   // raised again
)

// blockRows of sessions, and of bookings, are inserted at once.
const blockRows = 50_000

// fold folds the range again into the database beside.
func (w *work) fold(ctx context.Context) error {
	if err := w.drop(ctx); err != nil {
		return err
	}
	for _, sql := range []string{
		"CREATE DATABASE " + ident(w.beside),
		fmt.Sprintf("CREATE TABLE %s AS %s", w.besideAt(sessions), w.at(migrate.Versions)),
		fmt.Sprintf("CREATE TABLE %s AS %s", w.besideAt(alerts), w.at(migrate.Alerts)),
		fmt.Sprintf("CREATE TABLE %s (session_id String, minute DateTime('UTC'), %s) ENGINE = SummingMergeTree ORDER BY (session_id, minute)",
			w.besideAt(bookings), joined(sums(), "%s Int64")),
	} {
		if err := w.exec(ctx, "%s", sql); err != nil {
			return err
		}
	}
	refold, err := enricher.NewRefold(w.Enricher, enricher.Dependencies{Log: w.Log}, w.From, w.To)
	if err != nil {
		return err
	}
	defer refold.Close()
	began, least := time.Now(), int64(math.MaxInt64)
	var mu sync.Mutex
	g, all := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for p := range w.Enricher.Partitions {
		g.Go(func() error {
			in := &inserter{work: w, ctx: all, sessions: columns.NewBuilder(columns.Sessions), alerts: columns.NewBuilder(columns.Alerts)}
			watermark, err := refold.Partition(all, p, in)
			if err == nil {
				err = in.flush()
			}
			mu.Lock()
			defer mu.Unlock()
			if watermark != math.MinInt64 {
				least = min(least, watermark)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	w.Log.Info("folded again", "from", w.From.UTC(), "to", w.To.UTC(), "took", time.Since(began).Round(time.Second))
	w.folded = least
	return nil
}

// inserter takes what a partition's refold puts out into the tables beside. Whatever fails begins anew as a whole, so
// that no insert is tried twice.
type inserter struct {
	*work
	ctx      context.Context
	sessions *columns.Builder[columns.Session]
	alerts   *columns.Builder[columns.Alert]
	bookings []booking
}

type booking struct {
	id     session.ID
	minute int64
	sums   columns.TrafficSums
}

// Session implements [enricher.Refolded].
func (i *inserter) Session(row *columns.Session) error {
	i.sessions.Append(row)
	if i.sessions.Len() < blockRows && i.sessions.Size() < 64<<20 {
		return nil
	}
	return i.insertSessions()
}

// Booking implements [enricher.Refolded].
func (i *inserter) Booking(id session.ID, t *columns.Traffic) error {
	if i.bookings = append(i.bookings, booking{id, t.Minute, t.TrafficSums}); len(i.bookings) < blockRows {
		return nil
	}
	return i.insertBookings()
}

// Alert implements [enricher.Refolded].
func (i *inserter) Alert(a *columns.Alert) error {
	if i.alerts.Append(a); i.alerts.Len() < blockRows {
		return nil
	}
	return i.insertAlerts()
}

func (i *inserter) flush() error {
	for _, f := range []func() error{i.insertSessions, i.insertBookings, i.insertAlerts} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// settings lets rows of any times in, and the same rows twice: a booking may be like one before it.
var settings = clickhouse.WithSettings(clickhouse.Settings{
	"async_insert": 0, "insert_deduplicate": 0,
	"max_partitions_per_insert_block": 0, "throw_on_max_partitions_per_insert_block": 0,
})

func (i *inserter) insertSessions() error {
	return insertRows(i, i.sessions, sessions, pb.Rows_SESSIONS)
}

func (i *inserter) insertAlerts() error { return insertRows(i, i.alerts, alerts, pb.Rows_ALERTS) }

func insertRows[R any](i *inserter, b *columns.Builder[R], table string, kind pb.Rows_Kind) error {
	if b.Len() == 0 {
		return nil
	}
	stream, err := b.Stream()
	if err != nil {
		return err
	}
	return i.server.Explain(i.server.InsertFormat(clickhouse.Context(i.ctx, settings), "ArrowStream",
		fmt.Sprintf("INSERT INTO %s (%s)", i.besideAt(table), columns.Names(kind)), bytes.NewReader(stream)))
}

func (i *inserter) insertBookings() error {
	if len(i.bookings) == 0 {
		return nil
	}
	b, err := i.server.PrepareBatch(clickhouse.Context(i.ctx, settings), "INSERT INTO "+i.besideAt(bookings))
	if err != nil {
		return i.server.Explain(err)
	}
	for _, r := range i.bookings {
		if err := b.Append(r.id.String(), time.Unix(0, r.minute).UTC(), r.sums.Sessions, r.sums.SrcPackets, r.sums.DstPackets,
			r.sums.SrcBytes, r.sums.DstBytes, r.sums.SrcPayloadBytes, r.sums.DstPayloadBytes); err != nil {
			return err
		}
	}
	i.bookings = i.bookings[:0]
	return i.server.Explain(b.Send())
}
