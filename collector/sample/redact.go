package sample

import "bytes"

const mask = '*'

// clean returns b without secrets: b itself if there are none, else a copy of the same length.
func (s *Sampler) clean(b []byte) []byte {
	c := cleaner{from: b, to: s.scratch}
	if s.redact {
		c.fields()
		c.cards()
	}
	for _, p := range s.patterns {
		// What an earlier rule has covered is no match any more, and nothing is found twice.
		for text, at := c.text(), 0; at < len(text) && p.Match(text[at:]); {
			m := p.FindIndex(text[at:])
			if m[1] == m[0] {
				at++
				continue
			}
			c.cover(at+m[0], at+m[1])
			text, at = c.text(), at+m[1]
		}
	}
	s.scratch = c.to
	return c.text()
}

// cleaner covers parts of a text, in a copy.
type cleaner struct {
	from, to []byte
	copied   bool
}

func (c *cleaner) text() []byte {
	if c.copied {
		return c.to
	}
	return c.from
}

func (c *cleaner) cover(from, to int) {
	if !c.copied {
		c.to, c.copied = append(c.to[:0], c.from...), true
	}
	for i := from; i < to; i++ {
		c.to[i] = mask
	}
}

var secretFields = [][]byte{[]byte("authorization"), []byte("proxy-authorization"), []byte("cookie"), []byte("set-cookie")}

// fields covers the values of header fields that hold secrets, wherever a line begins with the name of one:
// the packet may begin in the middle of a header.
func (c *cleaner) fields() {
	b := c.from
	for at := 0; at < len(b); {
		if end := secretField(b[at:]); end > 0 {
			at += end
			last := valueEnd(b[at:])
			c.cover(at, at+last)
			at += last
		}
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return
		}
		at += i + 1
	}
}

// secretField returns the offset of the value if a line is such a field, else 0.
func secretField(line []byte) int {
	if len(line) == 0 {
		return 0
	}
	switch line[0] | 0x20 {
	case 'a', 'c', 'p', 's':
	default:
		return 0
	}
	for _, name := range secretFields {
		if len(line) <= len(name) || !bytes.EqualFold(line[:len(name)], name) {
			continue
		}
		at := len(name)
		for at < len(line) && (line[at] == ' ' || line[at] == '\t') {
			at++
		}
		if at == len(line) || line[at] != ':' {
			continue
		}
		for at++; at < len(line) && (line[at] == ' ' || line[at] == '\t'); at++ {
		}
		return at
	}
	return 0
}

// valueEnd returns where a value ends: at the end of its line, or of the lines that go on with white space
// (RFC 9112, section 5.2).
func valueEnd(b []byte) int {
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return len(b)
		}
		at += i
		if at+1 < len(b) && (b[at+1] == ' ' || b[at+1] == '\t') {
			at++
			continue
		}
		if at > 0 && b[at-1] == '\r' {
			at--
		}
		return at
	}
}

const (
	leastDigits = 13
	mostDigits  = 19
)

// cards covers card numbers: 13 to 19 digits, single blanks or hyphens between them allowed, whose last is
// right by Luhn's sum (ISO/IEC 7812-1, annex B), and which no other digit touches.
func (c *cleaner) cards() {
	b := c.text()
	for at := leastDigits - 1; at < len(b); {
		// No number of at least this length is between two bytes that it cannot hold.
		if !inNumber(b[at]) {
			at += leastDigits
			continue
		}
		from := at
		for from > 0 && inNumber(b[from-1]) {
			from--
		}
		to := at + 1
		for to < len(b) && inNumber(b[to]) {
			to++
		}
		if to-from >= leastDigits {
			c.cardsIn(from, to)
			b = c.text()
		}
		at = to + leastDigits
	}
}

func inNumber(c byte) bool { return c >= '0' && c <= '9' || c == ' ' || c == '-' }

// cardsIn covers the card numbers in a run of digits, blanks and hyphens.
func (c *cleaner) cardsIn(from, to int) {
	b := c.text()[:to]
	for at := from; at < to; at++ {
		if !isDigit(b[at]) || at > from && isDigit(b[at-1]) {
			continue
		}
		if end := card(b[at:]); end > 0 {
			c.cover(at, at+end)
			b = c.text()[:to]
			at += end - 1
		}
	}
}

// card returns the length of the card number that b begins with, 0 if it does with none.
func card(b []byte) int {
	var digits [mostDigits]byte
	n, longest := 0, 0
	for i := 0; i < len(b); i++ {
		if !isDigit(b[i]) {
			if i+1 == len(b) || !isDigit(b[i+1]) {
				break
			}
			continue
		}
		if n == mostDigits {
			break
		}
		digits[n] = b[i] - '0'
		n++
		if n >= leastDigits && (i+1 == len(b) || !isDigit(b[i+1])) && luhn(digits[:n]) {
			longest = i + 1
		}
	}
	return longest
}

// luhn says whether the sum is right. Zeros alone are no number.
func luhn(digits []byte) bool {
	sum, any := 0, false
	for i := range digits {
		d := int(digits[len(digits)-1-i])
		any = any || d != 0
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return any && sum%10 == 0
}
