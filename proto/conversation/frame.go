package conversation

import (
	"encoding/binary"

	"github.com/tapweave/tapweave/proto/packet"
)

// Frame is the packet as an Ethernet frame, with all checksums.
func (p *Packet) Frame() []byte {
	b := make([]byte, 14, 14+48+len(p.body))
	copy(b, p.Flow.DstMAC[:])
	copy(b[6:], p.Flow.SrcMAC[:])
	b[12], b[13] = 0x08, 0x00
	if p.Flow.V6 {
		b[12], b[13] = 0x86, 0xdd
	}
	return append(b, p.ip()...)
}

// ip is the packet from the IP header on (RFC 791, RFC 8200).
func (p *Packet) ip() []byte {
	be := binary.BigEndian
	if !p.Flow.V6 {
		b := make([]byte, 20, 20+len(p.body))
		b[0] = 0x45
		be.PutUint16(b[2:], uint16(20+len(p.body)))
		be.PutUint16(b[4:], uint16(p.ID))
		bits := p.FragmentOffset / 8
		switch {
		case p.Fragment&packet.MoreFragments != 0:
			bits |= 0x2000
		case p.Fragment == 0 && p.ID == 0:
			bits |= 0x4000
		}
		be.PutUint16(b[6:], bits)
		b[8], b[9] = p.Flow.TTL, p.Flow.Protocol
		copy(b[12:], p.Flow.Src[12:])
		copy(b[16:], p.Flow.Dst[12:])
		be.PutUint16(b[10:], ^uint16(sum(0, b)))
		return append(b, p.body...)
	}
	b := make([]byte, 40, 48+len(p.body))
	b[0] = 0x60
	be.PutUint16(b[4:], uint16(len(p.body)))
	b[6], b[7] = p.Flow.Protocol, p.Flow.TTL
	copy(b[8:], p.Flow.Src[:])
	copy(b[24:], p.Flow.Dst[:])
	if p.Fragment != 0 {
		be.PutUint16(b[4:], uint16(8+len(p.body)))
		b[6] = 44
		b = append(b, p.Flow.Protocol, 0, 0, 0)
		bits := p.FragmentOffset
		if p.Fragment&packet.MoreFragments != 0 {
			bits |= 1
		}
		be.PutUint16(b[42:], bits)
		b = be.AppendUint32(b, p.ID)
	}
	return append(b, p.body...)
}

// checksum puts the transport's checksum at an offset of the body, and into the description.
func (p *Packet) checksum(at int) {
	f := &p.Flow
	s := uint32(0)
	if f.Protocol != packet.ProtoICMP { // all others sum up a pseudo header too
		from := 0
		if !f.V6 {
			from = 12
		}
		s = sum(sum(uint32(f.Protocol)+uint32(len(p.body)), f.Src[from:]), f.Dst[from:])
	}
	c := ^uint16(sum(s, p.body))
	if f.Protocol == packet.ProtoUDP && c == 0 {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(p.body[at:], c)
	p.Checksum = c
}

// sum adds b to a sum of 16-bit words in ones' complement (RFC 1071).
func sum(s uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return s
}
