// Package udp receives mirrored datagrams from sockets, many in one system call, each with the kernel's time
// stamp, and counts what the kernel had to drop.
//
// Several sockets share one address (SO_REUSEPORT): the kernel spreads the senders' ports over them, and each
// worker reads its own. It is Linux only, and needs no privileges.
package udp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tapweave/tapweave/proto/packet"
)

// Config of the sockets of one address.
type Config struct {
	// Address is HOST:PORT. Without a host, IPv4 and IPv6 are both received.
	Address string
	// Sockets is how many share the address.
	Sockets int
	// ReceiveBytes is the size of each socket's buffer in the kernel.
	ReceiveBytes int
}

// Datagram is one received datagram.
type Datagram struct {
	Time    int64 // kernel's receive time, nanoseconds since the Unix epoch
	Source  packet.Addr
	Port    uint16
	Payload []byte
	// Original is the length of a frame before it was cut, where Payload is one; a datagram is whole.
	Original int
}

const (
	// burst is how many datagrams one system call takes at most.
	burst = 64
	// largest is more than any UDP payload has.
	largest = 1 << 16
	// stride is the distance of the buffers. Were it a power of two, all headers would fall into the same few
	// lines of the processor's caches.
	stride = largest + 192
	// control is room for a time stamp (16 bytes), a drop count (4) and their headers (16 each).
	control = 128
)

// udpNoCheck6Receive is UDP_NO_CHECK6_RX of linux/udp.h: datagrams over IPv6 whose checksum is 0 are received.
const udpNoCheck6Receive = 102

// Socket is one of the sockets of an address. It is not safe for concurrent use.
type Socket struct {
	fd       int
	buffers  []byte
	headers  [burst]message
	vectors  [burst]unix.Iovec
	names    [burst]unix.RawSockaddrInet6 // large enough for IPv4
	controls [burst][control]byte
	out      [burst]Datagram
	receive  int            // bytes of the receive buffer
	bound    netip.AddrPort // with both, what open was given
	both     bool
	drops    drops
}

// message is the kernel's struct mmsghdr.
type message struct {
	unix.Msghdr
	length uint32
}

// Listen opens the sockets. Where the kernel caps their buffers, it says so once, with the remedy.
func Listen(c Config, log *slog.Logger) ([]*Socket, error) {
	addr, both, err := resolve(c.Address)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	// Another process of this user that shares its port would get half of the packets without any error:
	// only a socket that does not share finds out.
	probe, err := open(addr, both, false, nil)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", inUse(err, c.Address))
	}
	unix.Close(probe)
	var all []*Socket
	fail := func(err error) ([]*Socket, error) {
		for _, s := range all {
			s.Close()
		}
		return nil, err
	}
	var buffer int
	for range c.Sockets {
		fd, err := open(addr, both, true, nil)
		if err != nil {
			return fail(fmt.Errorf("listen: %w", inUse(err, c.Address)))
		}
		s := newSocket(fd)
		all = append(all, s)
		if buffer, err = s.setBuffer(c.ReceiveBytes); err != nil {
			return fail(fmt.Errorf("listen: %w", err))
		}
		if addr.Port() == 0 { // the others share what the first was given
			a, err := s.Addr()
			if err != nil {
				return fail(err)
			}
			addr = netip.AddrPortFrom(addr.Addr(), a.Port())
		}
		s.bound, s.both = addr, both
	}
	if buffer < c.ReceiveBytes {
		log.Warn("the kernel caps the sockets' receive buffers: bursts may be lost",
			"bytes", buffer, "wanted", c.ReceiveBytes, "remedy", fmt.Sprintf("sysctl -w net.core.rmem_max=%d", c.ReceiveBytes))
	}
	return all, nil
}

func inUse(err error, address string) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("UDP %s is in use by another program; stop it or choose another address", address)
	}
	return fmt.Errorf("UDP %s: %w", address, err)
}

// resolve returns the address to bind, and whether IPv4 is to be received by an IPv6 socket.
func resolve(address string) (netip.AddrPort, bool, error) {
	a, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return netip.AddrPort{}, false, err
	}
	ap := a.AddrPort()
	if !ap.Addr().IsValid() { // no host
		return netip.AddrPortFrom(netip.IPv6Unspecified(), ap.Port()), true, nil
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), false, nil
}

// open binds one socket, for which before is called, if there is one, when it is not yet bound. Where both families are
// wanted and the system has no IPv6, it is an IPv4 socket.
func open(a netip.AddrPort, both, share bool, before func(fd int) error) (int, error) {
	family := unix.AF_INET
	if a.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if both && errors.Is(err, unix.EAFNOSUPPORT) {
		return open(netip.AddrPortFrom(netip.IPv4Unspecified(), a.Port()), false, share, before)
	} else if err != nil {
		return -1, err
	}
	set := func(level, option, value int) {
		if err == nil {
			err = unix.SetsockoptInt(fd, level, option, value)
		}
	}
	if share {
		set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	set(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	set(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)
	var to unix.Sockaddr
	if family == unix.AF_INET6 {
		only := 1
		if both {
			only = 0
		}
		set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)
		// Tunnels need no checksum of their own over IPv6 either (RFC 6935), but the kernel has to be told.
		set(unix.IPPROTO_UDP, udpNoCheck6Receive, 1)
		six := &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
		if zone := a.Addr().Zone(); zone != "" && err == nil {
			var i *net.Interface
			if i, err = net.InterfaceByName(zone); err == nil {
				six.ZoneId = uint32(i.Index)
			}
		}
		to = six
	} else {
		to = &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	if err == nil && before != nil {
		err = before(fd)
	}
	if err == nil {
		err = unix.Bind(fd, to)
	}
	if err != nil {
		unix.Close(fd)
		if both && errors.Is(err, unix.EADDRNOTAVAIL) { // IPv6 is compiled in and switched off
			return open(netip.AddrPortFrom(netip.IPv4Unspecified(), a.Port()), false, share, before)
		}
		return -1, err
	}
	return fd, nil
}

func newSocket(fd int) *Socket {
	s := &Socket{fd: fd, buffers: make([]byte, burst*stride)}
	for i := range s.headers {
		b := s.buffers[i*stride:][:largest]
		s.vectors[i].Base = &b[0]
		s.vectors[i].SetLen(len(b))
		h := &s.headers[i]
		h.Name = (*byte)(unsafe.Pointer(&s.names[i]))
		h.Iov = &s.vectors[i]
		h.SetIovlen(1)
		h.Control = &s.controls[i][0]
	}
	return s
}

// setBuffer asks for a receive buffer, beyond the system's cap if it may, and returns what it got.
func (s *Socket) setBuffer(bytes int) (int, error) {
	if unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes) != nil {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes); err != nil {
			return 0, err
		}
	}
	got, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	s.receive = got / 2 // the kernel doubles it, for its own bookkeeping
	return s.receive, err
}

// ReceiveBytes is the size of the receive buffer that the kernel gave.
func (s *Socket) ReceiveBytes() int { return s.receive }

// Addr is the address that the socket is bound to.
func (s *Socket) Addr() (netip.AddrPort, error) {
	a, err := unix.Getsockname(s.fd)
	if err != nil {
		return netip.AddrPort{}, err
	}
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)), nil
	}
	return netip.AddrPort{}, fmt.Errorf("address %T", a)
}

// Receive returns the datagrams that are there, at most 64, in the order of their arrival; if there are none
// it waits for the first up to wait. They are valid until the next call.
//
// Without any, empty is a time, in nanoseconds since the Unix epoch, at which the socket's buffer was empty.
func (s *Socket) Receive(wait time.Duration) (b []Datagram, empty int64, err error) {
	deadline := time.Now().Add(wait)
	for {
		before := time.Now()
		n, err := s.read()
		switch {
		case n > 0:
			return s.out[:n], 0, nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil && !errors.Is(err, unix.EAGAIN):
			return nil, 0, fmt.Errorf("receiving: %w", err)
		}
		left := deadline.Sub(before)
		if left <= 0 {
			return nil, before.UnixNano(), nil
		}
		t := unix.NsecToTimespec(int64(left))
		if _, err := unix.Ppoll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, &t, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return nil, 0, fmt.Errorf("receiving: %w", err)
		}
	}
}

// read is one recvmmsg.
func (s *Socket) read() (int, error) {
	for i := range s.headers {
		h := &s.headers[i]
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(control)
	}
	r, _, e := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.headers[0])), burst, unix.MSG_DONTWAIT, 0, 0)
	if e != 0 {
		return 0, e
	}
	n := int(r)
	var now int64
	for i := range n {
		d, h, name := &s.out[i], &s.headers[i], &s.names[i]
		d.Payload = s.buffers[i*stride:][:h.length]
		port := (*[2]byte)(unsafe.Pointer(&name.Port))
		d.Port = uint16(port[0])<<8 | uint16(port[1])
		if name.Family == unix.AF_INET6 {
			d.Source = name.Addr
		} else {
			four := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
			d.Source = packet.AddrFrom(netip.AddrFrom4(four.Addr))
		}
		if d.Time = s.control(s.controls[i][:h.Controllen]); d.Time == 0 {
			if now == 0 {
				now = time.Now().UnixNano()
			}
			d.Time = now
		}
	}
	return n, nil
}

// control reads the control messages of a datagram: it notes the drop count and returns the time stamp.
func (s *Socket) control(b []byte) (stamp int64) {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		n := int(h.Len)
		if n < unix.SizeofCmsghdr || n > len(b) {
			return stamp
		}
		data := b[unix.SizeofCmsghdr:n]
		if h.Level == unix.SOL_SOCKET {
			switch {
			case h.Type == unix.SCM_TIMESTAMPNS && len(data) >= int(unsafe.Sizeof(unix.Timespec{})):
				stamp = (*unix.Timespec)(unsafe.Pointer(&data[0])).Nano()
			case h.Type == unix.SO_RXQ_OVFL && len(data) >= 4:
				s.drops.count(binary.NativeEndian.Uint32(data))
			}
		}
		b = b[min(unix.CmsgSpace(n-unix.SizeofCmsghdr), len(b)):]
	}
	return stamp
}

// Dropped is how many datagrams the kernel has dropped since the socket was opened because its buffer was
// full, or because their checksum was wrong. The latter the kernel counts here only in part, as it drops some
// before it looks for their socket: InCsumErrors of /proc/net/snmp tells of all.
func (s *Socket) Dropped() uint64 {
	s.drops.look(s.fd) // what came with the datagrams does not tell of the drops after the last one
	return s.drops.total
}

// Close closes the socket.
func (s *Socket) Close() error { return unix.Close(s.fd) }
