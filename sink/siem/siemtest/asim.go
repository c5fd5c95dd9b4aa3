package siemtest

import (
	"encoding/csv"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tapweave/tapweave/proto/capturetest"
)

// asimSchema is the columns of each schema of ASIM, by name.
type asimSchema map[string]map[string]asimColumn

type asimColumn struct {
	kind, class, logical string
	values               []string
	aliased              string
}

// ASIM reads Microsoft's list of columns.
func ASIM(tb testing.TB) Schema {
	tb.Helper()
	f, err := os.Open(capturetest.Schema(tb, "asim.csv"))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	lines, err := csv.NewReader(f).ReadAll()
	if err != nil {
		tb.Fatal(err)
	}
	s := asimSchema{}
	for _, line := range lines[1:] {
		name, schema := line[0], line[3]
		if s[schema] == nil {
			s[schema] = map[string]asimColumn{}
		}
		c := asimColumn{kind: line[1], class: line[2], logical: line[4], aliased: line[6]}
		for v := range strings.SplitSeq(line[5], "|") {
			if v = strings.TrimSpace(v); v != "" {
				c.values = append(c.values, v)
			}
		}
		// The values listed name the products that Microsoft knows.
		if name == "EventProduct" || name == "EventVendor" {
			c.values = nil
		}
		s[schema][name] = c
	}
	for _, name := range []string{"Common", "NetworkSession", "Dns", "WebSession"} {
		if len(s[name]) < 30 {
			tb.Fatalf("only %d columns of %s", len(s[name]), name)
		}
	}
	s["AlertEvent"] = asimAlert(s["Common"])
	return s
}

// asimAlert is the columns of AlertEvent that are used here, beside the common ones: it is not on Microsoft's list.
// Source: https://learn.microsoft.com/azure/sentinel/normalization-schema-alert
func asimAlert(common map[string]asimColumn) map[string]asimColumn {
	all := maps.Clone(common)
	for _, c := range []struct {
		name   string
		column asimColumn
	}{
		{"EventType", asimColumn{kind: "string", class: "Mandatory", values: []string{"Alert"}}},
		{"EventSubType", asimColumn{kind: "string", values: []string{"Threat", "Suspicious Activity", "Anomaly", "Compliance Violation"}}},
		{"EventUid", asimColumn{kind: "string", class: "Mandatory"}},
		{"AlertId", asimColumn{kind: "string", class: "Alias", aliased: "EventUid"}},
		{"AlertName", asimColumn{kind: "string"}},
		{"AlertDescription", asimColumn{kind: "string", class: "Alias", aliased: "EventMessage"}},
		{"DetectionMethod", asimColumn{kind: "string", values: []string{"Threat Intelligence", "Intrusion Detection", "Behavioral Analytics", "Other"}}},
		{"RuleName", asimColumn{kind: "string"}},
		{"Rule", asimColumn{kind: "string", class: "Alias", aliased: "RuleName"}},
		{"ThreatName", asimColumn{kind: "string"}},
		{"ThreatConfidence", asimColumn{kind: "int", logical: "ConfidenceLevel"}},
		{"IndicatorType", asimColumn{kind: "string", values: []string{"Ip", "Url", "Host", "Application"}}},
		{"AdditionalFields", asimColumn{kind: "dynamic"}},
	} {
		all[c.name] = c.column
	}
	return all
}

var (
	schemaVersion = regexp.MustCompile(`^\d+\.\d+(\.\d+)?$`)
	asimHostname  = regexp.MustCompile(`^[^.]+$`)
	asimFQDN      = regexp.MustCompile(`(?s)^[^.]+\..+$`)
	asimCountry   = regexp.MustCompile(`^[A-Z]{2}$`)
)

// Check implements Schema.
func (s asimSchema) Check(document []byte) []string {
	var p problems
	record, err := parse(document)
	if err != nil {
		return []string{err.Error()}
	}
	name, _ := record["EventSchema"].(string)
	columns := s[name]
	if columns == nil || name == "Common" {
		return []string{"no schema " + name}
	}
	for column, c := range columns {
		if c.class == "Mandatory" && record[column] == nil {
			p.add("%s is mandatory", column)
		}
		if c.class == "Conditional" && c.aliased != "" && (record[column] != nil) != (record[c.aliased] != nil) {
			p.add("%s goes with %s", column, c.aliased)
		}
	}
	for column, v := range record {
		c, ok := columns[column]
		if !ok {
			p.add("ASIM's %s has no column %s", name, column)
			continue
		}
		if !c.fits(v) {
			p.add("%s: %v is no %s %s", column, v, c.kind, c.logical)
		}
		if text, _ := v.(string); len(c.values) > 0 && !slices.Contains(c.values, text) {
			p.add("%s: ASIM does not allow %v", column, v)
		}
		if c.class == "Alias" && record[c.aliased] != v {
			p.add("%s is %v, but %s, which it is an alias of, is %v", column, v, c.aliased, record[c.aliased])
		}
	}
	return p
}

func (c asimColumn) fits(v any) bool {
	text, isText := v.(string)
	switch c.kind {
	case "int":
		n, ok := isInteger(v)
		return ok && n == int64(int32(n)) && (c.logical != "ConfidenceLevel" || n >= 0 && n <= 100)
	case "long":
		_, ok := isInteger(v)
		return ok
	case "datetime":
		return isTime(v)
	case "dynamic":
		object, ok := v.(map[string]any)
		return ok && len(object) > 0
	case "string", "sting": // so the list has it, of two columns
	default:
		return false
	}
	if !isText || text == "" {
		return false
	}
	switch c.logical {
	case "IP Address":
		return isAddress(v)
	case "MAC address":
		return isMAC(v, ":")
	case "SchemaVersion":
		return schemaVersion.MatchString(text)
	case "Hostname":
		return asimHostname.MatchString(text)
	case "FQDN":
		return asimFQDN.MatchString(text)
	case "Country":
		return asimCountry.MatchString(text)
	case "URL":
		return strings.Contains(text, "://")
	case "NetworkProtocol":
		return text == strings.ToUpper(text)
	}
	return true
}
