package kafka

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Retry says how long to wait between tries: twice as long each time, less up to a half by chance, so that
// many clients do not come back at once. The zero value begins with 100 ms and goes up to 5 s.
type Retry struct {
	Min, Max time.Duration
}

type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

// Permanent marks an error that trying again cannot cure.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return permanentError{err}
}

// Do calls try until it returns nil or a Permanent error, or until ctx is done; then it returns the last
// error, or that of ctx if there was none. failed, if not nil, hears of every error that is tried again after.
func (r Retry) Do(ctx context.Context, try func() error, failed func(error)) error {
	if r.Min <= 0 {
		r.Min = 100 * time.Millisecond
	}
	if r.Max <= 0 {
		r.Max = 5 * time.Second
	}
	var last error
	for wait := r.Min; ; wait = min(2*wait, r.Max) {
		if ctx.Err() != nil {
			if last == nil {
				last = ctx.Err()
			}
			return last
		}
		err := try()
		var p permanentError
		if err == nil {
			return nil
		} else if errors.As(err, &p) {
			return p.error
		}
		if ctx.Err() != nil {
			if last == nil || !errors.Is(err, context.Canceled) {
				last = err
			}
			return last
		}
		if last = err; failed != nil {
			failed(err)
		}
		if sleep(ctx, wait-rand.N(wait/2)) != nil {
			return last
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
