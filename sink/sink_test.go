package sink_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/config"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/kafka/kafkatest"
	"github.com/tapweave/tapweave/sink"
	"github.com/tapweave/tapweave/sink/clickhouse/clickhousetest"
	"github.com/tapweave/tapweave/sink/migrate"
)

func testConfig(t *testing.T) sink.Config {
	c := sink.DefaultConfig()
	c.Name = "sink-under-test"
	c.Kafka = kafkatest.Config(t)
	c.ClickHouse = clickhousetest.Config(t)
	c.Admin.Listen = "127.0.0.1:0"
	c.OutputPartitions, c.SIEM.Partitions = 2, 2
	return c
}

func get(t *testing.T, address, path string) (int, string) {
	response, err := http.Get("http://" + address + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(b)
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("not in time: %s", what)
}

// From nothing: topics, tables, a session in ClickHouse and as a document, its own counts, a clean end.
func TestRun(t *testing.T) {
	c := testConfig(t)
	s := sink.New(c, sink.Dependencies{Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	if ok, why := s.Ready(); ok || !strings.Contains(why, "clickhouse: starting") {
		t.Errorf("ready before it runs: %v, %q", ok, why)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	eventually(t, "ready", func() bool { ok, _ := s.Ready(); return ok })
	if status, body := get(t, s.AdminAddr(), "/readyz"); status != 200 {
		t.Errorf("/readyz: %d %s", status, body)
	}

	client, err := kafka.New(c.Kafka)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	row := columns.NewSession()
	row.ID[0], row.Version, row.IsFinal, row.IPProtocol = 7, 2, true, packet.ProtoTCP
	row.Start = time.Date(2009, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	row.End, row.Created = row.Start, row.Start
	b := columns.NewBuilder(columns.Sessions)
	b.Append(row)
	rows, err := b.Rows()
	if err != nil {
		t.Fatal(err)
	}
	value, err := record.MarshalSessions(&pb.SessionsRecord{InputPartition: 1, LogEpoch: 1, OwnerEpoch: 1, Body: &pb.SessionsRecord_Output{Output: &pb.Output{Number: 1, Rows: []*pb.Rows{rows}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.ProduceRetry(ctx, record.TopicSessions, 1, func() ([]kafka.Record, error) { return []kafka.Record{{Value: value}}, nil }, nil); err != nil {
		t.Fatal(err)
	}
	server := clickhousetest.Open(t, c.ClickHouse)
	count := func(query string) uint64 { return clickhousetest.Value[uint64](t, server, c.ClickHouse, query) }
	eventually(t, "the session", func() bool { return count("SELECT count() FROM %[1]s.sessions WHERE version = 2") == 1 })
	eventually(t, "the sink's own counts", func() bool {
		return count("SELECT max(count) FROM %[1]s.pipeline_stats WHERE service = 'sink' AND instance = 'sink-under-test' AND stage = 'rows' AND reason = 'sessions_versions'") == 1
	})
	eventually(t, "the document", func() bool {
		for p := range 2 {
			f, err := client.Fetch(ctx, record.TopicSIEMECS, p, 0, 1<<20, 10*time.Millisecond)
			if err == nil && len(f.Records) == 1 && bytes.Contains(f.Records[0].Value, []byte(`"id":"07000000000000000000000000000000:2"`)) {
				return true
			}
		}
		return false
	})
	if _, metrics := get(t, s.AdminAddr(), "/metrics"); !strings.Contains(metrics, `tapweave_sink_rows_total{reason="sessions_versions"} 1`) ||
		!strings.Contains(metrics, "tapweave_sink_clickhouse_insert_seconds_count") {
		t.Errorf("metrics:\n%.2000s", metrics)
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("does not end")
	}
}

// run runs a sink that is to end by itself, and returns why.
func run(t *testing.T, c sink.Config) error {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := sink.New(c, sink.Dependencies{Log: slog.New(slog.NewTextHandler(t.Output(), nil))}).Run(ctx)
	if err == nil {
		t.Fatal("no error")
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
	return err
}

func TestWrongPassword(t *testing.T) {
	c := testConfig(t)
	c.ClickHouse.Username, c.ClickHouse.Password = "nobody", "x"
	want := fmt.Sprintf("ClickHouse at %s refused user %q: wrong name or password; check clickhouse.username and password", c.ClickHouse.Addresses[0], "nobody")
	if err := run(t, c); err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
}

func TestMissingRight(t *testing.T) {
	c := testConfig(t)
	c.ClickHouse.Username, c.ClickHouse.Password = "reader", ""
	want := fmt.Sprintf("ClickHouse at %s does not allow user %q that: ", c.ClickHouse.Addresses[0], "reader")
	if err := run(t, c); !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%v\nwant %s", err, want)
	}
}

func TestNotMigrated(t *testing.T) {
	c := testConfig(t)
	c.ClickHouse.Migrate = false
	if err := run(t, c); !strings.Contains(err.Error(), fmt.Sprintf("has schema 0, this program needs schema %d: run sink -migrate-only", migrate.Version())) {
		t.Error(err)
	}
	if err := sink.MigrateOnly(t.Context(), c, slog.New(slog.NewTextHandler(t.Output(), nil))); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := sink.New(c, sink.Dependencies{Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	eventually(t, "ready", func() bool { ok, _ := s.Ready(); return ok })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestWarnings(t *testing.T) {
	c := testConfig(t)
	c.Topics.Retention = time.Hour
	if err := sink.MigrateOnly(t.Context(), c, slog.New(slog.NewTextHandler(t.Output(), nil))); err != nil {
		t.Fatal(err)
	}
	client, err := kafka.New(c.Kafka)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.EnsureTopics(t.Context(), true, c.Topics.Topic(record.TopicSessions, 2)); err != nil {
		t.Fatal(err)
	}
	server := clickhousetest.Open(t, c.ClickHouse)
	if err := server.Exec(t.Context(), "ALTER TABLE "+c.ClickHouse.Database+".traffic_1m MODIFY SETTING non_replicated_deduplication_window = 100"); err != nil {
		t.Fatal(err)
	}
	topic, table := c.Kafka.TopicPrefix+record.TopicSessions, c.ClickHouse.Database+".traffic_1m"
	want := []string{
		"topic " + topic + " has 1 replica: what a broker acknowledged is gone with its disk; 3 are usual",
		"topic " + topic + " keeps its records for 1h0m0s: what is not read by then is lost; keep them for 12h0m0s or more",
		"table " + table + " remembers 100 blocks, those of 20s: what a sink sends again after a longer pause is stored twice; ALTER TABLE " + table + " MODIFY SETTING non_replicated_deduplication_window = 3002",
	}
	if got := sink.Warnings(t.Context(), c); !slices.Equal(got, want) {
		t.Errorf("%s\nwant %s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	c.Kafka.Brokers, c.ClickHouse.Addresses = []string{"127.0.0.1:1"}, []string{"127.0.0.1:1"}
	if got := sink.Warnings(t.Context(), c); len(got) != 2 || !strings.Contains(got[0], "not checked: Kafka at 127.0.0.1:1") || !strings.Contains(got[1], "not checked: ClickHouse at 127.0.0.1:1") {
		t.Errorf("nobody there: %q", got)
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := sink.DefaultConfig()
	c.Admin.Listen = l.Addr().String()
	if err := run(t, c); !strings.Contains(err.Error(), "is in use by another program") {
		t.Error(err)
	}
}

// Nobody at the address: the sink waits, says why, and ends when it is told to.
func TestNobodyThere(t *testing.T) {
	c := testConfig(t)
	c.ClickHouse.Addresses = []string{"127.0.0.1:1"}
	ctx, cancel := context.WithCancel(t.Context())
	s := sink.New(c, sink.Dependencies{Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	eventually(t, "the reason", func() bool {
		_, why := s.Ready()
		return strings.Contains(why, "clickhouse: ClickHouse at 127.0.0.1:1 cannot be reached: connection refused")
	})
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("does not end")
	}
}

func TestConfig(t *testing.T) {
	load := func(text string) (sink.Config, error) {
		name := filepath.Join(t.TempDir(), "sink.yaml")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return config.Load(name, sink.DefaultConfig())
	}
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := load("clickhouse:\n  addresses: [ch-1:8443, ch-2:8443]\n  password_file: " + secret + "\n  retention: {sessions: 0s}\n  tls: {enabled: true}\n")
	if err != nil {
		t.Fatal(err)
	}
	if c.ClickHouse.Password.Reveal() != "hunter2" || c.ClickHouse.Retention.Sessions != 0 || c.ClickHouse.Retention.Packets != 24*time.Hour || len(c.ClickHouse.Addresses) != 2 {
		t.Errorf("%+v", c.ClickHouse)
	}
	var dump bytes.Buffer
	if err := config.Dump(&dump, c, sink.DefaultConfig()); err != nil || strings.Contains(dump.String(), "hunter2") {
		t.Errorf("%v\n%s", err, &dump)
	}
	for text, want := range map[string]string{
		"clickhouse: {adresses: []}":                       `unknown key "adresses"`,
		"clickhouse: {addresses: [nowhere]}":               `addresses: "nowhere" is not HOST:PORT`,
		"clickhouse: {block_rows: 0}":                      "block_rows: 0 is not between",
		"clickhouse: {retention: {packets: 1500ms}}":       "not a number of whole seconds",
		"clickhouse: {enabled: false}\nsiem: {ecs: false}": "nothing to do",
		"clickhouse: {tls: {ca_file: x}}":                  "enabled is false",
		"siem: {partitions: 0}":                            "partitions: 0 is less than 1",
	} {
		if _, err := load(text); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	c = sink.DefaultConfig()
	c.ClickHouse.TLS.Enabled, c.ClickHouse.TLS.CAFile = true, "/nowhere.pem"
	if err := sink.Check(c); err == nil || !strings.Contains(err.Error(), "clickhouse.tls: ca_file: open /nowhere.pem") {
		t.Error(err)
	}
	var ddl bytes.Buffer
	if err := sink.PrintDDL(&ddl, sink.DefaultConfig()); err != nil || !strings.HasPrefix(ddl.String(), "CREATE DATABASE IF NOT EXISTS `tapweave`;\n") {
		t.Errorf("%v: %.100s", err, &ddl)
	}
}
