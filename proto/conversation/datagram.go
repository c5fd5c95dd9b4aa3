package conversation

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/tapweave/tapweave/proto/packet"
)

// payload is n random bytes.
func (w *writer) payload(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(w.Uint32())
	}
	return b
}

// udpBody is a UDP datagram without its checksum.
func (c *Conversation) udpBody(side int, payload []byte) []byte {
	b := make([]byte, 8+len(payload))
	binary.BigEndian.PutUint16(b, c.ends[side].port)
	binary.BigEndian.PutUint16(b[2:], c.ends[1-side].port)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	copy(b[8:], payload)
	return b
}

// sendUDP sends a datagram in one packet.
func (c *Conversation) sendUDP(side int, at int64, payload []byte) *Packet {
	p := c.send(side, at, c.udpBody(side, payload))
	p.checksum(6)
	p.Payload, p.Data = uint32(len(payload)), p.body[8:]
	return p
}

// udp writes a conversation of requests and answers.
func (w *writer) udp(at int64) {
	c := w.open(packet.ProtoUDP, []uint16{53, 123, 443, 1194})
	c.Kind = "udp"
	for range 1 + w.IntN(6) {
		c.sendUDP(0, at, w.payload(1+w.IntN(1200)))
		if !w.one(5) {
			at += w.between(50*time.Microsecond, 100*ms)
			for range 1 + w.IntN(3) {
				c.sendUDP(1, at, w.payload(1+w.IntN(1200)))
				at += w.between(time.Microsecond, ms)
			}
		}
		switch {
		case w.o.Silences && w.one(4):
			c.Kind = "udp with silences"
			at += w.between(62*s, 300*s)
		case w.o.Silences && w.one(4):
			at += w.between(20*s, 55*s)
		default:
			at += w.between(ms, 3*s)
		}
	}
	if w.one(3) {
		w.unreachable(c, c.Packets)
	}
}

// types of ICMP messages, for IPv4 and IPv6.
func icmpTypes(v6 bool) (echo, reply, unreachable, code uint8) {
	if v6 {
		return 128, 129, 1, 4
	}
	return 8, 0, 3, 3
}

// message is an ICMP message without its checksum.
func message(kind, code uint8, rest uint32, payload []byte) []byte {
	b := make([]byte, 8+len(payload))
	b[0], b[1] = kind, code
	binary.BigEndian.PutUint32(b[4:], rest)
	copy(b[8:], payload)
	return b
}

// ping begins a conversation of echoes.
func (w *writer) ping() *Conversation {
	c := w.open(packet.ProtoICMP, nil)
	if c.v6() {
		c.protocol = packet.ProtoICMPv6
	}
	echo, reply, _, _ := icmpTypes(c.v6())
	c.ends[0].port, c.ends[1].port = uint16(echo), uint16(reply)
	return c
}

// echo writes echoes and the replies to them.
func (w *writer) echo(at int64) {
	c := w.ping()
	c.Kind = "echo"
	id := w.Uint32N(1 << 16)
	send := func(side int, n uint32, payload []byte) {
		kind := uint8(c.ends[side].port)
		p := c.send(side, at, message(kind, 0, id<<16|n, payload))
		p.checksum(2)
		p.Flow.SrcPort, p.Flow.DstPort, p.Flow.ICMPID = uint16(kind), 0, uint16(id)
		p.Seq, p.Payload, p.Data = n, uint32(len(payload)), p.body[8:]
	}
	for n := range uint32(1 + w.IntN(8)) {
		payload := w.payload(w.IntN(300))
		if !w.one(8) {
			send(0, n, payload)
		}
		at += w.between(50*time.Microsecond, 50*ms)
		if !w.one(8) {
			send(1, n, payload)
		}
		at += w.between(200*ms, s)
	}
}

// fragmented writes a conversation of datagrams that come in pieces.
func (w *writer) fragmented(at int64) {
	var c *Conversation
	ping := w.one(3)
	if ping {
		c = w.ping()
	} else {
		c = w.open(packet.ProtoUDP, []uint16{53, 2049})
	}
	c.Kind = "fragments"
	c.ends[0].zero, c.ends[1].zero = false, false
	id := w.Uint32N(1 << 16)
	for n := range 1 + w.IntN(5) {
		side := w.IntN(2)
		payload := w.payload(1500 + w.IntN(5000))
		var b []byte
		at16 := 6
		if ping {
			at16 = 2
			b = message(uint8(c.ends[side].port), 0, id<<16|uint32(n), payload)
		} else {
			b = c.udpBody(side, payload)
		}
		w.pieces(c, side, at, b, at16)
		at += w.between(20*ms, 2*s)
	}
}

// pieces sends a datagram, whose checksum is at an offset, in fragments, in any order, perhaps not all of them.
func (w *writer) pieces(c *Conversation, side int, at int64, b []byte, checksum int) {
	whole := c.send(side, at, b)
	whole.checksum(checksum)
	c.Packets = c.Packets[:len(c.Packets)-1]
	w.datagrams++
	id := w.Uint32()
	if !c.v6() {
		id = c.ends[side].id
	}
	size := 8 * (40 + w.IntN(140))
	var from []int
	for o := 0; o < len(b); o += size {
		from = append(from, o)
	}
	if w.one(3) {
		w.Shuffle(len(from), func(i, j int) { from[i], from[j] = from[j], from[i] })
	}
	lost := -1
	if w.one(6) {
		lost = w.IntN(len(from))
		c.Kind = "fragments, not all of them"
	}
	for i, o := range from {
		if i == lost {
			continue
		}
		end := min(o+size, len(b))
		p := c.send(side, at, b[o:end])
		at += w.between(time.Microsecond, ms)
		p.datagram = w.datagrams
		p.Flow.SrcPort, p.Flow.DstPort = 0, 0
		p.ID, p.FragmentOffset, p.Fragment = id, uint16(o), packet.IsFragment
		if end < len(b) {
			p.Fragment |= packet.MoreFragments
		}
		if c.v6() {
			p.Length += 8
		}
		p.Payload = uint32(end - o)
		p.Checksum = uint16(sum(0, p.body))
		if o < packet.HeadBytes {
			p.Head = p.body[:min(len(p.body), packet.HeadBytes-o)]
		}
	}
}

// unreachable writes an ICMP error about one of the packets.
func (w *writer) unreachable(about *Conversation, packets []*Packet) {
	if len(packets) == 0 {
		return
	}
	quoted := packets[w.IntN(len(packets))]
	protocol := uint8(packet.ProtoICMP)
	if about.v6() {
		protocol = packet.ProtoICMPv6
	}
	c := w.open(protocol, nil)
	c.Kind = fmt.Sprintf("an error about conversation %d", about.Number)
	n := uint32(c.Number)
	router := packet.Addr{0x20, 0x01, 0x0d, 0xb8, 0xff, 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)}
	if !about.v6() {
		router = packet.AddrFrom(netip.AddrFrom4([4]byte{172, 16 | byte(n>>16)&15, byte(n >> 8), byte(n)}))
	}
	c.ends[0].addr, c.ends[1] = router, about.ends[quoted.side]
	_, _, kind, code := icmpTypes(about.v6())
	c.ends[0].port, c.ends[1].port = uint16(kind), uint16(code)
	quote := quoted.ip()
	p := c.send(0, quoted.Time+w.between(60*ms, 200*ms), message(kind, code, 0, quote[:min(len(quote), 80)]))
	p.checksum(2)
	p.Flow.SrcPort, p.Flow.DstPort = uint16(kind), uint16(code)
	p.Payload, p.Data = uint32(len(p.body)-8), p.body[8:]
	p.Head = p.Data
	p.about = quoted
}
