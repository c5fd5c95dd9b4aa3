package siemtest

import (
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/tapweave/tapweave/proto/capturetest"
	"github.com/tapweave/tapweave/sink/siem/ocsf"
)

// ocsfSchema is OCSF's classes with all objects that they reach.
type ocsfSchema struct {
	Version string               `json:"version"`
	Classes map[string]ocsfClass `json:"classes"`
	Objects map[string]struct {
		Attributes  map[string]ocsfAttribute `json:"attributes"`
		Constraints map[string][]string      `json:"constraints"`
	} `json:"objects"`
	Types map[string]struct {
		Type  string `json:"type"`
		Range []int  `json:"range"`
	} `json:"types"`
}

type ocsfClass struct {
	UID        int64                    `json:"class_uid"`
	Attributes map[string]ocsfAttribute `json:"attributes"`
}

type ocsfAttribute struct {
	Type        string            `json:"type"`
	Object      string            `json:"object_type"`
	Requirement string            `json:"requirement"`
	IsArray     bool              `json:"is_array"`
	Enum        map[string]string `json:"enum"`
	Sibling     string            `json:"sibling"`
	Profile     string            `json:"profile"`
}

// observableIDs are the ids that OCSF's compiler gives to observables by their types, which the source does not list.
// Source: https://schema.ocsf.io/1.8.0/objects/observable
var observableIDs = map[string]string{
	"1": "Hostname", "2": "IP Address", "3": "MAC Address", "6": "URL String", "8": "Hash", "16": "HTTP User-Agent",
}

// OCSF reads the classes of OCSF.
func OCSF(tb testing.TB) Schema {
	tb.Helper()
	b, err := os.ReadFile(capturetest.Schema(tb, "ocsf.json"))
	if err != nil {
		tb.Fatal(err)
	}
	s := new(ocsfSchema)
	if err := json.Unmarshal(b, s); err != nil {
		tb.Fatal(err)
	}
	if s.Version != ocsf.Version {
		tb.Fatalf("schema of OCSF %s, events of %s", s.Version, ocsf.Version)
	}
	for id, caption := range observableIDs {
		s.Objects["observable"].Attributes["type_id"].Enum[id] = caption
	}
	return s
}

// Check implements Schema.
func (s *ocsfSchema) Check(document []byte) []string {
	var p problems
	event, err := parse(document)
	if err != nil {
		return []string{err.Error()}
	}
	uid, _ := isInteger(event["class_uid"])
	for _, class := range s.Classes {
		if class.UID != uid {
			continue
		}
		var profiles []string
		metadata, _ := event["metadata"].(map[string]any)
		list, _ := metadata["profiles"].([]any)
		for _, v := range list {
			profiles = append(profiles, v.(string))
		}
		s.object(&p, "", event, class.Attributes, nil, profiles)
		activity, _ := isInteger(event["activity_id"])
		if v, _ := isInteger(event["type_uid"]); v != uid*100+activity {
			p.add("type_uid is %d, of class %d and activity %d", v, uid, activity)
		}
		if metadata["version"] != s.Version {
			p.add("metadata.version is %v", metadata["version"])
		}
		return p
	}
	p.add("no class %d", uid)
	return p
}

// object checks an object below a path.
func (s *ocsfSchema) object(p *problems, path string, object map[string]any, attributes map[string]ocsfAttribute, constraints map[string][]string, profiles []string) {
	active := func(a ocsfAttribute) bool { return a.Profile == "" || slices.Contains(profiles, a.Profile) }
	for name, a := range attributes {
		if _, ok := object[name]; !ok && a.Requirement == "required" && active(a) {
			p.add("%s%s is required", path, name)
		}
	}
	for kind, names := range constraints {
		n := 0
		for _, name := range names {
			if _, ok := object[name]; ok {
				n++
			}
		}
		if n == 0 || kind == "just_one" && n > 1 {
			p.add("%s has %d of %v, constraint %s", path, n, names, kind)
		}
	}
	for name, v := range object {
		a, ok := attributes[name]
		if !ok || !active(a) {
			p.add("OCSF has no %s%s here", path, name)
			continue
		}
		list, isList := v.([]any)
		if isList != a.IsArray {
			p.add("%s%s is %v, is_array is %v", path, name, v, a.IsArray)
			continue
		}
		if !isList {
			list = []any{v}
		} else if len(list) == 0 {
			p.add("%s%s is empty", path, name)
		}
		for _, v := range list {
			s.value(p, path+name, v, a, object, profiles)
		}
	}
}

func (s *ocsfSchema) value(p *problems, path string, v any, a ocsfAttribute, in map[string]any, profiles []string) {
	if a.Object != "" {
		inner, ok := v.(map[string]any)
		if !ok {
			p.add("%s is %v, want an object", path, v)
			return
		}
		if a.Object == "object" { // any
			if len(inner) == 0 {
				p.add("%s is empty", path)
			}
			return
		}
		o := s.Objects[a.Object]
		s.object(p, path+".", inner, o.Attributes, o.Constraints, profiles)
		return
	}
	if !s.fits(a.Type, v) {
		p.add("%s: %v is no %s", path, v, a.Type)
		return
	}
	if len(a.Enum) == 0 {
		return
	}
	key, isText := v.(string)
	if n, ok := isInteger(v); ok {
		key = strconv.FormatInt(n, 10)
	}
	caption, ok := a.Enum[key]
	if !ok {
		p.add("%s: OCSF does not allow %v", path, v)
	}
	if a.Sibling == "" || isText || key == "99" {
		return
	}
	if have, ok := in[a.Sibling]; ok && have != caption {
		// A type's name is that of its class and its activity.
		if name, _ := in["class_name"].(string); a.Sibling != "type_name" || have != name+": "+caption {
			p.add("%s is %v, its sibling %s is %v, not %q", path, v, a.Sibling, have, caption)
		}
	}
}

func (s *ocsfSchema) fits(kind string, v any) bool {
	text, isText := v.(string)
	number, isNumber := isInteger(v)
	switch kind {
	case "integer_t", "long_t", "timestamp_t":
		return isNumber
	case "port_t":
		r := s.Types[kind].Range
		return isNumber && number >= int64(r[0]) && number <= int64(r[1])
	case "float_t":
		_, ok := v.(json.Number)
		return ok
	case "boolean_t":
		_, ok := v.(bool)
		return ok
	case "ip_t":
		return isAddress(v)
	case "mac_t":
		return isMAC(v, ":")
	case "json_t":
		return true
	case "string_t", "hostname_t", "url_t", "file_hash_t", "resource_uid_t":
		return isText && len(text) <= 65535
	}
	return false
}
