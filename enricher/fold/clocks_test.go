package fold

import (
	"net/netip"
	"testing"
	"time"

	"github.com/tapweave/tapweave/proto/batch"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/proto/session"
)

// says is a batch of a collector whose clock shows clock; its watermark is 300 ms behind it.
func (b *bench) says(collector string, clock time.Duration, ps ...pk) {
	b.t.Helper()
	b.batch(collector, clock-300*ms, clock, nil, ps...)
}

// batch is a batch that a test may change before it is written.
func (b *bench) batch(collector string, watermark, clock time.Duration, change func(*pb.PacketBatch), ps ...pk) {
	b.t.Helper()
	b.sequence[collector]++
	m := &pb.PacketBatch{
		Producer: collector, Incarnation: 1, Sequence: b.sequence[collector], Partitions: 16,
		Watermark: base + int64(watermark), Clock: base + int64(clock),
	}
	if len(ps) > 0 {
		e := batch.NewEncoder()
		for _, p := range ps {
			f, q := p.packet()
			e.Append(&f, &q)
		}
		m.Packets, m.Oldest, m.Columns = uint32(len(ps)), e.Oldest(), e.Seal(batch.S2)
	}
	if change != nil {
		change(m)
	}
	b.record(&pb.PacketsRecord{Body: &pb.PacketsRecord_Batch{Batch: m}})
}

func (b *bench) watermarkAt(want time.Duration) {
	b.t.Helper()
	if got := b.f.Watermark(); got != base+int64(want) {
		b.t.Errorf("the watermark is at %v, want %v", time.Duration(got-base), want)
	}
}

// A collector whose clock is off by an hour is named, and neither moves nor holds the others; its packets count
// once, in the session that they belong to.
func TestSkewedCollector(t *testing.T) {
	for _, off := range []time.Duration{time.Hour, -time.Hour, 6 * s, -6 * s} {
		for _, first := range []bool{true, false} {
			b := newBench(t, nil)
			b.tick(1, 0)
			names := []string{"x", "y"}
			if first {
				b.says("off", off) // it is alone, and nobody can tell yet
			}
			for _, n := range names {
				b.says(n, 0)
			}
			if !first {
				b.says("off", off)
			}
			ps := append(opened(s, 100, 500), closed(2*s, 100, 500)...)
			for i := range 12 {
				now := time.Duration(i+1) * 500 * ms
				if i%2 == 0 {
					b.tick(1, now)
				}
				var server, client, strayed []pk
				for _, p := range ps {
					switch {
					case p.at <= now-500*ms || p.at > now:
					case p.from == "b":
						// What the server sends comes by the collector whose clock is off.
						p.at += off
						strayed = append(strayed, p)
					default:
						client = append(client, p)
					}
				}
				b.says("x", now, client...)
				b.says("off", now+off, strayed...)
				b.says("y", now, server...)
				if w := b.f.Watermark(); w > base+int64(now) || now > 2*s && w < base+int64(now-1500*ms) {
					t.Fatalf("off by %v, at %v: the watermark is at %v", off, now, time.Duration(w-base))
				}
			}
			b.end()
			b.check()
			r := b.one()
			if r.SrcPackets != 4 || r.DstPackets != 2 || r.ConnState != "SF" || r.LatePackets != 2 || r.SrcMissedBytes+r.DstMissedBytes != 0 {
				t.Errorf("off by %v: %s %d+%d packets, %d late", off, r.ConnState, r.SrcPackets, r.DstPackets, r.LatePackets)
			}
			if r.Start < base+int64(500*ms) || r.Start > base+int64(s) || r.End > base+int64(7*s) || r.CloseReason != "fin" {
				t.Errorf("off by %v: from %v to %v, %s", off, time.Duration(r.Start-base), time.Duration(r.End-base), r.CloseReason)
			}
			named, least := b.f.Skewed(), uint64(12)
			if off > 0 && first {
				least-- // whoever is ahead when it is first compared may be back from an outage before the others
			}
			if len(named) != 1 || named[0].Collector != "off" || named[0].Batches < least || abs(named[0].Ahead-int64(off)) > int64(s) {
				t.Errorf("off by %v: named %+v", off, named)
			}
			if n := b.f.Counts()[SkewedBatches]; n != named[0].Batches || b.f.Counts()[TooLate] != 0 {
				t.Errorf("%d batches, %d too late", n, b.f.Counts()[TooLate])
			}
		}
	}
}

// A clock that is mended counts again, from the producer's next word.
func TestSkewMended(t *testing.T) {
	b := newBench(t, nil)
	for i := range 20 {
		now := time.Duration(i) * 500 * ms
		off := time.Hour
		if i >= 10 {
			off = 0
		}
		b.tick(1, now)
		b.says("x", now)
		b.says("y", now)
		b.says("off", now+off)
	}
	b.watermarkAt(9500*ms - 300*ms)
	b.says("x", 20*s)
	b.says("y", 20*s)
	b.watermarkAt(9500*ms - 300*ms)           // it holds the watermark as others do
	if n := b.f.Skewed(); n[0].Batches != 9 { // all but the first
		t.Errorf("%+v", n)
	}
}

// Two voices cannot tell who is right: nobody is skewed. But a producer that is alone, and ahead of the owner,
// does not move the watermark beyond the owner's clock before others could have joined.
func TestTwoVoices(t *testing.T) {
	b := newBench(t, nil)
	b.tick(1, 0)
	b.says("x", -time.Hour)
	b.watermarkAt(-time.Hour - 300*ms) // behind: believed at once
	b = newBench(t, nil)
	b.says("x", time.Hour)
	b.watermarkAt(time.Hour - 300*ms) // no owner has spoken: one voice
	b = newBench(t, nil)
	b.tick(1, 0)
	b.says("x", time.Hour, pk{at: time.Hour - s, from: "a", n: 1})
	b.watermarkAt(0)
	for i := range 10 {
		b.tick(1, time.Duration(i+1)*s)
		b.says("x", time.Hour+time.Duration(i+1)*s)
	}
	b.watermarkAt(time.Hour + 10*s - 300*ms)
	if b.f.Counts()[SkewedBatches] != 0 {
		t.Error("somebody is skewed")
	}
	b.end()
	if r := b.one(); r.Start != base+int64(time.Hour-s) || r.LatePackets != 0 {
		t.Errorf("%+v", r)
	}
	// x and y are two voices where nobody owns the partition.
	b = newBench(t, nil)
	b.says("x", 0)
	b.says("y", time.Hour)
	b.watermarkAt(-300 * ms)
	if b.f.Counts()[SkewedBatches] != 0 {
		t.Error("somebody is skewed")
	}
}

// Being held up is not being skewed: after a stop of nine seconds the clocks that were last heard are old, but
// they are right.
func TestHeldUpIsNotSkewed(t *testing.T) {
	b := newBench(t, nil)
	collectors := []string{"w", "x", "y", "z"}
	b.tick(1, 0)
	for _, c := range collectors {
		b.says(c, 0)
	}
	for i := range 9 {
		b.tick(1, time.Duration(i+1)*s)
	}
	for _, c := range collectors {
		b.says(c, 9*s, pk{at: s, from: "a", n: 1})
	}
	if c := b.f.Counts(); c[SkewedBatches] != 0 || c[Late] != 0 || c[ProducersRetired] != 0 {
		t.Errorf("%d skewed, %d late, %d retired", c[SkewedBatches], c[Late], c[ProducersRetired])
	}
	b.watermarkAt(9*s - 300*ms)
}

// When the log could not be written for a while, by collectors and owner alike, whoever comes back first differs
// from all that were heard before, and so does who is new: nobody is skewed.
func TestOutageIsNoSkew(t *testing.T) {
	for _, first := range []string{"w", "new"} {
		t.Run(first, func(t *testing.T) { outageIsNoSkew(t, first) })
	}
}

func outageIsNoSkew(t *testing.T, first string) {
	b := newBench(t, nil)
	collectors := []string{"w", "x", "y", "z"}
	for i := range 4 {
		b.tick(1, time.Duration(i)*s)
		for _, c := range collectors {
			b.says(c, time.Duration(i)*s)
		}
	}
	collectors[0] = first
	for i, c := range collectors {
		// Each has much to catch up with, and says so at once.
		now := 63*s + time.Duration(i)*100*ms
		b.says(c, now, pk{at: 4 * s, from: "a", n: 1})
		b.says(c, now+50*ms, pk{at: now, from: "a", n: 1})
	}
	b.tick(1, 64*s)
	for i := range 3 {
		for _, c := range collectors {
			b.says(c, 64*s+time.Duration(i)*250*ms)
		}
	}
	if c := b.f.Counts(); c[SkewedBatches] != 0 || c[Late] != 0 || c[TooLate] != 0 {
		t.Errorf("%d skewed, %d late, %d too late", c[SkewedBatches], c[Late], c[TooLate])
	}
	b.end()
	if r := b.one(); r.SrcPackets != 8 {
		t.Errorf("%d packets", r.SrcPackets)
	}
}

// Times that cannot be are refused, or bounded by what the batch's clock allows: a packet from the far future
// neither closes sessions nor moves the watermark.
func TestImpossibleTimes(t *testing.T) {
	year := 365 * 24 * time.Hour
	b := newBench(t, nil)
	b.tick(1, 0)
	b.says("x", 0)
	b.says("x", s, opened(500*ms, 100, 500)...)
	// One packet of a batch, a whole batch, and a batch whose word on time is a lie.
	b.says("x", 2*s, pk{at: 1500 * ms, from: "a", flags: "P.", seq: 101, ack: 501, n: 10}, pk{at: 50 * year, from: "a", flags: "P.", seq: 111, ack: 501, n: 10})
	b.says("x", 3*s, pk{at: 50 * year, from: "a", flags: "P.", seq: 121, ack: 501, n: 10})
	b.batch("x", 50*year, 4*s, nil, pk{at: 3500 * ms, from: "b", flags: "P.", seq: 501, ack: 131, n: 10})
	if w := b.f.Watermark(); w > base+int64(4*s) || b.f.Open() != 1 {
		t.Fatalf("the watermark is at %v, %d open", time.Duration(w-base), b.f.Open())
	}
	refused := func(what string, change func(*pb.PacketBatch)) {
		t.Helper()
		b.sequence["x"]++
		m := &pb.PacketBatch{Producer: "x", Incarnation: 1, Sequence: b.sequence["x"], Partitions: 16, Watermark: base, Clock: base + int64(5*s)}
		change(m)
		before := b.f.Counts()[Undecodable]
		v := marshal(t, m)
		if err := b.f.Record(b.offset, v); err == nil || b.f.Counts()[Undecodable] != before+1 {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("clock", func(m *pb.PacketBatch) { m.Clock = 1<<62 + 1 })
	refused("clock", func(m *pb.PacketBatch) { m.Clock = -1 })
	refused("watermark", func(m *pb.PacketBatch) { m.Watermark = 1<<62 + 1 })
	refused("oldest", func(m *pb.PacketBatch) { m.Oldest = 1<<62 + 1 })
	refused("a negative time", func(m *pb.PacketBatch) {
		e := batch.NewEncoder()
		f, q := pk{from: "a", n: 1}.packet()
		q.Time = -1 << 62
		e.Append(&f, &q)
		m.Packets, m.Oldest, m.Columns = 1, e.Oldest(), e.Seal(batch.S2)
	})
	for i := range 10 {
		b.tick(1, time.Duration(i+1)*2*s)
	}
	b.says("x", 20*s)
	c := b.f.Counts()
	if c[InFuture] != 2 || c[WatermarkAhead] != 1 || c[TooLate] != 0 {
		t.Errorf("%d in the future, %d watermarks, %d too late", c[InFuture], c[WatermarkAhead], c[TooLate])
	}
	b.end()
	b.check()
	if r := b.one(); r.SrcPackets != 5 || r.DstPackets != 2 || r.SrcPayloadBytes != 30 || r.End > base+int64(8*s) || r.CloseReason != "end" {
		t.Errorf("%+v", r)
	}
	// From the far past it is too late.
	b = newBench(t, nil)
	b.says("x", time.Hour)
	b.says("x", time.Hour+s, pk{at: -40 * year, from: "a", n: 1}, pk{at: time.Hour, from: "a", n: 1})
	b.end()
	if r := b.one(); r.SrcPackets != 1 || b.f.Counts()[TooLate] != 1 {
		t.Errorf("%d packets, %d too late", r.SrcPackets, b.f.Counts()[TooLate])
	}
	// An owner's clock counts for two seconds at the most, and not at all where it cannot be.
	if err := b.f.Record(b.offset, marshalTick(t, 1<<62+1)); err != nil || b.f.Counts()[Undecodable] != 1 {
		t.Errorf("a tick: %v, %d", err, b.f.Counts()[Undecodable])
	}
}

// Packets whose lengths cannot be, or that belong to another partition, are left out and counted.
func TestUnsoundPackets(t *testing.T) {
	change := func(f func(*packet.Flow, *packet.Packet)) pk { return pk{from: "a", n: 10, mod: f} }
	for _, c := range []struct {
		what   string
		p      pk
		reason Reason
	}{
		{"a length that no packet has", change(func(_ *packet.Flow, p *packet.Packet) { p.Length, p.Payload = 2<<20, 2<<20-28 }), Inconsistent},
		{"more bytes than payload", change(func(_ *packet.Flow, p *packet.Packet) { p.Data = make([]byte, 11) }), Inconsistent},
		{"a fragment beyond the end", change(func(_ *packet.Flow, p *packet.Packet) { p.Fragment, p.FragmentOffset = packet.IsFragment, 65528 }), Inconsistent},
		{"another partition", change(func(f *packet.Flow, _ *packet.Packet) { f.Dst = otherPartition(t) }), OtherPartition},
		{"an error about another partition", change(func(f *packet.Flow, p *packet.Packet) {
			f.Protocol, f.SrcPort, f.DstPort = packet.ProtoICMP, 3, 3
			far := otherPartition(t)
			p.Head = []byte{0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 4, far[12], far[13], far[14], far[15], 0x9c, 0x40, 0x01, 0xbb, 0, 9, 0, 0}
		}), OtherPartition},
	} {
		b := newBench(t, nil)
		b.send("c", s, c.p, pk{at: ms, from: "a", n: 1})
		b.end()
		b.check()
		if n := b.f.Counts()[c.reason]; n != 1 {
			t.Errorf("%s: counted %d", c.what, n)
		}
		if r := b.one(); r.SrcPackets != 1 {
			t.Errorf("%s: %d packets", c.what, r.SrcPackets)
		}
	}
	// An error about this partition, from a host of another, belongs here.
	router := otherPartition(t)
	b := fold(t, nil, pk{from: "a", n: 1}, pk{at: ms, from: "b", n: 28, mod: func(f *packet.Flow, p *packet.Packet) {
		f.Src, f.Protocol, f.SrcPort, f.DstPort = router, packet.ProtoICMP, 11, 0
		p.Head = []byte{0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 4, 10, 0, 0, 5, 0x9c, 0x40, 0x01, 0xbb, 0, 9, 0, 0}
	}})
	if len(b.settled) != 2 || b.settled[0].ICMPErrors != 1 {
		t.Errorf("%s", b.sketch())
	}
}

// otherPartition is an address whose packets with addrA belong elsewhere.
func otherPartition(t *testing.T) packet.Addr {
	t.Helper()
	mine := session.Partition("", &addrA, &addrB, 16)
	for i := range byte(250) {
		if a := packet.AddrFrom(netip.AddrFrom4([4]byte{10, 0, 1, i})); session.Partition("", &addrA, &a, 16) != mine {
			return a
		}
	}
	t.Fatal("everything is in one partition")
	return packet.Addr{}
}

func marshal(t *testing.T, b *pb.PacketBatch) []byte {
	t.Helper()
	v, err := record.MarshalPackets(&pb.PacketsRecord{Body: &pb.PacketsRecord_Batch{Batch: b}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func marshalTick(t *testing.T, clock int64) []byte {
	t.Helper()
	v, err := record.MarshalPackets(&pb.PacketsRecord{Body: &pb.PacketsRecord_Tick{Tick: &pb.Tick{OwnerEpoch: 1, Clock: clock}}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func endOfInput(t *testing.T) []byte {
	t.Helper()
	v, err := record.MarshalPackets(&pb.PacketsRecord{Body: &pb.PacketsRecord_EndOfInput{EndOfInput: &pb.EndOfInput{}}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}
