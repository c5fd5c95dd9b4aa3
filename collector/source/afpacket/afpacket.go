// Package afpacket receives the frames of a network interface, for mirrors that arrive without a tunnel: a SPAN
// port, GCP's packet mirroring. It reads the kernel's ring TPACKET_V3 (packet(7)), which several sockets of an
// interface share by flow (PACKET_FANOUT). It is Linux only, and needs CAP_NET_RAW.
//
// Frames that the machine sends itself are left out. A VLAN tag that the network card took off is put back.
package afpacket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tapweave/tapweave/collector/source/udp"
)

// Config of the sockets of one interface.
type Config struct {
	// Interface is its name. Its frames are received whoever they are for (promiscuous mode).
	Interface string
	// Sockets is how many share the frames.
	Sockets int
	// RingBytes is the size of each socket's ring in the kernel; it is rounded to blocks of 1 MiB, at least 2.
	RingBytes int
}

const (
	blockBytes = 1 << 20
	// retire is when the kernel hands over a block that is not full.
	retire = 40 * time.Millisecond
	// vlanRoom is where a tag is put back.
	vlanRoom = 4
	// held bounds how long a frame is in a block that has not been handed over: the kernel looks at it once a
	// timer, and closes it when it sees the same block twice.
	held = 3 * retire
)

// Socket is one of the sockets of an interface. It is not safe for concurrent use.
type Socket struct {
	fd      int
	ring    []byte
	blocks  int
	next    int  // block that comes next
	taken   bool // whether the block before it is still ours
	out     []udp.Datagram
	dropped uint64
}

// Listen opens the sockets.
func Listen(c Config) ([]*Socket, error) {
	i, err := net.InterfaceByName(c.Interface)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", c.Interface, err)
	}
	var all []*Socket
	group := 0
	for range c.Sockets {
		s, err := open(i.Index, max(2, c.RingBytes/blockBytes))
		if err == nil {
			all = append(all, s)
			if c.Sockets > 1 {
				group, err = s.join(group)
			}
		}
		if err != nil {
			for _, s := range all {
				s.Close()
			}
			if errors.Is(err, unix.EPERM) {
				return nil, fmt.Errorf("interface %s: receiving its frames needs CAP_NET_RAW", c.Interface)
			}
			return nil, fmt.Errorf("interface %s: %w", c.Interface, err)
		}
	}
	return all, nil
}

func htons(v uint16) uint16 { return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v)) }

func open(index, blocks int) (s *Socket, err error) {
	// Without a protocol nothing is received until it is bound.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	for _, o := range []struct {
		name          string
		option, value int
	}{
		{"PACKET_VERSION", unix.PACKET_VERSION, unix.TPACKET_V3},
		{"PACKET_RESERVE", unix.PACKET_RESERVE, vlanRoom},
		{"PACKET_IGNORE_OUTGOING", unix.PACKET_IGNORE_OUTGOING, 1},
	} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, o.option, o.value); err != nil {
			return nil, os.NewSyscallError(o.name, err)
		}
	}
	request := unix.TpacketReq3{
		Block_size: blockBytes, Block_nr: uint32(blocks), Frame_size: 2048, Frame_nr: uint32(blocks * (blockBytes / 2048)),
		Retire_blk_tov: uint32(retire.Milliseconds()),
	}
	if err := unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &request); err != nil {
		return nil, os.NewSyscallError("PACKET_RX_RING", err)
	}
	ring, err := unix.Mmap(fd, 0, blocks*blockBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	promiscuous := unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC}
	if err = unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &promiscuous); err != nil {
		err = os.NewSyscallError("PACKET_ADD_MEMBERSHIP", err)
	} else if err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: index}); err != nil {
		err = os.NewSyscallError("bind", err)
	}
	if err != nil {
		unix.Munmap(ring)
		return nil, err
	}
	return &Socket{fd: fd, ring: ring, blocks: blocks}, nil
}

// join puts a socket into a fanout group, 0: a new one, and returns its number.
func (s *Socket) join(group int) (int, error) {
	mode := unix.PACKET_FANOUT_HASH
	if group == 0 {
		mode |= unix.PACKET_FANOUT_FLAG_UNIQUEID
	}
	if err := unix.SetsockoptInt(s.fd, unix.SOL_PACKET, unix.PACKET_FANOUT, group|mode<<16); err != nil {
		return 0, os.NewSyscallError("PACKET_FANOUT", err)
	}
	got, err := unix.GetsockoptInt(s.fd, unix.SOL_PACKET, unix.PACKET_FANOUT)
	return got & 0xffff, os.NewSyscallError("PACKET_FANOUT", err)
}

// header is where a block begins: struct tpacket_block_desc with struct tpacket_hdr_v1.
type header struct {
	version, private uint32
	status           uint32
	packets          uint32
	first            uint32 // offset
	length           uint32
	sequence         uint64
	_                [4]uint32 // times of the first and the last packet
}

func (s *Socket) block(i int) *header { return (*header)(unsafe.Pointer(&s.ring[i*blockBytes])) }

// Receive returns the frames of the next block, in the order of their arrival, as the payloads of datagrams
// without a source; if there is none it waits for one up to wait. They are valid until the next call.
//
// Without any, empty is a time, in nanoseconds since the Unix epoch, before which no frame will come any more.
func (s *Socket) Receive(wait time.Duration) (b []udp.Datagram, empty int64, err error) {
	if s.taken {
		last := (s.next + s.blocks - 1) % s.blocks
		atomic.StoreUint32(&s.block(last).status, unix.TP_STATUS_KERNEL)
		s.taken = false
	}
	deadline := time.Now().Add(wait)
	for {
		before := time.Now()
		if h := s.block(s.next); atomic.LoadUint32(&h.status)&unix.TP_STATUS_USER != 0 {
			s.read(h, s.ring[s.next*blockBytes:][:blockBytes])
			s.next, s.taken = (s.next+1)%s.blocks, true
			if len(s.out) > 0 {
				return s.out, 0, nil
			}
			return nil, before.Add(-held).UnixNano(), nil
		}
		left := deadline.Sub(before)
		if left <= 0 {
			return nil, before.Add(-held).UnixNano(), nil
		}
		t := unix.NsecToTimespec(int64(left))
		poll := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN | unix.POLLERR}}
		if _, err := unix.Ppoll(poll, &t, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return nil, 0, fmt.Errorf("receiving: %w", err)
		}
		if poll[0].Revents&(unix.POLLERR|unix.POLLNVAL) != 0 {
			if e, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || e != 0 {
				return nil, 0, fmt.Errorf("receiving: %w", errors.Join(err, unix.Errno(e)))
			}
		}
	}
}

// read takes over the frames of a block.
func (s *Socket) read(h *header, block []byte) {
	s.out = s.out[:0]
	at := int(h.first)
	for range h.packets {
		if at+int(unsafe.Sizeof(unix.Tpacket3Hdr{})) > len(block) {
			return
		}
		p := (*unix.Tpacket3Hdr)(unsafe.Pointer(&block[at]))
		from, to := at+int(p.Mac), at+int(p.Mac)+int(p.Snaplen)
		if to > len(block) {
			return
		}
		original := int(p.Len)
		if p.Status&unix.TP_STATUS_VLAN_VALID != 0 && p.Snaplen >= 14 {
			const addresses = 12
			copy(block[from-vlanRoom:], block[from:from+addresses])
			from -= vlanRoom
			original += vlanRoom
			tpid := uint16(unix.ETH_P_8021Q)
			if p.Status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
				tpid = p.Hv1.Vlan_tpid
			}
			binary.BigEndian.PutUint16(block[from+addresses:], tpid)
			binary.BigEndian.PutUint16(block[from+addresses+2:], uint16(p.Hv1.Vlan_tci))
		}
		s.out = append(s.out, udp.Datagram{
			Time: int64(p.Sec)*1e9 + int64(p.Nsec), Payload: block[from:to:to], Original: original,
		})
		if p.Next_offset == 0 {
			return
		}
		at += int(p.Next_offset)
	}
}

// Dropped is how many frames the kernel has dropped since the socket was opened because its ring was full.
func (s *Socket) Dropped() uint64 {
	// The kernel begins anew with each question.
	if st, err := unix.GetsockoptTpacketStatsV3(s.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		s.dropped += uint64(st.Drops)
	}
	return s.dropped
}

// Close closes the socket. What Receive has returned is not valid any more.
func (s *Socket) Close() error {
	return errors.Join(unix.Munmap(s.ring), unix.Close(s.fd))
}
