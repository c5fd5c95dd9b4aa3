// Package config reads a service's configuration: YAML, environment over it, secrets from files.
//
// A configuration is a struct whose fields bear the tags `yaml:"key"` and `doc:"what it is, its unit and its
// consequence"`. Structs inside it are sections. Every field can be overridden by an environment variable:
// TAPWEAVE_ and the keys from the outside in, in upper case, joined by underscores, e.g. TAPWEAVE_KAFKA_BROKERS.
// Another variable with that prefix is an error.
package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Prefix begins the name of every environment variable that overrides a key.
const Prefix = "TAPWEAVE_"

// Secret is a string that is never printed. A field of this type with the key "x" may have a string field
// "x_file" beside it: then the file's content is the secret, without the line ends behind it.
type Secret string

const hidden = "***"

// String returns "***", or nothing for an empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return s.String() }

// LogValue hides the secret from slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText hides the secret from encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// Load reads file over the defaults, then the environment, then the files that secrets are in, and calls the
// Validate method of every section that has one, innermost first. No file: defaults and environment. Unknown
// keys are errors. Errors are one line, and name the file and the line where there are any. Variables that override
// keys of other configurations, which the same program loads, are none.
func Load[T any](file string, defaults T, others ...any) (T, error) {
	var none T
	c := defaults
	v := reflect.ValueOf(&c).Elem()
	where := "configuration"
	if file != "" {
		where = file
		b, err := os.ReadFile(file)
		if err != nil {
			return none, err
		}
		if err := decodeFile(file, b, v); err != nil {
			return none, err
		}
	}
	if err := environment(v, nil); err != nil {
		return none, err
	}
	if err := unknownVariables(v, others); err != nil {
		return none, err
	}
	if err := secrets(v, nil); err != nil {
		return none, fmt.Errorf("%s: %w", where, err)
	}
	if err := validate(v, nil); err != nil {
		return none, fmt.Errorf("%s: %w", where, err)
	}
	return c, nil
}

func decodeFile(file string, b []byte, v reflect.Value) error {
	d := yaml.NewDecoder(bytes.NewReader(b))
	var doc, more yaml.Node
	if err := d.Decode(&doc); errors.Is(err, io.EOF) {
		return nil // nothing but comments
	} else if err != nil {
		return syntax(file, err)
	}
	if err := d.Decode(&more); err == nil {
		return fmt.Errorf("%s:%d: a second YAML document, only one is read", file, more.Line)
	} else if !errors.Is(err, io.EOF) {
		return syntax(file, err)
	}
	return decodeSection(file, doc.Content[0], v, nil)
}

// syntax turns "yaml: line 3: what" into "file:3: what".
func syntax(file string, err error) error {
	s := strings.TrimPrefix(err.Error(), "yaml: ")
	var line int
	if _, e := fmt.Sscanf(s, "line %d:", &line); e == nil {
		_, what, _ := strings.Cut(s, ": ")
		return fmt.Errorf("%s:%d: %s", file, line, what)
	}
	return fmt.Errorf("%s: %s", file, strings.ReplaceAll(s, "\n", " "))
}

func decodeSection(file string, n *yaml.Node, v reflect.Value, path []string) error {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil // a section whose keys are all commented out
	}
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: %skeys with values are wanted here", file, n.Line, at(path))
	}
	fields := keys(v.Type())
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		f, ok := fields.index[key.Value]
		if !ok {
			s := "there are no keys here"
			if near := nearest(key.Value, fields.names); near != "" {
				s = fmt.Sprintf("the nearest known key is %q", near)
			}
			return fmt.Errorf("%s:%d: %sunknown key %q, %s", file, key.Line, at(path), key.Value, s)
		}
		if line, ok := seen[key.Value]; ok {
			return fmt.Errorf("%s:%d: %skey %q stands in line %d already", file, key.Line, at(path), key.Value, line)
		}
		seen[key.Value] = key.Line
		inner := append(path[:len(path):len(path)], key.Value)
		field := v.Field(f)
		if isSection(field.Type()) {
			if err := decodeSection(file, value, field, inner); err != nil {
				return err
			}
			continue
		}
		if err := decodeValue(value, field); err != nil {
			return fmt.Errorf("%s:%d: %s: %w", file, value.Line, strings.Join(inner, "."), err)
		}
	}
	return nil
}

// decodeValue replaces the value of a field: a list in the file is the whole list.
func decodeValue(n *yaml.Node, field reflect.Value) error {
	fresh := reflect.New(field.Type())
	if err := n.Decode(fresh.Interface()); err != nil {
		var te *yaml.TypeError
		if !errors.As(err, &te) {
			return errors.New(strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\n", " "), "yaml: "))
		}
		if field.Type() == reflect.TypeFor[Secret]() {
			return fmt.Errorf("not %s", wanted(field.Type()))
		}
		return fmt.Errorf("%q is not %s", excerpt(n), wanted(field.Type()))
	}
	field.Set(fresh.Elem())
	return nil
}

func excerpt(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "{…}"
	case yaml.SequenceNode:
		return "[…]"
	}
	if len(n.Value) > 40 {
		return n.Value[:40] + "…"
	}
	return n.Value
}

func wanted(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "a duration like 250ms, 10s or 1h"
	case reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		return "a value of this key"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "a list of such values"
	case reflect.Map:
		return "keys with such values"
	case reflect.String:
		return "a string"
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return "a whole number in range"
}

func at(path []string) string {
	if len(path) == 0 {
		return ""
	}
	return "in " + strings.Join(path, ".") + ": "
}

// Variable returns the name of the environment variable that overrides the key at path.
func Variable(path ...string) string {
	return Prefix + strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(strings.Join(path, "_")))
}

func environment(v reflect.Value, path []string) error {
	for i, name := range fieldNames(v.Type()) {
		if name == "" {
			continue
		}
		inner, field := append(path[:len(path):len(path)], name), v.Field(i)
		if isSection(field.Type()) {
			if err := environment(field, inner); err != nil {
				return err
			}
			continue
		}
		variable := Variable(inner...)
		s, ok := os.LookupEnv(variable)
		if !ok {
			continue
		}
		if err := fromString(s, field); err != nil {
			return fmt.Errorf("environment variable %s: %w", variable, err)
		}
	}
	return nil
}

// foreign matches the variables that Kubernetes sets for services whose names begin with tapweave, and those of
// the project's own tests.
var foreign = regexp.MustCompile(`^TAPWEAVE_(TEST_.*|CAPTURES|(.*_)?SERVICE_(HOST|PORT.*)|(.*_)?PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// unknownVariables is an error for a variable that overrides nothing: it is a key misspelt, or of another version.
func unknownVariables(v reflect.Value, others []any) error {
	known := variables(v.Type(), nil)
	for _, o := range others {
		known = append(known, variables(reflect.TypeOf(o), nil)...)
	}
	environ := os.Environ()
	slices.Sort(environ)
	for _, e := range environ {
		name, _, _ := strings.Cut(e, "=")
		if !strings.HasPrefix(name, Prefix) || slices.Contains(known, name) || foreign.MatchString(name) {
			continue
		}
		return fmt.Errorf("environment variable %s overrides no key, the nearest that does is %s", name, nearest(name, known))
	}
	return nil
}

// variables returns the names of all variables that override a key of t.
func variables(t reflect.Type, path []string) (all []string) {
	for i, name := range fieldNames(t) {
		if name == "" {
			continue
		}
		inner, field := append(path[:len(path):len(path)], name), t.Field(i).Type
		if isSection(field) {
			all = append(all, variables(field, inner)...)
		} else {
			all = append(all, Variable(inner...))
		}
	}
	return all
}

// fromString sets a field from a variable: strings as they are, lists of strings and numbers separated by commas, all
// else as in YAML.
func fromString(s string, field reflect.Value) error {
	t := field.Type()
	text := reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
	switch {
	case t.Kind() == reflect.String && !text:
		field.SetString(s)
		return nil
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.String && !text && !strings.HasPrefix(strings.TrimSpace(s), "["):
		list := reflect.MakeSlice(t, 0, 0)
		for part := range strings.SplitSeq(s, ",") {
			if part = strings.TrimSpace(part); part != "" {
				list = reflect.Append(list, reflect.ValueOf(part).Convert(t.Elem()))
			}
		}
		field.Set(list)
		return nil
	case t.Kind() == reflect.Slice && t.Elem().Kind() <= reflect.Float64 && !text && !strings.HasPrefix(strings.TrimSpace(s), "["):
		s = "[" + s + "]"
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(s), &doc); err != nil || len(doc.Content) == 0 {
		return fmt.Errorf("%q is not %s", s, wanted(t))
	}
	return decodeValue(doc.Content[0], field)
}

// secrets reads the files that the keys …_file name.
func secrets(v reflect.Value, path []string) error {
	fields := keys(v.Type())
	for i, name := range fieldNames(v.Type()) {
		field := v.Field(i)
		switch {
		case name == "":
		case isSection(field.Type()):
			if err := secrets(field, append(path[:len(path):len(path)], name)); err != nil {
				return err
			}
		case field.Type() == reflect.TypeFor[Secret]():
			key := strings.Join(append(path[:len(path):len(path)], name), ".")
			if field.String() == hidden {
				return fmt.Errorf("%s: %s stands in a dump for a secret, it is none", key, hidden)
			}
			j, ok := fields.index[name+"_file"]
			if !ok || v.Field(j).String() == "" {
				continue
			}
			if field.String() != "" {
				return fmt.Errorf("%s and %s_file are both set", key, key)
			}
			b, err := os.ReadFile(v.Field(j).String())
			if err != nil {
				return fmt.Errorf("%s_file: %w", key, err)
			}
			field.SetString(strings.TrimRight(string(b), "\r\n"))
		}
	}
	return nil
}

func validate(v reflect.Value, path []string) error {
	for i, name := range fieldNames(v.Type()) {
		if field := v.Field(i); name != "" && isSection(field.Type()) {
			if err := validate(field, append(path[:len(path):len(path)], name)); err != nil {
				return err
			}
		}
	}
	if x, ok := v.Addr().Interface().(interface{ Validate() error }); ok {
		if err := x.Validate(); err != nil {
			return fmt.Errorf("%s%w", at(path), err)
		}
	}
	return nil
}

// Dump writes c as YAML, each key with its doc tag as a comment, and with its default where that is another
// value. Secrets are not written.
func Dump[T any](w io.Writer, c, defaults T) error {
	n, err := section(reflect.ValueOf(&c).Elem(), reflect.ValueOf(&defaults).Elem())
	if err != nil {
		return err
	}
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	if err := e.Encode(n); err != nil {
		return err
	}
	return e.Close()
}

func section(v, defaults reflect.Value) (*yaml.Node, error) {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for i, name := range fieldNames(v.Type()) {
		if name == "" {
			continue
		}
		doc := v.Type().Field(i).Tag.Get("doc")
		field, standard := v.Field(i), defaults.Field(i)
		value := new(yaml.Node)
		if isSection(field.Type()) {
			var err error
			if value, err = section(field, standard); err != nil {
				return nil, err
			}
		} else {
			if err := value.Encode(field.Interface()); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			if !reflect.DeepEqual(field.Interface(), standard.Interface()) {
				if b, err := yaml.Marshal(standard.Interface()); err == nil {
					if s := strings.TrimSpace(string(b)); s != "" && !strings.Contains(s, "\n") {
						doc = strings.TrimSpace(doc + " Default: " + s)
					}
				}
			}
		}
		n.Content = append(n.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: name, HeadComment: doc}, value)
	}
	if len(n.Content) == 0 {
		n.Style = yaml.FlowStyle
	}
	return n, nil
}

// isSection says whether a type is a struct of keys, not a struct that is a value.
func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct &&
		!reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) &&
		!reflect.PointerTo(t).Implements(reflect.TypeFor[yaml.Unmarshaler]())
}

type keySet struct {
	names []string
	index map[string]int
}

func keys(t reflect.Type) keySet {
	k := keySet{index: map[string]int{}}
	for i, name := range fieldNames(t) {
		if name != "" {
			k.names = append(k.names, name)
			k.index[name] = i
		}
	}
	return k
}

// fieldNames returns the key of each field, "" for one that is no key.
func fieldNames(t reflect.Type) []string {
	names := make([]string, t.NumField())
	for i := range names {
		if f := t.Field(i); f.IsExported() {
			if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name != "-" {
				names[i] = name
			}
		}
	}
	return names
}

// nearest returns the name with the fewest letters to change.
func nearest(key string, names []string) string {
	best, least := "", 1<<30
	for _, name := range names {
		if d := distance(key, name); d < least {
			best, least = name, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d++
			}
			diagonal = row[j+1]
			row[j+1] = min(d, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
