package batch

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/klauspost/compress/s2"

	"github.com/tapweave/tapweave/proto/packet"
)

// Encoder collects packets and encodes them as one batch. It is reused from batch to batch and then allocates
// nothing. It is not safe for concurrent use.
type Encoder struct {
	cols    [columns][]byte
	flows   []packet.Flow
	hashes  []uint32
	states  []state
	table   []uint32 // open addressing; index into flows, plus one
	tenants []string
	packets int
	last    uint32 // flow of the packet before
	time    int64  // of the packet before
	oldest  int64  // time of the oldest packet
	body    []byte
}

// NewEncoder returns an encoder of an empty batch.
func NewEncoder() *Encoder { return &Encoder{table: make([]uint32, 256), oldest: math.MaxInt64} }

// Len is the number of packets in the batch.
func (e *Encoder) Len() int { return e.packets }

// Oldest is the capture time of the oldest packet in the batch, math.MaxInt64 without any.
func (e *Encoder) Oldest() int64 { return e.oldest }

// Size is the number of bytes in the batch before compression.
func (e *Encoder) Size() int {
	n := 0
	for i := range e.cols {
		n += len(e.cols[i])
	}
	return n
}

// Append adds a packet of flow f; p.Flow is not looked at. Neither is kept. The batch must hold fewer than
// MaxPackets.
func (e *Encoder) Append(f *packet.Flow, p *packet.Packet) {
	flow := e.flow(f)
	s := &e.states[flow]
	c := &e.cols
	var ctrl uint8
	if flow == e.last {
		ctrl |= sameFlow
	} else {
		c[colFlow] = putUvarint(c[colFlow], uint64(flow))
		e.last = flow
	}
	c[colTime] = putUvarint(c[colTime], zigzag(p.Time-e.time))
	e.time = p.Time
	e.oldest = min(e.oldest, p.Time)
	c[colLength] = putUvarint(c[colLength], uint64(p.Length))
	c[colSum] = append(c[colSum], byte(p.Checksum), byte(p.Checksum>>8))
	if p.ID == s.id+s.idStep {
		ctrl |= nextID
	} else {
		c[colID] = putUvarint(c[colID], zigzag(int64(int32(p.ID-s.id))))
		s.idStep = 1
		if p.ID == s.id {
			s.idStep = 0
		}
	}
	s.id = p.ID
	if p.Seq == s.seq {
		ctrl |= nextSeq
	} else {
		c[colSeq] = putUvarint(c[colSeq], zigzag(int64(int32(p.Seq-s.seq))))
	}
	s.seq = expectedSeq(f.Protocol, p)
	if p.Ack == s.ack {
		ctrl |= sameAck
	} else {
		c[colAck] = putUvarint(c[colAck], zigzag(int64(int32(p.Ack-s.ack))))
		s.ack = p.Ack
	}
	if p.Window == s.window {
		ctrl |= sameWindow
	} else {
		c[colWindow] = putUvarint(c[colWindow], zigzag(int64(p.Window)-int64(s.window)))
		s.window = p.Window
	}
	if p.Flags == s.flags {
		ctrl |= sameFlags
	} else {
		c[colMisc] = append(c[colMisc], p.Flags)
		s.flags = p.Flags
	}
	if o := p.Length - p.Payload; o == s.overhead {
		ctrl |= sameOverhead
	} else {
		c[colMisc] = putUvarint(c[colMisc], uint64(o))
		s.overhead = o
	}
	if p.Fragment == 0 && p.Flags&packet.SYN == 0 && len(p.Head) == 0 && len(p.Data) == 0 {
		ctrl |= noExtra
	} else {
		e.extra(p)
	}
	c[colControl] = append(c[colControl], ctrl)
	e.packets++
}

func (e *Encoder) extra(p *packet.Packet) {
	var x uint8
	if p.Fragment != 0 {
		x |= hasFragment
	}
	if p.Flags&packet.SYN != 0 {
		if p.MSS != 0 {
			x |= hasMSS
		}
		if p.WindowScale != packet.NoWindowScale {
			x |= hasWindowScale
		}
	}
	if len(p.Head) > 0 {
		x |= hasHead
	}
	if len(p.Data) > 0 {
		x |= hasData
		if len(p.Data) == int(p.Payload) {
			x |= dataIsPayload
		}
	}
	m := append(e.cols[colMisc], x)
	if x&hasFragment != 0 {
		m = append(m, p.Fragment)
		m = putUvarint(m, uint64(p.FragmentOffset))
	}
	if x&hasMSS != 0 {
		m = putUvarint(m, uint64(p.MSS))
	}
	if x&hasWindowScale != 0 {
		m = append(m, p.WindowScale)
	}
	if x&hasHead != 0 {
		m = putUvarint(m, uint64(len(p.Head)))
		e.cols[colBytes] = append(e.cols[colBytes], p.Head...)
	}
	if x&hasData != 0 {
		if x&dataIsPayload == 0 {
			m = putUvarint(m, uint64(len(p.Data)))
		}
		e.cols[colBytes] = append(e.cols[colBytes], p.Data...)
	}
	e.cols[colMisc] = m
}

// expectedSeq is the sequence number that the flow's next packet bears if nothing is lost or reordered.
func expectedSeq(protocol uint8, p *packet.Packet) uint32 {
	if protocol != packet.ProtoTCP || p.Fragment != 0 {
		return p.Seq
	}
	return p.Seq + p.Payload + uint32(p.Flags&packet.FIN) + uint32(p.Flags&packet.SYN)>>1
}

// flow returns the index of f in the batch, adding it if it is new.
func (e *Encoder) flow(f *packet.Flow) uint32 {
	h := hashFlow(f)
	mask := uint32(len(e.table) - 1)
	i := h & mask
	for {
		t := e.table[i]
		if t == 0 {
			break
		}
		if e.hashes[t-1] == h && e.flows[t-1] == *f {
			return t - 1
		}
		i = (i + 1) & mask
	}
	n := uint32(len(e.flows))
	e.flows = append(e.flows, *f)
	e.hashes = append(e.hashes, h)
	e.states = append(e.states, state{idStep: 1})
	e.appendFlow(n)
	if len(e.flows)*2 > len(e.table) {
		e.table = make([]uint32, 2*len(e.table))
		mask = uint32(len(e.table) - 1)
		for j, h := range e.hashes {
			i := h & mask
			for e.table[i] != 0 {
				i = (i + 1) & mask
			}
			e.table[i] = uint32(j + 1)
		}
		return n
	}
	e.table[i] = n + 1
	return n
}

func hashFlow(f *packet.Flow) uint32 {
	const k = 0x9e3779b97f4a7c15
	m := func(h, v uint64) uint64 {
		hi, lo := bits.Mul64(h^v, k)
		return hi ^ lo
	}
	le := binary.LittleEndian
	h := m(le.Uint64(f.Src[:8])^bits.RotateLeft64(le.Uint64(f.Dst[:8]), 17), le.Uint64(f.Src[8:]))
	h = m(h, le.Uint64(f.Dst[8:]))
	h = m(h, uint64(f.SrcPort)<<48|uint64(f.DstPort)<<32|uint64(f.Protocol)<<24|uint64(f.TTL)<<16|uint64(f.OuterPort))
	h = m(h, uint64(f.ICMPID)<<48|uint64(le.Uint32(f.SrcMAC[2:]))^le.Uint64(f.Carriers[0].Source[8:])^uint64(f.Carriers[0].VNI)<<40^uint64(f.VLANs[0])<<20)
	return uint32(h ^ h>>32)
}

// appendFlow writes flow n, as it departs from the flow before:
// bits; [tenant index]; protocol, TTL; [addresses]; ports; [ICMP id]; [MACs]; [VLANs, carriers]; [outer port].
func (e *Encoder) appendFlow(n uint32) {
	f := &e.flows[n]
	var prev packet.Flow
	if n > 0 {
		prev = e.flows[n-1]
	}
	var x uint8
	if f.V6 {
		x |= flowV6
	}
	switch {
	case f.Src == prev.Src && f.Dst == prev.Dst:
		x |= flowSameAddrs
	case f.Src == prev.Dst && f.Dst == prev.Src:
		x |= flowSwappedAddrs
	}
	switch {
	case f.SrcMAC == prev.SrcMAC && f.DstMAC == prev.DstMAC:
		x |= flowSameMACs
	case f.SrcMAC == prev.DstMAC && f.DstMAC == prev.SrcMAC:
		x |= flowSwappedMACs
	}
	if f.NVLANs == prev.NVLANs && f.VLANs == prev.VLANs && f.NCarriers == prev.NCarriers && f.Carriers == prev.Carriers {
		x |= flowSamePath
	}
	if f.Tenant != "" {
		x |= flowTenant
	}
	if f.ICMPID != 0 {
		x |= flowICMPID
	}
	b := append(e.cols[colFlows], x)
	if x&flowTenant != 0 {
		b = putUvarint(b, uint64(e.tenant(f.Tenant)))
	}
	b = append(b, f.Protocol, f.TTL)
	if x&(flowSameAddrs|flowSwappedAddrs) == 0 {
		b = putAddr(b, &f.Src, f.V6)
		b = putAddr(b, &f.Dst, f.V6)
	}
	b = binary.BigEndian.AppendUint16(b, f.SrcPort)
	b = binary.BigEndian.AppendUint16(b, f.DstPort)
	if x&flowICMPID != 0 {
		b = binary.BigEndian.AppendUint16(b, f.ICMPID)
	}
	if x&(flowSameMACs|flowSwappedMACs) == 0 {
		b = append(append(b, f.SrcMAC[:]...), f.DstMAC[:]...)
	}
	if x&flowSamePath == 0 {
		b = append(b, f.NVLANs<<4|f.NCarriers)
		for _, v := range f.VLANs[:f.NVLANs] {
			b = binary.BigEndian.AppendUint16(b, v)
		}
		for i := range f.Carriers[:f.NCarriers] {
			c := &f.Carriers[i]
			v6 := !c.Source.Netip().Is4()
			b = binary.BigEndian.AppendUint32(b, c.VNI<<1|bit(v6))
			b = putAddr(b, &c.Source, v6)
		}
	}
	if f.NCarriers > 0 {
		b = binary.BigEndian.AppendUint16(b, f.OuterPort)
	}
	e.cols[colFlows] = b
}

// tenant returns the index of a tenant's name in the batch. There are few in one batch.
func (e *Encoder) tenant(name string) int {
	for i, t := range e.tenants {
		if t == name {
			return i
		}
	}
	e.tenants = append(e.tenants, name)
	return len(e.tenants) - 1
}

// Seal appends the encoded batch to dst and empties the encoder.
func (e *Encoder) Seal(dst []byte, c Compression) []byte {
	body := e.body[:0]
	body = putUvarint(body, uint64(e.packets))
	body = putUvarint(body, uint64(len(e.flows)))
	body = putUvarint(body, uint64(len(e.tenants)))
	for _, t := range e.tenants {
		body = putUvarint(body, uint64(len(t)))
		body = append(body, t...)
	}
	for i := range e.cols {
		body = putUvarint(body, uint64(len(e.cols[i])))
	}
	size := len(body) + e.Size()
	dst = append(dst, Version, byte(c))
	dst = putUvarint(dst, uint64(size))
	if c == None {
		dst = append(dst, body...)
		for i := range e.cols {
			dst = append(dst, e.cols[i]...)
		}
	} else {
		for i := range e.cols {
			body = append(body, e.cols[i]...)
		}
		at, most := len(dst), s2.MaxEncodedLen(size)
		if cap(dst)-at < most {
			dst = append(make([]byte, 0, at+most), dst...)
		}
		dst = dst[:at+len(s2.Encode(dst[at:at+most], body))]
	}
	e.body = body[:0]
	e.reset()
	return dst
}

func (e *Encoder) reset() {
	for i := range e.cols {
		e.cols[i] = e.cols[i][:0]
	}
	clear(e.table)
	e.flows, e.hashes, e.states, e.tenants = e.flows[:0], e.hashes[:0], e.states[:0], e.tenants[:0]
	e.packets, e.last, e.time, e.oldest = 0, 0, 0, math.MaxInt64
}

func putAddr(b []byte, a *packet.Addr, v6 bool) []byte {
	if v6 {
		return append(b, a[:]...)
	}
	return append(b, a[12:]...)
}

func putUvarint(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func bit(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}
