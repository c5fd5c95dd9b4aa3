// Package packet describes one mirrored packet as a collector saw it: what its headers say, where its
// copy came from, and the bytes of it that travel. It is what the batch codec carries and the fold reads.
//
// A packet is split in two. [Flow] holds what the packets of one direction of one conversation through one
// tap share; [Packet] holds what differs from packet to packet. A batch stores each flow once.
package packet

import "net/netip"

// MaxCarriers is the deepest nesting of tunnels that a packet can record.
const MaxCarriers = 6

// MaxVLANs is how many VLAN tags of a frame are recorded, outermost first; deeper ones are skipped.
const MaxVLANs = 4

// Addr is an IPv6 address, or an IPv4 address mapped into IPv6 (RFC 4291, 2.5.5.2).
type Addr [16]byte

// AddrFrom returns a as an Addr; the zero netip.Addr gives the zero Addr.
func AddrFrom(a netip.Addr) Addr {
	if !a.IsValid() {
		return Addr{}
	}
	return a.As16()
}

// Netip returns the address in canonical form: IPv4 where it is mapped.
func (a Addr) Netip() netip.Addr { return netip.AddrFrom16(a).Unmap() }

// String prints an IPv4 address as a dotted quad and an IPv6 address as in RFC 5952.
func (a Addr) String() string { return a.Netip().String() }

// Carrier is one tunnel that was unwrapped around the packet.
type Carrier struct {
	Source Addr   // sender in the outer IP header
	VNI    uint32 // 24 bits
}

// Flow is what the packets of one direction share. Its zero value is no flow.
//
// Flow is comparable, so that two of them can be told apart by ==. What is mostly in use of it comes first, so that it
// fills two cache lines.
type Flow struct {
	Src, Dst Addr
	// SrcPort and DstPort are the ports of TCP, UDP, UDP-Lite, DCCP and SCTP. ICMP and ICMPv6 have the type
	// in SrcPort and the code in DstPort. Others, and fragments (whose ports are in their first one), have 0.
	SrcPort, DstPort uint16
	// ICMPID is the identifier of an ICMP query or its reply (echo, time stamp, information, address mask).
	ICMPID   uint16
	Protocol uint8 // IANA protocol number; IPv6: of the header behind the extension headers
	TTL      uint8 // TTL or hop limit
	V6       bool  // the header was IPv6

	SrcMAC, DstMAC [6]byte
	NVLANs         uint8
	NCarriers      uint8
	// OuterPort is the source port of the outermost carrier, 0 without one.
	OuterPort uint16
	// Tenant is an address space of its own. The empty string stands for the default tenant.
	Tenant   string
	VLANs    [MaxVLANs]uint16 // 12-bit VLAN identifiers, outermost first
	Carriers [MaxCarriers]Carrier
}

// TCP flags, as they stand in the header's 14th byte (RFC 9293, 3.1).
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

// Protocol numbers that are told apart by name (IANA protocol numbers).
const (
	ProtoICMP    = 1
	ProtoTCP     = 6
	ProtoUDP     = 17
	ProtoDCCP    = 33
	ProtoICMPv6  = 58
	ProtoSCTP    = 132
	ProtoUDPLite = 136
)

// NoWindowScale says that a SYN had no window scale option.
const NoWindowScale = 0xff

// Fragment bits of Packet.Fragment.
const (
	IsFragment    = 1 << iota // offset or more-fragments was set
	MoreFragments             // not the last one
)

// Packet is what one packet says beyond its flow.
type Packet struct {
	Time int64  // capture time, nanoseconds since the Unix epoch
	Flow uint32 // index into the batch's flows

	// Length is the IP packet's length in bytes by its header, whatever was captured.
	Length uint32
	// Payload is the number of transport payload bytes by the headers. For a fragment it is the number of
	// bytes behind the IP headers, the transport header included.
	Payload uint32
	// ID is the IPv4 identification, or that of an IPv6 fragment header; 0 where there is none.
	ID uint32
	// Checksum is the transport checksum; for protocols without one, and for fragments, a digest of the
	// bytes behind the IP header.
	Checksum uint16

	// FragmentOffset is in bytes.
	FragmentOffset uint16
	Fragment       uint8

	Flags       uint8  // TCP
	Seq, Ack    uint32 // TCP; Seq is also the sequence number of an ICMP echo
	Window      uint16 // TCP, not scaled
	MSS         uint16 // TCP SYN: maximum segment size, 0 if not given
	WindowScale uint8  // TCP SYN: shift count, NoWindowScale if not given

	// Head holds the first bytes behind the IP header where a later stage has to look into them: of a
	// fragment those at offsets below HeadBytes, of an ICMP error what it quotes (from the quoted IP header on).
	Head []byte
	// Data holds the first bytes of the payload, as many as were sampled.
	Data []byte
}

// HeadBytes is how many bytes of a fragmented datagram, or of an ICMP error's quote, travel in Packet.Head:
// enough for the longest TCP header, and for an IPv6 header with some extensions and the ports behind it.
const HeadBytes = 128
