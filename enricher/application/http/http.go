// Package http reads the heads of HTTP/1 messages (RFC 9112).
package http

import (
	"bytes"
	"strconv"
)

const (
	// MaxHead is the length of the longest head that is waited for.
	MaxHead = 16 << 10

	maxMethod    = 32
	maxHost      = 255
	maxPath      = 1024
	maxUserAgent = 255
)

// Head is what is read of a head. What it holds of the bytes is valid as long as they are.
type Head struct {
	// Of a request.
	Method, Host, Path, UserAgent []byte
	// Of a response.
	Status int
	// Upgrade is the protocol of the Upgrade field, with a Connection field or not.
	Upgrade []byte
	// Length is the length of the body, -1 if none is given. Chunked says that it comes in chunks.
	Length  int64
	Chunked bool
	// Malformed says that the length cannot be relied on.
	Malformed bool
	// ContentType of the body.
	ContentType []byte
}

// End returns the length of the head that b begins with, -1 if its end is not there yet.
func End(b []byte) int {
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return -1
		}
		at += i + 1
		switch rest := b[at:]; {
		case len(rest) >= 1 && rest[0] == '\n':
			return at + 1
		case len(rest) >= 2 && rest[0] == '\r' && rest[1] == '\n':
			return at + 2
		}
	}
}

// cutLine returns the first line without its end, and what is behind it. A last line without an end is
// whole only if last is set.
func cutLine(b []byte) (line, rest []byte, ended bool) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return b, nil, false
	}
	return bytes.TrimSuffix(b[:i], []byte{'\r'}), b[i+1:], true
}

// RequestLine takes a request line apart (RFC 9112, section 3). Of a line that is cut off the version is empty.
func RequestLine(line []byte) (method, target, version []byte, ok bool) {
	i := bytes.IndexByte(line, ' ')
	if i < 1 || i > maxMethod {
		return nil, nil, nil, false
	}
	method, target = line[:i], line[i+1:]
	for _, c := range method {
		if (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return nil, nil, nil, false
		}
	}
	if i := bytes.LastIndexByte(target, ' '); i >= 0 {
		target, version = target[:i], target[i+1:]
	}
	return method, target, version, len(target) > 0
}

// ParseRequest reads the head of a request. Of one that is cut off it reads the lines that are whole, and the
// target as far as it is there.
func ParseRequest(b []byte) (h Head, ok bool) {
	line, rest, _ := cutLine(b)
	method, target, _, ok := RequestLine(line)
	if !ok {
		return h, false
	}
	h.Length = -1
	h.Method = method
	h.fields(rest)
	var authority []byte
	switch {
	case string(method) == "CONNECT":
		authority, target = target, nil
	case target[0] != '/':
		// RFC 9112, section 3.2.2: what is asked of a proxy has an authority.
		if _, behind, ok := bytes.Cut(target, []byte("://")); ok {
			authority, target = behind, nil
			if i := bytes.IndexAny(authority, "/?"); i >= 0 {
				authority, target = authority[:i], authority[i:]
			}
		}
	}
	if len(h.Host) == 0 && len(authority) <= maxHost {
		h.Host = authority
	}
	target, _, _ = bytes.Cut(target, []byte{'?'})
	h.Path = clip(target, maxPath)
	return h, true
}

// ParseResponse reads the head of a response, the lines of it that are whole.
func ParseResponse(b []byte) (h Head, ok bool) {
	line, rest, _ := cutLine(b)
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) {
		return h, false
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil || status < 100 || status > 999 {
		return h, false
	}
	h.Status, h.Length = status, -1
	h.fields(rest)
	return h, true
}

// fields reads the field lines that matter here. A line without an end is not read.
func (h *Head) fields(b []byte) {
	for len(b) > 0 {
		line, rest, ended := cutLine(b)
		if !ended || len(line) == 0 {
			return
		}
		b = rest
		name, value, ok := bytes.Cut(line, []byte{':'})
		if !ok {
			continue
		}
		value = bytes.Trim(value, " \t")
		switch {
		case is(name, "host"):
			if len(h.Host) == 0 && len(value) <= maxHost {
				h.Host = value
			}
		case is(name, "user-agent"):
			if len(h.UserAgent) == 0 {
				h.UserAgent = clip(value, maxUserAgent)
			}
		case is(name, "content-type"):
			h.ContentType = value
		case is(name, "upgrade"):
			h.Upgrade = value
		case is(name, "transfer-encoding"):
			h.Chunked = h.Chunked || bytes.Contains(bytes.ToLower(value), []byte("chunked"))
		case is(name, "content-length"):
			n, err := strconv.ParseInt(string(value), 10, 64)
			if err != nil || n < 0 || h.Length >= 0 && n != h.Length {
				h.Malformed = true
				continue
			}
			h.Length = n
		}
	}
}

func is(name []byte, lower string) bool {
	return len(name) == len(lower) && bytes.EqualFold(name, []byte(lower))
}

func clip(b []byte, n int) []byte { return b[:min(len(b), n)] }

// ChunkSize reads the line that a chunk begins with (RFC 9112, section 7.1).
func ChunkSize(line []byte) (n int64, ok bool) {
	line, _, _ = bytes.Cut(bytes.TrimSuffix(line, []byte{'\r'}), []byte{';'})
	n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 64)
	return n, err == nil && n >= 0
}
