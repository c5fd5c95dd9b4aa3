package query_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapweave/tapweave/deploy/standalone/query"
	"github.com/tapweave/tapweave/deploy/standalone/rowstest"
	"github.com/tapweave/tapweave/proto/capturetest"
)

// conversation is what tshark says of one in a capture: what a sent, and what b did.
type conversation struct {
	A, B struct {
		IP   string
		Port int
	}
	Frames   float64 `json:"frames_a"`
	Returned float64 `json:"frames_b"`
	Bytes    float64 `json:"ip_bytes_a"`
	Answered float64 `json:"ip_bytes_b"`
	First    string  `json:"first_ts"`
	SynFrom  string  `json:"syn_from"`
}

type truth struct {
	TCP, UDP []conversation
	Names    struct {
		SNI      []string `json:"sni"`
		Host     []string `json:"http_host"`
		Question []string `json:"dns_qname"`
	}
}

// The words of the field say what the sessions say: every conversation of two captures, over IPv4 and IPv6, with the figures
// that tshark has.
func TestViews(t *testing.T) {
	for _, name := range []string{"suricata-verify__tls-subjectaltname__input.pcap", "zeek__ipv6-http-atomic-frag.pcap"} {
		t.Run(name, func(t *testing.T) {
			path := capturetest.File(t, name)
			b, err := os.ReadFile(capturetest.Truth(path))
			if err != nil {
				t.Fatal(err)
			}
			var want truth
			if err := json.Unmarshal(b, &want); err != nil {
				t.Fatal(err)
			}
			c, server := rowstest.Database(t, path)
			d := query.Database{Server: server, Name: c.Database}
			ask := func(sql string) []row {
				t.Helper()
				var out bytes.Buffer
				if err := d.Run(t.Context(), "json", sql, nil, &out); err != nil {
					t.Fatal(err)
				}
				return rows(t, out.Bytes())
			}
			analytics := ask("SELECT * FROM NTANetAnalytics")
			zeek, ipfix := ask("SELECT * FROM zeek_conn"), ask("SELECT * FROM ipfix")
			seconds := func(stamp any) string { // as tshark prints them
				at, err := time.Parse("2006-01-02 15:04:05.999999999", fmt.Sprint(stamp))
				if err != nil {
					t.Fatal(err)
				}
				return fmt.Sprintf("%d.%09d", at.Unix(), at.Nanosecond())
			}
			checked := 0
			for _, p := range []struct {
				number       float64
				letter, name string
				list         []conversation
			}{{6, "T", "tcp", want.TCP}, {17, "U", "udp", want.UDP}} {
				for _, c := range p.list {
					if p.number == 6 && c.SynFrom != "a" {
						continue // who began it is not tshark's to say
					}
					a, b := float64(c.A.Port), float64(c.B.Port)
					checked++
					r := find(analytics, row{"SrcIp": c.A.IP, "SrcPorts": fmt.Sprint(c.A.Port), "DestIp": c.B.IP, "DestPort": b, "L4Protocol": p.letter})
					if r.number("BytesSrcToDest") != c.Bytes || r.number("BytesDestToSrc") != c.Answered || r.number("PacketsSrcToDest") != c.Frames || r.number("PacketsDestToSrc") != c.Returned ||
						seconds(r["FlowStartTime"]) != c.First || r["SubType"] != "FlowLog" || r["AclRule"] != nil || r["FlowStatus"] != nil {
						t.Errorf("NTANetAnalytics: %v\nwant %+v", r, c)
					}
					r = find(zeek, row{"id.orig_h": c.A.IP, "id.orig_p": a, "id.resp_h": c.B.IP, "id.resp_p": b, "proto": p.name})
					if r.number("orig_ip_bytes") != c.Bytes || r.number("resp_ip_bytes") != c.Answered || r.number("orig_pkts") != c.Frames || r.number("resp_pkts") != c.Returned ||
						seconds(r["ts"]) != c.First || r["uid"] == "" || !strings.HasPrefix(fmt.Sprint(r["community_id"]), "1:") {
						t.Errorf("zeek_conn: %v\nwant %+v", r, c)
					}
					source, destination, version := "sourceIPv4Address", "destinationIPv4Address", 4.0
					if strings.Contains(c.A.IP, ":") {
						source, destination, version = "sourceIPv6Address", "destinationIPv6Address", 6
					}
					r = find(ipfix, row{source: c.A.IP, "sourceTransportPort": a, destination: c.B.IP, "destinationTransportPort": b, "protocolIdentifier": p.number, "ipVersion": version})
					if r.number("octetDeltaCount") != c.Bytes || r.number("reverseOctetDeltaCount") != c.Answered || r.number("packetDeltaCount") != c.Frames ||
						seconds(r["flowStartNanoseconds"]) != c.First || version == 4 && r["sourceIPv6Address"] != nil || version == 6 && r["sourceIPv4Address"] != nil {
						t.Errorf("ipfix: %v\nwant %+v", r, c)
					}
				}
			}
			if checked == 0 {
				t.Error("no conversation was looked for")
			}
			for view, names := range map[string][]string{"tls": want.Names.SNI, "http": want.Names.Host, "dns": want.Names.Question} {
				columns := map[string]string{"tls": "[tls_sni]", "http": "arrayConcat([http_host], http_hosts)", "dns": "arrayConcat([dns_query], dns_queries)"}
				var got []string
				for _, r := range ask("SELECT DISTINCT arrayJoin(" + columns[view] + ") AS name FROM " + view + " WHERE name != '' ORDER BY name") {
					got = append(got, fmt.Sprint(r["name"]))
				}
				slices.Sort(names)
				if !slices.Equal(got, slices.Compact(names)) {
					t.Errorf("%s: %q, want %q", view, got, names)
				}
			}
		})
	}
}
