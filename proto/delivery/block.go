package delivery

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
)

// Token is the insert_deduplication_token of the block that a range of an output partition makes in a table. Of
// blocks with one token the table takes the first.
//
// before are the positions of a reader at the start of the flight: they decide which records count, and they
// tell two logs apart whose offsets are the same because the topic was remade.
// rows, where not empty, are those of the one record of r that are in the block.
func Token(table string, partition int32, before []At, r, rows Range) string {
	return token(table, partition, digest(before), r, rows)
}

func digest(at []At) string {
	b := make([]byte, 0, 32*len(at))
	for _, a := range at {
		b = words(b, uint64(a.Partition), a.Log, a.Owner, a.Number)
	}
	sum := sha256.Sum256(b)
	return encoding.EncodeToString(sum[:9])
}

func token(table string, partition int32, before string, r, rows Range) string {
	t := fmt.Sprintf("%s/%d/%d-%d/%s", table, partition, r.From, r.To, before)
	if rows != (Range{}) {
		t += fmt.Sprintf("/%d-%d", rows.From, rows.To)
	}
	return t
}

// Do is what a sink has to do.
type Do uint8

const (
	// DoRead: read the records of Range, take them through [Blocks.Reader], call [Blocks.Filled]. To is -1 where
	// the sink is free to choose; otherwise they have to be the same records as before. Records that retention
	// has removed are left out.
	DoRead Do = iota + 1
	// DoCommit: commit Commit with the generation checked; tell [Blocks.Committed].
	DoCommit
	// DoInsert: insert the rows that the kept records of Range have for Table as one block with Token; tell
	// [Blocks.Inserted]. Without rows, tell Done. To narrow what a sink can do that lost its partition long ago,
	// check the generation once more before the last bytes of the request are sent.
	DoInsert
	// DoDeadLetter: append the one row that Rows of the one record of Range has for Table to tapweave.deadletter;
	// tell [Blocks.DeadLettered].
	DoDeadLetter
	// DoLeave: the partition may belong to another. Drop everything, commit nothing, join again.
	DoLeave
)

func (d Do) String() string {
	return [...]string{"none", "read", "commit", "insert", "dead letter", "leave"}[d]
}

// Action is one thing to be done.
type Action struct {
	Do    Do
	Range Range
	// Rows, where not empty, are rows of the one record of Range, counted from 0 among those for Table.
	Rows   Range
	Commit Commit
	Table  string
	Token  string
}

// Blocks stores one output partition in the tables, for one generation of the sinks' group: a range is
// committed before its first try; whoever comes after a crash finds it in the metadata and tries the same range
// with the same tokens; only when all tables have it is the next range committed, which also says that the one
// before is done.
//
//	read ──▶ commit the range ──▶ insert, one block a table ──▶ read …
//	              ▲                     │ the data is wrong
//	              └──── commit half ◀───┘ of one row: dead letter
//
// A commit whose outcome is unknown ends the generation: were it tried again, the first try could still land
// behind a later commit of the same generation, and a successor would choose another range where blocks of the
// later one are in the tables.
type Blocks struct {
	partition int32
	tables    []string
	offset    int64  // committed, or next to be
	positions []At   // at offset
	before    string // digest of positions, while there is a flight
	after     []At   // at the end of the flight
	rows      func(table string, offset int64) int
	flight    *Flight
	refused   []string // tables that refused the whole flight
	state     Do
	settled   bool // the metadata says offset and no flight
}

// NewBlocks begins at the committed offset, or where nothing was committed at the one from which to read.
// inputs is the number of input partitions that share the output partition, see [Capacity]. The last of the tables
// is filled when all others have the range: its rows may tell the high mark, for when offsets are lost.
func NewBlocks(partition int32, inputs int, tables []string, offset int64, m Sink) (*Blocks, error) {
	if len(tables) == 0 {
		return nil, errors.New("no tables")
	}
	for _, t := range tables {
		if t == "" || len(t) > 255 {
			return nil, fmt.Errorf("table %q", t)
		}
	}
	if most := Capacity(tables); inputs > most {
		return nil, fmt.Errorf("%d input partitions in one output partition: the offset metadata has room for %d", inputs, most)
	}
	if len(m.Positions) > inputs {
		return nil, fmt.Errorf("metadata with %d input partitions, at most %d", len(m.Positions), inputs)
	}
	b := &Blocks{partition: partition, tables: tables, offset: offset, positions: m.Positions, state: DoRead, settled: m.Flight == nil}
	if m.Flight != nil {
		f := *m.Flight
		if f.Range.From != offset {
			return nil, corrupt("sink offset metadata", "range %v at offset %d", f.Range, offset)
		}
		if f.Table != "" && !slices.Contains(tables, f.Table) {
			f.Table, f.Piece, f.Rows = "", Range{}, Range{}
		}
		f.Done = slices.Clone(f.Done)
		b.flight = &f
	}
	return b, nil
}

// Capacity is how many input partitions can share an output partition: the metadata has to hold the positions of
// all of them.
func Capacity(tables []string) int {
	f := &Flight{Done: tables}
	for _, t := range tables {
		if len(t) >= len(f.Table) {
			f.Table = t
		}
	}
	others, err := Sink{Flight: f}.Encode()
	if err != nil {
		return 0
	}
	return (encoding.DecodedLen(MaxMetadata) - encoding.DecodedLen(len(others))) / positionBytes
}

// Next returns what is to be done: one thing, or several inserts, which can be done in any order or at once.
func (b *Blocks) Next() []Action {
	switch f := b.flight; b.state {
	case DoRead:
		r := Range{b.offset, -1}
		if f != nil {
			r = f.Range
		}
		return []Action{{Do: DoRead, Range: r}}
	case DoCommit:
		m, err := Sink{b.positions, f}.Encode()
		if err != nil {
			panic(err) // by construction: NewBlocks has tried the largest
		}
		return []Action{{Do: DoCommit, Commit: Commit{b.offset, m}}}
	case DoInsert:
		if f.Table != "" {
			return []Action{b.insert(f.Table, f.Piece, f.Rows)}
		}
		var a []Action
		for _, t := range b.missing() {
			a = append(a, b.insert(t, f.Range, Range{}))
		}
		return a
	case DoDeadLetter:
		rows := f.Rows
		if rows == (Range{}) {
			rows = Range{0, 1}
		}
		return []Action{{Do: DoDeadLetter, Range: f.Piece, Rows: rows, Table: f.Table}}
	}
	return []Action{{Do: DoLeave}}
}

// missing are the tables that are to get the whole flight now.
func (b *Blocks) missing() []string {
	var list []string
	last := b.tables[len(b.tables)-1]
	for _, t := range b.tables {
		if slices.Contains(b.flight.Done, t) || slices.Contains(b.refused, t) || t == last && len(list)+len(b.refused) > 0 {
			continue
		}
		list = append(list, t)
	}
	return list
}

func (b *Blocks) insert(table string, r, rows Range) Action {
	return Action{Do: DoInsert, Range: r, Rows: rows, Table: table, Token: token(table, b.partition, b.before, r, rows)}
}

// Reader returns a reader for the records of the next range.
func (b *Blocks) Reader() *Reader { return NewReader(b.positions) }

// Filled says that the records from the offset up to to, which is not one of them, are read; r is the reader
// that took them, and rows says how many rows a record has for a table. It is an error if a range in flight is to end
// elsewhere, or if r met more input partitions than there are.
func (b *Blocks) Filled(to int64, r *Reader, rows func(table string, offset int64) int) error {
	after := r.Positions()
	b.rows = rows
	b.before = digest(b.positions)
	switch {
	case b.state != DoRead:
		return fmt.Errorf("filled while the next step is %v", b.state)
	case b.flight == nil && to <= b.offset:
		return fmt.Errorf("range %d to %d", b.offset, to)
	case b.flight == nil:
		if _, err := (Sink{Positions: after, Flight: &Flight{Done: b.tables, Table: b.tables[0]}}).Encode(); err != nil {
			return err
		}
		b.flight = &Flight{Range: Range{b.offset, to}}
		b.state = DoCommit
	case to != b.flight.Range.To:
		return fmt.Errorf("range in flight %v, filled up to %d", b.flight.Range, to)
	default:
		b.after, b.state = after, DoInsert
		b.done()
		return nil
	}
	b.after = after
	return nil
}

// Settle asks for a commit that says how far everything is stored, where no more records are there to be read:
// so that lag is seen as it is, and offsets do not expire.
func (b *Blocks) Settle() {
	if b.state == DoRead && b.flight == nil {
		b.state = DoCommit
	}
}

// Settled says whether everything stored is committed as such.
func (b *Blocks) Settled() bool { return b.settled && b.flight == nil && b.state == DoRead }

// Committed tells how a commit came out.
func (b *Blocks) Committed(c Outcome) {
	switch {
	case c != Done:
		b.state = DoLeave
	case b.flight == nil:
		b.settled = true
		b.state = DoRead
	default:
		b.settled = false
		b.state = DoInsert
	}
}

// Inserted tells how an insert came out. After Unknown the same one is next again, with the same token. Refused
// has to be certain: the same bytes are refused each time, so no try of them can ever be in the table.
func (b *Blocks) Inserted(table string, c Outcome) {
	f := b.flight
	switch {
	case c == Unknown:
	case f.Table == table && c == Done:
		b.advance()
	case f.Table == table:
		b.halve()
	case c == Done:
		f.Done = append(f.Done, table)
		b.done()
	default:
		b.refused = append(b.refused, table)
		b.done()
	}
}

// DeadLettered tells how the dead letter came out.
func (b *Blocks) DeadLettered(c Outcome) {
	if c == Done {
		b.advance()
	}
}

// done goes on where each table either has the flight or refused it: first no table must be able to have both
// the whole range and pieces of it.
func (b *Blocks) done() {
	f := b.flight
	if f.Table != "" || len(b.missing()) > 0 {
		return
	}
	if len(b.refused) > 0 {
		f.Table, f.Piece = b.refused[0], f.Range
		b.refused = b.refused[1:]
		b.halve()
		return
	}
	b.offset, b.positions, b.after = f.Range.To, b.after, nil
	b.flight, b.rows = nil, nil
	b.settled = false
	b.state = DoRead
}

// halve narrows the piece that was refused, down to one record and then to one row. What is committed first is the
// narrower piece: a successor tries that, and never the wider one again.
func (b *Blocks) halve() {
	f := b.flight
	b.state = DoCommit
	if p := &f.Piece; p.To-p.From > 1 {
		p.To = p.From + (p.To-p.From)/2
		return
	}
	r := f.Rows
	if r == (Range{}) {
		r.To = int64(b.rows(f.Table, f.Piece.From))
	}
	if r.To-r.From <= 1 {
		b.state = DoDeadLetter
		return
	}
	r.To = r.From + (r.To-r.From)/2
	f.Rows = r
}

// advance goes on behind the piece: with the rest of the record or of the range, or with the other tables.
func (b *Blocks) advance() {
	f := b.flight
	b.state = DoCommit
	if n := f.Rows.To; n > 0 {
		f.Rows = Range{}
		if all := int64(b.rows(f.Table, f.Piece.From)); n < all {
			f.Rows = Range{n, all}
			return
		}
	}
	if f.Piece.To < f.Range.To {
		f.Piece = Range{f.Piece.To, f.Range.To}
		return
	}
	f.Done = append(f.Done, f.Table)
	f.Table, f.Piece = "", Range{}
	b.state = DoInsert
	b.done()
}
