package replay

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/google/gopacket"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/tapweave/tapweave/proto/packet"
)

const (
	// sockets is how many outer source ports there are, so that a collector's workers share the packets.
	sockets = 16
	// batchLength is how many datagrams one system call sends at most.
	batchLength = 64
	// tapNetwork is what outer source addresses are mapped to for collectors on this host: 127.77.0.0/16.
	tapNetwork = 127<<8 | 77
)

// batchWriter is a socket. Both ipv4.PacketConn and ipv6.PacketConn are one.
type batchWriter interface {
	WriteBatch(ms []ipv4.Message, flags int) (int, error)
}

// socket is one outer source port.
type socket struct {
	conn  *net.UDPConn
	batch batchWriter
}

// sender sends datagrams to collectors in the order in which it gets them.
type sender struct {
	names   []string
	targets []*net.UDPAddr
	here    bool // all targets are IPv4 addresses of this host
	owned   map[netip.Addr]bool
	sockets []socket

	datagrams [batchLength]datagram
	messages  [batchLength]ipv4.Message
	n         int // datagrams that wait
	to        int // socket that they wait for

	results []Target
	sources map[packet.Addr]source
	taken   map[netip.Addr]bool // addresses of the tap network
	taps    []Tap
}

// source is how to send from an outer source address.
type source struct {
	control []byte // for the socket; nil leaves it to the kernel
	hash    uint64
}

func newSender(to []string) (*sender, error) {
	targets, err := resolve(to)
	if err != nil {
		return nil, err
	}
	s := &sender{
		names: to, targets: targets, here: true,
		owned: map[netip.Addr]bool{}, sources: map[packet.Addr]source{}, taken: map[netip.Addr]bool{},
	}
	network := "udp6"
	for i := range targets {
		s.results = append(s.results, Target{Address: to[i]})
	}
	if len(targets[0].IP) == net.IPv4len {
		network = "udp4"
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of this host: %w", err)
	}
	for _, a := range addresses {
		if p, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(p.IP); ok {
				s.owned[ip.Unmap()] = true
			}
		}
	}
	for _, t := range targets {
		ip := t.AddrPort().Addr()
		s.here = s.here && ip.Is4() && (ip.IsLoopback() || s.owned[ip])
	}
	for range sockets {
		conn, err := net.ListenUDP(network, nil)
		if err == nil {
			err = prepare(conn)
		}
		if err != nil {
			s.close()
			return nil, fmt.Errorf("socket: %w", err)
		}
		batch := batchWriter(ipv4.NewPacketConn(conn))
		if network == "udp6" {
			batch = ipv6.NewPacketConn(conn)
		}
		s.sockets = append(s.sockets, socket{conn, batch})
	}
	for i := range s.datagrams {
		s.datagrams[i].buffer = gopacket.NewSerializeBuffer()
		s.messages[i].Buffers = make([][]byte, 1)
	}
	return s, nil
}

func (s *sender) close() {
	for _, k := range s.sockets {
		k.conn.Close()
	}
}

// next returns the datagram to fill in before take is called.
func (s *sender) next() *datagram { return &s.datagrams[s.n] }

// take sends the datagram that next returned, now or with those that follow.
func (s *sender) take() error {
	d := &s.datagrams[s.n]
	from := s.source(d.source)
	flow := mix(from.hash + uint64(d.port))
	to, _ := bits.Mul64(flow, uint64(len(s.targets)))
	if k := int(d.port) % len(s.sockets); k != s.to {
		// What waits goes first, and the datagram changes places with the first of the batch.
		n := s.n
		if err := s.flush(); err != nil {
			return err
		}
		s.datagrams[0], s.datagrams[n] = s.datagrams[n], s.datagrams[0]
		d, s.to = &s.datagrams[0], k
	}
	m := &s.messages[s.n]
	m.Buffers[0], m.OOB, m.Addr = d.payload, from.control, s.targets[to]
	s.results[to].Packets++
	if s.n++; s.n == batchLength {
		return s.flush()
	}
	return nil
}

// flush sends what waits.
func (s *sender) flush() error {
	k, waiting := s.sockets[s.to], s.messages[:s.n]
	s.n = 0
	for len(waiting) > 0 {
		n, err := k.batch.WriteBatch(waiting, 0)
		if err == nil {
			waiting = waiting[n:]
			continue
		}
		var code syscall.Errno
		errors.As(err, &code)
		switch code {
		case syscall.ENOBUFS:
			time.Sleep(time.Millisecond)
		case syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH:
			// An earlier datagram came back, or there is no way for this one.
			if !s.returned(k) {
				s.refused(waiting[0].Addr.(*net.UDPAddr).AddrPort(), code)
				waiting = waiting[1:]
			}
		default:
			return fmt.Errorf("sending to %s: %w", waiting[0].Addr, cmp.Or[error](code, err))
		}
	}
	return nil
}

// returned counts the datagrams of a socket that came back, and says whether there were any.
func (s *sender) returned(k socket) bool {
	found := false
	returned(k.conn, func(to netip.AddrPort, why error) {
		found = true
		s.refused(to, why)
	})
	return found
}

// refused counts a datagram that did not arrive.
func (s *sender) refused(to netip.AddrPort, why error) {
	for i, t := range s.targets {
		if a := t.AddrPort(); a.Port() == to.Port() && a.Addr().Unmap() == to.Addr().Unmap() {
			s.results[i].Refused++
			s.results[i].Reason = why
			return
		}
	}
}

// result adds to the result what the sender knows.
func (s *sender) result(r *Result) {
	if !s.here {
		time.Sleep(50 * time.Millisecond) // for the last to come back
	}
	for _, k := range s.sockets {
		s.returned(k)
	}
	r.Targets, r.Taps = s.results, s.taps
}

// source returns how to send from an outer source address of a capture.
func (s *sender) source(outer packet.Addr) source {
	from, ok := s.sources[outer]
	if ok || outer == (packet.Addr{}) {
		return from
	}
	address, from := outer.Netip(), source{hash: hash(&packet.Flow{Src: outer})}
	tap := Tap{Address: address.String()}
	send := netip.Addr{}
	switch {
	case s.here:
		send = s.mapped(outer)
	case s.owned[address] && address.Is4() == (len(s.targets[0].IP) == net.IPv4len):
		send = address
	}
	if send.Is4() {
		from.control = (&ipv4.ControlMessage{Src: send.AsSlice()}).Marshal()
	} else if send.IsValid() {
		from.control = (&ipv6.ControlMessage{Src: send.AsSlice()}).Marshal()
	}
	if send.IsValid() {
		tap.SentFrom = send.String()
	}
	s.taps = append(s.taps, tap)
	s.sources[outer] = from
	return from
}

// mapped returns an address of the tap network that no other outer source address has.
func (s *sender) mapped(outer packet.Addr) netip.Addr {
	low := uint16(outer[14])<<8 | uint16(outer[15])
	for range 1 << 16 {
		a := netip.AddrFrom4([4]byte{tapNetwork >> 8, tapNetwork & 0xff, byte(low >> 8), byte(low)})
		if !s.taken[a] {
			s.taken[a] = true
			return a
		}
		low++
	}
	return netip.Addr{} // more taps than addresses
}
