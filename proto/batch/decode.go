package batch

import (
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/s2"

	"github.com/tapweave/tapweave/proto/packet"
)

// Packets is a decoded batch. Packet.Head and Packet.Data point into it, and into the bytes that were decoded
// where these were not compressed. It may be decoded into again and then allocates little.
type Packets struct {
	Flows   []packet.Flow
	Packets []packet.Packet
	// Sorted says that no packet is older than the one before it.
	Sorted bool

	states  []state
	body    []byte
	tenants []string
	tails   [2][2 * slack]byte
}

// Decode decodes a batch into p. What p held is overwritten, also where the input turns out to be corrupt.
func (p *Packets) Decode(b []byte) error {
	p.Flows, p.Packets, p.Sorted = p.Flows[:0], p.Packets[:0], true
	if len(b) < 1 {
		return fmt.Errorf("%w: it is empty", ErrCorrupt)
	}
	if b[0] != Version {
		return &VersionError{b[0], Version}
	}
	if len(b) < header {
		return fmt.Errorf("%w: %d bytes", ErrCorrupt, len(b))
	}
	var n [6]uint64
	for i := range n {
		n[i] = uint64(binary.LittleEndian.Uint32(b[2+4*i:]))
	}
	packets, flows, packed, high := n[0], n[1], n[2]+n[3]+n[4], n[5]
	// The least that a packet takes is a control word, a time, and a checksum, or two bytes and three.
	const smallestFlow = 1 + 2 + 4
	if packed+high > MaxBody || packets > MaxPackets || flows > packets || 2*packets > n[3] || 3*packets > high || smallestFlow*flows > n[4] {
		return fmt.Errorf("%w: %d packets, %d flows in %d bytes", ErrCorrupt, packets, flows, packed+high)
	}
	c, b := Compression(b[1]), b[header:]
	if uint64(len(b)) < high {
		return fmt.Errorf("%w: %d bytes of %d", ErrCorrupt, len(b), high)
	}
	b, rest := b[:uint64(len(b))-high], b[uint64(len(b))-high:]
	switch c {
	case None:
		if uint64(len(b)) != packed {
			return fmt.Errorf("%w: %d bytes said to be %d", ErrCorrupt, len(b), packed)
		}
	case S2:
		// s2 blocks say their own length; check it before anything is allocated for it.
		if l, err := s2.DecodedLen(b); err != nil || uint64(l) != packed {
			return fmt.Errorf("%w: compressed parts", ErrCorrupt)
		}
		p.body = resize(p.body, int(packed))
		var err error
		if b, err = s2.Decode(p.body, b); err != nil {
			return fmt.Errorf("%w: %v", ErrCorrupt, err)
		}
	default:
		return fmt.Errorf("%w: compression %d", ErrCorrupt, c)
	}
	if err := p.decodeFlows(&reader{b: b[n[2]+n[3]:]}, int(flows)); err != nil {
		return err
	}
	return p.decodePackets(int(packets), b[:n[2]], b[n[2]:n[2]+n[3]], rest)
}

func (p *Packets) decodeFlows(r *reader, n int) error {
	p.Flows, p.states, p.tenants = resize(p.Flows, n), resize(p.states, n), p.tenants[:0]
	prev := &noFlow
	for i := range p.Flows {
		f := &p.Flows[i]
		x := r.byte()
		*f = packet.Flow{V6: x&flowV6 != 0}
		if x&flowTenant != 0 {
			f.Tenant = p.tenant(r)
			r.bad = r.bad || f.Tenant == ""
		}
		f.Protocol, f.TTL = r.byte(), r.byte()
		switch {
		case x&flowSameAddrs != 0:
			f.Src, f.Dst = prev.Src, prev.Dst
		case x&flowSwappedAddrs != 0:
			f.Src, f.Dst = prev.Dst, prev.Src
		default:
			f.Src, f.Dst = r.addr(f.V6), r.addr(f.V6)
		}
		f.SrcPort, f.DstPort = r.uint16(), r.uint16()
		if x&flowICMPID != 0 {
			f.ICMPID = r.uint16()
		}
		switch {
		case x&flowSameMACs != 0:
			f.SrcMAC, f.DstMAC = prev.SrcMAC, prev.DstMAC
		case x&flowSwappedMACs != 0:
			f.SrcMAC, f.DstMAC = prev.DstMAC, prev.SrcMAC
		default:
			copy(f.SrcMAC[:], r.take(6))
			copy(f.DstMAC[:], r.take(6))
		}
		if x&flowSamePath != 0 {
			f.NVLANs, f.VLANs, f.NCarriers, f.Carriers = prev.NVLANs, prev.VLANs, prev.NCarriers, prev.Carriers
		} else {
			c := r.byte()
			f.NVLANs, f.NCarriers = c>>4, c&15
			if f.NVLANs > packet.MaxVLANs || f.NCarriers > packet.MaxCarriers {
				return fmt.Errorf("%w: %d VLANs, %d carriers", ErrCorrupt, f.NVLANs, f.NCarriers)
			}
			for i := range f.VLANs[:f.NVLANs] {
				f.VLANs[i] = r.uint16()
			}
			for i := range f.Carriers[:f.NCarriers] {
				v := binary.BigEndian.Uint32(r.fixed(4))
				f.Carriers[i] = packet.Carrier{Source: r.addr(v&1 != 0), VNI: v >> 1}
			}
		}
		if f.NCarriers > 0 {
			f.OuterPort = r.uint16()
		}
		if r.bad {
			return fmt.Errorf("%w: flow %d", ErrCorrupt, i)
		}
		p.states[i] = state{idStep: 1}
		prev = f
	}
	if len(r.b) != 0 {
		return fmt.Errorf("%w: %d bytes behind the flows", ErrCorrupt, len(r.b))
	}
	return nil
}

// resize returns a slice of n elements, whatever they are: s or, where that is too small, one with some room.
func resize[S ~[]E, E any](s S, n int) S {
	if cap(s) < n {
		s = make(S, n+n/4)
	}
	return s[:n]
}

// tenant reads a tenant: its number and, where that is new, its name.
func (p *Packets) tenant(r *reader) string {
	i, n := r.uvarint(), uint64(len(p.tenants))
	if i < n {
		return p.tenants[i]
	}
	name := r.take(r.uvarint())
	if i > n {
		return ""
	}
	// Mostly it is that of the batch before.
	if old := p.tenants[:cap(p.tenants)]; i < uint64(len(old)) && old[i] == string(name) {
		p.tenants = old[:i+1]
	} else {
		p.tenants = append(p.tenants, string(name))
	}
	return p.tenants[i]
}

// signShift moves the sign of a number of the width of a code to the top of 32 bits.
var signShift = [4]uint8{32, 24, 16, 0}

func signed(word uint32, code uint16) uint32 {
	s := signShift[code]
	return uint32(int32(word<<s) >> s)
}

func (p *Packets) decodePackets(n int, bytes, lowPart, highPart []byte) error {
	p.Packets = resize(p.Packets, n)
	le := binary.LittleEndian
	low, high := part{b: lowPart, end: len(lowPart)}, part{b: highPart, end: len(highPart)}
	payload := reader{b: bytes}
	flow, time := uint32(0), int64(0)
	for i := range p.Packets {
		if len(low.b)-low.at < slack {
			low.last(&p.tails[0])
		}
		if len(high.b)-high.at < slack {
			high.last(&p.tails[1])
		}
		l, h := low.b[low.at:][:slack], high.b[high.at:][:slack]
		ctrl := le.Uint16(l)

		code := ctrl >> codeTime & 3
		w := timeWidth[code]
		step := unzigzag(le.Uint64(h) << (64 - 8*w) >> (64 - 8*w))
		if step < 0 && i > 0 {
			p.Sorted = false
		}
		time += step
		at := int(w)
		sum := le.Uint16(h[at:])
		at += 2
		if code = ctrl >> codeFlow & 3; code != 0 {
			flow = uint32(le.Uint16(h[at:]))
			if code == 1 {
				flow &= 0xff
			}
			at += int(width[code])
		}
		if flow >= uint32(len(p.Flows)) || code == 3 {
			return fmt.Errorf("%w: packet %d of flow %d", ErrCorrupt, i, flow)
		}
		s := &p.states[flow]
		switch code = ctrl >> codeID & 3; code {
		case 0:
			s.id += uint32(s.idStep)
		case 3:
			s.id = le.Uint32(h[at:])
			s.idStep = 1
			at += 4
		default:
			d := uint16(signed(le.Uint32(h[at:]), code))
			s.id = s.id&^0xffff | uint32(uint16(s.id)+d)
			s.idStep = 1
			if d == 0 {
				s.idStep = 0
			}
			at += int(width[code])
		}
		code = ctrl >> codeSeq & 3
		s.seq += signed(le.Uint32(h[at:]), code)
		at += int(width[code])
		code = ctrl >> codeAck & 3
		s.ack += signed(le.Uint32(h[at:]), code)
		high.at += at + int(width[code])

		at = 2
		if code = ctrl >> codeLength & 3; code != 0 {
			s.length = le.Uint32(l[at:]) << signShift[code] >> signShift[code]
			at += int(width[code])
		}
		if ctrl&otherWindow != 0 {
			s.window = le.Uint16(l[at:])
			at += 2
		}
		if ctrl&otherFlags != 0 {
			s.flags = l[at]
			at++
		}
		if ctrl&otherHeaders != 0 {
			s.headers = uint32(l[at])
			at++
			if s.headers == longHeaders {
				s.headers = le.Uint32(l[at:])
				at += 4
			}
		}
		q := &p.Packets[i]
		*q = packet.Packet{
			Time: time, Flow: flow, Length: s.length, Payload: s.length - s.headers, ID: s.id, Checksum: sum,
			Flags: s.flags, Seq: s.seq, Ack: s.ack, Window: s.window, WindowScale: packet.NoWindowScale,
		}
		if s.headers > s.length {
			return fmt.Errorf("%w: packet %d of %d bytes has %d bytes of headers", ErrCorrupt, i, s.length, s.headers)
		}
		if ctrl&hasExtra != 0 {
			at += decodeExtra(q, l[at:], &payload)
		}
		low.at += at
		s.seq = expectedSeq(p.Flows[flow].Protocol, q)
	}
	if payload.bad || len(payload.b) != 0 || low.at != low.end || high.at != high.end {
		return fmt.Errorf("%w: its parts do not end with the last packet", ErrCorrupt)
	}
	return nil
}

// part is a part that is read a packet at a time.
type part struct {
	b       []byte
	at, end int
}

// last goes on in a copy of the last bytes of the part with zeros behind them. A part that is read beyond its
// end does not come back to it.
func (p *part) last(tail *[2 * slack]byte) {
	if p.at > p.end {
		p.end = -1
		p.at = 0
		return
	}
	rest := p.b[p.at:p.end]
	clear(tail[copy(tail[:], rest):])
	p.b, p.at, p.end = tail[:], 0, len(rest)
}

// decodeExtra reads the extra byte and what follows it, and returns how many bytes that were.
func decodeExtra(q *packet.Packet, l []byte, bytes *reader) int {
	le := binary.LittleEndian
	x, at := l[0], 1
	if x&hasFragment != 0 {
		q.Fragment = l[at]
		q.FragmentOffset = le.Uint16(l[at+1:])
		at += 3
	}
	if x&hasMSS != 0 {
		q.MSS = le.Uint16(l[at:])
		at += 2
	}
	if x&hasWindowScale != 0 {
		q.WindowScale = l[at]
		at++
	}
	if x&hasHead != 0 {
		q.Head = bytes.take(uint64(le.Uint16(l[at:])))
		at += 2
	}
	if x&hasData != 0 {
		n := q.Payload
		if x&dataIsPayload == 0 {
			n = le.Uint32(l[at:])
			at += 4
		}
		q.Data = bytes.take(uint64(n))
	}
	return at
}

// reader takes values off a column. Once it has run dry it is bad and gives zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint() uint64 {
	if len(r.b) > 0 && r.b[0] < 0x80 {
		v := r.b[0]
		r.b = r.b[1:]
		return uint64(v)
	}
	return r.longUvarint()
}

func (r *reader) longUvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

// take returns the next n bytes, without copying them.
func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

var zeros [16]byte

// fixed is take for at most 16 bytes, and gives as many zeros where the column has run dry.
func (r *reader) fixed(n int) []byte {
	if v := r.take(uint64(n)); v != nil {
		return v
	}
	return zeros[:n]
}

func (r *reader) uint16() uint16 { return binary.BigEndian.Uint16(r.fixed(2)) }

func (r *reader) addr(v6 bool) (a packet.Addr) {
	if v6 {
		copy(a[:], r.fixed(16))
	} else {
		a[10], a[11] = 0xff, 0xff
		copy(a[12:], r.fixed(4))
	}
	return a
}
