package application

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/tapweave/tapweave/enricher/application/dns"
	"github.com/tapweave/tapweave/enricher/application/http"
	"github.com/tapweave/tapweave/enricher/application/http2"
	"github.com/tapweave/tapweave/enricher/application/tls"
)

// Stage is what a side's bytes are given to. Snapshots hold these numbers: new ones go to the end.
type Stage uint8

const (
	start        Stage = iota // nothing is recognised yet
	done                      // nothing more is wanted
	tlsHello                  // TLS records up to the first handshake message
	tlsNext                   // TLS, or nothing more of interest
	sshBanner                 // up to the identification string
	httpRequest               // head of a request
	httpChunk                 // line before a chunk
	httpTrailer               // lines behind the last chunk
	httpLost                  // until a segment begins with a request
	httpResponse              // head of a response
	http2Preface              // what a client begins with
	http2Frame                //
	textLines                 // SMTP, IMAP, POP3, FTP: lines, until TLS begins
	rdpConnect                // connection request or confirm, then TLS
	pgClient                  // requests for encryption, then TLS
	pgServer                  // answers of one byte, then TLS
	socks5Client              // the client's greeting
	socks5Ask                 // its authentication and request, then anything
	socks5Server              // the server's choice
	socks5Answer              // its replies, then anything
	socks4Client              // the client's request, then anything
	socks4Server              // the server's reply, then anything
	dnsStream                 // messages, each behind its length
	dnsDatagrams              //
	quicInitials              // until the ClientHello is whole
)

const (
	// maxFirst is how many bytes are waited for until it is said what they are: an HTTP request line.
	maxFirst = 8 << 10
	// maxTries is how many segments of a side whose beginning is not known are looked at.
	maxTries = 16
	// maxLines is how many lines a conversation has before TLS begins, at most, and maxLine how long one is.
	maxLines, maxLine = 64, 1024
	// maxDNS is how much of a message is waited for.
	maxDNS = 16 << 10
)

// step gives the stage the bytes that it has not made use of yet, and returns how many it makes use of. 0
// without another stage: it waits for more. What it makes of bytes may not depend on how many there are,
// beyond those that it needs.
func (r *Reader) step(s *Session, b []byte) int {
	switch r.Stage {
	case start:
		if uint64(len(b)) < r.Mark {
			return 0
		}
		a := recogniseStream(b, r.Certain, false)
		if a.kind == more {
			// All recognisers look at all bytes: it would be dear to ask them for every byte of a long line.
			r.Mark = uint64(len(b) + 1 + len(b)/32)
			return 0
		}
		return r.recognised(s, a, len(b))
	case tlsHello:
		return r.hello(s, b, false)
	case tlsNext:
		switch {
		case b[0] != 0x16 || len(b) > 1 && b[1] != 3:
			r.Stage = done
		case len(b) > 1:
			r.Stage = tlsHello
		}
		return 0
	case sshBanner:
		return r.banner(s, b)
	case httpRequest, httpChunk, httpTrailer, httpLost:
		return r.request(s, b)
	case httpResponse:
		return r.response(s, b, false)
	case http2Preface:
		r.Stage, r.Skip, r.HTTP2 = http2Frame, int64(len(http2.Preface)), new(http2.Side)
		return 0
	case http2Frame:
		return r.frame(s, b)
	case textLines:
		return r.line(s, b)
	case rdpConnect:
		if len(b) < 4 {
			return 0
		}
		n := int(binary.BigEndian.Uint16(b[2:]))
		r.Stage = tlsNext
		return r.skip(b, max(n, 4))
	case pgClient:
		switch {
		case b[0] == 0x16:
			r.Stage = tlsNext
		case len(b) < 8:
		case r.Count < 2 && (string(b[:8]) == pgSSLRequest || string(b[:8]) == pgGSSRequest):
			r.Count++
			return 8
		default:
			r.Stage = done
		}
		return 0
	case pgServer:
		r.Count++
		switch {
		case b[0] == 'S':
			r.Stage = tlsNext
			return 1
		case b[0] == 'N' && r.Count <= 2:
			return 1
		}
		r.Stage = done
		return 0
	case socks5Client, socks5Ask, socks5Server, socks5Answer, socks4Client, socks4Server:
		return r.socks(b)
	case dnsStream:
		return r.message(s, b)
	}
	r.Stage = done
	return 0
}

// skip makes use of n bytes, which need not all be there yet.
func (r *Reader) skip(b []byte, n int) int {
	if n > len(b) {
		r.Skip = int64(n - len(b))
		n = len(b)
	}
	return n
}

// inside goes on with whatever comes next, inside the protocol that gave the name.
func (r *Reader) inside() {
	r.Stage, r.Inner, r.Certain, r.Count, r.Mark = start, true, true, 0, 0
}

// recognised takes note of what n bytes are, and returns how many of them that makes use of.
func (r *Reader) recognised(s *Session, a answer, n int) int {
	r.Mark = 0
	if a.set == 0 {
		r.Count++
		if r.Certain || r.Inner || r.Count >= maxTries {
			r.Stage = done
		}
		return n
	}
	if !r.Inner {
		s.Verdicts[r.Side] = Verdict{a.set, a.kind == sure}
	}
	r.Stage, r.Count = a.stage, 0
	return 0
}

// narrow leaves of what the side may be what a set allows.
func (r *Reader) narrow(s *Session, set Set) {
	if v := &s.Verdicts[r.Side]; !r.Inner && v.Set&set != 0 {
		*v = Verdict{v.Set & set, true}
	}
}

// gap says that n bytes are missing behind what the stage has been given; 0: that there is no more. What was
// begun is read as far as it is there.
func (r *Reader) gap(s *Session, n int64) {
	if r.Skip > 0 && n > 0 {
		m := min(r.Skip, n)
		r.Skip -= m
		if n -= m; n == 0 {
			return
		}
	}
	b := r.Buffer
	r.Buffer = nil
	if r.Stage == start && len(b) > 0 {
		if a := recogniseStream(b, r.Certain, true); a.set != 0 {
			r.recognised(s, a, 0)
			r.feed(s, b)
			b = r.Buffer
			r.Buffer = nil
		}
	}
	r.Certain, r.Skip = false, 0
	switch r.Stage {
	case start:
		r.Mark = 0
		if r.Inner {
			r.Stage = done
		}
	case tlsHello:
		r.hello(s, b, true)
	case httpRequest:
		if len(b) > 0 {
			r.noteRequest(s, b)
		}
		r.Stage = httpLost
	case httpChunk, httpTrailer, httpLost:
		r.Stage = httpLost
	case httpResponse:
		r.response(s, b, true)
	case dnsStream:
		if len(b) > 2 {
			if m, ok := dns.Parse(b[2:], int(binary.BigEndian.Uint16(b))); ok {
				s.dnsMessage(r.Side, &m)
			}
		}
		r.Stage = done
	case textLines:
	default:
		r.Stage = done
	}
}

// hello reads the first TLS handshake message. Where no more will come it reads what is there.
func (r *Reader) hello(s *Session, b []byte, last bool) int {
	if !last && uint64(len(b)) < r.Mark {
		return 0
	}
	kind, body, whole, need, ok := tls.First(b)
	if ok && !whole && !last && len(b) < tls.MaxHello {
		r.Mark = uint64(need)
		return 0
	}
	r.Stage, r.Mark = done, 0
	if !ok && !last {
		return len(b)
	}
	switch kind {
	case tls.TypeClientHello:
		if h, ok := tls.ParseClientHello(body); ok {
			h.Whole = h.Whole && whole
			s.clientHello(r.Side, &h, 't')
		}
	case tls.TypeServerHello:
		if h, ok := tls.ParseServerHello(body); ok {
			f := &s.found(r.Side).TLS
			*f = FoundTLS{Version: h.Version, ALPN: s.clean(h.ALPN, maxText)}
		}
	}
	return len(b)
}

// banner reads an identification string: SSH-protoversion-softwareversion, a space and comments (RFC 4253,
// section 4.2).
func (r *Reader) banner(s *Session, b []byte) int {
	i := bytes.IndexByte(b, '\n')
	if i < 0 && len(b) < maxText {
		return 0
	}
	r.Stage = done
	if i < 0 {
		return len(b)
	}
	line := bytes.TrimRight(b[:i], "\r")
	if parts := bytes.SplitN(line, []byte{'-'}, 3); len(parts) == 3 {
		software, _, _ := bytes.Cut(parts[2], []byte{' '})
		s.found(r.Side).SSH = s.text(software, maxText)
	}
	return len(b)
}

// request reads what a client of HTTP/1 sends: heads, and bodies past which it skips.
func (r *Reader) request(s *Session, b []byte) int {
	switch r.Stage {
	case httpLost:
		if beginsRequest(b) {
			r.Stage = httpRequest
			return 0
		}
		return len(b)
	case httpChunk, httpTrailer:
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			if len(b) > maxLine {
				r.Stage = httpLost
				return len(b)
			}
			return 0
		}
		if r.Stage == httpTrailer {
			if i == 0 || i == 1 && b[0] == '\r' {
				r.Stage = httpRequest
			}
			return i + 1
		}
		n, ok := http.ChunkSize(b[:i])
		switch {
		case !ok:
			r.Stage = httpLost
			return len(b)
		case n == 0:
			r.Stage = httpTrailer
		default:
			r.Skip = n + 2
		}
		return i + 1
	}
	if b[0] == '\r' || b[0] == '\n' {
		return 1 // RFC 9112, section 2.2: empty lines before a request are to be ignored
	}
	if !mayBeginRequest(b) {
		r.Stage = httpLost
		return len(b)
	}
	n := http.End(b)
	if n < 0 && len(b) < http.MaxHead {
		return 0
	}
	if bytes.HasPrefix(b, []byte(http2.Preface[:18])) {
		r.Stage = http2Preface
		if v := &s.Verdicts[r.Side]; !r.Inner && v.Set.has(HTTP) {
			*v = Verdict{set(HTTP2), true} // an upgrade to cleartext HTTP/2 (RFC 7540, section 3.2)
		}
		return 0
	}
	head := b
	if n > 0 {
		head = b[:n]
	}
	h, full := r.noteRequest(s, head)
	switch {
	case full:
		r.Stage = done
		return len(b)
	case n < 0 || h.Malformed:
		r.Stage = httpLost
		return len(b)
	case string(h.Method) == "CONNECT":
		r.inside()
	case h.Chunked:
		r.Stage = httpChunk
	case h.Length > 0:
		r.Skip = h.Length
	}
	return n
}

// noteRequest notes the head of a request, as far as it is there.
func (r *Reader) noteRequest(s *Session, b []byte) (h http.Head, full bool) {
	h, ok := http.ParseRequest(b)
	if !ok {
		h.Malformed = true
		return h, false
	}
	f := &s.found(r.Side).HTTP
	if f.Method == "" {
		f.Method, f.Host, f.Path = s.text(h.Method, maxText), s.text(h.Host, maxText), s.text(h.Path, maxPath)
		f.UserAgent = s.text(h.UserAgent, maxText)
	}
	if v := &s.Verdicts[r.Side]; !r.Inner && v.Set == set(HTTP) {
		switch {
		case bytes.EqualFold(h.Upgrade, []byte("websocket")):
			v.Set = set(HTTP, WebSocket)
		case bytes.EqualFold(h.Upgrade, []byte("h2c")):
			v.Set = set(HTTP, HTTP2)
		}
	}
	return h, s.listed(&f.Hosts, h.Host)
}

// response reads the head of the first response that is final.
func (r *Reader) response(s *Session, b []byte, last bool) int {
	n := http.End(b)
	if n < 0 && len(b) < http.MaxHead && !last {
		return 0
	}
	head := b
	if n > 0 {
		head = b[:n]
	}
	h, ok := http.ParseResponse(head)
	r.Stage = done
	if !ok {
		return len(b)
	}
	if h.Status < 200 && h.Status != 101 && n > 0 {
		r.Stage = httpResponse // an interim one
		return n
	}
	s.found(r.Side).HTTP.Status = uint16(h.Status)
	upgrade := strings.ToLower(string(h.Upgrade[:min(len(h.Upgrade), 16)]))
	switch {
	case n < 0:
	case h.Status == 101 && upgrade == "websocket":
		r.narrowTo(s, WebSocket)
	case h.Status == 101 && upgrade == "h2c":
		r.narrowTo(s, HTTP2)
		r.Stage, r.HTTP2 = http2Frame, new(http2.Side)
		return n
	case h.Status == 200 && h.Length < 0 && !h.Chunked && len(h.ContentType) == 0:
		r.inside() // what a CONNECT is answered with has no body (RFC 9110, section 9.3.6)
		return n
	}
	return len(b)
}

func (r *Reader) narrowTo(s *Session, n Name) {
	if v := &s.Verdicts[r.Side]; !r.Inner && v.Set.has(HTTP) {
		*v = Verdict{set(n), true}
	}
}

// frame reads a frame of HTTP/2.
func (r *Reader) frame(s *Session, b []byte) int {
	if len(b) < http2.FrameHeader {
		return 0
	}
	if r.HTTP2 == nil {
		r.HTTP2 = new(http2.Side)
	}
	n, wanted, ok := r.HTTP2.Frame(b)
	if !ok {
		r.Stage, r.HTTP2 = done, nil
		return len(b)
	}
	if !wanted {
		return r.skip(b, n)
	}
	if len(b) < n {
		return 0
	}
	head, message := r.HTTP2.Take(b[:n])
	if head != nil {
		message = head.DNS
		r.noteHead(s, head)
	}
	if len(message) > 0 {
		if m, ok := dns.Parse(message, len(message)); ok {
			s.dnsMessage(r.Side, &m)
		}
	}
	return n
}

func (r *Reader) noteHead(s *Session, m *http2.Message) {
	f := &s.found(r.Side).HTTP
	if m.Method != "" {
		if f.Method == "" {
			f.Method, f.Host, f.Path = s.clean(m.Method, maxText), s.clean(m.Authority, maxText), s.clean(m.Path, maxPath)
			f.UserAgent = s.clean(m.UserAgent, maxText)
		}
		s.listed(&f.Hosts, []byte(m.Authority))
	}
	if n, err := strconv.ParseUint(m.Status, 10, 16); err == nil && n >= 200 && f.Status == 0 {
		f.Status = uint16(n)
	}
}

// line reads a line of SMTP, IMAP, POP3 or FTP. TLS begins with a byte that no line begins with.
func (r *Reader) line(s *Session, b []byte) int {
	if b[0] == 0x16 {
		r.Stage = tlsNext
		return 0
	}
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		if len(b) > maxLine {
			r.Stage = done
		}
		return 0
	}
	if set := linesOf(b[:i]); set != 0 {
		r.narrow(s, set)
	}
	if r.Count++; r.Count >= maxLines {
		r.Stage = done
	}
	return i + 1
}

// message reads a DNS message in a stream (RFC 1035, section 4.2.2).
func (r *Reader) message(s *Session, b []byte) int {
	if len(b) < 2 {
		return 0
	}
	n := int(binary.BigEndian.Uint16(b))
	if len(b) < 2+n && len(b) < maxDNS {
		return 0
	}
	m, ok := dns.Parse(b[2:min(2+n, len(b))], n)
	if !ok {
		r.Stage = done
		return len(b)
	}
	s.dnsMessage(r.Side, &m)
	if len(s.Founds[r.Side].DNS.Names) >= maxNames {
		r.Stage = done
		return len(b)
	}
	return r.skip(b, 2+n)
}

// socks reads the negotiation of SOCKS (RFC 1928; RFC 1929; version 4: socks4.protocol, socks4a.protocol) as
// far as the stage wants it.
func (r *Reader) socks(b []byte) int {
	wait, broken := 0, -1
	n := wait
	switch r.Stage {
	case socks5Client:
		if len(b) >= 2 && len(b) >= 2+int(b[1]) {
			r.Stage = socks5Ask
			return 2 + int(b[1])
		}
		return 0
	case socks5Server:
		if len(b) < 2 {
			return 0
		}
		r.Stage = socks5Answer
		return 2
	case socks5Ask:
		switch {
		case b[0] == 1: // user name and password
			if len(b) >= 2 && len(b) >= 3+int(b[1]) {
				if p := 3 + int(b[1]) + int(b[2+int(b[1])]); len(b) >= p {
					r.Count++
					if r.Count > 1 {
						r.Stage = done
					}
					return p
				}
			}
			return 0
		default:
			n = socks5Address(b, 5)
		}
	case socks5Answer:
		if b[0] == 1 {
			if len(b) < 2 {
				return 0
			}
			if r.Count++; r.Count > 1 {
				r.Stage = done
			}
			return 2
		}
		n = socks5Address(b, 5)
	case socks4Client:
		n = socks4Request(b)
	case socks4Server:
		if len(b) >= 8 {
			n = 8
		}
	}
	switch n {
	case wait:
		if len(b) > maxLine {
			r.Stage = done
		}
		return 0
	case broken:
		r.Stage = done
		return len(b)
	}
	r.inside()
	return n
}

// socks5Address returns the length of a request or reply, 0 while it is not all there, -1 if it is none.
func socks5Address(b []byte, version byte) int {
	n := 4
	switch {
	case b[0] != version || len(b) > 2 && b[2] != 0:
		return -1
	case len(b) < 5:
		return 0
	}
	switch b[3] {
	case 1:
		n += 4
	case 3:
		n += 1 + int(b[4])
	case 4:
		n += 16
	default:
		return -1
	}
	if n += 2; len(b) < n {
		return 0
	}
	return n
}

// socks4Request returns the length of a request, 0 while it is not all there, -1 if it is none.
func socks4Request(b []byte) int {
	if len(b) < 9 {
		return 0
	}
	i := bytes.IndexByte(b[8:], 0)
	if i < 0 {
		return 0
	}
	n := 8 + i + 1
	if b[4] == 0 && b[5] == 0 && b[6] == 0 && b[7] != 0 { // version 4A: a name follows
		j := bytes.IndexByte(b[n:], 0)
		if j < 0 {
			return 0
		}
		n += j + 1
	}
	return n
}
