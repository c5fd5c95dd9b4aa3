// Package load sends mirrored packets to a collector that runs as a program of its own, as fast as it takes them and
// faster, and looks at what that costs it and what becomes of them.
package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapweave/tapweave/collector/decode"
	"github.com/tapweave/tapweave/collector/source/capture"
	"github.com/tapweave/tapweave/collector/source/udp"
	"github.com/tapweave/tapweave/proto/capturetest"
	"github.com/tapweave/tapweave/service/admin"
	"github.com/tapweave/tapweave/service/logging/logtest"
)

const (
	// drainVariable names the UDP address that this test program drains, where it is started anew for that.
	drainVariable = "TAPWEAVE_TEST_DRAIN"
	// bufferBytes is the size of a program's socket buffer.
	bufferBytes = 64 << 20
)

func TestMain(m *testing.M) {
	if address := os.Getenv(drainVariable); address != "" {
		fmt.Fprintln(os.Stderr, drain(address))
		os.Exit(1)
	}
	code := m.Run()
	if dir, err := built(); err == nil {
		os.RemoveAll(filepath.Dir(dir))
	}
	os.Exit(code)
}

// drain is the least that a program can do with datagrams: recvmmsg, again and again.
func drain(address string) error {
	sockets, err := udp.Listen(udp.Config{Address: address, Sockets: 1, ReceiveBytes: bufferBytes}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	fmt.Println(draining)
	for {
		if _, _, err := sockets[0].Receive(200 * time.Millisecond); err != nil {
			return err
		}
	}
}

// built builds the collector, once, and returns its path.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "tapweave-load")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "collector")
	c := exec.Command("go", "build", "-o", path, "./cmd/collector")
	c.Dir, c.Env = filepath.Join("..", "..", "..", "collector"), append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the collector: %w\n%s", err, out)
	}
	return path, nil
})

// draining is what drain says when it has its socket.
const draining = "draining"

// program is a running one that receives datagrams at 127.0.0.1.
type program struct {
	tb      testing.TB
	cmd     *exec.Cmd
	ended   chan struct{}
	log     logtest.Buffer
	address *net.UDPAddr
}

func start(tb testing.TB, path string, env func(address string) []string) *program {
	tb.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		tb.Fatal(err)
	}
	p := &program{tb: tb, cmd: exec.Command(path), ended: make(chan struct{}), address: c.LocalAddr().(*net.UDPAddr)}
	c.Close()
	p.cmd.Env = append(os.Environ(), env(p.address.String())...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	tb.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.ended
		if tb.Failed() {
			tb.Logf("%s printed:\n%s", path, &p.log)
		}
	})
	return p
}

// startDrain starts this test program as what only receives.
func startDrain(tb testing.TB) *program {
	tb.Helper()
	p := start(tb, os.Args[0], func(address string) []string { return []string{drainVariable + "=" + address} })
	p.await("a socket", func() bool { return strings.Contains(p.log.String(), draining) })
	return p
}

// startCollector starts a collector with one worker and waits until it is ready. env has more of its settings.
func startCollector(tb testing.TB, broker, prefix string, env ...string) *program {
	tb.Helper()
	path, err := built()
	if err != nil {
		tb.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	at := l.Addr().String()
	l.Close()
	p := start(tb, path, func(address string) []string {
		return append([]string{
			"TAPWEAVE_NAME=load", "TAPWEAVE_LISTEN=" + address, "TAPWEAVE_ADMIN_LISTEN=" + at, "TAPWEAVE_KAFKA_BROKERS=" + broker,
			"TAPWEAVE_KAFKA_TOPIC_PREFIX=" + prefix, "TAPWEAVE_WORKERS=1", "TAPWEAVE_DRAIN_TIME=0s",
			fmt.Sprint("TAPWEAVE_RECEIVE_BUFFER_BYTES=", bufferBytes),
		}, env...)
	})
	p.await("ready", func() bool { return admin.Probe(tb.Context(), at) == nil })
	return p
}

// await waits for at most three minutes until something holds: brokers with much else to do take their time.
func (p *program) await(what string, holds func() bool) {
	p.tb.Helper()
	for limit := time.Now().Add(3 * time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
		select {
		case <-p.ended:
			p.tb.Fatalf("%s ended", p.cmd.Path)
		default:
		}
		if time.Now().After(limit) {
			p.tb.Fatalf("not in three minutes: %s", what)
		}
	}
}

// end tells the program to drain, and waits until it has ended.
func (p *program) end() {
	p.tb.Helper()
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(3 * time.Minute):
		p.tb.Fatal("it does not end")
	}
}

// processor is the time that the program has had processors, the kernel's for it among it.
func (p *program) processor() time.Duration {
	const perProcess = 2 // CPUCLOCK_SCHED of linux/posix-timers.h
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^p.cmd.Process.Pid<<3|perProcess), &t); err != nil {
		p.tb.Fatal(err)
	}
	return time.Duration(t.Nano())
}

// peak is the most memory that the program has had resident, in bytes.
func (p *program) peak() uint64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.tb.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				p.tb.Fatal(err)
			}
			return n << 10
		}
	}
	p.tb.Fatal("no VmHWM")
	return 0
}

// queue is what waits in the program's socket, in bytes as the kernel counts them, and how many datagrams it has
// dropped at this address, for want of room or as refused; ok says whether there is such a socket.
func (p *program) queue() (waiting, dropped uint64, ok bool) {
	b, err := os.ReadFile("/proc/net/udp")
	if err != nil {
		p.tb.Fatal(err)
	}
	local := fmt.Sprintf("0100007F:%04X", p.address.Port)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && f[1] == local {
			_, queue, _ := strings.Cut(f[4], ":")
			n, _ := strconv.ParseUint(queue, 16, 64)
			waiting += n
			n, _ = strconv.ParseUint(f[len(f)-1], 10, 64)
			dropped += n
			ok = true
		}
	}
	return waiting, dropped, ok
}

// sender sends from several ports of an address of loopback.
type sender struct {
	to    *program
	from  string
	conns []*net.UDPConn
	sent  int
}

func newSender(p *program, from string) *sender {
	p.tb.Helper()
	s := &sender{to: p, from: from}
	for range 8 {
		c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from)}, p.address)
		if err != nil {
			p.tb.Fatal(err)
		}
		p.tb.Cleanup(func() { c.Close() })
		s.conns = append(s.conns, c)
	}
	return s
}

// send sends a datagram.
func (s *sender) send(b []byte) {
	s.sent++
	if _, err := s.conns[s.sent%len(s.conns)].Write(b); err != nil && !errors.Is(err, unix.ENOBUFS) {
		s.to.tb.Fatal(err)
	}
}

// saturated lets the program have datagrams as they come when there are more than it can take: the socket is filled
// while the program stands still, and then emptied while nothing comes. Whatever is sent is in between.
type saturated struct {
	*program
	sent int
}

const fill = bufferBytes / 4

func (p *program) saturate() *saturated {
	p.cmd.Process.Signal(syscall.SIGSTOP)
	return &saturated{program: p}
}

// more is to be called after each datagram.
func (s *saturated) more() {
	if s.sent++; s.sent%512 == 0 {
		if waiting, _, _ := s.queue(); waiting > fill {
			s.release()
			s.cmd.Process.Signal(syscall.SIGSTOP)
		}
	}
}

// release lets the program go on and waits until its socket is empty.
func (s *saturated) release() {
	s.cmd.Process.Signal(syscall.SIGCONT)
	s.wait(0)
}

// wait waits until no more than that waits in the socket.
func (p *program) wait(most uint64) {
	for limit := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Microsecond) {
		waiting, _, ok := p.queue()
		if ok && waiting <= most {
			return
		}
		if !ok || time.Now().After(limit) {
			p.tb.Fatalf("%d bytes wait, socket there: %v", waiting, ok)
		}
	}
}

// mixed returns the frames of the captures of which the large mixed capture is made, in VXLAN, mixed by time.
func mixed(tb testing.TB) [][]byte {
	tb.Helper()
	type frame struct {
		at       int64
		datagram []byte
	}
	var all []frame
	for _, name := range []string{
		"try-zeek__http.pcap", "zeek__1000-requests-one-dropped-response.pcap", "suricata-verify__tls-subjectaltname__input.pcap",
		"zeek__smb2_100_small_files.pcap", "nDPI__reddit.pcap", "zeek__206_example_b.pcap", "zeek__rdp-to-ssl.pcap",
		"PcapPlusPlus__650HttpResponses.pcap", "zeek__echo-connections.pcap",
	} {
		r, err := capture.Open(capturetest.File(tb, name))
		if err != nil {
			tb.Fatal(err)
		}
		for {
			rec, err := r.Next()
			if err == io.EOF {
				break
			} else if err != nil {
				tb.Fatal(err)
			}
			if rec.Link == decode.LinkEthernet {
				all = append(all, frame{rec.Time % 1e9, vxlan(27, rec.Data)})
			}
		}
		r.Close()
	}
	slices.SortStableFunc(all, func(a, b frame) int { return int(a.at - b.at) })
	datagrams := make([][]byte, len(all))
	for i, f := range all {
		datagrams[i] = f.datagram
	}
	return datagrams
}

// vxlan is a frame as it is mirrored.
func vxlan(vni uint32, frame []byte) []byte {
	b := append(make([]byte, 0, 8+len(frame)), 8, 0, 0, 0)
	return append(binary.BigEndian.AppendUint32(b, vni<<8), frame...)
}

// ipv4 is an Ethernet frame of an IPv4 packet.
func ipv4(protocol byte, id, fragment uint16, src, dst uint32, payload []byte) []byte {
	be := binary.BigEndian
	b := append(make([]byte, 12, 34+len(payload)), 8, 0, 0x45, 0)
	b = be.AppendUint16(b, uint16(20+len(payload)))
	b = be.AppendUint16(be.AppendUint16(b, id), fragment)
	b = append(b, 64, protocol, 0, 0)
	return append(be.AppendUint32(be.AppendUint32(b, src), dst), payload...)
}

// floods are datagrams that nobody wants many of, n of each kind.
func floods(n int) map[string][][]byte {
	be := binary.BigEndian
	all := map[string][][]byte{}
	for i := range n {
		address := uint32(10<<24 + 9<<16 + i)
		udp := append([]byte{0x30, 0x39, 0, 53, 0, 108, 0, 0}, make([]byte, 100)...)
		frame := ipv4(17, uint16(i), 0, address, 10<<24+1, udp)
		for range 7 { // more than are unwrapped
			inner := vxlan(uint32(i), frame)
			outer := be.AppendUint16([]byte{0x30, 0x39, 0x12, 0xb5}, uint16(8+len(inner)))
			frame = ipv4(17, uint16(i), 0, address, 10<<24+1, append(append(outer, 0, 0), inner...))
		}
		all["VXLAN in VXLAN"] = append(all["VXLAN in VXLAN"], vxlan(27, frame))
		// Never a first one, and all of other datagrams.
		all["fragments"] = append(all["fragments"], vxlan(27, ipv4(17, uint16(i), 0x2000|uint16(1+i%8000), address, 10<<24+1, udp)))
		all["refused sources"] = append(all["refused sources"], vxlan(27, ipv4(17, uint16(i), 0, address, 10<<24+1, udp)))
	}
	return all
}
