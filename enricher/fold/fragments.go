package fold

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/tapweave/tapweave/proto/packet"
)

// fragments puts datagrams together, so that packets and bytes of all their fragments belong to the session
// that the first fragment's ports name. Only the bytes of the transport header are kept.
type fragments struct {
	open       map[datagramKey]*datagram
	head, tail *datagram // in the order of their first fragments
	due        int64     // when the first of them expires, math.MaxInt64 without any
}

type datagramKey struct {
	src, dst packet.Addr
	id       uint32
	protocol uint8
	tenant   string
}

type datagram struct {
	key         datagramKey
	flow        packet.Flow
	name        uint32
	refs        []ref  // where its fragments and their copies came from, with flows of their own
	copies      uint64 // second copies of its fragments, until it is delivered
	session     *Session
	first, last int64 // times
	fragments   uint64
	bytes       uint32
	total       int32 // length behind the IP header, -1 while the last fragment is missing
	have        []stretch
	header      [packet.HeadBytes]byte
	known       [packet.HeadBytes / 64]uint64 // bit set of the bytes in header
	next, prev  *datagram
}

// maxPieces is how many pieces of a datagram, with gaps between them, are told apart. One in more is never whole.
const maxPieces = 512

func (g *fragments) init() {
	g.open = map[datagramKey]*datagram{}
	g.due = math.MaxInt64
}

// fragment takes in a fragment, and delivers the datagram when it is whole. It returns the datagram.
func (f *Fold) fragment(r *ref, p *packet.Packet) *datagram {
	g := &f.fragments
	k := datagramKey{r.flow.Src, r.flow.Dst, p.ID, r.flow.Protocol, r.flow.Tenant}
	d := g.open[k]
	if d == nil {
		if len(g.open) >= f.set.MaxDatagrams {
			f.counts[FragmentsEvicted]++
			f.giveUp(g.head)
		}
		d = &datagram{key: k, flow: *r.flow, name: r.name, first: p.Time, total: -1}
		g.add(d, int64(f.set.FragmentTimeout))
	}
	d.first, d.last = min(d.first, p.Time), max(d.last, p.Time)
	d.fragments++
	d.met(r)
	d.bytes += p.Length
	from, to := int64(p.FragmentOffset), int64(p.FragmentOffset)+int64(p.Payload)
	if p.Fragment&packet.MoreFragments == 0 && d.total < 0 {
		d.total = int32(to)
	}
	d.cover(from, to)
	if p.FragmentOffset == 0 {
		d.flow = *r.flow // whose MAC addresses and TTL the datagram is given
		d.name = r.name
	}
	if from < packet.HeadBytes {
		n := copy(d.header[from:], p.Head)
		for i := int(from); i < int(from)+n; i++ {
			d.known[i/64] |= 1 << (i % 64)
		}
	}
	if d.total >= 0 && len(d.have) == 1 && d.have[0].from == 0 && d.have[0].to >= int64(d.total) {
		g.remove(f, d)
		f.deliverDatagram(d, true)
	}
	return d
}

// maxRefs bounds the places that a datagram notes.
const maxRefs = 16

// met notes where a fragment or a copy of one came from.
func (d *datagram) met(r *ref) {
	if n := len(d.refs); n == maxRefs || n > 0 && d.refs[n-1].serial == r.serial {
		return
	}
	flow := *r.flow // the batch will be gone
	d.refs = append(d.refs, ref{flow: &flow, tap: r.tap, name: r.name, serial: r.serial})
}

// cover adds [from, to) to what of the datagram is there.
func (d *datagram) cover(from, to int64) {
	if from >= to {
		return
	}
	i := 0
	for i < len(d.have) && d.have[i].to < from {
		i++
	}
	j := i
	for j < len(d.have) && d.have[j].from <= to {
		from, to = min(from, d.have[j].from), max(to, d.have[j].to)
		j++
	}
	if i == j && len(d.have) == maxPieces {
		return
	}
	d.have = slices.Replace(d.have, i, j, stretch{from, to})
}

// leading returns the transport header's bytes as far as they are known without a gap.
func (d *datagram) leading() []byte {
	n := 0
	for n < packet.HeadBytes && d.known[n/64]&(1<<(n%64)) != 0 {
		n++
	}
	return d.header[:n]
}

// add opens a datagram.
func (g *fragments) add(d *datagram, timeout int64) {
	g.open[d.key] = d
	if d.prev = g.tail; d.prev != nil {
		d.prev.next = d
	} else {
		g.head = d
		g.due = expires(d.first, timeout)
	}
	g.tail = d
}

func (g *fragments) remove(f *Fold, d *datagram) {
	delete(g.open, d.key)
	if d.prev != nil {
		d.prev.next = d.next
	} else {
		g.head = d.next
	}
	if d.next != nil {
		d.next.prev = d.prev
	} else {
		g.tail = d.prev
	}
	g.expireFirst(f)
}

// expireFirst sets when the first of the datagrams expires.
func (g *fragments) expireFirst(f *Fold) {
	g.due = math.MaxInt64
	if g.head != nil {
		g.due = expires(g.head.first, int64(f.set.FragmentTimeout))
	}
}

// giveUp delivers what has come of a datagram, if its ports are known.
func (f *Fold) giveUp(d *datagram) {
	f.fragments.remove(f, d)
	f.deliverDatagram(d, false)
}

// deliverDatagram makes one packet of a datagram. Of one that is not whole, packets and bytes count but no
// payload of TCP, as its place in the stream is only known for what came in order.
func (f *Fold) deliverDatagram(d *datagram, isWhole bool) {
	h := d.leading()
	length := uint32(max(d.total, 0))
	if !isWhole {
		length = 0
		for _, p := range d.have {
			length += uint32(p.to - p.from)
		}
	}
	p := packet.Packet{Time: d.last, Length: d.bytes, ID: d.key.id, WindowScale: packet.NoWindowScale}
	flow := d.flow
	found, header := parseTransport(&flow, &p, h, length)
	switch found {
	case headerMissing:
		f.counts[FragmentsUnowned] += d.fragments
		return
	case headerBroken:
		f.counts[DatagramsBroken]++
		return
	}
	if len(h) > header {
		p.Data = h[header:min(len(h), header+int(p.Payload))] // as much of the payload as travels with fragments
	}
	if !isWhole && flow.Protocol == packet.ProtoTCP {
		p.Data = nil
		p.Payload, p.Flags = 0, p.Flags&^(packet.SYN|packet.FIN|packet.RST)
	}
	var r ref
	f.refer(&r, &flow, d.name)
	s := f.deliver(&r, &p, frames{d.fragments, d.first}, false)
	if d.copies > 0 {
		s.own().duplicates += d.copies
	}
	for i := range d.refs {
		s.met(&d.refs[i])
	}
	d.session, d.refs = s, nil
}

type headerFound uint8

const (
	headerRead headerFound = iota
	headerMissing
	headerBroken
)

// parseTransport reads the transport header in h, of a datagram with length bytes behind the IP header, and
// returns its length.
func parseTransport(fl *packet.Flow, p *packet.Packet, h []byte, length uint32) (found headerFound, size int) {
	be := binary.BigEndian
	p.Payload = length
	switch fl.Protocol {
	case packet.ProtoTCP:
		if len(h) < 20 {
			return headerMissing, 0
		}
		header := uint32(h[12]>>4) * 4
		if header < 20 {
			return headerBroken, 0
		}
		p.Seq, p.Ack, p.Flags, p.Window, p.Checksum = be.Uint32(h[4:]), be.Uint32(h[8:]), h[13], be.Uint16(h[14:]), be.Uint16(h[16:])
		p.Payload = max(length, header) - header
		size = int(header)
	case packet.ProtoUDP, packet.ProtoUDPLite:
		if len(h) < 8 {
			return headerMissing, 0
		}
		p.Payload = max(length, 8) - 8
		size = 8
		p.Checksum = be.Uint16(h[6:])
	case packet.ProtoICMP, packet.ProtoICMPv6:
		if len(h) < 8 {
			return headerMissing, 0
		}
		fl.SrcPort, fl.DstPort, fl.ICMPID = uint16(h[0]), uint16(h[1]), 0
		if fl.Protocol == packet.ProtoICMP && h[0] != 3 || fl.Protocol == packet.ProtoICMPv6 && h[0] >= 128 {
			fl.ICMPID = be.Uint16(h[4:])
		}
		p.Checksum, p.Payload, size = be.Uint16(h[2:]), max(length, 8)-8, 8
		return headerRead, size
	case packet.ProtoSCTP, packet.ProtoDCCP:
		if len(h) < 12 {
			return headerMissing, 0
		}
		p.Payload = max(length, 12) - 12
		size = 12
	default:
		return headerRead, size
	}
	fl.SrcPort, fl.DstPort = be.Uint16(h), be.Uint16(h[2:])
	return headerRead, size
}
