package document

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/jsontext"
	"github.com/tapweave/tapweave/proto/packet"
)

// IsICMP says whether the ports of a session are type and code.
func IsICMP(protocol uint8) bool {
	return protocol == packet.ProtoICMP || protocol == packet.ProtoICMPv6
}

// HasPorts says whether the ports of a session are ports.
func HasPorts(protocol uint8) bool {
	switch protocol {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP, packet.ProtoDCCP, packet.ProtoUDPLite:
		return true
	}
	return false
}

// IsDNS says whether a session is a question to a name service, or the answer: DNS, and what has its format.
func IsDNS(s *columns.Session) bool {
	switch s.App {
	case "dns", "mdns", "llmnr":
		return true
	}
	return false
}

// IsHTTP says whether a session is HTTP of which a request or a response was read.
func IsHTTP(s *columns.Session) bool { return s.HTTPMethod != "" || s.HTTPStatus != 0 }

// tcpSYN is the flag as it stands in src_tcp_flags.
const tcpSYN = 2

// Began says whether it was seen which side began: a handshake was.
func Began(s *columns.Session) bool { return (s.SrcTCPFlags|s.DstTCPFlags)&tcpSYN != 0 }

// IsAddress says whether a text is an address, as an answer of DNS may be.
func IsAddress(s string) bool {
	if s == "" || len(s) > 45 || strings.IndexByte("0123456789abcdefABCDEF:", s[0]) < 0 {
		return false
	}
	a, err := netip.ParseAddr(s)
	return err == nil && a.Zone() == ""
}

// AddressType is the type of the DNS record that an answer stands in, where it is an address.
func AddressType(answer string) string {
	switch {
	case !IsAddress(answer):
		return ""
	case strings.IndexByte(answer, ':') < 0:
		return "A"
	}
	return "AAAA"
}

// Host takes an authority (RFC 3986, section 3.2) apart: the host without the brackets of IPv6, and the port, 0
// where there is none.
func Host(authority string) (host string, port uint16) {
	host = authority
	if i := strings.LastIndexByte(authority, ':'); i >= 0 {
		if n, err := strconv.ParseUint(authority[i+1:], 10, 16); err == nil && (authority[0] == '[' || strings.IndexByte(authority, ':') == i) {
			host, port = authority[:i], uint16(n)
		}
	}
	if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	return host, port
}

// Path takes the target of a request apart: path, and query without its question mark.
func Path(target string) (path, query string) {
	path, query, _ = strings.Cut(target, "?")
	return path, query
}

// URL writes the address that the first request asked for, if it names a host and a path.
func (w *Writer) URL(key string, s *columns.Session) {
	if s.HTTPHost == "" || !strings.HasPrefix(s.HTTPPath, "/") {
		return
	}
	w.Key(key)
	w.buf = append(w.buf, `"http://`...)
	w.buf = jsontext.AppendEscaped(w.buf, s.HTTPHost)
	w.buf = jsontext.AppendEscaped(w.buf, s.HTTPPath)
	w.buf = append(w.buf, '"')
}

// Name is the name by which src asked for dst, where it is known: of the label, of TLS, of HTTP.
func Name(s *columns.Session) string {
	switch {
	case s.DstLabels.Name != "":
		return s.DstLabels.Name
	case s.TLSSNI != "":
		return s.TLSSNI
	case s.HTTPHost != "":
		host, _ := Host(s.HTTPHost)
		return host
	}
	return ""
}
