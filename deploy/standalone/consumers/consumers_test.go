// Package consumers runs programs that SIEMs and others get their data by, as deploy/siem configures them, on what the
// sink writes to a real Kafka; and checks the files of those that cannot run here.
package consumers

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapweave/tapweave/deploy/standalone/programtest"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/kafka/kafkatest"
	"github.com/tapweave/tapweave/service/stats"
	"github.com/tapweave/tapweave/sink/deadletter"
	"github.com/tapweave/tapweave/sink/siem"
	"github.com/tapweave/tapweave/sink/siem/siemtest"
)

const folder = "../../siem"

// patience is how long a consumer may take; the machine may be busy.
const patience = 2 * time.Minute

// source is a Kafka with documents on it, those of a format under its topic's name.
type source struct {
	broker, prefix string
	documents      map[string][]string // sorted, by topic
}

// newSource lets a sink write documents of every kind of session and alert.
func newSource(t *testing.T) *source {
	config := kafkatest.Config(t)
	client, err := kafka.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	output := siem.Config{ECS: true, OCSF: true, ASIM: true, Updates: true, Partitions: 2, FetchBytes: 1 << 20}
	list := []kafka.Topic{{Name: record.TopicSessions, Partitions: 1}, {Name: record.TopicDeadLetter, Partitions: 1}}
	for _, topic := range output.Topics() {
		list = append(list, kafka.Topic{Name: topic, Partitions: output.Partitions})
	}
	var partitions map[string]int
	if err := (kafka.Retry{}).Do(t.Context(), func() (err error) {
		partitions, err = client.EnsureTopics(t.Context(), true, list...)
		return err
	}, nil); err != nil {
		t.Fatal(err)
	}

	s := &source{broker: config.Brokers[0], prefix: config.TopicPrefix, documents: map[string][]string{}}
	sessions, alerts := columns.NewBuilder(columns.Sessions), columns.NewBuilder(columns.Alerts)
	n := 0
	for _, name := range slices.Sorted(maps.Keys(siemtest.Sessions())) {
		session := siemtest.Sessions()[name]
		n++
		session.ID[0], session.ID[1] = byte(n>>8), byte(n)
		sessions.Append(session)
		for _, f := range siem.Formats {
			s.documents[f.Topic] = append(s.documents[f.Topic], string(f.Append(nil, session)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(siemtest.Alerts())) {
		alert := siemtest.Alerts()[name]
		n++
		alert.SessionID[0], alert.SessionID[1] = byte(n>>8), byte(n)
		alerts.Append(alert)
		for _, f := range siem.Formats {
			s.documents[f.Topic] = append(s.documents[f.Topic], string(f.AppendAlert(nil, alert)))
		}
	}
	for _, list := range s.documents {
		slices.Sort(list)
	}
	rows := [2]*pb.Rows{}
	if rows[0], err = sessions.Rows(); err != nil {
		t.Fatal(err)
	}
	if rows[1], err = alerts.Rows(); err != nil {
		t.Fatal(err)
	}
	value, err := record.MarshalSessions(&pb.SessionsRecord{Body: &pb.SessionsRecord_Output{Output: &pb.Output{Rows: rows[:]}}})
	if err != nil {
		t.Fatal(err)
	}
	one := func() ([]kafka.Record, error) { return []kafka.Record{{Value: value}}, nil }
	if _, err := client.ProduceRetry(t.Context(), record.TopicSessions, 0, one, nil); err != nil {
		t.Fatal(err)
	}

	counters := stats.New("sink", prometheus.NewRegistry())
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- siem.New(output, partitions, client, deadletter.New(client, counters, "deadletter", log), counters, log).Run(ctx)
	}()
	for _, name := range []string{"documents_ecs", "documents_ocsf", "documents_asim"} {
		for begin := time.Now(); counters.Counter("siem", name).Value() < uint64(n); time.Sleep(20 * time.Millisecond) {
			if time.Since(begin) > patience {
				t.Fatalf("the sink has not written its documents: %s", name)
			}
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return s
}

// file is a configuration of deploy/siem with replacements, each of which has to occur.
func (s *source) file(t *testing.T, name string, more ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for i := 0; i < len(more); i += 2 {
		if !strings.Contains(text, more[i]) {
			t.Fatalf("%s has no %s", name, more[i])
		}
		text = strings.ReplaceAll(text, more[i], more[i+1])
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// topic is the name by which others know a topic.
func (s *source) topic(name string) string { return s.prefix + name }

// run starts a program, and ends it with the test.
func run(t *testing.T, stdout io.Writer, env []string, name string, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command(name, args...)
	c.Env = append(os.Environ(), env...)
	c.Stdout, c.Stderr = stdout, t.Output()
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		c.Wait()
	})
	return c
}

// compare compares lines with the documents of a topic, in whatever order.
func (s *source) compare(t *testing.T, topic string, lines []string) {
	t.Helper()
	want := s.documents[topic]
	slices.Sort(lines)
	if slices.Equal(lines, want) {
		t.Logf("%d documents of %s, byte for byte", len(lines), topic)
		return
	}
	t.Errorf("%d documents of %s, want %d", len(lines), topic, len(want))
	for i := range min(len(lines), len(want)) {
		if lines[i] != want[i] {
			t.Fatalf("the first that differs:\n%s\nwant\n%s", lines[i], want[i])
		}
	}
}

func TestRsyslog(t *testing.T) {
	rsyslogd := programtest.Path(t, "rsyslogd", "/usr/sbin/rsyslogd")
	s := newSource(t)
	out := filepath.Join(t.TempDir(), "ecs.json")
	config := s.file(t, "rsyslog.conf", "kafka:9092", s.broker, "tapweave.siem.ecs", s.topic(record.TopicSIEMECS), "/var/log/tapweave/ecs.json", out,
		"rsyslog-tapweave", s.prefix+"rsyslog")
	if message, err := exec.Command(rsyslogd, "-N1", "-f", config).CombinedOutput(); err != nil || bytes.Contains(message, []byte("error")) {
		t.Fatalf("rsyslogd -N1: %v (Debian's package rsyslog-kafka has imkafka)\n%s", err, message)
	}
	run(t, t.Output(), nil, rsyslogd, "-n", "-f", config, "-i", filepath.Join(t.TempDir(), "pid"))
	var lines []string
	for begin := time.Now(); len(lines) < len(s.documents[record.TopicSIEMECS]) && time.Since(begin) < patience; time.Sleep(100 * time.Millisecond) {
		b, _ := os.ReadFile(out)
		lines = strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	}
	s.compare(t, record.TopicSIEMECS, lines)
}

func TestKcat(t *testing.T) {
	programtest.Path(t, "kcat")
	s := newSource(t)
	for _, f := range siem.Formats {
		var out bytes.Buffer
		env := []string{"KAFKA=" + s.broker, "TOPIC=" + s.topic(f.Topic), "GROUP=" + s.prefix + "kcat"}
		if err := run(t, &out, env, filepath.Join(folder, "kcat.sh"), "-e").Wait(); err != nil {
			t.Fatal(err)
		}
		s.compare(t, f.Topic, strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n"))
	}
}

// Telegraf is built by make siem, which says where it is.
func TestTelegraf(t *testing.T) {
	telegraf := os.Getenv("TAPWEAVE_TELEGRAF")
	if telegraf == "" {
		t.Skip("make siem builds Telegraf and sets TAPWEAVE_TELEGRAF")
	}
	s := newSource(t)
	config := s.file(t, "telegraf.conf", "tapweave.siem.ecs", s.topic(record.TopicSIEMECS), "telegraf-tapweave", s.prefix+"telegraf")
	r, w := io.Pipe()
	run(t, w, []string{"KAFKA=" + s.broker}, telegraf, "--config", config)
	time.AfterFunc(patience, func() { w.Close() })

	type point struct {
		Name      string
		Timestamp int64
		Tags      map[string]string
		Fields    struct {
			ID             string
			Bytes, Packets *json.Number
		}
	}
	type document struct {
		Timestamp time.Time `json:"@timestamp"`
		Event     struct{ ID string }
		Network   struct {
			Transport      string
			Bytes, Packets *json.Number
		}
		Source, Destination struct{ IP string }
	}
	want := map[string]document{}
	for _, text := range s.documents[record.TopicSIEMECS] {
		var d document
		if err := json.Unmarshal([]byte(text), &d); err != nil {
			t.Fatal(err)
		}
		want[d.Event.ID] = d
	}
	text := func(n *json.Number) string {
		if n == nil {
			return ""
		}
		return n.String()
	}
	points := 0
	lines := bufio.NewScanner(r)
	for points < len(want) && lines.Scan() {
		var batch struct{ Metrics []point }
		if err := json.Unmarshal(lines.Bytes(), &batch); err != nil {
			continue // Telegraf's own log
		}
		if batch.Metrics == nil {
			var p point
			if err := json.Unmarshal(lines.Bytes(), &p); err != nil || p.Name == "" {
				continue
			}
			batch.Metrics = []point{p}
		}
		for _, p := range batch.Metrics {
			d, ok := want[p.Fields.ID]
			if !ok {
				t.Fatalf("point of no document: %+v", p)
			}
			points++
			if p.Timestamp != d.Timestamp.UnixNano() || p.Tags["source"] != d.Source.IP || p.Tags["destination"] != d.Destination.IP ||
				p.Tags["transport"] != d.Network.Transport || text(p.Fields.Bytes) != text(d.Network.Bytes) || text(p.Fields.Packets) != text(d.Network.Packets) {
				t.Errorf("%+v, want %+v", p, d)
			}
		}
	}
	if points != len(want) {
		t.Errorf("%d points of %d documents", points, len(want))
	}
}
