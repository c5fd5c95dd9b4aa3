package endtoend

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/tapweave/tapweave/deploy/standalone/doctor"
	"github.com/tapweave/tapweave/deploy/standalone/servers"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/sink"
	"github.com/tapweave/tapweave/sink/clickhouse"
	"github.com/tapweave/tapweave/sink/clickhouse/clickhousetest"
	"github.com/tapweave/tapweave/sink/migrate"
)

// patient is a stack that is broken, examined, and mended.
type patient struct {
	*stack
	kafka   *kafkago.Client
	options doctor.Options
	lost    map[string]bool // lines that were found already
}

// TestDoctor breaks one thing after the other in a running stack: doctor names it, and nothing else.
func TestDoctor(t *testing.T) {
	s := newStack(t)
	p := &patient{stack: s, options: doctor.Options{Sink: sink.DefaultConfig(), Since: time.Minute}, lost: map[string]bool{}}
	o := &p.options.Sink
	o.Kafka.Brokers = []string{s.broker.Addr()}
	o.ClickHouse.Addresses, o.ClickHouse.Retention.Sessions = []string{s.clickhouse.HTTPAddr()}, 0
	for _, v := range s.services {
		p.options.Services = append(p.options.Services, v.admin)
	}
	transport := new(kafkago.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	p.kafka = &kafkago.Client{Addr: kafkago.TCP(s.broker.Addr()), Transport: transport}
	p.healthy("at the start")

	p.finds("a topic is missing", doctor.Error, `^no such topic: tapweave\.deadletter `, func() {
		r, err := p.kafka.DeleteTopics(t.Context(), &kafkago.DeleteTopicsRequest{Topics: []string{record.TopicDeadLetter}})
		if err == nil {
			err = r.Errors[record.TopicDeadLetter]
		}
		p.must(err)
		s.eventually(5*time.Second, "the topic to go", func() error {
			if n, err := s.client.Retention(t.Context(), record.TopicDeadLetter); err != nil || len(n) > 0 {
				return fmt.Errorf("%v, %v", n, err)
			}
			return nil
		})
	})
	_, err := s.client.EnsureTopics(t.Context(), true, kafka.Topic{Name: record.TopicDeadLetter, Partitions: 1, Retention: 24 * time.Hour})
	p.must(err)

	p.finds("a topic has too few partitions", doctor.Error, `^too few partitions: topic tapweave\.sessions .* has 4, the configuration pins 8`, func() { o.OutputPartitions = 8 })
	o.OutputPartitions = record.DefaultOutputPartitions

	p.finds("a topic forgets too soon", doctor.Warning, `^topic tapweave\.sessions keeps its records for 1h0m0s: what is not read by then is lost`, func() {
		p.set(record.TopicSessions, "retention.ms", "3600000")
	})
	p.set(record.TopicSessions, "retention.ms", "86400000")

	p.finds("snapshots go before the packets", doctor.Warning, `^topic tapweave\.state keeps its records for 13h0m0s, tapweave\.packets for 24h0m0s`, func() {
		p.set(record.TopicState, "retention.ms", fmt.Sprint((13 * time.Hour).Milliseconds()))
	})
	p.set(record.TopicState, "retention.ms", "86400000")

	p.finds("too few replicas for acks=all", doctor.Error, `^topic tapweave\.deadletter, partition 0 has 1 replicas in sync, min\.insync\.replicas is 2`, func() {
		p.set(record.TopicDeadLetter, "min.insync.replicas", "2")
	})
	p.set(record.TopicDeadLetter, "min.insync.replicas", "1")

	// Another ClickHouse, with passwords, and with a disk whose last free bytes may not be used.
	small := p.smallDisk()
	good := o.ClickHouse
	o.ClickHouse.Addresses, o.ClickHouse.Username, o.ClickHouse.Password = []string{small.HTTPAddr()}, servers.WriterUser, "secret"
	clickhousetest.Migrated(t, o.ClickHouse)
	p.finds("ClickHouse's disk is nearly full", doctor.Error, `^disk default .* of .* GB are free, [0-9] %$`, func() {})
	p.finds("the password is wrong", doctor.Error, `refused user "writer": wrong name or password; check clickhouse\.username and password$`, func() { o.ClickHouse.Password = "guess" })
	o.ClickHouse = good
	p.finds("a right is missing", doctor.Error, `does not allow user "reader" INSERT on database tapweave: GRANT INSERT ON`, func() { o.ClickHouse.Username = servers.ReaderUser })
	o.ClickHouse = good

	newest := migrate.Version()
	p.finds("the schema is newer", doctor.Error, fmt.Sprintf(`^the schema is newer than this program: database tapweave has schema %d`, newest+1), func() {
		s.query(fmt.Sprintf("INSERT INTO schema_migrations (version, name, applied_by) VALUES (%d, 'later', 'test')", newest+1))
	})
	p.finds("the schema is older", doctor.Error, fmt.Sprintf(`^the schema is older than this program: database tapweave has schema %d`, newest-1), func() {
		s.query(fmt.Sprintf("ALTER TABLE schema_migrations DELETE WHERE version >= %d SETTINGS mutations_sync = 1", newest))
	})
	s.query(fmt.Sprintf("INSERT INTO schema_migrations (version, name, applied_by) VALUES (%d, 'again', 'test')", newest))

	capped := p.capped()
	p.options.Services = append(p.options.Services, capped.admin)
	p.finds("the kernel caps the receive buffer", doctor.Warning, `^collector at `+regexp.QuoteMeta(capped.admin)+`: receive buffers of its sockets have [0-9.]+ MiB, 1024\.0 are wanted`, func() {})
	p.finds("the kernel drops packets", doctor.Error, `^collector capped lost [0-9]+ packets, as its sockets were full, in the last 1m0s$`, func() { p.flood(capped) })
	p.finds("a collector is gone", doctor.Error, `^no service answers at `+regexp.QuoteMeta(capped.admin)+`: connection refused$`, func() { capped.kill() })
	p.options.Services = p.options.Services[:len(p.options.Services)-1]

	p.finds("a collector's clock is off", doctor.Error, `^enricher enricher-1 \(skewed\): the clock of that collector is more than`, func() { p.skewed() })
	p.finds("no enricher is there", doctor.Error, `^nobody reads tapweave\.packets: no enricher is in group tapweave-enricher$`, func() {
		enricher := s.services["enricher-1"]
		p.options.Services = nil
		enricher.cmd.Process.Signal(syscall.SIGTERM)
		<-enricher.done
	})
	s.start("enricher-1", "enricher")
	s.ready(s.services["enricher-1"])
	p.finds("the sink is stuck", doctor.Error, `^sink \(ClickHouse\): 4 of 4 partitions of tapweave\.sessions are read, by 1; [0-9]+ records wait, the oldest for 10m`, func() { p.stuck() })
	p.finds("Kafka is away", doctor.Error, `^Kafka at `+regexp.QuoteMeta(s.broker.Addr())+` cannot be reached: connection refused; check that it runs`, func() { s.broker.Kill() })
}

// finds breaks something, and wants the doctor to name it: by that line alone, if it is an error. What was lost stays an
// error for as long as the options say.
func (p *patient) finds(what string, status doctor.Status, line string, breakIt func()) {
	p.t.Helper()
	breakIt()
	wanted := regexp.MustCompile(line)
	p.eventually(20*time.Second, what, func() error {
		lines := doctor.Run(p.t.Context(), p.options)
		problem := "not found"
		for _, l := range lines {
			if l.Status == status && wanted.MatchString(l.Text) {
				problem = ""
			}
		}
		for _, l := range lines {
			if l.Status == doctor.Error && !wanted.MatchString(l.Text) && !p.lost[l.Text] && !disk(l) {
				problem = "also an error: " + l.Text
			}
		}
		if problem != "" {
			return fmt.Errorf("%s, in:\n%s", problem, doctor.Table(lines))
		}
		for _, l := range lines {
			if l.Area == "loss" {
				p.lost[l.Text] = true
			}
		}
		return nil
	})
}

// healthy wants no error.
func (p *patient) healthy(when string) {
	p.t.Helper()
	// Each service has to have joined its groups, and told of its counts.
	p.eventually(30*time.Second, "a healthy stack "+when, func() error {
		if lines := slices.DeleteFunc(doctor.Run(p.t.Context(), p.options), disk); doctor.Worst(lines) == doctor.Error {
			return fmt.Errorf("errors:\n%s", doctor.Table(lines))
		}
		return nil
	})
}

// disk says whether a line is about a disk: how full this machine's is does not matter.
func disk(l doctor.Line) bool { return strings.HasPrefix(l.Text, "disk ") }

func (p *patient) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

// set sets what a topic is configured with.
func (p *patient) set(topic, name, value string) {
	p.t.Helper()
	r, err := p.kafka.IncrementalAlterConfigs(p.t.Context(), &kafkago.IncrementalAlterConfigsRequest{Resources: []kafkago.IncrementalAlterConfigsRequestResource{{
		ResourceType: kafkago.ResourceTypeTopic, ResourceName: topic,
		Configs: []kafkago.IncrementalAlterConfigsRequestConfig{{Name: name, Value: value, ConfigOperation: kafkago.ConfigOperationSet}},
	}}})
	if err == nil {
		err = r.Resources[0].Error
	}
	p.must(err)
	// The broker takes it over from the controller a little later.
	p.eventually(5*time.Second, name, func() error {
		r, err := p.kafka.DescribeConfigs(p.t.Context(), &kafkago.DescribeConfigsRequest{Resources: []kafkago.DescribeConfigRequestResource{{
			ResourceType: kafkago.ResourceTypeTopic, ResourceName: topic, ConfigNames: []string{name},
		}}})
		if err != nil {
			return err
		}
		if got := r.Resources[0].ConfigEntries[0].ConfigValue; got != value {
			return fmt.Errorf("%s is %s, not %s", name, got, value)
		}
		return nil
	})
}

// smallDisk starts a ClickHouse that may use a hundredth of what is free on its disk.
func (p *patient) smallDisk() *servers.ClickHouse {
	p.t.Helper()
	var fs syscall.Statfs_t
	p.must(syscall.Statfs(p.dir, &fs))
	keep := fs.Bavail * uint64(fs.Bsize) / 100 * 99
	c, err := servers.StartClickHouse(p.t.Context(), servers.ClickHouseOptions{
		Dir: filepath.Join(p.dir, "small"), WriterPassword: "secret",
		KeepFreeBytes: int64(keep),
	})
	p.must(err)
	p.t.Cleanup(func() { c.Kill() })
	return c
}

// capped starts a collector that asks for more than net.core.rmem_max, and may not pass it.
func (p *patient) capped() *service {
	p.t.Helper()
	wrapper := ""
	if os.Geteuid() == 0 {
		wrapper = "setpriv --bounding-set=-net_admin "
	}
	p.must(os.WriteFile(filepath.Join(p.dir, "capped-collector"), []byte("#!/bin/sh\nexec "+wrapper+filepath.Join(p.dir, "collector")+"\n"), 0o755))
	v := p.start("capped", "capped-collector", "TAPWEAVE_LISTEN="+freePort(p.t, "udp"), "TAPWEAVE_WORKERS=1", "TAPWEAVE_DRAIN_TIME=0s", fmt.Sprintf("TAPWEAVE_RECEIVE_BUFFER_BYTES=%d", 1<<30-1))
	p.ready(v)
	return v
}

// flood sends more to a collector that stands still than its socket takes.
func (p *patient) flood(v *service) {
	p.t.Helper()
	var to string
	for _, e := range v.env {
		if a, ok := strings.CutPrefix(e, "TAPWEAVE_LISTEN="); ok {
			to = a
		}
	}
	b, err := os.ReadFile("/proc/sys/net/core/rmem_max")
	p.must(err)
	room, err := strconv.Atoi(strings.TrimSpace(string(b)))
	p.must(err)
	p.must(v.cmd.Process.Signal(syscall.SIGSTOP))
	c, err := net.Dial("udp4", to)
	p.must(err)
	defer c.Close()
	datagram := make([]byte, 1400)
	for range room*2/len(datagram) + 1000 {
		c.Write(datagram)
	}
	p.must(v.cmd.Process.Signal(syscall.SIGCONT))
}

// skewed speaks as a collector whose clock is a minute ahead, so slowly that the others speak in between.
func (p *patient) skewed() {
	p.t.Helper()
	const words = 5
	for i := range words {
		clock := time.Now().Add(time.Minute).UnixNano()
		b := &pb.PacketBatch{Kind: pb.PacketBatch_PACKETS, Producer: "skewed", Incarnation: 1, Sequence: uint64(i + 1), Watermark: clock, Clock: clock, Partitions: partitions}
		switch i {
		case 0:
			b.Kind = pb.PacketBatch_HELLO
		case words - 1:
			b.Kind = pb.PacketBatch_GOODBYE
		}
		value, err := record.MarshalPackets(&pb.PacketsRecord{Body: &pb.PacketsRecord_Batch{Batch: b}})
		p.must(err)
		_, err = p.client.Produce(p.t.Context(), record.TopicPackets, 0, kafka.Record{Value: value})
		p.must(err)
		time.Sleep(3 * time.Second) // and the enricher tells of the last one, too
	}
}

// stuck puts a member in the sink's place that reads nothing, before records of ten minutes ago.
func (p *patient) stuck() {
	p.t.Helper()
	sink := p.services["sink-1"]
	sink.cmd.Process.Signal(syscall.SIGTERM)
	<-sink.done
	p.options.Sink.SIEM.ECS = false
	began := make(chan struct{})
	ctx, leave := context.WithCancel(p.t.Context())
	left := make(chan struct{})
	go func() {
		defer close(left)
		p.client.Group(kafka.GroupConfig{ID: clickhouse.Group}).Run(ctx, []string{record.TopicSessions, record.TopicStats}, func(ctx context.Context, g *kafka.Generation) {
			close(began)
			<-ctx.Done()
		})
	}()
	p.t.Cleanup(func() { leave(); <-left })
	select {
	case <-began:
	case <-time.After(30 * time.Second):
		p.t.Fatal("the member was given nothing")
	}
	// One partition of whose records all are committed.
	offsets, err := p.client.Committed(p.t.Context(), clickhouse.Group, record.TopicSessions, record.DefaultOutputPartitions)
	p.must(err)
	for partition, offset := range offsets {
		if _, next, err := p.client.Offsets(p.t.Context(), record.TopicSessions, partition); err != nil || next > max(offset, 0) {
			continue
		}
		r, err := p.kafka.Produce(p.t.Context(), &kafkago.ProduceRequest{
			Topic: record.TopicSessions, Partition: partition, RequiredAcks: kafkago.RequireAll,
			Records: kafkago.NewRecordReader(kafkago.Record{Value: kafkago.NewBytes([]byte("late")), Time: time.Now().Add(-10 * time.Minute)}),
		})
		if err == nil {
			err = r.Error
		}
		p.must(err)
		return
	}
	p.t.Fatal("the sink has not committed all of any partition")
}
