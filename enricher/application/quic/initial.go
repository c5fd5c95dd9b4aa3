// Package quic opens the Initial packets of QUIC version 1 (RFC 9000, 9001) and 2 (RFC 9369) that a client
// sends, and puts the ClientHello in them together. Their keys follow from the client's first Destination
// Connection ID, which whoever sees the packet knows.
package quic

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
)

// Versions.
const (
	Version1 = 0x00000001
	Version2 = 0x6b3343cf
)

// MaxID is the length of the longest connection ID (RFC 9000, section 17.2).
const MaxID = 20

// Salts of the Initial secrets (RFC 9001, section 5.2; RFC 9369, section 3.3.1).
var (
	saltV1 = []byte{0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a}
	saltV2 = []byte{0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd, 0x2e, 0xd9}
)

// Header is a long header (RFC 9000, section 17.2) whose version is known.
type Header struct {
	Version     uint32
	Initial     bool
	Destination []byte // connection IDs
	Source      []byte
	numberAt    int // where the packet number begins, in the packet
	end         int // of the packet, in the datagram
}

// ParseHeader reads the long header that b, the rest of a datagram, begins with. ok is false if it is none of
// version 1 or 2, or lies about lengths. size is the length that b had before it was cut off.
func ParseHeader(b []byte, size int) (h Header, ok bool) {
	if len(b) < 7 || b[0]&0xc0 != 0xc0 {
		return h, false
	}
	h.Version = binary.BigEndian.Uint32(b[1:])
	if h.Version != Version1 && h.Version != Version2 {
		return h, false
	}
	at := 5
	if h.Destination, at, ok = connectionID(b, at); !ok {
		return h, false
	}
	if h.Source, at, ok = connectionID(b, at); !ok {
		return h, false
	}
	kind := b[0] >> 4 & 3
	if h.Version == Version2 {
		kind = (kind + 3) & 3 // RFC 9369, section 3.2: Initial is 1, 0-RTT 2, Handshake 3, Retry 0
	}
	const initial, retry = 0, 3
	if kind == retry {
		h.end = size
		return h, size-at >= 16
	}
	if h.Initial = kind == initial; h.Initial {
		n, m, ok := varint(b[at:])
		if !ok || n > uint64(size-at-m) {
			return h, false
		}
		at += m + int(n) // the token
		if at > len(b) {
			return h, false
		}
	}
	n, m, ok := varint(b[at:])
	if !ok {
		return h, false
	}
	h.numberAt = at + m
	// A packet number, and a sample for the header's protection (RFC 9001, section 5.4.2).
	if n < 4+16 || n > uint64(size-h.numberAt) {
		return h, false
	}
	h.end = h.numberAt + int(n)
	return h, true
}

func connectionID(b []byte, at int) (id []byte, next int, ok bool) {
	if at >= len(b) {
		return nil, 0, false
	}
	n := int(b[at])
	at++
	if n > MaxID || at+n > len(b) {
		return nil, 0, false
	}
	return b[at : at+n], at + n, true
}

// varint reads a variable-length integer (RFC 9000, section 16).
func varint(b []byte) (v uint64, n int, ok bool) {
	if len(b) == 0 {
		return 0, 0, false
	}
	n = 1 << (b[0] >> 6)
	if len(b) < n {
		return 0, 0, false
	}
	v = uint64(b[0] & 0x3f)
	for _, c := range b[1:n] {
		v = v<<8 | uint64(c)
	}
	return v, n, true
}

// keys protect a client's Initial packets.
type keys struct {
	aead   cipher.AEAD
	iv     []byte
	header cipher.Block
}

// clientKeys derives the keys from the client's first Destination Connection ID (RFC 9001, section 5.2).
func clientKeys(version uint32, id []byte) (k keys, ok bool) {
	salt, label := saltV1, "quic "
	if version == Version2 {
		salt, label = saltV2, "quicv2 "
	}
	secret, err := hkdf.Extract(sha256.New, id, salt)
	if err != nil {
		return k, false
	}
	if secret, err = expand(secret, "client in", 32); err != nil {
		return k, false
	}
	key, err1 := expand(secret, label+"key", 16)
	iv, err2 := expand(secret, label+"iv", 12)
	hp, err3 := expand(secret, label+"hp", 16)
	if err1 != nil || err2 != nil || err3 != nil {
		return k, false
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return k, false
	}
	if k.aead, err = cipher.NewGCM(block); err != nil {
		return k, false
	}
	k.iv = iv
	k.header, err = aes.NewCipher(hp)
	return k, err == nil
}

// expand is HKDF-Expand-Label (RFC 8446, section 7.1) without a context.
func expand(secret []byte, label string, n int) ([]byte, error) {
	info := make([]byte, 0, 32)
	info = binary.BigEndian.AppendUint16(info, uint16(n))
	info = append(info, byte(len("tls13 ")+len(label)))
	info = append(info, "tls13 "...)
	info = append(info, label...)
	return hkdf.Expand(sha256.New, secret, string(append(info, 0)), n)
}

// open returns the frames in the Initial packet that b begins with (RFC 9001, sections 5.3 and 5.4).
func (k *keys) open(b []byte, h *Header) (frames []byte, ok bool) {
	if h.end > len(b) {
		return nil, false
	}
	p := append([]byte(nil), b[:h.end]...)
	var mask [16]byte
	k.header.Encrypt(mask[:], p[h.numberAt+4:h.numberAt+20])
	p[0] ^= mask[0] & 0x0f
	n := int(p[0]&3) + 1
	var number uint64
	for i := range n {
		p[h.numberAt+i] ^= mask[1+i]
		number = number<<8 | uint64(p[h.numberAt+i])
	}
	// A client sends few Initial packets: their numbers are never cut off.
	nonce := append([]byte(nil), k.iv...)
	for i := range 8 {
		nonce[len(nonce)-1-i] ^= byte(number >> (8 * i))
	}
	frames, err := k.aead.Open(nil, nonce, p[h.numberAt+n:], p[:h.numberAt+n])
	return frames, err == nil
}
