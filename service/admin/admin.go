// Package admin serves what the operator's tools ask a service over HTTP: /livez, /readyz and /metrics.
package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config of the server.
type Config struct {
	Listen string `yaml:"listen" doc:"Address of /livez, /readyz and /metrics, HOST:PORT. Empty: none."`
}

// NewRegistry returns a registry of one service instance, with the Go runtime's and the process's metrics.
func NewRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}

// Readiness is a set of named conditions. A service is ready when all of them hold. It is safe for
// concurrent use; its zero value has no condition and is ready.
type Readiness struct {
	mu         sync.Mutex
	conditions []condition
}

type condition struct{ name, reason string }

// NewReadiness returns conditions that do not hold yet.
func NewReadiness(names ...string) *Readiness {
	r := new(Readiness)
	for _, name := range names {
		r.Fail(name, "starting")
	}
	return r
}

// Hold says that a condition holds from now on.
func (r *Readiness) Hold(name string) { r.set(name, "") }

// Fail says that a condition does not hold, and why.
func (r *Readiness) Fail(name, reason string) {
	if reason == "" {
		reason = "unknown"
	}
	r.set(name, reason)
}

func (r *Readiness) set(name, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.conditions, func(c condition) bool { return c.name == name })
	if i < 0 {
		r.conditions = append(r.conditions, condition{name, reason})
		return
	}
	r.conditions[i].reason = reason
}

// Ready says whether all conditions hold, and otherwise which do not: one line each, "name: reason".
func (r *Readiness) Ready() (bool, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, c := range r.conditions {
		if c.reason != "" {
			fmt.Fprintf(&b, "%s: %s\n", c.name, c.reason)
		}
	}
	return b.Len() == 0, b.String()
}

// Server is the HTTP server of one service instance.
type Server struct {
	config   Config
	log      *slog.Logger
	mux      *http.ServeMux
	listener net.Listener
}

// New returns a server that listens to nothing yet.
func New(c Config, log *slog.Logger, metrics prometheus.Gatherer, ready *Readiness) *Server {
	s := &Server{config: c, log: log, mux: http.NewServeMux()}
	s.mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	s.mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if ok, why := ready.Ready(); !ok {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprint(w, why)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	s.mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	return s
}

// Handle adds a page, see [http.ServeMux]. It is called before Run.
func (s *Server) Handle(pattern string, h http.Handler) { s.mux.Handle(pattern, h) }

// Listen takes the address. Without one in the configuration it does nothing.
func (s *Server) Listen() error {
	if s.config.Listen == "" || s.listener != nil {
		return nil
	}
	l, err := net.Listen("tcp", s.config.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("admin.listen: %s is in use by another program; stop it or choose another address", s.config.Listen)
	} else if err != nil {
		return fmt.Errorf("admin.listen: %w", err)
	}
	s.listener = l
	return nil
}

// Addr is the address that Listen has taken, "" if none.
func (s *Server) Addr() string {
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Run serves until ctx is done. It listens first where Listen has not been called.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	if s.listener == nil {
		<-ctx.Done()
		return nil
	}
	h := &http.Server{
		Handler: s.mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { h.Close() })
	defer stop()
	if err := h.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin: %w", err)
	}
	return nil
}

// Close gives up an address that Run has not begun to serve.
func (s *Server) Close() error {
	if s.listener == nil {
		return nil
	}
	return s.listener.Close()
}

// Probe asks the server at listen whether it is ready: the health check of a container, where no other
// program is there to ask.
func Probe(ctx context.Context, listen string) error {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("admin.listen: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		b := make([]byte, 1000)
		n, _ := answer.Body.Read(b)
		return fmt.Errorf("not ready: %s", strings.ReplaceAll(strings.TrimSpace(string(b[:n])), "\n", "; "))
	}
	return nil
}
