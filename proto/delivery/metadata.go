package delivery

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/tapweave/tapweave/proto/record"
)

// What is committed beside an offset is a string, and brokers take it for UTF-8, so it is base64 (URL alphabet,
// no padding) of: one byte kind, one byte version, the fields in big-endian order, and the CRC-32C of all that.
// Kind, version and checksum stay where they are in every version.

const (
	// MaxMetadata is the length of metadata that brokers take by default (offset.metadata.max.bytes).
	MaxMetadata = 4096
	// MetadataVersion is the version that this program writes, and the only one that it reads.
	MetadataVersion = 1

	kindEnricher, kindSink = 'E', 'S'

	// positionBytes is the length of a position in the metadata of a sink.
	positionBytes = 4 + 3*8
)

// ErrNoMetadata says that an offset was committed without metadata: not by Tapweave, e.g. by a tool that resets
// offsets.
var ErrNoMetadata = errors.New("offset committed without metadata")

// Enricher is what an enricher commits with the offset of an input partition.
type Enricher struct {
	// Epoch of the owner that committed.
	Epoch Epoch
	// Base is Epoch.Owner less the generation of the group.
	Base uint64
	// Snapshots are the newest two, the newest first; they are of Epoch.Log. None: by a program that
	// kept no state; the offset is that of the oldest packet that an open session needed.
	Snapshots []Snapshot
}

// Snapshot is a state of the fold.
type Snapshot struct {
	// State is the offset of its first record on tapweave.state; or Nothing, or Memory.
	State int64
	// Input is the offset of the first record on tapweave.packets that it does not include.
	Input int64
	// Output is an offset on tapweave.sessions: behind the output At (or the owner's marker, if that is later), and
	// before the first copy of the next one. So a produce call is tried again as it was: cut otherwise, a copy of
	// At can be acknowledged that stands behind the next output.
	Output int64
	// At is the last output that it includes.
	At Position
}

const (
	// Nothing is the state before the first record.
	Nothing = -1
	// Memory is a state that this process still holds from an assignment before. It is never committed.
	Memory = -2
)

// Sink is what a sink commits with the offset of an output partition.
type Sink struct {
	// Positions are where a reader stands at the committed offset, in the order of the input partitions.
	Positions []At
	// Flight is what may be in the tables already behind the offset; nil: nothing.
	Flight *Flight
}

// Range is a range of offsets of one partition, From to To-1.
type Range struct{ From, To int64 }

// Flight is a range of tapweave.sessions that goes into the tables, as one block a table.
type Flight struct {
	Range Range
	// Done are the tables that have it.
	Done []string
	// Table, where not empty, has refused the range for its data and takes it in pieces. It has what is before
	// Piece.
	Table string
	Piece Range
	// Rows, where not empty, are those of the one record of Piece that it takes next, counted from 0; it has what
	// is before them.
	Rows Range
}

// Encode returns e as metadata, less than 200 bytes.
func (e Enricher) Encode() (string, error) {
	if len(e.Snapshots) > 2 {
		return "", fmt.Errorf("enricher metadata with %d snapshots", len(e.Snapshots))
	}
	b := []byte{kindEnricher, MetadataVersion}
	b = words(b, e.Epoch.Log, e.Epoch.Owner, e.Base)
	b = append(b, byte(len(e.Snapshots)))
	for _, s := range e.Snapshots {
		if s.State < Nothing || s.At.Log != e.Epoch.Log {
			return "", fmt.Errorf("enricher metadata of epoch %v with a snapshot at %d of %v", e.Epoch, s.State, s.At)
		}
		b = words(b, uint64(s.State), uint64(s.Input), uint64(s.Output), s.At.Owner, s.At.Number)
	}
	return seal("enricher metadata", b)
}

// DecodeEnricher reads the metadata of an enricher. The errors are [ErrNoMetadata], [record.ErrCorrupt] (as when
// somebody edited it) and *[record.VersionError].
func DecodeEnricher(s string) (Enricher, error) {
	const what = "enricher offset metadata"
	b, err := open(what, s, kindEnricher)
	if err != nil {
		return Enricher{}, err
	}
	var e Enricher
	e.Epoch.Log, e.Epoch.Owner, e.Base = b.word(), b.word(), b.word()
	n := int(b.byte())
	if n > 2 {
		return Enricher{}, corrupt(what, "%d snapshots", n)
	}
	for range n {
		s := Snapshot{State: b.offset(), Input: b.offset(), Output: b.offset()}
		s.At = Position{Epoch{e.Epoch.Log, b.word()}, b.word()}
		if s.State < Nothing || s.Input < 0 || s.Output < 0 {
			return Enricher{}, corrupt(what, "offset below 0")
		}
		e.Snapshots = append(e.Snapshots, s)
	}
	return e, b.end(what)
}

// Encode returns s as metadata: 28 bytes an input partition, and a third more as base64.
func (s Sink) Encode() (string, error) {
	b := []byte{kindSink, MetadataVersion}
	b = binary.BigEndian.AppendUint16(b, uint16(min(len(s.Positions), 1<<16-1)))
	for _, a := range s.Positions {
		b = binary.BigEndian.AppendUint32(b, a.Partition)
		b = words(b, a.Log, a.Owner, a.Number)
	}
	f := s.Flight
	if f == nil {
		return seal("sink metadata", append(b, 0))
	}
	b = words(append(b, 1), uint64(f.Range.From), uint64(f.Range.To))
	b = append(b, byte(len(f.Done)))
	for _, t := range f.Done {
		b = append(append(b, byte(len(t))), t...)
	}
	b = append(append(b, byte(len(f.Table))), f.Table...)
	if f.Table != "" {
		b = words(b, uint64(f.Piece.From), uint64(f.Piece.To), uint64(f.Rows.From), uint64(f.Rows.To))
	}
	return seal("sink metadata", b)
}

// DecodeSink reads the metadata of a sink, with errors as [DecodeEnricher].
func DecodeSink(s string) (Sink, error) {
	const what = "sink offset metadata"
	b, err := open(what, s, kindSink)
	if err != nil {
		return Sink{}, err
	}
	var m Sink
	for range b.short() {
		a := At{b.wide(), Position{Epoch{b.word(), b.word()}, b.word()}}
		if n := len(m.Positions); n > 0 && m.Positions[n-1].Partition >= a.Partition {
			return Sink{}, corrupt(what, "input partition %d out of order", a.Partition)
		}
		m.Positions = append(m.Positions, a)
	}
	switch b.byte() {
	case 0:
		return m, b.end(what)
	case 1:
	default:
		return Sink{}, corrupt(what, "no such flight")
	}
	f := &Flight{Range: Range{b.offset(), b.offset()}}
	for range b.byte() {
		t := b.text()
		if t == "" || slices.Contains(f.Done, t) {
			return Sink{}, corrupt(what, "table %q", t)
		}
		f.Done = append(f.Done, t)
	}
	if f.Table = b.text(); f.Table != "" {
		f.Piece, f.Rows = Range{b.offset(), b.offset()}, Range{b.offset(), b.offset()}
		if f.Rows != (Range{}) && (f.Piece.To-f.Piece.From != 1 || f.Rows.From < 0 || f.Rows.From >= f.Rows.To) {
			return Sink{}, corrupt(what, "rows %v of piece %v", f.Rows, f.Piece)
		}
		if f.Piece.From < f.Range.From || f.Piece.From >= f.Piece.To || f.Piece.To > f.Range.To || slices.Contains(f.Done, f.Table) {
			return Sink{}, corrupt(what, "piece %v of range %v", f.Piece, f.Range)
		}
	}
	if f.Range.From < 0 || f.Range.From >= f.Range.To {
		return Sink{}, corrupt(what, "range %v", f.Range)
	}
	m.Flight = f
	return m, b.end(what)
}

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	encoding   = base64.RawURLEncoding
)

func corrupt(what, format string, args ...any) error {
	return fmt.Errorf("%s: %w: %s", what, record.ErrCorrupt, fmt.Sprintf(format, args...))
}

func words(b []byte, w ...uint64) []byte {
	for _, w := range w {
		b = binary.BigEndian.AppendUint64(b, w)
	}
	return b
}

func seal(what string, b []byte) (string, error) {
	s := encoding.EncodeToString(binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)))
	if len(s) > MaxMetadata {
		return "", fmt.Errorf("%s of %d bytes, brokers take %d: %w", what, len(s), MaxMetadata, record.ErrTooLarge)
	}
	return s, nil
}

// fields are the bytes that were not read yet. What is read beyond their end is 0, and end says so.
type fields struct {
	b    []byte
	over bool
}

func open(what, s string, kind byte) (*fields, error) {
	if s == "" {
		return nil, fmt.Errorf("%s: %w", what, ErrNoMetadata)
	}
	if len(s) > MaxMetadata {
		return nil, corrupt(what, "%d bytes", len(s))
	}
	b, err := encoding.DecodeString(s)
	if err != nil {
		return nil, corrupt(what, "%v", err)
	}
	// The decoder passes over line ends and loose bits: what it reads is not always what was written.
	if len(b) < 6 || encoding.EncodeToString(b) != s {
		return nil, corrupt(what, "not as it was written")
	}
	b, sum := b[:len(b)-4], binary.BigEndian.Uint32(b[len(b)-4:])
	if c := crc32.Checksum(b, castagnoli); c != sum {
		return nil, corrupt(what, "checksum %08x of data with %08x", sum, c)
	}
	if b[0] != kind {
		return nil, corrupt(what, "kind %q", b[0])
	}
	if b[1] != MetadataVersion {
		return nil, &record.VersionError{What: what, Found: uint32(b[1]), Understood: MetadataVersion}
	}
	return &fields{b: b[2:]}, nil
}

func (f *fields) take(n int) []byte {
	if f.over = f.over || n > len(f.b); f.over {
		return make([]byte, n)
	}
	b := f.b[:n]
	f.b = f.b[n:]
	return b
}

func (f *fields) byte() byte    { return f.take(1)[0] }
func (f *fields) short() uint16 { return binary.BigEndian.Uint16(f.take(2)) }
func (f *fields) wide() uint32  { return binary.BigEndian.Uint32(f.take(4)) }
func (f *fields) word() uint64  { return binary.BigEndian.Uint64(f.take(8)) }
func (f *fields) offset() int64 { return int64(f.word()) }
func (f *fields) text() string  { return string(f.take(int(f.byte()))) }

func (f *fields) end(what string) error {
	if f.over || len(f.b) > 0 {
		return corrupt(what, "of another length than its fields")
	}
	return nil
}
