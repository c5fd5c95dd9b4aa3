package admin

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func TestServer(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	registry := NewRegistry()
	registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "tapweave_x_total"}, func() float64 { return 3 }))
	ready := NewReadiness("kafka", "partitions")
	s := New(Config{Listen: "127.0.0.1:0"}, log, registry, ready)
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	base := "http://" + s.Addr()

	if code, _ := get(t, base+"/livez"); code != 200 {
		t.Errorf("livez: %d", code)
	}
	ready.Hold("partitions")
	ready.Fail("kafka", "no answer")
	if code, text := get(t, base+"/readyz"); code != 503 || text != "kafka: no answer\n" {
		t.Errorf("readyz: %d %q", code, text)
	}
	if err := Probe(t.Context(), s.Addr()); err == nil || !strings.Contains(err.Error(), "not ready: kafka: no answer") {
		t.Errorf("probe: %v", err)
	}
	ready.Hold("kafka")
	if code, text := get(t, base+"/readyz"); code != 200 {
		t.Errorf("readyz: %d %q", code, text)
	}
	if err := Probe(t.Context(), s.Addr()); err != nil {
		t.Errorf("probe: %v", err)
	}
	if code, text := get(t, base+"/metrics"); code != 200 || !strings.Contains(text, "tapweave_x_total 3") || !strings.Contains(text, "go_goroutines") {
		t.Errorf("metrics: %d", code)
	}

	other := New(Config{Listen: s.Addr()}, log, NewRegistry(), new(Readiness))
	if err := other.Run(ctx); err == nil || !strings.Contains(err.Error(), s.Addr()+" is in use by another program") || strings.Contains(err.Error(), "\n") {
		t.Errorf("second server: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestNoServer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := New(Config{}, slog.New(slog.DiscardHandler), NewRegistry(), new(Readiness))
	if err := s.Run(ctx); err != nil || s.Addr() != "" {
		t.Errorf("%v, %q", err, s.Addr())
	}
}
