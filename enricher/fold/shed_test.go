package fold

import (
	"testing"
	"time"

	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/session"
)

// Sessions whose hash was shed at some time of their life say so, and no others, wherever the batches that say it
// stand among those that bear the packets.
func TestSampled(t *testing.T) {
	probe := fold(t, nil, pk{from: "a", n: 1})
	key, _ := session.NewKey(session.DefaultTenant, 17, addrA, 40000, addrB, 443)
	hash := key.Hash()
	if r := probe.one(); r.Sampled != 1 {
		t.Fatalf("sampled %v without shedding", r.Sampled)
	}
	// One conversation of twenty seconds, from 10 s on; it ends, at the latest, at 90 s.
	var ps []pk
	for i := range 21 {
		ps = append(ps, pk{at: 10*s + time.Duration(i)*s, from: "a", n: 1})
	}
	type word struct {
		from, to  time.Duration
		threshold uint64
	}
	share := func(threshold uint64) float64 { return max(1, float64(threshold>>32)) / (1 << 32) }
	for _, c := range []struct {
		what  string
		words []word
		want  float64
	}{
		{"never", nil, 1},
		{"above", []word{{12 * s, 13 * s, hash + 1}}, 1},
		{"at it", []word{{12 * s, 13 * s, hash}}, share(hash)},
		{"below", []word{{12 * s, 13 * s, hash / 2}}, share(hash / 2)},
		{"all of it lost", []word{{12 * s, 13 * s, 1}}, share(1)},
		{"before it began", []word{{5 * s, 9 * s, 1}}, 1},
		{"while it began", []word{{9 * s, 11 * s, 1}}, share(1)},
		{"behind its last packet", []word{{60 * s, 70 * s, 1}}, share(1)},
		{"behind its end", []word{{95 * s, 99 * s, 1}}, 1},
		{"the worst counts", []word{{12 * s, 13 * s, hash / 2}, {14 * s, 15 * s, hash / 4}, {16 * s, 17 * s, hash / 3}}, share(hash / 4)},
		{"the worst was before", []word{{2 * s, 3 * s, hash / 8}, {12 * s, 13 * s, hash / 2}, {14 * s, 15 * s, hash + 1}}, share(hash / 2)},
	} {
		for _, two := range []bool{false, true} {
			b := newBench(t, nil)
			from := "x"
			if two {
				from = "y" // another collector than the one that saw the packets
			}
			b.send("x", 0)
			b.send("y", 0)
			at := time.Duration(0)
			next := ps
			step := func(to time.Duration, threshold uint64) {
				var seen []pk
				for len(next) > 0 && next[0].at < to {
					seen, next = append(seen, next[0]), next[1:]
				}
				if from == "x" && threshold != 0 {
					b.batch("x", to, 0, func(m *pb.PacketBatch) { m.Clock, m.ShedThreshold = 0, threshold }, seen...)
				} else {
					b.send("x", to, seen...)
				}
				if from == "y" {
					b.batch("y", to, 0, func(m *pb.PacketBatch) { m.Clock, m.ShedThreshold = 0, threshold })
				} else {
					b.send("y", to)
				}
				at = to
			}
			for _, w := range c.words {
				step(w.from, 0)
				step(w.to, w.threshold)
			}
			step(max(at, 31*s)+s, 0)
			step(3*time.Minute, 0)
			b.end()
			b.check()
			if r := b.one(); r.Sampled != c.want || r.SrcPackets != 21 {
				t.Errorf("%s, said by %s: sampled %v, want %v", c.what, from, r.Sampled, c.want)
			}
			if last := b.versions[len(b.versions)-1]; last.Sampled != c.want {
				t.Errorf("%s: put out with %v", c.what, last.Sampled)
			}
		}
	}
}

// Much shedding is bounded, and calls rather too many sessions incomplete than too few.
func TestShedsAreBounded(t *testing.T) {
	var s sheds
	for i := range int64(5000) {
		s.add(shed{i * 10, i*10 + 5, uint64(i+1) << 32})
	}
	for len(s.pending) > 0 {
		s.begin()
	}
	if len(s.seen) > maxSheds {
		t.Errorf("%d are kept", len(s.seen))
	}
	for i := range int64(5000) {
		if got := s.since(i * 10); got == 0 || got > uint64(i+1)<<32 {
			t.Fatalf("since %d: %x, want %x or less", i*10, got, uint64(i+1)<<32)
		}
	}
}
