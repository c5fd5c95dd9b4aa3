// Package applicationtest holds what the two sides of sessions of many protocols begin with, for tests.
package applicationtest

import (
	"bytes"
	_ "embed" // testdata
	"encoding/binary"
	"encoding/hex"
	"strings"

	"github.com/tapweave/tapweave/proto/packet"
)

// Sample is what the two sides of a session begin with, written down from the protocols' specifications.
type Sample struct {
	Name           string
	App            string // as in the column app
	Client, Server []byte
	// Asks and Answers are datagrams, where the session is one of UDP.
	Asks, Answers [][]byte
	// ClientOnly and ServerOnly are the names where only one side is seen; empty where that is not enough.
	ClientOnly, ServerOnly string
	// Ports of both ends, and the address of the server's, where the name depends on them.
	Ports [2]uint16
	Group packet.Addr
}

// Datagrams says whether the session is one of UDP.
func (s *Sample) Datagrams() bool { return s.Asks != nil || s.Answers != nil }

var be = binary.BigEndian

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

// A client's first packets of QUIC versions 1 and 2, protected: RFC 9001 and RFC 9369, appendix A.2.
var (
	//go:embed testdata/rfc9001-a2.hex
	quicV1 string
	//go:embed testdata/rfc9369-a2.hex
	quicV2 string
)

// Samples are of all protocols that are recognised.
var Samples = []Sample{
	{Name: "tls 1.3", App: "tls", Client: helloOf("example.com"), Server: serverHello13, ClientOnly: "tls", ServerOnly: "tls"},
	{Name: "tls 1.2", App: "tls", Client: helloOf("example.com"), Server: serverHello12, ClientOnly: "tls", ServerOnly: "tls"},
	{Name: "tls alert", App: "tls", Client: helloOf("example.com"), Server: x("15 0301 0002 0228"), ClientOnly: "tls", ServerOnly: "tls"},
	{Name: "http", App: "http",
		Client: join("GET /a?b=c HTTP/1.1\r\nHost: one.example\r\nUser-Agent: x/1\r\n\r\n", "POST /b HTTP/1.1\r\nhost: two.example\r\nContent-Length: 24\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: no\r\n", "PUT /c HTTP/1.1\r\nHost: three.example\r\nTransfer-Encoding: chunked\r\n\r\n", "5;x=y\r\nabcde\r\n1a\r\nGET / HTTP/1.1\r\nHost: no\r\n\r\n0\r\nTrailer: x\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: four.example\r\n\r\n"),
		Server: join("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nServer: x\r\n\r\nHTTP/1.1 500 Oops\r\n\r\n"), ClientOnly: "http", ServerOnly: "http"},
	{Name: "http through connect", App: "http", Client: join("CONNECT inner.example:443 HTTP/1.1\r\nHost: inner.example:443\r\n\r\n", helloOf("inner.example")),
		Server: join("HTTP/1.1 200 Connection established\r\n\r\n", serverHello13), ClientOnly: "http", ServerOnly: "http"},
	{Name: "http in connect", App: "http", Client: join("CONNECT inner.example:80 HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: inner.example\r\n\r\n"),
		Server: []byte("HTTP/1.0 200 OK\r\n\r\nHTTP/1.1 404 Not Found\r\n\r\n"), ClientOnly: "http", ServerOnly: "http"},
	{Name: "websocket", App: "websocket", Client: join("GET /chat HTTP/1.1\r\nHost: ws.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", x("818512345678")),
		Server: []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"), ClientOnly: "http", ServerOnly: "websocket"},
	{Name: "websocket refused", App: "http", Client: []byte("GET /chat HTTP/1.1\r\nHost: ws.example\r\nUpgrade: websocket\r\n\r\n"), Server: []byte("HTTP/1.1 403 No\r\n\r\n"), ClientOnly: "http", ServerOnly: "http"},
	{Name: "http2", App: "http2", Client: join("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", x("000000 04 00 00000000"), x("000011 01 05 00000001 828684418cf1e3c2e5f23a6ba0ab90f4ff")),
		Server: join(x("000006 04 00 00000000 0003 00000064"), x("000001 01 04 00000001 88")), ClientOnly: "http2", ServerOnly: "http2"},
	{Name: "h2c upgrade", App: "http2", Client: join("GET / HTTP/1.1\r\nHost: up.example\r\nUpgrade: h2c\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", x("000000 04 00 00000000")),
		Server: join("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", x("000000 04 00 00000000")), ClientOnly: "http2", ServerOnly: "http2"},
	{Name: "ssh", App: "ssh", Client: []byte("SSH-2.0-OpenSSH_9.6 comment\r\n\x00\x00"), Server: []byte("SSH-1.99-dropbear_2022.83\n"), ClientOnly: "ssh", ServerOnly: "ssh"},
	{Name: "dns over tcp", App: "dns", Client: join(sized(2, be, dnsQuery(1, "a.example", 1)), sized(2, be, dnsQuery(2, "b.example", 28))),
		Server: join(sized(2, be, dnsAnswer(2, "b.example", 28)), sized(2, be, dnsAnswer(1, "a.example", 1, x("c0000201")))), ClientOnly: "dns", ServerOnly: "dns"},
	{Name: "smtp", App: "smtp", Client: join("EHLO me.example\r\nSTARTTLS\r\n", helloOf("mail.example")),
		Server: join("220 mail.example ESMTP ready\r\n250-mail.example\r\n250 STARTTLS\r\n220 go ahead\r\n", serverHello13), ClientOnly: "smtp", ServerOnly: "smtp"},
	{Name: "smtp, greeting without a word", App: "smtp", Client: []byte("HELO me\r\n"), Server: []byte("220 mail.example\r\n"), ClientOnly: "smtp"},
	{Name: "ftp", App: "ftp", Client: join("AUTH TLS\r\n", helloOf("ftp.example")), Server: join("220 (vsFTPd 3.0.5)\r\n234 Proceed\r\n", serverHello12), ClientOnly: "ftp", ServerOnly: "ftp"},
	{Name: "ftp, greeting without a word", App: "ftp", Client: []byte("USER anonymous\r\nPASS x\r\n"), Server: []byte("220 welcome\r\n")},
	{Name: "pop3", App: "pop3", Client: join("STLS\r\n", helloOf("pop.example")), Server: join("+OK ready <1@x>\r\n+OK begin\r\n", serverHello12), ClientOnly: "pop3", ServerOnly: "pop3"},
	{Name: "pop3, plain", App: "pop3", Client: []byte("USER joe\r\nPASS x\r\n"), Server: []byte("+OK\r\n+OK\r\n")},
	{Name: "imap", App: "imap", Client: join("a1 STARTTLS\r\n", helloOf("imap.example")), Server: join("* OK [CAPABILITY IMAP4] ready\r\na1 OK begin\r\n", serverHello13), ClientOnly: "imap", ServerOnly: "imap"},
	{Name: "postgresql with tls", App: "postgresql", Client: join(x("00000008 04d2162f"), helloOf("pg.example")), Server: join("S", serverHello13), ClientOnly: "postgresql", ServerOnly: "postgresql"},
	{Name: "postgresql", App: "postgresql", Client: join(sized(4, be, join(x("00030000"), "user\x00joe\x00\x00"))), Server: x("52 00000008 00000000 53 00000016"), ClientOnly: "postgresql", ServerOnly: "postgresql"},
	{Name: "rdp with tls", App: "rdp", Client: join(x("0300 002c 27 e0 0000 0000 00"), "Cookie: mstshash=eltons\r\n", x("01000800 03000000"), helloOf("rdp.example")),
		Server: join(x("0300 0013 0e d0 0000 1234 00 02000800 01000000"), serverHello12), ClientOnly: "rdp", ServerOnly: "rdp"},
	{Name: "socks5", App: "socks", Client: join(x("05 01 00"), x("05 01 00 03"), len("w.example"), "w.example", x("0050"), "GET / HTTP/1.1\r\nHost: w.example\r\n\r\n"),
		Server: join(x("05 00"), x("05 00 00 01 00000000 0000"), "HTTP/1.1 302 Found\r\n\r\n"), ClientOnly: "socks"},
	{Name: "socks5 with password", App: "socks", Client: join(x("05 02 00 02"), x("01 01 61 01 62"), x("05 01 00 01 c0000201 01bb"), helloOf("s.example")),
		Server: join(x("05 02"), x("01 00"), x("05 00 00 01 00000000 0000"), serverHello13)},
	{Name: "socks4a", App: "socks", Client: join(x("04 01 0050 00000001"), "me\x00", "w.example\x00", "GET / HTTP/1.1\r\nHost: w.example\r\n\r\n"), Server: join(x("00 5a 0000 00000000"), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")},
	{Name: "smb", App: "smb", Client: x("00000045 ff534d42 72000000"), Server: x("000000f8 fe534d42 4000"), ClientOnly: "smb", ServerOnly: "smb"},
	{Name: "kerberos", App: "kerberos", Client: sized(4, be, kerberosReq), ClientOnly: "kerberos"},
	{Name: "ldap", App: "ldap", Client: x("300c 020101 6007 020103 0400 8000"), Server: x("300c 020101 6107 0a0100 0400 0400"), ClientOnly: "ldap", ServerOnly: "ldap"},
	{Name: "ntlm", App: "ntlm", Client: join(x("16 0100 0028"), "NTLMSSP\x00\x01"), Server: join(x("16 0100 0028"), "NTLMSSP\x00\x02"), ClientOnly: "ntlm", ServerOnly: "ntlm"},
	{Name: "dcerpc", App: "dcerpc", Client: x("05000b03 10000000 7400 0000 02000000 d016d016"), Server: x("05000c03 10000000 3c00 0000 02000000 d016d016"), ClientOnly: "dcerpc", ServerOnly: "dcerpc"},
	{Name: "telnet", App: "telnet", Client: x("fffd03 fffb18 fffb1f"), Server: x("fffd18 fffd20"), ClientOnly: "telnet", ServerOnly: "telnet"},
	{Name: "bittorrent", App: "bittorrent", Client: join(0x13, "BitTorrent protocol", make([]byte, 48)), Server: join(0x13, "BitTorrent protocol", make([]byte, 48)), ClientOnly: "bittorrent", ServerOnly: "bittorrent"},
	{Name: "mqtt", App: "mqtt", Client: join(x("10 10 0004"), "MQTT", x("04 02 003c 0004"), "test"), Server: x("20 02 00 00"), ClientOnly: "mqtt"},
	{Name: "amqp", App: "amqp", Client: []byte("AMQP\x00\x00\x09\x01"), Server: x("01 0000 00000100 000a 000a 00 09"), ClientOnly: "amqp", ServerOnly: "amqp"},
	{Name: "kafka", App: "kafka", Client: sized(4, be, join(x("0012 0003 00000001 0004"), "test", x("00 0a"))), Server: x("0000 0022 00000001 0000"), ClientOnly: "kafka"},
	{Name: "mysql", App: "mysql", Server: mysqlGreeting, ServerOnly: "mysql"},
	{Name: "mssql", App: "mssql", Client: x("12 01 0014 0000 00 00 00 000b 0006 01 0011 0001 ff"), Server: x("04 01 0014 0000 01 00 00 000b 0006 01 0011 0001 ff"), ClientOnly: "mssql", ServerOnly: "mssql"},
	{Name: "redis", App: "redis", Client: []byte("*2\r\n$4\r\nAUTH\r\n$1\r\nx\r\n"), Server: []byte("+OK\r\n"), ClientOnly: "redis"},
	{Name: "redis refuses", App: "redis", Client: []byte("*1\r\n$4\r\nPING\r\n"), Server: []byte("-NOAUTH Authentication required.\r\n"), ClientOnly: "redis", ServerOnly: "redis"},
	{Name: "mongodb", App: "mongodb", Client: join(x("2a000000 01000000 00000000 dd070000 00000000 00"), make([]byte, 21)), Server: join(x("2a000000 02000000 01000000 dd070000 00000000 00"), make([]byte, 21)), ClientOnly: "mongodb", ServerOnly: "mongodb"},
	{Name: "cassandra", App: "cassandra", Client: x("04 00 0000 05 00000000"), Server: join(x("84 00 0000 06"), sized(4, be, join(x("0001 000b"), "CQL_VERSION", x("0001 0005"), "3.4.6"))), ServerOnly: "cassandra"},
	{Name: "cassandra startup", App: "cassandra", Client: join(x("04 00 0000 01"), sized(4, be, join(x("0001 000b"), "CQL_VERSION", x("0005"), "3.0.0"))), Server: x("84 00 0000 02 00000000"), ClientOnly: "cassandra"},
	{Name: "memcached", App: "memcached", Client: []byte("set k 0 60 5\r\nhello\r\n"), Server: []byte("STORED\r\n"), ClientOnly: "memcached"},
	{Name: "memcached get", App: "memcached", Client: []byte("get k\r\n"), Server: []byte("VALUE k 0 5\r\nhello\r\nEND\r\n"), ServerOnly: "memcached"},
	{Name: "rtsp", App: "rtsp", Client: []byte("OPTIONS rtsp://a.example/s RTSP/1.0\r\nCSeq: 1\r\n\r\n"), Server: []byte("RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n"), ClientOnly: "rtsp", ServerOnly: "rtsp"},
	{Name: "sip over tcp", App: "sip", Client: []byte("INVITE sip:bob@example.com SIP/2.0\r\n\r\n"), Server: []byte("SIP/2.0 100 Trying\r\n\r\n"), ClientOnly: "sip", ServerOnly: "sip"},
	{Name: "modbus", App: "modbus", Client: x("0001 0000 0006 01 03 006b 0003"), Server: x("0001 0000 0009 01 03 06 022b 0000 0064")},
	{Name: "dnp3", App: "dnp3", Client: dnp3(), Server: dnp3(), ClientOnly: "dnp3", ServerOnly: "dnp3"},
	{Name: "vnc", App: "vnc", Client: []byte("RFB 003.008\n"), Server: []byte("RFB 003.008\n"), ClientOnly: "vnc", ServerOnly: "vnc"},
	{Name: "bgp", App: "bgp", Client: join(bytes.Repeat([]byte{0xff}, 16), x("001d 01 04 fde8 00b4 0a000001 00")), Server: join(bytes.Repeat([]byte{0xff}, 16), x("0013 04")), ClientOnly: "bgp", ServerOnly: "bgp"},
	{Name: "openvpn over tcp", App: "openvpn", Client: sized(2, be, x("38 0102030405060708 00 00000000")), Server: sized(2, be, x("40 1112131415161718 01 00000000 0102030405060708 00000000")), ClientOnly: "openvpn", ServerOnly: "openvpn"},
	{Name: "stun over tcp", App: "stun", Client: stun(), ClientOnly: "stun"},

	{Name: "dns", App: "dns", Asks: [][]byte{dnsQuery(7, "a.example", 1), dnsQuery(8, "a.example", 28)}, Answers: [][]byte{dnsAnswer(8, "a.example", 28), dnsAnswer(7, "a.example", 1, x("c0000201"), x("c0000202"))}, ClientOnly: "dns", ServerOnly: "dns"},
	{Name: "quic", App: "quic", Asks: [][]byte{x(quicV1)}, ClientOnly: "quic"},
	{Name: "quic version 2", App: "quic", Asks: [][]byte{x(quicV2)}, ClientOnly: "quic"},
	{Name: "mdns", App: "mdns", Asks: [][]byte{dnsQuery(0, "_ipp._tcp.local", 12)}, ClientOnly: "mdns", Ports: [2]uint16{5353, 5353}},
	{Name: "llmnr", App: "llmnr", Asks: [][]byte{dnsQuery(9, "wpad", 1)}, ClientOnly: "llmnr", Group: packet.Addr{0: 0xff, 1: 0x02, 13: 1, 15: 3}},
	{Name: "nbns", App: "nbns", Asks: [][]byte{dnsQuery(9, "FHEPFCELEHFCEPFFFACACACACACACABN", 32)}, ClientOnly: "nbns"},
	{Name: "ntp", App: "ntp", Asks: [][]byte{join(0x23, make([]byte, 39), x("e9000000 12345678"))}, Answers: [][]byte{ntpServer()}, ClientOnly: "ntp", ServerOnly: "ntp"},
	{Name: "dhcp", App: "dhcp", Asks: [][]byte{dhcp(1)}, Answers: [][]byte{dhcp(2)}, ClientOnly: "dhcp", ServerOnly: "dhcp"},
	{Name: "dhcpv6", App: "dhcp", Asks: [][]byte{x("01 123456 0001 000a 0003 0001 001122334455 0008 0002 0000")}, ClientOnly: "dhcp"},
	{Name: "snmp", App: "snmp", Asks: [][]byte{x("3026 020101 0406 7075626c6963 a019 020101 020100 020100 300e 300c 0608 2b06010201010100 0500")}, ClientOnly: "snmp"},
	{Name: "sip", App: "sip", Asks: [][]byte{[]byte("REGISTER sip:example.com SIP/2.0\r\n\r\n")}, Answers: [][]byte{[]byte("SIP/2.0 200 OK\r\n\r\n")}, ClientOnly: "sip", ServerOnly: "sip"},
	{Name: "rtp", App: "rtp", Asks: [][]byte{rtp(1), rtp(2), rtp(3), rtp(4)}, Answers: [][]byte{rtp(9), rtp(10), rtp(11), rtp(12)}, ClientOnly: "rtp", ServerOnly: "rtp"},
	{Name: "stun", App: "stun", Asks: [][]byte{stun()}, Answers: [][]byte{x("0101 0000 2112a442 000102030405060708090a0b")}, ClientOnly: "stun", ServerOnly: "stun"},
	{Name: "wireguard", App: "wireguard", Asks: [][]byte{join(x("01000000"), make([]byte, 144))}, Answers: [][]byte{join(x("02000000"), make([]byte, 88))}, ClientOnly: "wireguard", ServerOnly: "wireguard"},
	{Name: "openvpn", App: "openvpn", Asks: [][]byte{x("38 0102030405060708 00 00000000")}, Answers: [][]byte{x("40 1112131415161718 01 00000000 0102030405060708 00000000")}, ClientOnly: "openvpn", ServerOnly: "openvpn"},
	{Name: "kerberos over udp", App: "kerberos", Asks: [][]byte{kerberosReq}, ClientOnly: "kerberos"},
	{Name: "cldap", App: "ldap", Asks: [][]byte{x("3025 020101 6320 0400 0a0100 0a0100 020100 020100 010100 a00f a30d 0409 446e73446f6d61696e 0400")}, ClientOnly: "ldap"},
	{Name: "memcached over udp", App: "memcached", Asks: [][]byte{join(x("0001 0000 0001 0000"), "set k 0 0 1\r\nx\r\n")}, ClientOnly: "memcached"},
	{Name: "bittorrent dht", App: "bittorrent", Asks: [][]byte{[]byte("d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe")}, ClientOnly: "bittorrent"},
	{Name: "ssdp", App: "ssdp", Asks: [][]byte{[]byte("M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\n\r\n")}, Answers: [][]byte{[]byte("HTTP/1.1 200 OK\r\nST: upnp:rootdevice\r\n\r\n")}, ClientOnly: "ssdp", ServerOnly: "ssdp"},
	{Name: "isakmp", App: "isakmp", Asks: [][]byte{x("0102030405060708 0000000000000000 21 20 22 08 00000000 0000001c")}, ClientOnly: "isakmp"},
	{Name: "radius", App: "radius", Asks: [][]byte{join(x("01 05 001e"), make([]byte, 16), x("01 04 6a6f 05 06 00000001"))}, Answers: [][]byte{join(x("02 05 0014"), make([]byte, 16))}, ClientOnly: "radius"},
	{Name: "tftp", App: "tftp", Asks: [][]byte{[]byte("\x00\x01boot.img\x00octet\x00")}, ClientOnly: "tftp"},
	{Name: "dtls", App: "dtls", Asks: [][]byte{join(x("16 feff 0000 000000000000 000d 01 000001 0000 000000 000001 00"))}, ClientOnly: "dtls"},
}
