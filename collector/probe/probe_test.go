package probe

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func begin(t *testing.T) (p *Probe, ready *atomic.Bool) {
	t.Helper()
	ready = new(atomic.Bool)
	p = New("127.0.0.1:0", func() (bool, string) { return ready.Load(), "serving: draining\n" }, slog.New(slog.DiscardHandler))
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return p, ready
}

func open(p *Probe) bool {
	c, err := net.DialTimeout("tcp", p.Addr(), time.Second)
	if err == nil {
		c.Close()
	}
	return err == nil
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// The port follows readiness, as often as that changes.
func TestTCP(t *testing.T) {
	p, ready := begin(t)
	if open(p) {
		t.Fatal("open before it is ready")
	}
	for range 3 {
		ready.Store(true)
		await(t, "open", func() bool { return open(p) })
		ready.Store(false)
		await(t, "closed", func() bool { return !open(p) })
	}
}

func TestHTTP(t *testing.T) {
	p, ready := begin(t)
	ready.Store(true)
	await(t, "open", func() bool { return open(p) })
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	get := func() (int, string) {
		r, err := client.Get("http://" + p.Addr() + "/any")
		if err != nil {
			return 0, err.Error()
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		return r.StatusCode, string(b)
	}
	if status, body := get(); status != 200 || body != "ok\n" {
		t.Errorf("%d %q", status, body)
	}
	// The same connection is told at once; a new one is refused.
	ready.Store(false)
	if status, body := get(); status != 503 || !strings.Contains(body, "draining") {
		t.Errorf("%d %q", status, body)
	}
	await(t, "refused", func() bool { status, _ := get(); return status == 0 })
}

func TestInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = New(l.Addr().String(), nil, nil).Check()
	if err == nil || !strings.Contains(err.Error(), "is in use by another program") {
		t.Error(err)
	}
}
