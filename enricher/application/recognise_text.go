package application

import "bytes"

// Protocols of lines. What one side says often fits several of them: then the answer names them all, and the
// other side, or a later line, decides.

// isGreeting knows what servers of SMTP, FTP, POP3 and IMAP begin with (RFC 5321, 959, 1939, 3501).
func isGreeting(b []byte, last bool) answer {
	b = b[:min(len(b), maxLine)]
	switch beginsAny(b, "220 ", "220-", "120 ", "421 ", "554 ", "* OK ", "* OK\r", "* PREAUTH ", "* BYE ", "+OK ", "+OK\r\n") {
	case no:
		return none
	case more:
		return unsure
	}
	line, _, ended := bytes.Cut(b, []byte{'\n'})
	if !ended && len(b) < maxLine && !last {
		return unsure
	}
	if !printable(bytes.TrimSuffix(line, []byte{'\r'})) {
		return none
	}
	switch {
	case b[0] == '*':
		return named(sure, IMAP, textLines)
	case string(line) == "+OK\r":
		return answer{maybe, set(POP3, Redis), textLines}
	case b[0] == '+':
		return named(sure, POP3, textLines)
	}
	upper := bytes.ToUpper(line)
	switch smtp, ftp := bytes.Contains(upper, []byte("SMTP")), bytes.Contains(upper, []byte("FTP")); {
	case smtp && !ftp:
		return named(sure, SMTP, textLines)
	case ftp && !smtp:
		return named(sure, FTP, textLines)
	case b[0] == '1':
		return named(maybe, FTP, textLines)
	case string(b[:3]) == "554":
		return named(maybe, SMTP, textLines)
	}
	return answer{maybe, set(SMTP, FTP), textLines}
}

func printable(b []byte) bool {
	for _, c := range b {
		if c < 0x20 && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// isTextCommand knows what clients of the same begin with.
func isTextCommand(b []byte, last bool) answer {
	b = b[:min(len(b), maxLine)]
	k := beginsFold(b, "EHLO ", "HELO ", "LHLO ", "USER ", "CAPA\r", "APOP ", "STLS\r", "AUTH TLS", "AUTH SSL", "FEAT\r")
	if k == no {
		k = imapCommand(b)
		if k == sure {
			return named(sure, IMAP, textLines)
		}
	}
	switch k {
	case no:
		return none
	case more:
		return unsure
	}
	line, _, ended := bytes.Cut(b, []byte{'\n'})
	if !ended && len(b) < maxLine && !last {
		return unsure
	}
	line = bytes.TrimSuffix(line, []byte{'\r'})
	if !printable(line) {
		return none
	}
	switch s := linesOf(line); s {
	case 0:
		return none
	case set(SMTP):
		return answer{sure, s, textLines}
	default:
		return answer{maybe, s, textLines}
	}
}

// imapCommand knows a tag and a command (RFC 3501, section 2.2.1).
func imapCommand(b []byte) kind {
	i := bytes.IndexByte(b[:min(len(b), 17)], ' ')
	tag := b
	if i >= 0 {
		tag = b[:i]
	}
	digits := false
	for _, c := range tag {
		switch {
		case '0' <= c && c <= '9':
			digits = true
		case c != '.' && !letter(c):
			return no
		}
	}
	if i < 0 {
		if len(b) > 16 {
			return no
		}
		return more
	}
	if i == 0 || !digits || !letter(tag[0]) && (tag[0] < '0' || tag[0] > '9') {
		return no
	}
	return beginsFold(b[i+1:], "CAPABILITY\r", "LOGIN ", "STARTTLS\r", "AUTHENTICATE ", "ID (", "ID NIL", "NOOP\r", "LOGOUT\r")
}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// linesOf returns which of SMTP, FTP and POP3 a line can belong to, by its first word; the empty set if it says
// nothing.
func linesOf(line []byte) Set {
	word, rest, _ := bytes.Cut(bytes.TrimSuffix(line, []byte{'\r'}), []byte{' '})
	switch string(bytes.ToUpper(word[:min(len(word), 9)])) {
	case "EHLO", "HELO", "LHLO", "STARTTLS":
		return set(SMTP)
	case "MAIL":
		if len(rest) >= 5 && bytes.EqualFold(rest[:5], []byte("FROM:")) {
			return set(SMTP)
		}
	case "STLS", "APOP", "UIDL", "CAPA":
		return set(POP3)
	case "USER", "PASS":
		return set(FTP, POP3)
	case "PASV", "EPSV", "PORT", "EPRT", "CWD", "SYST", "FEAT", "PBSZ", "PROT", "TYPE":
		return set(FTP)
	case "AUTH":
		if up := bytes.ToUpper(rest[:min(len(rest), 3)]); string(up) == "TLS" || string(up) == "SSL" {
			return set(FTP)
		}
	case "331", "230", "227", "229", "257", "215", "211-FEATU":
		return set(FTP)
	case "250-STAR", "250-PIPEL", "250-SIZE", "250-8BITM", "354":
		return set(SMTP)
	}
	if len(line) > 4 && string(line[:4]) == "250-" {
		return set(SMTP)
	}
	return 0
}

// isRedis knows the first command, an array of bulk strings, and replies that are no other protocol's
// (https://redis.io/docs/latest/develop/reference/protocol-spec/).
func isRedis(b []byte, _ bool) answer {
	switch b[0] {
	case '*':
		// *2\r\n$4\r\nAUTH\r\n
		rest, k := redisNumber(b[1:])
		if k != sure {
			return fixed(k, Redis, done)
		}
		if len(rest) == 0 {
			return unsure
		}
		if rest[0] != '$' {
			return none
		}
		if rest, k = redisNumber(rest[1:]); k != sure {
			return fixed(k, Redis, done)
		}
		switch {
		case len(rest) == 0:
			return unsure
		case !letter(rest[0]):
			return none
		}
		return named(sure, Redis, done)
	case '+':
		return fixed(begins(b, "+PONG\r\n"), Redis, done)
	case '-':
		switch beginsAny(b, "-NOAUTH ", "-WRONGPASS ", "-DENIED Redis", "-ERR unknown command", "-LOADING Redis") {
		case sure:
			return named(sure, Redis, done)
		case more:
			return unsure
		}
		if begins(b, "-ERR") == sure {
			return answer{maybe, set(POP3, Redis), textLines}
		}
	case '$', ':':
		if _, k := redisNumber(b[1:]); k != sure {
			return fixed(k, Redis, done)
		}
		return named(maybe, Redis, done)
	case '%':
		rest, k := redisNumber(b[1:]) // the answer to HELLO 3
		if k != sure {
			return fixed(k, Redis, done)
		}
		return fixed(begins(rest, "$6\r\nserver"), Redis, done)
	}
	return none
}

// redisNumber reads digits and the end of the line.
func redisNumber(b []byte) (rest []byte, k kind) {
	i := 0
	for i < len(b) && '0' <= b[i] && b[i] <= '9' {
		i++
	}
	switch {
	case i > 9 || i == 0 && len(b) > 0:
		return nil, no
	case i == len(b):
		return nil, more
	}
	if k := begins(b[i:], "\r\n"); k != sure {
		return nil, k
	}
	return b[i+2:], sure
}

// isMemcached knows the text protocol (protocol.txt of memcached) and the binary one (https://github.com/memcached/memcached/wiki/BinaryProtocolRevamped).
func isMemcached(b []byte, last bool) answer {
	if b[0] == 0x80 || b[0] == 0x81 {
		if len(b) < 24 {
			return unsure
		}
		key, extra, body := int(b[2])<<8|int(b[3]), int(b[4]), uint32(b[8])<<24|uint32(b[9])<<16|uint32(b[10])<<8|uint32(b[11])
		if b[1] > 0x25 && b[1] != 0x40 || b[5] != 0 || key > 250 || extra > 24 || uint64(body) < uint64(key+extra) || body > 1<<21 {
			return none
		}
		if b[0] == 0x80 && (b[6] != 0 || b[7] != 0) || b[0] == 0x81 && (b[6] != 0 || b[7] > 0x86) {
			return none
		}
		return named(maybe, Memcached, done)
	}
	return memcachedText(b, last)
}

func memcachedText(b []byte, last bool) answer {
	b = b[:min(len(b), maxLine)]
	k := beginsAny(b, "get ", "gets ", "gat ", "set ", "add ", "replace ", "append ", "prepend ", "cas ", "incr ", "decr ", "delete ", "touch ",
		"stats\r\n", "stats ", "version\r\n", "flush_all", "VALUE ", "STORED\r\n", "NOT_STORED\r\n", "END\r\n", "STAT ", "VERSION ", "DELETED\r\n")
	switch k {
	case no:
		return none
	case more:
		return unsure
	}
	line, _, ended := bytes.Cut(b, []byte{'\n'})
	if !ended && len(b) < maxLine && !last {
		return unsure
	}
	if !ended || len(line) < 1 || line[len(line)-1] != '\r' || !printable(line[:len(line)-1]) {
		return none
	}
	words := bytes.Fields(line)
	number := func(i int) bool {
		if i >= len(words) || len(words[i]) > 10 {
			return false
		}
		for _, c := range words[i] {
			if c < '0' || c > '9' {
				return false
			}
		}
		return true
	}
	switch string(words[0]) {
	case "set", "add", "replace", "append", "prepend", "cas":
		if (len(words) == 5 || len(words) == 6) && number(2) && number(4) {
			return named(sure, Memcached, done)
		}
		return none
	case "VALUE":
		if (len(words) == 4 || len(words) == 5) && number(2) && number(3) {
			return named(sure, Memcached, done)
		}
		return none
	case "STAT":
		if len(words) == 3 && string(words[1]) == "pid" {
			return named(sure, Memcached, done)
		}
	}
	return named(maybe, Memcached, done)
}

// isTelnet knows the negotiation of options (RFC 854, 855). One alone is not enough: its bytes may be any
// protocol's first.
func isTelnet(b []byte, last bool) answer {
	for i, c := range b[:min(len(b), 6)] {
		fits := false
		switch i % 3 {
		case 0:
			fits = c == 0xff
		case 1:
			fits = c >= 0xfb && c <= 0xfe // WILL, WON'T, DO, DON'T
		case 2:
			fits = c <= 49 // options that IANA has given
		}
		switch {
		case fits:
		case i < 3:
			return none
		default:
			return named(maybe, Telnet, done)
		}
	}
	switch {
	case len(b) >= 6:
		return named(sure, Telnet, done)
	case last && len(b) >= 3:
		return named(maybe, Telnet, done)
	}
	return unsure
}
