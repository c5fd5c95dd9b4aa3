package application

import (
	"bytes"
	"encoding/binary"

	"github.com/tapweave/tapweave/enricher/application/http"
	"github.com/tapweave/tapweave/enricher/application/http2"
)

// answer is what a recogniser says of first bytes.
type answer struct {
	kind  kind
	set   Set
	stage Stage // what reads on
}

type kind uint8

const (
	no    kind = iota
	more       // too few bytes to tell
	maybe      // if the other side fits
	sure
)

// Answers.
var (
	none   = answer{}
	unsure = answer{kind: more}
)

func named(k kind, n Name, s Stage) answer { return answer{k, set(n), s} }

// recogniseStream says what the bytes that a side begins with are. Once it is sure, or says no, more bytes do not
// change that. last says that no more will come: then it does not ask for more. Bytes whose place in the
// side's stream is not known (not certain) have to be recognised beyond doubt.
func recogniseStream(b []byte, certain, last bool) answer {
	if len(b) >= maxFirst {
		b, last = b[:maxFirst], true
	}
	var weak, strong answer
	waiting, strongs := false, 0
	for _, recognise := range recognisersOf(b) {
		switch a := recognise(b, last); a.kind {
		case sure:
			strong = a
			strongs++
		case more:
			waiting = true
		case maybe:
			if certain || a.set == set(TLS) {
				weak.kind, weak.set = maybe, weak.set|a.set
				weak.stage = max(weak.stage, a.stage)
			}
		}
	}
	switch {
	case strongs == 1:
		return strong
	case strongs > 1:
		return soonest(b)
	case waiting && !last:
		return unsure
	case weak.set == 0:
		return none
	}
	if weak.stage == start {
		weak.stage = done
	}
	return weak
}

// soonest is what was sure with the fewest bytes, where several recognisers are with all of b.
func soonest(b []byte) answer {
	for n := 1; n <= len(b); n++ {
		for _, recognise := range recognisersOf(b) {
			if a := recognise(b[:n], false); a.kind == sure {
				return a
			}
		}
	}
	return none
}

// recogniser says what first bytes are. What it says once it has stopped asking for more does not change with more bytes.
type recogniser func(b []byte, last bool) answer

// recognisers are asked together.
var recognisers = [...]recogniser{
	isTLS, isHTTPRequest, isTextResponse, isSSH, isHTTP2, isDNSStream,
	isRDP, isSMB, isKerberosStream, isLDAPStream, isNTLM, isDCERPC,
	isGreeting, isTextCommand, isTelnet, isSOCKS, isBitTorrent, isVNC, isBGP, isSTUNStream,
	isMQTT, isAMQP, isKafka, isMySQL, isPostgreSQL, isMSSQL, isRedis, isMongoDB, isCassandra, isMemcached,
	isModbus, isDNP3, isOpenVPNStream,
}

// byFirst are the recognisers that do not say no to a first byte, in the same order: the others need not be asked.
var byFirst = func() (all [256][]recogniser) {
	for i := range all {
		for _, recognise := range recognisers {
			if recognise([]byte{byte(i)}, false).kind != no {
				all[i] = append(all[i], recognise)
			}
		}
	}
	return all
}()

func recognisersOf(b []byte) []recogniser {
	if len(b) == 0 {
		return nil
	}
	return byFirst[b[0]]
}

// begins compares b with a text, as far as both go.
func begins(b []byte, text string) kind {
	n := min(len(b), len(text))
	switch {
	case string(b[:n]) != text[:n]:
		return no
	case n < len(text):
		return more
	}
	return sure
}

// beginsAny is begins for several texts.
func beginsAny(b []byte, texts ...string) kind {
	k := no
	for _, t := range texts {
		k = max(k, begins(b, t))
	}
	return k
}

// beginsFold is beginsAny for texts in upper case, without regard to case.
func beginsFold(b []byte, texts ...string) kind {
	k := no
	for _, t := range texts {
		n := min(len(b), len(t))
		switch {
		case !bytes.EqualFold(b[:n], []byte(t[:n])):
		case n < len(t):
			k = max(k, more)
		default:
			return sure
		}
	}
	return k
}

// isTLS knows handshake records that begin with a hello (RFC 8446, sections 4 and 5.1), alerts, and, if both
// sides do so, records of encrypted data.
func isTLS(b []byte, _ bool) answer {
	switch {
	case b[0] < 0x15 || b[0] > 0x17 || len(b) > 1 && b[1] != 3 || len(b) > 2 && b[2] > 4:
		return none
	case len(b) < 7:
		return unsure
	}
	n := binary.BigEndian.Uint16(b[3:])
	if b[0] == 0x17 {
		// What is encrypted has this form whatever came before; both sides have to look so.
		if n > 16 && n <= 1<<14+2048 && b[2] > 0 && b[2] < 4 {
			return named(maybe, TLS, done)
		}
		return none
	}
	if b[0] == 0x15 {
		if n == 2 && (b[5] == 1 || b[5] == 2) && b[6] <= 120 {
			return named(sure, TLS, done)
		}
		return none
	}
	if n == 0 || n > 1<<14 || b[5] != 1 && b[5] != 2 {
		return none
	}
	// The length of a hello has three bytes, the first of which is 0 but for the largest.
	if n >= 6 {
		switch {
		case b[6] > 1:
			return none
		case len(b) < 11:
			return unsure
		case b[9] != 3 || b[10] > 4:
			return none
		}
	}
	return named(sure, TLS, tlsHello)
}

// methods whose requests are known even where the line is cut off.
var methods = []string{"GET /", "POST /", "HEAD /", "PUT /", "DELETE /", "OPTIONS /", "PATCH /", "GET http", "POST http", "CONNECT "}

// mayBeginRequest says whether b may be the beginning of a request line.
func mayBeginRequest(b []byte) bool {
	line, _, ended := bytes.Cut(b[:min(len(b), maxFirst)], []byte{'\n'})
	i := bytes.IndexByte(line, ' ')
	if i < 0 {
		if ended || len(line) > 32 {
			return false
		}
		i = len(line)
	}
	if i == 0 || i > 32 {
		return false
	}
	for _, c := range line[:i] {
		if (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	for _, c := range line[i:] {
		if c < 0x20 && c != '\r' || c == 0x7f {
			return false
		}
	}
	return true
}

// beginsRequest says whether b begins with a request line of HTTP/1 beyond doubt.
func beginsRequest(b []byte) bool {
	return mayBeginRequest(b) && isHTTPRequest(b, true).kind == sure
}

// isHTTPRequest knows requests of HTTP/1, and of those that took their form from it: RTSP and SIP.
func isHTTPRequest(b []byte, last bool) answer {
	if !mayBeginRequest(b) {
		return none
	}
	line, _, ended := bytes.Cut(b, []byte{'\n'})
	if !ended {
		switch {
		case !last:
			return unsure
		case beginsAny(b, methods...) == sure:
			return named(sure, HTTP, httpRequest)
		}
		return none
	}
	_, _, version, ok := http.RequestLine(bytes.TrimSuffix(line, []byte{'\r'}))
	switch {
	case !ok:
	case string(version) == "HTTP/1.1" || string(version) == "HTTP/1.0":
		return named(sure, HTTP, httpRequest)
	case string(version) == "RTSP/1.0" || string(version) == "RTSP/2.0":
		return named(sure, RTSP, done)
	case string(version) == "SIP/2.0":
		return named(sure, SIP, done)
	}
	return none
}

// isTextResponse knows the status lines of the same.
func isTextResponse(b []byte, _ bool) answer {
	status := func(prefix string) kind {
		k := begins(b, prefix)
		if k != sure {
			return k
		}
		for i := len(prefix); i < len(prefix)+3; i++ {
			switch {
			case i == len(b):
				return more
			case b[i] < '0' || b[i] > '9':
				return no
			}
		}
		return sure
	}
	waiting := false
	for _, p := range []struct {
		prefix string
		name   Name
		stage  Stage
	}{
		{"HTTP/1.1 ", HTTP, httpResponse}, {"HTTP/1.0 ", HTTP, httpResponse},
		{"RTSP/1.0 ", RTSP, done}, {"RTSP/2.0 ", RTSP, done}, {"SIP/2.0 ", SIP, done},
	} {
		switch status(p.prefix) {
		case sure:
			return named(sure, p.name, p.stage)
		case more:
			waiting = true
		}
	}
	if waiting {
		return unsure
	}
	return none
}

func isSSH(b []byte, _ bool) answer {
	return fixed(beginsAny(b, "SSH-2.0-", "SSH-1.99-", "SSH-1.5-"), SSH, sshBanner)
}

// fixed is the answer for bytes that are always the same.
func fixed(k kind, n Name, s Stage) answer {
	switch k {
	case sure:
		return named(sure, n, s)
	case more:
		return unsure
	}
	return none
}

func isHTTP2(b []byte, _ bool) answer {
	switch begins(b, http2.Preface) {
	case sure:
		return named(sure, HTTP2, http2Preface)
	case more:
		return unsure
	}
	is, wait := http2.Settings(b)
	switch {
	case is:
		return named(sure, HTTP2, http2Frame)
	case wait:
		return unsure
	}
	return none
}
