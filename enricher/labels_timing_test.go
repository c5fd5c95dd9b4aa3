package enricher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/tapweave/tapweave/enricher/output"
	"github.com/tapweave/tapweave/proto/delivery"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
)

// pacedLog is the log of some partitions, folded at the pace at which it would be written. It is in a file, so that
// it is no part of the heap.
type pacedLog struct {
	file  *os.File
	every time.Duration
	ticks [][]int // the sizes of the records of each, one a partition
	steps int     // ticks that only open sessions
}

// newPacedLog opens sessions, and lets them send some packets in each of some ticks.
func newPacedLog(tb testing.TB, partitions, sessions int, every time.Duration, ticks, packets int) *pacedLog {
	tb.Helper()
	f, err := os.Create(filepath.Join(tb.TempDir(), "log"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { f.Close() })
	l := &pacedLog{file: f, every: every}
	c := newCrowd(sessions, partitions)
	at := time.Now().UnixNano()
	seal := func() {
		at += int64(every)
		values := c.seal(tb, at)
		if _, err := f.Write(bytes.Join(values, nil)); err != nil {
			tb.Fatal(err)
		}
		var sizes []int
		for _, v := range values {
			sizes = append(sizes, len(v))
		}
		l.ticks = append(l.ticks, sizes)
	}
	for c.open(sessions/10, at) {
		seal()
	}
	l.steps = len(l.ticks)
	for range ticks {
		c.talk(packets, at)
		seal()
	}
	return l
}

// fold folds a partition until ctx is done: what opens sessions at once, and then, from the time on that begin returns,
// each record when it is due. step is called behind each of these with how late that was; it may return a record that
// is folded next.
func (l *pacedLog) fold(ctx context.Context, tb testing.TB, s *output.Stream, partition int, begin func() time.Time, step func(late time.Duration) []byte) {
	var offset, at int64
	var start time.Time
	record := func(value []byte) {
		if err := s.Record(offset, value); err != nil {
			tb.Error(err)
		}
		offset++
	}
	for i, sizes := range l.ticks {
		if ctx.Err() != nil {
			return
		}
		if i == l.steps {
			start = begin()
		}
		var due time.Time
		if i >= l.steps {
			due = start.Add(time.Duration(i-l.steps)*l.every + time.Duration(partition)*l.every/time.Duration(len(sizes)))
			time.Sleep(time.Until(due))
		}
		from := at
		for p, n := range sizes {
			if at += int64(n); p < partition {
				from += int64(n)
			}
		}
		value := make([]byte, sizes[partition])
		if _, err := l.file.ReadAt(value, from); err != nil {
			tb.Error(err)
			return
		}
		if record(value); i >= l.steps {
			if value := step(time.Since(due)); value != nil {
				record(value)
			}
		}
	}
	tb.Error("the log is at its end")
}

// BenchmarkReload folds 16 partitions at 500,000 packets a second, while lists of a million indicators are read, compiled,
// compressed as for tapweave.state, and come into force: on two processors, with all that the garbage collector does
// about it. Measured is how late the folds are done with a record that is due, at most and in 99 of 100 cases; and the
// same while there is nothing new.
func BenchmarkReload(b *testing.B) {
	const (
		partitions = 16
		every      = 50 * time.Millisecond
		second     = int(time.Second / every)
		lists      = 3
		each       = 6  // seconds for a list
		most       = 60 // for all, on a slow machine
	)
	processors := min(2, runtime.NumCPU())
	b.Setenv("GOMAXPROCS", strconv.Itoa(processors))
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(processors))
	log := newPacedLog(b, partitions, 100_000, every, most*second, 500_000/second)
	dir := b.TempDir()
	var files []string
	for i := range lists {
		files = append(files, filepath.Join(dir, fmt.Sprint(i)))
		writeMillion(b, files[i], uint64(i))
	}
	for b.Loop() {
		conf := DefaultConfig()
		conf.Partitions = partitions
		conf.Labels.Threats = []string{filepath.Join(dir, "threats.txt")}
		s, err := New(conf, Dependencies{Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		if err != nil {
			b.Fatal(err)
		}
		f, o := conf.settings()
		var ready sync.WaitGroup
		ready.Add(partitions)
		begin := make(chan time.Time)
		named := make([]chan []byte, partitions) // control records on their way
		inForce := make(chan struct{}, partitions)
		var mu sync.Mutex
		late := map[string][]time.Duration{} // by what went on
		const warm, quiet, loading = "warm-", "quiet-", ""
		now := warm // sessions that have just begun are put out
		ctx, stop := context.WithTimeout(b.Context(), most*time.Second)

		var folds sync.WaitGroup
		for i := range partitions {
			named[i] = make(chan []byte, 1)
			owner, err := delivery.NewOwner(delivery.Assignment{Partition: uint32(i), Generation: 1, Committed: delivery.Commit{Offset: -1}})
			if err != nil {
				b.Fatal(err)
			}
			owner.Surveyed(0, 0)
			p := &partition{Service: s, assigned: kafka.Assignment{Partition: i}}
			stream := output.New(output.Config{
				Partition: uint32(i), Epoch: delivery.Epoch{Log: 1, Owner: 1}, Fold: f, Output: o, Labels: p.labelSource(b.Context()),
				Emit: func(uint64, []byte) error { return nil },
			}, owner.Numbers(0))
			said := false
			folds.Go(func() {
				log.fold(ctx, b, stream, i, func() time.Time { ready.Done(); return <-begin }, func(d time.Duration) []byte {
					mu.Lock()
					late[now] = append(late[now], d)
					mu.Unlock()
					if said {
						said = false
						inForce <- struct{}{}
					}
					select {
					case value := <-named[i]:
						said = true
						return value
					default:
						return nil
					}
				})
			})
		}
		ready.Wait()
		runtime.GC()
		start := time.Now().Add(100 * time.Millisecond)
		for range partitions {
			begin <- start
		}
		var reader sync.WaitGroup
		phase := func(p string) {
			mu.Lock()
			now = p
			mu.Unlock()
		}
		time.Sleep(3 * time.Second)
		phase(quiet)
		time.Sleep(each * time.Second)
		var took time.Duration
		for i, file := range files {
			began := time.Now()
			_, changed := s.labels.want()
			phase(loading)
			if err := errors.Join(os.RemoveAll(conf.Labels.Threats[0]), os.Link(file, conf.Labels.Threats[0])); err != nil {
				b.Fatal(err)
			}
			if i == 0 {
				reader.Go(func() { s.runLabels(ctx) })
			}
			select {
			case <-changed:
			case <-ctx.Done():
				b.Fatal("the list was not read in time")
			}
			w, _ := s.labels.want()
			if n := w.set.Threats().Len(); n < 990_000 {
				b.Fatalf("%d indicators", n)
			}
			m := w.set.Named()
			for k, part := range w.parts {
				if _, err := packPart(part.Bytes); err != nil {
					b.Fatal(err)
				}
				m.Parts[k].StateOffset = int64(i)
			}
			value, err := record.MarshalPackets(&pb.PacketsRecord{Body: &pb.PacketsRecord_LabelSet{LabelSet: m}})
			if err != nil {
				b.Fatal(err)
			}
			for _, c := range named {
				c <- value
			}
			for range partitions {
				select {
				case <-inForce:
				case <-ctx.Done():
					b.Fatal("the list did not come into force in time")
				}
			}
			phase(quiet)
			took = max(took, time.Since(began))
			time.Sleep(time.Until(began.Add(each * time.Second)))
		}
		stop()
		folds.Wait()
		reader.Wait()
		if s.counts.labelsFetched.Value() != 0 {
			b.Error("a label set was fetched")
		}
		for _, p := range []string{quiet, loading} {
			slices.Sort(late[p])
			n := len(late[p])
			b.ReportMetric(late[p][n-1].Seconds()*1e3, p+"max-ms")
			b.ReportMetric(late[p][n*99/100].Seconds()*1e3, p+"p99-ms")
		}
		b.ReportMetric(took.Seconds(), "s/reload")
	}
}

// writeMillion writes a list of a million indicators.
func writeMillion(tb testing.TB, path string, seed uint64) {
	tb.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	var b bytes.Buffer
	for i := range 500_000 {
		a := netip.AddrFrom4([4]byte{byte(11 + r.IntN(150)), byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))})
		fmt.Fprintf(&b, "%s\nhost-%d.bad%d.example.com\n", a, i, r.IntN(1000))
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		tb.Fatal(err)
	}
}
