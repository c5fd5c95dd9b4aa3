package fold

import "encoding/binary"

// payloadLog holds the payload that was sampled last, of all sessions, in a ring, so as to tell what is sent
// again with other bytes. Each side chains its own entries; what the ring has overwritten is forgotten.
type payloadLog struct {
	ring []byte // as much of it as has been written to
	end  uint64 // where the next entry goes, counted from the beginning of time
}

// An entry is the place of the side's entry before it plus one (8 bytes), the number of its first byte (8), its
// length (4), and its bytes.
const entryHeader = 20

// add appends sampled payload, whose first byte has the sequence number pos, to the chain that ends at last,
// and returns the chain's new end.
func (l *payloadLog) add(last uint64, pos int64, data []byte, size int) uint64 {
	n := uint64(entryHeader + len(data))
	whole := uint64(size)
	if n > whole/4 {
		return last
	}
	if l.end%whole+n > whole {
		l.end += whole - l.end%whole // entries are not broken at the ring's end
	}
	at := l.end
	l.reach(at%whole+n, whole)
	b := l.ring[at%whole:]
	binary.LittleEndian.PutUint64(b, last)
	binary.LittleEndian.PutUint64(b[8:], uint64(pos))
	binary.LittleEndian.PutUint32(b[16:], uint32(len(data)))
	copy(b[entryHeader:], data)
	l.end += n
	return at + 1
}

// reach makes the ring reach n of its whole bytes. It doubles, so that a fold with little payload does not begin
// with clearing all.
func (l *payloadLog) reach(n, whole uint64) {
	if have := uint64(len(l.ring)); n > have {
		l.ring = append(l.ring, make([]byte, min(max(n, 2*have, 1<<16), whole)-have)...)
	}
}

// maxEntries is how many entries of a side are looked at.
const maxEntries = 256

// differing returns how many bytes of data, whose first has the number pos, differ from those seen first.
func (l *payloadLog) differing(last uint64, pos int64, data []byte, size int) (n uint32) {
	whole := uint64(size)
	for range maxEntries {
		if last == 0 || l.end-(last-1) > whole {
			break
		}
		b := l.ring[(last-1)%whole:]
		from := int64(binary.LittleEndian.Uint64(b[8:]))
		seen := b[entryHeader : entryHeader+binary.LittleEndian.Uint32(b[16:])]
		a, z := max(from, pos), min(from+int64(len(seen)), pos+int64(len(data)))
		for i := a; i < z; i++ {
			if seen[i-from] != data[i-pos] {
				n++
			}
		}
		last = binary.LittleEndian.Uint64(b)
	}
	return n
}

// compare counts the sampled bytes of a segment, which begins at from, that differ from those seen first, and
// notes those that are new: fresh, or all.
func (l *payloadLog) compare(q *sequence, from int64, data []byte, all bool, fresh []stretch, size int) {
	if all {
		q.sampled = l.add(q.sampled, from, data, size)
		return
	}
	if n := l.differing(q.sampled, from, data, size); n > 0 {
		q.own().overlap += n
	}
	for _, s := range fresh {
		if a, z := max(s.from, from), min(s.to, from+int64(len(data))); a < z {
			q.sampled = l.add(q.sampled, a, data[a-from:z-from], size)
		}
	}
}
