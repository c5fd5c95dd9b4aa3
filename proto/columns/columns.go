// Package columns is the one definition of the columns of sessions, traffic, packets and alerts. The Arrow
// schema and the building and reading of Arrow streams, the column lists of the ClickHouse tables, the JSON of
// `tapweave read` and the page docs/columns.md all follow from it.
//
// A row is a Go struct ([Session], [Traffic], [Packet], [Alert]), and a [Table] lists its columns in order. To
// add a column: a field in the struct, an entry in the table, a higher [Version], `make generate`.
//
// What is unknown has no value of its own: the empty string, the empty list, NaN, and for some numbers (which
// their meaning names) 0. In JSON its key is absent; in ClickHouse the column has its default, or NULL where
// the type says Nullable.
package columns

import (
	"github.com/apache/arrow/go/v17/arrow"

	"github.com/tapweave/tapweave/proto/pb"
)

// Version of the column definitions. It grows with every change to a name, a type or the order.
const Version = 1

// Info describes a column.
type Info struct {
	Name       string
	Meaning    string // one sentence without a full stop, for people
	Unit       string // of a number; empty for plain numbers, text and lists
	Source     string // where the value comes from
	Example    string // as JSON prints it, without quotation marks
	ClickHouse string // column type
	Codec      string // ClickHouse codec; empty: the server's default
	Internal   bool   // in ClickHouse only, not in JSON
}

// Column is a column of rows of type R.
type Column[R any] struct {
	Info
	cell cell[R]
}

// Table is the columns of one kind of rows, in order.
type Table[R any] struct {
	Kind    pb.Rows_Kind
	Name    string // what the rows are called: sessions, traffic, packets, alerts
	Columns []Column[R]
	schema  *arrow.Schema
	keys    [][]byte // `"name":` of each column
}

func newTable[R any](kind pb.Rows_Kind, name string, columns []Column[R]) *Table[R] {
	t := &Table[R]{Kind: kind, Name: name, Columns: columns}
	fields := make([]arrow.Field, len(columns))
	t.keys = make([][]byte, len(columns))
	for i, c := range columns {
		fields[i] = arrow.Field{Name: c.Name, Type: c.cell.arrowType(), Nullable: c.cell.nullable()}
		t.keys[i] = []byte(`"` + c.Name + `":`)
	}
	t.schema = arrow.NewSchema(fields, nil)
	return t
}

// Schema returns the Arrow schema of the rows.
func (t *Table[R]) Schema() *arrow.Schema { return t.schema }

// Infos returns the descriptions of the columns.
func (t *Table[R]) Infos() []Info {
	infos := make([]Info, len(t.Columns))
	for i, c := range t.Columns {
		infos[i] = c.Info
	}
	return infos
}

// description is what does not depend on the type of the rows.
type description interface {
	Schema() *arrow.Schema
	Infos() []Info
}

// tables has an entry for every kind of rows.
var tables = map[pb.Rows_Kind]description{
	pb.Rows_SESSIONS: Sessions,
	pb.Rows_TRAFFIC:  Bookings,
	pb.Rows_PACKETS:  Packets,
	pb.Rows_ALERTS:   Alerts,
}

// Infos returns the columns of a kind of rows, in order; nil for a kind that does not exist.
func Infos(kind pb.Rows_Kind) []Info {
	if t := tables[kind]; t != nil {
		return t.Infos()
	}
	return nil
}

// Schema returns the Arrow schema of a kind of rows; nil for a kind that does not exist.
func Schema(kind pb.Rows_Kind) *arrow.Schema {
	if t := tables[kind]; t != nil {
		return t.Schema()
	}
	return nil
}
