package clickhouse

import (
	"slices"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/bitutil"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/pb"
)

// rows puts the record batches of one kind behind each other, to one. ClickHouse takes about a millisecond for
// a record batch of a hundred columns, however few rows it has, and the enricher's have few; see
// BenchmarkBatches.
type rows struct {
	schema  *arrow.Schema
	columns []column
	n       int
}

func newRows(kind pb.Rows_Kind) *rows {
	schema := columns.Schema(kind)
	r := &rows{schema: schema, columns: make([]column, schema.NumFields())}
	for i, f := range schema.Fields() {
		r.columns[i] = newColumn(f.Type, f.Nullable)
	}
	return r
}

// reserve makes room for n rows in all, so that values are not copied again and again as columns grow. How long
// strings and lists are is taken from the rows that are there already. Where that comes to more than most bytes, they
// say nothing about the others, and no room is made.
func (r *rows) reserve(n, most int) {
	if r.n == 0 || r.size() > most || n > most || r.size()*n/r.n > most {
		return
	}
	for i := range r.columns {
		r.columns[i].reserve(n)
	}
}

// size returns the bytes that the rows have.
func (r *rows) size() (bytes int) {
	for i := range r.columns {
		bytes += r.columns[i].size()
	}
	return bytes
}

// capacity returns the bytes that the columns may take without growing.
func (r *rows) capacity() (bytes int) {
	for i := range r.columns {
		bytes += r.columns[i].capacity()
	}
	return bytes
}

// append adds a record batch.
func (r *rows) append(b *columns.Batch) {
	for i := range b.Columns {
		r.columns[i].append(&b.Columns[i], 0, b.Rows)
	}
	r.n += b.Rows
}

// record returns the rows as one record batch, which shares their memory.
func (r *rows) record() arrow.Record {
	arrays := make([]arrow.Array, len(r.columns))
	for i := range r.columns {
		arrays[i] = array.MakeFromData(r.columns[i].data())
	}
	return array.NewRecord(r.schema, arrays, int64(r.n))
}

// reset empties r, and keeps its memory.
func (r *rows) reset() {
	for i := range r.columns {
		r.columns[i].reset()
	}
	r.n = 0
}

// column holds the values of a column as Arrow lays them out.
type column struct {
	kind     arrow.DataType
	width    int // bits of a value of fixed width; 0: the values have ends
	nullable bool
	n, nulls int
	valid    []byte // bitmap, where nullable
	values   []byte // of fixed width, bits, or bytes of strings
	ends     []int32
	elements *column // of lists
}

func newColumn(kind arrow.DataType, nullable bool) column {
	c := column{kind: kind, nullable: nullable}
	switch kind := kind.(type) {
	case *arrow.ListType:
		e := newColumn(kind.Elem(), false)
		c.elements = &e
	case arrow.FixedWidthDataType:
		c.width = kind.BitWidth()
	}
	if c.width == 0 {
		c.ends = []int32{0}
	}
	return c
}

func (c *column) reserve(n int) {
	more := n - c.n
	if more <= 0 {
		return
	}
	if c.nullable {
		c.valid = slices.Grow(c.valid, (n+7)/8-len(c.valid))
	}
	// A little more than in proportion, for the rows to come are not just those that came.
	inProportion := func(have int) int {
		if c.n == 0 {
			return 0
		}
		return int(int64(have) * int64(more) / int64(c.n) * 9 / 8)
	}
	switch {
	case c.width > 0:
		c.values = slices.Grow(c.values, (n*c.width+7)/8-len(c.values))
	default:
		c.ends = slices.Grow(c.ends, more)
		if c.elements != nil {
			c.elements.reserve(c.elements.n + inProportion(c.elements.n))
		} else {
			c.values = slices.Grow(c.values, inProportion(len(c.values)))
		}
	}
}

func (c *column) size() int {
	n := len(c.valid) + len(c.values) + arrow.Int32SizeBytes*len(c.ends)
	if c.elements != nil {
		n += c.elements.size()
	}
	return n
}

func (c *column) capacity() int {
	n := cap(c.valid) + cap(c.values) + arrow.Int32SizeBytes*cap(c.ends)
	if c.elements != nil {
		n += c.elements.capacity()
	}
	return n
}

// append adds n values of a vector of the column's type.
func (c *column) append(v *columns.Vector, from, n int) {
	if n == 0 {
		return
	}
	if c.nullable {
		c.valid = grow(c.valid, c.n+n)
		if v.Valid == nil {
			bitutil.SetBitsTo(c.valid, int64(c.n), int64(n), true)
		} else {
			bitutil.CopyBitmap(v.Valid, from, n, c.valid, c.n)
		}
		c.nulls += v.Nulls
	}
	switch {
	case c.width == 1:
		c.values = grow(c.values, c.n+n)
		bitutil.CopyBitmap(v.Values, from, n, c.values, c.n)
	case c.width > 0:
		w := c.width / 8
		c.values = append(c.values, v.Values[from*w:(from+n)*w]...)
	default:
		offsets := v.Offsets[from : from+n+1]
		first, last := offsets[0], offsets[n]
		shift := c.ends[c.n] - first
		c.ends = slices.Grow(c.ends, n)[:c.n+1+n]
		ends := c.ends[c.n+1:]
		for i, o := range offsets[1:] {
			ends[i] = o + shift
		}
		if c.elements == nil {
			c.values = append(c.values, v.Values[first:last]...)
		} else {
			c.elements.append(v.Elements, int(first), int(last-first))
		}
	}
	c.n += n
}

// grow returns b with room for some bits.
func grow(b []byte, bits int) []byte {
	if more := (bits+7)/8 - len(b); more > 0 {
		b = append(b, make([]byte, more)...)
	}
	return b
}

func (c *column) data() arrow.ArrayData {
	buffers := make([]*memory.Buffer, 1, 3)
	if c.nullable {
		buffers[0] = memory.NewBufferBytes(c.valid)
	}
	var children []arrow.ArrayData
	switch {
	case c.width > 0:
		buffers = append(buffers, memory.NewBufferBytes(c.values))
	case c.elements == nil:
		buffers = append(buffers, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(c.ends)), memory.NewBufferBytes(c.values))
	default:
		buffers = append(buffers, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(c.ends)))
		children = []arrow.ArrayData{c.elements.data()}
	}
	return array.NewData(c.kind, c.n, buffers, children, c.nulls, 0)
}

func (c *column) reset() {
	c.n, c.nulls = 0, 0
	c.valid, c.values = c.valid[:0], c.values[:0]
	if c.ends != nil {
		c.ends = c.ends[:1]
	}
	if c.elements != nil {
		c.elements.reset()
	}
}
