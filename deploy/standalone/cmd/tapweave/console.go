package main

import (
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/term"
)

// console prints lines, and on a terminal a status line below them that is overwritten again and again. It is
// safe for concurrent use.
type console struct {
	mu       sync.Mutex
	out      io.Writer
	fd       int
	terminal bool
	status   bool // a status line stands there
}

func newConsole(f *os.File) *console {
	fd := int(f.Fd())
	return &console{out: f, fd: fd, terminal: term.IsTerminal(fd)}
}

// Terminal says whether there is one.
func (c *console) Terminal() bool { return c.terminal }

// Line prints a line, which stays.
func (c *console) Line(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clear()
	fmt.Fprintln(c.out, text)
}

// Status shows a line until the next one; the empty one removes it. Without a terminal it does nothing.
func (c *console) Status(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.terminal {
		return
	}
	c.clear()
	if text == "" {
		return
	}
	runes := []rune(text)
	if width, _, err := term.GetSize(c.fd); err == nil && width > 1 && len(runes) >= width {
		runes = runes[:width-1] // a line that wraps could not be overwritten
	}
	fmt.Fprint(c.out, string(runes))
	c.status = true
}

func (c *console) clear() {
	if c.status {
		fmt.Fprint(c.out, "\r\x1b[K")
		c.status = false
	}
}
