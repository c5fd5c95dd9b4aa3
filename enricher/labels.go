package enricher

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/enricher/labels"
	"github.com/tapweave/tapweave/enricher/labels/source"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
)

const (
	// labelRefresh is how often a label set is written anew and named anew, so that it stays within the retention of
	// tapweave.state for as long as a snapshot or a control record names it.
	labelRefresh = 6 * time.Hour
	// labelAgain is after how long a set that is not in force yet is named once more.
	labelAgain = 30 * time.Second
	// knownParts is how many parts of label sets are kept in memory beside those that folds use.
	knownParts = 8
	// maxLabelBytes bounds a part of a label set, decompressed.
	maxLabelBytes = 4 << 30
)

// labelStore is what the instance knows of label sets. It is shared by its partitions.
type labelStore struct {
	mu      sync.Mutex
	wanted  *wantedLabels // what the files say; nil until they could be read
	changed chan struct{} // closed when wanted changes
	known   []*labels.Part

	fetching sync.Mutex // held while parts are fetched, so that each is fetched once

	writing sync.Mutex // held while parts are written, so that each is written once
	written map[labels.Digest]storedPart
}

type wantedLabels struct {
	set   *labels.Set
	parts []source.Compiled
}

// storedPart is where a part stands on tapweave.state, and since when.
type storedPart struct {
	*pb.LabelPart
	since time.Time
}

func newLabelStore() *labelStore {
	return &labelStore{changed: make(chan struct{}), written: map[labels.Digest]storedPart{}}
}

// want returns the set that is to be in force, nil where that is not known, and a channel that is closed when it
// changes.
func (l *labelStore) want() (*wantedLabels, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wanted, l.changed
}

// set says which set is to be in force.
func (l *labelStore) set(w *wantedLabels) (was *wantedLabels) {
	l.mu.Lock()
	defer l.mu.Unlock()
	was, l.wanted = l.wanted, w
	close(l.changed)
	l.changed = make(chan struct{})
	return was
}

// part returns a part that is in memory, nil if it is not.
func (l *labelStore) part(d labels.Digest) *labels.Part {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wanted != nil {
		for _, p := range l.wanted.parts {
			if p.Digest() == d {
				return p.Part
			}
		}
	}
	for _, p := range l.known {
		if p.Digest() == d {
			return p
		}
	}
	return nil
}

// keep keeps a part that was fetched.
func (l *labelStore) keep(p *labels.Part) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known = append(l.known, p); len(l.known) > knownParts {
		l.known = slices.Delete(l.known, 0, 1)
	}
}

// runLabels reads the files of labels whenever they change. What cannot be read leaves the labels as they are.
func (s *Service) runLabels(ctx context.Context) {
	if s.config.Labels.Empty() {
		s.labels.set(&wantedLabels{set: labels.NewSet()})
		return
	}
	c := source.NewCompiler(s.config.Labels)
	told := ""
	source.Watch(ctx, s.config.Labels, func() {
		began := time.Now()
		var set *labels.Set
		var parts []source.Compiled
		var err error
		beside(func() { set, parts, err = c.Compile() })
		if err != nil {
			if s.counts.labelsRefused.Inc(); told != err.Error() {
				told = err.Error()
				s.log.Error("labels cannot be read; those before stay in force", "error", err)
			}
			return
		}
		told = ""
		was, _ := s.labels.want()
		if was != nil && was.set.Digest() == set.Digest() {
			return
		}
		s.labels.set(&wantedLabels{set, parts})
		s.counts.labelsRead.Inc()
		sizes := make([]int, len(parts))
		for i, p := range parts {
			sizes[i] = p.Len()
		}
		s.log.Info("read labels", "set", set.Digest(), "entries", fmt.Sprint(sizes), "took", time.Since(began).Round(time.Millisecond))
	})
}

// spare counts who works beside the folds.
var spare struct {
	sync.Mutex
	busy   int
	before int // GOMAXPROCS
}

// beside does work that takes long. Go's scheduler takes a processor away from a goroutine that computes after 10 ms, and
// not before: with two processors, one of them the garbage collector's for a while, folds wait for that. With one more
// than there are, the kernel shares them out, and lets folds go first, as the work is nicer than they are.
func beside(work func()) {
	change := func(n int) {
		spare.Lock()
		defer spare.Unlock()
		was := spare.busy
		spare.busy += n
		_, fixed := os.LookupEnv("GOMAXPROCS")
		switch {
		case was == 0:
			spare.before = runtime.GOMAXPROCS(0)
			runtime.GOMAXPROCS(spare.before + 1)
		case spare.busy > 0:
		case fixed:
			runtime.GOMAXPROCS(spare.before)
		default:
			runtime.SetDefaultGOMAXPROCS() // which goes on to follow the limits of a container
		}
	}
	change(1)
	defer change(-1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // for good: the thread ends with the goroutine, as it may not become less nice again
		syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), niceness)
		work()
	}()
	<-done
}

// niceness of work beside the folds: a tenth of a processor that they want, and all of one that they do not.
const niceness = 10

// label appends control records to the partition that name the label set that is to be in force: when the partition
// was taken over, when the files change, and now and then.
func (p *partition) label(ctx context.Context) {
	none := labels.NewSet().Digest()
	again := time.NewTicker(time.Second)
	defer again.Stop()
	var said labels.Digest
	var at time.Time
	for {
		w, changed := p.labels.want()
		if w != nil {
			wanted, in := w.set.Digest(), *p.inForce.Load()
			since := time.Since(at)
			if in != wanted && (said != wanted || since >= labelAgain) || wanted != none && since >= labelRefresh {
				if err := p.name(ctx, w); err == nil {
					said, at = wanted, time.Now()
				} else if ctx.Err() == nil {
					p.failed(err)
				}
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-again.C:
		}
	}
}

// name writes what of a label set is not on tapweave.state yet, and then the control record that names it.
func (p *partition) name(ctx context.Context, w *wantedLabels) error {
	epoch := p.owner.Epoch()
	m := &pb.LabelSet{LogEpoch: epoch.Log, OwnerEpoch: epoch.Owner}
	for _, part := range w.parts {
		stored, err := p.storePart(ctx, part)
		if err != nil {
			return err
		}
		m.Parts = append(m.Parts, stored)
	}
	if len(w.parts) > 0 {
		m.Digest = w.set.Named().Digest
	}
	value, err := record.MarshalPackets(&pb.PacketsRecord{Body: &pb.PacketsRecord_LabelSet{LabelSet: m}})
	if err != nil {
		return err
	}
	_, err = p.client.Produce(ctx, record.TopicPackets, p.assigned.Partition, kafka.Record{Value: value})
	return err
}

// storePart writes a part to tapweave.state, unless this instance did not long ago.
func (p *partition) storePart(ctx context.Context, part source.Compiled) (*pb.LabelPart, error) {
	l := p.labels
	l.writing.Lock()
	defer l.writing.Unlock()
	digest := part.Digest()
	if s, ok := l.written[digest]; ok && time.Since(s.since) < labelRefresh/2 {
		return s.LabelPart, nil
	}
	chunks, err := packPart(part.Bytes)
	if err != nil {
		return nil, err
	}
	to := int(binary.BigEndian.Uint32(digest[:]) % uint32(p.config.Partitions))
	at := int64(-1)
	for i, chunk := range chunks {
		value, err := record.MarshalState(&pb.StateRecord{Body: &pb.StateRecord_LabelSet{LabelSet: &pb.LabelSetChunk{
			Digest: digest[:], Chunk: uint32(i), Chunks: uint32(len(chunks)), Data: chunk,
		}}})
		if err != nil {
			return nil, err
		}
		r := []kafka.Record{{Key: []byte("labels"), Value: value}}
		offset, err := p.client.ProduceRetry(ctx, record.TopicState, to, func() ([]kafka.Record, error) { return r, nil }, p.failed)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			at = offset
		}
	}
	s := storedPart{&pb.LabelPart{Digest: digest[:], StatePartition: uint32(to), StateOffset: at}, time.Now()}
	l.written[digest] = s
	p.counts.labelsWritten.Inc()
	return s.LabelPart, nil
}

// packPart returns a part, compressed and cut to the size of records. It takes one processor at most: the folds have
// the others.
func packPart(b []byte) (chunks [][]byte, err error) {
	beside(func() {
		var c chunker
		var z *zstd.Encoder
		if z, err = zstd.NewWriter(&c, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true)); err == nil {
			_, err = z.Write(b)
			err = errors.Join(err, z.Close())
		}
		chunks = c.chunks
	})
	return chunks, err
}

// labelSource gives the fold the label sets that the log names.
func (p *partition) labelSource(ctx context.Context) fold.LabelSource {
	return func(named *pb.LabelSet) (*labels.Set, error) {
		if w, _ := p.labels.want(); w != nil && bytes.Equal(w.set.Named().Digest, named.Digest) {
			return w.set, nil
		}
		p.labels.fetching.Lock()
		defer p.labels.fetching.Unlock()
		var parts []*labels.Part
		for _, n := range named.Parts {
			if len(n.Digest) != len(labels.Digest{}) {
				return p.lost(n, errors.New("the digest has another length"))
			}
			part := p.labels.part(labels.Digest(n.Digest))
			if part == nil {
				b, err := p.fetchPart(ctx, n)
				if err == nil {
					part, err = labels.Decode(b)
				}
				var version *record.VersionError
				switch {
				case ctx.Err() != nil:
					return nil, ctx.Err()
				case errors.As(err, &version):
					return nil, newer(err)
				case err != nil:
					return p.lost(n, err)
				}
				p.counts.labelsFetched.Inc()
				p.labels.keep(part)
			}
			parts = append(parts, part)
		}
		return labels.NewSet(parts...), nil
	}
}

// lost tells of a label set that cannot be had any more.
func (p *partition) lost(n *pb.LabelPart, err error) (*labels.Set, error) {
	p.log.Warn("a label set that the log names cannot be read: sessions go without labels until another is named",
		"topic", record.TopicState, "partition", n.StatePartition, "offset", n.StateOffset, "error", err)
	return nil, nil
}

// errLabels is wrapped by the errors about a part of a label set that is not where it was said to be.
var errLabels = errors.New("no such label set")

// fetchPart reads the bytes of a part. Records of snapshots, and of the same part written by others, may stand
// between its own.
func (p *partition) fetchPart(ctx context.Context, n *pb.LabelPart) ([]byte, error) {
	partition := int(n.StatePartition)
	if partition >= p.config.Partitions {
		return nil, fmt.Errorf("%w: partition %d of %d", errLabels, partition, p.config.Partitions)
	}
	_, end, err := p.offsets(ctx, record.TopicState, partition)
	if err != nil {
		return nil, err
	}
	var chunks []io.Reader
	total, size := 0, 0
	for next := n.StateOffset; next < end; {
		f, err := p.read(ctx, record.TopicState, partition, next)
		if errors.Is(err, kafka.ErrOffsetOutOfRange) {
			return nil, fmt.Errorf("%w: removed by retention, or the topic was made anew", errLabels)
		} else if err != nil {
			return nil, err
		}
		for _, r := range f.Records {
			s, err := record.UnmarshalState(r.Value)
			var version *record.VersionError
			if errors.As(err, &version) {
				return nil, err
			}
			c := s.GetLabelSet()
			if err != nil || c == nil || !bytes.Equal(c.Digest, n.Digest) || int(c.Chunk) != len(chunks) {
				continue
			}
			if total == 0 {
				if total = int(c.Chunks); total > maxChunks {
					return nil, fmt.Errorf("%w: %d parts", errLabels, total)
				}
			}
			chunks = append(chunks, bytes.NewReader(c.Data))
			if size += len(c.Data); len(chunks) == total {
				return unpackPart(io.MultiReader(chunks...), size, n.Digest)
			}
		}
		next = f.Next
	}
	return nil, fmt.Errorf("%w: %d of %d parts", errLabels, len(chunks), total)
}

// unpackPart decompresses a part, and checks that it is the one that was asked for.
func unpackPart(r io.Reader, size int, digest []byte) ([]byte, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(16<<20))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	b, err := io.ReadAll(io.LimitReader(z, min(int64(size)*maxExpansion+1<<20, maxLabelBytes)))
	if err != nil {
		return nil, err
	}
	if d := labels.DigestOf([][]byte{b}); !bytes.Equal(d[:], digest) {
		return nil, fmt.Errorf("%w: its digest is %x, not %x", errLabels, d, digest)
	}
	return b, nil
}
