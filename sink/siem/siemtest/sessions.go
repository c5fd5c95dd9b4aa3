package siemtest

import (
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/session"
)

// Example is a TLS session like any other.
func Example() *columns.Session {
	s := columns.NewSession()
	s.Tenant, s.CommunityID, s.Version = "default", "1:LQU9qZlK+B5F3KDmev6m5PMibrg=", 3
	s.ID = session.ID{0x5f, 0x0c, 15: 0x55}
	s.Start = time.Date(2026, 3, 1, 9, 15, 2, 123456789, time.UTC).UnixNano()
	s.End = s.Start + 2_500_000_000
	s.Src, s.Dst = packet.AddrFrom(netip.MustParseAddr("10.0.0.4")), packet.AddrFrom(netip.MustParseAddr("93.184.215.14"))
	s.SrcPort, s.DstPort, s.IPProtocol = 49152, 443, packet.ProtoTCP
	s.SrcPackets, s.DstPackets, s.SrcBytes, s.DstBytes = 12, 15, 1840, 18230
	s.SrcPayloadBytes, s.DstPayloadBytes, s.DstMissedBytes = 1200, 17440, 1460
	s.SrcTCPFlags, s.DstTCPFlags = 27, 27
	s.HandshakeRTT, s.SrcRTT, s.DstRTT = 0.0312, 0.0004, 0.0308
	s.SrcMAC = columns.MAC{0, 0x0d, 0x3a, 0x12, 0x34, 0x56}
	s.ConnState, s.History, s.CloseReason, s.IsFinal = "SF", "ShADadFf", "fin", true
	s.DuplicatePackets, s.TapPoints, s.Collectors = 27, []string{"10.0.0.4"}, []string{"collector-1", "collector-2"}
	s.VNIs, s.OuterPorts, s.VLANs, s.SrcTTL, s.DstTTL = []uint32{27}, 2, []uint16{100}, 64, 57
	s.App, s.Direction, s.FlowType = "tls", "outbound", "ExternalPublic"
	s.TLSSNI, s.TLSVersion, s.TLSALPN = "example.com", "TLSv1.3", "h2"
	s.TLSJA3, s.TLSJA4 = "e7d705a3286e19ea42f587b344ee6865", "t13d1516h2_8daaf6152771_b186095e22b6"
	s.SrcLabels = columns.Labels{Name: "vm-web-1", Subnet: "web", VNet: "spoke-1", Labels: []string{"env=prod"}}
	s.DstLabels = columns.Labels{Country: "US", ASN: 64500, ASOrg: `EXAMPLE "AS"`}
	return s
}

// Mix is sessions as they come: with labels, and of ten four of TLS, two of HTTP, two of DNS, and two of which nothing
// was recognised.
func Mix() []*columns.Session {
	var all []*columns.Session
	for i := range 10 {
		s := Example()
		s.ID[1], s.SrcPort = byte(i), s.SrcPort+uint16(i)
		s.Start += int64(i) * 1e9
		s.End = s.Start + 2_500_000_000
		switch i {
		case 4, 5:
			s.App, s.TLSSNI, s.TLSVersion, s.TLSALPN, s.TLSJA3, s.TLSJA4 = "http", "", "", "", "", ""
			s.HTTPMethod, s.HTTPHost, s.HTTPPath, s.HTTPStatus = "GET", "example.com", "/index.html?q=1", 200
			s.HTTPUserAgent, s.HTTPHosts, s.DstPort = "curl/8.5.0", []string{"example.com"}, 80
		case 6, 7:
			s.App, s.TLSSNI, s.TLSVersion, s.TLSALPN, s.TLSJA3, s.TLSJA4 = "dns", "", "", "", "", ""
			s.IPProtocol, s.DNSQuery, s.DNSType, s.DNSRcode, s.DstPort = packet.ProtoUDP, "example.com", "A", "NOERROR", 53
			s.DNSAnswers, s.DNSQueries = []string{"93.184.215.14"}, []string{"example.com"}
		case 8, 9:
			s.App, s.TLSSNI, s.TLSVersion, s.TLSALPN, s.TLSJA3, s.TLSJA4 = "", "", "", "", "", ""
		}
		all = append(all, s)
	}
	return all
}

// Full is a session with a value in every field, each its own, so that a column that nobody writes is missed. It is
// filled by reflection: a new field is in it.
func Full() *columns.Session {
	s := Example()
	n := 0
	fill("", reflect.ValueOf(s).Elem(), &n)
	s.SrcLabels.Country, s.DstLabels.Country = "DE", "US"
	s.IPProtocol, s.App = packet.ProtoTCP, "tls"
	s.TLSVersion = "TLSv1.2"
	s.Start, s.End = 1772356502123456789, 1772356504623456789
	s.ConnState, s.CloseReason, s.FlowType, s.Direction = "SF", "fin", "MaliciousFlow", "outbound"
	s.Src, s.Dst = packet.AddrFrom(netip.MustParseAddr("2001:db8::4")), packet.AddrFrom(netip.MustParseAddr("2001:db8::5"))
	s.DNSAnswers, s.DNSRcode = []string{"93.184.215.14", "2001:db8::1", "alias.example"}, "NOERROR"
	s.HTTPStatus, s.HTTPMethod, s.HTTPHost, s.HTTPPath = 200, "GET", "www.example:8080", "/x?y=z"
	return s
}

func fill(name string, v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(name+v.Type().Field(i).Name, v.Field(i), n)
		}
	case reflect.Array:
		for i := range v.Len() {
			v.Index(i).SetUint(uint64(*n+i)&0x7f + 1)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(fmt.Sprint(name, i), v.Index(i), n)
		}
	case reflect.String:
		v.SetString(strings.ToLower(name) + ".example")
	case reflect.Uint8:
		v.SetUint(uint64(*n)&0x7f + 1)
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(10_000 + uint64(*n))
	case reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Float64:
		v.SetFloat(0.5 + float64(*n)/1024)
	case reflect.Bool:
		v.SetBool(true)
	default:
		panic("no value for " + name)
	}
}

// Sessions are sessions of every kind, by name: those that fill every column, and those that fill next to none.
func Sessions() map[string]*columns.Session {
	all := map[string]*columns.Session{"nothing known": columns.NewSession(), "example": Example(), "full": Full()}
	add := func(name string, of *columns.Session, change func(s *columns.Session)) {
		change(of)
		all[name] = of
	}
	for _, app := range []string{"http", "http2", "websocket"} {
		add("full "+app, Full(), func(s *columns.Session) { s.App, s.TLSVersion, s.TLSJA4 = app, "", "" })
	}
	for _, method := range []string{"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT", "TRACE", "PATCH", "PROPFIND", ""} {
		add("HTTP "+method, Full(), func(s *columns.Session) { s.App, s.HTTPMethod, s.HTTPPath = "http", method, "a.example:443" })
	}
	add("HTTP without a response", Full(), func(s *columns.Session) { s.App, s.HTTPStatus, s.HTTPHost = "http", 0, "" })
	add("HTTP 503", Full(), func(s *columns.Session) {
		s.App, s.HTTPStatus, s.HTTPHost, s.HTTPPath = "http", 503, "[2001:db8::1]:80", ""
	})
	rcodes := []string{"NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE",
		"DSOTYPENI", "RCODE23", ""}
	for i, app := range []string{"dns", "mdns", "llmnr"} {
		for _, rcode := range rcodes {
			add(app+" "+rcode, Full(), func(s *columns.Session) { s.App, s.DNSRcode, s.IPProtocol = app, rcode, []uint8{6, 17, 58}[i] })
		}
	}
	add("DNS without a question", Full(), func(s *columns.Session) {
		s.App, s.IPProtocol, s.DNSQuery, s.DNSType, s.DNSAnswers = "dns", packet.ProtoUDP, "", "", nil
	})
	add("DNS of nothing", columns.NewSession(), func(s *columns.Session) { s.App, s.IPProtocol = "dns", packet.ProtoUDP })
	for _, state := range []string{"S0", "S1", "SF", "REJ", "S2", "S3", "RSTO", "RSTR", "RSTOS0", "RSTRH", "SH", "SHR", "OTH", ""} {
		add("TCP "+state, Full(), func(s *columns.Session) { s.ConnState, s.HTTPMethod, s.HTTPStatus = state, "", 0 })
		add("UDP "+state, Full(), func(s *columns.Session) {
			s.IPProtocol, s.ConnState, s.HTTPMethod, s.HTTPStatus, s.App = packet.ProtoUDP, state, "", 0, ""
		})
	}
	for _, protocol := range []uint8{packet.ProtoICMP, packet.ProtoICMPv6, packet.ProtoSCTP, 47, 50, 61, 255, 0} {
		add(fmt.Sprint("protocol ", protocol), Full(), func(s *columns.Session) {
			s.IPProtocol, s.App, s.HTTPMethod, s.HTTPStatus, s.SrcPort, s.DstPort = protocol, "", "", 0, 8, 0
		})
	}
	for _, direction := range []string{"inbound", "outbound", "internal", "external", ""} {
		add("direction "+direction, Example(), func(s *columns.Session) { s.Direction = direction })
	}
	for _, flow := range []string{"IntraVNet", "InterVNet", "AzurePublic", "ExternalPublic", "MaliciousFlow", "UnknownPrivate", ""} {
		add("flow "+flow, Example(), func(s *columns.Session) { s.FlowType = flow })
	}
	for _, reason := range []string{"fin", "rst", "idle", "reuse", "evicted", "rollover", "end"} {
		add("closed by "+reason, Example(), func(s *columns.Session) { s.CloseReason = reason })
	}
	for _, version := range []uint32{1, 2} {
		add(fmt.Sprint("open, version ", version), Example(), func(s *columns.Session) { s.Version, s.IsFinal, s.CloseReason = version, false, "" })
	}
	add("threat of src", Example(), func(s *columns.Session) { s.SrcLabels.Threat = "botnet-c2" })
	add("threat of dst", Example(), func(s *columns.Session) { s.DstLabels.Threat, s.TLSSNI = "botnet-c2", "" })
	add("threat by name", Example(), func(s *columns.Session) { s.DstLabels.Threat = "phishing" })
	add("no TLS version", Example(), func(s *columns.Session) { s.TLSVersion = "" })
	add("SSL", Example(), func(s *columns.Session) { s.TLSVersion = "SSLv3" })
	add("names with dots", Example(), func(s *columns.Session) { s.SrcLabels.Name, s.DstLabels.Name = "web.corp.example", ".x." })
	add("name that is an address", Example(), func(s *columns.Session) { s.TLSSNI = "93.184.215.14" })
	add("largest numbers", Full(), func(s *columns.Session) {
		s.SrcBytes, s.DstBytes, s.SrcPackets, s.DstPackets = math.MaxUint64, math.MaxUint64, math.MaxUint64, math.MaxUint64
		s.SrcPayloadBytes, s.DstRetransmits, s.DuplicatePackets = math.MaxUint64, math.MaxUint64, math.MaxUint64
		s.SrcLabels.ASN, s.Version, s.OuterPorts = math.MaxUint32, math.MaxUint32, math.MaxUint32
		s.Start, s.End = 0, math.MaxInt64
	})
	add("end before start", Example(), func(s *columns.Session) { s.End = s.Start - 1 })
	return all
}

// Alerts are alerts of every kind, by name.
func Alerts() map[string]*columns.Alert {
	all := map[string]*columns.Alert{"nothing known": {}}
	for _, kind := range []string{"threat", "overlap", "port_scan", "tls_fingerprint", "another"} {
		for _, indicator := range []string{"203.0.113.7", "2001:db8::7", "203.0.113.0/24", "evil.example", "e7d705a3286e19ea42f587b344ee6865",
			"t13d1516h2_8daaf6152771_b186095e22b6", ""} {
			a := ExampleAlert()
			a.Kind, a.Indicator = kind, indicator
			all[kind+" "+indicator] = a
		}
	}
	for _, confidence := range []uint8{0, 1, 30, 70, 100, 255} {
		a := ExampleAlert()
		a.Confidence, a.Threat = confidence, "phishing"
		all[fmt.Sprint("confidence ", confidence)] = a
	}
	for _, protocol := range []uint8{packet.ProtoICMP, packet.ProtoICMPv6, 47, 255} {
		a := ExampleAlert()
		a.IPProtocol, a.Threat = protocol, ""
		all[fmt.Sprint("protocol ", protocol)] = a
	}
	return all
}

// ExampleAlert is an alert like any other.
func ExampleAlert() *columns.Alert {
	return &columns.Alert{
		Time: time.Date(2026, 3, 1, 9, 15, 2, 123456789, time.UTC).UnixNano(), Tenant: "default", SessionID: session.ID{0x5f, 0x0c, 15: 0x55}, Kind: "threat",
		Src: packet.AddrFrom(netip.MustParseAddr("10.0.0.4")), SrcPort: 49152, Dst: packet.AddrFrom(netip.MustParseAddr("203.0.113.7")), DstPort: 443,
		IPProtocol: packet.ProtoTCP, Threat: "botnet-c2", Indicator: "203.0.113.7", Confidence: 90,
		Message: "dst (203.0.113.7) is on the threat list as botnet-c2, confidence 90 %",
	}
}
