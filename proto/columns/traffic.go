package columns

import (
	"cmp"
	"strings"

	"github.com/tapweave/tapweave/proto/pb"
)

// Traffic is a booking: what sessions of the same dimensions carried in one minute. When a dimension of a
// session changes, what was booked is taken out again, so every sum may be negative.
type Traffic struct {
	TrafficDimensions
	TrafficSums
}

// TrafficDimensions is what bookings are grouped by. It is comparable.
type TrafficDimensions struct {
	Minute     int64 // nanoseconds since the Unix epoch, a multiple of 60 s
	Tenant     string
	Src, Dst   EndDimensions
	DstPort    uint16
	IPProtocol uint8
	App        string
	Direction  string
	FlowType   string
}

// EndDimensions is the part of an end's labels that bookings are grouped by.
type EndDimensions struct {
	Name, Subnet, VNet, Country string
	ASN                         uint32
}

// Dimensions returns what of the labels bookings are grouped by.
func (l *Labels) Dimensions() EndDimensions {
	return EndDimensions{Name: l.Name, Subnet: l.Subnet, VNet: l.VNet, Country: l.Country, ASN: l.ASN}
}

// MinuteOf returns the start of the minute that a time is in, both in nanoseconds since the Unix epoch.
func MinuteOf(ns int64) int64 {
	const minute = 60_000_000_000
	m := ns % minute
	if m < 0 {
		m += minute
	}
	return ns - m
}

// Compare orders dimensions by their columns, so that bookings leave in the same order whatever map held them.
func (d *TrafficDimensions) Compare(o *TrafficDimensions) int {
	return cmp.Or(
		cmp.Compare(d.Minute, o.Minute),
		strings.Compare(d.Tenant, o.Tenant),
		d.Src.compare(&o.Src),
		d.Dst.compare(&o.Dst),
		cmp.Compare(d.DstPort, o.DstPort),
		cmp.Compare(d.IPProtocol, o.IPProtocol),
		strings.Compare(d.App, o.App),
		strings.Compare(d.Direction, o.Direction),
		strings.Compare(d.FlowType, o.FlowType),
	)
}

func (e *EndDimensions) compare(o *EndDimensions) int {
	return cmp.Or(
		strings.Compare(e.Name, o.Name),
		strings.Compare(e.Subnet, o.Subnet),
		strings.Compare(e.VNet, o.VNet),
		strings.Compare(e.Country, o.Country),
		cmp.Compare(e.ASN, o.ASN),
	)
}

// TrafficSums is what a booking adds.
type TrafficSums struct {
	Sessions                         int64 // begun in the minute
	SrcPackets, DstPackets           int64
	SrcBytes, DstBytes               int64
	SrcPayloadBytes, DstPayloadBytes int64
}

// Add adds o.
func (s *TrafficSums) Add(o TrafficSums) {
	s.Sessions += o.Sessions
	s.SrcPackets += o.SrcPackets
	s.DstPackets += o.DstPackets
	s.SrcBytes += o.SrcBytes
	s.DstBytes += o.DstBytes
	s.SrcPayloadBytes += o.SrcPayloadBytes
	s.DstPayloadBytes += o.DstPayloadBytes
}

// Negated returns the booking that takes s out.
func (s TrafficSums) Negated() TrafficSums {
	return TrafficSums{-s.Sessions, -s.SrcPackets, -s.DstPackets, -s.SrcBytes, -s.DstBytes, -s.SrcPayloadBytes, -s.DstPayloadBytes}
}

// Bookings is the columns of traffic.
var Bookings = newTable(pb.Rows_TRAFFIC, "traffic", []Column[Traffic]{
	{Info{Name: "minute", ClickHouse: "DateTime('UTC')", Codec: growing, Source: "capture time", Example: "2026-03-01T09:15:00.000000000Z",
		Meaning: "Start of the minute that the packets were captured in, UTC"},
		minute(func(t *Traffic) *int64 { return &t.Minute })},
	dimension("tenant", "Address space, as in sessions", "default", func(t *Traffic) *string { return &t.Tenant }),
	dimension("src_name", "Name of src", "vm-web-1", func(t *Traffic) *string { return &t.Src.Name }),
	dimension("src_subnet", "Subnet of src", "web", func(t *Traffic) *string { return &t.Src.Subnet }),
	dimension("src_vnet", "Virtual network of src", "spoke-1", func(t *Traffic) *string { return &t.Src.VNet }),
	dimension("src_country", "Country of src, ISO 3166-1", "DE", func(t *Traffic) *string { return &t.Src.Country }),
	{Info{Name: "src_asn", ClickHouse: "UInt32", Codec: small, Source: assets, Example: "64500", Meaning: "Autonomous system of src; 0 is unknown"},
		nonzero(u32(func(t *Traffic) *uint32 { return &t.Src.ASN }))},
	dimension("dst_name", "Name of dst", "vm-db-1", func(t *Traffic) *string { return &t.Dst.Name }),
	dimension("dst_subnet", "Subnet of dst", "db", func(t *Traffic) *string { return &t.Dst.Subnet }),
	dimension("dst_vnet", "Virtual network of dst", "hub", func(t *Traffic) *string { return &t.Dst.VNet }),
	dimension("dst_country", "Country of dst, ISO 3166-1", "US", func(t *Traffic) *string { return &t.Dst.Country }),
	{Info{Name: "dst_asn", ClickHouse: "UInt32", Codec: small, Source: assets, Example: "64500", Meaning: "Autonomous system of dst; 0 is unknown"},
		nonzero(u32(func(t *Traffic) *uint32 { return &t.Dst.ASN }))},
	{Info{Name: "dst_port", ClickHouse: "UInt16", Codec: packed, Source: "transport headers", Example: "443", Meaning: "Port of dst, as in sessions; 0 for protocols without ports"},
		u16(func(t *Traffic) *uint16 { return &t.DstPort })},
	{Info{Name: "ip_protocol", ClickHouse: "UInt8", Codec: packed, Source: headers, Example: "6", Meaning: "IANA protocol number"},
		u8(func(t *Traffic) *uint8 { return &t.IPProtocol })},
	{Info{Name: "protocol", ClickHouse: keyword, Source: "ip_protocol", Example: "tcp", Meaning: "IANA's keyword of the protocol in lower case"},
		derived(func(t *Traffic) string { return Protocol(t.IPProtocol) })},
	dimension("app", "Application by content", "tls", func(t *Traffic) *string { return &t.App }),
	dimension("direction", "internal, inbound, outbound or external", "internal", func(t *Traffic) *string { return &t.Direction }),
	dimension("flow_type", "As in sessions", "IntraVNet", func(t *Traffic) *string { return &t.FlowType }),

	sum("sessions", "Sessions that began in the minute", "sessions", "1", func(t *Traffic) *int64 { return &t.Sessions }),
	sum("src_packets", "Packets that src sent", "packets", "12", func(t *Traffic) *int64 { return &t.SrcPackets }),
	sum("dst_packets", "Packets that dst sent", "packets", "15", func(t *Traffic) *int64 { return &t.DstPackets }),
	sum("src_bytes", "IP bytes that src sent", "bytes", "1840", func(t *Traffic) *int64 { return &t.SrcBytes }),
	sum("dst_bytes", "IP bytes that dst sent", "bytes", "18230", func(t *Traffic) *int64 { return &t.DstBytes }),
	sum("src_payload_bytes", "Payload that src sent, as in sessions", "bytes", "1200", func(t *Traffic) *int64 { return &t.SrcPayloadBytes }),
	sum("dst_payload_bytes", "Payload that dst sent, as in sessions", "bytes", "17440", func(t *Traffic) *int64 { return &t.DstPayloadBytes }),
})

func dimension(name, meaning, example string, at func(*Traffic) *string) Column[Traffic] {
	return Column[Traffic]{Info{Name: name, ClickHouse: keyword, Source: "sessions", Example: example, Meaning: meaning}, text(at)}
}

// sum is a signed amount: what is booked out is negative.
func sum(name, meaning, unit, example string, at func(*Traffic) *int64) Column[Traffic] {
	return Column[Traffic]{Info{Name: name, Unit: unit, ClickHouse: "Int64", Codec: small, Source: fold, Example: example, Meaning: meaning}, i64(at)}
}
