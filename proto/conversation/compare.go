package conversation

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/packet"
)

// Allowance is what may differ from the truth, for the way that the packets took.
type Allowance uint8

const (
	// Skewed: packets bear the clocks of several collectors.
	Skewed Allowance = 1 << iota
	// Late: packets came behind the watermark, or the stamps are not those of the traffic.
	Late
)

// skew is how far apart two clocks may be.
const skew = int64(40 * ms)

type key struct {
	protocol uint8
	ends     [2]endpoint
}

type endpoint struct {
	addr packet.Addr
	port uint16
}

func keyOf(protocol uint8, a packet.Addr, aPort uint16, b packet.Addr, bPort uint16) key {
	k := key{protocol, [2]endpoint{{a, aPort}, {b, bPort}}}
	slices.SortFunc(k.ends[:], func(x, y endpoint) int {
		return cmp.Or(slices.Compare(x.addr[:], y.addr[:]), cmp.Compare(x.port, y.port))
	})
	return k
}

// Differences holds the rows of a database, in any order, against the truth, and describes what differs: at most one
// line for each conversation.
func Differences(truth []*Session, rows []columns.Session, allow Allowance) (lines []string) {
	got := map[key][]*columns.Session{}
	for i := range rows {
		r := &rows[i]
		k := keyOf(r.IPProtocol, r.Src, r.SrcPort, r.Dst, r.DstPort)
		got[k] = append(got[k], r)
	}
	for from := 0; from < len(truth); {
		to := from + 1
		for to < len(truth) && truth[to].Conversation == truth[from].Conversation {
			to++
		}
		t := truth[from]
		k := keyOf(t.Conversation.protocol, t.Src, t.SrcPort, t.Dst, t.DstPort)
		if text := conversationDiffers(truth[from:to], got[k], allow); text != "" {
			lines = append(lines, fmt.Sprintf("%v: %s", t.Conversation, text))
		}
		delete(got, k)
		from = to
	}
	for _, r := range rows {
		k := keyOf(r.IPProtocol, r.Src, r.SrcPort, r.Dst, r.DstPort)
		if got[k] != nil {
			delete(got, k)
			lines = append(lines, fmt.Sprintf("a session that was not sent: protocol %d, %v:%d to %v:%d", r.IPProtocol, r.Src, r.SrcPort, r.Dst, r.DstPort))
		}
	}
	return lines
}

func conversationDiffers(truth []*Session, rows []*columns.Session, allow Allowance) string {
	slices.SortStableFunc(rows, func(a, b *columns.Session) int { return cmp.Compare(a.Start, b.Start) })
	// Connections on the same ports are told apart by which SYN came before which packet, and a RST that guesses by
	// what had come before it.
	c := truth[0].Conversation
	if allow&Late != 0 && (c.inPieces() || c.repeatsItself()) {
		return "" // pieces too far apart are not put together, and copies out of order not told from repeats
	}
	unsure := allow != 0 && len(c.connections) > 1 || slices.ContainsFunc(c.Packets, func(p *Packet) bool {
		return p.blind && (allow&Late != 0 || allow&Skewed != 0 && p.Time-c.Packets[0].Time <= skew)
	})
	for _, t := range truth {
		unsure = unsure || t.Unsure&UnsureBorders != 0
	}
	if unsure {
		return sumsDiffer(truth, rows)
	}
	if len(truth) != len(rows) {
		text := fmt.Sprintf("%d sessions, want %d:", len(rows), len(truth))
		for _, r := range rows {
			text += fmt.Sprintf(" [%s %s %d/%d]", r.ConnState, r.CloseReason, r.SrcPackets, r.DstPackets)
		}
		for _, t := range truth {
			text += fmt.Sprintf(" want [%s %s %d/%d]", t.State, t.Close, t.Packets[0], t.Packets[1])
		}
		return text
	}
	for i, t := range truth {
		if text := t.differs(rows[i], allow); text != "" {
			if t.unoriented(allow) && t.turned().differs(rows[i], allow) == "" {
				continue
			}
			return fmt.Sprintf("session %d: %s", i+1, text)
		}
	}
	return ""
}

// unoriented says whether either side may be src.
func (t *Session) unoriented(allow Allowance) bool {
	return t.Unsure&UnsureOrientation != 0 || t.Unsure&GuessedFromOrder != 0 && allow != 0
}

// turned is the truth with src and dst exchanged.
func (t *Session) turned() *Session {
	u := *t
	for _, pair := range []*[2]uint64{&u.Packets, &u.Bytes, &u.Payload, &u.Missed, &u.ZeroWindows, &u.Retransmits, &u.OutOfOrder, &u.Overlapped} {
		pair[0], pair[1] = pair[1], pair[0]
	}
	u.Flags[0], u.Flags[1] = u.Flags[1], u.Flags[0]
	u.Src, u.SrcPort, u.Dst, u.DstPort = u.Dst, u.DstPort, u.Src, u.SrcPort
	if u.Conversation.protocol == packet.ProtoTCP || u.State != "SF" {
		u.State = ""
	}
	u.Unsure |= UnsureTrips
	return &u
}

// sumsDiffer compares what the sessions of a conversation carried in all.
func sumsDiffer(truth []*Session, rows []*columns.Session) string {
	type sums struct{ packets, bytes uint64 }
	want, got := map[packet.Addr]sums{}, map[packet.Addr]sums{}
	add := func(m map[packet.Addr]sums, a packet.Addr, packets, bytes uint64) {
		s := m[a]
		m[a] = sums{s.packets + packets, s.bytes + bytes}
	}
	for _, t := range truth {
		add(want, t.Src, t.Packets[0], t.Bytes[0])
		add(want, t.Dst, t.Packets[1], t.Bytes[1])
	}
	for _, r := range rows {
		add(got, r.Src, r.SrcPackets, r.SrcBytes)
		add(got, r.Dst, r.DstPackets, r.DstBytes)
	}
	for a, w := range want {
		if got[a] != w {
			return fmt.Sprintf("%v sent %d packets, %d bytes in all, want %d, %d", a, got[a].packets, got[a].bytes, w.packets, w.bytes)
		}
	}
	return ""
}

// differs says what of a row is not true.
func (t *Session) differs(r *columns.Session, allow Allowance) string {
	if r.Src != t.Src || r.SrcPort != t.SrcPort || r.Dst != t.Dst || r.DstPort != t.DstPort {
		return fmt.Sprintf("src is %v:%d, want %v:%d", r.Src, r.SrcPort, t.Src, t.SrcPort)
	}
	ordered := t.Unsure&UnsureOrder == 0 && allow&Late == 0 && (allow == 0 || t.Unsure&NearRepeats == 0)
	type figure struct {
		name      string
		got, want [2]uint64
		compared  bool
	}
	for _, f := range []figure{
		{"packets", [2]uint64{r.SrcPackets, r.DstPackets}, t.Packets, true},
		{"bytes", [2]uint64{r.SrcBytes, r.DstBytes}, t.Bytes, true},
		{"payload bytes", [2]uint64{r.SrcPayloadBytes, r.DstPayloadBytes}, t.Payload, true},
		{"missed bytes", [2]uint64{r.SrcMissedBytes, r.DstMissedBytes}, t.Missed, true},
		{"zero windows", [2]uint64{r.SrcZeroWindows, r.DstZeroWindows}, t.ZeroWindows, true},
		{"flags", [2]uint64{uint64(r.SrcTCPFlags), uint64(r.DstTCPFlags)}, [2]uint64{uint64(t.Flags[0]), uint64(t.Flags[1])}, true},
		{"ICMP errors", [2]uint64{r.ICMPErrors}, [2]uint64{t.ICMPErrors}, allow&Late == 0},
		{"retransmits", [2]uint64{r.SrcRetransmits, r.DstRetransmits}, t.Retransmits, ordered},
		{"out of order", [2]uint64{r.SrcOutOfOrder, r.DstOutOfOrder}, t.OutOfOrder, ordered && allow == 0},
		{"overlap bytes", [2]uint64{r.SrcOverlapBytes, r.DstOverlapBytes}, t.Overlapped, ordered},
	} {
		if f.compared && f.got != f.want {
			return fmt.Sprintf("%s are %v, want %v", f.name, f.got, f.want)
		}
	}
	if t.State != "" && r.ConnState != t.State && (allow == 0 || t.Unsure&NearRepeats == 0) {
		return fmt.Sprintf("conn_state is %s, want %s", r.ConnState, t.State)
	}
	if t.Close != "" && r.CloseReason != t.Close && (allow == 0 || t.Unsure&NearRepeats == 0) && allow&Late == 0 {
		return fmt.Sprintf("close_reason is %s, want %s", r.CloseReason, t.Close)
	}
	if allow&Late != 0 {
		return ""
	}
	most := int64(0)
	if allow&Skewed != 0 {
		most = skew / 2
	}
	if d := max(abs(r.Start-t.Start), abs(r.End-t.End)); d > most {
		return fmt.Sprintf("times are %v off", time.Duration(d))
	}
	if allow == 0 && t.Unsure&UnsureTrips == 0 {
		for _, f := range []struct {
			name      string
			got, want float64
		}{{"handshake_rtt", r.HandshakeRTT, t.HandshakeRTT}, {"src_rtt", r.SrcRTT, t.SrcRTT}, {"dst_rtt", r.DstRTT, t.DstRTT}} {
			if f.got != f.want && !(math.IsNaN(f.got) && math.IsNaN(f.want)) {
				return fmt.Sprintf("%s is %v, want %v", f.name, f.got, f.want)
			}
		}
	}
	return ""
}

func (c *Conversation) inPieces() bool {
	return slices.ContainsFunc(c.Packets, func(p *Packet) bool { return p.datagram > 0 })
}

// repeatsItself says whether a packet was sent that equals one sent shortly before it in every header.
func (c *Conversation) repeatsItself() bool {
	for i, p := range c.Packets {
		for _, q := range c.Packets[i+1:] {
			if p.ID == q.ID && p.side == q.side && p.Seq == q.Seq && p.Ack == q.Ack && p.Flags == q.Flags && p.Checksum == q.Checksum && q.Time-p.Time < int64(3*s) {
				return true
			}
		}
	}
	return false
}

func abs(v int64) int64 { return max(v, -v) }
