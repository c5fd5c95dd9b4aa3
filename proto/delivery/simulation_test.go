package delivery

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	seedsFlag = flag.Int("seeds", 2000, "how many schedules to simulate")
	seedFlag  = flag.Uint64("seed", 0, "simulate this schedule alone, and tell its story")
)

// A schedule is one run of enrichers and sinks against logs in memory, all of it drawn from one seed: which of
// them does its next single step, what is lost, delayed or done without an answer, who crashes, who is taken
// for dead and goes on, which generation the broker counts. At the end everything settles, and what is in the
// tables is compared with the fold of the whole input.

const (
	inputs, outputs, processes = 3, 2, 3
	sessionKeys                = 3
)

var tables = []string{"traffic", "packets", marks}

// marks is the table that tells where a sink goes on whose offsets were lost. It refuses nothing.
const marks = "marks"

// rule is one of the protocol's rules that a schedule leaves out: each must be missed.
type rule string

const (
	allRules            rule = ""
	claimBeforeMarker   rule = "an owner claims its epoch before its marker"
	learnToMarker       rule = "an owner reads on to its own marker"
	sameCall            rule = "a produce call is tried again as it was"
	acknowledgedOutputs rule = "a snapshot is committed after its outputs"
	staleDropped        rule = "what bears an older epoch does not count"
	repeatsDropped      rule = "each number counts once"
	switchBySnapshot    rule = "new settings begin with a committed snapshot"
	memoryFromCommit    rule = "a state in memory counts from the last accepted commit"
	foreignMemory       rule = "a state in memory is dropped after another owner"
	rangeBeforeInsert   rule = "a range is committed before its first try"
	sameRange           rule = "a successor tries the same range"
	leaveAfterUnknown   rule = "a commit of unknown outcome ends the generation"
	halveWhenRefused    rule = "a block is halved only when refused"
	doneBeforeHalving   rule = "no table gets both the range and pieces of it"
)

// packet is a record of tapweave.packets.
type packet struct {
	key   uint8
	value uint16
	last  bool
}

// row is what an output puts into each table, and comparable.
type row struct {
	partition uint32
	offset    int64 // of the packet
	index     uint8 // of the output among those of the packet
	settings  uint8
	final     bool
	sum       uint64 // over all that led to it
	sub       uint8  // of the rows of an output
}

// rows are all rows of the output whose first is r.
func (r row) rows() []row {
	rows := make([]row, 1+r.sum%4)
	for i := range rows {
		rows[i] = r
		rows[i].sub = uint8(i)
	}
	return rows
}

// poison says that a table refuses the row.
func (r row) poison(table string) bool {
	return table != marks && (uint64(r.offset)*7+uint64(r.index)*3+uint64(r.partition)+uint64(len(table))+uint64(r.sub)*5)%29 == 0
}

// session is an open session of the fold; count is 0 where there is none.
type session struct {
	begin int64
	count uint32
	sum   uint64
}

// state is that of the fold; it has no pointers.
type state struct {
	open     [sessionKeys]session
	chain    uint64 // over all packets
	settings uint8
}

func mix(h, v uint64) uint64 { h = (h ^ v) * 0x9e3779b97f4a7c15; return h ^ h>>29 }

// fold is the toy fold. Settings decide how many outputs a packet makes.
func (s *state) fold(partition uint32, offset int64, p packet) []row {
	o := &s.open[p.key]
	if o.count == 0 {
		*o = session{begin: offset}
	}
	o.count++
	o.sum = mix(o.sum, uint64(p.value)+uint64(offset)<<16)
	s.chain = mix(s.chain, o.sum)
	n := uint8(0)
	if p.last {
		n++
	}
	n += uint8(p.value % 3)
	if s.settings == 1 {
		n += uint8(p.value / 3 % 2)
	}
	r := row{partition: partition, offset: offset, settings: s.settings, final: p.last, sum: s.chain}
	rows := make([]row, n)
	for i := range rows {
		r.index = uint8(i)
		rows[i] = r
	}
	if p.last {
		*o = session{}
	}
	return rows
}

type output struct {
	Entry
	row row
}

type snapshot struct {
	state   state
	damaged bool
}

// group is a partition of a consumer group.
type group struct {
	generation uint64
	member     any
	committed  Commit
}

type table struct {
	rows   map[row]int
	tokens map[string]bool
	dead   map[row]bool
}

type world struct {
	rng     *rand.Rand
	without rule
	tell    func(format string, args ...any)
	calm    bool

	packets   [inputs][]packet
	left      int // packets that are to come
	states    [inputs][]snapshot
	damaged   [inputs]bool
	outs      [outputs][]output
	enrichers [inputs]group
	sinks     [outputs]group
	tables    map[string]*table
	marks     [outputs][]At
	late      []func()

	enricher [processes][inputs]*enricher
	sink     [processes][outputs]*sink
	failure  error
}

func (w *world) one(in int) bool { return !w.calm && w.rng.IntN(in) == 0 }

func (w *world) fail(format string, args ...any) {
	if w.failure == nil {
		w.failure = fmt.Errorf(format, args...)
		w.tell("FAILED: %v", w.failure)
	}
}

// try does f as something that goes over a network.
func (w *world) try(f func()) Outcome {
	if w.calm || w.rng.IntN(4) > 0 {
		f()
		return Done
	}
	switch w.rng.IntN(3) {
	case 0:
		f()
	case 1:
		w.late = append(w.late, f)
	}
	return Unknown
}

func (w *world) commit(g *group, member any, c Commit) Outcome {
	if g.member != member {
		return Refused
	}
	return w.try(func() {
		if g.member == member {
			g.committed = c
		}
	})
}

// enricher is an instance's work on one input partition.
type enricher struct {
	w       *world
	p       uint32
	o       *Owner
	running bool
	cursor  int64

	state    state
	settings uint8 // wanted
	next     int64 // packet
	numbers  *Numbers
	pending  []output
	flight   int // how many of them are in the produce call being tried
	acked    uint64
	ackedAt  int64    // behind the last output acknowledged, or the marker
	sure     Snapshot // where the newest accepted commit found the outputs, or the marker
	snaps    []*snap
	memory   *enricher
}

// snap is a snapshot that is being taken; what is not known yet is -1.
type snap struct {
	Snapshot
	copies int // yet to be written
	state  state
}

func (w *world) takeInput(process int, p uint32) {
	g := &w.enrichers[p]
	g.generation++
	if w.one(12) {
		w.tell("broker forgets the generations of input %d", p)
		g.generation = 1
	}
	e := &enricher{w: w, p: p, settings: uint8(w.rng.IntN(2))}
	g.member = e
	a := Assignment{Partition: p, Generation: g.generation, Committed: g.committed}
	if m := w.enricher[process][p]; m != nil && m.running && !m.switching() && m.numbers.Last() >= m.numbers.Silent() {
		e.memory = m
		a.Memory = &Snapshot{State: Memory, Input: m.next, Output: m.sure.Output, At: m.sure.At}
		if w.without == memoryFromCommit {
			a.Memory.Output, a.Memory.At.Number = m.ackedAt, m.acked
		}
		e.state, e.next, e.pending, e.acked, e.ackedAt = m.state, m.next, m.pending, m.acked, m.ackedAt
	}
	o, err := NewOwner(a)
	if err != nil {
		w.fail("input %d: %v", p, err)
		return
	}
	e.o = o
	w.enricher[process][p] = e
	w.tell("process %d takes input %d, generation %d, memory %v", process, p, g.generation, a.Memory != nil)
}

func (e *enricher) out() *[]output { return &e.w.outs[e.p%outputs] }

// read returns the next records of the output partition.
func (e *enricher) read() []output {
	all := (*e.out())[e.cursor:]
	all = all[:min(len(all), 1+e.w.rng.IntN(6))]
	e.cursor += int64(len(all))
	return all
}

func (e *enricher) begin(last uint64) {
	e.running = true
	e.numbers = e.o.Numbers(last)
	e.acked = max(e.acked, e.numbers.Silent())
	e.reassure()
}

// reassure notes that the partition was still the instance's own after all that is acknowledged.
func (e *enricher) reassure() {
	e.sure = Snapshot{Output: e.ackedAt, At: Position{e.o.Epoch(), e.acked}}
}

// step does one thing; false: the instance has left.
func (e *enricher) step() bool {
	w, o := e.w, e.o
	switch o.Step() {
	case StepSurvey:
		if r := e.read(); len(r) > 0 {
			for _, r := range r {
				o.Survey(r.Entry)
			}
			break
		}
		o.Surveyed(e.cursor, 0)
	case StepClaim:
		if w.without == claimBeforeMarker {
			o.Claimed(Done)
			break
		}
		o.Claimed(w.commit(&w.enrichers[e.p], e, o.Claim()))
	case StepMark:
		at, marker := int64(-1), output{Entry: o.Marker()}
		if w.try(func() { at = int64(len(*e.out())); *e.out() = append(*e.out(), marker) }) == Done {
			w.tell("marker %v of input %d at %d", o.Epoch(), e.p, at)
			o.Marked()
		}
	case StepLoad:
		s := o.State()
		switch {
		case s.State == Memory:
			if w.without == foreignMemory && e.memory != nil {
				o.a.Memory.At.Epoch = o.newest
			}
		case s.State == Nothing:
			e.state, e.pending = state{settings: 0}, nil
		case w.states[e.p][s.State].damaged:
			w.tell("snapshot at %d of input %d is damaged", s.State, e.p)
			o.Loaded(false)
			return true
		default:
			e.state, e.pending = w.states[e.p][s.State].state, nil
		}
		if s.State != Memory {
			e.memory, e.acked = nil, s.At.Number
		}
		e.next, e.cursor = s.Input, s.Output
		o.Loaded(true)
	case StepLearn:
		if w.without == learnToMarker {
			o.Learn(o.Marker())
		}
		for _, r := range e.read() {
			if o.Step() != StepLearn {
				break
			}
			o.Learn(r.Entry)
			e.ackedAt++
		}
		switch o.Step() {
		case StepSurvey:
			e.cursor = 0
		case StepRun:
			// The marker's offset is that of the last record learned.
			e.ackedAt = e.cursor
			for i, r := range slices.Backward((*e.out())[:e.cursor]) {
				if r.Marker && r.Partition == e.p && r.Epoch == o.Epoch() {
					e.ackedAt = int64(i) + 1
				}
			}
			e.w.checkLearned(o, e.p, (*e.out())[:e.ackedAt])
			last := o.State().At.Number
			if e.memory != nil {
				last = e.memory.numbers.Last()
			}
			e.begin(last)
			e.pending = slices.DeleteFunc(slices.Clone(e.pending), func(p output) bool { return p.Number <= e.numbers.Silent() })
			for i := range e.pending {
				e.pending[i].Epoch = o.Epoch()
			}
			w.tell("input %d: %v learned %d, goes on from %d at packet %d", e.p, o.Epoch(), e.numbers.Silent(), last, e.next)
		}
	case StepRun:
		e.run()
	case StepLeave:
		return false
	}
	return true
}

func (e *enricher) run() {
	w := e.w
	switch d := w.rng.IntN(6); {
	case d < 2 && e.next < int64(len(w.packets[e.p])) && len(e.pending) < 5 && !e.switching():
		for _, r := range e.state.fold(e.p, e.next, w.packets[e.p][e.next]) {
			at, emit, err := e.numbers.Next(e.next)
			if err != nil {
				w.fail("input %d: %v", e.p, err)
			}
			if emit {
				e.pending = append(e.pending, output{Entry{Partition: e.p, Position: at, Input: e.next}, r})
			}
		}
		if err := e.numbers.Folded(e.next); err != nil {
			w.fail("input %d: %v", e.p, err)
		}
		e.next++
	case d < 4 && len(e.pending) > 0:
		// What is tried again is the same call. Were it cut otherwise, an output could stand before a copy of
		// the one before it, and a snapshot would name an offset behind it.
		if e.flight == 0 || w.without == sameCall {
			e.flight = 1 + w.rng.IntN(min(3, len(e.pending)))
		}
		batch := slices.Clone(e.pending[:min(e.flight, len(e.pending))])
		at := int64(-1)
		if w.try(func() { at = int64(len(*e.out())); *e.out() = append(*e.out(), batch...) }) == Done {
			e.pending, e.flight = e.pending[len(batch):], 0
			e.ackedAt, e.acked = at+int64(len(batch)), batch[len(batch)-1].Number
			for _, s := range e.snaps {
				if n := s.At.Number; s.Output < 0 && n >= batch[0].Number && n <= e.acked {
					s.Output = at + int64(n-batch[0].Number) + 1
				}
			}
		}
	case d == 4 && len(e.snaps) == 0 && e.numbers.Last() >= e.numbers.Silent():
		s := &snap{Snapshot: Snapshot{Input: e.next, Output: -1, At: Position{e.o.Epoch(), e.numbers.Last()}}, copies: 1, state: e.state}
		if e.acked == s.At.Number {
			s.Output = e.ackedAt
		}
		if e.settings != e.state.settings && (w.without == switchBySnapshot || len(e.pending) == 0 && e.o.MaySwitch()) {
			// From here on nothing is folded until both snapshots of the metadata bear the new settings.
			s.state.settings, s.copies = e.settings, 2
			if w.without == switchBySnapshot {
				e.state.settings = e.settings
			}
		}
		e.snaps = append(e.snaps, s)
	case d == 5 && len(e.snaps) > 0:
		e.snapshot(e.snaps[0])
	}
}

// switching says that the fold waits for the snapshot that brings new settings.
func (e *enricher) switching() bool {
	return len(e.snaps) > 0 && e.snaps[0].state.settings != e.state.settings
}

// snapshot writes and commits s.
func (e *enricher) snapshot(s *snap) {
	w := e.w
	if s.copies > 0 {
		log := &w.states[e.p]
		at := int64(-1)
		copied := snapshot{state: s.state}
		if w.try(func() { at = int64(len(*log)); *log = append(*log, copied) }) != Done {
			return
		}
		s.State = at
		s.copies--
		if s.copies > 0 {
			e.o.CommitSnapshot(s.Snapshot, math.MaxUint64) // named with the next one
			return
		}
	}
	acked := e.acked
	if w.without == acknowledgedOutputs {
		acked = math.MaxUint64
		if s.Output < 0 {
			s.Output = e.ackedAt
		}
	}
	if s.Output < 0 {
		return
	}
	c, ok := e.o.CommitSnapshot(s.Snapshot, acked)
	if !ok {
		return
	}
	outcome := w.commit(&w.enrichers[e.p], e, c)
	if e.o.Committed(outcome); outcome != Done {
		if !e.switching() {
			e.snaps = e.snaps[1:] // the next one will do
		}
		return
	}
	e.reassure()
	w.tell("input %d: snapshot %v committed, settings %d", e.p, s.At, s.state.settings)
	if w.without != switchBySnapshot {
		e.state.settings = s.state.settings
	}
	e.snaps = e.snaps[1:]
}

// sink is an instance's work on one output partition.
type sink struct {
	w    *world
	p    int32
	b    *Blocks
	kept []output
	at   []int64 // their offsets
	// after is where a reader stands behind what was read.
	after []At
}

func (w *world) takeOutput(process int, p int32) {
	g := &w.sinks[p]
	g.generation++
	s := &sink{w: w, p: p}
	g.member = s
	m := Sink{Positions: w.marks[p]}
	if g.committed.Metadata != "" {
		var err error
		if m, err = DecodeSink(g.committed.Metadata); err != nil {
			w.fail("output %d: %v", p, err)
		}
	}
	if w.without == sameRange {
		m.Flight = nil
	}
	b, err := NewBlocks(p, inputs, tables, g.committed.Offset, m)
	if err != nil {
		w.fail("output %d: %v", p, err)
		return
	}
	s.b = b
	w.sink[process][p] = s
	w.tell("process %d takes output %d at %d, flight %+v", process, p, g.committed.Offset, m.Flight)
}

func (s *sink) step() bool {
	w, b := s.w, s.b
	next := b.Next()
	a := next[w.rng.IntN(len(next))]
	switch a.Do {
	case DoRead:
		return s.read(a.Range)
	case DoCommit:
		g := &w.sinks[s.p]
		if w.without == rangeBeforeInsert && w.one(2) {
			b.Committed(Done)
			break
		}
		c := w.commit(g, s, a.Commit)
		if c == Unknown && w.without == leaveAfterUnknown {
			break
		}
		b.Committed(c)
	case DoInsert:
		c := s.insert(a, s.rows(a.Range, a.Rows))
		w.tell("output %d: insert %s: %d", s.p, a.Token, c)
		if c == Unknown && w.without == halveWhenRefused {
			c = Refused
		}
		if c == Refused && w.without == doneBeforeHalving && b.flight.Table == "" {
			// As if the others' answers were not waited for and not noted.
			b.flight.Done = nil
			b.refused = slices.Clone(tables)
			b.done()
			break
		}
		b.Inserted(a.Table, c)
	case DoDeadLetter:
		rows := s.rows(a.Range, a.Rows)
		b.DeadLettered(w.try(func() {
			for _, r := range rows {
				w.tables[a.Table].dead[r] = true
			}
		}))
	case DoLeave:
		return false
	}
	return true
}

func (s *sink) read(r Range) bool {
	w, b := s.w, s.b
	log := w.outs[s.p]
	if r.To < 0 {
		n := int64(len(log)) - r.From
		if n <= 0 {
			b.Settle()
			return true
		}
		most := int64(6)
		if w.calm {
			most = 30
		}
		r.To = r.From + 1 + w.rng.Int64N(min(n, most))
	}
	reader := b.Reader()
	s.kept, s.at = s.kept[:0], s.at[:0]
	for i, o := range log[r.From:r.To] {
		v := reader.Read(o.Entry)
		kept := v.Kept() || v == Stale && w.without == staleDropped || v == Repeat && w.without == repeatsDropped
		if kept && !o.Marker {
			s.kept, s.at = append(s.kept, o), append(s.at, r.From+int64(i))
		}
	}
	if reader.Counts[Gap] > 0 && w.without == allRules {
		w.fail("output %d, range %v: a gap, %d missing", s.p, r, reader.Missing)
	}
	s.after = reader.Positions()
	if err := b.Filled(r.To, reader, func(_ string, offset int64) int { return len(s.rows(Range{offset, offset + 1}, Range{})) }); err != nil {
		w.fail("output %d: %v", s.p, err)
	}
	return true
}

func (s *sink) rows(r, only Range) []row {
	var rows []row
	for i, o := range s.kept {
		if s.at[i] >= r.From && s.at[i] < r.To {
			rows = append(rows, o.row.rows()...)
		}
	}
	if only != (Range{}) {
		rows = rows[only.From:min(only.To, int64(len(rows)))] // there are fewer only where a rule is left out
	}
	return rows
}

func (s *sink) insert(a Action, rows []row) Outcome {
	w := s.w
	t := w.tables[a.Table]
	whole, after := a.Range == s.b.flight.Range, s.after
	for _, r := range rows {
		if r.poison(a.Table) {
			if w.one(4) {
				return Unknown
			}
			return Refused
		}
	}
	return w.try(func() {
		if t.tokens[a.Token] {
			return
		}
		t.tokens[a.Token] = true
		for _, r := range rows {
			t.rows[r]++
		}
		if a.Table == marks && whole {
			w.marks[s.p] = after
		}
	})
}

// simulate runs a schedule and returns what went wrong.
func simulate(seed uint64, without rule, tell func(string, ...any)) error {
	w := &world{rng: rand.New(rand.NewPCG(seed, 0)), without: without, tell: tell, left: 40, tables: map[string]*table{}}
	for _, t := range tables {
		w.tables[t] = &table{map[row]int{}, map[string]bool{}, map[row]bool{}}
	}
	for p := range w.enrichers {
		w.enrichers[p].committed.Offset = -1
	}
	for range 15 {
		w.arrive()
	}
	for range 300 + w.rng.IntN(600) {
		w.event()
		if w.failure != nil {
			return w.failure
		}
	}
	for range w.left {
		w.arrive()
	}
	// Everything settles; what was late comes last, or in between.
	w.tell("calm")
	if w.rng.IntN(2) == 0 {
		w.comeLate()
	}
	w.calm = true
	w.drain()
	w.comeLate()
	w.drain()
	if w.failure == nil {
		w.check()
	}
	return w.failure
}

func (w *world) comeLate() {
	for _, f := range w.late {
		f()
	}
	w.late = nil
}

func (w *world) arrive() {
	p := w.rng.IntN(inputs)
	w.packets[p] = append(w.packets[p], packet{uint8(w.rng.IntN(sessionKeys)), uint16(w.rng.IntN(100)), w.rng.IntN(3) == 0})
	w.left--
}

func (w *world) event() {
	process, in, out := w.rng.IntN(processes), uint32(w.rng.IntN(inputs)), int32(w.rng.IntN(outputs))
	switch d := w.rng.IntN(100); {
	case d < 8:
		if w.left > 0 {
			w.arrive()
		}
	case d < 12 && len(w.late) > 0:
		i := w.rng.IntN(len(w.late))
		f := w.late[i]
		w.late = slices.Delete(w.late, i, i+1)
		f()
	case d < 13:
		if w.enricher[process][in] != nil {
			w.tell("process %d loses what it has of input %d", process, in)
			w.enricher[process][in] = nil
		}
	case d < 14:
		if w.sink[process][out] != nil {
			w.tell("process %d loses what it has of output %d", process, out)
			w.sink[process][out] = nil
		}
	case d < 15:
		w.takeInput(process, in)
	case d < 16:
		w.takeOutput(process, out)
	case d < 17 && !w.damaged[in]:
		// The newest snapshot, where there is another.
		if m, err := DecodeEnricher(w.enrichers[in].committed.Metadata); err == nil && len(m.Snapshots) == 2 && m.Snapshots[0].State >= 0 && m.Snapshots[0].State != m.Snapshots[1].State {
			w.damaged[in] = true
			w.states[in][m.Snapshots[0].State].damaged = true
		}
	case d < 18:
		w.loseOffsets(out)
	case d < 60:
		for w.enricher[process][in] == nil && w.owned(in) {
			process = (process + 1) % processes
		}
		w.stepInput(process, in)
	default:
		for w.sink[process][out] == nil && w.stored(out) {
			process = (process + 1) % processes
		}
		w.stepOutput(process, out)
	}
}

// stepInput lets an instance do its next thing. A partition that nobody has is given to the process; one that
// another process has is not, so that who was superseded goes on unless it finds out.
func (w *world) stepInput(process int, p uint32) {
	e := w.enricher[process][p]
	switch {
	case e != nil:
		if !e.step() {
			w.tell("process %d leaves input %d", process, p)
			// What is in memory stays for the next assignment.
			if !e.running {
				w.enricher[process][p] = nil
			}
			if w.enrichers[p].member == any(e) || w.one(3) {
				w.takeInput(process, p)
			}
		}
	case !w.owned(p):
		w.takeInput(process, p)
	}
}

func (w *world) owned(p uint32) bool {
	for _, of := range w.enricher {
		if of[p] != nil && w.enrichers[p].member == any(of[p]) {
			return true
		}
	}
	return false
}

func (w *world) stepOutput(process int, p int32) {
	if s := w.sink[process][p]; s != nil {
		if !s.step() {
			w.tell("process %d leaves output %d", process, p)
			w.sink[process][p] = nil
		}
		return
	}
	if !w.stored(p) {
		w.takeOutput(process, p)
	}
}

// loseOffsets loses what the sinks committed for an output partition, while nothing is in flight: of such a block
// some tables may have it, and nobody knows.
func (w *world) loseOffsets(p int32) {
	g := &w.sinks[p]
	m, err := DecodeSink(g.committed.Metadata)
	if err != nil || len(w.late) > 0 || w.without != allRules {
		return
	}
	if f := m.Flight; f != nil {
		have := 0
		for _, t := range tables {
			if w.tables[t].tokens[Token(t, p, m.Positions, f.Range, Range{})] {
				have++
			}
		}
		if f.Table != "" || have > 0 && have < len(tables) {
			return
		}
	}
	w.tell("output %d: offsets lost", p)
	for process := range w.sink {
		w.sink[process][p] = nil
	}
	g.member, g.committed = nil, Commit{}
}

func (w *world) stored(p int32) bool {
	for _, of := range w.sink {
		if of[p] != nil && w.sinks[p].member == any(of[p]) {
			return true
		}
	}
	return false
}

// drain lets fresh instances do all there is to do.
func (w *world) drain() {
	w.enricher, w.sink = [processes][inputs]*enricher{}, [processes][outputs]*sink{}
	for p := range uint32(inputs) {
		w.takeInput(0, p)
		for n := 0; w.failure == nil; n++ {
			e := w.enricher[0][p]
			if !e.step() {
				w.fail("input %d: left in a calm", p)
			}
			if e.running && e.next == int64(len(w.packets[p])) && len(e.pending) == 0 && !e.switching() {
				break
			}
			if n > 100_000 {
				w.fail("input %d: no end at %v, packet %d", p, e.o.Step(), e.next)
			}
		}
	}
	for p := range int32(outputs) {
		w.takeOutput(0, p)
		for n := 0; w.failure == nil; n++ {
			s := w.sink[0][p]
			if !s.step() {
				w.fail("output %d: left in a calm", p)
			}
			if s.b.offset == int64(len(w.outs[p])) && s.b.Settled() {
				break
			}
			if n > 100_000 {
				w.fail("output %d: no end", p)
			}
		}
	}
}

// all are the rows of some outputs.
func all(first []row) (list []row) {
	for _, r := range first {
		list = append(list, r.rows()...)
	}
	return list
}

// check compares the tables with the fold of the whole input, and with what a reader of the whole log keeps.
func (w *world) check() {
	for p := range uint32(inputs) {
		var one, two state
		two.settings = 1
		for i, k := range w.packets[p] {
			offset := int64(i)
			variants := [][]row{all(one.fold(p, offset, k)), all(two.fold(p, offset, k))}
			for _, name := range tables {
				w.checkPacket(name, p, offset, variants)
			}
		}
	}
	kept := map[row]int{}
	for _, log := range w.outs {
		r := NewReader(nil)
		for _, o := range log {
			if r.Read(o.Entry).Kept() && !o.Marker {
				for _, r := range o.row.rows() {
					kept[r]++
				}
			}
		}
		if r.Missing > 0 {
			w.fail("%d outputs missing in the log", r.Missing)
		}
	}
	for _, name := range tables {
		t := w.tables[name]
		for r, n := range kept {
			if r.poison(name) {
				if !t.dead[r] || t.rows[r] > 0 {
					w.fail("%s: refused row %+v: %d times there, dead letter %v", name, r, t.rows[r], t.dead[r])
				}
			} else if t.rows[r] != n {
				w.fail("%s: row %+v is there %d times, %d in the log", name, r, t.rows[r], n)
			}
		}
		for r := range t.rows {
			if kept[r] == 0 {
				w.fail("%s: row %+v is of nobody", name, r)
			}
		}
	}
}

// checkLearned compares what an owner has learned with what a reader keeps who reads the log from its start to
// the owner's marker.
func (w *world) checkLearned(o *Owner, p uint32, log []output) {
	r := NewReader(nil)
	for _, e := range log {
		r.Read(e.Entry)
	}
	if at, _ := r.Position(p); at != o.learned {
		w.fail("input %d: %v learned %v, a reader keeps %v", p, o.Epoch(), o.learned, at)
	}
}

// checkPacket checks the rows that a packet led to: all of those of one of the settings, each once; where no
// state is kept, each version of the session that ends a whole fold of it, at least once.
func (w *world) checkPacket(name string, p uint32, offset int64, variants [][]row) {
	t := w.tables[name]
	have := func(r row) int {
		if r.poison(name) && t.dead[r] {
			return 1
		}
		return t.rows[r]
	}
	whole := 0
	var found []string
	for _, rows := range variants {
		n := 0
		for _, r := range rows {
			found = append(found, fmt.Sprintf("%d/%d ×%d", r.settings, r.index, have(r)))
			n += have(r)
			if have(r) > 1 {
				w.fail("%s: row %+v is there %d times", name, r, have(r))
			}
		}
		if n == len(rows) {
			whole++
		} else if n > 0 {
			w.fail("%s: input %d, packet %d: %s", name, p, offset, strings.Join(found, ", "))
		}
	}
	// One of the settings may put out nothing for the packet: then it is whole beside any.
	if most := min(1, len(variants[0])) + min(1, len(variants[1])); whole == 0 || whole == 2 && most == 2 {
		w.fail("%s: input %d, packet %d: %s", name, p, offset, strings.Join(found, ", "))
	}
}

func quiet(string, ...any) {}

func TestSimulation(t *testing.T) {
	if *seedFlag > 0 {
		if err := simulate(*seedFlag, allRules, t.Logf); err != nil {
			t.Error(err)
		}
		return
	}
	begin := time.Now()
	for seed := uint64(1); seed <= uint64(*seedsFlag); seed++ {
		if err := simulate(seed, allRules, quiet); err != nil {
			t.Fatalf("%v\nonce more, with its story: go test -run TestSimulation ./delivery -seed %d -v", err, seed)
		}
	}
	t.Logf("%d schedules, %.0f a second", *seedsFlag, float64(*seedsFlag)/time.Since(begin).Seconds())
}

// Each rule is needed: without it some schedule goes wrong. So the simulation would find the mistake.
func TestEachRuleIsNeeded(t *testing.T) {
	for _, without := range []rule{
		claimBeforeMarker, learnToMarker, sameCall, acknowledgedOutputs, staleDropped, repeatsDropped, switchBySnapshot,
		foreignMemory, memoryFromCommit, rangeBeforeInsert, sameRange, leaveAfterUnknown, halveWhenRefused, doneBeforeHalving,
	} {
		t.Run(string(without), func(t *testing.T) {
			for seed := uint64(1); seed <= 20_000; seed++ {
				if err := simulate(seed, without, quiet); err != nil {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Error("nothing goes wrong without it")
		})
	}
}
