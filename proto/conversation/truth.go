package conversation

import (
	"math"
	"slices"

	"github.com/tapweave/tapweave/proto/packet"
)

// Session is what is known to be true of one session. Pairs are of src, dst.
type Session struct {
	Conversation *Conversation

	Src, Dst         packet.Addr
	SrcPort, DstPort uint16
	Start, End       int64

	Packets, Bytes, Payload             [2]uint64
	Missed, ZeroWindows                 [2]uint64
	Retransmits, OutOfOrder, Overlapped [2]uint64
	Flags                               [2]uint8
	ICMPErrors                          uint64
	HandshakeRTT, SrcRTT, DstRTT        float64 // seconds, NaN where none is to be given

	State, Close string // conn_state and close_reason, empty where the rules leave them open

	Unsure Doubt
	client int // which end of the conversation is src
}

// Protocol is the IP protocol number.
func (t *Session) Protocol() uint8 { return t.Conversation.protocol }

// Doubt is what is not certain of a session's truth.
type Doubt uint8

const (
	UnsureBorders     Doubt = 1 << iota // only the sums over the whole conversation are certain
	UnsureOrientation                   // which side is src
	UnsureOrder                         // what depends on the order of packets: retransmits, out of order, overlaps
	UnsureTrips                         // round trip times
	GuessedFromOrder                    // src is who was seen first
	NearRepeats                         // the order of some packets is within the skew of clocks
)

// Timeouts of sessions, as the design has them.
const (
	tcpIdle      = int64(3600 * s)
	halfOpenIdle = int64(60 * s)
	idle         = int64(60 * s)
)

// Sessions is the truth about the packets that were seen (nil: all), in the order of their conversations and times.
// The input ends at the time end.
func (t *Traffic) Sessions(seen func(*Packet) bool, end int64) []*Session {
	var all []*Session
	errors := map[*Conversation][]*Packet{}
	for _, c := range t.Conversations {
		var packets []*Packet
		for _, p := range c.Packets {
			if seen != nil && !seen(p) {
				continue
			}
			packets = append(packets, p)
			if p.about != nil {
				errors[p.about.Conversation] = append(errors[p.about.Conversation], p)
			}
		}
		var of []*Session
		if c.protocol == packet.ProtoTCP {
			of = c.tcpSessions(packets, end)
		} else {
			of = c.sessions(packets, end)
		}
		if t.Coarse {
			for _, s := range of {
				s.Unsure |= UnsureOrder | UnsureTrips
				if s.Unsure&GuessedFromOrder != 0 {
					s.Unsure |= UnsureOrientation
				}
				if s.Close == "fin" || s.Close == "rst" {
					s.Close = ""
				}
			}
		}
		all = append(all, of...)
	}
	for _, s := range all {
		for _, e := range errors[s.Conversation] {
			if s.Start < e.Time && s.next(all) > e.Time {
				s.ICMPErrors++
			}
		}
	}
	return all
}

// next is when the conversation's session after s begins.
func (s *Session) next(all []*Session) int64 {
	next := int64(math.MaxInt64)
	for _, o := range all {
		if o.Conversation == s.Conversation && o.Start > s.Start {
			next = min(next, o.Start)
		}
	}
	return next
}

// orient says who is src, given who was seen first.
func (s *Session) orient(client int) {
	c := s.Conversation
	s.client = client
	s.Src, s.SrcPort = c.ends[client].addr, c.ends[client].port
	s.Dst, s.DstPort = c.ends[1-client].addr, c.ends[1-client].port
	if client == 1 {
		for _, pair := range []*[2]uint64{&s.Packets, &s.Bytes, &s.Payload, &s.Missed, &s.ZeroWindows, &s.Retransmits, &s.OutOfOrder, &s.Overlapped} {
			pair[0], pair[1] = pair[1], pair[0]
		}
		s.Flags[0], s.Flags[1] = s.Flags[1], s.Flags[0]
	}
}

// guess says who the client is where no header does: who was seen first, but for one that answers from a
// service's port.
func (s *Session) guess(first int) int {
	c := s.Conversation
	from, to := service(c.ends[first].port), service(c.ends[1-first].port)
	switch {
	case from && !to:
		return 1 - first
	case to && !from:
		return first
	}
	s.Unsure |= GuessedFromOrder
	return first
}

// idleAt is how a session that nothing closed ends, given its last packet. Logs go on for a while behind the end, by
// what batches lag and clocks differ.
func idleAt(last, idle, end int64) string {
	const while = int64(3 * s)
	switch left := end - last - idle; {
	case left > while:
		return "idle"
	case left > -while:
		return ""
	}
	return "end"
}

// unit is one packet, or the fragments of one datagram.
type unit struct {
	time, since    int64
	side           int
	packets, bytes uint64
	payload        uint64
	incomplete     bool
}

// sessions is the truth about conversations that are not TCP: they are divided by silences alone.
func (c *Conversation) sessions(seen []*Packet, end int64) (all []*Session) {
	var units []unit
	datagrams := map[int][]*Packet{}
	for _, p := range seen {
		if p.datagram == 0 {
			units = append(units, unit{p.Time, p.Time, p.side, 1, uint64(p.Length), uint64(p.Payload), false})
		} else {
			datagrams[p.datagram] = append(datagrams[p.datagram], p)
		}
	}
	for _, pieces := range datagrams {
		u := unit{since: math.MaxInt64, side: pieces[0].side, incomplete: true}
		slices.SortFunc(pieces, func(a, b *Packet) int { return int(a.FragmentOffset) - int(b.FragmentOffset) })
		if pieces[0].FragmentOffset > 0 {
			continue // nobody knows whose it is
		}
		to := uint32(0)
		for _, p := range pieces {
			u.time, u.since = max(u.time, p.Time), min(u.since, p.Time)
			u.packets++
			u.bytes += uint64(p.Length)
			u.payload += uint64(p.Payload)
			if uint32(p.FragmentOffset) == to {
				to += p.Payload
				if p.Fragment&packet.MoreFragments == 0 {
					u.incomplete = false
				}
			}
		}
		u.payload -= 8 // the header of UDP or ICMP
		units = append(units, u)
	}
	slices.SortFunc(units, func(a, b unit) int {
		if a.time != b.time {
			return int(a.time - b.time)
		}
		return int(a.since - b.since)
	})
	var now *Session
	first := 0
	finish := func(last bool) {
		if now == nil {
			return
		}
		now.State = "OTH"
		client := 0
		if hasPorts(c.protocol) {
			client = now.guess(first)
			now.orient(client)
			switch {
			case now.Packets[0] > 0 && now.Packets[1] > 0:
				now.State = "SF"
			case now.Packets[0] > 0:
				now.State = "S0"
			default:
				now.State = "SHR"
			}
		} else {
			now.orient(client)
		}
		now.Close = "idle"
		if last {
			now.Close = idleAt(now.End, idle, end)
		}
		all = append(all, now)
	}
	for _, u := range units {
		if now == nil || u.time-now.End > idle {
			finish(false)
			now = &Session{Conversation: c, Start: u.since, HandshakeRTT: math.NaN(), SrcRTT: math.NaN(), DstRTT: math.NaN()}
			first = u.side
		}
		if gap := u.time - now.End; now.End > 0 && (gap > idle-int64(s) || u.incomplete && gap > idle/2) {
			now.Unsure |= UnsureBorders
		}
		if u.incomplete {
			now.Unsure |= UnsureOrientation // it is counted when nothing more of it is expected
		}
		now.Start, now.End = min(now.Start, u.since), max(now.End, u.time)
		now.Packets[u.side] += u.packets
		now.Bytes[u.side] += u.bytes
		now.Payload[u.side] += u.payload
	}
	finish(true)
	return all
}

// stream is what was seen of one side of a connection, position by position.
type stream struct {
	seen        []bool
	content     []byte // as it was first seen
	first, next int    // least position seen, and the one behind the greatest; next is 0 before any
}

// take marks positions as seen. It returns how many of them were new, and whether any new one lay below the
// greatest seen.
func (q *stream) take(from, to int) (fresh int, below bool) {
	if from == to {
		return 0, false
	}
	for len(q.seen) < to {
		q.seen = append(q.seen, false)
		q.content = append(q.content, 0)
	}
	for i := from; i < to; i++ {
		if !q.seen[i] {
			q.seen[i] = true
			fresh++
			below = below || i < q.next
		}
	}
	if q.next == 0 {
		q.first = from
	}
	q.first, q.next = min(q.first, from), max(q.next, to)
	return fresh, below
}

func (q *stream) missed() (n uint64) {
	for i := q.first; i < q.next; i++ {
		if !q.seen[i] {
			n++
		}
	}
	return n
}

// tcpSessions is the truth about the connections of a conversation.
func (c *Conversation) tcpSessions(seen []*Packet, end int64) (all []*Session) {
	complete := len(seen) == len(c.Packets)
	for number, conn := range c.connections {
		var packets []*Packet
		last := true
		for _, p := range seen {
			if p.connection == number {
				packets = append(packets, p)
			}
			last = last && p.connection <= number
		}
		if len(packets) == 0 {
			continue
		}
		s := c.tcpSession(conn, packets, end, last)
		if len(c.connections) > 1 && !complete {
			s.Unsure |= UnsureBorders
		}
		all = append(all, s)
	}
	return all
}

// tcpSession is the truth about one connection, from the packets of it that were seen; last says whether no other
// one followed.
func (c *Conversation) tcpSession(conn *connection, packets []*Packet, end int64, last bool) *Session {
	t := &Session{Conversation: c, Start: packets[0].Time, HandshakeRTT: math.NaN(), SrcRTT: math.NaN(), DstRTT: math.NaN()}
	var (
		streams            [2]stream
		syns, synACKs      [2]int
		fin, reset, beyond [2]bool // beyond: sent anything but SYN and RST
		more               bool    // anything but SYN, SYN-ACK and RST
		opener             = -1    // sender of the first SYN
		synAt, synACKAt    int64
		ackAt              int64
		resets             int
	)
	if packets[0].blind {
		t.Unsure |= UnsureBorders // there is nothing yet by which to tell
	}
	for _, p := range packets {
		if gap := p.Time - t.End; t.End > 0 && !more && gap > halfOpenIdle-int64(5e9) {
			t.Unsure |= UnsureBorders
		}
		t.End = max(t.End, p.Time)
		side := p.side
		t.Packets[side]++
		t.Bytes[side] += uint64(p.Length)
		if p.blind {
			continue
		}
		t.Flags[side] |= p.Flags
		if p.Flags&packet.RST != 0 {
			if t.Close == "" {
				t.Close = "rst"
			}
			reset[side] = true
			resets++
			continue
		}
		beyond[side] = beyond[side] || p.Flags&(packet.SYN|packet.ACK) != packet.SYN
		q := &streams[side]
		from := int(p.position)
		to := from + int(p.Payload)
		repeatsSYN := false
		switch {
		case p.Flags&packet.SYN == 0:
			more = true
		case p.Flags&packet.ACK == 0:
			to++
			if opener < 0 {
				opener, synAt = side, p.Time
			}
			syns[side]++
			repeatsSYN = syns[side] > 1
		default:
			to++
			if synACKs[side] == 0 {
				synACKAt = p.Time
			}
			synACKs[side]++
			repeatsSYN = synACKs[side] > 1
		}
		if p.Flags&packet.FIN != 0 {
			to++
			fin[side] = true
			if fin[1-side] && t.Close == "" {
				t.Close = "fin"
			}
		}
		if p.Window == 0 && p.Flags&(packet.SYN|packet.FIN) == 0 {
			t.ZeroWindows[side]++
		}
		if p.Flags&(packet.SYN|packet.ACK) == packet.ACK && ackAt == 0 && synACKs[1-side] > 0 {
			ackAt = p.Time
		}
		keepAlive := p.Payload <= 1 && p.Flags&packet.FIN == 0 && from == q.next-1
		begins := 0 // of the new positions, the SYN's
		if p.Flags&packet.SYN != 0 && (len(q.seen) == 0 || !q.seen[0]) {
			begins = 1
		}
		ends := 0 // and the FIN's
		if p.Flags&packet.FIN != 0 && (len(q.seen) < to || !q.seen[to-1]) {
			ends = 1
		}
		for i, b := range p.Data {
			at := from + i
			if at < len(q.seen) && q.seen[at] && q.content[at] != b {
				t.Overlapped[side]++
			}
		}
		known := slices.Clone(q.seen)
		fresh, below := q.take(from, to)
		for i, b := range p.Data {
			if at := from + i; at >= len(known) || !known[at] {
				q.content[at] = b
			}
		}
		t.Payload[side] += uint64(fresh - begins - ends)
		switch {
		case from == to:
		case p.Flags&packet.SYN != 0:
			if repeatsSYN {
				t.Retransmits[side]++
			}
			if begins > 0 && q.next > 1 {
				t.OutOfOrder[side]++
			}
		case fresh == 0 && !keepAlive:
			t.Retransmits[side]++
		case below:
			t.OutOfOrder[side]++
		}
	}
	for side := range streams {
		t.Missed[side] = streams[side].missed()
	}
	if conn.near {
		t.Unsure |= NearRepeats
	}

	client := 0
	switch {
	case opener >= 0:
		client = opener
		if syns[0] > 0 && syns[1] > 0 {
			t.Unsure |= GuessedFromOrder // both opened it
		}
	case synACKs[0] > 0 && synACKs[1] > 0:
		t.Unsure |= UnsureOrientation
	case synACKs[0] > 0:
		client = 1
	case synACKs[1] > 0:
		client = 0
	default:
		client = t.guess(packets[0].side)
	}
	server := 1 - client

	// RFC 6298, section 3: what a repeated SYN is answered by is not known.
	switch {
	case syns[0] > 0 && syns[1] > 0 || synACKs[0] > 0 && synACKs[1] > 0 || synACKs[client] > 0 || syns[server] > 0:
		t.Unsure |= UnsureTrips
	case syns[client] == 1 && synACKs[server] == 1 && (synACKAt < synAt || ackAt != 0 && ackAt < synACKAt):
		t.Unsure |= UnsureTrips
	case syns[client] > 1 || synACKs[server] > 1:
		t.Unsure |= UnsureTrips
	default:
		if synACKs[server] == 1 && ackAt != 0 {
			t.SrcRTT = float64(ackAt-synACKAt) / 1e9
		}
		if syns[client] == 1 && synACKs[server] == 1 {
			t.DstRTT = float64(synACKAt-synAt) / 1e9
			if ackAt != 0 {
				t.HandshakeRTT = float64(ackAt-synAt) / 1e9
			}
		}
	}

	// conn_state as Zeek's documentation of conn.log has it. What it leaves open stays open.
	opened, answered := syns[client]+synACKs[client] > 0, syns[server]+synACKs[server] > 0
	none := resets == 0 && !fin[0] && !fin[1]
	switch {
	case resets > 0 && fin[0] && fin[1]:
	case resets > 0 && fin[server] && reset[server] && !opened:
	case reset[0] && reset[1]:
	case opened && answered && fin[0] && fin[1]:
		t.State = "SF"
	case opened && answered && reset[client]:
		t.State = "RSTO"
	case opened && answered && reset[server]:
		t.State = "RSTR"
	case opened && answered && fin[client]:
		t.State = "S2"
	case opened && answered && fin[server]:
		t.State = "S3"
	case opened && answered:
		t.State = "S1"
	case opened && t.Packets[server] == 0 && reset[client]:
		if !beyond[client] { // Zeek calls it OTH with anything between SYN and RST
			t.State = "RSTOS0"
		}
	case opened && t.Packets[server] == 0 && fin[client]:
		t.State = "SH"
	case opened && t.Packets[server] == 0 && synACKs[client] == 0:
		t.State = "S0"
	case opened && reset[server] && t.Packets[server] == 1 && !reset[client] && !fin[client]:
		t.State = "REJ"
	case answered && t.Packets[client] == 0 && reset[server]:
		t.State = "RSTRH"
	case answered && t.Packets[client] == 0 && fin[server]:
		t.State = "SHR"
	case !opened && !answered && none:
		t.State = "OTH"
	}
	if t.Close == "" {
		most := tcpIdle
		if !more && opener >= 0 {
			most = halfOpenIdle
		}
		switch {
		case !last:
			t.Close = "reuse"
		default:
			t.Close = idleAt(t.End, most, end)
		}
	}
	t.orient(client)
	return t
}
