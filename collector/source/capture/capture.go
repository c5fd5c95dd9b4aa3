// Package capture reads capture files: pcap and pcapng, plain or compressed with gzip or Zstandard.
//
// It parses the two formats itself rather than through gopacket's pcapgo, because pcapgo keeps 8 bits of a link
// type (Linux cooked v2 is 276), stops at records longer than the snap length or than the original packet,
// rounds binary time resolutions, divides by zero at absurd ones, and allocates what a damaged length asks
// for. Tests compare the two.
//
// Formats: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng.
package capture

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/tapweave/tapweave/collector/decode"
)

// Errors that the ones of this package wrap. Their text is one line, and names the file and, where a record
// is at fault, the byte at which it begins (of the uncompressed capture).
var (
	ErrNotCapture = errors.New("not a capture file")
	ErrCutShort   = errors.New("cut short")
	ErrCorrupt    = errors.New("corrupt")
)

// maxRecord is the longest frame that is read, as in tcpdump and Wireshark. A record of it and its options
// fit in the buffer.
const (
	maxRecord  = 1 << 18
	bufferSize = maxRecord + 1<<14
)

// Record is one captured frame.
type Record struct {
	Time      int64 // nanoseconds since the Unix epoch; 0 where the record has none
	Link      decode.LinkType
	Interface int    // number of the interface in its section of a pcapng file
	Name      string // of the interface, where a pcapng file has it
	Data      []byte // what was captured; valid until the next call of Next
	Original  int    // length of the frame before it was cut
}

// Reader reads the records of one capture.
type Reader struct {
	name   string
	file   io.Closer
	unpack io.Closer // decompressor
	in     *bufio.Reader
	window []byte // what is buffered from the next record on
	used   int    // bytes in the buffer before the window
	at     int64  // offset of the next record
	number int    // of the next record, from 1
	err    error  // ends the capture

	order binary.ByteOrder
	ng    bool
	link  decode.LinkType // of a pcap file
	tick  int64           // nanoseconds in a unit of a pcap file's time stamps
	ifs   []iface         // of the section of a pcapng file
}

// iface is an interface of a pcapng file.
type iface struct {
	link   decode.LinkType
	name   string
	snap   uint32
	units  units
	offset int64 // seconds
}

// Open opens a capture file; "-" is standard input.
func Open(name string) (*Reader, error) {
	if name == "-" {
		return NewReader("standard input", os.Stdin)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if s, err := f.Stat(); err == nil && s.IsDir() {
		f.Close()
		return nil, fmt.Errorf("%s: %w: it is a directory", name, ErrNotCapture)
	}
	r, err := NewReader(name, f)
	if err != nil {
		f.Close()
		return nil, err
	}
	r.file = f
	return r, nil
}

// NewReader reads the capture in, which errors call name.
func NewReader(name string, in io.Reader) (*Reader, error) {
	r := &Reader{name: name, in: bufio.NewReaderSize(in, bufferSize), number: 1}
	if err := r.begin(); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Close closes the file and what decompresses it.
func (r *Reader) Close() error {
	if r.unpack != nil {
		r.unpack.Close()
	}
	if r.file != nil {
		return r.file.Close()
	}
	return nil
}

// begin looks at the first bytes.
func (r *Reader) begin() error {
	magic, err := r.in.Peek(4)
	if packed, e := r.decompressor(magic); e != nil {
		return fmt.Errorf("%s: %w: %w", r.name, ErrNotCapture, e)
	} else if packed != nil {
		r.unpack = packed
		r.in = bufio.NewReaderSize(packed, bufferSize)
		magic, err = r.in.Peek(4)
	}
	switch {
	case err != nil && err != io.EOF:
		return r.short(len(magic), fileHeader, err)
	case len(magic) == 0:
		return fmt.Errorf("%s: %w: it is empty", r.name, ErrNotCapture)
	case len(magic) < 4:
		return fmt.Errorf("%s: %w: it has only %d bytes", r.name, ErrNotCapture, len(magic))
	}
	switch binary.BigEndian.Uint32(magic) {
	case sectionHeader:
		r.ng = true
		return nil
	case 0xa1b2c3d4:
		r.order, r.tick = binary.BigEndian, 1000
	case 0xd4c3b2a1:
		r.order, r.tick = binary.LittleEndian, 1000
	case 0xa1b23c4d:
		r.order, r.tick = binary.BigEndian, 1
	case 0x4d3cb2a1:
		r.order, r.tick = binary.LittleEndian, 1
	default:
		return fmt.Errorf("%s: %w: it begins with the bytes % x", r.name, ErrNotCapture, magic)
	}
	h, err := r.peek(fileHeader)
	if err != nil {
		return r.short(len(h), fileHeader, err)
	}
	if major := r.order.Uint16(h[4:]); major != 2 {
		return fmt.Errorf("%s: %w: pcap version %d, known is 2", r.name, ErrNotCapture, major)
	}
	r.link = decode.LinkType(r.order.Uint32(h[20:]) & 0xffff) // above: length of a frame check sequence
	r.skip(fileHeader)
	return nil
}

// decompressor returns what decompresses the input, nil if it is plain.
func (r *Reader) decompressor(magic []byte) (io.ReadCloser, error) {
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(r.in)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(r.in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(128<<20))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return nil, nil
}

// Next returns the next record, and io.EOF at the end of the capture. Whatever else goes wrong ends the capture.
func (r *Reader) Next() (Record, error) {
	if r.err != nil {
		return Record{}, r.err
	}
	var rec Record
	if r.ng {
		rec, r.err = r.nextNG()
	} else {
		rec, r.err = r.nextPcap()
	}
	if r.err != nil {
		return Record{}, r.err
	}
	r.number++
	return rec, nil
}

const (
	fileHeader   = 24
	recordHeader = 16
)

func (r *Reader) nextPcap() (Record, error) {
	h, err := r.peek(recordHeader)
	if err != nil {
		return Record{}, r.short(len(h), recordHeader, err)
	}
	var sec, frac, captured, original uint32
	if r.order == binary.LittleEndian {
		sec, frac = binary.LittleEndian.Uint32(h), binary.LittleEndian.Uint32(h[4:])
		captured, original = binary.LittleEndian.Uint32(h[8:]), binary.LittleEndian.Uint32(h[12:])
	} else {
		sec, frac = binary.BigEndian.Uint32(h), binary.BigEndian.Uint32(h[4:])
		captured, original = binary.BigEndian.Uint32(h[8:]), binary.BigEndian.Uint32(h[12:])
	}
	if captured > maxRecord {
		return Record{}, r.corrupt("it says that it has %d bytes", captured)
	}
	size := recordHeader + int(captured)
	b, err := r.peek(size)
	if err != nil {
		return Record{}, r.short(len(b), size, err)
	}
	r.skip(size)
	return Record{
		Time: int64(sec)*1e9 + int64(frac)*r.tick,
		Link: r.link, Data: b[recordHeader:], Original: int(original),
	}, nil
}

// peek returns the next n bytes, which stay where they are until it has to fill the buffer.
func (r *Reader) peek(n int) ([]byte, error) {
	if n <= len(r.window) {
		return r.window[:n], nil
	}
	r.in.Discard(r.used)
	r.used = 0
	b, err := r.in.Peek(n)
	r.window, _ = r.in.Peek(r.in.Buffered())
	return b, err
}

// skip goes on by n bytes that were peeked.
func (r *Reader) skip(n int) {
	r.window = r.window[n:]
	r.used += n
	r.at += int64(n)
}

// short says that of the want bytes of what begins at r.at only have are there.
func (r *Reader) short(have, want int, err error) error {
	switch {
	case err == io.EOF && have == 0:
		return io.EOF
	case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s: %s: %w: %d of at least %d bytes are there", r.name, r.place(), ErrCutShort, have, want)
	}
	return fmt.Errorf("%s: %s: %w", r.name, r.place(), err)
}

func (r *Reader) corrupt(format string, args ...any) error {
	return fmt.Errorf("%s: %s: %w: %s", r.name, r.place(), ErrCorrupt, fmt.Sprintf(format, args...))
}

// place says what begins at r.at.
func (r *Reader) place() string {
	if r.at == 0 {
		return "file header at byte 0"
	}
	return fmt.Sprintf("record %d at byte %d", r.number, r.at)
}
