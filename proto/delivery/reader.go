package delivery

import (
	"maps"
	"slices"
)

// Verdict is what a reader of tapweave.sessions does with a record.
type Verdict uint8

const (
	// Keep: it counts.
	Keep Verdict = iota + 1
	// Gap: it counts, and something that must stand before it was not seen: outputs with lower numbers, or the
	// marker of its epoch. Either the reader began in the middle of the log, or retention was faster than the
	// reader, or the broker lost acknowledged records. An alert; see Reader.Missing.
	Gap
	// Repeat: it was seen before; a retried produce call, or a new owner that came to the same output.
	Repeat
	// Stale: an owner wrote it that had been superseded already.
	Stale
)

// Verdicts is one more than the greatest verdict.
const Verdicts = int(Stale) + 1

// Kept says whether the record counts.
func (v Verdict) Kept() bool { return v == Keep || v == Gap }

func (v Verdict) String() string {
	return [Verdicts]string{"none", "keep", "gap", "repeat", "stale"}[v]
}

// Reader applies the rule of whoever reads a partition of tapweave.sessions: for each input partition the
// largest epoch seen counts, and in it each number once.
type Reader struct {
	at map[uint32]Position
	// Counts is how many records had each verdict.
	Counts [Verdicts]uint64
	// Missing is how many outputs were never seen, over all gaps.
	Missing uint64
}

// NewReader returns a reader that stands at the given positions; none: at the beginning of the log.
func NewReader(at []At) *Reader {
	r := &Reader{at: make(map[uint32]Position, len(at))}
	for _, a := range at {
		r.at[a.Partition] = a.Position
	}
	return r
}

// Positions returns where the reader stands in each input partition that it has met, in their order.
func (r *Reader) Positions() []At {
	at := make([]At, 0, len(r.at))
	for _, p := range slices.Sorted(maps.Keys(r.at)) {
		at = append(at, At{p, r.at[p]})
	}
	return at
}

// Position returns where the reader stands in an input partition.
func (r *Reader) Position(partition uint32) (p Position, known bool) {
	p, known = r.at[partition]
	return p, known
}

// Read takes the records of the partition in the order of the log.
func (r *Reader) Read(e Entry) Verdict {
	v := r.read(e)
	r.Counts[v]++
	return v
}

func (r *Reader) read(e Entry) Verdict {
	at, known := r.at[e.Partition]
	order := e.Epoch.Compare(at.Epoch)
	switch {
	case known && order < 0:
		return Stale
	case e.Marker:
		if known && order == 0 {
			return Repeat
		}
		next := Position{Epoch: e.Epoch}
		if known && e.Continues && e.Log == at.Log {
			next.Number = at.Number
		}
		r.at[e.Partition] = next
		return Keep
	case known && order == 0 && e.Number <= at.Number:
		return Repeat
	}
	r.at[e.Partition] = e.Position
	if known && order == 0 && e.Number == at.Number+1 {
		return Keep
	}
	before := uint64(0)
	if known && e.Log == at.Log {
		before = at.Number
	}
	if e.Number > before {
		r.Missing += e.Number - before - 1
	}
	return Gap
}
