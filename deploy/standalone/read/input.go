package read

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/tapweave/tapweave/collector/decode"
	"github.com/tapweave/tapweave/collector/source/capture"
)

// frame is one frame of a capture.
type frame struct {
	time     int64 // nanoseconds since the Unix epoch
	link     decode.LinkType
	data     []byte
	original int // length before the capture cut it
}

// copy makes f a copy of g with data of its own.
func (f *frame) copy(g *frame) {
	data := append(f.data[:0], g.data...)
	*f = *g
	f.data = data
}

// forward makes f what it is behind one more router: other Ethernet addresses, and one less to live.
func (f *frame) forward() {
	const ethernet = 14
	if f.link != decode.LinkEthernet || len(f.data) < ethernet {
		return
	}
	b := f.data
	b[0], b[6] = b[0]^2, b[6]^2 // locally administered, or no more
	ether, b := binary.BigEndian.Uint16(b[12:]), b[ethernet:]
	for ether == 0x8100 || ether == 0x88a8 || ether == 0x9100 {
		if len(b) < 4 {
			return
		}
		ether, b = binary.BigEndian.Uint16(b[2:]), b[4:]
	}
	switch {
	case ether == 0x0800 && len(b) >= 20 && b[8] > 1:
		b[8]--
		// The header checksum grows as the TTL, its word's high byte, sinks (RFC 1624).
		sum := uint32(binary.BigEndian.Uint16(b[10:])) + 0x100
		binary.BigEndian.PutUint16(b[10:], uint16(sum+sum>>16))
	case ether == 0x86dd && len(b) >= 40 && b[7] > 1:
		b[7]--
	}
}

// input gives the frames of several captures in the order of their time stamps. Within one capture the order
// is the capture's, whatever its stamps say.
type input struct {
	files   []*file
	last    *file
	damaged []error
	// foreign are link types that are not decoded, with the interfaces whose frames have them.
	foreign map[string]bool
}

// file is an open capture and the next frame of it.
type file struct {
	name   string
	reader *capture.Reader
	frame  frame
}

// openInput opens captures. Those that are none, and the ends of those that are damaged, are in damaged.
func openInput(names []string) *input {
	in := &input{foreign: map[string]bool{}}
	for _, name := range names {
		r, err := capture.Open(name)
		if err != nil {
			in.damaged = append(in.damaged, err)
			continue
		}
		f := &file{name: name, reader: r}
		if in.advance(f) {
			in.files = append(in.files, f)
		}
	}
	return in
}

// maxTime bounds time stamps: behind it there must be a time that the fold takes. It is in the year 2116, behind the
// last that a pcap file can hold.
const maxTime = 1<<62 - 1

// advance reads the next frame of a file. Where there is none it closes the file and returns false.
func (in *input) advance(f *file) bool {
	rec, err := f.reader.Next()
	if err != nil {
		if err != io.EOF {
			in.damaged = append(in.damaged, err)
		}
		f.reader.Close()
		return false
	}
	if !rec.Link.Known() {
		in.note(f, &rec)
	}
	f.frame = frame{min(max(rec.Time, -maxTime), maxTime), rec.Link, rec.Data, rec.Original}
	return true
}

// note keeps the interface of a frame that will not be decoded.
func (in *input) note(f *file, rec *capture.Record) {
	if len(in.foreign) == maxForeign {
		return
	}
	from := f.name
	if rec.Name != "" {
		from += ", interface " + rec.Name
	}
	in.foreign[fmt.Sprintf("link type %d (%s) is not decoded", rec.Link, from)] = true
}

// maxForeign bounds how many are told: a damaged file may name any number of interfaces.
const maxForeign = 10

// next returns the next frame, which is valid until the next call, or nil.
func (in *input) next() *frame {
	if in.last != nil && !in.advance(in.last) {
		for i, f := range in.files {
			if f == in.last {
				in.files = append(in.files[:i], in.files[i+1:]...)
				break
			}
		}
	}
	in.last = nil
	for _, f := range in.files {
		if in.last == nil || f.frame.time < in.last.frame.time {
			in.last = f
		}
	}
	if in.last == nil {
		return nil
	}
	return &in.last.frame
}

// close closes what is still open.
func (in *input) close() {
	for _, f := range in.files {
		f.reader.Close()
	}
	in.files = nil
}
