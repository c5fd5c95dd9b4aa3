// Package sample decides which payload of a packet travels, and takes secrets out of it.
//
// Both are a pure function of the packet and the configuration: every collector lets the same bytes of a packet
// travel, whatever it saw before. So nothing can be decided by what stands in another packet of the same
// session; what that costs is said at each [Mode].
package sample

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"regexp"
	"strings"

	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/session"
)

// Mode says whose payload travels.
type Mode uint8

const (
	// None lets no payload travel.
	None Mode = iota
	// Starts lets the beginning of a known protocol travel, which is what applications are recognised by: see
	// starts.go for the list. A ClientHello of TLS over two segments travels whole, unless the second is longer
	// than PushedBytes or not pushed. Of HTTP, and protocols that look like it, nothing travels but header
	// lines of a segment that begins with a start line, without the last one where that is not finished.
	Starts
	// Rate lets the payload of a keyed share of sessions travel, whole. Redaction sees one packet at a time: a
	// secret that lies across the border of two packets, or a header's value whose name is in the packet
	// before, travels.
	Rate
	// All lets all payload travel, with the same limits as Rate.
	All
)

var modeNames = [...]string{None: "none", Starts: "starts", Rate: "rate", All: "all"}

// String is the mode's name in configurations.
func (m Mode) String() string { return modeNames[m] }

// MarshalText returns the name of the mode.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText sets the mode by its name.
func (m *Mode) UnmarshalText(text []byte) error {
	for i, name := range modeNames {
		if string(text) == name {
			*m = Mode(i)
			return nil
		}
	}
	return fmt.Errorf("%q is none of %s", text, strings.Join(modeNames[:], ", "))
}

// Configuration of a Sampler.
type Configuration struct {
	Mode Mode
	// Bytes is the most that travels of a packet, 0: as many as there are. Default: 2048.
	Bytes int
	// PushedBytes is the largest TCP segment that Starts lets travel for nothing but its PSH flag, if it is no
	// text; 0: none does. Default: 1460, a full segment of an Ethernet.
	PushedBytes int
	// Share of the sessions that Rate lets travel, 0 to 1.
	Share float64
	// Key makes the choice of Rate unpredictable for who does not know it. The same in every collector.
	Key string
	// Redact says whether values of HTTP's Authorization, Proxy-Authorization, Cookie and Set-Cookie and card
	// numbers (13 to 19 digits, ISO/IEC 7812-1) become asterisks. Default: true.
	Redact bool
	// Patterns are RE2 expressions; what they match becomes asterisks, even where Redact is false.
	Patterns []string
}

// DefaultConfiguration returns the defaults.
func DefaultConfiguration() Configuration {
	return Configuration{Mode: Starts, Bytes: 2048, PushedBytes: 1460, Share: 0.01, Redact: true}
}

// Validate says what is wrong with a configuration.
func (c Configuration) Validate() error {
	if c.Bytes < 0 || c.PushedBytes < 0 {
		return fmt.Errorf("bytes and pushed_bytes are not negative")
	}
	if !(c.Share >= 0 && c.Share <= 1) {
		return fmt.Errorf("share: %v is not between 0 and 1", c.Share)
	}
	if c.Mode == Rate && c.Key == "" {
		return fmt.Errorf("key: mode rate needs one, the same in every collector")
	}
	_, err := compile(c.Patterns)
	return err
}

func compile(patterns []string) ([]*regexp.Regexp, error) {
	var all []*regexp.Regexp
	for _, p := range patterns {
		r, err := regexp.Compile(p)
		if err != nil {
			return nil, fmt.Errorf("patterns: %q: %w", p, err)
		}
		if r.Match(nil) {
			return nil, fmt.Errorf("patterns: %q matches the empty text", p)
		}
		all = append(all, r)
	}
	return all, nil
}

// Sampler applies a configuration. It is not safe for concurrent use. It allocates nothing, but for a packet
// that a pattern matches.
type Sampler struct {
	mode      Mode
	bytes     int
	pushed    int
	threshold uint64 // Rate: keyed hashes below it travel
	key       uint64
	redact    bool
	patterns  []*regexp.Regexp
	scratch   []byte
	fragment  []byte
}

// New returns a sampler. The configuration has been validated.
func New(c Configuration) *Sampler {
	s := &Sampler{mode: c.Mode, bytes: c.Bytes, pushed: c.PushedBytes, redact: c.Redact, scratch: make([]byte, 0, 2048), fragment: make([]byte, 0, packet.HeadBytes)}
	s.patterns, _ = compile(c.Patterns)
	if s.bytes == 0 {
		s.bytes = math.MaxInt
	}
	switch {
	case c.Share >= 1:
		s.threshold = math.MaxUint64
	default:
		s.threshold = uint64(c.Share * (1 << 63) * 2)
	}
	for i := range len(c.Key) {
		s.key = mix(s.key, uint64(c.Key[i])+1)
	}
	return s
}

// Wants says whether the payload of any packet may travel.
func (s *Sampler) Wants() bool { return s.mode != None }

// Apply reduces a packet to what may travel. On entry p.Data is the captured payload; on return what travels of
// it, which may be in the sampler's memory and is valid until the next call. The frame itself is not written
// to. p.Head, of fragments and ICMP errors, is cut behind the transport header, because payload would follow.
func (s *Sampler) Apply(f *packet.Flow, p *packet.Packet) {
	if len(p.Head) > 0 {
		p.Head = s.head(f, p)
	}
	if len(p.Data) == 0 {
		return
	}
	switch s.mode {
	case None:
		p.Data = nil
		return
	case Starts:
		p.Data = s.start(f, p)
	case Rate:
		if !s.chosen(f, p) {
			p.Data = nil
		}
	}
	if len(p.Data) == 0 {
		p.Data = nil
		return
	}
	p.Data = s.clean(p.Data)
	if len(p.Data) > s.bytes {
		p.Data = p.Data[:s.bytes]
	}
}

// chosen says whether the packet is of a session whose payload travels in mode Rate.
func (s *Sampler) chosen(f *packet.Flow, p *packet.Packet) bool {
	return s.threshold == math.MaxUint64 || mix(session.PacketHash(f, p), s.key) < s.threshold
}

// head returns what of p.Head travels. In Starts that is, of the first fragment of a datagram, what would travel if
// it were all: a long answer of DNS has its question there.
func (s *Sampler) head(f *packet.Flow, p *packet.Packet) []byte {
	h := headers(f, p)
	payload := p.Head[len(h):]
	if p.Fragment == 0 || len(payload) == 0 {
		return h
	}
	switch s.mode {
	case None:
		return h
	case Starts:
		switch {
		case p.FragmentOffset != 0:
			return h
		case f.Protocol == packet.ProtoTCP && len(h) >= 20:
			payload = s.segment(payload, h[13], int(p.Payload)-len(h))
		case f.Protocol == packet.ProtoUDP && len(h) >= 8:
			payload = datagram(payload, int(binary.BigEndian.Uint16(h[4:]))-8)
		default:
			return h
		}
	case Rate:
		if !s.chosen(f, p) {
			return h
		}
	}
	payload = s.clean(payload[:min(len(payload), s.bytes)])
	s.fragment = append(append(s.fragment[:0], h...), payload...)
	return s.fragment
}

// mix folds v into h.
func mix(h, v uint64) uint64 {
	hi, lo := bits.Mul64(h^0x9e3779b97f4a7c15, v^0xd6e8feb86659fd93)
	return hi ^ lo ^ bits.RotateLeft64(h, 31)
}

// headers returns what of p.Head is no payload: a fragment's part of the transport header; of what an ICMP
// error quotes, the IP headers and the 8 bytes behind them in which ports and identifiers are.
func headers(f *packet.Flow, p *packet.Packet) []byte {
	h := p.Head
	if p.Fragment == 0 {
		return packet.QuoteHeaders(h)
	}
	end := 0
	switch f.Protocol {
	case packet.ProtoTCP:
		end = 20
		if at := 12 - int(p.FragmentOffset); at >= 0 && at < len(h) {
			end = int(h[at]>>4) * 4
		}
	case packet.ProtoUDP, packet.ProtoUDPLite, packet.ProtoICMP, packet.ProtoICMPv6:
		end = 8
	case packet.ProtoSCTP, packet.ProtoDCCP:
		end = 12
	}
	if n := end - int(p.FragmentOffset); n <= 0 {
		return nil
	} else if n < len(h) {
		h = h[:n]
	}
	return h
}
