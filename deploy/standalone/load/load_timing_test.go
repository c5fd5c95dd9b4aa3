package load

import (
	"strings"
	"testing"
	"time"

	"github.com/tapweave/tapweave/service/kafka/kafkatest"
)

// BenchmarkCollector sends the mixed capture as fast as it is taken: to a program that only receives (bare); to the
// collector at its defaults (mixed), which publishes to Kafka; and to a collector that refuses all of it (refused).
// A flood comes alone, and with as many packets of the mixed capture. cpu-ns/packet is the receiving program's
// processor time, the kernel's for it among it, for each packet of the mixed capture; for a flood alone for each of it.
func BenchmarkCollector(b *testing.B) {
	frames := mixed(b)
	run := func(name string, p func(tb testing.TB) *program, packets, flood [][]byte, floodFrom string) {
		b.Run(name, func(b *testing.B) {
			to := p(b)
			own, others := newSender(to, "127.0.0.1"), newSender(to, floodFrom)
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
			b.ReportMetric(float64((to.processor()-began).Nanoseconds())/float64(b.N*len(frames)), "cpu-ns/packet")
			b.ReportMetric(float64(to.peak())/(1<<20), "RSS-MiB")
			if _, dropped, _ := to.queue(); dropped > 0 {
				b.Errorf("the kernel dropped %d", dropped)
			}
		})
	}
	collector := func(env ...string) func(tb testing.TB) *program {
		return func(tb testing.TB) *program {
			c := kafkatest.Config(tb)
			return startCollector(tb, c.Brokers[0], c.TopicPrefix, env...)
		}
	}
	run("bare", startDrain, frames, nil, "127.0.0.1")
	allowed := collector("TAPWEAVE_ALLOW_SOURCES=127.0.0.1/32")
	run("mixed", allowed, frames, nil, "127.0.0.1")
	run("64-partitions", collector("TAPWEAVE_PARTITIONS=64"), frames, nil, "127.0.0.1")
	run("refused", collector("TAPWEAVE_ALLOW_SOURCES=192.0.2.0/24"), frames, nil, "127.0.0.1")
	for name, flood := range floods(10_000) {
		from := "127.0.0.1"
		if name == "refused sources" {
			from = "127.0.0.2"
		}
		name = strings.ReplaceAll(name, " ", "-")
		run("flood/"+name, allowed, nil, flood, from)
		run("both/"+name, allowed, frames, flood, from)
	}
}
