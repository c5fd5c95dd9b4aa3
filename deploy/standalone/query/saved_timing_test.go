package query_test

import (
	"bytes"
	"cmp"
	"os"
	"strconv"
	"testing"
	"time"

	saved "github.com/tapweave/tapweave/deploy/clickhouse"
	"github.com/tapweave/tapweave/sink/clickhouse/clickhousetest"
)

// BenchmarkSaved is how long the saved queries and look-ups by address take over the sessions of a day: 10 M of them, or as many
// as TAPWEAVE_BENCH_SESSIONS says. Of three answers the quickest counts: other work on the machine is not the query's.
func BenchmarkSaved(b *testing.B) {
	n, err := strconv.Atoi(cmp.Or(os.Getenv("TAPWEAVE_BENCH_SESSIONS"), "10000000"))
	if err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	c, d := generate(b, n)
	b.Logf("%d sessions generated in %s", n, time.Since(began).Round(time.Second))
	if bytes := clickhousetest.Value[float64](b, d.Server, c, "SELECT sum(bytes_on_disk) / sum(rows) FROM system.parts WHERE active AND database = '%[1]s' AND table = 'sessions_versions'"); bytes > 0 {
		b.Logf("%.0f bytes a session on disk", bytes)
	}
	all, err := saved.Queries()
	if err != nil {
		b.Fatal(err)
	}
	measure := func(name string, ask func(answer *bytes.Buffer) error) {
		b.Run(name, func(b *testing.B) {
			best := time.Hour
			for range 3 * b.N {
				var answer bytes.Buffer
				began := time.Now()
				if err := ask(&answer); err != nil {
					b.Fatal(err)
				}
				best = min(best, time.Since(began))
			}
			b.ReportMetric(best.Seconds()*1000, "ms")
			b.ReportMetric(0, "ns/op")
		})
	}
	for _, q := range all {
		parameters := map[string]string{}
		for _, p := range q.Parameters {
			if v, ok := day[p.Name]; ok {
				parameters[p.Name] = v
			}
		}
		measure(q.Name, func(answer *bytes.Buffer) error { return d.Saved(b.Context(), "json", q.Name, parameters, answer) })
	}
	for name, where := range map[string]string{
		"point-src":       "src_ip = '10.1.3.42'",
		"point-dst":       "dst_ip = '10.2.5.17'",
		"point-either":    "src_ip = '10.1.3.42' OR dst_ip = '10.1.3.42'",
		"point-subnet":    "isIPAddressInRange(src_ip, '10.1.3.0/24')",
		"point-community": "community_id = (SELECT concat('1:', base64Encode(SHA1(toString(" + strconv.Itoa(n-n/100) + ")))))",
	} {
		sql := "SELECT count() AS sessions, sum(src_bytes) AS bytes FROM sessions WHERE (" + where + ") AND start_time >= toDateTime('" + until + "', 'UTC') - INTERVAL 1 HOUR"
		measure(name, func(answer *bytes.Buffer) error { return d.Run(b.Context(), "json", sql, nil, answer) })
	}
}
