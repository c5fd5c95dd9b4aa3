package application

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"

	"github.com/tapweave/tapweave/proto/packet"
)

// A sample is what the two sides of a session begin with, written down from the protocols' specifications.
type sample struct {
	name           string
	app            Name
	client, server []byte
	// Datagrams, where the session is one of UDP.
	asks, answers [][]byte
	// clientOnly and serverOnly are the names where only one side is seen; Unknown where that is not enough.
	clientOnly, serverOnly Name
	ends                   Ends
}

func (s *sample) datagrams() bool { return s.asks != nil || s.answers != nil }

func x(s string) []byte {
	b, err := hex.DecodeString(strings.Map(func(r rune) rune {
		if r == ' ' || r == '\n' || r == '\t' {
			return -1
		}
		return r
	}, s))
	if err != nil {
		panic(err)
	}
	return b
}

func join(parts ...any) (b []byte) {
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			b = append(b, p...)
		case []byte:
			b = append(b, p...)
		case byte:
			b = append(b, p)
		case int:
			b = append(b, byte(p))
		}
	}
	return b
}

func sized(bytes int, order binary.ByteOrder, b []byte) []byte {
	n := make([]byte, 4)
	order.PutUint32(n, uint32(len(b)))
	if order == binary.ByteOrder(binary.BigEndian) {
		n = n[4-bytes:]
	} else {
		n = n[:bytes]
	}
	return append(n, b...)
}

// helloOf is a ClientHello record for a name, in one record.
func helloOf(name string) []byte {
	sni := join(x("0000"), sized(2, be, sized(2, be, join(0, sized(2, be, []byte(name))))))
	exts := join(sni, x("0010 000e 000c 02 6832 08 687474702f312e31"), x("002b 0005 04 0304 0303"), x("000a 0004 0002 001d"), x("000d 0004 0002 0403"))
	body := join(x("0303"), make([]byte, 32), 0, x("0004 1301 c02f"), x("01 00"), sized(2, be, exts))
	return join(x("16 0301"), sized(2, be, join(1, sized(3, be, body))))
}

// serverHello13 and serverHello12 are records with a ServerHello.
var (
	serverHello13 = join(x("16 0303"), sized(2, be, join(2, sized(3, be, join(x("0303"), make([]byte, 32), 0, x("1301 00"), sized(2, be, x("002b 0002 0304")))))))
	serverHello12 = join(x("16 0303"), sized(2, be, join(2, sized(3, be, join(x("0303"), make([]byte, 32), 0, x("c02f 00"), sized(2, be, x("0010 0005 0003 02 6832")))))))
)

func dnsQuery(id uint16, name string, qtype byte) []byte {
	b := join(byte(id>>8), byte(id), x("0100 0001 0000 0000 0000"))
	for _, l := range strings.Split(name, ".") {
		b = join(b, len(l), l)
	}
	return join(b, 0, 0, qtype, 0, 1)
}

func dnsAnswer(id uint16, name string, qtype byte, rdata ...[]byte) []byte {
	b := dnsQuery(id, name, qtype)
	b[2], b[3], b[7] = 0x81, 0x80, byte(len(rdata))
	for _, d := range rdata {
		b = join(b, x("c00c 00"), qtype, x("0001 0000003c"), sized(2, be, d))
	}
	return b
}

func stun() []byte { return x("0001 0000 2112a442 000102030405060708090a0b") }

func dhcp(op byte) []byte {
	b := make([]byte, 300)
	b[0], b[1], b[2] = op, 1, 6
	copy(b[236:], x("63825363 350101 ff"))
	return b
}

func ntpServer() []byte {
	b := make([]byte, 48)
	copy(b, x("24 02 06 e9"))
	copy(b[32:], x("e9000000 00000001 e9000000 00000100"))
	return b
}

func dnp3() []byte {
	b := x("0564 05 c0 0100 0004")
	crc := uint16(0)
	for _, c := range b {
		crc ^= uint16(c)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0xa6bc
			} else {
				crc >>= 1
			}
		}
	}
	return binary.LittleEndian.AppendUint16(b, ^crc)
}

func rtp(number byte) []byte {
	return join(x("80 00 00"), number, x("00000000 12345678"), make([]byte, 160))
}

var kerberosReq = func() []byte {
	inner := join(x("a103020105 a20302010a"), x("a40d 300b a007 0305 0040810010 0000"))
	seq := join(x("30"), len(inner), inner)
	return join(x("6a"), len(seq), seq)
}()

// mysqlGreeting is HandshakeV10 in the first packet of a connection.
var mysqlGreeting = func() []byte {
	b := join(10, "8.0.36\x00", x("0a000000"), "abcdefgh", 0, x("ffff ff 0200 ffdf 15"), make([]byte, 10), "abcdefghijkl\x00", "caching_sha2_password\x00")
	return join(len(b), 0, 0, 0, b)
}()

var samples = []sample{
	{name: "tls 1.3", app: TLS, client: helloOf("example.com"), server: serverHello13, clientOnly: TLS, serverOnly: TLS},
	{name: "tls 1.2", app: TLS, client: helloOf("example.com"), server: serverHello12, clientOnly: TLS, serverOnly: TLS},
	{name: "tls alert", app: TLS, client: helloOf("example.com"), server: x("15 0301 0002 0228"), clientOnly: TLS, serverOnly: TLS},
	{name: "http", app: HTTP,
		client: join("GET /a?b=c HTTP/1.1\r\nHost: one.example\r\nUser-Agent: x/1\r\n\r\n", "POST /b HTTP/1.1\r\nhost: two.example\r\nContent-Length: 24\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: no\r\n", "PUT /c HTTP/1.1\r\nHost: three.example\r\nTransfer-Encoding: chunked\r\n\r\n", "5;x=y\r\nabcde\r\n1a\r\nGET / HTTP/1.1\r\nHost: no\r\n\r\n0\r\nTrailer: x\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: four.example\r\n\r\n"),
		server: join("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nServer: x\r\n\r\nHTTP/1.1 500 Oops\r\n\r\n"), clientOnly: HTTP, serverOnly: HTTP},
	{name: "http through connect", app: HTTP, client: join("CONNECT inner.example:443 HTTP/1.1\r\nHost: inner.example:443\r\n\r\n", helloOf("inner.example")),
		server: join("HTTP/1.1 200 Connection established\r\n\r\n", serverHello13), clientOnly: HTTP, serverOnly: HTTP},
	{name: "http in connect", app: HTTP, client: join("CONNECT inner.example:80 HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: inner.example\r\n\r\n"),
		server: []byte("HTTP/1.0 200 OK\r\n\r\nHTTP/1.1 404 Not Found\r\n\r\n"), clientOnly: HTTP, serverOnly: HTTP},
	{name: "websocket", app: WebSocket, client: join("GET /chat HTTP/1.1\r\nHost: ws.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", x("818512345678")),
		server: []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"), clientOnly: HTTP, serverOnly: WebSocket},
	{name: "websocket refused", app: HTTP, client: []byte("GET /chat HTTP/1.1\r\nHost: ws.example\r\nUpgrade: websocket\r\n\r\n"), server: []byte("HTTP/1.1 403 No\r\n\r\n"), clientOnly: HTTP, serverOnly: HTTP},
	{name: "http2", app: HTTP2, client: join("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", x("000000 04 00 00000000"), x("000011 01 05 00000001 828684418cf1e3c2e5f23a6ba0ab90f4ff")),
		server: join(x("000006 04 00 00000000 0003 00000064"), x("000001 01 04 00000001 88")), clientOnly: HTTP2, serverOnly: HTTP2},
	{name: "h2c upgrade", app: HTTP2, client: join("GET / HTTP/1.1\r\nHost: up.example\r\nUpgrade: h2c\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", x("000000 04 00 00000000")),
		server: join("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", x("000000 04 00 00000000")), clientOnly: HTTP2, serverOnly: HTTP2},
	{name: "ssh", app: SSH, client: []byte("SSH-2.0-OpenSSH_9.6 comment\r\n\x00\x00"), server: []byte("SSH-1.99-dropbear_2022.83\n"), clientOnly: SSH, serverOnly: SSH},
	{name: "dns over tcp", app: DNS, client: join(sized(2, be, dnsQuery(1, "a.example", 1)), sized(2, be, dnsQuery(2, "b.example", 28))),
		server: join(sized(2, be, dnsAnswer(2, "b.example", 28)), sized(2, be, dnsAnswer(1, "a.example", 1, x("c0000201")))), clientOnly: DNS, serverOnly: DNS},
	{name: "smtp", app: SMTP, client: join("EHLO me.example\r\nSTARTTLS\r\n", helloOf("mail.example")),
		server: join("220 mail.example ESMTP ready\r\n250-mail.example\r\n250 STARTTLS\r\n220 go ahead\r\n", serverHello13), clientOnly: SMTP, serverOnly: SMTP},
	{name: "smtp, greeting without a word", app: SMTP, client: []byte("HELO me\r\n"), server: []byte("220 mail.example\r\n"), clientOnly: SMTP},
	{name: "ftp", app: FTP, client: join("AUTH TLS\r\n", helloOf("ftp.example")), server: join("220 (vsFTPd 3.0.5)\r\n234 Proceed\r\n", serverHello12), clientOnly: FTP, serverOnly: FTP},
	{name: "ftp, greeting without a word", app: FTP, client: []byte("USER anonymous\r\nPASS x\r\n"), server: []byte("220 welcome\r\n")},
	{name: "pop3", app: POP3, client: join("STLS\r\n", helloOf("pop.example")), server: join("+OK ready <1@x>\r\n+OK begin\r\n", serverHello12), clientOnly: POP3, serverOnly: POP3},
	{name: "pop3, plain", app: POP3, client: []byte("USER joe\r\nPASS x\r\n"), server: []byte("+OK\r\n+OK\r\n")},
	{name: "imap", app: IMAP, client: join("a1 STARTTLS\r\n", helloOf("imap.example")), server: join("* OK [CAPABILITY IMAP4] ready\r\na1 OK begin\r\n", serverHello13), clientOnly: IMAP, serverOnly: IMAP},
	{name: "postgresql with tls", app: PostgreSQL, client: join(pgSSLRequest, helloOf("pg.example")), server: join("S", serverHello13), clientOnly: PostgreSQL, serverOnly: PostgreSQL},
	{name: "postgresql", app: PostgreSQL, client: join(sized(4, be, join(x("00030000"), "user\x00joe\x00\x00"))), server: x("52 00000008 00000000 53 00000016"), clientOnly: PostgreSQL, serverOnly: PostgreSQL},
	{name: "rdp with tls", app: RDP, client: join(x("0300 002c 27 e0 0000 0000 00"), "Cookie: mstshash=eltons\r\n", x("01000800 03000000"), helloOf("rdp.example")),
		server: join(x("0300 0013 0e d0 0000 1234 00 02000800 01000000"), serverHello12), clientOnly: RDP, serverOnly: RDP},
	{name: "socks5", app: SOCKS, client: join(x("05 01 00"), x("05 01 00 03"), len("w.example"), "w.example", x("0050"), "GET / HTTP/1.1\r\nHost: w.example\r\n\r\n"),
		server: join(x("05 00"), x("05 00 00 01 00000000 0000"), "HTTP/1.1 302 Found\r\n\r\n"), clientOnly: SOCKS},
	{name: "socks5 with password", app: SOCKS, client: join(x("05 02 00 02"), x("01 01 61 01 62"), x("05 01 00 01 c0000201 01bb"), helloOf("s.example")),
		server: join(x("05 02"), x("01 00"), x("05 00 00 01 00000000 0000"), serverHello13)},
	{name: "socks4a", app: SOCKS, client: join(x("04 01 0050 00000001"), "me\x00", "w.example\x00", "GET / HTTP/1.1\r\nHost: w.example\r\n\r\n"), server: join(x("00 5a 0000 00000000"), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")},
	{name: "smb", app: SMB, client: x("00000045 ff534d42 72000000"), server: x("000000f8 fe534d42 4000"), clientOnly: SMB, serverOnly: SMB},
	{name: "kerberos", app: Kerberos, client: sized(4, be, kerberosReq), clientOnly: Kerberos},
	{name: "ldap", app: LDAP, client: x("300c 020101 6007 020103 0400 8000"), server: x("300c 020101 6107 0a0100 0400 0400"), clientOnly: LDAP, serverOnly: LDAP},
	{name: "ntlm", app: NTLM, client: join(x("16 0100 0028"), "NTLMSSP\x00\x01"), server: join(x("16 0100 0028"), "NTLMSSP\x00\x02"), clientOnly: NTLM, serverOnly: NTLM},
	{name: "dcerpc", app: DCERPC, client: x("05000b03 10000000 7400 0000 02000000 d016d016"), server: x("05000c03 10000000 3c00 0000 02000000 d016d016"), clientOnly: DCERPC, serverOnly: DCERPC},
	{name: "telnet", app: Telnet, client: x("fffd03 fffb18 fffb1f"), server: x("fffd18 fffd20"), clientOnly: Telnet, serverOnly: Telnet},
	{name: "bittorrent", app: BitTorrent, client: join(0x13, "BitTorrent protocol", make([]byte, 48)), server: join(0x13, "BitTorrent protocol", make([]byte, 48)), clientOnly: BitTorrent, serverOnly: BitTorrent},
	{name: "mqtt", app: MQTT, client: join(x("10 10 0004"), "MQTT", x("04 02 003c 0004"), "test"), server: x("20 02 00 00"), clientOnly: MQTT},
	{name: "amqp", app: AMQP, client: []byte("AMQP\x00\x00\x09\x01"), server: x("01 0000 00000100 000a 000a 00 09"), clientOnly: AMQP, serverOnly: AMQP},
	{name: "kafka", app: Kafka, client: sized(4, be, join(x("0012 0003 00000001 0004"), "test", x("00 0a"))), server: x("0000 0022 00000001 0000"), clientOnly: Kafka},
	{name: "mysql", app: MySQL, server: mysqlGreeting, serverOnly: MySQL},
	{name: "mssql", app: MSSQL, client: x("12 01 0014 0000 00 00 00 000b 0006 01 0011 0001 ff"), server: x("04 01 0014 0000 01 00 00 000b 0006 01 0011 0001 ff"), clientOnly: MSSQL, serverOnly: MSSQL},
	{name: "redis", app: Redis, client: []byte("*2\r\n$4\r\nAUTH\r\n$1\r\nx\r\n"), server: []byte("+OK\r\n"), clientOnly: Redis},
	{name: "redis refuses", app: Redis, client: []byte("*1\r\n$4\r\nPING\r\n"), server: []byte("-NOAUTH Authentication required.\r\n"), clientOnly: Redis, serverOnly: Redis},
	{name: "mongodb", app: MongoDB, client: join(x("2a000000 01000000 00000000 dd070000 00000000 00"), make([]byte, 21)), server: join(x("2a000000 02000000 01000000 dd070000 00000000 00"), make([]byte, 21)), clientOnly: MongoDB, serverOnly: MongoDB},
	{name: "cassandra", app: Cassandra, client: x("04 00 0000 05 00000000"), server: join(x("84 00 0000 06"), sized(4, be, join(x("0001 000b"), "CQL_VERSION", x("0001 0005"), "3.4.6"))), serverOnly: Cassandra},
	{name: "cassandra startup", app: Cassandra, client: join(x("04 00 0000 01"), sized(4, be, join(x("0001 000b"), "CQL_VERSION", x("0005"), "3.0.0"))), server: x("84 00 0000 02 00000000"), clientOnly: Cassandra},
	{name: "memcached", app: Memcached, client: []byte("set k 0 60 5\r\nhello\r\n"), server: []byte("STORED\r\n"), clientOnly: Memcached},
	{name: "memcached get", app: Memcached, client: []byte("get k\r\n"), server: []byte("VALUE k 0 5\r\nhello\r\nEND\r\n"), serverOnly: Memcached},
	{name: "rtsp", app: RTSP, client: []byte("OPTIONS rtsp://a.example/s RTSP/1.0\r\nCSeq: 1\r\n\r\n"), server: []byte("RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n"), clientOnly: RTSP, serverOnly: RTSP},
	{name: "sip over tcp", app: SIP, client: []byte("INVITE sip:bob@example.com SIP/2.0\r\n\r\n"), server: []byte("SIP/2.0 100 Trying\r\n\r\n"), clientOnly: SIP, serverOnly: SIP},
	{name: "modbus", app: Modbus, client: x("0001 0000 0006 01 03 006b 0003"), server: x("0001 0000 0009 01 03 06 022b 0000 0064")},
	{name: "dnp3", app: DNP3, client: dnp3(), server: dnp3(), clientOnly: DNP3, serverOnly: DNP3},
	{name: "vnc", app: VNC, client: []byte("RFB 003.008\n"), server: []byte("RFB 003.008\n"), clientOnly: VNC, serverOnly: VNC},
	{name: "bgp", app: BGP, client: join(bytes.Repeat([]byte{0xff}, 16), x("001d 01 04 fde8 00b4 0a000001 00")), server: join(bytes.Repeat([]byte{0xff}, 16), x("0013 04")), clientOnly: BGP, serverOnly: BGP},
	{name: "openvpn over tcp", app: OpenVPN, client: sized(2, be, x("38 0102030405060708 00 00000000")), server: sized(2, be, x("40 1112131415161718 01 00000000 0102030405060708 00000000")), clientOnly: OpenVPN, serverOnly: OpenVPN},
	{name: "stun over tcp", app: STUN, client: stun(), clientOnly: STUN},

	{name: "dns", app: DNS, asks: [][]byte{dnsQuery(7, "a.example", 1), dnsQuery(8, "a.example", 28)}, answers: [][]byte{dnsAnswer(8, "a.example", 28), dnsAnswer(7, "a.example", 1, x("c0000201"), x("c0000202"))}, clientOnly: DNS, serverOnly: DNS},
	{name: "mdns", app: MDNS, asks: [][]byte{dnsQuery(0, "_ipp._tcp.local", 12)}, clientOnly: MDNS, ends: Ends{Ports: [2]uint16{5353, 5353}, UDP: true}},
	{name: "llmnr", app: LLMNR, asks: [][]byte{dnsQuery(9, "wpad", 1)}, clientOnly: LLMNR, ends: Ends{Addresses: [2]packet.Addr{{}, llmnrGroup6}, UDP: true}},
	{name: "nbns", app: NBNS, asks: [][]byte{dnsQuery(9, "FHEPFCELEHFCEPFFFACACACACACACABN", 32)}, clientOnly: NBNS},
	{name: "ntp", app: NTP, asks: [][]byte{join(0x23, make([]byte, 39), x("e9000000 12345678"))}, answers: [][]byte{ntpServer()}, clientOnly: NTP, serverOnly: NTP},
	{name: "dhcp", app: DHCP, asks: [][]byte{dhcp(1)}, answers: [][]byte{dhcp(2)}, clientOnly: DHCP, serverOnly: DHCP},
	{name: "dhcpv6", app: DHCP, asks: [][]byte{x("01 123456 0001 000a 0003 0001 001122334455 0008 0002 0000")}, clientOnly: DHCP},
	{name: "snmp", app: SNMP, asks: [][]byte{x("3026 020101 0406 7075626c6963 a019 020101 020100 020100 300e 300c 0608 2b06010201010100 0500")}, clientOnly: SNMP},
	{name: "sip", app: SIP, asks: [][]byte{[]byte("REGISTER sip:example.com SIP/2.0\r\n\r\n")}, answers: [][]byte{[]byte("SIP/2.0 200 OK\r\n\r\n")}, clientOnly: SIP, serverOnly: SIP},
	{name: "rtp", app: RTP, asks: [][]byte{rtp(1), rtp(2), rtp(3), rtp(4)}, answers: [][]byte{rtp(9), rtp(10), rtp(11), rtp(12)}, clientOnly: RTP, serverOnly: RTP},
	{name: "stun", app: STUN, asks: [][]byte{stun()}, answers: [][]byte{x("0101 0000 2112a442 000102030405060708090a0b")}, clientOnly: STUN, serverOnly: STUN},
	{name: "wireguard", app: WireGuard, asks: [][]byte{join(x("01000000"), make([]byte, 144))}, answers: [][]byte{join(x("02000000"), make([]byte, 88))}, clientOnly: WireGuard, serverOnly: WireGuard},
	{name: "openvpn", app: OpenVPN, asks: [][]byte{x("38 0102030405060708 00 00000000")}, answers: [][]byte{x("40 1112131415161718 01 00000000 0102030405060708 00000000")}, clientOnly: OpenVPN, serverOnly: OpenVPN},
	{name: "kerberos over udp", app: Kerberos, asks: [][]byte{kerberosReq}, clientOnly: Kerberos},
	{name: "cldap", app: LDAP, asks: [][]byte{x("3025 020101 6320 0400 0a0100 0a0100 020100 020100 010100 a00f a30d 0409 446e73446f6d61696e 0400")}, clientOnly: LDAP},
	{name: "memcached over udp", app: Memcached, asks: [][]byte{join(x("0001 0000 0001 0000"), "set k 0 0 1\r\nx\r\n")}, clientOnly: Memcached},
	{name: "bittorrent dht", app: BitTorrent, asks: [][]byte{[]byte("d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe")}, clientOnly: BitTorrent},
	{name: "ssdp", app: SSDP, asks: [][]byte{[]byte("M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\n\r\n")}, answers: [][]byte{[]byte("HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\n\r\n")}, clientOnly: SSDP, serverOnly: SSDP},
	{name: "isakmp", app: ISAKMP, asks: [][]byte{x("0102030405060708 0000000000000000 21 20 22 08 00000000 0000001c")}, clientOnly: ISAKMP},
	{name: "radius", app: RADIUS, asks: [][]byte{join(x("01 05 001e"), make([]byte, 16), x("01 04 6a6f 05 06 00000001"))}, clientOnly: RADIUS},
	{name: "tftp", app: TFTP, asks: [][]byte{[]byte("\x00\x01boot.img\x00octet\x00")}, clientOnly: TFTP},
	{name: "dtls", app: DTLS, asks: [][]byte{join(x("16 feff 0000 000000000000 000d 01 000001 0000 000000 000001 00"))}, clientOnly: DTLS},
}
