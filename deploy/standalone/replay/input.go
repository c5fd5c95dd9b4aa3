package replay

import (
	"fmt"
	"io"
	"os"

	"github.com/tapweave/tapweave/collector/source/capture"
)

// Open opens a capture file; "-" is standard input.
func Open(name string) (*Capture, error) {
	if name == "-" {
		return NewCapture("standard input", os.Stdin, 0)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s: %w: it is a directory", name, capture.ErrNotCapture)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return NewCapture(name, f, info.Size())
}

// NewCapture takes a capture from a reader, which is closed at its end if it is an io.Closer. size is its
// length in bytes, 0 if that is not known.
func NewCapture(name string, in io.Reader, size int64) (*Capture, error) {
	counted := &counter{in: in}
	r, err := capture.NewReader(name, counted)
	if err != nil {
		counted.Close()
		return nil, err
	}
	return &Capture{Name: name, reader: r, file: counted, size: size}, nil
}

// Capture is a capture to send.
type Capture struct {
	Name   string
	reader *capture.Reader
	file   *counter
	size   int64 // of the file, 0 if not known
	parsed int64 // about how many bytes the records so far take in a file that is not compressed
	record capture.Record
	number uint64 // of the record, from 1
}

// counter counts what is read through it.
type counter struct {
	in   io.Reader
	read int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.in.Read(b)
	c.read += int64(n)
	return n, err
}

func (c *counter) Close() error {
	if closer, ok := c.in.(io.Closer); ok {
		return closer.Close()
	}
	return nil
}

// recordHeader is what a record of a pcap file has besides its frame.
const recordHeader = 16

// advance reads the next record. At the end, or at damage, it closes the capture and returns false.
func (c *Capture) advance() (bool, error) {
	rec, err := c.reader.Next()
	if err != nil {
		c.Close()
		c.parsed = c.size
		if err == io.EOF {
			err = nil
		}
		return false, err
	}
	c.record = rec
	c.number++
	c.parsed += int64(recordHeader + len(rec.Data))
	return true, nil
}

// Close closes the file.
func (c *Capture) Close() error {
	c.reader.Close()
	return c.file.Close()
}

// input gives the records of several captures in the order of their time stamps. Within one capture the order
// is the capture's, whatever its stamps say.
type input struct {
	all, open []*Capture
	last      *Capture
	damaged   []error
}

func newInput(captures []*Capture) *input {
	in := &input{all: captures}
	for _, c := range captures {
		in.advance(c)
	}
	return in
}

// advance reads the next record of a capture, and adds the capture if it was not open yet.
func (in *input) advance(c *Capture) {
	more, err := c.advance()
	if err != nil {
		in.damaged = append(in.damaged, err)
	}
	for i, o := range in.open {
		if o == c {
			if !more {
				in.open = append(in.open[:i], in.open[i+1:]...)
			}
			return
		}
	}
	if more {
		in.open = append(in.open, c)
	}
}

// next returns the capture whose record is next, nil at the end. The record is valid until the next call.
func (in *input) next() *Capture {
	if in.last != nil {
		in.advance(in.last)
	}
	in.last = nil
	for _, c := range in.open {
		if in.last == nil || c.record.Time < in.last.record.Time {
			in.last = c
		}
	}
	return in.last
}

// share is how much of the files was read: what was read of the file or, since that runs ahead by a buffer,
// what the records take, which is too much where the file is compressed.
func (in *input) share() float64 {
	var done, size int64
	for _, c := range in.all {
		if c.size == 0 {
			return 0
		}
		done += min(c.file.read, c.parsed)
		size += c.size
	}
	return min(1, float64(done)/float64(size))
}

// close closes what is still open.
func (in *input) close() {
	for _, c := range in.open {
		c.Close()
	}
}
