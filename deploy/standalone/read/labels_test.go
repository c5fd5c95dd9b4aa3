package read

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/enricher/labels"
	"github.com/tapweave/tapweave/enricher/labels/source"
	"github.com/tapweave/tapweave/proto/capturetest"
	"github.com/tapweave/tapweave/proto/pb"
)

// labelled are files that label much of what is in the captures.
func labelled(t testing.TB) source.Config {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) []string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{path}
	}
	return source.Config{
		Networks: write("networks.yaml", `
networks:
  - prefix: 10.0.0.0/8
    vnet: spoke
    labels: {env: test}
  - prefix: 192.168.0.0/16
    vnet: hub
    labels: {env: prod}
  - prefix: 192.168.1.0/24
    subnet: office
hosts:
  - addresses: [192.168.1.1, 10.0.0.1]
    name: gateway
  - address: 0.0.0.0/0
    labels: [watch=tls]
    own: false
`),
		Country: write("country.csv", "1.0.0.0,126.255.255.255,US\n128.0.0.0,223.255.255.255,DE\n2000::,3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff,FR\n"),
		ASN:     write("asn.csv", "4.0.0.0,100.255.255.255,64500,\"Example, Inc.\"\n"),
		Threats: write("threats.csv", "indicator,name,confidence,expires\n64.0.0.0/2,wide,10,\n*.com,commerce,,\n*.net,nets,,2031-01-01\n192.168.1.1,inner,90,2005-01-01\n"),
	}
}

// stored gives the label set that the log names, made of the same files by another.
func stored(t testing.TB, files source.Config) fold.LabelSource {
	return func(named *pb.LabelSet) (*labels.Set, error) {
		set, _, err := source.NewCompiler(files).Compile()
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(named.Digest, set.Named().Digest) || len(named.Parts) != len(set.Parts()) {
			t.Errorf("label set %x is asked for, want %v", named.Digest, set.Digest())
		}
		return set, nil
	}
}

// The same capture is labelled alike however its packets are split; without labels nothing of a session changes.
func TestLabels(t *testing.T) {
	config := labelled(t)
	seen := map[string]bool{}
	for _, path := range capturetest.Files(t) {
		if slices.Contains(busy, filepath.Base(path)) {
			compareLabels(t, path, config, seen)
		}
	}
	for _, want := range []string{"src_vnet=spoke", "src_vnet=hub", "src_labels", "src_name=gateway", "dst_country=DE", "dst_country=US", "dst_asn", "dst_as_org=Example, Inc.", "dst_threat=commerce", "dst_threat=wide", "flow_type=MaliciousFlow", "flow_type=ExternalPublic", "flow_type=IntraVNet", "direction=outbound", "direction=internal"} {
		if !seen[want] {
			t.Errorf("no %s", want)
		}
	}
}

// compareLabels reads a capture with labels, through one collector and through three, and without; it notes what
// labels there are.
func compareLabels(t *testing.T, path string, config source.Config, seen map[string]bool) {
	rows := func(c source.Config, collectors int) []map[string]any {
		o := DefaultOptions()
		o.Labels, o.Collectors, o.Split = c, collectors, ByPacket
		var out bytes.Buffer
		if _, err := Run(o, []string{path}, &out); err != nil {
			t.Fatal(err)
		}
		var rows []map[string]any
		for line := range strings.Lines(out.String()) {
			var r map[string]any
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatal(err)
			}
			for _, k := range []string{"collectors", "tap_points", "outer_ports", "vnis", "duplicate_packets"} {
				delete(r, k)
			}
			rows = append(rows, r)
		}
		return rows
	}
	text := func(r map[string]any) string {
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	one, three, plain := rows(config, 1), rows(config, 3), rows(source.Config{}, 1)
	if len(one) == 0 || len(one) != len(three) || len(one) != len(plain) {
		t.Fatalf("%d, %d and %d sessions", len(one), len(three), len(plain))
	}
	for i, r := range one {
		if text(r) != text(three[i]) {
			t.Fatalf("split:\n%s\n%s", text(r), text(three[i]))
		}
		for k, v := range r {
			end, is := strings.CutPrefix(k, "src_")
			if !is {
				end, is = strings.CutPrefix(k, "dst_")
			}
			if is && slices.Contains([]string{"name", "subnet", "vnet", "labels", "country", "asn", "as_org", "threat"}, end) || k == "flow_type" || k == "direction" {
				seen[k] = true
				if s, ok := v.(string); ok {
					seen[k+"="+s] = true
				}
				delete(r, k)
			}
		}
		if text(r) != text(plain[i]) {
			t.Fatalf("with labels\n%s\nwithout\n%s", text(r), text(plain[i]))
		}
	}
}

// A file with a mistake is told in one line.
func TestLabelsWrong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n.yaml")
	if err := os.WriteFile(path, []byte("hosts:\n  - address: 10.0.0.300\n    name: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := DefaultOptions()
	o.Labels.Networks = []string{path}
	_, err := Run(o, nil, new(bytes.Buffer))
	if want := path + `:2: "10.0.0.300" is no address`; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
