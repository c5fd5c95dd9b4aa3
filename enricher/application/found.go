package application

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tapweave/tapweave/enricher/application/dns"
	"github.com/tapweave/tapweave/enricher/application/tls"
)

// Bounds of what is kept of a side.
const (
	maxText    = 255  // bytes of most texts
	maxPath    = 1024 // of a path
	maxNames   = 64   // hosts, and names asked for
	maxList    = 4096 // bytes of a list
	maxAnswers = 4    // answers that wait for their question
)

// Found is what was read of one side.
type Found struct {
	TLS  FoundTLS
	HTTP FoundHTTP
	DNS  FoundDNS
	SSH  string // software version
}

// FoundTLS is what a hello says.
type FoundTLS struct {
	Client              bool // it was a ClientHello
	Version             uint16
	SNI, ALPN, JA3, JA4 string
}

// FoundHTTP is what the first message says, and the hosts of all requests.
type FoundHTTP struct {
	Method, Host, Path, UserAgent string
	Hosts                         []string
	Status                        uint16
}

// FoundDNS is the first question, the names of all, and the first answers.
type FoundDNS struct {
	Asked      bool
	ID         uint16
	Name, Type string
	Names      []string
	Answers    []FoundAnswer
}

// FoundAnswer is a response.
type FoundAnswer struct {
	ID                uint16
	Name, Type, Rcode string
	Records           []string
}

// found returns what was read of a side, to be added to.
func (s *Session) found(side uint8) *Found {
	if s.Founds[side] == nil {
		s.Founds[side] = new(Found)
		s.Bytes += foundBytes
	}
	return s.Founds[side]
}

// readerBytes and foundBytes are the logical sizes of a Reader and a Found.
const (
	readerBytes = 256
	foundBytes  = 320
)

// text makes a text for a column out of foreign bytes: valid UTF-8 without control characters, which are left
// out, bounded.
func (s *Session) text(b []byte, most int) string {
	b = b[:min(len(b), most)]
	plain := true
	for _, c := range b {
		if c < 0x20 || c >= 0x7f {
			plain = false
			break
		}
	}
	t := string(b)
	if !plain {
		t = strings.Map(func(r rune) rune {
			if r < 0x20 || r == 0x7f {
				return -1
			}
			return r
		}, strings.ToValidUTF8(t, string(utf8.RuneError)))
	}
	s.Bytes += len(t)
	return t
}

func (s *Session) clean(t string, most int) string { return s.text([]byte(t), most) }

// listed appends a text to a list unless it is there, or the list is full. It says whether it is full.
func (s *Session) listed(list *[]string, b []byte) (full bool) {
	if len(b) == 0 {
		return false
	}
	size := 0
	for _, t := range *list {
		if t == string(b) {
			return false
		}
		size += len(t)
	}
	if len(*list) >= maxNames || size >= maxList {
		return true
	}
	t := s.text(b, maxText)
	if !slices.Contains(*list, t) {
		*list = append(*list, t)
	}
	return false
}

// clientHello notes the first ClientHello of a side.
func (s *Session) clientHello(side uint8, h *tls.ClientHello, transport byte) {
	f := &s.found(side).TLS
	*f = FoundTLS{
		Client: true, Version: h.Version, SNI: s.clean(h.SNI, maxText), ALPN: s.clean(h.ALPN, maxText),
		JA3: s.clean(h.JA3(), maxText), JA4: s.clean(h.JA4(transport), maxText),
	}
}

// dnsMessage notes a message of a side.
func (s *Session) dnsMessage(side uint8, m *dns.Message) {
	f := &s.found(side).DNS
	if m.Response {
		if len(f.Answers) < maxAnswers {
			a := FoundAnswer{ID: m.ID, Name: s.clean(m.Name, maxText), Type: s.clean(m.Type, maxText), Rcode: s.clean(m.Rcode, maxText)}
			size := 0
			for _, t := range m.Answers {
				if size += len(t); size > maxList {
					break
				}
				a.Records = append(a.Records, s.clean(t, maxText))
			}
			f.Answers = append(f.Answers, a)
		}
	} else if !f.Asked && m.HasQuestion {
		f.Asked, f.ID, f.Name, f.Type = true, m.ID, s.clean(m.Name, maxText), s.clean(m.Type, maxText)
	}
	for _, n := range m.Names {
		s.listed(&f.Names, []byte(n))
	}
}
