// Package tls reads what the two sides of a TLS connection say before they encrypt: ClientHello and ServerHello
// of TLS 1.0 to 1.3 (RFC 8446, section 4.1; RFC 5246, section 7.4.1), and the fingerprints JA3 and JA4.
//
// Everything here is a pure function of bytes. What is malformed, or cut off, gives what could be read before.
package tls

import (
	"golang.org/x/crypto/cryptobyte"
)

// Extensions that are looked into (IANA, TLS ExtensionType Values).
const (
	extServerName          = 0
	extSupportedGroups     = 10
	extPointFormats        = 11
	extSignatureAlgorithms = 13
	extALPN                = 16
	extSupportedVersions   = 43
)

// Handshake types.
const (
	TypeClientHello = 1
	TypeServerHello = 2
)

// MaxName is the length of the longest server name and application protocol that is taken: a DNS name has at
// most 253 bytes, an ALPN name 255 (RFC 7301, section 3.1).
const MaxName = 255

// ClientHello is what a client offers.
type ClientHello struct {
	// Version is the highest version offered: in supported_versions, where the client sends it, else in the
	// legacy field.
	Version uint16
	// SNI is the host name that the client asks for, empty if it names none.
	SNI string
	// ALPN is the first application protocol offered, empty without any.
	ALPN string
	// Whole says that every byte was there. Without it there are no fingerprints.
	Whole bool

	legacy     uint16
	hasSNI     bool
	ciphers    []uint16 // without GREASE, in the order sent; so too the lists below
	extensions []uint16
	groups     []uint16
	points     []uint8
	signatures []uint16
}

// ServerHello is what a server chose.
type ServerHello struct {
	Version uint16
	// ALPN is the application protocol chosen. TLS 1.3 encrypts it: then it is empty.
	ALPN string
}

// VersionName returns the name of a version, empty if there is none.
func VersionName(v uint16) string {
	switch v {
	case 0x0300:
		return "SSLv3"
	case 0x0301:
		return "TLSv1.0"
	case 0x0302:
		return "TLSv1.1"
	case 0x0303:
		return "TLSv1.2"
	case 0x0304:
		return "TLSv1.3"
	}
	return ""
}

// grease says whether a value is one of those that mean nothing (RFC 8701, section 2).
func grease(v uint16) bool { return v&0x0f0f == 0x0a0a && v>>8 == v&0xff }

// ParseClientHello reads the body of a ClientHello, behind its handshake header. Of one that is cut off it
// reads what is there; ok is false if that is not even the fixed part.
func ParseClientHello(body []byte) (h ClientHello, ok bool) {
	s := cryptobyte.String(body)
	var session, ciphers, compression cryptobyte.String
	if !s.ReadUint16(&h.legacy) || h.legacy>>8 != 3 || !s.Skip(32) || !s.ReadUint8LengthPrefixed(&session) || len(session) > 32 {
		return h, false
	}
	h.Version = h.legacy
	if !s.ReadUint16LengthPrefixed(&ciphers) || !s.ReadUint8LengthPrefixed(&compression) {
		return h, true
	}
	h.ciphers = list16(ciphers)
	if s.Empty() {
		h.Whole = true
		return h, true
	}
	var length uint16
	if !s.ReadUint16(&length) {
		return h, true
	}
	h.Whole = int(length) <= len(s)
	if h.Whole {
		s = s[:length]
	}
	for !s.Empty() {
		var id, size uint16
		if !s.ReadUint16(&id) || !s.ReadUint16(&size) || int(size) > len(s) {
			h.Whole = false
			break
		}
		ext := s[:size]
		s = s[size:]
		h.extension(id, ext)
	}
	return h, true
}

func (h *ClientHello) extension(id uint16, ext cryptobyte.String) {
	if grease(id) {
		return
	}
	h.extensions = append(h.extensions, id)
	var l cryptobyte.String
	switch id {
	case extServerName:
		h.hasSNI = true
		if !ext.ReadUint16LengthPrefixed(&l) {
			return
		}
		for !l.Empty() {
			var kind uint8
			var name cryptobyte.String
			if !l.ReadUint8(&kind) || !l.ReadUint16LengthPrefixed(&name) {
				return
			}
			if kind == 0 && len(name) <= MaxName && h.SNI == "" { // host_name (RFC 6066, section 3)
				h.SNI = string(name)
			}
		}
	case extALPN:
		var name cryptobyte.String
		if ext.ReadUint16LengthPrefixed(&l) && l.ReadUint8LengthPrefixed(&name) {
			h.ALPN = string(name)
		}
	case extSupportedVersions:
		if !ext.ReadUint8LengthPrefixed(&l) {
			return
		}
		highest := uint16(0)
		for _, v := range list16(l) {
			// Drafts and what is no TLS do not count.
			if v>>8 == 3 {
				highest = max(highest, v)
			}
		}
		if highest != 0 {
			h.Version = highest
		}
	case extSupportedGroups:
		if ext.ReadUint16LengthPrefixed(&l) {
			h.groups = list16(l)
		}
	case extPointFormats:
		if ext.ReadUint8LengthPrefixed(&l) {
			h.points = append([]uint8(nil), l...)
		}
	case extSignatureAlgorithms:
		if ext.ReadUint16LengthPrefixed(&l) {
			h.signatures = list16(l)
		}
	}
}

// list16 returns a list of 16-bit values without GREASE.
func list16(s cryptobyte.String) []uint16 {
	l := make([]uint16, 0, len(s)/2)
	var v uint16
	for s.ReadUint16(&v) {
		if !grease(v) {
			l = append(l, v)
		}
	}
	return l
}

// ParseServerHello reads the body of a ServerHello, as far as it is there.
func ParseServerHello(body []byte) (h ServerHello, ok bool) {
	s := cryptobyte.String(body)
	var session, extensions cryptobyte.String
	if !s.ReadUint16(&h.Version) || h.Version>>8 != 3 || !s.Skip(32) || !s.ReadUint8LengthPrefixed(&session) || len(session) > 32 {
		return h, false
	}
	if !s.Skip(3) || !s.ReadUint16LengthPrefixed(&extensions) { // cipher suite, compression
		return h, true
	}
	for !extensions.Empty() {
		var id uint16
		var ext, l, name cryptobyte.String
		if !extensions.ReadUint16(&id) || !extensions.ReadUint16LengthPrefixed(&ext) {
			break
		}
		switch id {
		case extSupportedVersions:
			var v uint16
			if ext.ReadUint16(&v) && v>>8 == 3 {
				h.Version = v
			}
		case extALPN:
			if ext.ReadUint16LengthPrefixed(&l) && l.ReadUint8LengthPrefixed(&name) {
				h.ALPN = string(name)
			}
		}
	}
	return h, true
}
