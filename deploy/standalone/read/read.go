// Package read weaves captures into sessions, in one process and without servers.
//
// It is the pipeline of the services on an in-memory log: the frames of the captures (input.go) are spread
// over collectors as a load balancer would spread them (spread.go, arrival.go), each collector decodes and
// batches them, the batches are records of a partitioned log (log.go), and a fold a partition takes these
// records, and nothing else, and gives sessions (folds.go), which are printed (format.go, table.go).
package read

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tapweave/tapweave/collector/batcher"
	"github.com/tapweave/tapweave/collector/decode"
	"github.com/tapweave/tapweave/collector/sample"
	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/enricher/labels"
	"github.com/tapweave/tapweave/enricher/labels/source"
	"github.com/tapweave/tapweave/proto/batch"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
)

// Options of a reading.
type Options struct {
	// Format is json (one flat object a line), table (for people), or ecs, ocsf or asim (the documents of the topics for
	// SIEMs).
	Format string
	// Collectors is how many collectors the packets go through, at least 1; Split is how they are spread.
	Collectors int
	Split      Split
	// Jitter is the most by which a packet's arrival is delayed. Time stamps stay those of the capture.
	Jitter time.Duration
	// Duplicate mirrors each packet at two tap points.
	Duplicate bool
	// Sampling is whose payload travels. Default: all of it, as it is.
	Sampling sample.Configuration
	// Fold is how packets become sessions. Its number of partitions is that of the log.
	Fold fold.Settings
	// Labels are files of networks, places and threat lists that the sessions are labelled by.
	Labels source.Config
}

// DefaultOptions are one collector, no delay, JSON, and the fold of the services, but that no packet is ever
// late: the watermark is never broken.
func DefaultOptions() Options {
	o := Options{Format: "json", Collectors: 1, Sampling: sample.Configuration{Mode: sample.All}, Fold: fold.DefaultSettings()}
	o.Fold.LateLimit = 0
	o.Fold.MaxWaiting = math.MaxInt // it is bounded by the jitter
	return o
}

// maxCollectors bounds what --collectors may ask for.
const maxCollectors = 1024

// Check says what is wrong with the options.
func (o Options) Check() error {
	if _, err := newFormat(o.Format); err != nil {
		return err
	}
	switch {
	case o.Collectors < 1 || o.Collectors > maxCollectors:
		return fmt.Errorf("%d collectors: must be 1 to %d", o.Collectors, maxCollectors)
	case int(o.Split) >= len(splitNames):
		return fmt.Errorf("unknown split %d", o.Split)
	case o.Jitter < 0 || o.Jitter > time.Hour:
		return fmt.Errorf("jitter %v: must be 0 to 1h", o.Jitter)
	case o.Fold.Partitions < 1:
		return fmt.Errorf("%d partitions: must be at least 1", o.Fold.Partitions)
	case o.Fold.KeepPayload < 0 || o.Fold.KeepPayload > fold.MaxKeepPayload:
		return fmt.Errorf("%d bytes of payload: must be 0 to %d", o.Fold.KeepPayload, fold.MaxKeepPayload)
	}
	return o.Sampling.Validate()
}

// Result says what a reading could not take in.
type Result struct {
	Frames  uint64                    // read from the captures
	Raised  uint64                    // frames whose stamp went back too far
	Decoded [decode.NumReasons]uint64 // mirrored frames by what the collectors made of them
	Folds   [fold.Reasons]uint64      // what the folds counted
	Damaged []error                   // one for each file that could not be read to its end
	Foreign []string                  // link types that are not decoded, a line each, with file and interface
}

// String is one line about what was not taken in, or empty.
func (r *Result) String() string {
	var parts []string
	var all, left uint64
	for i, n := range r.Decoded {
		all += n
		if reason := decode.Reason(i); reason != decode.OK && n > 0 {
			left += n
			parts = append(parts, fmt.Sprintf("%s %d", reason, n))
		}
	}
	text := ""
	if left > 0 {
		text = fmt.Sprintf("%d of %d frames hold no packet: %s", left, all, strings.Join(parts, ", "))
	}
	parts = parts[:0]
	for _, reason := range reported {
		if n := r.Folds[reason]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", reason, n))
		}
	}
	if r.Raised > 0 {
		parts = append(parts, fmt.Sprintf("time_stamps_raised %d", r.Raised))
	}
	if text != "" && len(parts) > 0 {
		text += "; "
	}
	return text + strings.Join(parts, ", ")
}

// reported are the counts of the fold that tell of something left out.
var reported = []fold.Reason{
	fold.Undecodable, fold.OtherPartitions, fold.TooLate, fold.Late,
	fold.FragmentsUnowned, fold.FragmentsEvicted, fold.DatagramsBroken, fold.SessionsEvicted,
}

// Run reads files and prints their sessions on out. A damaged file is no error: it is in the result.
func Run(o Options, files []string, out io.Writer) (Result, error) {
	if err := o.Check(); err != nil {
		return Result{}, err
	}
	return newReader(o).run(files, out)
}

// errStopped ends the reading where the folds have failed.
var errStopped = errors.New("nobody folds")

const (
	// maxBack is how far, in nanoseconds, a time stamp may lie behind the greatest before it.
	maxBack = int64(time.Second)
	// roundPackets and roundTime bound what the collectors hold before they publish it: packets, and
	// nanoseconds of the input's clock.
	roundPackets = 32 << 10
	roundTime    = int64(5 * time.Second)
)

// reader is one reading.
type reader struct {
	options    Options
	log        *memoryLog
	collectors []*collector
	spread     spread
	probe      *decode.Decoder // finds the flow of a frame before it is spread
	under      arrivals        // way to the collectors
	clock      int64           // greatest time stamp so far
	now        int64           // arrival of the last packet dealt with, by the same clock
	published  int64           // now when the collectors last published
	held       int             // packets since then
	result     Result
	err        error       // of the log
	labels     *labels.Set // nil: none

	// See the constants.
	roundPackets int
	roundTime    int64

	// folded, where it is set, is called with each record when it has been folded.
	folded func(partition int, offset int64, value []byte)
}

// collector is the part of the collector service between its sockets and the broker.
type collector struct {
	decoder *decode.Decoder
	sampler *sample.Sampler
	batcher *batcher.Batcher
}

func newReader(o Options) *reader {
	return &reader{
		options: o,
		spread:  spread{split: o.Split, collectors: o.Collectors},
		probe:   decode.New(decoderConfiguration()),

		roundPackets: roundPackets,
		roundTime:    roundTime,
	}
}

// decoderConfiguration is what a collector of the service has by default, with the payload for the sampler.
func decoderConfiguration() decode.Configuration {
	c := decode.DefaultConfiguration()
	c.Payload = true
	return c
}

func (r *reader) run(files []string, out io.Writer) (Result, error) {
	f, err := newFormat(r.options.Format)
	if err != nil {
		return Result{}, err
	}
	stop := make(chan struct{})
	r.log = newMemoryLog(r.options.Fold.Partitions, stop)
	if !r.options.Labels.Empty() {
		if r.labels, _, err = source.NewCompiler(r.options.Labels).Compile(); err != nil {
			return Result{}, err
		}
	}
	folds := newFolds(r.options.Fold, f, out)
	folds.label(r.labels)
	folds.folded = r.folded
	var failed error
	var wg sync.WaitGroup
	wg.Go(func() {
		if failed = folds.run(r.log); failed != nil {
			close(stop)
		}
	})
	err = r.read(files)
	r.log.close()
	wg.Wait()
	for _, c := range r.collectors {
		for i, n := range c.decoder.Counts {
			r.result.Decoded[i] += n
		}
	}
	r.result.Folds = folds.counts()
	if failed != nil {
		err = failed
	}
	return r.result, err
}

// read takes the frames of the files through the collectors to the log.
func (r *reader) read(files []string) error {
	in := openInput(files)
	defer in.close()
	for f := in.next(); f != nil && r.err == nil; f = in.next() {
		if r.collectors == nil {
			r.start(f.time)
		}
		r.take(f)
	}
	r.result.Damaged, r.result.Foreign = in.damaged, slices.Sorted(maps.Keys(in.foreign))
	if r.collectors == nil {
		r.start(0)
	}
	for a := r.under.next(math.MaxInt64); a != nil && r.err == nil; a = r.under.next(math.MaxInt64) {
		// The input's clock stands still now: no stamp lies behind it.
		a.frame.time = min(a.frame.time, r.clock)
		r.arrive(a)
	}
	return r.end()
}

// start announces the collectors, by the clock of the input's first frame.
func (r *reader) start(clock int64) {
	r.clock, r.now, r.published = clock, clock, clock
	for i := range r.options.Fold.Partitions {
		if r.labels != nil && r.err == nil {
			r.err = r.log.append(i, &pb.PacketsRecord{Body: &pb.PacketsRecord_LabelSet{LabelSet: r.labels.Named()}})
		}
	}
	for i := range r.options.Collectors {
		c := batcher.DefaultConfiguration(fmt.Sprintf("collector-%d", i+1), 1, r.options.Fold.Partitions)
		c.Compression = batch.None
		b := batcher.New(c, 1, r.append)[0]
		b.Hello(r.watermark())
		r.collectors = append(r.collectors, &collector{decode.New(decoderConfiguration()), sample.New(r.options.Sampling), b})
	}
}

// watermark is the time before which no packet will arrive any more.
func (r *reader) watermark() int64 { return r.now - int64(r.options.Jitter) - maxBack }

// append puts a batch on the log. It bears no clock: all collectors have the file's, which leaps.
func (r *reader) append(partition int, b *pb.PacketBatch) {
	if err := r.log.append(partition, &pb.PacketsRecord{Body: &pb.PacketsRecord_Batch{Batch: b}}); err != nil && r.err == nil {
		r.err = err
	}
}

// end ends the input on every partition.
func (r *reader) end() error {
	for _, c := range r.collectors {
		c.batcher.Goodbye(r.clock + 1)
	}
	for i := range r.options.Fold.Partitions {
		err := r.log.append(i, &pb.PacketsRecord{Body: &pb.PacketsRecord_EndOfInput{EndOfInput: &pb.EndOfInput{}}})
		if err != nil && r.err == nil {
			r.err = err
		}
	}
	r.log.deliver()
	return r.err
}

// take puts a frame on its way, and lets arrive what is due by then.
func (r *reader) take(f *frame) {
	r.result.Frames++
	if back := r.clock - maxBack; f.time < back {
		f.time = back
		r.result.Raised++
	}
	r.clock = max(r.clock, f.time)
	o := &r.options
	if o.Jitter == 0 && !o.Duplicate {
		r.now = r.clock
		var to route
		if o.Collectors > 1 {
			to = r.spread.route(r.flow(f), r.result.Frames, 0)
		}
		r.deliver(f, 0, to)
		return
	}
	flow := r.flow(f)
	random := scramble(r.result.Frames)
	copies := 1
	if o.Duplicate {
		copies = 2
	}
	for i := range copies {
		a := r.under.new()
		a.time, a.number, a.end, a.route = r.clock, r.result.Frames, i, r.spread.route(flow, r.result.Frames, i)
		a.frame.copy(f)
		if i == 1 {
			behind := int64(random % maxCopyDelay)
			if random&(1<<40) != 0 {
				behind = 0
			}
			a.frame.time += behind
			a.time += behind
			if flow != nil && flow.SrcPort&1 != flow.DstPort&1 {
				a.frame.forward()
			}
		}
		if o.Jitter > 0 {
			a.time += int64(scramble(random+uint64(i)) % uint64(o.Jitter+1))
		}
		r.under.add(a)
	}
	for a := r.under.next(r.clock); a != nil; a = r.under.next(r.clock) {
		r.arrive(a)
	}
}

// flow returns the flow of a frame as it stands in the capture, or nil.
func (r *reader) flow(f *frame) *packet.Flow {
	if r.probe.Frame(f.time, f.link, f.data, f.original) != decode.OK {
		return nil
	}
	return &r.probe.Flow
}

// arrive ends the way of a packet.
func (r *reader) arrive(a *arrival) {
	r.now = max(r.now, a.time)
	r.deliver(&a.frame, a.end, a.route)
	r.under.done(a)
}

// deliver gives a frame to a collector: as it stands in the capture where there is nothing to spread, else as
// a tap has mirrored it.
func (r *reader) deliver(f *frame, end int, to route) {
	c := r.collectors[to.collector]
	if r.options.Collectors == 1 && !r.options.Duplicate {
		r.add(c, c.decoder.Frame(f.time, f.link, f.data, f.original))
		return
	}
	t := &taps[end]
	carrier := packet.Carrier{Source: t.address, VNI: t.vni}
	r.add(c, c.decoder.Mirrored(f.time, carrier, to.port, f.link, f.data, f.original))
}

// add takes what a collector's decoder has made of a frame into the collector's batches.
func (r *reader) add(c *collector, reason decode.Reason) {
	if reason == decode.OK {
		c.sampler.Apply(&c.decoder.Flow, &c.decoder.Packet)
		c.batcher.Take(&c.decoder.Flow, &c.decoder.Packet)
	}
	if r.held++; r.held >= r.roundPackets || r.now-r.published >= r.roundTime {
		r.publish()
	}
}

// publish lets every collector send what it holds, and its word on time.
func (r *reader) publish() {
	for _, c := range r.collectors {
		c.batcher.Flush(r.watermark())
	}
	r.held, r.published = 0, r.now
	if !r.log.deliver() && r.err == nil {
		r.err = errStopped
	}
}
