package source

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"unicode/utf8"
)

// maxFile is the size of a file that is read as a whole. Threat lists are not.
const maxFile = 1 << 30

// Error says what is wrong with a file, in one line.
type Error struct {
	File   string
	Line   int // 0: unknown
	Reason string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Reason
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Reason)
}

// reason is an error without the file's name.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return strings.ReplaceAll(err.Error(), "\n", " ")
}

// whole reads a file as a whole.
func whole(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxFile {
		return nil, &Error{File: path, Reason: fmt.Sprintf("has %d bytes, at most %d are read", info.Size(), maxFile)}
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, &Error{File: path, Reason: reason(err)}
	}
	return b, nil
}

// content reads a text as a whole.
func content(path string) ([]byte, error) {
	b, err := whole(path)
	if err != nil {
		return nil, err
	}
	if err := encoding(path, b); err != nil {
		return nil, err
	}
	b = bytes.TrimPrefix(b, []byte(utf8Mark))
	if !utf8.Valid(b) {
		for i, line := range bytes.Split(b, []byte("\n")) {
			if !utf8.Valid(line) {
				return nil, &Error{path, i + 1, "is not UTF-8; save it as UTF-8"}
			}
		}
	}
	return b, nil
}

const utf8Mark = "\xef\xbb\xbf"

// encoding refuses UTF-16, and what is compressed, by the beginning of a file.
func encoding(path string, head []byte) error {
	if bytes.HasPrefix(head, []byte{0x1f, 0x8b}) {
		return &Error{File: path, Reason: "is compressed; unpack it"}
	}
	head = head[:min(len(head), 64)]
	if bytes.HasPrefix(head, []byte{0xff, 0xfe}) || bytes.HasPrefix(head, []byte{0xfe, 0xff}) || bytes.IndexByte(head, 0) >= 0 {
		return &Error{path, 1, "is UTF-16; save it as UTF-8"}
	}
	return nil
}

// lineEnds refuses lines that end by a carriage return alone, which nobody takes for lines.
func lineEnds(path string, b []byte) error {
	if bytes.IndexByte(b, '\n') < 0 && bytes.IndexByte(bytes.TrimRight(b, "\r"), '\r') >= 0 {
		return &Error{path, 1, "its lines end by carriage returns alone; save it with line feeds"}
	}
	return nil
}

// lineAt is the line of an offset.
func lineAt(b []byte, offset int64) int {
	return 1 + bytes.Count(b[:min(int(offset), len(b))], []byte("\n"))
}

// document is a JSON file.
type document struct {
	file
	bytes []byte
}

// wrong is an error about a value of the document: its line is that where the value first stands.
func (d *document) wrong(value, format string, args ...any) error {
	e := &Error{File: d.path, Reason: fmt.Sprintf(format, args...)}
	if quoted, err := json.Marshal(value); err == nil && value != "" {
		if i := bytes.Index(d.bytes, quoted); i >= 0 {
			e.Line = lineAt(d.bytes, int64(i))
		}
	}
	return e
}

// decode reads the document into v.
func (d *document) decode(v any) error {
	err := json.Unmarshal(d.bytes, v)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &syntax):
		return &Error{d.path, lineAt(d.bytes, syntax.Offset), syntax.Error()}
	case errors.As(err, &kind):
		return &Error{d.path, lineAt(d.bytes, kind.Offset), wanted(kind)}
	}
	return &Error{File: d.path, Reason: reason(err)}
}

// wanted says what a value of JSON is, and what it should be.
func wanted(e *json.UnmarshalTypeError) string {
	field := cmp.Or(e.Field, "an element")
	switch e.Type.Kind() {
	case reflect.Struct, reflect.Map:
		return fmt.Sprintf("%s is %s where an object is wanted", field, e.Value)
	case reflect.Slice:
		return fmt.Sprintf("%s is %s where a list is wanted", field, e.Value)
	case reflect.Uint8:
		return fmt.Sprintf("%s is %s where a whole number of 0 to 100 is wanted", field, e.Value)
	}
	return fmt.Sprintf("%s is %s where %s is wanted", field, e.Value, e.Type)
}

// parsePrefix reads an address or a prefix.
func parsePrefix(s string) (netip.Prefix, error) {
	s = strings.TrimSpace(s)
	if !strings.Contains(s, "/") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is no address", s)
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || p.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%q is no prefix", s)
	case p != p.Masked():
		return netip.Prefix{}, fmt.Errorf("%q has bits behind its length; the prefix is %s", s, p.Masked())
	}
	return p, nil
}
