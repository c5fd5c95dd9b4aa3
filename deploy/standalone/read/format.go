package read

import (
	"bufio"
	"fmt"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/sink/siem"
)

// format turns sessions into text. append is called by several goroutines at once; print gets what append
// made, in the order of printing, and end comes last.
type format interface {
	append(dst []byte, s *columns.Session) []byte
	// appendAlert appends an alert, which is printed behind its session, or nothing.
	appendAlert(dst []byte, a *columns.Alert) []byte
	print(w *bufio.Writer, text []byte) error
	end(w *bufio.Writer) error
}

// newFormat returns the format of a name.
func newFormat(name string) (format, error) {
	switch name {
	case "json":
		return jsonFormat{}, nil
	case "table":
		return &tableFormat{}, nil
	}
	for _, f := range siem.Formats {
		if f.Name == name {
			return documents{f: f}, nil
		}
	}
	return nil, fmt.Errorf("unknown format %q, must be json, table, ecs, ocsf or asim", name)
}

// lines prints text as it is.
type lines struct{}

func (lines) print(w *bufio.Writer, text []byte) error {
	_, err := w.Write(text)
	return err
}

func (lines) end(*bufio.Writer) error { return nil }

// jsonFormat is one flat object a line, of sessions alone.
type jsonFormat struct{ lines }

func (jsonFormat) append(dst []byte, s *columns.Session) []byte {
	return append(columns.AppendJSON(dst, s), '\n')
}

func (jsonFormat) appendAlert(dst []byte, _ *columns.Alert) []byte { return dst }

// documents are those of a topic for SIEMs, one a line.
type documents struct {
	lines
	f siem.Format
}

func (d documents) append(dst []byte, s *columns.Session) []byte {
	return append(d.f.Append(dst, s), '\n')
}

func (d documents) appendAlert(dst []byte, a *columns.Alert) []byte {
	return append(d.f.AppendAlert(dst, a), '\n')
}
