package columns

import (
	"encoding/base64"
	"math"
	"strconv"
	"strings"
	"time"
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

// appendString appends a JSON string. Each byte that is no UTF-8 becomes U+FFFD, as encoding/json has it.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				dst = append(dst, s[from:i]...)
				dst = append(dst, "\ufffd"...)
				from = i + 1
			}
			i += n
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
			i++
			continue
		}
		dst = append(dst, s[from:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default: // DEL would be legal, but is no good on a terminal
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		from = i
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}

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

// appendTime appends a time as RFC 3339 in UTC with nine digits. Every int64 is in the years 1677 to 2262.
func appendTime(dst []byte, ns int64) []byte {
	return time.Unix(0, ns).UTC().AppendFormat(dst, `"2006-01-02T15:04:05.000000000Z"`)
}

func appendBase64(dst, b []byte) []byte {
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, b)
	return append(dst, '"')
}
