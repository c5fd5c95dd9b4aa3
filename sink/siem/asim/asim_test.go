package asim_test

import (
	"testing"

	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/sink/siem/asim"
	"github.com/tapweave/tapweave/sink/siem/siemtest"
)

func TestValues(t *testing.T) {
	siemtest.Expect(t, asim.Append(nil, siemtest.Example()), map[string]string{
		"TimeGenerated":              "2026-03-01T09:15:04.623456789Z",
		"EventStartTime":             "2026-03-01T09:15:02.123456789Z",
		"EventSchema":                "NetworkSession",
		"EventSchemaVersion":         "0.2.7",
		"EventType":                  "NetworkSession",
		"EventSubType":               "End",
		"EventResult":                "Success",
		"EventResultDetails":         "Terminated",
		"EventOriginalUid":           "5f0c0000000000000000000000000055:3",
		"EventSeverity":              "Informational",
		"Dvc":                        "collector-1",
		"SrcIpAddr":                  "10.0.0.4",
		"DstPortNumber":              "443",
		"SrcHostname":                "vm-web-1",
		"DstHostname":                "example",
		"DstDomain":                  "com",
		"DstFQDN":                    "example.com",
		"DstGeoCountry":              "US",
		"NetworkDirection":           "Outbound",
		"NetworkProtocol":            "TCP",
		"NetworkApplicationProtocol": "tls",
		"NetworkDuration":            "2500",
		"NetworkBytes":               "20070",
		"SrcMacAddr":                 "00:0D:3A:12:34:56",
		"AdditionalFields.TlsSni":    "example.com",
		"AdditionalFields.SrcSubnet": "web",
		"ThreatName":                 "",
	})
}

func TestApplications(t *testing.T) {
	s := siemtest.Example()
	s.App, s.IPProtocol, s.DNSQuery, s.DNSType, s.DNSRcode, s.DNSAnswers = "dns", packet.ProtoUDP, "example.com", "A", "NXDOMAIN", []string{"a", "b"}
	siemtest.Expect(t, asim.Append(nil, s), map[string]string{
		"EventSchema": "Dns", "EventSchemaVersion": "0.1.7", "EventType": "Query", "EventSubType": "response", "EventResult": "Failure",
		"EventResultDetails": "NXDOMAIN", "DnsResponseCodeName": "NXDOMAIN", "DnsResponseCode": "3", "DnsQuery": "example.com", "DnsQueryTypeName": "A",
		"DnsResponseName": "a; b", "NetworkProtocol": "UDP", "SrcBytes": "",
	})
	s.DNSRcode = ""
	siemtest.Expect(t, asim.Append(nil, s), map[string]string{"EventSubType": "request", "EventResult": "NA", "DnsResponseCodeName": "NA", "DnsResponseCode": ""})
	s.DNSRcode = "RCODE23"
	siemtest.Expect(t, asim.Append(nil, s), map[string]string{"DnsResponseCodeName": "RCODE23", "DnsResponseCode": "23"})
	s = siemtest.Example()
	s.App, s.HTTPMethod, s.HTTPHost, s.HTTPPath, s.HTTPStatus, s.HTTPUserAgent = "http", "POST", "api.example:8080", "/login?next=%2F", 404, "curl/8.5.0"
	siemtest.Expect(t, asim.Append(nil, s), map[string]string{
		"EventSchema": "WebSession", "EventType": "HTTPsession", "EventResult": "Failure", "EventResultDetails": "404", "HttpStatusCode": "404",
		"Url": "http://api.example:8080/login?next=%2F", "HttpRequestMethod": "POST", "HttpUserAgent": "curl/8.5.0", "NetworkBytes": "20070",
	})
}

func TestResults(t *testing.T) {
	for _, c := range []struct {
		protocol                      uint8
		state, reason, result, detail string
	}{
		{packet.ProtoTCP, "SF", "fin", "Success", "Terminated"}, {packet.ProtoTCP, "REJ", "rst", "Failure", "Reset"}, {packet.ProtoTCP, "S0", "idle", "Failure", "Timeout"},
		{packet.ProtoUDP, "S0", "idle", "NA", "Timeout"}, {packet.ProtoUDP, "SF", "idle", "Success", "Timeout"}, {packet.ProtoTCP, "OTH", "end", "NA", "NA"},
	} {
		s := siemtest.Example()
		s.IPProtocol, s.ConnState, s.CloseReason = c.protocol, c.state, c.reason
		siemtest.Expect(t, asim.Append(nil, s), map[string]string{"EventResult": c.result, "EventResultDetails": c.detail, "EventOriginalResultDetails": c.state})
	}
}

func BenchmarkAppend(b *testing.B) { siemtest.Benchmark(b, asim.Append) }
