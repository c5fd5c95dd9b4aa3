package fold

import (
	"slices"
	"testing"
	"time"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/packet"
)

// sessions are what a fold of packets settles, in the order of their beginning.
func sessions(t *testing.T, ps ...pk) *bench {
	t.Helper()
	b := fold(t, nil, ps...)
	slices.SortFunc(b.settled, func(x, y columns.Session) int { return compare(x.Start, y.Start) })
	return b
}

// The borders between sessions, to the nanosecond: what lies on one still belongs to the session before it.
func TestBordersExactly(t *testing.T) {
	const established = 30 * ms // last packet of opened(0, …)
	end := s + 20*ms            // last packet of closed(s, …)
	join := func(parts ...[]pk) []pk { return slices.Concat(parts...) }
	goOn := func(at time.Duration) []pk {
		return []pk{{at: at, from: "a", flags: "P.", seq: 101, ack: 501, n: 1}}
	}
	lateFIN := func(at time.Duration) []pk {
		return []pk{{at: at, from: "b", flags: "F.", seq: 501, ack: 102}}
	}
	for _, c := range []struct {
		what string
		ps   []pk
		want int
	}{
		{"TCP idle for an hour", join(opened(0, 100, 500), goOn(established+time.Hour)), 1},
		{"and longer", join(opened(0, 100, 500), goOn(established+time.Hour+1)), 2},
		{"half-open for a minute", []pk{{from: "a", flags: "S", seq: 100}, {at: time.Minute, from: "a", flags: "S", seq: 100}}, 1},
		{"and longer", []pk{{from: "a", flags: "S", seq: 100}, {at: time.Minute + 1, from: "a", flags: "S", seq: 100}}, 2},
		{"UDP idle for a minute", []pk{{from: "a", n: 1}, {at: time.Minute, from: "b", n: 1}}, 1},
		{"and longer", []pk{{from: "a", n: 1}, {at: time.Minute + 1, from: "b", n: 1}}, 2},
		{"behind a close, while it is not final", join(opened(0, 100, 500), closed(s, 100, 500), lateFIN(end+5*s)), 1},
		{"two minutes behind it", join(opened(0, 100, 500), closed(s, 100, 500), lateFIN(end+125*s)), 1},
		{"and later", join(opened(0, 100, 500), closed(s, 100, 500), lateFIN(end+125*s+1)), 2},
		{"what belongs to it does not extend that", join(opened(0, 100, 500), closed(s, 100, 500), lateFIN(end+100*s), lateFIN(end+125*s+1)), 2},
		{"what comes before it is final does", join(opened(0, 100, 500), closed(s, 100, 500), lateFIN(end+4*s), lateFIN(end+129*s)), 1},
		{"TIME_WAIT reuse at once", join(opened(0, 100, 500), closed(s, 100, 500), opened(end+1, 9000, 7000)), 2},
		{"TIME_WAIT reuse, final", join(opened(0, 100, 500), closed(s, 100, 500), opened(end+60*s, 9000, 7000)), 2},
		{"reuse with a lower number", join(opened(0, 9000, 7000), closed(s, 9000, 7000), opened(end+s, 100, 500)), 2},
		{"reuse behind a RST", join(opened(0, 100, 500), []pk{{at: s, from: "b", flags: "R", seq: 501}}, opened(1100*ms, 9000, 7000)), 2},
		{"refused, and tried again with the same number", script(t, "a:S b:R./1 a:S b:R./1"), 1},
		{"refused, and tried again with another", script(t, "a:S b:R./1 a:S5000 b:R./5001"), 2},
	} {
		if b := sessions(t, c.ps...); len(b.settled) != c.want {
			t.Errorf("%s: %s", c.what, b.sketch())
		}
	}
	age := func(at time.Duration) (ps []pk) { // a packet each half hour
		for d := time.Duration(0); d < at; d += 30 * time.Minute {
			ps = append(ps, goOn(d)...)
		}
		return append(ps, goOn(at)...)
	}
	if b := sessions(t, age(24*time.Hour-1)...); len(b.settled) != 1 || b.settled[0].CloseReason != "end" {
		t.Errorf("nearly a day: %s", b.sketch())
	}
	if b := sessions(t, age(24*time.Hour)...); len(b.settled) != 2 || b.settled[0].CloseReason != "rollover" {
		t.Errorf("a day: %s", b.sketch())
	}
}

// Who is src where no SYN tells.
func TestOrientation(t *testing.T) {
	ports := func(from, to uint16) func(*packet.Flow, *packet.Packet) {
		return func(f *packet.Flow, _ *packet.Packet) { f.SrcPort, f.DstPort = from, to }
	}
	multicast := func(f *packet.Flow, _ *packet.Packet) {
		f.SrcPort, f.DstPort, f.Dst = 53, 5353, packet.Addr{0xff, 0x02, 15: 0xfb}
		f.Src, f.V6 = packet.Addr{0xfe, 0x80, 15: 1}, true
	}
	for _, c := range []struct {
		what    string
		p       pk
		first   bool   // src is who sent the first packet
		history string // of that packet alone
	}{
		{"a client", pk{from: "a", flags: "P.", seq: 1, ack: 1, n: 1, mod: ports(40000, 443)}, true, "D"},
		{"a server", pk{from: "a", flags: "P.", seq: 1, ack: 1, n: 1, mod: ports(443, 40000)}, false, "^d"},
		{"both are services", pk{from: "a", flags: "P.", seq: 1, ack: 1, n: 1, mod: ports(443, 8443)}, true, "D"},
		{"neither is", pk{from: "a", flags: "P.", seq: 1, ack: 1, n: 1, mod: ports(40000, 50000)}, true, "D"},
		{"a SYN from a service's port", pk{from: "a", flags: "S", mod: ports(443, 40000)}, true, "S"},
		{"a SYN-ACK to a service's port", pk{from: "a", flags: "S.", mod: ports(40000, 443)}, false, "^h"},
		{"UDP of a server", pk{from: "a", n: 1, mod: ports(53, 40000)}, false, "^d"},
		{"UDP of a client", pk{from: "a", n: 1, mod: ports(40000, 53)}, true, "D"},
	} {
		f, _ := c.p.packet()
		r := fold(t, nil, c.p).one()
		if got := r.Src == f.Src && r.SrcPort == f.SrcPort; got != c.first || r.History != c.history {
			t.Errorf("%s: src is %v:%d, history %s", c.what, r.Src, r.SrcPort, r.History)
		}
	}
	// Nobody answers to a multicast address.
	b := newBench(t, func(set *Settings) { set.Partitions = 1 })
	b.f.partition = 0
	f, _ := (pk{from: "a", n: 1, mod: multicast}).packet()
	b.send("c", s, pk{from: "a", n: 1, mod: multicast})
	b.end()
	if r := b.one(); r.Src != f.Src || r.SrcPort != 53 {
		t.Errorf("multicast: src is %v:%d", r.Src, r.SrcPort)
	}
}

// A RST counts where the other side would take it for one: in the window, which may be scaled.
func TestScaledWindow(t *testing.T) {
	opens := func(scale uint8) []pk {
		ps := opened(0, 100, 500)
		for i := range 2 {
			ps[i].mod = func(_ *packet.Flow, p *packet.Packet) { p.WindowScale = scale }
		}
		return append(ps, pk{at: 40 * ms, from: "b", flags: ".", seq: 501, ack: 101, mod: func(_ *packet.Flow, p *packet.Packet) { p.Window = 4000 }})
	}
	for _, c := range []struct {
		what  string
		scale uint8
		state string
	}{
		{"not scaled", packet.NoWindowScale, "S1"},
		{"scaled", 7, "RSTO"},
		{"by more than may be", 200, "RSTO"}, // RFC 7323, 2.3: 14 is used
	} {
		reset := pk{at: s, from: "a", flags: "R", seq: 101 + 300_000}
		if r := fold(t, nil, append(opens(c.scale), reset)...).one(); r.ConnState != c.state {
			t.Errorf("%s: %s, want %s", c.what, r.ConnState, c.state)
		}
	}
	// Only one side offers to scale: nobody does.
	ps := opens(7)
	ps[0].mod = nil
	if r := fold(t, nil, append(ps, pk{at: s, from: "a", flags: "R", seq: 101 + 300_000})...).one(); r.ConnState != "S1" {
		t.Errorf("scaled by one side alone: %s", r.ConnState)
	}
}

// Zero windows, keep-alives and repeated acknowledgements, as the columns count them.
func TestColumnsOfTCP(t *testing.T) {
	for _, c := range []struct {
		what, packets               string
		retransmits, zeroes, missed [2]uint64
		payload                     [2]uint64
	}{
		{what: "zero windows", packets: threeWay + "b:.1/1w b:.1/1w a:.1/1w", zeroes: [2]uint64{1, 2}},
		{what: "not in SYN, FIN and RST", packets: "a:Sw b:S./1w a:.1/1 b:F.1/1w a:F.1/2w b:R2w"},
		{what: "keep-alives", packets: threeWay + "a:P.1/1+5 b:.1/6 a:.5/1 b:.1/6 a:.5/1+1 b:.1/6", payload: [2]uint64{5, 0}},
		{what: "acknowledged again and again", packets: threeWay + "a:P.1/1+5 b:.1/6 b:.1/6 b:.1/6", payload: [2]uint64{5, 0}},
		{what: "a byte that is no keep-alive", packets: threeWay + "a:P.1/1+5 a:P.1/1+1", payload: [2]uint64{5, 0}, retransmits: [2]uint64{1, 0}},
		{what: "SYN, SYN-ACK and FIN again", packets: "a:S a:S b:S./1 b:S./1 a:.1/1 a:F.1/1 a:F.1/1 b:F.1/2 b:F.1/2 b:F.1/2", retransmits: [2]uint64{2, 3}},
		{what: "payload in a SYN", packets: "a:S+9 b:S./10 a:P.10/1+5", payload: [2]uint64{14, 0}},
		{what: "a SYN that comes behind", packets: "a:P.1/1+5 a:S", payload: [2]uint64{5, 0}},
		{what: "behind a FIN that was missed", packets: threeWay + "a:P.1/1+5 a:P.7/1+5", payload: [2]uint64{10, 0}, missed: [2]uint64{1, 0}},
		{what: "one-sided", packets: "a:S a:.1/1 a:P.1/1+5 a:P.11/300+5 a:F.16/400", payload: [2]uint64{10, 0}, missed: [2]uint64{5, 0}},
		{what: "a jump beyond any window", packets: threeWay + "a:P.1/1+5 a:P.2000000001/1+7", payload: [2]uint64{12, 0}},
	} {
		r := fold(t, nil, script(t, c.packets)...).one()
		for _, f := range []struct {
			name      string
			got, want [2]uint64
		}{
			{"retransmits", [2]uint64{r.SrcRetransmits, r.DstRetransmits}, c.retransmits},
			{"zero windows", [2]uint64{r.SrcZeroWindows, r.DstZeroWindows}, c.zeroes},
			{"missed bytes", [2]uint64{r.SrcMissedBytes, r.DstMissedBytes}, c.missed},
			{"payload bytes", [2]uint64{r.SrcPayloadBytes, r.DstPayloadBytes}, c.payload},
		} {
			if f.got != f.want {
				t.Errorf("%s: %s %v, want %v", c.what, f.name, f.got, f.want)
			}
		}
	}
}

// ICMP errors count in the session that they quote, whatever its protocol, and are sessions of their own.
func TestICMPErrors(t *testing.T) {
	quote := func(protocol byte, transport ...byte) []byte {
		return append([]byte{0x45, 0, 0, byte(20 + len(transport)), 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 4, 10, 0, 0, 5}, transport...)
	}
	icmp := func(kind, code uint16, head []byte) func(*packet.Flow, *packet.Packet) {
		return func(f *packet.Flow, p *packet.Packet) {
			f.Protocol, f.SrcPort, f.DstPort, p.Head, p.Flags = packet.ProtoICMP, kind, code, head, 0
		}
	}
	ports := []byte{0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 100}
	echo := func(f *packet.Flow, p *packet.Packet) {
		f.Protocol, f.SrcPort, f.DstPort, f.ICMPID, p.Flags = packet.ProtoICMP, 8, 0, 7, 0
	}
	for _, c := range []struct {
		what    string
		of      pk
		kind    uint16
		code    uint16
		quote   []byte
		matches bool
	}{
		{"port unreachable, UDP", pk{from: "a", n: 1}, 3, 3, quote(17, ports...), true},
		{"time exceeded, TCP", pk{from: "a", flags: "S", seq: 100}, 11, 0, quote(6, ports...), true},
		{"fragmentation needed, TCP", pk{from: "a", flags: "S", seq: 100}, 3, 4, quote(6, ports...), true},
		{"host unreachable, echo", pk{from: "a", n: 8, mod: echo}, 3, 1, quote(1, 8, 0, 0, 0, 0, 7, 0, 1), true},
		{"another echo", pk{from: "a", n: 8, mod: echo}, 3, 1, quote(1, 8, 0, 0, 0, 0, 9, 0, 1), false},
		{"another port", pk{from: "a", n: 1}, 3, 3, quote(17, 0x9c, 0x41, 0x01, 0xbb, 0, 9, 0, 0), false},
		{"cut before the ports", pk{from: "a", n: 1}, 3, 3, quote(17, 0x9c), false},
	} {
		b := sessions(t, c.of, pk{at: ms, from: "b", n: 36, mod: icmp(c.kind, c.code, c.quote)})
		if len(b.settled) != 2 {
			t.Errorf("%s: %s", c.what, b.sketch())
			continue
		}
		if r, e := b.settled[0], b.settled[1]; r.ICMPErrors == 1 != c.matches || e.IPProtocol != packet.ProtoICMP || e.SrcPort != c.kind || e.DstPort != c.code ||
			r.SrcPackets+r.DstPackets != 1 || e.SrcPackets != 1 || b.f.counts[QuotesUnmatched] == 0 != c.matches {
			t.Errorf("%s: %d errors; %d unmatched; %+v", c.what, r.ICMPErrors, b.f.counts[QuotesUnmatched], e)
		}
	}
}

// A collector that is cut off for less than the retirement time changes nothing; one that is cut off for longer still
// has every packet counted once, in the right session, up to the late limit.
func TestCutOff(t *testing.T) {
	// The client's packets go by x, the server's by y, which is cut off at 1 s.
	client, server := []pk{}, []pk{}
	for _, p := range append(append(opened(0, 100, 500), pk{at: 1500 * ms, from: "a", flags: "P.", seq: 101, ack: 501, n: 10},
		pk{at: 1600 * ms, from: "b", flags: "P.", seq: 501, ack: 111, n: 20}), // kept by y until it is back
		pk{at: 1700 * ms, from: "a", flags: "F.", seq: 111, ack: 521}, pk{at: 1800 * ms, from: "b", flags: "F.", seq: 521, ack: 112}) {
		if p.from == "a" {
			client = append(client, p)
		} else {
			server = append(server, p)
		}
	}
	run := func(away int) *bench {
		b := newBench(t, nil)
		b.tick(1, 0)
		b.send("x", 0)
		b.send("y", 0)
		b.send("x", s, client[:2]...)
		b.send("y", s, server[:1]...)
		for i := range away {
			at := time.Duration(i+1) * s
			b.tick(1, at)
			if i == 0 {
				b.send("x", 2*s, client[2:]...)
			}
			b.send("x", at+s)
		}
		b.send("y", time.Duration(away+1)*s, server[1:]...)
		b.end()
		b.check()
		return b
	}
	want := run(1)
	if r := want.one(); r.ConnState != "SF" || r.SrcPackets != 4 || r.DstPackets != 3 || r.LatePackets != 0 {
		t.Fatalf("not cut off: %+v", r)
	}
	for away := 2; away < 10; away++ {
		if b := run(away); !slices.EqualFunc(b.versions, want.versions, func(x, y columns.Session) bool {
			return string(columns.AppendJSON(nil, &x)) == string(columns.AppendJSON(nil, &y))
		}) {
			t.Errorf("cut off for %d s: %s", away, b.sketch())
		}
	}
	for _, away := range []int{11, 60, 115} {
		b := run(away)
		if r := b.one(); r.ConnState != "SF" || r.SrcPackets != 4 || r.DstPackets != 3 || r.SrcPayloadBytes != 10 || r.DstPayloadBytes != 20 || r.LatePackets != 2 ||
			b.f.counts[ProducersRetired] != 1 || b.f.counts[TooLate] != 0 {
			t.Errorf("cut off for %d s: %s, %d late, %d retired, %d too late", away, b.sketch(), r.LatePackets, b.f.counts[ProducersRetired], b.f.counts[TooLate])
		}
	}
	b := run(130)
	if n := b.f.counts[TooLate]; n != 2 {
		t.Errorf("cut off for longer than the late limit: %d too late", n)
	}
	if r := b.one(); r.SrcPackets != 4 || r.DstPackets != 1 {
		t.Errorf("cut off for longer than the late limit: %+v", r)
	}
}

// Second copies of all kinds of packets, over two collectors.
func TestCopiesOfAllKinds(t *testing.T) {
	changed := func(mod func(*packet.Flow, *packet.Packet)) func(*packet.Flow, *packet.Packet) {
		return func(f *packet.Flow, p *packet.Packet) {
			if mod != nil {
				mod(f, p)
			}
			if f.Carriers[0].Source[15] == 2 {
				f.TTL--
				f.SrcMAC, f.DstMAC = [6]byte{1, 2, 3}, [6]byte{4, 5, 6}
			}
		}
	}
	echo := func(f *packet.Flow, p *packet.Packet) {
		f.Protocol, f.SrcPort, f.DstPort, f.ICMPID = packet.ProtoICMP, 8, 0, 7
	}
	tunnel := func(f *packet.Flow, p *packet.Packet) { f.Protocol, f.SrcPort, f.DstPort = 47, 0, 0 }
	id := func(n uint32) func(*packet.Flow, *packet.Packet) {
		return func(_ *packet.Flow, p *packet.Packet) { p.ID = n }
	}
	for _, c := range []struct {
		what string
		ps   []pk // as one tap point sees them
		want uint64
	}{
		{"TCP", []pk{{from: "a", flags: "S", seq: 100}}, 1},
		{"UDP", []pk{{from: "a", n: 9}}, 1},
		{"UDP, the same again", []pk{{from: "a", n: 9}, {at: 10 * ms, from: "a", n: 9}}, 2},
		{"echo", []pk{{from: "a", n: 9, mod: echo}}, 1},
		{"GRE", []pk{{from: "a", n: 9, mod: tunnel}}, 1},
		{"acknowledged three times, identification 0", []pk{{from: "a", flags: ".", seq: 1, ack: 9}, {at: ms, from: "a", flags: ".", seq: 1, ack: 9}, {at: 2 * ms, from: "a", flags: ".", seq: 1, ack: 9}}, 3},
		{"sent again as another datagram", []pk{{from: "a", flags: "P.", seq: 1, ack: 9, n: 5, mod: id(1)}, {at: 200 * ms, from: "a", flags: "P.", seq: 1, ack: 9, n: 5, mod: id(2)}}, 2},
		{"keep-alives", []pk{{from: "a", flags: ".", seq: 5, ack: 9}, {at: 2 * s, from: "a", flags: ".", seq: 5, ack: 9}}, 2},
	} {
		for _, delay := range []time.Duration{0, 1, 300 * time.Microsecond, 999 * ms, s} {
			for _, order := range []string{"12", "21", "late"} {
				b := newBench(t, nil)
				b.send("x", -s)
				b.send("y", -s)
				var taps [2][]pk
				for _, p := range c.ps {
					p.mod = changed(p.mod)
					q := p
					p.from, q.from = p.from+"/1", q.from+"/2"
					q.at += delay
					taps[0], taps[1] = append(taps[0], p), append(taps[1], q)
				}
				switch order {
				case "12":
					b.send("x", 10*s, taps[0]...)
					b.send("y", 10*s, taps[1]...)
				case "21":
					b.send("y", 10*s, taps[1]...)
					b.send("x", 10*s, taps[0]...)
				default: // y is retired meanwhile, and its copies come behind the watermark
					b.send("x", 10*s, taps[0]...)
					for i := range 14 {
						b.tick(1, time.Duration(i)*s)
						b.send("x", 10*s+time.Duration(i)*s)
					}
					b.send("y", 23*s, taps[1]...)
				}
				b.end()
				b.check()
				if r := b.one(); r.SrcPackets != c.want || r.DuplicatePackets != uint64(len(c.ps)) || len(r.TapPoints) != 2 {
					t.Errorf("%s, %v apart, %s: %d packets, %d copies, want %d", c.what, delay, order, r.SrcPackets, r.DuplicatePackets, c.want)
				}
			}
		}
	}
	// Each tap point lost another packet: together they have all.
	data := func(tap string, i uint32) pk {
		return pk{at: time.Duration(i) * ms, from: "a/" + tap, flags: "P.", seq: 1 + 10*i, ack: 1, n: 10, mod: id(i + 1)}
	}
	b := newBench(t, nil)
	b.send("x", -s)
	b.send("y", -s)
	b.send("x", 10*s, data("1", 0), data("1", 1), data("1", 3))
	b.send("y", 10*s, data("2", 0), data("2", 2), data("2", 3))
	b.end()
	if r := b.one(); r.SrcPackets != 4 || r.DuplicatePackets != 2 || r.SrcMissedBytes != 0 || r.SrcPayloadBytes != 40 || r.SrcRetransmits != 0 {
		t.Errorf("holes filled by the other: %+v", r)
	}
}
