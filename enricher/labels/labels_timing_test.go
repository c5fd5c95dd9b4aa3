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

// million returns a set of a million indicators, half of them addresses, half names, and these addresses; with some
// prefixes where they are asked for.
func million(tb testing.TB, prefixes int) (*labels.Set, []netip.Addr) {
	tb.Helper()
	r := rand.New(rand.NewPCG(1, 1))
	var b strings.Builder
	var addresses []netip.Addr
	for i := range 500_000 {
		addresses = append(addresses, random(r))
		fmt.Fprintf(&b, "%s\nhost-%d.bad%d.example.com\n", addresses[i], i, r.IntN(1000))
	}
	for range prefixes {
		p, _ := random(r).Prefix(17 + r.IntN(12))
		fmt.Fprintf(&b, "%s\n", p)
	}
	path := filepath.Join(tb.TempDir(), "million.txt")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		tb.Fatal(err)
	}
	set, _, err := source.NewCompiler(source.Config{Threats: []string{path}}).Compile()
	if err != nil {
		tb.Fatal(err)
	}
	return set, addresses
}

// random returns an address of 1.0.0.0 to 200.255.255.255.
func random(r *rand.Rand) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(1 + r.IntN(200)), byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))})
}

// BenchmarkThreats looks addresses and names up among a million indicators: those that are on the list, each of them
// in turn, so that no cache of the processor holds what is looked at, and those that are not; with ten thousand
// prefixes on the list, too.
func BenchmarkThreats(b *testing.B) {
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	run := func(what string, size float64, lookup func(i int) *labels.Threat, hits bool) {
		b.Run(what, func(b *testing.B) {
			found := 0
			began := processor(b)
			for i := 0; b.Loop(); i++ {
				if lookup(i) != nil {
					found++
				}
			}
			b.ReportMetric(float64(processor(b)-began)/float64(b.N), "cpu-ns/op")
			b.ReportMetric(size, "MB")
			if share := float64(found) / float64(b.N); hits && share < 1 || !hits && share > 0.2 {
				b.Errorf("%.2f were found", share)
			}
		})
	}
	for _, prefixes := range []int{0, 10_000} {
		r := rand.New(rand.NewPCG(2, 2))
		var others []netip.Addr
		for range 500_000 {
			others = append(others, random(r))
		}
		before := heap()
		set, addresses := million(b, prefixes)
		r.Shuffle(len(addresses), func(i, k int) { addresses[i], addresses[k] = addresses[k], addresses[i] })
		size := float64(heap()-before)/1e6 - float64(24*len(addresses))/1e6
		t := set.Threats()
		suffix := ""
		if prefixes > 0 {
			suffix = "-beside-prefixes"
		}
		address := func(a []netip.Addr) func(int) *labels.Threat {
			return func(i int) *labels.Threat { e, _ := t.Address(a[i%len(a)], 0); return e }
		}
		run("listed-address"+suffix, size, address(addresses), true)
		run("other-address"+suffix, size, address(others), false)
		if prefixes > 0 {
			continue
		}
		var names []string
		for i := range 1 << 17 {
			names = append(names, fmt.Sprintf("www%d.example.com", i))
		}
		run("other-name", size, func(i int) *labels.Threat { return t.Name(names[i%len(names)], 0) }, false)
		runtime.KeepAlive(set)
	}
}

// processor is the time that this process has had the processor, in nanoseconds.
func processor(tb testing.TB) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}
