package consumers

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/sink/siem"
	"github.com/tapweave/tapweave/sink/siem/siemtest"
)

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Each file begins with how to use it, in three steps, is what its name says, and names topics that there are.
func TestFiles(t *testing.T) {
	topic := regexp.MustCompile(`tapweave\.siem\.\w+`)
	files := 0
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) == ".md" {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := filepath.Base(path)
		head := string(b[:min(len(b), 1200)])
		for _, step := range []string{"1. ", "2. ", "3. "} {
			if !strings.Contains(head, step) {
				t.Errorf("%s does not say how to use it: no %q", name, step)
			}
		}
		for _, found := range topic.FindAllString(string(b), -1) {
			if !slices.ContainsFunc(siem.Formats, func(f siem.Format) bool { return f.Topic == found }) {
				t.Errorf("%s: there is no topic %s", name, found)
			}
		}
		switch filepath.Ext(path) {
		case ".json":
			var v any
			err = json.Unmarshal(b, &v)
		case ".yml":
			var v any
			err = yaml.Unmarshal(b, &v)
		case ".xml":
			for d := xml.NewDecoder(strings.NewReader(string(b))); err == nil; {
				_, err = d.Token()
			}
			if errors.Is(err, io.EOF) {
				err = nil
			}
		case ".sh":
			var message []byte
			if message, err = exec.Command("bash", "-n", path).CombinedOutput(); err != nil {
				err = fmt.Errorf("%w: %s", err, message)
			}
		case ".conf":
			text := regexp.MustCompile(`(?m)^\s*#.*$`).ReplaceAllString(string(b), "")
			for _, pair := range []string{"{}", "[]", "()"} {
				if strings.Count(text, pair[:1]) != strings.Count(text, pair[1:]) {
					err = fmt.Errorf("brackets %s do not match", pair)
				}
			}
		default:
			t.Errorf("%s: nothing checks it", name)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 12 {
		t.Errorf("only %d files", files)
	}
}

// documents are documents of every kind of session and alert, in a format.
func documents(t *testing.T, topic string) (all []map[string]any) {
	t.Helper()
	add := func(b []byte) {
		var d map[string]any
		if err := json.Unmarshal(b, &d); err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	for _, f := range siem.Formats {
		if f.Topic != topic {
			continue
		}
		for _, s := range siemtest.Sessions() {
			add(f.Append(nil, s))
		}
		for _, a := range siemtest.Alerts() {
			add(f.AppendAlert(nil, a))
		}
	}
	return all
}

// paths collects the values of a document by their paths; those of lists by that of the list.
func paths(path string, v any, into map[string]any) {
	switch v := v.(type) {
	case map[string]any:
		for key, inner := range v {
			paths(strings.TrimPrefix(path+"."+key, "."), inner, into)
		}
	case []any:
		for _, inner := range v {
			paths(path, inner, into)
		}
	default:
		into[path] = v
	}
}

// The templates map each field of Tapweave's own, as the type that it has, and no other.
func TestTemplates(t *testing.T) {
	type mapping struct {
		Type       string
		Properties map[string]mapping
	}
	values := map[string]any{}
	for _, d := range documents(t, record.TopicSIEMECS) {
		paths("", d, values)
	}
	for _, name := range []string{"elasticsearch-template.json", "opensearch-template.json"} {
		var template struct {
			Template struct{ Mappings mapping }
		}
		if err := json.Unmarshal(read(t, name), &template); err != nil {
			t.Fatal(err)
		}
		types := map[string]string{}
		var walk func(path string, m mapping)
		walk = func(path string, m mapping) {
			for key, inner := range m.Properties {
				at := strings.TrimPrefix(path+"."+key, ".")
				if inner.Type != "" {
					types[at] = inner.Type
				}
				walk(at, inner)
			}
		}
		walk("", template.Template.Mappings)
		for path, v := range values {
			kind := types[path]
			if !strings.HasPrefix(path, "tapweave.") {
				continue
			}
			fits := false
			switch v.(type) {
			case string:
				fits = kind == "keyword"
			case bool:
				fits = kind == "boolean"
			case float64:
				fits = kind == "long" || kind == "integer" || kind == "short" || kind == "double"
			}
			if !fits {
				t.Errorf("%s: %s is %v, mapped as %q", name, path, v, kind)
			}
		}
		for path := range types {
			if _, ok := values[path]; !ok {
				t.Errorf("%s maps %s, which no document has", name, path)
			}
		}
	}
}

// Splunk's aliases and expressions name fields that documents have.
func TestSplunk(t *testing.T) {
	values := map[string]any{}
	for _, d := range documents(t, record.TopicSIEMECS) {
		paths("", d, values)
	}
	alias, quoted := regexp.MustCompile(`"([^"]+)" AS `), regexp.MustCompile(`'([^']+)'`)
	comment := regexp.MustCompile(`(?m)^#.*$`)
	props := comment.ReplaceAllString(string(read(t, "splunk/props.conf")), "")
	eventtypes := comment.ReplaceAllString(string(read(t, "splunk/eventtypes.conf")), "")
	fields := append(alias.FindAllStringSubmatch(props, -1), quoted.FindAllStringSubmatch(props, -1)...)
	if len(fields) < 40 {
		t.Errorf("only %d fields", len(fields))
	}
	for _, m := range fields {
		if _, ok := values[strings.ReplaceAll(m[1], "{}", "")]; !ok {
			t.Errorf("props.conf names %s, which no document has", m[1])
		}
	}
	condition := regexp.MustCompile(` ([a-z_.]+)=`)
	for _, m := range condition.FindAllStringSubmatch(eventtypes, -1) {
		if _, ok := values[m[1]]; !ok && m[1] != "sourcetype" {
			t.Errorf("eventtypes.conf names %s, which no document has", m[1])
		}
	}
	types, tags := regexp.MustCompile(`(?m)^\[(\w+)\]$`), regexp.MustCompile(`(?m)^\[eventtype=(\w+)\]$`)
	have, tagged := types.FindAllStringSubmatch(eventtypes, -1), tags.FindAllStringSubmatch(string(read(t, "splunk/tags.conf")), -1)
	if len(have) != len(tagged) {
		t.Fatalf("%d event types, %d of them with tags", len(have), len(tagged))
	}
	for i := range have {
		if have[i][1] != tagged[i][1] {
			t.Errorf("event type %s, tags of %s", have[i][1], tagged[i][1])
		}
	}
}

// The data collection rule declares each column, as the type that it has, and brings each to its table but those that
// ASIM's functions add, and the name of the schema, which is the table.
func TestSentinel(t *testing.T) {
	var rule struct {
		Resources []struct {
			Properties struct {
				StreamDeclarations map[string]struct{ Columns []struct{ Name, Type string } }
				DataFlows          []struct {
					Streams, Destinations      []string
					TransformKql, OutputStream string
				}
			}
		}
	}
	if err := json.Unmarshal(read(t, "sentinel-dcr.json"), &rule); err != nil {
		t.Fatal(err)
	}
	p := rule.Resources[0].Properties
	types := map[string]string{}
	for _, c := range p.StreamDeclarations["Custom-Tapweave"].Columns {
		types[c.Name] = c.Type
	}
	projected := map[string][]string{} // by schema
	query := regexp.MustCompile(`^source \| where EventSchema == '(\w+)' \| project (.*)$`)
	for _, f := range p.DataFlows {
		m := query.FindStringSubmatch(f.TransformKql)
		if m == nil || !slices.Equal(f.Streams, []string{"Custom-Tapweave"}) {
			t.Fatalf("flow %+v", f)
		}
		projected[m[1]] = strings.Split(m[2], ", ")
	}
	added := []string{"EventSchema", "Src", "Dst", "IpAddr", "SessionId", "Duration", "InnerVlanId", "Domain", "HttpStatusCode", "UserAgent", "AlertId",
		"AlertDescription", "Rule"}
	inAlerts := []string{"Dvc", "EventResult"} // columns of the list of common ones that the table of alerts does not have
	used := map[string]map[string]bool{}
	for _, d := range documents(t, record.TopicSIEMASIM) {
		schema := d["EventSchema"].(string)
		if used[schema] == nil {
			used[schema] = map[string]bool{}
		}
		for column, v := range d {
			used[schema][column] = true
			fits := false
			switch v := v.(type) {
			case string:
				_, err := time.Parse(time.RFC3339Nano, v)
				fits = types[column] == "string" || types[column] == "datetime" && err == nil
			case float64:
				fits = types[column] == "int" || types[column] == "long"
			case map[string]any:
				fits = types[column] == "dynamic"
			}
			if !fits {
				t.Errorf("%s of %s is %v, declared as %q", column, schema, v, types[column])
			}
			if !slices.Contains(projected[schema], column) && !slices.Contains(added, column) && !(schema == "AlertEvent" && slices.Contains(inAlerts, column)) {
				t.Errorf("%s of %s does not come to its table", column, schema)
			}
		}
	}
	for schema, list := range projected {
		for _, column := range list {
			if !used[schema][column] {
				t.Errorf("%s is brought to the table of %s, but no document has it", column, schema)
			}
		}
	}
}
