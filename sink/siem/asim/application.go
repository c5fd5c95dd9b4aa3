package asim

import (
	"strconv"
	"strings"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/sink/siem/document"
)

// rcodes are the numbers of DNS response codes (IANA, DNS Parameters, DNS RCODEs).
var rcodes = map[string]uint8{
	"NOERROR": 0, "FORMERR": 1, "SERVFAIL": 2, "NXDOMAIN": 3, "NOTIMP": 4, "REFUSED": 5, "YXDOMAIN": 6, "YXRRSET": 7,
	"NXRRSET": 8, "NOTAUTH": 9, "NOTZONE": 10, "DSOTYPENI": 11,
}

// dns writes the classification of a session as Dns, and what only that has.
func dns(w *document.Writer, s *columns.Session) {
	w.Raw(`"EventSchema":"Dns","EventSchemaVersion":"` + DNSVersion + `","EventType":"Query"`)
	switch s.DNSRcode {
	case "":
		w.Raw(`"EventSubType":"request","EventResult":"NA","EventResultDetails":"NA","DnsResponseCodeName":"NA"`)
	case "NOERROR":
		w.Raw(`"EventSubType":"response","EventResult":"Success","EventResultDetails":"NOERROR","DnsResponseCodeName":"NOERROR","DnsResponseCode":0`)
	default:
		w.Raw(`"EventSubType":"response","EventResult":"Failure"`)
		w.Text(`"EventResultDetails":`, s.DNSRcode)
		w.Text(`"DnsResponseCodeName":`, s.DNSRcode)
		if code, ok := rcodes[s.DNSRcode]; ok {
			w.Uint(`"DnsResponseCode":`, uint64(code))
		} else if code, err := strconv.ParseUint(strings.TrimPrefix(s.DNSRcode, "RCODE"), 10, 16); err == nil {
			w.Uint(`"DnsResponseCode":`, code)
		}
	}
	w.Text(`"DnsQuery":`, s.DNSQuery)
	w.Text(`"Domain":`, s.DNSQuery)
	w.Text(`"DnsQueryTypeName":`, s.DNSType)
	if len(s.DNSAnswers) > 0 {
		w.Joined(`"DnsResponseName":`, s.DNSAnswers, "; ")
	}
	w.SessionID(`"DnsSessionId":`, s.ID)
	w.SessionID(`"SessionId":`, s.ID)
	milliseconds := max(0, s.End-s.Start) / 1e6
	w.Int(`"DnsNetworkDuration":`, milliseconds)
	w.Int(`"Duration":`, milliseconds)
	switch s.IPProtocol {
	case packet.ProtoTCP:
		w.Raw(`"NetworkProtocol":"TCP"`)
	case packet.ProtoUDP:
		w.Raw(`"NetworkProtocol":"UDP"`)
	}
	w.Text(`"ThreatCategory":`, threatName(s))
}

// web writes the classification of a session as WebSession, and what only that has: the first request, and the
// first response.
func web(w *document.Writer, s *columns.Session) {
	w.Raw(`"EventSchema":"WebSession","EventSchemaVersion":"` + WebSessionVersion + `","EventType":"HTTPsession"`)
	switch {
	case s.HTTPStatus == 0:
		w.Raw(`"EventResult":"NA","EventResultDetails":"NA"`)
	case s.HTTPStatus < 400:
		w.Raw(`"EventResult":"Success"`)
	default:
		w.Raw(`"EventResult":"Failure"`)
	}
	if s.HTTPStatus != 0 {
		w.Digits(`"EventResultDetails":`, uint64(s.HTTPStatus))
		w.Digits(`"HttpStatusCode":`, uint64(s.HTTPStatus))
	}
	w.Text(`"EventOriginalResultDetails":`, s.ConnState)
	w.URL(`"Url":`, s)
	w.Text(`"HttpRequestMethod":`, s.HTTPMethod)
	w.Text(`"HttpUserAgent":`, s.HTTPUserAgent)
	w.Text(`"UserAgent":`, s.HTTPUserAgent)
	if s.App == "http2" {
		w.Raw(`"HttpVersion":"2"`)
	}
	w.Text(`"ThreatName":`, threatName(s))
}
