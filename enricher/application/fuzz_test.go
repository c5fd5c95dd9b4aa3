package application

import (
	"testing"

	"github.com/tapweave/tapweave/enricher/application/applicationtest"
	"github.com/tapweave/tapweave/proto/columns"
)

// FuzzStream: what is found does not depend on where the bytes are cut; nothing panics, all is bounded.
func FuzzStream(f *testing.F) {
	for i := range applicationtest.Samples {
		if s := &applicationtest.Samples[i]; !s.Datagrams() {
			f.Add(s.Client, s.Server, uint16(7))
		}
	}
	f.Fuzz(func(t *testing.T, client, server []byte, size uint16) {
		whole := []part{{0, 0, client, 0, false}, {1, 0, server, 0, false}}
		a := read(whole, true, Settings{Keep: 50})
		b := read(cut(whole, func() int { return int(size%512) + 1 }), true, Settings{Keep: 50})
		if x, y := a.Name(Ends{}), b.Name(Ends{}); x != y {
			t.Errorf("%v whole, %v in segments of %d", x, y, size%512+1)
		}
		state := b.Append(nil)
		if _, err := new(Session).Load(state); err != nil {
			t.Error(err)
		}
	})
}

func FuzzDatagrams(f *testing.F) {
	for i := range applicationtest.Samples {
		if s := &applicationtest.Samples[i]; s.Datagrams() {
			f.Add(s.Asks[0], s.Asks[len(s.Asks)-1], uint16(0))
		}
	}
	f.Fuzz(func(t *testing.T, a, b []byte, more uint16) {
		s := read([]part{{0, 0, a, 0, true}, {0, 0, b, len(b) + int(more), true}, {1, 0, b, 0, true}, {1, 0, a, 0, true}}, true, Settings{})
		row := columns.NewSession()
		s.Fill(row, 0)
		if s.Bytes > 1<<20 {
			t.Errorf("%d bytes", s.Bytes)
		}
	})
}

// FuzzLoad: whatever the bytes of a state, a session that was loaded from them can be used.
func FuzzLoad(f *testing.F) {
	for i := range applicationtest.Samples {
		s := &applicationtest.Samples[i]
		session := new(Session)
		for _, p := range cut(whole(s, true, true), func() int { return 30 })[:1] {
			if p.datagram {
				session.Datagram(&Settings{}, 0, p.data, len(p.data))
			} else {
				session.Segment(&Settings{}, 0, Place{Pos: firstByte, Size: int64(len(p.data)), Begin: firstByte, Known: true}, p.data)
				session.Segment(&Settings{}, 0, Place{Pos: firstByte + 100, Size: int64(len(p.data)), Begin: firstByte, Known: true}, p.data)
			}
		}
		f.Add(session.Append(nil), s.Client)
	}
	f.Fuzz(func(t *testing.T, state, more []byte) {
		s := new(Session)
		if _, err := s.Load(state); err != nil {
			return
		}
		for side := range uint8(2) {
			next := int64(0)
			if r := s.Readers[side]; r != nil {
				next = r.Next
			}
			if next >= 0 && next < 1<<40 {
				s.Segment(&Settings{}, side, Place{Pos: next, Size: int64(len(more)), Begin: next, Known: true}, more)
			}
		}
		s.End(&Settings{})
	})
}
