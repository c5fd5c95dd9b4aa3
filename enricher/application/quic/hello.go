package quic

import "slices"

// MaxCrypto is how much of the CRYPTO stream is put together, in bytes.
const MaxCrypto = 16 << 10

// Hello puts the ClientHello of a connection together, out of the CRYPTO frames of the client's Initial
// packets (RFC 9000, section 19.6). Its fields are all of its state. The zero Hello has seen nothing.
type Hello struct {
	// ID is the client's first Destination Connection ID that opened a packet, and Version what it came with.
	ID      []byte
	Version uint32
	// Crypto holds the stream from its beginning; Have are the ranges of it that have been seen, in order.
	Crypto []byte
	Have   []Range
}

// Range is a range of offsets, To not included.
type Range struct{ From, To int }

// maxRanges bounds how finely a stream may be split up.
const maxRanges = 64

// Datagram takes in a datagram of the client, whose length was size before it was cut off. It says whether
// there was an Initial packet in it that could be opened. What is coalesced behind it is looked at too
// (RFC 9000, section 12.2).
func (q *Hello) Datagram(b []byte, size int) (opened bool) {
	for range 8 {
		h, ok := ParseHeader(b, size)
		if !ok {
			break
		}
		if h.Initial {
			if frames, ok := q.open(b, &h); ok {
				opened = true
				q.frames(frames)
			}
		}
		if h.end >= len(b) {
			break
		}
		b, size = b[h.end:], size-h.end
	}
	return opened
}

// open tries the connection ID that opened a packet before, and that of the packet: the first is the right
// one but for the first packet of all and those behind a Retry (RFC 9001, section 5.2).
func (q *Hello) open(b []byte, h *Header) ([]byte, bool) {
	if q.ID != nil && q.Version == h.Version {
		if k, ok := clientKeys(q.Version, q.ID); ok {
			if frames, ok := k.open(b, h); ok {
				return frames, true
			}
		}
	}
	k, ok := clientKeys(h.Version, h.Destination)
	if !ok {
		return nil, false
	}
	frames, ok := k.open(b, h)
	if ok {
		q.ID, q.Version = append([]byte{}, h.Destination...), h.Version
	}
	return frames, ok
}

// frames takes in the frames of an Initial packet: PADDING, PING, ACK, CRYPTO and CONNECTION_CLOSE may be
// there (RFC 9000, section 17.2.2).
func (q *Hello) frames(b []byte) {
	next := func() (v uint64, ok bool) {
		v, n, ok := varint(b)
		b = b[n:]
		return v, ok
	}
	for len(b) > 0 {
		kind, ok := next()
		if !ok {
			return
		}
		switch kind {
		case 0, 1: // PADDING, PING
		case 2, 3: // ACK
			var count uint64
			for i := range 4 {
				v, ok := next()
				if !ok {
					return
				}
				if i == 2 {
					count = v
				}
			}
			if count > uint64(len(b)) {
				return
			}
			more := 2 * count
			if kind == 3 {
				more += 3 // ECN counts
			}
			for ; more > 0; more-- {
				if _, ok := next(); !ok {
					return
				}
			}
		case 6: // CRYPTO
			offset, ok1 := next()
			length, ok2 := next()
			if !ok1 || !ok2 || length > uint64(len(b)) {
				return
			}
			q.crypto(offset, b[:length])
			b = b[length:]
		default:
			return
		}
	}
}

// crypto takes in a piece of the CRYPTO stream.
func (q *Hello) crypto(offset uint64, data []byte) {
	if len(data) == 0 || offset+uint64(len(data)) > MaxCrypto {
		return
	}
	from, to := int(offset), int(offset)+len(data)
	i := 0
	for i < len(q.Have) && q.Have[i].To < from {
		i++
	}
	j := i
	r := Range{from, to}
	for j < len(q.Have) && q.Have[j].From <= to {
		r.From, r.To = min(r.From, q.Have[j].From), max(r.To, q.Have[j].To)
		j++
	}
	if i == j && len(q.Have) == maxRanges {
		return
	}
	q.Have = slices.Replace(q.Have, i, j, r)
	if to > len(q.Crypto) {
		q.Crypto = append(q.Crypto, make([]byte, to-len(q.Crypto))...)
	}
	copy(q.Crypto[from:], data)
}

// Message returns the body of the ClientHello, as far as it has been seen without a gap from its beginning.
func (q *Hello) Message() (body []byte, whole, ok bool) {
	const header = 4
	if len(q.Have) == 0 || q.Have[0].From != 0 || q.Have[0].To < header || q.Crypto[0] != 1 {
		return nil, false, false
	}
	seen := q.Crypto[:q.Have[0].To]
	length := int(seen[1])<<16 | int(seen[2])<<8 | int(seen[3])
	if len(seen) >= header+length {
		return seen[header : header+length], true, true
	}
	return seen[header:], false, true
}
