package conversation

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/tapweave/tapweave/proto/packet"
)

const (
	ms = time.Millisecond
	s  = time.Second
)

// connection is one TCP connection as it was meant.
type connection struct {
	stream   [2][]byte // what each side sent, from position 1 on
	ended    bool      // by both FINs or a RST
	replaced bool      // a later connection began while this one was open
	near     bool      // something was sent twice, or closed twice, within the skew of clocks
}

// script writes the packets of one connection, one after the other.
type script struct {
	*writer
	c      *Conversation
	conn   *connection
	number int
	t      int64
	trip   time.Duration
	isn    [2]uint32
	next   [2]int64 // position behind all that was sent
	window [2]uint16
	scale  [2]uint8
	lossy  bool // even what opens and closes a connection may not be seen
	hidden int  // a side whose packets are not seen, -1 without one
	again  []piece
	did    []string

	begun, done int64 // when data began, and when it ended
}

// piece is a part of a stream that is to be sent again.
type piece struct {
	side  int
	at, n int64
}

// tcp writes a conversation of one connection or several.
func (w *writer) tcp(at int64) {
	c := w.open(packet.ProtoTCP, []uint16{22, 80, 443, 3306, 5432, 8080})
	var did []string
	n := 1
	if w.one(4) {
		n += 1 + w.IntN(2)
	}
	var scripts []*script
	for i := range n {
		k := &script{writer: w, c: c, conn: new(connection), number: i, t: at, trip: time.Duration(w.between(100*time.Microsecond, 80*ms)), hidden: -1}
		c.connections = append(c.connections, k.conn)
		for side := range 2 {
			k.isn[side] = w.isn(scripts, side)
			k.window[side] = uint16(2000 + w.IntN(60000))
			k.scale[side] = packet.NoWindowScale
			if w.one(2) {
				k.scale[side] = uint8(w.IntN(4))
			}
		}
		k.lossy = n == 1 && w.one(3)
		if n == 1 && w.one(12) {
			k.hidden = w.IntN(2)
			k.did = append(k.did, fmt.Sprintf("side %d not seen", k.hidden))
		}
		k.connect(i > 0)
		scripts = append(scripts, k)
		did = append(did, strings.Join(k.did, ", "))
		at = k.t
		switch {
		case !k.conn.ended:
			k.conn.replaced = i+1 < n
			at += w.between(100*ms, 4*s)
		case w.o.Silences && w.one(3):
			at += w.between(6*s, 200*s)
		default:
			at += w.between(60*ms, 4*s)
		}
	}
	for _, k := range scripts[:n-1] {
		// A packet of a connection that is over comes late, while the next one runs.
		if last := scripts[n-1]; k.conn.ended && w.one(3) && last.done-k.t < int64(60*s) && len(k.conn.stream[0]) > int(k.next[0])-3 && k.next[0] > 3 {
			did = append(did, "a straggler")
			u := *k
			u.t = last.begun + w.Int64N(last.done-last.begun+1)
			u.segment(0, packet.ACK, k.next[0]-2, 1)
		}
	}
	c.Kind = "tcp: " + strings.Join(did, "; then ")
	if n == 1 && w.one(8) {
		w.unreachable(c, c.Packets)
	}
}

// isn draws an initial sequence number that lies far from those of the connections before.
func (w *writer) isn(before []*script, side int) uint32 {
	for {
		n := w.Uint32()
		if w.one(4) {
			n = -w.Uint32N(4000)
		}
		far := true
		for _, k := range before {
			d := int32(n - k.isn[side])
			far = far && (d > 1<<26 || d < -1<<26)
		}
		if far {
			return n
		}
	}
}

// segment sends n bytes of a side's stream, from a position on.
func (k *script) segment(side int, flags uint8, at, n int64) *Packet {
	var payload []byte
	if n > 0 {
		payload = k.conn.stream[side][at-1 : at-1+n]
	}
	return k.packet(side, flags, at, payload)
}

// packet sends a packet. It is not written down if its side is hidden.
func (k *script) packet(side int, flags uint8, at int64, payload []byte) *Packet {
	header := 20
	scale := uint8(packet.NoWindowScale)
	if flags&packet.SYN != 0 {
		header = 24
		if scale = k.scale[side]; scale != packet.NoWindowScale {
			header = 28
		}
	}
	b := make([]byte, header+len(payload))
	from, to := &k.c.ends[side], &k.c.ends[1-side]
	be := binary.BigEndian
	be.PutUint16(b, from.port)
	be.PutUint16(b[2:], to.port)
	seq, ack := k.isn[side]+uint32(at), uint32(0)
	if flags&packet.ACK != 0 {
		ack = k.isn[1-side] + uint32(k.next[1-side])
	}
	be.PutUint32(b[4:], seq)
	be.PutUint32(b[8:], ack)
	b[12], b[13] = byte(header/4)<<4, flags
	be.PutUint16(b[14:], k.window[side])
	mss := uint16(0)
	if header > 20 {
		mss = 1460
		copy(b[20:], []byte{2, 4, byte(mss >> 8), byte(mss & 0xff)})
	}
	if header > 24 {
		copy(b[24:], []byte{1, 3, 3, scale})
	}
	copy(b[header:], payload)
	n := len(k.c.Packets)
	p := k.c.send(side, k.t, b)
	k.t += k.between(10*time.Microsecond, 400*time.Microsecond)
	if k.hidden == side {
		k.c.Packets = k.c.Packets[:n]
	}
	p.checksum(16)
	p.connection, p.position = k.number, at
	p.Seq, p.Ack, p.Flags, p.Window, p.MSS, p.WindowScale = seq, ack, flags, k.window[side], mss, scale
	p.Payload, p.Data = uint32(len(payload)), payload
	return p
}

// unseen takes the packet sent last out again: it was lost before the tap, or the tap did not see it.
func (k *script) unseen(p *Packet) {
	if n := len(k.c.Packets); n > 0 && k.c.Packets[n-1] == p {
		k.c.Packets = k.c.Packets[:n-1]
	}
}

// control sends what opens or closes a connection.
func (k *script) control(side int, flags uint8, at int64) {
	p := k.segment(side, flags, at, 0)
	if k.lossy && k.one(6) {
		k.unseen(p)
	}
}

func (k *script) wait(a, b time.Duration) { k.t += k.between(a, b) }

// halfTrip is the way from one side to the other, as the tap sees it.
func (k *script) halfTrip() { k.wait(k.trip/2, k.trip) }

// connect writes a connection from its first packet to its last. One that follows another on the same ports has all
// that tells them apart.
func (k *script) connect(follows bool) {
	how := k.IntN(20)
	switch {
	case follows && how < 14 || how < 12:
		k.handshake()
	case follows || how == 12:
		k.did = append(k.did, "SYN repeated")
		k.control(0, packet.SYN, 0)
		k.wait(900*ms, 1100*ms)
		k.handshake()
	case how == 13:
		k.did = append(k.did, "SYN-ACK repeated")
		k.control(0, packet.SYN, 0)
		k.next[0] = 1
		k.halfTrip()
		k.control(1, packet.SYN|packet.ACK, 0)
		k.wait(900*ms, 1100*ms)
		k.control(1, packet.SYN|packet.ACK, 0)
		k.next[1] = 1
		k.halfTrip()
		k.segment(0, packet.ACK, 1, 0)
	case how == 14:
		k.did = append(k.did, "no answer")
		k.control(0, packet.SYN, 0)
		for i := range k.IntN(4) {
			k.wait(s<<i, s<<i+100*ms)
			k.control(0, packet.SYN, 0)
		}
		return
	case how == 15:
		k.did = append(k.did, "refused")
		k.control(0, packet.SYN, 0)
		k.next[0] = 1
		k.halfTrip()
		k.control(1, packet.RST|packet.ACK, 0)
		k.conn.ended = true
		return
	case how == 16:
		k.did = append(k.did, "both open")
		k.control(0, packet.SYN, 0)
		k.wait(10*time.Microsecond, ms)
		k.control(1, packet.SYN, 0)
		k.conn.near = true
		k.next = [2]int64{1, 1}
		k.halfTrip()
		k.control(0, packet.SYN|packet.ACK, 0)
		k.control(1, packet.SYN|packet.ACK, 0)
	case how == 17:
		// The server acknowledges the SYN and sends one of its own, which the client answers.
		k.did = append(k.did, "split handshake")
		k.control(0, packet.SYN, 0)
		k.next[0] = 1
		k.halfTrip()
		if k.one(2) {
			p := k.segment(1, packet.ACK, 0, 0)
			if k.lossy && k.one(6) {
				k.unseen(p)
			}
		}
		k.control(1, packet.SYN, 0)
		k.next[1] = 1
		k.conn.near = true
		k.halfTrip()
		k.control(0, packet.SYN|packet.ACK, 0)
		k.halfTrip()
		k.control(1, packet.ACK, 1)
	default:
		k.did = append(k.did, "in mid-stream")
		k.next = [2]int64{1, 1}
	}
	k.begun = k.t
	for range k.IntN(8) {
		k.round(k.IntN(2))
	}
	k.done = k.t
	k.finish()
}

func (k *script) handshake() {
	k.control(0, packet.SYN, 0)
	k.next[0] = 1
	k.halfTrip()
	k.control(1, packet.SYN|packet.ACK, 0)
	k.next[1] = 1
	k.halfTrip()
	k.control(0, packet.ACK, 1)
}

// extend makes a side's stream n bytes longer.
func (k *script) extend(side int, n int64) {
	stream := &k.conn.stream[side]
	if len(*stream) == 0 && side == 0 && k.one(2) {
		*stream = append(*stream, "GET /index.html HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: test\r\n\r\n"...)
	}
	for int64(len(*stream)) < k.next[side]-1+n {
		*stream = append(*stream, byte(k.Uint32()))
	}
	k.next[side] += n
}

// round lets one side send a few segments, and the other acknowledge them.
func (k *script) round(side int) {
	k.halfTrip()
	for range 1 + k.IntN(6) {
		n := int64(1 + k.IntN(1400))
		at := k.next[side]
		k.extend(side, n)
		p := k.segment(side, packet.ACK|packet.PSH, at, n)
		switch k.IntN(24) {
		case 0:
			k.note("lost")
			k.unseen(p)
		case 1, 2:
			k.note("lost and repeated")
			k.unseen(p)
			k.again = append(k.again, piece{side, at, n})
		case 3:
			k.note("repeated")
			k.again = append(k.again, piece{side, at, n})
		case 4:
			k.note("reordered")
			p.Time += k.between(100*time.Microsecond, 2*ms)
		case 5:
			k.note("overlapping")
			from := max(1, at-int64(k.IntN(300)))
			k.again = append(k.again, piece{side, from, 1 + k.Int64N(k.next[side]-from)})
		}
	}
	other := 1 - side
	if k.one(2) {
		k.halfTrip()
		k.segment(other, packet.ACK, k.next[other], 0)
		for k.one(4) {
			k.segment(other, packet.ACK, k.next[other], 0)
		}
	}
	if k.one(12) {
		k.note("zero window")
		was := k.window[other]
		k.window[other] = 0
		k.segment(other, packet.ACK, k.next[other], 0)
		k.wait(200*ms, 600*ms)
		k.window[other] = was
		k.segment(other, packet.ACK, k.next[other], 0)
	}
	k.repeat()
	if k.one(12) && k.next[side] > 2 {
		k.note("keep-alive")
		if k.o.Silences && k.one(3) {
			k.wait(45*s, 3000*s)
		} else {
			k.wait(100*ms, s)
		}
		k.segment(side, packet.ACK, k.next[side]-1, k.Int64N(2))
		k.halfTrip()
		k.segment(other, packet.ACK, k.next[other], 0)
		k.wait(60*ms, 90*ms) // it would not be known for one behind what is sent next
	}
	if k.one(30) {
		k.note("blind RST")
		p := k.segment(side, packet.RST, k.next[side]+1<<27+k.Int64N(1<<20), 0)
		p.blind = true
	}
}

func (k *script) note(what string) {
	for _, d := range k.did {
		if d == what {
			return
		}
	}
	k.did = append(k.did, what)
}

// repeat sends again what is to be sent again.
func (k *script) repeat() {
	for _, p := range k.again {
		if k.one(3) {
			k.wait(time.Microsecond, 30*ms)
			k.conn.near = true
		} else {
			k.wait(60*ms, 400*ms)
		}
		payload := k.conn.stream[p.side][p.at-1 : p.at-1+p.n]
		if k.one(8) {
			k.note("other bytes")
			payload = append([]byte(nil), payload...)
			for range 1 + k.IntN(5) {
				payload[k.IntN(len(payload))] ^= 0x55
			}
		}
		k.packet(p.side, packet.ACK|packet.PSH, p.at, payload)
	}
	k.again = k.again[:0]
}

// finish ends the connection in one of many ways, or not at all.
func (k *script) finish() {
	k.halfTrip()
	side := k.IntN(2)
	fin := func(side int) {
		k.control(side, packet.FIN|packet.ACK, k.next[side])
		k.next[side]++
	}
	rst := func(side int) {
		flags := uint8(packet.RST)
		if k.one(2) {
			flags |= packet.ACK
		}
		k.control(side, flags, k.next[side])
		k.conn.ended = true
	}
	switch how := k.IntN(12); {
	case how < 6:
		k.note("FIN")
		fin(side)
		k.halfTrip()
		if k.one(3) {
			k.note("half-closed")
			k.segment(1-side, packet.ACK, k.next[1-side], 0)
			for range k.IntN(3) {
				k.round(1 - side)
			}
			k.halfTrip()
		}
		fin(1 - side)
		k.halfTrip()
		k.segment(side, packet.ACK, k.next[side], 0)
		k.conn.ended = true
	case how == 6:
		k.note("both FINs at once")
		fin(side)
		fin(1 - side)
		k.halfTrip()
		k.segment(side, packet.ACK, k.next[side], 0)
		k.segment(1-side, packet.ACK, k.next[1-side], 0)
		k.conn.ended = true
	case how == 7:
		k.note("RST")
		rst(side)
	case how == 8:
		k.note("RST by both")
		rst(side)
		k.wait(time.Microsecond, 100*ms)
		rst(1 - side)
		k.conn.near = true
	case how == 9:
		k.note("FIN, then RST")
		fin(side)
		k.wait(60*ms, 200*ms)
		rst(1 - side)
	case how == 10:
		k.note("one FIN")
		fin(side)
	default:
		k.note("left open")
	}
	if k.conn.ended && k.one(3) && k.next[side] > 2 {
		k.note("repeated after the end")
		most := 4 * s
		if k.o.Silences && k.one(2) {
			most = 100 * s
		}
		k.wait(60*ms, most)
		k.segment(side, packet.ACK, k.next[side]-2, 0)
		if int(k.next[side]-2) < len(k.conn.stream[side]) {
			k.segment(side, packet.ACK|packet.PSH, k.next[side]-2, 1)
		}
	}
}
