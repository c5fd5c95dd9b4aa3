package packets

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// packet is a row of packets, with what its session says of it.
type packet struct {
	Time           int64 // nanoseconds since the Unix epoch
	Length         uint32
	PayloadLength  uint32
	IPID           uint32
	TTL            uint8
	FragmentOffset uint16
	MoreFragments  bool
	Seq, Ack       uint32
	Flags          uint8
	Window         uint16
	Checksum       uint16
	Data           string

	Src, Dst         netip.Addr // of the packet
	SrcPort, DstPort uint16
	SrcMAC, DstMAC   net.HardwareAddr
	Protocol         uint8
	VLAN             uint16 // 0: none
	ICMPType         uint8
	ICMPCode         uint8
}

const (
	ethernet  = 14
	vlanTag   = 4
	ipv4      = 20
	ipv6      = 40
	maxOption = 40 // bytes of options that a header has room for, IPv4's and TCP's alike

	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
)

// transport is the least length of a protocol's header, and 0 where packets do not keep one.
func (p *packet) transport() int {
	if p.FragmentOffset > 0 || p.MoreFragments {
		return 0 // of a fragment, everything behind the IP header is payload
	}
	switch p.Protocol {
	case protoTCP:
		return 20
	case protoUDP, protoICMP, protoICMPv6:
		return 8
	}
	return 0
}

// frame appends the Ethernet frame that the packet came in, as far as it is known, and returns it with its length on the
// wire. Lengths are those of the original. What is not kept stands there as padding: TCP and IP options as NOPs, headers
// of other transports as zeros. Payload ends where the sample did.
func (p *packet) frame(b []byte) (frame []byte, length int) {
	start := len(b)
	b = append(b, address(p.DstMAC)...)
	b = append(b, address(p.SrcMAC)...)
	if p.VLAN != 0 {
		b = binary.BigEndian.AppendUint16(b, 0x8100)
		b = binary.BigEndian.AppendUint16(b, p.VLAN)
	}
	v6 := p.Src.Is6()
	network := ipv4
	if v6 {
		network = ipv6
	}
	// What is neither payload nor the least headers are options, and first those of TCP.
	header := p.transport()
	rest := max(0, int(p.Length)-int(p.PayloadLength)-network-header)
	if p.Protocol == protoTCP && header > 0 {
		n := min(rest&^3, maxOption)
		header, rest = header+n, rest-n
	} else if header == 0 && p.FragmentOffset == 0 && !p.MoreFragments {
		header, rest = rest, 0 // SCTP, GRE and others: their header is not kept
	}
	if v6 {
		b = p.ipv6(b, rest)
	} else {
		b = p.ipv4(b, min(rest&^3, maxOption))
	}
	b = p.header(b, header)
	b = append(b, p.Data...)
	length = max(ethernet+int(p.Length), len(b)-start)
	if p.VLAN != 0 {
		length = max(ethernet+vlanTag+int(p.Length), len(b)-start)
	}
	return b, length
}

func address(mac net.HardwareAddr) []byte {
	if len(mac) != 6 {
		return make([]byte, 6)
	}
	return mac
}

func (p *packet) ipv4(b []byte, options int) []byte {
	b = binary.BigEndian.AppendUint16(b, 0x0800)
	at := len(b)
	fragment := p.FragmentOffset / 8
	if p.MoreFragments {
		fragment |= 0x2000
	}
	b = append(b, 4<<4|byte((ipv4+options)/4), 0)
	b = binary.BigEndian.AppendUint16(b, uint16(min(p.Length, 65535)))
	b = binary.BigEndian.AppendUint16(b, uint16(p.IPID))
	b = binary.BigEndian.AppendUint16(b, fragment)
	b = append(b, p.TTL, p.Protocol, 0, 0)
	b = append(b, p.Src.AsSlice()...)
	b = append(b, p.Dst.AsSlice()...)
	for range options {
		b = append(b, 1) // no operation
	}
	var sum uint32
	for i := at; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[at+10:], ^uint16(sum))
	return b
}

// ipv6 puts extension headers that are not kept into one header of padding, and a fragment header where it was one.
func (p *packet) ipv6(b []byte, extensions int) []byte {
	const fragmentHeader, destinationOptions = 44, 60
	b = binary.BigEndian.AppendUint16(b, 0x86dd)
	fragment := extensions >= 8 && (p.FragmentOffset > 0 || p.MoreFragments)
	if fragment {
		extensions -= 8
	}
	padding := extensions &^ 7
	next := p.Protocol
	chain := []byte(nil)
	if fragment {
		bits := p.FragmentOffset &^ 7
		if p.MoreFragments {
			bits |= 1
		}
		chain = append(chain, next, 0)
		chain = binary.BigEndian.AppendUint16(chain, bits)
		chain = binary.BigEndian.AppendUint32(chain, p.IPID)
		next = fragmentHeader
	}
	if padding > 0 && padding <= 256 {
		options := append(make([]byte, 0, padding), next, byte(padding/8-1), 1, byte(padding-4))
		chain = append(options[:padding:padding], chain...)
		next = destinationOptions
	}
	b = append(b, 6<<4, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(min(max(p.Length, ipv6)-ipv6, 65535)))
	b = append(b, next, p.TTL)
	b = append(b, p.Src.AsSlice()...)
	b = append(b, p.Dst.AsSlice()...)
	return append(b, chain...)
}

// header appends n bytes of transport header.
func (p *packet) header(b []byte, n int) []byte {
	if n == 0 {
		return b
	}
	at := len(b)
	switch p.transport() {
	case 20:
		b = binary.BigEndian.AppendUint16(b, p.SrcPort)
		b = binary.BigEndian.AppendUint16(b, p.DstPort)
		b = binary.BigEndian.AppendUint32(b, p.Seq)
		b = binary.BigEndian.AppendUint32(b, p.Ack)
		b = append(b, byte(n/4)<<4, p.Flags)
		b = binary.BigEndian.AppendUint16(b, p.Window)
		b = binary.BigEndian.AppendUint16(b, p.Checksum)
		b = append(b, 0, 0)
		for len(b) < at+n {
			b = append(b, 1)
		}
		return b
	case 8:
		if p.Protocol == protoUDP {
			b = binary.BigEndian.AppendUint16(b, p.SrcPort)
			b = binary.BigEndian.AppendUint16(b, p.DstPort)
			b = binary.BigEndian.AppendUint16(b, uint16(min(p.PayloadLength+8, 65535)))
			return binary.BigEndian.AppendUint16(b, p.Checksum)
		}
		b = append(b, p.ICMPType, p.ICMPCode)
		b = binary.BigEndian.AppendUint16(b, p.Checksum)
		return binary.BigEndian.AppendUint32(b, p.Seq&0xffff) // an echo's identifier is not kept
	}
	return append(b, make([]byte, n)...)
}
