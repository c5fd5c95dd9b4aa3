package fold

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapweave/tapweave/proto/batch"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/proto/session"
)

// bench folds packets that a test writes down, and keeps what comes out.
type bench struct {
	t        testing.TB
	f        *Fold
	offset   int64
	damaged  bool // batches that came of a snapshot may not decode
	sequence map[string]uint64
	versions []columns.Session
	settled  []columns.Session
	at       []int64
	traffic  map[columns.TrafficDimensions]columns.TrafficSums
	packets  int
	alerts   []columns.Alert
}

func newBench(t testing.TB, change func(*Settings)) *bench {
	b := &bench{t: t, sequence: map[string]uint64{}, traffic: map[columns.TrafficDimensions]columns.TrafficSums{}}
	set := DefaultSettings()
	if change != nil {
		change(&set)
	}
	b.f = New(home, set, b)
	return b
}

func (b *bench) Session(s *Session) {
	var row columns.Session
	s.Row(&row)
	b.versions = append(b.versions, row)
}

func (b *bench) Settled(at int64, s *Session) {
	var row columns.Session
	s.Row(&row)
	b.settled, b.at = append(b.settled, row), append(b.at, at)
}

func (b *bench) Traffic(_ *Session, t *columns.Traffic) {
	sums := b.traffic[t.TrafficDimensions]
	sums.Add(t.TrafficSums)
	b.traffic[t.TrafficDimensions] = sums
}

func (b *bench) Packet(*columns.Packet) { b.packets++ }
func (b *bench) Alert(a *columns.Alert) { b.alerts = append(b.alerts, *a) }

// base is the time 0 of the tests.
var base = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC).UnixNano()

// pk is a packet of a test. It is written for one conversation between a, the client, and b, the server.
type pk struct {
	at       time.Duration
	from     string // "a" or "b", with a tap point behind a slash: "a/1"
	flags    string // S . F R P, none: UDP
	seq, ack uint32
	n        uint32 // payload
	mod      func(*packet.Flow, *packet.Packet)
}

var (
	addrA = packet.AddrFrom(netip.MustParseAddr("10.0.0.4"))
	addrB = packet.AddrFrom(netip.MustParseAddr("10.0.0.5"))

	home = session.Partition(session.DefaultTenant, &addrA, &addrB, 16) // their partition
)

func (p pk) packet() (f packet.Flow, q packet.Packet) {
	f = packet.Flow{Src: addrA, Dst: addrB, SrcPort: 40000, DstPort: 443, Protocol: packet.ProtoTCP, TTL: 64}
	from, tap, tapped := strings.Cut(p.from, "/")
	if from == "b" {
		f.Src, f.Dst, f.SrcPort, f.DstPort = f.Dst, f.Src, f.DstPort, f.SrcPort
	}
	if tapped {
		f.NCarriers, f.OuterPort = 1, 5000
		f.Carriers[0] = packet.Carrier{Source: packet.AddrFrom(netip.MustParseAddr("192.0.2." + tap)), VNI: 27}
	}
	q = packet.Packet{Time: base + int64(p.at), Seq: p.seq, Ack: p.ack, Payload: p.n, Length: p.n + 40, Window: 1000, WindowScale: packet.NoWindowScale}
	if p.flags == "" {
		f.Protocol = packet.ProtoUDP
		q.Length = p.n + 28
	}
	for _, c := range p.flags {
		q.Flags |= map[rune]uint8{'S': packet.SYN, '.': packet.ACK, 'F': packet.FIN, 'R': packet.RST, 'P': packet.PSH}[c]
	}
	q.Checksum = uint16(p.seq*31 + p.ack*7 + p.n + uint32(q.Flags)<<8)
	if p.mod != nil {
		p.mod(&f, &q)
	}
	return f, q
}

func (b *bench) record(r *pb.PacketsRecord) {
	b.t.Helper()
	v, err := record.MarshalPackets(r)
	if err != nil {
		b.t.Fatal(err)
	}
	var broken *BatchError
	if err := b.f.Record(b.offset, v); err != nil && !(b.damaged && errors.As(err, &broken)) {
		b.t.Fatal(err)
	}
	b.offset++
}

// send is a batch of a collector with its watermark.
func (b *bench) send(collector string, watermark time.Duration, ps ...pk) {
	b.t.Helper()
	b.sequence[collector]++
	e := batch.NewEncoder()
	for _, p := range ps {
		f, q := p.packet()
		e.Append(&f, &q)
	}
	m := &pb.PacketBatch{
		Producer: collector, Incarnation: 1, Sequence: b.sequence[collector], Watermark: base + int64(watermark), Partitions: uint32(b.f.set.Partitions),
	}
	if len(ps) > 0 {
		m.Packets, m.Oldest, m.Columns = uint32(len(ps)), e.Oldest(), e.Seal(batch.S2)
	}
	b.record(&pb.PacketsRecord{Body: &pb.PacketsRecord_Batch{Batch: m}})
}

// end ends the input.
func (b *bench) end() {
	b.t.Helper()
	b.record(&pb.PacketsRecord{Body: &pb.PacketsRecord_EndOfInput{EndOfInput: &pb.EndOfInput{}}})
}

// tick is a tick of the owner of an epoch.
func (b *bench) tick(epoch uint64, clock time.Duration) {
	b.t.Helper()
	b.record(&pb.PacketsRecord{Body: &pb.PacketsRecord_Tick{Tick: &pb.Tick{OwnerEpoch: epoch, Clock: base + int64(clock)}}})
}

// fold folds packets of one collector and the end of input, and checks what must hold of every result.
func fold(t *testing.T, change func(*Settings), ps ...pk) *bench {
	t.Helper()
	b := newBench(t, change)
	last := time.Duration(0)
	for _, p := range ps {
		last = max(last, p.at)
	}
	b.send("c", last+1, ps...)
	b.end()
	b.check()
	return b
}

// one is the only session that came out.
func (b *bench) one() columns.Session {
	b.t.Helper()
	if len(b.settled) != 1 {
		b.t.Fatalf("%d sessions, want 1: %s", len(b.settled), b.sketch())
	}
	return b.settled[0]
}

func (b *bench) sketch() string {
	var out []string
	for _, s := range b.settled {
		out = append(out, fmt.Sprintf("%v %s %s %d/%d", time.Duration(s.Start-base), s.ConnState, s.CloseReason, s.SrcPackets, s.DstPackets))
	}
	return strings.Join(out, "; ")
}

// check holds the bookings against the sessions: for every value of every dimension the sums are equal.
func (b *bench) check() {
	b.t.Helper()
	last := map[session.ID]columns.Session{}
	for _, v := range b.versions {
		if p, ok := last[v.ID]; ok && v.Version != p.Version+1 || !ok && v.Version != 1 {
			b.t.Fatalf("version %d follows %d", v.Version, p.Version)
		}
		last[v.ID] = v
	}
	for _, s := range b.settled {
		if v := last[s.ID]; v.Version != s.Version || !v.IsFinal || v.SrcPackets != s.SrcPackets || v.DstPackets != s.DstPackets {
			b.t.Fatalf("settled as %+v, put out as %+v", s, v)
		}
	}
	type key struct {
		port     uint16
		protocol uint8
	}
	want, got := map[key]columns.TrafficSums{}, map[key]columns.TrafficSums{}
	for _, s := range last {
		k := key{s.DstPort, s.IPProtocol}
		sums := want[k]
		sums.Add(columns.TrafficSums{Sessions: 1, SrcPackets: int64(s.SrcPackets), DstPackets: int64(s.DstPackets), SrcBytes: int64(s.SrcBytes), DstBytes: int64(s.DstBytes),
			SrcPayloadBytes: int64(s.SrcPayloadBytes), DstPayloadBytes: int64(s.DstPayloadBytes)})
		want[k] = sums
	}
	for d, t := range b.traffic {
		k := key{d.DstPort, d.IPProtocol}
		sums := got[k]
		sums.Add(t)
		if got[k] = sums; sums == (columns.TrafficSums{}) {
			delete(got, k)
		}
	}
	if len(want) != len(got) {
		b.t.Fatalf("bookings %v, sessions %v", got, want)
	}
	for k, w := range want {
		if got[k] != w {
			b.t.Fatalf("port %d: booked %+v, sessions say %+v", k.port, got[k], w)
		}
	}
}

const ms, s = time.Millisecond, time.Second

// opened is a handshake at time at, with initial sequence numbers x and y.
func opened(at time.Duration, x, y uint32) []pk {
	return []pk{
		{at: at, from: "a", flags: "S", seq: x},
		{at: at + 10*ms, from: "b", flags: "S.", seq: y, ack: x + 1},
		{at: at + 30*ms, from: "a", flags: ".", seq: x + 1, ack: y + 1},
	}
}

// closed is a close by both FINs of what was opened with x and y and carried nothing.
func closed(at time.Duration, x, y uint32) []pk {
	return []pk{
		{at: at, from: "a", flags: "F.", seq: x + 1, ack: y + 1},
		{at: at + 10*ms, from: "b", flags: "F.", seq: y + 1, ack: x + 2},
		{at: at + 20*ms, from: "a", flags: ".", seq: x + 2, ack: y + 2},
	}
}

func TestConversation(t *testing.T) {
	ps := append(opened(0, 100, 500),
		pk{at: 40 * ms, from: "a", flags: "P.", seq: 101, ack: 501, n: 50},
		pk{at: 50 * ms, from: "b", flags: "P.", seq: 501, ack: 151, n: 200},
		pk{at: 60 * ms, from: "a", flags: ".", seq: 151, ack: 701},
		pk{at: 70 * ms, from: "a", flags: "F.", seq: 151, ack: 701},
		pk{at: 80 * ms, from: "b", flags: "F.", seq: 701, ack: 152},
		pk{at: 90 * ms, from: "a", flags: ".", seq: 152, ack: 702})
	r := fold(t, nil, ps...).one()
	if r.Src != addrA || r.SrcPort != 40000 || r.Dst != addrB || r.DstPort != 443 {
		t.Errorf("src %v:%d dst %v:%d", r.Src, r.SrcPort, r.Dst, r.DstPort)
	}
	if r.SrcPackets != 6 || r.DstPackets != 3 || r.SrcBytes != 6*40+50 || r.DstBytes != 3*40+200 || r.SrcPayloadBytes != 50 || r.DstPayloadBytes != 200 {
		t.Errorf("counts %+v", r)
	}
	if r.ConnState != "SF" || r.History != "ShADdFf" || r.CloseReason != "fin" || !r.IsFinal {
		t.Errorf("%s %s %s", r.ConnState, r.History, r.CloseReason)
	}
	if r.HandshakeRTT != 0.03 || r.SrcRTT != 0.02 || r.DstRTT != 0.01 {
		t.Errorf("round trips %v %v %v", r.HandshakeRTT, r.SrcRTT, r.DstRTT)
	}
	if r.Start != base || r.End != base+int64(90*ms) || r.SrcTCPFlags != packet.SYN|packet.ACK|packet.FIN|packet.PSH {
		t.Errorf("%+v", r)
	}
}

func TestSequence(t *testing.T) {
	data := func(at time.Duration, from, to uint32) pk {
		return pk{at: at, from: "a", flags: "P.", seq: from, ack: 501, n: to - from}
	}
	for _, c := range []struct {
		name                               string
		isn                                uint32
		ps                                 []pk
		payload, missed, again, disordered uint64
	}{
		{"in order", 100, []pk{data(0, 101, 201), data(1, 201, 301)}, 200, 0, 0, 0},
		{"a hole", 100, []pk{data(0, 101, 201), data(1, 301, 401)}, 200, 100, 0, 0},
		{"a hole filled", 100, []pk{data(0, 101, 201), data(1, 301, 401), data(2, 201, 301)}, 300, 0, 0, 1},
		{"a hole filled in the middle", 100, []pk{data(0, 101, 111), data(1, 191, 201), data(2, 141, 151)}, 30, 70, 0, 1},
		{"repeated", 100, []pk{data(0, 101, 201), data(1, 101, 201), data(2, 150, 160)}, 100, 0, 2, 0},
		{"overlap that goes on", 100, []pk{data(0, 101, 201), data(1, 151, 251)}, 150, 0, 0, 0},
		{"over two holes", 100, []pk{data(0, 101, 111), data(1, 121, 131), data(2, 141, 151), data(3, 101, 151)}, 50, 0, 0, 1},
		{"keep-alive with a byte", 100, []pk{data(0, 101, 201), data(1, 200, 201)}, 100, 0, 0, 0},
		{"keep-alive with none", 100, []pk{data(0, 101, 201), data(1, 200, 200)}, 100, 0, 0, 0},
		{"wrap", math.MaxUint32 - 50, []pk{data(0, math.MaxUint32-49, 50), data(1, 150, 250), data(2, 50, 150)}, 300, 0, 0, 1},
		{"jump", 100, []pk{data(0, 101, 201), data(1, 2<<30, 2<<30+10), data(2, 2<<30+20, 2<<30+30)}, 120, 10, 0, 0},
	} {
		ps := opened(-s, c.isn, 500)
		r := fold(t, nil, append(ps, c.ps...)...).one()
		if r.SrcPayloadBytes != c.payload || r.SrcMissedBytes != c.missed || r.SrcRetransmits != c.again || r.SrcOutOfOrder != c.disordered {
			t.Errorf("%s: payload %d missed %d retransmits %d out of order %d, want %d %d %d %d", c.name,
				r.SrcPayloadBytes, r.SrcMissedBytes, r.SrcRetransmits, r.SrcOutOfOrder, c.payload, c.missed, c.again, c.disordered)
		}
	}
}

func TestOverlap(t *testing.T) {
	data := func(at time.Duration, from uint32, text string) pk {
		return pk{at: at, from: "a", flags: "P.", seq: from, ack: 501, n: uint32(len(text)), mod: func(_ *packet.Flow, p *packet.Packet) { p.Data = []byte(text) }}
	}
	for _, c := range []struct {
		name string
		ps   []pk
		want uint64
	}{
		{"the same", []pk{data(0, 101, "hello"), data(1, 101, "hello")}, 0},
		{"others", []pk{data(0, 101, "hello"), data(1, 101, "HELlo")}, 3},
		{"injected, then longer", []pk{data(0, 101, "hello"), data(1, 101, "jello, world"), data(2, 106, ", World")}, 2},
		{"over two segments", []pk{data(0, 101, "abc"), data(1, 104, "def"), data(2, 102, "XcdX")}, 2},
		{"into a hole", []pk{data(0, 101, "abc"), data(1, 107, "ghi"), data(2, 104, "def")}, 0},
		{"around a hole, and again", []pk{data(0, 101, "abc"), data(1, 107, "ghi"), data(2, 103, "XdefX"), data(3, 102, "bcDEFgh")}, 5},
	} {
		if r := fold(t, nil, append(opened(-s, 100, 500), c.ps...)...).one(); r.SrcOverlapBytes != c.want {
			t.Errorf("%s: %d bytes differ, want %d", c.name, r.SrcOverlapBytes, c.want)
		}
	}
	// The ring forgets, and goes on.
	var l payloadLog
	var last uint64
	for i := range 1000 {
		last = l.add(last, int64(i)*10, []byte("0123456789"), 1024)
	}
	if n := l.differing(last, 9980, []byte("xxxxxxxxxxyyyyyyyyyy"), 1024); n != 20 {
		t.Errorf("%d bytes differ, want 20", n)
	}
	if n := l.differing(last, 0, []byte("xxxxxxxxxx"), 1024); n != 0 {
		t.Errorf("%d bytes differ from what is forgotten", n)
	}
}

func TestRoundTripsAmbiguous(t *testing.T) {
	ps := append([]pk{{at: -s, from: "a", flags: "S", seq: 100}}, opened(0, 100, 500)...)
	r := fold(t, nil, ps...).one()
	if !math.IsNaN(r.HandshakeRTT) || !math.IsNaN(r.DstRTT) || r.SrcRTT != 0.02 || r.SrcRetransmits != 1 {
		t.Errorf("%v %v %v, %d retransmits", r.HandshakeRTT, r.SrcRTT, r.DstRTT, r.SrcRetransmits)
	}
}

func TestReset(t *testing.T) {
	blind := pk{at: s, from: "b", flags: "R", seq: 900_000_000}
	r := fold(t, nil, append(opened(0, 100, 500), blind)...).one()
	if r.ConnState != "S1" || r.CloseReason != "end" || r.DstPackets != 2 || r.DstTCPFlags&packet.RST != 0 {
		t.Errorf("a blind RST: %s %s %d packets", r.ConnState, r.CloseReason, r.DstPackets)
	}
}

func TestBorders(t *testing.T) {
	join := func(parts ...[]pk) []pk { return slices.Concat(parts...) }
	for _, c := range []struct {
		name string
		ps   []pk
		want string
	}{
		{"new SYN after a close", join(opened(0, 100, 500), closed(s, 100, 500), opened(2*s, 9000, 7000)), "0s SF fin 4/2; 2s S1 end 2/1"},
		{"SYN repeated after a close", join(opened(0, 100, 500), closed(s, 100, 500), []pk{{at: 2 * s, from: "a", flags: "S", seq: 100}}), "0s SF fin 5/2"},
		{"data behind a close", join(opened(0, 100, 500), closed(s, 100, 500), []pk{{at: 100 * s, from: "b", flags: "F.", seq: 501, ack: 102}}), "0s SF fin 4/3"},
		{"data long behind a close", join(opened(0, 100, 500), closed(s, 100, 500), []pk{{at: 130 * s, from: "b", flags: "F.", seq: 501, ack: 102}}), "0s SF fin 4/2; 2m10s SHR end 0/1"},
		{"data that does not fit behind a close", join(opened(0, 100, 500), closed(s, 100, 500), []pk{{at: 20 * s, from: "b", flags: "P.", seq: 900_000_000, ack: 800_000_000, n: 5}}), "0s SF fin 4/2; 20s OTH end 0/1"},
		{"SYN in mid-session, taken up", join(opened(0, 100, 500), opened(2*s, 9000, 7000)), "0s S1 reuse 2/1; 2s S1 end 2/1"},
		{"SYN in mid-session, not taken up", join(opened(0, 100, 500), []pk{{at: 2 * s, from: "a", flags: "S", seq: 9000}, {at: 3 * s, from: "b", flags: ".", seq: 501, ack: 101}}), "0s S1 end 3/2"},
		{"SYN in mid-session, other side unseen", []pk{{from: "a", flags: "S", seq: 100}, {at: s, from: "a", flags: "S", seq: 9000}}, "0s S0 reuse 1/0; 1s S0 end 1/0"},
		{"idle", join(opened(0, 100, 500), []pk{{at: 2 * time.Hour, from: "a", flags: ".", seq: 101, ack: 501}}), "0s S1 idle 2/1; 2h0m0s OTH end 1/0"},
		{"a held SYN keeps it open", join(opened(0, 100, 500), []pk{{at: 3500 * s, from: "a", flags: "S", seq: 9000}, {at: 3700 * s, from: "a", flags: "P.", seq: 101, ack: 501, n: 5}}), "0s S1 end 4/1"},
		{"half open", []pk{{from: "a", flags: "S", seq: 100}, {at: 59 * s, from: "a", flags: "S", seq: 100}, {at: 120 * s, from: "a", flags: "S", seq: 100}}, "0s S0 idle 2/0; 2m0s S0 end 1/0"},
		{"UDP idle", []pk{{from: "a", n: 1}, {at: 60 * s, from: "b", n: 1}, {at: 121 * s, from: "a", n: 1}}, "0s SF idle 1/1; 2m1s S0 end 1/0"},
		{"old packets in a new session", join(opened(0, 100, 500), closed(s, 100, 500), opened(2*s, 900_000_000, 700_000_000), []pk{{at: 3 * s, from: "b", flags: "F.", seq: 501, ack: 102}}), "0s SF fin 4/3; 2s S1 end 2/1"},
		{"rollover", func() (ps []pk) {
			for h := range 27 {
				ps = append(ps, pk{at: time.Duration(h) * time.Hour * 9 / 10, from: "a", n: 1})
			}
			return append(ps, pk{at: 24 * time.Hour, from: "a", n: 1})
		}(), "0s S0 rollover 27/0; 24h0m0s S0 end 1/0"},
		{"simultaneous open", []pk{{from: "a", flags: "S", seq: 100}, {at: ms, from: "b", flags: "S", seq: 500}, {at: 2 * ms, from: "a", flags: "S.", seq: 100, ack: 501}, {at: 3 * ms, from: "b", flags: "S.", seq: 500, ack: 101}}, "0s S1 end 2/2"},
	} {
		b := fold(t, func(set *Settings) {
			if c.name == "rollover" {
				set.UDPIdle = time.Hour
			}
		}, c.ps...)
		slices.SortFunc(b.settled, func(x, y columns.Session) int { return compare(x.Start, y.Start) })
		if got := b.sketch(); got != c.want {
			t.Errorf("%s: %s\nwant %s", c.name, got, c.want)
		}
	}
}

func TestCopies(t *testing.T) {
	syn := pk{from: "a/1", flags: "S", seq: 100}
	at := func(p pk, d time.Duration, tap string) pk {
		p.at += d
		p.from = p.from[:2] + tap
		return p
	}
	for _, c := range []struct {
		name            string
		ps              []pk
		packets, copies uint64
		retransmits     uint64
	}{
		{"two taps", []pk{syn, at(syn, ms, "2")}, 1, 1, 0},
		{"three taps", []pk{syn, at(syn, ms, "2"), at(syn, 2*ms, "3")}, 1, 2, 0},
		{"the same stamp", []pk{syn, at(syn, 0, "2")}, 1, 1, 0},
		{"one tap: repeats", []pk{syn, at(syn, ms, "1")}, 2, 0, 1},
		{"repeats at both taps", []pk{syn, at(syn, ms, "2"), at(syn, 10*ms, "1"), at(syn, 11*ms, "2")}, 2, 2, 1},
		{"repeats at one tap first", []pk{syn, at(syn, ms, "1"), at(syn, 2*ms, "2"), at(syn, 3*ms, "2")}, 2, 2, 1},
		{"too far apart", []pk{syn, at(syn, 1100*ms, "2")}, 2, 0, 1},
		{"another TTL and MAC", []pk{syn, {at: ms, from: "a/2", flags: "S", seq: 100, mod: func(f *packet.Flow, _ *packet.Packet) { f.TTL--; f.SrcMAC[5]++ }}}, 1, 1, 0},
		{"lists of other length", []pk{syn, {at: ms, from: "a", flags: "S", seq: 100}}, 2, 0, 1},
	} {
		r := fold(t, nil, c.ps...).one()
		if r.SrcPackets != c.packets || r.DuplicatePackets != c.copies || r.SrcRetransmits != c.retransmits || r.SrcTTL != 64 {
			t.Errorf("%s: %d packets, %d copies, %d retransmits, TTL %d; want %d %d %d", c.name, r.SrcPackets, r.DuplicatePackets, r.SrcRetransmits, r.SrcTTL, c.packets, c.copies, c.retransmits)
		}
	}
}

// The order of arrival, over collectors, changes nothing.
func TestMerge(t *testing.T) {
	ps := append(opened(0, 100, 500), closed(s, 100, 500)...)
	want := fold(t, nil, ps...).one()
	b := newBench(t, nil)
	b.send("x", -s)
	b.send("y", -s)
	b.send("y", 500*ms, ps[4], ps[2])
	b.send("x", -500*ms, ps[1], ps[5])
	if len(b.versions) > 0 {
		t.Fatal("put out before the watermark")
	}
	b.send("x", 2*s, ps[0], ps[3])
	b.send("y", 2*s)
	if got := b.f.Watermark(); got != base+int64(2*s) {
		t.Fatal(got)
	}
	b.end()
	b.check()
	if got := b.one(); got.ConnState != want.ConnState || got.History != want.History || got.ID != want.ID || got.Version != want.Version || got.LatePackets != 0 {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

func TestProducers(t *testing.T) {
	b := newBench(t, nil)
	p := pk{from: "a", n: 1}
	b.send("y", 0)
	b.send("x", s, p)
	b.sequence["x"]--
	b.send("x", s, p) // written twice
	if n := b.f.counts[RepeatedBatch]; n != 1 {
		t.Errorf("%d repeated batches", n)
	}
	// y falls silent; ten seconds of log time later it holds nothing any more.
	for i := range 10 {
		b.tick(1, time.Duration(i)*s)
		b.send("x", 100*s)
	}
	if w := b.f.Watermark(); w != base {
		t.Errorf("the watermark went on to %v without y", time.Duration(w-base))
	}
	b.tick(1, time.Hour) // a clock that jumps counts for two seconds at the most
	b.send("x", 100*s)
	if w := b.f.Watermark(); w != base+int64(100*s) || b.f.counts[ProducersRetired] != 1 {
		t.Errorf("watermark %v, %d retired", time.Duration(w-base), b.f.counts[ProducersRetired])
	}
	b.tick(0xfff, 0) // another owner, whose clock is its own
	b.tick(1, 2*time.Hour)
	if n := b.f.counts[StaleControl]; n != 1 {
		t.Errorf("%d stale control records", n)
	}
	// Within the limit a packet is folded into the session that it belongs to, closed or not; behind it it is not.
	b.send("y", 100*s, pk{at: 10 * ms, from: "b", n: 1})
	if n := b.f.counts[Late]; n != 1 {
		t.Errorf("%d late", n)
	}
	b.send("x", 300*s)
	b.send("y", 300*s)
	b.send("y", 300*s, pk{at: 100 * s, from: "b", n: 1})
	if n := b.f.counts[TooLate]; n != 1 {
		t.Errorf("%d too late", n)
	}
	b.end()
	b.check()
	if r := b.one(); r.SrcPackets != 1 || r.DstPackets != 1 || r.LatePackets != 1 {
		t.Errorf("%+v", r)
	}
}

// Without producers log time alone moves the watermark.
func TestNobodyLeft(t *testing.T) {
	b := newBench(t, nil)
	b.send("x", s, pk{from: "a", n: 1})
	for i := range 300 {
		b.tick(1, time.Duration(i)*s)
	}
	if len(b.settled) != 1 || b.settled[0].CloseReason != "idle" {
		t.Errorf("%d settled", len(b.settled))
	}
	b.check()
}

func TestVersions(t *testing.T) {
	b := newBench(t, nil)
	ps := opened(0, 100, 500)
	for i := range uint32(10) {
		ps = append(ps, pk{at: time.Duration(i)*20*s + s, from: "a", flags: "P.", seq: 101 + 10*i, ack: 501, n: 10})
	}
	b.send("c", 10*time.Minute, ps...)
	var got []string
	for _, v := range b.versions {
		got = append(got, fmt.Sprintf("%d:%d", v.Version, v.SrcPayloadBytes))
	}
	if want := "1:0 2:30 3:60 4:90 5:100"; strings.Join(got, " ") != want {
		t.Errorf("versions %v, want %s", got, want)
	}
	b.end()
	b.check()
}

func TestSimultaneousOpen(t *testing.T) {
	r := fold(t, nil, pk{from: "a", flags: "S", seq: 100}, pk{at: ms, from: "b", flags: "S", seq: 500},
		pk{at: 2 * ms, from: "a", flags: "S.", seq: 100, ack: 501}, pk{at: 3 * ms, from: "b", flags: "S.", seq: 500, ack: 101},
		pk{at: 4 * ms, from: "b", flags: "S.", seq: 500, ack: 101}).one()
	if r.SrcRetransmits != 0 || r.DstRetransmits != 1 {
		t.Errorf("%d and %d retransmits", r.SrcRetransmits, r.DstRetransmits)
	}
}

// When src turns round, what was booked is taken out again.
func TestTurnsRound(t *testing.T) {
	b := newBench(t, func(set *Settings) { set.CopyDelay = 0 })
	b.send("x", 0)
	b.send("y", 0)
	// From a port that is no service's to one: the first guess is that the sender is src.
	flip := func(f *packet.Flow, _ *packet.Packet) {
		if f.SrcPort == 443 {
			f.SrcPort = 50000
		} else {
			f.DstPort = 50000
		}
	}
	b.send("x", 10*s, pk{at: 10 * ms, from: "b", flags: ".", seq: 501, ack: 101, mod: flip})
	b.send("y", 10*s)
	if len(b.versions) != 1 || b.versions[0].Src != addrB {
		t.Fatalf("%+v", b.versions)
	}
	b.send("y", 20*s, pk{at: 0, from: "a", flags: "S", seq: 100, mod: flip})
	b.end()
	b.check()
	if r := b.one(); r.Src != addrA || r.SrcPackets != 1 || r.DstPackets != 1 {
		t.Errorf("%+v", r)
	}
}

func TestSettles(t *testing.T) {
	b := newBench(t, func(set *Settings) { set.LateLimit = 0 })
	b.send("c", 10*time.Minute, append(append(opened(0, 100, 500), closed(s, 100, 500)...), pk{at: 2 * s, from: "a", n: 1})...)
	if len(b.at) != 2 || b.at[0] != base+int64(62*s) || b.at[1] != base+int64(s+20*ms+125*s) {
		t.Errorf("settled at %v", b.at)
	}
	if b.f.Open() != 0 || b.f.Buffered() != 0 {
		t.Errorf("%d open, %d buffered", b.f.Open(), b.f.Buffered())
	}
}

func TestICMP(t *testing.T) {
	echo := func(kind uint16, id uint16) func(*packet.Flow, *packet.Packet) {
		return func(f *packet.Flow, p *packet.Packet) {
			f.Protocol, f.SrcPort, f.DstPort, f.ICMPID = packet.ProtoICMP, kind, 0, id
		}
	}
	b := fold(t, nil,
		pk{from: "a", n: 56, mod: echo(8, 7)}, pk{at: ms, from: "b", n: 56, mod: echo(0, 7)},
		pk{at: 2 * ms, from: "b", n: 56, mod: echo(8, 9)}, pk{at: 3 * ms, from: "a", n: 56, mod: echo(0, 9)})
	if got := b.sketch(); got != "0s OTH end 1/1; 2ms OTH end 1/1" {
		t.Error(got)
	}
	if r := b.settled[1]; r.Src != addrB || r.SrcPort != 8 || r.DstPort != 0 {
		t.Errorf("%v %d %d", r.Src, r.SrcPort, r.DstPort)
	}
	// Who asks is src, also where the answer comes first.
	if r := fold(t, nil, pk{from: "b", n: 56, mod: echo(0, 7)}, pk{at: ms, from: "a", n: 56, mod: echo(8, 7)}).one(); r.Src != addrA || r.SrcPort != 8 || r.DstPort != 0 {
		t.Errorf("answer first: %v %d %d", r.Src, r.SrcPort, r.DstPort)
	}
	// An error counts in the session that it quotes, and is one of its own.
	quote := []byte{0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 4, 10, 0, 0, 5, 0x9c, 0x40, 0x01, 0xbb, 0, 9, 0, 0}
	b = fold(t, nil, pk{from: "a", n: 1}, pk{at: ms, from: "b", n: 28, mod: func(f *packet.Flow, p *packet.Packet) {
		f.Protocol, f.SrcPort, f.DstPort, p.Head = packet.ProtoICMP, 3, 3, quote
	}})
	if len(b.settled) != 2 || b.settled[0].ICMPErrors != 1 || b.settled[1].IPProtocol != packet.ProtoICMP {
		t.Errorf("%s %+v", b.sketch(), b.settled)
	}
}

func TestFragments(t *testing.T) {
	header := []byte{0x9c, 0x40, 0x01, 0xbb, 0, 38, 0x12, 0x34}
	piece := func(at time.Duration, offset uint16, n uint32, more bool) pk {
		return pk{at: at, from: "a", n: n, mod: func(f *packet.Flow, p *packet.Packet) {
			f.SrcPort, f.DstPort = 0, 0
			p.ID, p.FragmentOffset, p.Fragment, p.Length = 77, offset, packet.IsFragment, n+20
			if more {
				p.Fragment |= packet.MoreFragments
			}
			if offset == 0 {
				p.Head = header
			}
		}}
	}
	a, b, c := piece(0, 0, 16, true), piece(ms, 16, 16, true), piece(2*ms, 32, 6, false)
	for _, ps := range [][]pk{{a, b, c}, {c, a, b}, {b, c, a}} {
		for i := range ps {
			ps[i].at = time.Duration(i) * ms
		}
		r := fold(t, nil, ps...).one()
		if r.SrcPort != 40000 || r.DstPort != 443 || r.SrcPackets != 3 || r.SrcBytes != 98 || r.SrcPayloadBytes != 30 || r.Start != base {
			t.Errorf("%+v", r)
		}
	}
	if r := fold(t, nil, a, c).one(); r.SrcPackets != 2 || r.SrcPort != 40000 {
		t.Errorf("not whole: %+v", r)
	}
	if d := fold(t, nil, b, c); len(d.settled) != 0 || d.f.counts[FragmentsUnowned] != 2 {
		t.Errorf("without the first: %s", d.sketch())
	}
}

// Floods are bounded: the oldest half-open session goes first.
func TestEviction(t *testing.T) {
	b := newBench(t, func(set *Settings) { set.MaxSessions = 10; set.MaxDatagrams = 4 })
	ps := opened(0, 100, 500)
	for i := range uint16(100) {
		ps = append(ps, pk{at: s + time.Duration(i)*ms, from: "a", flags: "S", seq: 1, mod: func(f *packet.Flow, _ *packet.Packet) { f.SrcPort = i + 1 }})
		ps = append(ps, pk{at: s + time.Duration(i)*ms, from: "a", mod: func(f *packet.Flow, p *packet.Packet) {
			f.SrcPort, f.DstPort, p.ID, p.Fragment = 0, 0, uint32(i), packet.IsFragment|packet.MoreFragments
		}})
	}
	b.send("c", 3*s, ps...)
	if b.f.Open() != 10 || b.f.counts[SessionsEvicted] != 91 || len(b.f.fragments.open) != 4 {
		t.Errorf("%d open, %d evicted, %d datagrams", b.f.Open(), b.f.counts[SessionsEvicted], len(b.f.fragments.open))
	}
	b.end()
	b.check()
	if !slices.ContainsFunc(b.settled, func(r columns.Session) bool { return r.ConnState == "S1" && r.CloseReason == "end" }) {
		t.Error("the established session is gone")
	}
}

// A collector that holds the watermark for too long is left behind, not waited for without end.
func TestWaiting(t *testing.T) {
	b := newBench(t, func(set *Settings) { set.MaxWaiting = 20_000 })
	noise := rand.New(rand.NewPCG(1, 1))
	b.send("slow", 0)
	for i := range 200 {
		at := time.Duration(i) * 100 * ms
		b.send("fast", at, pk{at: at, from: "a", n: 500, mod: func(_ *packet.Flow, p *packet.Packet) {
			for range 500 {
				p.Data = append(p.Data, byte(noise.Uint32()))
			}
		}})
		if n := b.f.Buffered(); n > 20_000 {
			t.Fatalf("%d bytes wait", n)
		}
	}
	if b.f.counts[WatermarkForced] == 0 {
		t.Fatal("nothing was forced")
	}
	b.send("slow", 20*s, pk{at: s, from: "a", flags: "S", seq: 1})
	b.end()
	b.check()
	if b.f.counts[Late] != 1 || len(b.settled) != 2 {
		t.Errorf("%d late: %s", b.f.counts[Late], b.sketch())
	}
}

func TestUndecodable(t *testing.T) {
	b := newBench(t, nil)
	for _, v := range [][]byte{nil, {}, {0xff}, []byte("not a record"), {0x08, 0x09}} {
		if err := b.f.Record(0, v); err == nil {
			t.Errorf("%q was taken", v)
		}
	}
	if n := b.f.counts[Undecodable]; n != 5 {
		t.Errorf("%d counted", n)
	}
	b.sequence["c"]++
	b.record(&pb.PacketsRecord{Body: &pb.PacketsRecord_Batch{Batch: &pb.PacketBatch{Producer: "c", Incarnation: 1, Sequence: 1, Partitions: 8}}})
	if n := b.f.counts[OtherPartitions]; n != 1 {
		t.Errorf("%d batches of another P", n)
	}
}

// The fold twice over one log gives the same, in whatever pieces event time goes on.
func TestDeterminism(t *testing.T) {
	run := func() (out []string) {
		b := newBench(t, nil)
		for i := range 50 {
			at := time.Duration(i) * 700 * ms
			b.send("x", at, slices.Concat(opened(at, uint32(i)*1000, 7), []pk{{at: at, from: "b", n: uint32(i)}})...)
			b.send("y", at-s, pk{at: at, from: "b", flags: "P.", seq: 8, ack: 5, n: 10})
		}
		b.end()
		b.check()
		for _, v := range b.versions {
			out = append(out, string(columns.AppendJSON(nil, &v)))
		}
		return out
	}
	if a, b := run(), run(); !slices.Equal(a, b) {
		t.Error("two runs differ")
	}
}
