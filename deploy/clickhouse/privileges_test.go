package clickhouse

import (
	"os"
	"strings"
	"testing"
)

// The users of docker-compose.yml have the rights that the SQL gives.
func TestComposeGrants(t *testing.T) {
	b, err := os.ReadFile("../compose/clickhouse-users.xml")
	if err != nil {
		t.Fatal(err)
	}
	for user, as := range map[string]string{"writer": "tapweave", "reader": "reader"} {
		_, rest, _ := strings.Cut(string(b), "<"+as+">\n            <password")
		of, _, found := strings.Cut(rest, "</"+as+">")
		grants := Grants(user)
		if !found || len(grants) == 0 || strings.Count(of, "<query>") != len(grants) {
			t.Errorf("%s: %d grants: %s", as, len(grants), of)
		}
		for _, g := range grants {
			if !strings.Contains(of, "<query>"+g+"</query>") {
				t.Errorf("%s lacks %s", as, g)
			}
		}
	}
}
