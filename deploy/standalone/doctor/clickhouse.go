package doctor

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/tapweave/tapweave/sink/clickhouse"
	"github.com/tapweave/tapweave/sink/migrate"
)

// Shares of a disk that are free below which something is said. Merges write a part anew before the old ones go.
const (
	diskShort = 0.20
	diskFull  = 0.10
)

// database checks ClickHouse.
func (e *exam) database(ctx context.Context) {
	c := e.Sink.ClickHouse
	if !c.Enabled {
		e.add("clickhouse", OK, "", "clickhouse.enabled is not set: not checked")
		return
	}
	server, err := c.Open()
	if err != nil {
		e.broken = true
		e.fail("clickhouse", err)
		return
	}
	defer server.Close()
	var version string
	var now time.Time
	begin := time.Now()
	if err := server.QueryRow(ctx, "SELECT version(), now64(9, 'UTC')").Scan(&version, &now); err != nil {
		e.broken = true
		e.fail("clickhouse", server.Explain(err))
		return
	}
	e.add("clickhouse", OK, "", "ClickHouse at %s answers user %q: version %s", server.Addresses(), c.Username, version)
	e.compare("ClickHouse at "+server.Addresses(), now, now, begin, time.Now())

	missing, later, err := server.Rights(ctx, c)
	for _, m := range missing {
		e.broken = true
		e.add("clickhouse", Error, "", "%s", m)
	}
	e.warn("clickhouse", later)
	if err != nil {
		e.fail("clickhouse", err)
	} else if len(missing) == 0 {
		e.add("clickhouse", OK, "", "user %q may read and write the tables", c.Username)
		e.schema(ctx, server)
	}
	e.disks(ctx, server)
}

func (e *exam) schema(ctx context.Context, server *clickhouse.Server) {
	c := e.Sink.ClickHouse
	m := &migrate.Migrator{Conn: server, Database: c.Database, Retention: c.Retention, Log: slog.New(slog.DiscardHandler)}
	switch err := m.Check(ctx); {
	case errors.Is(err, migrate.ErrNewer), errors.Is(err, migrate.ErrOlder):
		e.broken = true
		e.fail("clickhouse", err)
		return
	case err != nil:
		e.fail("clickhouse", server.Explain(err))
		return
	}
	e.add("clickhouse", OK, "", "database %s has schema %d, the one of this program", c.Database, migrate.Version())
	warnings, err := server.Windows(ctx, c, e.Sink.OutputPartitions)
	e.warn("clickhouse", warnings)
	if err != nil {
		e.fail("clickhouse", err)
	}
}

func (e *exam) disks(ctx context.Context, server *clickhouse.Server) {
	rows, err := server.Query(ctx, "SELECT name, path, free_space, total_space, keep_free_space FROM system.disks WHERE total_space > 0 AND type = 'Local' ORDER BY name")
	if err != nil {
		e.fail("clickhouse", server.Explain(err))
		return
	}
	defer rows.Close()
	for rows.Next() {
		var name, path string
		var free, total, keep uint64
		if err := rows.Scan(&name, &path, &free, &total, &keep); err != nil {
			e.fail("clickhouse", server.Explain(err))
			return
		}
		share := float64(free) / float64(total)
		const gigabyte = 1e9
		status, remedy := OK, ""
		switch {
		case share < diskFull:
			status = Error
		case share < diskShort:
			status = Warning
		}
		if status != OK {
			remedy = "add space, or keep rows for a shorter time: clickhouse.retention of the sink"
		}
		e.add("clickhouse", status, remedy, "disk %s (%s): %.1f of %.1f GB are free, %.0f %%", name, path, float64(free)/gigabyte, float64(total)/gigabyte, 100*share)
	}
	if err := rows.Err(); err != nil {
		e.fail("clickhouse", server.Explain(err))
	}
}
