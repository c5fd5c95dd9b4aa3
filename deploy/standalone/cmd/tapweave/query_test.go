package main

import (
	"encoding/csv"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/pcapgo"

	"github.com/tapweave/tapweave/deploy/standalone/rowstest"
	"github.com/tapweave/tapweave/proto/capturetest"
	"github.com/tapweave/tapweave/sink/clickhouse/clickhousetest"
)

// tapweave query prints answers in each format, and cannot change anything, whatever the user may.
func TestQuery(t *testing.T) {
	c, server := rowstest.Database(t, capturetest.File(t, "zeek__rdp-to-ssl.pcap"))
	ask := func(args ...string) (status int, stdout, stderr string) {
		return run(t, append([]string{"query", "--server", c.Addresses[0], "--user", c.Username, "--database", c.Database}, args...)...)
	}
	const sql = "SELECT src_port, dst_ip, src_bytes, src_rtt IS NULL AS unknown, 'a,\"b\"' AS odd FROM sessions ORDER BY src_port"
	status, stdout, stderr := ask("--format", "json", sql)
	if want := `{"src_port":49206,"dst_ip":"192.168.1.150","src_bytes":1884,"unknown":0,"odd":"a,\"b\""}` + "\n" +
		`{"src_port":49207,"dst_ip":"192.168.1.150","src_bytes":24129,"unknown":0,"odd":"a,\"b\""}` + "\n"; status != 0 || stdout != want || stderr != "" {
		t.Errorf("json: status %d, %q, %s\nwant %q", status, stderr, stdout, want)
	}
	status, stdout, stderr = ask("--format", "csv", sql)
	lines, err := csv.NewReader(strings.NewReader(stdout)).ReadAll()
	if status != 0 || err != nil || stderr != "" || len(lines) != 3 || strings.Join(lines[0], " ") != "src_port dst_ip src_bytes unknown odd" || strings.Join(lines[2], " ") != `49207 192.168.1.150 24129 0 a,"b"` {
		t.Errorf("csv: status %d, %v, %q, %q", status, err, stderr, lines)
	}
	status, stdout, stderr = ask(sql)
	if rows := strings.Split(strings.TrimSpace(stdout), "\n"); status != 0 || stderr != "" || len(rows) != 4 || !strings.Contains(rows[0], "─src_port─") || !strings.HasPrefix(rows[1], "│    49206 │ 192.168.1.150 │") {
		t.Errorf("table: status %d, %q\n%s", status, stderr, stdout)
	}
	status, stdout, stderr = ask("--format", "json", "--param", "port=49207", "SELECT count() AS n FROM sessions WHERE src_port = {port:UInt16}")
	if status != 0 || stdout != "{\"n\":1}\n" {
		t.Errorf("with a parameter: status %d, %s%s", status, stdout, stderr)
	}
	status, stdout, stderr = ask("--format", "csv", "--saved", "top-talkers", "--param", "from=2011-02-12 00:00:00", "--param", "to=2011-02-14 00:00:00")
	if status != 0 || !strings.Contains(stdout, `"192.168.1.200",`) || stderr != "" {
		t.Errorf("saved: status %d, %s%s", status, stdout, stderr)
	}
	if status, stdout, _ = ask("--list"); status != 0 || !strings.Contains(stdout, "top-talkers") {
		t.Errorf("list: status %d, %s", status, stdout)
	}

	for _, change := range []string{"INSERT INTO sessions_versions (tenant) VALUES ('x')", "DROP TABLE sessions_versions", "ALTER TABLE sessions_versions DELETE WHERE 1", "TRUNCATE TABLE traffic_1m", "SELECT 1 SETTINGS readonly = 0"} {
		status, stdout, stderr := ask(change)
		if status != 1 || stdout != "" {
			t.Errorf("%s: status %d, %s", change, status, stdout)
		}
		oneLine(t, stderr, "ClickHouse at "+c.Addresses[0])
	}
	if n := clickhousetest.Value[uint64](t, server, c, "SELECT count() FROM %[1]s.sessions"); n != 2 {
		t.Errorf("%d sessions afterwards", n)
	}
	status, _, stderr = ask("SELECT nonsense FROM sessions")
	if status != 1 {
		t.Errorf("nonsense: status %d", status)
	}
	oneLine(t, stderr, "nonsense")
}

// tapweave pcap writes the packets of the sessions that a condition chooses, in the order of their capture.
func TestPcap(t *testing.T) {
	c, _ := rowstest.Database(t, capturetest.File(t, "zeek__rdp-to-ssl.pcap"))
	file := filepath.Join(t.TempDir(), "out.pcapng")
	write := func(where string) (status int, stdout, stderr string) {
		return run(t, "pcap", "--server", c.Addresses[0], "--user", c.Username, "--database", c.Database, "--where", where, "-o", file)
	}
	if status, _, stderr := write("src_ip = '192.168.1.200' AND src_port = 49206"); status != 0 {
		t.Fatalf("status %d, %s", status, stderr)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	n, last := 0, time.Time{}
	for ; ; n++ {
		data, info, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || len(data) == 0 || info.Timestamp.Before(last) {
			t.Fatalf("frame %d at %v after %v: %d bytes, %v", n+1, info.Timestamp, last, len(data), err)
		}
		last = info.Timestamp
	}
	if n != 19 { // tshark: 9 and 10 of the first connection
		t.Errorf("%d frames", n)
	}
	status, _, stderr := write("dst_port = 1")
	if status != 1 {
		t.Errorf("no packets: status %d", status)
	}
	oneLine(t, stderr)
}
