// Package clickhousetest gives tests a database of their own on a real ClickHouse.
package clickhousetest

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/tapweave/tapweave/sink/clickhouse"
	"github.com/tapweave/tapweave/sink/migrate"
)

// Variable names the HTTP interface of a server, HOST:PORT, on which the user default may do everything without a
// password. Without it tests are skipped; with CI=true they fail.
const Variable = "TAPWEAVE_TEST_CLICKHOUSE"

// Config returns the configuration of an output whose database is this test's alone, with rows kept for ever.
// The database is not made, and dropped at the end.
func Config(t testing.TB) clickhouse.Config {
	t.Helper()
	address := os.Getenv(Variable)
	if address == "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not set: no ClickHouse to test with", Variable)
		}
		t.Skipf("%s is not set: no ClickHouse to test with", Variable)
	}
	c := clickhouse.DefaultConfig()
	c.Addresses = []string{address}
	c.Database = fmt.Sprintf("test_%016x", rand.Uint64())
	c.Retention = migrate.Retention{}
	t.Cleanup(func() {
		server, err := c.Open()
		if err != nil {
			t.Error(err)
			return
		}
		defer server.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := server.Exec(ctx, "DROP DATABASE IF EXISTS "+c.Database+" SYNC"); err != nil {
			t.Errorf("dropping %s: %v", c.Database, err)
		}
	})
	return c
}

// Open connects.
func Open(t testing.TB, c clickhouse.Config) *clickhouse.Server {
	t.Helper()
	server, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return server
}

// Migrated connects and makes the tables.
func Migrated(t testing.TB, c clickhouse.Config) *clickhouse.Server {
	t.Helper()
	server := Open(t, c)
	m := migrate.Migrator{Conn: server, Database: c.Database, Retention: c.Retention, Instance: "test", Log: slog.New(slog.DiscardHandler)}
	if err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return server
}

// Value returns the only value that a query has. The query names tables without their database, which is %[1]s
// in it.
func Value[T any](t testing.TB, server *clickhouse.Server, c clickhouse.Config, query string) T {
	t.Helper()
	v, err := Try[T](t.Context(), server, c, query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

// Try is Value with an error.
func Try[T any](ctx context.Context, server *clickhouse.Server, c clickhouse.Config, query string) (v T, err error) {
	err = server.QueryRow(ctx, fmt.Sprintf(query, c.Database)).Scan(&v)
	return v, err
}
