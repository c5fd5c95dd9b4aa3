package ocsf

import (
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/jsontext"
	"github.com/tapweave/tapweave/sink/siem/document"
)

var (
	severities = [...]string{
		document.Unknown: `"severity_id":0,"severity":"Unknown"`, document.Low: `"severity_id":2,"severity":"Low"`,
		document.Medium: `"severity_id":3,"severity":"Medium"`, document.High: `"severity_id":4,"severity":"High"`,
	}
	confidences = [...]string{
		document.Unknown: `"confidence_id":0,"confidence":"Unknown"`, document.Low: `"confidence_id":1,"confidence":"Low"`,
		document.Medium: `"confidence_id":2,"confidence":"Medium"`, document.High: `"confidence_id":3,"confidence":"High"`,
	}
)

// AppendAlert appends the Detection Finding of an alert, without a line end. Its id is session_id:kind:time.
func AppendAlert(dst []byte, a *columns.Alert) []byte {
	var text [2][64]byte
	src, dest := jsontext.AppendAddress(text[0][:0], a.Src), jsontext.AppendAddress(text[1][:0], a.Dst)
	kind := document.KindOf(a)
	w := document.Begin(dst)
	w.Raw(`"class_uid":2004,"class_name":"Detection Finding","category_uid":2,"category_name":"Findings",` +
		`"activity_id":1,"activity_name":"Create","type_uid":200401,"type_name":"Detection Finding: Create","status_id":1,"status":"New","is_alert":true`)
	w.Raw(severities[kind.Severity])
	w.Raw(confidences[document.Confidence(a.Confidence)])
	if a.Confidence > 0 {
		w.Uint(`"confidence_score":`, uint64(a.Confidence))
	}
	w.Millis(`"time":`, a.Time)
	w.Text(`"message":`, a.Message)
	w.Open(`"metadata":{"version":"` + Version + `",` + product + `,"log_name":"tapweave.alerts"`)
	if a.Threat != "" {
		w.Raw(`"profiles":["osint"]`)
	}
	w.AlertID(`"uid":`, a)
	w.SessionID(`"correlation_uid":`, a.SessionID)
	w.Text(`"tenant_uid":`, a.Tenant)
	w.Close()
	w.Open(`"finding_info":{`)
	w.AlertID(`"uid":`, a)
	w.Text(`"title":`, kind.Title)
	w.Text(`"desc":`, a.Message)
	w.Millis(`"created_time":`, a.Time)
	w.Open(`"analytic":{"type_id":1,"type":"Rule"`)
	w.Text(`"uid":`, a.Kind)
	w.Close()
	w.Close()
	w.Open(`"evidences":[`)
	w.Open(`{`)
	w.Open(`"connection_info":{"direction_id":0,"direction":"Unknown"`)
	w.SessionID(`"uid":`, a.SessionID)
	w.Uint(`"protocol_num":`, uint64(a.IPProtocol))
	w.Text(`"protocol_name":`, columns.Protocol(a.IPProtocol))
	w.Close()
	alertEnd(&w, `"src_endpoint":{`, src, a.SrcPort, a.IPProtocol)
	alertEnd(&w, `"dst_endpoint":{`, dest, a.DstPort, a.IPProtocol)
	w.Close()
	w.CloseList()
	w.Open(`"observables":[`)
	w.Open(`{"name":"evidences[0].src_endpoint.ip",` + observableIP)
	w.Quoted(`"value":`, src)
	w.Close()
	w.Open(`{"name":"evidences[0].dst_endpoint.ip",` + observableIP)
	w.Quoted(`"value":`, dest)
	w.Close()
	w.CloseList()
	if a.Threat != "" {
		w.Open(`"osint":[`)
		switch document.Indicator(a.Indicator) {
		case document.IPv4, document.IPv6, document.Prefix:
			w.Open(`{"type_id":1,"type":"IP Address"`)
		case document.Domain:
			w.Open(`{"type_id":2,"type":"Domain"`)
		case document.Fingerprint:
			w.Open(`{"type_id":4,"type":"Hash"`)
		default:
			w.Open(`{"type_id":0,"type":"Unknown"`)
		}
		w.Key(`"value":`)
		w.Value(a.Indicator)
		w.Text(`"name":`, a.Threat)
		w.Close()
		w.CloseList()
	}
	w.Open(`"unmapped":{`)
	w.Text(`"kind":`, a.Kind)
	w.Text(`"indicator":`, a.Indicator)
	w.SessionID(`"session_id":`, a.SessionID)
	if document.IsICMP(a.IPProtocol) {
		w.Uint(`"icmp_type":`, uint64(a.SrcPort))
		w.Uint(`"icmp_code":`, uint64(a.DstPort))
	}
	w.Close()
	return w.End()
}

func alertEnd(w *document.Writer, key string, ip []byte, port uint16, protocol uint8) {
	w.Open(key)
	w.Quoted(`"ip":`, ip)
	if document.HasPorts(protocol) {
		w.Uint(`"port":`, uint64(port))
	}
	w.Close()
}
