//go:build unix

package run

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// lock takes a data directory for this process. The kernel gives it back when the process ends, however it does.
func lock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("data directory: cannot lock %s: %w", f.Name(), err)
		}
		owner := ""
		if b, _ := io.ReadAll(io.LimitReader(f, 20)); len(b) > 0 {
			owner = " (process " + strings.TrimSpace(string(b)) + ")"
		}
		return nil, fmt.Errorf("the data directory %s is in use by another run%s; stop that, or choose another directory with --data", dir, owner)
	}
	f.Truncate(0)
	fmt.Fprintln(f, os.Getpid())
	return func() { f.Close() }, nil
}
