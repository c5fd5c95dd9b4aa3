package sample_test

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tapweave/tapweave/collector/decode"
	"github.com/tapweave/tapweave/collector/sample"
	"github.com/tapweave/tapweave/collector/source/capture"
	"github.com/tapweave/tapweave/proto/capturetest"
	"github.com/tapweave/tapweave/proto/packet"
)

var (
	tcp = packet.Flow{
		Src: packet.AddrFrom(netip.MustParseAddr("10.0.0.1")), Dst: packet.AddrFrom(netip.MustParseAddr("10.0.0.2")),
		SrcPort: 40000, DstPort: 80, Protocol: packet.ProtoTCP,
	}
	udp = packet.Flow{Src: tcp.Src, Dst: tcp.Dst, SrcPort: 40000, DstPort: 9999, Protocol: packet.ProtoUDP}
)

// travels returns what of a payload travels.
func travels(s *sample.Sampler, f *packet.Flow, flags uint8, payload string) string {
	p := packet.Packet{Data: []byte(payload), Payload: uint32(len(payload)), Flags: flags}
	s.Apply(f, &p)
	return string(p.Data)
}

func unhex(s string) string {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return string(b)
}

const request = "POST /login?next=%2F HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: curl/8\r\nAuthorization: Bearer CaNaRy-7f3a9c\r\n" +
	"Cookie: sid=CaNaRy-b41d;\r\n theme=CaNaRy-dark\r\nContent-Length: 22\r\n\r\npassword=CaNaRy-0e8e22"

const response = "HTTP/1.1 200 OK\r\nServer: nginx\r\nSet-Cookie: sid=CaNaRy-5511; HttpOnly\r\nContent-Length: 2\r\n\r\nok"

func TestStarts(t *testing.T) {
	s := sample.New(sample.DefaultConfiguration())
	const all = "*"
	handshake := unhex("16 0301 0200 01 0001fc 0303") + strings.Repeat("\x00x", 250)
	for _, c := range []struct {
		name    string
		flow    packet.Flow
		flags   uint8
		payload string
		want    string // all: the payload
	}{
		{"request", tcp, 0, request, "POST /login?next=%2F HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: curl/8\r\nAuthorization: ********************\r\n" +
			"Cookie: ************************************\r\nContent-Length: 22\r\n\r\n"},
		{"response", tcp, 0, response, "HTTP/1.1 200 OK\r\nServer: nginx\r\nSet-Cookie: *************************\r\nContent-Length: 2\r\n\r\n"},
		{"unfinished line", tcp, packet.PSH, "GET / HTTP/1.1\r\nHost: a\r\nAuthoriza", "GET / HTTP/1.1\r\nHost: a\r\n"},
		{"unfinished start line", tcp, 0, "GET /" + strings.Repeat("a", 100), all},
		{"middle of a header", tcp, packet.PSH, "ation: Basic abc\r\n\r\n\x00\x01", ""},
		{"body", tcp, packet.PSH, "password=x", ""},
		{"HTTP/2", tcp, packet.PSH, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
		{"HTTP/2 fields", tcp, packet.PSH, "\x00\x00\x0c\x01\x04\x00\x00\x00\x01\x82\x86\x84\x41\x8c\xf1", ""},
		{"HTTP/2 fields behind settings", tcp, packet.PSH, "\x00\x00\x00\x04\x01\x00\x00\x00\x00\x00\x00\x0c\x01\x04\x00\x00\x00\x01\x82\x86\x84\x41\x8c\xf1", ""},
		{"ClientHello", tcp, 0, handshake, all},
		{"application data", tcp, packet.PSH, unhex("17 0303 0005 0102030405"), ""},
		{"Finished", tcp, 0, unhex("16 0303 0028 a1b2c3d4"), ""},
		{"SSH", tcp, packet.PSH, "SSH-2.0-OpenSSH_9.6\r\n\x00\x00\x01", all},
		{"SMTP", tcp, packet.PSH, "220 mx.example ESMTP\r\n250 x", "220 mx.example ESMTP\r\n"},
		{"FTP password", tcp, packet.PSH, "PASS CaNaRy\r\n", ""},
		{"RTSP", tcp, packet.PSH, "DESCRIBE rtsp://cam/1 RTSP/1.0\r\nCSeq: 1\r\n\r\n", all},
		{"pushed", tcp, packet.PSH, unhex("0300 0013 0ee0 0000 0000 0001 0008 0003 0000 00"), all},
		{"not pushed", tcp, packet.ACK, unhex("0300 0013 0ee0 0000 0000 0001 0008 0003 0000 00"), ""},
		{"pushed, too long", tcp, packet.PSH, strings.Repeat("\x01", 1461), ""},
		{"DNS over TCP", tcp, 0, unhex("001d 1234 0100 0001 0000 0000 0000 03777777 07 6578616d706c65 00 0001 0001"), all},
		{"DNS", udp, 0, unhex("1234 0100 0001 0000 0000 0000 03777777 07 6578616d706c65 00 0001 0001"), all},
		{"no DNS", udp, 0, unhex("1234 0100 0001 0000 0000 0000 ff777777 07 6578616d706c65 00 0001 0001"), ""},
		{"QUIC Initial", udp, 0, unhex("c3 00000001 08 0102030405060708") + strings.Repeat("\xaa", 1188), all},
		{"QUIC Initial, version 2", udp, 0, unhex("d3 6b3343cf 08 0102030405060708") + strings.Repeat("\xaa", 1188), all},
		{"QUIC Handshake", udp, 0, unhex("e3 00000001 08 0102030405060708") + strings.Repeat("\xaa", 1188), ""},
		{"QUIC short header", udp, 0, unhex("43 0102030405060708") + strings.Repeat("\xaa", 1188), ""},
		{"SNMP", udp, 0, unhex("3029 020101 0406 7075626c6963 a01c 0204 1b2c3d4e 020100 020100 300e"), unhex("3029 020101 04")},
		{"LDAP search over UDP", udp, 0, unhex("3025 020101 6320 0400 0a0100 0a0100 020100 020100 010100 a00f"), all},
		{"LDAP bind over UDP", udp, 0, unhex("301a 020101 6015 020103 0407 636e3d61646d696e 8007 43614e61527921"), ""},
		{"FTP user", tcp, packet.PSH, "USER CaNaRy\r\n", "USER "},
		{"Redis", tcp, packet.PSH, "*2\r\n$4\r\nAUTH\r\n$6\r\nCaNaRy\r\n", "*2\r\n$4\r\nAUTH\r\n"},
		{"Redis, cut", tcp, packet.PSH, "*2\r\n$4\r\nAU", ""},
		{"memcached", tcp, packet.PSH, "set k 0 60 6\r\nCaNaRy\r\n", "set k 0 60 6\r\n"},
		{"memcached over UDP", udp, 0, unhex("0001 0000 0001 0000") + "VALUE k 0 6\r\nCaNaRy\r\n", unhex("0001 0000 0001 0000") + "VALUE k 0 6\r\n"},
		{"Kerberos", udp, 0, unhex("6a3c 303a a103020105 a20302010a a318 3016 3014 a1030201") + "CaNaRy", unhex("6a3c 303a a103020105 a20302010a a318 3016 3014 a1030201")},
		{"IKE", udp, 0, unhex("0102030405060708 0000000000000000 21 20 22 08 00000000 00000022") + "CaNaRy", unhex("0102030405060708 0000000000000000 21 20 22 08 00000000 00000022")},
		{"RADIUS", udp, 0, unhex("01 05 001c 00112233445566778899aabbccddeeff 01 08") + "CaNaRy", unhex("01 05 001c 00112233445566778899aabbccddeeff")},
		{"DHCPv6", udp, 0, unhex("01 123456 0001 000a 0003 0001 001122334455 0008 0002 0000"), all},
		{"TFTP", udp, 0, "\x00\x01boot.img\x00octet\x00", all},
		{"BitTorrent DHT", udp, 0, "d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe", "d1:ad2:id20:"},
		{"SIP", udp, 0, "REGISTER sip:a.example SIP/2.0\r\nAuthorization: Digest CaNaRy\r\n\r\n", "REGISTER sip:a.example SIP/2.0\r\nAuthorization: *************\r\n\r\n"},
		{"RTP", udp, 0, unhex("8000 0001 00000002 00000003") + "voice", unhex("8000 0001 00000002 00000003")},
		{"syslog", udp, 0, "<34>Oct 11 22:14:15 su: failed", ""},
		{"ICMP", packet.Flow{Protocol: packet.ProtoICMP}, 0, "abcdefgh", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := c.want
			if want == all {
				want = c.payload
			}
			if got := travels(s, &c.flow, c.flags, c.payload); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

// However a header is spread over segments, none of its secrets travels, nor a part of one worth the name.
func TestStartsSplitHeader(t *testing.T) {
	s := sample.New(sample.DefaultConfiguration())
	check := func(flags uint8, parts ...string) {
		t.Helper()
		for _, p := range parts {
			if p == "" {
				continue
			}
			if got := travels(s, &tcp, flags, p); strings.Contains(got, "aNaR") || strings.Contains(got, "NaRy") || strings.Contains(got, "3a9c") ||
				strings.Contains(got, "b41d") || strings.Contains(got, "5511") || strings.Contains(got, "8e22") {
				t.Fatalf("%q of %q", got, parts)
			}
		}
	}
	for _, text := range []string{
		request, response, strings.ReplaceAll(request, "\r\n", "\n"), request[:len(request)-22] + "\x00\x01\x02\x03", request[:len(request)-22] + "\x89PNG\r\n\x1a\n\x00\x00",
		strings.ReplaceAll(request, "CaNaRy", "CaNaRy\xc3\xa9"),
	} {
		for _, flags := range []uint8{packet.ACK, packet.ACK | packet.PSH} {
			for i := range len(text) {
				check(flags, text[:i], text[i:])
				for j := i; j < len(text); j += 3 {
					check(flags, text[:i], text[i:j], text[j:])
				}
			}
		}
	}
}

// hello is a ClientHello of this Go version's crypto/tls: with a post-quantum key share it does not fit into one segment.
func hello(t *testing.T) string {
	t.Helper()
	client, server := net.Pipe()
	go tls.Client(client, &tls.Config{ServerName: "a-rather-long-name.in-a-subdomain.example.com", NextProtos: []string{"h2", "http/1.1"}}).Handshake()
	server.SetDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 1<<14)
	n, err := server.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
	server.Close()
	return string(b[:n])
}

func TestStartsClientHelloOverTwoSegments(t *testing.T) {
	s := sample.New(sample.DefaultConfiguration())
	splits, cut := 0, 0
	for range 20 {
		h := hello(t)
		if len(h) < 1461 {
			t.Fatalf("a ClientHello of %d bytes fits into one segment", len(h))
		}
		for i := len(h) - 1460; i < len(h); i++ {
			splits++
			if got := travels(s, &tcp, packet.ACK, h[:i]) + travels(s, &tcp, packet.ACK|packet.PSH, h[i:]); got != h {
				// Random bytes may look like text, above all a few at the end.
				if len(h)-i < 8 {
					continue
				}
				cut++
				t.Logf("split at %d of %d: %d bytes travel; the rest begins with %q", i, len(h), len(got), h[i:min(len(h), i+40)])
			}
		}
	}
	// One place that looks like the end of a header spoils the splits just before it, all of them.
	if cut > splits/1000 {
		t.Errorf("%d of %d splits do not travel", cut, splits)
	}
}

func TestModes(t *testing.T) {
	c := sample.DefaultConfiguration()
	c.Mode = sample.None
	if got := travels(sample.New(c), &tcp, packet.PSH, request); got != "" {
		t.Errorf("none: %q", got)
	}
	c.Mode, c.Bytes = sample.All, 0
	want := strings.NewReplacer("Bearer CaNaRy-7f3a9c", strings.Repeat("*", 20), "sid=CaNaRy-b41d;\r\n theme=CaNaRy-dark", strings.Repeat("*", 36)).Replace(request)
	if got := travels(sample.New(c), &tcp, 0, request); got != want {
		t.Errorf("all: %q", got)
	}
	c.Bytes = 10
	if got := travels(sample.New(c), &tcp, 0, request); got != request[:10] {
		t.Errorf("ten bytes: %q", got)
	}
	c.Redact, c.Bytes = false, 0
	if got := travels(sample.New(c), &tcp, 0, request); got != request {
		t.Errorf("not redacted: %q", got)
	}
}

// Rate takes sessions whole, both directions of them, as many as it should, others with another key.
func TestRate(t *testing.T) {
	c := sample.DefaultConfiguration()
	c.Mode, c.Share, c.Key = sample.Rate, 0.25, "k1"
	s := sample.New(c)
	c.Key = "k2"
	other := sample.New(c)
	const n = 20000
	taken, differ := 0, 0
	for i := range n {
		f := tcp
		f.SrcPort, f.Src[14] = uint16(i), byte(i>>16)
		back := f
		back.Src, back.Dst, back.SrcPort, back.DstPort = f.Dst, f.Src, f.DstPort, f.SrcPort
		a := travels(s, &f, 0, "x") != ""
		if a != (travels(s, &back, packet.PSH, "y") != "") {
			t.Fatalf("session %d: one direction", i)
		}
		if a {
			taken++
		}
		if a != (travels(other, &f, 0, "x") != "") {
			differ++
		}
	}
	if taken < n*23/100 || taken > n*27/100 {
		t.Errorf("%d of %d", taken, n)
	}
	if differ < n/4 {
		t.Errorf("with another key %d of %d differ", differ, n)
	}
	for share, want := range map[float64]string{0: "", 1: "x"} {
		c.Share = share
		if got := travels(sample.New(c), &tcp, 0, "x"); got != want {
			t.Errorf("share %v: %q", share, got)
		}
	}
}

func TestRedact(t *testing.T) {
	c := sample.DefaultConfiguration()
	c.Mode, c.Bytes, c.Patterns = sample.All, 0, []string{`(?i)api[_-]key=[0-9a-z]+`, `\b[A-Z]{2}[0-9]{20}\b`}
	s := sample.New(c)
	for in, want := range map[string]string{
		"pay 4111111111111111 now":               "pay **************** now",
		"pay 4111 1111 1111 1111 now":            "pay ******************* now",
		"5500-0000-0000-0004":                    "*******************",
		"378282246310005":                        "***************",
		"12 4111 1111 1111 1111 99":              "12 ******************* 99",
		"4111111111111112":                       "4111111111111112",
		"44111111111111111111":                   "44111111111111111111",
		"0000000000000000":                       "0000000000000000",
		"card=4222222222222&x=6011111111111117.": "card=*************&x=****************.",
		"x\r\nauthorization: Basic YQ==\r\ny: z": "x\r\nauthorization: **********\r\ny: z",
		"COOKIE:a=b":                             "COOKIE:***",
		"Cookies: a=b":                           "Cookies: a=b",
		"X-Cookie: a=b":                          "X-Cookie: a=b",
		"proxy-Authorization :  x\nb":            "proxy-Authorization :  *\nb",
		"GET /?api_key=0aZ9&b=1 HTTP/1.1":        "GET /?************&b=1 HTTP/1.1",
		"IBAN DE89370400440532013000.":           "IBAN **********************.",
	} {
		frame := []byte(in)
		p := packet.Packet{Data: frame, Payload: uint32(len(in))}
		s.Apply(&tcp, &p)
		if string(p.Data) != want || string(frame) != in {
			t.Errorf("%q: %q, want %q", in, p.Data, want)
		}
	}
}

// What travels beside the payload of fragments and ICMP errors has no payload in it.
func TestHead(t *testing.T) {
	s := sample.New(sample.DefaultConfiguration())
	quote := unhex("4500 0054 0000 4000 4006 0000 0a000001 0a000002") + "\x9c\x40\x00\x50\x00\x00\x00\x01" + "CaNaRy"
	six := unhex("6000 0000 0020 06 40") + strings.Repeat("\x01", 32) + "\x9c\x40\x00\x50\x00\x00\x00\x01" + "CaNaRy"
	header := "\x9c\x40\x00\x50\x00\x00\x00\x01\x00\x00\x00\x02\x60\x18\x01\x00\x00\x00\x00\x00\x01\x01\x01\x00"
	dns := "\x00\x35\x00\x35\x10\x00\x00\x00" + unhex("1234 8180 0001 0001 0000 0000 03777777 00 0010 0001 c00c 0010 0001 00000000 0fa0")
	for _, c := range []struct {
		name     string
		protocol uint8
		fragment uint8
		offset   uint16
		head     string
		want     int
	}{
		{"quote", packet.ProtoICMP, 0, 0, quote, 28},
		{"quote of IPv6", packet.ProtoICMPv6, 0, 0, six, 48},
		{"quote of a later fragment", packet.ProtoICMP, 0, 0, quote[:6] + "\x00\x10" + quote[8:], 20},
		{"unreadable quote", packet.ProtoICMP, 0, 0, "CaNaRy", 0},
		{"TCP", packet.ProtoTCP, packet.IsFragment, 0, header + "CaNaRy", 24},
		{"TCP from 8", packet.ProtoTCP, packet.IsFragment, 8, header[8:] + "CaNaRy", 16},
		{"TCP from 16", packet.ProtoTCP, packet.IsFragment, 16, header[16:] + "CaNaRy", 4},
		{"TCP from 24", packet.ProtoTCP, packet.IsFragment, 24, "CaNaRy", 0},
		{"UDP", packet.ProtoUDP, packet.IsFragment, 0, "\x00\x35\x00\x35\x00\x20\x00\x00CaNaRy", 8},
		{"GRE", 47, packet.IsFragment, 0, "CaNaRy", 0},
		{"DNS", packet.ProtoUDP, packet.IsFragment, 0, dns, len(dns)},
		{"HTTP", packet.ProtoTCP, packet.IsFragment, 0, header + "GET / HTTP/1.1\r\nHost: a\r\nCookie: CaN", len(header) + 25},
		{"DNS, a later fragment", packet.ProtoUDP, packet.IsFragment, 8, dns[8:], 0},
	} {
		p := packet.Packet{Fragment: c.fragment, FragmentOffset: c.offset, Head: []byte(c.head)}
		s.Apply(&packet.Flow{Protocol: c.protocol}, &p)
		if string(p.Head) != c.head[:c.want] {
			t.Errorf("%s: %d bytes of %d, want %d", c.name, len(p.Head), len(c.head), c.want)
		}
	}
	// Where all travels, that of fragments does, without secrets; of ICMP errors nothing is wanted.
	s = sample.New(sample.Configuration{Mode: sample.All, Redact: true})
	for in, want := range map[string]string{header + "abc\nCookie: a=b": header + "abc\nCookie: ***", header[:20]: header[:20]} {
		p := packet.Packet{Fragment: packet.IsFragment, Head: []byte(in)}
		if s.Apply(&packet.Flow{Protocol: packet.ProtoTCP}, &p); string(p.Head) != want {
			t.Errorf("%q, want %q", p.Head, want)
		}
	}
	p := packet.Packet{Head: []byte(quote)}
	if s.Apply(&packet.Flow{Protocol: packet.ProtoICMP}, &p); string(p.Head) != quote[:28] {
		t.Errorf("of a quote %q", p.Head)
	}
}

func TestValidate(t *testing.T) {
	for want, change := range map[string]func(*sample.Configuration){
		"":                       func(*sample.Configuration) {},
		"share":                  func(c *sample.Configuration) { c.Share = 1.1 },
		"not negative":           func(c *sample.Configuration) { c.Bytes = -1 },
		"key: mode rate needs":   func(c *sample.Configuration) { c.Mode = sample.Rate },
		"missing closing ]":      func(c *sample.Configuration) { c.Patterns = []string{"[a"} },
		"matches the empty text": func(c *sample.Configuration) { c.Patterns = []string{"a*"} },
	} {
		c := sample.DefaultConfiguration()
		change(&c)
		if err := c.Validate(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestAllocations(t *testing.T) {
	for _, mode := range []sample.Mode{sample.Starts, sample.Rate, sample.All} {
		c := sample.DefaultConfiguration()
		c.Mode, c.Key, c.Share, c.Patterns = mode, "k", 1, []string{"never[0-9]"}
		s := sample.New(c)
		for _, text := range []string{request + " 4111111111111111", "set key 0 0 5\r\nvalue\r\n", "nothing that is known, in some words\r\n and more"} {
			payload := []byte(text)
			var p packet.Packet
			if n := testing.AllocsPerRun(100, func() {
				p = packet.Packet{Data: payload, Payload: uint32(len(payload)), Flags: packet.PSH}
				s.Apply(&tcp, &p)
			}); n > 0 {
				t.Errorf("mode %d: %v allocations for %q", mode, n, text)
			}
		}
	}
}

// FuzzApply wants what travels to be a beginning of the payload, with asterisks for some of its bytes.
func FuzzApply(f *testing.F) {
	for _, b := range []string{request, response, "SSH-2.0-x\r\n", unhex("16 0301 0200 01 0001fc 0303"), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"} {
		f.Add(uint8(packet.ProtoTCP), uint8(packet.PSH), uint8(0), uint16(0), []byte(b))
	}
	f.Add(uint8(packet.ProtoUDP), uint8(0), uint8(0), uint16(0), []byte(unhex("1234 0100 0001 0000 0000 0000 03777777 00 0001 0001")))
	f.Add(uint8(packet.ProtoICMP), uint8(0), uint8(1), uint16(8), []byte(request))
	conf := decode.DefaultConfiguration()
	conf.Payload = true
	for _, name := range capturetest.Files(f) {
		r, err := capture.Open(name)
		if err != nil {
			f.Fatal(err)
		}
		d, seeds := decode.New(conf), 0
		for rec, err := r.Next(); err == nil && seeds < 3; rec, err = r.Next() {
			if d.Frame(rec.Time, rec.Link, rec.Data, rec.Original) == decode.OK && len(d.Packet.Data) > 0 {
				p := &d.Packet
				f.Add(d.Flow.Protocol, p.Flags, p.Fragment, p.FragmentOffset, bytes.Clone(p.Data))
				seeds++
			}
		}
		r.Close()
	}
	c := sample.DefaultConfiguration()
	c.Patterns = []string{"a[0-9]+", "(?s)b.c"}
	starts := sample.New(c)
	c.Mode = sample.All
	all := sample.New(c)
	f.Fuzz(func(t *testing.T, protocol, flags, fragment uint8, offset uint16, payload []byte) {
		for _, s := range []*sample.Sampler{starts, all} {
			in := bytes.Clone(payload)
			p := packet.Packet{Data: in, Head: in, Payload: uint32(len(in)), Flags: flags, Fragment: fragment & 3, FragmentOffset: offset}
			s.Apply(&packet.Flow{Protocol: protocol}, &p)
			if !bytes.Equal(in, payload) || len(p.Data) > len(in) || len(p.Head) > len(in) {
				t.Fatalf("%q became %q, %q", payload, p.Head, p.Data)
			}
			for _, out := range [][]byte{p.Data, p.Head} {
				for i, b := range out {
					if b != in[i] && b != '*' {
						t.Fatalf("%q became %q", payload, out)
					}
				}
			}
		}
	})
}

func BenchmarkApply(b *testing.B) {
	random := make([]byte, 1400)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	for name, c := range map[string]struct {
		mode    sample.Mode
		flags   uint8
		payload string
	}{
		"starts/bulk": {sample.Starts, packet.ACK, string(random)}, "starts/pushed": {sample.Starts, packet.PSH, string(random)},
		"starts/request": {sample.Starts, packet.PSH, request}, "all/bulk": {sample.All, packet.ACK, string(random)},
		"all/request": {sample.All, packet.ACK, request},
	} {
		conf := sample.DefaultConfiguration()
		conf.Mode = c.mode
		s, payload := sample.New(conf), []byte(c.payload)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p := packet.Packet{Data: payload, Payload: uint32(len(payload)), Flags: c.flags}
				s.Apply(&tcp, &p)
			}
		})
	}
}
