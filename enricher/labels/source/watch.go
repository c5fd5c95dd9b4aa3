package source

import (
	"context"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long files have to be left alone before they are read: several are often written together.
	settle = 300 * time.Millisecond
	// look is how often files are looked at where the system tells of no change, as on network drives.
	look = 30 * time.Second
)

// Watch calls read at once, and whenever a file may have changed, until ctx is done. Directories are watched, so that
// files that are put in another's place, as Kubernetes and most tools do, are noticed.
func Watch(ctx context.Context, c Config, read func()) {
	var events chan fsnotify.Event
	var failures chan error
	if w, err := fsnotify.NewWatcher(); err == nil {
		defer w.Close()
		seen := map[string]bool{}
		for _, f := range c.files() {
			if dir := filepath.Dir(f.path); !seen[dir] {
				seen[dir] = true
				_ = w.Add(dir) // what cannot be watched is looked at
			}
		}
		events, failures = w.Events, w.Errors
	}
	every := time.NewTicker(look)
	defer every.Stop()
	later := time.NewTimer(0)
	defer later.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			later.Reset(settle)
		case _, ok := <-failures:
			if !ok {
				failures = nil
			}
		case <-every.C:
			read()
		case <-later.C:
			read()
		}
	}
}
