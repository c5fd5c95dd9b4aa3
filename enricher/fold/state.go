package fold

import "github.com/tapweave/tapweave/proto/packet"

// connState returns Zeek's conn_state. The rules are those of conn_state() in Zeek's
// scripts/base/protocols/conn/main.zeek, over the states of the two ends that Zeek's TCPSessionAdapter keeps.
func (s *Session) connState(src uint8) string {
	a, b := &s.ends[src], &s.ends[1-src]
	switch s.key.Protocol {
	case packet.ProtoTCP:
		return tcpState(&a.sequence, &b.sequence, s.history.seen[src], a.payload+b.payload == 0)
	case packet.ProtoUDP, packet.ProtoUDPLite:
		switch {
		case a.packets > 0 && b.packets > 0:
			return "SF" // both sides spoke
		case a.packets > 0:
			return "S0"
		}
		return "SHR"
	}
	return "OTH"
}

// endState is the state that Zeek keeps for one end of a TCP connection.
type endState uint8

const (
	inactive    endState = iota // nothing of it was seen, or only that it acknowledged a SYN before it answered
	partial                     // seen in midstream, without a SYN
	synSent                     // its SYN, or a SYN-ACK out of the blue, has not been answered
	established                 // both have sent a SYN
	finished                    // it sent a FIN
	aborted                     // it sent a RST
)

// state is the state of the end q, opposite o; orig says whether q is the originator.
//
// Zeek follows the packets as they come. Here the state follows from what each side has sent, in whatever order
// that was seen: collectors' clocks differ. The two agree on packets in order, but for a RST that is followed by
// the FINs of both sides (a RST that both ignored): what Zeek calls RSTO or RSTR there is SF here.
func (q *sequence) state(o *sequence, orig bool) endState {
	const sentAnySYN = sentSYN | sentSYNACK
	switch {
	case q.has(sentFIN) && o.has(sentFIN):
		return finished // RSTs behind both FINs, or between them, change nothing
	case q.has(sentRST):
		return aborted
	case q.has(sentFIN):
		return finished
	case !orig && q.has(sentAnySYN):
		return established // it answered, or opened at the same time
	case orig && o.has(sentAnySYN) && q.has(sentAnySYN|acked):
		return established // a SYN, or without it, an acknowledgement of the SYN-ACK
	case q.has(sentAnySYN):
		return synSent
	case !q.has(spoke), !orig && o.has(sentSYN) && !q.has(tracked):
		return inactive
	}
	return partial
}

// tcpState is the state of a TCP connection whose originator is o and whose responder is r. seen are the letters
// of o's history; empty says that nobody sent payload.
func tcpState(o, r *sequence, seen uint16, empty bool) string {
	const more = 1<<eventSYNACK | 1<<eventACK | 1<<eventFIN | 1<<eventFINRST | 1<<eventManyFlags
	a, b := o.state(r, true), r.state(o, false)
	switch {
	case b == aborted && (a == synSent || a == aborted && empty):
		return "REJ" // connection attempt rejected
	case b == aborted && a <= partial:
		return "RSTRH" // the responder sent a RST, and nothing of the originator's SYN was seen
	case b == aborted:
		return "RSTR" // responder sent a RST
	case a == aborted && b > partial:
		return "RSTO" // established, originator aborted
	case a == aborted && o.has(sentSYN) && seen&more == 0:
		return "RSTOS0" // the originator sent a SYN and then a RST, no SYN-ACK
	case a == aborted:
		return "OTH" // a RST in midstream, the other side not established
	case a == finished && b == finished:
		return "SF" // normal establishment and termination
	case a == finished && b <= partial:
		return "SH" // the originator sent a FIN, no SYN-ACK
	case a == finished:
		return "S2" // established, close attempt by the originator
	case b == finished && a <= partial:
		return "SHR" // the responder sent a FIN, no SYN of the originator
	case b == finished:
		return "S3" // established, close attempt by the responder
	case a == synSent && b == inactive && !o.has(sentSYNACK):
		return "S0" // attempt seen, no reply
	case a == established && b == established:
		return "S1" // established, not terminated
	}
	return "OTH" // midstream traffic
}

// history is Zeek's record of what happened, a letter an event: upper case by the originator, lower case by the
// responder. Source: the documentation of conn.log in scripts/base/protocols/conn/main.zeek, and update_history
// and its neighbours in src/packet_analysis/protocol/tcp/TCPSessionAdapter.cc.
//
//	S  a SYN                       once a side, S or H
//	H  a SYN-ACK
//	A  an acknowledgement alone    once a side
//	D  payload                     once a side; UDP: any datagram
//	F  a FIN                       again where it ends at another sequence number than the side's last
//	R  a RST                       again where its sequence number differs from the side's last
//	I  FIN and RST in one          once a side; no other letter for these flags
//	Q  SYN with FIN or RST         once a side; no other letter for these flags
//	W  a zero window               the 1st, 10th, 100th … time; not in a RST, behind one, or behind the other side's FIN
//	T  payload that goes no further than what the side has sent already, repeated or out of order
//	                               the 1st, 10th, 100th … time
//	G  a gap: the other side acknowledged, on an established connection, what no packet had
//	                               the 1st, 10th, 100th … time; by the side whose bytes are missing
//	^  first of all: src is not who sent the first packet
//
// Zeek's C (bad checksum) and X (analysis given up) do not occur: checksums are not verified, as those of
// mirrored packets are often left to the network card, and nothing is given up.
type history struct {
	letters uint64 // lettersPerWord, of 5 bits: the letter's number, then 1 for the high end; more in extra.letters
	n       uint8
	seen    [2]uint16 // by letter
}

// event is a letter of a history.
type event uint8

const (
	eventSYN event = iota
	eventSYNACK
	eventACK
	eventData
	eventFIN
	eventRST
	eventFINRST
	eventManyFlags
	eventZeroWindow
	eventAgain
	eventGap
)

const (
	eventLetters   = "SHADFRIQWTG"
	lettersPerWord = 12
	moreLetters    = 2                                  // words
	maxHistory     = (1 + moreLetters) * lettersPerWord // what comes behind is left out
)

// once notes an event that is noted once a side, and says whether it was the first.
func (s *Session) once(e event, side uint8) bool {
	h := &s.history
	if h.seen[side]&(1<<e) != 0 {
		return false
	}
	h.seen[side] |= 1 << e
	s.happened(e, side)
	return true
}

// scaled counts an event, and notes it at powers of ten.
func (s *Session) scaled(e event, side uint8, count *uint32) {
	*count++
	n := *count
	for n > 1 && n%10 == 0 {
		n /= 10
	}
	if n == 1 {
		s.happened(e, side)
	}
}

// happened notes an event.
func (s *Session) happened(e event, side uint8) {
	h := &s.history
	if h.n == maxHistory {
		return
	}
	word := &h.letters
	if n := h.n / lettersPerWord; n > 0 {
		word = &s.own().letters[n-1]
	}
	*word |= uint64(uint8(e)|side<<4) << (5 * (h.n % lettersPerWord))
	h.n++
}

// historyText returns the history with src's letters in upper case, "" if nothing was noted.
func (s *Session) historyText(src uint8, flipped bool) string {
	h := &s.history
	var b [1 + maxHistory]byte
	t := b[:0]
	if h.n > 0 && flipped {
		t = append(t, '^')
	}
	for i := range h.n {
		word := h.letters
		if n := i / lettersPerWord; n > 0 {
			word = s.letters[n-1]
		}
		l := uint8(word>>(5*(i%lettersPerWord))) & 31
		c := eventLetters[l&15]
		if l>>4 != src {
			c += 'a' - 'A'
		}
		t = append(t, c)
	}
	return string(t)
}

// noteFlags notes what the flags and the payload of a TCP packet say. q is its sender's, as it was before it.
func (s *Session) noteFlags(q *sequence, p *packet.Packet, side uint8) {
	end := p.Seq + p.Payload
	switch p.Flags & (packet.SYN | packet.FIN | packet.RST) {
	case 0:
		if p.Payload > 0 {
			s.once(eventData, side)
		} else if p.Flags&packet.ACK != 0 {
			s.once(eventACK, side)
		}
	case packet.SYN:
		e := eventSYN
		if p.Flags&packet.ACK != 0 {
			e = eventSYNACK
		}
		if !q.has(sentSYN | sentSYNACK) {
			s.once(e, side)
		}
	case packet.FIN:
		if !s.once(eventFIN, side) && q.lastFIN != end {
			s.happened(eventFIN, side)
		}
		q.lastFIN = end
	case packet.RST:
		if !s.once(eventRST, side) && q.lastRST != p.Seq {
			s.happened(eventRST, side)
		}
		q.lastRST = p.Seq
	case packet.FIN | packet.RST, packet.SYN | packet.FIN | packet.RST:
		s.once(eventFINRST, side)
	default:
		s.once(eventManyFlags, side)
	}
}
