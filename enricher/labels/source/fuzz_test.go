package source

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/tapweave/tapweave/enricher/labels"
)

// Whatever is in a file, it makes a part that decodes, or one line of error.
func FuzzFiles(f *testing.F) {
	for _, s := range []string{
		nics, vnets, vms, publicIPs, serviceTags, instances, subnets, enis, kubectl, bundle, misp,
		"networks:\n  - {prefix: 10.0.0.0/8, vnet: a}\n", "prefix,name\n10.0.0.0/8,x\n", "1.0.0.0,1.0.0.255,AU\n1.0.0.9,1.0.2.0,DE\n",
		string(database(f, "test", 24, map[string]mmdbtype.Map{"192.0.2.0/24": nested("DE"), "2001:db8::/48": system(64500, "x"), "198.51.100.0/25": flat("FR")})),
		"192.0.2.1\n*.example.com\n", "ip,name,confidence,expires\n192.0.2.1,x,5,2026-01-01\n", "\xff\xfea\x00",
	} {
		for i := range uint8(5) {
			f.Add(i, []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		path := filepath.Join(t.TempDir(), [...]string{"f", "f.csv", "f.json", "f.mmdb", "f.yaml"}[kind%5])
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, c := range []Config{{Networks: []string{path}}, {Country: []string{path}}, {ASN: []string{path}}, {Threats: []string{path}}} {
			_, parts, err := NewCompiler(c).Compile()
			var own *Error
			if err != nil && (!errors.As(err, &own) || strings.Contains(err.Error(), "\n")) {
				t.Errorf("%v: %q", c, err)
			}
			for _, p := range parts {
				if _, err := labels.Decode(p.Bytes); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
