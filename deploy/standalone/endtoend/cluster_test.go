package endtoend_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapweave/tapweave/deploy/standalone/programtest"
	"github.com/tapweave/tapweave/deploy/standalone/query"
	"github.com/tapweave/tapweave/deploy/standalone/servers"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/kafka/kafkatest"
	"github.com/tapweave/tapweave/sink"
	"github.com/tapweave/tapweave/sink/clickhouse"
	"github.com/tapweave/tapweave/sink/migrate"
)

// nodes starts ClickHouse servers of one cluster, one for each shard, with macros, and a ZooKeeper where there is one.
func nodes(t *testing.T, shards int, zookeeper *servers.ZooKeeper) (list []*servers.ClickHouse) {
	t.Helper()
	dir := t.TempDir()
	tcp, all := make([]int, shards), ""
	for i := range shards {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		tcp[i] = l.Addr().(*net.TCPAddr).Port
		l.Close()
		all += fmt.Sprintf("<shard><internal_replication>true</internal_replication><replica><host>127.0.0.1</host><port>%d</port></replica></shard>", tcp[i])
	}
	settings := "<remote_servers><tapweave>" + all + "</tapweave></remote_servers>"
	if zookeeper != nil {
		settings += fmt.Sprintf("<zookeeper><node><host>127.0.0.1</host><port>%d</port></node></zookeeper>", zookeeper.Port())
	}
	for i := range shards {
		ch, err := servers.StartClickHouse(t.Context(), servers.ClickHouseOptions{
			Dir: filepath.Join(dir, fmt.Sprint("clickhouse", i+1)), TCPPort: tcp[i],
			Macros: map[string]string{"shard": fmt.Sprint(i + 1), "replica": "r1"}, Settings: settings,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ch.Kill() })
		list = append(list, ch)
	}
	return list
}

// open connects to one server.
func open(t *testing.T, address string) *clickhouse.Server {
	t.Helper()
	c := clickhouse.DefaultConfig()
	c.Addresses = []string{address}
	s, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestReplicatedTables makes the tables of a cluster with a real ZooKeeper. The ClickHouse of the tests is no server that others
// could fetch parts from, so its replicated tables stay read-only: what is put into them, and changes of them, are not tried.
func TestReplicatedTables(t *testing.T) {
	programtest.Need(t, "java")
	zookeeper, err := servers.StartZooKeeper(t.Context(), servers.ZooKeeperOptions{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer zookeeper.Kill()
	server := open(t, nodes(t, 1, zookeeper)[0].HTTPAddr())
	for _, statement := range migrate.DDL("tapweave", "tapweave", migrate.DefaultRetention()) {
		if strings.HasPrefix(statement, "CREATE ") {
			if err := server.Exec(t.Context(), statement); err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
		}
	}
	var got []string
	if err := server.QueryRow(t.Context(), `SELECT arraySort(groupArray(concat(table, ' ', replica_path))) FROM system.replicas WHERE database = 'tapweave_local'`).Scan(&got); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, table := range []string{"alerts", "delivery_marks", "packets", "pipeline_stats", "sessions_versions", "sessions_versions_next", "traffic_1h", "traffic_1m"} {
		want = append(want, table+" /clickhouse/tables/1/tapweave_local/"+table+"/replicas/r1")
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	var n uint64
	if err := server.QueryRow(t.Context(), "SELECT count() FROM tapweave.sessions").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d sessions, %v", n, err)
	}
}

var replicatedEngine = regexp.MustCompile(`ENGINE = Replicated(\w+)\('[^']*', '\{replica\}'(?:, )?`)

// unreplicated is a way to a server by which tables become ones of that server alone, see TestReplicatedTables.
func unreplicated(t *testing.T, address string) string {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: address})
	proxy.FlushInterval = -1
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("query") == "" {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			body = replicatedEngine.ReplaceAll(body, []byte("ENGINE = $1("))
			if bytes.Contains(body, []byte("CREATE TABLE")) {
				body = bytes.ReplaceAll(body, []byte(" replicated_deduplication_window"), []byte(" non_replicated_deduplication_window"))
			}
			r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// TestCluster is the sink on two shards: each partition's rows are on one of them, and tables over both answer for
// everything, whoever is asked.
func TestCluster(t *testing.T) {
	k := kafkatest.Config(t)
	var addresses []string
	for _, ch := range nodes(t, 2, nil) {
		addresses = append(addresses, unreplicated(t, ch.HTTPAddr()))
	}

	c := sink.DefaultConfig()
	c.Name, c.Kafka, c.Admin.Listen = "sink-1", k, "127.0.0.1:0"
	c.ClickHouse.Addresses, c.ClickHouse.Cluster = addresses, "tapweave"
	c.ClickHouse.Retention.Sessions = 0
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- sink.New(c, sink.Dependencies{Log: slog.New(slog.NewTextHandler(t.Output(), nil))}).Run(ctx)
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()

	client, err := kafka.New(k)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	const each = 50
	for partition := range record.DefaultOutputPartitions {
		b := columns.NewBuilder(columns.Sessions)
		s := columns.NewSession()
		for i := range each {
			s.Reset()
			s.Tenant, s.Version, s.IsFinal, s.InputPartition = "default", 1, true, uint32(partition)
			binary.BigEndian.PutUint64(s.ID[:], uint64(1000*partition+i))
			s.Created = time.Date(2026, 3, 1, 0, 0, i, 0, time.UTC).UnixNano()
			s.Start, s.End, s.SrcBytes = s.Created, s.Created, 100
			b.Append(s)
		}
		rows, err := b.Rows()
		if err != nil {
			t.Fatal(err)
		}
		value, err := record.MarshalSessions(&pb.SessionsRecord{
			InputPartition: uint32(partition), LogEpoch: 1, OwnerEpoch: 1,
			Body: &pb.SessionsRecord_Output{Output: &pb.Output{Number: 1, Rows: []*pb.Rows{rows}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) { // until the sink has made the topic
			_, err := client.ProduceRetry(t.Context(), record.TopicSessions, partition, func() ([]kafka.Record, error) {
				return []kafka.Record{{Value: value}}, nil
			}, nil)
			if err == nil {
				break
			}
			if time.Now().After(end) {
				t.Fatal(err)
			}
		}
	}
	ask := func(server int, database, sql string) string {
		t.Helper()
		one := c.ClickHouse
		one.Addresses = addresses[server : server+1]
		conn, err := one.Open()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		var out strings.Builder
		if err := (query.Database{Server: conn, Name: database}).Run(t.Context(), "csv", sql, nil, &out); err != nil {
			return err.Error()
		}
		_, answer, _ := strings.Cut(strings.TrimSpace(out.String()), "\n")
		return answer
	}
	expect := func(server int, database, sql, want string) {
		t.Helper()
		got := ""
		for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			if got = ask(server, database, sql); got == want {
				return
			}
		}
		t.Fatalf("server %d: %s: %q, want %q", server, sql, got, want)
	}
	const count = "SELECT count(), sum(src_bytes) FROM sessions"
	for server := range addresses {
		expect(server, "tapweave", count, "200,20000")
		expect(server, "tapweave_local", count, "100,10000")
		expect(server, "tapweave_local", "SELECT countIf(input_partition % 2 != getMacro('shard')::UInt32 - 1) FROM sessions", "0")
		expect(server, "tapweave", "SELECT uniqExact(uid) FROM zeek_conn", "200")
	}
}
