// Package networktest gives tests networks of their own: namespaces, joined by interfaces.
package networktest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace. It has a loopback interface, which is up, and lasts as long as its test.
type Namespace struct {
	t      testing.TB
	thread int // that is in it
	work   chan func()
}

// New makes a namespace. Whoever may not is told what it needs, and leaves the test out; with CI=true it fails.
func New(t testing.TB) *Namespace {
	t.Helper()
	missing := func(what string) {
		t.Helper()
		if os.Getenv("CI") == "true" {
			t.Fatal(what)
		}
		t.Skip(what)
	}
	if os.Geteuid() != 0 {
		missing("a network namespace needs root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		missing("no program ip (iproute2)")
	}
	n := &Namespace{t: t, work: make(chan func())}
	opened := make(chan error)
	go func() {
		// The thread is never given back: it ends with the goroutine, and the namespace with it.
		runtime.LockOSThread()
		opened <- unix.Unshare(unix.CLONE_NEWNET)
		for f := range n.work {
			f()
		}
	}()
	t.Cleanup(func() { close(n.work) })
	if err := <-opened; errors.Is(err, unix.EPERM) {
		missing("a network namespace needs CAP_SYS_ADMIN")
	} else if err != nil {
		t.Fatal(err)
	}
	n.Do(func() error { n.thread = unix.Gettid(); return nil })
	n.IP("link set lo up")
	return n
}

// Do runs f in the namespace. An error of f ends the test.
func (n *Namespace) Do(f func() error) {
	n.t.Helper()
	done := make(chan error)
	n.work <- func() { done <- f() }
	if err := <-done; err != nil {
		n.t.Fatal(err)
	}
}

// IP runs the program ip in the namespace, once for each line of arguments.
func (n *Namespace) IP(lines ...string) {
	n.t.Helper()
	for _, line := range lines {
		n.Do(func() error {
			if b, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
				return fmt.Errorf("ip %s: %w: %s", line, err, b)
			}
			return nil
		})
	}
}

// Join joins two namespaces, which may be the same, by a pair of interfaces (veth) of that MTU that are up.
func Join(a *Namespace, nameA string, b *Namespace, nameB string, mtu int) {
	a.t.Helper()
	a.IP("link add "+nameA+" type veth peer name "+nameB, fmt.Sprint("link set ", nameB, " netns ", b.thread))
	a.IP(fmt.Sprintf("link set %s mtu %d up", nameA, mtu))
	b.IP(fmt.Sprintf("link set %s mtu %d up", nameB, mtu))
}
