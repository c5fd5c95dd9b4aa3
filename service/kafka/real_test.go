package kafka_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/kafka/kafkatest"
)

func ensure(t *testing.T, c *kafka.Client, topics ...kafka.Topic) {
	t.Helper()
	if _, err := c.EnsureTopics(t.Context(), true, topics...); err != nil {
		t.Fatal(err)
	}
}

func TestTopics(t *testing.T) {
	c := kafkatest.New(t)
	if _, err := c.EnsureTopics(t.Context(), false, kafka.Topic{Name: "a", Partitions: 3}); !errors.Is(err, kafka.ErrNoTopic) {
		t.Errorf("missing: %v", err)
	}
	topics := []kafka.Topic{{Name: "a", Partitions: 3, Retention: time.Hour, MaxRecordBytes: 1 << 20}, {Name: "b", Partitions: 1}}
	for range 2 {
		have, err := c.EnsureTopics(t.Context(), true, topics...)
		if err != nil || have["a"] != 3 || have["b"] != 1 {
			t.Fatalf("%v, %v", have, err)
		}
	}
	if _, err := c.EnsureTopics(t.Context(), true, kafka.Topic{Name: "a", Partitions: 4}); !errors.Is(err, kafka.ErrPartitions) || !strings.Contains(err.Error(), "has 3, the configuration pins 4") {
		t.Errorf("too few: %v", err)
	}
	if have, err := c.EnsureTopics(t.Context(), false, kafka.Topic{Name: "a", Partitions: 2}); err != nil || have["a"] != 3 {
		t.Errorf("more: %v, %v", have, err)
	}
}

func TestProduceFetch(t *testing.T) {
	c := kafkatest.New(t)
	ensure(t, c, kafka.Topic{Name: "log", Partitions: 2, MaxRecordBytes: 300_000})
	ctx := t.Context()
	r := rand.New(rand.NewPCG(1, 2))
	var want []kafka.Record
	for i := range 40 {
		var batch []kafka.Record
		for range 1 + r.IntN(3) {
			v := make([]byte, r.IntN(90_000))
			for j := range v {
				v[j] = byte(r.Uint32())
			}
			batch = append(batch, kafka.Record{Key: fmt.Append(nil, "k", i), Value: v})
		}
		offset, err := c.Produce(ctx, "log", 1, batch...)
		if err != nil || offset != int64(len(want)) {
			t.Fatalf("offset %d of %d: %v", offset, len(want), err)
		}
		want = append(want, batch...)
	}
	// Whatever the bound, in the middle of a record or of a batch: every record once, in order.
	for _, most := range []int{1, 100_001, 250_000, 1 << 20, 64 << 20} {
		for start := int64(0); start < 4; start++ {
			next := start
			for next < int64(len(want)) {
				f, err := c.Fetch(ctx, "log", 1, next, most, time.Second)
				if err != nil {
					t.Fatal(err)
				}
				if len(f.Records) == 0 || f.HighWatermark != int64(len(want)) || f.LogStart != 0 {
					t.Fatalf("at most %d bytes from %d: %d records, high watermark %d", most, next, len(f.Records), f.HighWatermark)
				}
				for _, k := range f.Records {
					if w := want[next]; k.Offset != next || !bytes.Equal(k.Value, w.Value) || !bytes.Equal(k.Key, w.Key) {
						t.Fatalf("record %d of offset %d, %d bytes", next, k.Offset, len(k.Value))
					}
					next++
				}
				if f.Next != next {
					t.Fatalf("next is %d, not %d", f.Next, next)
				}
			}
		}
	}
	began := time.Now()
	f, err := c.Fetch(ctx, "log", 1, int64(len(want)), 1<<20, 300*time.Millisecond)
	if d := time.Since(began); err != nil || len(f.Records) != 0 || f.Next != int64(len(want)) || d < 250*time.Millisecond || d > 3*time.Second {
		t.Errorf("at the end: %v, %v after %v", f, err, d)
	}
	for _, offset := range []int64{-1, int64(len(want)) + 1} {
		if _, err := c.Fetch(ctx, "log", 1, offset, 1<<20, time.Second); !errors.Is(err, kafka.ErrOffsetOutOfRange) {
			t.Errorf("offset %d: %v", offset, err)
		}
	}
	if first, last, err := c.Offsets(ctx, "log", 1); err != nil || first != 0 || last != int64(len(want)) {
		t.Errorf("offsets %d, %d, %v", first, last, err)
	}
	if _, err := c.Produce(ctx, "log", 0, kafka.Record{Value: make([]byte, 400_000)}); !errors.Is(err, kafka.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if _, err := c.Produce(ctx, "nothing", 0, kafka.Record{Value: []byte("x")}); err == nil {
		t.Error("produced to a topic that is not there")
	}
}

// member runs a member of a group and tells its generations.
func member(t *testing.T, c *kafka.Client, generations chan<- *kafka.Generation, leave func(*kafka.Generation)) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	g := c.Group(kafka.GroupConfig{ID: "g", SessionTimeout: 6 * time.Second, RebalanceTimeout: 10 * time.Second, Failed: func(err error) { t.Log(err) }})
	go func() {
		defer close(done)
		err := g.Run(ctx, []string{"log"}, func(ctx context.Context, gen *kafka.Generation) {
			generations <- gen
			<-ctx.Done()
			if leave != nil {
				leave(gen)
			}
		})
		if err != nil {
			t.Error(err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return stop
}

func await(t *testing.T, generations <-chan *kafka.Generation, partitions int) *kafka.Generation {
	t.Helper()
	limit := time.After(40 * time.Second)
	for {
		select {
		case g := <-generations:
			if len(g.Assignments) == partitions {
				return g
			}
		case <-limit:
			t.Fatalf("no generation with %d partitions", partitions)
		}
	}
}

func TestGroup(t *testing.T) {
	c := kafkatest.New(t)
	ensure(t, c, kafka.Topic{Name: "log", Partitions: 4})
	ctx := t.Context()

	a := make(chan *kafka.Generation, 20)
	// What is committed while the partitions are being handed over counts.
	stopA := member(t, c, a, func(g *kafka.Generation) {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		for _, p := range g.Assignments {
			if err := g.Commit(late, "log", kafka.Commit{Partition: p.Partition, Offset: 100 + int64(p.Partition), Metadata: "late"}); err != nil {
				t.Errorf("late commit: %v", err)
			}
		}
	})
	first := await(t, a, 4)
	for i, p := range first.Assignments {
		if p.Topic != "log" || p.Partition != i || p.Offset != kafka.NoOffset || p.Metadata != "" {
			t.Errorf("assignment %+v", p)
		}
	}
	metadata := strings.Repeat("m", 4000)
	if err := first.Commit(ctx, "log", kafka.Commit{Partition: 0, Offset: 5, Metadata: metadata}, kafka.Commit{Partition: 3, Offset: 0}); err != nil {
		t.Fatal(err)
	}

	b := make(chan *kafka.Generation, 20)
	stopB := member(t, c, b, nil)
	gb, ga := await(t, b, 2), await(t, a, 2)
	if ga.ID < gb.ID {
		ga = await(t, a, 2)
	}
	for _, p := range append(ga.Assignments, gb.Assignments...) {
		if p.Offset != 100+int64(p.Partition) || p.Metadata != "late" {
			t.Errorf("handed over as %+v", p)
		}
	}
	if err := first.Commit(ctx, "log", kafka.Commit{Partition: 0, Offset: 1}); !errors.Is(err, kafka.ErrFenced) {
		t.Errorf("commit of a generation that is over: %v", err)
	}
	if err := gb.Commit(ctx, "log", kafka.Commit{Partition: gb.Assignments[0].Partition, Offset: 200, Metadata: metadata}); err != nil {
		t.Error(err)
	}

	began := time.Now()
	stopB()
	if d := time.Since(began); d > 4*time.Second {
		t.Errorf("leaving took %v", d)
	}
	if err := gb.Commit(ctx, "log", kafka.Commit{Partition: 0, Offset: 1}); !errors.Is(err, kafka.ErrFenced) {
		t.Errorf("commit of a member that has left: %v", err)
	}
	back := await(t, a, 4)
	if p := back.Assignments[gb.Assignments[0].Partition]; p.Offset != 200 || p.Metadata != metadata {
		t.Errorf("handed back as offset %d with %d bytes of metadata", p.Offset, len(p.Metadata))
	}
	stopA()
}

// Work that ends by itself is begun anew.
func TestGroupRejoins(t *testing.T) {
	c := kafkatest.New(t)
	ensure(t, c, kafka.Topic{Name: "log", Partitions: 1})
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	var generations []int32
	err := c.Group(kafka.GroupConfig{ID: "g"}).Run(ctx, []string{"log"}, func(_ context.Context, g *kafka.Generation) {
		if generations = append(generations, g.ID); len(generations) == 2 {
			cancel()
		}
	})
	if err != nil || len(generations) != 2 || generations[0] >= generations[1] {
		t.Errorf("generations %v, %v", generations, err)
	}
}
