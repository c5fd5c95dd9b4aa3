package udp

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func listen(t *testing.T, c Config) []*Socket {
	t.Helper()
	all, err := Listen(c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, s := range all {
			s.Close()
		}
	})
	return all
}

func port(t *testing.T, s *Socket) uint16 {
	t.Helper()
	a, err := s.Addr()
	if err != nil {
		t.Fatal(err)
	}
	return a.Port()
}

func dial(t *testing.T, address string) (net.Conn, netip.AddrPort) {
	t.Helper()
	c, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestReceive(t *testing.T) {
	for name, c := range map[string]struct{ listen, send string }{
		"both families, IPv4 sender": {":0", "127.0.0.1"},
		"both families, IPv6 sender": {":0", "::1"},
		"IPv4":                       {"127.0.0.1:0", "127.0.0.1"},
		"IPv6":                       {"[::1]:0", "::1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := listen(t, Config{Address: c.listen, Sockets: 1, ReceiveBytes: 1 << 20})[0]
			if c.send == "::1" && !hasIPv6() {
				missing(t, "IPv6 on loopback")
			}
			out, from := dial(t, net.JoinHostPort(c.send, fmt.Sprint(port(t, s))))
			before := time.Now().UnixNano()
			var want [][]byte
			for i := range 200 {
				b := bytes.Repeat([]byte{byte(i)}, i*7)
				want = append(want, b)
				if _, err := out.Write(b); err != nil {
					t.Fatal(err)
				}
			}
			var last int64
			for i := 0; i < len(want); {
				b, _, err := s.Receive(time.Second)
				if err != nil || len(b) == 0 {
					t.Fatalf("%d of %d: %v", i, len(want), err)
				}
				for _, d := range b {
					if !bytes.Equal(d.Payload, want[i]) {
						t.Fatalf("datagram %d: %d bytes", i, len(d.Payload))
					}
					if d.Source.Netip() != from.Addr().Unmap() || d.Port != from.Port() {
						t.Errorf("from %v:%d, not %v", d.Source, d.Port, from)
					}
					if d.Time < before || d.Time < last || d.Time > time.Now().UnixNano() {
						t.Errorf("time %d", d.Time)
					}
					last = d.Time
					i++
				}
			}
			if n := s.Dropped(); n != 0 {
				t.Errorf("%d dropped", n)
			}
		})
	}
}

// missing leaves a test out for want of something. In CI it has to be there.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("missing: %s", what)
	}
	t.Skipf("left out for want of %s", what)
}

func hasIPv6() bool {
	c, err := net.ListenPacket("udp", "[::1]:0")
	if err == nil {
		c.Close()
	}
	return err == nil
}

// A tunnel's datagrams come without a checksum, over IPv6 too.
func TestNoChecksum(t *testing.T) {
	for address, option := range map[string]struct{ level, name int }{
		"127.0.0.1": {unix.SOL_SOCKET, unix.SO_NO_CHECK},
		"::1":       {unix.IPPROTO_UDP, 101 /* UDP_NO_CHECK6_TX */},
	} {
		if address == "::1" && !hasIPv6() {
			missing(t, "IPv6 on loopback")
		}
		s := listen(t, Config{Address: net.JoinHostPort(address, "0"), Sockets: 1, ReceiveBytes: 1 << 20})[0]
		out, _ := dial(t, net.JoinHostPort(address, fmt.Sprint(port(t, s))))
		raw, err := out.(*net.UDPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), option.level, option.name, 1) })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if b, _, err := s.Receive(time.Second); err != nil || len(b) != 1 {
			t.Errorf("%s: %d datagrams, %v", address, len(b), err)
		}
	}
}

// That the system caps the buffers is said once, with the remedy; whoever may go beyond the cap does.
func TestBufferCap(t *testing.T) {
	b, err := os.ReadFile("/proc/sys/net/core/rmem_max")
	if err != nil {
		missing(t, err.Error()) // in a network namespace of a container it may be hidden
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || most > 1<<29 {
		missing(t, "a net.core.rmem_max that can be exceeded: it is "+string(b))
	}
	// Capabilities are the thread's, and gone with it.
	runtime.LockOSThread()
	want := 2 * most
	ask := func() string {
		var log bytes.Buffer
		sockets, err := Listen(Config{Address: "127.0.0.1:0", Sockets: 3, ReceiveBytes: want}, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range sockets {
			s.Close()
		}
		return log.String()
	}
	if mayForce(t) {
		if s := ask(); s != "" {
			t.Errorf("with CAP_NET_ADMIN: %s", s)
		}
		forbid(t, 1<<unix.CAP_NET_ADMIN)
	}
	s := ask()
	if remedy := fmt.Sprintf("sysctl -w net.core.rmem_max=%d", want); strings.Count(s, "\n") != 1 || !strings.Contains(s, remedy) || !strings.Contains(s, fmt.Sprintf("bytes=%d", most)) {
		t.Errorf("%q, wanted once %q", s, remedy)
	}
}

// mayForce says whether this thread has CAP_NET_ADMIN in the network's own user namespace.
func mayForce(t *testing.T) bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<16) == nil
}

// forbid takes capabilities from this thread.
func forbid(t *testing.T, what uint32) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	data[0].Effective &^= what
	if what == ^uint32(0) {
		data[1].Effective = 0
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
}

// A large datagram is received whole.
func TestLargest(t *testing.T) {
	s := listen(t, Config{Address: "127.0.0.1:0", Sockets: 1, ReceiveBytes: 1 << 20})[0]
	out, _ := dial(t, fmt.Sprintf("127.0.0.1:%d", port(t, s)))
	if _, err := out.Write(make([]byte, 65507)); err != nil {
		t.Fatal(err)
	}
	if b, _, err := s.Receive(time.Second); err != nil || len(b) != 1 || len(b[0].Payload) != 65507 {
		t.Errorf("%d datagrams, %v", len(b), err)
	}
}

func TestEmpty(t *testing.T) {
	s := listen(t, Config{Address: "127.0.0.1:0", Sockets: 1, ReceiveBytes: 1 << 20})[0]
	began := time.Now()
	b, empty, err := s.Receive(50 * time.Millisecond)
	ended := time.Now()
	if err != nil || len(b) != 0 || ended.Sub(began) < 50*time.Millisecond {
		t.Errorf("%d datagrams, %v, after %v", len(b), err, ended.Sub(began))
	}
	// The time is that just before the last look, not before the first.
	if at := time.Unix(0, empty); at.Before(began.Add(49*time.Millisecond)) || at.After(ended) {
		t.Errorf("empty at %v, not just before %v", at, ended)
	}
	if _, _, err := s.Receive(0); err != nil {
		t.Error(err)
	}
}

// Senders are spread over the sockets, each to one of them.
func TestSockets(t *testing.T) {
	all := listen(t, Config{Address: "127.0.0.1:0", Sockets: 4, ReceiveBytes: 1 << 20})
	for range 64 {
		out, _ := dial(t, fmt.Sprintf("127.0.0.1:%d", port(t, all[0])))
		for range 3 {
			if _, err := out.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	total, used := 0, 0
	seen := map[uint16]*Socket{}
	for _, s := range all {
		var n int
		for {
			b, _, err := s.Receive(20 * time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			if len(b) == 0 {
				break
			}
			for _, d := range b {
				if o := seen[d.Port]; o != nil && o != s {
					t.Errorf("port %d came to two sockets", d.Port)
				}
				seen[d.Port] = s
			}
			n += len(b)
		}
		total += n
		if n > 0 {
			used++
		}
	}
	if total != 192 || used < 3 {
		t.Errorf("%d of 192 datagrams, at %d of 4 sockets", total, used)
	}
}

// What the kernel had to drop is counted to the last datagram.
func TestDropped(t *testing.T) {
	s := listen(t, Config{Address: "127.0.0.1:0", Sockets: 1, ReceiveBytes: 4096})[0]
	out, _ := dial(t, fmt.Sprintf("127.0.0.1:%d", port(t, s)))
	const sent = 500
	for round := range 2 {
		for range sent {
			if _, err := out.Write(make([]byte, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		received := 0
		for {
			b, _, err := s.Receive(10 * time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			if len(b) == 0 {
				break
			}
			received += len(b)
		}
		if got := uint64(sent - received); round == 0 && s.Dropped() != got || s.Dropped() == 0 {
			t.Errorf("%d of %d received, %d dropped", received, sent, s.Dropped())
		}
	}
}

func TestInUse(t *testing.T) {
	s := listen(t, Config{Address: "127.0.0.1:0", Sockets: 2, ReceiveBytes: 1 << 20})[0]
	address := fmt.Sprintf("127.0.0.1:%d", port(t, s))
	// These sockets share their port; another program's would take a part of the packets.
	_, err := Listen(Config{Address: address, Sockets: 2, ReceiveBytes: 1 << 20}, slog.New(slog.DiscardHandler))
	if err == nil || err.Error() != "listen: UDP "+address+" is in use by another program; stop it or choose another address" {
		t.Error(err)
	}
	if _, err := Listen(Config{Address: "192.0.2.1:4789", Sockets: 1}, slog.New(slog.DiscardHandler)); err == nil || strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
}

func TestNoAllocations(t *testing.T) {
	s := listen(t, Config{Address: "127.0.0.1:0", Sockets: 1, ReceiveBytes: 4 << 20})[0]
	out, _ := dial(t, fmt.Sprintf("127.0.0.1:%d", port(t, s)))
	b := make([]byte, 100)
	var counts []int
	n := testing.AllocsPerRun(100, func() {
		for range burst {
			out.Write(b)
		}
		d, _, _ := s.Receive(0)
		counts = append(counts[:0], len(d))
	})
	if n != 0 || !slices.Equal(counts, []int{burst}) {
		t.Errorf("%v allocations for %v datagrams", n, counts)
	}
}
