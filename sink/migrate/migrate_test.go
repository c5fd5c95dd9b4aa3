package migrate_test

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapweave/tapweave/sink/clickhouse"
	"github.com/tapweave/tapweave/sink/clickhouse/clickhousetest"
	"github.com/tapweave/tapweave/sink/migrate"
)

var update = flag.Bool("update", false, "write the golden file of the newest schema")

// The newest schema is a file, so that a change of a column is seen here, and comes with a migration.
func TestGolden(t *testing.T) {
	file := fmt.Sprintf("testdata/%04d.sql", migrate.Version())
	got := strings.Join(migrate.DDL("tapweave", "", migrate.DefaultRetention()), ";\n\n") + ";\n"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the schema is not %s any more. If that schema was released, add a migration; then run go test ./migrate -update", file)
	}
}

func migrator(t *testing.T, c clickhouse.Config) *migrate.Migrator {
	return &migrate.Migrator{
		Conn: clickhousetest.Open(t, c), Database: c.Database, Retention: migrate.DefaultRetention(),
		Instance: t.Name(), Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

func tables(t *testing.T, c clickhouse.Config) []string {
	return clickhousetest.Value[[]string](t, clickhousetest.Open(t, c), c, "SELECT arraySort(groupArray(name)) FROM system.tables WHERE database = '%[1]s'")
}

var wantTables = strings.Fields("NTANetAnalytics alerts dashboard delivery_marks dns http ipfix packets pipeline_stats schema_migrations sessions sessions_versions tls traffic_1h traffic_1m zeek_conn")

func TestFromNothing(t *testing.T) {
	c := clickhousetest.Config(t)
	m := migrator(t, c)
	if err := m.Check(t.Context()); !errors.Is(err, migrate.ErrOlder) || !strings.Contains(err.Error(), "has schema 0") {
		t.Errorf("%v", err)
	}
	for range 2 {
		if err := m.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := m.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := tables(t, c); !slices.Equal(got, wantTables) {
			t.Fatalf("%q, want %q", got, wantTables)
		}
	}
	server := clickhousetest.Open(t, c)
	if n := clickhousetest.Value[uint64](t, server, c, "SELECT count() FROM `%[1]s`.schema_migrations"); n != uint64(migrate.Version()) {
		t.Errorf("%d migrations", n)
	}
	// People read the comments.
	if got := clickhousetest.Value[string](t, server, c, "SELECT comment FROM system.columns WHERE database = '%[1]s' AND table = 'sessions' AND name = 'src_bytes'"); !strings.Contains(got, "[bytes]") {
		t.Errorf("comment of sessions.src_bytes: %q", got)
	}
}

// What -print-ddl prints makes the schema that the sink works with.
func TestByHand(t *testing.T) {
	c := clickhousetest.Config(t)
	server := clickhousetest.Open(t, c)
	for _, statement := range migrate.DDL(c.Database, "", migrate.DefaultRetention()) {
		if err := server.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	m := migrator(t, c)
	if err := m.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.Log = slog.New(slog.NewTextHandler(failing{t}, nil)) // nothing is left to do
	if err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

type failing struct{ t *testing.T }

func (f failing) Write(b []byte) (int, error) {
	f.t.Errorf("logged: %s", b)
	return len(b), nil
}

func TestTwiceAtOnce(t *testing.T) {
	for range 3 {
		c := clickhousetest.Config(t)
		var all sync.WaitGroup
		for range 6 {
			m := migrator(t, c)
			all.Go(func() {
				if err := m.Run(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if got := tables(t, c); !slices.Equal(got, wantTables) {
			t.Fatalf("%q, want %q", got, wantTables)
		}
		if n := clickhousetest.Value[uint64](t, clickhousetest.Open(t, c), c, "SELECT count() FROM `%[1]s`.schema_migrations"); n != uint64(migrate.Version()) {
			t.Errorf("migrations applied %d times", n)
		}
	}
}

// Without the lock, too: as when its owner was taken for dead. One may get in the other's way; then it tries again.
func TestWithoutLock(t *testing.T) {
	c := clickhousetest.Config(t)
	var all sync.WaitGroup
	for range 4 {
		m := migrator(t, c)
		all.Go(func() {
			err := errors.New("not tried")
			for range 5 {
				if err = m.Apply(t.Context()); err == nil {
					return
				}
				t.Log(err)
			}
			t.Error(err)
		})
	}
	all.Wait()
	if got := tables(t, c); !slices.Equal(got, wantTables) {
		t.Fatalf("%q, want %q", got, wantTables)
	}
	checkEngine(t, c)
}

// checkEngine sees that the versions of sessions are replaced by revision.
func checkEngine(t *testing.T, c clickhouse.Config) {
	t.Helper()
	engine := clickhousetest.Value[string](t, clickhousetest.Open(t, c), c, "SELECT engine_full FROM system.tables WHERE database = '%[1]s' AND name = 'sessions_versions'")
	if !strings.HasPrefix(engine, "ReplacingMergeTree(revision) ") || !strings.Contains(engine, "non_replicated_deduplication_window = 10000") {
		t.Errorf("engine of sessions_versions: %s", engine)
	}
}

// From each earlier schema, with rows in it, wherever a migration before was left: all rows are there, once.
func TestFromEarlier(t *testing.T) {
	for from := 1; from < migrate.Version(); from++ {
		schema, err := os.ReadFile(fmt.Sprintf("testdata/%04d.sql", from))
		if err != nil {
			t.Fatal(err)
		}
		for left := range migrate.Statements(from + 1) {
			if from > 1 && left > 0 {
				break // only the second migration moves rows
			}
			t.Run(fmt.Sprintf("%d after statement %d", from, left), func(t *testing.T) {
				t.Parallel()
				c := clickhousetest.Config(t)
				server := clickhousetest.Open(t, c)
				exec := func(statement string) {
					t.Helper()
					if err := server.Exec(t.Context(), statement); err != nil {
						t.Fatalf("%s: %v", statement, err)
					}
				}
				for _, s := range strings.Split(strings.ReplaceAll(string(schema), "`tapweave`", "`"+c.Database+"`"), ";\n\n") {
					exec(strings.TrimSuffix(s, ";\n"))
				}
				insert := func(created string, from, to, version, log, owner int) {
					t.Helper()
					exec(fmt.Sprintf(`INSERT INTO %s.sessions_versions (created_time, session_id, src_ip, version, log_epoch, owner_epoch)
						SELECT %s + number, lower(hex(number)), '10.0.0.4', %d, %d, %d FROM numbers(%d, %d)`, c.Database, created, version, log, owner, from, to-from))
				}
				// Recent ones, for the schema has the retention of its time.
				hour := time.Now().UTC().Truncate(24 * time.Hour)
				today := fmt.Sprintf("toDateTime64(%d, 9, 'UTC')", hour.Unix())
				yesterday := fmt.Sprintf("toDateTime64(%d, 9, 'UTC')", hour.Add(-20*time.Hour).Unix())
				insert(yesterday, 0, 100, 1, 1, 7)
				insert(yesterday, 0, 100, 5, 1, 7)
				insert(today, 100, 200, 5, 1, 7)
				for _, table := range []string{"traffic_1m (minute, sessions)", "traffic_1h (minute, sessions)"} {
					exec(fmt.Sprintf("INSERT INTO %s.%s SELECT %s, 1 FROM numbers(10)", c.Database, table, today))
				}
				exec(fmt.Sprintf("INSERT INTO %s.pipeline_stats (time, service, count) SELECT %s, 'sink', 3", c.Database, today))
				now := fmt.Sprintf("toDateTime64(%d, 9, 'UTC')", time.Now().Unix()) // packets are kept for a day
				exec(fmt.Sprintf("INSERT INTO %s.packets (time, session_id, data) SELECT %s, lower(hex(number)), 'abc' FROM numbers(7)", c.Database, now))
				exec(fmt.Sprintf("INSERT INTO %s.alerts (time, kind, session_id) SELECT %s, 'overlap', lower(hex(number)) FROM numbers(5)", c.Database, today))

				m := migrator(t, c)
				m.Retention = migrate.Retention{}
				if err := m.Begin(t.Context(), from+1, left); err != nil {
					t.Fatal(err)
				}
				if err := m.Run(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := tables(t, c); !slices.Equal(got, wantTables) {
					t.Fatalf("%q, want %q", got, wantTables)
				}
				checkEngine(t, c)
				insert(yesterday, 0, 10, 2, 1, 8) // a fold that began anew: its versions are lower
				insert(yesterday, 10, 20, 9, 1, 6)
				for query, want := range map[string]uint64{
					"SELECT count() FROM %[1]s.sessions":                                  200,
					"SELECT countIf(version = 2 AND owner_epoch = 8) FROM %[1]s.sessions": 10,
					"SELECT countIf(version = 5 AND owner_epoch = 7) FROM %[1]s.sessions": 190,
					"SELECT count() FROM %[1]s.sessions WHERE src_ip = '10.0.0.4'":        200,
					"SELECT toUInt64(sum(sessions)) FROM %[1]s.traffic_1m":                10,
					"SELECT toUInt64(sum(sessions)) FROM %[1]s.traffic_1h":                10,
					"SELECT sum(count) FROM %[1]s.pipeline_stats":                         3,
					"SELECT countIf(data = 'abc') FROM %[1]s.packets":                     7,
					"SELECT countIf(kind = 'overlap') FROM %[1]s.alerts":                  5,
					"SELECT uniqExact(toDate(created_time)) FROM %[1]s.sessions_versions": 2,
					"SELECT toUInt64(max(version)) FROM %[1]s.schema_migrations":          uint64(migrate.Version()),
				} {
					if got := clickhousetest.Value[uint64](t, server, c, query); got != want {
						t.Errorf("%s: %d, want %d", query, got, want)
					}
				}
			})
		}
	}
}

func TestStaleLock(t *testing.T) {
	c := clickhousetest.Config(t)
	server := clickhousetest.Open(t, c)
	for _, statement := range []string{"CREATE DATABASE " + c.Database, "CREATE TABLE " + c.Database + ".schema_lock (owner String) ENGINE = Memory"} {
		if err := server.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	defer migrate.SetLockStale(time.Second)()
	began := time.Now()
	if err := migrator(t, c).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("took the lock after %s", took)
	}
	if got := tables(t, c); !slices.Equal(got, wantTables) {
		t.Fatalf("%q, want %q", got, wantTables)
	}
}

func TestNewer(t *testing.T) {
	c := clickhousetest.Config(t)
	m := migrator(t, c)
	if err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Conn.Exec(t.Context(), "INSERT INTO "+c.Database+".schema_migrations (version, name) VALUES (99, 'from the future')"); err != nil {
		t.Fatal(err)
	}
	err := m.Run(t.Context())
	want := fmt.Sprintf("the schema is newer than this program: database %s has schema 99, this program knows schemas up to %d: use a newer sink", c.Database, migrate.Version())
	if !errors.Is(err, migrate.ErrNewer) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestRetention(t *testing.T) {
	c := clickhousetest.Config(t)
	m := migrator(t, c)
	ttl := func(table string) string {
		t.Helper()
		if err := m.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		query := clickhousetest.Value[string](t, clickhousetest.Open(t, c), c, "SELECT create_table_query FROM system.tables WHERE database = '%[1]s' AND name = '"+table+"'")
		_, rest, _ := strings.Cut(query, ") TTL ")
		found, _, _ := strings.Cut(rest, " SETTINGS")
		return found
	}
	if got := ttl("sessions_versions"); got != "toDateTime(created_time) + toIntervalSecond(2592000)" {
		t.Errorf("default: %q", got)
	}
	m.Retention.Sessions = 7 * 24 * time.Hour
	if got := ttl("sessions_versions"); got != "toDateTime(created_time) + toIntervalSecond(604800)" {
		t.Errorf("7 days: %q", got)
	}
	m.Retention = migrate.Retention{}
	for _, table := range wantTables {
		if got := ttl(table); got != "" {
			t.Errorf("%s, for ever: %q", table, got)
		}
	}
	if err := (migrate.Retention{Packets: 1500 * time.Millisecond}).Validate(); err == nil {
		t.Error("half seconds are valid")
	}
}
