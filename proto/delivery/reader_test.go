package delivery

import (
	"errors"
	"slices"
	"testing"

	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
)

func at(log, owner, number uint64) Position { return Position{Epoch{log, owner}, number} }

func mark(log, owner uint64, continues bool) Entry {
	return Entry{Position: at(log, owner, 0), Marker: true, Continues: continues}
}

func out(log, owner, number uint64) Entry { return Entry{Position: at(log, owner, number)} }

func TestOrder(t *testing.T) {
	sorted := []Position{at(0, 9, 9), at(1, 1, 5), at(1, 2, 4), at(2, 1, 1), at(2, 1, 2)}
	for i, p := range sorted {
		for j, q := range sorted {
			if got, want := p.Compare(q), min(1, max(-1, i-j)); got != want {
				t.Errorf("%v against %v: %d, want %d", p, q, got, want)
			}
		}
	}
}

func TestReader(t *testing.T) {
	type step struct {
		entry Entry
		want  Verdict
	}
	for name, c := range map[string]struct {
		from    []At
		steps   []step
		end     Position
		missing uint64
	}{
		"repeats": {nil, []step{
			{mark(1, 1, true), Keep}, {out(1, 1, 1), Keep}, {out(1, 1, 2), Keep}, {out(1, 1, 1), Repeat}, {mark(1, 1, true), Repeat}, {out(1, 1, 3), Keep},
		}, at(1, 1, 3), 0},
		"a superseded owner goes on": {nil, []step{
			{mark(1, 1, true), Keep}, {out(1, 1, 1), Keep}, {mark(1, 2, true), Keep}, {out(1, 1, 2), Stale}, {out(1, 2, 2), Keep}, {mark(1, 1, true), Stale}, {out(1, 1, 3), Stale},
		}, at(1, 2, 2), 0},
		"the largest epoch counts, not the latest": {nil, []step{
			{mark(1, 3, true), Keep}, {mark(1, 2, true), Stale}, {out(1, 2, 1), Stale}, {out(1, 3, 1), Keep},
		}, at(1, 3, 1), 0},
		"numbers begin anew where no state is kept": {nil, []step{
			{mark(1, 1, false), Keep}, {out(1, 1, 1), Keep}, {out(1, 1, 2), Keep}, {mark(1, 2, false), Keep}, {out(1, 2, 1), Keep}, {out(1, 2, 1), Repeat}, {out(1, 1, 3), Stale},
		}, at(1, 2, 1), 0},
		"and in a new log epoch": {[]At{{0, at(1, 57, 900)}}, []step{
			{mark(2, 1, true), Keep}, {out(1, 57, 901), Stale}, {out(2, 1, 1), Keep},
		}, at(2, 1, 1), 0},
		"gap": {[]At{{0, at(1, 1, 4)}}, []step{
			{out(1, 1, 5), Keep}, {out(1, 1, 9), Gap}, {out(1, 1, 10), Keep}, {out(1, 1, 8), Repeat},
		}, at(1, 1, 10), 3},
		"the marker was removed": {[]At{{0, at(1, 1, 4)}}, []step{{out(1, 2, 7), Gap}, {out(1, 1, 5), Stale}}, at(1, 2, 7), 2},
		"of a new log epoch":     {[]At{{0, at(1, 1, 4)}}, []step{{out(2, 2, 3), Gap}, {out(2, 2, 4), Keep}}, at(2, 2, 4), 2},
		"in the middle":          {nil, []step{{out(1, 1, 8), Gap}, {out(1, 1, 9), Keep}}, at(1, 1, 9), 7},
		"other partitions":       {[]At{{0, at(1, 1, 4)}, {7, at(3, 3, 3)}}, []step{{out(1, 1, 5), Keep}}, at(1, 1, 5), 0},
	} {
		r := NewReader(c.from)
		for i, s := range c.steps {
			if v := r.Read(s.entry); v != s.want {
				t.Errorf("%s: step %d: %v, want %v", name, i, v, s.want)
			}
		}
		if p, _ := r.Position(0); p != c.end || r.Missing != c.missing {
			t.Errorf("%s: ends at %v, %d missing", name, p, r.Missing)
		}
		if got := NewReader(r.Positions()).Positions(); !slices.Equal(got, r.Positions()) {
			t.Errorf("%s: positions %v, want %v", name, got, r.Positions())
		}
	}
}

func TestEntryOf(t *testing.T) {
	e, err := EntryOf(&pb.SessionsRecord{InputPartition: 3, LogEpoch: 1, OwnerEpoch: 2, Body: &pb.SessionsRecord_Output{Output: &pb.Output{Number: 5, InputOffset: 6}}}, 4)
	if want := (Entry{Partition: 3, Position: at(1, 2, 5), Input: 6}); err != nil || e != want {
		t.Errorf("%+v, %v", e, err)
	}
	e, err = EntryOf(&pb.SessionsRecord{LogEpoch: 1, OwnerEpoch: 2, Body: &pb.SessionsRecord_Marker{}}, 4)
	if err != nil || e != mark(1, 2, false) {
		t.Errorf("%+v, %v", e, err)
	}
	for _, r := range []*pb.SessionsRecord{
		{},
		{InputPartition: 4, Body: &pb.SessionsRecord_Marker{}},
		{Body: &pb.SessionsRecord_Output{}},
	} {
		if _, err := EntryOf(r, 4); !errors.Is(err, record.ErrCorrupt) {
			t.Errorf("%v: %v", r, err)
		}
	}
}
