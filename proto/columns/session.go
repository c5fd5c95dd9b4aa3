package columns

import (
	"math"

	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/session"
)

// Session is one version of a session: the values of the whole session so far. Begin with [NewSession] or
// [Session.Reset]; the zero Session claims round trip times of 0.
//
// Lists are sorted by whoever fills them. Times are nanoseconds since the Unix epoch.
type Session struct {
	Tenant      string
	ID          session.ID
	CommunityID string

	Start, End int64

	Src        packet.Addr
	SrcPort    uint16 // ICMP: type
	Dst        packet.Addr
	DstPort    uint16 // ICMP: code, or type of the reply
	IPProtocol uint8

	SrcPackets, DstPackets           uint64
	SrcBytes, DstBytes               uint64
	SrcPayloadBytes, DstPayloadBytes uint64
	SrcMissedBytes, DstMissedBytes   uint64
	SrcRetransmits, DstRetransmits   uint64
	SrcOutOfOrder, DstOutOfOrder     uint64
	SrcZeroWindows, DstZeroWindows   uint64
	SrcOverlapBytes, DstOverlapBytes uint64

	SrcTCPFlags, DstTCPFlags uint8
	ConnState, History       string

	HandshakeRTT, SrcRTT, DstRTT float64 // seconds, NaN where not seen

	CloseReason string // empty while the session is open
	IsFinal     bool
	Version     uint32 // from 1

	ICMPErrors, LatePackets uint64
	Sampled                 float64 // 1: every packet

	DuplicatePackets uint64
	TapPoints        []string
	Collectors       []string
	VNIs             []uint32
	OuterPorts       uint32

	SrcMAC, DstMAC MAC
	VLANs          []uint16
	SrcTTL, DstTTL uint8 // 0: unknown

	App string

	TLSSNI, TLSVersion, TLSALPN, TLSJA3, TLSJA4 string
	HTTPMethod, HTTPHost, HTTPPath              string
	HTTPStatus                                  uint16 // 0: unknown
	HTTPUserAgent                               string
	DNSQuery, DNSType, DNSRcode                 string
	DNSAnswers                                  []string
	SSHClient, SSHServer                        string
	HTTPHosts, DNSQueries                       []string

	SrcPayload, DstPayload []byte

	SrcLabels, DstLabels Labels

	FlowType, Direction string

	// For ClickHouse only.

	InputPartition uint32
	LogEpoch       uint64
	OwnerEpoch     uint64
	OutputNumber   uint64
	Created        int64 // capture time of the packet that created the session: never changes, unlike Start
}

// Labels is what is known about one end beyond its packets.
type Labels struct {
	Name, Subnet, VNet string
	Labels             []string // key=value
	Country            string
	ASN                uint32 // 0: unknown
	ASOrg              string
	Threat             string
}

// NewSession returns a session of which nothing is known.
func NewSession() *Session {
	s := new(Session)
	s.Reset()
	return s
}

// Reset makes everything unknown, and keeps the memory of the lists.
func (s *Session) Reset() {
	nan := math.NaN()
	*s = Session{
		HandshakeRTT: nan, SrcRTT: nan, DstRTT: nan,
		Sampled:    1,
		TapPoints:  s.TapPoints[:0],
		Collectors: s.Collectors[:0],
		VNIs:       s.VNIs[:0],
		VLANs:      s.VLANs[:0],
		DNSAnswers: s.DNSAnswers[:0],
		HTTPHosts:  s.HTTPHosts[:0],
		DNSQueries: s.DNSQueries[:0],
		SrcPayload: s.SrcPayload[:0],
		DstPayload: s.DstPayload[:0],
		SrcLabels:  Labels{Labels: s.SrcLabels.Labels[:0]},
		DstLabels:  Labels{Labels: s.DstLabels.Labels[:0]},
	}
}

// Protocol returns the IANA keyword of the session's protocol.
func (s *Session) Protocol() string { return Protocol(s.IPProtocol) }

// Duration returns the seconds between the first packet and the last.
func (s *Session) Duration() float64 { return float64(s.End-s.Start) / 1e9 }

func (s *Session) isTCP() bool { return s.IPProtocol == packet.ProtoTCP }

func (s *Session) hasPorts() bool {
	switch s.IPProtocol {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoICMP, packet.ProtoICMPv6, packet.ProtoSCTP, packet.ProtoDCCP, packet.ProtoUDPLite:
		return true
	}
	return false
}

// ClickHouse types and codecs that many columns share. Counters are small most of the time, which T64 makes
// use of; times grow slowly from row to row.
const (
	keyword   = "LowCardinality(String)" // few different values
	instant   = "DateTime64(9, 'UTC')"
	growing   = "Delta, ZSTD(1)"
	small     = "T64, ZSTD(1)"
	packed    = "ZSTD(1)"
	headers   = "IP headers"
	tcpHeader = "TCP headers"
	fold      = "enricher"
	outer     = "outer headers"
	payload   = "sampled payload"
	assets    = "label set"
)

// Sessions is the columns of sessions.
var Sessions = newTable(pb.Rows_SESSIONS, "sessions", []Column[Session]{
	{Info{Name: "tenant", ClickHouse: keyword, Source: "VNI, by configuration", Example: "default",
		Meaning: "Address space that the session belongs to"},
		text(func(s *Session) *string { return &s.Tenant })},
	{Info{Name: "session_id", ClickHouse: "String", Codec: packed, Source: fold, Example: "5f0c1d6a9e2b47c80d3e6f1a2b9c4d55",
		Meaning: "Name of the session, given once and kept for life: a hash of tenant, protocol, addresses, ports and the time of the packet that created it"},
		sessionID(func(s *Session) *session.ID { return &s.ID })},
	{Info{Name: "community_id", ClickHouse: "String", Codec: packed, Source: headers, Example: "1:LQU9qZlK+B5F3KDmev6m5PMibrg=",
		Meaning: "Community ID, version 1, seed 0"},
		text(func(s *Session) *string { return &s.CommunityID })},

	{Info{Name: "start_time", ClickHouse: instant, Codec: growing, Source: "capture time", Example: "2026-03-01T09:15:02.123456789Z",
		Meaning: "Time of the first packet, UTC"},
		moment(func(s *Session) *int64 { return &s.Start })},
	{Info{Name: "end_time", ClickHouse: instant, Codec: growing, Source: "capture time", Example: "2026-03-01T09:15:04.623456789Z",
		Meaning: "Time of the last packet so far, UTC"},
		moment(func(s *Session) *int64 { return &s.End })},
	{Info{Name: "duration", Unit: "s", ClickHouse: "Float64", Codec: packed, Source: "capture time", Example: "2.5",
		Meaning: "end_time less start_time"},
		fractionOf((*Session).Duration)},

	{Info{Name: "src_ip", ClickHouse: "String", Codec: packed, Source: headers, Example: "10.0.0.4",
		Meaning: "Address of the side that began the session; IPv4 as a dotted quad"},
		address(func(s *Session) *packet.Addr { return &s.Src })},
	{Info{Name: "src_port", ClickHouse: "UInt16", Codec: packed, Source: "transport headers", Example: "49152",
		Meaning: "Port of src; ICMP: the type, of an echo the request's; unknown for protocols without ports (ClickHouse: 0)"},
		when((*Session).hasPorts, u16(func(s *Session) *uint16 { return &s.SrcPort }))},
	{Info{Name: "dst_ip", ClickHouse: "String", Codec: packed, Source: headers, Example: "10.0.1.5",
		Meaning: "Address of the other side"},
		address(func(s *Session) *packet.Addr { return &s.Dst })},
	{Info{Name: "dst_port", ClickHouse: "UInt16", Codec: packed, Source: "transport headers", Example: "443",
		Meaning: "Port of dst; ICMP: the code, of an echo the type of the reply; unknown for protocols without ports (ClickHouse: 0)"},
		when((*Session).hasPorts, u16(func(s *Session) *uint16 { return &s.DstPort }))},
	{Info{Name: "ip_protocol", ClickHouse: "UInt8", Codec: packed, Source: headers, Example: "6",
		Meaning: "IANA protocol number; IPv6: of the header behind the extension headers"},
		u8(func(s *Session) *uint8 { return &s.IPProtocol })},
	{Info{Name: "protocol", ClickHouse: keyword, Source: "ip_protocol", Example: "tcp",
		Meaning: "IANA's keyword of the protocol in lower case; unknown where IANA has none"},
		derived((*Session).Protocol)},

	counter("src_packets", "Packets that src sent; second copies are not counted", "packets", headers, "12",
		func(s *Session) *uint64 { return &s.SrcPackets }),
	counter("dst_packets", "Packets that dst sent; second copies are not counted", "packets", headers, "15",
		func(s *Session) *uint64 { return &s.DstPackets }),
	counter("src_bytes", "IP bytes that src sent, by the headers, whatever was captured", "bytes", headers, "1840",
		func(s *Session) *uint64 { return &s.SrcBytes }),
	counter("dst_bytes", "IP bytes that dst sent, by the headers, whatever was captured", "bytes", headers, "18230",
		func(s *Session) *uint64 { return &s.DstBytes }),
	counter("src_payload_bytes", "Payload that src sent; TCP: union of the sequence ranges seen, else the sum of payload lengths", "bytes", "transport headers", "1200",
		func(s *Session) *uint64 { return &s.SrcPayloadBytes }),
	counter("dst_payload_bytes", "Payload that dst sent; TCP: union of the sequence ranges seen, else the sum of payload lengths", "bytes", "transport headers", "17440",
		func(s *Session) *uint64 { return &s.DstPayloadBytes }),
	counter("src_missed_bytes", "Sequence ranges between the first and the last of src that no packet covered", "bytes", tcpHeader, "0",
		func(s *Session) *uint64 { return &s.SrcMissedBytes }),
	counter("dst_missed_bytes", "Sequence ranges between the first and the last of dst that no packet covered", "bytes", tcpHeader, "1460",
		func(s *Session) *uint64 { return &s.DstMissedBytes }),
	counter("src_retransmits", "Packets of src that repeat only data seen before, or its SYN or FIN; not keep-alives", "packets", tcpHeader, "1",
		func(s *Session) *uint64 { return &s.SrcRetransmits }),
	counter("dst_retransmits", "Packets of dst that repeat only data seen before, or its SYN or FIN; not keep-alives", "packets", tcpHeader, "0",
		func(s *Session) *uint64 { return &s.DstRetransmits }),
	counter("src_out_of_order", "Packets of src with new data below the highest sequence number seen, in capture order", "packets", tcpHeader, "0",
		func(s *Session) *uint64 { return &s.SrcOutOfOrder }),
	counter("dst_out_of_order", "Packets of dst with new data below the highest sequence number seen, in capture order", "packets", tcpHeader, "2",
		func(s *Session) *uint64 { return &s.DstOutOfOrder }),
	counter("src_zero_windows", "Packets of src with a window of 0, but SYN, FIN and RST", "packets", tcpHeader, "0",
		func(s *Session) *uint64 { return &s.SrcZeroWindows }),
	counter("dst_zero_windows", "Packets of dst with a window of 0, but SYN, FIN and RST", "packets", tcpHeader, "0",
		func(s *Session) *uint64 { return &s.DstZeroWindows }),
	counter("src_overlap_bytes", "Bytes that src retransmitted with another content than seen first, where sampled (evasion, injection)", "bytes", payload, "0",
		func(s *Session) *uint64 { return &s.SrcOverlapBytes }),
	counter("dst_overlap_bytes", "Bytes that dst retransmitted with another content than seen first, where sampled (evasion, injection)", "bytes", payload, "0",
		func(s *Session) *uint64 { return &s.DstOverlapBytes }),

	{Info{Name: "src_tcp_flags", ClickHouse: "UInt8", Codec: packed, Source: tcpHeader, Example: "27",
		Meaning: "TCP flags that src set, or-ed: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128; unknown for other protocols (ClickHouse: 0)"},
		when((*Session).isTCP, u8(func(s *Session) *uint8 { return &s.SrcTCPFlags }))},
	{Info{Name: "dst_tcp_flags", ClickHouse: "UInt8", Codec: packed, Source: tcpHeader, Example: "27",
		Meaning: "TCP flags that dst set, or-ed, as in src_tcp_flags"},
		when((*Session).isTCP, u8(func(s *Session) *uint8 { return &s.DstTCPFlags }))},
	{Info{Name: "conn_state", ClickHouse: keyword, Source: fold, Example: "SF",
		Meaning: "State of the connection in Zeek's words: S0 no answer, S1 established, SF closed by both, REJ refused, S2 and S3 closed by src or dst alone, RSTO and RSTR reset by src or dst, RSTOS0 and SH the same or a FIN by src with no answer seen, RSTRH and SHR by dst with no SYN seen, OTH midstream; UDP: S0, SF, SHR by who spoke; follows from what each side sent, in whatever order it was captured"},
		text(func(s *Session) *string { return &s.ConnState })},
	{Info{Name: "history", ClickHouse: "String", Codec: packed, Source: fold, Example: "ShADadFf",
		Meaning: "What happened, in Zeek's letters, upper case by src, lower case by dst: S SYN, H SYN-ACK, A ACK alone, D payload, F FIN, R RST, I FIN with RST, Q SYN with FIN or RST; at the 1st, 10th, 100th time T payload repeated or out of order, W zero window, G acknowledged but never seen; ^ in front: dst sent the first packet. At most 36 letters; C (bad checksum) does not occur, as checksums are not verified"},
		text(func(s *Session) *string { return &s.History })},

	{Info{Name: "handshake_rtt", Unit: "s", ClickHouse: "Nullable(Float64)", Codec: packed, Source: "capture time", Example: "0.0312",
		Meaning: "From the SYN to the ACK that ends the handshake; unknown where not seen"},
		optional(func(s *Session) *float64 { return &s.HandshakeRTT })},
	{Info{Name: "src_rtt", Unit: "s", ClickHouse: "Nullable(Float64)", Codec: packed, Source: "capture time", Example: "0.0004",
		Meaning: "From the SYN-ACK to the ACK: between the tap and src; unknown where not seen"},
		optional(func(s *Session) *float64 { return &s.SrcRTT })},
	{Info{Name: "dst_rtt", Unit: "s", ClickHouse: "Nullable(Float64)", Codec: packed, Source: "capture time", Example: "0.0308",
		Meaning: "From the SYN to the SYN-ACK: between the tap and dst; unknown where not seen"},
		optional(func(s *Session) *float64 { return &s.DstRTT })},

	{Info{Name: "close_reason", ClickHouse: keyword, Source: fold, Example: "fin",
		Meaning: "What closed the session first: fin, rst, idle, reuse, evicted, rollover or end; unknown while it is open"},
		text(func(s *Session) *string { return &s.CloseReason })},
	{Info{Name: "is_final", ClickHouse: "Bool", Source: fold, Example: "true",
		Meaning: "Whether the session is over; late packets may still make another version"},
		boolean(func(s *Session) *bool { return &s.IsFinal })},
	{Info{Name: "version", ClickHouse: "UInt32", Codec: small, Source: fold, Example: "2",
		Meaning: "Number of the version, from 1; a later one replaces those before it"},
		u32(func(s *Session) *uint32 { return &s.Version })},

	counter("icmp_errors", "ICMP errors that quoted a packet of the session", "packets", "ICMP quotes", "0",
		func(s *Session) *uint64 { return &s.ICMPErrors }),
	counter("late_packets", "Packets that came behind the watermark and were still counted", "packets", fold, "0",
		func(s *Session) *uint64 { return &s.LatePackets }),
	{Info{Name: "sampled", ClickHouse: "Float64", Codec: packed, Source: "collector", Example: "1",
		Meaning: "Below 1 where packets of the session may have been shed for lack of memory: the share of all sessions that were kept whole at the worst time of its life; else 1"},
		fraction(func(s *Session) *float64 { return &s.Sampled })},

	counter("duplicate_packets", "Second copies of packets, from another tap point; counted nowhere else", "packets", fold, "27",
		func(s *Session) *uint64 { return &s.DuplicatePackets }),
	{Info{Name: "tap_points", ClickHouse: "Array(" + keyword + ")", Source: outer, Example: "[10.0.0.4]",
		Meaning: "Source addresses of the carriers, outermost first and joined by >, of each tap that saw the session; empty for plain captures"},
		texts(func(s *Session) *[]string { return &s.TapPoints })},
	{Info{Name: "collectors", ClickHouse: "Array(" + keyword + ")", Source: "collector", Example: "[collector-1]",
		Meaning: "Names of the collectors that received its packets"},
		texts(func(s *Session) *[]string { return &s.Collectors })},
	{Info{Name: "vnis", ClickHouse: "Array(UInt32)", Codec: packed, Source: outer, Example: "[27]",
		Meaning: "VXLAN and GENEVE network identifiers seen"},
		list(uint32Kind, func(s *Session) *[]uint32 { return &s.VNIs })},
	{Info{Name: "outer_ports", ClickHouse: "UInt32", Codec: small, Source: outer, Example: "2",
		Meaning: "Number of different source ports of the outermost carrier"},
		u32(func(s *Session) *uint32 { return &s.OuterPorts })},

	{Info{Name: "src_mac", ClickHouse: keyword, Source: "Ethernet header", Example: "00:0d:3a:12:34:56",
		Meaning: "Ethernet address that src's packets came from"},
		mac(func(s *Session) *MAC { return &s.SrcMAC })},
	{Info{Name: "dst_mac", ClickHouse: keyword, Source: "Ethernet header", Example: "12:34:56:78:9a:bc",
		Meaning: "Ethernet address that dst's packets came from, else that src's were sent to"},
		mac(func(s *Session) *MAC { return &s.DstMAC })},
	{Info{Name: "vlans", ClickHouse: "Array(UInt16)", Codec: packed, Source: "Ethernet header", Example: "[100]",
		Meaning: "VLAN identifiers seen"},
		list(uint16Kind, func(s *Session) *[]uint16 { return &s.VLANs })},
	{Info{Name: "src_ttl", ClickHouse: "UInt8", Codec: packed, Source: headers, Example: "64",
		Meaning: "TTL or hop limit of src's first packet; 0 is unknown"},
		nonzero(u8(func(s *Session) *uint8 { return &s.SrcTTL }))},
	{Info{Name: "dst_ttl", ClickHouse: "UInt8", Codec: packed, Source: headers, Example: "57",
		Meaning: "TTL or hop limit of dst's first packet; 0 is unknown"},
		nonzero(u8(func(s *Session) *uint8 { return &s.DstTTL }))},

	{Info{Name: "app", ClickHouse: keyword, Source: payload, Example: "tls",
		Meaning: "Application by content, not by port, of the outermost protocol (an HTTP request through SOCKS is socks): amqp, bgp, bittorrent, cassandra, dcerpc, dhcp, dnp3, dns, dtls, ftp, http, http2, imap, isakmp, kafka, kerberos, ldap, llmnr, mdns, memcached, modbus, mongodb, mqtt, mssql, mysql, nbns, ntlm, ntp, openvpn, pop3, postgresql, quic, radius, rdp, redis, rtp, rtsp, sip, smb, smtp, snmp, socks, ssdp, ssh, stun, telnet, tftp, tls, vnc, websocket, wireguard"},
		text(func(s *Session) *string { return &s.App })},
	word("tls_sni", "String", "Server name that the client asked for, in TLS, in QUIC, or in what began TLS (STARTTLS, a proxy)", "example.com", func(s *Session) *string { return &s.TLSSNI }),
	word("tls_version", keyword, "Version that the server chose, else the highest that the client offered", "TLSv1.3", func(s *Session) *string { return &s.TLSVersion }),
	word("tls_alpn", keyword, "Application protocol that the server chose, else the first that the client offered", "h2", func(s *Session) *string { return &s.TLSALPN }),
	word("tls_ja3", "String", "JA3 fingerprint of the ClientHello; unknown where not all of it was sampled", "e7d705a3286e19ea42f587b344ee6865", func(s *Session) *string { return &s.TLSJA3 }),
	word("tls_ja4", "String", "JA4 fingerprint of the ClientHello, beginning with t for TCP, q for QUIC; unknown where not all of it was sampled", "t13d1516h2_8daaf6152771_b186095e22b6", func(s *Session) *string { return &s.TLSJA4 }),
	word("http_method", keyword, "Method of the first request", "GET", func(s *Session) *string { return &s.HTTPMethod }),
	word("http_host", "String", "Host of the first request: Host field, authority of HTTP/2, or target of a proxy", "example.com", func(s *Session) *string { return &s.HTTPHost }),
	word("http_path", "String", "Path of the first request, without its query", "/index.html", func(s *Session) *string { return &s.HTTPPath }),
	{Info{Name: "http_status", ClickHouse: "UInt16", Codec: packed, Source: payload, Example: "200",
		Meaning: "Status of the first response; 0 is unknown"},
		nonzero(u16(func(s *Session) *uint16 { return &s.HTTPStatus }))},
	word("http_user_agent", keyword, "User agent of the first request", "curl/8.5.0", func(s *Session) *string { return &s.HTTPUserAgent }),
	word("dns_query", "String", "Name of the first question, without the last dot; of DNS, mDNS, LLMNR, DNS over HTTPS in clear", "example.com", func(s *Session) *string { return &s.DNSQuery }),
	word("dns_type", keyword, "Type of the first question: mnemonic, else TYPE and its number", "AAAA", func(s *Session) *string { return &s.DNSType }),
	word("dns_rcode", keyword, "Response code of the answer to the first question: mnemonic, else RCODE and its number", "NOERROR", func(s *Session) *string { return &s.DNSRcode }),
	words("dns_answers", "Answers to the first question, in their order, at most 32: addresses, names, texts, else in the form of RFC 3597", "[93.184.215.14]", func(s *Session) *[]string { return &s.DNSAnswers }),
	word("ssh_client", keyword, "Software version that the client names", "OpenSSH_9.6", func(s *Session) *string { return &s.SSHClient }),
	word("ssh_server", keyword, "Software version that the server names", "OpenSSH_9.2p1", func(s *Session) *string { return &s.SSHServer }),
	words("http_hosts", "Hosts of all requests, at most 64", "[example.com]", func(s *Session) *[]string { return &s.HTTPHosts }),
	words("dns_queries", "Names of all questions, at most 64", "[example.com]", func(s *Session) *[]string { return &s.DNSQueries }),

	{Info{Name: "src_payload", ClickHouse: "String", Codec: packed, Source: payload, Example: "R0VUIC8=",
		Meaning: "First bytes that src sent, reassembled, where keep_payload is set (tapweave read: --payload), up to the first hole; base64 in JSON"},
		octets(func(s *Session) *[]byte { return &s.SrcPayload })},
	{Info{Name: "dst_payload", ClickHouse: "String", Codec: packed, Source: payload, Example: "SFRUUC8xLjE=",
		Meaning: "First bytes that dst sent, reassembled, where keep_payload is set (tapweave read: --payload), up to the first hole; base64 in JSON"},
		octets(func(s *Session) *[]byte { return &s.DstPayload })},

	label("src_name", keyword, "Name of src", "vm-web-1", func(s *Session) *string { return &s.SrcLabels.Name }),
	label("src_subnet", keyword, "Subnet of src", "web", func(s *Session) *string { return &s.SrcLabels.Subnet }),
	label("src_vnet", keyword, "Virtual network of src", "spoke-1", func(s *Session) *string { return &s.SrcLabels.VNet }),
	labels("src_labels", "Labels of src, as key=value", func(s *Session) *[]string { return &s.SrcLabels.Labels }),
	label("src_country", keyword, "Country of src, ISO 3166-1", "DE", func(s *Session) *string { return &s.SrcLabels.Country }),
	asn("src_asn", "Autonomous system of src; 0 is unknown", func(s *Session) *uint32 { return &s.SrcLabels.ASN }),
	label("src_as_org", keyword, "Holder of src's autonomous system", "EXAMPLE-AS", func(s *Session) *string { return &s.SrcLabels.ASOrg }),
	label("src_threat", keyword, "Threat list entry that src is on", "botnet-c2", func(s *Session) *string { return &s.SrcLabels.Threat }),
	label("dst_name", keyword, "Name of dst", "vm-db-1", func(s *Session) *string { return &s.DstLabels.Name }),
	label("dst_subnet", keyword, "Subnet of dst", "db", func(s *Session) *string { return &s.DstLabels.Subnet }),
	label("dst_vnet", keyword, "Virtual network of dst", "hub", func(s *Session) *string { return &s.DstLabels.VNet }),
	labels("dst_labels", "Labels of dst, as key=value", func(s *Session) *[]string { return &s.DstLabels.Labels }),
	label("dst_country", keyword, "Country of dst, ISO 3166-1", "US", func(s *Session) *string { return &s.DstLabels.Country }),
	asn("dst_asn", "Autonomous system of dst; 0 is unknown", func(s *Session) *uint32 { return &s.DstLabels.ASN }),
	label("dst_as_org", keyword, "Holder of dst's autonomous system", "EXAMPLE-AS", func(s *Session) *string { return &s.DstLabels.ASOrg }),
	label("dst_threat", keyword, "Threat list entry that dst is on, by its address or by a name asked for", "botnet-c2", func(s *Session) *string { return &s.DstLabels.Threat }),

	label("flow_type", keyword, "IntraVNet, InterVNet, AzurePublic, ExternalPublic, MaliciousFlow or UnknownPrivate, as Traffic Analytics names them", "IntraVNet",
		func(s *Session) *string { return &s.FlowType }),
	label("direction", keyword, "internal, inbound, outbound or external", "internal", func(s *Session) *string { return &s.Direction }),

	{Info{Name: "input_partition", ClickHouse: "UInt32", Codec: packed, Source: fold, Example: "3", Internal: true,
		Meaning: "Partition of tapweave.packets that the session was folded in"},
		u32(func(s *Session) *uint32 { return &s.InputPartition })},
	{Info{Name: "log_epoch", ClickHouse: "UInt64", Codec: packed, Source: fold, Example: "1", Internal: true,
		Meaning: "Life of the input log: grows when the topic is made anew or its partitions change"},
		u64(func(s *Session) *uint64 { return &s.LogEpoch })},
	{Info{Name: "owner_epoch", ClickHouse: "UInt64", Codec: packed, Source: fold, Example: "5", Internal: true,
		Meaning: "Generation of the enricher that made this version"},
		u64(func(s *Session) *uint64 { return &s.OwnerEpoch })},
	{Info{Name: "output_number", ClickHouse: "UInt64", Codec: growing, Source: fold, Example: "1047", Internal: true,
		Meaning: "Number of the fold's output that held this version"},
		u64(func(s *Session) *uint64 { return &s.OutputNumber })},
	{Info{Name: "created_time", ClickHouse: instant, Codec: growing, Source: "capture time", Example: "2026-03-01T09:15:02.123456789Z", Internal: true,
		Meaning: "Capture time of the packet that created the session; unlike start_time it never changes, so that keys can be made of it"},
		moment(func(s *Session) *int64 { return &s.Created })},
})

func counter(name, meaning, unit, source, example string, at func(*Session) *uint64) Column[Session] {
	return Column[Session]{Info{Name: name, Unit: unit, ClickHouse: "UInt64", Codec: small, Source: source, Example: example, Meaning: meaning}, u64(at)}
}

// word is what an application's parser read.
func word(name, clickhouse, meaning, example string, at func(*Session) *string) Column[Session] {
	c := Column[Session]{Info{Name: name, ClickHouse: clickhouse, Source: payload, Example: example, Meaning: meaning}, text(at)}
	if clickhouse == "String" {
		c.Codec = packed
	}
	return c
}

func words(name, meaning, example string, at func(*Session) *[]string) Column[Session] {
	return Column[Session]{Info{Name: name, ClickHouse: "Array(String)", Codec: packed, Source: payload, Example: example, Meaning: meaning}, nonempty(texts(at))}
}

func label(name, clickhouse, meaning, example string, at func(*Session) *string) Column[Session] {
	return Column[Session]{Info{Name: name, ClickHouse: clickhouse, Source: assets, Example: example, Meaning: meaning}, text(at)}
}

func labels(name, meaning string, at func(*Session) *[]string) Column[Session] {
	return Column[Session]{Info{Name: name, ClickHouse: "Array(" + keyword + ")", Source: assets, Example: "[env=prod]", Meaning: meaning}, nonempty(texts(at))}
}

func asn(name, meaning string, at func(*Session) *uint32) Column[Session] {
	return Column[Session]{Info{Name: name, ClickHouse: "UInt32", Codec: small, Source: assets, Example: "64500", Meaning: meaning}, nonzero(u32(at))}
}
