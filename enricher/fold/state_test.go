package fold

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapweave/tapweave/proto/packet"
)

// script is packets written down in short, a millisecond apart: "a" is the client, whose initial sequence number
// is 100, and "b" the server, whose is 500. A packet is its sender, a colon, its flags (S F R P, '.' for ACK),
// and optionally its sequence number, its acknowledgement and its payload, as offsets from the initial number
// (its own, the other side's); an acknowledgement bears a slash, a payload a plus: "a:P.1/1+10".
func script(t *testing.T, text string) (ps []pk) {
	t.Helper()
	isn := map[string]uint32{"a": 100, "b": 500}
	other := map[string]string{"a": "b", "b": "a"}
	for i, word := range strings.Fields(text) {
		from, rest, ok := strings.Cut(word, ":")
		if !ok {
			t.Fatalf("%q is no packet", word)
		}
		p := pk{at: time.Duration(i) * ms, from: from}
		n := 0
		for n < len(rest) && strings.ContainsRune("SFRPU.", rune(rest[n])) {
			n++
		}
		p.flags = rest[:n]
		if strings.HasPrefix(p.flags, "U") {
			p.flags = "" // UDP
		}
		what, number := byte('s'), uint32(0)
		set := func() {
			switch what {
			case 's':
				p.seq = isn[from] + number
			case '/':
				p.ack = isn[other[from]] + number
			case '+':
				p.n = number
			}
		}
		for _, c := range []byte(rest[n:]) {
			switch {
			case c == 'w':
				p.mod = func(_ *packet.Flow, q *packet.Packet) { q.Window = 0 }
			case c >= '0' && c <= '9':
				number = number*10 + uint32(c-'0')
			default:
				set()
				what, number = c, 0
			}
		}
		set()
		ps = append(ps, p)
	}
	return ps
}

const (
	threeWay = "a:S b:S./1 a:.1/1 "
	fourWay  = "a:F.1/1 b:F.1/2 a:.2/2 "
)

// The states of Zeek's conn.log, each by several ways into it.
func TestConnState(t *testing.T) {
	for _, c := range []struct{ what, packets, state, history, reason string }{
		{"no answer", "a:S", "S0", "S", "end"},
		{"no answer to repeats", "a:S a:S a:S", "S0", "S", "end"},
		{"one-sided, goes on", "a:S a:.1/1 a:P.1/1+10", "S0", "SAD", "end"},
		{"acknowledged before it is answered", "a:S b:./1", "S0", "Sa", "end"},
		{"answered", "a:S b:S./1", "S1", "Sh", "end"},
		{"established", threeWay, "S1", "ShA", "end"},
		{"simultaneous open", "a:S b:S a:S./1 b:S./1", "S1", "Ss", "end"},
		{"split handshake", "a:S b:./1 b:S a:S./1 b:.1/1", "S1", "Sas", "end"},
		{"the SYN lost", "b:S./1 a:.1/1 a:P.1/1+10", "S1", "^hAD", "end"},
		{"a SYN-ACK alone", "b:S./1", "OTH", "^h", "end"},
		{"closed", threeWay + fourWay, "SF", "ShAFf", "fin"},
		{"closed, no SYN seen", "a:P.1/1+5 b:P.1/6+5 a:F.6/6 b:F.6/7", "SF", "DdFf", "fin"},
		{"closed, then reset", threeWay + fourWay + "a:R2", "SF", "ShAFfR", "fin"},
		{"FIN, RST, FIN", threeWay + "a:F.1/1 a:R2 b:F.1/2", "SF", "ShAFRf", "rst"},
		{"closed in one packet each", "a:S b:SF./1 a:F.1/2", "SF", "SqF", "fin"},
		{"refused", "a:S b:R./1", "REJ", "Sr", "rst"},
		{"refused twice", "a:S b:R./1 a:S b:R./1", "REJ", "Sr", "rst"},
		{"both reset, nothing carried", threeWay + "a:R1 b:R1", "REJ", "ShARr", "rst"},
		{"both reset", threeWay + "a:P.1/1+9 a:R10 b:R1", "RSTR", "ShADRr", "rst"},
		{"both reset, the other order", threeWay + "a:P.1/1+9 b:R1 a:R10", "RSTR", "ShADrR", "rst"},
		{"close by the originator", threeWay + "a:F.1/1", "S2", "ShAF", "end"},
		{"close by the originator, acknowledged", threeWay + "a:F.1/1 b:.1/2", "S2", "ShAFa", "end"},
		{"close by the responder", threeWay + "b:F.1/1", "S3", "ShAf", "end"},
		{"aborted by the originator", threeWay + "a:R1", "RSTO", "ShAR", "rst"},
		{"aborted behind its FIN", threeWay + "a:F.1/1 a:R2", "RSTO", "ShAFR", "rst"},
		{"aborted behind the other's FIN", threeWay + "b:F.1/1 a:R1", "RSTO", "ShAfR", "rst"},
		{"the SYN lost, aborted", "b:S./1 a:R1", "RSTO", "^hR", "rst"},
		{"FIN and RST in one", threeWay + "a:FR1", "RSTO", "ShAI", "rst"},
		{"aborted by the responder", threeWay + "b:R.1/1", "RSTR", "ShAr", "rst"},
		{"aborted behind the originator's FIN", threeWay + "a:F.1/1 b:R1", "RSTR", "ShAFr", "rst"},
		{"the SYN lost, aborted by the responder", "b:S./1 a:.1/1 b:R1", "RSTR", "^hAr", "rst"},
		{"SYN and RST", "a:S a:R1", "RSTOS0", "SR", "rst"},
		{"SYN, data, RST, one-sided", "a:S a:P.1/1+4 a:R5", "RSTOS0", "SDR", "rst"},
		{"SYN, ACK, RST, one-sided", "a:S a:.1/1 a:R1", "OTH", "SAR", "rst"},
		{"SYN, FIN, RST, one-sided", "a:S a:F1 a:R2", "OTH", "SFR", "rst"},
		{"SYN and RST in one", "a:SR", "OTH", "Q", "rst"},
		{"SYN-ACK and RST", "b:S./1 b:R1", "RSTRH", "^hr", "rst"},
		{"a RST in midstream", "a:P.1/1+5 b:R1", "RSTRH", "Dr", "rst"},
		{"a RST alone, of a service", "b:R1", "RSTRH", "^r", "rst"},
		{"a RST alone", "a:R1", "OTH", "R", "rst"},
		{"a RST of the originator in midstream", "a:P.1/1+5 b:.1/6 a:R6", "OTH", "DaR", "rst"},
		{"SYN and FIN", "a:S a:F1", "SH", "SF", "end"},
		{"SYN and FIN in one", "a:SF", "SH", "Q", "end"},
		{"one-sided to the end", "a:S a:.1/1 a:P.1/1+5 a:F.6/8", "SH", "SADF", "end"},
		{"a FIN in midstream", "a:P.1/1+5 b:.1/6 a:F.6/1", "SH", "DaF", "end"},
		{"SYN-ACK and FIN", "b:S./1 b:F.1/1", "SHR", "^hf", "end"},
		{"a FIN of the responder in midstream", "a:P.1/1+5 b:F.1/6", "SHR", "Df", "end"},
		{"midstream", "a:.1/1 b:P.1/1+10", "OTH", "Ad", "end"},
		{"SYN answered with data", "a:S b:P.1/1+10", "OTH", "Sd", "end"},
		{"UDP", "a:U+10 b:U+10", "SF", "Dd", "end"},
		{"UDP, empty", "a:U b:U", "SF", "Dd", "end"},
		{"UDP, no answer", "a:U+10", "S0", "D", "end"},
		{"UDP, of a service alone", "b:U+10", "SHR", "^d", "end"}, // it answers what was not seen
	} {
		r := fold(t, nil, script(t, c.packets)...).one()
		if r.ConnState != c.state || r.History != c.history || r.CloseReason != c.reason || r.SrcPort != 40000 {
			t.Errorf("%s: %s %s %s from port %d, want %s %s %s", c.what, r.ConnState, r.History, r.CloseReason, r.SrcPort, c.state, c.history, c.reason)
		}
	}
}

// The states follow from what was sent, not from the order in which it was seen: every order of the packets
// gives the same, where who is src follows from a SYN.
func TestConnStateInAnyOrder(t *testing.T) {
	for _, text := range []string{
		threeWay + "a:F.1/1", threeWay + "b:F.1/1", threeWay + "a:F.1/1 b:F.1/2", threeWay + "a:R1", threeWay + "b:R1 a:R1",
		threeWay + "a:P.1/1+9 b:R1", "a:S b:R./1", "a:S b:./1", "a:S a:R1", "a:S a:.1/1 a:R1", "a:S a:F1", threeWay + "a:F.1/1 a:R2 b:F.1/2",
	} {
		ps := script(t, text)
		want := fold(t, nil, ps...).one()
		permute(ps, func(order []pk) {
			for i := range order {
				order[i].at = time.Duration(i) * ms
			}
			got := fold(t, nil, order...).one()
			if got.ConnState != want.ConnState || got.SrcPort != want.SrcPort || got.SrcPackets != want.SrcPackets || got.SrcPayloadBytes != want.SrcPayloadBytes ||
				got.SrcTCPFlags != want.SrcTCPFlags || got.DstTCPFlags != want.DstTCPFlags || got.SrcMissedBytes != want.SrcMissedBytes {
				t.Fatalf("%s: %s, want %s", got.History, got.ConnState, want.ConnState)
			}
		})
	}
}

// permute calls each with every order of ps.
func permute(ps []pk, each func([]pk)) {
	var walk func(n int)
	order := slices.Clone(ps)
	walk = func(n int) {
		if n == len(order) {
			each(slices.Clone(order))
			return
		}
		for i := n; i < len(order); i++ {
			order[n], order[i] = order[i], order[n]
			walk(n + 1)
			order[n], order[i] = order[i], order[n]
		}
	}
	walk(0)
}

func TestHistory(t *testing.T) {
	repeat := func(word string, n int) string { return strings.Repeat(word+" ", n) }
	for _, c := range []struct{ what, packets, history string }{
		{"payload once a side", threeWay + "a:P.1/1+5 a:P.6/1+5 b:P.1/11+5 b:P.6/11+5", "ShADd"},
		{"payload in a FIN", threeWay + "a:FP.1/1+5", "ShAF"},
		{"the same FIN again", threeWay + "a:F.1/1 a:F.1/1", "ShAF"},
		{"a FIN further on", threeWay + "a:F.1/1 a:F.5/1", "ShAFF"},
		{"the same RST again", threeWay + "b:R1 b:R1", "ShAr"},
		{"RSTs at other numbers", threeWay + "b:R1 b:R2 b:R2 b:R3", "ShArrr"},
		{"the same SYN-ACK again", "a:S b:S./1 b:S./1", "Sh"},
		{"sent again", threeWay + "a:P.1/1+5 a:P.1/1+5", "ShADT"},
		{"out of order", threeWay + "a:P.6/1+5 a:P.1/1+5", "ShADT"},
		{"goes further", threeWay + "a:P.1/1+5 a:P.1/1+9", "ShAD"},
		{"a keep-alive with a byte", threeWay + "a:P.1/1+5 b:.1/6 a:.5/1+1 b:.1/6", "ShADaT"},
		{"a keep-alive with none", threeWay + "a:P.1/1+5 b:.1/6 a:.5/1 b:.1/6", "ShADa"},
		{"sent again nine times", threeWay + "a:P.1/1+5 " + repeat("a:P.1/1+5", 9), "ShADT"},
		{"ten times", threeWay + "a:P.1/1+5 " + repeat("a:P.1/1+5", 10), "ShADTT"},
		{"ninety-nine times", threeWay + "a:P.1/1+5 " + repeat("a:P.1/1+5", 99), "ShADTT"},
		{"a hundred times", threeWay + "a:P.1/1+5 " + repeat("a:P.1/1+5", 100), "ShADTTT"},
		{"both sides again", threeWay + "a:P.1/1+5 a:P.1/1+5 b:P.1/6+5 b:P.1/6+5", "ShADTdt"},
		{"behind a RST", threeWay + "a:P.1/1+5 a:R6 a:P.1/1+5", "ShADR"},
		{"a zero window", threeWay + "b:.1/1w", "ShAaw"},
		{"zero windows", threeWay + repeat("b:.1/1w", 10), "ShAaww"},
		{"a zero window in a SYN-ACK", "a:S b:S./1w", "Shw"},
		{"a zero window in a RST", threeWay + "b:R1w", "ShAr"},
		{"a zero window behind a FIN", threeWay + "a:F.1/1 b:.1/2w", "ShAFa"},
		{"a zero window behind one's own FIN", threeWay + "b:F.1/1 b:.2/1w", "ShAfaw"},
		{"a gap", threeWay + "a:P.1/1+5 a:P.11/1+5 b:.1/16", "ShADaG"},
		{"a gap at the end", threeWay + "a:P.1/1+5 b:.1/11", "ShADaG"},
		{"a gap of the responder", threeWay + "b:P.1/1+5 b:P.11/1+5 a:.1/16", "ShAdg"},
		{"a hole filled in time", threeWay + "a:P.1/1+5 a:P.11/1+5 b:.1/6 a:P.6/1+5 b:.1/16", "ShADaT"},
		{"two gaps count twice", threeWay + "a:P.1/1+5 " + "a:P.11/1+5 a:P.21/1+5 b:.1/26", "ShADaG"},
		{"ten gaps", threeWay + "a:P.1/1+1 a:P.3/1+1 a:P.5/1+1 a:P.7/1+1 a:P.9/1+1 a:P.11/1+1 a:P.13/1+1 a:P.15/1+1 a:P.17/1+1 a:P.19/1+1 a:P.21/1+1 b:.1/22", "ShADaGG"},
		{"no gap before it is established", "a:S a:P.11/1+5 b:.1/16", "SDa"},
		{"no gap in midstream", "a:P.1/1+5 b:.1/6 a:P.11/1+5 b:.1/16", "Da"},
		{"a gap before the FIN", threeWay + "a:P.1/1+5 a:F.11/1 b:.1/12", "ShADFaG"},
		{"FIN and RST", threeWay + "b:FR1", "ShAi"},
		{"SYN and RST", "a:S b:SR./1", "Sq"},
		{"all of them", "a:S b:SFR./1", "Si"},
		{"two with many flags", threeWay + "a:FR1 a:FR1", "ShAI"},
		{"who answers first", "b:.1/1 a:.1/1", "^aA"},
	} {
		if r := fold(t, nil, script(t, c.packets)...).one(); r.History != c.history {
			t.Errorf("%s: %s, want %s", c.what, r.History, c.history)
		}
	}
	// It is bounded.
	var many []string
	for i := range 50 {
		many = append(many, "b:R"+string(rune('1'+i%2)))
	}
	if r := fold(t, nil, script(t, threeWay+strings.Join(many, " "))...).one(); r.History != "ShA"+strings.Repeat("r", maxHistory-3) || r.DstPackets != 51 {
		t.Errorf("%s, %d packets", r.History, r.DstPackets)
	}
}

// A handshake's round trips, and where they cannot be told.
func TestHandshake(t *testing.T) {
	nan := func(v float64) bool { return v != v }
	for _, c := range []struct {
		what, packets   string
		whole, src, dst bool
	}{
		{"plain", threeWay, true, true, true},
		{"SYN repeated", "a:S a:S b:S./1 a:.1/1", false, true, false},
		{"SYN repeated behind the answer", "a:S b:S./1 a:S a:.1/1", true, true, true},
		{"SYN-ACK repeated", "a:S b:S./1 b:S./1 a:.1/1", false, false, true},
		{"SYN-ACK repeated behind the ACK", threeWay + "b:S./1", true, true, true},
		{"no SYN", "b:S./1 a:.1/1", false, true, false},
		{"no ACK", "a:S b:S./1", false, false, true},
		{"the client goes on with data", "a:S b:S./1 a:P.1/1+9", true, true, true},
		{"a SYN-ACK that answers something else", "a:S b:S./1000000", false, false, false},
		{"data in the SYN", "a:S+9 b:S./10 a:.10/1", true, true, true},
		{"midstream", "a:.1/1 b:.1/1", false, false, false},
		{"an ACK of something older", "a:S b:S./1 a:.1/0", false, false, true},
	} {
		r := fold(t, nil, script(t, c.packets)...).one()
		if nan(r.HandshakeRTT) == c.whole || nan(r.SrcRTT) == c.src || nan(r.DstRTT) == c.dst {
			t.Errorf("%s: %v %v %v", c.what, r.HandshakeRTT, r.SrcRTT, r.DstRTT)
		}
	}
}

// What must not close a connection, and what does not belong to it.
func TestAttacks(t *testing.T) {
	carried := threeWay + "a:P.1/1+100 b:P.1/101+100 a:.101/101 "
	for _, c := range []struct {
		what, packets, state string
		dstFlags             uint8
	}{
		{"a blind RST far ahead", carried + "b:R100000000 b:P.101/101+5", "S1", packet.SYN | packet.ACK | packet.PSH},
		{"a blind RST far behind", carried + "b:R3000000000 b:P.101/101+5", "S1", packet.SYN | packet.ACK | packet.PSH},
		{"a RST in the window", carried + "b:R101", "RSTR", packet.SYN | packet.ACK | packet.PSH | packet.RST},
		{"a RST at what was acknowledged last", carried + "b:R1", "RSTR", packet.SYN | packet.ACK | packet.PSH | packet.RST},
		{"a RST for a SYN that nobody sent", "a:S b:R./500000000", "S0", 0},
	} {
		r := fold(t, nil, script(t, c.packets)...).one()
		if r.ConnState != c.state || r.DstTCPFlags != c.dstFlags || r.SrcPackets+r.DstPackets != uint64(len(strings.Fields(c.packets))) {
			t.Errorf("%s: %s, flags %x, %d+%d packets", c.what, r.ConnState, r.DstTCPFlags, r.SrcPackets, r.DstPackets)
		}
	}
}

// Data behind a FIN is counted, and is no hole.
func TestBehindFIN(t *testing.T) {
	r := fold(t, nil, script(t, threeWay+"a:F.1/1 b:P.1/2+300 b:F.301/2 a:.2/302 a:P.2/302+50")...).one()
	if r.DstPayloadBytes != 300 || r.SrcPayloadBytes != 50 || r.SrcMissedBytes != 0 || r.ConnState != "SF" || r.CloseReason != "fin" {
		t.Errorf("%d %d payload, %d missed, %s %s", r.SrcPayloadBytes, r.DstPayloadBytes, r.SrcMissedBytes, r.ConnState, r.CloseReason)
	}
}
