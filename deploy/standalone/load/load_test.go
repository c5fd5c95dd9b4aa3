package load

import (
	"fmt"
	"math"
	"os"
	"syscall"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/tapweave/tapweave/deploy/standalone/programtest"
	"github.com/tapweave/tapweave/deploy/standalone/servers"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/kafka/kafkatest"
)

// duration of the overload: SOAK, or a few seconds.
func duration(t *testing.T) time.Duration {
	s := os.Getenv("SOAK")
	if s == "" {
		return 5 * time.Second
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatalf("SOAK: %v", err)
	}
	return d
}

// throttle bounds what the broker takes of the collector, in bytes a second; 0: no more.
func throttle(t *testing.T, broker string, bytesPerSecond float64) {
	t.Helper()
	c := &kafkago.Client{Addr: kafkago.TCP(broker)}
	r, err := c.AlterClientQuotas(t.Context(), &kafkago.AlterClientQuotasRequest{Entries: []kafkago.AlterClientQuotaEntry{{
		Entities: []kafkago.AlterClientQuotaEntity{{EntityType: "client-id", EntityName: "tapweave-collector"}},
		Ops:      []kafkago.AlterClientQuotaOps{{Key: "producer_byte_rate", Value: bytesPerSecond, Remove: bytesPerSecond == 0}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range r.Entries {
		if e.Error != nil {
			t.Fatal(e.Error)
		}
	}
}

// pace is how many packets a second this machine sends, while another program receives them.
func pace(t *testing.T, frames [][]byte) float64 {
	t.Helper()
	s, began := newSender(startDrain(t), "127.0.0.1"), time.Now()
	for time.Since(began) < time.Second {
		for i := range 500 {
			s.send(frames[i])
		}
	}
	return float64(s.sent) / time.Since(began).Seconds()
}

// With several times as many packets as Kafka takes, and more than the sockets hold while the collector stands still,
// receiving goes on, memory stays bounded, and what was sent is published or counted by reason, to the packet.
// SOAK=1h makes it last an hour.
func TestOverload(t *testing.T) {
	programtest.Need(t, "java", "mvn")
	frames, lasts := mixed(t), duration(t)
	flood := floods(5000)
	broker, err := servers.StartKafka(t.Context(), servers.KafkaOptions{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { broker.Kill() })
	// A sixteenth of what this machine sends, of which each packet takes some 12 bytes without payload; but not so little
	// that the broker, which holds back who overdrew, takes minutes at the end.
	rate := pace(t, frames)
	throttle(t, broker.Addr(), math.Ceil(max(rate*12/16, 30_000)))
	const partitions, memory = 64, 1 << 20
	p := startCollector(t, broker.Addr(), "", fmt.Sprint("TAPWEAVE_PARTITIONS=", partitions), fmt.Sprint("TAPWEAVE_MEMORY_BYTES=", memory),
		"TAPWEAVE_SAMPLING_MODE=all", "TAPWEAVE_ALLOW_SOURCES=127.0.0.1/32", "TAPWEAVE_FLUSH_TIMEOUT=2m")
	own, stranger := newSender(p, "127.0.0.1"), newSender(p, "127.0.0.2")
	still := time.Now().Add(lasts / 3)
	for i, limit := 0, time.Now().Add(lasts); i < 400_000 || i%64 != 0 || time.Now().Before(limit); i++ {
		own.send(frames[i%len(frames)])
		switch i % 16 {
		case 3:
			own.send(flood["VXLAN in VXLAN"][i/16%5000])
		case 7:
			own.send(flood["fragments"][i/16%5000])
		case 11:
			stranger.send(flood["refused sources"][i/16%5000])
		case 15:
			own.send(frames[i%len(frames)][:i/16%40])
		}
		// No faster than it receives, however little of the machine it has: what the kernel drops, it drops below.
		if i%512 == 0 {
			p.wait(bufferBytes)
		}
		if i%64 == 0 && time.Now().After(still) {
			p.cmd.Process.Signal(syscall.SIGSTOP)
			waiting, before, _ := p.queue()
			for dropped := before; dropped == before && waiting < 2*bufferBytes; waiting, dropped, _ = p.queue() {
				for j := range 1000 {
					own.send(frames[j])
				}
			}
			p.cmd.Process.Signal(syscall.SIGCONT)
			still = time.Now().Add(max(lasts/3, 30*time.Second))
		}
	}
	p.wait(0)
	_, dropped, _ := p.queue()
	peak := p.peak()
	throttle(t, broker.Addr(), 0)
	p.end()
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit status %d", code)
	}

	k, err := kafka.New(kafka.Config{Brokers: []string{broker.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	last := counts(t, k)
	var refused, lost uint64
	for name, n := range last {
		switch {
		case name[0] == "refused":
			refused += n
		case name[0] == "lost" && name[1] != "kernel", name == [2]string{"shed", "packets"}:
			lost += n
		}
	}
	sent, received, published, kernel := uint64(own.sent+stranger.sent), last[[2]string{"received", "datagrams"}], last[[2]string{"published", "packets"}], last[[2]string{"lost", "kernel"}]
	t.Logf("%v, %.0f packets a second: %d sent, %d dropped by the kernel, %d received, %d refused, %d shed or lost for want of memory, %d published; at most %d MiB resident",
		lasts, rate, sent, kernel, received, refused, lost, published, peak>>20)
	// Strangers take no room in the socket's buffer: all of them are refused, however full it is.
	strangers := last[[2]string{"refused", "source"}]
	if strangers != uint64(stranger.sent) || strangers == 0 {
		t.Errorf("%d strangers were refused, of %d", strangers, stranger.sent)
	}
	if sent != received+kernel || kernel+strangers != dropped || kernel == 0 {
		t.Errorf("%d sent, but %d received and %d dropped by the kernel, which says %d with %d refused", sent, received, kernel, dropped, strangers)
	}
	if received != refused+lost+published || lost == 0 || published == 0 {
		t.Errorf("%d received, but %d refused, %d lost and %d published: %v", received, refused, lost, published, last)
	}
	if got := stored(t, k, partitions); got != published {
		t.Errorf("%d packets are on Kafka, %d are said to be", got, published)
	}
	if last[[2]string{"refused", "tunnel_too_deep"}] == 0 || last[[2]string{"shed", "payload_bytes"}] == 0 {
		t.Errorf("counts %v", last)
	}
	if most := uint64(256 << 20); peak > most {
		t.Errorf("%d MiB were resident", peak>>20)
	}
	if lasts >= 30*time.Second && published*4 > sent {
		t.Errorf("%d sent are not four times %d published", sent, published)
	}
}

// counts are those of the last record of tapweave.stats, by stage and reason.
func counts(t *testing.T, k *kafka.Client) map[[2]string]uint64 {
	t.Helper()
	_, end, err := k.Offsets(t.Context(), record.TopicStats, 0)
	if err != nil || end == 0 {
		t.Fatalf("%d records of counts, %v", end, err)
	}
	f, err := k.Fetch(t.Context(), record.TopicStats, 0, end-1, 1<<20, time.Second)
	if err != nil || len(f.Records) != 1 {
		t.Fatalf("%d records of counts, %v", len(f.Records), err)
	}
	s, err := record.UnmarshalStats(f.Records[0].Value)
	if err != nil {
		t.Fatal(err)
	}
	m := map[[2]string]uint64{}
	for _, c := range s.Counts {
		m[[2]string{c.Stage, c.Reason}] = c.Count
	}
	return m
}

// stored is how many packets are on the partitions, those that a retry wrote twice counted once.
func stored(t *testing.T, k *kafka.Client, partitions int) (packets uint64) {
	t.Helper()
	for i := range partitions {
		last := uint64(0)
		for _, v := range kafkatest.Values(t, k, record.TopicPackets, i) {
			p, err := record.UnmarshalPackets(v)
			if err != nil {
				t.Fatal(err)
			}
			if b := p.GetBatch(); b.Sequence > last {
				last = b.Sequence
				packets += uint64(b.Packets)
			}
		}
	}
	return packets
}
