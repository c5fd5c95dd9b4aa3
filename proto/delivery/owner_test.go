package delivery

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/tapweave/tapweave/proto/record"
)

func newOwner(t *testing.T, a Assignment) *Owner {
	t.Helper()
	o, err := NewOwner(a)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func want(t *testing.T, o *Owner, s Step) {
	t.Helper()
	if o.Step() != s {
		t.Fatalf("step %v, want %v", o.Step(), s)
	}
}

func encode(t *testing.T, e Enricher) string {
	t.Helper()
	s, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The first owner of a fresh partition.
func TestFirstOwner(t *testing.T) {
	o := newOwner(t, Assignment{Partition: 2, Generation: 7, Committed: Commit{Offset: -1}})
	want(t, o, StepSurvey)
	o.Survey(Entry{Partition: 1, Position: at(9, 9, 9)})
	o.Surveyed(40, 3)
	want(t, o, StepClaim)
	if c := o.Claim(); c.Offset != 3 || o.Epoch() != (Epoch{1, 7}) || o.Lost() != nil {
		t.Errorf("claims %+v as %v, %v", c, o.Epoch(), o.Lost())
	}
	o.Claimed(Unknown)
	want(t, o, StepClaim)
	o.Claimed(Done)
	want(t, o, StepMark)
	if m := o.Marker(); m != (Entry{Partition: 2, Position: at(1, 7, 0), Marker: true, Continues: true}) {
		t.Errorf("marks %+v", m)
	}
	o.Marked()
	want(t, o, StepLoad)
	if s := o.State(); s.State != Nothing || s.Input != 3 || s.Output != 40 {
		t.Errorf("loads %+v", s)
	}
	o.Loaded(true)
	want(t, o, StepLearn)
	o.Learn(o.Marker())
	want(t, o, StepRun)
	n := o.Numbers(0)
	if p, emit, err := n.Next(3); p != at(1, 7, 1) || !emit || err != nil {
		t.Errorf("first output %v, %v, %v", p, emit, err)
	}
	if _, ok := o.CommitSnapshot(Snapshot{State: 1, Input: 5, Output: 42, At: at(1, 7, 2)}, 1); ok {
		t.Error("commits before the outputs are acknowledged")
	}
	o.Committed(Refused)
	want(t, o, StepLeave)
}

// The log that a state belongs to is gone: the outputs begin anew, above every epoch that was seen.
func TestOwnerRenews(t *testing.T) {
	kept := encode(t, Enricher{Epoch: Epoch{3, 57}, Snapshots: []Snapshot{{7, 20, 30, at(3, 57, 9)}}})
	memory := Snapshot{Memory, 22, 31, at(3, 57, 10)}
	for _, a := range []Assignment{{Committed: Commit{20, kept}}, {Committed: Commit{20, kept}, Memory: &memory}} {
		a.Generation = 60
		o := newOwner(t, a)
		o.Claimed(Done)
		o.Marked()
		want(t, o, StepLoad)
		reason := errors.New("made anew")
		o.Renew(reason)
		want(t, o, StepSurvey)
		o.Surveyed(50, 4)
		want(t, o, StepClaim)
		if o.Epoch().Log != 4 || o.Epoch().Owner <= 60 || o.Claim().Offset != 4 || o.Lost() != reason {
			t.Errorf("claims %v from %d, %v", o.Epoch(), o.Claim().Offset, o.Lost())
		}
		o.Claimed(Done)
		o.Marked()
		if s := o.State(); s.State != Nothing || s.Input != 4 {
			t.Errorf("loads %+v", s)
		}
	}
}

func TestOwnerWithState(t *testing.T) {
	newest, older := Snapshot{80, 800, 50, at(3, 10, 20)}, Snapshot{60, 600, 30, at(3, 9, 12)}
	committed := Commit{800, encode(t, Enricher{Epoch: Epoch{3, 11}, Snapshots: []Snapshot{newest, older}})}
	assigned := Assignment{Generation: 12, Committed: committed}

	o := newOwner(t, assigned)
	o.Claimed(Done)
	o.Marked()
	want(t, o, StepLoad)
	if o.State() != newest {
		t.Fatalf("state %+v", o.State())
	}
	o.Loaded(false)
	want(t, o, StepLoad)
	if o.State() != older {
		t.Fatalf("state %+v", o.State())
	}
	o.Loaded(true)
	want(t, o, StepLearn)
	for _, e := range []Entry{out(3, 9, 13), mark(3, 10, true), out(3, 9, 14), out(3, 10, 14), {Partition: 1, Position: at(9, 9, 9)}, mark(3, 12, true)} {
		want(t, o, StepLearn)
		o.Learn(e)
	}
	want(t, o, StepRun)
	n := o.Numbers(12)
	if n.Silent() != 14 {
		t.Fatalf("learned %d", n.Silent())
	}
	// In these entries the last output was put out at offset 0: at another the fold is not the same.
	if _, _, err := n.Next(600); !errors.Is(err, ErrDiverged) {
		t.Errorf("diverges: %v", err)
	}

	// None of the snapshots can be read.
	o = newOwner(t, assigned)
	o.Claimed(Done)
	o.Marked()
	o.Loaded(false)
	o.Loaded(false)
	want(t, o, StepSurvey)
	o.Survey(mark(3, 12, true))
	o.Surveyed(100, 4)
	want(t, o, StepClaim)
	if o.Epoch() != (Epoch{4, 24}) || o.Claim().Offset != 4 || o.Lost() == nil {
		t.Errorf("epoch %v from %d, %v", o.Epoch(), o.Claim().Offset, o.Lost())
	}
	o.Claimed(Done)
	o.Marked()
	if o.State() != (Snapshot{Nothing, 4, 100, at(4, 0, 0)}) {
		t.Errorf("state %+v", o.State())
	}

	// Another claimed in the meantime.
	o = newOwner(t, assigned)
	o.Claimed(Done)
	o.Marked()
	o.Loaded(true)
	o.Learn(mark(3, 15, true))
	want(t, o, StepClaim)
	if o.Epoch() != (Epoch{3, 27}) {
		t.Errorf("claims %v", o.Epoch())
	}
	o.Claimed(Refused)
	want(t, o, StepLeave)
}

func TestOwnerSnapshots(t *testing.T) {
	o := newOwner(t, Assignment{Generation: 1, Committed: Commit{Offset: -1}})
	o.Surveyed(0, 0)
	o.Claimed(Done)
	o.Marked()
	o.Loaded(true)
	o.Learn(mark(1, 1, true))
	want(t, o, StepRun)
	names := func(s Snapshot, acknowledged uint64) (states []int64) {
		c, ok := o.CommitSnapshot(s, acknowledged)
		if !ok {
			return nil
		}
		m, err := DecodeEnricher(c.Metadata)
		if err != nil || c.Offset != m.Snapshots[0].Input {
			t.Fatalf("%+v, %v", m, err)
		}
		for _, s := range m.Snapshots {
			states = append(states, s.State)
		}
		return states
	}
	s := Snapshot{State: 5, Input: 50, Output: 9, At: at(1, 1, 8)}
	if got := names(s, 7); got != nil {
		t.Errorf("names %v before its outputs are acknowledged", got)
	}
	for range 2 { // the same one again does not push the one before it out
		if got := names(s, 8); len(got) != 2 || got[0] != 5 || got[1] != Nothing {
			t.Errorf("names %v", got)
		}
	}
	s.State = 6
	if got := names(s, 8); len(got) != 2 || got[0] != 6 || got[1] != 5 {
		t.Errorf("names %v", got)
	}
	if o.Committed(Unknown); o.MaySwitch() {
		t.Error("may switch although an older snapshot may be committed yet")
	}
}

// The broker has forgotten the generations, or somebody else has committed.
func TestOwnerOfOddMetadata(t *testing.T) {
	plain := encode(t, Enricher{Epoch: Epoch{3, 57}})
	kept := encode(t, Enricher{Epoch: Epoch{3, 57}, Snapshots: []Snapshot{{Nothing, 0, 0, at(3, 0, 0)}}})

	o := newOwner(t, Assignment{Generation: 2, Committed: Commit{10, kept}})
	if want(t, o, StepClaim); o.Epoch() != (Epoch{3, 59}) {
		t.Errorf("generation 2 after epoch 3/57: %v", o.Epoch())
	}
	for name, c := range map[string]struct {
		a     Assignment
		input int64
		lost  bool
	}{
		"set by hand":          {Assignment{Committed: Commit{10, ""}}, 10, true},
		"edited":               {Assignment{Committed: Commit{10, plain[:40] + "x" + plain[41:]}}, 4, true},
		"lost":                 {Assignment{Committed: Commit{Offset: -1}}, 4, true},
		"of one without state": {Assignment{Committed: Commit{10, plain}}, 10, false},
	} {
		c.a.Generation = 2
		o := newOwner(t, c.a)
		want(t, o, StepSurvey)
		o.Survey(mark(3, 57, false))
		o.Surveyed(90, 4)
		want(t, o, StepClaim)
		if o.Epoch() != (Epoch{4, 59}) || o.Claim().Offset != c.input || (o.Lost() != nil) != c.lost {
			t.Errorf("%s: %v from %d, %v", name, o.Epoch(), o.Claim().Offset, o.Lost())
		}
	}
	b := []byte{kindEnricher, 2}
	newer := encoding.EncodeToString(binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)))
	_, err := NewOwner(Assignment{Committed: Commit{10, newer}})
	var v *record.VersionError
	if !errors.As(err, &v) {
		t.Errorf("newer metadata: %v", err)
	}
}
