package batcher_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/tapweave/tapweave/collector/batcher"
	"github.com/tapweave/tapweave/proto/batch"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/session"
)

// log keeps what was emitted, by partition.
type log struct {
	sync.Mutex
	batches map[int][]*pb.PacketBatch
}

func (l *log) emit(partition int, b *pb.PacketBatch) {
	l.Lock()
	defer l.Unlock()
	if l.batches == nil {
		l.batches = map[int][]*pb.PacketBatch{}
	}
	b.Columns = bytes.Clone(b.Columns)
	l.batches[partition] = append(l.batches[partition], b)
}

func udp(n int, time int64) (*packet.Flow, *packet.Packet) {
	f := &packet.Flow{
		Src: packet.AddrFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)})), Dst: packet.AddrFrom(netip.MustParseAddr("10.1.0.1")),
		SrcPort: 1000, DstPort: 53, Protocol: packet.ProtoUDP, TTL: 64,
	}
	return f, &packet.Packet{Time: time, Length: 100, Payload: 72, WindowScale: packet.NoWindowScale}
}

// check wants each partition's batches numbered from 1 without a gap, watermarks that never go back, and no
// packet older than a watermark before it. It returns the number of packets.
func (l *log) check(t *testing.T, c batcher.Configuration) int {
	t.Helper()
	packets := 0
	var p batch.Packets
	for i, list := range l.batches {
		var watermark int64
		for n, b := range list {
			if b.Sequence != uint64(n+1) || b.Producer != c.Producer || b.Incarnation != c.Incarnation || b.Partitions != uint32(c.Partitions) {
				t.Errorf("partition %d, batch %d: %v", i, n, b)
			}
			if n == 0 != (b.Kind == pb.PacketBatch_HELLO) || n == len(list)-1 != (b.Kind == pb.PacketBatch_GOODBYE) {
				t.Errorf("partition %d, batch %d of %d is %v", i, n, len(list), b.Kind)
			}
			if b.Packets > 0 {
				if err := p.Decode(b.Columns); err != nil {
					t.Fatal(err)
				}
				if len(p.Packets) != int(b.Packets) {
					t.Errorf("partition %d, batch %d: %d packets, said to be %d", i, n, len(p.Packets), b.Packets)
				}
				for j := range p.Packets {
					q := &p.Packets[j]
					f := &p.Flows[q.Flow]
					if q.Time < watermark {
						t.Errorf("partition %d, batch %d: packet of %d behind watermark %d", i, n, q.Time, watermark)
					}
					if session.Partition(f.Tenant, &f.Src, &f.Dst, c.Partitions) != i {
						t.Errorf("partition %d has a packet of %v to %v", i, f.Src, f.Dst)
					}
				}
				packets += len(p.Packets)
			} else if len(b.Columns) != 0 {
				t.Errorf("partition %d, batch %d: columns without packets", i, n)
			}
			if b.Watermark < watermark {
				t.Errorf("partition %d, batch %d: watermark %d after %d", i, n, b.Watermark, watermark)
			}
			watermark = b.Watermark
		}
	}
	return packets
}

func TestOneWorker(t *testing.T) {
	c := batcher.DefaultConfiguration("a", 3, 4)
	c.MaxPackets = 10
	var l log
	b := batcher.New(c, 1, l.emit)[0]
	b.Hello(100)
	for i := range 4 {
		if list := l.batches[i]; len(list) != 1 || list[0].Kind != pb.PacketBatch_HELLO || list[0].Watermark != 100 {
			t.Fatalf("partition %d: %v", i, list)
		}
	}
	for i := range 15 {
		b.Take(udp(1, int64(200+i)))
	}
	f, _ := udp(1, 0)
	busy := session.Partition("", &f.Src, &f.Dst, 4)
	if list := l.batches[busy]; len(list) != 2 || list[1].Packets != 10 || list[1].Watermark != 100 {
		t.Fatalf("%v", list)
	}
	b.Flush(300)
	b.Flush(300) // nothing new to say
	for i, list := range l.batches {
		last := list[len(list)-1]
		if want := map[bool]int{true: 3, false: 2}[i == busy]; len(list) != want || last.Watermark != 300 || last.Packets > 0 != (i == busy) {
			t.Errorf("partition %d: %v", i, list)
		}
	}
	b.Take(udp(2, 300))
	b.Goodbye(400)
	if n := l.check(t, c); n != 16 {
		t.Errorf("%d packets, want 16", n)
	}
	for i, list := range l.batches {
		if last := list[len(list)-1]; last.Watermark != 400 {
			t.Errorf("partition %d ends at %d", i, last.Watermark)
		}
	}
}

func TestSealedBySize(t *testing.T) {
	c := batcher.DefaultConfiguration("a", 1, 1)
	var l log
	b := batcher.New(c, 1, l.emit)[0]
	b.Hello(0)
	f, p := udp(1, 1)
	p.Length, p.Payload, p.Data = 60028, 60000, make([]byte, 60000)
	for i := range p.Data {
		p.Data[i] = byte(rand.Uint32())
	}
	for range 40 {
		b.Take(f, p)
	}
	b.Goodbye(1)
	if n := l.check(t, c); n != 40 {
		t.Errorf("%d packets", n)
	}
	for i, s := range l.batches[0] {
		if len(s.Columns) > 900_000 {
			t.Errorf("batch %d has %d bytes", i, len(s.Columns))
		}
	}
	if n := len(l.batches[0]); n < 6 || n > 8 {
		t.Errorf("%d batches", n)
	}
}

// TestWorkers lets workers take packets at their own pace, each behind its own promises.
func TestWorkers(t *testing.T) {
	c := batcher.DefaultConfiguration("a", 1, 8)
	c.MaxPackets = 50
	var l log
	all := batcher.New(c, 3, l.emit)
	all[0].Hello(0)
	const each = 5000
	var done sync.WaitGroup
	for w, b := range all {
		done.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(w)))
			now := int64(0)
			for range each {
				now += r.Int64N(20)
				b.Take(udp(r.IntN(50), now))
				if r.IntN(300) == 0 {
					b.Flush(now)
				}
			}
			b.Goodbye(now)
		})
	}
	done.Wait()
	if n := l.check(t, c); n != 3*each {
		t.Errorf("%d packets, want %d", n, 3*each)
	}
}

// TestPartition wants an ICMP error where the session is that it quotes.
func TestPartition(t *testing.T) {
	f, p := udp(1, 1)
	quote := []byte{0: 0x45, 9: 17, 12: 10, 13: 0, 14: 0, 15: 1, 16: 10, 17: 1, 18: 0, 19: 1}
	icmp := *f
	icmp.Protocol, icmp.Src = packet.ProtoICMP, packet.AddrFrom(netip.MustParseAddr("172.16.0.1"))
	differ := false
	for n := 1; n < 100; n++ {
		want := batcher.Partition(f, p, n)
		if got := batcher.Partition(&icmp, &packet.Packet{Head: quote}, n); got != want {
			t.Errorf("of %d: error in %d, session in %d", n, got, want)
		}
		own := batcher.Partition(&icmp, &packet.Packet{}, n)
		for name, p := range map[string]*packet.Packet{"quote cut": {Head: quote[:19]}, "fragment": {Head: quote, Fragment: packet.IsFragment}} {
			if got := batcher.Partition(&icmp, p, n); got != own {
				t.Errorf("%s: of %d: %d, own pair in %d", name, n, got, own)
			}
		}
		differ = differ || own != want
	}
	if !differ {
		t.Error("both pairs have always the same partition")
	}
}

// Packets that were held are in the same batches as those that were not, to the byte.
func TestHold(t *testing.T) {
	type sealed struct {
		partition int
		batch     string
	}
	run := func(hold bool) (all []sealed) {
		c := batcher.DefaultConfiguration("a", 1, 5)
		c.MaxPackets = 300
		b := batcher.New(c, 1, func(i int, s *pb.PacketBatch) {
			all = append(all, sealed{i, fmt.Sprintf("%d %d %d %x", s.Sequence, s.Watermark, s.Packets, s.Columns)})
		})[0]
		random := rand.New(rand.NewPCG(3, 3))
		b.Hello(0)
		now, burst := int64(0), make([]byte, 0, 1<<16)
		for range 500 {
			burst = burst[:0]
			for range random.IntN(64) {
				now += random.Int64N(1000)
				f, p := udp(random.IntN(400), now)
				if random.IntN(3) == 0 {
					from := len(burst)
					for range random.IntN(500) {
						burst = append(burst, byte(random.Uint32()))
					}
					p.Data = burst[from:]
				}
				if hold {
					b.Hold(f, p)
				} else {
					b.Take(f, p)
				}
			}
			if hold {
				b.Release()
			}
			clear(burst) // the next burst overwrites it
			if random.IntN(20) == 0 {
				b.Flush(now)
			}
		}
		b.Goodbye(now)
		return all
	}
	taken, held := run(false), run(true)
	if len(taken) < 100 || !slices.Equal(taken, held) {
		t.Errorf("%d batches, and %d that differ of packets that were held", len(taken), len(held))
	}
}

func TestAllocations(t *testing.T) {
	b := batcher.New(batcher.DefaultConfiguration("a", 1, 4), 1, func(int, *pb.PacketBatch) {})[0]
	var flows []*packet.Flow
	for i := range 100 {
		f, _ := udp(i, 0)
		flows = append(flows, f)
	}
	_, p := udp(0, 1)
	take := func() {
		for i := range 1000 {
			b.Take(flows[i%len(flows)], p)
		}
	}
	for range 200 {
		take() // buffers grow until a few batches were sealed
	}
	// A sealed batch and its columns are all that is allocated: 1000 packets are part of one.
	if n := testing.AllocsPerRun(100, take); n > 2 {
		t.Errorf("%v allocations for 1000 packets", n)
	}
}

func TestValidate(t *testing.T) {
	for i, change := range []func(c *batcher.Configuration){
		func(c *batcher.Configuration) {},
		func(c *batcher.Configuration) { c.Producer = "" },
		func(c *batcher.Configuration) { c.Partitions = 0 },
		func(c *batcher.Configuration) { c.MaxBytes = 1 << 20 },
		func(c *batcher.Configuration) { c.MaxPackets = batch.MaxPackets + 1 },
	} {
		c := batcher.DefaultConfiguration("a", 1, 16)
		change(&c)
		if err := c.Validate(); (err == nil) != (i == 0) {
			t.Errorf("%d: %v", i, err)
		}
	}
}
