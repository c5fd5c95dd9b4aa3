package ecs_test

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/session"
	"github.com/tapweave/tapweave/sink/siem/ecs"
)

// schema reads Elastic's list of fields, which lies beside the project: by name, type and whether it is an array.
func schema(t *testing.T) map[string][2]string {
	name := os.Getenv("TAPWEAVE_ECS_FIELDS")
	if name == "" {
		name = "../../../../shared/schemas/ecs-" + ecs.Version + "-fields.csv"
	}
	f, err := os.Open(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("Elastic's list of fields is not there (TAPWEAVE_ECS_FIELDS): %v", err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	head, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	column := func(name string) int { return slices.Index(head, name) }
	fields := map[string][2]string{}
	for {
		line, err := r.Read()
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if v := line[column("ECS_Version")]; v != ecs.Version {
			t.Fatalf("list of ECS %s, documents of %s", v, ecs.Version)
		}
		fields[line[column("Field")]] = [2]string{line[column("Type")], line[column("Normalization")]}
	}
	if len(fields) < 1000 {
		t.Fatalf("only %d fields", len(fields))
	}
	return fields
}

func example() *columns.Session {
	s := columns.NewSession()
	s.Tenant, s.CommunityID, s.Version = "default", "1:LQU9qZlK+B5F3KDmev6m5PMibrg=", 3
	s.ID = session.ID{0x5f, 0x0c, 15: 0x55}
	s.Start = time.Date(2026, 3, 1, 9, 15, 2, 123456789, time.UTC).UnixNano()
	s.End = s.Start + 2_500_000_000
	s.Src, s.Dst = packet.AddrFrom(netip.MustParseAddr("10.0.0.4")), packet.AddrFrom(netip.MustParseAddr("93.184.215.14"))
	s.SrcPort, s.DstPort, s.IPProtocol = 49152, 443, packet.ProtoTCP
	s.SrcPackets, s.DstPackets, s.SrcBytes, s.DstBytes = 12, 15, 1840, 18230
	s.SrcPayloadBytes, s.DstPayloadBytes, s.DstMissedBytes = 1200, 17440, 1460
	s.SrcMAC, s.DstMAC = columns.MAC{0, 0x0d, 0x3a, 0x12, 0x34, 0x56}, columns.MAC{}
	s.ConnState, s.History, s.CloseReason, s.IsFinal = "SF", "ShADadFf", "fin", true
	s.App, s.Direction, s.FlowType = "tls", "outbound", "ExternalPublic"
	s.VLANs = []uint16{100}
	s.SrcLabels = columns.Labels{Name: "vm-web-1", Subnet: "web", VNet: "spoke-1"}
	s.DstLabels = columns.Labels{Country: "US", ASN: 64500, ASOrg: `EXAMPLE "AS"`, Threat: "botnet-c2"}
	return s
}

// leaves calls each with every value of a document, by its path.
func leaves(t *testing.T, path string, v any, each func(path string, v any)) {
	object, ok := v.(map[string]any)
	if !ok {
		each(path, v)
		return
	}
	for key, value := range object {
		if strings.Contains(key, ".") {
			t.Errorf("key %q below %q has a dot", key, path)
		}
		leaves(t, strings.TrimPrefix(path+"."+key, "."), value, each)
	}
}

func parse(t *testing.T, b []byte) any {
	var v any
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return v
}

// Every field but those of our own is ECS's, of its type, and an array where ECS has one.
func TestFields(t *testing.T) {
	fields := schema(t)
	icmp := example()
	icmp.IPProtocol, icmp.SrcPort, icmp.DstPort = packet.ProtoICMP, 8, 0
	for _, s := range []*columns.Session{example(), icmp, columns.NewSession()} {
		seen := 0
		leaves(t, "", parse(t, ecs.Append(nil, s)), func(path string, v any) {
			if strings.HasPrefix(path, "tapweave.") {
				return
			}
			seen++
			f, ok := fields[path]
			if !ok {
				t.Errorf("ECS has no field %s", path)
				return
			}
			list, isList := v.([]any)
			if isList != (f[1] == "array") {
				t.Errorf("%s is %v, ECS's normalization is %q", path, v, f[1])
			}
			if !isList {
				list = []any{v}
			}
			for _, v := range list {
				if err := fits(f[0], v); err != nil {
					t.Errorf("%s: %v", path, err)
				}
			}
		})
		if seen < 20 {
			t.Errorf("%d fields of ECS", seen)
		}
	}
}

func fits(kind string, v any) error {
	text, isText := v.(string)
	var err error
	switch kind {
	case "keyword":
		if !isText {
			err = fmt.Errorf("%v is no keyword", v)
		}
	case "date":
		_, err = time.Parse(time.RFC3339Nano, text)
	case "ip":
		_, err = netip.ParseAddr(text)
	case "long":
		n, ok := v.(json.Number)
		if !ok {
			return fmt.Errorf("%v is no number", v)
		}
		_, err = n.Int64()
	default:
		err = fmt.Errorf("type %s", kind)
	}
	return err
}

func TestValues(t *testing.T) {
	got := map[string]string{}
	leaves(t, "", parse(t, ecs.Append(nil, example())), func(path string, v any) { got[path] = fmt.Sprint(v) })
	for path, want := range map[string]string{
		"@timestamp":                        "2026-03-01T09:15:04.623456789Z",
		"ecs.version":                       "9.4.0",
		"event.kind":                        "event",
		"event.category":                    "[network]",
		"event.type":                        "[connection end start]",
		"event.id":                          "5f0c0000000000000000000000000055:3",
		"event.start":                       "2026-03-01T09:15:02.123456789Z",
		"event.end":                         "2026-03-01T09:15:04.623456789Z",
		"event.duration":                    "2500000000",
		"network.transport":                 "tcp",
		"network.type":                      "ipv4",
		"network.protocol":                  "tls",
		"network.bytes":                     "20070",
		"network.packets":                   "27",
		"network.direction":                 "outbound",
		"source.ip":                         "10.0.0.4",
		"source.port":                       "49152",
		"source.bytes":                      "1840",
		"source.mac":                        "00-0D-3A-12-34-56",
		"destination.packets":               "15",
		"destination.as.organization.name":  `EXAMPLE "AS"`,
		"destination.mac":                   "<nil>",
		"related.ip":                        "[10.0.0.4 93.184.215.14]",
		"tapweave.session_id":               "5f0c0000000000000000000000000055",
		"tapweave.version":                  "3",
		"tapweave.conn_state":               "SF",
		"tapweave.destination.missed_bytes": "1460",
	} {
		have, ok := got[path]
		if !ok {
			have = "<nil>"
		}
		if have != want {
			t.Errorf("%s: %s, want %s", path, have, want)
		}
	}
}

// The type and code of ICMP are no ports.
func TestICMP(t *testing.T) {
	s := example()
	s.IPProtocol, s.SrcPort, s.DstPort = packet.ProtoICMP, 8, 0
	b := string(ecs.Append(nil, s))
	if strings.Contains(b, `"port"`) || !strings.Contains(b, `"icmp_type":8`) || !strings.Contains(b, `"icmp_code":0`) {
		t.Error(b)
	}
}

func FuzzAppend(f *testing.F) {
	f.Add("plain", 0.5, int64(1772356502123456789))
	f.Add("\xff\"\\\x00\u2028<>&", math.NaN(), int64(math.MinInt64))
	f.Add("", math.Inf(1), int64(math.MaxInt64))
	f.Fuzz(func(t *testing.T, text string, number float64, ns int64) {
		s := example()
		s.Tenant, s.History, s.SrcLabels.Name, s.Direction = text, text, text, text
		s.Sampled, s.Start = number, ns
		b := ecs.Append([]byte("x"), s)[1:]
		if strings.ContainsAny(string(b), "\n\r\x00") {
			t.Fatalf("%q", b)
		}
		got := parse(t, b).(map[string]any)["tapweave"].(map[string]any)
		want := string([]rune(text)) // what is no UTF-8 is replaced, byte by byte
		if h, _ := got["history"].(string); h != want {
			t.Fatalf("%q became %q", text, h)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	s := example()
	var buf []byte
	b.ReportAllocs()
	for range b.N {
		buf = ecs.Append(buf[:0], s)
	}
	b.SetBytes(int64(len(buf)))
}
