package fold

import "encoding/binary"

// payloadLog holds the payload that was sampled last, of all sessions, in a ring, so as to tell what is sent
// again with other bytes. Each side chains its own entries; what the ring has overwritten is forgotten.
type payloadLog struct {
	pages [][]byte // as many of them as have been written to
	end   uint64   // where the next entry goes, counted from the beginning of time
}

// pageBytes is the size of a page, but for the last one of a ring that they do not divide. It holds the payload of any
// packet of IPv4, and of IPv6 without jumbograms: what is larger is not kept.
const pageBytes = 128 << 10

// An entry is the place of the side's entry before it plus one (8 bytes), the number of its first byte (8), its
// length (4), and its bytes. It lies in one page.
const entryHeader = 20

// add appends sampled payload, whose first byte has the sequence number pos, to the chain that ends at last,
// and returns the chain's new end.
func (l *payloadLog) add(last uint64, pos int64, data []byte, size int) uint64 {
	n := uint64(entryHeader + len(data))
	whole := uint64(size)
	if n > min(whole/4, pageBytes) {
		return last
	}
	for rest := pageRest(l.end, whole); n > rest; rest = pageRest(l.end, whole) {
		l.end += rest
	}
	at := l.end
	b := l.room(at, whole)
	binary.LittleEndian.PutUint64(b, last)
	binary.LittleEndian.PutUint64(b[8:], uint64(pos))
	binary.LittleEndian.PutUint32(b[16:], uint32(len(data)))
	copy(b[entryHeader:], data)
	l.end += n
	return at + 1
}

// pageRest is how many bytes there are from a place of a ring of whole bytes to the end of its page.
func pageRest(at, whole uint64) uint64 {
	at %= whole
	return min(pageBytes-at%pageBytes, whole-at)
}

// room returns the bytes from a place to the end of its page. A fold with little payload has few pages.
func (l *payloadLog) room(at, whole uint64) []byte {
	at %= whole
	i := int(at / pageBytes)
	for i >= len(l.pages) {
		l.pages = append(l.pages, nil)
	}
	if l.pages[i] == nil {
		l.pages[i] = make([]byte, min(pageBytes, whole-uint64(i)*pageBytes))
	}
	return l.pages[i][at%pageBytes:]
}

// entry returns the entry at a place.
func (l *payloadLog) entry(at, whole uint64) []byte {
	b := l.pages[at%whole/pageBytes][at%whole%pageBytes:]
	return b[:entryHeader+binary.LittleEndian.Uint32(b[16:])]
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
		b := l.entry(last-1, whole)
		from, seen := int64(binary.LittleEndian.Uint64(b[8:])), b[entryHeader:]
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
