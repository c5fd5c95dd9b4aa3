package run

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

// lines is a console that keeps its lines.
type lines []string

func (l *lines) Line(text string) { *l = append(*l, text) }
func (*lines) Status(string)      {}
func (*lines) Terminal() bool     { return false }

func TestExpectation(t *testing.T) {
	one := func(src, dst string, port int, packets uint64) session {
		return session{Protocol: 6, SrcIP: src, SrcPort: port, DstIP: dst, DstPort: 80, SrcPackets: packets, DstPackets: 1, SrcBytes: 100 * packets, DstBytes: 60, Fresh: true, Recent: true}
	}
	want := []session{one("10.0.0.1", "10.0.0.2", 1000, 3), one("10.0.0.1", "10.0.0.2", 1000, 5), one("10.0.0.1", "10.0.0.3", 1001, 7)}
	foreign := one("10.9.9.9", "10.0.0.2", 1, 50)
	turned := want[2] // src and dst may have changed places
	turned.SrcIP, turned.DstIP, turned.SrcPort, turned.DstPort = turned.DstIP, turned.SrcIP, turned.DstPort, turned.SrcPort
	turned.SrcPackets, turned.DstPackets, turned.SrcBytes, turned.DstBytes = turned.DstPackets, turned.SrcPackets, turned.DstBytes, turned.SrcBytes
	growing := want[1]
	growing.SrcPackets--
	grown := want[1] // of a sample that was played before, and now again
	grown.Fresh = false
	grown.SrcPackets += 6
	old := want[1]
	old.Fresh, old.Recent = false, false

	for _, c := range []struct {
		name         string
		before, rows []session
		done         bool
		says         string
	}{
		{"nothing", nil, nil, false, "0 of 3 sessions"},
		{"all", nil, []session{want[2], want[1], want[0], foreign}, true, "all 3 sessions"},
		{"turned", nil, []session{want[1], turned, want[0]}, true, "all 3 sessions"},
		{"one is missing", nil, []session{want[1], want[0]}, false, "2 of 3 sessions"},
		{"one grows", nil, []session{growing, want[0], want[2]}, false, "17 of 18 packets"},
		{"one too many", nil, append([]session{want[0]}, want...), false, "4 of 3"},
		{"beside older ones", []session{old, foreign}, []session{old, want[0], want[1], want[2]}, true, "all 3 sessions"},
		{"in an older one", []session{old}, []session{grown, want[0], want[2]}, true, "18 of 18 packets"},
		{"not yet in an older one", []session{old}, []session{grown, want[0]}, false, "10 of 18 packets"},
	} {
		e := newExpectation(want, c.before)
		if done := e.check(c.rows); done != c.done || !strings.Contains(e.seen, c.says) {
			t.Errorf("%s: %v, %s", c.name, done, e.seen)
		}
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(dir); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("locked twice: %v", err)
	}
	unlock()
	if unlock, err = lock(dir); err != nil {
		t.Fatal(err)
	}
	unlock()
}

// Everything is in the file, warnings are on the console too, in one line.
func TestLog(t *testing.T) {
	var file bytes.Buffer
	var console lines
	log := slog.New(newHandler(&file, &console)).With("service", "sink", "name", "sink-1")
	log.Info("ready")
	log.Warn("Kafka is away", "error", "a\nb", "left_out", 3)
	if n := strings.Count(file.String(), "\n"); n != 2 {
		t.Errorf("%d lines in the file", n)
	}
	if len(console) != 1 || console[0] != "warn: sink-1: Kafka is away, error: a; b, left out: 3" {
		t.Errorf("%q", console)
	}
}

func TestReachable(t *testing.T) {
	for in, want := range map[string]string{
		"0.0.0.0:4789": "127.0.0.1:4789", "[::]:4789": "127.0.0.1:4789", "10.1.2.3:4789": "10.1.2.3:4789",
	} {
		if got := reachable(in); got != want {
			t.Errorf("%s: %s", in, got)
		}
	}
}
