// Package logging makes a service's logger, and holds back lines that would repeat.
package logging

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// Config of the log.
type Config struct {
	Level  slog.Level `yaml:"level" doc:"Least level that is written: DEBUG, INFO, WARN or ERROR."`
	Format string     `yaml:"format" doc:"text or json, one line an entry, to standard error."`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config { return Config{Level: slog.LevelInfo, Format: "text"} }

// Validate says what is wrong with a configuration.
func (c Config) Validate() error {
	if c.Format != "text" && c.Format != "json" {
		return fmt.Errorf("format %q is neither text nor json", c.Format)
	}
	return nil
}

// New returns a logger that writes to w.
func New(w io.Writer, c Config) *slog.Logger {
	o := &slog.HandlerOptions{Level: c.Level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// Limited writes at most one line a kind in an interval; the line after those that were left out says how
// many they were. It is safe for concurrent use.
type Limited struct {
	log   *slog.Logger
	every time.Duration
	now   func() time.Time

	mu    sync.Mutex
	kinds map[string]*kind
}

type kind struct {
	last    time.Time
	leftOut uint64
}

// NewLimited returns a Limited with one line a minute.
func NewLimited(log *slog.Logger) *Limited {
	return &Limited{log: log, every: time.Minute, now: time.Now, kinds: map[string]*kind{}}
}

// Warn writes a warning of a kind. The kinds are few and fixed: a kind never has foreign text in it.
func (l *Limited) Warn(kind, message string, args ...any) {
	l.write(slog.LevelWarn, kind, message, args)
}

// Error writes an error of a kind.
func (l *Limited) Error(kind, message string, args ...any) {
	l.write(slog.LevelError, kind, message, args)
}

func (l *Limited) write(level slog.Level, name, message string, args []any) {
	now := l.now()
	l.mu.Lock()
	k := l.kinds[name]
	if k == nil {
		k = new(kind)
		l.kinds[name] = k
	}
	if !k.last.IsZero() && now.Sub(k.last) < l.every {
		k.leftOut++
		l.mu.Unlock()
		return
	}
	leftOut := k.leftOut
	k.last, k.leftOut = now, 0
	l.mu.Unlock()
	if leftOut > 0 {
		args = append(args[:len(args):len(args)], "left_out", leftOut)
	}
	l.log.Log(context.Background(), level, message, args...)
}

// Reset lets the next line of a kind through, for when what was wrong has been well again.
func (l *Limited) Reset(name string) {
	l.mu.Lock()
	delete(l.kinds, name)
	l.mu.Unlock()
}
