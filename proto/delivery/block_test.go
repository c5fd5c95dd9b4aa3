package delivery

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// script drives b: each line is what it must ask for, and the answer.
func script(t *testing.T, b *Blocks, lines string) (metadata string) {
	t.Helper()
	for line := range strings.Lines(strings.TrimSpace(lines)) {
		want, answer, _ := strings.Cut(strings.TrimSpace(line), ":")
		answer = strings.TrimSpace(answer)
		var asked []string
		next := b.Next()
		for _, a := range next {
			s := fmt.Sprintf("%v%v", a.Do, a.Range)
			if a.Rows != (Range{}) {
				s += fmt.Sprintf("rows%v", a.Rows)
			}
			if a.Do == DoCommit {
				m, err := DecodeSink(a.Commit.Metadata)
				if err != nil {
					t.Fatal(err)
				}
				metadata = a.Commit.Metadata
				s = fmt.Sprintf("commit %d", a.Commit.Offset)
				if f := m.Flight; f != nil {
					s += fmt.Sprintf(" %v %v %s%v", f.Range, f.Done, f.Table, f.Piece)
					if f.Rows != (Range{}) {
						s += fmt.Sprintf("rows%v", f.Rows)
					}
				}
			}
			if a.Table != "" {
				s += " " + a.Table
			}
			asked = append(asked, s)
		}
		if got := strings.Join(asked, ", "); got != want {
			t.Fatalf("asks for %q, want %q", got, want)
		}
		var to int64
		var table string
		outcome := map[string]Outcome{"done": Done, "refused": Refused, "unknown": Unknown}
		switch next[0].Do {
		case DoRead:
			fmt.Sscan(answer, &to)
			r := b.Reader()
			for n := next[0].Range.From; n < to; n++ {
				r.Read(out(1, 1, uint64(n)+1))
			}
			if err := b.Filled(to, r, three); err != nil {
				t.Fatal(err)
			}
		case DoCommit:
			b.Committed(outcome[answer])
		case DoInsert:
			for _, a := range strings.Split(answer, ", ") {
				table, a, _ = strings.Cut(a, " ")
				b.Inserted(table, outcome[a])
			}
		case DoDeadLetter:
			b.DeadLettered(outcome[answer])
		}
	}
	return metadata
}

// three rows are in each record.
func three(string, int64) int { return 3 }

func TestBlocks(t *testing.T) {
	b, err := NewBlocks(0, 4, []string{"traffic", "packets", "sessions"}, 100, Sink{})
	if err != nil {
		t.Fatal(err)
	}
	script(t, b, `read{100 -1}: 104
		commit 100 {100 104} [] {0 0}: done
		insert{100 104} traffic, insert{100 104} packets: packets done, traffic unknown
		insert{100 104} traffic: traffic done
		insert{100 104} sessions: sessions done
		read{104 -1}: 108
		commit 104 {104 108} [] {0 0}: done
		insert{104 108} traffic, insert{104 108} packets: traffic refused, packets unknown
		insert{104 108} packets: packets done
		commit 104 {104 108} [packets] traffic{104 106}: done
		insert{104 106} traffic: traffic done
		commit 104 {104 108} [packets] traffic{106 108}: done
		insert{106 108} traffic: traffic unknown
		insert{106 108} traffic: traffic refused
		commit 104 {104 108} [packets] traffic{106 107}: done
		insert{106 107} traffic: traffic refused`)
	m := script(t, b, "commit 104 {104 108} [packets] traffic{106 107}rows{0 1}: unknown\nleave{0 0}: ")

	// Whoever comes next, if that commit landed.
	s, err := DecodeSink(m)
	if err != nil {
		t.Fatal(err)
	}
	b, err = NewBlocks(0, 4, []string{"traffic", "packets", "sessions"}, 104, s)
	if err != nil {
		t.Fatal(err)
	}
	script(t, b, `read{104 108}: 108
		insert{106 107}rows{0 1} traffic: traffic done
		commit 104 {104 108} [packets] traffic{106 107}rows{1 3}: done
		insert{106 107}rows{1 3} traffic: traffic refused
		commit 104 {104 108} [packets] traffic{106 107}rows{1 2}: done
		insert{106 107}rows{1 2} traffic: traffic refused
		dead letter{106 107}rows{1 2} traffic: unknown
		dead letter{106 107}rows{1 2} traffic: done
		commit 104 {104 108} [packets] traffic{106 107}rows{2 3}: done
		insert{106 107}rows{2 3} traffic: traffic done
		commit 104 {104 108} [packets] traffic{107 108}: done
		insert{107 108} traffic: traffic done
		insert{104 108} sessions: sessions done`)
	if b.Settled() {
		t.Error("settled before it is committed")
	}
	b.Settle()
	script(t, b, "commit 108: done\nread{108 -1}: 109\ncommit 108 {108 109} [] {0 0}: refused\nleave{0 0}: ")
}

// Tables that refuse the only row of the only record.
func TestBlocksOfOneRow(t *testing.T) {
	b, err := NewBlocks(0, 4, []string{"traffic", "packets", "sessions"}, 5, Sink{})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range b.Next() {
		r := b.Reader()
		r.Read(out(1, 1, 1))
		if err := b.Filled(a.Range.From+1, r, func(string, int64) int { return 1 }); err != nil {
			t.Fatal(err)
		}
	}
	script(t, b, `commit 5 {5 6} [] {0 0}: done
		insert{5 6} traffic, insert{5 6} packets: traffic refused, packets refused
		dead letter{5 6}rows{0 1} traffic: done
		dead letter{5 6}rows{0 1} packets: done
		insert{5 6} sessions: sessions done
		read{6 -1}: 7`)
}

func TestBlocksOfOddMetadata(t *testing.T) {
	flight := &Flight{Range: Range{10, 20}, Done: []string{"gone"}, Table: "away", Piece: Range{10, 12}}
	b, err := NewBlocks(0, 4, []string{"sessions"}, 10, Sink{Flight: flight})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Filled(19, b.Reader(), three); err == nil {
		t.Error("the range in flight ends elsewhere")
	}
	script(t, b, "read{10 20}: 20\ninsert{10 20} sessions: sessions done\nread{20 -1}: 21")
	if !reflect.DeepEqual(flight.Done, []string{"gone"}) {
		t.Error("the metadata was changed")
	}
	if _, err := NewBlocks(0, 4, []string{"sessions"}, 11, Sink{Flight: flight}); err == nil {
		t.Error("a range in flight at another offset")
	}
	if _, err := NewBlocks(0, 200, []string{"sessions"}, 0, Sink{}); err == nil {
		t.Error("200 input partitions")
	}
}

func TestToken(t *testing.T) {
	tokens := map[string]bool{}
	for _, table := range []string{"sessions", "traffic_1m"} {
		for _, partition := range []int32{0, 1} {
			for _, before := range [][]At{nil, {{0, at(1, 1, 1)}}, {{1, at(1, 1, 1)}}, {{0, at(1, 1, 2)}}} {
				for _, r := range []Range{{0, 1}, {0, 2}, {1, 2}} {
					tokens[Token(table, partition, before, r, Range{})] = true
					tokens[Token(table, partition, before, r, Range{0, 1})] = true
				}
			}
		}
	}
	if len(tokens) != 2*2*2*4*3 {
		t.Errorf("%d tokens", len(tokens))
	}
}

func TestCapacity(t *testing.T) {
	tables := []string{"sessions_versions", "traffic_1m", "traffic_1h", "packets", "alerts", "delivery_marks"}
	n := Capacity(tables)
	for _, c := range []struct {
		n    int
		fits bool
	}{{n, true}, {n + 1, false}} {
		positions := make([]At, c.n)
		for i := range positions {
			positions[i].Partition = uint32(i)
		}
		_, err := Sink{positions, &Flight{Range: Range{0, 9}, Done: tables, Table: tables[0], Piece: Range{1, 2}, Rows: Range{3, 4}}}.Encode()
		if (err == nil) != c.fits {
			t.Errorf("%d input partitions: %v", c.n, err)
		}
	}
	t.Logf("%d input partitions in an output partition", n)
}
