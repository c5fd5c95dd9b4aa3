package ocsf

import (
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/sink/siem/document"
)

// rcodes are OCSF's ids and captions of DNS response codes, by the mnemonics of IANA.
var rcodes = map[string]struct {
	id      uint8
	caption string
}{
	"NOERROR": {0, "NoError"}, "FORMERR": {1, "FormError"}, "SERVFAIL": {2, "ServError"}, "NXDOMAIN": {3, "NXDomain"},
	"NOTIMP": {4, "NotImp"}, "REFUSED": {5, "Refused"}, "YXDOMAIN": {6, "YXDomain"}, "YXRRSET": {7, "YXRRSet"},
	"NXRRSET": {8, "NXRRSet"}, "NOTAUTH": {9, "NotAuth"}, "NOTZONE": {10, "NotZone"}, "DSOTYPENI": {11, "DSOTYPENI"},
}

// dns writes the classification of a session as DNS Activity, and what only that has.
func dns(w *document.Writer, s *columns.Session) {
	const class = `"class_uid":4003,"class_name":"DNS Activity","category_uid":4,"category_name":"Network Activity",`
	switch {
	case s.DNSRcode == "":
		w.Raw(class + `"activity_id":1,"activity_name":"Query","type_uid":400301,"type_name":"DNS Activity: Query"`)
		w.Raw(unknown)
	case s.DNSQuery == "" || s.SrcPackets == 0 || s.DstPackets == 0:
		w.Raw(class + `"activity_id":2,"activity_name":"Response","type_uid":400302,"type_name":"DNS Activity: Response"`)
	default:
		w.Raw(class + `"activity_id":6,"activity_name":"Traffic","type_uid":400306,"type_name":"DNS Activity: Traffic"`)
	}
	if s.DNSQuery != "" {
		w.Open(`"query":{`)
		w.Text(`"hostname":`, s.DNSQuery)
		w.Text(`"type":`, s.DNSType)
		w.Close()
	}
	w.Millis(`"query_time":`, s.Start)
	if s.DNSRcode != "" {
		if s.DNSRcode == "NOERROR" {
			w.Raw(success)
		} else {
			w.Raw(failure)
		}
		code, ok := rcodes[s.DNSRcode]
		switch {
		case ok:
			w.Uint(`"rcode_id":`, uint64(code.id))
			w.Plain(`"rcode":`, code.caption)
		default:
			w.Raw(`"rcode_id":99`)
			w.Text(`"rcode":`, s.DNSRcode)
		}
	}
	if len(s.DNSAnswers) > 0 {
		w.Open(`"answers":[`)
		for _, a := range s.DNSAnswers {
			w.Open(`{`)
			w.Key(`"rdata":`)
			w.Value(a)
			w.Text(`"type":`, document.AddressType(a))
			w.Close()
		}
		w.CloseList()
	}
}

// methods are OCSF's ids and captions of HTTP activities.
var methods = map[string]struct {
	id            uint8
	caption, name string
}{
	"CONNECT": {1, "Connect", "HTTP Activity: Connect"},
	"DELETE":  {2, "Delete", "HTTP Activity: Delete"}, "GET": {3, "Get", "HTTP Activity: Get"},
	"HEAD": {4, "Head", "HTTP Activity: Head"}, "OPTIONS": {5, "Options", "HTTP Activity: Options"},
	"POST": {6, "Post", "HTTP Activity: Post"},
	"PUT":  {7, "Put", "HTTP Activity: Put"}, "TRACE": {8, "Trace", "HTTP Activity: Trace"}, "PATCH": {9, "Patch", "HTTP Activity: Patch"},
}

// http writes the classification of a session as HTTP Activity, and what only that has: the first request, and the
// first response.
func http(w *document.Writer, s *columns.Session) {
	const class = `"class_uid":4002,"class_name":"HTTP Activity","category_uid":4,"category_name":"Network Activity",`
	method, known := methods[s.HTTPMethod]
	switch {
	case known:
		w.Uint(class+`"activity_id":`, uint64(method.id))
		w.Plain(`"activity_name":`, method.caption)
		w.Uint(`"type_uid":`, 400200+uint64(method.id))
		w.Plain(`"type_name":`, method.name)
	case s.HTTPMethod == "":
		w.Raw(class + `"activity_id":0,"activity_name":"Unknown","type_uid":400200,"type_name":"HTTP Activity: Unknown"`)
	default:
		w.Raw(class + `"activity_id":99,"type_uid":400299,"type_name":"HTTP Activity: Other"`)
		w.Text(`"activity_name":`, s.HTTPMethod)
	}
	switch {
	case s.HTTPStatus == 0:
		w.Raw(unknown)
	case s.HTTPStatus < 400:
		w.Raw(success)
	default:
		w.Raw(failure)
	}
	mark := w.Mark()
	w.Open(`"http_request":{`)
	if known {
		w.Plain(`"http_method":`, s.HTTPMethod)
	}
	w.Text(`"user_agent":`, s.HTTPUserAgent)
	if s.App == "http2" {
		w.Raw(`"version":"2"`)
	}
	if s.HTTPPath != "" {
		w.Open(`"url":{"scheme":"http"`)
		host, port := document.Host(s.HTTPHost)
		w.Text(`"hostname":`, host)
		if port != 0 {
			w.Uint(`"port":`, uint64(port))
		}
		path, query := document.Path(s.HTTPPath)
		w.Key(`"path":`)
		w.Value(path)
		w.Text(`"query_string":`, query)
		w.URL(`"url_string":`, s)
		w.Close()
	}
	w.CloseUnlessEmpty(mark)
	if s.HTTPStatus != 0 {
		w.Open(`"http_response":{`)
		w.Uint(`"code":`, uint64(s.HTTPStatus))
		w.Close()
		w.Digits(`"status_code":`, uint64(s.HTTPStatus))
	}
}
