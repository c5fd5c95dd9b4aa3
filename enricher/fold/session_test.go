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
