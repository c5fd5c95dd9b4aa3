package clickhouse

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapweave/tapweave/service/stats"
	"github.com/tapweave/tapweave/sink/migrate"
)

// metrics of the output. What is counted by reason is in pipeline_stats too.
type metrics struct {
	records, lost, retries  *stats.Counter
	repeats, stale, missing *stats.Counter
	rows                    map[string]*stats.Counter // by table
	seconds, blockRows      *prometheus.HistogramVec  // by table
	lag                     *prometheus.GaugeVec      // by partition
}

func newMetrics(c *stats.Counters, r prometheus.Registerer) *metrics {
	m := &metrics{
		records: c.Counter("clickhouse", "records"),
		lost:    c.Counter("clickhouse", "records_lost_to_retention"),
		retries: c.Counter("clickhouse", "retries"),
		repeats: c.Counter("clickhouse", "records_repeated"),
		stale:   c.Counter("clickhouse", "records_of_superseded_owners"),
		missing: c.Counter("clickhouse", "outputs_missing"),
		rows:    map[string]*stats.Counter{},
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tapweave_sink_clickhouse_insert_seconds", Help: "Time of inserts that succeeded.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 14),
		}, []string{"table"}),
		blockRows: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tapweave_sink_clickhouse_insert_rows", Help: "Rows of an insert.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 11),
		}, []string{"table"}),
		lag: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "tapweave_sink_clickhouse_lag_records", Help: "Records of tapweave.sessions that are not inserted yet, as of the last insert.",
		}, []string{"partition"}),
	}
	for _, table := range []string{migrate.Versions, migrate.TrafficMinute, migrate.TrafficHour, migrate.Packets, migrate.Alerts, migrate.PipelineStats} {
		m.rows[table] = c.Counter("rows", table)
	}
	r.MustRegister(m.seconds, m.blockRows, m.lag)
	return m
}

func (m *metrics) inserted(table string, rows int, took time.Duration) {
	m.rows[table].Add(uint64(rows))
	m.seconds.WithLabelValues(table).Observe(took.Seconds())
	m.blockRows.WithLabelValues(table).Observe(float64(rows))
}
