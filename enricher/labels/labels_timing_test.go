package labels_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/tapweave/tapweave/enricher/labels"
	"github.com/tapweave/tapweave/enricher/labels/source"
)

// million returns a set of a million indicators, half of them addresses, half names.
func million(tb testing.TB) *labels.Set {
	tb.Helper()
	r := rand.New(rand.NewPCG(1, 1))
	var b strings.Builder
	for i := range 500_000 {
		fmt.Fprintf(&b, "%s\nhost-%d.bad%d.example.com\n", netip.AddrFrom4([4]byte{byte(1 + r.IntN(200)), byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))}), i, r.IntN(1000))
	}
	path := filepath.Join(tb.TempDir(), "million.txt")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		tb.Fatal(err)
	}
	set, _, err := source.NewCompiler(source.Config{Threats: []string{path}}).Compile()
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

// BenchmarkThreats looks a million indicators up, those that are on the list and those that are not.
func BenchmarkThreats(b *testing.B) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	set := million(b)
	size := float64(heap()-before) / 1e6
	t := set.Threats()
	r := rand.New(rand.NewPCG(1, 1))
	var addresses []netip.Addr
	var names []string
	for i := range 1 << 16 {
		addresses = append(addresses, netip.AddrFrom4([4]byte{byte(1 + r.IntN(200)), byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))}))
		names = append(names, fmt.Sprintf("www%d.example.com", i))
	}
	b.Run("address", func(b *testing.B) {
		began := processor(b)
		for i := 0; b.Loop(); i++ {
			t.Address(addresses[i%len(addresses)], 0)
		}
		b.ReportMetric(float64(processor(b)-began)/float64(b.N), "cpu-ns/op")
		b.ReportMetric(size, "MB")
	})
	b.Run("name", func(b *testing.B) {
		began := processor(b)
		for i := 0; b.Loop(); i++ {
			t.Name(names[i%len(names)], 0)
		}
		b.ReportMetric(float64(processor(b)-began)/float64(b.N), "cpu-ns/op")
	})
	runtime.KeepAlive(set)
}

// processor is the time that this process has had the processor, in nanoseconds.
func processor(tb testing.TB) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
