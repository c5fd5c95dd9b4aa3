// Package batcher collects decoded packets into one open batch for each partition, and seals batches by size
// and when told to.
//
// A producer (one collector, in one incarnation) may have several receive workers. Each has a Batcher of its
// own, so that a packet takes no lock; what the batches of a partition share, their numbers and the watermark,
// is locked when a batch is sealed. The watermark of a partition is the least of what its workers have
// promised, each by its last Flush: a worker's packets may be in its open batch for as long as it likes, but
// it must have taken all packets older than the watermark that it flushes with.
package batcher

import (
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/tapweave/tapweave/proto/batch"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/session"
)

// Configuration of a producer's batches.
type Configuration struct {
	Producer    string // name of the collector
	Incarnation uint64 // grows with each start of the producer
	Partitions  int    // P, see session.Partition
	// MaxBytes, before compression, and MaxPackets seal a batch. Default: 512 KiB and 16384. The last
	// packets may take a batch over MaxBytes by their own size.
	MaxBytes, MaxPackets int
	Compression          batch.Compression
}

// DefaultConfiguration returns the defaults for a producer of that name.
func DefaultConfiguration(producer string, incarnation uint64, partitions int) Configuration {
	return Configuration{
		Producer: producer, Incarnation: incarnation, Partitions: partitions,
		MaxBytes: 512 << 10, MaxPackets: 16384, Compression: batch.S2,
	}
}

// Validate says what is wrong with a configuration. A sealed batch has to stay under 900,000 bytes even if
// nothing in it can be compressed.
func (c Configuration) Validate() error {
	const most = 800 << 10
	switch {
	case c.Producer == "":
		return fmt.Errorf("the producer has no name")
	case c.Partitions < 1 || c.Partitions > 1<<16:
		return fmt.Errorf("partitions %d is not between 1 and %d", c.Partitions, 1<<16)
	case c.MaxBytes < 1 || c.MaxBytes > most:
		return fmt.Errorf("max_bytes %d is not between 1 and %d", c.MaxBytes, most)
	case c.MaxPackets < 1 || c.MaxPackets > batch.MaxPackets:
		return fmt.Errorf("max_packets %d is not between 1 and %d", c.MaxPackets, batch.MaxPackets)
	}
	return nil
}

// Emit takes a sealed batch. It is called with the partition locked, so that a partition's batches come in the
// order of their numbers: it must not block for long, nor call the batcher. The batch is its own to keep, but for
// the Columns, which are valid until it returns. Its Clock is for the publisher to set.
type Emit func(partition int, b *pb.PacketBatch)

// Batcher is one worker's open batches. It is not safe for concurrent use; the Batchers of one producer may
// be used concurrently.
type Batcher struct {
	producer *producer
	worker   int
	open     []*batch.Encoder
	// shed is, by partition, the least threshold by which a packet was shed since the last batch; 0: none was.
	shed []uint64

	partitions, maxBytes, maxPackets int

	held  [MaxHeld]held
	nHeld int
	sum   uint32 // of what Touch returned, which has to go somewhere
}

// MaxHeld is how many packets are held at most: as many as the processor can wait for at once, and few enough to stay
// in its nearest cache.
const MaxHeld = 16

// held is a packet that waits for others.
type held struct {
	flow       *packet.Flow
	packet     *packet.Packet
	hash, slot uint64
	partition  int
}

// producer is what the workers share.
type producer struct {
	Configuration
	emit       Emit
	partitions []partition
}

type partition struct {
	sync.Mutex
	sequence  uint64
	watermark int64   // last emitted
	promised  []int64 // by worker
	gone      int     // workers that said goodbye
}

// New returns a Batcher for each of a producer's workers. The configuration has been validated.
func New(c Configuration, workers int, emit Emit) []*Batcher {
	p := &producer{Configuration: c, emit: emit, partitions: make([]partition, c.Partitions)}
	for i := range p.partitions {
		q := &p.partitions[i]
		q.watermark = math.MinInt64
		q.promised = make([]int64, workers)
		for w := range q.promised {
			q.promised[w] = math.MinInt64
		}
	}
	all := make([]*Batcher, workers)
	for w := range all {
		b := &Batcher{producer: p, worker: w, partitions: c.Partitions, maxBytes: c.MaxBytes, maxPackets: c.MaxPackets, shed: make([]uint64, c.Partitions)}
		for range c.Partitions {
			b.open = append(b.open, batch.NewEncoder())
		}
		all[w] = b
	}
	return all
}

// Take adds a packet to the open batch of its partition. Neither is kept.
func (b *Batcher) Take(f *packet.Flow, p *packet.Packet) {
	b.take(Partition(f, p, b.partitions), batch.Hash(f), f, p)
}

// Hold is Take for packets that come many at a time, which together wait less for memory: up to MaxHeld are held, and
// then taken. Flow and packet have to stay as they are until then, or until Release. Flush and Goodbye release, too.
func (b *Batcher) Hold(f *packet.Flow, p *packet.Packet) {
	h := &b.held[b.nHeld]
	h.flow, h.packet = f, p
	h.partition, h.hash = Partition(f, p, b.partitions), batch.Hash(f)
	if b.nHeld++; b.nHeld == MaxHeld {
		b.Release()
	}
}

// Held is how many packets are held, less than MaxHeld.
func (b *Batcher) Held() int { return b.nHeld }

// Release takes the packets that are held, in their order.
func (b *Batcher) Release() {
	all := b.held[:b.nHeld]
	b.nHeld = 0
	for i := range all {
		all[i].slot = b.open[all[i].partition].Slot(all[i].hash)
	}
	for i := range all {
		b.sum += b.open[all[i].partition].Touch(all[i].slot)
	}
	for i := range all {
		h := &all[i]
		b.take(h.partition, h.hash, h.flow, h.packet)
	}
}

// take adds a packet to the open batch of partition i.
func (b *Batcher) take(i int, hash uint64, f *packet.Flow, p *packet.Packet) {
	e := b.open[i]
	e.AppendHashed(hash, f, p)
	// Headers alone take some tens of bytes: their size is looked at now and then.
	if n := e.Len(); n >= b.maxPackets || (n%16 == 0 || len(p.Data)+len(p.Head) > 0) && e.Size() >= b.maxBytes {
		q := &b.producer.partitions[i]
		q.Lock()
		b.seal(i, q, pb.PacketBatch_PACKETS)
		q.Unlock()
	}
}

// Shed notes that a packet is not taken, because the hash of its session is not below threshold. The partition's
// next batch says so.
func (b *Batcher) Shed(f *packet.Flow, p *packet.Packet, threshold uint64) {
	i := Partition(f, p, b.partitions)
	if b.shed[i] == 0 || threshold < b.shed[i] {
		b.shed[i] = threshold
	}
}

// Hello announces the producer on every partition. It is said once, by one worker, before any packet is taken.
func (b *Batcher) Hello(watermark int64) {
	for i := range b.open {
		q := &b.producer.partitions[i]
		q.Lock()
		for w := range q.promised {
			q.promised[w] = watermark
		}
		b.seal(i, q, pb.PacketBatch_HELLO)
		q.Unlock()
	}
}

// Flush seals the worker's open batches, and promises that it takes no packet older than watermark any more.
// A partition without an open batch gets an empty one if its watermark moves.
func (b *Batcher) Flush(watermark int64) { b.flush(watermark) }

// Goodbye is a worker's last Flush. When the last worker has said it, the producer leaves every partition.
func (b *Batcher) Goodbye(watermark int64) {
	b.flush(watermark)
	for i := range b.open {
		q := &b.producer.partitions[i]
		q.Lock()
		if q.gone++; q.gone == len(q.promised) {
			b.seal(i, q, pb.PacketBatch_GOODBYE)
		}
		q.Unlock()
	}
}

func (b *Batcher) flush(watermark int64) {
	b.Release()
	for i, e := range b.open {
		q := &b.producer.partitions[i]
		q.Lock()
		q.promised[b.worker] = max(q.promised[b.worker], watermark)
		if e.Len() > 0 || b.shed[i] != 0 || slices.Min(q.promised) > q.watermark {
			b.seal(i, q, pb.PacketBatch_PACKETS)
		}
		q.Unlock()
	}
}

// seal emits what is open for partition i. q is locked.
func (b *Batcher) seal(i int, q *partition, kind pb.PacketBatch_Kind) {
	c := &b.producer.Configuration
	q.sequence++
	q.watermark = slices.Min(q.promised)
	s := &pb.PacketBatch{
		Kind: kind, Producer: c.Producer, Incarnation: c.Incarnation, Sequence: q.sequence,
		Watermark: q.watermark, Partitions: uint32(c.Partitions), ShedThreshold: b.shed[i],
	}
	b.shed[i] = 0
	if e := b.open[i]; e.Len() > 0 {
		s.Packets, s.Oldest = uint32(e.Len()), e.Oldest()
		s.Columns = e.Seal(c.Compression)
	}
	b.producer.emit(i, s)
}

// Partition returns the partition, of n, of a packet: that of its addresses, or of those that it quotes if it
// is an ICMP error, so that the error is folded where the session is that it is about.
func Partition(f *packet.Flow, p *packet.Packet, n int) int {
	if len(p.Head) > 0 && p.Fragment == 0 {
		if src, dst, _, _, _, ok := packet.Quote(p.Head); ok {
			return session.Partition(f.Tenant, &src, &dst, n)
		}
	}
	return session.Partition(f.Tenant, &f.Src, &f.Dst, n)
}
