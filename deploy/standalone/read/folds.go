package read

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/enricher/labels"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/session"
)

// recordFold is all that is used of a fold: it takes records, and says how far it is.
type recordFold interface {
	Record(offset int64, value []byte) error
	Watermark() int64
	Counts() [fold.Reasons]uint64
}

// folds reads the log, folds each partition, and prints the sessions in the order in which they settle.
type folds struct {
	partitions []*partition
	format     format
	out        *bufio.Writer
	rows       []row // scratch: what is printed now

	// folded, where it is set, is called with each record that was folded, by several goroutines at once.
	folded func(partition int, offset int64, value []byte)
}

// partition folds one partition and keeps what settled in it until it can be printed. It is a fold.Output.
type partition struct {
	fold   recordFold
	format format
	rows   []row
	text   []byte // of the rows
	row    columns.Session
	alerts map[session.ID][]byte // text of those raised by sessions that have not settled
}

// row is a session in its last version: its place in the order of printing, and its text.
type row struct {
	at, start int64
	id        session.ID
	text      []byte
}

func (a row) compare(b row) int {
	return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.start, b.start), bytes.Compare(a.id[:], b.id[:]))
}

func newFolds(settings fold.Settings, f format, out io.Writer) *folds {
	fs := &folds{format: f, out: bufio.NewWriterSize(out, 64<<10)}
	for i := range settings.Partitions {
		p := &partition{format: f}
		p.fold = fold.New(i, settings, p)
		fs.partitions = append(fs.partitions, p)
	}
	return fs
}

// label gives the folds the label set that the log names.
func (fs *folds) label(set *labels.Set) {
	for _, p := range fs.partitions {
		p.fold.(*fold.Fold).Label(func(*pb.LabelSet) (*labels.Set, error) { return set, nil })
	}
}

// run folds and prints until the log is closed or something fails.
func (fs *folds) run(log *memoryLog) error {
	for r := range log.rounds {
		if err := fs.round(r); err != nil {
			return err
		}
		if err := fs.print(false); err != nil {
			return err
		}
		log.release(r)
	}
	if err := fs.print(true); err != nil {
		return err
	}
	if err := fs.format.end(fs.out); err != nil {
		return err
	}
	return fs.out.Flush()
}

// round folds the records of a round, several partitions at a time.
func (fs *folds) round(r *round) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	for range min(runtime.GOMAXPROCS(0), len(fs.partitions)) {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(fs.partitions) {
					return
				}
				for _, rec := range (*r)[i] {
					if err := fs.partitions[i].fold.Record(rec.offset, rec.value); err != nil {
						err = fmt.Errorf("partition %d, offset %d: %w", i, rec.offset, err)
						failed.CompareAndSwap(nil, &err)
						return
					}
					if fs.folded != nil {
						fs.folded(i, rec.offset, rec.value)
					}
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// print writes the sessions that settled before the watermark of every partition, or all at the end of input.
func (fs *folds) print(end bool) error {
	watermark := fs.partitions[0].fold.Watermark()
	for _, p := range fs.partitions[1:] {
		watermark = min(watermark, p.fold.Watermark())
	}
	rows := fs.rows[:0]
	for _, p := range fs.partitions {
		kept := p.rows[:0]
		for _, r := range p.rows {
			if end || r.at < watermark {
				rows = append(rows, r)
			} else {
				kept = append(kept, r)
			}
		}
		p.rows = kept
	}
	slices.SortFunc(rows, row.compare)
	for _, r := range rows {
		if err := fs.format.print(fs.out, r.text); err != nil {
			return err
		}
	}
	fs.rows = rows
	for _, p := range fs.partitions {
		if len(p.rows) == 0 {
			p.text = p.text[:0]
		}
	}
	if len(rows) == 0 {
		return nil
	}
	return fs.out.Flush()
}

// Session is a version that a later one replaces: read prints the last one only.
func (p *partition) Session(*fold.Session) {}

// Settled keeps the last version of a session.
func (p *partition) Settled(at int64, s *fold.Session) {
	s.Row(&p.row)
	from := len(p.text)
	p.text = p.format.append(p.text, &p.row)
	if text, ok := p.alerts[p.row.ID]; ok {
		p.text = append(p.text, text...)
		delete(p.alerts, p.row.ID)
	}
	p.rows = append(p.rows, row{at, p.row.Start, p.row.ID, p.text[from:len(p.text):len(p.text)]})
}

// Traffic is not printed.
func (p *partition) Traffic(*fold.Session, *columns.Traffic) {}

// Packet is not printed.
func (p *partition) Packet(*columns.Packet) {}

// Alert keeps an alert until its session is printed.
func (p *partition) Alert(a *columns.Alert) {
	text := p.format.appendAlert(p.alerts[a.SessionID], a)
	if len(text) == 0 {
		return
	}
	if p.alerts == nil {
		p.alerts = map[session.ID][]byte{}
	}
	p.alerts[a.SessionID] = text
}

// counts sums up what the folds counted.
func (fs *folds) counts() (sum [fold.Reasons]uint64) {
	for _, p := range fs.partitions {
		for i, n := range p.fold.Counts() {
			sum[i] += n
		}
	}
	return sum
}
