package application

import (
	"bytes"
	"encoding/binary"

	"github.com/tapweave/tapweave/enricher/application/dns"
)

var be, le = binary.BigEndian, binary.LittleEndian

// isDNSStream knows a DNS message behind its length (RFC 1035, section 4.2.2).
func isDNSStream(b []byte, last bool) answer {
	if len(b) < 2+dns.HeaderBytes {
		if len(b) >= 5 && b[2+2]>>3&15 > 6 {
			return none
		}
		if len(b) >= 2 && be.Uint16(b) < dns.HeaderBytes+5 {
			return none
		}
		return unsure
	}
	n := int(be.Uint16(b))
	if n < dns.HeaderBytes+5 || be.Uint16(b[2+4:]) != 1 {
		return none // messages over TCP have one question
	}
	if len(b) < 2+n && len(b) < maxDNS/2 && !last {
		// Ask early whether it can be one: what is cut off is read as far as it goes.
		if _, ok := dns.Parse(b[2:], n); !ok && len(b) > 2+dns.HeaderBytes+260 {
			return none
		}
		return unsure
	}
	m, ok := dns.Parse(b[2:min(2+n, len(b))], n)
	if !ok || !m.HasQuestion {
		return none
	}
	return named(sure, DNS, dnsStream)
}

// isRDP knows the connection request and confirm of X.224 in a TPKT that [MS-RDPBCGR], 2.2.1.1 and 2.2.1.2,
// describe. Others use the same two layers: what only RDP has must be there.
func isRDP(b []byte, last bool) answer {
	if k := begins(b, "\x03\x00"); k != sure {
		return fixed(k, RDP, done)
	}
	if len(b) < 11 {
		return unsure
	}
	n := int(be.Uint16(b[2:]))
	if n < 11 || n > 1024 || int(b[4]) != n-5 || b[5] != 0xe0 && b[5] != 0xd0 || b[5] == 0xe0 && (b[6] != 0 || b[7] != 0) {
		return none
	}
	if len(b) < n {
		if last {
			return none
		}
		return unsure
	}
	v := b[11:n]
	if b[5] == 0xe0 && (bytes.HasPrefix(v, []byte("Cookie: ")) || bytes.HasPrefix(v, []byte("tsv://"))) {
		return named(sure, RDP, rdpConnect)
	}
	if len(v) >= 8 && v[0] >= 1 && v[0] <= 3 && v[2] == 8 && v[3] == 0 {
		return named(sure, RDP, rdpConnect)
	}
	if len(v) == 0 {
		return named(maybe, RDP, rdpConnect)
	}
	return none
}

// isSMB knows SMB behind a NetBIOS session header ([MS-SMB2], 2.1; RFC 1002, 4.3).
func isSMB(b []byte, _ bool) answer {
	switch b[0] {
	case 0:
		if len(b) < 8 {
			if len(b) > 4 && b[4] < 0xfd {
				return none
			}
			return unsure
		}
		switch string(b[4:8]) {
		case "\xffSMB", "\xfeSMB", "\xfdSMB":
			return named(sure, SMB, done)
		}
	case 0x81: // session request: two encoded names
		if k := begins(b, "\x81\x00\x00\x44\x20"); k != sure {
			return fixed(k, SMB, done)
		}
		return named(sure, SMB, done)
	case 0x82:
		return weakly(begins(b, "\x82\x00\x00\x00"), SMB)
	}
	return none
}

// weakly is fixed for bytes that are too few to be sure.
func weakly(k kind, n Name) answer {
	if k == sure {
		return named(maybe, n, done)
	}
	return fixed(k, n, done)
}

// kerberosTags are the ASN.1 tags of the messages (RFC 4120, section 5.10), and what each has for its msg-type.
var kerberosTags = map[byte]byte{0x6a: 10, 0x6b: 11, 0x6c: 12, 0x6d: 13, 0x7e: 30}

// isKerberosStream knows messages behind their length (RFC 4120, section 7.2.2).
func isKerberosStream(b []byte, last bool) answer {
	if b[0] != 0 {
		return none
	}
	if len(b) < 5 {
		return unsure
	}
	return kerberos(b[4:], int(be.Uint32(b)), last)
}

// kerberos looks at the version and the type that every message begins with.
func kerberos(b []byte, size int, last bool) answer {
	want, ok := kerberosTags[b[0]]
	if !ok {
		return none
	}
	if len(b) < 24 {
		if last {
			return none
		}
		return unsure
	}
	n, at := derLength(b[1:])
	if at == 0 || 1+at+n != size || b[1+at] != 0x30 {
		return none
	}
	b = b[1+at:]
	if _, at = derLength(b[1:]); at == 0 {
		return none
	}
	b = b[1+at:]
	first := byte(0xa0)
	if want == 10 || want == 12 {
		first = 0xa1
	}
	pvno := []byte{first, 3, 2, 1, 5, first + 1, 3, 2, 1, want}
	if !bytes.HasPrefix(b, pvno) {
		return none
	}
	return named(sure, Kerberos, done)
}

// derLength reads a length in DER; at is how many bytes it has, 0 if it is none.
func derLength(b []byte) (n, at int) {
	if len(b) == 0 {
		return 0, 0
	}
	if b[0] < 0x80 {
		return int(b[0]), 1
	}
	k := int(b[0] & 0x7f)
	if k < 1 || k > 4 || len(b) < 1+k {
		return 0, 0
	}
	for _, c := range b[1 : 1+k] {
		n = n<<8 | int(c)
	}
	return n, 1 + k
}

func isLDAPStream(b []byte, last bool) answer {
	if b[0] != 0x30 {
		return none
	}
	if len(b) < 6 && !last {
		return unsure
	}
	n, at := derLength(b[1:])
	if at == 0 {
		return none
	}
	enough := min(1+at+n, 64)
	if len(b) < enough && !last {
		return unsure
	}
	return ldap(b[:min(len(b), enough)])
}

// ldap knows an LDAPMessage by its identifier and the beginning of its operation (RFC 4511, section 4.2 and
// following).
func ldap(b []byte) answer {
	if len(b) < 9 || b[0] != 0x30 {
		return none
	}
	n, at := derLength(b[1:])
	if at == 0 || n < 5 || n > 1<<24 {
		return none
	}
	v := b[1+at:]
	// MessageID.
	if len(v) < 3 || v[0] != 2 || v[1] < 1 || v[1] > 4 || v[2] > 0x7f {
		return none
	}
	id := int(v[1])
	if len(v) < 2+id+2 {
		return none
	}
	v = v[2+id:]
	op := v[0]
	m, at := derLength(v[1:])
	if at == 0 || 2+id+1+at+m > n {
		return none
	}
	v = v[1+at:]
	fits := false
	switch op {
	case 0x60: // BindRequest: version
		fits = bytes.HasPrefix(v, []byte{2, 1, 3}) || bytes.HasPrefix(v, []byte{2, 1, 2})
	case 0x61, 0x65, 0x78, 0x67, 0x69, 0x6b, 0x6d, 0x6f: // an LDAPResult: resultCode
		fits = len(v) >= 3 && v[0] == 0x0a && v[1] == 1 && v[2] < 100
	case 0x63: // SearchRequest: baseObject, then scope
		k, at := derLength(v[min(1, len(v)):])
		if len(v) > 0 && v[0] == 4 && at > 0 {
			rest := v[min(1+at+k, len(v)):]
			fits = len(rest) >= 3 && rest[0] == 0x0a && rest[1] == 1 && rest[2] <= 3 || len(rest) < 3 && k > 0 && len(v) > 8 && printable(v[1+at:min(1+at+k, len(v))])
		}
	case 0x64: // SearchResultEntry: its name
		k, at := derLength(v[min(1, len(v)):])
		fits = len(v) > 4 && v[0] == 4 && at > 0 && printable(v[1+at:min(1+at+k, len(v))])
	case 0x77: // ExtendedRequest: an object identifier in digits
		fits = len(v) > 4 && v[0] == 0x80 && v[2] >= '0' && v[2] <= '2' && v[3] == '.'
	}
	if fits {
		return named(sure, LDAP, done)
	}
	return none
}

// isNTLM knows bare NTLM messages ([MS-NLMP], 2.2.1), and those that the negotiation of .NET streams frames
// ([MS-NNS], 2.2.1).
func isNTLM(b []byte, _ bool) answer {
	if b[0] == 0x16 {
		if k := begins(b, "\x16\x01\x00"); k != sure {
			return fixed(k, NTLM, done)
		}
		if len(b) < 5 {
			return unsure
		}
		b = b[5:]
		if len(b) == 0 {
			return unsure
		}
	}
	return fixed(begins(b, "NTLMSSP\x00"), NTLM, done)
}

// isDCERPC knows connection-oriented PDUs (C706, section 12.6.3).
func isDCERPC(b []byte, _ bool) answer {
	if b[0] != 5 || len(b) > 1 && b[1] > 1 || len(b) > 2 && b[2] > 19 || len(b) > 3 && b[3]&0xc0 != 0 && b[3] != 0x83 {
		return none
	}
	if len(b) < 16 {
		return unsure
	}
	if b[4]&^0x10 != 0 || b[5] > 3 || b[6] != 0 || b[7] != 0 {
		return none
	}
	order := binary.ByteOrder(be)
	if b[4] == 0x10 {
		order = le
	}
	fragment, auth := order.Uint16(b[8:]), order.Uint16(b[10:])
	if fragment < 16 || fragment > 16<<10 || auth+16 > fragment {
		return none
	}
	switch b[2] {
	case 11, 12, 13, 14, 15: // bind, bind_ack, bind_nak, alter_context and its response
		return named(sure, DCERPC, done)
	}
	return named(maybe, DCERPC, done)
}

// isSOCKS knows the greetings of versions 5 (RFC 1928, section 3) and 4.
func isSOCKS(b []byte, last bool) answer {
	switch b[0] {
	case 5:
		if len(b) < 2 {
			return unsure
		}
		n := int(b[1])
		// "05 00": the server's choice, with its reply behind it.
		if n == 0 && len(b) >= 3 && b[2] != 5 {
			return none
		}
		if n == 0 {
			if len(b) == 2 && !last {
				return unsure
			}
			return named(maybe, SOCKS, socks5Server)
		}
		if n > 9 {
			return none
		}
		// "05 02 01 00 05 00": the choice of a password, it is accepted, and so is the request.
		if n == 2 && len(b) >= 6 && string(b[2:6]) == "\x01\x00\x05\x00" {
			return named(maybe, SOCKS, socks5Server)
		}
		for _, m := range b[2:min(len(b), 2+n)] {
			if m > 9 && m < 0x80 {
				return none
			}
		}
		if len(b) < 2+n+4 {
			if last && len(b) >= 2+n {
				return named(maybe, SOCKS, socks5Client)
			}
			return unsure
		}
		v := b[2+n:]
		if v[0] == 5 && v[1] >= 1 && v[1] <= 3 && v[2] == 0 && (v[3] == 1 || v[3] == 3 || v[3] == 4) {
			return named(sure, SOCKS, socks5Client)
		}
		if v[0] == 1 && v[1] > 0 { // user name and password (RFC 1929)
			return named(maybe, SOCKS, socks5Client)
		}
	case 4:
		if len(b) > 1 && b[1] != 1 && b[1] != 2 || len(b) > 3 && b[2] == 0 && b[3] == 0 {
			return none
		}
		if len(b) < 9 {
			return unsure
		}
		b = b[:min(len(b), 512)]
		n := socks4Request(b)
		switch {
		case n > 0 && n < 512 && printable(bytes.ReplaceAll(b[8:n], []byte{0}, nil)):
			return named(maybe, SOCKS, socks4Client)
		case n == 0 && len(b) < 512 && !last:
			return unsure
		}
	case 0:
		if len(b) > 1 && (b[1] < 0x5a || b[1] > 0x5d) {
			return none
		}
		if len(b) < 8 {
			return unsure
		}
		return named(maybe, SOCKS, socks4Server)
	}
	return none
}

func isBitTorrent(b []byte, _ bool) answer {
	return fixed(begins(b, "\x13BitTorrent protocol"), BitTorrent, done) // BEP 3
}

func isVNC(b []byte, _ bool) answer { // RFC 6143, section 7.1.1
	return fixed(beginsAny(b, "RFB 003.00", "RFB 004.00"), VNC, done)
}

// isBGP knows the marker, and the types of messages (RFC 4271, section 4.1).
func isBGP(b []byte, _ bool) answer {
	if k := begins(b, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"); k != sure {
		return fixed(k, BGP, done)
	}
	if len(b) < 19 {
		return unsure
	}
	if n := be.Uint16(b[16:]); n < 19 || n > 4096 || b[18] < 1 || b[18] > 5 {
		return none
	}
	return named(sure, BGP, done)
}

// isMQTT knows CONNECT and CONNACK (MQTT 3.1.1 and 5.0, sections 3.1 and 3.2).
func isMQTT(b []byte, _ bool) answer {
	switch b[0] {
	case 0x10:
		n := 1
		for n < 5 && n < len(b) && b[n]&0x80 != 0 {
			n++
		}
		if n == 5 {
			return none
		}
		if n++; len(b) <= n {
			return unsure
		}
		return fixed(beginsAny(b[n:], "\x00\x04MQTT\x04", "\x00\x04MQTT\x05", "\x00\x06MQIsdp\x03"), MQTT, done)
	case 0x20:
		if len(b) > 1 && (b[1] < 2 || b[1] > 0x7f) || len(b) > 2 && b[2] > 1 {
			return none
		}
		if len(b) < 4 {
			return unsure
		}
		if b[1] == 2 && b[3] <= 5 || b[1] > 2 && (b[3] == 0 || b[3] >= 0x80 && b[3] <= 0x9f) {
			return named(maybe, MQTT, done)
		}
	}
	return none
}

// isAMQP knows the protocol header, and Connection.Start of AMQP 0-9-1 (section 4.2.2).
func isAMQP(b []byte, _ bool) answer {
	if b[0] == 1 {
		if k := begins(b, "\x01\x00\x00"); k != sure {
			return fixed(k, AMQP, done)
		}
		if len(b) < 11 {
			return unsure
		}
		if string(b[7:11]) == "\x00\x0a\x00\x0a" {
			return named(sure, AMQP, done)
		}
		return none
	}
	return fixed(beginsAny(b, "AMQP\x00\x00\x09\x01", "AMQP\x01\x01", "AMQP\x00\x01\x00\x00", "AMQP\x02\x01\x00\x00", "AMQP\x03\x01\x00\x00"), AMQP, done)
}

// isKafka knows requests (https://kafka.apache.org/protocol.html) that name their client; of responses only
// that they may be some.
func isKafka(b []byte, last bool) answer {
	if len(b) < 14 {
		if b[0] != 0 {
			return none
		}
		if !last {
			return unsure
		}
		return none
	}
	n := be.Uint32(b)
	key, version, correlation, id := be.Uint16(b[4:]), be.Uint16(b[6:]), be.Uint32(b[8:]), int(be.Uint16(b[12:]))
	if n < 10 || n > 1<<24 || key > 92 || version > 18 || correlation > 1<<24 || id == 0 || id > 255 || uint32(10+id) > n {
		return none
	}
	if len(b) < 14+id {
		if !printable(b[14:]) || last {
			return none
		}
		return unsure
	}
	if !printable(b[14 : 14+id]) {
		return none
	}
	return named(sure, Kafka, done)
}

// isMySQL knows the server's greeting (MySQL Internals, HandshakeV10).
func isMySQL(b []byte, last bool) answer {
	switch {
	case len(b) > 1 && b[1] != 0 || len(b) > 2 && b[2] != 0 || len(b) > 3 && b[3] != 0 || len(b) > 4 && b[4] != 10:
		return none
	case len(b) > 5 && (b[5] < '3' || b[5] > '9') && !bytes.HasPrefix(b[5:], []byte("1")):
		return none
	}
	if len(b) < 64 && !last {
		return unsure
	}
	if len(b) < 32 {
		return none
	}
	i := bytes.IndexByte(b[5:min(len(b), 64)], 0)
	if i < 5 || !printable(b[5:5+i]) || bytes.IndexByte(b[5:5+i], '.') < 0 || int(b[0]) < i+30 {
		return none
	}
	return named(sure, MySQL, done)
}

// Requests for encryption (PostgreSQL, Frontend/Backend Protocol, Message Formats).
const (
	pgSSLRequest = "\x00\x00\x00\x08\x04\xd2\x16\x2f"
	pgGSSRequest = "\x00\x00\x00\x08\x04\xd2\x16\x30"
)

func isPostgreSQL(b []byte, last bool) answer {
	switch b[0] {
	case 0:
		switch k := beginsAny(b, pgSSLRequest, pgGSSRequest); k {
		case sure:
			return named(sure, PostgreSQL, pgClient)
		case more:
			return unsure
		}
		if k := begins(b, "\x00\x00\x00\x10\x04\xd2\x16\x2e"); k != no {
			return fixed(k, PostgreSQL, done)
		}
		// StartupMessage: version 3, and a parameter's name.
		if len(b) < 13 {
			if len(b) > 4 && b[4] != 0 || len(b) > 5 && b[5] != 3 || last {
				return none
			}
			return unsure
		}
		if n := be.Uint32(b); n > 10 && n < 1<<14 && be.Uint32(b[4:])>>16 == 3 && letter(b[8]) && letter(b[9]) && letter(b[10]) {
			return named(sure, PostgreSQL, done)
		}
	case 'S', 'N':
		// The answer to a request for encryption, and TLS or the answer to the next request behind it.
		if len(b) == 1 {
			if last {
				return named(maybe, PostgreSQL, pgServer)
			}
			return unsure
		}
		v := b[1:]
		if b[0] == 'N' && v[0] == 'S' {
			if v = v[1:]; len(v) == 0 {
				return unsure
			}
		}
		if a := isTLS(v, last); a.set != 0 || a.kind == more {
			if a.kind == sure {
				return named(sure, PostgreSQL, pgServer)
			}
			return a
		}
		if b[0] == 'N' {
			return pgAuthentication(v, last)
		}
	case 'R', 'E':
		return pgAuthentication(b, last)
	}
	return none
}

// pgAuthentication knows AuthenticationRequest and ErrorResponse.
func pgAuthentication(b []byte, last bool) answer {
	if k := beginsAny(b, "R\x00\x00", "E\x00\x00"); k != sure {
		return fixed(k, PostgreSQL, done)
	}
	if len(b) < 9 {
		if last {
			return none
		}
		return unsure
	}
	n := be.Uint32(b[1:])
	if b[0] == 'R' && n >= 8 && n < 512 && be.Uint32(b[5:]) <= 12 {
		return named(sure, PostgreSQL, done)
	}
	if b[0] == 'E' && n < 8192 && (string(b[5:9]) == "SFAT" || string(b[5:9]) == "SERR") {
		return named(sure, PostgreSQL, done)
	}
	return none
}

// isMSSQL knows PRELOGIN, its answer and LOGIN7 ([MS-TDS], 2.2.6.4 and 2.2.6.5).
func isMSSQL(b []byte, last bool) answer {
	if b[0] != 0x12 && b[0] != 0x04 && b[0] != 0x10 || len(b) > 1 && b[1] > 1 {
		return none
	}
	if len(b) < 16 {
		if last {
			return none
		}
		return unsure
	}
	n := be.Uint16(b[2:])
	if n < 16 || n > 4096 || b[4] != 0 && b[0] != 4 || b[7] != 0 {
		return none
	}
	if b[0] == 0x10 {
		if b[1] == 1 && le.Uint32(b[8:])+8 == uint32(n) && b[15]>>4 == 7 {
			return named(sure, MSSQL, done)
		}
		return none
	}
	// Options: token, offset and length; VERSION is the first, and has six bytes.
	if b[8] == 0 && b[11] == 0 && b[12] == 6 && be.Uint16(b[9:]) < 64 && b[13] == 1 {
		return named(sure, MSSQL, done)
	}
	return none
}

// isMongoDB knows the message header (MongoDB Wire Protocol).
func isMongoDB(b []byte, last bool) answer {
	if len(b) < 21 {
		if len(b) > 3 && b[3] > 3 || last {
			return none
		}
		return unsure
	}
	n, to, op := le.Uint32(b), le.Uint32(b[8:]), le.Uint32(b[12:])
	if n < 21 || n > 48<<20 {
		return none
	}
	flags := le.Uint32(b[16:])
	switch op {
	case 2013: // OP_MSG: flags and the kind of the first section
		if flags&^0x10003 == 0 && b[20] <= 1 {
			return named(sure, MongoDB, done)
		}
	case 2012: // OP_COMPRESSED
		if flags == 2013 || flags == 2004 || flags == 1 {
			return named(sure, MongoDB, done)
		}
	case 2004: // OP_QUERY: flags and the name of a collection
		if to == 0 && flags < 1<<8 && letter(b[20]) {
			return named(sure, MongoDB, done)
		}
	case 1: // OP_REPLY
		if to != 0 && flags < 16 && n > 36 {
			return named(maybe, MongoDB, done)
		}
	}
	return none
}

// isCassandra knows the first frames of CQL (native_protocol_v4.spec, sections 2, 4.1.1, 4.2.4).
func isCassandra(b []byte, last bool) answer {
	v := b[0] & 0x7f
	if v < 1 || v > 6 {
		return none
	}
	if len(b) < 9 {
		if len(b) > 1 && b[1] > 0x1f || len(b) > 4 && v > 2 && b[4] > 0x10 || last {
			return none
		}
		return unsure
	}
	if v < 3 || b[1] > 0x1f || b[4] > 0x10 {
		return none
	}
	n := be.Uint32(b[5:])
	response := b[0]&0x80 != 0
	switch {
	case !response && b[4] == 5 && n == 0, response && b[4] == 2 && n == 0: // OPTIONS, READY
		return named(maybe, Cassandra, done)
	case !response && b[4] == 1 && n < 4096, response && b[4] == 6 && n < 65536: // STARTUP, SUPPORTED: a map
		size := int(min(9+n, 512))
		if len(b) < size && !last {
			return unsure
		}
		body := b[9:min(len(b), size)]
		if bytes.Contains(body, []byte("CQL_VERSION")) {
			return named(sure, Cassandra, done)
		}
	case response && b[4] == 3 && n < 512: // AUTHENTICATE: a class
		return named(maybe, Cassandra, done)
	}
	return none
}

// isModbus knows requests and responses whose length fits their function (Modbus Messaging on TCP/IP, 3.1.3).
func isModbus(b []byte, last bool) answer {
	if len(b) < 10 {
		if len(b) > 2 && b[2] != 0 || len(b) > 3 && b[3] != 0 || len(b) > 4 && b[4] != 0 {
			return none
		}
		if !last || len(b) < 9 {
			if last {
				return none
			}
			return unsure
		}
	}
	n := int(b[5])
	if b[2] != 0 || b[3] != 0 || b[4] != 0 || n < 3 || n > 254 {
		return none
	}
	function := b[7]
	fits := false
	switch {
	case function >= 1 && function <= 4:
		fits = n == 6 || n == 3+int(b[8])
	case function == 5 || function == 6:
		fits = n == 6
	case function == 15 || function == 16:
		fits = n == 6 || n >= 8
	case function > 0x80 && function < 0x98:
		fits = n == 3 && b[8] >= 1 && b[8] <= 11
	}
	if fits {
		return named(maybe, Modbus, done)
	}
	return none
}

// isDNP3 knows the link header by its checksum (IEEE 1815, 9.2.4).
func isDNP3(b []byte, _ bool) answer {
	if k := begins(b, "\x05\x64"); k != sure {
		return fixed(k, DNP3, done)
	}
	if len(b) < 10 {
		return unsure
	}
	crc := uint16(0)
	for _, c := range b[:8] {
		crc ^= uint16(c)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0xa6bc
			} else {
				crc >>= 1
			}
		}
	}
	if b[2] >= 5 && ^crc == le.Uint16(b[8:]) {
		return named(sure, DNP3, done)
	}
	return none
}

// isOpenVPNStream knows packets behind their length (OpenVPN protocol, TCP mode).
func isOpenVPNStream(b []byte, last bool) answer {
	if b[0] != 0 {
		return none
	}
	if len(b) < 3 {
		return unsure
	}
	n := int(be.Uint16(b))
	if n < 14 || n > 128 {
		return none
	}
	if op := b[2]; op != 0x38 && op != 0x40 && op != 0x50 {
		return none
	}
	if len(b) < 2+n && !last {
		return unsure
	}
	if a := isOpenVPN(b[2:min(2+n, len(b))], n); a.set != 0 {
		return a
	}
	return none
}

func isSTUNStream(b []byte, last bool) answer {
	if b[0]&0xc0 != 0 {
		return none
	}
	if len(b) < 20 {
		if len(b) >= 8 && string(b[4:8]) != stunCookie || last {
			return none
		}
		if len(b) > 4 && b[4] != stunCookie[0] {
			return none
		}
		return unsure
	}
	return isSTUN(b, 20+int(be.Uint16(b[2:])))
}
