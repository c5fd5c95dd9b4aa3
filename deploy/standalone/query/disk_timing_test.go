package query_test

import (
	"os"
	"testing"

	"github.com/tapweave/tapweave/deploy/standalone/rowstest"
	"github.com/tapweave/tapweave/sink/clickhouse/clickhousetest"
)

// BenchmarkDisk is what a session of the capture BENCH_CAPTURE takes on disk when all is merged: columns, indexes and marks.
func BenchmarkDisk(b *testing.B) {
	path := os.Getenv("BENCH_CAPTURE")
	if path == "" {
		b.Skip("BENCH_CAPTURE is not set")
	}
	c, server := rowstest.Database(b, path)
	if err := server.Exec(b.Context(), "OPTIMIZE TABLE "+c.Database+".sessions_versions FINAL"); err != nil {
		b.Fatal(err)
	}
	value := func(expression, table, more string) float64 {
		return clickhousetest.Value[float64](b, server, c, "SELECT "+expression+" FROM system."+table+" WHERE active AND database = '%[1]s' AND table = 'sessions_versions'"+more)
	}
	b.ReportMetric(value("sum(bytes_on_disk) / sum(rows)", "parts", ""), "B/session")
	b.ReportMetric(value("sum(secondary_indices_compressed_bytes) / sum(rows)", "parts", ""), "index-B/session")
	for _, column := range []string{"community_id", "session_id"} { // hashes, which cannot be compressed
		b.ReportMetric(value("sum(column_bytes_on_disk) / sum(rows)", "parts_columns", " AND column = '"+column+"'"), column+"-B/session")
	}
	b.ReportMetric(0, "ns/op")
}
