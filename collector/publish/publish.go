// Package publish brings sealed batches to their partitions: in order, one call in flight a partition, tried
// again until the broker has them, within a bound of memory. Handing a batch over never blocks.
package publish

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/stats"
)

// Config of a Publisher.
type Config struct {
	Partitions int // P
	// MemoryBytes bounds what waits to be published. Beyond it packets are lost, and counted.
	MemoryBytes int64
	// IdleEvery is how often a partition without packets is told the time. Default: 250 ms.
	IdleEvery time.Duration
}

// Producer is what a Publisher needs of a Kafka client.
type Producer interface {
	ProduceRetry(ctx context.Context, topic string, partition int, make func() ([]kafka.Record, error), failed func(error)) (int64, error)
}

// Publisher publishes the batches of one collector. It is safe for concurrent use.
type Publisher struct {
	config     Config
	producer   Producer
	acked      func(partition int, kind pb.PacketBatch_Kind)
	failed     func(error)
	partitions []partition
	waiting    atomic.Int64 // bytes

	packets, batches, bytes       *stats.Counter
	memory, tooLarge, undelivered *stats.Counter // packets lost
	failedCalls                   *stats.Counter
}

// partition is the queue of one partition.
type partition struct {
	mu       sync.Mutex
	queue    []*pb.PacketBatch
	inFlight int // of the queue's first batches, how many are being published
	sequence uint64
	last     time.Time     // when something was last published
	wake     chan struct{} // holds one element when the queue has changed
}

// overhead is what a batch takes in memory beside its columns.
const overhead = 256

// callBytes bounds what one produce call carries: Azure Event Hubs takes less than 1,000,000 bytes.
const callBytes = record.MaxBytes

// New returns a Publisher. acked hears of every kind of batch that a partition has; failed of every call that
// has failed and will be tried again.
func New(c Config, p Producer, counters *stats.Counters, acked func(partition int, kind pb.PacketBatch_Kind), failed func(error)) *Publisher {
	c.IdleEvery = cmp.Or(c.IdleEvery, 250*time.Millisecond)
	b := &Publisher{
		config: c, producer: p, acked: acked, failed: failed, partitions: make([]partition, c.Partitions),
		packets:     counters.Counter("published", "packets"),
		batches:     counters.Counter("published", "batches"),
		bytes:       counters.Counter("published", "bytes"),
		memory:      counters.Counter("lost", "memory"),
		tooLarge:    counters.Counter("lost", "too_large"),
		undelivered: counters.Counter("lost", "undelivered"),
		failedCalls: counters.Counter("produce", "failed_calls"),
	}
	for i := range b.partitions {
		b.partitions[i].wake = make(chan struct{}, 1)
	}
	return b
}

// Pressure is the share of the memory bound that is in use.
func (b *Publisher) Pressure() float64 {
	return float64(b.waiting.Load()) / float64(b.config.MemoryBytes)
}

// Emit takes a batch over; it is a batcher.Emit. Where there is no room for its packets they are lost, but
// not what the batch says of time. The columns are copied, and take no more room than they have to.
func (b *Publisher) Emit(i int, s *pb.PacketBatch) {
	size := cost(s)
	if s.Packets > 0 && b.waiting.Load()+size > b.config.MemoryBytes {
		b.memory.Add(uint64(s.Packets))
		strip(s)
		size = cost(s)
	}
	s.Columns = bytes.Clone(s.Columns)
	p := &b.partitions[i]
	p.mu.Lock()
	if n := len(p.queue); n > p.inFlight && tellsTime(p.queue[n-1]) && s.Kind == pb.PacketBatch_PACKETS {
		// The one before says nothing that this one does not say.
		s.ShedThreshold = least(s.ShedThreshold, p.queue[n-1].ShedThreshold)
		b.waiting.Add(-cost(p.queue[n-1]))
		p.queue[n-1] = s
	} else {
		p.queue = append(p.queue, s)
	}
	p.mu.Unlock()
	b.waiting.Add(size)
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func cost(s *pb.PacketBatch) int64 { return int64(len(s.Columns)) + overhead }

// tellsTime says whether a batch has no other purpose.
func tellsTime(s *pb.PacketBatch) bool { return s.Kind == pb.PacketBatch_PACKETS && s.Packets == 0 }

// strip takes the packets out of a batch, and says that every session may have lost some.
func strip(s *pb.PacketBatch) {
	s.Packets, s.Oldest, s.Columns, s.ShedThreshold = 0, 0, nil, 1
}

// least returns the lower of two thresholds; 0 is none.
func least(a, b uint64) uint64 {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// Run publishes until ctx is done. What waits then is lost, and counted.
func (b *Publisher) Run(ctx context.Context) {
	var all sync.WaitGroup
	for i := range b.partitions {
		all.Go(func() { b.run(ctx, i) })
	}
	all.Wait()
	for i := range b.partitions {
		p := &b.partitions[i]
		p.mu.Lock()
		for _, s := range p.queue {
			b.undelivered.Add(uint64(s.Packets))
			b.waiting.Add(-cost(s))
		}
		p.queue = nil
		p.mu.Unlock()
	}
}

// Drain waits until everything that was handed over is published, or ctx is done.
func (b *Publisher) Drain(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for b.waiting.Load() > 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d bytes could not be published in time", b.waiting.Load())
		case <-tick.C:
		}
	}
	return nil
}

func (b *Publisher) run(ctx context.Context, i int) {
	p := &b.partitions[i]
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		batches, wait := p.take(b.config.IdleEvery)
		if len(batches) > 0 {
			if !b.publish(ctx, i, batches) {
				return
			}
			continue
		}
		timer.Reset(cmp.Or(wait, time.Hour))
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		case <-timer.C:
		}
	}
}

// take marks the first batches of the queue, as many as go into one call, as being published. If all that
// there is tells the time and it is too early for that, it says how long to wait.
func (p *partition) take(idleEvery time.Duration) ([]*pb.PacketBatch, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return nil, 0
	}
	if tellsTime(p.queue[0]) && len(p.queue) == 1 {
		if wait := idleEvery - time.Since(p.last); wait > 0 {
			return nil, wait
		}
	}
	n, size := 0, int64(0)
	for n < len(p.queue) && (n == 0 || size+cost(p.queue[n]) <= callBytes) {
		size += cost(p.queue[n])
		// The numbers are given here, so that those that were replaced leave no gap.
		p.sequence++
		p.queue[n].Sequence = p.sequence
		n++
	}
	p.inFlight = n
	return slices.Clone(p.queue[:n]), 0
}

// publish brings batches to partition i, and returns whether it did: it does not only when ctx is done.
func (b *Publisher) publish(ctx context.Context, i int, batches []*pb.PacketBatch) bool {
	for {
		err := b.produce(ctx, i, batches)
		if err == nil {
			break
		} else if ctx.Err() != nil {
			return false
		}
		// The broker, or the bound on a record, refuses a size.
		if len(batches) > 1 {
			for _, s := range batches {
				if !b.publish(ctx, i, []*pb.PacketBatch{s}) {
					return false
				}
			}
			return true
		}
		b.failed(err)
		if s := batches[0]; s.Packets > 0 {
			b.tooLarge.Add(uint64(s.Packets))
			b.waiting.Add(-int64(len(s.Columns)))
			strip(s)
			continue
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(time.Second):
		}
	}
	p := &b.partitions[i]
	p.mu.Lock()
	var done int64
	var packets uint64
	for _, s := range batches {
		done += cost(s)
		packets += uint64(s.Packets)
	}
	clear(p.queue[:len(batches)])
	p.queue = p.queue[len(batches):]
	p.inFlight -= len(batches)
	p.last = time.Now()
	p.mu.Unlock()
	b.waiting.Add(-done)
	b.packets.Add(packets)
	b.batches.Add(uint64(len(batches)))
	for _, s := range batches {
		b.acked(i, s.Kind)
	}
	return true
}

// produce is one call, tried again until it succeeds or the broker says that the records are too large.
func (b *Publisher) produce(ctx context.Context, i int, batches []*pb.PacketBatch) error {
	var size int
	_, err := b.producer.ProduceRetry(ctx, record.TopicPackets, i, func() ([]kafka.Record, error) {
		size = 0
		records := make([]kafka.Record, len(batches))
		for j, s := range batches {
			s.Clock = time.Now().UnixNano() // of this try
			value, err := record.MarshalPackets(&pb.PacketsRecord{Body: &pb.PacketsRecord_Batch{Batch: s}})
			if err != nil {
				return nil, err
			}
			records[j].Value = value
			size += len(value)
		}
		return records, nil
	}, func(err error) {
		b.failedCalls.Inc()
		b.failed(err)
	})
	if err == nil {
		b.bytes.Add(uint64(size))
	}
	return err
}
