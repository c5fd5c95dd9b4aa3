package ocsf_test

import (
	"testing"

	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/sink/siem/ocsf"
	"github.com/tapweave/tapweave/sink/siem/siemtest"
)

func TestValues(t *testing.T) {
	siemtest.Expect(t, ocsf.Append(nil, siemtest.Example()), map[string]string{
		"class_uid":                           "4001",
		"activity_name":                       "Close",
		"type_uid":                            "400102",
		"status":                              "Success",
		"status_detail":                       "fin",
		"severity":                            "Informational",
		"time":                                "1772356504623",
		"start_time":                          "1772356502123",
		"duration":                            "2500",
		"app_protocol_name":                   "tls",
		"metadata.uid":                        "5f0c0000000000000000000000000055:3",
		"metadata.version":                    "1.8.0",
		"src_endpoint.ip":                     "10.0.0.4",
		"src_endpoint.port":                   "49152",
		"src_endpoint.hostname":               "vm-web-1",
		"src_endpoint.vpc_uid":                "spoke-1",
		"src_endpoint.network_scope":          "Internal",
		"dst_endpoint.network_scope":          "External",
		"dst_endpoint.autonomous_system.name": `EXAMPLE "AS"`,
		"connection_info.direction":           "Outbound",
		"connection_info.boundary":            "External",
		"connection_info.protocol_name":       "tcp",
		"connection_info.flag_history":        "ShADadFf",
		"connection_info.community_uid":       "1:LQU9qZlK+B5F3KDmev6m5PMibrg=",
		"traffic.bytes_out":                   "1840",
		"traffic.bytes_in":                    "18230",
		"traffic.bytes_missed":                "1460",
		"tls.sni":                             "example.com",
		"tls.ja3_hash.value":                  "e7d705a3286e19ea42f587b344ee6865",
		"unmapped.conn_state":                 "SF",
		"unmapped.handshake_rtt":              "0.0312",
	})
}

// How a connection ended is the activity, and whether it came about the status.
func TestActivities(t *testing.T) {
	for _, c := range []struct {
		protocol                uint8
		state, activity, status string
	}{
		{packet.ProtoTCP, "SF", "Close", "Success"}, {packet.ProtoTCP, "RSTR", "Reset", "Success"}, {packet.ProtoTCP, "S0", "Fail", "Failure"},
		{packet.ProtoTCP, "REJ", "Refuse", "Failure"}, {packet.ProtoTCP, "S1", "Traffic", "Success"}, {packet.ProtoTCP, "OTH", "Traffic", "Unknown"},
		{packet.ProtoUDP, "SF", "Traffic", "Success"}, {packet.ProtoUDP, "S0", "Traffic", "Unknown"},
	} {
		s := siemtest.Example()
		s.IPProtocol, s.ConnState = c.protocol, c.state
		siemtest.Expect(t, ocsf.Append(nil, s), map[string]string{"activity_name": c.activity, "type_name": "Network Activity: " + c.activity, "status": c.status})
		s.IsFinal = false
		siemtest.Expect(t, ocsf.Append(nil, s), map[string]string{"activity_name": "Traffic", "status": c.status})
	}
}

func TestApplications(t *testing.T) {
	s := siemtest.Example()
	s.App, s.IPProtocol, s.DNSQuery, s.DNSType, s.DNSRcode = "dns", packet.ProtoUDP, "example.com", "A", "NXDOMAIN"
	siemtest.Expect(t, ocsf.Append(nil, s), map[string]string{
		"class_uid": "4003", "activity_name": "Traffic", "query.hostname": "example.com", "query.type": "A", "rcode": "NXDomain", "rcode_id": "3", "status": "Failure",
	})
	s.DNSRcode = ""
	siemtest.Expect(t, ocsf.Append(nil, s), map[string]string{"activity_name": "Query", "rcode": "", "status": "Unknown"})
	s = siemtest.Example()
	s.App, s.HTTPMethod, s.HTTPHost, s.HTTPPath, s.HTTPStatus, s.HTTPUserAgent = "http", "POST", "api.example:8080", "/login?next=%2F", 302, "curl/8.5.0"
	siemtest.Expect(t, ocsf.Append(nil, s), map[string]string{
		"class_uid": "4002", "type_name": "HTTP Activity: Post", "http_request.http_method": "POST", "http_request.url.hostname": "api.example",
		"http_request.url.port": "8080", "http_request.url.path": "/login", "http_request.url.query_string": "next=%2F",
		"http_request.url.url_string": "http://api.example:8080/login?next=%2F", "http_response.code": "302", "status": "Success",
	})
}

func TestThreat(t *testing.T) {
	s := siemtest.Example()
	s.SrcLabels.Threat, s.DstLabels.Threat = "scanner", "botnet-c2"
	siemtest.Expect(t, ocsf.Append(nil, s), map[string]string{
		"severity": "High", "metadata.profiles": "[osint]",
		"osint": "[map[name:scanner type:IP Address type_id:1 value:10.0.0.4] map[name:botnet-c2 type:Unknown type_id:0 value:93.184.215.14]]",
	})
}

func BenchmarkAppend(b *testing.B) { siemtest.Benchmark(b, ocsf.Append) }
