package servers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// CacheDir is where fetched programs are kept, outside of any data directory: tapweave under $XDG_CACHE_HOME or ~/.cache.
func CacheDir() (string, error) {
	base := os.Getenv("XDG_CACHE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("no place for a cache: set XDG_CACHE_HOME or HOME: %w", err)
		}
		base = filepath.Join(home, ".cache")
	}
	return filepath.Join(base, "tapweave"), nil
}

// cached returns the directory name in the cache. Where it is not complete, fill makes it in an empty directory that then
// takes its place in one step: nobody ever sees half of it, and of two processes that want it one fetches and one waits.
func cached(ctx context.Context, name string, tell report, complete func(dir string) bool, fill func(dir string) error) (string, error) {
	root, err := CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, name)
	if complete(dir) {
		return dir, nil
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", fmt.Errorf("cannot make the cache directory: %w", err)
	}
	unlock, err := lockFile(ctx, filepath.Join(root, name+".lock"), func() {
		tell.step(Progress{Step: "waiting for another process that fetches " + name})
	})
	if err != nil {
		return "", err
	}
	defer unlock()
	if complete(dir) {
		return dir, nil
	}
	partial := filepath.Join(root, name+".partial")
	for _, old := range []string{dir, partial} {
		if err := os.RemoveAll(old); err != nil {
			return "", fmt.Errorf("cannot clear the cache: %w", err)
		}
	}
	if err := os.Mkdir(partial, 0o755); err != nil {
		return "", err
	}
	defer os.RemoveAll(partial)
	if err := fill(partial); err != nil {
		return "", err
	}
	if !complete(partial) {
		return "", fmt.Errorf("%s came incomplete", name)
	}
	return dir, os.Rename(partial, dir)
}

// lockFile takes the lock of a file, which the kernel releases should this process die. waiting is called once if
// somebody else holds it.
func lockFile(ctx context.Context, path string, waiting func()) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for first := true; ; first = false {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("cannot lock %s: %w", path, err)
		}
		if first {
			waiting()
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// fetch runs a program that downloads, and tells every half second how many bytes lie under watch.
func fetch(ctx context.Context, p Progress, tell report, watch string, cmd *exec.Cmd) error {
	tell.step(p)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = childAttributes()
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	ended := make(chan error, 1)
	go func() { ended <- cmd.Run() }()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			p.Done = directorySize(watch)
			tell.step(p)
		case err := <-ended:
			if err == nil {
				p.Done, p.Finished = p.Total, true
				tell.step(p)
				return nil
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("%s failed: %w: %s", filepath.Base(cmd.Path), err, reason(out.String()))
		}
	}
}

// reason picks the lines of a package tool's output that say what went wrong, at most two.
func reason(out string) string {
	var lines []string
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		text, npm := strings.CutPrefix(line, "npm error ")
		text, maven := strings.CutPrefix(text, "[ERROR] ")
		switch first, _, _ := strings.Cut(text, " "); {
		case !npm && !maven, first == "syscall", first == "errno", first == "A", text == "", len(lines) == 2:
		default:
			lines = append(lines, text)
		}
	}
	if len(lines) == 0 {
		return lastLines(out, 2)
	}
	return strings.Join(lines, ": ")
}

// directorySize is the sum of the lengths of all files under dir.
func directorySize(dir string) int64 {
	var sum int64
	filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				sum += info.Size()
			}
		}
		return nil
	})
	return sum
}
