package packet

import "encoding/binary"

// Quote reads the packet that an ICMP error quotes (RFC 792, RFC 4443). head begins at the quoted IP header.
//
// Ports are those of a Flow: of ICMP the type and the code, 0 where the protocol has none, the quote is too
// short for them, or it is of a fragment other than the first. ok is false if not even the addresses can be read.
func Quote(head []byte) (src, dst Addr, protocol uint8, srcPort, dstPort uint16, ok bool) {
	src, dst, protocol, rest, ok := quoted(head)
	if !ok {
		return
	}
	switch protocol {
	case ProtoTCP, ProtoUDP, ProtoUDPLite, ProtoDCCP, ProtoSCTP:
		if len(rest) >= 4 {
			srcPort, dstPort = binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])
		}
	case ProtoICMP, ProtoICMPv6:
		if len(rest) >= 2 {
			srcPort, dstPort = uint16(rest[0]), uint16(rest[1])
		}
	}
	return
}

// QuoteICMPID returns the identifier of the ICMP or ICMPv6 message that an ICMP error quotes, 0 where it ends
// before that. Whether the message's type has one is for the caller to say.
func QuoteICMPID(head []byte) uint16 {
	_, _, protocol, rest, ok := quoted(head)
	if !ok || protocol != ProtoICMP && protocol != ProtoICMPv6 || len(rest) < 6 {
		return 0
	}
	return binary.BigEndian.Uint16(rest[4:])
}

// QuoteHeaders returns what of a quote is no payload: the IP headers, and the 8 bytes behind them that hold
// ports or identifiers.
func QuoteHeaders(head []byte) []byte {
	const identifying = 8
	_, _, _, rest, ok := quoted(head)
	switch {
	case !ok:
		return nil
	case rest != nil:
		return head[:len(head)-max(len(rest)-identifying, 0)]
	case head[0]>>4 == 4: // of a fragment other than the first, or cut within the header
		return head[:min(len(head), int(head[0]&15)*4)]
	default:
		return head[:40]
	}
}

// quoted takes the IP headers off. rest is what follows them, nothing if that is not the transport header.
func quoted(head []byte) (src, dst Addr, protocol uint8, rest []byte, ok bool) {
	if len(head) == 0 {
		return
	}
	switch head[0] >> 4 {
	case 4:
		header := int(head[0]&15) * 4
		if len(head) < 20 || header < 20 {
			return
		}
		src, dst = mapped(head[12:16]), mapped(head[16:20])
		protocol = head[9]
		if len(head) >= header && binary.BigEndian.Uint16(head[6:])&0x1fff == 0 {
			rest = head[header:]
		}
		return src, dst, protocol, rest, true
	case 6:
		if len(head) < 40 {
			return
		}
		src, dst, protocol = Addr(head[8:24]), Addr(head[24:40]), head[6]
		rest = head[40:]
		for {
			var length int
			switch {
			case len(rest) < 8:
				// Short of a header that could be stepped over; ports may still be there.
				if isExtension(protocol) {
					rest = nil
				}
				return src, dst, protocol, rest, true
			case protocol == 44: // fragment
				if binary.BigEndian.Uint16(rest[2:])&0xfff8 != 0 {
					return src, dst, rest[0], nil, true
				}
				length = 8
			case protocol == 51: // AH counts in units of 4 bytes
				length = (int(rest[1]) + 2) * 4
			case isExtension(protocol):
				length = (int(rest[1]) + 1) * 8
			default:
				return src, dst, protocol, rest, true
			}
			protocol, rest = rest[0], rest[min(length, len(rest)):]
		}
	}
	return
}

// isExtension says whether a protocol is an IPv6 extension header that can be stepped over (RFC 7045, section 4).
func isExtension(protocol uint8) bool {
	switch protocol {
	case 0, 43, 44, 51, 60, 135, 139, 140:
		return true
	}
	return false
}

// mapped returns the IPv4 address that b begins with.
func mapped(b []byte) Addr {
	return Addr{10: 0xff, 11: 0xff, 12: b[0], 13: b[1], 14: b[2], 15: b[3]}
}
