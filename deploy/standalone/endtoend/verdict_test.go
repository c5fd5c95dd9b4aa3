package endtoend

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/conversation"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
)

// verdict lets everything come to its end, and holds what is stored against what was sent.
func (c *chaos) verdict() {
	defer func() {
		c.report()
		if c.t.Failed() {
			fmt.Printf("verdict: FAILED; once more: make chaos KILLS=%d SEED=%d\n", c.killed, c.seed)
		} else {
			fmt.Println("verdict: nothing lost, nothing twice")
		}
	}()
	if c.load.err != nil {
		c.t.Error(c.load.err)
	}
	var log reader
	c.eventually(2*time.Minute, "what collectors took in to be on the log", func() error {
		if err := log.read(c.stack); err != nil {
			return err
		}
		c.load.logged(&log)
		if n := c.load.missing(); n > 0 {
			return fmt.Errorf("%d packets are missing", n)
		}
		return nil
	})
	end := time.Now()
	c.endOfInput()
	c.settled()

	seen, losses, vague := c.load.seen()
	lost := 0
	for _, l := range losses {
		lost += l.packets
		fmt.Printf("lost with %s when it was killed: %d packets, the oldest %.2f s old\n", l.name, l.packets, l.oldest.Seconds())
		if l.oldest > l.bound {
			c.t.Errorf("%s, killed at %v, lost %d packets of up to %v before; at most %v are explained", l.name, l.died.Sub(c.began), l.packets, l.oldest, l.bound)
		}
	}
	truth := c.load.traffic.Sessions(func(p *conversation.Packet) bool { return seen[p] }, end.UnixNano())
	rows := c.rows()
	fmt.Printf("%d packets sent, %d of them lost in the memory of collectors that were killed, %d sessions of the others\n", len(c.load.sent), lost, len(truth))
	c.compare(truth, rows, vague)
	c.twice()
	c.checkTraffic()
	c.siem()
	c.logs()
}

// settled waits until all sessions are final and nothing more comes.
func (s *stack) settled() {
	s.t.Helper()
	last, since := "", time.Now()
	s.eventually(3*time.Minute, "all sessions to be final", func() error {
		rows, err := s.tryQuery("SELECT countIf(NOT is_final) AS open, count() AS n, (SELECT count() FROM sessions_versions) AS versions FROM sessions")
		if err != nil {
			return err
		}
		if now := fmt.Sprint(rows[0]); now != last {
			last, since = now, time.Now()
		}
		if rows[0]["open"] != 0.0 || time.Since(since) < 8*time.Second {
			return fmt.Errorf("%s", last)
		}
		return nil
	})
}

// rows reads the sessions.
func (s *stack) rows() []columns.Session {
	s.t.Helper()
	list := s.query(`SELECT ip_protocol, src_ip, src_port, dst_ip, dst_port, toString(toUnixTimestamp64Nano(start_time)) AS start, toString(toUnixTimestamp64Nano(end_time)) AS end,
		src_packets, dst_packets, src_bytes, dst_bytes, src_payload_bytes, dst_payload_bytes, src_missed_bytes, dst_missed_bytes, src_retransmits, dst_retransmits,
		src_out_of_order, dst_out_of_order, src_zero_windows, dst_zero_windows, src_overlap_bytes, dst_overlap_bytes, src_tcp_flags, dst_tcp_flags, conn_state, close_reason,
		icmp_errors, late_packets FROM sessions`)
	rows := make([]columns.Session, len(list))
	for i, r := range list {
		n := func(column string) uint64 { return uint64(r[column].(float64)) }
		at := func(column string) int64 {
			v, err := strconv.ParseInt(r[column].(string), 10, 64)
			if err != nil {
				s.t.Fatal(err)
			}
			return v
		}
		ip := func(column string) packet.Addr { return packet.AddrFrom(netip.MustParseAddr(r[column].(string))) }
		rows[i] = columns.Session{
			IPProtocol: uint8(n("ip_protocol")), Src: ip("src_ip"), SrcPort: uint16(n("src_port")), Dst: ip("dst_ip"), DstPort: uint16(n("dst_port")),
			Start: at("start"), End: at("end"), SrcPackets: n("src_packets"), DstPackets: n("dst_packets"), SrcBytes: n("src_bytes"), DstBytes: n("dst_bytes"),
			SrcPayloadBytes: n("src_payload_bytes"), DstPayloadBytes: n("dst_payload_bytes"), SrcMissedBytes: n("src_missed_bytes"), DstMissedBytes: n("dst_missed_bytes"),
			SrcRetransmits: n("src_retransmits"), DstRetransmits: n("dst_retransmits"), SrcOutOfOrder: n("src_out_of_order"), DstOutOfOrder: n("dst_out_of_order"),
			SrcZeroWindows: n("src_zero_windows"), DstZeroWindows: n("dst_zero_windows"), SrcOverlapBytes: n("src_overlap_bytes"), DstOverlapBytes: n("dst_overlap_bytes"),
			SrcTCPFlags: uint8(n("src_tcp_flags")), DstTCPFlags: uint8(n("dst_tcp_flags")), ConnState: r["conn_state"].(string), CloseReason: r["close_reason"].(string),
			ICMPErrors: n("icmp_errors"), LatePackets: n("late_packets"), HandshakeRTT: math.NaN(), SrcRTT: math.NaN(), DstRTT: math.NaN(),
		}
	}
	return rows
}

// conversationKey is the same for the truth of a session and its row, whichever side is src.
func conversationKey(protocol uint8, a packet.Addr, aPort uint16, b packet.Addr, bPort uint16) string {
	x, y := netip.AddrPortFrom(a.Netip(), aPort), netip.AddrPortFrom(b.Netip(), bPort)
	if x.Compare(y) > 0 {
		x, y = y, x
	}
	return fmt.Sprint(protocol, x, y)
}

// compare holds the rows against the truth. What depends on the order of packets is left aside where some came
// behind the watermark: their collector had been away for longer than others wait for it.
func (c *chaos) compare(truth []*conversation.Session, rows []columns.Session, vague map[*conversation.Conversation]bool) {
	late := map[string]bool{}
	for i := range rows {
		if r := &rows[i]; r.LatePackets > 0 {
			late[conversationKey(r.IPProtocol, r.Src, r.SrcPort, r.Dst, r.DstPort)] = true
		}
	}
	for _, s := range truth {
		if vague[s.Conversation] {
			late[keyOfTruth(s)] = true
		}
	}
	var ordered, unordered []*conversation.Session
	for _, s := range truth {
		if late[keyOfTruth(s)] {
			unordered = append(unordered, s)
		} else {
			ordered = append(ordered, s)
		}
	}
	var orderedRows, unorderedRows []columns.Session
	for _, r := range rows {
		if late[conversationKey(r.IPProtocol, r.Src, r.SrcPort, r.Dst, r.DstPort)] {
			unorderedRows = append(unorderedRows, r)
		} else {
			orderedRows = append(orderedRows, r)
		}
	}
	differences := conversation.Differences(ordered, orderedRows, conversation.Skewed)
	more := conversation.Differences(unordered, unorderedRows, conversation.Skewed|conversation.Late)
	fmt.Printf("%d sessions stored; of %d some packets came late\n", len(rows), len(unorderedRows))
	if len(unorderedRows) > len(rows)/3 {
		c.t.Errorf("of %d sessions of %d some packets came late: too many to judge by the others", len(unorderedRows), len(rows))
	}
	for i, d := range slices.Concat(differences, more) {
		if i == 20 {
			c.t.Errorf("and %d more", len(differences)+len(more)-i)
			break
		}
		c.t.Error(d)
	}
}

func keyOfTruth(s *conversation.Session) string {
	return conversationKey(s.Protocol(), s.Src, s.SrcPort, s.Dst, s.DstPort)
}

// twice looks for rows that are there twice, and for numbers that are missing.
func (c *chaos) twice() {
	for what, sql := range map[string]string{
		"sessions are there twice": "SELECT session_id, count() AS n FROM sessions GROUP BY session_id HAVING n > 1",
		// By conversation: where one connection follows another, a packet may turn out to be the later one's after its
		// row was put out. A datagram in fragments has one row; the traffic has none in TCP.
		"conversations have more or less rows of packets": `SELECT ip_protocol, ends, sum(src_packets + dst_packets) AS want, sum(got) AS got FROM
			(SELECT session_id, ip_protocol, arraySort([concat(src_ip, ' ', toString(src_port)), concat(dst_ip, ' ', toString(dst_port))]) AS ends, src_packets, dst_packets FROM sessions) AS s
			LEFT JOIN (SELECT session_id, count() AS got FROM packets GROUP BY session_id) AS p USING session_id
			GROUP BY ip_protocol, ends HAVING got > want OR got < want AND ip_protocol = 6`,
		"sinks found outputs missing":                         "SELECT instance, count FROM pipeline_stats WHERE stage = 'clickhouse' AND reason = 'outputs_missing' AND count > 0",
		"rows of pipeline_stats say that much and later less": "SELECT service, instance, stage, reason FROM (SELECT *, max(count) OVER (PARTITION BY service, instance, incarnation, stage, reason ORDER BY time ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS most FROM pipeline_stats WHERE stage != 'gap') WHERE count < most",
	} {
		if rows := c.query(sql); len(rows) > 0 {
			c.t.Errorf("%d %s: %v", len(rows), what, rows[:min(5, len(rows))])
		}
	}
}

// siem holds the documents of the SIEM's topic, repeated ids dropped, against the versions of all sessions.
func (c *chaos) siem() {
	have, err := c.client.EnsureTopics(c.t.Context(), false, kafka.Topic{Name: record.TopicSIEMECS, Partitions: 1})
	if err != nil {
		c.t.Error(err)
		return
	}
	// ClickHouse forgets old versions when it merges; the newest it keeps.
	newest := map[string]int{}
	for _, r := range c.query("SELECT session_id, version FROM sessions") {
		newest[r["session_id"].(string)] = int(r["version"].(float64))
	}
	documents, got, alerts := 0, map[string]bool{}, map[string]bool{}
	for p := range have[record.TopicSIEMECS] {
		for next := int64(0); ; {
			f, err := c.client.Fetch(c.t.Context(), record.TopicSIEMECS, p, next, 4<<20, 10*time.Millisecond)
			if err != nil {
				c.t.Error(err)
				return
			}
			if len(f.Records) == 0 {
				break
			}
			next = f.Next
			for _, r := range f.Records {
				var d struct{ Event struct{ ID, Kind string } }
				if err := json.Unmarshal(r.Value, &d); err != nil {
					c.t.Error(err)
					return
				}
				if d.Event.Kind == "alert" {
					alerts[d.Event.ID] = true
					continue
				}
				documents++
				got[d.Event.ID] = true
			}
		}
	}
	documented, missing, strange := map[string]int{}, 0, 0
	for id := range got {
		session, version, _ := strings.Cut(id, ":")
		n, err := strconv.Atoi(version)
		if err != nil || n > newest[session] {
			strange++
		}
		documented[session] = max(documented[session], n)
	}
	for id, n := range newest {
		if documented[id] != n {
			missing++
		}
	}
	fmt.Printf("%d documents for the SIEM, %d without repeats, of %d sessions\n", documents, len(got), len(newest))
	if n := c.query("SELECT count() AS n FROM alerts")[0]["n"].(float64); int(n) != len(alerts) {
		c.t.Errorf("%v alerts are stored, %d are documents for the SIEM", n, len(alerts))
	}
	if missing+strange > 0 {
		c.t.Errorf("documents for the SIEM: %d sessions have none of their last version, %d are of versions that were not stored", missing, strange)
	}
}

// logs looks for what must not happen.
func (c *chaos) logs() {
	warnings := map[string]int{}
	for _, v := range c.services {
		b, err := os.ReadFile(v.log.Name())
		if err != nil {
			c.t.Error(err)
			continue
		}
		for _, bad := range []string{"panic: ", "fatal error: ", "outputs begin anew", "cannot be read; trying the one before", "goroutine 1 ["} {
			if i := bytes.Index(b, []byte(bad)); i >= 0 {
				c.t.Errorf("%s: %s", v.name, b[max(0, i-300):min(len(b), i+1500)])
			}
		}
		for line := range strings.Lines(string(b)) {
			if _, message, ok := strings.Cut(line, "level=ERROR msg="); ok {
				message, _, _ = strings.Cut(strings.TrimPrefix(message, `"`), `"`)
				warnings[v.program+": "+message]++
			}
		}
	}
	type line struct {
		text string
		n    int
	}
	var lines []line
	for text, n := range warnings {
		lines = append(lines, line{text, n})
	}
	slices.SortFunc(lines, func(a, b line) int { return cmp.Or(b.n-a.n, strings.Compare(a.text, b.text)) })
	for _, l := range lines {
		fmt.Printf("error in the log, %d times: %s\n", l.n, l.text)
	}
}
