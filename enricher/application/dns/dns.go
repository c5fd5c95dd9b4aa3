// Package dns reads DNS messages (RFC 1035, section 4), and says whether a datagram is one at all.
package dns

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	// HeaderBytes is the length of a message's header.
	HeaderBytes = 12
	// MaxAnswers is how many answers of a message are read.
	MaxAnswers = 32
	// maxAnswer is the longest text of one.
	maxAnswer = 255
)

// Message is what is read of a message.
type Message struct {
	ID       uint16
	Response bool
	// Question is the first one; HasQuestion says that there is one.
	HasQuestion bool
	Name        string // without the last dot; "." is the root
	Type        string // mnemonic
	Rcode       string // of a response
	// Names are those of all questions.
	Names []string
	// Answers are the records of the answer section, in their order: addresses, names, texts.
	Answers []string
	// Whole says that all of the message was there, and nothing besides.
	Whole bool
}

// Parse reads a message. length is what the sender's headers say, data may be cut off. ok is false if this is
// no DNS message: if the header does not say so, a question cannot be read, or all is there but not well
// formed.
func Parse(data []byte, length int) (m Message, ok bool) {
	if !plausible(data, length) {
		return m, false
	}
	var p dnsmessage.Parser
	h, err := p.Start(data)
	if err != nil {
		return m, false
	}
	m.ID, m.Response = h.ID, h.Response
	if h.Response {
		m.Rcode = rcodeName(h.RCode)
	}
	cut := len(data) < length
	for {
		q, err := p.Question()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			break
		}
		if err != nil {
			return m, cut && m.HasQuestion
		}
		// The upper bit of the class asks for a unicast answer in multicast DNS (RFC 6762, section 5.4).
		switch q.Class &^ 0x8000 {
		case 1, 3, 4, 254, 255:
		default:
			return m, false
		}
		if q.Type == 0 {
			return m, false
		}
		name := nameText(q.Name.String())
		if !m.HasQuestion {
			m.HasQuestion, m.Name, m.Type = true, name, typeName(q.Type)
		}
		m.Names = append(m.Names, name)
	}
	ok = m.HasQuestion || cut
	for n := 0; ; n++ {
		r, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			m.Whole = wellFormed(&p)
			return m, m.Whole || ok && (cut || m.Response)
		}
		if err != nil {
			break
		}
		if n >= MaxAnswers {
			if p.SkipAnswer() != nil {
				break
			}
			continue
		}
		text, err := answer(&p, r)
		if err != nil {
			break
		}
		m.Answers = append(m.Answers, text)
	}
	// The answers cannot be read to their end. Of a message that is cut off, or that its sender cut short, no
	// more is to be had; else it is taken for DNS only if there is a question.
	return m, m.HasQuestion && (cut || h.Truncated || m.Response)
}

// plausible looks at the header alone.
func plausible(b []byte, length int) bool {
	if len(b) < HeaderBytes || length < HeaderBytes {
		return false
	}
	response := b[2]&0x80 != 0
	if opcode := b[2] >> 3 & 15; opcode > 6 || opcode == 3 {
		return false
	}
	if b[3]&0x40 != 0 || !response && b[3]&15 != 0 {
		return false // the bit that must be zero; a query has no response code
	}
	count := func(i int) int { return int(b[i])<<8 | int(b[i+1]) }
	questions, records := count(4), count(6)+count(8)+count(10)
	// A question has five bytes at least, a record eleven.
	return questions <= 64 && questions+records > 0 && HeaderBytes+5*questions+11*records <= length
}

// wellFormed reads the rest of a message.
func wellFormed(p *dnsmessage.Parser) bool {
	return p.SkipAllAuthorities() == nil && p.SkipAllAdditionals() == nil
}

// answer returns the text of the answer that p stands at.
func answer(p *dnsmessage.Parser, h dnsmessage.ResourceHeader) (text string, err error) {
	switch h.Type {
	case dnsmessage.TypeA:
		r, err := p.AResource()
		return netip.AddrFrom4(r.A).String(), err
	case dnsmessage.TypeAAAA:
		r, err := p.AAAAResource()
		return netip.AddrFrom16(r.AAAA).String(), err
	case dnsmessage.TypeCNAME:
		r, err := p.CNAMEResource()
		return nameText(r.CNAME.String()), err
	case dnsmessage.TypeNS:
		r, err := p.NSResource()
		return nameText(r.NS.String()), err
	case dnsmessage.TypePTR:
		r, err := p.PTRResource()
		return nameText(r.PTR.String()), err
	case dnsmessage.TypeMX:
		r, err := p.MXResource()
		return strconv.Itoa(int(r.Pref)) + " " + nameText(r.MX.String()), err
	case dnsmessage.TypeSRV:
		r, err := p.SRVResource()
		return strconv.Itoa(int(r.Priority)) + " " + strconv.Itoa(int(r.Weight)) + " " + strconv.Itoa(int(r.Port)) + " " + nameText(r.Target.String()), err
	case dnsmessage.TypeSOA:
		r, err := p.SOAResource()
		return nameText(r.NS.String()) + " " + nameText(r.MBox.String()), err
	case dnsmessage.TypeTXT:
		r, err := p.TXTResource()
		return clip(strings.Join(r.TXT, "")), err
	}
	r, err := p.UnknownResource()
	// Records that have no text here are shown as RFC 3597, section 5, says.
	return clip(typeName(h.Type) + " \\# " + strconv.Itoa(len(r.Data)) + " " + hex.EncodeToString(r.Data[:min(len(r.Data), 64)])), err
}

func clip(s string) string { return s[:min(len(s), maxAnswer)] }

// nameText is a name without its last dot.
func nameText(s string) string {
	if len(s) > 1 {
		return strings.TrimSuffix(s, ".")
	}
	return s
}

// NetBIOS says whether a name is one of NetBIOS in its first-level encoding (RFC 1001, section 14.1): such
// messages have the form of DNS and are another protocol's.
func NetBIOS(name string) bool {
	label, _, _ := strings.Cut(name, ".")
	if len(label) != 32 {
		return false
	}
	for i := range len(label) {
		if label[i] < 'A' || label[i] > 'P' {
			return false
		}
	}
	return true
}
