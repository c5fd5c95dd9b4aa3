// Package conversation writes traffic whose sessions are known, for tests.
//
// The same seed gives the same packets. What their sessions have to be follows from what was meant when the packets
// were written, and from a plain model of it (truth.go) that shares nothing with the fold: a stream is an array of
// bytes with a mark for each that was seen, positions in it are counted from the SYN and never wrap, a packet knows
// which connection it was sent for.
//
// The truth is that of the packets which were seen: whoever loses some, such as a collector that is killed, asks for
// that of the rest.
package conversation

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/tapweave/tapweave/proto/packet"
)

// Options of traffic.
type Options struct {
	Seed  uint64
	Start time.Time
	// Conversations is how many there are, beside the ICMP errors about them; they begin within Span.
	Conversations int
	Span          time.Duration
	// Silences lets some conversations pause for longer than idle timeouts: the traffic is hours long then.
	Silences bool
	// Resolution of the time stamps; 0: a nanosecond. A coarse one makes many packets of equal time.
	Resolution time.Duration
}

// Traffic is what goes past the taps.
type Traffic struct {
	Conversations []*Conversation
	Packets       []*Packet // of all conversations, in the order of their times
	Coarse        bool      // the resolution is coarse: the order of packets of one time is not known
}

// Conversation is all that is sent under one key: in TCP one connection or several after another.
type Conversation struct {
	Number  int
	Kind    string // for people
	Packets []*Packet

	protocol    uint8
	ends        [2]end // client, server
	connections []*connection
}

// end is one side of a conversation.
type end struct {
	addr packet.Addr
	port uint16
	mac  [6]byte
	ttl  uint8
	id   uint32 // IP identification sent last
	zero bool   // its packets are not to be fragmented and bear the identification 0 (RFC 6864)
}

// Packet is one packet on the wire.
type Packet struct {
	Flow packet.Flow // as it came, without a carrier
	packet.Packet

	Conversation *Conversation
	body         []byte // what follows the IP header
	side         int    // of the sender: 0 client, 1 server
	connection   int    // TCP: which of the conversation's
	position     int64  // TCP: of the first number that it occupies, or would; the SYN has 0
	blind        bool   // TCP: a RST that guesses
	datagram     int    // fragments of one datagram have the same number, counted from 1
	about        *Packet
}

// Unique says whether no other packet looks the same, so that its copies cannot be taken for another's.
func (p *Packet) Unique() bool { return p.ID != 0 && p.datagram == 0 }

// writer writes traffic.
type writer struct {
	*rand.Rand
	o         Options
	t         *Traffic
	datagrams int
}

// New writes traffic.
func New(o Options) *Traffic {
	w := &writer{Rand: rand.New(rand.NewPCG(o.Seed, 0x7a9)), o: o, t: &Traffic{Coarse: o.Resolution > 1}}
	for range o.Conversations {
		w.conversation()
	}
	for _, c := range w.t.Conversations {
		for _, p := range c.Packets {
			if w.t.Coarse {
				p.Time -= p.Time % int64(o.Resolution)
			}
		}
		slices.SortStableFunc(c.Packets, byTime)
		w.t.Packets = append(w.t.Packets, c.Packets...)
	}
	slices.SortStableFunc(w.t.Packets, byTime)
	return w.t
}

func byTime(a, b *Packet) int { return cmp.Compare(a.Time, b.Time) }

// conversation writes one conversation of any kind.
func (w *writer) conversation() {
	at := w.o.Start.UnixNano() + w.Int64N(int64(w.o.Span)+1)
	switch n := w.IntN(20); {
	case n < 13:
		w.tcp(at)
	case n < 16:
		w.udp(at)
	case n < 17:
		w.echo(at)
	default:
		w.fragmented(at)
	}
}

// between is a duration drawn evenly.
func (w *writer) between(a, b time.Duration) int64 { return int64(a) + w.Int64N(int64(b-a)+1) }

// one in n.
func (w *writer) one(n int) bool { return w.IntN(n) == 0 }

// open begins a conversation between a client and a server that no other one has.
func (w *writer) open(protocol uint8, servers []uint16) *Conversation {
	c := &Conversation{Number: len(w.t.Conversations), protocol: protocol}
	w.t.Conversations = append(w.t.Conversations, c)
	n := uint32(c.Number)
	v6 := w.one(4)
	for i := range c.ends {
		e := &c.ends[i]
		if v6 {
			e.addr = packet.Addr{0x20, 0x01, 0x0d, 0xb8, 12: byte(i), 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)}
		} else {
			// The server has the lower address as often as not.
			e.addr = packet.AddrFrom(netip.AddrFrom4([4]byte{10, byte(uint32(i)^n&1)<<4 | byte(n>>16), byte(n >> 8), byte(n)}))
		}
		e.mac = [6]byte{2, byte(i), byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
		e.ttl = []uint8{64, 128, 57}[w.IntN(3)]
		e.id, e.zero = w.Uint32N(1<<16), w.one(6)
	}
	if hasPorts(protocol) {
		c.ends[0].port = uint16(33000 + w.IntN(18000)) // a service's port is not among them
		c.ends[1].port = servers[w.IntN(len(servers))]
		if w.one(6) {
			c.ends[1].port = uint16(33000 + w.IntN(18000))
			for c.ends[1].port == c.ends[0].port {
				c.ends[1].port++
			}
		}
	}
	return c
}

func hasPorts(protocol uint8) bool { return protocol == packet.ProtoTCP || protocol == packet.ProtoUDP }

// service says whether a port is one that this package gives servers.
func service(port uint16) bool { return port < 33000 }

func (c *Conversation) v6() bool { return !c.ends[0].addr.Netip().Is4() }

// send writes a packet of one side, with body behind the IP header. What the headers say of it is for the caller
// to fill in.
func (c *Conversation) send(side int, at int64, body []byte) *Packet {
	from, to := &c.ends[side], &c.ends[1-side]
	header := uint32(20)
	if c.v6() {
		header = 40
	}
	p := &Packet{
		Flow: packet.Flow{
			Src: from.addr, Dst: to.addr, SrcPort: from.port, DstPort: to.port, Protocol: c.protocol,
			TTL: from.ttl, V6: c.v6(), SrcMAC: from.mac, DstMAC: to.mac,
		},
		Packet:       packet.Packet{Time: at, Length: header + uint32(len(body)), WindowScale: packet.NoWindowScale},
		Conversation: c, body: body, side: side,
	}
	if !from.zero && !c.v6() {
		from.id = from.id%0xffff + 1
		p.ID = from.id
	}
	c.Packets = append(c.Packets, p)
	return p
}

// String names a conversation for people.
func (c *Conversation) String() string {
	a, b := &c.ends[0], &c.ends[1]
	return fmt.Sprintf("conversation %d (%s, %v:%d to %v:%d, %d packets)", c.Number, c.Kind, a.addr, a.port, b.addr, b.port, len(c.Packets))
}

// String describes a packet for people: its sender, its place in the stream and what it carries.
func (p *Packet) String() string {
	from := [2]string{"client", "server"}[p.side]
	if p.Conversation.protocol != packet.ProtoTCP {
		return fmt.Sprintf("%s, %d bytes, id %d, offset %d", from, p.Length, p.ID, p.FragmentOffset)
	}
	flags := ""
	for i, letter := range "FSRPA" {
		if p.Flags&(1<<i) != 0 {
			flags += string(letter)
		}
	}
	return fmt.Sprintf("%s %d %s %d+%d, acknowledges %d", from, p.connection+1, flags, p.position, p.Payload, p.Ack)
}
