package udp

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Guard lets the kernel refuse senders before their datagrams take room in a worker's buffer or cost a system call,
// and still count each of them.
//
// A filter on the workers' own sockets would not do: the kernel has one count for what a filter drops and for what a
// full buffer drops. So the address has one more socket that takes nothing, and the program by which the kernel chooses
// among the sockets of an address (SO_ATTACH_REUSEPORT_CBPF) gives it what is refused: its drops are the refused.
// None of this needs a privilege. It is safe for concurrent use.
type Guard struct {
	sockets []*Socket
	mu      sync.Mutex
	refuse  int // file descriptor of the socket that takes nothing, -1: none yet
	drops   drops
}

// NewGuard returns the guard of the sockets of one address, which are open for as long as it is used. It lets everybody
// through.
func NewGuard(sockets []*Socket) *Guard { return &Guard{sockets: sockets, refuse: -1} }

// Allow refuses whoever is in none of the prefixes; none at all lets everybody through. IPv4 is looked for in mapped
// prefixes (::ffff:0:0/96) too.
//
// With an error nobody is refused: the kernel may not know such programs, or this one be too long for it, of some
// hundreds of prefixes (net.core.optmem_max).
func (g *Guard) Allow(prefixes []netip.Prefix) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refuse < 0 && len(prefixes) == 0 {
		return nil
	}
	if err := g.attach(prefixes); err != nil {
		if g.refuse >= 0 {
			g.attach(nil)
		}
		return fmt.Errorf("SO_ATTACH_REUSEPORT_CBPF: %w", err)
	}
	// Until there is a socket behind the number that the program returns for the refused, the kernel spreads them over
	// the workers: nothing is refused that may come.
	if g.refuse >= 0 {
		return nil
	}
	s := g.sockets[0]
	fd, err := open(s.bound, s.both, true, func(fd int) error {
		return attach(fd, unix.SO_ATTACH_FILTER, []bpf.Instruction{bpf.RetConstant{Val: 0}}) // it takes nothing
	})
	if err != nil {
		return fmt.Errorf("UDP %v, a socket to refuse by: %w", s.bound, err)
	}
	g.refuse = fd
	return nil
}

// attach gives the sockets a program.
func (g *Guard) attach(prefixes []netip.Prefix) error {
	return attach(g.sockets[0].fd, unix.SO_ATTACH_REUSEPORT_CBPF, program(prefixes, len(g.sockets)))
}

func attach(fd, option int, program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return err
	}
	if len(raw) > maxInstructions {
		return fmt.Errorf("%d instructions are more than the %d that a program may have", len(raw), maxInstructions)
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, option, &unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]})
}

// maxInstructions is BPF_MAXINSNS of linux/bpf_common.h.
const maxInstructions = 4096

// network is SKF_NET_OFF of linux/filter.h: offsets from there are into the IP header.
const network = 0xfff00000

// program returns what chooses among the sockets of an address: one of the first workers by the sender's address and
// port, or the one behind them for whoever is in none of the prefixes.
func program(prefixes []netip.Prefix, workers int) []bpf.Instruction {
	// It goes through the prefixes of the packet's IP version, each of which ends with a jump to the worker's choice
	// or runs into the next. Conditions jump no further than a prefix, as they have eight bits for it.
	four, six := [][]bpf.Instruction{}, [][]bpf.Instruction{}
	for _, p := range prefixes {
		if v4, ok := mapped(p); ok {
			four = append(four, within(v4, network+12))
		}
		if p.Addr().Is6() {
			six = append(six, within(p, network+8))
		}
	}
	// family ends with the choice of a worker by the words at source and port.
	family := func(tests [][]bpf.Instruction, address uint32, port ...bpf.Instruction) (all []bpf.Instruction) {
		length := 1 // of the tests, and the refusal behind them
		for _, t := range tests {
			length += len(t) + 1
		}
		for _, t := range tests {
			all = append(all, t...)
			all = append(all, bpf.Jump{Skip: uint32(length - len(all) - 1)})
		}
		if len(prefixes) > 0 {
			all = append(all, bpf.RetConstant{Val: uint32(workers)})
		}
		all = append(all, port...)
		return append(all, bpf.TAX{}, bpf.LoadAbsolute{Off: address, Size: 4}, bpf.ALUOpX{Op: bpf.ALUOpAdd},
			bpf.ALUOpConstant{Op: bpf.ALUOpMul, Val: 0x9e3779b1}, bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 16},
			bpf.ALUOpConstant{Op: bpf.ALUOpMod, Val: uint32(workers)}, bpf.RetA{})
	}
	v4 := family(four, network+12, bpf.LoadMemShift{Off: network}, bpf.LoadIndirect{Off: network, Size: 2})
	v6 := family(six, network+20, bpf.LoadAbsolute{Off: network + 40, Size: 2})
	start := []bpf.Instruction{
		bpf.LoadAbsolute{Off: network, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftRight, Val: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 6, SkipFalse: 1},
		bpf.Jump{Skip: uint32(len(v4))},
	}
	return append(append(start, v4...), v6...)
}

// mapped returns the IPv4 addresses of a prefix, which may be one of IPv6.
func mapped(p netip.Prefix) (netip.Prefix, bool) {
	a := p.Addr()
	switch {
	case a.Is4():
		return p, true
	case p.Bits() > 96:
		return netip.PrefixFrom(a.Unmap(), p.Bits()-96), a.Is4In6()
	}
	// Contains finds no mapped address in a prefix.
	b := a.As16()
	four := [16]byte{10: 0xff, 11: 0xff}
	for i := range p.Bits() {
		if bit := byte(0x80) >> (i % 8); (b[i/8]^four[i/8])&bit != 0 {
			return netip.Prefix{}, false
		}
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0), true
}

// within goes on behind its end if the address at an offset is in a prefix, and one further if it is not.
func within(p netip.Prefix, offset uint32) (test []bpf.Instruction) {
	words := p.Addr().AsSlice()
	bits := p.Bits()
	n := (bits + 31) / 32
	for i := range n {
		mask := ^uint32(0)
		if left := bits - 32*i; left < 32 {
			mask <<= 32 - left
		}
		test = append(test, bpf.LoadAbsolute{Off: offset + 4*uint32(i), Size: 4},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: binary.BigEndian.Uint32(words[4*i:]) & mask, SkipFalse: uint8(3*(n-1-i) + 1)})
	}
	return test
}

// Refused is how many datagrams the kernel has refused.
func (g *Guard) Refused() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refuse >= 0 {
		g.drops.look(g.refuse)
	}
	return g.drops.total
}

// Close closes the guard's own socket.
func (g *Guard) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refuse < 0 {
		return nil
	}
	err := unix.Close(g.refuse)
	g.refuse = -1
	return err
}

// drops is how many datagrams a socket has dropped.
type drops struct {
	last  uint32 // by the kernel's count, which wraps
	total uint64
}

// count takes over the kernel's count, which may be told out of order by a few.
func (d *drops) count(n uint32) {
	if more := int32(n - d.last); more > 0 {
		d.total += uint64(more)
		d.last = n
	}
}

// look takes over the count of a socket as it is now.
func (d *drops) look(fd int) {
	const drops = 8 // SK_MEMINFO_DROPS
	var info [9]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info[0])), uintptr(unsafe.Pointer(&size)), 0)
	if e == 0 && size >= uint32(unsafe.Sizeof(info)) {
		d.count(info[drops])
	}
}
