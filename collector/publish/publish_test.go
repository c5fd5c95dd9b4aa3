package publish

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/stats"
)

// broker keeps what is produced. While it is away every try fails.
type broker struct {
	mu       sync.Mutex
	away     bool
	largest  int // 0: no bound
	tries    []int64
	batches  map[int][]*pb.PacketBatch
	inFlight map[int]int
	most     int // calls in flight at the same time at one partition
}

func newBroker() *broker {
	return &broker{batches: map[int][]*pb.PacketBatch{}, inFlight: map[int]int{}}
}

func (b *broker) set(away bool) { b.mu.Lock(); b.away = away; b.mu.Unlock() }

func (b *broker) ProduceRetry(ctx context.Context, _ string, partition int, make func() ([]kafka.Record, error), failed func(error)) (int64, error) {
	b.mu.Lock()
	b.inFlight[partition]++
	b.most = max(b.most, b.inFlight[partition])
	b.mu.Unlock()
	defer func() { b.mu.Lock(); b.inFlight[partition]--; b.mu.Unlock() }()
	err := kafka.Retry{Min: time.Millisecond, Max: 2 * time.Millisecond}.Do(ctx, func() error {
		records, err := make()
		if err != nil {
			return kafka.Permanent(err)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		var batches []*pb.PacketBatch
		for _, k := range records {
			if b.largest > 0 && len(k.Value) > b.largest {
				return kafka.Permanent(kafka.ErrTooLarge)
			}
			r, err := record.UnmarshalPackets(k.Value)
			if err != nil {
				return kafka.Permanent(err)
			}
			batches = append(batches, r.GetBatch())
		}
		if b.tries = append(b.tries, batches[0].Clock); b.away {
			return errors.New("away")
		}
		b.batches[partition] = append(b.batches[partition], batches...)
		return nil
	}, failed)
	return 0, err
}

func (b *broker) of(partition int) []*pb.PacketBatch {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]*pb.PacketBatch(nil), b.batches[partition]...)
}

func packets(n uint32, bytes int, watermark int64) *pb.PacketBatch {
	return &pb.PacketBatch{Producer: "c", Packets: n, Columns: make([]byte, bytes), Watermark: watermark}
}

func start(t *testing.T, c Config, b *broker) (*Publisher, *stats.Counters, func()) {
	t.Helper()
	counters := stats.New("collector", nil)
	p := New(c, b, counters, func(int, pb.PacketBatch_Kind) {}, func(error) {})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { p.Run(ctx); close(done) }()
	stop := sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return p, counters, stop
}

func drain(t *testing.T, p *Publisher) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := p.Drain(ctx); err != nil {
		t.Fatal(err)
	}
}

// An outage that the memory bridges loses nothing and keeps the order; each try has a clock of its own.
func TestOutage(t *testing.T) {
	b := newBroker()
	b.set(true)
	p, counters, _ := start(t, Config{Partitions: 3, MemoryBytes: 64 << 20}, b)
	const n = 200
	for i := range n {
		for partition := range 3 {
			p.Emit(partition, packets(1+uint32(i), 30_000, int64(i)))
		}
		if i == n/2 {
			time.Sleep(20 * time.Millisecond)
			b.set(false)
		}
	}
	drain(t, p)
	for partition := range 3 {
		got := b.of(partition)
		if len(got) != n {
			t.Fatalf("%d batches", len(got))
		}
		for i, s := range got {
			if s.Packets != 1+uint32(i) || s.Sequence != uint64(i)+1 || s.Watermark != int64(i) || len(s.Columns) != 30_000 {
				t.Errorf("batch %d: number %d, %d packets", i, s.Sequence, s.Packets)
			}
		}
	}
	if b.most != 1 {
		t.Errorf("%d calls in flight at one partition", b.most)
	}
	if counters.Counter("published", "packets").Value() != 3*n*(n+1)/2 || counters.Counter("published", "batches").Value() != 3*n || counters.Counter("produce", "failed_calls").Value() == 0 {
		t.Errorf("counts %v", counters.Counts())
	}
	clocks := map[int64]bool{}
	for _, c := range b.tries {
		clocks[c] = true
	}
	if len(b.tries) < 10 || len(clocks) < len(b.tries)*9/10 {
		t.Errorf("%d tries with %d clocks", len(b.tries), len(clocks))
	}
}

// Beyond the bound packets are lost and counted, time goes on, and Emit does not wait.
func TestMemory(t *testing.T) {
	b := newBroker()
	b.set(true)
	p, counters, _ := start(t, Config{Partitions: 1, MemoryBytes: 1 << 20}, b)
	began := time.Now()
	for i := range 1000 {
		p.Emit(0, packets(10, 10_000, int64(i)))
	}
	if d := time.Since(began); d > time.Second {
		t.Errorf("it took %v", d)
	}
	if p.Pressure() < 0.9 || p.Pressure() > 1.01 {
		t.Errorf("pressure %v", p.Pressure())
	}
	b.set(false)
	drain(t, p)
	p.Emit(0, packets(10, 10_000, 5000))
	drain(t, p)
	var published, last uint64
	var shed bool
	for _, s := range b.of(0) {
		published += uint64(s.Packets)
		if last++; s.Sequence != last {
			t.Errorf("number %d behind %d", s.Sequence, last-1)
		}
		shed = shed || s.ShedThreshold == 1
	}
	lost := counters.Counter("lost", "memory").Value()
	if published+lost != 10_010 || lost == 0 || published != counters.Counter("published", "packets").Value() {
		t.Errorf("%d published and %d lost", published, lost)
	}
	if !shed {
		t.Error("no batch says that packets were shed")
	}
	if p.waiting.Load() != 0 {
		t.Errorf("%d bytes are left over", p.waiting.Load())
	}
}

// A partition without packets is told the time, but not more often than needed.
func TestIdle(t *testing.T) {
	b := newBroker()
	p, _, _ := start(t, Config{Partitions: 1, MemoryBytes: 1 << 20, IdleEvery: 50 * time.Millisecond}, b)
	p.Emit(0, &pb.PacketBatch{Kind: pb.PacketBatch_HELLO, Producer: "c"})
	began := time.Now()
	for i := range 100 {
		p.Emit(0, packets(0, 0, int64(i)))
		time.Sleep(3 * time.Millisecond)
	}
	got := b.of(0)
	if n, most := len(got), 2+int(time.Since(began)/(50*time.Millisecond)); n < 4 || n > most || got[0].Kind != pb.PacketBatch_HELLO {
		t.Errorf("%d batches, at most %d", n, most)
	}
	p.Emit(0, &pb.PacketBatch{Kind: pb.PacketBatch_GOODBYE, Producer: "c", Watermark: 200})
	drain(t, p)
	got = b.of(0)
	if last := got[len(got)-1]; last.Kind != pb.PacketBatch_GOODBYE || last.Sequence != uint64(len(got)) {
		t.Errorf("last is %v", last)
	}
}

// A batch that no broker takes is lost, and those before and behind it are not.
func TestTooLarge(t *testing.T) {
	b := newBroker()
	b.largest = 50_000
	b.set(true)
	p, counters, _ := start(t, Config{Partitions: 1, MemoryBytes: 8 << 20}, b)
	for i, size := range []int{100, 60_000, 200, 950_000, 300} {
		p.Emit(0, packets(1, size, int64(i)))
	}
	b.set(false)
	drain(t, p)
	var got []int
	for i, s := range b.of(0) {
		got = append(got, len(s.Columns))
		if s.Sequence != uint64(i+1) || s.Watermark != int64(i) {
			t.Errorf("batch %d: %v", i, s)
		}
	}
	if len(got) != 5 || got[0] != 100 || got[1] != 0 || got[2] != 200 || got[3] != 0 || got[4] != 300 || counters.Counter("lost", "too_large").Value() != 2 || p.waiting.Load() != 0 {
		t.Errorf("published %v, counts %v", got, counters.Counts())
	}
}

// What waits at the end is counted.
func TestUndelivered(t *testing.T) {
	b := newBroker()
	b.set(true)
	p, counters, stop := start(t, Config{Partitions: 2, MemoryBytes: 8 << 20}, b)
	p.Emit(0, packets(3, 100, 1))
	p.Emit(1, packets(4, 100, 1))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := p.Drain(ctx); err == nil {
		t.Error("drained")
	}
	stop()
	if n := counters.Counter("lost", "undelivered").Value(); n != 7 || p.waiting.Load() != 0 {
		t.Errorf("%d packets, %d bytes", n, p.waiting.Load())
	}
}
