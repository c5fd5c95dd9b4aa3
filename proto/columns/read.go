package columns

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
	flatbuffers "github.com/google/flatbuffers/go"

	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
)

// ErrCorrupt is wrapped by the errors about bytes that are no Arrow stream of the rows they are said to be.
var ErrCorrupt = errors.New("corrupt rows")

// Stream is an Arrow IPC stream of rows of one kind, whose framing and schema were checked.
type Stream struct {
	Kind    pb.Rows_Kind
	Rows    int // in all record batches, as these say
	batches []message
	memory  []byte
}

// Memory is what the stream was decompressed into: for another one, when nothing of this one is needed any more. It is nil
// where the stream was not compressed.
func (s *Stream) Memory() []byte { return s.memory }

// Open checks the version of rows, decompresses them, and checks that the stream has the columns of their
// kind. What it returns points into rows where these are not compressed, else into the memory of into where that is large
// enough; into may be nil.
func Open(rows *pb.Rows, into []byte) (*Stream, error) {
	kind := rows.GetKind()
	if tables[kind] == nil {
		return nil, fmt.Errorf("%w: kind %d", ErrCorrupt, kind)
	}
	if v := rows.GetColumnsVersion(); v != Version {
		return nil, &record.VersionError{What: "columns of " + kind.String() + " rows", Found: v, Understood: Version}
	}
	b, err := record.Stream(rows, into)
	if err != nil {
		return nil, err
	}
	s, err := parse(kind, b)
	if err != nil {
		return nil, fmt.Errorf("%s rows: %w", kind, err)
	}
	if s.Rows != int(rows.Count) {
		return nil, fmt.Errorf("%s rows: %w: %d rows said to be %d", kind, ErrCorrupt, s.Rows, rows.Count)
	}
	if rows.GetCompression() != pb.Rows_NONE {
		s.memory = b
	}
	return s, nil
}

// RecordBatches returns the stream's record batch messages as they stand, framing included. Behind
// [SchemaMessage] and before [EndOfStream], those of any number of streams of a kind make one stream.
// What is inside them was not looked into.
func (s *Stream) RecordBatches() [][]byte {
	all := make([][]byte, len(s.batches))
	for i, m := range s.batches {
		all[i] = m.all
	}
	return all
}

// EndOfStream ends an Arrow IPC stream.
var EndOfStream = []byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}

// SchemaMessage returns the message that begins an Arrow IPC stream of a kind of rows.
func SchemaMessage(kind pb.Rows_Kind) []byte { return schemaMessages()[kind] }

var schemaMessages = sync.OnceValue(func() map[pb.Rows_Kind][]byte {
	all := make(map[pb.Rows_Kind][]byte)
	for kind, t := range tables {
		b, err := stream(t.Schema())
		if err != nil {
			panic(err) // a schema is a constant
		}
		all[kind] = bytes.TrimSuffix(b, EndOfStream)
	}
	return all
})

// message is one message of an Arrow IPC stream.
type message struct {
	all, meta, body []byte
}

// Types of a message's header, and fields of the tables in it by their place in the vtable.
// Source: Message.fbs and Schema.fbs in https://github.com/apache/arrow/tree/main/format.
const (
	headerSchema      = 1
	headerRecordBatch = 3

	messageHeaderType = 6
	messageHeader     = 8
	messageBodyLength = 10

	recordBatchLength      = 4
	recordBatchNodes       = 6
	recordBatchBuffers     = 8
	recordBatchCompression = 10

	schemaEndianness = 4
	schemaFields     = 6
	schemaMetadata   = 8

	fieldTypeType   = 8
	fieldDictionary = 12
	fieldChildren   = 14
	fieldMetadata   = 16
)

// recovered turns a panic over hostile bytes, in flatbuffers or Arrow, into an error.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", ErrCorrupt, p)
	}
}

// parse splits a stream into its messages. The sizes that Arrow's reader would allocate by are checked here
// against what is there.
func parse(kind pb.Rows_Kind, b []byte) (s *Stream, err error) {
	defer recovered(&err)
	schema := SchemaMessage(kind)
	if len(b) >= len(schema) && bytes.Equal(b[:len(schema)], schema) {
		b = b[len(schema):]
	} else {
		// Written by another version of Arrow, or other columns.
		m, rest, err := nextMessage(b)
		if err != nil {
			return nil, err
		}
		if err := checkSchema(kind, m); err != nil {
			return nil, err
		}
		b = rest
	}
	s = &Stream{Kind: kind}
	for len(b) > 0 {
		m, rest, err := nextMessage(b)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		header, headerType := m.header()
		if headerType != headerRecordBatch {
			return nil, fmt.Errorf("%w: message of type %d in place of a record batch", ErrCorrupt, headerType)
		}
		rows := header.GetInt64Slot(recordBatchLength, 0)
		if rows < 0 || rows > int64(len(m.body)) { // each row has fields of fixed width
			return nil, fmt.Errorf("%w: record batch of %d rows in %d bytes", ErrCorrupt, rows, len(m.body))
		}
		s.Rows += int(rows)
		s.batches = append(s.batches, m)
		b = rest
	}
	return s, nil
}

// nextMessage cuts one message off b; io.EOF at the end of the stream.
func nextMessage(b []byte) (m message, rest []byte, err error) {
	if len(b) < 8 || binary.LittleEndian.Uint32(b) != 0xffffffff {
		return m, nil, fmt.Errorf("%w: no Arrow message at %d bytes before the end", ErrCorrupt, len(b))
	}
	size := uint64(binary.LittleEndian.Uint32(b[4:]))
	if size == 0 {
		return m, b[8:], io.EOF
	}
	if size < 8 || size > uint64(len(b)-8) {
		return m, nil, fmt.Errorf("%w: Arrow message of %d bytes, %d are left", ErrCorrupt, size, len(b)-8)
	}
	m.meta = b[8 : 8+size]
	t := m.table()
	left := b[8+size:]
	body := t.GetInt64Slot(messageBodyLength, 0)
	if body < 0 || body > int64(len(left)) {
		return m, nil, fmt.Errorf("%w: Arrow body of %d bytes, %d are left", ErrCorrupt, body, len(left))
	}
	m.body = left[:body]
	m.all = b[:8+int(size)+int(body)]
	return m, left[body:], nil
}

func (m *message) table() flatbuffers.Table {
	return flatbuffers.Table{Bytes: m.meta, Pos: flatbuffers.GetUOffsetT(m.meta)}
}

func (m *message) header() (header flatbuffers.Table, headerType byte) {
	t := m.table()
	if o := t.Offset(messageHeader); o != 0 {
		t.Union(&header, flatbuffers.UOffsetT(o))
	}
	return header, t.GetByteSlot(messageHeaderType, 0)
}

// checkSchema compares a schema message with the columns of a kind.
func checkSchema(kind pb.Rows_Kind, m message) error {
	header, headerType := m.header()
	if headerType != headerSchema || header.Bytes == nil {
		return fmt.Errorf("%w: the stream begins with a message of type %d, not with a schema", ErrCorrupt, headerType)
	}
	if err := boundFields(header, schemaFields, schemaMetadata, 2*len(Infos(kind))+100, 3); err != nil {
		return err
	}
	if header.GetInt16Slot(schemaEndianness, 0) != 0 {
		return fmt.Errorf("%w: a stream in big-endian order", ErrCorrupt)
	}
	r, err := ipc.NewReaderFromMessageReader(&messageReader{next: m})
	if err != nil {
		return fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	defer r.Release()
	return compareSchema(Schema(kind), r.Schema())
}

// boundFields checks, before Arrow allocates by them, the lengths of the vectors of fields below a table.
func boundFields(t flatbuffers.Table, fields, metadata flatbuffers.VOffsetT, most, depth int) error {
	if o := flatbuffers.UOffsetT(t.Offset(metadata)); o != 0 && t.VectorLen(o) > most {
		return fmt.Errorf("%w: schema with too much metadata", ErrCorrupt)
	}
	o := flatbuffers.UOffsetT(t.Offset(fields))
	if o == 0 {
		return nil
	}
	n, at := t.VectorLen(o), t.Vector(o)
	if n > most || depth == 0 {
		return fmt.Errorf("%w: schema with too many columns", ErrCorrupt)
	}
	for i := range n {
		f := flatbuffers.Table{Bytes: t.Bytes, Pos: t.Indirect(at + flatbuffers.UOffsetT(4*i))}
		if f.Offset(fieldDictionary) != 0 {
			return fmt.Errorf("%w: column %d is a dictionary", ErrCorrupt, i+1)
		}
		switch f.GetByteSlot(fieldTypeType, 0) {
		case 2, 3, 4, 5, 6, 10, 12: // Int, FloatingPoint, Binary, Utf8, Bool, Timestamp, List
		default:
			return fmt.Errorf("%w: column %d is of a type that no column has", ErrCorrupt, i+1)
		}
		if err := boundFields(f, fieldChildren, fieldMetadata, 10, depth-1); err != nil {
			return err
		}
	}
	return nil
}

// compareSchema names the first column in which found differs from what the definition says.
func compareSchema(want, found *arrow.Schema) error {
	describe := func(s *arrow.Schema, i int) string {
		if i >= s.NumFields() {
			return "absent"
		}
		f := s.Field(i)
		null := ""
		if f.Nullable {
			null = ", nullable"
		}
		return fmt.Sprintf("%.100q (%s%s)", f.Name, f.Type, null)
	}
	for i := range max(want.NumFields(), found.NumFields()) {
		if w, f := describe(want, i), describe(found, i); w != f {
			return fmt.Errorf("%w: column %d is %s, this program has %s", ErrCorrupt, i+1, f, w)
		}
	}
	return nil
}

// messageReader hands one message to an ipc.Reader.
type messageReader struct {
	next message
}

func (r *messageReader) Message() (*ipc.Message, error) {
	if r.next.meta == nil {
		return nil, io.EOF
	}
	m := ipc.NewMessage(memory.NewBufferBytes(r.next.meta), memory.NewBufferBytes(r.next.body))
	r.next = message{}
	return m, nil
}

func (*messageReader) Retain()  {}
func (*messageReader) Release() {}

// loadRows is how many rows are loaded at once, column by column: they stay in the processor's cache.
const loadRows = 32

// Load calls each with every row of a record batch, in order, in a row that is used again for a later one.
// Strings share the record batch's memory. Columns that follow from others are not read. Where a row is wrong, up to
// 31 rows before it are not given to each either.
func (t *Table[R]) Load(rec arrow.Record, each func(*R) error) error {
	loaders := make([]func([]R, int) (int, error), len(t.Columns))
	for i, c := range t.Columns {
		loaders[i] = c.cell.loader(rec.Column(i))
	}
	n := int(rec.NumRows())
	all := make([]R, min(n, loadRows))
	for from := 0; from < n; from += loadRows {
		rows := all[:min(n-from, loadRows)]
		for i, load := range loaders {
			if load == nil {
				continue
			}
			if row, err := load(rows, from); err != nil {
				return fmt.Errorf("%s row %d, column %s: %w", t.Name, from+row+1, t.Columns[i].Name, err)
			}
		}
		for i := range rows {
			if err := each(&rows[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// Read calls each with every row of rows; see [Table.Load].
func (t *Table[R]) Read(rows *pb.Rows, each func(*R) error) error {
	s, err := Open(rows, nil)
	if err != nil {
		return err
	}
	return s.Each(func(b *Batch) error { return t.Load(b.Record(), each) })
}
