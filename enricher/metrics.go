package enricher

import (
	"math"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/service/stats"
)

// counts are what the service counts, by stage: input, fold (by fold.Reason), output, group.
type counts struct {
	records, bytes, passed *stats.Counter
	fold                   [fold.Reasons]*stats.Counter
	skewed                 func(collector string) *stats.Counter

	outputs, outputBytes, versions, settled, bookings, packets, alerts *stats.Counter

	snapshots, snapshotBytes, committed, damaged *stats.Counter

	labelsRead, labelsRefused, labelsWritten, labelsFetched *stats.Counter

	assigned, degraded, failures *stats.Counter
}

func newCounts(c *stats.Counters) (n counts) {
	n.records = c.Counter("input", "records")
	n.bytes = c.Counter("input", "bytes")
	n.passed = c.Counter("input", "records_removed_before_read") // by retention
	for i := range n.fold {
		n.fold[i] = c.Counter("fold", fold.Reason(i).String())
	}
	n.skewed = func(collector string) *stats.Counter { return c.Counter("clock_skew", collector) } // batches
	n.outputs = c.Counter("output", "records")
	n.outputBytes = c.Counter("output", "bytes")
	n.versions = c.Counter("output", "session_versions")
	n.settled = c.Counter("output", "sessions_settled")
	n.bookings = c.Counter("output", "traffic_rows")
	n.packets = c.Counter("output", "packet_rows")
	n.alerts = c.Counter("output", "alert_rows")
	n.snapshots = c.Counter("state", "snapshots")
	n.snapshotBytes = c.Counter("state", "snapshot_bytes")
	n.committed = c.Counter("state", "snapshots_committed")
	n.damaged = c.Counter("state", "snapshots_damaged")
	n.labelsRead = c.Counter("labels", "sets_read")
	n.labelsRefused = c.Counter("labels", "sets_refused") // a file was wrong
	n.labelsWritten = c.Counter("labels", "parts_written")
	n.labelsFetched = c.Counter("labels", "parts_fetched")
	n.assigned = c.Counter("group", "assignments")
	n.degraded = c.Counter("group", "assignments_degraded")
	n.failures = c.Counter("group", "kafka_calls_failed")
	return n
}

// count adds what the partition has done since the last call.
func (p *partition) count() {
	n := p.stream.Fold().Counts()
	for i := range n {
		p.counts.fold[i].Add(n[i] - p.folded[i])
	}
	p.folded = n
	for i, s := range p.stream.Fold().Skewed() {
		if i == len(p.skewed) {
			p.skewed = append(p.skewed, 0)
		}
		if s.Batches > p.skewed[i] {
			p.counts.skewed(s.Collector).Add(s.Batches - p.skewed[i])
			p.skewed[i] = s.Batches
			p.limited.Warn("skewed "+s.Collector, "the clock of a collector is off: its packets are given the time at which they are folded; mend its time synchronisation", "collector", s.Collector, "ahead", time.Duration(s.Ahead))
		}
	}
	o := p.stream.Counts()
	p.counts.outputs.Add(o.Outputs - p.put.Outputs)
	p.counts.outputBytes.Add(o.Bytes - p.put.Bytes)
	p.counts.versions.Add(o.SessionVersions - p.put.SessionVersions)
	p.counts.settled.Add(o.SessionsSettled - p.put.SessionsSettled)
	p.counts.bookings.Add(o.Bookings - p.put.Bookings)
	p.counts.packets.Add(o.Packets - p.put.Packets)
	p.counts.alerts.Add(o.Alerts - p.put.Alerts)
	p.put = o
	p.gauge()
}

// uncounted leaves out what the partition has done since the last call of count: it was counted by the owner that
// did it first.
func (p *partition) uncounted() {
	p.folded, p.put = p.stream.Fold().Counts(), p.stream.Counts()
	p.skewed = p.skewed[:0]
	for _, s := range p.stream.Fold().Skewed() {
		p.skewed = append(p.skewed, s.Batches)
	}
	p.gauge()
}

func (p *partition) gauge() {
	f := p.stream.Fold()
	p.watermark.Store(f.Watermark())
	p.open.Store(int64(f.Open()))
	p.buffered.Store(int64(f.Buffered()))
}

// gauges are the state of each partition as metrics, so that hot ones are seen.
type gauges struct{ s *Service }

var (
	lagGauge      = gauge("lag_seconds", "Wall clock less the watermark: how old packets are when they are folded.")
	openGauge     = gauge("sessions_open", "Sessions in memory.")
	bufferedGauge = gauge("bytes_buffered", "Bytes of batches that wait for the watermark.")
	behindGauge   = gauge("records_behind", "Records of tapweave.packets that are not folded yet.")
)

func gauge(name, help string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName("tapweave", "enricher", name), help, []string{"partition"}, nil)
}

// Describe implements prometheus.Collector.
func (gauges) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{lagGauge, openGauge, bufferedGauge, behindGauge} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (g gauges) Collect(ch chan<- prometheus.Metric) {
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	for _, p := range g.s.owned {
		if !p.running.Load() {
			continue
		}
		partition := strconv.Itoa(p.assigned.Partition)
		value := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, partition)
		}
		if w := p.watermark.Load(); w != math.MinInt64 {
			value(lagGauge, time.Since(time.Unix(0, w)).Seconds())
		}
		value(openGauge, float64(p.open.Load()))
		value(bufferedGauge, float64(p.buffered.Load()))
		value(behindGauge, float64(p.behind.Load()))
	}
}
