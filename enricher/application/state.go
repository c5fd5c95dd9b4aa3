package application

import (
	"encoding/binary"
	"errors"

	"github.com/tapweave/tapweave/enricher/application/http2"
	"github.com/tapweave/tapweave/enricher/application/quic"
)

// ErrState says that bytes are no session's state.
var ErrState = errors.New("application: not the state of a session")

// Append appends the state of a session, for a snapshot. The form belongs to the fold's, whose version names it.
func (s *Session) Append(b []byte) []byte {
	c := coder{b: b}
	c.session(s)
	return c.b
}

// Load reads what Append appended, and returns what is behind it. Whatever the bytes, it does not panic, and
// allocates no more than a multiple of their number. A session that was loaded goes on as the one that was
// saved.
func (s *Session) Load(b []byte) (rest []byte, err error) {
	*s = Session{}
	c := coder{b: b, loading: true}
	c.session(s)
	if c.failed {
		return nil, ErrState
	}
	return c.b, nil
}

// coder appends values to b, or takes them from it: one function of a struct does both, so that they agree.
type coder struct {
	b       []byte
	loading bool
	failed  bool
}

func (c *coder) session(s *Session) {
	for i := range 2 {
		number(c, &s.Verdicts[i].Set)
		c.flag(&s.Verdicts[i].Sure)
		c.flag(&s.Deaf[i])
		c.octets(&s.Kept[i])
		if present(c, &s.Founds[i]) {
			c.found(s.Founds[i])
		}
		if present(c, &s.Readers[i]) {
			c.reader(s.Readers[i])
			if s.Readers[i].Side != uint8(i) {
				c.failed = true
			}
		}
	}
	number(c, &s.Bytes)
}

func (c *coder) found(f *Found) {
	c.flag(&f.TLS.Client)
	number(c, &f.TLS.Version)
	for _, t := range []*string{&f.TLS.SNI, &f.TLS.ALPN, &f.TLS.JA3, &f.TLS.JA4, &f.HTTP.Method, &f.HTTP.Host, &f.HTTP.Path, &f.HTTP.UserAgent, &f.SSH, &f.DNS.Name, &f.DNS.Type} {
		c.text(t)
	}
	list(c, &f.HTTP.Hosts, (*coder).text)
	number(c, &f.HTTP.Status)
	c.flag(&f.DNS.Asked)
	number(c, &f.DNS.ID)
	list(c, &f.DNS.Names, (*coder).text)
	list(c, &f.DNS.Answers, func(c *coder, a *FoundAnswer) {
		number(c, &a.ID)
		c.text(&a.Name)
		c.text(&a.Type)
		c.text(&a.Rcode)
		list(c, &a.Records, (*coder).text)
	})
}

func (c *coder) reader(r *Reader) {
	number(c, &r.Side)
	number(c, &r.Stage)
	c.flag(&r.Full)
	number(c, &r.Next)
	c.flag(&r.Begun)
	c.flag(&r.Certain)
	list(c, &r.Waiting, func(c *coder, w *Segment) {
		number(c, &w.Pos)
		number(c, &w.Size)
		c.octets(&w.Data)
	})
	number(c, &r.Held)
	c.octets(&r.Buffer)
	number(c, &r.Skip)
	c.flag(&r.Inner)
	number(c, &r.Count)
	number(c, &r.Mark)
	number(c, &r.Doubt.Set)
	c.flag(&r.Doubt.Sure)
	if present(c, &r.HTTP2) {
		c.http2(r.HTTP2)
	}
	if present(c, &r.QUIC) {
		c.quic(r.QUIC)
	}
	for _, w := range r.Waiting {
		if w.Size < int64(len(w.Data)) {
			c.failed = true
		}
	}
	if r.Skip < 0 || r.Count < 0 {
		c.failed = true
	}
}

func (c *coder) http2(h *http2.Side) {
	c.octets(&h.Blocks)
	list(c, &h.Ends, number[int])
	c.flag(&h.Open)
	number(c, &h.Stream)
	list(c, &h.Streams, number[uint32])
	c.flag(&h.Lost)
	from := 0
	for _, to := range h.Ends {
		if to < from || to > len(h.Blocks) {
			c.failed = true
		}
		from = to
	}
}

func (c *coder) quic(q *quic.Hello) {
	named := q.ID != nil // an empty connection ID is one too
	c.flag(&named)
	if named {
		c.octets(&q.ID)
		if q.ID == nil {
			q.ID = []byte{}
		}
	}
	number(c, &q.Version)
	c.octets(&q.Crypto)
	list(c, &q.Have, func(c *coder, r *quic.Range) {
		number(c, &r.From)
		number(c, &r.To)
		if r.From < 0 || r.From > r.To || r.To > len(q.Crypto) {
			c.failed = true
		}
	})
	if len(q.Crypto) > quic.MaxCrypto {
		c.failed = true
	}
}

type integer interface {
	~int | ~int64 | ~uint8 | ~uint16 | ~uint32 | ~uint64
}

// number is a variable-length integer.
func number[T integer](c *coder, v *T) {
	if !c.loading {
		c.b = binary.AppendVarint(c.b, int64(*v))
		return
	}
	n, size := binary.Varint(c.b)
	if c.failed || size <= 0 || int64(T(n)) != n {
		c.failed = true
		return
	}
	*v, c.b = T(n), c.b[size:]
}

func (c *coder) flag(v *bool) {
	n := uint8(0)
	if *v {
		n = 1
	}
	number(c, &n)
	*v = n == 1
}

func (c *coder) octets(v *[]byte) {
	n := len(*v)
	number(c, &n)
	if !c.loading {
		c.b = append(c.b, *v...)
		return
	}
	if c.failed || n < 0 || n > len(c.b) {
		c.failed = true
		return
	}
	if n > 0 {
		*v = append([]byte(nil), c.b[:n]...)
		c.b = c.b[n:]
	}
}

func (c *coder) text(v *string) {
	b := []byte(*v)
	c.octets(&b)
	*v = string(b)
}

// list is as many elements as fit the bytes: each has one at least.
func list[T any](c *coder, v *[]T, element func(*coder, *T)) {
	n := len(*v)
	number(c, &n)
	if c.loading {
		if c.failed || n < 0 || n > len(c.b) {
			c.failed = true
			return
		}
		if n > 0 {
			*v = make([]T, n)
		}
	}
	for i := range *v {
		element(c, &(*v)[i])
	}
}

// present says whether something is there, and makes it where it is loaded.
func present[T any](c *coder, v **T) bool {
	there := *v != nil
	c.flag(&there)
	if c.loading && there && !c.failed {
		*v = new(T)
	}
	return there && *v != nil
}
