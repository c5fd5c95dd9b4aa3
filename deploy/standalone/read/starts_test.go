package read

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapweave/tapweave/collector/sample"
	"github.com/tapweave/tapweave/enricher/application"
	"github.com/tapweave/tapweave/enricher/application/applicationtest"
	"github.com/tapweave/tapweave/proto/capturetest"
	"github.com/tapweave/tapweave/proto/packet"
)

// TestStartsNames lets the collectors' default sampling decide what travels of the first packets of many protocols:
// it is enough to name them.
func TestStartsNames(t *testing.T) {
	for i := range applicationtest.Samples {
		s := &applicationtest.Samples[i]
		sampler := sample.New(sample.DefaultConfiguration())
		var session application.Session
		var set application.Settings
		take := func(side uint8, payload []byte) {
			if len(payload) == 0 {
				return
			}
			p := packet.Packet{Data: payload, Payload: uint32(len(payload)), Flags: packet.ACK | packet.PSH}
			if s.Datagrams() {
				sampler.Apply(&packet.Flow{Protocol: packet.ProtoUDP}, &p)
				session.Datagram(&set, side, p.Data, len(payload))
				return
			}
			sampler.Apply(&packet.Flow{Protocol: packet.ProtoTCP}, &p)
			session.Segment(&set, side, application.Place{Size: int64(len(payload)), Known: true}, p.Data)
		}
		take(0, s.Client)
		take(1, s.Server)
		for _, d := range s.Asks {
			take(0, d)
		}
		for _, d := range s.Answers {
			take(1, d)
		}
		session.End(&set)
		ends := application.Ends{Addresses: [2]packet.Addr{1: s.Group}, Ports: s.Ports, UDP: s.Datagrams()}
		if got := session.Name(ends).String(); got != s.App {
			t.Errorf("%s: %q, want %q", s.Name, got, s.App)
		}
	}
}

// lessInStarts says where the default sampling tells less of a capture than all of its payload, and why.
var lessInStarts = map[string]string{
	"arkime__socks5-http-302-frag.pcap":         "a request in fragments of 24 bytes",
	"brimcap__oneflow.pcap":                     "encrypted records alone, which do not travel",
	"nDPI__tls_with_huge_ch.pcapng":             "a ClientHello over more than two segments has no fingerprint",
	"retina__quic.pcap":                         "encrypted records alone",
	"suricata-verify__dns_over_https_POST.pcap": "header fields of HTTP/2 do not travel, as they cannot be redacted",
}

// TestStartsFields wants the fields of applications to be the same with the default sampling as with all payload.
func TestStartsFields(t *testing.T) {
	for _, path := range capturetest.Files(t) {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := applications(t, path, DefaultOptions())
			o := DefaultOptions()
			o.Sampling = sample.DefaultConfiguration()
			starts := applications(t, path, o)
			if len(starts) != len(all) {
				t.Fatalf("%d sessions, with all payload %d", len(starts), len(all))
			}
			differ := 0
			for id, want := range all {
				if starts[id] != want {
					if differ++; lessInStarts[name] == "" {
						t.Errorf("session %s: %s, with all payload %s", id, starts[id], want)
					}
				}
			}
			if reason := lessInStarts[name]; reason != "" && differ == 0 {
				t.Errorf("the same, though it should tell less: %s", reason)
			}
		})
	}
}

// applications returns what is said of each session's application.
func applications(t *testing.T, path string, o Options) map[string]string {
	t.Helper()
	var out bytes.Buffer
	if _, err := Run(o, []string{path}, &out); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for d := json.NewDecoder(&out); d.More(); {
		var line map[string]any
		if err := d.Decode(&line); err != nil {
			t.Fatal(err)
		}
		fields := map[string]any{}
		for k, v := range line {
			if prefix, _, _ := strings.Cut(k, "_"); k == "app" || prefix == "tls" || prefix == "http" || prefix == "dns" || prefix == "ssh" {
				fields[k] = v
			}
		}
		all[line["session_id"].(string)] = fmt.Sprint(fields)
	}
	return all
}

// FuzzApplications cuts what the sides of the captures' sessions begin with, and wants the name of the whole.
func FuzzApplications(f *testing.F) {
	const most = 4 << 10
	for _, path := range capturetest.Files(f) {
		var out bytes.Buffer
		o := DefaultOptions()
		o.Fold.KeepPayload = most
		if _, err := Run(o, []string{path}, &out); err != nil {
			f.Fatal(err)
		}
		seen := map[string]int{}
		for d := json.NewDecoder(&out); d.More(); {
			var s struct {
				App      string
				Protocol uint8  `json:"ip_protocol"`
				Src      []byte `json:"src_payload"`
				Dst      []byte `json:"dst_payload"`
			}
			if err := d.Decode(&s); err != nil {
				f.Fatal(err)
			}
			if len(s.Src)+len(s.Dst) > 0 && seen[s.App] < 3 {
				seen[s.App]++
				f.Add(s.Src, s.Dst, s.Protocol == packet.ProtoUDP, uint16(100))
			}
		}
	}
	f.Fuzz(func(t *testing.T, src, dst []byte, udp bool, size uint16) {
		set := application.Settings{Keep: 100}
		read := func(size int) string {
			var s application.Session
			for side, b := range [][]byte{src, dst} {
				if udp {
					s.Datagram(&set, uint8(side), b, len(b))
					s.Datagram(&set, uint8(side), b[:min(size, len(b))], len(b))
					continue
				}
				for at := 0; at < len(b); at += size {
					n := min(size, len(b)-at)
					s.Segment(&set, uint8(side), application.Place{Pos: int64(at), Size: int64(n), Known: true}, b[at:at+n])
				}
			}
			if most := 1 << 20; s.Bytes > most {
				t.Errorf("it holds %d bytes", s.Bytes)
			}
			s.End(&set)
			return s.Name(application.Ends{}).String()
		}
		whole, cut := read(1<<30), read(int(size)+1)
		if whole != cut && !udp {
			t.Errorf("%q whole, %q in segments of %d", whole, cut, size+1)
		}
	})
}
