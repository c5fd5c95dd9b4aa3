package delivery

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/tapweave/tapweave/proto/record"
)

func enricherExamples() []Enricher {
	return []Enricher{
		{Epoch: Epoch{1, 2}},
		{Epoch: Epoch{3, 57}, Base: 50, Snapshots: []Snapshot{{Nothing, 0, 7, at(3, 0, 0)}}},
		{Epoch: Epoch{math.MaxUint64, math.MaxUint64}, Base: math.MaxUint64, Snapshots: []Snapshot{
			{math.MaxInt64, math.MaxInt64, math.MaxInt64, at(math.MaxUint64, math.MaxUint64, math.MaxUint64)},
			{4, 5, 6, at(math.MaxUint64, 8, 9)},
		}},
	}
}

func sinkExamples() []Sink {
	return []Sink{
		{},
		{Positions: []At{{0, at(1, 2, 3)}, {4, at(5, 6, 7)}}},
		{Positions: []At{{1, at(1, 2, 3)}}, Flight: &Flight{Range: Range{10, 20}}},
		{Flight: &Flight{Range: Range{10, 20}, Done: []string{"sessions", "packets"}, Table: "alerts", Piece: Range{15, 17}}},
	}
}

func TestMetadata(t *testing.T) {
	for _, e := range enricherExamples() {
		s, err := e.Encode()
		if err != nil || len(s) >= 200 {
			t.Fatalf("%+v: %d bytes, %v", e, len(s), err)
		}
		if got, err := DecodeEnricher(s); err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("%+v, %v, want %+v", got, err, e)
		}
		if _, err := DecodeSink(s); !errors.Is(err, record.ErrCorrupt) {
			t.Errorf("as a sink's: %v", err)
		}
	}
	for _, m := range sinkExamples() {
		s, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeSink(s); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v, %v, want %+v", got, err, m)
		}
	}
	for _, e := range []Enricher{{Snapshots: make([]Snapshot, 3)}, {Snapshots: []Snapshot{{State: Memory}}}, {Snapshots: []Snapshot{{At: at(1, 1, 1)}}}} {
		if _, err := e.Encode(); err == nil {
			t.Errorf("%+v encodes", e)
		}
	}
	if _, err := (Sink{Positions: make([]At, 200)}).Encode(); !errors.Is(err, record.ErrTooLarge) {
		t.Errorf("200 input partitions: %v", err)
	}
}

func TestMetadataOfAnotherVersion(t *testing.T) {
	b := []byte{kindSink, 9, 'x'}
	s := encoding.EncodeToString(binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)))
	_, err := DecodeSink(s)
	var v *record.VersionError
	if !errors.As(err, &v) || v.Found != 9 || v.Understood != MetadataVersion {
		t.Error(err)
	}
	if !strings.Contains(err.Error(), "version 9") || !strings.Contains(err.Error(), "version 1") {
		t.Error(err)
	}
}

func TestEditedMetadata(t *testing.T) {
	s, err := enricherExamples()[1].Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeEnricher(""); !errors.Is(err, ErrNoMetadata) {
		t.Errorf("none: %v", err)
	}
	for i := range s {
		for _, c := range []string{"", "A", "B", "\n", "é"} {
			if c == s[i:i+1] {
				continue
			}
			edited := s[:i] + c + s[i+1:]
			if _, err := DecodeEnricher(edited); !errors.Is(err, record.ErrCorrupt) {
				t.Errorf("%q in place of %q at %d: %v", c, s[i], i, err)
			}
		}
	}
	if _, err := DecodeEnricher(strings.Repeat("A", 1<<20)); !errors.Is(err, record.ErrCorrupt) {
		t.Errorf("1 MiB: %v", err)
	}
}

// FuzzMetadata takes what the checksum would refuse most of the time, too: the data is tried with a right one.
func FuzzMetadata(f *testing.F) {
	add := func(s string, err error) {
		if err != nil {
			f.Fatal(err)
		}
		b, err := encoding.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:len(b)-4])
	}
	for _, e := range enricherExamples() {
		add(e.Encode())
	}
	for _, s := range sinkExamples() {
		add(s.Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		DecodeEnricher(string(b))
		DecodeSink(string(b))
		s := encoding.EncodeToString(binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)))
		if e, err := DecodeEnricher(s); err == nil {
			if again, err := e.Encode(); again != s {
				t.Errorf("%+v encodes to %q, %v, from %q", e, again, err, s)
			}
			if _, err := NewOwner(Assignment{Committed: Commit{0, s}}); err != nil {
				t.Errorf("%+v: %v", e, err)
			}
		}
		if m, err := DecodeSink(s); err == nil {
			if again, err := m.Encode(); again != s {
				t.Errorf("%+v encodes to %q, %v, from %q", m, again, err, s)
			}
			if b, err := NewBlocks(0, 8, []string{"sessions"}, 10, m); err == nil {
				b.Next()
			}
		}
	})
}
