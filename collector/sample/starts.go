package sample

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"

	"github.com/tapweave/tapweave/proto/packet"
)

// start returns what of a packet's payload travels in mode Starts.
//
//	TCP    HTTP/1, RTSP, SIP: a start line and the finished header lines behind it
//	       DNS: a segment that begins with a message and its length
//	       HTTP/2: the preface
//	       SMTP, FTP, POP3, IMAP, RFB, rsync: a greeting's first line; STARTTLS and its likes
//	       FTP, POP3: USER and APOP, without what follows
//	       Redis: a command's name; memcached: the line of a command that stores, and of a value
//	       TLS: a handshake record (RFC 8446, section 5.1) and what is behind it
//	       SSH: the banner (RFC 4253, section 4.2) and what is behind it
//	       a pushed segment up to PushedBytes, if it is neither text, nor TLS application data, nor HTTP/2
//	UDP    DNS, mDNS, LLMNR; QUIC Initial; DTLS handshake; SIP and SSDP by their start lines
//	       STUN, NTP, DHCP, WireGuard and OpenVPN handshakes; a search of LDAP; TFTP's requests; memcached as above
//	       the headers of RTP, IKE, RADIUS and BitTorrent's DHT; Kerberos up to its type, SNMP up to its version
//
// Nothing of other protocols.
func (s *Sampler) start(f *packet.Flow, p *packet.Packet) []byte {
	switch f.Protocol {
	case packet.ProtoTCP:
		return s.segment(p.Data, p.Flags, int(p.Payload))
	case packet.ProtoUDP:
		return datagram(p.Data, int(p.Payload))
	}
	return nil
}

// segment returns what of a TCP payload travels, which was length bytes long before the capture cut it.
func (s *Sampler) segment(b []byte, flags uint8, length int) []byte {
	switch {
	case b[0] == 0x16:
		if isTLSHandshake(b) {
			return b
		}
	case bytes.HasPrefix(b, []byte("SSH-")):
		return b
	case b[0] >= ' ' && b[0] < 0x7f:
		if n := startLine(b); n > 0 {
			return b[:n]
		}
	case isDNSStream(b):
		return b
	}
	if flags&packet.PSH == 0 || length > s.pushed || isText(b) || isTLSData(b) || isHTTP2(b) {
		return nil
	}
	return b
}

// isTLSHandshake wants a record of handshake messages that are not encrypted: SSL 3.0 to TLS 1.3.
func isTLSHandshake(b []byte) bool {
	if len(b) < 6 || b[0] != 22 || b[1] != 3 || b[2] > 4 {
		return false
	}
	switch b[5] {
	case 1, 2, 4, 11, 12, 13, 14, 16, 22: // hellos, ticket, certificate, key exchange, request, done, status
		n := binary.BigEndian.Uint16(b[3:])
		return n >= 4 && n <= 1<<14+256
	}
	return false
}

// isTLSData wants a record of application data, which nothing is recognised by.
func isTLSData(b []byte) bool { return len(b) >= 3 && b[0] == 23 && b[1] == 3 && b[2] <= 4 }

// isHTTP2 wants a frame of HTTP/2 (RFC 9113, section 4.1) that bears header fields, or is followed by one: those of
// a connection without TLS cannot be redacted one segment at a time.
func isHTTP2(b []byte) bool {
	if len(b) < 9 {
		return false
	}
	length, stream := int(b[0])<<16|int(b[1])<<8|int(b[2]), binary.BigEndian.Uint32(b[5:])
	switch b[3] {
	case 1, 5, 9: // HEADERS, PUSH_PROMISE, CONTINUATION
		return stream != 0 && stream < 1<<20 && length > 0 && length <= 1<<14 && b[4]&^0x2d == 0
	case 0, 2, 3, 4, 6, 8:
		return stream < 1<<20 && length <= 1<<14 && len(b) > 9+length && isHTTP2(b[9+length:])
	}
	return false
}

// isText says whether a segment may be the rest of a header, and whatever is behind it. A header's rest is ASCII,
// or UTF-8, up to the empty line or to the end of the segment; anything else ends the text.
//
// Random bytes, such as those of a key share, are text once in some ten thousand segments.
func isText(b []byte) bool {
	i := 0
	for i < 3 && i < len(b) && b[i]&0xc0 == 0x80 { // the rest of a character
		i++
	}
	for i < len(b) {
		switch c := b[i]; {
		case c >= ' ' && c < 0x7f, c == '\t':
			i++
		case c >= utf8.RuneSelf:
			r, n := utf8.DecodeRune(b[i:])
			if r == utf8.RuneError && n <= 1 {
				return !utf8.FullRune(b[i:])
			}
			i += n
		case c == '\r' && (i+1 == len(b) || b[i+1] == '\n'):
			i++
		case c == '\n':
			if i++; i < len(b) && b[i] == '\n' || i+1 < len(b) && b[i] == '\r' && b[i+1] == '\n' {
				return true
			}
		default:
			return false
		}
	}
	return true
}

// startLine returns how many bytes of a segment travel that begins with the start line of a known protocol of
// text, 0 if it does not.
func startLine(b []byte) int {
	line := b
	whole := false
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		line, whole = bytes.TrimSuffix(b[:i], []byte("\r")), true
	}
	switch {
	case bytes.HasPrefix(line, []byte("PRI * HTTP/2.0")):
		const preface = len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
		return min(len(b), preface)
	case isStatusLine(line), isRequestLine(line, whole):
		return headerLines(b)
	case isGreeting(line):
		if !whole {
			return len(b)
		}
		return bytes.IndexByte(b, '\n') + 1
	case bytes.HasPrefix(line, []byte("USER ")), bytes.HasPrefix(line, []byte("APOP ")):
		return len("USER ")
	case b[0] == '*':
		return redisCommand(b)
	case whole && isMemcached(line):
		return len(line) + len("\r\n")
	}
	return 0
}

// redisCommand returns the length of an array's header and the name that is its first element
// (https://redis.io/docs/latest/develop/reference/protocol-spec/), 0 if b begins with none.
func redisCommand(b []byte) int {
	at := 0
	for _, kind := range []byte{'*', '$'} {
		if at >= len(b) || b[at] != kind {
			return 0
		}
		from := at + 1
		for at = from; at < len(b) && isDigit(b[at]); at++ {
		}
		if at == from || at-from > 9 || !bytes.HasPrefix(b[at:], []byte("\r\n")) {
			return 0
		}
		at += len("\r\n")
	}
	const longest = 16
	from := at
	for at < len(b) && (b[at]|0x20 >= 'a' && b[at]|0x20 <= 'z') {
		at++
	}
	if at == from || at-from > longest || !bytes.HasPrefix(b[at:], []byte("\r\n")) {
		return 0
	}
	return at + len("\r\n")
}

// isMemcached wants the line of a command that stores, or that a value is sent behind (protocol.txt of memcached):
// a word, a key, and numbers.
func isMemcached(line []byte) bool {
	const longest = 300 // keys have up to 250 bytes
	if len(line) > longest {
		return false
	}
	numbers, n := 0, 0
	for word := range bytes.FieldsSeq(line) {
		switch {
		case n == 0:
			switch string(word) {
			case "set", "add", "replace", "append", "prepend", "cas":
				numbers = 3
			case "VALUE":
				numbers = 2
			default:
				return false
			}
		case n >= 2 && n < 2+numbers:
			for _, c := range word {
				if !isDigit(c) {
					return false
				}
			}
		}
		n++
	}
	return n >= 2+numbers && n <= 7
}

var versions = [][]byte{[]byte("HTTP/1."), []byte("RTSP/1."), []byte("RTSP/2."), []byte("SIP/2.")}

func isStatusLine(line []byte) bool {
	for _, v := range versions {
		if n := len(v); bytes.HasPrefix(line, v) && len(line) >= n+5 {
			return line[n+1] == ' ' && isDigit(line[n+2]) && isDigit(line[n+3]) && isDigit(line[n+4])
		}
	}
	return false
}

// isRequestLine wants a method in capitals, a target and a known version. Where the segment ends before the
// line does, the beginning of a target has to do.
func isRequestLine(line []byte, whole bool) bool {
	const longest = len("BASELINE-CONTROL")
	n := bytes.IndexByte(line[:min(len(line), longest+1)], ' ')
	if n < 3 {
		return false
	}
	for _, c := range line[:n] {
		if (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	target := line[n+1:]
	if whole {
		i := bytes.LastIndexByte(target, ' ')
		if i <= 0 {
			return false
		}
		for _, v := range versions {
			if bytes.HasPrefix(target[i+1:], v) {
				return true
			}
		}
		return false
	}
	return len(target) > 0 && (target[0] == '/' || bytes.HasPrefix(target, []byte("http://")) || bytes.HasPrefix(target, []byte("rtsp://")) || bytes.HasPrefix(target, []byte("sip:")))
}

// headerLines returns the length of the lines up to and with the empty one, without one that is not finished.
// A start line that is not finished counts: it holds no header.
func headerLines(b []byte) int {
	end := 0
	for end < len(b) {
		i := bytes.IndexByte(b[end:], '\n')
		if i < 0 {
			break
		}
		empty := i == 0 || i == 1 && b[end] == '\r'
		end += i + 1
		if empty {
			return end
		}
	}
	if end == 0 {
		return len(b)
	}
	return end
}

var greetings = [][]byte{
	[]byte("220 "), []byte("220-"), []byte("EHLO "), []byte("HELO "), []byte("STARTTLS"), []byte("AUTH TLS"), []byte("AUTH SSL"),
	[]byte("+OK"), []byte("STLS"), []byte("* OK "), []byte("RFB 00"), []byte("@RSYNCD: "),
}

func isGreeting(line []byte) bool {
	for _, g := range greetings {
		if bytes.HasPrefix(line, g) {
			return true
		}
	}
	return false
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// datagram returns what of a UDP payload travels, which was length bytes long before the capture cut it.
func datagram(b []byte, length int) []byte {
	be := binary.BigEndian
	first := b[0]
	switch {
	case isDNS(b):
		return b
	case first&0xc0 == 0xc0 && isQUICInitial(b):
		return b
	case first == 22 && len(b) >= 3 && b[1] == 0xfe && b[2] >= 0xfd: // DTLS (RFC 9147)
		return b
	case first < 4 && len(b) >= 8 && be.Uint32(b[4:]) == 0x2112a442: // STUN's cookie (RFC 8489, section 5)
		return b[:min(len(b), 20)]
	case first <= 2 && len(b) >= 240 && be.Uint32(b[236:]) == 0x63825363: // DHCP's cookie (RFC 2131, section 3)
		return b
	case (length == 148 && first == 1 || length == 92 && first == 2) && len(b) >= 4 && be.Uint32(b)&0xffffff == 0: // WireGuard
		return b
	case (length == 48 || length == 68) && first>>3&7 >= 1 && first>>3&7 <= 4 && first&7 >= 1 && first&7 <= 5: // NTP (RFC 5905, section 7.3)
		return b
	case (first == 0x38 || first == 0x40) && length >= 14 && length <= 100: // OpenVPN's hard resets
		return b
	case first == 0x30 && length >= 20:
		return sequence(b)
	case first >= 0x6a && first <= 0x6d || first == 0x7e: // Kerberos (RFC 4120, section 5.10): version 5, and what it is
		if n := min(len(b), 24); bytes.Contains(b[:n], []byte{3, 2, 1, 5}) {
			return b[:n]
		}
	case len(b) >= 28 && (b[17] == 0x10 || b[17] == 0x20) && int(be.Uint32(b[24:])) == length: // IKE (RFC 7296, section 3.1)
		return b[:28]
	case len(b) >= 32 && be.Uint32(b) == 0 && int(be.Uint32(b[28:])) == length-4: // the same behind its marker (RFC 3948, section 2.2)
		return b[:32]
	case (first >= 1 && first <= 5 || first == 11) && len(b) >= 20 && int(be.Uint16(b[2:])) == length: // RADIUS (RFC 2865, section 3)
		return b[:20]
	case first >= 1 && first <= 13 && len(b) == length && isDHCPv6(b):
		return b
	case first == 0 && len(b) > 2 && (b[1] == 1 || b[1] == 2) && isTFTP(b[2:]):
		return b
	case len(b) > 8 && be.Uint32(b[4:]) == 1<<16: // memcached's frame header: the only datagram
		if n := startLine(b[8:]); n > 0 {
			return b[:8+n]
		}
		if bytes.HasPrefix(b[8:], []byte("stats\r\n")) {
			return b
		}
	case bytes.HasPrefix(b, []byte("d1:ad2:id20:")), bytes.HasPrefix(b, []byte("d1:rd2:id20:")): // BitTorrent's DHT (BEP 5)
		return b[:12]
	case first >= 'A' && first <= 'Z':
		if n := startLine(b); n > 0 && n <= len(b) {
			return b[:n]
		}
	case first&0xc0 == 0x80 && len(b) >= 12: // RTP (RFC 3550, section 5.1), RTCP
		return b[:12]
	}
	return nil
}

// sequence returns what travels of an ASN.1 sequence that begins with a small number: of SNMP up to the version and
// the kind of what follows, which is the community; a search of LDAP, its entries and its end (RFC 4511, section 4.5).
func sequence(b []byte) []byte {
	for n := 2; n <= 4; n++ {
		if len(b) <= n+3 || b[n] != 2 || b[n+1] != 1 {
			continue
		}
		switch b[n+3] {
		case 0x63, 0x64, 0x65:
			return b
		case 0x04, 0x30:
			if b[n+2] <= 3 {
				return b[:n+4]
			}
		}
	}
	return nil
}

// isDHCPv6 wants options up to the end, one of which names the client or the server (RFC 8415, sections 8 and 21).
func isDHCPv6(b []byte) bool {
	named := false
	for at := 4; at < len(b); {
		if at+4 > len(b) {
			return false
		}
		id, n := binary.BigEndian.Uint16(b[at:]), int(binary.BigEndian.Uint16(b[at+2:]))
		if id == 0 || id > 150 || at+4+n > len(b) {
			return false
		}
		named = named || id <= 2 && n >= 6
		at += 4 + n
	}
	return named
}

// isTFTP wants a name and a mode (RFC 1350, section 5).
func isTFTP(b []byte) bool {
	_, mode, _ := bytes.Cut(b, []byte{0})
	mode, _, _ = bytes.Cut(mode, []byte{0})
	return bytes.EqualFold(mode, []byte("octet")) || bytes.EqualFold(mode, []byte("netascii"))
}

// isQUICInitial wants an Initial of version 1 (RFC 9000, section 17.2.2), of version 2 (RFC 9369, section 3.2)
// or of a draft.
func isQUICInitial(b []byte) bool {
	if len(b) < 7 {
		return false
	}
	kind := b[0] >> 4 & 3
	switch v := binary.BigEndian.Uint32(b[1:]); {
	case v == 1, v>>8 == 0xff0000:
		return kind == 0
	case v == 0x6b3343cf:
		return kind == 1
	}
	return false
}

// isDNSStream wants a message behind its length (RFC 1035, section 4.2.2).
func isDNSStream(b []byte) bool {
	const least = 12 + 5 // a header and a question about the root
	return len(b) >= 2+least && binary.BigEndian.Uint16(b) >= least && isDNS(b[2:])
}

// isDNS wants a message with one question, or mDNS's with none or many, whose first name is one; a record has 11
// bytes at least (RFC 1035,
// section 4.1).
func isDNS(b []byte) bool {
	const header = 12
	if len(b) < header+5 {
		return false
	}
	be := binary.BigEndian
	questions, records := be.Uint16(b[4:]), int(be.Uint16(b[6:]))+int(be.Uint16(b[8:]))+int(be.Uint16(b[10:]))
	if opcode := b[2] >> 3 & 15; opcode > 6 || b[3]&0x40 != 0 || questions > 64 || records > 65535/11 || questions == 0 && records == 0 {
		return false
	}
	for at, names := header, 0; at < len(b); names++ {
		n := int(b[at])
		switch {
		case n == 0:
			if at+5 > len(b) {
				return false
			}
			class := be.Uint16(b[at+3:]) &^ 0x8000 // mDNS uses the first bit
			kind := be.Uint16(b[at+1:])
			return (class >= 1 && class <= 4 || class >= 254 && class <= 255 || kind == 41) && kind != 0
		case n > 63 || names > 127:
			return false
		}
		at += 1 + n
	}
	return false
}
