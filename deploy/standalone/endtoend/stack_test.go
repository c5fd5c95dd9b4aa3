// Package endtoend tests the services as programs, on a real Apache Kafka and a real ClickHouse: what is sent as
// VXLAN to the sockets of two collectors is in ClickHouse as tapweave read prints it, also if a process is killed.
package endtoend

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tapweave/tapweave/deploy/standalone/programtest"
	"github.com/tapweave/tapweave/deploy/standalone/servers"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
)

const partitions = record.DefaultInputPartitions

func TestMain(m *testing.M) {
	servers.MaybeChild()
	os.Exit(m.Run())
}

// stack is the services and servers of a test, each a process of its own.
type stack struct {
	t          testing.TB
	dir        string
	broker     *servers.Kafka
	clickhouse *servers.ClickHouse
	sql        string // where to ask ClickHouse, if clickhouse is not set: http://HOST:PORT
	client     *kafka.Client
	env        []string
	collectors []string // addresses of their sockets
	services   map[string]*service
	counted    int // packets on tapweave.packets that have been counted
	next       [partitions]int64
}

// service is a running program.
type service struct {
	name, program string
	env           []string
	cmd           *exec.Cmd
	log           *os.File
	done          chan struct{}
	admin         string
	away          bool // it is not to run now
}

// newServers builds the programs and starts Kafka and ClickHouse.
func newServers(t testing.TB) *stack {
	t.Helper()
	programtest.Need(t, "java", "mvn")
	ctx := t.Context()
	s := &stack{t: t, dir: t.TempDir(), services: map[string]*service{}}
	s.build()
	broker, err := servers.StartKafka(ctx, servers.KafkaOptions{Dir: filepath.Join(s.dir, "kafka")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { broker.Kill() })
	s.broker = broker
	if s.clickhouse, err = servers.StartClickHouse(ctx, servers.ClickHouseOptions{Dir: filepath.Join(s.dir, "clickhouse")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.clickhouse.Kill() })
	c := kafka.DefaultConfig()
	c.Brokers = []string{broker.Addr()}
	if s.client, err = kafka.New(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.client.Close)
	s.env = append(os.Environ(), "TAPWEAVE_KAFKA_BROKERS="+broker.Addr())
	return s
}

// newStack builds the programs and starts everything, the enricher with more variables.
func newStack(t testing.TB, enricher ...string) *stack {
	t.Helper()
	s := newServers(t)
	for i := range 2 {
		udp := freePort(t, "udp")
		s.collectors = append(s.collectors, udp)
		s.start(fmt.Sprintf("collector-%d", i+1), "collector", "TAPWEAVE_LISTEN="+udp, "TAPWEAVE_SAMPLING_MODE=all", "TAPWEAVE_WORKERS=1", "TAPWEAVE_DRAIN_TIME=0s")
	}
	env := []string{"TAPWEAVE_FOLD_LATE_LIMIT=2m"}
	for _, key := range []string{"TCP_IDLE", "TCP_HALF_OPEN_IDLE", "UDP_IDLE", "ICMP_IDLE", "OTHER_IDLE", "FINAL_AFTER", "LINGER", "ROLLOVER", "FRAGMENT_TIMEOUT"} {
		env = append(env, "TAPWEAVE_FOLD_"+key+"="+endless.String())
	}
	s.start("enricher-1", "enricher", append(env, enricher...)...)
	s.start("sink-1", "sink", "TAPWEAVE_CLICKHOUSE_RETENTION_SESSIONS=0s")
	for _, v := range s.services {
		s.ready(v)
	}
	return s
}

// build builds the programs of the services.
func (s *stack) build() {
	s.t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, name := range []string{"collector", "enricher", "sink"} {
		c := exec.Command("go", "build", "-o", filepath.Join(s.dir, name), "./cmd/"+name)
		c.Dir = filepath.Join(root, name)
		c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
		if out, err := c.CombinedOutput(); err != nil {
			s.t.Fatalf("building %s: %v\n%s", name, err, out)
		}
	}
}

func freePort(t testing.TB, network string) string {
	t.Helper()
	if network == "udp" {
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.LocalAddr().String()
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start starts a program as the service of that name.
func (s *stack) start(name, program string, env ...string) *service {
	s.t.Helper()
	v := s.services[name]
	if v == nil {
		v = &service{name: name, program: program, admin: freePort(s.t, "tcp")}
		v.env = append([]string{"TAPWEAVE_NAME=" + name, "TAPWEAVE_ADMIN_LISTEN=" + v.admin}, s.env...)
		if program == "sink" {
			v.env = append(v.env, "TAPWEAVE_CLICKHOUSE_ADDRESSES="+s.clickhouse.HTTPAddr())
		}
		v.env = append(v.env, env...)
		f, err := os.Create(filepath.Join(s.dir, name+".log"))
		if err != nil {
			s.t.Fatal(err)
		}
		v.log = f
		s.services[name] = v
		s.t.Cleanup(func() {
			v.kill()
			if s.t.Failed() {
				s.tail(v)
			}
			f.Close()
		})
	}
	v.cmd = exec.Command(filepath.Join(s.dir, program))
	v.cmd.Env, v.cmd.Stdout, v.cmd.Stderr = v.env, v.log, v.log
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := v.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	v.done = make(chan struct{})
	go func(c *exec.Cmd, done chan struct{}) {
		c.Wait()
		close(done)
	}(v.cmd, v.done)
	return v
}

// tail shows the end of a service's log.
func (s *stack) tail(v *service) {
	b, err := os.ReadFile(v.log.Name())
	if err != nil {
		s.t.Log(err)
		return
	}
	s.t.Logf("%s:\n%s", v.name, b[max(0, len(b)-4000):])
}

// kill is kill -9.
func (v *service) kill() {
	v.cmd.Process.Kill()
	<-v.done
}

// ready waits for a service to say that it is ready.
func (s *stack) ready(v *service) {
	s.t.Helper()
	s.eventually(60*time.Second, v.name+" to be ready", func() error {
		select {
		case <-v.done:
			s.t.Fatalf("%s has ended: %v", v.name, v.cmd.ProcessState)
		default:
		}
		return v.answers()
	})
}

// answers says whether a service says that it is ready.
func (v *service) answers() error {
	client := http.Client{Timeout: 2 * time.Second}
	r, err := client.Get("http://" + v.admin + "/readyz")
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if b, _ := io.ReadAll(r.Body); r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", r.Status, b)
	}
	return nil
}

// eventually waits until a condition holds.
func (s *stack) eventually(most time.Duration, what string, holds func() error) {
	s.t.Helper()
	deadline := time.Now().Add(most)
	for {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("waited %v for %s: %v", most, what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// count returns how many packets have come to stand on tapweave.packets.
func (s *stack) count() int {
	s.t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for p := range partitions {
		wg.Go(func() {
			for {
				f, err := s.client.Fetch(s.t.Context(), record.TopicPackets, p, s.next[p], 4<<20, 10*time.Millisecond)
				if err != nil {
					s.t.Error(err)
					return
				}
				for _, r := range f.Records {
					m, err := record.UnmarshalPackets(r.Value)
					if err != nil {
						s.t.Error(err)
						return
					}
					mu.Lock()
					s.counted += int(m.GetBatch().GetPackets())
					mu.Unlock()
				}
				if len(f.Records) == 0 {
					return
				}
				s.next[p] = f.Next
			}
		})
	}
	wg.Wait()
	return s.counted
}

// endOfInput ends every session.
func (s *stack) endOfInput() {
	s.t.Helper()
	v, err := record.MarshalPackets(&pb.PacketsRecord{Body: &pb.PacketsRecord_EndOfInput{EndOfInput: &pb.EndOfInput{}}})
	if err != nil {
		s.t.Fatal(err)
	}
	for p := range partitions {
		if _, err := s.client.Produce(s.t.Context(), record.TopicPackets, p, kafka.Record{Value: v}); err != nil {
			s.t.Fatal(err)
		}
	}
}

// query returns the rows of a query.
func (s *stack) query(sql string) []map[string]any {
	s.t.Helper()
	rows, err := s.tryQuery(sql)
	if err != nil {
		s.t.Fatal(err)
	}
	return rows
}

func (s *stack) tryQuery(sql string) (rows []map[string]any, err error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	settings := url.Values{"default_format": {"JSONEachRow"}, "output_format_json_quote_64bit_integers": {"0"}, "database": {"tapweave"}}
	at := s.sql
	if s.clickhouse != nil {
		at = "http://" + s.clickhouse.HTTPAddr()
	} else {
		settings.Set("user", servers.ReaderUser)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at+"/?"+settings.Encode(), strings.NewReader(sql))
	if err != nil {
		return nil, err
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if r.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", sql, b)
	}
	for line := range strings.Lines(string(b)) {
		var row map[string]any
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}
