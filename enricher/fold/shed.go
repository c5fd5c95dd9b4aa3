package fold

import (
	"math"
	"slices"
)

// sheds knows which sessions packets were shed of, and when.
//
// A collector that is short of memory sheds by session: those whose hash is at or above a threshold. Each batch
// bears the least threshold since the one before it. A session lost packets, or may have, if its hash is at or
// above the threshold of a time at which it was alive. Nobody knows how many. What is known is the share of all
// sessions that were kept whole at the worst of these times: its column sampled.
type sheds struct {
	// pending will begin when event time comes to it, the earliest first.
	pending []shed
	// seen has begun; the last to end comes last. Thresholds grow as well: what ends earlier and does not shed
	// more is of no account.
	seen []shed
}

// shed is that sessions at or above the threshold were shed from one time to another.
type shed struct {
	from, to  int64
	threshold uint64
}

// maxSheds bounds each list. What is too much is joined with its neighbour: rather too many sessions are called
// incomplete than too few.
const maxSheds = 1024

func (g shed) join(h shed) shed {
	return shed{min(g.from, h.from), max(g.to, h.to), min(g.threshold, h.threshold)}
}

// add takes in the threshold of a batch.
func (s *sheds) add(g shed) {
	if n := len(s.pending); n == maxSheds {
		g = g.join(s.pending[n-1])
		s.pending = s.pending[:n-1]
	}
	i := len(s.pending)
	for i > 0 && s.pending[i-1].from > g.from {
		i--
	}
	s.pending = slices.Insert(s.pending, i, g)
}

// due is when the first of those that are pending begins.
func (s *sheds) due() int64 {
	if len(s.pending) == 0 {
		return math.MaxInt64
	}
	return s.pending[0].from
}

// begin moves the first of those that are pending to those that were seen.
func (s *sheds) begin() {
	g := s.pending[0]
	s.pending = slices.Delete(s.pending, 0, 1)
	if slices.ContainsFunc(s.seen, func(e shed) bool { return e.to >= g.to && e.threshold <= g.threshold }) {
		return
	}
	s.seen = slices.DeleteFunc(s.seen, func(e shed) bool { return e.to <= g.to && e.threshold >= g.threshold })
	i := len(s.seen)
	for i > 0 && s.seen[i-1].to > g.to {
		i--
	}
	if s.seen = slices.Insert(s.seen, i, g); len(s.seen) > maxSheds {
		s.seen[1] = s.seen[0].join(s.seen[1])
		s.seen = slices.Delete(s.seen, 0, 1)
	}
}

// since is the least threshold from a time on, 0 without any.
func (s *sheds) since(t int64) uint64 {
	for i := range s.seen {
		if s.seen[i].to >= t {
			return s.seen[i].threshold
		}
	}
	return 0
}

// shed takes in the threshold of a batch of p, which held from p's word before it, at from, to its word in it.
func (f *Fold) shed(p *producer, from, to int64, threshold uint64) {
	from = max(from, f.watermark)
	if p.skewed {
		from, to = f.watermark, f.watermark
	}
	f.sheds.add(shed{from, max(from, to), threshold})
	f.counts[BatchesShed]++
}

// whole is the share of sessions, in units of 1<<-32, that were kept whole at the worst time of the session's
// life, 0 if it was among them at all times.
func (s *Session) whole() uint32 {
	if s.final {
		return s.sampled
	}
	if t := s.fold.sheds.since(s.start); t != 0 && s.hash >= t {
		return max(1, uint32(t>>32))
	}
	return 0
}

// share is the value of the column sampled.
func (s *Session) share() float64 {
	if n := s.whole(); n != 0 {
		return float64(n) / (1 << 32)
	}
	return 1
}
