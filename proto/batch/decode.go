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

	states []state
	body   []byte
}

// Decode decodes a batch into p. What p held is overwritten, also where the input turns out to be corrupt.
func (p *Packets) Decode(b []byte) error {
	p.Flows, p.Packets, p.states, p.Sorted = p.Flows[:0], p.Packets[:0], p.states[:0], true
	if len(b) < 3 {
		return fmt.Errorf("%w: %d bytes", ErrCorrupt, len(b))
	}
	if b[0] != Version {
		return &VersionError{b[0], Version}
	}
	r := reader{b: b[2:]}
	size := r.uvarint()
	if r.bad || size > MaxBody {
		return fmt.Errorf("%w: body of %d bytes", ErrCorrupt, size)
	}
	switch Compression(b[1]) {
	case None:
		if uint64(len(r.b)) != size {
			return fmt.Errorf("%w: body of %d bytes said to have %d", ErrCorrupt, len(r.b), size)
		}
	case S2:
		// s2 blocks say their own length; check it before anything is allocated for it.
		if n, err := s2.DecodedLen(r.b); err != nil || uint64(n) != size {
			return fmt.Errorf("%w: compressed body", ErrCorrupt)
		}
		if cap(p.body) < int(size) {
			p.body = make([]byte, size)
		}
		body, err := s2.Decode(p.body[:size], r.b)
		if err != nil {
			return fmt.Errorf("%w: %v", ErrCorrupt, err)
		}
		r.b = body
	default:
		return fmt.Errorf("%w: compression %d", ErrCorrupt, b[1])
	}
	return p.decodeBody(r)
}

func (p *Packets) decodeBody(r reader) error {
	packets, flows, tenants := r.uvarint(), r.uvarint(), r.uvarint()
	if r.bad || packets > MaxPackets || flows > packets || tenants > flows {
		return fmt.Errorf("%w: %d packets, %d flows, %d tenants", ErrCorrupt, packets, flows, tenants)
	}
	var names []string
	for range tenants {
		name := string(r.take(r.uvarint()))
		if r.bad || name == "" {
			return fmt.Errorf("%w: tenants", ErrCorrupt)
		}
		names = append(names, name)
	}
	var lengths [columns]uint64
	for i := range lengths {
		lengths[i] = r.uvarint()
	}
	var cols [columns]reader
	for i := range cols {
		cols[i].b = r.take(lengths[i])
	}
	if r.bad || len(r.b) != 0 {
		return fmt.Errorf("%w: columns", ErrCorrupt)
	}
	const smallestFlow = 1 + 2 + 4
	if uint64(len(cols[colControl].b)) != packets || uint64(len(cols[colSum].b)) != 2*packets ||
		uint64(len(cols[colFlows].b)) < smallestFlow*flows {
		return fmt.Errorf("%w: %d packets, %d flows in columns of %d and %d bytes", ErrCorrupt, packets, flows, lengths[colControl], lengths[colFlows])
	}
	if err := p.decodeFlows(&cols[colFlows], int(flows), names); err != nil {
		return err
	}
	return p.decodePackets(&cols, int(packets))
}

func (p *Packets) decodeFlows(r *reader, n int, tenants []string) error {
	if cap(p.Flows) < n {
		p.Flows = make([]packet.Flow, 0, n)
		p.states = make([]state, 0, n)
	}
	var prev packet.Flow
	for range n {
		x := r.byte()
		f := packet.Flow{V6: x&flowV6 != 0}
		if x&flowTenant != 0 {
			i := r.uvarint()
			if i >= uint64(len(tenants)) {
				return fmt.Errorf("%w: tenant %d", ErrCorrupt, i)
			}
			f.Tenant = tenants[i]
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
			return fmt.Errorf("%w: flow %d", ErrCorrupt, len(p.Flows))
		}
		p.Flows = append(p.Flows, f)
		p.states = append(p.states, state{idStep: 1})
		prev = f
	}
	if len(r.b) != 0 {
		return fmt.Errorf("%w: %d bytes behind the flows", ErrCorrupt, len(r.b))
	}
	return nil
}

func (p *Packets) decodePackets(cols *[columns]reader, n int) error {
	if cap(p.Packets) < n {
		p.Packets = make([]packet.Packet, 0, n)
	}
	p.Packets = p.Packets[:n]
	control, sums := cols[colControl].b, cols[colSum].b
	times, lengths, misc := &cols[colTime], &cols[colLength], &cols[colMisc]
	flow, time := uint64(0), int64(0)
	for i := range p.Packets {
		ctrl := control[i]
		if ctrl&sameFlow == 0 {
			flow = cols[colFlow].uvarint()
		}
		if flow >= uint64(len(p.Flows)) {
			return fmt.Errorf("%w: packet %d of flow %d", ErrCorrupt, i, flow)
		}
		s := &p.states[flow]
		step := unzigzag(times.uvarint())
		if step < 0 && i > 0 {
			p.Sorted = false
		}
		time += step
		if ctrl&nextID != 0 {
			s.id += s.idStep
		} else {
			d := uint32(unzigzag(cols[colID].uvarint()))
			s.id += d
			s.idStep = 1
			if d == 0 {
				s.idStep = 0
			}
		}
		if ctrl&nextSeq == 0 {
			s.seq += uint32(unzigzag(cols[colSeq].uvarint()))
		}
		if ctrl&sameAck == 0 {
			s.ack += uint32(unzigzag(cols[colAck].uvarint()))
		}
		if ctrl&sameWindow == 0 {
			s.window += uint16(unzigzag(cols[colWindow].uvarint()))
		}
		if ctrl&sameFlags == 0 {
			s.flags = misc.byte()
		}
		if ctrl&sameOverhead == 0 {
			s.overhead = uint32(misc.uvarint())
		}
		length := uint32(lengths.uvarint())
		q := &p.Packets[i]
		*q = packet.Packet{
			Time: time, Flow: uint32(flow), Length: length, Payload: length - s.overhead, ID: s.id,
			Checksum: uint16(sums[2*i]) | uint16(sums[2*i+1])<<8,
			Flags:    s.flags, Seq: s.seq, Ack: s.ack, Window: s.window, WindowScale: packet.NoWindowScale,
		}
		if s.overhead > length {
			return fmt.Errorf("%w: packet %d of %d bytes has %d bytes of headers", ErrCorrupt, i, length, s.overhead)
		}
		if ctrl&noExtra == 0 {
			decodeExtra(q, misc, &cols[colBytes])
		}
		s.seq = expectedSeq(p.Flows[flow].Protocol, q)
	}
	for i := range cols {
		if i != colControl && i != colSum && i != colFlows && (cols[i].bad || len(cols[i].b) != 0) {
			return fmt.Errorf("%w: column %d", ErrCorrupt, i)
		}
	}
	return nil
}

func decodeExtra(q *packet.Packet, misc, bytes *reader) {
	x := misc.byte()
	if x&hasFragment != 0 {
		q.Fragment = misc.byte()
		q.FragmentOffset = uint16(misc.uvarint())
	}
	if x&hasMSS != 0 {
		q.MSS = uint16(misc.uvarint())
	}
	if x&hasWindowScale != 0 {
		q.WindowScale = misc.byte()
	}
	if x&hasHead != 0 {
		q.Head = bytes.take(misc.uvarint())
	}
	if x&hasData != 0 {
		n := uint64(q.Payload)
		if x&dataIsPayload == 0 {
			n = misc.uvarint()
		}
		q.Data = bytes.take(n)
	}
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
