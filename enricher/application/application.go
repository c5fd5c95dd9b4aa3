// Package application recognises application protocols by what the two sides of a session say, not by port,
// and reads the fields that the sessions table has columns for.
//
// Each side is read on its own: what is found in it is a function of its bytes in the order of their sequence
// numbers, or of its datagrams, however they were cut into segments and whenever they came; it does not
// depend on what of the other side came before. [Session.Name] and [Session.Fill] put the two together. So a
// session is recognised alike whichever collectors saw its packets.
//
// What is not sampled, or was lost, is a hole in a side's bytes. A hole in what is being skipped anyway (a
// body of known length) does no harm; otherwise what was begun is read as far as it is there, and the side is
// followed no further, but for HTTP/1, whose next message is looked for where segments begin.
//
//	application.go  a session: segments and datagrams in, name and fields out
//	stream.go       a side's segments put in order, holes
//	stage.go        a side's bytes: which protocol's reader has them, and what comes behind it
//	datagram.go     a side's datagrams
//	recognise*.go   what the first bytes are
//	found.go        what is kept of the fields, bounded
//	state.go        a session as bytes, for snapshots
//	tls dns http http2 quic: readers of these protocols, without state but for what is said there
//
// Nothing looks at a clock or at the order of a map, and every buffer has a bound in bytes.
package application

import (
	"slices"
	"strings"

	"github.com/tapweave/tapweave/enricher/application/tls"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/packet"
)

// Session is what is known of one session's application. The zero Session is ready. Its exported fields, and
// theirs, are all of its state.
type Session struct {
	Verdicts [2]Verdict
	Founds   [2]*Found
	Kept     [2][]byte // first bytes of each side, see Settings.Keep
	Readers  [2]*Reader
	Deaf     [2]bool // nothing more is wanted of that side
	Bytes    int     // logical size of all buffers and strings
}

// Settings are what the reading depends on beside the bytes.
type Settings struct {
	// Keep is how many bytes are kept of each side's beginning; 0: none.
	Keep int
}

// Listens says whether the segments or datagrams of a side are wanted, those without bytes too.
func (s *Session) Listens(side uint8) bool { return !s.Deaf[side] }

// Place says where a segment lies among its side's bytes. Positions are sequence numbers, unwrapped.
type Place struct {
	Pos, Size int64 // of the payload, by the header
	Begin     int64 // position of the side's first byte, if its SYN was seen
	Known     bool  // Begin holds
	// Settled says that a side whose SYN was not seen is old enough: what came before its first segments would
	// have come by now. Until then they wait, as they may come out of order.
	Settled bool
	// Seen says that packets had all bytes from Begin to Pos: those that were not taken in were not sampled.
	Seen bool
}

// Segment takes in a segment of one side of a TCP session. data holds the first bytes of its payload.
func (s *Session) Segment(set *Settings, side uint8, at Place, data []byte) {
	if s.Deaf[side] {
		return
	}
	s.read(side, func(r *Reader) { r.segment(s, set, &at, data) })
}

// Datagram takes in a datagram of one side: size bytes by its header, of which data holds the first.
func (s *Session) Datagram(set *Settings, side uint8, data []byte, size int) {
	if s.Deaf[side] {
		return
	}
	s.read(side, func(r *Reader) {
		r.keep(s, set, data, size > len(data))
		r.datagram(s, data, size)
	})
}

// Settle takes in what waited for a beginning that was not seen.
func (s *Session) Settle(set *Settings) {
	for side := range uint8(2) {
		if s.Readers[side] != nil {
			s.read(side, func(r *Reader) { r.settle(s, set) })
		}
	}
}

// End says that no more will come: what waits behind holes is taken in, and what was begun is read as far as
// it is there.
func (s *Session) End(set *Settings) {
	for side := range uint8(2) {
		if s.Readers[side] != nil {
			s.read(side, func(r *Reader) {
				r.settle(s, set)
				r.drain(s, set, true)
				r.gap(s, 0)
				r.Stage, r.Full = done, true
			})
		}
	}
}

// GiveUp frees what is buffered, and listens no more. What was found stays.
func (s *Session) GiveUp() {
	for side := range uint8(2) {
		if r := s.Readers[side]; r != nil {
			s.drop(side, r)
		}
		s.Deaf[side] = true
	}
}

// read lets a side's reader do something, counts what it holds, and lets go of one that wants no more.
func (s *Session) read(side uint8, do func(*Reader)) {
	r := s.Readers[side]
	if r == nil {
		r = &Reader{Side: side}
		s.Readers[side] = r
		s.Bytes += readerBytes
	}
	before := r.size()
	do(r)
	s.Bytes += r.size() - before
	if r.Stage == done && r.Full {
		s.drop(side, r)
		s.Deaf[side] = true
	}
}

func (s *Session) drop(side uint8, r *Reader) {
	s.Bytes -= r.size() + readerBytes
	s.Readers[side] = nil
}

// Name is the session's application.
func (s *Session) Name(ends Ends) Name {
	n := together(s.Verdicts[0], s.Verdicts[1])
	if n == DNS {
		return ends.variant()
	}
	return n
}

// Ends are the two ends of the session. They tell apart protocols that have the same form: multicast DNS and
// LLMNR are DNS messages that are sent to their own groups and ports.
type Ends struct {
	Addresses [2]packet.Addr
	Ports     [2]uint16
	UDP       bool
}

var (
	mdnsGroup4  = packet.Addr{10: 0xff, 11: 0xff, 12: 224, 15: 251}
	mdnsGroup6  = packet.Addr{0: 0xff, 1: 0x02, 15: 0xfb}
	llmnrGroup4 = packet.Addr{10: 0xff, 11: 0xff, 12: 224, 15: 252}
	llmnrGroup6 = packet.Addr{0: 0xff, 1: 0x02, 13: 1, 15: 3}
)

// variant is the name of a session whose messages are DNS (RFC 6762, section 3; RFC 4795, section 2).
func (e *Ends) variant() Name {
	for i := range 2 {
		switch {
		case e.UDP && (e.Ports[i] == 5353 || e.Addresses[i] == mdnsGroup4 || e.Addresses[i] == mdnsGroup6):
			return MDNS
		case e.Ports[i] == 5355 || e.Addresses[i] == llmnrGroup4 || e.Addresses[i] == llmnrGroup6:
			return LLMNR
		}
	}
	return DNS
}

// Fill fills in the columns of a session whose src is the given side. The name is not among them: it decides
// a dimension, and is frozen at some time.
func (s *Session) Fill(d *columns.Session, src uint8) {
	a, b := s.Founds[src], s.Founds[1-src]
	d.SrcPayload = append(d.SrcPayload, s.Kept[src]...)
	d.DstPayload = append(d.DstPayload, s.Kept[1-src]...)
	if a == nil {
		a = &Found{}
	}
	if b == nil {
		b = &Found{}
	}
	fillTLS(d, &a.TLS, &b.TLS)
	fillHTTP(d, &a.HTTP, &b.HTTP)
	fillDNS(d, &a.DNS, &b.DNS)
	d.SSHClient, d.SSHServer = a.SSH, b.SSH
}

// fillTLS takes the client's from whichever side sent a ClientHello, and what the server chose before what the
// client offered.
func fillTLS(d *columns.Session, a, b *FoundTLS) {
	client, server := a, b
	if !client.Client && client.Version != 0 || server.Client {
		client, server = b, a
	}
	if client.Client {
		d.TLSSNI, d.TLSJA3, d.TLSJA4 = client.SNI, client.JA3, client.JA4
		d.TLSVersion, d.TLSALPN = tls.VersionName(client.Version), client.ALPN
	}
	if !server.Client && server.Version != 0 {
		d.TLSVersion = tls.VersionName(server.Version)
		if server.ALPN != "" || server.Version < 0x0304 {
			d.TLSALPN = server.ALPN // TLS 1.3 encrypts it: there what was offered first stands
		}
	}
}

func fillHTTP(d *columns.Session, a, b *FoundHTTP) {
	client, server := a, b
	if client.Method == "" && (server.Method != "" || client.Status != 0) {
		client, server = b, a
	}
	d.HTTPMethod, d.HTTPHost, d.HTTPPath, d.HTTPUserAgent = client.Method, client.Host, client.Path, client.UserAgent
	d.HTTPStatus = server.Status
	d.HTTPHosts = append(d.HTTPHosts, client.Hosts...)
	slices.Sort(d.HTTPHosts)
}

// fillDNS takes the first question from whoever asked, and the answer that belongs to it; without a question
// that was seen, both from the first answer.
func fillDNS(d *columns.Session, a, b *FoundDNS) {
	client, server := a, b
	if !client.Asked && (server.Asked || len(client.Answers) > 0) {
		client, server = b, a
	}
	d.DNSQuery, d.DNSType = client.Name, client.Type
	if len(server.Answers) > 0 {
		i := 0
		if client.Asked {
			i = slices.IndexFunc(server.Answers, func(r FoundAnswer) bool {
				return r.ID == client.ID && r.Type == client.Type && strings.EqualFold(r.Name, client.Name)
			})
			if i < 0 {
				i = slices.IndexFunc(server.Answers, func(r FoundAnswer) bool { return r.ID == client.ID && r.Name == "" })
			}
		}
		if i >= 0 {
			r := &server.Answers[i]
			d.DNSRcode = r.Rcode
			d.DNSAnswers = append(d.DNSAnswers, r.Records...)
			if !client.Asked {
				d.DNSQuery, d.DNSType = r.Name, r.Type
			}
		}
	}
	d.DNSQueries = append(append(d.DNSQueries, client.Names...), server.Names...)
	slices.Sort(d.DNSQueries)
	d.DNSQueries = slices.Compact(d.DNSQueries)
}
