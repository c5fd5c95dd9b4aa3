package collector

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tapweave/tapweave/collector/networktest"
	"github.com/tapweave/tapweave/proto/batch"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/kafka/kafkatest"
	"github.com/tapweave/tapweave/service/logging/logtest"
)

// network returns two namespaces, joined by interfaces of that MTU: out at the TAP, in at the collector. They have the
// addresses 10.7.0.1 and .2, fd07::1 and ::2.
func network(t *testing.T, mtu int) (tap, collector *networktest.Namespace) {
	t.Helper()
	tap, collector = networktest.New(t), networktest.New(t)
	networktest.Join(tap, "out", collector, "in", mtu)
	for i, n := range []*networktest.Namespace{tap, collector} {
		name := []string{"out", "in"}[i]
		n.IP(fmt.Sprintf("addr add 10.7.0.%d/24 dev %s", i+1, name), fmt.Sprintf("addr add fd07::%d/64 dev %s nodad", i+1, name))
	}
	return tap, collector
}

// beginIn runs a collector whose sockets are in a namespace.
func beginIn(t *testing.T, n *networktest.Namespace, c Config, log *logtest.Buffer) (k *Collector, stop func() error) {
	t.Helper()
	n.Do(func() error {
		k = New(c, Dependencies{Log: log.Logger()})
		return k.Listen()
	})
	return k, run(t, k)
}

// inner is a UDP packet of so many bytes of payload, in Ethernet.
func inner(n int) []byte {
	b := append([]byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0}, make([]byte, 28+n)...)
	ip := b[14:]
	ip[0], ip[8], ip[9] = 0x45, 64, packet.ProtoUDP
	binary.BigEndian.PutUint16(ip[2:], uint16(28+n))
	copy(ip[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	binary.BigEndian.PutUint16(ip[20:], 1234)
	binary.BigEndian.PutUint16(ip[22:], 5678)
	binary.BigEndian.PutUint16(ip[24:], uint16(8+n))
	for i := range n {
		ip[28+i] = byte(i)
	}
	return b
}

// sources counts the packets that are on the topic, with all of their payload, by their carrier's address.
func sources(t *testing.T, config kafka.Config) map[string]int {
	t.Helper()
	all := map[string]int{}
	for _, batches := range read(t, config) {
		for _, s := range batches {
			var p batch.Packets
			if s.Packets == 0 {
				continue
			} else if err := p.Decode(s.Columns); err != nil {
				t.Fatal(err)
			}
			for _, q := range p.Packets {
				f := &p.Flows[q.Flow]
				if !bytes.Equal(q.Data, inner(int(q.Payload))[42:]) {
					t.Errorf("%d bytes of a payload of %d", len(q.Data), q.Payload)
				}
				from := "none"
				if f.NCarriers > 0 {
					from = f.Carriers[0].Source.String()
				}
				all[from]++
			}
		}
	}
	return all
}

// What a TAP sends over a network arrives over IPv4 and IPv6, with and without a checksum, and also where the MTU was
// too small for the mirrored packet and its tunnel, so that they came in fragments.
func TestNetworkVXLAN(t *testing.T) {
	tap, at := network(t, 1500)
	config := testConfig(kafkatest.Config(t))
	config.Listen, config.Admin.Listen = ":4789", ""
	var log logtest.Buffer
	c, stop := beginIn(t, at, config, &log)
	waitFor(t, "ready", func() bool { ok, _ := c.Ready(); return ok })
	const each = 20
	sent := 0
	tap.Do(func() error {
		for _, to := range []string{"10.7.0.2", "fd07::2"} {
			s, err := net.Dial("udp", net.JoinHostPort(to, "4789"))
			if err != nil {
				return err
			}
			defer s.Close()
			for i := range 2 * each {
				if i == each { // the rest without a checksum
					raw, err := s.(*net.UDPConn).SyscallConn()
					if err != nil {
						return err
					}
					level, option := unix.SOL_SOCKET, unix.SO_NO_CHECK
					if strings.Contains(to, ":") {
						level, option = unix.IPPROTO_UDP, 101 // UDP_NO_CHECK6_TX
					}
					raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) })
					if err != nil {
						return err
					}
				}
				// Up to what fits in one frame, just not, in two, in three.
				if _, err := s.Write(vxlan(27, inner([]int{100, 1420, 1472, 4000}[i%4]))); err != nil {
					return err
				}
				sent++
			}
		}
		return nil
	})
	waitFor(t, "received", func() bool { return c.counters.Counter("received", "datagrams").Value() == uint64(sent) })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := sources(t, config.Kafka); got["10.7.0.1"] != 2*each || got["fd07::1"] != 2*each || len(got) != 2 {
		t.Errorf("%v, want %d each\n%s", got, 2*each, log.String())
	}
}

// An interface's frames are taken as they are. Those of a mirror that is tunnelled are unwrapped, as far as they are
// whole: who takes frames does not put fragments of carriers together, but counts them.
func TestNetworkInterface(t *testing.T) {
	tap, at := network(t, 9000)
	config := testConfig(kafkatest.Config(t))
	config.Listen, config.Interface, config.Admin.Listen = "", "in", ""
	var log logtest.Buffer
	c, stop := beginIn(t, at, config, &log)
	waitFor(t, "ready", func() bool { ok, _ := c.Ready(); return ok })
	const each = 30
	tap.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		out, err := net.InterfaceByName("out")
		if err != nil {
			return err
		}
		for i := range each {
			if err := unix.Sendto(fd, inner(i*200), 0, &unix.SockaddrLinklayer{Ifindex: out.Index}); err != nil {
				return err
			}
		}
		s, err := net.ListenPacket("udp4", ":0") // no connection: nobody has the port
		if err != nil {
			return err
		}
		defer s.Close()
		to := &net.UDPAddr{IP: net.IPv4(10, 7, 0, 2), Port: 4789}
		for range each {
			if _, err := s.WriteTo(vxlan(27, inner(500)), to); err != nil {
				return err
			}
		}
		_, err = s.WriteTo(vxlan(27, inner(20_000)), to)
		return err
	})
	waitFor(t, "the fragment", func() bool { return c.counters.Counter("refused", "fragmented_carrier").Value() == 1 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	whole, later := map[string]int{}, 0
	for p := range decoded(t, config.Kafka) {
		for _, q := range p.Packets {
			f := &p.Flows[q.Flow]
			switch {
			case q.Fragment != 0:
				later++
			case f.SrcPort == 1234 && f.DstPort == 5678 && bytes.Equal(q.Data, inner(int(q.Payload))[42:]):
				whole[fmt.Sprint(f.NCarriers)]++
			}
		}
	}
	if whole["0"] != each || whole["1"] != each || later != 2 {
		t.Errorf("%v whole, want %d each, and %d later fragments, want 2\n%s", whole, each, later, log.String())
	}
}
