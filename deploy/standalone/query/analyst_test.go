package query_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	driver "github.com/ClickHouse/clickhouse-go/v2"

	saved "github.com/tapweave/tapweave/deploy/clickhouse"
	"github.com/tapweave/tapweave/deploy/standalone/query"
)

var update = flag.Bool("update", false, "write the answers of the saved queries into docs/analyst.md")

const (
	page   = "../../../docs/analyst.md"
	marker = "<!-- What follows is written by: cd deploy/standalone && go test ./query -run TestSavedOnGenerated -update -->\n"
)

// shown are parameters with which the made up sessions have something to show.
var shown = map[string]map[string]string{
	"dns-long-names":   {"length": "20"},
	"dns-nxdomain":     {"questions": "10"},
	"dns-rare-tlds":    {"clients": "1000000"},
	"late-indicators":  {"indicators": "['203.0.113.7','*.zip']"},
	"long-connections": {"seconds": "100"},
	"new-destinations": {"from": "2026-03-01 12:00:00"},
	"hub-and-spoke":    {"seconds": "21600"},
	"path-quality":     {"sessions": "100"},
}

// quoted is a value as a shell takes it.
func quoted(v string) string {
	if strings.Contains(v, "'") {
		return `"` + v + `"`
	}
	return "'" + v + "'"
}

// analyst compares the page for analysts with the saved queries: each is there, with its question, its cost and the columns
// of its answer. The figures are those of the sessions that were made up when it was written.
func analyst(t *testing.T, d query.Database) {
	ctx := driver.Context(t.Context(), driver.WithSettings(driver.Settings{"database": d.Name}))
	if err := d.Server.Exec(ctx, `INSERT INTO pipeline_stats (time, service, instance, incarnation, stage, reason, count)
		SELECT toDateTime64('2026-03-01 00:00:00', 3, 'UTC') + 3600 * number, 'collector', 'collector-1', 1, 'lost', reason, each * number
		FROM numbers(24) ARRAY JOIN ['kernel_drops', 'queue_full'] AS reason, [17, 2] AS each`); err != nil {
		t.Fatal(err)
	}
	all, err := saved.Queries()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	intro, have, found := strings.Cut(string(b), marker)
	if !found {
		t.Fatalf("%s has no line %q", page, marker)
	}
	var text strings.Builder
	for _, q := range all {
		given, command := map[string]string{}, "tapweave query --saved "+q.Name
		for _, p := range q.Parameters {
			v, ok := shown[q.Name][p.Name]
			if !ok {
				v, ok = day[p.Name]
			}
			if ok {
				given[p.Name] = v
				command += fmt.Sprintf(" --param %s=%s", p.Name, quoted(v))
			}
		}
		var out bytes.Buffer
		if err := d.Saved(t.Context(), "table", q.Name, given, &out); err != nil {
			t.Fatalf("%s: %v", q.Name, err)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) < 3 {
			t.Errorf("%s has nothing to show: %q", q.Name, lines)
			continue
		}
		names := strings.Join(strings.FieldsFunc(lines[0], func(r rune) bool { return strings.ContainsRune("┌─┬┐", r) }), ", ")
		const rows = 4
		if len(lines) > rows+2 {
			lines = append(lines[:rows+1], "…")
		}
		section := fmt.Sprintf("### %s\n\n%s\n", q.Name, q.Question)
		if q.Notes != "" {
			section += "\n" + q.Notes + "\n"
		}
		section += "\n"
		for _, p := range q.Parameters {
			section += fmt.Sprintf("- `%s` (%s, default `%s`): %s\n", p.Name, p.Type, p.Default, p.Meaning)
		}
		section += fmt.Sprintf("- cost: %s\n- answer: %s\n", q.Cost, names)
		if !*update && !strings.Contains(have, section) {
			t.Errorf("%s does not say of %s: %s", page, q.Name, section)
		}
		fmt.Fprintf(&text, "\n%s\n```\n$ %s\n%s\n```\n", section, command, strings.Join(lines, "\n"))
	}
	if *update {
		if err := os.WriteFile(page, []byte(intro+marker+text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
