package run

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tapweave/tapweave/deploy/standalone/read"
	"github.com/tapweave/tapweave/deploy/standalone/replay"
	"github.com/tapweave/tapweave/deploy/standalone/sample"
	"github.com/tapweave/tapweave/deploy/standalone/servers"
)

const (
	// demoTimeout is how long after the replay the last row may come.
	demoTimeout = 60 * time.Second
	// memory is how long a session may still take in packets after its last one, with a margin: a sample that was
	// played less than that ago goes on in the same sessions.
	memory = 5 * time.Minute
)

// demo plays the sample to the collectors, waits until its sessions can be queried, and prints them.
func (r *run) demo(ctx context.Context) error {
	file := filepath.Join(r.Dir, "sample.pcap")
	if err := os.WriteFile(file, sample.Capture, 0o644); err != nil {
		return err
	}
	var lines bytes.Buffer
	if _, err := read.Run(read.DefaultOptions(), []string{file}, &lines); err != nil {
		return err
	}
	want, err := parseSessions(&lines)
	if err != nil {
		return err
	}
	before, err := r.sessions(ctx, time.Now())
	if err != nil {
		return err
	}
	began := time.Now()
	expected := newExpectation(want, before)
	r.stage("playing the sample, %d packets of %d sessions: %s", expected.packets, len(want), file)

	capture, err := replay.Open(file)
	if err != nil {
		return err
	}
	type outcome struct {
		result replay.Result
		err    error
	}
	played := make(chan outcome, 1)
	playing, stop := context.WithCancel(ctx)
	go func() {
		result, err := replay.Run(playing, replay.Options{To: r.addresses()}, []*replay.Capture{capture})
		played <- outcome{result, err}
	}()
	over := false // the replay is
	defer func() {
		stop()
		if !over {
			<-played
		}
	}()

	var deadline <-chan time.Time
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	first := true
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case o := <-played:
			over = true
			if o.err != nil {
				return fmt.Errorf("replay: %w", o.err)
			}
			r.stage("%s", &o.result)
			deadline = time.After(demoTimeout)
			continue
		case <-deadline:
			return fmt.Errorf("%v after the sample was played not all of it can be queried: %s; see %s", demoTimeout, expected.seen, logFile(r.Dir))
		case <-tick.C:
		}
		rows, err := r.sessions(ctx, began)
		if err != nil {
			expected.seen = err.Error() // ClickHouse may be starting again
			continue
		}
		done := expected.check(rows)
		if first && expected.rows > 0 {
			r.stage("the first session can be queried")
			first = false
		}
		if done {
			r.stage("%s", expected.seen)
			return r.results(ctx, began)
		}
	}
}

// reachable turns the address that a collector listens on into one to send to.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip, e := netip.ParseAddr(host); err == nil && e == nil && ip.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return address
}

// session is what is compared of a session. The names are those of the columns.
type session struct {
	Protocol   int    `json:"ip_protocol"`
	SrcIP      string `json:"src_ip"`
	SrcPort    int    `json:"src_port"`
	DstIP      string `json:"dst_ip"`
	DstPort    int    `json:"dst_port"`
	SrcPackets uint64 `json:"src_packets"`
	DstPackets uint64 `json:"dst_packets"`
	SrcBytes   uint64 `json:"src_bytes"`
	DstBytes   uint64 `json:"dst_bytes"`
	Final      bool   `json:"is_final"`
	Fresh      bool   `json:"fresh"`  // began after the replay did
	Recent     bool   `json:"recent"` // ended after the replay began
}

// tuple is what all sessions between the same ends have in common, whichever of them is src.
type tuple struct {
	protocol   int
	one, other string
}

func (s *session) tuple() tuple {
	a, b := fmt.Sprintf("%s:%d", s.SrcIP, s.SrcPort), fmt.Sprintf("%s:%d", s.DstIP, s.DstPort)
	return tuple{s.Protocol, min(a, b), max(a, b)}
}

// counts are a session's packets and bytes.
type counts struct{ packets, bytes uint64 }

func (s *session) counts() counts {
	return counts{s.SrcPackets + s.DstPackets, s.SrcBytes + s.DstBytes}
}

// bundle is the sessions of each tuple, without their order.
type bundle map[tuple][]counts

func bundleOf(sessions []session) bundle {
	b := bundle{}
	for i := range sessions {
		t := sessions[i].tuple()
		b[t] = append(b[t], sessions[i].counts())
	}
	for _, list := range b {
		slices.SortFunc(list, func(x, y counts) int {
			return cmp.Or(cmp.Compare(x.packets, y.packets), cmp.Compare(x.bytes, y.bytes))
		})
	}
	return b
}

// expectation is what has to come out of the sample: what `tapweave read` makes of it.
type expectation struct {
	want     bundle
	sessions int
	packets  uint64
	before   uint64 // packets in the sessions of these tuples before the replay
	rows     int    // so far
	seen     string // so far, in words
}

func newExpectation(want, before []session) *expectation {
	e := &expectation{want: bundleOf(want), sessions: len(want)}
	for i := range want {
		e.packets += want[i].counts().packets
	}
	for i := range before {
		if e.want[before[i].tuple()] != nil {
			e.before += before[i].counts().packets
		}
	}
	return e
}

// check says whether everything is there. Packets of a sample that was played shortly before may have gone into
// the same sessions as that: then only their sum can be compared.
func (e *expectation) check(rows []session) bool {
	var fresh []session
	var packets uint64
	older, final := 0, 0
	for _, s := range rows {
		if e.want[s.tuple()] == nil {
			continue
		}
		packets += s.counts().packets
		switch {
		case s.Fresh:
			fresh = append(fresh, s)
			if s.Final {
				final++
			}
		case s.Recent:
			older++
		}
	}
	e.rows = len(fresh) + older
	if older > 0 {
		arrived := packets - min(packets, e.before)
		e.seen = fmt.Sprintf("%d of %d packets can be queried; as the sample was played a few minutes ago too, they went on in %d sessions of then, beside %d new ones",
			min(arrived, e.packets), e.packets, older, len(fresh))
		return arrived >= e.packets
	}
	e.seen = fmt.Sprintf("%d of %d sessions can be queried, %d of them final, with %d of %d packets", len(fresh), e.sessions, final, packets-min(packets, e.before), e.packets)
	if !maps.EqualFunc(bundleOf(fresh), e.want, slices.Equal[[]counts]) {
		return false
	}
	e.seen = fmt.Sprintf("all %d sessions can be queried, %d of them final; packets and bytes of each are those of tapweave read", e.sessions, final)
	return true
}

// parseSessions reads one JSON object a line.
func parseSessions(in io.Reader) (list []session, err error) {
	d := json.NewDecoder(in)
	for {
		var s session
		if err := d.Decode(&s); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
}

// sessions are those that a replay that began then may have to do with.
func (r *run) sessions(ctx context.Context, began time.Time) ([]session, error) {
	at := func(t time.Time) string { return fmt.Sprintf("fromUnixTimestamp64Nano(%d)", t.UnixNano()) }
	answer, err := r.query(ctx, `SELECT ip_protocol, src_ip, src_port, dst_ip, dst_port, src_packets, dst_packets, src_bytes, dst_bytes,
    toBool(is_final) AS is_final, toBool(start_time >= `+at(began)+`) AS fresh, toBool(end_time >= `+at(began)+`) AS recent
FROM tapweave.sessions WHERE end_time >= `+at(began.Add(-memory))+`
SETTINGS output_format_json_quote_64bit_integers = 0 FORMAT JSONEachRow`)
	if err != nil {
		return nil, err
	}
	return parseSessions(strings.NewReader(answer))
}

// query asks ClickHouse, as the user that may only read.
func (r *run) query(ctx context.Context, sql string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	address := "http://" + r.clickhouse.address() + "/?" + url.Values{"user": {servers.ReaderUser}}.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(sql))
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("ClickHouse: %s", strings.TrimSpace(string(body)))
	}
	return string(body), err
}

// queries are worth a try.
var queries = []struct{ what, sql string }{
	{"who talks to whom", `SELECT src_ip, dst_ip, dst_port, protocol, count() AS sessions, sum(src_bytes + dst_bytes) AS bytes
FROM tapweave.sessions GROUP BY ALL ORDER BY bytes DESC LIMIT 20`},
	{"connections that were refused, or not answered", `SELECT start_time, src_ip, dst_ip, dst_port, conn_state, src_packets
FROM tapweave.sessions WHERE protocol = 'tcp' AND conn_state IN ('S0', 'REJ') ORDER BY start_time`},
	{"where packets get lost", `SELECT src_ip, dst_ip, sum(src_retransmits + dst_retransmits) AS retransmits, sum(src_packets + dst_packets) AS packets,
    round(1000 * quantile(0.5)(handshake_rtt), 1) AS handshake_ms
FROM tapweave.sessions WHERE protocol = 'tcp' GROUP BY ALL ORDER BY retransmits DESC LIMIT 20`},
	{"traffic by the minute", `SELECT minute, protocol, sum(src_bytes + dst_bytes) AS bytes, sum(sessions) AS sessions
FROM tapweave.traffic_1m GROUP BY ALL ORDER BY minute, bytes DESC`},
}

// results prints the sessions with the most bytes, and how to ask for more.
func (r *run) results(ctx context.Context, began time.Time) error {
	table, err := r.query(ctx, fmt.Sprintf(`SELECT formatDateTime(start_time, '%%T') AS start, protocol, src_ip AS src, src_port, dst_ip AS dst, dst_port,
    conn_state AS state, src_packets + dst_packets AS packets, src_bytes + dst_bytes AS bytes,
    src_retransmits + dst_retransmits AS again, duplicate_packets AS copies, round(duration, 3) AS seconds
FROM tapweave.sessions WHERE end_time >= fromUnixTimestamp64Nano(%d) ORDER BY bytes DESC, start_time LIMIT 15
SETTINGS output_format_pretty_color = 0, output_format_pretty_row_numbers = 0, output_format_pretty_single_large_number_tip_threshold = 0
FORMAT PrettyCompactMonoBlock`, began.UnixNano()))
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nThe sessions with the most bytes (again: retransmitted packets; copies: packets that a second tap saw, counted once)\n\n%s\n", table)
	fmt.Fprintf(&b, "SQL to try at %s\n", r.clickhouse.page())
	for _, q := range queries {
		fmt.Fprintf(&b, "\n-- %s\n%s\n", q.what, q.sql)
	}
	fmt.Fprintf(&b, "\nor in a shell:\n\n  curl 'http://%s/?user=%s' --data-binary \"SELECT * FROM tapweave.sessions ORDER BY start_time DESC LIMIT 3 FORMAT Vertical\"\n", r.clickhouse.address(), servers.ReaderUser)
	if r.Once {
		b.WriteString("\nThis run ends now; tapweave run goes on with the same data.\n")
	}
	r.Console.Line(b.String())
	return nil
}
