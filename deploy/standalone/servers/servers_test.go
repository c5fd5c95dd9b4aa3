package servers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/tapweave/tapweave/deploy/clickhouse"
	"github.com/tapweave/tapweave/deploy/standalone/programtest"
)

// parentMode, as the first argument, makes the test program a parent that starts a server and waits to be killed.
const parentMode = "parent"

func TestMain(m *testing.M) {
	MaybeChild()
	if len(os.Args) == 4 && os.Args[1] == parentMode {
		beParent(os.Args[2], os.Args[3])
	}
	os.Exit(m.Run())
}

// beParent starts a server in dir, prints its address and process id, and does nothing more.
func beParent(server, dir string) {
	ctx := context.Background()
	switch server {
	case "clickhouse":
		c, err := StartClickHouse(ctx, ClickHouseOptions{Dir: dir})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(c.HTTPAddr(), c.PID())
	case "broker":
		b, err := StartBroker(ctx, BrokerOptions{Dir: dir, Topics: []Topic{{Name: "t", Partitions: 2}}})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(b.Addr(), os.Getpid())
	}
	select {}
}

// startParent runs this test program as a parent of the server, and returns it with what it printed.
func startParent(t *testing.T, server, dir string) (parent *exec.Cmd, addr string, pid int) {
	t.Helper()
	parent = exec.Command(os.Args[0], parentMode, server, dir)
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { parent.Process.Kill(); parent.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(line, &addr, &pid); err != nil {
		t.Fatal(err)
	}
	return parent, addr, pid
}

func needClickHouse(t *testing.T) {
	t.Helper()
	for _, name := range []string{"clickhouse", "clickhouse-server"} {
		if _, err := exec.LookPath(name); err == nil {
			return
		}
	}
	programtest.Need(t, "npm")
}

func tell(t *testing.T) func(Progress) { return PrintProgress(t.Output(), "") }

func startClickHouse(t *testing.T, o ClickHouseOptions) *ClickHouse {
	t.Helper()
	o.Progress = tell(t)
	c, err := StartClickHouse(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Kill() })
	return c
}

// ask returns the answer to a query, which must succeed.
func ask(t *testing.T, c *ClickHouse, user, password, query string) string {
	t.Helper()
	answer, err := c.query(t.Context(), user, password, query)
	if err != nil {
		t.Fatalf("%s as %s: %v", query, user, err)
	}
	return answer
}

func TestClickHouseKeepsWhatItAcknowledgedOverKill(t *testing.T) {
	needClickHouse(t)
	dir := t.TempDir()
	c := startClickHouse(t, ClickHouseOptions{Dir: dir})
	ask(t, c, "default", "", "CREATE DATABASE d")
	ask(t, c, "default", "", "CREATE TABLE d.t (n UInt64) ORDER BY n")
	ask(t, c, "default", "", "INSERT INTO d.t SELECT number FROM numbers(100000)")
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	if c.Wait() == nil {
		t.Error("a killed server ended without an error")
	}
	c = startClickHouse(t, ClickHouseOptions{Dir: dir})
	if got := ask(t, c, "default", "", "SELECT sum(n) FROM d.t"); got != "4999950000" {
		t.Errorf("after the restart the sum is %s", got)
	}
	response, err := http.Get("http://" + c.HTTPAddr() + "/play")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if page, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusOK || !strings.Contains(string(page), "<html") {
		t.Errorf("/play: %s, %d bytes", response.Status, len(page))
	}
	if conn, err := net.Dial("tcp", c.TCPAddr()); err != nil {
		t.Error(err)
	} else {
		conn.Close()
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.Done():
	default:
		t.Error("not done after Stop")
	}
}

func TestClickHouseReadersOnlyRead(t *testing.T) {
	needClickHouse(t)
	const password = "<&'\">"
	c := startClickHouse(t, ClickHouseOptions{Dir: t.TempDir(), WriterPassword: password})
	ask(t, c, WriterUser, password, "CREATE DATABASE tapweave")
	ask(t, c, WriterUser, password, "CREATE TABLE tapweave.t (n UInt64) ORDER BY n")
	for _, query := range []string{"CREATE TABLE default.t (n UInt64) ORDER BY n", "CREATE DATABASE x", "CREATE USER x", "SELECT * FROM file('/etc/passwd', 'LineAsString')"} {
		if _, err := c.query(t.Context(), WriterUser, password, query); err == nil || !strings.Contains(err.Error(), "DENIED") {
			t.Errorf("%s as %s: %v", query, WriterUser, err)
		}
	}
	ask(t, c, WriterUser, password, "INSERT INTO tapweave.t VALUES (1)")
	if _, err := c.query(t.Context(), WriterUser, "", "SELECT 1"); err == nil {
		t.Error("the writer came in without a password")
	}
	for _, setting := range []string{"max_memory_usage = 0", "max_memory_usage = 100000000000", "max_execution_time = 0", "readonly = 0"} {
		if _, err := c.query(t.Context(), ReaderUser, "", "SELECT 1 SETTINGS "+setting); err == nil || !strings.Contains(err.Error(), "SETTING_CONSTRAINT_VIOLATION") && !strings.Contains(err.Error(), "READONLY") {
			t.Errorf("%s as %s: %v", setting, ReaderUser, err)
		}
	}
	if got := ask(t, c, ReaderUser, "", "SELECT getSetting('max_memory_usage'), getSetting('max_execution_time')"); got != "4294967296\t60" {
		t.Errorf("limits of %s: %s", ReaderUser, got)
	}
	// What makes users is not to be had in this server: its rights are those above, its grammar is read at least.
	for _, statement := range strings.SplitAfter(clickhouse.Privileges, ";\n") {
		if statement = strings.TrimSuffix(strings.TrimSpace(statement), ";"); statement != "" {
			ask(t, c, ReaderUser, "", "SELECT formatQuery('"+strings.ReplaceAll(statement, "'", "\\'")+"')")
		}
	}
	for _, user := range []string{"default", ReaderUser} {
		if got := ask(t, c, user, "", "SELECT n FROM tapweave.t"); got != "1" {
			t.Errorf("%s reads %q", user, got)
		}
		ask(t, c, user, "", "SHOW TABLES FROM tapweave")
		for _, query := range []string{
			"INSERT INTO tapweave.t VALUES (2)", "DROP TABLE tapweave.t", "TRUNCATE TABLE tapweave.t", "CREATE DATABASE x",
			"SELECT * FROM file('/etc/passwd', 'LineAsString')", "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
		} {
			_, err := c.query(t.Context(), user, "", query)
			if err == nil || !strings.Contains(err.Error(), "DENIED") && !strings.Contains(err.Error(), "READONLY") {
				t.Errorf("%s as %s: %v", query, user, err)
			}
		}
	}
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
}

func TestClickHouseRefusesInOneLine(t *testing.T) {
	needClickHouse(t)
	dir := t.TempDir()
	c := startClickHouse(t, ClickHouseOptions{Dir: dir})
	_, port, _ := net.SplitHostPort(c.HTTPAddr())
	taken, _ := strconv.Atoi(port)
	for name, test := range map[string]struct {
		options ClickHouseOptions
		want    string
	}{
		"directory in use":    {ClickHouseOptions{Dir: dir}, "another server uses this directory"},
		"port in use":         {ClickHouseOptions{Dir: t.TempDir(), HTTPPort: taken}, "address already in use"},
		"open to the network": {ClickHouseOptions{Dir: t.TempDir(), Host: "0.0.0.0"}, "needs a password"},
		"a file for Dir":      {ClickHouseOptions{Dir: c.LogFile()}, "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			started, err := StartClickHouse(t.Context(), test.options)
			if err == nil {
				started.Kill()
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %q, want one line with %q", err, test.want)
			}
		})
	}
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
}

func TestClickHouseDiesWithItsParent(t *testing.T) {
	needClickHouse(t)
	dir := t.TempDir()
	parent, addr, pid := startParent(t, "clickhouse", dir)
	parent.Process.Kill()
	parent.Wait()
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err != nil && syscall.Kill(pid, 0) != nil {
			break
		}
		if err == nil {
			conn.Close()
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal("the server outlived its parent")
		}
	}
	startClickHouse(t, ClickHouseOptions{Dir: dir}).Stop()
}

// connect returns a client with connections of its own: those of a former broker at the same address are dead.
func connect(t *testing.T, addr string) *kafka.Client {
	transport := &kafka.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &kafka.Client{Addr: kafka.TCP(addr), Timeout: 20 * time.Second, Transport: transport}
}

// produce writes count records to partition 0 of a topic.
func produce(t *testing.T, addr, topic string, count int) {
	t.Helper()
	client := connect(t, addr)
	var records []kafka.Record
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		records = records[:0]
		for i := range count {
			records = append(records, kafka.Record{Value: kafka.NewBytes(fmt.Appendf(nil, "record %d", i))})
		}
		answer, err := client.Produce(t.Context(), &kafka.ProduceRequest{
			Topic: topic, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(records...),
		})
		if err == nil {
			err = answer.Error
		}
		if err == nil {
			return
		}
		if !errors.Is(err, kafka.NotLeaderForPartition) && !errors.Is(err, kafka.UnknownTopicOrPartition) || time.Since(start) > 10*time.Second {
			t.Fatal(err) // the two are passing ones of a new topic
		}
	}
}

// fetchAll returns the values in partition 0 of a topic.
func fetchAll(t *testing.T, addr, topic string) []string {
	t.Helper()
	client := connect(t, addr)
	var values []string
	for {
		answer, err := client.Fetch(t.Context(), &kafka.FetchRequest{
			Topic: topic, Offset: int64(len(values)), MinBytes: 1, MaxBytes: 1 << 20, MaxWait: time.Second,
		})
		if err == nil {
			err = answer.Error
		}
		if err != nil {
			t.Fatal(err)
		}
		for {
			record, err := answer.Records.ReadRecord()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if record.Offset < int64(len(values)) {
				continue
			}
			value, err := kafka.ReadAll(record.Value)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, string(value))
		}
		if int64(len(values)) >= answer.HighWatermark {
			return values
		}
	}
}

func checkRecords(t *testing.T, addr, topic string, want int) {
	t.Helper()
	t.Helper()
	values := fetchAll(t, addr, topic)
	if len(values) != want || values[0] != "record 0" || values[want-1] != fmt.Sprintf("record %d", want-1) {
		t.Errorf("got %d records, want %d", len(values), want)
	}
}

func TestKafkaKeepsWhatItAcknowledgedOverKill(t *testing.T) {
	programtest.Need(t, "java", "mvn")
	o := KafkaOptions{Dir: t.TempDir(), Progress: tell(t)}
	k, err := StartKafka(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Kill() })
	client := connect(t, k.Addr())
	made, err := client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: "t", NumPartitions: 2, ReplicationFactor: 1}}})
	if err == nil {
		err = made.Errors["t"]
	}
	if err != nil {
		t.Fatal(err)
	}
	produce(t, k.Addr(), "t", 1000)
	if err := k.Kill(); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(k.Addr())
	o.Port, _ = strconv.Atoi(port)
	addr := k.Addr()
	if k, err = StartKafka(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if k.Addr() != addr {
		t.Errorf("restarted on %s, not on %s", k.Addr(), addr)
	}
	checkRecords(t, k.Addr(), "t", 1000)

	if err := k.Pause(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if k.coordinates(ctx) {
		t.Error("a paused broker answered")
	}
	if err := k.Continue(); err != nil {
		t.Fatal(err)
	}
	checkRecords(t, k.Addr(), "t", 1000)
	if err := k.Stop(); err != nil {
		t.Error(err)
	}
}

func TestBrokerKeepsWhatItAcknowledged(t *testing.T) {
	dir := t.TempDir()
	parent, addr, _ := startParent(t, "broker", dir)
	produce(t, addr, "t", 1000)
	parent.Process.Kill()
	parent.Wait()

	o := BrokerOptions{Dir: dir, Addr: addr, Topics: []Topic{{Name: "t", Partitions: 2}, {Name: "u", Partitions: 3, Retention: time.Hour}}}
	b, err := StartBroker(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Stop)
	checkRecords(t, b.Addr(), "t", 1000)
	produce(t, b.Addr(), "u", 10)
	b.Stop()
	if b, err = StartBroker(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Stop)
	checkRecords(t, b.Addr(), "t", 1000)
	checkRecords(t, b.Addr(), "u", 10)
	client := connect(t, b.Addr())
	about, err := client.Metadata(t.Context(), &kafka.MetadataRequest{Topics: []string{"t", "u"}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{2, 3} {
		if got := len(about.Topics[i].Partitions); got != want {
			t.Errorf("topic %s has %d partitions, want %d", about.Topics[i].Name, got, want)
		}
	}
}

func TestBrokerRemovesExpiredSegments(t *testing.T) {
	dir := t.TempDir()
	b, err := StartBroker(t.Context(), BrokerOptions{Dir: dir, Topics: []Topic{{Name: "t", Partitions: 1, RetentionBytes: 1}, {Name: "kept", Partitions: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Stop)
	client := connect(t, b.Addr())
	send := func(topic string, size int) error {
		answer, err := client.Produce(t.Context(), &kafka.ProduceRequest{
			Topic: topic, RequiredAcks: kafka.RequireAll,
			Records: kafka.NewRecordReader(kafka.Record{Value: kafka.NewBytes(make([]byte, size))}),
		})
		if err == nil {
			err = answer.Error
		}
		return err
	}
	const records, size = 45, 900_000
	for range records {
		for _, topic := range []string{"t", "kept"} {
			if err := send(topic, size); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := send("t", MaxMessageBytes+1); !errors.Is(err, kafka.MessageSizeTooLarge) {
		t.Errorf("a record of more than MaxMessageBytes: %v", err)
	}
	first := func(topic string) int64 {
		answer, err := client.ListOffsets(t.Context(), &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: {kafka.FirstOffsetOf(0)}}})
		if err != nil {
			t.Fatal(err)
		}
		return answer.Topics[topic][0].FirstOffset
	}
	before := directorySize(filepath.Join(dir, "data"))
	b.cluster.ApplyRetention()
	after := directorySize(filepath.Join(dir, "data"))
	if got := first("t"); got == 0 || after > before-segmentBytes {
		t.Errorf("the first record is %d, and %d bytes became %d", got, before, after)
	}
	if got := first("kept"); got != 0 {
		t.Errorf("of the other topic the first record is %d", got)
	}
}

func TestBrokerRefusesInOneLine(t *testing.T) {
	dir := t.TempDir()
	b, err := StartBroker(t.Context(), BrokerOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Stop()
	for want, o := range map[string]BrokerOptions{
		"another server uses this directory": {Dir: dir},
		"address already in use":             {Dir: t.TempDir(), Addr: b.Addr()},
		"not a loopback address":             {Dir: t.TempDir(), Addr: "0.0.0.0:0"},
	} {
		other, err := StartBroker(t.Context(), o)
		if err == nil {
			other.Stop()
			t.Errorf("it started, want %q", want)
		} else if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("got %q, want one line with %q", err, want)
		}
	}
}

// A directory of the cache is filled once, whoever comes first, and never seen half full.
func TestCacheIsFilledOnce(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	complete := func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, "b"))
		return err == nil
	}
	var (
		mu    sync.Mutex
		fills int
		group sync.WaitGroup
	)
	fill := func(dir string) error {
		mu.Lock()
		fills++
		first := fills == 1
		mu.Unlock()
		os.WriteFile(filepath.Join(dir, "a"), nil, 0o644)
		time.Sleep(50 * time.Millisecond)
		if first {
			return errors.New("the connection broke")
		}
		return os.WriteFile(filepath.Join(dir, "b"), nil, 0o644)
	}
	if _, err := cached(t.Context(), "thing", nil, complete, fill); err == nil {
		t.Error("a failure was not reported")
	}
	for range 4 {
		group.Go(func() {
			dir, err := cached(t.Context(), "thing", nil, complete, fill)
			if err != nil || !complete(dir) {
				t.Errorf("%s: %v", dir, err)
			}
		})
	}
	group.Wait()
	if fills != 2 {
		t.Errorf("filled %d times, want once after the failure", fills)
	}
	root, _ := CacheDir()
	if left, _ := filepath.Glob(filepath.Join(root, "*.partial")); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

// A package with another digest than the pinned one is refused.
func TestPackageIsVerified(t *testing.T) {
	if testing.Short() {
		t.Skip("packs a file")
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "package"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "package", libraryFile), []byte("not ClickHouse"), 0o644); err != nil {
		t.Fatal(err)
	}
	packed := filepath.Join(dir, "p.tgz")
	if out, err := exec.Command("tar", "czf", packed, "-C", dir, "package").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	err := library{npm: "p", version: "1", integrity: "other"}.unpack(packed, dir, nil)
	if err == nil || !strings.Contains(err.Error(), "not the one expected") {
		t.Errorf("got %v", err)
	}
}

func TestProgressLines(t *testing.T) {
	var out strings.Builder
	tell := PrintProgress(&out, "> ")
	tell(Progress{Step: "fetching", Total: 2e6})
	tell(Progress{Step: "starting"})
	tell(Progress{Step: "fetching", Done: 1e6, Total: 2e6}) // too soon for another line
	tell(Progress{Step: "fetching", Done: 2e6, Total: 2e6, Finished: true})
	want := "> fetching: 0% of 2 MB\n> starting\n> fetching: done\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
