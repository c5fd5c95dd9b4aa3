package run

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// logFile is where the log of all services goes.
func logFile(dir string) string { return filepath.Join(dir, "tapweave.log") }

// openLog makes the log of this run, and keeps that of the last one beside it.
func openLog(dir string, console Console) (*slog.Logger, func(), error) {
	name := logFile(dir)
	if err := os.Rename(name, name+".1"); err != nil && !os.IsNotExist(err) {
		return nil, nil, err
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, nil, err
	}
	return slog.New(newHandler(f, console)), func() { f.Close() }, nil
}

// handler writes everything to a file, and shows warnings and errors on the console.
type handler struct {
	slog.Handler
	console Console
	name    string // of the service
}

func newHandler(w io.Writer, console Console) handler {
	return handler{Handler: slog.NewTextHandler(w, nil), console: console}
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if a.Key == "name" {
			h.name = a.Value.String()
		}
	}
	h.Handler = h.Handler.WithAttrs(attrs)
	return h
}

func (h handler) WithGroup(name string) slog.Handler {
	h.Handler = h.Handler.WithGroup(name)
	return h
}

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		var b strings.Builder
		name := h.name
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "service" {
				name = a.Value.String()
			} else {
				fmt.Fprintf(&b, ", %s: %v", strings.ReplaceAll(a.Key, "_", " "), a.Value)
			}
			return true
		})
		h.console.Line(strings.ToLower(r.Level.String()) + ": " + name + ": " + strings.ReplaceAll(r.Message+b.String(), "\n", "; "))
	}
	return h.Handler.Handle(ctx, r)
}
