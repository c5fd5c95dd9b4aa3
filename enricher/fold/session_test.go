package fold

import (
	"testing"
	"time"
	"unsafe"
)

// A session takes one of the allocator's classes: with its places in table and timers it is to stay within 512 bytes.
func TestSizeOfASession(t *testing.T) {
	const class = 480
	if n := unsafe.Sizeof(Session{}); n > class {
		t.Errorf("%d bytes: the allocator's next class is 512, and the table's and the timers' places come on top", n)
	}
	const page = 128
	if n := unsafe.Sizeof(minute{}); n > page {
		t.Errorf("a minute's sums take %d bytes, of a class of %d before", n, page)
	}
}

// What cannot be booked otherwise any more takes no memory, also where nothing more comes; what comes later is booked
// all the same.
func TestMinutesGo(t *testing.T) {
	b := newBench(t, nil)
	b.send("c", s, opened(0, 100, 500)...)
	b.send("c", 10*time.Minute)
	if b.f.table.first.minutes == nil {
		t.Error("they went too soon")
	}
	versions := len(b.versions)
	b.send("c", 11*time.Minute)
	if b.f.table.first.minutes != nil || !b.f.table.first.frozen || len(b.versions) != versions {
		t.Errorf("minutes %v, frozen %t, %d versions", b.f.table.first.minutes, b.f.table.first.frozen, len(b.versions))
	}
	b.send("c", 21*time.Minute, pk{at: 20 * time.Minute, from: "a", flags: "P.", seq: 101, ack: 501, n: 7})
	b.end()
	b.check()
	if r := b.one(); r.SrcPackets != 3 || r.SrcPayloadBytes != 7 {
		t.Errorf("%+v", r)
	}
}

// What a burst needed to know copies is given back behind it.
func TestRingShrinks(t *testing.T) {
	b := newBench(t, nil)
	var ps []pk
	for i := range uint32(5000) {
		at := time.Duration(i) * 10 * time.Microsecond
		ps = append(ps, pk{at: at, from: "a/1", flags: ".", seq: i}, pk{at: at + 500*ms, from: "a/2", flags: ".", seq: i})
	}
	b.send("c", 600*ms, ps...)
	if n := len(b.f.copies.ring); n < 5000 {
		t.Errorf("%d places for 5000 packets", n)
	}
	for i := range 10 {
		b.send("c", time.Duration(i+2)*s, pk{at: time.Duration(i+1) * s, from: "a/1", flags: ".", seq: uint32(6000 + i)}, pk{at: time.Duration(i+1)*s + 1, from: "a/2", flags: ".", seq: uint32(6000 + i)})
	}
	if n := len(b.f.copies.ring); n != minRing {
		t.Errorf("%d places for a packet a second", n)
	}
	b.end()
	b.check()
	if r := b.one(); r.SrcPackets != 5010 || r.DuplicatePackets != 5010 {
		t.Errorf("%d packets, %d copies", r.SrcPackets, r.DuplicatePackets)
	}
}
