package endtoend

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tapweave/tapweave/deploy/standalone/replay"
	"github.com/tapweave/tapweave/proto/record"
)

// BenchmarkLatency is how long it takes from a session's first packet until the session can be queried, and how much of that is
// the sink's: from the time at which the enricher produced its record. All services are programs with their defaults, on one
// machine with Kafka, ClickHouse and the sender. BENCH_CAPTURE is sent with BENCH_PPS packets a second: busy says how much of the
// machine that takes.
func BenchmarkLatency(b *testing.B) {
	path := os.Getenv("BENCH_CAPTURE")
	if path == "" {
		b.Skip("BENCH_CAPTURE is not set")
	}
	pps, err := strconv.ParseFloat(cmp.Or(os.Getenv("BENCH_PPS"), "20000"), 64)
	if err != nil {
		b.Fatal(err)
	}
	s := newServers(b)
	udp := freePort(b, "udp")
	s.start("collector-1", "collector", "TAPWEAVE_LISTEN="+udp)
	s.start("enricher-1", "enricher")
	s.start("sink-1", "sink")
	for _, v := range s.services {
		s.ready(v)
	}
	in, err := replay.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	sending, stopSending := context.WithCancel(b.Context())
	defer stopSending()
	sent := make(chan error, 1)
	go func() {
		_, err := replay.Run(sending, replay.Options{To: []string{udp}, PPS: pps}, []*replay.Capture{in})
		sent <- err
	}()
	time.Sleep(5 * time.Second) // until everything has warmed up
	// Parts stay what one insert made of them, so that each says of its rows when they came.
	s.query("SYSTEM STOP MERGES tapweave.sessions_versions")
	ctx, stop := context.WithCancel(b.Context())
	seen, watched := map[string]time.Time{}, make(chan struct{})
	go func() {
		defer close(watched)
		for ctx.Err() == nil {
			rows, err := s.tryQuery("SELECT name FROM system.parts WHERE database = 'tapweave' AND table = 'sessions_versions' AND active")
			now := time.Now()
			if err == nil {
				for _, r := range rows {
					if name := r["name"].(string); seen[name].IsZero() {
						seen[name] = now
					}
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	time.Sleep(time.Second)
	from := time.Now()
	idle, total := processor(b)
	select {
	case err := <-sent:
		b.Fatalf("the capture was over too soon: %v", err)
	case <-time.After(40 * time.Second):
	}
	idleAfter, totalAfter := processor(b)
	to := time.Now()
	stopSending()
	<-sent
	time.Sleep(3 * time.Second)
	stop()
	<-watched

	produced := map[[2]uint64]time.Time{} // by input partition and number
	for p := range record.DefaultOutputPartitions {
		_, end, err := s.client.Offsets(b.Context(), record.TopicSessions, p)
		if err != nil {
			b.Fatal(err)
		}
		for next := int64(0); next < end; {
			f, err := s.client.Fetch(b.Context(), record.TopicSessions, p, next, 4<<20, time.Second)
			if err != nil {
				b.Fatal(err)
			}
			for _, r := range f.Records {
				m, err := record.UnmarshalSessions(r.Value)
				if err != nil {
					b.Fatal(err)
				}
				if o := m.GetOutput(); o != nil {
					produced[[2]uint64{uint64(m.InputPartition), o.Number}] = r.Time
				}
			}
			next = f.Next
		}
	}
	var all, sink []time.Duration
	for _, r := range s.query(fmt.Sprintf("SELECT _part AS part, toUnixTimestamp64Nano(start_time) AS start, input_partition AS input, output_number AS number FROM sessions_versions WHERE version = 1 AND start_time BETWEEN fromUnixTimestamp64Nano(%d) AND fromUnixTimestamp64Nano(%d)", from.UnixNano(), to.UnixNano())) {
		at := seen[r["part"].(string)]
		began := produced[[2]uint64{uint64(r["input"].(float64)), uint64(r["number"].(float64))}]
		if at.IsZero() || began.IsZero() {
			b.Fatalf("nobody saw %v come", r)
		}
		all = append(all, at.Sub(time.Unix(0, int64(r["start"].(float64)))))
		sink = append(sink, at.Sub(began))
	}
	if len(all) == 0 {
		b.Fatal("no sessions")
	}
	quantile := func(list []time.Duration, q float64) float64 {
		slices.Sort(list)
		return list[int(q*float64(len(list)-1))].Seconds() * 1000
	}
	b.ReportMetric(quantile(all, 0.5), "p50-ms")
	b.ReportMetric(quantile(all, 0.99), "p99-ms")
	b.ReportMetric(quantile(sink, 0.5), "sink-p50-ms")
	b.ReportMetric(quantile(sink, 0.99), "sink-p99-ms")
	b.ReportMetric(float64(len(all))/to.Sub(from).Seconds(), "sessions/s")
	b.ReportMetric(100-100*float64(idleAfter-idle)/float64(totalAfter-total), "%busy")
	b.ReportMetric(0, "ns/op")
}

// processor returns how long the machine's processors have been idle, and how long they have been, in ticks.
func processor(tb testing.TB) (idle, total uint64) {
	tb.Helper()
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		tb.Fatal(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	for i, f := range strings.Fields(line)[1:9] {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			tb.Fatal(err)
		}
		if total += n; i == 3 || i == 4 { // idle, waiting for a disk
			idle += n
		}
	}
	return idle, total
}
