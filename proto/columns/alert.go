package columns

import (
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/session"
)

// Alert is something about a session that needs no rule engine to be worth a look.
type Alert struct {
	Time      int64 // nanoseconds since the Unix epoch
	Tenant    string
	SessionID session.ID
	Kind      string
	Message   string
}

// Alerts is the columns of alerts.
var Alerts = newTable(pb.Rows_ALERTS, "alerts", []Column[Alert]{
	{Info{Name: "time", ClickHouse: instant, Codec: growing, Source: "capture time", Example: "2026-03-01T09:15:02.123456789Z", Meaning: "Capture time of the packet that raised it, UTC"},
		moment(func(a *Alert) *int64 { return &a.Time })},
	{Info{Name: "tenant", ClickHouse: keyword, Source: "sessions", Example: "default", Meaning: "Address space of the session"},
		text(func(a *Alert) *string { return &a.Tenant })},
	{Info{Name: "session_id", ClickHouse: "String", Codec: packed, Source: fold, Example: "5f0c1d6a9e2b47c80d3e6f1a2b9c4d55", Meaning: "Session that raised it"},
		sessionID(func(a *Alert) *session.ID { return &a.SessionID })},
	{Info{Name: "kind", ClickHouse: keyword, Source: fold, Example: "overlap", Meaning: "What kind of alert"},
		text(func(a *Alert) *string { return &a.Kind })},
	{Info{Name: "message", ClickHouse: "String", Codec: packed, Source: fold, Example: "dst sent 312 bytes again with another content", Meaning: "What happened, for people"},
		text(func(a *Alert) *string { return &a.Message })},
})
