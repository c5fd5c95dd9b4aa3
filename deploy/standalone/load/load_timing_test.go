package load

import (
	"strings"
	"testing"
	"time"

	"github.com/tapweave/tapweave/service/kafka/kafkatest"
)

// BenchmarkCollector sends the mixed capture as fast as it is taken: to a program that only receives (bare); to the
// collector at its defaults (mixed), which publishes to Kafka; and to a collector that refuses all of it, by the sender
// (refused) or by the network identifier (refused-vni).
// A flood comes alone, and with as many packets of the mixed capture. cpu-ns/packet is the receiving program's
// processor time, the kernel's for it among it, for each packet of the mixed capture; for a flood alone for each of it.
func BenchmarkCollector(b *testing.B) {
	frames := mixed(b)
	const allowed, stranger = "127.0.0.1", "127.0.0.2"
	run := func(name string, p func(tb testing.TB) *program, packets [][]byte, from string, flood [][]byte, floodFrom string) {
		b.Run(name, func(b *testing.B) {
			to := p(b)
			own, others := newSender(to, from), newSender(to, floodFrom)
			line := to.saturate()
			began := to.processor()
			for b.Loop() {
				for i := range frames {
					if packets != nil {
						own.send(packets[i])
						line.more()
					}
					if flood != nil {
						others.send(flood[i%len(flood)])
						line.more()
					}
				}
			}
			line.release()
			time.Sleep(700 * time.Millisecond) // until all of it is published
			spent, packets := to.processor()-began, b.N*len(frames)
			refused := 0 // by the kernel
			for _, s := range []*sender{own, others} {
				if s.from == stranger {
					refused += s.sent
				}
			}
			// Where the machine was so busy that a few found no room, these cost nothing.
			_, dropped, _ := to.queue()
			lost := int(dropped) - refused
			if lost < 0 || lost > packets/100 {
				b.Errorf("the kernel dropped %d of %d, and %d are refused", dropped, packets, refused)
			}
			b.ReportMetric(float64(spent.Nanoseconds())/float64(packets-lost), "cpu-ns/packet")
			b.ReportMetric(float64(to.peak())/(1<<20), "RSS-MiB")
		})
	}
	collector := func(env ...string) func(tb testing.TB) *program {
		return func(tb testing.TB) *program {
			c := kafkatest.Config(tb)
			return startCollector(tb, c.Brokers[0], c.TopicPrefix, env...)
		}
	}
	listed := collector("TAPWEAVE_ALLOW_SOURCES=" + allowed)
	run("bare", startDrain, frames, allowed, nil, allowed)
	run("mixed", listed, frames, allowed, nil, allowed)
	run("64-partitions", collector("TAPWEAVE_PARTITIONS=64"), frames, allowed, nil, allowed)
	run("refused", listed, frames, stranger, nil, allowed)
	run("refused-vni", collector("TAPWEAVE_ALLOW_VNIS=1"), frames, allowed, nil, allowed)
	for name, flood := range floods(10_000) {
		from := allowed
		if name == "refused sources" {
			from = stranger
		}
		name = strings.ReplaceAll(name, " ", "-")
		run("flood/"+name, listed, nil, allowed, flood, from)
		run("both/"+name, listed, frames, allowed, flood, from)
	}
}
