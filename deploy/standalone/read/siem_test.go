package read

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tapweave/tapweave/proto/capturetest"
	"github.com/tapweave/tapweave/sink/siem"
	"github.com/tapweave/tapweave/sink/siem/siemtest"
)

// Every session of every capture, and every alert, is a valid document in each schema.
func TestDocuments(t *testing.T) {
	files := capturetest.Files(t)
	for _, f := range siem.Formats {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			schema := siemtest.ByFormat(t, f.Name)
			documents, alerts := 0, 0
			for _, file := range files {
				o := DefaultOptions()
				o.Format = f.Name
				var out bytes.Buffer
				if _, err := Run(o, []string{file}, &out); err != nil {
					t.Fatal(err)
				}
				for line := range bytes.Lines(out.Bytes()) {
					documents++
					if bytes.Contains(line, []byte(":overlap:")) { // in the id
						alerts++
					}
					if found := schema.Check(bytes.TrimSuffix(line, []byte("\n"))); len(found) > 0 {
						t.Errorf("%s: %q\n%s", filepath.Base(file), found, line)
					}
				}
			}
			t.Logf("%d documents of %d captures are valid, %d of them alerts", documents, len(files), alerts)
			if documents < 1000 || alerts == 0 {
				t.Errorf("only %d documents, %d of them alerts", documents, alerts)
			}
		})
	}
}

// The examples of docs/siem.md are what is printed of the bundled sample: each line with a document's id has values of
// that document.
func TestExamples(t *testing.T) {
	page, err := os.ReadFile("../../../docs/siem.md")
	if err != nil {
		t.Fatal(err)
	}
	documents := map[string][]byte{}
	id := regexp.MustCompile(`"[0-9a-f]{32}:\d+"`)
	for _, f := range siem.Formats {
		o := DefaultOptions()
		o.Format = f.Name
		var out bytes.Buffer
		if _, err := Run(o, []string{"../sample/sample.pcap"}, &out); err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(out.Bytes()) {
			documents[f.Name+string(id.Find(line))] = line
		}
	}
	format, examples := "", 0
	for line := range strings.Lines(string(page)) {
		if m := regexp.MustCompile(`--format (\w+) deploy`).FindStringSubmatch(line); m != nil {
			format = m[1]
		}
		found := id.FindString(line)
		if found == "" {
			continue
		}
		examples++
		var values []any
		if err := json.Unmarshal([]byte(line), &values); err != nil {
			t.Errorf("%v: %s", err, line)
		}
		for _, v := range values {
			if b, _ := json.Marshal(v); !bytes.Contains(documents[format+found], b) {
				t.Errorf("%s, document %s: there is no %s", format, found, b)
			}
		}
	}
	if examples < 7 {
		t.Errorf("only %d lines of examples", examples)
	}
}
