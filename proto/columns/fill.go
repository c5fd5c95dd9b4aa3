package columns

import (
	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"
)

// A column buffer collects the values of one column as Arrow lays them out. Arrow's own builders do the same
// at more than twice the cost, most of it in making room for one value at a time.
type columnBuffer interface {
	// data returns the values; they share the buffer's memory until it is reset.
	data(t arrow.DataType) arrow.ArrayData
	// reset empties the buffer, and keeps its memory if no one else needs it.
	reset(keep bool)
	// size is the number of bytes in it.
	size() int
}

// number is what a column of a fixed width holds.
type number interface {
	uint8 | uint16 | uint32 | uint64 | int64 | float64
}

// fixed holds values of a fixed width.
type fixed[T number] struct{ values []T }

func (f *fixed[T]) append(v T) { f.values = append(f.values, v) }

func (f *fixed[T]) data(t arrow.DataType) arrow.ArrayData {
	return array.NewData(t, len(f.values), []*memory.Buffer{nil, memory.NewBufferBytes(arrow.GetBytes(f.values))}, nil, 0, 0)
}

func (f *fixed[T]) reset(keep bool) { f.values = emptied(f.values, keep) }
func (f *fixed[T]) size() int       { return len(arrow.GetBytes(f.values)) }

// nullable holds values of a fixed width of which some are null.
type nullable[T number] struct {
	fixed[T]
	valid bits
	nulls int
}

func (n *nullable[T]) append(v T, valid bool) {
	if !valid {
		var zero T
		v = zero
		n.nulls++
	}
	n.fixed.append(v)
	n.valid.append(valid)
}

func (n *nullable[T]) data(t arrow.DataType) arrow.ArrayData {
	return array.NewData(t, len(n.values), []*memory.Buffer{memory.NewBufferBytes(n.valid.bytes), memory.NewBufferBytes(arrow.GetBytes(n.values))}, nil, n.nulls, 0)
}

func (n *nullable[T]) reset(keep bool) {
	n.fixed.reset(keep)
	n.valid.reset(keep)
	n.nulls = 0
}

func (n *nullable[T]) size() int { return n.fixed.size() + n.valid.size() }

// bits holds booleans.
type bits struct {
	bytes []byte
	n     int
}

func (b *bits) append(v bool) {
	if b.n%8 == 0 {
		b.bytes = append(b.bytes, 0)
	}
	if v {
		b.bytes[b.n/8] |= 1 << (b.n % 8)
	}
	b.n++
}

func (b *bits) data(t arrow.DataType) arrow.ArrayData {
	return array.NewData(t, b.n, []*memory.Buffer{nil, memory.NewBufferBytes(b.bytes)}, nil, 0, 0)
}

func (b *bits) reset(keep bool) { b.bytes, b.n = emptied(b.bytes, keep), 0 }
func (b *bits) size() int       { return len(b.bytes) }

// runs holds values of any length, one behind the other.
type runs struct {
	ends   []int32
	values []byte
}

// end ends the value that was appended to values.
func (r *runs) end() { r.ends = append(r.ends, int32(len(r.values))) }

func (r *runs) data(t arrow.DataType) arrow.ArrayData {
	return array.NewData(t, len(r.ends), []*memory.Buffer{nil, offsets(r.ends), memory.NewBufferBytes(r.values)}, nil, 0, 0)
}

func (r *runs) reset(keep bool) { r.ends, r.values = emptied(r.ends, keep), emptied(r.values, keep) }
func (r *runs) size() int       { return 4*len(r.ends) + len(r.values) }

// lists holds lists of values that are in another buffer.
type lists struct {
	ends   []int32
	values columnBuffer
}

func (l *lists) data(t arrow.DataType) arrow.ArrayData {
	values := l.values.data(t.(*arrow.ListType).Elem())
	defer values.Release()
	return array.NewData(t, len(l.ends), []*memory.Buffer{nil, offsets(l.ends)}, []arrow.ArrayData{values}, 0, 0)
}

func (l *lists) reset(keep bool) {
	l.ends = emptied(l.ends, keep)
	l.values.reset(keep)
}

func (l *lists) size() int { return 4*len(l.ends) + l.values.size() }

func emptied[T any](s []T, keep bool) []T {
	if keep {
		return s[:0]
	}
	return make([]T, 0, cap(s))
}

// offsets returns Arrow's offsets: a 0, and the ends.
func offsets(ends []int32) *memory.Buffer {
	return memory.NewBufferBytes(arrow.GetBytes(append(make([]int32, 1, len(ends)+1), ends...)))
}
