package capture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"

	"github.com/tapweave/tapweave/collector/decode"
)

// Block types of pcapng.
const (
	sectionHeader        = 0x0a0d0d0a
	interfaceDescription = 1
	obsoletePacket       = 2
	simplePacket         = 3
	enhancedPacket       = 6
)

// Options of an interface description.
const (
	optionEnd        = 0
	optionName       = 2
	optionResolution = 9
	optionOffset     = 14
)

// blockFrame is how many bytes of a block are its type and its two lengths.
const blockFrame = 12

// nextNG reads blocks up to the next packet.
func (r *Reader) nextNG() (Record, error) {
	for {
		h, err := r.peek(blockFrame)
		if err != nil {
			return Record{}, r.short(len(h), blockFrame, err)
		}
		if binary.BigEndian.Uint32(h) == sectionHeader { // the same in both byte orders
			switch {
			case binary.BigEndian.Uint32(h[8:]) == 0x1a2b3c4d:
				r.order = binary.BigEndian
			case binary.LittleEndian.Uint32(h[8:]) == 0x1a2b3c4d:
				r.order = binary.LittleEndian
			default:
				return Record{}, r.corrupt("a section header without byte order")
			}
		}
		kind, length := r.order.Uint32(h), r.order.Uint32(h[4:])
		if length < blockFrame || length%4 != 0 {
			return Record{}, r.corrupt("a block of type %d says that it has %d bytes", kind, length)
		}
		switch kind {
		case sectionHeader, interfaceDescription, obsoletePacket, simplePacket, enhancedPacket:
		default:
			if n, err := r.discard(int(length)); err != nil {
				return Record{}, r.short(n, int(length), err)
			}
			continue
		}
		if length > bufferSize {
			return Record{}, r.corrupt("a block of type %d says that it has %d bytes", kind, length)
		}
		b, err := r.peek(int(length))
		if err != nil {
			return Record{}, r.short(len(b), int(length), err)
		}
		if end := r.order.Uint32(b[length-4:]); end != length {
			return Record{}, r.corrupt("a block of %d bytes ends with the length %d", length, end)
		}
		body := b[8 : length-4]
		var rec Record
		switch kind {
		case sectionHeader:
			r.ifs = r.ifs[:0]
			err = r.section(body)
		case interfaceDescription:
			err = r.describe(body)
		default:
			rec, err = r.packet(kind, body)
		}
		if err != nil {
			return Record{}, err
		}
		r.skip(int(length))
		if rec.Data != nil {
			return rec, nil
		}
	}
}

// discard goes on by n bytes, which may be more than fit in the buffer.
func (r *Reader) discard(n int) (int, error) {
	r.in.Discard(r.used)
	got, err := r.in.Discard(n)
	r.window, r.used = nil, 0
	if err == nil {
		r.at += int64(n)
	}
	return got, err
}

func (r *Reader) section(b []byte) error {
	if len(b) < 16 {
		return r.corrupt("a section header of %d bytes", len(b))
	}
	if major := r.order.Uint16(b[4:]); major != 1 {
		return fmt.Errorf("%s: %w: pcapng version %d at byte %d, known is 1", r.name, ErrNotCapture, major, r.at)
	}
	return nil
}

// describe adds an interface.
func (r *Reader) describe(b []byte) error {
	if len(b) < 8 {
		return r.corrupt("an interface description of %d bytes", len(b))
	}
	i := iface{link: decode.LinkType(r.order.Uint16(b)), snap: r.order.Uint32(b[4:]), units: decimal(6)}
	for o := b[8:]; len(o) >= 4; {
		code, length := r.order.Uint16(o), int(r.order.Uint16(o[2:]))
		end := 4 + (length+3)&^3
		if code == optionEnd {
			break
		}
		if end > len(o) {
			return r.corrupt("option %d of an interface runs beyond its block", code)
		}
		switch {
		case code == optionName:
			// A string, whose writer may have counted its end.
			i.name = strings.ToValidUTF8(string(bytes.TrimRight(o[4:4+length], "\x00")), "?")
		case code == optionResolution && length == 1:
			var ok bool
			if i.units, ok = resolution(o[4]); !ok {
				return r.corrupt("an interface with time resolution %#02x", o[4])
			}
		case code == optionOffset && length == 8:
			i.offset = int64(r.order.Uint64(o[4:]))
		}
		o = o[end:]
	}
	r.ifs = append(r.ifs, i)
	return nil
}

// packet reads a block that holds a frame. Its Data is not nil.
func (r *Reader) packet(kind uint32, b []byte) (Record, error) {
	if kind == simplePacket {
		if len(b) < 4 || len(r.ifs) == 0 {
			return Record{}, r.corrupt("a simple packet block of %d bytes, %d interfaces", len(b), len(r.ifs))
		}
		original := r.order.Uint32(b)
		captured := min(original, uint32(len(b)-4))
		if snap := r.ifs[0].snap; snap != 0 {
			captured = min(captured, snap)
		}
		return Record{Link: r.ifs[0].link, Name: r.ifs[0].name, Data: b[4 : 4+captured], Original: int(original)}, nil
	}
	if len(b) < 20 {
		return Record{}, r.corrupt("a packet block of %d bytes", len(b))
	}
	n := r.order.Uint32(b)
	if kind == obsoletePacket {
		n = uint32(r.order.Uint16(b))
	}
	if int64(n) >= int64(len(r.ifs)) {
		return Record{}, r.corrupt("interface %d of %d", n, len(r.ifs))
	}
	i := &r.ifs[n]
	captured := r.order.Uint32(b[12:])
	if uint64(captured) > uint64(len(b)-20) {
		return Record{}, r.corrupt("%d bytes captured in a block of %d", captured, len(b)+blockFrame)
	}
	stamp := uint64(r.order.Uint32(b[4:]))<<32 | uint64(r.order.Uint32(b[8:]))
	return Record{
		Time: i.units.nanoseconds(stamp, i.offset), Link: i.link, Interface: int(n), Name: i.name,
		Data: b[20 : 20+captured], Original: int(r.order.Uint32(b[16:])),
	}, nil
}

// units of a time stamp.
type units struct{ perSecond uint64 }

func decimal(exponent uint8) units {
	u := units{perSecond: 1}
	for range exponent {
		u.perSecond *= 10
	}
	return u
}

// resolution reads the if_tsresol option: a power of ten or, with the top bit set, of two.
func resolution(v byte) (units, bool) {
	exponent := v & 0x7f
	if v&0x80 != 0 {
		return units{perSecond: 1 << exponent}, exponent < 64
	}
	return decimal(exponent), exponent < 20
}

// lastSecond is the last whole second of which an int64 counts the nanoseconds since the Unix epoch.
const lastSecond = 1<<63/1_000_000_000 - 1

// nanoseconds converts a stamp, offset seconds after the Unix epoch. Stamps out of range are held at its ends.
func (u units) nanoseconds(stamp uint64, offset int64) int64 {
	sec, rest := stamp/u.perSecond, stamp%u.perSecond
	hi, lo := bits.Mul64(rest, 1e9)
	frac, _ := bits.Div64(hi, lo, u.perSecond)
	s := int64(min(sec, lastSecond))
	offset = max(min(offset, lastSecond), -lastSecond)
	s = max(min(s+offset, lastSecond), -lastSecond)
	return s*1e9 + int64(frac)
}
