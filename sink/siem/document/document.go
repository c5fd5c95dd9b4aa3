// Package document writes JSON objects by hand: no reflection, no allocation.
//
// A key is given as it stands in the text, with quotation marks and colon (`"name":`), so that it is copied in one
// piece. What is unknown is not written: the empty text, the empty list, and objects and lists that stayed empty.
package document

import (
	"math"
	"strconv"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/jsontext"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/session"
)

// Writer appends one object to a buffer. Methods are called in the order of the text.
type Writer struct{ buf []byte }

// Begin returns a writer whose object is open, and is appended to dst.
func Begin(dst []byte) Writer { return Writer{append(dst, '{')} }

// End closes the object and returns the buffer.
func (w *Writer) End() []byte { return append(w.buf, '}') }

// Key writes a key; its value has to follow.
func (w *Writer) Key(key string) {
	// A value never ends with an opening bracket: text ends with a quotation mark.
	if c := w.buf[len(w.buf)-1]; c != '{' && c != '[' {
		w.buf = append(w.buf, ',')
	}
	w.buf = append(w.buf, key...)
}

// Raw writes members or elements that are known beforehand, as they stand in the text, without a comma at either
// end.
func (w *Writer) Raw(text string) { w.Key(text) }

// Open begins an object or a list: key ends with the bracket. In a list the key is the bracket alone.
func (w *Writer) Open(key string) { w.Key(key) }

// Close ends an object.
func (w *Writer) Close() { w.buf = append(w.buf, '}') }

// CloseList ends a list.
func (w *Writer) CloseList() { w.buf = append(w.buf, ']') }

// Begin opens an object whose key stands there already.
func (w *Writer) Begin() { w.buf = append(w.buf, '{') }

// Bool writes a truth value.
func (w *Writer) Bool(key string, v bool) {
	w.Key(key)
	w.buf = strconv.AppendBool(w.buf, v)
}

// Mark is where an object or a list begins that may stay empty; it is taken before Open.
func (w *Writer) Mark() int { return len(w.buf) }

// CloseUnlessEmpty ends an object that was opened at mark, or takes it back where it has no members.
func (w *Writer) CloseUnlessEmpty(mark int) {
	if w.buf[len(w.buf)-1] == '{' {
		w.buf = w.buf[:mark]
		return
	}
	w.buf = append(w.buf, '}')
}

// CloseListUnlessEmpty ends a list that was opened at mark, or takes it back where it has no elements.
func (w *Writer) CloseListUnlessEmpty(mark int) {
	if w.buf[len(w.buf)-1] == '[' {
		w.buf = w.buf[:mark]
		return
	}
	w.buf = append(w.buf, ']')
}

// Copy writes a key, and as its value once more what was written from one place to another: marks taken before the
// value's first byte and behind its last.
func (w *Writer) Copy(key string, from, to int) {
	w.Key(key)
	w.buf = append(w.buf, w.buf[from:to]...)
}

// Text writes a text, unless it is empty.
func (w *Writer) Text(key, s string) {
	if s != "" {
		w.Key(key)
		w.buf = jsontext.AppendText(w.buf, s)
	}
}

// Value writes a text behind its key, also the empty one.
func (w *Writer) Value(s string) { w.buf = jsontext.AppendText(w.buf, s) }

// Element writes a text into a list, unless it is empty.
func (w *Writer) Element(s string) { w.Text("", s) }

// list writes a list, unless it is empty.
func list[T any](w *Writer, key string, all []T, appendTo func([]byte, T) []byte) {
	if len(all) == 0 {
		return
	}
	w.Key(key)
	w.buf = append(w.buf, '[')
	for i, e := range all {
		if i > 0 {
			w.buf = append(w.buf, ',')
		}
		w.buf = appendTo(w.buf, e)
	}
	w.buf = append(w.buf, ']')
}

// Texts writes a list of texts, unless it is empty.
func (w *Writer) Texts(key string, all []string) { list(w, key, all, jsontext.AppendText) }

// Uints writes a list of numbers, unless it is empty.
func Uints[T uint16 | uint32](w *Writer, key string, all []T) {
	list(w, key, all, func(dst []byte, n T) []byte { return strconv.AppendUint(dst, uint64(n), 10) })
}

// Joined writes a list as one text.
func (w *Writer) Joined(key string, list []string, separator string) {
	w.Key(key)
	w.buf = append(w.buf, '"')
	for i, s := range list {
		if i > 0 {
			w.buf = append(w.buf, separator...)
		}
		w.buf = jsontext.AppendEscaped(w.buf, s)
	}
	w.buf = append(w.buf, '"')
}

// Plain writes a text that needs no escapes: what this program made, not what came from a network.
func (w *Writer) Plain(key, s string) {
	w.Key(key)
	w.buf = append(w.buf, '"')
	w.buf = append(w.buf, s...)
	w.buf = append(w.buf, '"')
}

// Quoted writes a text that needs no escapes, such as an address that was formatted once for several places.
func (w *Writer) Quoted(key string, b []byte) {
	w.Key(key)
	w.buf = append(w.buf, '"')
	w.buf = append(w.buf, b...)
	w.buf = append(w.buf, '"')
}

// Address writes an address.
func (w *Writer) Address(key string, a packet.Addr) {
	var text [64]byte
	w.Quoted(key, jsontext.AppendAddress(text[:0], a))
}

// Uint writes a number.
func (w *Writer) Uint(key string, n uint64) {
	w.Key(key)
	w.buf = strconv.AppendUint(w.buf, n, 10)
}

// Long writes a number that its reader holds in 64 bits with a sign: the greatest such number in place of a
// greater one.
func (w *Writer) Long(key string, n uint64) { w.Uint(key, min(n, math.MaxInt64)) }

// Int writes a number that its reader holds in 32 bits with a sign, held within these bounds.
func (w *Writer) Int(key string, n int64) {
	w.Key(key)
	w.buf = strconv.AppendInt(w.buf, max(min(n, math.MaxInt32), math.MinInt32), 10)
}

// Digits writes a number as a text.
func (w *Writer) Digits(key string, n uint64) {
	w.Key(key)
	w.buf = append(w.buf, '"')
	w.buf = strconv.AppendUint(w.buf, n, 10)
	w.buf = append(w.buf, '"')
}

// Float writes a number, unless it is none or infinite: JSON has neither.
func (w *Writer) Float(key string, v float64) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return
	}
	w.Key(key)
	if v == 1 { // nearly always: the share of packets kept
		w.buf = append(w.buf, '1')
		return
	}
	w.buf = strconv.AppendFloat(w.buf, v, 'g', -1, 64)
}

// Millis writes a time, given in nanoseconds since 1970, in milliseconds since then.
func (w *Writer) Millis(key string, ns int64) {
	w.Key(key)
	w.buf = strconv.AppendInt(w.buf, jsontext.Floor(ns, 1e6), 10)
}

const (
	lowerHex = "0123456789abcdef"
	upperHex = "0123456789ABCDEF"
)

// MAC writes an Ethernet address in upper case with a separator, unless it is unknown.
func (w *Writer) MAC(key string, m columns.MAC, separator byte) {
	if m == (columns.MAC{}) {
		return
	}
	w.Key(key)
	w.buf = append(w.buf, '"',
		upperHex[m[0]>>4], upperHex[m[0]&15], separator, upperHex[m[1]>>4], upperHex[m[1]&15], separator,
		upperHex[m[2]>>4], upperHex[m[2]&15], separator, upperHex[m[3]>>4], upperHex[m[3]&15], separator,
		upperHex[m[4]>>4], upperHex[m[4]&15], separator, upperHex[m[5]>>4], upperHex[m[5]&15], '"')
}

// SessionID writes the id of a session.
func (w *Writer) SessionID(key string, id session.ID) {
	w.Key(key)
	w.buf = append(w.buf, '"')
	w.appendID(id)
	w.buf = append(w.buf, '"')
}

// ID writes the id of a document of a session: session_id:version.
func (w *Writer) ID(key string, id session.ID, version uint32) {
	w.Key(key)
	w.buf = append(w.buf, '"')
	w.appendID(id)
	w.buf = append(w.buf, ':')
	w.buf = strconv.AppendUint(w.buf, uint64(version), 10)
	w.buf = append(w.buf, '"')
}

func (w *Writer) appendID(id session.ID) {
	var text [2 * len(id)]byte
	for i, x := range id {
		text[2*i], text[2*i+1] = lowerHex[x>>4], lowerHex[x&15]
	}
	w.buf = append(w.buf, text[:]...)
}

// Time writes a time, given in nanoseconds since 1970, as RFC 3339 in UTC with nine digits.
func (w *Writer) Time(key string, ns int64) {
	w.Key(key)
	w.buf = jsontext.AppendTime(w.buf, ns)
}
