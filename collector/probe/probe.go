// Package probe answers a load balancer that asks whether a collector may be sent packets, on a port of its own.
//
// The port is open only while the collector is ready: a TCP probe needs no more than that. An HTTP probe is
// answered 200 on every path, and 503 on a connection that outlives the readiness.
package probe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"
)

// every is how often readiness is looked at.
const every = 50 * time.Millisecond

// Probe is one such port.
type Probe struct {
	address string
	ready   func() (bool, string)
	log     *slog.Logger
}

// New returns a probe at HOST:PORT.
func New(address string, ready func() (bool, string), log *slog.Logger) *Probe {
	return &Probe{address: address, ready: ready, log: log}
}

// Check says whether the address can be had, and gives it up again. A port 0 is settled by it.
func (p *Probe) Check() error {
	l, err := p.listen()
	if err != nil {
		return err
	}
	p.address = l.Addr().String()
	return l.Close()
}

// Addr is the address.
func (p *Probe) Addr() string { return p.address }

func (p *Probe) listen() (net.Listener, error) {
	l, err := net.Listen("tcp", p.address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("probe.listen: %s is in use by another program; stop it or choose another address", p.address)
	} else if err != nil {
		return nil, fmt.Errorf("probe.listen: %w", err)
	}
	return l, nil
}

// Run answers until ctx is done.
func (p *Probe) Run(ctx context.Context) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if ok, _ := p.ready(); ok {
			if err := p.serve(ctx, tick.C); err != nil || ctx.Err() != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// serve has the port open until the collector is not ready any more.
func (p *Probe) serve(ctx context.Context, tick <-chan time.Time) error {
	l, err := p.listen()
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if ok, why := p.ready(); !ok {
				w.Header().Set("Connection", "close")
				w.WriteHeader(http.StatusServiceUnavailable)
				fmt.Fprint(w, why)
				return
			}
			fmt.Fprintln(w, "ok")
		}),
		ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	for {
		select {
		case err := <-served:
			return fmt.Errorf("probe: %w", err)
		case <-ctx.Done():
			server.Close()
			<-served
			return nil
		case <-tick:
			if ok, _ := p.ready(); ok {
				continue
			}
			// Connections that are open live on to be told, until the probe is ready or over.
			l.Close()
			<-served
			context.AfterFunc(ctx, func() { server.Close() })
			return nil
		}
	}
}
