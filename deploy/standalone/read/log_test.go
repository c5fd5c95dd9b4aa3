package read

import (
	"bytes"
	"path/filepath"
	"sync"
	"testing"

	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/proto/capturetest"
)

// TestOnlyRecordsReachTheFold reads a capture, keeps copies of the records on the log, and folds these anew,
// with nothing else to go by: what comes out must be the same.
func TestOnlyRecordsReachTheFold(t *testing.T) {
	for _, path := range capturetest.Files(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			spread := DefaultOptions()
			spread.Collectors, spread.Split, spread.Jitter, spread.Duplicate, spread.Fold.Partitions = 3, ByPacket, 5e8, true, 5
			for _, o := range []Options{DefaultOptions(), spread} {
				type kept struct {
					partition int
					offset    int64
					value     []byte
				}
				var log []kept
				var want, got bytes.Buffer
				r := newReader(o)
				var mu sync.Mutex
				r.folded = func(partition int, offset int64, value []byte) {
					mu.Lock()
					defer mu.Unlock()
					log = append(log, kept{partition, offset, bytes.Clone(value)})
				}
				if _, err := r.run([]string{path}, &want); err != nil {
					t.Fatal(err)
				}
				fs := newFolds(o.Fold, jsonFormat{}, &got)
				next := make([]int64, o.Fold.Partitions)
				for _, k := range log {
					if k.offset != next[k.partition] {
						t.Fatalf("partition %d: offset %d follows %d", k.partition, k.offset, next[k.partition]-1)
					}
					next[k.partition]++
					if err := fs.partitions[k.partition].fold.Record(k.offset, k.value); err != nil {
						t.Fatal(err)
					}
				}
				if err := fs.print(true); err != nil {
					t.Fatal(err)
				}
				sameLines(t, "folded from the log", want.Bytes(), got.Bytes())
			}
		})
	}
}

var _ recordFold = (*fold.Fold)(nil)
