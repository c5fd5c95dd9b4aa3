package collector

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapweave/tapweave/collector/batcher"
	"github.com/tapweave/tapweave/collector/decode"
	"github.com/tapweave/tapweave/collector/sample"
	"github.com/tapweave/tapweave/collector/source/capture"
	"github.com/tapweave/tapweave/collector/source/udp"
	"github.com/tapweave/tapweave/proto/batch"
	"github.com/tapweave/tapweave/proto/capturetest"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/admin"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/kafka/kafkatest"
	"github.com/tapweave/tapweave/service/logging/logtest"
)

const partitions = 4

func testConfig(k kafka.Config) Config {
	c := DefaultConfig()
	c.Name, c.Listen, c.Workers, c.Partitions = "c1", "127.0.0.1:0", 2, partitions
	c.ReceiveBytes = 4 << 20
	c.DrainTime, c.FlushTimeout = 0, 10*time.Second
	c.Sampling = Sampling{Mode: "all"}
	c.Kafka, c.Admin.Listen = k, "127.0.0.1:0"
	return c
}

// begin runs a collector and returns what ends it.
func begin(t *testing.T, c Config, d Dependencies) (*Collector, func() error) {
	t.Helper()
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	k := New(c, d)
	if err := k.Listen(); err != nil {
		t.Fatal(err)
	}
	return k, run(t, k)
}

// run runs a collector that listens, and returns what ends it.
func run(t *testing.T, k *Collector) func() error {
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- k.Run(ctx) }()
	stop := sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-result:
			return err
		case <-time.After(30 * time.Second):
			return errors.New("it does not end")
		}
	})
	t.Cleanup(func() { stop() })
	return stop
}

func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("not in 20 s: %s", what)
		}
	}
}

// frames returns the Ethernet frames of a shared capture.
func frames(t *testing.T, name string) [][]byte {
	t.Helper()
	r, err := capture.Open(capturetest.File(t, name))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var all [][]byte
	for {
		rec, err := r.Next()
		if err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if rec.Link == decode.LinkEthernet {
			all = append(all, slices.Clone(rec.Data))
		}
	}
}

func vxlan(vni uint32, frame []byte) []byte {
	b := make([]byte, 8, 8+len(frame))
	b[0] = 0x08
	binary.BigEndian.PutUint32(b[4:], vni<<8)
	return append(b, frame...)
}

// read returns the batches on every partition.
func read(t *testing.T, config kafka.Config) [][]*pb.PacketBatch {
	t.Helper()
	k, err := kafka.New(config)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	all := make([][]*pb.PacketBatch, partitions)
	for i := range all {
		for _, v := range kafkatest.Values(t, k, record.TopicPackets, i) {
			r, err := record.UnmarshalPackets(v)
			if err != nil {
				t.Fatal(err)
			}
			all[i] = append(all[i], r.GetBatch())
		}
	}
	return all
}

// decoded goes through the packets of the batches that read returns.
func decoded(t *testing.T, config kafka.Config) iter.Seq[*batch.Packets] {
	t.Helper()
	return func(yield func(*batch.Packets) bool) {
		for _, batches := range read(t, config) {
			for _, s := range batches {
				var p batch.Packets
				if s.Packets == 0 {
					continue
				} else if err := p.Decode(s.Columns); err != nil {
					t.Fatal(err)
				}
				if !yield(&p) {
					return
				}
			}
		}
	}
}

// describe prints what does not depend on when and from where a packet was sent.
func describe(f packet.Flow, p packet.Packet) string {
	f.OuterPort, f.Carriers[0].Source = 0, packet.Addr{}
	p.Time, p.Flow = 0, 0
	return fmt.Sprintf("%+v %+v", f, p)
}

// What is sent to the socket is on the topic: every packet once, with all its fields, in the partition of its
// addresses, between a hello and a goodbye, never older than the promise before it.
func TestEndToEnd(t *testing.T) {
	config := kafkatest.Config(t)
	var sent [][]byte
	for _, name := range []string{"zeek__1000-requests-one-dropped-response.pcap", "zeek__vlan-collisions.pcap", "zeek__ipv6-http-atomic-frag.pcap", "nDPI__dns_fragmented.pcap"} {
		sent = append(sent, frames(t, name)...)
	}
	c, stop := begin(t, testConfig(config), Dependencies{})
	waitFor(t, "ready", func() bool { ok, _ := c.Ready(); return ok })
	if err := admin.Probe(t.Context(), c.AdminAddr()); err != nil {
		t.Error(err)
	}
	again := c.config
	again.Listen = c.Addr()
	if err := New(again, Dependencies{Log: slog.New(slog.DiscardHandler)}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), c.Addr()+" is in use by another program") || strings.Contains(err.Error(), "\n") {
		t.Errorf("second collector: %v", err)
	}

	judge, want, refused := decode.New(decode.Configuration{MaxDepth: 4, VXLANPorts: []uint16{4789}, Payload: true}), map[string]int{}, 0
	whole := sample.New(sample.Configuration{Mode: sample.All})
	began := time.Now().UnixNano()
	var conns []net.Conn
	for range 8 {
		s, err := net.Dial("udp", c.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		conns = append(conns, s)
	}
	for i, frame := range sent {
		b := vxlan(27, frame)
		switch i % 500 {
		case 7:
			b[0] = 0 // no I flag
		case 9:
			b = b[:5]
		}
		if judge.Datagram(0, packet.Addr{}, 0, b) == decode.OK {
			whole.Apply(&judge.Flow, &judge.Packet)
			want[describe(judge.Flow, judge.Packet)]++
		} else {
			refused++
		}
		if _, err := conns[i%len(conns)].Write(b); err != nil {
			t.Fatal(err)
		}
		if i%100 == 99 {
			time.Sleep(5 * time.Millisecond) // small buffers
		}
	}
	waitFor(t, "received", func() bool {
		return c.counters.Counter("received", "datagrams").Value()+c.counters.Counter("lost", "kernel").Value() == uint64(len(sent))
	})
	time.Sleep(600 * time.Millisecond) // idle partitions are told the time
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if n := c.counters.Counter("lost", "kernel").Value(); n != 0 {
		t.Fatalf("the kernel dropped %d", n)
	}

	got, packets := map[string]int{}, 0
	var incarnation uint64
	for i, batches := range read(t, config) {
		if len(batches) < 4 || batches[0].Kind != pb.PacketBatch_HELLO || batches[len(batches)-1].Kind != pb.PacketBatch_GOODBYE {
			t.Fatalf("partition %d: %d batches", i, len(batches))
		}
		watermark := batches[0].Watermark
		for j, s := range batches {
			if incarnation == 0 {
				incarnation = s.Incarnation
			}
			if s.Producer != "c1" || s.Incarnation != incarnation || s.Sequence != uint64(j)+1 || s.Partitions != partitions || s.Watermark < watermark {
				t.Errorf("partition %d, batch %d: %v", i, j, s)
			}
			if j > 0 && j < len(batches)-1 && s.Kind != pb.PacketBatch_PACKETS {
				t.Errorf("partition %d, batch %d: %v", i, j, s.Kind)
			}
			if s.Clock < s.Watermark || s.Clock > time.Now().UnixNano() || s.Clock-s.Watermark > int64(2*time.Second) {
				t.Errorf("partition %d, batch %d: clock %v behind the watermark", i, j, time.Duration(s.Clock-s.Watermark))
			}
			if s.Packets > 0 {
				var p batch.Packets
				if err := p.Decode(s.Columns); err != nil {
					t.Fatal(err)
				}
				for _, q := range p.Packets {
					f := p.Flows[q.Flow]
					if q.Time < watermark || q.Time < began || q.Time > s.Clock {
						t.Errorf("a packet of %d, promised was %d", q.Time, watermark)
					}
					if batcher.Partition(&f, &q, partitions) != i || f.Carriers[0].VNI != 27 || f.Carriers[0].Source.String() != "127.0.0.1" || f.OuterPort == 0 {
						t.Errorf("partition %d: %+v", i, f)
					}
					got[describe(f, q)]++
					packets++
				}
				if int(s.Packets) != len(p.Packets) {
					t.Errorf("%d packets, %d are said", len(p.Packets), s.Packets)
				}
			}
			watermark = s.Watermark
		}
	}
	for d, n := range want {
		if got[d] != n {
			t.Errorf("%d of %d: %s", got[d], n, d)
		}
	}
	if packets+refused != len(sent) || len(got) != len(want) {
		t.Errorf("%d sent, %d refused, %d published", len(sent), refused, packets)
	}

	// The counts on tapweave.stats, in the end, balance.
	k, err := kafka.New(config)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	_, last, err := k.Offsets(t.Context(), record.TopicStats, 0)
	if err != nil || last == 0 {
		t.Fatalf("%d stats records, %v", last, err)
	}
	f, err := k.Fetch(t.Context(), record.TopicStats, 0, last-1, 1<<20, time.Second)
	if err != nil || len(f.Records) != 1 {
		t.Fatalf("%d stats records, %v", len(f.Records), err)
	}
	s, err := record.UnmarshalStats(f.Records[0].Value)
	if err != nil || s.Service != "collector" || s.Instance != "c1" || s.Incarnation != incarnation {
		t.Fatalf("%v, %v", s, err)
	}
	counts, refusals := map[string]uint64{}, uint64(0)
	for _, n := range s.Counts {
		counts[n.Stage+" "+n.Reason] = n.Count
		if n.Stage == "refused" {
			refusals += n.Count
		}
	}
	if counts["received datagrams"] != uint64(len(sent)) || refusals != uint64(refused) || counts["published packets"] != uint64(packets) ||
		counts["refused vxlan_flag_missing"] == 0 || counts["refused truncated_vxlan"] == 0 {
		t.Errorf("counts %v", counts)
	}
}

// A packet that lies in the socket while the collector sleeps is not older than what was promised.
func TestPromiseUnderDelay(t *testing.T) {
	config := kafkatest.Config(t)
	sockets, err := udp.Listen(udp.Config{Address: "127.0.0.1:0", Sockets: 2, ReceiveBytes: 4 << 20}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	address, err := sockets[0].Addr()
	if err != nil {
		t.Fatal(err)
	}
	c, stop := begin(t, testConfig(config), Dependencies{Sources: []Source{slow{sockets[0]}, sockets[1]}})
	waitFor(t, "ready", func() bool { ok, _ := c.Ready(); return ok })
	frame := frames(t, "zeek__vlan-collisions.pcap")[0]
	var n int
	for limit := time.Now().Add(2 * time.Second); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		for range 8 { // ports, so that both sockets get some
			s, err := net.Dial("udp", address.String())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write(vxlan(1, frame)); err != nil {
				t.Fatal(err)
			}
			s.Close()
			n++
		}
	}
	waitFor(t, "received", func() bool { return c.counters.Counter("received", "datagrams").Value() == uint64(n) })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	var packets int
	var behind time.Duration
	for _, batches := range read(t, config) {
		var watermark int64
		for _, s := range batches {
			if s.Packets > 0 {
				var p batch.Packets
				if err := p.Decode(s.Columns); err != nil {
					t.Fatal(err)
				}
				for _, q := range p.Packets {
					if q.Time < watermark {
						t.Fatalf("a packet %v older than was promised", time.Duration(watermark-q.Time))
					}
					behind = max(behind, time.Duration(s.Clock-q.Time))
					packets++
				}
			}
			watermark = s.Watermark
		}
	}
	if packets != n {
		t.Errorf("%d of %d packets", packets, n)
	}
	if behind < 300*time.Millisecond {
		t.Errorf("no packet was delayed by more than %v", behind)
	}
}

// slow sleeps before every read.
type slow struct{ Source }

func (s slow) Receive(wait time.Duration) ([]udp.Datagram, int64, error) {
	time.Sleep(400 * time.Millisecond)
	return s.Source.Receive(wait)
}

func TestTooFewPartitions(t *testing.T) {
	config := kafkatest.Config(t)
	k, err := kafka.New(config)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if _, err := k.EnsureTopics(t.Context(), true, kafka.Topic{Name: record.TopicPackets, Partitions: partitions - 1}); err != nil {
		t.Fatal(err)
	}
	err = New(testConfig(config), Dependencies{Log: slog.New(slog.DiscardHandler)}).Run(t.Context())
	if !errors.Is(err, kafka.ErrPartitions) || !strings.Contains(err.Error(), "has 3, the configuration pins 4") || strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
}

// Of a topic with more partitions than are pinned, as many are used, and that is told.
func TestMorePartitions(t *testing.T) {
	config := kafkatest.Config(t)
	k, err := kafka.New(config)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if _, err := k.EnsureTopics(t.Context(), true, kafka.Topic{Name: record.TopicPackets, Partitions: partitions + 2}); err != nil {
		t.Fatal(err)
	}
	var log logtest.Buffer
	c, stop := begin(t, testConfig(config), Dependencies{Log: log.Logger()})
	waitFor(t, "ready", func() bool { ok, _ := c.Ready(); return ok })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "more partitions than the configuration pins") {
		t.Error(log.String())
	}
	for i := range partitions + 2 {
		_, last, err := k.Offsets(t.Context(), record.TopicPackets, i)
		if err != nil || (last > 0) != (i < partitions) {
			t.Errorf("partition %d has %d records, %v", i, last, err)
		}
	}
}

// Without Kafka there is one line, the collector is not ready, and it ends when it is told to.
func TestNoKafka(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	var log logtest.Buffer
	config := testConfig(kafka.Config{Brokers: []string{address}})
	config.DrainTime = time.Hour // not where nobody has been told to send
	c, stop := begin(t, config, Dependencies{Log: log.Logger()})
	want := "Kafka at " + address + " cannot be reached: connection refused"
	waitFor(t, "the reason", func() bool { _, why := c.Ready(); return strings.Contains(why, want) })
	time.Sleep(time.Second)
	if n := strings.Count(log.String(), want); n != 1 || strings.Contains(log.String(), "goroutine") {
		t.Errorf("%d lines of it:\n%s", n, log.String())
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// During the drain time the probe fails and packets are still taken.
func TestDrain(t *testing.T) {
	config := testConfig(kafkatest.Config(t))
	config.DrainTime = time.Second
	c, stop := begin(t, config, Dependencies{})
	waitFor(t, "ready", func() bool { ok, _ := c.Ready(); return ok })
	frame := frames(t, "zeek__vlan-collisions.pcap")[0]
	result := make(chan error, 1)
	go func() { result <- stop() }()
	waitFor(t, "draining", func() bool { ok, why := c.Ready(); return !ok && strings.Contains(why, "draining") })
	if err := admin.Probe(t.Context(), c.AdminAddr()); err == nil || !strings.Contains(err.Error(), "draining") {
		t.Errorf("the probe says %v", err)
	}
	s, err := net.Dial("udp", c.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Write(vxlan(1, frame)); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Error(err)
	}
	if n := c.counters.Counter("published", "packets").Value(); n != 1 {
		t.Errorf("%d packets", n)
	}
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*Config){
		"name: 1 to 255":                    func(c *Config) { c.Name = "" },
		`listen: "4789" is not HOST:PORT`:   func(c *Config) { c.Listen = "4789" },
		"workers: -1":                       func(c *Config) { c.Workers = -1 },
		"partitions 0 is not between":       func(c *Config) { c.Partitions = 0 },
		"max_depth 0 is not between":        func(c *Config) { c.Tunnels.MaxDepth = 0 },
		`sampling.mode: "some" is none of`:  func(c *Config) { c.Sampling.Mode = "some" },
		`tunnels.vni_scope: "x" is none of`: func(c *Config) { c.Tunnels.VNIScope = "x" },
		"linger: 0s is not between":         func(c *Config) { c.Linger = 0 },
	} {
		c := DefaultConfig()
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// burst is a source of one burst of datagrams, which is overwritten by the next call.
type burst struct {
	datagrams []udp.Datagram
	given     int
}

func (b *burst) Receive(wait time.Duration) ([]udp.Datagram, int64, error) {
	if b.given++; b.given == 1 {
		return b.datagrams, 0, nil
	}
	for _, d := range b.datagrams {
		clear(d.Payload)
	}
	time.Sleep(wait)
	return nil, time.Now().UnixNano(), nil
}

func (b *burst) Dropped() uint64 { return 0 }
func (b *burst) Close() error    { return nil }

// Packets of one burst are held while their flows are looked for: each travels as it came, redacted on its own.
func TestBurst(t *testing.T) {
	config := testConfig(kafkatest.Config(t))
	config.Sampling = Sampling{Mode: "starts", Redact: true}
	source, want := new(burst), map[string]int{}
	for i := range 64 {
		request := fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: h%d.example\r\nAuthorization: Basic secret%02d\r\nX: %d\r\n\r\n", i, i, i, i)
		frame := append(make([]byte, 12, 54+len(request)), 8, 0, 0x45, 0)
		frame = binary.BigEndian.AppendUint16(frame, uint16(40+len(request)))
		frame = append(frame, 0, 0, 0, 0, 64, packet.ProtoTCP, 0, 0, 10, 0, 0, byte(i%7), 10, 0, 1, 1)
		frame = append(binary.BigEndian.AppendUint16(frame, uint16(20000+i)), 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 5<<4, packet.PSH|packet.ACK, 1, 0, 0, 0, 0, 0)
		b := vxlan(27, append(frame, request...))
		if i%8 == 3 {
			b[0] = 0 // refused, between others
		} else {
			want[strings.Replace(request, fmt.Sprintf("Basic secret%02d", i), strings.Repeat("*", 14), 1)]++
		}
		source.datagrams = append(source.datagrams, udp.Datagram{Time: time.Now().UnixNano(), Payload: b, Original: len(b)})
	}
	c, stop := begin(t, config, Dependencies{Sources: []Source{source}})
	waitFor(t, "received", func() bool { return c.counters.Counter("received", "datagrams").Value() == 64 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for p := range decoded(t, config.Kafka) {
		for _, q := range p.Packets {
			got[string(q.Data)]++
		}
	}
	if !maps.Equal(got, want) || len(want) != 56 {
		t.Errorf("%d of %d travelled as they should:\n%v", len(got), len(want), got)
	}
}
