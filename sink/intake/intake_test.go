package intake_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/sink/intake"
)

// memory is a log from an offset to another, whose calls fail now and then.
type memory struct {
	from, to int64
	calls    int
	failing  bool
}

func (m *memory) fail() error {
	if m.calls++; m.failing && m.calls%3 == 1 {
		return errors.New("no answer")
	}
	return nil
}

func (m *memory) Offsets(context.Context, string, int) (int64, int64, error) {
	return m.from, m.to, m.fail()
}

func (m *memory) Fetch(ctx context.Context, topic string, partition int, offset int64, maxBytes int, maxWait time.Duration) (kafka.Fetched, error) {
	f := kafka.Fetched{Next: offset, HighWatermark: m.to, LogStart: m.from}
	if err := m.fail(); err != nil {
		return f, err
	}
	if offset < m.from || offset > m.to {
		return f, fmt.Errorf("fetching from %d: %w", offset, kafka.ErrOffsetOutOfRange)
	}
	for range 3 {
		if f.Next < m.to {
			f.Records = append(f.Records, kafka.Record{Offset: f.Next})
			f.Next++
		}
	}
	return f, nil
}

func TestFollow(t *testing.T) {
	for _, c := range []struct {
		name        string
		log         memory
		committed   int64
		first, last int64
		lost        uint64
	}{
		{"from the beginning", memory{from: 5, to: 20}, kafka.NoOffset, 5, 19, 0},
		{"goes on", memory{from: 5, to: 20}, 12, 12, 19, 0},
		{"retention was faster", memory{from: 9, to: 20}, 4, 9, 19, 5},
		{"topic made anew", memory{from: 0, to: 10}, 400, 0, 9, 0},
		{"a broker that fails", memory{from: 9, to: 20, failing: true}, 4, 9, 19, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var got []int64
			var lost uint64
			p := &intake.Partition{
				Log: &c.log, Assignment: kafka.Assignment{Topic: "x", Offset: c.committed}, MaxBytes: 100,
				Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Lost: func(n uint64) { lost += n },
			}
			if err := p.Follow(ctx, func(f kafka.Fetched) error {
				for _, r := range f.Records {
					got = append(got, r.Offset)
				}
				if f.Next == c.log.to {
					cancel()
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			var want []int64
			for i := c.first; i <= c.last; i++ {
				want = append(want, i)
			}
			if !slices.Equal(got, want) || lost != c.lost {
				t.Errorf("%v, %d lost; want %v, %d", got, lost, want, c.lost)
			}
		})
	}
}

func TestFollowEnds(t *testing.T) {
	boom := errors.New("boom")
	p := &intake.Partition{Log: &memory{to: 10}, Assignment: kafka.Assignment{Topic: "x", Offset: kafka.NoOffset}, Logger: slog.New(slog.DiscardHandler)}
	if err := p.Follow(t.Context(), func(kafka.Fetched) error { return boom }); !errors.Is(err, boom) {
		t.Error(err)
	}
}
