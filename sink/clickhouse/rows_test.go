package clickhouse

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow/go/v17/arrow/ipc"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/delivery"
	"github.com/tapweave/tapweave/proto/pb"
)

func anySession(r *rand.Rand) *columns.Session {
	s := columns.NewSession()
	word := func() string { return string(make([]byte, r.IntN(20))) + "é" }
	binary.BigEndian.PutUint64(s.ID[:], r.Uint64())
	s.Tenant, s.App, s.TLSSNI = word(), word(), word()
	s.Start, s.End, s.Created = r.Int64(), r.Int64(), r.Int64()
	s.IsFinal = r.IntN(2) == 0
	if r.IntN(2) == 0 {
		s.SrcRTT = r.Float64()
	}
	if r.IntN(3) == 0 {
		s.DstRTT = math.Inf(1) // unknown too
	}
	for range r.IntN(3) {
		s.DNSAnswers, s.VNIs, s.VLANs = append(s.DNSAnswers, word()), append(s.VNIs, r.Uint32()), append(s.VLANs, uint16(r.Uint32()))
	}
	s.SrcPayload = make([]byte, r.IntN(5))
	return s
}

// What was put together from many batches reads as each of them, whole and in pieces.
func TestRows(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	together, parse := newRows(pb.Rows_SESSIONS), newParser(true)
	for round := range 3 { // the memory is used again
		together.reset()
		var want []string
		for range 40 {
			b := columns.NewBuilder(columns.Sessions)
			for range rng.IntN(20) {
				s := anySession(rng)
				want = append(want, string(columns.Sessions.AppendJSON(nil, s)))
				b.Append(s)
			}
			list, err := b.Rows()
			if err != nil {
				t.Fatal(err)
			}
			batches, err := parse.open([]*pb.Rows{list})
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range batches {
				together.append(b)
			}
		}
		all := together.record()
		for _, part := range [][2]int{{0, len(want)}, {0, 1}, {7, 8}, {len(want) / 2, len(want)}, {len(want) - 1, len(want)}} {
			var b bytes.Buffer
			if err := streamTo(&b, all.NewSlice(int64(part[0]), int64(part[1]))); err != nil {
				t.Fatal(err)
			}
			got := read(t, b.Bytes())
			if !slices.Equal(got, want[part[0]:part[1]]) {
				t.Fatalf("round %d, rows %v:\n%s\nwant\n%s", round, part, got, want[part[0]:part[1]])
			}
		}
	}
}

func read(t *testing.T, stream []byte) (lines []string) {
	r, err := ipc.NewReader(bytes.NewReader(stream))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	if !r.Schema().Equal(columns.Sessions.Schema()) {
		t.Fatalf("schema %s", r.Schema())
	}
	for r.Next() {
		if err := columns.Sessions.Load(r.Record(), func(s *columns.Session) error {
			lines = append(lines, string(columns.Sessions.AppendJSON(nil, s)))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	if r.Err() != nil {
		t.Fatal(r.Err())
	}
	return lines
}

func TestBlock(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	most := limits{rows: 20, raw: 1 << 30, compressed: 1 << 30}
	b, rows, parse := new(block), newTables(), newParser(false)
	var want []string
	full := false
	for i := range 30 {
		sb, kb := columns.NewBuilder(columns.Sessions), columns.NewBuilder(columns.Packets)
		n := rng.IntN(4)
		for range n {
			s := anySession(rng)
			want = append(want, fmt.Sprint(100+i, s.ID))
			sb.Append(s)
		}
		kb.Append(&columns.Packet{Side: columns.SideSrc})
		var list []*pb.Rows
		for _, f := range []func() (*pb.Rows, error){sb.Rows, kb.Rows} {
			r, err := f()
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, r)
		}
		full = !b.add(entryOf(list...), 1, most)
		if full {
			if len(want) <= 20 && i < 20 {
				t.Errorf("full with %d rows", len(want)-n)
			}
			want = want[:len(want)-n]
			break
		}
		batches, err := parse.open(list)
		if err != nil {
			t.Fatal(err)
		}
		rows.add(int64(100+i), batches, [len(kinds)]int{40, 1 << 40}, 1<<20)
	}
	if !full || b.counts[pb.Rows_SESSIONS] > 20 || b.counts[pb.Rows_SESSIONS] != rows.rows[pb.Rows_SESSIONS].n {
		t.Errorf("full %v with %d rows of %d", full, b.counts[pb.Rows_SESSIONS], rows.rows[pb.Rows_SESSIONS].n)
	}
	if n := rows.rows[pb.Rows_PACKETS].n; n != 0 {
		t.Errorf("%d packets without packets", n)
	}
	for i, w := range want {
		row, err := rows.letter(pb.Rows_SESSIONS, i)
		if err != nil {
			t.Fatal(err)
		}
		if err := columns.Sessions.Read(row, func(s *columns.Session) error {
			if _, got, _ := strings.Cut(w, " "); got != s.ID.String() {
				t.Errorf("row %d: %s, want %s", i, s.ID, w)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	// The rows of the records, and some of those of one.
	at := 0
	for offset := int64(100); at < len(want); offset++ {
		n := 0
		for at+n < len(want) && strings.HasPrefix(want[at+n], fmt.Sprint(offset, " ")) {
			n++
		}
		one := delivery.Range{From: offset, To: offset + 1}
		if from, to := rows.span(pb.Rows_SESSIONS, one, delivery.Range{}); from != at || to != at+n {
			t.Errorf("rows of record %d: %d to %d, want %d to %d", offset, from, to, at, at+n)
		}
		if from, to := rows.span(pb.Rows_SESSIONS, one, delivery.Range{From: 1, To: 2}); n > 1 && (from != at+1 || to != at+2) || n < 2 && from != to {
			t.Errorf("row 1 of record %d with %d rows at %d: %d to %d", offset, n, at, from, to)
		}
		at += n
	}
	if from, to := rows.span(pb.Rows_SESSIONS, delivery.Range{From: 0, To: 1000}, delivery.Range{}); from != 0 || to != len(want) {
		t.Errorf("all rows: %d to %d of %d", from, to, len(want))
	}
	// A record alone is never too large.
	if !new(block).add(entryOf(&pb.Rows{Count: 7, RawSize: 1 << 40}), 100, limits{1, 1, 1}) {
		t.Error("a record does not fit into an empty block")
	}
}

func entryOf(rows ...*pb.Rows) entry {
	return entry{output: &pb.SessionsRecord{Body: &pb.SessionsRecord_Output{Output: &pb.Output{Rows: rows}}}}
}

func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			rng := rand.New(rand.NewPCG(1, 2))
			builder := columns.NewBuilder(columns.Sessions)
			for range n {
				builder.Append(anySession(rng))
			}
			list, err := builder.Rows()
			if err != nil {
				b.Fatal(err)
			}
			batches, err := newParser(true).open([]*pb.Rows{list})
			if err != nil {
				b.Fatal(err)
			}
			r := newRows(pb.Rows_SESSIONS)
			b.ReportAllocs()
			for range b.N {
				r.append(batches[0])
				if r.n >= 100_000 {
					r.reset()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/row")
		})
	}
}
