package http2

import (
	"encoding/hex"
	"strings"
	"testing"
)

// frame makes a frame.
func frame(kind, flags byte, stream uint32, body []byte) []byte {
	n := len(body)
	return append([]byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags, byte(stream >> 24), byte(stream >> 16), byte(stream >> 8), byte(stream)}, body...)
}

// Three requests on one connection, with the dynamic table and Huffman coding: RFC 7541, appendix C.4; their
// responses, during which entries are evicted: C.6, which wants a table of 256 bytes.
var (
	requests = []string{"828684418cf1e3c2e5f23a6ba0ab90f4ff", "828684be5886a8eb10649cbf", "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf"}
	paths    = []string{"/", "/", "/index.html"}
)

func TestRequests(t *testing.T) {
	for _, cut := range []int{0, 1, 5} { // where a CONTINUATION begins
		var s Side
		for i, r := range requests {
			block, _ := hex.DecodeString(r)
			frames := [][]byte{frame(frameHeaders, flagEndHeaders, uint32(2*i+1), block)}
			if cut > 0 {
				frames = [][]byte{frame(frameHeaders, 0, uint32(2*i+1), block[:cut]), frame(frameContinuation, flagEndHeaders, uint32(2*i+1), block[cut:])}
			}
			for _, f := range frames {
				n, wanted, ok := s.Frame(f)
				if n != len(f) || !wanted || !ok {
					t.Fatal(n, wanted, ok)
				}
				m, _ := s.Take(f)
				if f[4]&flagEndHeaders == 0 {
					continue
				}
				if m == nil || m.Method != "GET" || m.Authority != "www.example.com" || m.Path != paths[i] {
					t.Fatalf("request %d: %+v", i, m)
				}
			}
			// What is saved goes on as what was: the decoder follows from the blocks.
			s = Side{Blocks: s.Blocks, Ends: s.Ends, Open: s.Open, Stream: s.Stream, Streams: s.Streams, Lost: s.Lost}
		}
	}
}

func TestDNS(t *testing.T) {
	var s Side
	// :method POST, :path /dns-query, content-type application/dns-message, as literals without indexing.
	block := append([]byte{0x83, 0x04, 10}, "/dns-query"...)
	block = append(block, 0x0f, 0x10, 23)
	block = append(block, "application/dns-message"...)
	m, _ := s.Take(frame(frameHeaders, flagEndHeaders|flagPadded|flagPriority, 1, append(append([]byte{2, 0, 0, 0, 0, 1}, block...), 0, 0)))
	if m == nil || m.Path != "/dns-query" {
		t.Fatalf("%+v", m)
	}
	data := frame(frameData, 1, 1, []byte("message"))
	if _, wanted, ok := s.Frame(data); !wanted || !ok {
		t.Error("the body is not wanted")
	}
	if _, dns := s.Take(data); string(dns) != "message" {
		t.Errorf("%q", dns)
	}
	if _, wanted, _ := s.Frame(data); wanted {
		t.Error("a second body is wanted")
	}
	get := append([]byte{0x82, 0x04, 25}, "/dns-query?x=1&dns=AAABAAA"...)
	get[2] = byte(len(get) - 3)
	if m, _ = s.Take(frame(frameHeaders, flagEndHeaders, 3, get)); m == nil || m.Path != "/dns-query" || string(m.DNS) != "\x00\x00\x01\x00\x00" {
		t.Errorf("%+v", m)
	}
}

func TestBlocksAreBounded(t *testing.T) {
	var s Side
	block := append([]byte{0x82, 0x04, 0x7f, 0x81, 0x1f}, strings.Repeat("/", 127+0x81-0x80+0x1f<<7)...)
	for range 100 {
		s.Take(frame(frameHeaders, flagEndHeaders, 1, block))
	}
	if !s.Lost || len(s.Blocks) > MaxBlocks {
		t.Errorf("lost %v, %d bytes", s.Lost, len(s.Blocks))
	}
}

func TestSettings(t *testing.T) {
	for _, c := range []struct {
		b    []byte
		want bool
	}{
		{frame(frameSettings, 0, 0, []byte{0, 3, 0, 0, 0, 100}), true},
		{append(frame(frameSettings, 0, 0, nil), frame(8, 0, 0, make([]byte, 4))...), true},
		{frame(frameSettings, 0, 0, []byte{9, 9, 0, 0, 0, 100}), false},
		{frame(frameSettings, 0, 1, []byte{0, 3, 0, 0, 0, 100}), false},
		{make([]byte, 40), false},
	} {
		for n := range c.b {
			if is, more := Settings(c.b[:n]); is && more {
				t.Errorf("%x: both", c.b[:n])
			}
		}
		if is, _ := Settings(c.b); is != c.want {
			t.Errorf("%x: %v", c.b, is)
		}
	}
}

func FuzzSide(f *testing.F) {
	for _, r := range requests {
		block, _ := hex.DecodeString(r)
		f.Add(append(frame(frameHeaders, flagEndHeaders, 1, block), frame(frameData, 0, 1, []byte("x"))...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Side
		for len(b) >= FrameHeader {
			n, wanted, ok := s.Frame(b)
			if !ok || n < FrameHeader || n > len(b) {
				break
			}
			if wanted {
				s.Take(b[:n])
			}
			b = b[n:]
		}
		if len(s.Blocks) > MaxBlocks || len(s.Streams) > maxStreams {
			t.Error(len(s.Blocks), len(s.Streams))
		}
	})
}
