package endtoend

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tapweave/tapweave/proto/conversation"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/logging/logtest"
)

// alone is `tapweave run` as a process.
type alone struct {
	t   *testing.T
	cmd *exec.Cmd
	out *logtest.Buffer
}

// runAlone starts it and returns when its collectors take packets.
func runAlone(t *testing.T, program, dir string, listen [2]string) *alone {
	t.Helper()
	a := &alone{t: t, cmd: exec.Command(program, "run", "--data", dir, "--listen", listen[0]+","+listen[1]), out: new(logtest.Buffer)}
	a.cmd.Stdout, a.cmd.Stderr = a.out, a.out
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.kill)
	a.said(`send captures: (.*)`)
	return a
}

// said waits until a line is printed, and returns what the pattern's group matches.
func (a *alone) said(pattern string) string {
	a.t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if m := re.FindStringSubmatch(a.out.String()); m != nil {
			return m[1]
		}
		if time.Now().After(end) {
			a.t.Fatalf("%q was not printed:\n%s", pattern, a.out)
		}
	}
}

func (a *alone) kill() {
	a.cmd.Process.Kill()
	a.cmd.Wait()
}

// TestRunKilled kills `tapweave run`, all of it at once, while known traffic comes in, and starts it again.
func TestRunKilled(t *testing.T) {
	if os.Getenv("KILLS") == "" {
		t.Skip("run by make chaos, which sets KILLS")
	}
	s := &stack{t: t, dir: t.TempDir()}
	program := filepath.Join(s.dir, "tapweave")
	build := exec.Command("go", "build", "-o", program, "./cmd/tapweave")
	build.Dir = ".."
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const kills, span = 3, 2 * time.Minute
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	l := newLoad(t, conversation.Options{Seed: rng.Uint64(), Start: time.Now(), Conversations: int(span.Seconds()) * conversationsPerSecond, Span: span})
	stop := make(chan struct{})
	var sending sync.WaitGroup
	listen := [2]string{freePort(t, "udp"), freePort(t, "udp")}
	var a *alone
	for life := range kills + 1 {
		var lives []*incarnation
		for i, addr := range listen {
			lives = append(lives, l.begin(name("collector", i+1), addr))
		}
		a = runAlone(t, program, filepath.Join(s.dir, "data"), listen)
		for _, i := range lives {
			l.add(i)
		}
		if life == 0 {
			sending.Go(func() { l.run(stop) })
		}
		time.Sleep(5*time.Second + time.Duration(rng.Int64N(int64(3*time.Second))))
		if life == kills {
			break
		}
		for _, i := range lives {
			l.remove(i)
			i.died, i.bound = time.Now(), 2*time.Second
		}
		a.kill()
	}
	close(stop)
	sending.Wait()

	k := kafka.DefaultConfig()
	k.Brokers = []string{a.said(`embedded Kafka broker at (\S+)`)}
	var err error
	if s.client, err = kafka.New(k); err != nil {
		t.Fatal(err)
	}
	defer s.client.Close()
	s.sql = a.said(`SQL in the browser: (http://[^/]+)/`)
	var log reader
	s.eventually(time.Minute, "what the collectors took in to be on the log", func() error {
		if err := log.read(s); err != nil {
			return err
		}
		l.logged(&log)
		if n := l.missing(); n > 0 {
			return fmt.Errorf("%d packets are missing", n)
		}
		return nil
	})
	end := time.Now()
	s.endOfInput()
	s.settled()
	seen, losses, _ := l.seen()
	for _, i := range losses {
		t.Logf("lost with %s when it was killed: %d packets, the oldest %.2f s old", i.name, i.packets, i.oldest.Seconds())
		if i.oldest > i.bound {
			t.Errorf("%s lost what it had for %v", i.name, i.oldest)
		}
	}
	truth := l.traffic.Sessions(func(p *conversation.Packet) bool { return seen[p] }, end.UnixNano())
	rows := s.rows()
	t.Logf("%d packets, %d sessions, %d stored", len(l.sent), len(truth), len(rows))
	if len(truth) < 100 {
		t.Errorf("only %d sessions", len(truth))
	}
	// Of these sessions nothing is sampled but starts.
	for _, d := range conversation.Differences(truth, rows, conversation.Skewed|conversation.Late) {
		t.Error(d)
	}
	s.checkTraffic()
	if bytes.Contains([]byte(a.out.String()), []byte("panic")) {
		t.Error(a.out)
	}
}
