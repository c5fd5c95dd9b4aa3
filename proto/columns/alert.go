package columns

import (
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/session"
)

// Alert is something about a session that needs no rule engine to be worth a look.
type Alert struct {
	Time      int64 // nanoseconds since the Unix epoch
	Tenant    string
	SessionID session.ID
	Kind      string

	// The ends of the session, as they were then.
	Src        packet.Addr
	SrcPort    uint16 // ICMP: type
	Dst        packet.Addr
	DstPort    uint16 // ICMP: code, or type of the reply
	IPProtocol uint8

	Threat     string // name of a threat list's entry
	Indicator  string // what matched: an address, a name, a fingerprint
	Confidence uint8  // in percent, 0: unknown

	Message string
}

// Alerts is the columns of alerts.
var Alerts = newTable(pb.Rows_ALERTS, "alerts", []Column[Alert]{
	{Info{Name: "time", ClickHouse: instant, Codec: growing, Source: "capture time", Example: "2026-03-01T09:15:02.123456789Z", Meaning: "Capture time of the packet that raised it, UTC"},
		moment(func(a *Alert) *int64 { return &a.Time })},
	{Info{Name: "tenant", ClickHouse: keyword, Source: "sessions", Example: "default", Meaning: "Address space of the session"},
		text(func(a *Alert) *string { return &a.Tenant })},
	{Info{Name: "session_id", ClickHouse: "String", Codec: packed, Source: fold, Example: "5f0c1d6a9e2b47c80d3e6f1a2b9c4d55", Meaning: "Session that raised it"},
		sessionID(func(a *Alert) *session.ID { return &a.SessionID })},
	{Info{Name: "kind", ClickHouse: keyword, Source: fold, Example: "overlap", Meaning: "What kind of alert: threat, overlap, port_scan or tls_fingerprint"},
		text(func(a *Alert) *string { return &a.Kind })},
	{Info{Name: "src_ip", ClickHouse: "String", Codec: packed, Source: headers, Example: "10.0.0.4", Meaning: "src of the session at that time; IPv4 as a dotted quad"},
		address(func(a *Alert) *packet.Addr { return &a.Src })},
	{Info{Name: "src_port", ClickHouse: "UInt16", Codec: packed, Source: "sessions", Example: "49152", Meaning: "Port of src; 0 for protocols without ports"},
		u16(func(a *Alert) *uint16 { return &a.SrcPort })},
	{Info{Name: "dst_ip", ClickHouse: "String", Codec: packed, Source: headers, Example: "203.0.113.7", Meaning: "dst of the session at that time"},
		address(func(a *Alert) *packet.Addr { return &a.Dst })},
	{Info{Name: "dst_port", ClickHouse: "UInt16", Codec: packed, Source: "sessions", Example: "443", Meaning: "Port of dst; 0 for protocols without ports"},
		u16(func(a *Alert) *uint16 { return &a.DstPort })},
	{Info{Name: "ip_protocol", ClickHouse: "UInt8", Codec: packed, Source: headers, Example: "6", Meaning: "IANA protocol number"},
		u8(func(a *Alert) *uint8 { return &a.IPProtocol })},
	{Info{Name: "threat", ClickHouse: keyword, Source: assets, Example: "botnet-c2", Meaning: "Threat list entry that was hit"},
		text(func(a *Alert) *string { return &a.Threat })},
	{Info{Name: "indicator", ClickHouse: "String", Codec: packed, Source: fold, Example: "203.0.113.7", Meaning: "What was found: the address, prefix, name or fingerprint on the threat list, or the new fingerprint"},
		text(func(a *Alert) *string { return &a.Indicator })},
	{Info{Name: "confidence", Unit: "percent", ClickHouse: "UInt8", Codec: packed, Source: assets, Example: "90", Meaning: "How sure the threat list is of the entry; 0 is unknown"},
		nonzero(u8(func(a *Alert) *uint8 { return &a.Confidence }))},
	{Info{Name: "message", ClickHouse: "String", Codec: packed, Source: fold, Example: "dst sent 312 bytes again with another content", Meaning: "What happened, for people"},
		text(func(a *Alert) *string { return &a.Message })},
})
