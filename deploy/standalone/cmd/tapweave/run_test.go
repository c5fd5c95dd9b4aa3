package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// needClickHouse skips the test where ClickHouse can neither be found nor fetched; where CI is set it goes on, and fails.
func needClickHouse(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	for _, name := range []string{"clickhouse", "clickhouse-server", "npm"} {
		if _, err := exec.LookPath(name); err == nil {
			return
		}
	}
	if os.Getenv("CI") != "true" {
		t.Skip("neither clickhouse nor npm is on the PATH")
	}
}

// freePorts returns UDP addresses on which nobody listens.
func freePorts(t *testing.T, n int) string {
	t.Helper()
	var list []string
	for range n {
		c, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		list = append(list, c.LocalAddr().String())
	}
	return strings.Join(list, ",")
}

// process is the program while it runs.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stderr bytes.Buffer
	ended  chan struct{}

	mu   sync.Mutex
	text string // printed so far
}

// begin starts the program.
func begin(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(program, args...), ended: make(chan struct{})}
	p.cmd.Stderr = &p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		in := bufio.NewReader(out)
		for {
			line, err := in.ReadString('\n')
			p.mu.Lock()
			p.text += line
			p.mu.Unlock()
			if err != nil {
				break
			}
		}
		p.cmd.Wait()
	}()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.ended
	})
	return p
}

// printed returns what the program has printed so far.
func (p *process) printed() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text
}

// wait returns what the first group of a pattern matches, as soon as it is printed.
func (p *process) wait(pattern string) string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		over := false
		select {
		case <-p.ended:
			over = true
		default:
		}
		if m := re.FindStringSubmatch(p.printed()); m != nil {
			return m[len(m)-1]
		}
		if over || time.Now().After(deadline) {
			p.t.Fatalf("%q was not printed (ended: %v):\n%s%s", pattern, over, p.printed(), p.stderr.String())
		}
	}
}

// stop sends SIGTERM and returns the exit status.
func (p *process) stop() int {
	p.t.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(time.Minute):
		p.t.Fatalf("did not end:\n%s%s", p.printed(), p.stderr.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

// page is the pattern of the SQL page's line.
const page = `SQL in the browser: (http://\S+)/play\?user=reader`

// query asks the ClickHouse of a run.
func query(t *testing.T, base, sql string) string {
	t.Helper()
	answer, err := http.Post(base+"/?user=reader", "text/plain", strings.NewReader(sql))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %v %s", sql, err, body)
	}
	return string(body)
}

// measures reads sessions, one JSON object a line, and returns those of their columns that do not depend on when the
// packets were sent, one text a session, in order.
func measures(t *testing.T, text string) (list []string) {
	t.Helper()
	for line := range strings.Lines(text) {
		var row map[string]any
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		s := ""
		for _, name := range strings.Split(measured, ", ") {
			s += fmt.Sprintf("%s=%v ", name, row[name])
		}
		list = append(list, s)
	}
	slices.Sort(list)
	return list
}

const measured = "protocol, src_ip, src_port, dst_ip, dst_port, src_packets, dst_packets, src_bytes, dst_bytes, duplicate_packets"

// processes returns the ids of those that have a word in their command line.
func processes(t *testing.T, word string) (ids []int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte(word)) {
			if id, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// gone waits until no process has a word in its command line.
func gone(t *testing.T, word string) {
	t.Helper()
	var left []int
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if left = processes(t, word); len(left) == 0 {
			return
		}
	}
	t.Errorf("processes %v are left", left)
}

// same checks that got holds what want does, in any order.
func same(t *testing.T, when string, got, want []string) {
	t.Helper()
	got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		t.Errorf("%s: %d rows\n%s\nnot these %d\n%s", when, len(got), strings.Join(got, "\n"), len(want), strings.Join(want, "\n"))
	}
}

// The demo, what is left of it, and what a user or a machine may do to a run.
func TestRun(t *testing.T) {
	needClickHouse(t)
	dir := filepath.Join(t.TempDir(), "data")
	listen := freePorts(t, 2)
	flags := []string{"--data", dir, "--listen", listen}
	rows := func(base string) []string {
		return measures(t, query(t, base, "SELECT "+measured+" FROM tapweave.sessions FORMAT JSONEachRow"))
	}

	// Session by session, the rows are those of read.
	p := begin(t, append([]string{"run", "--demo"}, flags...)...)
	base := p.wait(page)
	p.wait("those of tapweave read")
	p.wait("SQL to try")
	_, sessions, _ := run(t, "read", filepath.Join(dir, "sample.pcap"))
	want := measures(t, sessions)
	if got := rows(base); !slices.Equal(got, want) {
		t.Errorf("rows:\n%s\nread:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	taps := map[string]bool{} // those of the capture, as replay maps them
	for line := range strings.Lines(sessions) {
		var row struct {
			TapPoints []string `json:"tap_points"`
		}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatal(err)
		}
		for _, tap := range row.TapPoints {
			taps["127.77."+strings.Join(strings.Split(tap, ".")[2:], ".")] = true
		}
	}
	if n := strings.TrimSpace(query(t, base, "SELECT keep_free_space FROM system.disks WHERE name = 'default'")); n != "268435456" {
		t.Errorf("ClickHouse leaves %s bytes of its disk free, want 256 MiB", n)
	}
	got := strings.Fields(query(t, base, "SELECT DISTINCT arrayJoin(tap_points) AS tap FROM tapweave.sessions ORDER BY tap FORMAT TSV"))
	if len(taps) < 2 || !slices.Equal(got, slices.Sorted(maps.Keys(taps))) {
		t.Errorf("tap points %v, not %v", got, taps)
	}
	if n := strings.TrimSpace(query(t, base, "SELECT uniqExactArray(collectors) FROM tapweave.sessions")); n != "2" {
		t.Errorf("%s collectors saw something", n)
	}
	if status := p.stop(); status != 0 || p.stderr.Len() > 0 {
		t.Errorf("SIGTERM: status %d, %s\n%s", status, p.stderr.String(), p.printed())
	}
	gone(t, dir)

	// The next run has them still.
	p = begin(t, append([]string{"run"}, flags...)...)
	base = p.wait(page)
	same(t, "after a restart", rows(base), want)

	// What it has cannot be had by another run at the same time.
	status, _, stderr := run(t, "run", "--data", dir, "--listen", freePorts(t, 2))
	if status != 1 {
		t.Errorf("data directory in use: status %d", status)
	}
	oneLine(t, stderr, dir, "in use", "--data", strconv.Itoa(p.cmd.Process.Pid))
	first, _, _ := strings.Cut(listen, ",")
	status, _, stderr = run(t, "run", "--data", t.TempDir(), "--listen", listen)
	if status != 1 {
		t.Errorf("port in use: status %d", status)
	}
	oneLine(t, stderr, first, "in use", "--listen")

	// ClickHouse may die.
	for _, id := range processes(t, filepath.Join(dir, "clickhouse")) {
		syscall.Kill(id, syscall.SIGKILL)
	}
	p.wait("ClickHouse is back")
	same(t, "after ClickHouse died", rows(base), want)

	// The run itself may die, and takes ClickHouse along; the next one works with what it left, and ends by itself when
	// all of the demo can be queried.
	p.cmd.Process.Kill()
	<-p.ended
	gone(t, dir)
	status, stdout, stderr := run(t, append([]string{"run", "--demo", "--once"}, flags...)...)
	if status != 0 || stderr != "" || !strings.Contains(stdout, "can be queried") || !strings.Contains(stdout, "SQL to try") {
		t.Errorf("status %d, %q\n%s", status, stderr, stdout)
	}
	gone(t, dir)
}

func TestWrongRunCommandLines(t *testing.T) {
	for _, c := range []struct {
		args  []string
		words []string
	}{
		{[]string{"run", "--once"}, []string{"--demo"}},
		{[]string{"run", "x.pcap"}, []string{"replay"}},
		{[]string{"run", "--dat", "x"}, []string{"-dat"}},
		{[]string{"replay", "x.pcap"}, []string{"collector"}},
		{[]string{"replay", "--to", "127.0.0.1:4789"}, []string{"capture"}},
		{[]string{"replay", "--to", "127.0.0.1:4789", "--pps", "0", "x.pcap"}, []string{"pps", "above 0"}},
	} {
		status, stdout, stderr := run(t, c.args...)
		if status != 2 || stdout != "" {
			t.Errorf("%q: status %d\n%s", c.args, status, stdout)
		}
		oneLine(t, stderr, c.words...)
	}
	for _, listen := range []string{"4789", "localhost"} {
		status, _, stderr := run(t, "run", "--data", t.TempDir(), "--listen", listen)
		if status != 1 {
			t.Errorf("--listen %s: status %d", listen, status)
		}
		oneLine(t, stderr, "--listen", listen)
	}
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	status, _, stderr := run(t, "run", "--data", path)
	if status != 1 {
		t.Errorf("--data is a file: status %d", status)
	}
	oneLine(t, stderr, path)
}

func TestReplay(t *testing.T) {
	path, offsets := capture(t, 100)
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.(*net.UDPConn).SetReadBuffer(4 << 20)
	to := conn.LocalAddr().String()
	status, stdout, stderr := run(t, "replay", path, "--to", to, "--pps", "10000")
	n := len(offsets) - 1
	if status != 0 || stderr != "" || !strings.Contains(stdout, fmt.Sprintf("sent %d packets", n)) || !strings.Contains(stdout, fmt.Sprintf("%d to %s", n, to)) {
		t.Errorf("status %d, %q\n%s", status, stderr, stdout)
	}
	conn.SetReadDeadline(time.Now().Add(time.Second))
	ports := map[string]bool{}
	for i := range n {
		b := make([]byte, 1<<16)
		if _, from, err := conn.ReadFrom(b); err != nil {
			t.Fatalf("packet %d: %v", i, err)
		} else {
			ports[from.String()] = true
		}
	}
	if len(ports) < 2 {
		t.Errorf("all came from %v", maps.Keys(ports))
	}

	// Nobody listens.
	conn.Close()
	status, _, stderr = run(t, "replay", "--to", to, "--pps", "1e6", path)
	if status != 1 {
		t.Errorf("nobody listens: status %d", status)
	}
	oneLine(t, stderr, to, fmt.Sprint(n), "refused")

	// What can be read of a damaged file is sent.
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut.pcap")
	if err := os.WriteFile(cut, whole[:len(whole)-3], 0o666); err != nil {
		t.Fatal(err)
	}
	sink, err := net.ListenPacket("udp4", to)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	status, stdout, stderr = run(t, "replay", "--to", to, "--pps", "1e6", cut)
	if status != 1 || !strings.Contains(stdout, fmt.Sprintf("sent %d packets", n-1)) {
		t.Errorf("cut short: status %d\n%s", status, stdout)
	}
	oneLine(t, stderr, cut, strconv.FormatInt(offsets[n-1], 10), "cut short")

	// Ctrl-C.
	p := begin(t, "replay", "--to", to, "--pps", "1", path)
	time.Sleep(300 * time.Millisecond)
	if status := p.stop(); status != 1 || !strings.Contains(p.printed(), "sent 1 packets") || !strings.Contains(p.stderr.String(), "interrupted") {
		t.Errorf("SIGTERM: status %d, %s%s", status, p.printed(), p.stderr.String())
	}
}
