package asim

import (
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/sink/siem/document"
)

var severities = [...]string{
	document.Unknown: `"EventSeverity":"Informational"`, document.Low: `"EventSeverity":"Low"`,
	document.Medium: `"EventSeverity":"Medium"`, document.High: `"EventSeverity":"High"`,
}

// AppendAlert appends the AlertEvent of an alert, without a line end. Its id is session_id:kind:time. AlertEvent has no
// columns for two ends: they are in AdditionalFields.
func AppendAlert(dst []byte, a *columns.Alert) []byte {
	kind := document.KindOf(a)
	w := document.Begin(dst)
	common(&w, a.Time, a.Time)
	w.Raw(`"EventSchema":"AlertEvent","EventSchemaVersion":"` + AlertVersion + `","EventType":"Alert","EventResult":"NA","Dvc":"Tapweave"`)
	w.Raw(severities[kind.Severity])
	w.AlertID(`"EventUid":`, a)
	w.AlertID(`"AlertId":`, a)
	w.AlertID(`"EventOriginalUid":`, a)
	w.Text(`"EventOriginalType":`, a.Kind)
	w.Text(`"AlertName":`, kind.Title)
	w.Text(`"EventMessage":`, a.Message)
	w.Text(`"AlertDescription":`, a.Message)
	w.Text(`"RuleName":`, a.Kind)
	w.Text(`"Rule":`, a.Kind)
	if a.Kind == "threat" {
		w.Raw(`"EventSubType":"Threat","DetectionMethod":"Threat Intelligence"`)
	} else {
		w.Raw(`"EventSubType":"Suspicious Activity","DetectionMethod":"Intrusion Detection"`)
	}
	w.Text(`"ThreatName":`, a.Threat)
	if a.Confidence != 0 {
		w.Uint(`"ThreatConfidence":`, uint64(min(a.Confidence, 100)))
	}
	switch document.Indicator(a.Indicator) {
	case document.IPv4, document.IPv6, document.Prefix:
		w.Raw(`"IndicatorType":"Ip"`)
	case document.Domain:
		w.Raw(`"IndicatorType":"Host"`)
	case document.Fingerprint, document.NoIndicator: // ASIM has no type for them
	}
	w.Open(`"AdditionalFields":{`)
	w.Text(`"Tenant":`, a.Tenant)
	w.SessionID(`"SessionId":`, a.SessionID)
	w.Text(`"Indicator":`, a.Indicator)
	w.Address(`"SrcIpAddr":`, a.Src)
	w.Address(`"DstIpAddr":`, a.Dst)
	w.Uint(`"IpProtocol":`, uint64(a.IPProtocol))
	w.Uint(`"SrcPort":`, uint64(a.SrcPort))
	w.Uint(`"DstPort":`, uint64(a.DstPort))
	w.Close()
	return w.End()
}
