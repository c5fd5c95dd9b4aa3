package fold

import (
	"math"
	"slices"
)

// A producer's records bear its clock at the produce call. How far it is off is told by comparison with the
// clocks of the other live producers and of the partition's owner, each as it was last heard and carried on by
// log time. The watermark that a record bears says nothing of that: a producer with a backlog lags, and is right.

// latestTime is the latest time that a record may bear: in the year 2116.
const latestTime = 1 << 62

// Skewed is a producer whose clock differs from the others' by more than MaxClockSkew.
type Skewed struct {
	Collector string
	Batches   uint64 // that came while it did
	Ahead     int64  // of the others when it was last heard, nanoseconds; negative: behind
}

// Skewed returns the producers that were skewed at some time, in the order in which they first were.
func (f *Fold) Skewed() []Skewed { return f.skewed }

// maxSkewed bounds the list.
const maxSkewed = 256

// hear takes in the clock of a record, 0 if it bears none, and says whether the producer is skewed: whether it is
// further than MaxClockSkew from the median of its own clock, of those that were heard since its last word, and
// of the owner's. Two voices cannot tell who is right.
//
// What was heard before its last word may be old: when the log could not be written for a while, whoever comes
// back first, or is new then, is ahead of all others. So a producer is skewed from the second word on that says so;
// between the two the others have spoken again, and packets of the future wait. Only one that is behind from its first
// word on is skewed at once: that is no outage's doing, and its packets would be too late.
func (f *Fold) hear(p *producer, clock int64) {
	f.words++
	since := p.word
	p.word, p.clocked, p.offset = f.words, clock != 0, clock-f.logTime
	f.dispute()
	if !p.clocked {
		p.skewed = false
		return
	}
	all := append(f.clocks[:0], p.offset)
	for _, o := range f.spoken {
		if o.live && o.clocked && o != p && o.word > since {
			all = append(all, o.offset)
		}
	}
	if f.heardOwner {
		all = append(all, f.ownerOffset)
	}
	f.clocks = all
	if len(all) < 3 {
		return
	}
	ahead := p.offset - f.median(all)
	off := max(ahead, -ahead) > int64(f.set.MaxClockSkew)
	newly := off && !p.skewed && (p.suspect || !p.judged && ahead < 0)
	p.skewed = off && (p.skewed || newly)
	p.suspect, p.judged, p.ahead = off, true, ahead
	if newly {
		p.watermark = math.MinInt64 // it is worth nothing, also when its clock is right again
		f.merge.distrust(f, p.name)
	}
}

// median returns the median; of two middle ones that nearer to the owner's.
func (f *Fold) median(offsets []int64) int64 {
	slices.Sort(offsets)
	a, b := offsets[(len(offsets)-1)/2], offsets[len(offsets)/2]
	if f.heardOwner && abs(b-f.ownerOffset) < abs(a-f.ownerOffset) {
		return b
	}
	return a
}

// hearOwner takes in the clock of a tick.
func (f *Fold) hearOwner(clock int64) {
	f.ownerOffset, f.heardOwner = clock-f.logTime, true
	f.dispute()
}

// dispute notes since when the only producer's clock has been ahead of the owner's.
func (f *Fold) dispute() {
	voices, ahead := 0, false
	for _, p := range f.spoken {
		if p.live && p.clocked {
			voices++
			ahead = p.offset-f.ownerOffset > int64(f.set.MaxClockSkew)
		}
	}
	switch {
	case voices != 1 || !ahead || !f.heardOwner:
		f.disputed = false
	case !f.disputed:
		f.disputed, f.disputedSince = true, f.logTime
	}
}

// noteSkewed counts a batch of a skewed producer by name.
func (f *Fold) noteSkewed(p *producer) {
	f.counts[SkewedBatches]++
	name := f.names[p.name]
	i := slices.IndexFunc(f.skewed, func(s Skewed) bool { return s.Collector == name })
	if i < 0 {
		if i = len(f.skewed); i == maxSkewed {
			return
		}
		f.skewed = append(f.skewed, Skewed{Collector: name})
	}
	f.skewed[i].Batches++
	f.skewed[i].Ahead = p.ahead
}

// believed is how far the watermark may go. While the only producer's clock is ahead of the owner's, others
// that agree with the owner may be about to join: until they could have, the owner's clock is as far as it goes.
func (f *Fold) believed(w int64) int64 {
	if f.disputed && f.logTime-f.disputedSince < int64(f.set.Retire) {
		return min(w, f.ownerOffset+f.logTime)
	}
	return w
}
