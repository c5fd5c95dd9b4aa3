package tls

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
)

// JA3 returns the JA3 fingerprint (https://github.com/salesforce/ja3): the MD5 sum of version, cipher suites,
// extensions, groups and point formats in decimal, in the order sent, without GREASE. It is empty unless the
// hello is whole.
func (h *ClientHello) JA3() string {
	if !h.Whole {
		return ""
	}
	var b []byte
	list := func(values []uint16) {
		for i, v := range values {
			if i > 0 {
				b = append(b, '-')
			}
			b = strconv.AppendUint(b, uint64(v), 10)
		}
	}
	b = strconv.AppendUint(b, uint64(h.legacy), 10)
	b = append(b, ',')
	list(h.ciphers)
	b = append(b, ',')
	list(h.extensions)
	b = append(b, ',')
	list(h.groups)
	b = append(b, ',')
	for i, v := range h.points {
		if i > 0 {
			b = append(b, '-')
		}
		b = strconv.AppendUint(b, uint64(v), 10)
	}
	sum := md5.Sum(b)
	return hex.EncodeToString(sum[:])
}

// JA4 returns the JA4 fingerprint of the TLS client (https://github.com/FoxIO-LLC/ja4, technical_details/JA4.md;
// of that family only this one has a BSD licence). transport is 't' for TCP, 'q' for QUIC. It is empty unless
// the hello is whole.
func (h *ClientHello) JA4(transport byte) string {
	if !h.Whole {
		return ""
	}
	sni := byte('i')
	if h.hasSNI {
		sni = 'd'
	}
	first, last := alpnEnds(h.ALPN)
	prefix := fmt.Sprintf("%c%s%c%02d%02d%c%c", transport, ja4Version(h.Version), sni,
		min(len(h.ciphers), 99), min(len(h.extensions), 99), first, last)

	ciphers := slices.Clone(h.ciphers)
	slices.Sort(ciphers)
	extensions := slices.DeleteFunc(slices.Clone(h.extensions), func(e uint16) bool { return e == extServerName || e == extALPN })
	slices.Sort(extensions)
	third := hexList(nil, extensions)
	if len(h.signatures) > 0 {
		third = hexList(append(third, '_'), h.signatures)
	}
	return prefix + "_" + short(hexList(nil, ciphers)) + "_" + short(third)
}

func ja4Version(v uint16) string {
	switch v {
	case 0x0304:
		return "13"
	case 0x0303:
		return "12"
	case 0x0302:
		return "11"
	case 0x0301:
		return "10"
	case 0x0300:
		return "s3"
	}
	return "00"
}

// alpnEnds returns the first and the last character of an ALPN name; where one of them is not alphanumeric,
// those of the name in hexadecimal; 0 and 0 without a name.
func alpnEnds(name string) (first, last byte) {
	if name == "" {
		return '0', '0'
	}
	first, last = name[0], name[len(name)-1]
	if alphanumeric(first) && alphanumeric(last) {
		return first, last
	}
	return hexDigits[first>>4], hexDigits[last&15]
}

const hexDigits = "0123456789abcdef"

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// hexList appends values as four hexadecimal digits each, with commas between them.
func hexList(b []byte, values []uint16) []byte {
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, hexDigits[v>>12], hexDigits[v>>8&15], hexDigits[v>>4&15], hexDigits[v&15])
	}
	return b
}

// short is the first twelve hexadecimal digits of the SHA-256 sum, or twelve zeros of nothing.
func short(b []byte) string {
	if len(b) == 0 {
		return "000000000000"
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:6])
}
