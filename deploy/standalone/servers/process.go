package servers

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// process is a child and what is known of its end.
type process struct {
	name    string
	cmd     *exec.Cmd
	stdin   io.Closer // the child ends when this is closed; nil: it ends on SIGTERM
	console string    // file that holds what it printed
	grace   time.Duration

	done     chan struct{}
	err      error // why it ended; read after done
	stopOnce sync.Once
}

// start runs cmd with its output in the file console. With hold, its standard input is a pipe that stays open as long as
// the parent lives.
func start(name string, cmd *exec.Cmd, console string, hold bool, grace time.Duration) (*process, error) {
	out, err := os.Create(console)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = childAttributes()
	p := &process{name: name, cmd: cmd, console: console, grace: grace, done: make(chan struct{})}
	if hold {
		if p.stdin, err = cmd.StdinPipe(); err != nil {
			return nil, err
		}
	}
	started := make(chan error)
	// The kernel kills the child when the thread that started it ends. A goroutine of its own is never on a thread that a
	// caller has locked, and only such threads end before the process does.
	go func() {
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", name, err)
	}
	return p, nil
}

// PID is the process id of the server.
func (p *process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended, for whatever reason.
func (p *process) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the process and returns why it ended: nil only after status 0.
func (p *process) Wait() error {
	<-p.done
	return p.err
}

// Kill ends the process as a crash would, and waits for that.
func (p *process) Kill() error {
	err := p.signal(syscall.SIGKILL)
	<-p.done
	return err
}

// Stop lets the process end in good order, and kills it where it takes too long. A process that has ended is left alone.
func (p *process) Stop() error {
	p.stopOnce.Do(func() {
		if p.stdin != nil {
			p.stdin.Close()
		} else {
			p.signal(syscall.SIGTERM)
		}
	})
	select {
	case <-p.done:
		return nil
	case <-time.After(p.grace):
	}
	p.Kill()
	return fmt.Errorf("%s did not stop within %s and was killed", p.name, p.grace)
}

func (p *process) signal(s syscall.Signal) error {
	err := p.cmd.Process.Signal(s)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// printed returns what the process has printed so far, at most its last 64 KiB.
func (p *process) printed() string {
	f, err := os.Open(p.console)
	if err != nil {
		return ""
	}
	defer f.Close()
	const most = 64 << 10
	if info, err := f.Stat(); err == nil && info.Size() > most {
		f.Seek(-most, io.SeekEnd)
	}
	text, _ := io.ReadAll(f)
	return string(text)
}
