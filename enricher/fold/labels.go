package fold

import (
	"encoding/binary"

	"github.com/tapweave/tapweave/enricher/application"
	"github.com/tapweave/tapweave/enricher/flowtype"
	"github.com/tapweave/tapweave/enricher/labels"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
)

// LabelSource gives the label sets that the log names, by their digests. It may wait for them; nil without an error
// says that the set is lost: then nothing is labelled until the log names another. Whoever folds the same log has
// to give the same.
type LabelSource func(*pb.LabelSet) (*labels.Set, error)

// labelling is the label set in force.
type labelling struct {
	source LabelSource
	set    *labels.Set // nil: none
	named  namedSet
	cache  []cachedEnd // what was looked up, by a hash of the address; it grows with what is asked for
	cached int         // entries written since it grew
}

// namedSet is a label set as the log names it. No parts: none.
type namedSet struct{ parts []namedPart }

type namedPart struct {
	digest    []byte
	partition uint32 // of tapweave.state
	offset    int64
}

type cachedEnd struct {
	address packet.Addr
	tenant  string
	end     *labels.End
	span    labels.Span
}

// How many addresses are kept of those looked up, at first and at most; powers of two.
const (
	fewCachedEnds  = 1 << 6
	mostCachedEnds = 1 << 12
)

// Label says where label sets come from, and fetches the one in force. An error ends the fold.
func (f *Fold) Label(source LabelSource) error {
	f.labelling.source = source
	return f.fetch()
}

// LabelSet is the set in force, as the log names it; no parts: none.
func (f *Fold) LabelSet() *pb.LabelSet {
	m := &pb.LabelSet{}
	var digests [][]byte
	for _, p := range f.labelling.named.parts {
		m.Parts = append(m.Parts, &pb.LabelPart{Digest: p.digest, StatePartition: p.partition, StateOffset: p.offset})
		digests = append(digests, p.digest)
	}
	if len(digests) > 0 {
		d := labels.DigestOf(digests)
		m.Digest = d[:]
	}
	return m
}

// relabel lets another label set be in force: sessions that begin from here on are labelled by it.
func (f *Fold) relabel(m *pb.LabelSet) error {
	named := &f.labelling.named
	named.parts = nil
	for _, p := range m.Parts {
		named.parts = append(named.parts, namedPart{p.Digest, p.StatePartition, p.StateOffset})
	}
	return f.fetch()
}

// fetch gets the set that is named.
func (f *Fold) fetch() error {
	l := &f.labelling
	was := l.set
	l.set = nil
	if len(l.named.parts) > 0 {
		if l.source != nil {
			var err error
			if l.set, err = l.source(f.LabelSet()); err != nil {
				return err
			}
		}
		if l.set == nil {
			f.counts[LabelSetsLost]++
		}
	}
	switch {
	case l.set == nil:
		l.cache = nil
	case was == nil:
		l.cache, l.cached = make([]cachedEnd, fewCachedEnds), 0
	case was.Digest() != l.set.Digest():
		clear(l.cache)
	}
	return nil
}

// labelled is what is known of a session's ends: by their addresses as it began, and by what was read of it.
type labelled struct {
	ends  [2]*labels.End
	asked *labels.Threat // of a name that was asked for: dst's
	shown *labels.Threat // of a client's fingerprint: src's
}

// label looks up the addresses of a session that begins.
func (f *Fold) label(s *Session) {
	if f.labelling.set == nil {
		return
	}
	s.labels = &labelled{ends: [2]*labels.End{
		low:  f.known(s.key.Tenant, &s.key.Low, s.created),
		high: f.known(s.key.Tenant, &s.key.High, s.created),
	}}
}

// known is what is known of an address.
func (f *Fold) known(tenant string, a *packet.Addr, at int64) *labels.End {
	l := &f.labelling
	h := (binary.LittleEndian.Uint64(a[:]) ^ binary.LittleEndian.Uint64(a[8:])) * 0x9e3779b97f4a7c15 >> 32
	c := &l.cache[h&uint64(len(l.cache)-1)]
	if c.end != nil && c.address == *a && c.tenant == tenant && c.span.Holds(at) {
		return c.end
	}
	if l.cached++; l.cached > len(l.cache) && len(l.cache) < mostCachedEnds {
		l.cache, l.cached = make([]cachedEnd, 4*len(l.cache)), 1
		c = &l.cache[h&uint64(len(l.cache)-1)]
	}
	c.address, c.tenant = *a, tenant
	c.end, c.span = l.set.End(tenant, *a, at)
	return c.end
}

// compareNames looks for what was read of a session on threat lists, until its dimensions are frozen.
func (f *Fold) compareNames(s *Session) {
	if s.app == nil || s.labels == nil || s.frozen || f.labelling.set == nil {
		return
	}
	t := f.labelling.set.Threats()
	if t == nil || !t.HasNames() && !t.HasPrints() {
		return
	}
	for _, found := range s.app.Founds {
		if found == nil {
			continue
		}
		if s.labels.asked == nil && t.HasNames() {
			s.labels.asked = asked(t, found, s.created)
		}
		if s.labels.shown == nil && found.TLS.Client {
			if s.labels.shown = t.Print(labels.JA4, found.TLS.JA4, s.created); s.labels.shown == nil {
				s.labels.shown = t.Print(labels.JA3, found.TLS.JA3, s.created)
			}
		}
	}
}

// asked returns the first of the names asked for that is on a threat list.
func asked(t *labels.Threats, found *application.Found, at int64) *labels.Threat {
	for _, name := range [...]string{found.TLS.SNI, found.HTTP.Host, found.DNS.Name} {
		if hit := t.Name(name, at); hit != nil {
			return hit
		}
	}
	for _, list := range [...][]string{found.HTTP.Hosts, found.DNS.Names} {
		for _, name := range list {
			if hit := t.Name(name, at); hit != nil {
				return hit
			}
		}
	}
	for i := range found.DNS.Answers {
		if hit := t.Name(found.DNS.Answers[i].Name, at); hit != nil {
			return hit
		}
	}
	return nil
}

// malicious says whether something that was read of the session is on a threat list. What its addresses are on does
// not change.
func (l *labelled) malicious() bool { return l != nil && (l.asked != nil || l.shown != nil) }

// kinds returns flow type and direction.
func (l *labelled) kinds(src uint8, malicious bool) (flowType, direction string) {
	a, b := l.ends[src], l.ends[1-src]
	return flowtype.Of(a.Kind, b.Kind, malicious || a.Threat != nil || b.Threat != nil), flowtype.Direction(a.Kind, b.Kind)
}

// row fills in the columns.
func (l *labelled) row(d *columns.Session, src uint8) {
	fillLabels(&d.SrcLabels, l.ends[src], l.shown)
	fillLabels(&d.DstLabels, l.ends[1-src], l.asked)
	d.FlowType, d.Direction = l.kinds(src, l.malicious())
}

func fillLabels(d *columns.Labels, e *labels.End, other *labels.Threat) {
	d.Name, d.Subnet, d.VNet = e.Network.Name, e.Network.Subnet, e.Network.VNet
	d.Labels = append(d.Labels, e.Network.Labels...)
	d.Country, d.ASN, d.ASOrg = e.Place.Country, e.Place.ASN, e.Place.ASOrg
	if e.Threat != nil {
		d.Threat = e.Threat.Name
	} else if other != nil {
		d.Threat = other.Name
	}
}

// book fills in the dimensions of a booking.
func (l *labelled) book(t *columns.TrafficDimensions, d dimensions) {
	t.Src, t.Dst = endDimensions(l.ends[d.src]), endDimensions(l.ends[1-d.src])
	t.FlowType, t.Direction = l.kinds(d.src, d.malicious)
}

func endDimensions(e *labels.End) columns.EndDimensions {
	return columns.EndDimensions{
		Name: e.Network.Name, Subnet: e.Network.Subnet, VNet: e.Network.VNet, Country: e.Place.Country, ASN: e.Place.ASN,
	}
}

func (n *namedSet) code(c *coder) {
	list(c, &n.parts, 16, func(c *coder, p *namedPart) { p.code(c) })
}

func (p *namedPart) code(c *coder) {
	c.bytes(&p.digest, 64)
	num(c, &p.partition)
	num(c, &p.offset)
}

func (l *labelled) code(c *coder) {
	for i := range l.ends {
		c.end(&l.ends[i])
	}
	optional(c, &l.asked, codeThreat)
	optional(c, &l.shown, codeThreat)
}

// end codes what is known of an address; what was coded before is a number.
func (c *coder) end(e **labels.End) {
	var n uint64 // 0: a new one
	if !c.loading {
		if c.endIndex == nil {
			c.endIndex = map[*labels.End]uint64{}
		}
		n = c.endIndex[*e]
		if num(c, &n); n == 0 {
			codeEnd(c, *e)
			c.endIndex[*e] = uint64(len(c.endIndex) + 1)
		}
		return
	}
	num(c, &n)
	switch {
	case n == 0:
		*e = new(labels.End)
		codeEnd(c, *e)
		c.ends = append(c.ends, *e)
	case n <= uint64(len(c.ends)):
		*e = c.ends[n-1]
	default:
		*e = new(labels.End)
		c.fail("end %d of %d", n, len(c.ends))
	}
}

func codeEnd(c *coder, e *labels.End) {
	n := &e.Network
	c.string(&n.Name)
	c.string(&n.Subnet)
	c.string(&n.VNet)
	list(c, &n.Labels, 1<<16, (*coder).string)
	num(c, &n.Owner)
	c.string(&e.Place.Country)
	num(c, &e.Place.ASN)
	c.string(&e.Place.ASOrg)
	optional(c, &e.Threat, codeThreat)
	k := &e.Kind
	c.string(&k.VNet)
	flag(c, &k.Own)
	flag(c, &k.Microsoft)
	num(c, &k.Scope)
}

func codeThreat(c *coder, t *labels.Threat) {
	c.string(&t.Name)
	c.string(&t.Indicator)
	num(c, &t.Confidence)
}
