// Package http2 reads cleartext HTTP/2 (RFC 9113): the header blocks of its streams, and the DNS messages that
// DNS over HTTPS (RFC 8484) sends in bodies.
package http2

import (
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// Preface is what a client begins with (RFC 9113, section 3.4).
const Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// FrameHeader is the length of a frame's header.
const FrameHeader = 9

// Frame types and flags (RFC 9113, section 6).
const (
	frameData         = 0
	frameHeaders      = 1
	frameSettings     = 4
	framePushPromise  = 5
	frameContinuation = 9

	flagEndHeaders = 4
	flagPadded     = 8
	flagPriority   = 0x20
)

const (
	// maxFrame is the largest frame whose contents are looked at: what every endpoint has to take.
	maxFrame = 1 << 14
	// MaxBlocks bounds the header blocks that are read of one side, in bytes. They are kept, as the state of
	// HPACK follows from them.
	MaxBlocks = 32 << 10
	// maxTable is the dynamic table that HPACK begins with, and what is allowed at most.
	maxTable = 64 << 10
	// maxString is the longest header value that is decoded.
	maxString = 8 << 10
	// maxStreams is how many streams are known to carry DNS at once.
	maxStreams = 32
)

// Message is the head of a request or a response.
type Message struct {
	Method, Authority, Path, UserAgent, ContentType string
	Status                                          string
	// DNS is the message in the query of a GET of DNS over HTTPS.
	DNS []byte
}

// Side reads what one side sends. Its exported fields are all of its state.
type Side struct {
	// Blocks are the header blocks so far, one behind the other, Ends where each ends. Open says that the last
	// one goes on in a CONTINUATION, on stream Stream, whose DATA may be DNS.
	Blocks []byte
	Ends   []int
	Open   bool
	Stream uint32
	// Streams are those whose bodies are DNS messages.
	Streams []uint32
	// Lost says that header blocks cannot be read any more.
	Lost bool

	decoder *hpack.Decoder
	message *Message
}

// Frame returns the length of the frame that b begins with, its header included, and whether Take wants it.
// ok is false if nothing more can be read.
func (s *Side) Frame(b []byte) (length int, wanted, ok bool) {
	n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	if s.Lost || n > 1<<20 {
		return 0, false, false
	}
	switch b[3] {
	case frameHeaders, frameContinuation:
		return FrameHeader + n, true, n <= maxFrame
	case framePushPromise:
		return 0, false, false // its header block would have to be read as well
	case frameData:
		wanted = n <= maxFrame && slices.Contains(s.Streams, binary.BigEndian.Uint32(b[5:])&^(1<<31))
	}
	return FrameHeader + n, wanted, true
}

// Take reads a frame that Frame wanted. It returns the head that it ends, or the DNS message that it carries,
// or neither.
func (s *Side) Take(frame []byte) (m *Message, dns []byte) {
	kind, flags := frame[3], frame[4]
	stream := binary.BigEndian.Uint32(frame[5:]) &^ (1 << 31)
	body := frame[FrameHeader:]
	if flags&flagPadded != 0 && (kind == frameData || kind == frameHeaders) {
		if len(body) == 0 || int(body[0]) >= len(body) {
			return nil, nil
		}
		body = body[1 : len(body)-int(body[0])]
	}
	switch kind {
	case frameData:
		if i := slices.Index(s.Streams, stream); i >= 0 {
			s.Streams = slices.Delete(s.Streams, i, i+1)
			return nil, body
		}
	case frameHeaders:
		if flags&flagPriority != 0 {
			if len(body) < 5 {
				return nil, nil
			}
			body = body[5:]
		}
		s.Open, s.Stream = true, stream
		return s.block(body, flags), nil
	case frameContinuation:
		if s.Open && stream == s.Stream {
			return s.block(body, flags), nil
		}
	}
	return nil, nil
}

// block takes in a piece of a header block.
func (s *Side) block(b []byte, flags byte) *Message {
	if s.Lost || len(s.Blocks)+len(b) > MaxBlocks {
		s.Lost = true
		return nil
	}
	from := 0
	if len(s.Ends) > 0 {
		from = s.Ends[len(s.Ends)-1]
	}
	s.Blocks = append(s.Blocks, b...)
	if flags&flagEndHeaders == 0 {
		return nil
	}
	s.Open = false
	s.replay()
	m := s.decode(s.Blocks[from:])
	s.Ends = append(s.Ends, len(s.Blocks))
	if m == nil {
		return nil
	}
	if m.ContentType == "application/dns-message" && len(s.Streams) < maxStreams {
		s.Streams = append(s.Streams, s.Stream)
	}
	if _, query, ok := strings.Cut(m.Path, "?"); ok {
		for _, p := range strings.Split(query, "&") {
			if v, ok := strings.CutPrefix(p, "dns="); ok { // RFC 8484, section 4.1
				m.DNS, _ = base64.RawURLEncoding.DecodeString(v)
			}
		}
		m.Path, _, _ = strings.Cut(m.Path, "?")
	}
	return m
}

// replay brings the HPACK decoder to where the blocks have brought it, where that is not at hand.
func (s *Side) replay() {
	if s.decoder != nil {
		return
	}
	s.decoder = hpack.NewDecoder(4096, s.field)
	s.decoder.SetAllowedMaxDynamicTableSize(maxTable)
	s.decoder.SetMaxStringLength(maxString)
	from := 0
	for _, to := range s.Ends {
		s.decode(s.Blocks[from:to])
		from = to
	}
}

// decode reads a header block, nil if it is damaged.
func (s *Side) decode(block []byte) *Message {
	s.message = new(Message)
	_, err := s.decoder.Write(block)
	if err == nil {
		err = s.decoder.Close()
	}
	m := s.message
	s.message = nil
	if err != nil {
		s.Lost = true
		return nil
	}
	return m
}

// field takes a header field in.
func (s *Side) field(f hpack.HeaderField) {
	m := s.message
	switch f.Name {
	case ":method":
		m.Method = f.Value
	case ":authority":
		m.Authority = f.Value
	case "host":
		if m.Authority == "" {
			m.Authority = f.Value
		}
	case ":path":
		m.Path = f.Value
	case ":status":
		m.Status = f.Value
	case "user-agent":
		m.UserAgent = f.Value
	case "content-type":
		m.ContentType = f.Value
	}
}

// Settings says whether b begins with a SETTINGS frame, as each side's first frame is. more says that it is
// too short to tell.
func Settings(b []byte) (is, more bool) {
	want := [...]byte{0, 0, 0, frameSettings, 0, 0, 0, 0, 0}
	for i, c := range b[:min(len(b), FrameHeader)] {
		if i != 2 && c != want[i] || i == 2 && c%6 != 0 {
			return false, false
		}
	}
	if len(b) < FrameHeader {
		return false, true
	}
	n := int(b[2])
	if n == 0 {
		// An empty one is short for a protocol to be told by: another frame follows.
		if len(b) < 2*FrameHeader {
			return false, true
		}
		return b[9] == 0 && b[12] <= frameContinuation && b[14]&0x80 == 0, false
	}
	if len(b) < FrameHeader+6 {
		return false, true
	}
	id := binary.BigEndian.Uint16(b[FrameHeader:])
	return id >= 1 && id <= 16, false
}
