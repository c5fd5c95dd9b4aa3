package enricher

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/enricher/labels"
	"github.com/tapweave/tapweave/enricher/output"
	"github.com/tapweave/tapweave/proto/delivery"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
)

const (
	tickEvery = time.Second
	// fetchBytes bounds one fetch. A partition holds two at most: one that is folded, and the next.
	fetchBytes = 1 << 20
	fetchWait  = time.Second
)

// errOver says that the partition is another's now.
var errOver = errors.New("the generation is over")

// errUnsure says that other settings cannot take effect in this generation.
var errUnsure = errors.New("the outcome of a commit is not known")

// partition is one partition of tapweave.packets in one generation.
type partition struct {
	*Service
	gen      *kafka.Generation
	assigned kafka.Assignment
	writer   *writer
	late     context.Context // goes on for a while when the partition is taken away
	memory   *memory         // what is left of the generation before; nil: nothing
	commits  *sync.Mutex     // held while the generation commits

	// Of the goroutine that runs it.
	stream    *output.Stream
	inputSum  uint32 // of the record folded last
	marker    int64  // offset
	unsettled bool   // a state with other settings was not committed yet
	older     bool   // the state is one that an older version of the fold has saved
	pace      pace
	folded    [fold.Reasons]uint64 // counted already
	skewed    []uint64             // batches counted already, by place in fold.Fold.Skewed
	put       output.Counts        // counted already
	storing   sync.WaitGroup
	gaps      gaps

	mu      sync.Mutex // guards what follows, and owner once the fold begins
	owner   *delivery.Owner
	written written
	sure    written   // where the newest accepted commit found the outputs
	taking  *snapshot // on its way to tapweave.state
	ready   *commit   // to be sent next
	alone   bool      // settle commits it, and not the generation with the others'

	inForce atomic.Pointer[labels.Digest] // label set

	// For the gauges.
	running                           atomic.Bool
	watermark, open, buffered, behind atomic.Int64
}

// written is how far the outputs are acknowledged: the last number, and the offset behind it or behind the
// owner's marker, if that is later.
type written struct {
	number uint64
	offset int64
}

// commit is what is to be committed, and where the outputs were when it was sent.
type commit struct {
	kafka.Commit
	written written
}

// memory is the state of a partition between two generations. All its outputs are acknowledged.
type memory struct {
	stream   *output.Stream
	inputSum uint32
	sure     delivery.Snapshot
	pace     pace
}

// run takes the partition over and folds it until ctx is done. started is called when the fold begins.
func (p *partition) run(ctx context.Context, started func()) error {
	if err := p.takeOver(ctx); err != nil {
		return err
	}
	p.count()
	p.running.Store(true)
	started()

	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	if err := p.settle(ctx); err != nil {
		return err
	}
	fetched := make(chan kafka.Fetched)
	wg.Go(func() { p.fetch(ctx, fetched) })
	wg.Go(func() { p.tick(ctx) })
	wg.Go(func() { p.label(ctx) })
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case f := <-fetched:
			if err := p.fold(ctx, f); err != nil {
				return err
			}
		}
	}
}

func (p *partition) entry(value []byte, acknowledged func(offset int64)) entry {
	return entry{kafka.Record{Key: []byte(strconv.Itoa(p.assigned.Partition)), Value: value}, acknowledged}
}

// emit hands an output to the writer. It goes on when the partition is taken away: see fold.
func (p *partition) emit(number uint64, value []byte) error {
	return p.writer.put(p.late, p.entry(value, func(offset int64) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.written = written{number, offset + 1}
		if t := p.taking; t != nil && t.Output < 0 && t.At.Number == number {
			t.Output = offset + 1
		}
		p.offer()
	}))
}

// fold folds what was fetched. Where the partition is taken away meanwhile, it goes on to the next record behind
// which no rows wait for an output, so that the state can stay in memory.
func (p *partition) fold(ctx context.Context, f kafka.Fetched) error {
	for _, r := range f.Records {
		if ctx.Err() != nil && p.stream.Whole() {
			break
		}
		silent := p.stream.Silent()
		if err := p.stream.Record(r.Offset, r.Value); errors.Is(err, fold.ErrUndecodable) {
			if !silent {
				p.limited.Warn("undecodable", "skipped a record that does not decode", "topic", record.TopicPackets, "partition", p.assigned.Partition, "offset", r.Offset, "error", err)
			}
		} else if err != nil {
			p.count()
			return err
		}
		if g, ok := p.gaps.see(r.Value); ok {
			p.tell(g)
		}
		p.inputSum = crc32.Checksum(r.Value, castagnoli)
		p.pace.bytes += len(r.Value)
		p.counts.records.Inc()
		p.counts.bytes.Add(uint64(len(r.Value)))
		if silent && !p.stream.Silent() {
			p.uncounted()
			if err := p.settle(ctx); err != nil {
				return err
			}
		}
		if p.pace.due(time.Now(), p.snapshotEvery) && p.stream.Whole() && !p.stream.Silent() {
			if err := p.take(); err != nil {
				return err
			}
		}
	}
	p.noteLabels()
	p.behind.Store(max(f.HighWatermark-f.Next, 0))
	if p.stream.Silent() {
		p.uncounted()
	} else {
		p.count()
	}
	return nil
}

// take takes a snapshot and begins to store it, unless one is on its way.
func (p *partition) take() error {
	p.mu.Lock()
	busy := p.taking != nil
	p.mu.Unlock()
	if busy {
		return nil
	}
	s, err := p.snapshot(1)
	if err != nil {
		return err
	}
	p.storing.Go(func() {
		if err := p.keep(p.late, s); err != nil && p.late.Err() == nil {
			p.failed(err)
		}
	})
	return nil
}

// snapshot takes a snapshot.
func (p *partition) snapshot(copies int) (*snapshot, error) {
	began := time.Now()
	s := &snapshot{
		Snapshot: delivery.Snapshot{State: -1, Input: p.stream.Next(), Output: -1, At: delivery.Position{Epoch: p.owner.Epoch(), Number: p.stream.Last()}},
		inputSum: p.inputSum, copies: copies,
	}
	var err error
	if s.chunks, err = pack(p.stream); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	p.pace = pace{taken: began, took: time.Since(began)}
	for _, c := range s.chunks {
		p.pace.size += len(c)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taking = s
	if p.written.number == s.At.Number {
		s.Output = p.written.offset
	}
	return s, nil
}

// keep stores a snapshot and makes it ready to be committed.
func (p *partition) keep(ctx context.Context, s *snapshot) error {
	for ; s.copies > 0; s.copies-- {
		at, err := p.store(ctx, s)
		p.mu.Lock()
		switch {
		case err != nil:
			p.taking = nil // the next one will do
		case s.copies > 1:
			s.State = at
			p.owner.CommitSnapshot(s.Snapshot, s.At.Number) // named with the next one
		default:
			s.State, s.chunks = at, nil
			p.offer()
		}
		p.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// offer makes a snapshot ready to be committed that is stored, and whose outputs are acknowledged.
func (p *partition) offer() {
	t := p.taking
	if t == nil || t.State < 0 || t.chunks != nil || t.Output < 0 {
		return
	}
	if c, ok := p.owner.CommitSnapshot(t.Snapshot, p.written.number); ok {
		p.ready = &commit{kafka.Commit{Partition: p.assigned.Partition, Offset: c.Offset, Metadata: c.Metadata}, p.written}
		p.taking = nil
	}
}

// pending returns what is to be committed: by the generation with that of other partitions, or alone by settle.
func (p *partition) pending(alone bool) *commit {
	p.mu.Lock()
	defer p.mu.Unlock()
	if alone != p.alone {
		return nil
	}
	c := p.ready
	if p.ready = nil; c != nil {
		c.written = p.written
	}
	return c
}

// committed tells how the commits came out.
func (p *partition) committed(c *commit, outcome delivery.Outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gen.Unsure() {
		p.owner.Committed(delivery.Unknown)
	}
	if p.owner.Committed(outcome); outcome == delivery.Done {
		p.sure = c.written
		p.counts.committed.Inc()
	}
}

// settle lets the fold go by the configured settings, once it has come to the end of what is in the log. Two
// snapshots with these are committed before anything is folded.
func (p *partition) settle(ctx context.Context) error {
	f, o := p.config.settings()
	f0, o0 := p.stream.Settings()
	if p.stream.Silent() || f == f0 && o == o0 && p.owner.State().State != delivery.Nothing && !p.older {
		return nil
	}
	if !p.stream.Whole() {
		return errors.New("taking over other settings: rows wait behind the last output that is in the log") // it ended a record
	}
	if f != f0 || o != o0 {
		p.log.Info("folding with other settings from here on", "partition", p.assigned.Partition, "offset", p.stream.Next())
	}
	if !p.owner.MaySwitch() {
		return errUnsure
	}
	p.unsettled = true
	if err := p.acknowledged(ctx); err != nil {
		return err
	}
	p.stream.Set(f, o)
	p.settling(true)
	defer p.settling(false)
	s, err := p.snapshot(2)
	if err == nil {
		err = p.keep(ctx, s)
	}
	if err != nil {
		return err
	}
	p.commits.Lock()
	defer p.commits.Unlock()
	c := p.pending(true)
	if c == nil {
		return errors.New("taking over other settings: outputs are not acknowledged")
	}
	err = p.gen.Commit(ctx, record.TopicPackets, c.Commit)
	switch {
	case errors.Is(err, kafka.ErrFenced):
		return errOver
	case err != nil:
		return err
	}
	p.committed(c, delivery.Done)
	p.unsettled, p.older = false, false
	return nil
}

func (p *partition) settling(is bool) {
	p.mu.Lock()
	p.alone = is
	p.mu.Unlock()
}

// acknowledged waits until all outputs are: those that a revision has put out may be on their way.
func (p *partition) acknowledged(ctx context.Context) error {
	for {
		p.mu.Lock()
		done := p.written.number == p.stream.Last()
		p.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// finish stores what a successor needs, when nothing is folded or written any more. leaving says that there is
// one: the service ends. Then, or where it would take longer to fold again what was folded since, it is a
// snapshot.
func (p *partition) finish(leaving bool) {
	p.storing.Wait()
	if !p.still() || !leaving && !p.pace.worth() {
		return
	}
	s, err := p.snapshot(1)
	if err == nil {
		err = p.keep(p.late, s)
	}
	if err != nil && p.late.Err() == nil {
		p.failed(err)
	}
}

// still says whether the state is one from which to go on: folded up to the end of what is in the log, and all
// its outputs acknowledged.
func (p *partition) still() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running.Load() && !p.unsettled && p.stream.Whole() && !p.stream.Silent() && p.written.number == p.stream.Last()
}

// remember returns the state for the next generation, nil if there is none to go on from.
func (p *partition) remember() *memory {
	if !p.still() {
		return nil
	}
	return &memory{p.stream, p.inputSum, delivery.Snapshot{
		State: delivery.Memory, Input: p.stream.Next(), Output: p.sure.offset,
		At: delivery.Position{Epoch: p.owner.Epoch(), Number: p.sure.number},
	}, p.pace}
}

// takeOver goes through the steps by which the partition becomes this member's.
func (p *partition) takeOver(ctx context.Context) error {
	a := p.assigned
	assignment := delivery.Assignment{
		Partition: uint32(a.Partition), Generation: uint64(p.gen.ID),
		Committed: delivery.Commit{Offset: a.Offset, Metadata: a.Metadata},
	}
	if p.memory != nil {
		assignment.Memory = &p.memory.sure
	}
	o, err := delivery.NewOwner(assignment)
	if err != nil {
		return newer(err)
	}
	p.owner = o
	for {
		switch o.Step() {
		case delivery.StepSurvey:
			err = p.survey(ctx)
		case delivery.StepClaim:
			c := o.Claim()
			err = p.gen.Commit(ctx, record.TopicPackets, kafka.Commit{Partition: a.Partition, Offset: c.Offset, Metadata: c.Metadata})
			if p.gen.Unsure() {
				o.Committed(delivery.Unknown)
			}
			switch {
			case err == nil:
				o.Claimed(delivery.Done)
			case errors.Is(err, kafka.ErrFenced):
				o.Claimed(delivery.Refused)
				err = nil
			}
		case delivery.StepMark:
			err = p.mark(ctx)
		case delivery.StepLoad:
			err = p.load(ctx)
		case delivery.StepLearn:
			err = p.learn(ctx)
		case delivery.StepRun:
			return p.begin(ctx)
		case delivery.StepLeave:
			return errOver
		}
		if err != nil {
			return err
		}
	}
}

// newer adds what to do about a version that this program does not understand.
func newer(err error) error {
	var version *record.VersionError
	if errors.As(err, &version) {
		return fmt.Errorf("%w: a newer enricher owned the partition; upgrade this one, it has left the group", err)
	}
	return err
}

// begin lets the fold go on under the owner's epoch.
func (p *partition) begin(ctx context.Context) error {
	o := p.owner
	last := o.State().At.Number
	if o.State().State == delivery.Memory {
		last = p.stream.Last()
	}
	numbers := o.Numbers(last)
	if p.stream.Revising() {
		numbers = o.Numbers(numbers.Silent()) // its outputs are others
	}
	p.stream.Continue(o.Epoch(), numbers, p.emit)
	if err := p.stream.Fold().Label(p.labelSource(ctx)); err != nil {
		return err
	}
	p.noteLabels()
	p.written = written{max(last, numbers.Silent()), p.marker + 1}
	p.sure = p.written
	p.uncounted()
	p.counts.assigned.Inc()
	how := "snapshot"
	switch o.State().State {
	case delivery.Memory:
		how = "memory"
	case delivery.Nothing:
		how = "nothing"
	}
	p.log.Info("took the partition over", "partition", p.assigned.Partition, "epoch", o.Epoch(), "from", how, "sessions", p.stream.Fold().Open(), "offset", p.stream.Next(), "number", last, "written", numbers.Silent())
	if lost := o.Lost(); lost != nil {
		p.counts.degraded.Inc()
		p.log.Warn("outputs begin anew: what earlier ones count may be counted again", "partition", p.assigned.Partition, "epoch", o.Epoch(), "offset", o.Input(), "reason", lost)
	}
	return nil
}

// noteLabels notes which label set is in force.
func (p *partition) noteLabels() {
	d := labels.NewSet().Digest()
	if named := p.stream.Fold().LabelSet(); len(named.Parts) > 0 {
		d = labels.Digest(named.Digest)
	}
	if was := p.inForce.Load(); was == nil || *was != d {
		p.inForce.Store(&d)
	}
}

// load loads the state that the owner names.
func (p *partition) load(ctx context.Context) error {
	o, s := p.owner, p.owner.State()
	f, out := p.config.settings()
	c := output.Config{Partition: uint32(p.assigned.Partition), Fold: f, Output: out, Labels: p.labelSource(ctx)}
	p.inputSum, p.pace, p.older = 0, pace{taken: time.Now()}, false
	switch s.State {
	case delivery.Memory:
		p.stream, p.inputSum, p.pace = p.memory.stream, p.memory.inputSum, p.memory.pace
	case delivery.Nothing:
		p.stream = output.New(c, nil)
		p.stream.Begin(s.Input)
	default:
		began := time.Now()
		chunks, sum, err := p.fetchSnapshot(ctx, s)
		if err == nil {
			p.stream, p.older, err = unpack(chunks, c)
		}
		if err == nil && p.older {
			p.log.Info("the snapshot is of an older version: what was put out since is compared with what this one puts out", "partition", p.assigned.Partition, "offset", s.State)
			p.stream.Revise()
		}
		var version *record.VersionError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &version):
			return newer(err)
		case err != nil:
			p.counts.damaged.Inc()
			p.log.Warn("a snapshot cannot be read; trying the one before it", "topic", record.TopicState, "partition", p.assigned.Partition, "offset", s.State, "error", err)
			o.Loaded(false)
			return nil
		}
		p.inputSum = sum
		for _, c := range chunks {
			p.pace.size += len(c)
		}
		p.log.Info("loaded a snapshot", "partition", p.assigned.Partition, "offset", s.State, "sessions", p.stream.Fold().Open(), "bytes", p.pace.size, "took", time.Since(began).Round(time.Millisecond))
	}
	remade, err := p.remade(ctx, s)
	if err != nil {
		return err
	}
	if remade != nil {
		o.Renew(remade)
		return nil
	}
	o.Loaded(true)
	return nil
}

// remade says why the input cannot be the one that the state comes from; nil: it can. It compares the last
// record that the state includes, where that is still there.
func (p *partition) remade(ctx context.Context, s delivery.Snapshot) (remade, err error) {
	topic := fmt.Sprintf("%s/%d", record.TopicPackets, p.assigned.Partition)
	first, end, err := p.offsets(ctx, record.TopicPackets, p.assigned.Partition)
	switch {
	case err != nil:
		return nil, err
	case s.Input > end:
		return fmt.Errorf("%s ends at offset %d, and was folded up to %d: it was made anew, or offsets were set by hand", topic, end, s.Input), nil
	case s.State == delivery.Nothing || s.Input <= first:
		return nil, nil
	}
	f, err := p.read(ctx, record.TopicPackets, p.assigned.Partition, s.Input-1)
	if errors.Is(err, kafka.ErrOffsetOutOfRange) {
		return nil, nil // by retention, just now
	} else if err != nil {
		return nil, err
	}
	if len(f.Records) > 0 && f.Records[0].Offset == s.Input-1 && crc32.Checksum(f.Records[0].Value, castagnoli) != p.inputSum {
		return fmt.Errorf("%s has another record at offset %d than was folded: it was made anew", topic, s.Input-1), nil
	}
	return nil, nil
}

// learn reads the outputs behind the state, up to the owner's marker.
func (p *partition) learn(ctx context.Context) error {
	o := p.owner
	for next := o.State().Output; o.Step() == delivery.StepLearn; {
		if next > p.marker {
			o.Renew(fmt.Errorf("%s/%d ends at offset %d, and was written up to %d: it was made anew", record.TopicSessions, p.writer.partition, p.marker, next))
			return nil
		}
		f, err := p.read(ctx, record.TopicSessions, p.writer.partition, next)
		if errors.Is(err, kafka.ErrOffsetOutOfRange) {
			first, _, err := p.offsets(ctx, record.TopicSessions, p.writer.partition)
			if err != nil {
				return err
			}
			next = max(first, next+1) // retention was faster
			continue
		} else if err != nil {
			return err
		}
		for _, r := range f.Records {
			// A record that is none of ours says nothing about numbers; the sink counts it.
			if s, err := record.UnmarshalSessions(r.Value); err == nil {
				if e, err := delivery.EntryOf(s, p.config.Partitions); err == nil && o.Learn(e) && p.stream.Revising() {
					if err := p.stream.Emitted(s.GetOutput()); err != nil { // the sink does not count it either
						p.log.Warn("an output does not decode", "topic", record.TopicSessions, "partition", p.writer.partition, "offset", r.Offset, "error", err)
					}
				}
			}
		}
		next = f.Next
	}
	return nil
}

// survey reads the partition's outputs, of which nothing is known from a commit.
func (p *partition) survey(ctx context.Context) error {
	first, end, err := p.offsets(ctx, record.TopicSessions, p.writer.partition)
	if err != nil {
		return err
	}
	for next := first; next < end; {
		f, err := p.read(ctx, record.TopicSessions, p.writer.partition, next)
		if errors.Is(err, kafka.ErrOffsetOutOfRange) {
			return p.survey(ctx) // retention was faster
		} else if err != nil {
			return err
		}
		for _, r := range f.Records {
			// A record that is none of ours says nothing about epochs.
			if s, err := record.UnmarshalSessions(r.Value); err == nil {
				if e, err := delivery.EntryOf(s, p.config.Partitions); err == nil {
					p.owner.Survey(e)
				}
			}
		}
		next = f.Next
	}
	input, _, err := p.offsets(ctx, record.TopicPackets, p.assigned.Partition)
	if err != nil {
		return err
	}
	p.owner.Surveyed(end, input)
	return nil
}

// mark writes the epoch marker and waits until it is in the log.
func (p *partition) mark(ctx context.Context) error {
	m := p.owner.Marker()
	value, err := record.MarshalSessions(&pb.SessionsRecord{
		InputPartition: m.Partition, LogEpoch: m.Log, OwnerEpoch: m.Owner,
		Body: &pb.SessionsRecord_Marker{Marker: &pb.Marker{Owner: p.config.Name, Continues: m.Continues}},
	})
	if err != nil {
		return err
	}
	written := make(chan int64, 1)
	if err := p.writer.put(ctx, p.entry(value, func(offset int64) { written <- offset })); err != nil {
		return err
	}
	select {
	case p.marker = <-written:
		p.owner.Marked()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fetch reads the partition on and hands it to the fold, one fetch ahead of it.
func (p *partition) fetch(ctx context.Context, to chan<- kafka.Fetched) {
	next := p.stream.Next()
	for {
		f, err := p.read(ctx, record.TopicPackets, p.assigned.Partition, next)
		if errors.Is(err, kafka.ErrOffsetOutOfRange) {
			first, end, err := p.offsets(ctx, record.TopicPackets, p.assigned.Partition)
			if err != nil {
				return
			}
			if next < first {
				p.counts.passed.Add(uint64(first - next))
			}
			p.limited.Warn("passed", "the offset to go on from is not in the log; going on from the earliest", "topic", record.TopicPackets, "partition", p.assigned.Partition, "offset", next, "earliest", first, "end", end)
			next = first
			continue
		} else if err != nil {
			return
		}
		select {
		case to <- f:
			next = f.Next
		case <-ctx.Done():
			return
		}
	}
}

// read fetches from an offset on, and tries again until ctx is done or the offset is out of range.
func (p *partition) read(ctx context.Context, topic string, partition int, offset int64) (f kafka.Fetched, err error) {
	err = kafka.Retry{}.Do(ctx, func() (err error) {
		f, err = p.client.Fetch(ctx, topic, partition, offset, fetchBytes, fetchWait)
		if errors.Is(err, kafka.ErrOffsetOutOfRange) {
			return kafka.Permanent(err)
		}
		return err
	}, p.failed)
	return f, err
}

func (p *partition) offsets(ctx context.Context, topic string, partition int) (first, end int64, err error) {
	err = kafka.Retry{}.Do(ctx, func() (err error) {
		first, end, err = p.client.Offsets(ctx, topic, partition)
		return err
	}, p.failed)
	return first, end, err
}

// tick appends the time to the partition about once a second. One that fails is left out: the next one says
// more.
func (p *partition) tick(ctx context.Context) {
	epoch := p.owner.Epoch()
	every := time.NewTicker(tickEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		value, err := record.MarshalPackets(&pb.PacketsRecord{Body: &pb.PacketsRecord_Tick{
			Tick: &pb.Tick{LogEpoch: epoch.Log, OwnerEpoch: epoch.Owner, Clock: time.Now().UnixNano()},
		}})
		if err == nil {
			_, err = p.client.Produce(ctx, record.TopicPackets, p.assigned.Partition, kafka.Record{Value: value})
		}
		if err != nil {
			p.failed(err)
		}
	}
}
