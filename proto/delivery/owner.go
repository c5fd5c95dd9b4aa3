package delivery

import (
	"errors"
	"fmt"

	"github.com/tapweave/tapweave/proto/record"
)

// Step is what the owner of an input partition has to do next.
type Step uint8

const (
	// StepSurvey: read the output partition from its start to its end as of now; each record to
	// [Owner.Survey], then call [Owner.Surveyed]. Only where no usable metadata was committed.
	StepSurvey Step = iota + 1
	// StepClaim: commit [Owner.Claim] with the generation checked; tell [Owner.Claimed]. Where the outcome is
	// unknown, it stays the step: a late commit of an enricher does no harm.
	StepClaim
	// StepMark: append [Owner.Marker] to the output partition, and once it is acknowledged call [Owner.Marked].
	StepMark
	// StepLoad: load the state [Owner.State]; tell [Owner.Loaded].
	StepLoad
	// StepLearn: read the output partition from Owner.State().Output on; each record to [Owner.Learn], until
	// the step changes.
	StepLearn
	// StepRun: fold from [Owner.Input] on with [Owner.Numbers], and now and then commit [Owner.CommitSnapshot] and tell [Owner.Committed].
	StepRun
	// StepLeave: the partition belongs to another. Drop everything, commit nothing, join again.
	StepLeave
)

func (s Step) String() string {
	return [...]string{"none", "survey", "claim", "mark", "load", "learn", "run", "leave"}[s]
}

// Commit is an offset with the metadata beside it.
type Commit struct {
	Offset   int64
	Metadata string
}

// Assignment is what is known as an input partition is assigned.
type Assignment struct {
	Partition  uint32
	Generation uint64 // of the group
	// Committed is the newest commit, fetched in this generation; Offset -1: none.
	Committed Commit
	// Memory is the state left from an assignment before; nil: none. At and Output are where the
	// outputs were when the newest commit that was accepted was sent, or the marker, if that is later: an output
	// acknowledged since may stand behind another owner's marker, because the broker does not fence produce
	// calls. Outputs that are not in the log yet wait in the process. A state that still folds silently is none.
	Memory *Snapshot
}

// Owner is the procedure by which an enricher takes an input partition over. Its steps are done one at a time;
// a crash at any of them needs nothing but another Owner.
//
//	survey ──▶ claim ──▶ mark ──▶ load ──▶ learn ──▶ run
//	(no usable metadata)
//
// Claim before mark: the metadata never bears an older epoch than a marker. So epochs never repeat, even where
// the broker counts generations anew, and whoever is not the owner any more finds out before it writes.
type Owner struct {
	a         Assignment
	step      Step
	newest    Epoch // seen anywhere
	epoch     Epoch // own
	base      uint64
	begin     int64      // where to begin without a state; -1: at the start of the input
	snapshots []Snapshot // newest first
	memory    bool       // the state is that in memory
	reader    *Reader
	learned   Position
	input     int64 // of the output learned
	lost      error
	unsure    bool // a commit may come late
}

// NewOwner begins the procedure. An error means that this program must not own the partition: it leaves the
// group.
func NewOwner(a Assignment) (*Owner, error) {
	o := &Owner{a: a, begin: -1, step: StepSurvey}
	if a.Committed.Offset < 0 {
		return o, nil
	}
	m, err := DecodeEnricher(a.Committed.Metadata)
	var version *record.VersionError
	switch {
	case errors.As(err, &version):
		return nil, err
	case errors.Is(err, ErrNoMetadata):
		// Somebody who set the offset by hand wants the fold to begin there.
		o.lost, o.begin = err, a.Committed.Offset
		return o, nil
	case err != nil:
		o.lost = err
		return o, nil
	}
	o.newest, o.begin = m.Epoch, a.Committed.Offset
	if len(m.Snapshots) == 0 {
		// The offset is where a program that kept no state would have begun, which is right for once.
		return o, nil
	}
	o.base, o.snapshots = m.Base, m.Snapshots
	o.claim(m.Epoch.Log)
	return o, nil
}

// Step returns what is to be done.
func (o *Owner) Step() Step { return o.step }

// Lost says why the outputs begin anew although something had been committed; nil: they do not. It is told as
// degraded: what the older outputs count is counted again.
func (o *Owner) Lost() error { return o.lost }

// Epoch is the owner's own, which its records bear on both topics.
func (o *Owner) Epoch() Epoch { return o.epoch }

// see keeps newest above e. Owner epochs grow over log epochs too: the control records on tapweave.packets bear
// nothing else.
func (o *Owner) see(e Epoch) {
	o.newest = Epoch{max(e.Log, o.newest.Log), max(e.Owner, o.newest.Owner)}
}

// claim chooses an epoch above whatever was seen.
func (o *Owner) claim(log uint64) {
	if o.base+o.a.Generation <= o.newest.Owner {
		o.base = o.newest.Owner
	}
	o.epoch = Epoch{log, o.base + o.a.Generation}
	o.newest = o.epoch
	o.step = StepClaim
}

// Survey takes a record of the output partition.
func (o *Owner) Survey(e Entry) {
	if e.Partition == o.a.Partition {
		o.see(e.Epoch)
	}
}

// Surveyed ends the survey. output is the offset behind the last record of the output partition, input that of
// the first one on the input partition.
func (o *Owner) Surveyed(output, input int64) {
	if o.begin >= 0 {
		input = o.begin
	}
	o.begin = input
	if o.newest != (Epoch{}) && o.lost == nil && o.a.Committed.Offset < 0 {
		o.lost = fmt.Errorf("no committed offset, but outputs of epoch %v", o.newest)
	}
	o.claim(o.newest.Log + 1)
	o.snapshots = []Snapshot{{State: Nothing, Input: input, Output: output, At: Position{Epoch: Epoch{Log: o.epoch.Log}}}}
}

// Claim returns what is committed before the owner writes anything: where its predecessor was, and its epoch.
func (o *Owner) Claim() Commit {
	m, err := Enricher{Epoch: o.epoch, Base: o.base, Snapshots: o.snapshots}.Encode()
	if err != nil {
		panic(err) // by construction: at most two snapshots, of this log epoch
	}
	return Commit{o.begin, m}
}

// Claimed tells how the claim came out.
func (o *Owner) Claimed(c Outcome) {
	if o.Committed(c); c == Done {
		o.step = StepMark
	}
}

// Committed tells how a commit came out.
func (o *Owner) Committed(c Outcome) {
	switch c {
	case Refused:
		o.step = StepLeave
	case Unknown:
		o.unsure = true
	}
}

// MaySwitch says whether other settings may take effect in this generation. A late commit puts an older snapshot
// into the metadata again; that does no harm only while all of them were folded with the same settings. So a
// commit of this generation whose outcome is unknown forbids it.
//
// To switch: with every output acknowledged, write the state twice with the new settings, commit both copies as
// the newest two snapshots, and only then fold on. A state in the midst of that is no memory for another assignment.
func (o *Owner) MaySwitch() bool { return !o.unsure }

// Marker is the marker to be written.
func (o *Owner) Marker() Entry {
	return Entry{Partition: o.a.Partition, Position: Position{Epoch: o.epoch}, Marker: true, Continues: true}
}

// Marked says that the marker is in the log.
func (o *Owner) Marked() {
	o.memory = o.a.Memory != nil && o.a.Memory.At.Log == o.epoch.Log
	o.load()
}

func (o *Owner) load() {
	if !o.memory && len(o.snapshots) == 0 {
		o.lost = errors.New("no snapshot can be read")
		o.begin = -1
		o.step = StepSurvey
		return
	}
	o.step = StepLoad
}

// State is the state to be loaded, or that was loaded.
func (o *Owner) State() Snapshot {
	if o.memory {
		return *o.a.Memory
	}
	return o.snapshots[0]
}

// Loaded tells whether the state could be read. If not, the one before it is next; after the last, a survey and
// a new log epoch.
func (o *Owner) Loaded(ok bool) {
	if !ok {
		if !o.memory {
			o.snapshots = o.snapshots[1:]
		}
		o.memory = false
		o.load()
		return
	}
	s := o.State()
	o.reader = NewReader([]At{{o.a.Partition, s.At}})
	o.learned, o.input = s.At, s.Input
	o.step = StepLearn
}

// Learn takes a record of the output partition, in order, those of other input partitions too. It says whether the
// record is an output that counts, and that the state does not include.
func (o *Owner) Learn(e Entry) (counts bool) {
	if e.Partition != o.a.Partition || o.step != StepLearn {
		return false
	}
	switch e.Epoch.Compare(o.epoch) {
	case 1:
		// The claim was accepted, and yet another is newer: its claim came later, or the metadata lost it.
		// Claim above it; whoever is not the owner is refused.
		o.see(e.Epoch)
		if e.Log > o.epoch.Log {
			o.lost = fmt.Errorf("metadata of log epoch %d, outputs of %d", o.epoch.Log, e.Log)
			o.begin = -1
			o.step = StepSurvey
			return false
		}
		o.claim(o.epoch.Log)
	case 0:
		o.learned.Epoch = o.epoch
		o.step = StepRun
	default:
		v := o.reader.Read(e)
		switch {
		case !v.Kept():
		case o.memory && e.Epoch != o.a.Memory.At.Epoch:
			// Another owned it since. Its settings may differ from those of the state in memory, and even if it
			// put nothing out, its snapshots are what a successor begins with.
			o.memory = false
			o.load()
		case !e.Marker:
			o.learned, o.input = e.Position, e.Input
			return true
		}
	}
	return false
}

// Renew says that the log which the state belongs to is not there any more: the outputs begin anew. It is called
// while the state is loaded or its numbers are learned.
func (o *Owner) Renew(reason error) {
	o.lost, o.begin, o.memory = reason, -1, false
	o.step = StepSurvey
}

// Input is the offset from which to fold.
func (o *Owner) Input() int64 { return o.State().Input }

// Numbers returns the counter of the outputs; last is the number of the last output that the state includes:
// 0 for none, State().At.Number for a snapshot, and for the state in memory what its own counter says.
func (o *Owner) Numbers(last uint64) *Numbers {
	return &Numbers{epoch: o.epoch, last: last, silent: o.learned.Number, input: o.input}
}

// CommitSnapshot returns what is committed once s is on tapweave.state. ok is false unless the outputs that it
// includes are acknowledged, and those that were in the log before the owner are folded.
func (o *Owner) CommitSnapshot(s Snapshot, acknowledged uint64) (c Commit, ok bool) {
	if acknowledged < s.At.Number || s.At.Number < o.learned.Number || s.State < 0 {
		return Commit{}, false
	}
	s.At.Epoch = o.epoch
	if o.snapshots[0].State != s.State { // not the same one again
		o.snapshots = append([]Snapshot{s}, o.snapshots[:1]...)
	}
	o.begin = s.Input
	return o.Claim(), true
}

// ErrDiverged says that the fold does not come to the outputs that are in the log: its state, its settings or
// its version are not those that made them.
var ErrDiverged = errors.New("the fold differs from the outputs in the log")

// Numbers counts the outputs of one owner. Those that are in the log already are folded silently.
type Numbers struct {
	epoch  Epoch
	last   uint64
	silent uint64 // the last in the log
	input  int64  // at which it was put out
}

// Last is the number of the last output.
func (n *Numbers) Last() uint64 { return n.last }

// Silent is the last number in the log when the owner began. Outputs up to it that wait in memory are dropped.
func (n *Numbers) Silent() uint64 { return n.silent }

// Next numbers an output, put out while the record at offset input is folded. emit is false where it is in the
// log already.
func (n *Numbers) Next(input int64) (p Position, emit bool, err error) {
	n.last++
	if n.last <= n.silent && input > n.input || n.last == n.silent && input != n.input {
		return Position{}, false, fmt.Errorf("%w: output %d at offset %d, output %d is at %d in the log", ErrDiverged, n.last, input, n.silent, n.input)
	}
	return Position{n.epoch, n.last}, n.last > n.silent, nil
}

// Folded says that the record at offset input has been folded; an error means that outputs are missing which
// are in the log.
func (n *Numbers) Folded(input int64) error {
	if n.last < n.silent && input >= n.input {
		return fmt.Errorf("%w: output %d is the last at offset %d, output %d is at %d in the log", ErrDiverged, n.last, input, n.silent, n.input)
	}
	return nil
}
