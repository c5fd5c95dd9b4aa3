package columns

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/bitutil"
	"github.com/apache/arrow/go/v17/arrow/memory"
	flatbuffers "github.com/google/flatbuffers/go"

	"github.com/tapweave/tapweave/proto/pb"
)

// Batch is a record batch, in the memory of its stream. Arrow's own reader copies every buffer, and makes a dozen objects
// of every column: that is a third of what a sink does with rows, and more where batches are small.
type Batch struct {
	Kind    pb.Rows_Kind
	Rows    int
	Columns []Vector
}

// Vector is values as Arrow lays them out. Every one of them lies in the vector's memory.
// Source: https://arrow.apache.org/docs/format/Columnar.html
type Vector struct {
	Type     arrow.DataType
	Len      int
	Nulls    int
	Valid    []byte  // a bit for each value, 0 where it is null; nil where none is
	Values   []byte  // of a fixed width, or the bytes of strings
	Offsets  []int32 // of strings in Values, of lists in Elements: Len+1 that never fall
	Elements *Vector // of lists
}

// Each calls each with every record batch of s, in order, and stops at the first error. What is inside a record batch is
// checked first.
func (s *Stream) Each(each func(*Batch) error) error {
	for _, m := range s.batches {
		b, err := newBatch(s.Kind, m)
		if err != nil {
			return fmt.Errorf("%s rows: %w", s.Kind, err)
		}
		if err := each(b); err != nil {
			return err
		}
	}
	return nil
}

func newBatch(kind pb.Rows_Kind, m message) (b *Batch, err error) {
	defer recovered(&err)
	header, _ := m.header()
	if header.Offset(recordBatchCompression) != 0 {
		return nil, fmt.Errorf("%w: compressed inside of the stream", ErrCorrupt)
	}
	schema := Schema(kind)
	l := loader{body: m.body, nodes: structs(header, recordBatchNodes), buffers: structs(header, recordBatchBuffers)}
	// Numbers are read where they stand. Bytes that were cut out of others may begin anywhere.
	if uintptr(unsafe.Pointer(unsafe.SliceData(l.body)))%8 != 0 {
		l.body = bytes.Clone(l.body)
	}
	b = &Batch{Kind: kind, Rows: int(header.GetInt64Slot(recordBatchLength, 0)), Columns: make([]Vector, schema.NumFields())}
	for i := range b.Columns {
		f := schema.Field(i)
		v := &b.Columns[i]
		v.Type = f.Type
		err := l.load(v)
		switch {
		case err != nil:
		case v.Len != b.Rows:
			err = fmt.Errorf("%d values of %d", v.Len, b.Rows)
		case v.Nulls > 0 && !f.Nullable:
			err = fmt.Errorf("%d values are null", v.Nulls)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: column %s: %v", ErrCorrupt, f.Name, err)
		}
	}
	if len(l.nodes)+len(l.buffers) > 0 {
		return nil, fmt.Errorf("%w: more buffers than the columns have", ErrCorrupt)
	}
	return b, nil
}

// pair is a struct of two numbers, as FieldNode (length, null_count) and Buffer (offset, length) are in Message.fbs.
const pair = 16

// structs returns the vector of structs that a field of a table holds.
func structs(t flatbuffers.Table, field flatbuffers.VOffsetT) []byte {
	o := flatbuffers.UOffsetT(t.Offset(field))
	if o == 0 {
		return nil
	}
	from := int(t.Vector(o))
	return t.Bytes[from : from+pair*t.VectorLen(o)]
}

// loader takes the columns of a record batch in order. It panics where the bytes are too few.
type loader struct{ body, nodes, buffers []byte }

func next(pairs *[]byte) (a, b int64) {
	a, b = flatbuffers.GetInt64(*pairs), flatbuffers.GetInt64((*pairs)[8:])
	*pairs = (*pairs)[pair:]
	return a, b
}

// buffer returns the next buffer.
func (l *loader) buffer() ([]byte, error) {
	offset, size := next(&l.buffers)
	if size == 0 {
		return nil, nil
	}
	if most := int64(len(l.body)); offset < 0 || size < 0 || offset%8 != 0 || offset > most || size > most-offset {
		return nil, fmt.Errorf("%d bytes at %d of %d", size, offset, most)
	}
	return l.body[offset : offset+size : offset+size], nil
}

func (l *loader) load(v *Vector) error {
	length, nulls := next(&l.nodes)
	if length < 0 || length > 8*int64(len(l.body)) {
		return fmt.Errorf("%d values in %d bytes", length, len(l.body))
	}
	v.Len = int(length)
	valid, err := l.buffer()
	if err != nil {
		return err
	}
	if valid == nil && nulls != 0 {
		return errors.New("nulls without a validity bitmap")
	}
	if valid != nil { // the count beside it is what somebody says
		if len(valid) < (v.Len+7)/8 {
			return errors.New("validity bitmap too short")
		}
		if v.Nulls = v.Len - bitutil.CountSetBits(valid, 0, v.Len); v.Nulls > 0 {
			v.Valid = valid
		}
	}
	switch t := v.Type.(type) {
	case *arrow.ListType:
		if err := l.offsets(v); err != nil {
			return err
		}
		v.Elements = &Vector{Type: t.Elem()}
		if err := l.load(v.Elements); err != nil {
			return err
		}
		if v.Elements.Nulls > 0 {
			return fmt.Errorf("%d elements are null", v.Elements.Nulls)
		}
		return v.within(v.Elements.Len)
	case arrow.FixedWidthDataType:
		if v.Values, err = l.buffer(); err != nil {
			return err
		}
		if have := len(v.Values); have < (v.Len*t.BitWidth()+7)/8 {
			return fmt.Errorf("%d values in %d bytes", v.Len, have)
		}
		return nil
	}
	if err := l.offsets(v); err != nil {
		return err
	}
	if v.Values, err = l.buffer(); err != nil {
		return err
	}
	return v.within(len(v.Values))
}

// offsets takes the offsets of v, of which only the number is checked.
func (l *loader) offsets(v *Vector) error {
	b, err := l.buffer()
	if err == nil && v.Len == 0 { // then there may be none
		v.Offsets = make([]int32, 1)
		return nil
	}
	if err != nil {
		return err
	}
	if len(b) < (v.Len+1)*arrow.Int32SizeBytes {
		return errors.New("too few offsets")
	}
	v.Offsets = arrow.Int32Traits.CastFromBytes(b)[:v.Len+1]
	return nil
}

// within checks that the offsets begin at or after 0, never fall, and end within limit.
func (v *Vector) within(limit int) error {
	last := int32(0)
	for _, o := range v.Offsets {
		if o < last {
			return errors.New("offsets fall")
		}
		last = o
	}
	if int(last) > limit {
		return fmt.Errorf("offset %d beyond %d", last, limit)
	}
	return nil
}

// Record returns the batch as Arrow's library has it, in the same memory.
func (b *Batch) Record() arrow.Record {
	arrays := make([]arrow.Array, len(b.Columns))
	for i := range b.Columns {
		arrays[i] = array.MakeFromData(b.Columns[i].data())
	}
	return array.NewRecord(Schema(b.Kind), arrays, int64(b.Rows))
}

func (v *Vector) data() arrow.ArrayData {
	buffers := make([]*memory.Buffer, 1, 3)
	if v.Valid != nil {
		buffers[0] = memory.NewBufferBytes(v.Valid)
	}
	var children []arrow.ArrayData
	if _, fixed := v.Type.(arrow.FixedWidthDataType); !fixed {
		buffers = append(buffers, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(v.Offsets)))
	}
	if v.Elements != nil {
		children = []arrow.ArrayData{v.Elements.data()}
	} else {
		buffers = append(buffers, memory.NewBufferBytes(v.Values))
	}
	return array.NewData(v.Type, v.Len, buffers, children, v.Nulls, 0)
}
