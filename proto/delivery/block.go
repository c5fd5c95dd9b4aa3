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
func Token(table string, partition int32, before []At, r Range) string {
	return token(table, partition, digest(before), r)
}

func digest(at []At) string {
	b := make([]byte, 0, 32*len(at))
	for _, a := range at {
		b = words(b, uint64(a.Partition), a.Log, a.Owner, a.Number)
	}
	sum := sha256.Sum256(b)
	return encoding.EncodeToString(sum[:9])
}

func token(table string, partition int32, before string, r Range) string {
	return fmt.Sprintf("%s/%d/%d-%d/%s", table, partition, r.From, r.To, before)
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
	// DoDeadLetter: append what the one record of Range has for Table to tapweave.deadletter; tell
	// [Blocks.DeadLettered].
	DoDeadLetter
	// DoLeave: the partition may belong to another. Drop everything, commit nothing, join again.
	DoLeave
)

func (d Do) String() string {
	return [...]string{"none", "read", "commit", "insert", "dead letter", "leave"}[d]
}

// Action is one thing to be done.
type Action struct {
	Do     Do
	Range  Range
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
//	              └──── commit half ◀───┘ of one record: dead letter
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
	flight    *Flight
	refused   []string // tables that refused the whole flight
	state     Do
	settled   bool // the metadata says offset and no flight
}

// NewBlocks begins at the committed offset, or where nothing was committed at the one from which to read.
// inputs is the number of input partitions that share the output partition. tables are in the order in which
// they are to be filled; the one whose rows tell the high mark is best the last.
func NewBlocks(partition int32, inputs int, tables []string, offset int64, m Sink) (*Blocks, error) {
	largest := Sink{Positions: make([]At, inputs), Flight: &Flight{Done: tables}}
	if len(tables) == 0 {
		return nil, errors.New("no tables")
	}
	for _, t := range tables {
		if t == "" || len(t) > 255 {
			return nil, fmt.Errorf("table %q", t)
		}
		if len(t) >= len(largest.Flight.Table) {
			largest.Flight.Table = t
		}
	}
	if _, err := largest.Encode(); err != nil {
		return nil, fmt.Errorf("%d input partitions in one output partition: %w", inputs, err)
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
			f.Table, f.Piece = "", Range{}
		}
		f.Done = slices.Clone(f.Done)
		b.flight = &f
	}
	return b, nil
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
			return []Action{b.insert(f.Table, f.Piece)}
		}
		var a []Action
		for _, t := range b.tables {
			if !slices.Contains(f.Done, t) && !slices.Contains(b.refused, t) {
				a = append(a, b.insert(t, f.Range))
			}
		}
		return a
	case DoDeadLetter:
		return []Action{{Do: DoDeadLetter, Range: f.Piece, Table: f.Table}}
	}
	return []Action{{Do: DoLeave}}
}

func (b *Blocks) insert(table string, r Range) Action {
	return Action{Do: DoInsert, Range: r, Table: table, Token: token(table, b.partition, b.before, r)}
}

// Reader returns a reader for the records of the next range.
func (b *Blocks) Reader() *Reader { return NewReader(b.positions) }

// Filled says that the records from the offset up to to, which is not one of them, are read; r is the reader
// that took them. It is an error if a range in flight is to end elsewhere, or if r met more input partitions
// than there are.
func (b *Blocks) Filled(to int64, r *Reader) error {
	after := r.Positions()
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
	if f.Table != "" {
		return
	}
	for _, t := range b.tables {
		if !slices.Contains(f.Done, t) && !slices.Contains(b.refused, t) {
			return
		}
	}
	if len(b.refused) > 0 {
		f.Table, f.Piece = b.refused[0], f.Range
		b.refused = b.refused[1:]
		b.halve()
		return
	}
	b.offset, b.positions, b.after = f.Range.To, b.after, nil
	b.flight = nil
	b.settled = false
	b.state = DoRead
}

// halve narrows the piece that was refused. What is committed first is the narrower piece: a successor tries
// that, and never the wider one again.
func (b *Blocks) halve() {
	p := &b.flight.Piece
	if p.To-p.From == 1 {
		b.state = DoDeadLetter
		return
	}
	p.To = p.From + (p.To-p.From)/2
	b.state = DoCommit
}

// advance goes on behind the piece: with the rest of the range, or with the other tables.
func (b *Blocks) advance() {
	f := b.flight
	if f.Piece.To < f.Range.To {
		f.Piece = Range{f.Piece.To, f.Range.To}
		b.state = DoCommit
		return
	}
	f.Done = append(f.Done, f.Table)
	f.Table, f.Piece = "", Range{}
	b.state = DoInsert
	b.done()
}
