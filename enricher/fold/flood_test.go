package fold

import (
	"encoding/binary"
	flags "flag"
	"runtime"
	"testing"
	"time"

	"github.com/tapweave/tapweave/proto/batch"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
)

// tally counts what comes out, and keeps the sessions of one port.
type tally struct {
	settled int
	kept    []columns.Session
}

func (*tally) Session(*Session)                   {}
func (*tally) Traffic(*Session, *columns.Traffic) {}
func (*tally) Packet(*columns.Packet)             {}
func (*tally) Alert(*columns.Alert)               {}
func (o *tally) Settled(_ int64, s *Session) {
	var row columns.Session
	s.Row(&row)
	o.settled++
	if row.DstPort == 443 {
		o.kept = append(o.kept, row)
	}
}

var floodFlag = flags.Int("flood", 60_000, "how many packets each flood of TestFloods has")

// Under floods memory is bounded, what nobody has answered goes first, and the sessions that were there before
// survive, and go on, though they are the oldest and idle.
func TestFloods(t *testing.T) {
	const (
		most        = 4096
		established = 200
		every       = 30 * time.Microsecond
	)
	flood := *floodFlag
	for _, c := range []struct {
		what string
		send func(i int, f *packet.Flow, p *packet.Packet)
	}{
		{"half-open connections", func(_ int, f *packet.Flow, p *packet.Packet) { p.Flags = packet.SYN }},
		{"a scan that is refused", func(i int, f *packet.Flow, p *packet.Packet) {
			if p.Flags = packet.SYN; i%2 == 1 {
				p.Flags, p.Seq, p.Ack = packet.RST|packet.ACK, 0, p.Seq+1
				f.Src, f.Dst, f.SrcPort, f.DstPort = f.Dst, f.Src, f.DstPort, f.SrcPort
			}
		}},
		{"forged packets in midstream", func(_ int, f *packet.Flow, p *packet.Packet) {
			p.Flags, p.Ack, p.Payload, p.Length = packet.ACK|packet.PSH, 77, 100, 140
		}},
		{"datagrams to nobody", func(_ int, f *packet.Flow, p *packet.Packet) { f.Protocol, p.Flags = packet.ProtoUDP, 0 }},
		{"segments with holes", func(i int, f *packet.Flow, p *packet.Packet) {
			p.Flags, p.Seq, p.Payload, p.Length = packet.ACK, uint32(i)*20, 1, 41
			f.SrcPort = uint16(i % 64)
		}},
	} {
		set := DefaultSettings()
		set.Partitions, set.MaxSessions = 1, most
		out := new(tally)
		f := New(0, set, out)
		var sequence uint64
		send := func(watermark int64, e *batch.Encoder) {
			sequence++
			b := &pb.PacketBatch{Producer: "c", Incarnation: 1, Sequence: sequence, Watermark: watermark, Clock: watermark, Partitions: 1}
			if e.Len() > 0 {
				b.Packets, b.Oldest, b.Columns = uint32(e.Len()), e.Oldest(), e.Seal(batch.S2)
			}
			if err := f.Record(int64(sequence), marshal(t, b)); err != nil {
				t.Fatal(err)
			}
		}
		// talk is a packet of each of the established sessions.
		talk := func(at time.Duration, ps ...pk) {
			e := batch.NewEncoder()
			for i := range uint16(established) {
				for _, p := range ps {
					p.at += at
					p.mod = func(f *packet.Flow, _ *packet.Packet) {
						if f.SrcPort == 443 {
							f.DstPort = 1000 + i
						} else {
							f.SrcPort = 1000 + i
						}
					}
					fl, q := p.packet()
					e.Append(&fl, &q)
				}
			}
			send(base+int64(at+s), e)
		}
		talk(0, opened(0, 100, 500)...)
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for n := 0; n < flood; n += 1000 {
			e := batch.NewEncoder()
			at := 2*s + time.Duration(n)*every
			for i := n; i < n+1000; i++ {
				fl, q := pk{at: at, from: "a", seq: uint32(i), flags: "S"}.packet()
				fl.SrcPort, fl.DstPort = uint16(i/2), 80
				binary.BigEndian.PutUint32(fl.Src[12:], 0x0b000000+uint32(i/2))
				c.send(i, &fl, &q)
				e.Append(&fl, &q)
			}
			send(base+int64(at)+1, e)
			if f.Open() > most {
				t.Fatalf("%s: %d sessions", c.what, f.Open())
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > most*3000+24<<20 {
			t.Errorf("%s: the heap grew by %d MB", c.what, grown>>20)
		}
		talk(3*s+time.Duration(flood)*every, pk{from: "a", flags: "P.", seq: 101, ack: 501, n: 10}, pk{at: ms, from: "b", flags: "P.", seq: 501, ack: 111, n: 20})
		if err := f.Record(int64(sequence)+1, endOfInput(t)); err != nil {
			t.Fatal(err)
		}
		if f.Counts()[SessionsEvicted] < uint64(flood)/2-most && c.what != "segments with holes" || uint64(out.settled) != f.Counts()[SessionsBegun] {
			t.Errorf("%s: %d evicted, %d settled of %d", c.what, f.Counts()[SessionsEvicted], out.settled, f.Counts()[SessionsBegun])
		}
		if len(out.kept) != established {
			t.Errorf("%s: %d sessions of %d that were established", c.what, len(out.kept), established)
		}
		for _, r := range out.kept {
			if r.CloseReason != "end" || r.ConnState != "S1" || r.SrcPackets != 3 || r.DstPackets != 2 || r.SrcPayloadBytes != 10 {
				t.Fatalf("%s: %s %s %d+%d packets", c.what, r.CloseReason, r.ConnState, r.SrcPackets, r.DstPackets)
			}
		}
	}
}

// Payload that waits to be recognised is bounded, a session and in all. Sessions whose payload is given up are counted
// as all others.
func TestPayloadIsBounded(t *testing.T) {
	const most, sessions, segments = 1 << 20, 2000, 40
	b := newBench(t, func(set *Settings) { set.MaxApplications = most })
	hello := append([]byte{0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3}, make([]byte, 989)...) // a ClientHello of 16 kB, whose end never comes
	port := func(i int, data []byte) func(*packet.Flow, *packet.Packet) {
		return func(f *packet.Flow, p *packet.Packet) {
			f.SrcPort, p.Data = uint16(i), data
		}
	}
	worst, inOne := 0, 0
	for n := range segments {
		var ps []pk
		for i := range sessions {
			p := pk{at: time.Duration(n*sessions+i) * time.Microsecond, from: "a", flags: "S", seq: 100, mod: port(i, nil)}
			if n > 0 {
				p.flags, p.seq, p.ack, p.n = "P.", 101+uint32(n-1)*1000, 501, 1000
				p.mod = port(i, hello)
				if n > 1 {
					p.mod = port(i, make([]byte, 1000))
				}
			}
			ps = append(ps, p)
		}
		b.send("c", time.Duration((n+1)*sessions)*time.Microsecond, ps...)
		worst = max(worst, b.f.applications)
		for s := b.f.table.first; s != nil; s = s.next {
			if s.app != nil {
				inOne = max(inOne, s.app.Bytes)
			}
		}
	}
	if worst == 0 || worst > most+64<<10 || inOne > 64<<10 {
		t.Errorf("%d bytes in all, %d in one session", worst, inOne)
	}
	if b.f.counts[ApplicationsGivenUp] == 0 {
		t.Error("nothing was given up")
	}
	b.end()
	b.check()
	for _, r := range b.settled {
		if r.SrcPackets != segments || r.SrcPayloadBytes != (segments-1)*1000 {
			t.Fatalf("%d packets, %d bytes of payload", r.SrcPackets, r.SrcPayloadBytes)
		}
	}
	if len(b.settled) != sessions || b.f.applications != 0 {
		t.Errorf("%d sessions, %d bytes left behind", len(b.settled), b.f.applications)
	}
}
