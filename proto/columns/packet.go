package columns

import (
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/session"
)

// Packet is one packet of a session. What the whole session shares (addresses, ports, MACs, VLANs) is in its
// row of sessions.
type Packet struct {
	Time      int64 // nanoseconds since the Unix epoch
	SessionID session.ID
	Side      string // SideSrc or SideDst: who sent it

	Length        uint32
	PayloadLength uint32
	IPID          uint32
	TTL           uint8

	FragmentOffset uint16
	MoreFragments  bool

	Seq, Ack uint32
	Flags    uint8
	Window   uint16
	Checksum uint16

	Data []byte

	TapPoint, Collector string
}

// Sides of a session.
const (
	SideSrc = "src"
	SideDst = "dst"
)

// Packets is the columns of packets.
var Packets = newTable(pb.Rows_PACKETS, "packets", []Column[Packet]{
	{Info{Name: "time", ClickHouse: instant, Codec: growing, Source: "capture time", Example: "2026-03-01T09:15:02.123456789Z", Meaning: "Capture time, UTC"},
		moment(func(p *Packet) *int64 { return &p.Time })},
	{Info{Name: "session_id", ClickHouse: "String", Codec: packed, Source: fold, Example: "5f0c1d6a9e2b47c80d3e6f1a2b9c4d55", Meaning: "Session that the packet belongs to"},
		sessionID(func(p *Packet) *session.ID { return &p.SessionID })},
	{Info{Name: "side", ClickHouse: keyword, Source: fold, Example: "src", Meaning: "Who sent it: src or dst"},
		text(func(p *Packet) *string { return &p.Side })},
	{Info{Name: "length", Unit: "bytes", ClickHouse: "UInt32", Codec: small, Source: headers, Example: "1500", Meaning: "Length of the IP packet by its header"},
		u32(func(p *Packet) *uint32 { return &p.Length })},
	{Info{Name: "payload_length", Unit: "bytes", ClickHouse: "UInt32", Codec: small, Source: headers, Example: "1460", Meaning: "Payload by the headers; of a fragment all behind the IP header"},
		u32(func(p *Packet) *uint32 { return &p.PayloadLength })},
	{Info{Name: "ip_id", ClickHouse: "UInt32", Codec: small, Source: headers, Example: "54321", Meaning: "IPv4 identification, or that of an IPv6 fragment; 0 where there is none"},
		u32(func(p *Packet) *uint32 { return &p.IPID })},
	{Info{Name: "ttl", ClickHouse: "UInt8", Codec: packed, Source: headers, Example: "64", Meaning: "TTL or hop limit"},
		u8(func(p *Packet) *uint8 { return &p.TTL })},
	{Info{Name: "fragment_offset", Unit: "bytes", ClickHouse: "UInt16", Codec: small, Source: headers, Example: "0", Meaning: "Offset of a fragment"},
		u16(func(p *Packet) *uint16 { return &p.FragmentOffset })},
	{Info{Name: "more_fragments", ClickHouse: "Bool", Source: headers, Example: "false", Meaning: "Whether it is a fragment, and not the last"},
		boolean(func(p *Packet) *bool { return &p.MoreFragments })},
	{Info{Name: "tcp_seq", ClickHouse: "UInt32", Codec: small, Source: tcpHeader, Example: "3735928559", Meaning: "TCP sequence number; of an ICMP echo its sequence number; else 0"},
		u32(func(p *Packet) *uint32 { return &p.Seq })},
	{Info{Name: "tcp_ack", ClickHouse: "UInt32", Codec: small, Source: tcpHeader, Example: "1", Meaning: "TCP acknowledgement number"},
		u32(func(p *Packet) *uint32 { return &p.Ack })},
	{Info{Name: "tcp_flags", ClickHouse: "UInt8", Codec: packed, Source: tcpHeader, Example: "24", Meaning: "TCP flags, as in sessions"},
		u8(func(p *Packet) *uint8 { return &p.Flags })},
	{Info{Name: "tcp_window", Unit: "bytes", ClickHouse: "UInt16", Codec: small, Source: tcpHeader, Example: "64240", Meaning: "TCP window as it stands in the header, not scaled"},
		u16(func(p *Packet) *uint16 { return &p.Window })},
	{Info{Name: "checksum", ClickHouse: "UInt16", Codec: packed, Source: "transport headers", Example: "48879", Meaning: "Transport checksum as it stands in the header"},
		u16(func(p *Packet) *uint16 { return &p.Checksum })},
	{Info{Name: "data", ClickHouse: "String", Codec: packed, Source: payload, Example: "R0VUIC8=", Meaning: "First bytes of the payload, as many as were sampled; base64 in JSON"},
		octets(func(p *Packet) *[]byte { return &p.Data })},
	{Info{Name: "tap_point", ClickHouse: keyword, Source: outer, Example: "10.0.0.4", Meaning: "Tap that the copy came from, as in sessions"},
		text(func(p *Packet) *string { return &p.TapPoint })},
	{Info{Name: "collector", ClickHouse: keyword, Source: "collector", Example: "collector-1", Meaning: "Collector that received it"},
		text(func(p *Packet) *string { return &p.Collector })},
})
