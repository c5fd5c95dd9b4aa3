package application

import (
	"slices"

	"github.com/tapweave/tapweave/enricher/application/http2"
	"github.com/tapweave/tapweave/enricher/application/quic"
)

// Bounds of what waits behind a hole of one side.
const (
	maxSegments = 64
	maxWaiting  = 32 << 10 // bytes
)

// Reader reads one side. Its exported fields are all of its state.
type Reader struct {
	Side  uint8
	Stage Stage
	Full  bool // no more bytes are kept

	// Segments in the order of their positions.
	Next    int64 // position of the first byte that has not been read
	Begun   bool  // Next holds
	Certain bool  // and nothing of the side came before what has been read
	Waiting []Segment
	Held    int // bytes of Waiting

	// What the stage has not made use of yet.
	Buffer []byte
	Skip   int64  // bytes of a body, or of a frame, to be skipped
	Inner  bool   // what is read lies inside another protocol, which gave the name
	Count  int    // lines, segments or datagrams that the stage has looked at
	Mark   uint64 // length of Buffer below which the stage has no need to look; of datagrams what the last bore: see rtp
	Doubt  Verdict
	HTTP2  *http2.Side
	QUIC   *quic.Hello
}

// Segment waits for what comes before it.
type Segment struct {
	Pos, Size int64
	Data      []byte
}

// size is the logical size of the buffers.
func (r *Reader) size() int {
	n := len(r.Buffer) + r.Held
	if r.HTTP2 != nil {
		n += len(r.HTTP2.Blocks) + 8*len(r.HTTP2.Ends) + 4*len(r.HTTP2.Streams)
	}
	if r.QUIC != nil {
		n += len(r.QUIC.Crypto) + 16*len(r.QUIC.Have) + len(r.QUIC.ID)
	}
	return n
}

// segment takes in a segment, see Session.Segment.
func (r *Reader) segment(s *Session, set *Settings, at *Place, data []byte) {
	if !r.Begun {
		switch {
		case at.Known:
			r.Next, r.Begun, r.Certain = at.Begin, true, true
			if n := at.Pos - at.Begin; at.Seen && n > 0 && len(r.Waiting) == 0 {
				r.hole(s, n)
			}
		case !at.Settled:
			r.wait(s, set, at.Pos, at.Size, data)
			return
		default:
			r.settle(s, set)
			if !r.Begun {
				r.Next, r.Begun = at.Pos, true
			}
		}
		r.drain(s, set, false)
	}
	if at.Pos > r.Next {
		r.wait(s, set, at.Pos, at.Size, data)
		return
	}
	r.take(s, set, at.Pos, at.Size, data)
	r.drain(s, set, false)
}

// hole reads on behind n bytes that are not there.
func (r *Reader) hole(s *Session, n int64) {
	r.Full = true
	r.Next += n
	if r.Stage != done {
		r.gap(s, n)
	}
}

// settle lets the first segment that waits be the beginning.
func (r *Reader) settle(s *Session, set *Settings) {
	if !r.Begun && len(r.Waiting) > 0 {
		r.Next, r.Begun = r.Waiting[0].Pos, true
		r.drain(s, set, false)
	}
}

// wait puts a segment aside. Where too much waits, the first hole is given up.
func (r *Reader) wait(s *Session, set *Settings, pos, size int64, data []byte) {
	i, _ := slices.BinarySearchFunc(r.Waiting, pos, func(w Segment, pos int64) int {
		switch {
		case w.Pos <= pos:
			return -1
		}
		return 1
	})
	r.Waiting = slices.Insert(r.Waiting, i, Segment{pos, size, slices.Clone(data)})
	r.Held += len(data)
	for len(r.Waiting) > maxSegments || r.Held > maxWaiting {
		if !r.Begun {
			r.settle(s, set)
			continue
		}
		if n := r.Waiting[0].Pos - r.Next; n > 0 {
			r.hole(s, n)
		}
		r.drain(s, set, false)
	}
}

// drain reads what waits and has no hole before it any more, or all.
func (r *Reader) drain(s *Session, set *Settings, all bool) {
	n := 0
	for n < len(r.Waiting) && (all || r.Waiting[n].Pos <= r.Next) {
		w := r.Waiting[n]
		if hole := w.Pos - r.Next; hole > 0 {
			r.hole(s, hole)
		}
		r.Held -= len(w.Data)
		n++
		r.take(s, set, w.Pos, w.Size, w.Data)
	}
	if n > 0 {
		r.Waiting = slices.Delete(r.Waiting, 0, n)
	}
}

// take reads a segment that begins at Next or before. What of it was read before is left out.
func (r *Reader) take(s *Session, set *Settings, pos, size int64, data []byte) {
	if old := r.Next - pos; old > 0 {
		if old >= size {
			return
		}
		data = data[min(old, int64(len(data))):]
		size -= old
	}
	r.Next += size
	missing := size - int64(len(data))
	r.keep(s, set, data, missing > 0)
	if r.Stage == done {
		return
	}
	r.feed(s, data)
	if missing > 0 {
		r.gap(s, missing)
	}
}

// keep keeps the side's first bytes, up to the first hole.
func (r *Reader) keep(s *Session, set *Settings, data []byte, cut bool) {
	if r.Full {
		return
	}
	k := &s.Kept[r.Side]
	n := min(set.Keep-len(*k), len(data))
	if n > 0 {
		*k = append(*k, data[:n]...)
		s.Bytes += n
	}
	r.Full = cut || len(*k) >= set.Keep
}

// feed gives the stage a segment's bytes, behind those that it has not made use of yet.
func (r *Reader) feed(s *Session, data []byte) {
	if len(data) == 0 {
		return
	}
	if r.Skip > 0 && len(r.Buffer) == 0 {
		n := min(r.Skip, int64(len(data)))
		r.Skip -= n
		data = data[n:]
	}
	own := len(r.Buffer) > 0
	if own {
		r.Buffer = append(r.Buffer, data...)
		data = r.Buffer
	}
	rest := data
	for len(rest) > 0 && r.Stage != done {
		if r.Skip > 0 {
			n := min(r.Skip, int64(len(rest)))
			r.Skip -= n
			rest = rest[n:]
			continue
		}
		stage := r.Stage
		n := r.step(s, rest)
		if n == 0 && r.Stage == stage {
			break // it waits for more
		}
		rest = rest[n:]
	}
	switch {
	case r.Stage == done:
		r.Buffer = nil
	case own:
		r.Buffer = append(r.Buffer[:0], rest...)
	case len(rest) > 0:
		r.Buffer = append(r.Buffer, rest...)
	}
	if len(r.Buffer) == 0 && cap(r.Buffer) > 0 {
		r.Buffer = nil
	}
}
