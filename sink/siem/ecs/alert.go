package ecs

import (
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/jsontext"
	"github.com/tapweave/tapweave/sink/siem/document"
)

// severities are event.severity: ours, as ECS leaves the scale to whoever writes it. Elastic's rules use it too.
var severities = [...]uint64{document.Unknown: 0, document.Low: 21, document.Medium: 47, document.High: 73}

// confidences are ECS's words for them.
var confidences = [...]string{document.Unknown: "Not Specified", document.Low: "Low", document.Medium: "Medium", document.High: "High"}

// AppendAlert appends the document of an alert, without a line end. Its id is session_id:kind:time.
func AppendAlert(dst []byte, a *columns.Alert) []byte {
	var text [2][64]byte
	src, dest := jsontext.AppendAddress(text[0][:0], a.Src), jsontext.AppendAddress(text[1][:0], a.Dst)
	kind := document.KindOf(a)
	indicator := document.Indicator(a.Indicator)
	w := document.Begin(dst)
	w.Time(`"@timestamp":`, a.Time)
	w.Raw(`"ecs":{"version":"` + Version + `"}`)
	w.Text(`"message":`, a.Message)
	w.Open(`"event":{"kind":"alert","module":"tapweave","dataset":"tapweave.alert"`)
	if a.Kind == "threat" {
		w.Raw(`"category":["network","threat"],"type":["indicator"]`)
	} else {
		w.Raw(`"category":["network","intrusion_detection"],"type":["info"]`)
	}
	w.Text(`"action":`, a.Kind)
	w.AlertID(`"id":`, a)
	w.Time(`"start":`, a.Time)
	w.Uint(`"severity":`, severities[kind.Severity])
	w.Text(`"reason":`, a.Message)
	w.Close()
	w.Open(`"rule":{`)
	w.Text(`"name":`, kind.Title)
	w.Text(`"id":`, a.Kind)
	w.Close()
	network(&w, a.Src, a.IPProtocol)
	w.Close()
	alertEnd(&w, `"source":`, `"client":`, src, a.SrcPort, a.IPProtocol)
	alertEnd(&w, `"destination":`, `"server":`, dest, a.DstPort, a.IPProtocol)
	w.Raw(observer)
	w.Open(`"related":{`)
	w.Open(`"ip":[`)
	w.Quoted("", src)
	if a.Dst != a.Src {
		w.Quoted("", dest)
	}
	w.CloseList()
	switch indicator {
	case document.Domain:
		w.Texts(`"hosts":`, []string{a.Indicator})
	case document.Fingerprint:
		w.Texts(`"hash":`, []string{a.Indicator})
	}
	w.Close()
	if a.Threat != "" {
		w.Open(`"threat":{`)
		w.Open(`"indicator":{`)
		w.Text(`"name":`, a.Threat)
		w.Text(`"description":`, a.Indicator)
		w.Plain(`"confidence":`, confidences[document.Confidence(a.Confidence)])
		switch indicator {
		case document.IPv4:
			w.Raw(`"type":"ipv4-addr"`)
			w.Text(`"ip":`, a.Indicator)
		case document.IPv6:
			w.Raw(`"type":"ipv6-addr"`)
			w.Text(`"ip":`, a.Indicator)
		case document.Domain:
			w.Raw(`"type":"domain-name"`)
			w.Open(`"url":{`)
			w.Text(`"domain":`, a.Indicator)
			w.Close()
		case document.Prefix, document.Fingerprint, document.NoIndicator: // ECS has no type for them
		}
		w.Close()
		w.Close()
	}
	w.Open(`"tapweave":{`)
	w.Text(`"tenant":`, a.Tenant)
	w.SessionID(`"session_id":`, a.SessionID)
	mark := w.Mark()
	w.Open(`"alert":{`)
	w.Text(`"kind":`, a.Kind)
	w.Text(`"threat":`, a.Threat)
	w.Text(`"indicator":`, a.Indicator)
	if a.Confidence != 0 {
		w.Uint(`"confidence":`, uint64(a.Confidence))
	}
	if document.IsICMP(a.IPProtocol) {
		w.Uint(`"icmp_type":`, uint64(a.SrcPort))
		w.Uint(`"icmp_code":`, uint64(a.DstPort))
	}
	w.CloseUnlessEmpty(mark)
	w.Close()
	return w.End()
}

func alertEnd(w *document.Writer, key, again string, ip []byte, port uint16, protocol uint8) {
	w.Key(key)
	from := w.Mark()
	w.Begin()
	w.Quoted(`"address":`, ip)
	w.Quoted(`"ip":`, ip)
	if document.HasPorts(protocol) {
		w.Uint(`"port":`, uint64(port))
	}
	w.Close()
	w.Copy(again, from, w.Mark())
}
