package record

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/tapweave/tapweave/proto/pb"
)

// topic is the pair of functions of one kind of records, for tests over all of them.
type topic struct {
	name      string
	marshal   func() ([]byte, error)
	unmarshal func([]byte) (proto.Message, error)
	example   proto.Message
}

func of[M proto.Message](name string, example M, marshal func(M) ([]byte, error), unmarshal func([]byte) (M, error)) topic {
	return topic{
		name:    name,
		marshal: func() ([]byte, error) { return marshal(example) },
		unmarshal: func(b []byte) (proto.Message, error) {
			m, err := unmarshal(b)
			return m, err
		},
		example: example,
	}
}

func packets(body any) *pb.PacketsRecord {
	switch body := body.(type) {
	case *pb.PacketBatch:
		return &pb.PacketsRecord{Body: &pb.PacketsRecord_Batch{Batch: body}}
	case *pb.Tick:
		return &pb.PacketsRecord{Body: &pb.PacketsRecord_Tick{Tick: body}}
	case *pb.LabelSet:
		return &pb.PacketsRecord{Body: &pb.PacketsRecord_LabelSet{LabelSet: body}}
	}
	return &pb.PacketsRecord{Body: &pb.PacketsRecord_EndOfInput{EndOfInput: body.(*pb.EndOfInput)}}
}

func topics() []topic {
	rows, err := NewRows(pb.Rows_ALERTS, 1, 2, bytes.Repeat([]byte("row"), 100))
	if err != nil {
		panic(err)
	}
	return []topic{
		of("packets", packets(&pb.PacketBatch{Kind: pb.PacketBatch_GOODBYE, Producer: "c1", Incarnation: 7, Sequence: 1, Watermark: -5, Partitions: 16, Columns: []byte("columns")}), MarshalPackets, UnmarshalPackets),
		of("packets", packets(&pb.Tick{OwnerEpoch: 1, Clock: 2}), MarshalPackets, UnmarshalPackets),
		of("packets", packets(&pb.LabelSet{Digest: []byte("digest")}), MarshalPackets, UnmarshalPackets),
		of("packets", packets(&pb.EndOfInput{}), MarshalPackets, UnmarshalPackets),
		of("sessions", &pb.SessionsRecord{InputPartition: 3, LogEpoch: 1, OwnerEpoch: 9, Body: &pb.SessionsRecord_Output{Output: &pb.Output{Number: 1, InputOffset: 2, Rows: []*pb.Rows{rows}}}}, MarshalSessions, UnmarshalSessions),
		of("sessions", &pb.SessionsRecord{Body: &pb.SessionsRecord_Marker{Marker: &pb.Marker{Owner: "e1"}}}, MarshalSessions, UnmarshalSessions),
		of("stats", &pb.StatsRecord{Service: "collector", Counts: []*pb.Count{{Stage: "decode", Reason: "truncated", Count: 1}}}, MarshalStats, UnmarshalStats),
		of("state", &pb.StateRecord{Body: &pb.StateRecord_Snapshot{Snapshot: &pb.SnapshotChunk{Chunks: 1, Data: []byte("snapshot")}}}, MarshalState, UnmarshalState),
		of("state", &pb.StateRecord{Body: &pb.StateRecord_LabelSet{LabelSet: &pb.LabelSetChunk{Chunk: 1, Chunks: 2, Data: []byte("labels")}}}, MarshalState, UnmarshalState),
		of("dead letter", &pb.DeadLetterRecord{Topic: TopicSessions, Partition: 1, Offset: 2, Reason: "why", Value: []byte("value"), Rows: rows}, MarshalDeadLetter, UnmarshalDeadLetter),
	}
}

func TestRoundTrip(t *testing.T) {
	for _, c := range topics() {
		b, err := c.marshal()
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got, err := c.unmarshal(b)
		if err != nil || !proto.Equal(got, c.example) {
			t.Errorf("%s: %v, %v, want %v", c.name, got, err, c.example)
		}
	}
}

// The columns of a packets record stay where they are.
func TestColumnsAreNotCopied(t *testing.T) {
	b, err := MarshalPackets(packets(&pb.PacketBatch{Producer: "c", Columns: []byte("columns"), Oldest: 7}))
	if err != nil {
		t.Fatal(err)
	}
	r, err := UnmarshalPackets(b)
	if err != nil {
		t.Fatal(err)
	}
	if c := r.GetBatch().Columns; string(c) != "columns" || &c[0] != &b[bytes.Index(b, c)] {
		t.Errorf("columns %q, or a copy of them", c)
	}
}

func TestUnknownVersion(t *testing.T) {
	for _, c := range topics() {
		b, err := c.marshal()
		if err != nil {
			t.Fatal(err)
		}
		// A field that comes again replaces the one before it.
		b = protowire.AppendTag(b, 1, protowire.VarintType)
		b = protowire.AppendVarint(b, 9)
		_, err = c.unmarshal(b)
		var v *VersionError
		if !errors.As(err, &v) || v.Found != 9 || v.Understood != Version {
			t.Errorf("%s: %v", c.name, err)
		} else if want := " of version 9, this program understands version 1"; !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if _, err := c.unmarshal(nil); !errors.As(err, &v) || v.Found != 0 {
			t.Errorf("%s: no bytes: %v", c.name, err)
		}
	}
}

func TestTooLarge(t *testing.T) {
	large := packets(&pb.PacketBatch{Columns: make([]byte, MaxBytes)})
	if _, err := MarshalPackets(large); !errors.Is(err, ErrTooLarge) {
		t.Errorf("written: %v", err)
	}
	large.GetBatch().Columns = make([]byte, 2<<20)
	b, err := proto.Marshal(large)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := UnmarshalPackets(b); !errors.Is(err, ErrTooLarge) {
		t.Errorf("read: %v", err)
	}
}

func TestCorrupt(t *testing.T) {
	marshal := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	snapshot := func(s *pb.SnapshotChunk) []byte {
		return marshal(&pb.StateRecord{Version: Version, Body: &pb.StateRecord_Snapshot{Snapshot: s}})
	}
	for _, c := range []struct {
		name string
		err  error
	}{
		{"no protobuf", second(UnmarshalPackets([]byte("\xff\xff\xff")))},
		{"packets without body", second(UnmarshalPackets(marshal(&pb.PacketsRecord{Version: Version})))},
		{"batch of kind 9", second(UnmarshalPackets(marshal(&pb.PacketsRecord{Version: Version, Body: &pb.PacketsRecord_Batch{Batch: &pb.PacketBatch{Kind: 9}}})))},
		{"sessions without body", second(UnmarshalSessions(marshal(&pb.SessionsRecord{Version: Version})))},
		{"state without body", second(UnmarshalState(marshal(&pb.StateRecord{Version: Version})))},
		{"chunk 0 of 0", second(UnmarshalState(snapshot(&pb.SnapshotChunk{})))},
		{"wrong checksum", second(UnmarshalState(snapshot(&pb.SnapshotChunk{Chunks: 1, Data: []byte("x"), Crc32C: 1})))},
	} {
		if !errors.Is(c.err, ErrCorrupt) {
			t.Errorf("%s: %v", c.name, c.err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestOutputPartition(t *testing.T) {
	if p := OutputPartition(13, DefaultOutputPartitions); p != 1 {
		t.Errorf("partition %d", p)
	}
}

func TestRows(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	noise := make([]byte, 10000)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	for name, s := range map[string][]byte{
		"empty": {}, "short": []byte("x"), "noise": noise,
		"text": bytes.Repeat([]byte("a row of text "), 5000), "zeros": make([]byte, 10<<20),
	} {
		rows, err := NewRows(pb.Rows_TRAFFIC, 3, 7, s)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if rows.Kind != pb.Rows_TRAFFIC || rows.ColumnsVersion != 3 || rows.Count != 7 || len(rows.Arrow) > len(s) {
			t.Errorf("%s: %v, %d bytes", name, rows.Compression, len(rows.Arrow))
		}
		if got, err := Stream(rows, nil); err != nil || !bytes.Equal(got, s) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if _, err := NewRows(pb.Rows_SESSIONS, 1, 1, make([]byte, MaxStreamBytes+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
}

// A replay must give the same bytes, whatever the encoder compressed before and at the same time.
func TestCompressionIsDeterministic(t *testing.T) {
	stream := func(seed uint64) []byte {
		r := rand.New(rand.NewPCG(seed, 2))
		var b []byte
		for range 2000 + r.IntN(4000) {
			b = fmt.Appendf(b, "row %d of %d;", r.IntN(50), r.IntN(1000))
		}
		return b
	}
	compress := func(seed uint64) []byte {
		rows, err := NewRows(pb.Rows_SESSIONS, 1, 1, stream(seed))
		if err != nil {
			t.Error(err)
		}
		return rows.Arrow
	}
	const n = 20
	var first [n][]byte
	for i := range first {
		first[i] = compress(uint64(i))
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 3))
			for range n {
				if i := r.IntN(n); !bytes.Equal(compress(uint64(i)), first[i]) {
					t.Errorf("stream %d compressed to other bytes", i)
				}
			}
		})
	}
	wg.Wait()
}

// zstandard is how rows were compressed before S2.
func zstandard(t testing.TB, b []byte) []byte {
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return z.EncodeAll(b, nil)
}

func TestHostileRows(t *testing.T) {
	for compression, compress := range map[pb.Rows_Compression]func([]byte) []byte{
		pb.Rows_ZSTD: func(b []byte) []byte { return zstandard(t, b) },
		pb.Rows_S2:   func(b []byte) []byte { return s2.Encode(nil, b) },
	} {
		t.Run(compression.String(), func(t *testing.T) { hostile(t, compression, compress) })
	}
}

func hostile(t *testing.T, compression pb.Rows_Compression, compress func([]byte) []byte) {
	plain := bytes.Repeat([]byte("row"), 1000)
	bomb, text := compress(make([]byte, MaxStreamBytes)), compress(plain)
	small, large := make([]byte, 10), make([]byte, 3000, 4000)
	for _, into := range [][]byte{nil, small, large} {
		if got, err := Stream(&pb.Rows{Compression: compression, RawSize: 3000, Arrow: text}, into); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("into %d bytes: %d bytes, %v", len(into), len(got), err)
		} else if (&got[0] == &large[0]) != (cap(into) >= 3000) {
			t.Errorf("into %d bytes: the stream is not where there is room for it", len(into))
		}
	}
	for name, rows := range map[string]*pb.Rows{
		"beyond the bound":        {Compression: compression, RawSize: 1 << 60, Arrow: text},
		"a bomb":                  {Compression: compression, RawSize: MaxStreamBytes, Arrow: bomb},
		"a bomb said to be small": {Compression: compression, RawSize: 100, Arrow: bomb},
		"larger than said":        {Compression: compression, RawSize: 2999, Arrow: text},
		"smaller than said":       {Compression: compression, RawSize: 3001, Arrow: text},
		"cut":                     {Compression: compression, RawSize: 3000, Arrow: text[:len(text)-1]},
		"not compressed":          {Compression: compression, RawSize: 10, Arrow: []byte("\xff\xff\xff\xff\xff plain")},
		"plain, of another size":  {RawSize: 10, Arrow: []byte("x")},
		"unknown compression":     {Compression: 7, RawSize: 1, Arrow: []byte("x")},
	} {
		var err error
		n := allocated(func() { _, err = Stream(rows, nil) })
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
		if n > 8<<20 { // the decoder's own buffers, once
			t.Errorf("%s: %d bytes allocated", name, n)
		}
	}
	if _, err := Stream(nil, nil); err != nil {
		t.Errorf("no rows are an empty stream: %v", err)
	}
}

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func FuzzUnmarshal(f *testing.F) {
	all := topics()
	for i, c := range all {
		b, err := c.marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(i), b)
	}
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		c := all[int(which)%len(all)]
		m, err := c.unmarshal(slices.Clone(b))
		if err != nil {
			return
		}
		switch m := m.(type) {
		case *pb.SessionsRecord:
			for _, rows := range m.GetOutput().GetRows() {
				Stream(rows, nil)
			}
		case *pb.PacketsRecord:
			// What is cut out of the record and not copied is what package proto reads there.
			whole := new(pb.PacketsRecord)
			if err := proto.Unmarshal(b, whole); err != nil || !proto.Equal(m, whole) {
				t.Fatalf("%v, by package proto %v, %v", m, whole, err)
			}
			if _, err := MarshalPackets(m); err != nil && !errors.Is(err, ErrTooLarge) {
				t.Fatal(err)
			}
		}
	})
}

func FuzzStream(f *testing.F) {
	for _, n := range []int{0, 10, 5000} {
		rows, err := NewRows(pb.Rows_SESSIONS, 1, 1, bytes.Repeat([]byte("ab"), n))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(rows.Compression), rows.Arrow, rows.RawSize)
		f.Add(byte(pb.Rows_ZSTD), zstandard(f, bytes.Repeat([]byte("ab"), n)), uint64(2*n))
	}
	f.Fuzz(func(t *testing.T, compression byte, b []byte, size uint64) {
		s, err := Stream(&pb.Rows{Compression: pb.Rows_Compression(compression), RawSize: size, Arrow: b}, make([]byte, 100))
		if err == nil && uint64(len(s)) != size {
			t.Fatalf("%d bytes of %d", len(s), size)
		}
	})
}
