package clickhouse

import (
	"bytes"
	"sort"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/delivery"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
)

// kinds of rows, in the order of their numbers.
var kinds = [...]pb.Rows_Kind{pb.Rows_SESSIONS, pb.Rows_TRAFFIC, pb.Rows_PACKETS, pb.Rows_ALERTS}

// block is a range of records of one partition, whose rows go into each table in one insert. The rows are held as
// they came, compressed, until it is their turn.
type block struct {
	delivery.Range
	highWatermark int64
	entries       []entry
	last          kafka.Record    // of the log
	counts        [len(kinds)]int // rows, as the records say
	raw           int64           // bytes of the rows, decompressed
	compressed    int64           // bytes of the records
}

// entry is a record of a block.
type entry struct {
	delivery.Entry
	offset int64
	output *pb.SessionsRecord // where it has rows
	bad    error              // why it is none
	value  []byte             // of one that is none
}

// newEntry reads a record. inputs is the number of partitions of tapweave.packets.
func newEntry(r kafka.Record, inputs int) entry {
	e := entry{offset: r.Offset}
	m, err := record.UnmarshalSessions(r.Value)
	if err == nil {
		e.Entry, err = delivery.EntryOf(m, inputs)
	}
	switch {
	case err != nil:
		e.bad, e.value = err, r.Value
	case len(m.GetOutput().GetRows()) > 0:
		e.output = m
	}
	return e
}

// add adds a record, unless the block has no room for its rows.
func (b *block) add(e entry, bytes int, limits limits) bool {
	counts, raw := b.counts, b.raw
	most := 0
	for _, rows := range e.output.GetOutput().GetRows() {
		if i := int(rows.Kind); i >= 0 && i < len(kinds) {
			counts[i] += int(rows.Count)
			most = max(most, counts[i])
		}
		raw += int64(min(rows.RawSize, record.MaxStreamBytes))
	}
	compressed := b.compressed + int64(bytes)
	if len(b.entries) > 0 && (most > limits.rows || raw > limits.raw || compressed > limits.compressed) {
		return false
	}
	b.counts, b.raw, b.compressed = counts, raw, compressed
	b.entries = append(b.entries, e)
	return true
}

// limits of a block.
type limits struct {
	rows            int
	raw, compressed int64
}

// parser takes rows out of records. It is for one goroutine.
type parser struct {
	keep   [len(kinds)]bool   // kinds that are stored
	memory [len(kinds)][]byte // for the first streams of a record
}

// keepMemory is how much memory of a stream is kept for a later one: the enricher's have 640 KiB at most, and a row.
const keepMemory = 1 << 20

func newParser(keepPackets bool) *parser {
	p := new(parser)
	for i, kind := range kinds {
		p.keep[i] = kind != pb.Rows_PACKETS || keepPackets
	}
	return p
}

// open decompresses rows, and looks into every record batch: what a writer with a fault put on the topic must
// not reach ClickHouse's own reader. The batches are good until the next call.
func (p *parser) open(list []*pb.Rows) (batches []*columns.Batch, err error) {
	for i, r := range list {
		var memory []byte
		if i < len(p.memory) {
			memory = p.memory[i]
		}
		s, err := columns.Open(r, memory)
		if err != nil {
			return nil, err
		}
		if m := s.Memory(); i < len(p.memory) && cap(m) > cap(memory) && cap(m) <= keepMemory {
			p.memory[i] = m
		}
		if !p.keep[s.Kind] {
			continue
		}
		if err := s.Each(func(b *columns.Batch) error {
			if b.Rows > 0 {
				batches = append(batches, b)
			}
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return batches, nil
}

// tables is the rows of a block, by kind.
type tables struct {
	rows    [len(kinds)]*rows
	origins [len(kinds)][]origin
}

// origin says that the rows from the origin before up to end are of the record at offset.
type origin struct {
	end    int
	offset int64
}

func newTables() *tables {
	t := new(tables)
	for i, kind := range kinds {
		t.rows[i] = newRows(kind)
	}
	return t
}

// spares keeps a few tables that were inserted, for their memory.
type spares struct {
	free chan *tables
	most int // bytes that one may have to be kept
}

func newSpares(budget int64) *spares {
	return &spares{free: make(chan *tables, 2), most: int(budget)}
}

func (s *spares) get() *tables {
	select {
	case t := <-s.free:
		return t
	default:
		return newTables()
	}
}

func (s *spares) put(t *tables) {
	bytes := 0
	for i := range kinds {
		t.rows[i].reset()
		t.origins[i] = t.origins[i][:0]
		bytes += t.rows[i].capacity()
	}
	if bytes > s.most {
		return
	}
	select {
	case s.free <- t:
	default:
	}
}

// empty says whether there are no rows at all.
func (t *tables) empty() bool {
	for _, r := range t.rows {
		if r.n > 0 {
			return false
		}
	}
	return true
}

// add adds the rows of a record. expected is how many rows of each kind there are to be in
// the end, as their records say, and most how many bytes they may have.
func (t *tables) add(offset int64, batches []*columns.Batch, expected [len(kinds)]int, most int64) {
	for _, b := range batches {
		rows := t.rows[b.Kind]
		first := rows.n == 0
		rows.append(b)
		if first {
			rows.reserve(expected[b.Kind], int(most))
		}
		t.origins[b.Kind] = append(t.origins[b.Kind], origin{rows.n, offset})
	}
}

// span returns which rows of a kind are those of a range of records; only, where not empty, are some of the rows of
// the one record.
func (t *tables) span(kind pb.Rows_Kind, r, only delivery.Range) (from, to int) {
	list := t.origins[kind]
	until := func(offset int64) int { // rows of the records before it
		i := sort.Search(len(list), func(i int) bool { return list[i].offset >= offset })
		if i == 0 {
			return 0
		}
		return list[i-1].end
	}
	from, to = until(r.From), until(r.To)
	if only != (delivery.Range{}) {
		from, to = min(from+int(only.From), to), min(from+int(only.To), to)
	}
	return from, to
}

// letter returns one row as it stands in a record.
func (t *tables) letter(kind pb.Rows_Kind, row int) (*pb.Rows, error) {
	rec := t.rows[kind].record().NewSlice(int64(row), int64(row)+1)
	var s bytes.Buffer
	if err := streamTo(&s, rec); err != nil {
		return nil, err
	}
	return record.NewRows(kind, columns.Version, 1, s.Bytes())
}
