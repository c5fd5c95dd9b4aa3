package output

import (
	"fmt"
	"testing"
	"time"

	"github.com/tapweave/tapweave/enricher/internal/synthetic"
)

// What borders cost: outputs, bytes and time for 20 s of 50 sessions a second, by the event time between outputs.
func BenchmarkEvery(b *testing.B) {
	l := synthetic.Write(synthetic.Options{Seed: 1, Sessions: 1000, Partitions: 1, Start: start, Span: 20 * time.Second, Every: 100 * time.Millisecond})
	for _, every := range []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond, time.Second} {
		b.Run(fmt.Sprint(every), func(b *testing.B) {
			var n Counts
			for range b.N {
				s, _ := newStream(b, func(c *Config) { c.Output.Every = every })
				feed(b, s, l)
				n = s.Counts()
			}
			b.ReportMetric(float64(n.Outputs), "outputs/op")
			b.ReportMetric(float64(n.Bytes)/float64(n.Outputs), "B/output")
			b.ReportMetric(float64(n.Bytes)/float64(n.SessionVersions), "B/version")
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(n.Outputs), "µs/output")
		})
	}
}
