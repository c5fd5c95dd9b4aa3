package siemtest

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/session"
	"github.com/tapweave/tapweave/sink/siem"
)

// leaves collects the values of a document as texts.
func leaves(v any, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for _, inner := range v {
			leaves(inner, into)
		}
	case []any:
		for _, inner := range v {
			leaves(inner, into)
		}
	default:
		into[fmt.Sprint(v)] = true
	}
}

// What is known of a session is in its document: the value of each field is found in it.
func TestComplete(t *testing.T) {
	// Fields that no document has, and why.
	never := map[string]string{
		"SrcPayload": "payload does not go to SIEMs", "DstPayload": "payload does not go to SIEMs",
		"InputPartition": "of our log", "LogEpoch": "of our log", "OwnerEpoch": "of our log", "OutputNumber": "of our log", "Created": "of our log",
	}
	byKind := map[string]func(*columns.Session){
		"TLS":  func(s *columns.Session) { s.App, s.HTTPMethod, s.HTTPStatus = "tls", "", 0 },
		"HTTP": func(s *columns.Session) { s.App = "http" },
		"DNS":  func(s *columns.Session) { s.App = "dns" },
	}
	of := func(field string) string {
		for _, kind := range []string{"HTTP", "DNS"} {
			if strings.HasPrefix(field, kind) {
				return kind
			}
		}
		return "TLS"
	}
	for _, f := range siem.Formats {
		format := f.Name
		for kind, change := range byKind {
			s := Full()
			change(s)
			document, err := parse(f.Append(nil, s))
			if err != nil {
				t.Fatal(err)
			}
			have := map[string]bool{}
			leaves(document, have)
			walk("", reflect.ValueOf(s).Elem(), func(field string, v any) {
				name := strings.TrimRight(field, "012")
				// WebSession has no column for the vendors' own.
				if never[name] != "" || of(name) != kind || format == "asim" && name == "HTTPHosts" {
					return
				}
				if !found(have, format, name, v) {
					t.Errorf("%s, %s: %s (%v) is nowhere", format, kind, field, v)
				}
			})
		}
	}
}

func walk(name string, v reflect.Value, each func(string, any)) {
	switch x := v.Interface().(type) {
	case session.ID, packet.Addr, columns.MAC:
		each(name, x)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			walk(name+v.Type().Field(i).Name, v.Field(i), each)
		}
	case reflect.Slice:
		for i := range v.Len() {
			walk(fmt.Sprint(name, i), v.Index(i), each)
		}
	default:
		each(name, v.Interface())
	}
}

// found looks for a value as a document writes it.
func found(have map[string]bool, format, name string, v any) bool {
	texts := []string{fmt.Sprint(v)}
	switch x := v.(type) {
	case session.ID:
		texts = []string{x.String()}
	case packet.Addr:
		texts = []string{x.Netip().String()}
	case columns.MAC:
		hyphens := strings.ToUpper(fmt.Sprintf("%x-%x-%x-%x-%x-%x", x[0:1], x[1:2], x[2:3], x[3:4], x[4:5], x[5:6]))
		texts = []string{hyphens, strings.ReplaceAll(hyphens, "-", ":")}
	case float64:
		texts = []string{strconv.FormatFloat(x, 'g', -1, 64)}
	case int64: // times, as milliseconds too
		texts = []string{fmt.Sprint(x / 1e6), "2026-03-01T09:15:02.123456789Z", "2026-03-01T09:15:04.623456789Z"}
	}
	switch name {
	case "TLSVersion":
		texts = append(texts, "1.2")
	case "DNSRcode":
		texts = append(texts, "NoError")
	case "Direction":
		texts = append(texts, "Outbound")
	case "SrcLabelsName", "DstLabelsName": // with the domain beside it
		host, _, _ := strings.Cut(texts[0], ".")
		texts = append(texts, host)
	case "HTTPHost":
		texts = append(texts, "www.example", "http://www.example:8080/x?y=z")
	case "HTTPPath":
		texts = append(texts, "/x", "http://www.example:8080/x?y=z")
	case "HTTPHosts":
		texts = append(texts, "httphosts0.example")
	case "DNSAnswers":
		texts = append(texts, "93.184.215.14; 2001:db8::1; alias.example")
	}
	for _, text := range texts {
		if have[text] {
			return true
		}
	}
	return false
}

// Whatever bytes a session holds, its documents are valid, on one line, and read back as they were.
func FuzzAppend(f *testing.F) {
	f.Add("plain", 0.5, int64(1772356502123456789), uint64(7))
	f.Add("plain", 1.0, int64(0), uint64(1))
	f.Add("plain", 1.0, int64(0), uint64(4))
	f.Add("\xff\"\\\x00\u2028<>&", math.NaN(), int64(math.MinInt64), uint64(math.MaxUint64))
	f.Add("", math.Inf(1), int64(math.MaxInt64), uint64(0))
	f.Add("a.b:c/d?e[f]{", math.Inf(-1), int64(-1), uint64(1)<<63)
	f.Add("host.domain\n", 0.0625, int64(1772356502123456805), uint64(25))
	schemas := map[string]Schema{}
	for _, format := range siem.Formats {
		schemas[format.Name] = ByFormat(f, format.Name)
	}
	f.Fuzz(func(t *testing.T, text string, number float64, ns int64, n uint64) {
		s := Full()
		replace(reflect.ValueOf(s).Elem(), text, number, n)
		s.Start, s.Direction = ns, "inbound"
		s.SrcLabels.Country, s.DstLabels.Country = "", ""
		s.App = []string{"dns", "http", "quic", text}[n%4]
		if s.App != "http" {
			s.HTTPMethod, s.HTTPStatus = "", 0
		}
		a := ExampleAlert()
		replace(reflect.ValueOf(a).Elem(), text, number, n)
		a.Time = ns
		for _, format := range siem.Formats {
			check(t, schemas[format.Name], text, format.Append([]byte("x"), s)[1:])
			check(t, schemas[format.Name], text, format.AppendAlert([]byte("x"), a)[1:])
		}
	})
}

// check looks for a text in a document that is valid.
func check(t *testing.T, schema Schema, text string, b []byte) {
	t.Helper()
	for _, c := range b {
		if c < ' ' || c == 0x7f {
			t.Fatalf("control character in %q", b)
		}
	}
	if found := schema.Check(b); len(found) > 0 {
		t.Fatalf("%q in %s", found, b)
	}
	var document any
	if err := json.Unmarshal(b, &document); err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	leaves(document, have)
	if want := string([]rune(text)); want != "" && !have[want] { // what is no UTF-8 is replaced, byte by byte
		t.Fatalf("%q is not in %s", want, b)
	}
}

// replace sets every text, number and list of a session.
func replace(v reflect.Value, text string, number float64, n uint64) {
	switch v.Interface().(type) {
	case session.ID, packet.Addr, columns.MAC:
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			replace(v.Field(i), text, number, n)
		}
	case reflect.Slice:
		for i := range v.Len() {
			replace(v.Index(i), text, number, n)
		}
	case reflect.String:
		v.SetString(text)
	case reflect.Float64:
		v.SetFloat(number)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if v.OverflowUint(n) {
			v.SetUint(n & 0xff)
		} else {
			v.SetUint(n)
		}
	}
}
