package fold

import (
	"testing"
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
