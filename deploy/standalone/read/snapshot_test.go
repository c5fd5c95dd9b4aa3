package read

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/enricher/labels/source"
	"github.com/tapweave/tapweave/proto/capturetest"
	"github.com/tapweave/tapweave/proto/columns"
)

// puts writes down all that a fold puts out.
type puts struct {
	text []byte
	row  columns.Session
}

func (p *puts) Session(s *fold.Session) {
	s.Row(&p.row)
	p.text = append(columns.AppendJSON(p.text, &p.row), '\n')
}

func (p *puts) Settled(at int64, s *fold.Session) {
	p.text = fmt.Appendf(p.text, "settled %d %v\n", at, s.ID())
}

func (p *puts) Traffic(_ *fold.Session, t *columns.Traffic) {
	p.text = fmt.Appendf(p.text, "%+v\n", *t)
}
func (p *puts) Packet(r *columns.Packet) { p.text = fmt.Appendf(p.text, "%+v\n", *r) }
func (p *puts) Alert(a *columns.Alert)   { p.text = fmt.Appendf(p.text, "%+v\n", *a) }

// A fold that is saved anywhere in its log, and loaded into a new one, puts out the same from there on. So does a
// fold of the same log again.
func TestSnapshots(t *testing.T) {
	for i, path := range capturetest.Files(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			o := DefaultOptions()
			o.Collectors, o.Split, o.Jitter, o.Duplicate = 3, ByPacket, 300*time.Millisecond, i%2 == 0
			o.Fold.Packets = true
			o.Labels = labelled(t)
			logs := make([][]logged, o.Fold.Partitions)
			r := newReader(o)
			r.roundPackets = 1 + rng.IntN(200)
			r.folded = func(partition int, offset int64, value []byte) {
				logs[partition] = append(logs[partition], logged{offset, slices.Clone(value)})
			}
			if _, err := r.run([]string{path}, new(bytes.Buffer)); err != nil {
				t.Fatal(err)
			}
			for p, log := range logs {
				if want, cuts := foldCut(t, p, o.Fold, log, nil, o.Labels), len(log) > 10; cuts {
					for range 2 {
						at := []int{rng.IntN(len(log)), rng.IntN(len(log)), rng.IntN(len(log))}
						if !bytes.Equal(foldCut(t, p, o.Fold, log, at, o.Labels), want) {
							t.Fatalf("partition %d of %d records, cut at %v: other outputs", p, len(log), at)
						}
					}
				}
			}
		})
	}
}

// foldCut folds a log, saved and loaded before each of the records at cuts. Each fold has a label set of its own, read
// from what is stored.
func foldCut(t *testing.T, partition int, set fold.Settings, log []logged, cuts []int, files source.Config) []byte {
	t.Helper()
	out := new(puts)
	f := fold.New(partition, set, out)
	if err := f.Label(stored(t, files)); err != nil {
		t.Fatal(err)
	}
	for i, r := range log {
		if slices.Contains(cuts, i) {
			var b bytes.Buffer
			if err := f.Save(&b); err != nil {
				t.Fatal(err)
			}
			var err error
			if f, _, err = fold.Load(&b, partition, out); err != nil {
				t.Fatalf("cut at %d: %v", i, err)
			}
			if err := f.Label(stored(t, files)); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Record(r.offset, r.value); err != nil {
			t.Fatal(err)
		}
	}
	return out.text
}
