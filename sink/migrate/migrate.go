// Package migrate brings a ClickHouse database to the schema that this program works with.
//
// Migrations are numbered and applied in order; the table schema_migrations has a row for each. Plain
// ClickHouse has neither transactions over DDL nor locks, so two sinks that start at once are kept apart twice.
// CREATE TABLE without IF NOT EXISTS succeeds for one of them only: whoever made the table schema_lock applies
// the migrations, and drops it. And every statement of a migration may be applied again, or by two at once, so
// that nothing breaks when a lock whose owner died is taken by two.
package migrate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

var (
	// ErrNewer says that the schema was made by a newer program.
	ErrNewer = errors.New("the schema is newer than this program")
	// ErrOlder says that the schema has to be migrated, and this program may not.
	ErrOlder = errors.New("the schema is older than this program")
)

// lockStale is the age from which a lock is taken to be left over: migrations take seconds.
var lockStale = 2 * time.Minute

const (
	lockPoll = 200 * time.Millisecond

	codeTableExists     = 57
	codeUnknownTable    = 60
	codeUnknownDatabase = 81
)

// Migrator brings one database up to date.
type Migrator struct {
	Conn      driver.Conn
	Database  string
	Cluster   string // empty: one server; else Conn is one server of the cluster
	Retention Retention
	Instance  string // who applies, for schema_migrations
	Log       *slog.Logger
}

func (m *Migrator) stored() string { return Stored(m.Database, m.Cluster) }

// Applied returns the version of the newest migration that was applied; 0 if there is no schema.
func (m *Migrator) Applied(ctx context.Context) (int, error) {
	var v uint32
	err := m.Conn.QueryRow(ctx, fmt.Sprintf("SELECT max(version) FROM %s.%s", ident(m.stored()), migrations)).Scan(&v)
	if is(err, codeUnknownTable, codeUnknownDatabase) {
		return 0, nil
	}
	return int(v), err
}

// Check returns nil if the schema is the one that this program works with, else [ErrNewer] or [ErrOlder].
func (m *Migrator) Check(ctx context.Context) error {
	have, err := m.Applied(ctx)
	switch {
	case err != nil:
		return err
	case have > Version():
		return fmt.Errorf("%w: database %s has schema %d, this program knows schemas up to %d: use a newer sink", ErrNewer, m.stored(), have, Version())
	case have < Version():
		return fmt.Errorf("%w: database %s has schema %d, this program needs schema %d: run sink -migrate-only", ErrOlder, m.stored(), have, Version())
	}
	return nil
}

// Run applies what is missing, and sets the retention. Where the schema is up to date it changes nothing, takes
// no lock, and needs no right but SELECT. In a cluster it does so on the one server that it is connected to.
func (m *Migrator) Run(ctx context.Context) error {
	if err := m.tables(ctx); err != nil || m.Cluster == "" {
		return err
	}
	return m.distribute(ctx)
}

func (m *Migrator) tables(ctx context.Context) error {
	err := m.Check(ctx)
	if err == nil {
		missing, err := m.retentionDiffers(ctx)
		if err != nil || len(missing) == 0 {
			return err
		}
	} else if !errors.Is(err, ErrOlder) {
		return err
	}
	if err := m.exec(ctx, "CREATE DATABASE IF NOT EXISTS "+ident(m.stored())); err != nil {
		return err
	}
	unlock, err := m.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return m.apply(ctx)
}

func (m *Migrator) apply(ctx context.Context) error {
	if err := m.exec(ctx, migrationsTable(m.stored())); err != nil {
		return err
	}
	have, err := m.Applied(ctx)
	if err != nil {
		return err
	}
	for _, step := range all {
		if step.version <= have {
			continue
		}
		for _, s := range step.statements(m.stored()) {
			if err := m.execUnless(ctx, s); err != nil {
				return fmt.Errorf("migration %d (%s): %w", step.version, step.name, err)
			}
		}
		if err := m.exec(ctx, fmt.Sprintf("INSERT INTO %s.%s (version, name, applied_by) VALUES (%d, %s, %s)",
			ident(m.stored()), migrations, step.version, literal(step.name), literal(m.Instance))); err != nil {
			return err
		}
		m.Log.Info("migrated", "database", m.stored(), "schema", step.version, "name", step.name)
	}
	missing, err := m.retentionDiffers(ctx)
	if err != nil {
		return err
	}
	for _, t := range missing {
		if err := m.exec(ctx, t.statement(m.stored())); err != nil {
			return fmt.Errorf("retention of %s: %w", t.table, err)
		}
		m.Log.Info("retention set", "table", m.stored()+"."+t.table, "keep", t.keep)
	}
	return nil
}

var ttlClause = regexp.MustCompile(`(?s)\) TTL (toDateTime\(.*?)\s+SETTINGS `)

// retentionDiffers returns the tables whose TTL is not the one that is configured.
func (m *Migrator) retentionDiffers(ctx context.Context) ([]tableRetention, error) {
	rows, err := m.Conn.Query(ctx, "SELECT name, create_table_query FROM system.tables WHERE database = "+literal(m.stored()))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	have := map[string]string{}
	for rows.Next() {
		var name, query string
		if err := rows.Scan(&name, &query); err != nil {
			return nil, err
		}
		have[name] = ""
		if found := ttlClause.FindStringSubmatch(query); found != nil {
			have[name] = found[1]
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	var differ []tableRetention
	for _, t := range m.Retention.tables() {
		if ttl, ok := have[t.table]; ok && ttl != t.expression() {
			differ = append(differ, t)
		}
	}
	return differ, nil
}

// lock makes the lock table, waits for whoever has it, and takes it from an owner that seems to have died.
func (m *Migrator) lock(ctx context.Context) (unlock func(), err error) {
	name := ident(m.stored()) + "." + lock
	create := fmt.Sprintf("CREATE TABLE %s (owner String DEFAULT %s) ENGINE = Memory COMMENT %s", name, literal(m.Instance), literal("migrating: "+m.Instance))
	for waiting := false; ; waiting = true {
		err := m.exec(ctx, create)
		if err == nil {
			return func() {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
				defer cancel()
				if err := m.exec(ctx, "DROP TABLE IF EXISTS "+name+" SYNC"); err != nil {
					m.Log.Warn("the schema lock was not dropped; the next sink waits for it", "wait", lockStale, "error", err)
				}
			}, nil
		}
		if !is(err, codeTableExists) {
			return nil, err
		}
		if !waiting {
			m.Log.Info("another sink migrates the schema, waiting", "database", m.stored())
		}
		var age uint64
		err = m.Conn.QueryRow(ctx, fmt.Sprintf("SELECT toUInt64(max(greatest(0, now() - metadata_modification_time))) FROM system.tables WHERE database = %s AND name = %s",
			literal(m.stored()), literal(lock))).Scan(&age)
		if err != nil {
			return nil, err
		}
		if time.Duration(age)*time.Second > lockStale {
			m.Log.Warn("dropping a schema lock that was left over", "database", m.stored(), "age_seconds", age)
			if err := m.exec(ctx, "DROP TABLE IF EXISTS "+name+" SYNC"); err != nil {
				return nil, err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lockPoll):
		}
	}
}

func (m *Migrator) execUnless(ctx context.Context, s statement) error {
	if s.unless != "" {
		var done bool
		if err := m.Conn.QueryRow(ctx, "SELECT toBool(("+s.unless+"))").Scan(&done); err != nil || done {
			return err
		}
	}
	if m.Cluster != "" {
		return m.exec(ctx, replicated(m.stored(), s.sql))
	}
	return m.exec(ctx, s.sql)
}

func (m *Migrator) exec(ctx context.Context, statement string) error {
	return m.Conn.Exec(ctx, statement)
}

func is(err error, codes ...int32) bool {
	var e *clickhouse.Exception
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if e.Code == c {
			return true
		}
	}
	return false
}
