package columns

import (
	"encoding/base64"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// AppendJSON appends the row as one flat JSON object on one line, without a line feed. Keys are in the order
// of the columns; internal columns, and those whose value is unknown, are left out.
func (t *Table[R]) AppendJSON(dst []byte, r *R) []byte {
	dst = append(dst, '{')
	first := true
	for i := range t.Columns {
		c := &t.Columns[i]
		if c.Internal {
			continue
		}
		before := len(dst)
		if !first {
			dst = append(dst, ',')
		}
		dst = append(dst, t.keys[i]...)
		value := len(dst)
		if dst = c.cell.appendJSON(dst, r); len(dst) == value {
			dst = dst[:before]
			continue
		}
		first = false
	}
	return append(dst, '}')
}

// AppendJSON appends a session as one flat JSON object on one line, without a line feed.
func AppendJSON(dst []byte, s *Session) []byte { return Sessions.AppendJSON(dst, s) }

const hexDigits = "0123456789abcdef"

// validUTF8 returns s with each byte that is no UTF-8 replaced by U+FFFD, so that Arrow, ClickHouse and JSON
// hold the same text.
func validUTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		b.WriteRune(r)
	}
	return b.String()
}

func appendBool(dst []byte, v bool) []byte { return strconv.AppendBool(dst, v) }
func appendInt(dst []byte, v int64) []byte { return strconv.AppendInt(dst, v, 10) }
func appendUint[T uint8 | uint16 | uint32 | uint64](dst []byte, v T) []byte {
	return strconv.AppendUint(dst, uint64(v), 10)
}

// appendFloat appends the shortest decimal that reads back as v, without an exponent between 1e-9 (no column
// is finer than nanoseconds) and 1e21; nothing where JSON has no number for it.
func appendFloat(dst []byte, v float64) []byte {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return dst
	}
	format := byte('f')
	if a := math.Abs(v); a != 0 && (a < 1e-9 || a >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, v, format, -1, 64)
}

func appendBase64(dst, b []byte) []byte {
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, b)
	return append(dst, '"')
}
