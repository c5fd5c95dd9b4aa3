// Command bench prints the benchmark table: each of our figures beside that of a peer, measured in the same run
// on the same machine, and their ratio. Machines are noisy: the ratio is what counts.
//
// It is run by make bench, at the root of the project. Of the peers, those that are not installed are named.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// rounds is how often each program is run on the large capture; the median counts.
const rounds = 3

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	t := &table{}
	if err := t.decode(); err != nil {
		return err
	}
	if err := t.collector(); err != nil {
		return err
	}
	if err := t.fold(); err != nil {
		return err
	}
	if err := t.labels(); err != nil {
		return err
	}
	if err := t.scale(); err != nil {
		return err
	}
	if err := t.state(); err != nil {
		return err
	}
	if err := t.read(); err != nil {
		return err
	}
	if err := t.sink(); err != nil {
		return err
	}
	if err := t.siem(); err != nil {
		return err
	}
	return t.print(os.Stdout)
}

// table is what has been measured.
type table struct {
	rows  []row
	notes []string
}

type row struct{ what, ours, peer, ratio, goal string }

func (t *table) add(what, ours, peer string, ratio float64, goal string) {
	t.rows = append(t.rows, row{what, ours, peer, fmt.Sprintf("%.2f", ratio), goal})
}

func (t *table) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "what\tours\tpeer\tratio\tgoal")
	for _, r := range t.rows {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", r.what, r.ours, r.peer, r.ratio, r.goal)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, n := range t.notes {
		fmt.Fprintln(w, n)
	}
	return nil
}

// figures are the metrics of one Go benchmark, by unit.
type figures map[string]float64

var benchLine = regexp.MustCompile(`^Benchmark(\S+?)(?:-\d+)?\s+\d+\s+(.*)$`)

// goBench runs benchmarks of a package, each for so long and so often, and returns the medians of their figures by
// name.
func goBench(dir, pkg, pattern, each string, count int) (map[string]figures, error) {
	fmt.Fprintf(os.Stderr, "measuring %s of %s\n", pattern, filepath.Join(dir, pkg))
	c := exec.Command("go", "test", pkg, "-run", "^$", "-bench", pattern, "-benchtime", each, "-count", strconv.Itoa(count), "-timeout", "20m")
	c.Dir = dir
	c.Env = append(os.Environ(), "GOWORK=off")
	out, err := c.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("go test %s in %s: %w\n%s", pkg, dir, err, out)
	}
	all := map[string][]figures{}
	for line := range strings.Lines(string(out)) {
		m := benchLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			continue
		}
		f := figures{}
		fields := strings.Fields(m[2])
		for i := 0; i+1 < len(fields); i += 2 {
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", line, err)
			}
			f[fields[i+1]] = v
		}
		all[m[1]] = append(all[m[1]], f)
	}
	medians := map[string]figures{}
	for name, runs := range all {
		f := figures{}
		for unit := range runs[0] {
			var values []float64
			for _, r := range runs {
				values = append(values, r[unit])
			}
			f[unit] = median(values)
		}
		medians[name] = f
	}
	return medians, nil
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

func (t *table) decode() error {
	b, err := goBench("collector", "./decode", "^(BenchmarkDecode|BenchmarkFlat)$", "1s", 5)
	if err != nil {
		return err
	}
	const unit = "cpu-ns/packet"
	peer := b["Decode/gopacket"][unit]
	for _, r := range []struct{ what, name, goal string }{
		{"decapsulate + decode, against DecodingLayerParser", "Decode/own", "-"},
		{"decapsulate + decode + batch, against DecodingLayerParser", "Decode/own+batch", "≥ 2"},
	} {
		own := b[r.name]
		t.add(r.what, fmt.Sprintf("%.0f ns, %.3f allocs", own[unit], own["allocs/packet"]), fmt.Sprintf("%.0f ns", peer), peer/own[unit], r.goal)
	}
	t.against("decode + batch, 64 partitions against 1", unit, b["Flat/64-partitions,1-sources"], b["Flat/1-partitions,1-sources"], "≤ 1.15")
	t.against("decode + batch, 10,000 sources against 1", unit, b["Flat/16-partitions,10000-sources"], b["Flat/16-partitions,1-sources"], "≤ 1.15")
	return nil
}

// collector runs the collector as a program, on a Kafka (make bench starts one).
func (t *table) collector() error {
	if os.Getenv("TAPWEAVE_TEST_KAFKA") == "" {
		t.notes = append(t.notes, "the collector was not measured: TAPWEAVE_TEST_KAFKA is not set")
		return nil
	}
	b, err := goBench("deploy/standalone", "./load", "^BenchmarkCollector$", "5x", 3)
	if err != nil {
		return err
	}
	const unit = "cpu-ns/packet"
	cost := func(name string) float64 { return b["Collector/"+name][unit] }
	bare, mixed := cost("bare"), cost("mixed")
	t.add("collector, UDP socket to Kafka, packets per CPU-s, against bare recvmmsg", fmt.Sprintf("%.0f ns", mixed), fmt.Sprintf("%.0f ns", bare), bare/mixed, "≥ 0.75")
	// The kernel refuses senders before the collector has anything to do with them, and charges their delivery, like that
	// of the accepted, to whoever sends. It does not look for network identifiers: what recvmmsg costs, both have.
	t.against("collector, a refused packet against an accepted one", unit, b["Collector/refused"], b["Collector/mixed"], "≤ 0.5")
	t.against("collector, a packet of a refused VNI against an accepted one, all in all", unit, b["Collector/refused-vni"], b["Collector/mixed"], "-")
	vni := figures{unit: max(0, cost("refused-vni")-bare)}
	t.against("collector, a packet of a refused VNI against an accepted one, behind the socket", unit, vni, figures{unit: mixed - bare}, "≤ 0.5")
	for _, flood := range []string{"VXLAN-in-VXLAN", "fragments", "refused-sources"} {
		left := cost("both/"+flood) - cost("flood/"+flood)
		t.add("collector, packets beside as many of a flood of "+strings.ReplaceAll(flood, "-", " ")+", per CPU-s without the flood's",
			fmt.Sprintf("%.0f ns", left), fmt.Sprintf("%.0f ns", mixed), mixed/left, "≥ 0.9")
	}
	many := b["Collector/64-partitions"]["RSS-MiB"]
	t.add("collector, RSS at line rate with 64 partitions", fmt.Sprintf("%.0f MiB", many), "256 MiB", many/256, "≤ 1")
	return nil
}

// against adds how many times as much one thing costs as another.
func (t *table) against(what, unit string, one, other figures, goal string) {
	t.add(what, fmt.Sprintf("%.0f ns", one[unit]), fmt.Sprintf("%.0f ns", other[unit]), one[unit]/other[unit], goal)
}

func (t *table) fold() error {
	b, err := goBench("deploy/standalone", "./read", "^BenchmarkFold$", "3s", 3)
	if err != nil {
		return err
	}
	own, peer := b["Fold/own"], b["Fold/gopacket"]
	t.add("fold, against gopacket decode + reassembly", fmt.Sprintf("%.0f ns a packet", own["cpu-ns/packet"]),
		fmt.Sprintf("%.0f ns a packet", peer["cpu-ns/packet"]), peer["cpu-ns/packet"]/own["cpu-ns/packet"], "≥ 2")
	const most = 24
	t.add("metadata on the wire, no payload sampled", fmt.Sprintf("%.1f bytes a packet", own["wire-B/packet"]),
		fmt.Sprintf("%d bytes", most), most/own["wire-B/packet"], "≥ 1")
	return nil
}

// labels measures what labels cost the fold.
func (t *table) labels() error {
	b, err := goBench("deploy/standalone", "./read", "^BenchmarkLabels$", "2s", 3)
	if err != nil {
		return err
	}
	const unit = "cpu-ns/packet"
	none, all := b["Labels/none"], b["Labels/all"]
	t.add("fold with 10 k prefixes, places, 1 M indicators, against without", fmt.Sprintf("%.0f ns a packet", all[unit]), fmt.Sprintf("%.0f ns a packet", none[unit]), none[unit]/all[unit], "≥ 0.9")
	if b, err = goBench("enricher", ".", "^BenchmarkReload$", "1x", 3); err != nil {
		return err
	}
	wait, limit := b["Reload"], 20.0
	t.add("fold, longest wait while 1 M indicators are loaded and come into force", fmt.Sprintf("%.1f ms (p99 %.1f ms)", wait["max-ms"], wait["p99-ms"]),
		fmt.Sprintf("%.0f ms (%.1f ms without)", limit, wait["quiet-max-ms"]), wait["max-ms"]/limit, "≤ 1")
	if b, err = goBench("enricher", "./labels", "^BenchmarkThreats$", "1s", 3); err != nil {
		return err
	}
	const lookup, most = "cpu-ns/op", 200.0
	for _, r := range []struct{ what, name string }{
		{"an address that is on no list", "Threats/other-address"},
		{"an address that is on no list, beside 10 k prefixes", "Threats/other-address-beside-prefixes"},
		{"an address that is listed", "Threats/listed-address"},
		{"a name that is on no list", "Threats/other-name"},
	} {
		ns := b[r.name][lookup]
		t.add("threat list of 1 M indicators, look-up of "+r.what, fmt.Sprintf("%.0f ns", ns), fmt.Sprintf("%.0f ns", most), ns/most, "≤ 1")
	}
	size := b["Threats/other-address"]["MB"]
	t.add("threat list of 1 M indicators, memory", fmt.Sprintf("%.0f MB", size), "200 MB", size/200, "≤ 1")
	return nil
}

// scale measures what sessions and partitions cost the fold, of one process with all of them.
func (t *table) scale() error {
	b, err := goBench("deploy/standalone", "./read", "^BenchmarkScale$", "1s", 1)
	if err != nil {
		return err
	}
	const unit = "cpu-ns/packet"
	many := b["Scale/1000000-sessions,16-partitions"]
	t.against("fold, a packet with 1 M open sessions against 1 k", unit, many, b["Scale/1000-sessions,16-partitions"], "≤ 2")
	t.against("fold, a packet with 64 partitions against 1", unit, b["Scale/100000-sessions,64-partitions"], b["Scale/100000-sessions,1-partitions"], "≤ 2")
	allocations := many["allocs/op"] / many["packets/op"]
	t.add("fold, allocations in steady state", fmt.Sprintf("%.3f a packet", allocations), "0.05 a packet", allocations/0.05, "≤ 1")
	t.add("fold, heap with 1 M idle sessions, all in all", fmt.Sprintf("%.0f bytes a session", many["idle-B/session"]), "512 bytes", many["idle-B/session"]/512, "≤ 1")
	t.add("fold, RSS with 1 M open sessions", fmt.Sprintf("%.0f MiB", many["RSS-MiB"]), "1024 MiB", many["RSS-MiB"]/1024, "≤ 1")
	return nil
}

// state measures what it costs to survive: snapshots, and the time until an enricher that was killed has caught up.
func (t *table) state() error {
	b, err := goBench("enricher", ".", "^BenchmarkSnapshot$", "1x", 3)
	if err != nil {
		return err
	}
	for _, n := range []string{"100000", "1000000"} {
		f := b["Snapshot/"+n+"-sessions"]
		t.add("snapshot of "+n+" open sessions, compressed", fmt.Sprintf("%.0f bytes a session", f["B/session"]), "300 bytes", f["B/session"]/300, "≤ 1")
	}
	if os.Getenv("TAPWEAVE_TEST_KAFKA") == "" {
		t.notes = append(t.notes, "cost of snapshots and recovery were not measured: TAPWEAVE_TEST_KAFKA is not set")
		return nil
	}
	if b, err = goBench("enricher", ".", "^BenchmarkDurability$", "1x", 1); err != nil {
		return err
	}
	d := b["Durability"]
	t.add("enricher with snapshots of 1 M open sessions, against without, Kafka to Kafka", fmt.Sprintf("%.2f M packets/CPU-s", d["packets/cpu-s"]/1e6),
		fmt.Sprintf("%.2f M packets/CPU-s", d["without-packets/cpu-s"]/1e6), d["throughput"], "≥ 0.9")
	if b, err = goBench("enricher", ".", "^BenchmarkRecovery$", "1x", 1); err != nil {
		return err
	}
	for _, r := range []struct{ what, name string }{
		{"kill -9 of an enricher with 100 k open sessions, to a lag of 2 s", "Recovery/kill,100000-sessions"},
		{"kill -9 of an enricher with 1 M open sessions, to a lag of 2 s", "Recovery/kill,1000000-sessions"},
		{"start of an enricher with 1 M open sessions, to a lag of 2 s", "Recovery/stop,1000000-sessions"},
	} {
		s := b[r.name]["s/recovery"]
		t.add(r.what, fmt.Sprintf("%.1f s", s), "10 s", s/10, "≤ 1")
	}
	return nil
}

// peers are the programs that tapweave read is compared with, and how often as fast it is to be.
var peers = []struct {
	name string
	args func(capture, dir string) []string
	goal string
}{
	{"nfpcapd", func(c, d string) []string { return []string{"-r", c, "-l", d} }, "≥ 1"},
	{"softflowd", func(c, _ string) []string { return []string{"-r", c, "-n", "127.0.0.1:9", "-d"} }, "≥ 1.5"},
	{"tshark", func(c, _ string) []string { return []string{"-q", "-z", "conv,tcp", "-r", c} }, "≥ 20"},
}

func (t *table) read() error {
	big, err := largeCapture()
	if err != nil {
		t.notes = append(t.notes, "tapweave read was not compared: "+err.Error())
		return nil
	}
	dir, err := os.MkdirTemp("", "tapweave-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	own := make([]float64, 0, rounds)
	others := make([][]float64, len(peers))
	for i := range rounds {
		fmt.Fprintf(os.Stderr, "reading %s, round %d of %d\n", big, i+1, rounds)
		s, err := cpuSeconds("bin/tapweave", "read", big)
		if err != nil {
			return err
		}
		own = append(own, s)
		for k, p := range peers {
			if p.name == "tshark" && i > 0 {
				continue // it takes long, and is far away
			}
			if s, err = cpuSeconds(p.name, p.args(big, dir)...); errors.Is(err, exec.ErrNotFound) {
				continue
			} else if err != nil {
				return err
			}
			others[k] = append(others[k], s)
		}
	}
	mine := median(own)
	for k, p := range peers {
		if len(others[k]) == 0 {
			t.notes = append(t.notes, p.name+" is not installed")
			continue
		}
		s := median(others[k])
		t.add("tapweave read, against "+p.name, fmt.Sprintf("%.2f CPU-s", mine), fmt.Sprintf("%.2f CPU-s", s), s/mine, p.goal)
	}
	return nil
}

// cpuSeconds runs a program and returns the time it had the processor, its own and the kernel's.
func cpuSeconds(name string, args ...string) (float64, error) {
	if _, err := exec.LookPath(name); err != nil {
		return 0, fmt.Errorf("%s: %w", name, exec.ErrNotFound)
	}
	c := exec.Command(name, args...)
	if err := c.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return (c.ProcessState.UserTime() + c.ProcessState.SystemTime()).Seconds(), nil
}

// largeCapture returns the path of the large mixed capture, which is made once and kept in the cache.
func largeCapture() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, "tapweave", "mixed.pcap")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	captures := os.Getenv("TAPWEAVE_CAPTURES")
	if captures == "" {
		captures = filepath.Join("..", "shared", "captures")
	}
	script := filepath.Join(captures, "..", "tools", "perfcap.sh")
	if _, err := os.Stat(script); err != nil {
		return "", fmt.Errorf("no %s to make the large capture with", script)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	fmt.Fprintln(os.Stderr, "making the large mixed capture, 2.4 million packets")
	began := time.Now()
	if out, err := exec.Command("bash", script, captures, path+".part").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w (needs wireshark-common, tcpreplay, bc)\n%s", script, err, out)
	}
	fmt.Fprintf(os.Stderr, "made in %v\n", time.Since(began).Round(time.Second))
	return path, os.Rename(path+".part", path)
}

// saved measures the saved queries, and look-ups by address, over the sessions of a day.
func (t *table) saved() error {
	b, err := goBench("deploy/standalone", "./query", "^BenchmarkSaved$", "1x", 1)
	if err != nil {
		return err
	}
	name, slowest, lookup := "", 0.0, 0.0
	for query, f := range b {
		what, found := strings.CutPrefix(query, "Saved/")
		switch {
		case !found:
		case strings.HasPrefix(what, "point-src"), strings.HasPrefix(what, "point-dst"):
			lookup = max(lookup, f["ms"])
		case !strings.HasPrefix(what, "point-") && f["ms"] > slowest:
			name, slowest = what, f["ms"]
		}
	}
	t.add("the slowest saved query over 10 M sessions: "+name, fmt.Sprintf("%.0f ms", slowest), "1000 ms", slowest/1000, "≤ 1")
	t.add("look-up of an address in the last hour of 10 M sessions", fmt.Sprintf("%.0f ms", lookup), "100 ms", lookup/100, "≤ 1")
	return nil
}

// sink runs the sink's own benchmarks: one needs a ClickHouse (make bench starts one), the others start their own servers.
func (t *table) sink() error {
	if os.Getenv("TAPWEAVE_TEST_CLICKHOUSE") == "" {
		t.notes = append(t.notes, "the sink was not measured: TAPWEAVE_TEST_CLICKHOUSE is not set")
		return nil
	}
	b, err := goBench("sink", "./clickhouse", "^BenchmarkSink$", "3s", 3)
	if err != nil {
		return err
	}
	f := b["Sink"]
	t.add("sink, Kafka records to durable rows, against INSERT SELECT", fmt.Sprintf("%.0f rows/s", f["rows/s"]),
		fmt.Sprintf("%.0f rows/s", f["insert_select_rows/s"]), f["vs_insert_select"], "≥ 0.8")
	if b, err = goBench("deploy/standalone", "./endtoend", "^BenchmarkBacklog$", "1x", 3); err != nil {
		return err
	}
	alone, both := b["Backlog/clickhouse"]["rows/cpu-s"], b["Backlog/defaults"]
	t.add("sink, a program, rows per CPU-second of its own", fmt.Sprintf("%.0f rows", alone), "1000000 rows", alone/1e6, "≥ 1")
	t.add("sink, the same with documents for SIEMs", fmt.Sprintf("%.0f rows", both["rows/cpu-s"]), "1000000 rows", both["rows/cpu-s"]/1e6, "-")
	t.add("sink, RSS at a backlog of 1.5 M sessions", fmt.Sprintf("%.0f MiB", both["RSS-MiB"]), "512 MiB", both["RSS-MiB"]/512, "≤ 1")
	if err := t.mixed(); err != nil {
		return err
	}
	return t.saved()
}

// mixed measures what the large capture takes on disk, and how soon its sessions can be queried.
func (t *table) mixed() error {
	big, err := largeCapture()
	if err != nil {
		t.notes = append(t.notes, "neither disk nor latency were measured: "+err.Error())
		return nil
	}
	if err := os.Setenv("BENCH_CAPTURE", big); err != nil {
		return err
	}
	b, err := goBench("deploy/standalone", "./query", "^BenchmarkDisk$", "1x", 1)
	if err != nil {
		return err
	}
	bytes := b["Disk"]["B/session"]
	t.add("a session on disk, mixed capture, merged", fmt.Sprintf("%.0f bytes", bytes), "120 bytes", bytes/120, "≤ 1")
	if b, err = goBench("deploy/standalone", "./endtoend", "^BenchmarkLatency$", "1x", 1); err != nil {
		return err
	}
	f := b["Latency"]
	for _, r := range []struct {
		what, unit string
		most       float64
	}{
		{"first packet to queryable row, p50", "p50-ms", 1500},
		{"first packet to queryable row, p99", "p99-ms", 2000},
		{"of which the sink, from record to queryable row, p99", "sink-p99-ms", 800},
	} {
		what := fmt.Sprintf("%s (machine %.0f %% busy)", r.what, f["%busy"])
		t.add(what, fmt.Sprintf("%.0f ms", f[r.unit]), fmt.Sprintf("%.0f ms", r.most), f[r.unit]/r.most, "≤ 1")
	}
	return nil
}

// siem measures the documents for SIEMs: their writing alone, and all that is between two calls to the broker.
func (t *table) siem() error {
	const unit, least = "documents/cpu-s", 400_000.0
	way, err := goBench("sink", "./siem", "^BenchmarkDocuments$", "2s", 3)
	if err != nil {
		return err
	}
	for _, schema := range []string{"ecs", "ocsf", "asim"} {
		b, err := goBench("sink", "./siem/"+schema, "^BenchmarkAppend$", "2s", 3)
		if err != nil {
			return err
		}
		for _, r := range []struct {
			what string
			figures
		}{{"written", b["Append"]}, {"from Kafka records of 1,000 sessions, decoded and written", way["Documents/"+schema]}} {
			t.add(strings.ToUpper(schema)+" documents, "+r.what, fmt.Sprintf("%.0f per CPU-s", r.figures[unit]), fmt.Sprintf("%.0f", least), r.figures[unit]/least, "≥ 1")
		}
	}
	return nil
}
