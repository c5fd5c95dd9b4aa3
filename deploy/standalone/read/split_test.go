package read

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"testing"
	"time"

	"github.com/tapweave/tapweave/proto/capturetest"
)

// varying are the columns that say which way the packets came, and so may differ between splits.
var varying = regexp.MustCompile(`"(?:collectors|tap_points|outer_ports|vnis|duplicate_packets)":(?:\[[^\]]*\]|[0-9]+),?`)

// invariant is what must be the same for every split.
func invariant(text []byte) []byte { return varying.ReplaceAll(text, nil) }

// TestSplit takes every capture through 1, 2, 3 and 8 collectors, every split, with and without jitter, with
// one end tapped and with both: always the same sessions, byte for byte and in the same order.
func TestSplit(t *testing.T) {
	for _, path := range capturetest.Files(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			plain, sessions := sessionsOf(t, DefaultOptions(), path)
			want := invariant(plain)
			for _, o := range spreads() {
				got, lines := sessionsOf(t, o, path)
				if !sameLines(t, describe(o), want, invariant(got)) {
					return
				}
				checkSpread(t, filepath.Base(path), o, sessions, lines)
			}
		})
	}
}

// spreads is every way in which the packets can be spread, but the plain one.
func spreads() (all []Options) {
	for _, collectors := range []int{1, 2, 3, 8} {
		for split := range splitNames {
			for _, jitter := range []time.Duration{0, 500 * time.Millisecond} {
				for _, duplicate := range []bool{false, true} {
					o := DefaultOptions()
					o.Collectors, o.Split, o.Jitter, o.Duplicate = collectors, Split(split), jitter, duplicate
					if collectors == 1 && split != 0 {
						continue // the splits do not differ
					}
					if collectors > 1 || jitter > 0 || duplicate {
						all = append(all, o)
					}
				}
			}
		}
	}
	return all
}

func describe(o Options) string {
	s := fmt.Sprintf("--collectors %d --split %v --jitter %v", o.Collectors, o.Split, o.Jitter)
	if o.Duplicate {
		s += " --duplicate"
	}
	return s
}

// checkSpread says whether the packets really went the ways that o names. plain are the sessions of the plain
// reading, in the same order.
func checkSpread(t *testing.T, name string, o Options, plain, lines []sessionLine) {
	t.Helper()
	for i, l := range lines {
		packets := l.SrcPackets + l.DstPackets
		if len(l.Collectors) > o.Collectors || len(l.Collectors) == 0 {
			t.Errorf("%s: collectors %v", describe(o), l.Collectors)
		}
		if o.Split == BySession && !o.Duplicate && len(l.Collectors) > 1 && !fragmented[name] {
			t.Errorf("%s: session of %s at several collectors, %v", describe(o), l.Start, l.Collectors)
		}
		if o.Split == ByDirection && o.Collectors > 1 && !fragmented[name] && l.SrcPackets > 0 && l.DstPackets > 0 && len(l.Collectors) < 2 {
			t.Errorf("%s: both directions of %s at %v", describe(o), l.Start, l.Collectors)
		}
		if o.Split == ByPacket && o.Collectors > 1 && !fragmented[name] && packets > 128 && len(l.Collectors) != o.Collectors {
			t.Errorf("%s: %d packets of %s at %v only", describe(o), packets, l.Start, l.Collectors)
		}
		if plain[i].DuplicatePackets == 0 && o.Duplicate && l.DuplicatePackets != packets {
			t.Errorf("%s: %d second copies of %d packets of %s", describe(o), l.DuplicatePackets, packets, l.Start)
		}
	}
}

// fragmented are the captures with fragments, which have no ports to be spread by.
var fragmented = map[string]bool{
	"arkime__socks5-http-302-frag.pcap": true, "nDPI__dns_fragmented.pcap": true,
	"nDPI__fuzz-2006-06-26-2594.pcap": true, "nDPI__ip_fragmented_garbage.pcap": true,
}

// sameLines compares two outputs and reports the first lines that differ, column by column.
func sameLines(t *testing.T, what string, want, got []byte) bool {
	t.Helper()
	if bytes.Equal(want, got) {
		return true
	}
	a, b := bytes.Split(want, []byte("\n")), bytes.Split(got, []byte("\n"))
	if len(a) != len(b) {
		t.Errorf("%s: %d sessions, not %d", what, len(b)-1, len(a)-1)
	}
	for i := range min(len(a), len(b)) {
		if bytes.Equal(a[i], b[i]) {
			continue
		}
		var x, y map[string]any
		if json.Unmarshal(a[i], &x) != nil || json.Unmarshal(b[i], &y) != nil {
			t.Errorf("%s: line %d is\n%s\nnot\n%s", what, i+1, b[i], a[i])
			return false
		}
		for k := range x {
			if !reflect.DeepEqual(x[k], y[k]) {
				t.Errorf("%s: line %d: %s is %v, not %v", what, i+1, k, y[k], x[k])
			}
		}
		for k := range y {
			if _, ok := x[k]; !ok {
				t.Errorf("%s: line %d: %s is %v, not unknown", what, i+1, k, y[k])
			}
		}
		t.Logf("the session: %s", a[i])
		return false
	}
	return false
}

// TestPace reads with other numbers of partitions, and with collectors that publish more and less often: what
// is known of time in between must not matter.
func TestPace(t *testing.T) {
	for _, path := range capturetest.Files(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			want, _ := sessionsOf(t, DefaultOptions(), path)
			for _, c := range []struct {
				partitions, roundPackets int
				roundTime                int64
			}{
				{1, roundPackets, roundTime},
				{3, roundPackets, roundTime},
				{16, 1 << 30, 1 << 62},
				{16, 50, 1 << 62},
				{4, 1, 0},
			} {
				o := DefaultOptions()
				o.Fold.Partitions = c.partitions
				r := newReader(o)
				r.roundPackets, r.roundTime = c.roundPackets, c.roundTime
				var got bytes.Buffer
				if _, err := r.run([]string{path}, &got); err != nil {
					t.Fatal(err)
				}
				if !sameLines(t, fmt.Sprintf("%+v", c), want, got.Bytes()) {
					return
				}
			}
		})
	}
}

// Why some captures are not split by the other splitter as the rest are.
var (
	oneTap = map[string]string{
		"zeek__echo-connections.pcap":                   "loopback: both taps have one address, and so are one",
		"zeek__1000-requests-one-dropped-response.pcap": "loopback",
		"zeek__smb2_100_small_files.pcap":               "loopback",
		"nDPI__fuzz-2006-06-26-2594.pcap":               "fuzzed packets from an address to itself",
		"zeek__vxlan-overlapping-http-get.pcap":         "the VXLAN of the capture is between loopback addresses",
	}
	notSplit = map[string]string{
		"nDPI__tls_with_huge_ch.pcapng": "the splitter rounds nanoseconds of pcapng to floating point",
	}
)

// strayCarriers are sessions of the splitter's carriers themselves: around frames that do not decode, they are
// taken for UDP of their own.
var strayCarriers = regexp.MustCompile(`(?m)^.*"dst_ip":"10\.1\.1\.4","dst_port":4789.*\n`)

// TestIndependentSplitter compares with captures that a splitter of other make has written: VXLAN, one file a
// collector, both ends tapped.
func TestIndependentSplitter(t *testing.T) {
	for _, path := range capturetest.Files(t) {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if reason := notSplit[name]; reason != "" {
				t.Skip(reason)
			}
			tap := "both"
			if oneTap[name] != "" {
				tap = "a"
			}
			files := capturetest.Mirrored(t, path, "-n", "3", "--tap", tap, "--reorder")
			plain, _ := sessionsOf(t, DefaultOptions(), path)
			mirrored, _ := sessionsOf(t, DefaultOptions(), files...)
			mirrored = strayCarriers.ReplaceAll(mirrored, nil)
			sameLines(t, "split by vxlan_split.py", invariant(plain), invariant(mirrored))
		})
	}
}
