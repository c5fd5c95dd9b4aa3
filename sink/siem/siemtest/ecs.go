package siemtest

import (
	"encoding/csv"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tapweave/tapweave/proto/capturetest"
	"github.com/tapweave/tapweave/sink/siem/ecs"
)

// ecsSchema is Elastic's list of fields.
type ecsSchema map[string]ecsField

type ecsField struct {
	kind    string
	isArray bool
}

// ECS reads Elastic's list of fields.
func ECS(tb testing.TB) Schema {
	tb.Helper()
	f, err := os.Open(capturetest.Schema(tb, "ecs-"+ecs.Version+"-fields.csv"))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	head, err := r.Read()
	if err != nil {
		tb.Fatal(err)
	}
	column := func(line []string, name string) string { return line[slices.Index(head, name)] }
	fields := ecsSchema{}
	for {
		line, err := r.Read()
		if err == io.EOF {
			break
		} else if err != nil {
			tb.Fatal(err)
		}
		if v := column(line, "ECS_Version"); v != ecs.Version {
			tb.Fatalf("list of ECS %s, documents of %s", v, ecs.Version)
		}
		fields[column(line, "Field")] = ecsField{column(line, "Type"), column(line, "Normalization") == "array"}
	}
	if len(fields) < 1000 {
		tb.Fatalf("only %d fields", len(fields))
	}
	return fields
}

// ecsAllowed are the values that ECS allows where it names them all, which the list does not: of event.type, those of
// the categories network and intrusion_detection.
// Source: https://www.elastic.co/docs/reference/ecs/ecs-category-field-values-reference, and the pages of the field sets.
var ecsAllowed = map[string][]string{
	"event.kind":        {"alert", "asset", "enrichment", "event", "metric", "state", "pipeline_error", "signal"},
	"event.category":    {"network", "intrusion_detection", "threat"},
	"event.type":        {"access", "allowed", "connection", "denied", "end", "info", "protocol", "start", "indicator"},
	"event.outcome":     {"failure", "success", "unknown"},
	"network.direction": {"ingress", "egress", "inbound", "outbound", "internal", "external", "unknown"},
	"network.type":      {"ipv4", "ipv6"},
	"dns.type":          {"answer", "query"},
	"threat.indicator.type": {"autonomous-system", "artifact", "directory", "domain-name", "email-addr", "file", "ipv4-addr", "ipv6-addr", "mac-addr",
		"mutex", "port", "process", "software", "url", "user-account", "windows-registry-key", "x509-certificate"},
	"threat.indicator.confidence": {"Not Specified", "None", "Low", "Medium", "High"},
}

// Check implements Schema. ECS requires of all events @timestamp and ecs.version, and of those that Elastic's rules
// read the four levels of classification, which ours all have but event.outcome.
func (fields ecsSchema) Check(document []byte) []string {
	var p problems
	object, err := parse(document)
	if err != nil {
		return []string{err.Error()}
	}
	seen := map[string]bool{}
	fields.walk(&p, "", object, false, func(path string) { seen[path] = true })
	for _, path := range []string{"@timestamp", "ecs.version", "event.kind", "event.category", "event.type", "event.id", "event.dataset", "event.module"} {
		if !seen[path] {
			p.add("%s is absent", path)
		}
	}
	return p
}

// walk checks an object below a path. inList says that the objects of a list have the fields of one.
func (fields ecsSchema) walk(p *problems, path string, object map[string]any, inList bool, see func(string)) {
	for key, v := range object {
		at := strings.TrimPrefix(path+"."+key, ".")
		if strings.Contains(key, ".") {
			p.add("key %q below %q has a dot", key, path)
		}
		if at == "tapweave" || strings.HasPrefix(at, "tapweave.") {
			if inner, ok := v.(map[string]any); ok {
				if len(inner) == 0 {
					p.add("%s is empty", at)
				}
				fields.walk(p, at, inner, false, see)
			}
			continue
		}
		f, known := fields[at]
		if inner, ok := v.(map[string]any); ok {
			if known && f.kind != "object" {
				p.add("%s is an object, ECS has %s", at, f.kind)
			}
			if len(inner) == 0 {
				p.add("%s is empty", at)
			}
			fields.walk(p, at, inner, false, see)
			continue
		}
		see(at)
		if !known {
			p.add("ECS has no field %s", at)
			continue
		}
		list, isList := v.([]any)
		if isList != f.isArray && !inList {
			p.add("%s is %v, ECS's list of arrays says %v", at, v, f.isArray)
		}
		if !isList {
			list = []any{v}
		} else if len(list) == 0 {
			p.add("%s is empty", at)
		}
		for _, v := range list {
			if inner, ok := v.(map[string]any); ok && f.kind == "object" {
				fields.walk(p, at, inner, true, see)
				continue
			}
			if !f.fits(v) {
				p.add("%s: %v is no %s", at, v, f.kind)
			}
			if allowed := ecsAllowed[at]; allowed != nil && !slices.Contains(allowed, v.(string)) {
				p.add("%s: ECS does not allow %q", at, v)
			}
			if strings.HasSuffix(at, ".mac") && !isMAC(v, "-") {
				p.add("%s: %v is not written as RFC 7042 has it", at, v)
			}
		}
	}
}

func (f ecsField) fits(v any) bool {
	text, isText := v.(string)
	switch f.kind {
	case "keyword", "wildcard", "match_only_text":
		return isText && text != ""
	case "date":
		return isTime(v)
	case "ip":
		return isAddress(v)
	case "long":
		_, ok := isInteger(v)
		return ok
	case "float":
		_, ok := v.(json.Number)
		return ok
	case "boolean":
		_, ok := v.(bool)
		return ok
	}
	return false
}
