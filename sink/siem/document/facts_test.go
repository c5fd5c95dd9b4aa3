package document

import (
	"testing"

	"github.com/tapweave/tapweave/proto/columns"
)

func TestHost(t *testing.T) {
	for _, c := range []struct {
		authority, host string
		port            uint16
	}{
		{"", "", 0}, {"a.example", "a.example", 0}, {"a.example:8080", "a.example", 8080}, {"a.example:x", "a.example:x", 0},
		{"a.example:99999", "a.example:99999", 0}, {"[2001:db8::1]", "2001:db8::1", 0}, {"[2001:db8::1]:443", "2001:db8::1", 443},
		{"2001:db8::1", "2001:db8::1", 0}, {":80", "", 80}, {"[", "[", 0}, {"[]", "[]", 0}, {":", ":", 0}, {"]:1", "]", 1},
	} {
		if host, port := Host(c.authority); host != c.host || port != c.port {
			t.Errorf("Host(%q) is %q and %d", c.authority, host, port)
		}
	}
}

func TestIsAddress(t *testing.T) {
	for s, want := range map[string]bool{"10.0.0.4": true, "2001:db8::1": true, "fe80::1%eth0": false, "a.example": false, "": false, "1": false} {
		if IsAddress(s) != want {
			t.Errorf("IsAddress(%q) is %v", s, !want)
		}
	}
}

func TestURL(t *testing.T) {
	for _, c := range []struct{ host, path, want string }{
		{"a.example:8080", "/x?y=\"z", `{"url":"http://a.example:8080/x?y=\"z"}`},
		{"", "/x", "{}"},
		{"a.example:443", "a.example:443", "{}"},
		{"a.example", "*", "{}"},
	} {
		s := columns.NewSession()
		s.HTTPHost, s.HTTPPath = c.host, c.path
		w := Begin(nil)
		w.URL(`"url":`, s)
		if got := string(w.End()); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}
