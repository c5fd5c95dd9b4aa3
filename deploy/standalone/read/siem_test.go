package read

import (
	"bytes"
	"path/filepath"
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
