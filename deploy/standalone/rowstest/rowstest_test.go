package rowstest_test

import (
	"bytes"
	"testing"

	"github.com/tapweave/tapweave/deploy/standalone/read"
	"github.com/tapweave/tapweave/deploy/standalone/rowstest"
	"github.com/tapweave/tapweave/proto/capturetest"
	"github.com/tapweave/tapweave/sink/clickhouse/clickhousetest"
)

// The rows are those that tapweave read prints, and traffic adds up to them.
func TestDatabase(t *testing.T) {
	path := capturetest.File(t, "zeek__rdp-to-ssl.pcap")
	var lines bytes.Buffer
	if _, err := read.Run(read.DefaultOptions(), []string{path}, &lines); err != nil {
		t.Fatal(err)
	}
	c, server := rowstest.Database(t, path)
	if n := clickhousetest.Value[uint64](t, server, c, "SELECT count() FROM %[1]s.sessions WHERE is_final"); n == 0 || int(n) != bytes.Count(lines.Bytes(), []byte("\n")) {
		t.Errorf("%d sessions, tapweave read prints\n%s", n, &lines)
	}
	if !clickhousetest.Value[bool](t, server, c, `WITH (SELECT toInt64(sum(src_bytes + dst_bytes)) FROM %[1]s.sessions) AS bytes SELECT
		bytes > 0 AND bytes = (SELECT sum(src_bytes + dst_bytes) FROM %[1]s.traffic_1m)
			AND bytes = (SELECT sum(src_bytes + dst_bytes) FROM %[1]s.traffic_1h)
			AND bytes = (SELECT toInt64(sum(length)) FROM %[1]s.packets)`) {
		t.Error("traffic is not that of the sessions")
	}
}
