package query_test

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	driver "github.com/ClickHouse/clickhouse-go/v2"

	saved "github.com/tapweave/tapweave/deploy/clickhouse"
	"github.com/tapweave/tapweave/deploy/standalone/query"
	"github.com/tapweave/tapweave/deploy/standalone/read"
	"github.com/tapweave/tapweave/deploy/standalone/rowstest"
	"github.com/tapweave/tapweave/proto/capturetest"
	"github.com/tapweave/tapweave/sink/clickhouse"
	"github.com/tapweave/tapweave/sink/clickhouse/clickhousetest"
)

//go:embed testdata/generated.sql
var generated string

//go:embed testdata/traffic.sql
var traffic string

// The generated sessions are of the day before this time.
const until = "2026-03-02 00:00:00"

var day = map[string]string{"from": "2026-03-01 00:00:00", "to": until}

// ever is as long as captures were made.
var ever = map[string]string{"from": "1990-01-01 00:00:00", "to": "2030-01-01 00:00:00"}

// generate fills a database with made up sessions and what was booked for them.
func generate(tb testing.TB, rows int) (clickhouse.Config, query.Database) {
	tb.Helper()
	c := clickhousetest.Config(tb)
	d := query.Database{Server: clickhousetest.Migrated(tb, c), Name: c.Database}
	fill(tb, d, rows, until)
	return c, d
}

// fill makes up the sessions of the day before a time, and their bookings: some at a time, for an insert has a minute.
func fill(tb testing.TB, d query.Database, rows int, until string) {
	tb.Helper()
	exec := func(sql string, parameters map[string]string) {
		tb.Helper()
		ctx := driver.Context(tb.Context(), driver.WithSettings(driver.Settings{"database": d.Name}), driver.WithParameters(parameters))
		if err := d.Server.Exec(ctx, sql); err != nil {
			tb.Fatal(err)
		}
	}
	const most = 50_000
	for first := 0; first < rows; first += most {
		exec(generated, map[string]string{"rows": fmt.Sprint(rows), "hours": "24", "until": until, "first": fmt.Sprint(first), "count": fmt.Sprint(min(most, rows-first))})
	}
	end, err := time.Parse(time.DateTime, until)
	if err != nil {
		tb.Fatal(err)
	}
	each := 24 * time.Hour / time.Duration((rows+most-1)/most)
	for from := end.Add(-24 * time.Hour); from.Before(end); from = from.Add(each) {
		exec(traffic, map[string]string{"from": from.Format(time.DateTime), "to": from.Add(each).Format(time.DateTime)})
	}
}

// row is a line of an answer.
type row map[string]any

func (r row) number(key string) float64 {
	n, ok := r[key].(float64)
	if !ok {
		return math.NaN()
	}
	return n
}

// answer returns the rows of a saved query.
func answer(tb testing.TB, d query.Database, name string, parameters map[string]string) []row {
	tb.Helper()
	var out bytes.Buffer
	if err := d.Saved(context.Background(), "json", name, parameters, &out); err != nil {
		tb.Fatalf("%s: %v", name, err)
	}
	return rows(tb, out.Bytes())
}

func rows(tb testing.TB, lines []byte) []row {
	tb.Helper()
	var all []row
	for line := range bytes.Lines(lines) {
		var r row
		if err := json.Unmarshal(line, &r); err != nil {
			tb.Fatalf("%v: %s", err, line)
		}
		all = append(all, r)
	}
	return all
}

func with(base map[string]string, more ...string) map[string]string {
	m := maps.Clone(base)
	for i := 0; i < len(more); i += 2 {
		m[more[i]] = more[i+1]
	}
	return m
}

func sum(list []row, key string) (n float64) {
	for _, r := range list {
		n += r.number(key)
	}
	return n
}

// find returns the row with these values, or an empty one.
func find(list []row, want row) row {
	for _, r := range list {
		same := true
		for k, v := range want {
			same = same && r[k] == v
		}
		if same {
			return r
		}
	}
	return row{}
}

// onCaptures are the saved queries and what they have to say about the real captures. sessions is what tapweave read
// prints of these: the same fold, but no SQL. Figures given here are tshark's.
var onCaptures = map[string]func(t *testing.T, d query.Database, sessions []row){
	"ssh-attempts": func(t *testing.T, d query.Database, _ []row) {
		got := answer(t, d, "ssh-attempts", ever)
		if r := find(got, row{"src_ip": "18.196.145.224", "dst_ip": "172.31.0.238"}); r["origin"] != "outside" || r["outcome"] != "established" || r.number("sessions") != 4 {
			t.Errorf("%v", r)
		}
		// Captures of one direction each: the client's half, and the server's.
		for outcome, n := range map[string]float64{"no answer": 11, "half seen": 11} {
			if r := find(got, row{"src_ip": "192.168.2.1", "dst_ip": "192.168.2.158", "outcome": outcome}); r["origin"] != "inside" || r.number("sessions") != n {
				t.Errorf("%s: %v", outcome, r)
			}
		}
	},
	"subnet-traffic": func(t *testing.T, d query.Database, sessions []row) {
		got := answer(t, d, "subnet-traffic", ever)
		if a, b := sum(got, "bytes_sent"), sum(sessions, "src_bytes"); a != b || b == 0 {
			t.Errorf("%v bytes, sessions have %v", a, b)
		}
		if a, b := sum(got, "begun"), float64(len(sessions)); a != b {
			t.Errorf("%v sessions, want %v", a, b)
		}
	},
	"hub-and-spoke": func(t *testing.T, d query.Database, sessions []row) {
		got := answer(t, d, "hub-and-spoke", ever)
		if a, b := sum(got, "bytes"), sum(sessions, "src_bytes")+sum(sessions, "dst_bytes"); a != b || b == 0 {
			t.Errorf("%v bytes, sessions have %v", a, b)
		}
	},
	"gateway-consumers": func(t *testing.T, d query.Database, sessions []row) {
		got := answer(t, d, "gateway-consumers", ever)
		want := row{}
		for _, s := range sessions {
			if s["src_ip"] == "192.168.2.76" {
				want["out"] = cmpNumber(want["out"]) + s.number("src_bytes")
				want["in"] = cmpNumber(want["in"]) + s.number("dst_bytes")
			}
		}
		if r := got[0]; r["consumer"] != "192.168.2.76" || r["bytes_out"] != want["out"] || r["bytes_in"] != want["in"] {
			t.Errorf("%v, want %v", r, want)
		}
		if s := sum(got, "share"); math.Abs(s-1) > 0.01 {
			t.Errorf("the shares add up to %v", s)
		}
		// A capture with a carrier inside of which tap_points is known.
		taps := clickhousetest.Value[string](t, d.Server, clickhouse.Config{Database: d.Name}, "SELECT any(tap_points[1]) FROM %[1]s.sessions WHERE notEmpty(tap_points)")
		n := clickhousetest.Value[uint64](t, d.Server, clickhouse.Config{Database: d.Name}, "SELECT count() FROM %[1]s.sessions WHERE has(tap_points, '"+taps+"')")
		if got := answer(t, d, "gateway-consumers", with(ever, "gateway", taps)); n == 0 || sum(got, "sessions") != float64(n) {
			t.Errorf("over %s: %v, want %d", taps, got, n)
		}
	},
	"gateway-timeline": func(t *testing.T, d query.Database, _ []row) {
		got, consumers := answer(t, d, "gateway-timeline", ever), answer(t, d, "gateway-consumers", ever)
		if a, b := sum(got, "volume"), sum(consumers, "bytes_out")+sum(consumers, "bytes_in"); a != b || b == 0 {
			t.Errorf("%v bytes, consumers have %v", a, b)
		}
		if r := find(got, row{"who": "192.168.2.76"}); r["time"] != "2011-11-03 00:00:00" {
			t.Errorf("%v", r)
		}
	},
	"top-talkers": func(t *testing.T, d query.Database, sessions []row) {
		sums := map[string]float64{}
		for _, s := range sessions {
			for _, end := range []string{"src_ip", "dst_ip"} {
				sums[s[end].(string)] += s.number("src_bytes") + s.number("dst_bytes")
			}
		}
		order := slices.SortedFunc(maps.Keys(sums), func(a, b string) int { return cmp.Or(cmp.Compare(sums[b], sums[a]), cmp.Compare(a, b)) })
		for i, r := range answer(t, d, "top-talkers", ever)[:20] {
			if r["address"] != order[i] || r.number("bytes") != sums[order[i]] {
				t.Errorf("%d: %v, want %s with %v", i, r, order[i], sums[order[i]])
			}
		}
	},
	"new-destinations": func(t *testing.T, d query.Database, sessions []row) {
		since := "2015-01-11 00:00:00"
		got := answer(t, d, "new-destinations", with(ever, "from", since, "days", "1"))
		// 192.168.1.32 was asked the day before as well; 131.103.20.168 was not.
		if r := find(got, row{"dst_ip": "131.103.20.168"}); r["one_source"] != "192.168.1.32" || r.number("sessions") == 0 {
			t.Errorf("%v", r)
		}
		known := clickhousetest.Value[uint64](t, d.Server, clickhouse.Config{Database: d.Name}, "SELECT count() FROM %[1]s.sessions WHERE dst_ip = '192.168.1.32' AND start_time >= '2015-01-10' AND start_time < '2015-01-11' AND dst_packets > 0")
		if r := find(got, row{"dst_ip": "192.168.1.32"}); known > 0 && len(r) > 0 {
			t.Errorf("known the day before: %v", r)
		}
	},
	"beaconing": func(t *testing.T, d query.Database, _ []row) {
		got := answer(t, d, "beaconing", ever)
		if len(got) != 1 || got[0]["src_ip"] != "132.235.67.36" || got[0]["dst_ip"] != "132.235.67.21" || got[0].number("dst_port") != 9080 ||
			got[0].number("calls") != 17 || math.Abs(got[0].number("every_seconds")-195.7) > 0.1 {
			t.Errorf("%v", got)
		}
	},
	"port-scans": func(t *testing.T, d query.Database, sessions []row) {
		ports := map[string]map[any]bool{}
		for _, s := range sessions {
			if s["protocol"] == "tcp" || s["protocol"] == "udp" {
				k := fmt.Sprint(s["src_ip"], s["dst_ip"], s["protocol"])
				if ports[k] == nil {
					ports[k] = map[any]bool{}
				}
				ports[k][s["dst_port"]] = true
			}
		}
		want := 0
		for _, p := range ports {
			if len(p) >= 3 {
				want++
			}
		}
		if got := answer(t, d, "port-scans", with(ever, "ports", "3")); len(got) != want || want == 0 {
			t.Errorf("%d pairs with three ports, want %d", len(got), want)
		}
		if got := answer(t, d, "port-scans", ever); len(got) != 0 {
			t.Errorf("nobody scans here: %v", got)
		}
	},
	"host-scans": func(t *testing.T, d query.Database, _ []row) {
		if got := answer(t, d, "host-scans", ever); len(got) != 0 {
			t.Errorf("nobody scans here: %v", got)
		}
		for _, r := range answer(t, d, "host-scans", with(ever, "hosts", "2", "failed", "1")) {
			if r.number("hosts_tried") < 2 || r.number("failed_share") != 1 {
				t.Errorf("%v", r)
			}
		}
	},
	"long-connections": func(t *testing.T, d query.Database, sessions []row) {
		slices.SortFunc(sessions, func(a, b row) int {
			return cmp.Or(cmp.Compare(b.number("duration"), a.number("duration")), cmp.Compare(a["session_id"].(string), b["session_id"].(string)))
		})
		for i, r := range answer(t, d, "long-connections", with(ever, "seconds", "1800"))[:10] {
			if r["session_id"] != sessions[i]["session_id"] {
				t.Errorf("%d: %v, want %v", i, r, sessions[i])
			}
		}
	},
	"path-quality": func(t *testing.T, d query.Database, sessions []row) {
		got := answer(t, d, "path-quality", ever)
		// One session; tshark has an initial RTT of 11.693 ms, and 7 of its 36 packets are repeated.
		r := find(got, row{"from_subnet": "223.72.39.0", "to_subnet": "192.168.182.0"})
		if r.number("rtt_ms_p50") != 11.693 || r.number("sessions") != 1 || r.number("retransmitted") == 0 {
			t.Errorf("%v", r)
		}
		n := 0
		for _, s := range sessions {
			if s["protocol"] == "tcp" {
				n++
			}
		}
		if sum(got, "sessions") != float64(n) {
			t.Errorf("%v sessions, want %d", sum(got, "sessions"), n)
		}
	},
	"holes": func(t *testing.T, d query.Database, sessions []row) {
		want := map[any]float64{}
		for _, s := range sessions {
			if m := s.number("src_missed_bytes") + s.number("dst_missed_bytes"); m > 0 {
				want[s["session_id"]] = m
			}
		}
		got := answer(t, d, "holes", ever)
		for _, r := range got {
			if m := r.number("src_missed_bytes") + r.number("dst_missed_bytes"); m != want[r["session_id"]] {
				t.Errorf("%v, want %v", r, want[r["session_id"]])
			}
		}
		if len(got) != len(want) || len(want) == 0 {
			t.Errorf("%d sessions, want %d", len(got), len(want))
		}
	},
	"pipeline-loss": func(t *testing.T, d query.Database, _ []row) {
		if err := d.Server.Exec(t.Context(), "INSERT INTO "+d.Name+".pipeline_stats (time, service, instance, incarnation, stage, reason, count) VALUES "+
			"('2026-03-01 08:00:00', 'collector', 'c1', 1, 'lost', 'kernel', 5), ('2026-03-01 10:00:00', 'collector', 'c1', 1, 'lost', 'kernel', 12), "+
			"('2026-03-01 11:00:00', 'collector', 'c1', 2, 'lost', 'kernel', 3), ('2026-03-01 11:00:00', 'collector', 'c1', 2, 'published', 'packets', 900), "+
			"('2026-03-01 11:00:00', 'enricher', 'e1', 1, 'fold', 'packets_late', 4)"); err != nil {
			t.Fatal(err)
		}
		// 12 - 5 of the first incarnation, 3 of the second.
		got := answer(t, d, "pipeline-loss", map[string]string{"from": "2026-03-01 09:00:00", "to": "2026-03-02 00:00:00"})
		if len(got) != 2 || find(got, row{"reason": "kernel"}).number("counts") != 10 || find(got, row{"reason": "packets_late"}).number("counts") != 4 {
			t.Errorf("%v", got)
		}
	},
}

func cmpNumber(v any) float64 {
	n, _ := v.(float64)
	return n
}

// onGenerated are those whose columns come from payload, labels or scans, on made up sessions; see generated.sql.
var onGenerated = map[string]func(t *testing.T, c clickhouse.Config, d query.Database){
	"ssh-attempts": func(t *testing.T, c clickhouse.Config, d query.Database) {
		// No longer than the scan, for the answer ends at a thousand rows.
		end := clickhousetest.Value[string](t, d.Server, c, "SELECT toString(toDateTime(max(start_time), 'UTC') + 1) FROM %[1]s.sessions_versions WHERE src_ip = '10.0.2.99' AND conn_state = 'S0'")
		n := 0
		for _, r := range answer(t, d, "ssh-attempts", with(day, "from", "2026-03-01 12:00:00", "to", end)) {
			if r["src_ip"] == "10.0.2.99" && r["outcome"] == "no answer" && r["origin"] == "inside" {
				n++
			}
		}
		if n < 990 { // of 1000: a beacon may stand in the place of one
			t.Errorf("%d of the scanned hosts", n)
		}
	},
	"hub-and-spoke": func(t *testing.T, c clickhouse.Config, d query.Database) {
		got := answer(t, d, "hub-and-spoke", with(day, "seconds", "86400"))
		for path, condition := range map[string]string{
			"spoke to spoke":       "src_vnet LIKE 'spoke%%' AND dst_vnet LIKE 'spoke%%' AND src_vnet != dst_vnet",
			"hub and spoke":        "(src_vnet = 'hub') + (dst_vnet = 'hub') = 1 AND dst_vnet != ''",
			"within one network":   "src_vnet = dst_vnet",
			"to or from elsewhere": "dst_vnet = ''",
		} {
			want := clickhousetest.Value[uint64](t, d.Server, c, "SELECT sum(src_bytes + dst_bytes) FROM %[1]s.sessions_versions WHERE "+condition)
			if r := find(got, row{"path": path}); want == 0 || r.number("bytes") != float64(want) {
				t.Errorf("%v, want %d", r, want)
			}
		}
	},
	"subnet-traffic": func(t *testing.T, c clickhouse.Config, d query.Database) {
		want := clickhousetest.Value[uint64](t, d.Server, c, "SELECT sum(src_bytes) FROM %[1]s.sessions_versions WHERE src_subnet = 'subnet-1-3' AND dst_subnet = 'subnet-2-4'")
		if r := find(answer(t, d, "subnet-traffic", with(day, "seconds", "86400")), row{"src_subnet": "subnet-1-3", "dst_subnet": "subnet-2-4"}); want == 0 || r.number("bytes_sent") != float64(want) || r["dst_vnet"] != "spoke-2" {
			t.Errorf("%v, want %d", r, want)
		}
	},
	"gateway-consumers": func(t *testing.T, c clickhouse.Config, d query.Database) {
		got := answer(t, d, "gateway-consumers", day)
		want := clickhousetest.Value[uint64](t, d.Server, c, "SELECT sum(src_bytes + dst_bytes) FROM %[1]s.sessions_versions WHERE direction = 'outbound' AND src_name = '"+fmt.Sprint(got[0]["consumer"])+"'")
		if r := got[0]; r.number("bytes_out")+r.number("bytes_in") != float64(want) || r["subnet"] == "" {
			t.Errorf("%v, want %d", r, want)
		}
	},
	"beaconing": func(t *testing.T, _ clickhouse.Config, d query.Database) {
		got := answer(t, d, "beaconing", day)
		if r := find(got, row{"src_ip": "10.0.1.66", "dst_ip": "203.0.113.7"}); math.Abs(r.number("every_seconds")-300) > 1 || r.number("calls") != 287 && r.number("calls") != 288 || len(got) > 3 {
			t.Errorf("%v of %d", r, len(got))
		}
	},
	"port-scans": func(t *testing.T, _ clickhouse.Config, d query.Database) {
		// Of very many sessions, those of a busy pair have as many ports, but are not refused.
		got := answer(t, d, "port-scans", with(day, "ports", "1000"))
		if r := find(got, row{"src_ip": "10.0.2.99", "dst_ip": "10.0.3.4"}); r.number("refused") < 1980 || r.number("ports_tried") < 1980 || sum(got, "refused") > 2*r.number("refused") {
			t.Errorf("%v", got)
		}
	},
	"host-scans": func(t *testing.T, _ clickhouse.Config, d query.Database) {
		if got := answer(t, d, "host-scans", day); len(got) == 0 || got[0]["src_ip"] != "10.0.2.99" || got[0].number("dst_port") != 22 || got[0].number("hosts_tried") < 990 || got[0].number("failed_share") < 0.99 {
			t.Errorf("%v", got)
		}
	},
	"late-indicators": func(t *testing.T, c clickhouse.Config, d query.Database) {
		for list, condition := range map[string]string{
			"['203.0.113.7']":                "dst_ip = '203.0.113.7'",
			"['10.0.1.66','203.0.113.0/28']": "src_ip = '10.0.1.66' OR dst_ip = '10.0.1.66' OR startsWith(dst_ip, '203.0.113.')",
			"['host7.example.com']":          "tls_sni = 'host7.example.com'",
			"['www17.example.net','name1.example.org','name2.example.zip']": "http_host = 'www17.example.net' OR dns_query IN ('name1.example.org', 'name2.example.zip')",
			"['*.zip']":                      "endsWith(dns_query, '.zip')",
			"['t13d1516h2_8daaf6152771_01']": "tls_ja4 = 't13d1516h2_8daaf6152771_01'",
			"[]":                             "false",
		} {
			want := clickhousetest.Value[uint64](t, d.Server, c, "SELECT count() FROM %[1]s.sessions_versions WHERE "+condition)
			got := answer(t, d, "late-indicators", with(day, "indicators", list))
			if float64(len(got)) != min(float64(want), 1000) || want == 0 && list != "[]" {
				t.Errorf("%s: %d sessions, want %d", list, len(got), want)
			}
			for _, r := range got {
				if met, _ := r["met"].([]any); len(met) == 0 || !strings.Contains(list, fmt.Sprintf("'%v'", met[0])) {
					t.Fatalf("%s: %v", list, r)
				}
			}
		}
		longList(t, d)
	},
	"dns-nxdomain": func(t *testing.T, c clickhouse.Config, d query.Database) {
		got := answer(t, d, "dns-nxdomain", with(day, "questions", "1"))
		r := got[0]
		want := clickhousetest.Value[float64](t, d.Server, c, "SELECT round(avg(dns_rcode = 'NXDOMAIN'), 3) FROM %[1]s.sessions_versions WHERE app = 'dns' AND src_ip = '"+fmt.Sprint(r["src_ip"])+"'")
		if r.number("share") != want || want == 0 || len(got) != 100 {
			t.Errorf("%v, want %v", r, want)
		}
	},
	"dns-long-names": func(t *testing.T, c clickhouse.Config, d query.Database) {
		got := answer(t, d, "dns-long-names", with(day, "length", "20"))
		want := clickhousetest.Value[uint64](t, d.Server, c, "SELECT uniqExact(dns_query) FROM %[1]s.sessions_versions WHERE length(dns_query) >= 20 AND src_ip = '"+fmt.Sprint(got[0]["src_ip"])+"' AND endsWith(dns_query, '"+fmt.Sprint(got[0]["domain"])+"')")
		if got[0].number("names") != float64(want) || want == 0 {
			t.Errorf("%v, want %d", got[0], want)
		}
		if got := answer(t, d, "dns-long-names", day); len(got) != 0 {
			t.Errorf("no name has 60 bytes: %v", got)
		}
	},
	"dns-rare-tlds": func(t *testing.T, c clickhouse.Config, d query.Database) {
		got := answer(t, d, "dns-rare-tlds", with(day, "clients", "1000000"))
		want := clickhousetest.Value[uint64](t, d.Server, c, "SELECT count() FROM %[1]s.sessions_versions WHERE endsWith(dns_query, '.zip')")
		if r := find(got, row{"tld": "zip"}); len(got) != 2 || r.number("questions") != float64(want) || want == 0 {
			t.Errorf("%v, want %d", got, want)
		}
	},
	"tls-versions": func(t *testing.T, c clickhouse.Config, d query.Database) {
		got := answer(t, d, "tls-versions", day)
		want := clickhousetest.Value[uint64](t, d.Server, c, "SELECT count() FROM %[1]s.sessions_versions WHERE app = 'tls'")
		if sum(got, "sessions") != float64(want) || len(got) != 80 || got[0]["version"] != "TLSv1.3" {
			t.Errorf("%d rows, %v sessions, want %d", len(got), sum(got, "sessions"), want)
		}
	},
	"path-quality": func(t *testing.T, c clickhouse.Config, d query.Database) {
		r := answer(t, d, "path-quality", with(day, "sessions", "100"))[0]
		want := clickhousetest.Value[uint64](t, d.Server, c, fmt.Sprintf("SELECT count() FROM %%[1]s.sessions_versions WHERE protocol = 'tcp' AND src_subnet = '%v' AND if(dst_subnet = '', concat(extract(dst_ip, '^[0-9]+\\.[0-9]+\\.[0-9]+'), '.0'), dst_subnet) = '%v'", r["from_subnet"], r["to_subnet"]))
		if r.number("sessions") != float64(want) || want == 0 || r.number("rtt_ms_p50") <= 0 {
			t.Errorf("%v, want %d", r, want)
		}
	},
}

// longList runs what the page about labels gives for a long list of indicators, on the list of the saved query.
func longList(t *testing.T, d query.Database) {
	b, err := os.ReadFile("../../../docs/labels.md")
	if err != nil {
		t.Fatal(err)
	}
	const from = "2026-03-01 00:00:00"
	list := []string{"10.0.1.66", "203.0.113.7", "host7.example.com", "www17.example.net", "name1.example.org", "t13d1516h2_8daaf6152771_01"}
	ctx := driver.Context(t.Context(), driver.WithSettings(driver.Settings{"database": d.Name}))
	ran := 0
	for _, block := range strings.Split(string(b), "```sql\n")[1:] {
		block, _, _ = strings.Cut(block, "\n```")
		if !strings.Contains(block, "indicators") {
			continue
		}
		block = strings.NewReplacer("tapweave.", "", "now() - INTERVAL 30 DAY", "'"+from+"'").Replace(block)
		if create, _, found := strings.Cut(block, ";"); found {
			if err := d.Server.Exec(ctx, create); err != nil {
				t.Fatalf("%s: %v", create, err)
			}
			for _, i := range list {
				if err := d.Server.Exec(ctx, "INSERT INTO indicators VALUES ('"+i+"')"); err != nil {
					t.Fatal(err)
				}
			}
			continue
		}
		var found []string
		result, err := d.Server.Query(ctx, "SELECT session_id FROM ("+block+") ORDER BY start_time, session_id LIMIT 1000")
		if err != nil {
			t.Fatalf("%s: %v", block, err)
		}
		for result.Next() {
			var id string
			if err := result.Scan(&id); err != nil {
				t.Fatal(err)
			}
			found = append(found, id)
		}
		if err := errors.Join(result.Err(), result.Close()); err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, r := range answer(t, d, "late-indicators", with(day, "indicators", "['"+strings.Join(list, "','")+"']")) {
			want = append(want, r["session_id"].(string))
		}
		if len(want) == 0 || !slices.Equal(found, want) {
			t.Errorf("%d sessions, want %d", len(found), len(want))
		}
		ran++
	}
	if ran != 1 {
		t.Errorf("%d queries on the page", ran)
	}
}

// TestSavedOnCaptures asks every saved query for what is in the real captures.
func TestSavedOnCaptures(t *testing.T) {
	// Of two captures that have a session in common, one: the rows of sessions would be less than the lines.
	paths := slices.DeleteFunc(capturetest.Files(t), func(p string) bool { return strings.HasSuffix(p, "zeek__vlan-collisions.pcap") })
	var sessions []row
	for _, path := range paths {
		var lines bytes.Buffer
		if _, err := read.Run(read.DefaultOptions(), []string{path}, &lines); err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, rows(t, lines.Bytes())...)
	}
	c, server := rowstest.Database(t, paths...)
	d := query.Database{Server: server, Name: c.Database}
	for name, check := range onCaptures {
		t.Run(name, func(t *testing.T) { check(t, d, slices.Clone(sessions)) })
	}
}

// TestSavedOnGenerated asks them for what is hidden among many sessions: 100,000, or as many as SESSIONS says. make saved
// does so with 10 M.
func TestSavedOnGenerated(t *testing.T) {
	n, err := strconv.Atoi(cmp.Or(os.Getenv("SESSIONS"), "100000"))
	if err != nil {
		t.Fatal(err)
	}
	c, d := generate(t, n)
	for name, check := range onGenerated {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			check(t, c, d)
			t.Logf("%v", time.Since(began).Round(time.Millisecond))
		})
	}
	t.Run("page", func(t *testing.T) { analyst(t, d) })
}

// Each saved query is tested, and no other.
func TestSavedAreAllTested(t *testing.T) {
	all, err := saved.Queries()
	if err != nil {
		t.Fatal(err)
	}
	tested := map[string]bool{}
	for name := range onCaptures {
		tested[name] = true
	}
	for name := range onGenerated {
		tested[name] = true
	}
	for _, q := range all {
		if !tested[q.Name] {
			t.Errorf("%s has no test", q.Name)
		}
		delete(tested, q.Name)
	}
	for name := range tested {
		t.Errorf("%s is no saved query", name)
	}
}
