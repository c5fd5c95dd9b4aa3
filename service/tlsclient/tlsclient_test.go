package tlsclient

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConfig(t *testing.T) {
	noCert := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(noCert, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		config Config
		want   string
	}{
		{Config{}, ""},
		{Config{Enabled: true, ServerName: "kafka"}, ""},
		{Config{CAFile: "x"}, "enabled is false"},
		{Config{Enabled: true, CertFile: "x"}, "belong together"},
		{Config{Enabled: true, CAFile: "/not/there"}, "ca_file: open /not/there"},
		{Config{Enabled: true, CAFile: noCert}, "holds no PEM certificate"},
		{Config{Enabled: true, CertFile: noCert, KeyFile: noCert}, "cert_file, key_file"},
	} {
		_, err := c.config.TLS()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", c.config, err, c.want)
		}
	}
}
