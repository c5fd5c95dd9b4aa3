package fold

import "github.com/tapweave/tapweave/proto/packet"

// connState returns Zeek's conn_state (https://docs.zeek.org/en/master/scripts/base/protocols/conn/main.zeek.html).
// It follows from what each side has sent, not from the order in which that was seen, but for which RST came
// first.
func (s *Session) connState(src uint8) string {
	a, b := &s.ends[src], &s.ends[1-src]
	switch s.key.Protocol {
	case packet.ProtoTCP:
		return tcpState(&a.sequence, &b.sequence)
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

// tcpState is the state of a TCP connection whose originator is o and whose responder is r.
func tcpState(o, r *sequence) string {
	opened := o.has(sentSYN | sentSYNACK)   // the originator's SYN was seen
	answered := r.has(sentSYN | sentSYNACK) // the responder's was
	reset := r.has(sentRST) && (!o.has(sentRST) || o.has(sentRSTLast))
	bothFIN := o.has(sentFIN) && r.has(sentFIN)
	switch {
	case bothFIN:
		return "SF" // normal establishment and termination
	case reset && opened && !answered:
		return "REJ" // connection attempt rejected
	case reset && !opened && answered:
		return "RSTRH" // SYN-ACK followed by RST, no SYN from the originator
	case reset:
		return "RSTR" // responder sent a RST
	case o.has(sentRST) && !answered && opened:
		return "RSTOS0" // SYN followed by RST, no SYN-ACK
	case o.has(sentRST):
		return "RSTO" // originator aborted
	case o.has(sentFIN) && !answered && opened:
		return "SH" // SYN followed by FIN, no SYN-ACK
	case r.has(sentFIN) && !opened && answered:
		return "SHR" // SYN-ACK followed by FIN, no SYN
	case opened && answered && o.has(sentFIN):
		return "S2" // established, close attempt by the originator
	case opened && answered && r.has(sentFIN):
		return "S3" // established, close attempt by the responder
	case opened && answered:
		return "S1" // established, not terminated
	case opened && !r.has(spoke):
		return "S0" // attempt seen, no reply
	}
	return "OTH" // midstream traffic
}

// history is Zeek's record of what happened, each letter once a side.
type history struct {
	letters [20]uint8 // low five bits: letter; bit 7: sent by the high end
	n       uint8
	seen    [2]uint32
}

// add notes an event by its upper-case letter.
func (h *history) add(letter byte, side uint8) {
	i := letter - 'A'
	if h.seen[side]&(1<<i) != 0 || int(h.n) == len(h.letters) {
		return
	}
	h.seen[side] |= 1 << i
	h.letters[h.n] = i | side<<7
	h.n++
}

// text returns the history with src's letters in upper case, "" if nothing was noted.
func (h *history) text(src uint8) string {
	var b [len(h.letters)]byte
	for i, l := range h.letters[:h.n] {
		b[i] = 'A' + l&31
		if l>>7 != src {
			b[i] += 'a' - 'A'
		}
	}
	return string(b[:h.n])
}
