package fold

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/tapweave/tapweave/enricher/labels"
)

// coder writes a state or reads one. The same functions do both, so that a field is named once:
//
//	num(c, &s.packets)
//
// writes s.packets, or sets it. Numbers are varints, signed ones zigzag. What is read is bounded by what is there
// to be read: nothing is allocated on the word of a length alone.
type coder struct {
	w       io.Writer
	r       io.Reader
	loading bool
	buf     []byte // writing: not handed on yet; reading: read, from at on not looked at yet
	at      int
	err     error

	base  int64 // of times
	index map[string]uint64
	text  []string

	names    int                    // collectors: indexes lie below
	endIndex map[*labels.End]uint64 // coded before
	ends     []*labels.End
}

// ErrSnapshot is wrapped by the errors about bytes that are no state of a fold.
var ErrSnapshot = errors.New("corrupt snapshot")

const coderBuffer = 64 << 10

func newWriter(w io.Writer) *coder {
	return &coder{w: w, buf: make([]byte, 0, coderBuffer), index: map[string]uint64{}}
}

func newReader(r io.Reader) *coder {
	return &coder{r: r, loading: true, buf: make([]byte, 0, coderBuffer)}
}

func (c *coder) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: %s", ErrSnapshot, fmt.Sprintf(format, args...))
	}
}

// flush hands on what was written.
func (c *coder) flush() {
	if c.err == nil && len(c.buf) > 0 {
		_, c.err = c.w.Write(c.buf)
	}
	c.buf = c.buf[:0]
}

// fill reads on until n bytes can be looked at, at most coderBuffer, and returns how many can.
func (c *coder) fill(n int) int {
	if have := len(c.buf) - c.at; have >= n || c.err != nil {
		return have
	}
	c.buf = c.buf[:copy(c.buf[:cap(c.buf)], c.buf[c.at:])]
	c.at = 0
	for len(c.buf) < n {
		m, err := c.r.Read(c.buf[len(c.buf):cap(c.buf)])
		c.buf = c.buf[:len(c.buf)+m]
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			c.err = fmt.Errorf("%w: %w", ErrSnapshot, err)
			return 0
		}
	}
	return len(c.buf)
}

func (c *coder) uvarint(v *uint64) {
	if !c.loading {
		if len(c.buf) > coderBuffer-binary.MaxVarintLen64 {
			c.flush()
		}
		c.buf = binary.AppendUvarint(c.buf, *v)
		return
	}
	if len(c.buf)-c.at < binary.MaxVarintLen64 {
		c.fill(binary.MaxVarintLen64)
	} else if b := c.buf[c.at]; b < 0x80 { // most are short
		*v = uint64(b)
		c.at++
		return
	}
	var n int
	if c.err == nil {
		*v, n = binary.Uvarint(c.buf[c.at:])
	}
	if n <= 0 {
		*v = 0
		c.fail("a number is cut off or too large")
		return
	}
	c.at += n
}

type integer interface {
	~int | ~int32 | ~int64 | ~uint8 | ~uint16 | ~uint32 | ~uint64
}

// num codes a number.
func num[T integer](c *coder, v *T) {
	var zero T
	signed := zero-1 < zero
	var u uint64
	if !c.loading {
		if u = uint64(*v); signed {
			u = u<<1 ^ uint64(int64(u)>>63)
		}
		c.uvarint(&u)
		return
	}
	c.uvarint(&u)
	if signed {
		u = u>>1 ^ -(u & 1)
	}
	if *v = T(u); uint64(*v) != u {
		c.fail("number %d is too large for its field", u)
	}
}

// index codes a number below limit.
func below[T integer](c *coder, v *T, limit int) {
	num(c, v)
	if c.loading && (*v < 0 || uint64(*v) >= uint64(limit)) {
		c.fail("%d is not below %d", *v, limit)
		*v = 0
	}
}

// time codes a time, which is short where it is near to the last one that since was called with.
func (c *coder) time(v *int64) {
	u := uint64(*v-c.base)<<1 ^ uint64((*v-c.base)>>63)
	c.uvarint(&u)
	if c.loading {
		*v = c.base + int64(u>>1^-(u&1))
	}
}

// instant codes a time that is often 0.
func (c *coder) instant(v *int64) {
	known := *v != 0
	if flag(c, &known); known {
		c.time(v)
	}
}

func (c *coder) since(t int64) { c.base = t }

func flag(c *coder, v *bool) {
	var u uint8
	if *v {
		u = 1
	}
	below(c, &u, 2)
	*v = u == 1
}

// bytes codes bytes, up to max.
func (c *coder) bytes(v *[]byte, max int) {
	n := len(*v)
	num(c, &n)
	if !c.loading {
		if n > coderBuffer {
			if c.flush(); c.err == nil {
				_, c.err = c.w.Write(*v)
			}
			return
		}
		if len(c.buf)+n > coderBuffer {
			c.flush()
		}
		c.buf = append(c.buf, *v...)
		return
	}
	if n < 0 || n > max {
		c.fail("%d bytes where at most %d are allowed", n, max)
	}
	*v = nil
	for n > 0 && c.err == nil {
		have := min(c.fill(min(n, coderBuffer)), n)
		if have == 0 {
			c.fail("cut off")
			return
		}
		*v = append(*v, c.buf[c.at:c.at+have]...)
		c.at += have
		n -= have
	}
}

// array codes bytes of a fixed number.
func (c *coder) array(v []byte) {
	if !c.loading {
		if len(c.buf)+len(v) > coderBuffer {
			c.flush()
		}
		c.buf = append(c.buf, v...)
		return
	}
	if c.fill(len(v)) < len(v) {
		c.fail("cut off")
		return
	}
	c.at += copy(v, c.buf[c.at:])
}

// maxText is the length of the longest string.
const maxText = 1 << 16

// string codes a string; one that was coded before is a number.
func (c *coder) string(v *string) {
	var n uint64 // 0: a new one
	if !c.loading {
		n = c.index[*v]
		if num(c, &n); n == 0 {
			b := []byte(*v)
			c.bytes(&b, maxText)
			c.index[*v] = uint64(len(c.index) + 1)
		}
		return
	}
	num(c, &n)
	switch {
	case n == 0:
		var b []byte
		c.bytes(&b, maxText)
		*v = string(b)
		c.text = append(c.text, *v)
	case n <= uint64(len(c.text)):
		*v = c.text[n-1]
	default:
		c.fail("string %d of %d", n, len(c.text))
	}
}

// list codes the elements of a slice, up to max.
func list[T any](c *coder, v *[]T, max int, each func(*coder, *T)) {
	n := len(*v)
	num(c, &n)
	if !c.loading {
		for i := range *v {
			each(c, &(*v)[i])
		}
		return
	}
	if n < 0 || n > max {
		c.fail("%d elements where at most %d are allowed", n, max)
	}
	*v = nil
	for ; n > 0 && c.err == nil; n-- {
		var e T
		each(c, &e)
		*v = append(*v, e)
	}
}

// optional codes what a pointer points to, if that is anything.
func optional[T any](c *coder, v **T, each func(*coder, *T)) {
	there := *v != nil
	if flag(c, &there); !there {
		return
	}
	if c.loading {
		*v = new(T)
	}
	each(c, *v)
}
