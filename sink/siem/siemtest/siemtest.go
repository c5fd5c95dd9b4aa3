// Package siemtest checks documents for SIEMs against the official lists of fields, which lie beside the captures
// (package capturetest), and makes sessions that fill every column.
package siemtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tapweave/tapweave/proto/columns"
)

// Schema is what documents are checked against.
type Schema interface {
	// Check returns what is wrong with a document, nothing if it is valid.
	Check(document []byte) []string
}

// ByFormat returns the schema of a format of tapweave read: ecs, ocsf or asim.
func ByFormat(tb testing.TB, format string) Schema {
	tb.Helper()
	switch format {
	case "ecs":
		return ECS(tb)
	case "ocsf":
		return OCSF(tb)
	case "asim":
		return ASIM(tb)
	}
	tb.Fatalf("no schema %q", format)
	return nil
}

// problems collects what is wrong.
type problems []string

func (p *problems) add(format string, args ...any) { *p = append(*p, fmt.Sprintf(format, args...)) }

// parse reads one object, numbers as they stand, and checks that it is all there is, on one line, with no key twice.
func parse(document []byte) (map[string]any, error) {
	if bytes.ContainsAny(document, "\r\n") {
		return nil, fmt.Errorf("line end in the document")
	}
	if err := unique(document); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(document))
	d.UseNumber()
	var object map[string]any
	if err := d.Decode(&object); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, fmt.Errorf("more than one object")
	}
	return object, nil
}

// unique looks for keys that stand twice in an object, which encoding/json lets pass.
func unique(document []byte) error {
	d := json.NewDecoder(bytes.NewReader(document))
	var open []map[string]bool // of each object or list that is open its keys, nil of a list
	key := false               // whether a key comes next
	for {
		token, err := d.Token()
		if err != nil {
			return nil // the end, or an error that the parser will name
		}
		if delim, ok := token.(json.Delim); ok {
			switch delim {
			case '{':
				open = append(open, map[string]bool{})
			case '[':
				open = append(open, nil)
			default:
				open = open[:len(open)-1]
			}
			key = len(open) > 0 && open[len(open)-1] != nil
			continue
		}
		if len(open) == 0 || open[len(open)-1] == nil {
			continue
		}
		if key {
			name := token.(string)
			if open[len(open)-1][name] {
				return fmt.Errorf("key %q stands twice in an object", name)
			}
			open[len(open)-1][name] = true
		}
		key = !key
	}
}

func isInteger(v any) (int64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	i, err := n.Int64()
	return i, err == nil
}

func isAddress(v any) bool {
	s, ok := v.(string)
	if !ok {
		return false
	}
	_, err := netip.ParseAddr(s)
	return err == nil
}

func isTime(v any) bool {
	s, ok := v.(string)
	if !ok {
		return false
	}
	_, err := time.Parse(time.RFC3339Nano, s)
	return err == nil
}

func isMAC(v any, separator string) bool {
	s, ok := v.(string)
	if !ok || len(s) != 17 {
		return false
	}
	for _, pair := range strings.Split(s, separator) {
		if len(pair) != 2 || strings.Trim(pair, "0123456789ABCDEF") != "" {
			return false
		}
	}
	return true
}

// Expect compares values of a document, by their paths with dots, printed; "" means that there is none.
func Expect(tb testing.TB, document []byte, want map[string]string) {
	tb.Helper()
	object, err := parse(document)
	if err != nil {
		tb.Fatalf("%v: %s", err, document)
	}
	for path, text := range want {
		var v any = object
		for key := range strings.SplitSeq(path, ".") {
			inner, _ := v.(map[string]any)
			v = inner[key]
		}
		have := ""
		if v != nil {
			have = fmt.Sprint(v)
		}
		if have != text {
			tb.Errorf("%s: %q, want %q", path, have, text)
		}
	}
}

// Benchmark measures how many documents a second of processor time are written, of sessions of each kind.
func Benchmark(b *testing.B, appendDocument func([]byte, *columns.Session) []byte) {
	sessions := Mix()
	var buf []byte
	bytes := 0
	b.ReportAllocs()
	before := Processor(b)
	b.ResetTimer()
	for i := range b.N {
		buf = appendDocument(buf[:0], sessions[i%len(sessions)])
		bytes += len(buf)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/(Processor(b)-before).Seconds(), "documents/cpu-s")
	b.ReportMetric(float64(bytes)/float64(b.N), "B/document")
}

// Processor is the processor time that this process has had.
func Processor(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
