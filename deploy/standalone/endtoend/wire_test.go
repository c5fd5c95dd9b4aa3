package endtoend

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapweave/tapweave/collector/decode"
	"github.com/tapweave/tapweave/collector/sample"
	"github.com/tapweave/tapweave/deploy/standalone/read"
	"github.com/tapweave/tapweave/deploy/standalone/replay"
	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/proto/capturetest"
)

// endless is for borders of sessions that depend on the pace of packets, which replay changes.
const endless = fold.Never

// pps is the pace of the replays: slow enough that no socket overflows on a busy machine of two cores.
const pps = 20000

// notCompared are the columns that depend on when packets came, in which order, and which way.
var notCompared = []string{
	"session_id", "version", "start_time", "end_time", "duration", "handshake_rtt", "src_rtt", "dst_rtt", "history",
	"src_out_of_order", "dst_out_of_order", "src_retransmits", "dst_retransmits",
	"collectors", "tap_points", "outer_ports", "vnis", "duplicate_packets",
	"input_partition", "log_epoch", "owner_epoch", "output_number", "created_time", // of ClickHouse alone
}

// expected is what tapweave read makes of a capture, and how many packets it holds.
func expected(t *testing.T, path string) (rows []map[string]any, packets int) {
	t.Helper()
	o := read.DefaultOptions()
	o.Fold = o.Fold.Endless()
	o.Sampling = sample.DefaultConfiguration()
	o.Sampling.Mode = sample.All // as the collectors are started
	var out bytes.Buffer
	result, err := read.Run(o, []string{path}, &out)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(out.Bytes()) {
		var row map[string]any
		if err := json.Unmarshal(line, &row); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row)
	}
	slices.SortStableFunc(rows, func(a, b map[string]any) int {
		return strings.Compare(a["start_time"].(string), b["start_time"].(string))
	})
	return rows, int(result.Decoded[decode.OK])
}

// play sends a capture, of one or several files, to both collectors and returns when all packets are on the log: as many
// as are given, or as were sent.
func (s *stack) play(packets int, paths ...string) {
	s.t.Helper()
	var captures []*replay.Capture
	for _, path := range paths {
		c, err := replay.Open(path)
		if err != nil {
			s.t.Fatal(err)
		}
		defer c.Close()
		captures = append(captures, c)
	}
	before := s.count()
	if before != s.counted {
		s.t.Fatal("counting while counting")
	}
	result, err := replay.Run(s.t.Context(), replay.Options{To: s.collectors, PPS: pps}, captures)
	if err != nil {
		s.t.Fatal(err)
	}
	if p := result.Problems(); len(p) > 0 {
		s.t.Fatal(p)
	}
	if packets == allSent {
		packets = int(result.Packets)
	}
	s.eventually(30*time.Second, "all packets of "+filepath.Base(paths[0]), func() error {
		if n := s.count() - before; n != packets {
			return fmt.Errorf("%d of %d packets are on the log, %d were sent", n, packets, result.Packets)
		}
		return nil
	})
}

// allSent is as many packets as were sent.
const allSent = -1

// sessions waits for n sessions that are final and began at or after a time, by ClickHouse's clock, and returns them.
func (s *stack) sessions(since string, n int) []map[string]any {
	s.t.Helper()
	var rows []map[string]any
	s.eventually(60*time.Second, fmt.Sprintf("%d sessions", n), func() error {
		var err error
		if rows, err = s.tryQuery("SELECT * FROM sessions WHERE start_time >= '" + since + "' ORDER BY start_time"); err != nil {
			return err
		}
		final := 0
		for _, r := range rows {
			if r["is_final"] == true || r["is_final"] == 1.0 {
				final++
			}
		}
		if len(rows) != n || final != n {
			return fmt.Errorf("there are %d, %d of them final", len(rows), final)
		}
		return nil
	})
	return rows
}

// mixed are captures whose second copies are others on the wire, and why.
var mixed = map[string]string{
	"zeek__vxlan-overlapping-http-get.pcap": "the same packets plain and in VXLAN: replay puts a carrier around the plain ones, so that they come from tap points of equal depth",
}

// total is the number of packets of all sessions, second copies among them.
func total(rows []map[string]any) (n float64) {
	for _, r := range rows {
		for _, column := range []string{"src_packets", "dst_packets", "duplicate_packets"} {
			n += r[column].(float64)
		}
	}
	return n
}

// TestWire sends every capture as VXLAN through two collectors, Kafka, the enricher and the sink: the rows in
// ClickHouse are those that tapweave read prints, and traffic adds up to them.
func TestWire(t *testing.T) {
	paths := capturetest.Files(t)
	s := newStack(t)
	inViews := map[string]float64{} // sessions that the views of applications are to have
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			outer := s.t
			s.t = t
			defer func() { s.t = outer }()
			want, packets := expected(t, path)
			countViews(inViews, want)
			since := s.now()
			s.play(packets, path)
			s.endOfInput()
			got := s.sessions(since, len(want))
			if mixed[filepath.Base(path)] == "" {
				compare(t, want, got)
			} else if n := total(want); total(got) != n {
				t.Errorf("%v packets with all copies, want %v", total(got), n)
			}
		})
	}
	for _, name := range splitElsewhere {
		t.Run("mirrored/"+name, func(t *testing.T) {
			outer := s.t
			s.t = t
			defer func() { s.t = outer }()
			path := capturetest.File(t, name)
			want, _ := expected(t, path)
			countViews(inViews, want)
			since := s.now()
			s.play(allSent, capturetest.Mirrored(t, path, "--tap", "both", "--rehash-after", "10", "--jitter", "0.2")...)
			s.endOfInput()
			got := s.sessions(since, len(want))
			compare(t, want, got)
			copies := 0.0
			for _, row := range got {
				copies += row["duplicate_packets"].(float64)
			}
			if copies*2 != total(got) {
				t.Errorf("%v of %v packets are second copies, want half", copies, total(got))
			}
		})
	}
	s.t = t
	s.checkTraffic()
	for view := range applicationViews {
		if n := s.query("SELECT toFloat64(count()) AS n FROM " + view)[0]["n"]; n != inViews[view] || n == 0.0 {
			t.Errorf("%v sessions in the view %s, want %v", n, view, inViews[view])
		}
	}
}

// splitElsewhere are captures that are also sent as a splitter of other make has made them: two copies of each packet,
// of two taps, whose way changes in the middle of a session.
var splitElsewhere = []string{
	"try-zeek__http.pcap", "zeek__206_example_b.pcap", "PcapPlusPlus__650HttpResponses.pcap", "zeek__rdp-to-ssl.pcap",
	"nDPI__dns_fragmented.pcap", "retina__quic.pcap", "arkime__tls-split-client-hello.pcap", "zeek__vlan-collisions.pcap",
}

// now is the time by ClickHouse's clock.
func (s *stack) now() string {
	return s.query("SELECT toString(now64(9, 'UTC')) AS now")[0]["now"].(string)
}

func countViews(inViews map[string]float64, rows []map[string]any) {
	for _, row := range rows {
		for view, columns := range applicationViews {
			if row["app"] == view || slices.ContainsFunc(columns, func(c string) bool { return row[c] != nil }) {
				inViews[view]++
			}
		}
	}
}

// applicationViews are the views of applications, and the columns that make a session one of theirs.
var applicationViews = map[string][]string{"dns": {"dns_query"}, "tls": {"tls_version", "tls_sni"}, "http": {"http_method", "http_status"}}

// compare holds rows of ClickHouse against lines of tapweave read, conversation by conversation, in order.
func compare(t *testing.T, want, got []map[string]any) {
	t.Helper()
	a, b := byConversation(want), byConversation(got)
	bad := 0
	for _, k := range slices.Sorted(maps.Keys(a)) {
		if len(a[k]) != len(b[k]) {
			t.Errorf("%s: %d sessions, want %d", k, len(b[k]), len(a[k]))
			continue
		}
		for i := range a[k] {
			w, g := comparable(a[k][i]), comparable(b[k][i])
			for _, column := range slices.Sorted(maps.Keys(union(w, g))) {
				if !reflect.DeepEqual(w[column], g[column]) && bad < 20 {
					bad++
					t.Errorf("%s, session %d: %s is %v, want %v", k, i, column, g[column], w[column])
				}
			}
		}
	}
	for k := range b {
		if a[k] == nil {
			t.Errorf("%s: not there in tapweave read", k)
		}
	}
}

func union(a, b map[string]any) map[string]any {
	u := maps.Clone(a)
	maps.Copy(u, b)
	return u
}

func byConversation(rows []map[string]any) map[string][]map[string]any {
	m := map[string][]map[string]any{}
	for _, r := range rows {
		ends := []string{fmt.Sprint(r["src_ip"], " ", number(r["src_port"])), fmt.Sprint(r["dst_ip"], " ", number(r["dst_port"]))}
		slices.Sort(ends)
		k := fmt.Sprint(r["tenant"], " ", r["ip_protocol"], " ", ends)
		m[k] = append(m[k], r)
	}
	return m
}

func number(v any) any {
	if v == nil {
		return 0.0
	}
	return v
}

// comparable is a row without the columns that are not compared, and without those that are unknown: absent in
// JSON, empty in ClickHouse.
func comparable(row map[string]any) map[string]any {
	c := map[string]any{}
	for k, v := range row {
		if slices.Contains(notCompared, k) || v == nil {
			continue
		}
		if list, ok := v.([]any); ok && len(list) == 0 {
			continue
		}
		if r := reflect.ValueOf(v); !r.IsZero() && v != "00:00:00:00:00:00" {
			c[k] = v
		}
	}
	return c
}

// checkTraffic holds traffic against sessions: for every value of every dimension all sums are equal.
func (s *stack) checkTraffic() {
	s.t.Helper()
	const sums = "sum(src_packets), sum(dst_packets), sum(src_bytes), sum(dst_bytes), sum(src_payload_bytes), sum(dst_payload_bytes)"
	dimensions := []string{"tenant", "dst_port", "protocol", "app", "direction", "flow_type"}
	for _, end := range []string{"src", "dst"} {
		for _, d := range []string{"name", "subnet", "vnet", "country", "asn"} {
			dimensions = append(dimensions, end+"_"+d)
		}
	}
	for _, table := range []string{"traffic_1m", "traffic_1h"} {
		for _, d := range dimensions {
			query := "SELECT toString(" + d + ") AS value, toInt64(%s) AS n, arrayMap(x -> toInt64(x), [" + sums + "]) AS sums FROM %s GROUP BY value HAVING n != 0 OR arrayExists(x -> x != 0, sums) ORDER BY value"
			want, got := s.query(fmt.Sprintf(query, "count()", "sessions")), s.query(fmt.Sprintf(query, "sum(sessions)", table))
			if len(want) == 0 || !reflect.DeepEqual(want, got) {
				s.t.Errorf("%s by %s:\n%v\nsessions say\n%v", table, d, got, want)
			}
		}
	}
}
