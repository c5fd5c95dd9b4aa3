// Package synthetic writes logs of tapweave.packets whose sessions are known, for tests.
package synthetic

import (
	"cmp"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tapweave/tapweave/proto/batch"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/proto/session"
)

// Options of a log.
type Options struct {
	Seed       uint64
	Sessions   int
	First      int // which client's address comes first, up to 60,000 less Sessions
	Partitions int
	Restarts   uint64 // of the collectors, before
	Start      time.Time
	Span       time.Duration // from the first session's beginning to the last one's end
	Every      time.Duration // between two batches of a collector
	// Long makes every session last for nearly all of Span.
	Long bool
}

// Session is what a session is known to have. Src is the client.
type Session struct {
	Partition                        int
	Src, Dst                         packet.Addr
	SrcPort, DstPort                 uint16
	SrcPackets, DstPackets           uint64
	SrcBytes, DstBytes               uint64
	SrcPayloadBytes, DstPayloadBytes uint64
	End                              int64 // time of the last packet
}

// Record is one record for a partition.
type Record struct {
	Partition int
	Time      int64 // when it would be written, nanoseconds since the Unix epoch
	Value     []byte
}

// Log is the records in the order of their writing, and the sessions in them.
type Log struct {
	Records  []Record
	Sessions []Session
}

// Collectors are the names of the collectors: the first sees what clients send, the second what servers do.
var Collectors = [2]string{"collector-1", "collector-2"}

type sighting struct {
	collector int
	flow      packet.Flow
	packet    packet.Packet
}

// Write makes a log of TCP connections from SYN to FIN. It ends with watermarks far behind the last packet and
// the collectors' goodbyes, so that every session becomes final.
func Write(o Options) *Log {
	rng := rand.New(rand.NewPCG(o.Seed, 1))
	l := new(Log)
	seen := make([][]sighting, o.Partitions)
	for i := range o.Sessions {
		s, all := conversation(rng, &o, i)
		s.Partition = session.Partition(session.DefaultTenant, &s.Src, &s.Dst, o.Partitions)
		l.Sessions = append(l.Sessions, s)
		seen[s.Partition] = append(seen[s.Partition], all...)
	}
	for i := range seen {
		slices.SortStableFunc(seen[i], func(a, b sighting) int { return cmp.Compare(a.packet.Time, b.packet.Time) })
	}
	start := o.Start.UnixNano()
	sequence := make([][2]uint64, o.Partitions)
	write := func(partition, collector int, at, watermark int64, kind pb.PacketBatch_Kind, e *batch.Encoder) {
		sequence[partition][collector]++
		b := &pb.PacketBatch{
			Kind: kind, Producer: Collectors[collector], Incarnation: 1 + o.Restarts, Sequence: sequence[partition][collector],
			Watermark: watermark, Clock: max(at, watermark), Partitions: uint32(o.Partitions),
		}
		if e != nil && e.Len() > 0 {
			b.Packets, b.Columns = uint32(e.Len()), e.Seal(batch.S2)
		}
		value, err := record.MarshalPackets(&pb.PacketsRecord{Body: &pb.PacketsRecord_Batch{Batch: b}})
		if err != nil {
			panic(err) // a batch of this package is never too large
		}
		l.Records = append(l.Records, Record{partition, at, value})
	}
	for p := range o.Partitions {
		for c := range Collectors {
			write(p, c, start, start-1, pb.PacketBatch_HELLO, nil)
		}
	}
	end := start + int64(o.Span) + int64(o.Every)
	for at := start + int64(o.Every); at <= end; at += int64(o.Every) {
		for p := range o.Partitions {
			n := 0
			for n < len(seen[p]) && seen[p][n].packet.Time < at {
				n++
			}
			for c := range Collectors {
				e := batch.NewEncoder()
				for i := range seen[p][:n] {
					if x := &seen[p][i]; x.collector == c {
						e.Append(&x.flow, &x.packet)
					}
				}
				write(p, c, at, at, pb.PacketBatch_PACKETS, e)
			}
			seen[p] = seen[p][n:]
		}
	}
	for p := range o.Partitions {
		for c := range Collectors {
			write(p, c, end, end+int64(10*time.Minute), pb.PacketBatch_GOODBYE, nil)
		}
	}
	return l
}

// conversation is the i-th connection: its truth and its packets.
func conversation(rng *rand.Rand, o *Options, i int) (s Session, all []sighting) {
	var client, server [16]byte
	copy(client[:], "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x01")
	copy(server[:], "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x02")
	binary.BigEndian.PutUint16(client[14:], uint16(o.First+i%5000+1))
	server[15] = byte(rng.IntN(20) + 1)
	s.Src, s.Dst = client, server
	s.SrcPort, s.DstPort = uint16(20000+i/5000), 443

	data := rng.IntN(12)
	begin := rng.Int64N(int64(o.Span) / 2)
	length := rng.Int64N(int64(o.Span)/2-int64(data+10)) + int64(data+10)
	if o.Long {
		begin = rng.Int64N(int64(o.Span) / 50)
		length = int64(o.Span) * 9 / 10
	}
	steps := int64(data + 6)
	t := o.Start.UnixNano() + begin
	seq := [2]uint32{rng.Uint32(), rng.Uint32()}
	id := [2]uint32{rng.Uint32N(1 << 16), rng.Uint32N(1 << 16)}
	send := func(from int, flags uint8, n uint32) {
		f := packet.Flow{Src: client, Dst: server, SrcPort: s.SrcPort, DstPort: s.DstPort, Protocol: packet.ProtoTCP, TTL: 64}
		packets, bytes, payload := &s.SrcPackets, &s.SrcBytes, &s.SrcPayloadBytes
		if from == 1 {
			f.Src, f.Dst, f.SrcPort, f.DstPort = f.Dst, f.Src, f.DstPort, f.SrcPort
			packets, bytes, payload = &s.DstPackets, &s.DstBytes, &s.DstPayloadBytes
		}
		id[from]++
		p := packet.Packet{
			Time: t, Length: 40 + n, Payload: n, Seq: seq[from], Ack: seq[1-from], Flags: flags, Window: 1000,
			ID: id[from] & 0xffff, Checksum: uint16(rng.Uint32()), WindowScale: packet.NoWindowScale,
		}
		if flags == packet.SYN {
			p.Ack = 0
		}
		seq[from] += n
		if flags&(packet.SYN|packet.FIN) != 0 {
			seq[from]++
		}
		*packets++
		*bytes += uint64(p.Length)
		*payload += uint64(n)
		s.End = t
		all = append(all, sighting{from, f, p})
		t += length / steps
	}
	send(0, packet.SYN, 0)
	send(1, packet.SYN|packet.ACK, 0)
	send(0, packet.ACK, 0)
	for range data {
		send(rng.IntN(2), packet.ACK|packet.PSH, uint32(rng.IntN(1400)+1))
	}
	send(0, packet.FIN|packet.ACK, 0)
	send(1, packet.FIN|packet.ACK, 0)
	send(0, packet.ACK, 0)
	return s, all
}
