package clickhouse

import (
	"bytes"
	"fmt"
	"sort"
	"sync"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/cespare/xxhash/v2"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
)

// kinds of rows, in the order of their numbers.
var kinds = [...]pb.Rows_Kind{pb.Rows_SESSIONS, pb.Rows_TRAFFIC, pb.Rows_PACKETS, pb.Rows_ALERTS}

// block is a range of records of one partition, whose rows go into each table in one insert. The records are
// held as they came, compressed, until it is their turn.
type block struct {
	first, next   int64 // offsets
	highWatermark int64
	records       []kafka.Record  // those that have rows
	counts        [len(kinds)]int // rows, as the records say
	raw           int64           // bytes of the rows, decompressed
	compressed    int64           // bytes of the records
	digest        xxhash.Digest
}

func newBlock(first int64) *block {
	b := &block{first: first, next: first}
	b.digest.Reset()
	return b
}

// maxCompressed is the most bytes of records in a block: about twice what a block of DefaultConfig has.
const maxCompressed = 24 << 20

// add adds a record that has rows, unless the block has no room for it.
func (b *block) add(r kafka.Record, list []*pb.Rows, c *Config) bool {
	counts, raw := b.counts, b.raw
	most := 0
	for _, rows := range list {
		if i := int(rows.Kind); i >= 0 && i < len(kinds) {
			counts[i] += int(rows.Count)
			most = max(most, counts[i])
		}
		raw += int64(min(rows.RawSize, record.MaxStreamBytes))
	}
	compressed := b.compressed + int64(len(r.Value))
	if len(b.records) > 0 && (most > c.BlockRows || raw > c.MemoryBytes/2 || compressed > maxCompressed) {
		return false
	}
	b.counts, b.raw, b.compressed = counts, raw, compressed
	b.records = append(b.records, r)
	b.digest.Write(r.Value)
	return true
}

// token names some rows of the block in a table: the same rows of the same range of the same log have the same
// token, and only they, as the digest is of the records' contents.
func (b *block) token(table, topic string, partition, from, to int) string {
	return fmt.Sprintf("%s/%s/%d/%d-%d/%d-%d/%016x", table, topic, partition, b.first, b.next, from, to, b.digest.Sum64())
}

// envelope reads a record. Of an epoch marker it returns nil.
func envelope(value []byte) ([]*pb.Rows, error) {
	r, err := record.UnmarshalSessions(value)
	if err != nil {
		return nil, err
	}
	return r.GetOutput().GetRows(), nil
}

// parser takes rows out of records. It is for one goroutine.
type parser struct {
	decoders [len(kinds)]*columns.Decoder
	keep     [len(kinds)]bool // kinds that are stored
}

func newParser(keepPackets bool) *parser {
	p := new(parser)
	for i, kind := range kinds {
		p.decoders[i] = columns.NewDecoder(kind)
		p.keep[i] = kind != pb.Rows_PACKETS || keepPackets
	}
	return p
}

// open decompresses rows, and looks into every record batch: what a writer with a fault put on the topic must
// not reach ClickHouse's own reader. The batches are to be released.
func (p *parser) open(list []*pb.Rows) (batches []batch, err error) {
	defer func() {
		if err != nil {
			release(batches)
			batches = nil
		}
	}()
	for _, r := range list {
		s, err := columns.Open(r)
		if err != nil {
			return batches, err
		}
		if !p.keep[s.Kind] {
			continue
		}
		if err := p.decoders[s.Kind].Decode(s, func(rec arrow.Record) error {
			if rec.NumRows() > 0 {
				rec.Retain()
				batches = append(batches, batch{s.Kind, rec})
			}
			return nil
		}); err != nil {
			return batches, err
		}
	}
	return batches, nil
}

// batch is a record batch of rows of a kind.
type batch struct {
	kind pb.Rows_Kind
	arrow.Record
}

func release(batches []batch) {
	for _, b := range batches {
		b.Release()
	}
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

// spare holds tables that were inserted, for their memory.
var spare = sync.Pool{New: func() any {
	t := new(tables)
	for i, kind := range kinds {
		t.rows[i] = newRows(kind)
	}
	return t
}}

func newTables() *tables { return spare.Get().(*tables) }

// free gives the memory to other tables.
func (t *tables) free() {
	for i := range kinds {
		t.rows[i].reset()
		t.origins[i] = t.origins[i][:0]
	}
	spare.Put(t)
}

// add adds the rows of a record.
func (t *tables) add(offset int64, batches []batch) {
	for _, r := range batches {
		t.rows[r.kind].append(r.Record)
		t.origins[r.kind] = append(t.origins[r.kind], origin{t.rows[r.kind].n, offset})
	}
}

// offset returns the offset of the record that a row comes from.
func (t *tables) offset(kind pb.Rows_Kind, row int) int64 {
	list := t.origins[kind]
	return list[sort.Search(len(list), func(i int) bool { return row < list[i].end })].offset
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
