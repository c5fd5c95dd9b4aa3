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
	got := strings.Join(migrate.DDL("tapweave", migrate.DefaultRetention()), ";\n\n") + ";\n"
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

var wantTables = strings.Fields("alerts packets pipeline_stats schema_migrations sessions sessions_versions traffic_1h traffic_1m")

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
	for range 2 {
		for _, statement := range migrate.DDL(c.Database, migrate.DefaultRetention()) {
			if err := server.Exec(t.Context(), statement); err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
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

// Without the lock, too: as when its owner was taken for dead.
func TestStatementsTwice(t *testing.T) {
	c := clickhousetest.Config(t)
	var all sync.WaitGroup
	for range 4 {
		server := clickhousetest.Open(t, c)
		all.Go(func() {
			for _, statement := range migrate.DDL(c.Database, migrate.Retention{}) {
				if err := server.Exec(t.Context(), statement); err != nil {
					t.Errorf("%.60s: %v", statement, err)
				}
			}
		})
	}
	all.Wait()
	if got := tables(t, c); !slices.Equal(got, wantTables) {
		t.Fatalf("%q, want %q", got, wantTables)
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
