package columns

import (
	"encoding/hex"
	"fmt"
	"math"
	"net/netip"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"

	"github.com/tapweave/tapweave/proto/jsontext"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/session"
)

// cell turns one value of a row into Arrow and JSON, and back from Arrow.
type cell[R any] interface {
	arrowType() arrow.DataType
	nullable() bool
	// appender returns an empty buffer, and the function that appends a row's value to it.
	appender() (columnBuffer, func(*R))
	// appendJSON appends the value; nothing where it is unknown.
	appendJSON(dst []byte, r *R) []byte
	// loader returns the function that sets the field of some rows to the values of a from an index on, and says of
	// which row an error is; nil where there is nothing to set: the value follows from other fields, or is the default.
	loader(a arrow.Array) func(rows []R, from int) (row int, err error)
}

// kind is how values of a Go type stand in Arrow and JSON.
type kind[T any] struct {
	arrow   arrow.DataType
	unknown func(T) bool // nil: every value is known
	null    bool         // an unknown value is null in Arrow, not the type's default
	json    func([]byte, T) []byte
	buffer  func() (columnBuffer, func(T))
	load    func(arrow.Array) func(int) (T, error)
	values  func(arrow.Array) []T  // in place of load, where Arrow holds the values as they are
	blank   func(arrow.Array) bool // whether all values are the type's default, as those of many columns are; nil: it is not known
}

// all returns the values of an array.
func (k *kind[T]) all(a arrow.Array) ([]T, error) {
	if k.values != nil {
		return k.values(a), nil
	}
	load, all := k.load(a), make([]T, a.Len())
	for i := range all {
		v, err := load(i)
		if err != nil {
			return nil, err
		}
		all[i] = v
	}
	return all, nil
}

// field is a cell that is held by a field of the row, or computed from others.
type field[R, T any] struct {
	kind[T]
	at    func(*R) *T
	value func(*R) T    // in place of at
	known func(*R) bool // beside the kind's own unknown; nil: always
}

func (f *field[R, T]) arrowType() arrow.DataType { return f.kind.arrow }
func (f *field[R, T]) nullable() bool            { return f.null }

func (f *field[R, T]) appender() (columnBuffer, func(*R)) {
	b, add := f.buffer()
	at, value := f.at, f.value
	if value != nil {
		return b, func(r *R) { add(value(r)) }
	}
	return b, func(r *R) { add(*at(r)) }
}

func (f *field[R, T]) appendJSON(dst []byte, r *R) []byte {
	if f.known != nil && !f.known(r) {
		return dst
	}
	var v T
	if f.value != nil {
		v = f.value(r)
	} else {
		v = *f.at(r)
	}
	if f.unknown != nil && f.unknown(v) {
		return dst
	}
	return f.json(dst, v)
}

func (f *field[R, T]) loader(a arrow.Array) func([]R, int) (int, error) {
	at := f.at
	if at == nil || f.blank != nil && f.blank(a) {
		return nil
	}
	if f.values != nil {
		values := f.values(a)
		return func(rows []R, from int) (int, error) {
			for i, v := range values[from : from+len(rows)] {
				*at(&rows[i]) = v
			}
			return 0, nil
		}
	}
	load := f.load(a)
	return func(rows []R, from int) (int, error) {
		for i := range rows {
			v, err := load(from + i)
			if err != nil {
				return i, err
			}
			*at(&rows[i]) = v
		}
		return 0, nil
	}
}

// when makes a cell unknown in JSON where known is false.
func when[R, T any](known func(*R) bool, f *field[R, T]) *field[R, T] {
	f.known = known
	return f
}

// nonzero makes 0 mean unknown in JSON.
func nonzero[R any, T comparable](f *field[R, T]) *field[R, T] {
	var zero T
	f.unknown = func(v T) bool { return v == zero }
	return f
}

// text is a string, the empty one unknown. What is no UTF-8 is replaced.
func text[R any](at func(*R) *string) *field[R, string] {
	return &field[R, string]{kind: textKind, at: at}
}

// derived is a string that follows from other fields.
func derived[R any](value func(*R) string) *field[R, string] {
	return &field[R, string]{kind: textKind, value: value}
}

var textKind = kind[string]{
	arrow:   arrow.BinaryTypes.String,
	unknown: func(s string) bool { return s == "" },
	json:    jsontext.AppendText,
	buffer: func() (columnBuffer, func(string)) {
		b := new(runs)
		return b, func(s string) {
			b.values = append(b.values, validUTF8(s)...)
			b.end()
		}
	},
	load: func(a arrow.Array) func(int) (string, error) {
		s := a.(*array.String)
		return func(i int) (string, error) { return s.Value(i), nil }
	},
	blank: func(a arrow.Array) bool { return len(a.(*array.String).ValueBytes()) == 0 },
}

// flat is a number.
func flat[T number](t arrow.DataType, json func([]byte, T) []byte) kind[T] {
	return kind[T]{
		arrow: t,
		json:  json,
		buffer: func() (columnBuffer, func(T)) {
			b := new(fixed[T])
			return b, b.append
		},
		values: func(a arrow.Array) []T {
			if a.Len() == 0 {
				return nil
			}
			return arrow.GetData[T](a.Data().Buffers()[1].Bytes())[a.Data().Offset():]
		},
	}
}

var (
	uint8Kind   = flat(arrow.PrimitiveTypes.Uint8, appendUint[uint8])
	uint16Kind  = flat(arrow.PrimitiveTypes.Uint16, appendUint[uint16])
	uint32Kind  = flat(arrow.PrimitiveTypes.Uint32, appendUint[uint32])
	uint64Kind  = flat(arrow.PrimitiveTypes.Uint64, appendUint[uint64])
	int64Kind   = flat(arrow.PrimitiveTypes.Int64, appendInt)
	float64Kind = flat(arrow.PrimitiveTypes.Float64, appendFloat)
)

func boolean[R any](at func(*R) *bool) *field[R, bool] {
	return &field[R, bool]{at: at, kind: kind[bool]{
		arrow: arrow.FixedWidthTypes.Boolean,
		json:  appendBool,
		buffer: func() (columnBuffer, func(bool)) {
			b := new(bits)
			return b, b.append
		},
		load: func(a arrow.Array) func(int) (bool, error) {
			b := a.(*array.Boolean)
			return func(i int) (bool, error) { return b.Value(i), nil }
		},
	}}
}

func u8[R any](at func(*R) *uint8) *field[R, uint8] { return &field[R, uint8]{kind: uint8Kind, at: at} }
func u16[R any](at func(*R) *uint16) *field[R, uint16] {
	return &field[R, uint16]{kind: uint16Kind, at: at}
}
func u32[R any](at func(*R) *uint32) *field[R, uint32] {
	return &field[R, uint32]{kind: uint32Kind, at: at}
}
func u64[R any](at func(*R) *uint64) *field[R, uint64] {
	return &field[R, uint64]{kind: uint64Kind, at: at}
}
func i64[R any](at func(*R) *int64) *field[R, int64] {
	return &field[R, int64]{kind: int64Kind, at: at}
}

// fraction is a number that is always known.
func fraction[R any](at func(*R) *float64) *field[R, float64] {
	return &field[R, float64]{kind: float64Kind, at: at}
}

// fractionOf is a number that follows from other fields.
func fractionOf[R any](value func(*R) float64) *field[R, float64] {
	return &field[R, float64]{kind: float64Kind, value: value}
}

// optional is a number that is unknown, and null in Arrow, where it is NaN or infinite (JSON has neither).
func optional[R any](at func(*R) *float64) *field[R, float64] {
	k := float64Kind
	k.null = true
	k.unknown = func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) }
	k.buffer = func() (columnBuffer, func(float64)) {
		b := new(nullable[float64])
		return b, func(v float64) { b.append(v, !k.unknown(v)) }
	}
	k.values = nil
	k.load = func(a arrow.Array) func(int) (float64, error) {
		value := a.(*array.Float64).Value
		return func(i int) (float64, error) {
			if a.IsNull(i) {
				return math.NaN(), nil
			}
			return value(i), nil
		}
	}
	return &field[R, float64]{kind: k, at: at}
}

// moment is a time in nanoseconds since the Unix epoch.
func moment[R any](at func(*R) *int64) *field[R, int64] {
	return &field[R, int64]{at: at, kind: kind[int64]{
		arrow: arrow.FixedWidthTypes.Timestamp_ns,
		json:  jsontext.AppendTime,
		buffer: func() (columnBuffer, func(int64)) {
			b := new(fixed[int64])
			return b, b.append
		},
		load: func(a arrow.Array) func(int) (int64, error) {
			t := a.(*array.Timestamp)
			return func(i int) (int64, error) { return int64(t.Value(i)), nil }
		},
	}}
}

// minute is a whole minute in nanoseconds since the Unix epoch; Arrow has it in seconds.
func minute[R any](at func(*R) *int64) *field[R, int64] {
	const second = 1_000_000_000
	return &field[R, int64]{at: at, kind: kind[int64]{
		arrow: arrow.FixedWidthTypes.Timestamp_s,
		json:  jsontext.AppendTime,
		buffer: func() (columnBuffer, func(int64)) {
			b := new(fixed[int64])
			return b, func(v int64) { b.append(v / second) }
		},
		load: func(a arrow.Array) func(int) (int64, error) {
			t := a.(*array.Timestamp)
			return func(i int) (int64, error) {
				v := int64(t.Value(i))
				if v > math.MaxInt64/second || v < math.MinInt64/second {
					return 0, fmt.Errorf("time of %d s is out of range", v)
				}
				return v * second, nil
			}
		},
	}}
}

// viaText is a kind that is text in Arrow and JSON.
func viaText[T comparable](format func([]byte, T) []byte, parse func(string) (T, error)) kind[T] {
	return kind[T]{
		arrow: arrow.BinaryTypes.String,
		json: func(dst []byte, v T) []byte {
			return append(format(append(dst, '"'), v), '"')
		},
		buffer: func() (columnBuffer, func(T)) {
			b := new(runs)
			return b, func(v T) {
				b.values = format(b.values, v)
				b.end()
			}
		},
		load: func(a arrow.Array) func(int) (T, error) {
			s := a.(*array.String)
			return func(i int) (T, error) { return parse(s.Value(i)) }
		},
	}
}

// address is an IP address, canonical: IPv4 as a dotted quad, IPv6 as in RFC 5952.
func address[R any](at func(*R) *packet.Addr) *field[R, packet.Addr] {
	return &field[R, packet.Addr]{kind: addrKind, at: at}
}

var addrKind = viaText(
	func(dst []byte, a packet.Addr) []byte { return jsontext.AppendAddress(dst, a) },
	func(s string) (packet.Addr, error) {
		a, err := netip.ParseAddr(s)
		if err == nil && a.Zone() != "" {
			err = fmt.Errorf("address %q has a zone", s)
		}
		return packet.AddrFrom(a.WithZone("")), err
	})

func sessionID[R any](at func(*R) *session.ID) *field[R, session.ID] {
	return &field[R, session.ID]{kind: idKind, at: at}
}

var idKind = viaText(
	func(dst []byte, id session.ID) []byte { return hex.AppendEncode(dst, id[:]) },
	func(s string) (id session.ID, err error) {
		if len(s) != 2*len(id) {
			return id, fmt.Errorf("session_id %.40q has not %d hexadecimal digits", s, 2*len(id))
		}
		_, err = hex.Decode(id[:], []byte(s))
		return id, err
	})

// MAC is an Ethernet address; the zero one is unknown.
type MAC [6]byte

func mac[R any](at func(*R) *MAC) *field[R, MAC] {
	return nonzero(&field[R, MAC]{kind: macKind, at: at})
}

var macKind = viaText(appendMAC, func(s string) (m MAC, err error) {
	if s == "" {
		return m, nil
	}
	if len(s) != 3*len(m)-1 {
		return m, fmt.Errorf("MAC %.40q has not %d bytes", s, len(m))
	}
	for i := range m {
		high, low := unhex(s[3*i]), unhex(s[3*i+1])
		if high|low > 15 || i > 0 && s[3*i-1] != ':' {
			return m, fmt.Errorf("MAC %q is not in hexadecimal digits with colons", s)
		}
		m[i] = high<<4 | low
	}
	return m, nil
})

// unhex is the value of a hexadecimal digit, more than 15 for any other character.
func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}

// appendMAC appends six pairs of hexadecimal digits with colons; nothing for the zero MAC.
func appendMAC(dst []byte, m MAC) []byte {
	if m == (MAC{}) {
		return dst
	}
	for i, b := range m {
		if i > 0 {
			dst = append(dst, ':')
		}
		dst = append(dst, hexDigits[b>>4], hexDigits[b&15])
	}
	return dst
}

// octets are bytes as they are: base64 in JSON, none unknown.
func octets[R any](at func(*R) *[]byte) *field[R, []byte] {
	return &field[R, []byte]{at: at, kind: kind[[]byte]{
		arrow:   arrow.BinaryTypes.Binary,
		unknown: func(b []byte) bool { return len(b) == 0 },
		json:    appendBase64,
		buffer: func() (columnBuffer, func([]byte)) {
			b := new(runs)
			return b, func(v []byte) {
				b.values = append(b.values, v...)
				b.end()
			}
		},
		load: func(a arrow.Array) func(int) ([]byte, error) {
			b := a.(*array.Binary)
			return func(i int) ([]byte, error) { return b.Value(i), nil }
		},
	}}
}

// list is a list of values of a kind. The empty list is known: there was none.
func list[R, T any](of kind[T], at func(*R) *[]T) *field[R, []T] {
	return &field[R, []T]{at: at, kind: kind[[]T]{
		arrow: arrow.ListOfNonNullable(of.arrow),
		json: func(dst []byte, v []T) []byte {
			dst = append(dst, '[')
			for i := range v {
				if i > 0 {
					dst = append(dst, ',')
				}
				dst = of.json(dst, v[i])
			}
			return append(dst, ']')
		},
		buffer: func() (columnBuffer, func([]T)) {
			values, add := of.buffer()
			b := &lists{values: values}
			n := int32(0)
			return b, func(v []T) {
				if len(b.ends) == 0 {
					n = 0
				}
				for i := range v {
					add(v[i])
				}
				n += int32(len(v))
				b.ends = append(b.ends, n)
			}
		},
		load: func(a arrow.Array) func(int) ([]T, error) {
			l := a.(*array.List)
			all, err := of.all(l.ListValues())
			return func(i int) ([]T, error) {
				from, to := l.ValueOffsets(i)
				if from == to || err != nil {
					return nil, err
				}
				return all[from:to:to], nil
			}
		},
		blank: func(a arrow.Array) bool { return a.(*array.List).ListValues().Len() == 0 },
	}}
}

func texts[R any](at func(*R) *[]string) *field[R, []string] { return list(textKind, at) }

// nonempty makes the empty list mean unknown in JSON.
func nonempty[R, T any](f *field[R, []T]) *field[R, []T] {
	f.unknown = func(v []T) bool { return len(v) == 0 }
	return f
}
