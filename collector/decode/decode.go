// Package decode takes mirrored frames apart: it unwraps the tunnels around a packet and describes the packet
// by its headers, without looking at a second one and without an allocation.
//
// What is unwrapped: Ethernet, 802.1Q and QinQ tags, PPPoE sessions, VXLAN, GENEVE. GRE, IP in IP, GTP and Teredo are
// not: they are packets of their own protocol. An IP length is trusted over the frame's, so that Ethernet
// padding is no payload, and a frame that the capture cut counts in full.
package decode

import (
	"encoding/binary"
	"math/bits"

	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/session"
)

// LinkType says how a frame begins. Its values are the LINKTYPE_ values of capture files,
// https://www.tcpdump.org/linktypes.html.
type LinkType uint32

const (
	LinkNull        LinkType = 0 // BSD loopback, address family in the byte order of the capturing machine
	LinkEthernet    LinkType = 1
	LinkRawBSD      LinkType = 12 // raw IP as some systems number it
	LinkRawOpenBSD  LinkType = 14
	LinkRaw         LinkType = 101
	LinkLoop        LinkType = 108 // OpenBSD loopback, address family in network byte order
	LinkLinuxCooked LinkType = 113
	LinkIPv4        LinkType = 228
	LinkIPv6        LinkType = 229
	LinkLinuxSLL2   LinkType = 276
)

// Known says whether frames of a link type are decoded.
func (l LinkType) Known() bool {
	switch l {
	case LinkNull, LinkEthernet, LinkRawBSD, LinkRawOpenBSD, LinkRaw, LinkLoop, LinkLinuxCooked, LinkIPv4, LinkIPv6, LinkLinuxSLL2:
		return true
	}
	return false
}

// EtherTypes (IEEE 802 numbers).
const (
	etherIPv4  = 0x0800
	etherARP   = 0x0806
	etherVLAN  = 0x8100
	etherIPv6  = 0x86dd
	etherPPPoE = 0x8864 // session stage, RFC 2516
	etherQinQ  = 0x88a8
	etherQinQ1 = 0x9100 // QinQ before 802.1ad
)

const (
	vxlanHeader    = 8
	ethernetHeader = 14
	udpHeader      = 8
	// maxExtensions is more IPv6 extension headers than any packet has reason to bear.
	maxExtensions = 16
)

// Decoder decodes one frame after the other. It is not safe for concurrent use: each worker has its own.
type Decoder struct {
	// Flow and Packet describe the last frame for which OK was returned, until the next call.
	// Packet.Head and Packet.Data point into that frame.
	Flow   packet.Flow
	Packet packet.Packet
	// Counts is how many frames had each result.
	Counts [NumReasons]uint64

	maxDepth int
	ports    []uint16 // of VXLAN
	// genevePorts are those of GENEVE.
	genevePorts []uint16
	tenants     tenants
	payload     bool

	// carriers and vlans are how many elements of the flow's arrays may be other than zero.
	carriers, vlans uint8
}

// New returns a decoder. The configuration has been validated.
func New(c Configuration) *Decoder {
	return &Decoder{maxDepth: c.MaxDepth, ports: c.VXLANPorts, genevePorts: c.GENEVEPorts, tenants: newTenants(c.Scope, c.Tenants), payload: c.Payload}
}

// Frame decodes a whole frame of a capture file. original is the frame's length before the capture cut it,
// time its capture time in nanoseconds since the Unix epoch.
//
// A UDP packet to a tunnel's port whose inside is no frame that can be decoded is not a carrier: it is a packet
// itself.
func (d *Decoder) Frame(time int64, link LinkType, frame []byte, original int) Reason {
	return d.decode(start{time: time, link: link, limit: d.maxDepth}, frame, original)
}

// Mirrored decodes a frame as if it had come through the tunnel of a mirror, which does not count for
// MaxDepth and decides nothing about the tenant. So it gives the same packet as Frame, but for that carrier.
func (d *Decoder) Mirrored(time int64, carrier packet.Carrier, outerPort uint16, link LinkType, frame []byte, original int) Reason {
	d.Flow.OuterPort, d.Flow.Carriers[0] = outerPort, carrier
	limit := min(d.maxDepth+1, packet.MaxCarriers)
	return d.decode(start{time: time, link: link, carriers: 1, tenantBy: 1, limit: limit}, frame, original)
}

// start is where decoding begins.
type start struct {
	time     int64
	link     LinkType
	carriers int    // already unwrapped
	tenantBy int    // index of the carrier that decides the tenant
	tenant   string // without that carrier
	limit    int    // carriers
}

func (d *Decoder) decode(s start, frame []byte, original int) Reason {
	r := d.unwrap(&s, frame, original, packet.MaxCarriers+1)
	if n := int(d.Flow.NCarriers); r != OK && n > s.carriers && r != ARP && r != NotIP && r != TunnelTooDeep && r != FragmentedCarrier && r != GENEVECritical {
		// The innermost carrier was none.
		r = d.unwrap(&s, frame, original, n-1)
	}
	d.Counts[r]++
	return r
}

// unwrap goes from the outside in, and stops at a packet that is no carrier, or has stop of them around it.
func (d *Decoder) unwrap(s *start, b []byte, original, stop int) Reason {
	f := &d.Flow
	n := s.carriers
	f.NCarriers = uint8(n)
	d.carriers = max(d.carriers, f.NCarriers)
	if n == 0 {
		f.OuterPort = 0
	}
	if s.tenantBy >= n {
		f.Tenant = s.tenant
	}
	link := s.link
	for {
		// Link layer.
		var (
			ether    uint16
			tags     uint8
			captured = len(b)
		)
		if link == LinkEthernet {
			if len(b) < ethernetHeader {
				return TruncatedLink
			}
			f.DstMAC, f.SrcMAC = [6]byte(b[:6]), [6]byte(b[6:12])
			ether = binary.BigEndian.Uint16(b[12:])
			b = b[ethernetHeader:]
		} else {
			var r Reason
			if ether, b, r = d.otherLink(link, b); r != OK {
				return r
			}
		}
		if ether != etherIPv4 && ether != etherIPv6 {
			var r Reason
			if ether, tags, b, r = d.tags(ether, b); r != OK {
				return r
			}
		}
		for f.NVLANs = tags; d.vlans > tags; d.vlans-- {
			f.VLANs[d.vlans-1] = 0
		}
		d.vlans = tags
		original -= captured - len(b)

		// Network layer. body is what was captured behind the IP headers, length what is there by them.
		var (
			body     []byte
			total    int
			length   int
			id       uint32
			offset   uint16
			fragment uint8
		)
		if ether == etherIPv4 {
			if len(b) == 0 {
				return TruncatedIPv4
			}
			if b[0]>>4 != 4 {
				return IPVersion
			}
			if len(b) < 20 {
				return TruncatedIPv4
			}
			header := int(b[0]&15) * 4
			if header < 20 {
				return IPHeaderLength
			}
			if total = int(binary.BigEndian.Uint16(b[2:])); total == 0 {
				total = max(original, len(b)) // the sender's card was to fill it in (TSO)
			}
			if total < header {
				return IPLength
			}
			if len(b) > total {
				b = b[:total]
			}
			if len(b) < header {
				return TruncatedIPv4
			}
			body, length = b[header:], total-header
			id = uint32(binary.BigEndian.Uint16(b[4:]))
			if bits := binary.BigEndian.Uint16(b[6:]); bits&0x3fff != 0 {
				offset, fragment = bits<<3, packet.IsFragment
				if bits&0x2000 != 0 {
					fragment |= packet.MoreFragments
				}
			}
			f.V6, f.TTL, f.Protocol = false, b[8], b[9]
			setMapped(&f.Src, b[12:16])
			setMapped(&f.Dst, b[16:20])
		} else {
			if len(b) == 0 {
				return TruncatedIPv6
			}
			if b[0]>>4 != 6 {
				return IPVersion
			}
			if len(b) < 40 {
				return TruncatedIPv6
			}
			f.V6, f.TTL, f.Protocol = true, b[7], b[6]
			f.Src, f.Dst = packet.Addr(b[8:24]), packet.Addr(b[24:40])
			if total = 40 + int(binary.BigEndian.Uint16(b[4:])); total == 40 {
				total = lengthless(b, max(original, len(b)))
			}
			if len(b) > total {
				b = b[:total]
			}
			header := 40
			if isExtension(f.Protocol) {
				x, r := extensions(b, total)
				if r != OK {
					return r
				}
				f.Protocol, header, id, offset, fragment = x.protocol, x.end, x.id, x.offset, x.fragment
			}
			body, length = b[header:], total-header
		}

		// Transport layer.
		p := &d.Packet
		*p = packet.Packet{Time: s.time, Length: uint32(total), ID: id, WindowScale: packet.NoWindowScale}
		f.SrcPort, f.DstPort, f.ICMPID = 0, 0, 0
		if fragment != 0 {
			if offset == 0 && n < stop && f.Protocol == packet.ProtoUDP {
				if t, ok, _ := d.isCarrier(body); ok && t.carries(body[udpHeader+t.header:]) {
					return FragmentedCarrier
				}
			}
			p.Fragment, p.FragmentOffset, p.Payload = fragment, offset, uint32(length)
			p.Checksum = digest(body)
			if offset < packet.HeadBytes {
				p.Head = body[:min(len(body), packet.HeadBytes-int(offset))]
			}
			d.done(n)
			return OK
		}
		header := 0 // of the transport protocol
		switch f.Protocol {
		case packet.ProtoTCP:
			if length < 20 {
				return TCPHeader
			}
			if len(body) < 20 {
				return TruncatedTCP
			}
			if header = int(body[12]>>4) * 4; header < 20 || header > length {
				return TCPHeader
			}
			f.SrcPort, f.DstPort = binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:])
			p.Seq, p.Ack = binary.BigEndian.Uint32(body[4:]), binary.BigEndian.Uint32(body[8:])
			p.Flags = body[13]
			p.Window = binary.BigEndian.Uint16(body[14:])
			p.Checksum = binary.BigEndian.Uint16(body[16:])
			if p.Flags&packet.SYN != 0 {
				p.MSS, p.WindowScale = tcpOptions(body[20:min(header, len(body))])
			}
			p.Payload = uint32(length - header)
		case packet.ProtoUDP, packet.ProtoUDPLite:
			if length < udpHeader {
				return UDPHeader
			}
			if len(body) < udpHeader {
				return TruncatedUDP
			}
			header = udpHeader
			f.SrcPort, f.DstPort = binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:])
			p.Payload = uint32(length - header)
			if f.Protocol == packet.ProtoUDP {
				t, ok, r := d.isCarrier(body)
				if r != OK && n < stop {
					return r
				}
				if ok && n < stop {
					inner := body[udpHeader+t.header:]
					if n == s.limit {
						if t.carries(inner) {
							return TunnelTooDeep
						}
					} else {
						if n == 0 {
							f.OuterPort = f.SrcPort
						}
						if n == s.tenantBy {
							f.Tenant = d.tenants.of(t.vni)
						}
						f.Carriers[n] = packet.Carrier{Source: f.Src, VNI: t.vni}
						n++
						f.NCarriers = uint8(n)
						d.carriers = max(d.carriers, f.NCarriers)
						b, original, link = inner, length-udpHeader-t.header, t.link
						continue
					}
				}
				// The UDP length is taken at its word as far as the IP packet reaches; 0 stands for one
				// that did not fit (RFC 2675, section 4, and segmentation by the card).
				if l := int(binary.BigEndian.Uint16(body[4:])); l != 0 && l < length {
					p.Payload = uint32(max(l, udpHeader) - udpHeader)
				}
			}
			if p.Checksum = binary.BigEndian.Uint16(body[6:]); p.Checksum == 0 {
				p.Checksum = digest(body) // none was made (RFC 768)
			}
		case packet.ProtoICMP, packet.ProtoICMPv6:
			if r := d.icmp(body, length); r != OK {
				return r
			}
			header = 8
			p.Payload = uint32(max(length, header) - header)
		case packet.ProtoSCTP:
			if length < 12 {
				return SCTPHeader
			}
			if len(body) < 12 {
				return TruncatedSCTP
			}
			header = 12
			f.SrcPort, f.DstPort = binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:])
			p.Payload = uint32(length - header)
			p.Checksum = binary.BigEndian.Uint16(body[8:]) ^ binary.BigEndian.Uint16(body[10:])
		case packet.ProtoDCCP:
			if length < 12 {
				return DCCPHeader
			}
			if len(body) < 12 {
				return TruncatedDCCP
			}
			if header = int(body[4]) * 4; header < 12 || header > length {
				return DCCPHeader
			}
			f.SrcPort, f.DstPort = binary.BigEndian.Uint16(body), binary.BigEndian.Uint16(body[2:])
			p.Payload = uint32(length - header)
			p.Checksum = binary.BigEndian.Uint16(body[6:])
		default:
			p.Payload = uint32(length)
			p.Checksum = digest(body)
		}
		if d.payload && len(body) > header && p.Payload > 0 {
			p.Data = body[header:]
			if most := int(p.Payload); len(p.Data) > most {
				p.Data = p.Data[:most]
			}
		}
		d.done(n)
		return OK
	}
}

// done clears what an earlier packet left in the flow, which is compared as a whole.
func (d *Decoder) done(carriers int) {
	for ; int(d.carriers) > carriers; d.carriers-- {
		d.Flow.Carriers[d.carriers-1] = packet.Carrier{}
	}
}

// setMapped sets a to the IPv4 address b as RFC 4291, section 2.5.5.2, has it. Two whole words are written,
// because what reads the address next reads words.
func setMapped(a *packet.Addr, b []byte) {
	binary.LittleEndian.PutUint64(a[:8], 0)
	binary.LittleEndian.PutUint64(a[8:], uint64(binary.LittleEndian.Uint32(b))<<32|0xffff0000)
}

// otherLink takes the link header off a frame that is not Ethernet, and returns the EtherType of the rest.
func (d *Decoder) otherLink(link LinkType, b []byte) (uint16, []byte, Reason) {
	f := &d.Flow
	f.SrcMAC, f.DstMAC = [6]byte{}, [6]byte{}
	switch link {
	case LinkRaw, LinkRawBSD, LinkRawOpenBSD:
		if len(b) == 0 {
			return 0, nil, TruncatedLink
		}
		switch b[0] >> 4 {
		case 4:
			return etherIPv4, b, OK
		case 6:
			return etherIPv6, b, OK
		}
		return 0, nil, IPVersion
	case LinkIPv4:
		return etherIPv4, b, OK
	case LinkIPv6:
		return etherIPv6, b, OK
	case LinkLinuxCooked:
		if len(b) < 16 {
			return 0, nil, TruncatedLink
		}
		if binary.BigEndian.Uint16(b[4:]) == 6 {
			f.SrcMAC = [6]byte(b[6:12])
		}
		return binary.BigEndian.Uint16(b[14:]), b[16:], OK
	case LinkLinuxSLL2:
		if len(b) < 20 {
			return 0, nil, TruncatedLink
		}
		if b[11] == 6 {
			f.SrcMAC = [6]byte(b[12:18])
		}
		return binary.BigEndian.Uint16(b), b[20:], OK
	case LinkNull, LinkLoop:
		if len(b) < 4 {
			return 0, nil, TruncatedLink
		}
		family := binary.BigEndian.Uint32(b)
		if family > 0xffff {
			family = binary.LittleEndian.Uint32(b)
		}
		switch family {
		case 2:
			return etherIPv4, b[4:], OK
		case 10, 24, 28, 30: // AF_INET6 on Linux, NetBSD, FreeBSD, Darwin
			return etherIPv6, b[4:], OK
		}
		return 0, nil, NotIP
	}
	return 0, nil, UnknownLinkType
}

// tags takes VLAN tags and a PPPoE header off. It records the tags and returns how many.
func (d *Decoder) tags(ether uint16, b []byte) (uint16, uint8, []byte, Reason) {
	var n uint8
	for {
		switch ether {
		case etherIPv4, etherIPv6:
			return ether, n, b, OK
		case etherVLAN, etherQinQ, etherQinQ1:
			if len(b) < 4 {
				return 0, 0, nil, TruncatedLink
			}
			if n < packet.MaxVLANs {
				d.Flow.VLANs[n] = binary.BigEndian.Uint16(b) & 0xfff
				n++
				d.vlans = max(d.vlans, n)
			}
			ether, b = binary.BigEndian.Uint16(b[2:]), b[4:]
		case etherPPPoE:
			if len(b) < 8 {
				return 0, 0, nil, TruncatedLink
			}
			switch binary.BigEndian.Uint16(b[6:]) { // PPP protocol numbers
			case 0x0021:
				ether = etherIPv4
			case 0x0057:
				ether = etherIPv6
			default:
				return 0, 0, nil, NotIP
			}
			b = b[8:]
		case etherARP:
			return 0, 0, nil, ARP
		default:
			return 0, 0, nil, NotIP
		}
	}
}

// lengthless returns the length of an IPv6 packet whose payload length is 0: that of the jumbo payload option
// (RFC 2675), else the frame's where the sender's card was to fill it in.
func lengthless(b []byte, frame int) int {
	switch b[6] {
	case packet.ProtoTCP, packet.ProtoUDP:
		return frame
	case 0:
		if len(b) < 48 {
			return 40
		}
		options := b[42:min(len(b), 40+(int(b[41])+1)*8)]
		for len(options) >= 2 {
			if options[0] == 0 { // Pad1
				options = options[1:]
				continue
			}
			end := 2 + int(options[1])
			if options[0] == 0xc2 && end == 6 && len(options) >= end {
				// A length that no machine makes is none.
				if l := binary.BigEndian.Uint32(options[2:]); l > 0xffff && l < 1<<30 {
					return 40 + int(l)
				}
				return 40
			}
			if end > len(options) {
				return 40
			}
			options = options[end:]
		}
	}
	return 40
}

// IPv6 extension headers (RFC 7045, section 4) that can be stepped over.
const (
	extHopByHop    = 0
	extRouting     = 43
	extFragment    = 44
	extAH          = 51
	extDestination = 60
	extMobility    = 135
	extHIP         = 139
	extShim6       = 140
)

func isExtension(protocol uint8) bool {
	switch protocol {
	case extHopByHop, extRouting, extFragment, extAH, extDestination, extMobility, extHIP, extShim6:
		return true
	}
	return false
}

type extension struct {
	protocol uint8
	end      int // offset behind the headers
	id       uint32
	offset   uint16
	fragment uint8
}

// extensions walks the extension headers of the IPv6 packet b, which is total bytes long by its header.
//
// It ends at a fragment header, whose next header is then the protocol, because only the first fragment has
// what follows. An atomic fragment (RFC 6946) is a whole packet: the walk goes on.
func extensions(b []byte, total int) (x extension, _ Reason) {
	x.protocol, x.end = b[6], 40
	for range maxExtensions {
		if !isExtension(x.protocol) {
			return x, OK
		}
		if x.end+8 > total {
			return x, IPv6Extensions
		}
		if x.end+8 > len(b) {
			return x, TruncatedIPv6
		}
		h := b[x.end:]
		length := (int(h[1]) + 1) * 8
		switch x.protocol {
		case extAH:
			length = (int(h[1]) + 2) * 4
		case extFragment:
			length = 8
			bits := binary.BigEndian.Uint16(h[2:])
			x.id = binary.BigEndian.Uint32(h[4:])
			if bits&^6 != 0 {
				x.protocol, x.end = h[0], x.end+8
				x.offset, x.fragment = bits&^7, packet.IsFragment
				if bits&1 != 0 {
					x.fragment |= packet.MoreFragments
				}
				return x, OK
			}
		}
		x.protocol, x.end = h[0], x.end+length
		if x.end > total {
			return x, IPv6Extensions
		}
		if x.end > len(b) {
			return x, TruncatedIPv6
		}
	}
	return x, IPv6Extensions
}

// tcpOptions returns the maximum segment size and the window scale of a SYN (RFC 9293, 3.1; RFC 7323, 2.2).
func tcpOptions(o []byte) (mss uint16, scale uint8) {
	scale = packet.NoWindowScale
	for len(o) > 0 {
		switch o[0] {
		case 0:
			return
		case 1:
			o = o[1:]
			continue
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return
		}
		switch {
		case o[0] == 2 && o[1] == 4:
			mss = binary.BigEndian.Uint16(o[2:])
		case o[0] == 3 && o[1] == 3:
			scale = min(o[2], 14) // a larger one counts as 14 (RFC 7323, 2.3)
		}
		o = o[o[1]:]
	}
	return
}

// icmp describes a message of ICMP (RFC 792) or ICMPv6 (RFC 4443).
func (d *Decoder) icmp(body []byte, length int) Reason {
	f, p := &d.Flow, &d.Packet
	if length < 4 {
		return ICMPHeader
	}
	if len(body) < 4 {
		return TruncatedICMP
	}
	kind := body[0]
	f.SrcPort, f.DstPort = uint16(kind), uint16(body[1])
	p.Checksum = binary.BigEndian.Uint16(body[2:])
	v6 := f.Protocol == packet.ProtoICMPv6
	switch {
	case icmpQuery(v6, kind):
		if length < 8 {
			return ICMPHeader
		}
		if len(body) < 8 {
			return TruncatedICMP
		}
		f.ICMPID = binary.BigEndian.Uint16(body[4:])
		p.Seq = uint32(binary.BigEndian.Uint16(body[6:]))
	case session.ICMPError(v6, kind) && len(body) > 8:
		p.Head = body[8:min(len(body), 8+packet.HeadBytes)]
	}
	return OK
}

// icmpQuery says whether messages of a type have an identifier and a sequence number.
func icmpQuery(v6 bool, kind uint8) bool {
	if v6 {
		return kind == 128 || kind == 129
	}
	return kind == 0 || kind == 8 || kind >= 13 && kind <= 18
}

// digest folds the first bytes of b into 16 bits. It stops where copies that were cut at different lengths
// still agree.
func digest(b []byte) uint16 {
	h := uint64(0x9e3779b97f4a7c15)
	b = b[:min(len(b), packet.HeadBytes)]
	for ; len(b) >= 8; b = b[8:] {
		hi, lo := bits.Mul64(h^binary.BigEndian.Uint64(b), 0xd6e8feb86659fd93)
		h = hi ^ lo ^ h<<1
	}
	for _, c := range b {
		h = (h ^ uint64(c)) * 0xd6e8feb86659fd93
	}
	return uint16(h >> 48)
}
