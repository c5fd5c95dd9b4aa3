package read

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapweave/tapweave/collector/sample"
	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/enricher/labels"
	"github.com/tapweave/tapweave/enricher/labels/source"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
)

// everything is a label set of 10,000 prefixes, countries and autonomous systems, and 1 M indicators, as the service
// makes it of files. Places are those that make geoip has fetched, else 400,000 ranges of each kind.
func everything(tb testing.TB) *labels.Set {
	tb.Helper()
	r := rand.New(rand.NewPCG(1, 1))
	dir := tb.TempDir()
	write := func(name string, lines int, line func(b *strings.Builder, i int)) []string {
		var b strings.Builder
		for i := range lines {
			line(&b, i)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			tb.Fatal(err)
		}
		return []string{path}
	}
	private := func() [4]byte {
		if r.IntN(2) == 0 {
			return [4]byte{10, byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))}
		}
		return [4]byte{192, 168, byte(r.IntN(256)), byte(r.IntN(256))}
	}
	seen := map[netip.Prefix]bool{}
	ranges := func(what string) func(b *strings.Builder, i int) {
		return func(b *strings.Builder, i int) {
			a := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{byte(n >> 16), byte(n >> 8), byte(n), 0}) }
			fmt.Fprintf(b, "%s,%s,%s\n", a(1<<16+i*35), a(1<<16+(i+1)*35).Prev(), strings.ReplaceAll(what, "#", fmt.Sprint(i%60000)))
		}
	}
	c := source.Config{
		Networks: write("networks.csv", 10_001, func(b *strings.Builder, i int) {
			if i == 0 {
				b.WriteString("prefix,name,vnet,labels\n10.0.0.0/8,,one,env=prod\n192.168.0.0/16,,two,env=test\n")
				return
			}
			p := netip.PrefixFrom(netip.AddrFrom4(private()), 17+r.IntN(16)).Masked()
			if !seen[p] {
				seen[p] = true
				fmt.Fprintf(b, "%s,host-%d,,n=%d\n", p, i, i)
			}
		}),
		Country: write("country.csv", 400_000, ranges("DE")),
		ASN:     write("asn.csv", 400_000, ranges("#,Holder #")),
		Threats: write("threats.txt", 500_000, func(b *strings.Builder, i int) {
			fmt.Fprintf(b, "%d.%d.%d.%d\nhost-%d.bad%d.example.com\n", 1+r.IntN(9), r.IntN(256), r.IntN(256), r.IntN(256), i, i%1000)
		}),
	}
	if cache, err := os.UserCacheDir(); err == nil {
		file := func(name string) string { return filepath.Join(cache, "tapweave", "geoip", name) }
		if _, err := os.Stat(file("asn-ipv6.csv")); err == nil {
			c.Country, c.ASN = []string{file("country.mmdb")}, []string{file("asn-ipv4.csv"), file("asn-ipv6.csv")}
		}
	}
	set, _, err := source.NewCompiler(c).Compile()
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

// BenchmarkLabels folds the log of BenchmarkFold without labels and with all of them.
func BenchmarkLabels(b *testing.B) {
	log, packets, _ := batches(b, mixed(b), sample.Starts)
	set := everything(b)
	source := func(*pb.LabelSet) (*labels.Set, error) { return set, nil }
	named, err := record.MarshalPackets(&pb.PacketsRecord{Body: &pb.PacketsRecord_LabelSet{LabelSet: set.Named()}})
	if err != nil {
		b.Fatal(err)
	}
	run := func(b *testing.B, with bool) {
		began := processor(b)
		for b.Loop() {
			var out nothing
			for i := range log {
				f := fold.New(i, fold.DefaultSettings(), &out)
				if with {
					f.Label(source)
					if err := f.Record(0, named); err != nil {
						b.Fatal(err)
					}
				}
				for n, value := range log[i] {
					if err := f.Record(int64(n)+1, value); err != nil {
						b.Fatal(err)
					}
				}
			}
		}
		b.ReportMetric(float64((processor(b)-began).Nanoseconds())/float64(b.N)/float64(packets), "cpu-ns/packet")
	}
	b.Run("none", func(b *testing.B) { run(b, false) })
	b.Run("all", func(b *testing.B) { run(b, true) })
}
