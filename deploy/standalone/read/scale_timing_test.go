package read

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/proto/batch"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/proto/session"
)

// population is a number of open TCP sessions, whose packets come in random order, one each microsecond.
type population struct {
	rng      *rand.Rand
	now      int64
	seq      [][2]uint32
	opened   int // sessions that have begun
	encoders []*batch.Encoder
	sequence []uint64
	records  [][]byte // by partition
}

func newPopulation(sessions, partitions int) *population {
	p := &population{
		rng: rand.New(rand.NewPCG(1, 2)), now: 1_700_000_000_000_000_000,
		seq: make([][2]uint32, sessions), sequence: make([]uint64, partitions), records: make([][]byte, partitions),
	}
	for range partitions {
		p.encoders = append(p.encoders, batch.NewEncoder())
	}
	return p
}

// send puts a packet of a session into the batch of its partition; side 1 is the server.
func (p *population) send(i, side int, flags uint8, payload uint32) {
	var f packet.Flow
	for end, a := range [2]*packet.Addr{&f.Src, &f.Dst} {
		a[10], a[11] = 0xff, 0xff
		if end == side { // the client
			binary.BigEndian.PutUint32(a[12:], 10<<24+uint32(i/8))
		} else {
			binary.BigEndian.PutUint32(a[12:], 10<<24+200<<16+uint32(i%1000))
		}
	}
	f.SrcPort, f.DstPort = uint16(20000+i%8*1000), 443
	if side == 1 {
		f.SrcPort, f.DstPort = f.DstPort, f.SrcPort
	}
	f.Protocol, f.TTL, f.NCarriers, f.OuterPort = packet.ProtoTCP, 64, 1, uint16(49152+i%1000)
	f.Carriers[0] = packet.Carrier{Source: packet.Addr{10: 0xff, 11: 0xff, 12: 192, 14: 2, 15: byte(side)}, VNI: 27}
	s := &p.seq[i]
	p.now += 1000
	k := packet.Packet{
		Time: p.now, Length: 40 + payload, Payload: payload, Seq: s[side], Ack: s[1-side], Flags: flags, Window: 1000,
		ID: s[side] >> 6 & 0xffff, Checksum: uint16(p.rng.Uint32()), WindowScale: packet.NoWindowScale,
	}
	s[side] += payload + uint32(flags&packet.SYN)>>1
	p.encoders[session.Partition("", &f.Src, &f.Dst, len(p.encoders))].Append(&f, &k)
}

// open begins up to n sessions, and says whether there were any left.
func (p *population) open(n int) bool {
	from := p.opened
	for ; p.opened < min(from+n, len(p.seq)); p.opened++ {
		i := p.opened
		p.seq[i] = [2]uint32{p.rng.Uint32(), p.rng.Uint32()}
		p.send(i, 0, packet.SYN, 0)
		p.send(i, 1, packet.SYN|packet.ACK, 0)
		p.send(i, 0, packet.ACK, 0)
	}
	return p.opened > from
}

// talk lets random sessions send n packets.
func (p *population) talk(n int) {
	for range n {
		i := p.rng.IntN(len(p.seq))
		p.send(i, p.rng.IntN(2), packet.ACK|packet.PSH, p.rng.Uint32N(1000))
	}
}

// seal makes a record for each partition of what was sent.
func (p *population) seal(b *testing.B) {
	for i, e := range p.encoders {
		p.sequence[i]++
		m := &pb.PacketBatch{
			Producer: "c", Incarnation: 1, Sequence: p.sequence[i], Watermark: p.now, Clock: p.now,
			Partitions: uint32(len(p.encoders)),
		}
		if e.Len() > 0 {
			m.Packets, m.Oldest, m.Columns = uint32(e.Len()), e.Oldest(), e.Seal(batch.S2)
		}
		var err error
		if p.records[i], err = record.MarshalPackets(&pb.PacketsRecord{Body: &pb.PacketsRecord_Batch{Batch: m}}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkScale measures what a packet costs the fold by the number of open sessions and of partitions, and the
// memory that sessions take.
func BenchmarkScale(b *testing.B) {
	for _, c := range []struct{ sessions, partitions int }{{1000, 16}, {1_000_000, 16}, {100_000, 1}, {100_000, 64}} {
		b.Run(fmt.Sprintf("%d-sessions,%d-partitions", c.sessions, c.partitions), func(b *testing.B) {
			const packets = 16 << 10 // of a round
			p := newPopulation(c.sessions, c.partitions)
			set := fold.DefaultSettings()
			set.Partitions = c.partitions
			var out nothing
			folds := make([]*fold.Fold, c.partitions)
			for i := range folds {
				folds[i] = fold.New(i, set, &out)
			}
			var rounds int64
			take := func() {
				for i, f := range folds {
					if err := f.Record(rounds, p.records[i]); err != nil {
						b.Fatal(err)
					}
				}
				rounds++
			}
			before := inUse()
			for p.open(packets / 3) {
				p.seal(b)
				take()
			}
			for range 2_000_000 / packets { // to when the first versions have been put out
				p.talk(packets)
				p.seal(b)
				take()
			}
			var spent time.Duration
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				p.talk(packets)
				p.seal(b)
				b.StartTimer()
				began := processor(b)
				take()
				spent += processor(b) - began
			}
			b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N)/packets, "cpu-ns/packet")
			b.ReportMetric(packets, "packets/op")
			b.ReportMetric(resident(b), "RSS-MiB")
			open := 0
			for _, f := range folds {
				open += f.Open()
			}
			if open != c.sessions {
				b.Fatalf("%d sessions are open, want %d", open, c.sessions)
			}
			b.ReportMetric(float64(inUse()-before)/float64(c.sessions), "B/session")
			p.now += int64(20 * time.Minute)
			p.seal(b)
			take()
			b.ReportMetric(float64(inUse()-before)/float64(c.sessions), "idle-B/session")
			runtime.KeepAlive(folds)
		})
	}
}

// inUse is how many bytes of the heap are in use.
func inUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// processor is the time that the process has had processors, its collections of garbage among it.
func processor(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// resident is the memory that the process has, in MiB.
func resident(b *testing.B) float64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skip(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			kb, _ := strconv.ParseFloat(f[1], 64)
			return kb / 1024
		}
	}
	b.Fatal("no VmRSS in /proc/self/status")
	return 0
}
