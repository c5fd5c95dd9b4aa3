package afpacket

import (
	"bytes"
	"encoding/binary"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tapweave/tapweave/collector/networktest"
)

// network gives the test a network namespace with a pair of interfaces, sockets at the one, and what sends frames into
// the other, so that they come in there.
func network(t *testing.T, c Config) (send func(frame []byte), sockets []*Socket) {
	t.Helper()
	n := networktest.New(t)
	networktest.Join(n, "out", n, "in", 9000)
	var fd int
	var out *net.Interface
	c.Interface = "in"
	n.Do(func() (err error) {
		if out, err = net.InterfaceByName("out"); err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		sockets, err = Listen(c)
		return err
	})
	return func(frame []byte) {
		t.Helper()
		if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: out.Index, Protocol: htons(unix.ETH_P_ALL)}); err != nil {
			t.Fatal(err)
		}
	}, sockets
}

// frame is an IPv4 UDP packet of one of many flows.
func frame(n int, payload int) []byte {
	b := append([]byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0}, make([]byte, 28+payload)...)
	ip := b[14:]
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(28+payload))
	copy(ip[12:], []byte{10, 0, byte(n >> 8), byte(n), 10, 1, 0, 1})
	binary.BigEndian.PutUint16(ip[20:], uint16(1000+n))
	binary.BigEndian.PutUint16(ip[22:], 53)
	binary.BigEndian.PutUint16(ip[24:], uint16(8+payload))
	for i := range payload {
		ip[28+i] = byte(n + i)
	}
	return b
}

// Every frame comes once, whole, at one of the sockets of the group, later than what was promised.
func TestReceive(t *testing.T) {
	send, sockets := network(t, Config{Sockets: 2, RingBytes: 32 << 20})
	time.Sleep(50 * time.Millisecond) // the second has just left the interface for the group
	want := map[string]int{}
	const n = 3000
	began := time.Now().UnixNano()
	for i := range n {
		f := frame(i, i%1400)
		if i%10 == 0 { // as QinQ
			f = append(append(bytes.Clone(f[:12]), 0x88, 0xa8, 0, 7, 0x81, 0, 0, byte(i)), f[12:]...)
		}
		send(f)
		want[string(f)]++
	}
	promised := make([]int64, len(sockets))
	got, used := 0, map[int]bool{}
	for limit := time.Now().Add(10 * time.Second); got < n && time.Now().Before(limit); {
		for i, s := range sockets {
			b, empty, err := s.Receive(20 * time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			promised[i] = max(promised[i], empty)
			for _, d := range b {
				if binary.BigEndian.Uint16(d.Payload[12:]) == 0x86dd { // of the system's own
					continue
				}
				if want[string(d.Payload)]--; want[string(d.Payload)] < 0 {
					t.Fatalf("unexpected %x", d.Payload)
				}
				if d.Original != len(d.Payload) || d.Time < began-int64(time.Second) || d.Time > time.Now().UnixNano() || d.Time < promised[i] {
					t.Fatalf("length %d of %d, time %d, promised %d", len(d.Payload), d.Original, d.Time, promised[i])
				}
				got++
				used[i] = true
			}
		}
	}
	if got != n || len(used) != 2 {
		t.Errorf("%d of %d frames, %d of 2 sockets", got, n, len(used))
	}
	for _, s := range sockets {
		if d := s.Dropped(); d != 0 {
			t.Errorf("%d dropped", d)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// What does not fit into the ring is counted, and receiving goes on.
func TestDropped(t *testing.T) {
	send, sockets := network(t, Config{Sockets: 1})
	s := sockets[0]
	defer s.Close()
	const n = 4000
	for i := range n {
		send(frame(i, 1400))
	}
	got := 0
	for limit := time.Now().Add(5 * time.Second); time.Now().Before(limit); {
		b, _, err := s.Receive(200 * time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) == 0 {
			break
		}
		for _, d := range b {
			if binary.BigEndian.Uint16(d.Payload[12:]) == 0x0800 {
				got++
			}
		}
	}
	if d := int(s.Dropped()); got == 0 || d == 0 || got+d < n || got+d > n+20 {
		t.Errorf("%d received and %d dropped of %d", got, d, n)
	}
	send(frame(1, 5000))
	for range 20 {
		b, _, err := s.Receive(100 * time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range b {
			if len(d.Payload) == 5042 {
				return
			}
		}
	}
	t.Error("nothing more was received")
}

// Of all capabilities CAP_NET_RAW is enough, and it is needed.
func TestCapability(t *testing.T) {
	n := networktest.New(t)
	networktest.Join(n, "out", n, "in", 1500)
	n.Do(func() error {
		for _, has := range []uint32{1 << unix.CAP_NET_RAW, 0} {
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var data [2]unix.CapUserData
			if err := unix.Capget(&header, &data[0]); err != nil {
				return err
			}
			data[0].Effective, data[1].Effective = has, 0
			if err := unix.Capset(&header, &data[0]); err != nil { // of this thread, which ends with the test
				return err
			}
			sockets, err := Listen(Config{Interface: "in", Sockets: 2, RingBytes: 1 << 20})
			for _, s := range sockets {
				s.Close()
			}
			if has != 0 && err != nil || has == 0 && (err == nil || !strings.Contains(err.Error(), "needs CAP_NET_RAW")) {
				t.Errorf("with the capabilities %#x: %v", has, err)
			}
		}
		return nil
	})
}

func TestErrors(t *testing.T) {
	if _, err := Listen(Config{Interface: "no-such-interface", Sockets: 1}); err == nil || !strings.Contains(err.Error(), "interface no-such-interface") {
		t.Error(err)
	}
}
