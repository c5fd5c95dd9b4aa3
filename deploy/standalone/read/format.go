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
	print(w *bufio.Writer, text []byte) error
	end(w *bufio.Writer) error
}

// newFormat returns the format of a name.
func newFormat(name string) (format, error) {
	switch name {
	case "json":
		return lineFormat(columns.AppendJSON), nil
	case "table":
		return &tableFormat{}, nil
	}
	for _, f := range siem.Formats {
		if f.Name == name {
			return lineFormat(f.Append), nil
		}
	}
	return nil, fmt.Errorf("unknown format %q, must be json, table, ecs, ocsf or asim", name)
}

// lineFormat is one object a line, flat or as SIEMs get it.
type lineFormat func(dst []byte, s *columns.Session) []byte

func (f lineFormat) append(dst []byte, s *columns.Session) []byte { return append(f(dst, s), '\n') }

func (lineFormat) print(w *bufio.Writer, text []byte) error {
	_, err := w.Write(text)
	return err
}

func (lineFormat) end(*bufio.Writer) error { return nil }
