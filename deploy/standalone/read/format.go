package read

import (
	"bufio"
	"fmt"

	"github.com/tapweave/tapweave/proto/columns"
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
		return jsonFormat{}, nil
	case "table":
		return &tableFormat{}, nil
	}
	return nil, fmt.Errorf("unknown format %q, must be json or table", name)
}

// jsonFormat is one flat object a line.
type jsonFormat struct{}

func (jsonFormat) append(dst []byte, s *columns.Session) []byte {
	return append(columns.AppendJSON(dst, s), '\n')
}

func (jsonFormat) print(w *bufio.Writer, text []byte) error {
	_, err := w.Write(text)
	return err
}

func (jsonFormat) end(*bufio.Writer) error { return nil }
