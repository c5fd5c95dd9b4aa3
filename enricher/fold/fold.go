// Package fold weaves packets into sessions: it is the deterministic fold over one partition's log.
//
//	(state, outputs) = fold(state, record)
//
// A [Fold] takes the records of one partition of tapweave.packets, in order, and calls an [Output]. Nothing in
// it looks at a clock, draws a random number, starts a goroutine or depends on the order of a map, so the same
// records always give the same outputs. The way of a packet through it, file by file:
//
//	fold.go      records in: producers, watermark, ticks
//	merge.go     packets of all producers in the order of their capture times
//	order.go     packets of equal time in a causal order
//	copies.go    second copies from another tap point dropped
//	fragments.go datagrams put together
//	table.go     the session of a packet: keys, borders, timers
//	tcp.go       sequence numbers, state, closes
//	session.go   what a session knows, and its row
//	application.go  sampled payload read: package application
//	booking.go   traffic by minute
//	labels.go    what is known of a session's ends
//	alerts.go    what is worth a look
package fold

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
)

// Output takes what the fold puts out, in order. What is pointed to is only valid during the call.
type Output interface {
	// Session is a new version of a session.
	Session(s *Session)
	// Settled says that from event time at (nanoseconds since the Unix epoch) no packet can belong to s any
	// more; math.MaxInt64 at the end of input. The version put out last stands.
	Settled(at int64, s *Session)
	// Traffic is a booking of a session: sums to be added to those of the same minute and dimensions.
	Traffic(s *Session, t *columns.Traffic)
	// Packet is one packet of a session, where Settings.Packets is set.
	Packet(p *columns.Packet)
	// Alert is something worth a look.
	Alert(a *columns.Alert)
}

// Reason names what the fold counts beside sessions: what it left out, and what it noticed.
type Reason uint8

const (
	Undecodable         Reason = iota // records that are not what they should be
	OtherPartitions                   // batches made for another number of partitions
	RepeatedBatch                     // batches written twice by a retry
	TooLate                           // packets behind the watermark by more than the limit
	Late                              // packets behind the watermark that were folded
	ProducersRetired                  // producers that fell silent without a goodbye
	StaleControl                      // control records of an earlier owner
	SecondCopies                      // packets that another tap point had seen
	FragmentsUnowned                  // fragments of datagrams whose first one is missing
	FragmentsEvicted                  // datagrams given up because too many were open
	DatagramsBroken                   // whole datagrams whose transport header is wrong
	SessionsEvicted                   // sessions closed because there were too many
	Packets                           // packets folded, second copies not counted
	SessionsBegun                     // sessions created
	QuotesUnmatched                   // ICMP errors about a session that is not known
	WatermarkForced                   // times the watermark went on because too much waited
	SkewedBatches                     // batches of producers whose clock is off
	WatermarkAhead                    // batches that promised more than their own clock
	InFuture                          // packets captured later than their batch was sent: given the latest time that its clock allows
	Inconsistent                      // packets whose lengths contradict each other
	OtherPartition                    // packets between addresses of another partition
	BatchesShed                       // batches whose collector had shed packets since the one before
	ApplicationsGivenUp               // sessions whose payload was read no further because too much was kept
	LabelSetsLost                     // label sets that are not where the log says
	AlertsRaised                      // alerts put out
	numReasons
)

var reasonNames = [numReasons]string{
	"undecodable_records", "batches_for_other_partitions", "repeated_batches", "packets_too_late", "packets_late",
	"producers_retired", "stale_control_records", "second_copies", "fragments_without_first", "datagrams_evicted",
	"datagrams_malformed", "sessions_evicted", "packets_folded", "sessions_begun", "icmp_quotes_unmatched",
	"watermark_forced", "skewed_batches", "watermarks_ahead_of_clock", "packets_in_future", "packets_inconsistent",
	"packets_of_other_partitions", "batches_after_shedding", "applications_given_up",
	"label_sets_lost", "alerts_raised",
}

// String is the reason as it stands in metrics and in pipeline_stats.
func (r Reason) String() string { return reasonNames[r] }

// Fold is the state of one partition. It is not safe for concurrent use.
type Fold struct {
	set       Settings
	partition int
	out       Output
	counts    [numReasons]uint64

	producers map[producerKey]*producer
	spoken    []*producer // the same, in order of appearance
	names     []string    // collectors, in order of appearance
	nameIndex map[string]uint32
	watermark int64
	behind    int64 // least last word of those that may still send what is older than the watermark
	started   bool  // a producer has spoken

	logTime    int64  // ns, from ticks
	log, owner uint64 // epoch of the newest owner
	ownerClock int64
	ticked     bool

	ownerOffset   int64 // the owner's clock less log time
	heardOwner    bool
	words         uint64 // of producers
	skewed        []Skewed
	disputed      bool      // the only producer's clock is ahead of the owner's
	disputedSince int64     // log time
	clocks        []int64   // scratch
	fresh         []stretch // scratch

	merge        merger
	copies       copies
	fragments    fragments
	sheds        sheds
	payload      payloadLog
	applications int // bytes that the sessions hold of what was recognised
	table        table
	timers       timers
	taps         taps
	labelling    labelling
	scans        watched[scanPair, scan]
	prints       watched[printServer, prints]
	offset       int64  // of the record being folded
	serial       uint64 // of the reference made last
	now          int64  // event time: no timer due before it is left
}

type producerKey struct {
	name        string
	incarnation uint64
}

type producer struct {
	key       producerKey
	name      uint32
	sequence  uint64
	watermark int64
	spoke     int64 // log time
	live      bool
	retired   bool // silent for too long, and not replaced: it may come back with what it has
	clocked   bool // its last record bore a clock
	skewed    bool // that is off
	suspect   bool // that was off when it was last compared
	judged    bool // that was compared at some time
	word      uint64
	offset    int64 // that clock less log time
	ahead     int64 // of the median
}

// New returns the fold of a partition that has not seen anything yet.
func New(partition int, set Settings, out Output) *Fold {
	f := &Fold{
		set: set, partition: partition, out: out,
		producers: map[producerKey]*producer{}, nameIndex: map[string]uint32{},
		watermark: math.MinInt64, now: math.MinInt64,
	}
	f.copies.init()
	f.fragments.init()
	f.table.init()
	f.taps.init()
	return f
}

// Counts returns the count of each reason so far.
func (f *Fold) Counts() [numReasons]uint64 { return f.counts }

// Reasons is the number of reasons: they are 0 to Reasons-1.
const Reasons = int(numReasons)

// Watermark is the event time before which everything has been folded, math.MinInt64 before the first record.
func (f *Fold) Watermark() int64 { return f.watermark }

// LogTime is the time that the ticks have let pass, in nanoseconds.
func (f *Fold) LogTime() int64 { return f.logTime }

// Open is the number of sessions that are kept.
func (f *Fold) Open() int { return f.table.count }

// Buffered is the number of bytes of batches that wait for the watermark.
func (f *Fold) Buffered() int { return f.merge.waiting }

// ErrUndecodable is wrapped by the errors of Record.
var ErrUndecodable = errors.New("record does not decode")

// BatchError says that the packets of a batch do not decode. They are looked at when the watermark comes to
// them: the batch may have been taken in many records ago.
type BatchError struct {
	Offset int64
	Err    error
}

func (e *BatchError) Error() string   { return fmt.Sprintf("batch at offset %d: %v", e.Offset, e.Err) }
func (e *BatchError) Unwrap() []error { return []error{ErrUndecodable, e.Err} }

// broken returns what went wrong in batches since it was last asked.
func (f *Fold) broken() error {
	err := errors.Join(f.merge.broken...)
	f.merge.broken = f.merge.broken[:0]
	return err
}

// Record folds one record of the partition. offset is its position in the log. value is kept until the watermark
// has passed its packets, and must not be changed. A record that does not decode
// is counted and left out, and reported by an error that wraps ErrUndecodable; so are batches of earlier
// records, see BatchError. All else is folded all the same.
func (f *Fold) Record(offset int64, value []byte) error {
	f.offset = offset
	r, err := record.UnmarshalPackets(value)
	if err != nil {
		return f.undecodable(err)
	}
	switch b := r.Body.(type) {
	case *pb.PacketsRecord_Batch:
		return f.batch(b.Batch)
	case *pb.PacketsRecord_Tick:
		if f.owned(b.Tick.LogEpoch, b.Tick.OwnerEpoch) {
			f.tick(b.Tick)
		}
		return f.broken()
	case *pb.PacketsRecord_LabelSet:
		if f.owned(b.LabelSet.LogEpoch, b.LabelSet.OwnerEpoch) {
			return f.relabel(b.LabelSet)
		}
	case *pb.PacketsRecord_EndOfInput:
		if f.owned(b.EndOfInput.LogEpoch, b.EndOfInput.OwnerEpoch) {
			f.end()
		}
		return f.broken()
	default:
		return f.undecodable(errors.New("record without a body"))
	}
	return nil
}

func (f *Fold) undecodable(err error) error {
	f.counts[Undecodable]++
	return fmt.Errorf("%w: %w", ErrUndecodable, err)
}

// owned says whether a control record is of the newest owner seen. The zero epoch belongs to no owner.
func (f *Fold) owned(log, owner uint64) bool {
	if owner == 0 {
		return true
	}
	switch cmp.Or(cmp.Compare(log, f.log), cmp.Compare(owner, f.owner)) {
	case -1:
		f.counts[StaleControl]++
		return false
	case 1:
		f.log, f.owner, f.ticked = log, owner, false
	}
	return true
}

func (f *Fold) batch(b *pb.PacketBatch) error {
	if int(b.Partitions) != f.set.Partitions {
		f.counts[OtherPartitions]++
		return nil
	}
	if b.Clock < 0 || max(b.Clock, b.Watermark, b.Oldest) > latestTime {
		return f.undecodable(errors.New("batch with an impossible time"))
	}
	p := f.producer(b)
	if p == nil {
		return f.undecodable(errors.New("batch of a producer without a name, or of one too many"))
	}
	if b.Sequence <= p.sequence {
		f.counts[RepeatedBatch]++
		return nil
	}
	p.sequence, p.spoke, p.live = b.Sequence, f.logTime, b.Kind != pb.PacketBatch_GOODBYE
	p.retired = false
	f.hear(p, b.Clock)
	f.started = true
	latest, promised := int64(latestTime), b.Watermark
	if b.Clock != 0 {
		latest = b.Clock + int64(f.set.MaxClockSkew)
		if promised > latest {
			promised = b.Clock
			f.counts[WatermarkAhead]++
		}
	}
	if b.ShedThreshold != 0 {
		f.shed(p, p.watermark, promised, b.ShedThreshold)
	}
	if p.skewed {
		f.noteSkewed(p)
	} else {
		p.watermark = max(p.watermark, promised)
	}
	if len(b.Columns) > 0 {
		f.merge.add(f, b, p, latest)
	}
	f.advance()
	if f.merge.waiting > f.set.MaxWaiting {
		const step = int64(10e6)
		f.counts[WatermarkForced]++
		for f.merge.waiting > f.set.MaxWaiting {
			f.advanceTo(f.merge.heap[0].time + step)
		}
	}
	return f.broken()
}

// A name of a collector has at most maxName bytes; maxNames are known at most.
const (
	maxName  = 255
	maxNames = 1 << 14
)

// producer returns the producer that wrote b, nil where its name cannot be. A new incarnation takes the place of earlier ones, which are
// remembered so that a batch of theirs that is written again is known.
func (f *Fold) producer(b *pb.PacketBatch) *producer {
	k := producerKey{b.Producer, b.Incarnation}
	if p := f.producers[k]; p != nil {
		return p
	}
	name, ok := f.nameIndex[b.Producer]
	if !ok {
		if len(b.Producer) < 1 || len(b.Producer) > maxName || len(f.names) == maxNames {
			return nil
		}
		name = uint32(len(f.names))
		f.names = append(f.names, b.Producer)
		f.nameIndex[b.Producer] = name
	}
	for _, p := range f.spoken {
		if p.name == name && p.key.incarnation < b.Incarnation {
			p.live, p.retired = false, false
		}
	}
	p := &producer{key: k, name: name, watermark: math.MinInt64}
	f.producers[k] = p
	f.spoken = append(f.spoken, p)
	return p
}

// tick lets log time go on, retires producers that fell silent, and moves the watermark where no producer is
// left to move it.
func (f *Fold) tick(t *pb.Tick) {
	if t.Clock < 0 || t.Clock > latestTime {
		f.undecodable(errors.New("tick with an impossible time"))
		return
	}
	const most = int64(2e9)
	d := int64(0)
	if f.ticked {
		d = min(max(t.Clock-f.ownerClock, 0), most)
	}
	f.ticked, f.ownerClock = true, t.Clock
	f.logTime += d
	f.hearOwner(t.Clock)
	live := false
	for _, p := range f.spoken {
		if p.live && f.logTime-p.spoke >= int64(f.set.Retire) {
			p.live, p.retired = false, true
			f.counts[ProducersRetired]++
		}
	}
	for _, p := range f.spoken {
		live = live || p.live && !p.skewed
	}
	f.spoken = slices.DeleteFunc(f.spoken, func(p *producer) bool {
		gone := !p.live && f.logTime-p.spoke >= int64(f.set.Retire+f.set.LateLimit)
		if gone {
			delete(f.producers, p.key)
		}
		return gone
	})
	if !live && f.started {
		f.look()
		f.advanceTo(f.watermark + d)
		return
	}
	f.advance()
}

// look finds out who is behind. What a producer whose clock is off sends is folded on arrival, and is of that time.
func (f *Fold) look() {
	f.behind = math.MaxInt64
	for _, p := range f.spoken {
		if (p.live || p.retired) && !p.skewed {
			f.behind = min(f.behind, p.watermark)
		}
	}
}

// advance moves the watermark to the least of the live producers' last words, if that is forward.
func (f *Fold) advance() {
	f.look()
	w, live := int64(math.MaxInt64), false
	for _, p := range f.spoken {
		if p.live && !p.skewed {
			w, live = min(w, p.watermark), true
		}
	}
	if !live {
		// The last producer said goodbye: what it promised holds.
		w = f.watermark
		for _, p := range f.spoken {
			if !p.skewed {
				w = max(w, p.watermark)
			}
		}
	}
	f.advanceTo(f.believed(w))
}

func (f *Fold) advanceTo(w int64) {
	if w <= f.watermark {
		return
	}
	f.watermark = w
	f.merge.run(f, w)
	f.elapse(w)
}

// elapse lets event time go on to t: what was due before it is done.
func (f *Fold) elapse(t int64) {
	if t <= f.now {
		return
	}
	for f.timers.due() < t || f.fragments.due < t || f.sheds.due() < t {
		// Whatever the steps in which event time goes on, things are done in the order of their times.
		if due := f.sheds.due(); due <= f.timers.due() && due <= f.fragments.due {
			f.now = max(f.now, due)
			f.sheds.begin()
		} else if f.fragments.due <= f.timers.due() {
			f.now = max(f.now, f.fragments.due)
			f.giveUp(f.fragments.head)
		} else {
			f.now = max(f.now, f.timers.due())
			f.fire(f.timers.heap[0].s)
		}
	}
	f.now = t
	f.copies.forget(f.oldestCopy(t))
}

// oldestCopy is the time of the oldest packet of which a copy may still come at event time t. A producer that was
// retired, or that has come back since, has what was captured since its last word.
func (f *Fold) oldestCopy(t int64) int64 {
	if f.behind < t && f.copies.tail-f.copies.head < maxSightings {
		t = min(t, max(f.behind, f.watermark-int64(f.set.LateLimit)))
	}
	return t - int64(f.set.CopyDelay)
}

// end folds what waits, and closes every session.
func (f *Fold) end() {
	f.merge.run(f, math.MaxInt64)
	for len(f.sheds.pending) > 0 {
		f.sheds.begin()
	}
	f.watermark = max(f.watermark, f.now)
	for f.fragments.head != nil {
		f.giveUp(f.fragments.head)
	}
	for f.table.first != nil {
		f.close(f.table.first, closeEnd)
		f.settle(f.table.first, math.MaxInt64)
	}
}
