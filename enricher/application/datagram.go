package application

import (
	"bytes"

	"github.com/tapweave/tapweave/enricher/application/dns"
	"github.com/tapweave/tapweave/enricher/application/quic"
	"github.com/tapweave/tapweave/enricher/application/tls"
)

const (
	// maxDatagrams is how many datagrams of a side are looked at until one is recognised.
	maxDatagrams = 8
	// maxInitials is how many datagrams a ClientHello may be spread over.
	maxInitials = 16
)

// datagramRecognisers are asked in turn; size is the length of the datagram before it was cut off.
var datagramRecognisers = [...]func(b []byte, size int) answer{
	isQUIC, isSTUN, isDTLS, isDHCP, isSNMP, isKerberos, isLDAP, isDatagramText, isWireGuard, isOpenVPN, isISAKMP,
	isBitTorrentDatagram, isMemcachedDatagram, isTFTP, isNTP, isRADIUS, isDNS,
}

// datagram reads a datagram.
func (r *Reader) datagram(s *Session, b []byte, size int) {
	if len(b) == 0 {
		return
	}
	switch r.Stage {
	case start:
		a := recogniseDatagram(b, size)
		if a.set == 0 {
			a = r.rtp(b, size)
		}
		if r.Count++; a.set == 0 {
			if r.Count >= maxDatagrams {
				r.Stage = done
			}
			return
		}
		if a.kind == maybe && !r.Doubt.Set.has(a.set.only()) && r.Count < maxDatagrams {
			// A datagram that may be anything's has to be followed by another of the kind.
			r.Doubt = Verdict{Set: a.set}
			s.Verdicts[r.Side] = r.Doubt
			return
		}
		s.Verdicts[r.Side] = Verdict{a.set, a.kind == sure || r.Doubt.Set.has(a.set.only())}
		r.Stage, r.Count = a.stage, 0
		r.datagram(s, b, size)
	case dnsDatagrams:
		m, ok := dns.Parse(b, size)
		if !ok {
			return
		}
		s.dnsMessage(r.Side, &m)
		if len(s.Founds[r.Side].DNS.Names) >= maxNames {
			r.Stage = done
		}
	case quicInitials:
		r.initial(s, b, size)
	}
}

// initial reads a datagram of QUIC, until the client's hello is whole.
func (r *Reader) initial(s *Session, b []byte, size int) {
	if r.QUIC == nil {
		r.QUIC = new(quic.Hello)
	}
	if r.QUIC.Datagram(b, size) {
		if body, whole, ok := r.QUIC.Message(); ok {
			if h, ok := tls.ParseClientHello(body); ok && (whole || h.SNI != "") {
				h.Whole = h.Whole && whole
				s.clientHello(r.Side, &h, 'q')
			}
			if whole {
				r.Stage, r.QUIC = done, nil
				return
			}
		}
	}
	if r.Count++; r.Count >= maxInitials {
		r.Stage, r.QUIC = done, nil
	}
}

func recogniseDatagram(b []byte, size int) answer {
	var weak answer
	for _, recognise := range datagramRecognisers {
		switch a := recognise(b, size); a.kind {
		case sure:
			return a
		case maybe:
			if weak.set == 0 {
				weak = a
			}
		}
	}
	return weak
}

// isQUIC knows long headers of versions 1 and 2, and what Google's QUIC began with.
func isQUIC(b []byte, size int) answer {
	if _, ok := quic.ParseHeader(b, size); ok {
		return named(sure, QUIC, quicInitials)
	}
	if len(b) >= 14 && (b[0] == 0x09 || b[0] == 0x0d) && b[9] == 'Q' && b[10] == '0' && digits(b[11:13]) {
		return named(sure, QUIC, done)
	}
	// Version negotiation (RFC 9000, section 17.2.1): version 0, and the versions that the server knows.
	if len(b) >= 7 && b[0]&0x80 != 0 && be.Uint32(b[1:]) == 0 {
		at := 6 + int(b[5])
		if b[5] <= quic.MaxID && at < len(b) && b[at] <= quic.MaxID {
			at += 1 + int(b[at])
			if at < size && (size-at)%4 == 0 {
				return named(maybe, QUIC, done)
			}
		}
	}
	return none
}

func digits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

const stunCookie = "\x21\x12\xa4\x42"

// isSTUN knows messages by their cookie and length (RFC 8489, section 5).
func isSTUN(b []byte, size int) answer {
	if len(b) >= 20 && b[0]&0xc0 == 0 && string(b[4:8]) == stunCookie && 20+int(be.Uint16(b[2:])) == size && size%4 == 0 {
		return named(sure, STUN, done)
	}
	return none
}

// isDTLS knows handshake records (RFC 6347, section 4.1).
func isDTLS(b []byte, size int) answer {
	if len(b) < 14 || b[0] != 22 || b[1] != 0xfe || b[2] != 0xff && b[2] != 0xfd {
		return none
	}
	if n := int(be.Uint16(b[11:])); n < 12 || 13+n > size || be.Uint16(b[3:]) != 0 {
		return none
	}
	if b[13] >= 1 && b[13] <= 3 { // ClientHello, ServerHello, HelloVerifyRequest
		return named(sure, DTLS, done)
	}
	return none
}

// isDHCP knows BOOTP with DHCP's cookie (RFC 2131, section 3), and DHCPv6 by its options (RFC 8415, sections 8
// and 21).
func isDHCP(b []byte, size int) answer {
	if len(b) >= 240 && (b[0] == 1 || b[0] == 2) && b[2] <= 16 && string(b[236:240]) == "\x63\x82\x53\x63" {
		return named(sure, DHCP, done)
	}
	if len(b) < 12 || len(b) < size || b[0] < 1 || b[0] > 11 {
		return none
	}
	identified := false
	for o := b[4:]; ; {
		if len(o) == 0 {
			break
		}
		if len(o) < 4 {
			return none
		}
		id, n := be.Uint16(o), int(be.Uint16(o[2:]))
		if id == 0 || id > 150 || 4+n > len(o) {
			return none
		}
		// A DUID: its type is 1 to 4 (section 11).
		if (id == 1 || id == 2) && n >= 6 && o[4] == 0 && o[5] >= 1 && o[5] <= 4 {
			identified = true
		}
		o = o[4+n:]
	}
	if identified {
		return named(sure, DHCP, done)
	}
	return none
}

// isSNMP knows messages of versions 1, 2c (RFC 1157; RFC 3416) and 3 (RFC 3412, section 6).
func isSNMP(b []byte, size int) answer {
	if len(b) < 6 || b[0] != 0x30 {
		return none
	}
	n, at := derLength(b[1:])
	if at == 0 || 1+at+n != size || len(b) < 1+at+4 {
		return none
	}
	v := b[1+at:]
	if v[0] != 2 || v[1] != 1 || v[2] > 3 {
		return none
	}
	if len(v) == 4 && len(b) < size {
		if v[2] == 3 && v[3] == 0x30 || v[2] != 3 && v[3] == 4 {
			return named(sure, SNMP, done) // cut where the secret begins
		}
		return none
	}
	if len(v) < 6 {
		return none
	}
	if v[2] == 3 {
		if v[3] == 0x30 && v[5] == 2 {
			return named(sure, SNMP, done)
		}
		return none
	}
	k, at := derLength(v[4:])
	if v[3] != 4 || at == 0 || len(v) < 4+at+k+1 || !printable(v[4+at:4+at+k]) {
		return none
	}
	if pdu := v[4+at+k]; pdu >= 0xa0 && pdu <= 0xa8 {
		return named(sure, SNMP, done)
	}
	return none
}

func isKerberos(b []byte, size int) answer { return kerberos(b, size, true) }

// isLDAP knows LDAP over UDP, as domain controllers are looked for.
func isLDAP(b []byte, _ int) answer { return ldap(b) }

// isDatagramText knows SIP (RFC 3261), RTSP, and SSDP (UPnP Device Architecture, 1.2), whose form is HTTP's.
func isDatagramText(b []byte, _ int) answer {
	if a := isTextResponse(b, true); a.set != 0 {
		if a.set.has(HTTP) {
			if bytes.Contains(b, []byte("\nST:")) || bytes.Contains(b, []byte("\nUSN:")) {
				return named(sure, SSDP, done)
			}
			return none
		}
		return named(a.kind, a.set.only(), done)
	}
	a := isHTTPRequest(b, true)
	if a.set.has(HTTP) {
		if bytes.HasPrefix(b, []byte("M-SEARCH * ")) || bytes.HasPrefix(b, []byte("NOTIFY * ")) {
			return named(sure, SSDP, done)
		}
		return none
	}
	a.stage = done
	return a
}

// isWireGuard knows the handshake (WireGuard, section 5.4): its messages have fixed lengths.
func isWireGuard(b []byte, size int) answer {
	if len(b) < 4 || b[1] != 0 || b[2] != 0 || b[3] != 0 {
		return none
	}
	switch {
	case b[0] == 1 && size == 148, b[0] == 2 && size == 92:
		return named(sure, WireGuard, done)
	case b[0] == 3 && size == 64, b[0] == 4 && size >= 32 && size%16 == 0:
		return named(maybe, WireGuard, done)
	}
	return none
}

// isOpenVPN knows the reset that each side begins with: opcode and key 0, a session, then plain, behind an
// HMAC (--tls-auth), or encrypted behind a packet number and a time (--tls-crypt).
func isOpenVPN(b []byte, size int) answer {
	if len(b) < 14 || b[0] != 0x38 && b[0] != 0x40 && b[0] != 0x50 {
		return none
	}
	zero := func(from, n int) bool {
		for _, c := range b[from : from+n] {
			if c != 0 {
				return false
			}
		}
		return true
	}
	client := b[0] != 0x40
	switch {
	case client && size == 14 && zero(9, 5):
		return named(sure, OpenVPN, done)
	case !client && size == 26 && len(b) == 26 && b[9] == 1 && zero(10, 4) && zero(22, 4):
		return named(sure, OpenVPN, done)
	}
	for _, hmac := range []int{16, 20, 32, 64} {
		if at := 9 + hmac; size == at+8+5 && len(b) == size && client && zero(at, 3) && b[at+3] == 1 && zero(at+8, 5) {
			return named(sure, OpenVPN, done)
		}
		if at := 9 + hmac; size == at+8+17 && len(b) == size && !client && zero(at, 3) && b[at+8] == 1 && zero(at+21, 4) {
			return named(sure, OpenVPN, done)
		}
	}
	if len(b) >= 17 && (size == 54 && client || size == 66 && !client || b[0] == 0x50 && size > 54) && zero(9, 3) && b[12] == 1 {
		return named(maybe, OpenVPN, done)
	}
	return none
}

// isISAKMP knows the header of IKE (RFC 7296, section 3.1; RFC 2408), behind the marker of NAT traversal or not.
func isISAKMP(b []byte, size int) answer {
	if len(b) >= 4 && be.Uint32(b) == 0 {
		b, size = b[4:], size-4 // RFC 3948, section 2.2
	}
	if len(b) < 28 || int(be.Uint32(b[24:])) != size || be.Uint64(b) == 0 {
		return none
	}
	switch exchange := b[18]; {
	case b[17] == 0x10 && (exchange <= 6 || exchange >= 32 && exchange <= 34) && exchange > 0:
	case b[17] == 0x20 && exchange >= 34 && exchange <= 44:
	default:
		return none
	}
	return named(sure, ISAKMP, done)
}

// isBitTorrentDatagram knows messages of the DHT (BEP 5) and the request of a tracker (BEP 15).
func isBitTorrentDatagram(b []byte, size int) answer {
	for _, p := range []string{"d1:ad2:id20:", "d1:rd2:id20:", "d2:ip6:", "d1:eli20"} {
		if bytes.HasPrefix(b, []byte(p)) {
			return named(sure, BitTorrent, done)
		}
	}
	if size == 16 && len(b) == 16 && be.Uint64(b) == 0x41727101980 && be.Uint32(b[8:]) == 0 {
		return named(sure, BitTorrent, done)
	}
	return none
}

// isMemcachedDatagram knows the text protocol behind its frame header.
func isMemcachedDatagram(b []byte, _ int) answer {
	if len(b) <= 8 || b[6] != 0 || b[7] != 0 || be.Uint16(b[4:]) == 0 || be.Uint16(b[2:]) >= be.Uint16(b[4:]) {
		return none
	}
	return memcachedText(b[8:], true)
}

// isTFTP knows requests (RFC 1350, section 5): the rest of a transfer has other ports.
func isTFTP(b []byte, size int) answer {
	if len(b) < 6 || len(b) < size || b[0] != 0 || b[1] != 1 && b[1] != 2 {
		return none
	}
	name, rest, ok := bytes.Cut(b[2:], []byte{0})
	mode, _, ended := bytes.Cut(rest, []byte{0})
	if !ok || !ended || len(name) == 0 || !printable(name) {
		return none
	}
	if m := string(bytes.ToLower(mode)); m == "octet" || m == "netascii" || m == "mail" {
		return named(sure, TFTP, done)
	}
	return none
}

// isNTP knows versions 1 to 4 (RFC 5905, section 7.3). What servers send has times that agree; of a client's
// request every field may be made up.
func isNTP(b []byte, size int) answer {
	mode, version := b[0]&7, b[0]>>3&7
	if len(b) < 48 || version < 1 || version > 4 || size > 48+4+64 || size%4 != 0 || mode < 1 || mode > 5 {
		return none
	}
	stratum, poll, precision := b[1], int8(b[2]), int8(b[3])
	if stratum > 16 || poll < 0 || poll > 17 || precision > 0 || precision < -40 || b[4] != 0 || b[8] != 0 {
		return none
	}
	transmit := be.Uint32(b[40:]) // above: the delay and dispersion to the root are far below 256 s
	switch mode {
	case 3:
		plain := true
		for _, c := range b[4:40] {
			plain = plain && c == 0
		}
		if plain && size == 48 {
			return named(sure, NTP, done)
		}
	case 4, 5:
		// Since 1995, and all within a day.
		if received := be.Uint32(b[32:]); transmit > 3_000_000_000 && (mode == 5 || transmit-received < 86400) {
			return named(sure, NTP, done)
		}
	}
	return named(maybe, NTP, done)
}

// isRADIUS knows packets by their length and attributes (RFC 2865, sections 3 and 5).
func isRADIUS(b []byte, size int) answer {
	if len(b) < 20 || int(be.Uint16(b[2:])) != size {
		return none
	}
	switch b[0] {
	case 1, 2, 3, 4, 5, 11:
	default:
		return none
	}
	if len(b) < size {
		return named(maybe, RADIUS, done)
	}
	n := 0
	for a := b[20:]; len(a) > 0; n++ {
		if len(a) < 2 || a[1] < 2 || int(a[1]) > len(a) || a[0] == 0 {
			return none
		}
		a = a[a[1]:]
	}
	if n >= 2 {
		return named(sure, RADIUS, done)
	}
	return named(maybe, RADIUS, done)
}

// isDNS knows messages that can be read; names of NetBIOS are another protocol's.
func isDNS(b []byte, size int) answer {
	m, ok := dns.Parse(b, size)
	if !ok || !m.HasQuestion && len(m.Answers) == 0 && !m.Whole {
		return none
	}
	for _, n := range m.Names {
		if dns.NetBIOS(n) && (m.Type == "TYPE32" || m.Type == "TYPE33" || m.Type == "NIMLOC" || m.Type == "SRV") {
			return named(sure, NBNS, done)
		}
	}
	if !m.HasQuestion {
		if isNBNS(b) {
			return named(sure, NBNS, done)
		}
		return named(maybe, DNS, dnsDatagrams)
	}
	return named(sure, DNS, dnsDatagrams)
}

// isNBNS says whether a message without a question begins with an encoded name (RFC 1002, section 4.2).
func isNBNS(b []byte) bool {
	return len(b) >= 46 && b[12] == 32 && dns.NetBIOS(string(b[13:45])) && b[45] == 0
}

// rtp knows RTP by what follows from datagram to datagram (RFC 3550, section 5.1): the source stays, the number
// grows by one. RTCP is known by its own lengths (section 6.4).
func (r *Reader) rtp(b []byte, size int) answer {
	if len(b) < 12 || b[0]>>6 != 2 {
		r.Mark = 0
		return none
	}
	if b[1] >= 200 && b[1] <= 204 {
		if n := 4 + 4*int(be.Uint16(b[2:])); n <= size && (b[1] == 200 && n >= 28 || b[1] == 201 && n >= 8) && be.Uint32(b[4:]) != 0 {
			return named(maybe, RTP, done)
		}
		return none
	}
	const steps = 3
	number, source := be.Uint16(b[2:]), be.Uint32(b[8:])
	run := uint64(0)
	if r.Mark>>24 == uint64(source) && source != 0 && uint16(r.Mark>>8) == number-1 {
		run = r.Mark&0xff + 1
	}
	r.Mark = uint64(source)<<24 | uint64(number)<<8 | run
	if run >= steps {
		return named(sure, RTP, done)
	}
	return none
}
