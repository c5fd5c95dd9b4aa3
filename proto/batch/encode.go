package batch

import (
	"encoding/binary"
	"math"
	"math/bits"
	"slices"

	"github.com/klauspost/compress/s2"

	"github.com/tapweave/tapweave/proto/packet"
)

// Encoder collects packets and encodes them as one batch. It is reused from batch to batch and then allocates
// nothing. It is not safe for concurrent use.
type Encoder struct {
	body      []byte // room for the header, and the part bytes
	low, high []byte
	fresh     []byte // the part flows
	sealed    []byte
	flows     []known
	table     []uint64 // open addressing: the upper half is that of the hash, the lower the flow's index plus one
	tenants   []string
	packets   int
	last      uint32 // flow of the packet before
	lastHash  uint64 // its hash
	time      int64  // of the packet before
	oldest    int64  // time of the oldest packet
}

// known is a flow of the batch, and what its next packet is compared with. What is looked at for every packet lies
// together, in as few lines of the processor's caches as possible.
type known struct {
	state
	flow packet.Flow
	_    [24]byte
}

// NewEncoder returns an encoder of an empty batch.
func NewEncoder() *Encoder {
	return &Encoder{table: make([]uint64, 256), body: make([]byte, header), oldest: math.MaxInt64}
}

// Len is the number of packets in the batch.
func (e *Encoder) Len() int { return e.packets }

// Oldest is the capture time of the oldest packet in the batch, math.MaxInt64 without any.
func (e *Encoder) Oldest() int64 { return e.oldest }

// Size is the number of bytes in the batch before compression.
func (e *Encoder) Size() int { return len(e.body) + len(e.low) + len(e.fresh) + len(e.high) }

// Append adds a packet of flow f; p.Flow is not looked at. Neither is kept. The batch must hold fewer than
// MaxPackets, and p.Head be shorter than 64 KiB.
func (e *Encoder) Append(f *packet.Flow, p *packet.Packet) { e.AppendHashed(Hash(f), f, p) }

// Slot and Touch bring what AppendHashed will read into the processor's caches: first the place at which a flow of this
// hash is looked for, then the flow that is there. Their results mean nothing else.
//
// The flows of many packets are together larger than the caches, so that most of the time of a look-up is spent waiting
// for memory. Whoever calls Slot for several packets, then Touch for all of them, waits for all at once.
func (e *Encoder) Slot(hash uint64) uint64 { return e.table[hash&uint64(len(e.table)-1)] }

// Touch is the second step, see Slot.
func (e *Encoder) Touch(slot uint64) uint32 {
	n := uint32(slot) - 1
	if n >= uint32(len(e.flows)) {
		return 0
	}
	k := &e.flows[n]
	return k.seq + uint32(k.flow.NCarriers) + k.flow.Carriers[0].VNI
}

// AppendHashed is Append for who knows the flow's Hash.
func (e *Encoder) AppendHashed(hash uint64, f *packet.Flow, p *packet.Packet) {
	le := binary.LittleEndian
	flow := e.flow(hash, f)
	s := &e.flows[flow].state
	e.high, e.low = room(e.high), room(e.low)
	high, low := e.high[len(e.high):][:slack], e.low[len(e.low):][:slack]

	// The widths of the codes decide how far to go; what was written beyond is written over.
	z := zigzag(p.Time - e.time)
	e.time = p.Time
	e.oldest = min(e.oldest, p.Time)
	code := timeCode[bits.Len64(z)]
	ctrl := uint16(code) << codeTime
	le.PutUint64(high, z)
	h := int(timeWidth[code])
	le.PutUint16(high[h:], p.Checksum)
	h += 2
	if flow != e.last {
		e.last = flow
		code := lengthCode(flow)
		le.PutUint16(high[h:], uint16(flow))
		h += int(width[code])
		ctrl |= uint16(code) << codeFlow
	}
	if d := p.ID - s.id; d != uint32(s.idStep) {
		code := 3
		if p.ID>>16 == s.id>>16 {
			code = signedCode(int32(int16(d)))
		}
		if code == 3 {
			d = p.ID
		}
		le.PutUint32(high[h:], d)
		h += int(width[code])
		ctrl |= uint16(code) << codeID
		s.idStep = 1
		if d == 0 && code != 3 {
			s.idStep = 0
		}
	}
	s.id = p.ID
	if d := p.Seq - s.seq; d != 0 {
		code := signedCode(int32(d))
		le.PutUint32(high[h:], d)
		h += int(width[code])
		ctrl |= uint16(code) << codeSeq
	}
	s.seq = expectedSeq(f.Protocol, p)
	if d := p.Ack - s.ack; d != 0 {
		code := signedCode(int32(d))
		le.PutUint32(high[h:], d)
		h += int(width[code])
		ctrl |= uint16(code) << codeAck
		s.ack = p.Ack
	}
	e.high = e.high[:len(e.high)+h]

	l := 2
	if p.Length != s.length {
		code := lengthCode(p.Length)
		le.PutUint32(low[l:], p.Length)
		l += int(width[code])
		ctrl |= uint16(code) << codeLength
		s.length = p.Length
	}
	if p.Window != s.window {
		ctrl |= otherWindow
		le.PutUint16(low[l:], p.Window)
		l += 2
		s.window = p.Window
	}
	if p.Flags != s.flags {
		ctrl |= otherFlags
		low[l] = p.Flags
		l++
		s.flags = p.Flags
	}
	if n := p.Length - p.Payload; n != s.headers {
		ctrl |= otherHeaders
		s.headers = n
		if n < longHeaders {
			low[l] = uint8(n)
			l++
		} else {
			low[l] = longHeaders
			le.PutUint32(low[l+1:], n)
			l += 5
		}
	}
	if p.Fragment != 0 || p.Flags&packet.SYN != 0 || len(p.Head)+len(p.Data) > 0 {
		ctrl |= hasExtra
		l += e.extra(low[l:], p)
	}
	le.PutUint16(low, ctrl)
	e.low = e.low[:len(e.low)+l]
	e.packets++
}

// timeCode is the code of a number by its bits.
var timeCode = func() (codes [65]uint8) {
	for n := range codes {
		for n > 8*int(timeWidth[codes[n]]) {
			codes[n]++
		}
	}
	return codes
}()

func signedCode(d int32) int {
	switch {
	case d == int32(int8(d)):
		return 1
	case d == int32(int16(d)):
		return 2
	}
	return 3
}

func lengthCode(n uint32) int {
	switch {
	case n < 1<<8:
		return 1
	case n < 1<<16:
		return 2
	}
	return 3
}

// room returns b with slack bytes to spare.
func room(b []byte) []byte {
	if cap(b)-len(b) < slack {
		return slices.Grow(b, max(slack, 1<<10))
	}
	return b
}

// extra writes the extra byte and what follows it, and returns how many bytes that took.
func (e *Encoder) extra(low []byte, p *packet.Packet) int {
	le := binary.LittleEndian
	x, l := uint8(0), 1
	if p.Fragment != 0 {
		x |= hasFragment
		low[l] = p.Fragment
		le.PutUint16(low[l+1:], p.FragmentOffset)
		l += 3
	}
	if p.Flags&packet.SYN != 0 {
		if p.MSS != 0 {
			x |= hasMSS
			le.PutUint16(low[l:], p.MSS)
			l += 2
		}
		if p.WindowScale != packet.NoWindowScale {
			x |= hasWindowScale
			low[l] = p.WindowScale
			l++
		}
	}
	if len(p.Head) > 0 {
		x |= hasHead
		le.PutUint16(low[l:], uint16(len(p.Head)))
		l += 2
		e.body = append(e.body, p.Head...)
	}
	if len(p.Data) > 0 {
		x |= hasData
		if len(p.Data) == int(p.Payload) {
			x |= dataIsPayload
		} else {
			le.PutUint32(low[l:], uint32(len(p.Data)))
			l += 4
		}
		e.body = append(e.body, p.Data...)
	}
	low[0] = x
	return l
}

// expectedSeq is the sequence number that the flow's next packet bears if nothing is lost or reordered.
func expectedSeq(protocol uint8, p *packet.Packet) uint32 {
	if protocol != packet.ProtoTCP || p.Fragment != 0 {
		return p.Seq
	}
	return p.Seq + p.Payload + uint32(p.Flags&packet.FIN) + uint32(p.Flags&packet.SYN)>>1
}

// same says whether two flows are equal. Of their arrays only what is in use is looked at: the rest is zero.
func same(a, b *packet.Flow) bool {
	if a.Src != b.Src || a.Dst != b.Dst || a.SrcPort != b.SrcPort || a.DstPort != b.DstPort || a.OuterPort != b.OuterPort ||
		a.Protocol != b.Protocol || a.TTL != b.TTL || a.ICMPID != b.ICMPID || a.NVLANs != b.NVLANs || a.NCarriers != b.NCarriers ||
		a.SrcMAC != b.SrcMAC || a.DstMAC != b.DstMAC || a.V6 != b.V6 || a.VLANs != b.VLANs || a.Tenant != b.Tenant {
		return false
	}
	for i := range a.Carriers[:a.NCarriers] {
		if a.Carriers[i] != b.Carriers[i] {
			return false
		}
	}
	return true
}

// maxProbes bounds the search for a flow, so that flows chosen for their hashes cost no time. One that was not
// found is written once more.
const maxProbes = 16

// flow returns the index of f, which has that hash, in the batch, adding it if it is new.
func (e *Encoder) flow(hash uint64, f *packet.Flow) uint32 {
	if hash == e.lastHash && e.packets > 0 && same(&e.flows[e.last].flow, f) {
		return e.last
	}
	e.lastHash = hash
	mask := uint64(len(e.table) - 1)
	i, probes := hash&mask, 0
	for ; e.table[i] != 0 && probes < maxProbes; probes++ {
		if t := e.table[i]; t>>32 == hash>>32 {
			if n := uint32(t) - 1; same(&e.flows[n].flow, f) {
				return n
			}
		}
		i = (i + 1) & mask
	}
	n := uint32(len(e.flows))
	e.table[i] = hash>>32<<32 | uint64(n+1)
	e.flows = append(e.flows, known{state: state{idStep: 1}, flow: *f})
	e.appendFlow(n)
	if len(e.flows)*2 > len(e.table) {
		e.grow()
	}
	return n
}

// grow doubles the table.
func (e *Encoder) grow() {
	e.table = make([]uint64, 2*len(e.table))
	mask := uint64(len(e.table) - 1)
	for n := range e.flows {
		hash := Hash(&e.flows[n].flow)
		i := hash & mask
		for probes := 0; e.table[i] != 0 && probes < maxProbes; probes++ {
			i = (i + 1) & mask
		}
		e.table[i] = hash>>32<<32 | uint64(n+1)
	}
}

// Hash is the hash of a flow by which batches find it.
func Hash(f *packet.Flow) uint64 {
	const k1, k2 = 0x9e3779b97f4a7c15, 0xd6e8feb86659fd93
	le := binary.LittleEndian
	c := &f.Carriers[0]
	a := le.Uint64(f.Src[8:]) ^ bits.RotateLeft64(le.Uint64(f.Src[:8]), 31) ^ uint64(f.SrcPort)<<16 ^ uint64(f.TTL)<<8
	b := le.Uint64(f.Dst[8:]) ^ bits.RotateLeft64(le.Uint64(f.Dst[:8]), 31) ^ uint64(f.DstPort) ^ uint64(f.Protocol)<<16
	d := le.Uint64(c.Source[8:]) ^ uint64(c.VNI) ^ uint64(f.OuterPort)<<16
	g := uint64(le.Uint32(f.SrcMAC[2:]))<<32 ^ uint64(le.Uint32(f.DstMAC[2:])) ^ uint64(f.ICMPID)<<24 ^ uint64(f.VLANs[0])<<40
	h1, l1 := bits.Mul64(a^k1, b^k2)
	h2, l2 := bits.Mul64(d^k2, g^k1)
	hi, lo := bits.Mul64(h1^l1^bits.RotateLeft64(h2^l2, 23), k1)
	return hi ^ lo
}

var noFlow packet.Flow

// appendFlow writes flow n, as it departs from the flow before:
// bits; [tenant]; protocol, TTL; [addresses]; ports; [ICMP id]; [MACs]; [VLANs, carriers]; [outer port].
func (e *Encoder) appendFlow(n uint32) {
	f := &e.flows[n].flow
	prev := &noFlow
	if n > 0 {
		prev = &e.flows[n-1].flow
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
	b := append(e.fresh, x)
	if x&flowTenant != 0 {
		b = e.appendTenant(b, f.Tenant)
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
	e.fresh = b
}

// appendTenant writes the number of a tenant in the batch, of which there are few, and where it is new its name.
func (e *Encoder) appendTenant(b []byte, name string) []byte {
	for i, t := range e.tenants {
		if t == name {
			return binary.AppendUvarint(b, uint64(i))
		}
	}
	b = binary.AppendUvarint(b, uint64(len(e.tenants)))
	e.tenants = append(e.tenants, name)
	b = binary.AppendUvarint(b, uint64(len(name)))
	return append(b, name...)
}

// Seal empties the encoder and returns the encoded batch, which is valid until the next call of Append.
func (e *Encoder) Seal(c Compression) []byte {
	var h [header]byte
	h[0], h[1] = Version, byte(c)
	for i, n := range [...]int{e.packets, len(e.flows), len(e.body) - header, len(e.low), len(e.fresh), len(e.high)} {
		binary.LittleEndian.PutUint32(h[2+4*i:], uint32(n))
	}
	copy(e.body, h[:])
	e.body = append(append(e.body, e.low...), e.fresh...)
	if c == None {
		e.body = append(e.body, e.high...)
		b := e.body
		e.reset()
		return b
	}
	packed := e.body[header:]
	if most := header + s2.MaxEncodedLen(len(packed)) + len(e.high); cap(e.sealed) < most {
		e.sealed = make([]byte, most)
	}
	b := e.sealed[:cap(e.sealed)]
	n := header + len(s2.Encode(b[copy(b, h[:]):], packed))
	b = append(b[:n], e.high...)
	e.reset()
	return b
}

func (e *Encoder) reset() {
	clear(e.table)
	e.body, e.low, e.fresh, e.high = e.body[:header], e.low[:0], e.fresh[:0], e.high[:0]
	e.flows, e.tenants = e.flows[:0], e.tenants[:0]
	e.packets, e.last, e.time, e.oldest = 0, 0, 0, math.MaxInt64
}

func putAddr(b []byte, a *packet.Addr, v6 bool) []byte {
	if v6 {
		return append(b, a[:]...)
	}
	return append(b, a[12:]...)
}

func bit(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}
