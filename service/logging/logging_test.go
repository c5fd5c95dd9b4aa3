package logging

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestLimited(t *testing.T) {
	var b bytes.Buffer
	l := NewLimited(New(&b, Config{Level: slog.LevelInfo, Format: "json"}))
	now := time.Unix(1000, 0)
	l.now = func() time.Time { return now }
	for range 5 {
		l.Warn("a", "first", "n", 1)
	}
	l.Error("b", "other kind")
	now = now.Add(time.Minute)
	l.Warn("a", "second")
	l.Warn("a", "third")
	l.Reset("a")
	l.Warn("a", "fourth")
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	for i, want := range []string{`"first","n":1}`, `"other kind"}`, `"second","left_out":4}`, `"fourth"}`} {
		if i >= len(lines) || !strings.HasSuffix(lines[i], want) {
			t.Fatalf("line %d is not …%s:\n%s", i, want, b.String())
		}
	}
	if len(lines) != 4 {
		t.Errorf("%d lines", len(lines))
	}
}
