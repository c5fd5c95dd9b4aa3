package ecs_test

import (
	"strings"
	"testing"

	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/sink/siem/ecs"
	"github.com/tapweave/tapweave/sink/siem/siemtest"
)

func TestValues(t *testing.T) {
	siemtest.Expect(t, ecs.Append(nil, siemtest.Example()), map[string]string{
		"@timestamp":                        "2026-03-01T09:15:04.623456789Z",
		"ecs.version":                       "9.4.0",
		"event.kind":                        "event",
		"event.category":                    "[network]",
		"event.type":                        "[connection start end protocol]",
		"event.id":                          "5f0c0000000000000000000000000055:3",
		"event.start":                       "2026-03-01T09:15:02.123456789Z",
		"event.end":                         "2026-03-01T09:15:04.623456789Z",
		"event.duration":                    "2500000000",
		"network.transport":                 "tcp",
		"network.iana_number":               "6",
		"network.type":                      "ipv4",
		"network.protocol":                  "tls",
		"network.bytes":                     "20070",
		"network.packets":                   "27",
		"network.direction":                 "outbound",
		"source.ip":                         "10.0.0.4",
		"source.port":                       "49152",
		"source.bytes":                      "1840",
		"source.domain":                     "vm-web-1",
		"source.mac":                        "00-0D-3A-12-34-56",
		"client.ip":                         "10.0.0.4",
		"destination.packets":               "15",
		"destination.domain":                "example.com",
		"destination.as.organization.name":  `EXAMPLE "AS"`,
		"destination.mac":                   "",
		"server.as.number":                  "64500",
		"tls.version":                       "1.3",
		"tls.version_protocol":              "tls",
		"tls.next_protocol":                 "h2",
		"tls.client.server_name":            "example.com",
		"related.ip":                        "[10.0.0.4 93.184.215.14]",
		"related.hosts":                     "[vm-web-1 example.com]",
		"related.hash":                      "[e7d705a3286e19ea42f587b344ee6865]",
		"http":                              "",
		"dns":                               "",
		"threat":                            "",
		"tapweave.session_id":               "5f0c0000000000000000000000000055",
		"tapweave.version":                  "3",
		"tapweave.conn_state":               "SF",
		"tapweave.destination.missed_bytes": "1460",
		"tapweave.source.subnet":            "web",
		"tapweave.ja4":                      "t13d1516h2_8daaf6152771_b186095e22b6",
	})
}

func TestApplications(t *testing.T) {
	s := siemtest.Example()
	s.App, s.IPProtocol, s.DNSQuery, s.DNSType, s.DNSRcode = "dns", packet.ProtoUDP, "example.com", "A", "NOERROR"
	s.DNSAnswers, s.DNSQueries = []string{"alias.example", "93.184.215.14"}, []string{"example.com", "example.org"}
	siemtest.Expect(t, ecs.Append(nil, s), map[string]string{
		"dns.type":          "answer",
		"dns.question.name": "example.com",
		"dns.question.type": "A",
		"dns.response_code": "NOERROR",
		"dns.answers":       "[map[data:alias.example] map[data:93.184.215.14 type:A]]",
		"dns.resolved_ip":   "[93.184.215.14]",
		"related.ip":        "[10.0.0.4 93.184.215.14 93.184.215.14]",
		"related.hosts":     "[vm-web-1 example.com example.org]",
	})
	s = siemtest.Example()
	s.App, s.HTTPMethod, s.HTTPHost, s.HTTPPath, s.HTTPStatus = "http", "POST", "api.example:8080", "/login?next=%2F", 302
	s.HTTPUserAgent, s.HTTPHosts, s.TLSSNI = "curl/8.5.0", []string{"api.example:8080", "b.example"}, ""
	siemtest.Expect(t, ecs.Append(nil, s), map[string]string{
		"http.request.method":       "POST",
		"http.response.status_code": "302",
		"url.full":                  "http://api.example:8080/login?next=%2F",
		"url.domain":                "api.example",
		"url.port":                  "8080",
		"url.path":                  "/login",
		"url.query":                 "next=%2F",
		"user_agent.original":       "curl/8.5.0",
		"destination.domain":        "api.example",
		"related.hosts":             "[vm-web-1 api.example b.example]",
	})
}

// Where a name was asked for, the address need not be what is on the list.
func TestThreat(t *testing.T) {
	s := siemtest.Example()
	s.DstLabels.Threat, s.TLSSNI = "botnet-c2", ""
	siemtest.Expect(t, ecs.Append(nil, s), map[string]string{
		"threat.indicator.name": "botnet-c2", "threat.indicator.type": "ipv4-addr", "threat.indicator.ip": "93.184.215.14", "tapweave.destination.threat": "botnet-c2",
	})
	s.TLSSNI = "evil.example"
	siemtest.Expect(t, ecs.Append(nil, s), map[string]string{"threat.indicator.name": "botnet-c2", "threat.indicator.ip": ""})
	s.DstLabels.Threat, s.SrcLabels.Threat = "", "scanner"
	siemtest.Expect(t, ecs.Append(nil, s), map[string]string{"threat.indicator.name": "scanner", "threat.indicator.ip": "10.0.0.4"})
}

// A version of a session that goes on says so.
func TestUpdate(t *testing.T) {
	s := siemtest.Example()
	s.IsFinal, s.CloseReason = false, ""
	siemtest.Expect(t, ecs.Append(nil, s), map[string]string{"event.type": "[connection start protocol]", "tapweave.final": "false", "event.reason": ""})
}

// The type and code of ICMP are no ports.
func TestICMP(t *testing.T) {
	s := siemtest.Example()
	s.IPProtocol, s.SrcPort, s.DstPort = packet.ProtoICMP, 8, 0
	b := string(ecs.Append(nil, s))
	if strings.Contains(b, `"port"`) || !strings.Contains(b, `"icmp_type":8`) || !strings.Contains(b, `"icmp_code":0`) {
		t.Error(b)
	}
}

func BenchmarkAppend(b *testing.B) { siemtest.Benchmark(b, ecs.Append) }
