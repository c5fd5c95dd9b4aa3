package columns

import (
	"bytes"
	"fmt"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"

	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
)

// Builder collects rows of one kind into an Arrow record batch. It is for one goroutine. The same rows give
// the same bytes.
type Builder[R any] struct {
	table   *Table[R]
	buffers []columnBuffer
	appends []func(*R)
	rows    int
}

// NewBuilder returns an empty builder, e.g. NewBuilder(Sessions).
func NewBuilder[R any](t *Table[R]) *Builder[R] {
	b := &Builder[R]{table: t}
	for _, c := range t.Columns {
		buffer, add := c.cell.appender()
		b.buffers = append(b.buffers, buffer)
		b.appends = append(b.appends, add)
	}
	return b
}

// Append adds a row. The row may be changed afterwards.
func (b *Builder[R]) Append(r *R) {
	for _, add := range b.appends {
		add(r)
	}
	b.rows++
}

// Len returns the number of rows in the builder.
func (b *Builder[R]) Len() int { return b.rows }

// Size returns how many bytes the rows have, before compression and without Arrow's framing. It depends on
// the rows alone, so that a fold may end a batch by it.
func (b *Builder[R]) Size() int {
	n := 0
	for _, c := range b.buffers {
		n += c.size()
	}
	return n
}

// Record returns the rows as a record batch, and empties the builder.
func (b *Builder[R]) Record() arrow.Record {
	rec := b.record()
	b.reset(false)
	return rec
}

// record returns the rows as a record batch that shares the builder's memory.
func (b *Builder[R]) record() arrow.Record {
	arrays := make([]arrow.Array, len(b.buffers))
	for i, c := range b.buffers {
		arrays[i] = array.MakeFromData(c.data(b.table.schema.Field(i).Type))
	}
	return array.NewRecord(b.table.schema, arrays, int64(b.rows))
}

// Discard empties the builder.
func (b *Builder[R]) Discard() { b.reset(true) }

func (b *Builder[R]) reset(keep bool) {
	for _, c := range b.buffers {
		c.reset(keep)
	}
	b.rows = 0
}

// Stream returns the rows as an Arrow IPC stream of one record batch, and empties the builder.
func (b *Builder[R]) Stream() ([]byte, error) {
	s, err := stream(b.table.schema, b.record())
	b.reset(true)
	return s, err
}

// Rows returns the rows as they stand in a record of tapweave.sessions, and empties the builder.
func (b *Builder[R]) Rows() (*pb.Rows, error) {
	n := b.rows
	s, err := b.Stream()
	if err != nil {
		return nil, err
	}
	return record.NewRows(b.table.Kind, Version, n, s)
}

func stream(schema *arrow.Schema, records ...arrow.Record) ([]byte, error) {
	var buf bytes.Buffer
	w := ipc.NewWriter(&buf, ipc.WithSchema(schema))
	for _, rec := range records {
		if err := w.Write(rec); err != nil {
			return nil, fmt.Errorf("arrow stream: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("arrow stream: %w", err)
	}
	return buf.Bytes(), nil
}
