// Package session says which packets belong together: the session key, its hash, the partition of a pair of
// addresses, the session_id and the Community ID.
package session

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math/bits"

	"github.com/tapweave/tapweave/proto/packet"
)

// DefaultTenant is the name of the address space of packets without a tenant.
const DefaultTenant = "default"

// Key names one conversation, whichever side a packet comes from. It is comparable.
//
// Low and High are the two ends in byte order of (address, port), so that both directions have the same key.
// ICMP has no ports: both ports hold type<<8|code of the pair of types that belong together (see ICMPPair),
// and Extra the identifier, or the hash of the pair of addresses that an error quotes.
type Key struct {
	Low, High         packet.Addr
	LowPort, HighPort uint16
	Protocol          uint8
	Extra             uint64
	Tenant            string
}

// NewKey returns the key of a packet that src sent to dst, and whether src is the low end.
func NewKey(tenant string, protocol uint8, src packet.Addr, srcPort uint16, dst packet.Addr, dstPort uint16) (k Key, srcLow bool) {
	k.Tenant, k.Protocol = tenant, protocol
	be := binary.BigEndian
	s, d := be.Uint64(src[:8]), be.Uint64(dst[:8])
	if s == d {
		s, d = be.Uint64(src[8:]), be.Uint64(dst[8:])
	}
	if s < d || s == d && srcPort <= dstPort {
		k.Low, k.High, k.LowPort, k.HighPort = src, dst, srcPort, dstPort
		return k, true
	}
	k.Low, k.High, k.LowPort, k.HighPort = dst, src, dstPort, srcPort
	return k, false
}

// KeyOf returns the key of a packet with the ports of a packet.Flow, and whether its sender is the low end. The
// ports of ICMP become its type and the type that answers it, or the code of a type that has no answer. An
// ICMP error's Extra, the hash of the pair that it quotes, is for the caller to set.
func KeyOf(tenant string, protocol uint8, src packet.Addr, srcPort uint16, dst packet.Addr, dstPort, icmpID uint16) (Key, bool) {
	paired := false
	if protocol == packet.ProtoICMP || protocol == packet.ProtoICMPv6 {
		var answer uint8
		if answer, paired = ICMPPair(protocol == packet.ProtoICMPv6, uint8(srcPort)); paired {
			dstPort = uint16(answer)
		}
	}
	k, low := NewKey(tenant, protocol, src, srcPort, dst, dstPort)
	if paired {
		k.Extra = uint64(icmpID)
	}
	return k, low
}

// PacketHash is the hash of the session that a packet belongs to, as far as the packet itself tells: that of a
// fragment, which knows no ports, is the hash of its addresses and protocol. What is sampled and what is shed
// goes by it.
func PacketHash(f *packet.Flow, p *packet.Packet) uint64 {
	k, _ := KeyOf(f.Tenant, f.Protocol, f.Src, f.SrcPort, f.Dst, f.DstPort, f.ICMPID)
	if len(p.Head) > 0 && p.Fragment == 0 {
		if src, dst, _, _, _, ok := packet.Quote(p.Head); ok {
			k.Extra = PairHash(f.Tenant, &src, &dst)
		}
	}
	return k.Hash()
}

// Hash returns a well mixed 64-bit hash of the key. It is the same on every machine and in every version of
// the program: partitions, shedding and snapshots rely on it.
func (k *Key) Hash() uint64 {
	h := hashAddrs(k.Tenant, &k.Low, &k.High)
	h = mix(h, uint64(k.LowPort)<<32|uint64(k.HighPort)<<8|uint64(k.Protocol))
	return mix(h, k.Extra)
}

// PairHash is the hash of a tenant and an unordered pair of addresses.
func PairHash(tenant string, a, b *packet.Addr) uint64 { return hashAddrs(tenant, a, b) }

// Partition returns the partition, of n, in which all packets between a and b are folded.
func Partition(tenant string, a, b *packet.Addr, n int) int {
	hi, _ := bits.Mul64(PairHash(tenant, a, b), uint64(n))
	return int(hi)
}

const (
	seed   = 0x9e3779b97f4a7c15
	factor = 0xd6e8feb86659fd93
)

// mix folds v into h by a 64 by 64 bit multiplication whose halves are combined.
func mix(h, v uint64) uint64 {
	hi, lo := bits.Mul64(h^v^seed, factor)
	return hi ^ lo ^ bits.RotateLeft64(v, 29)
}

// hashAddrs hashes a tenant and two addresses, in either order: both are hashed at once, and added.
func hashAddrs(tenant string, a, b *packet.Addr) uint64 {
	h := uint64(seed)
	if tenant != "" && tenant != DefaultTenant {
		for i := 0; i < len(tenant); i++ {
			h = mix(h, uint64(tenant[i]))
		}
	}
	return mix(h, hashAddr(a)+hashAddr(b))
}

func hashAddr(a *packet.Addr) uint64 {
	x, y := binary.BigEndian.Uint64(a[:8]), binary.BigEndian.Uint64(a[8:])
	hi, lo := bits.Mul64(x^seed, y^factor)
	return hi ^ lo ^ bits.RotateLeft64(y, 29) ^ x
}

// ID is a session_id: 128 bits, printed as 32 hexadecimal digits.
type ID [16]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// NewID returns the id of the session of key k that a packet captured at time t (nanoseconds since the Unix
// epoch) created.
func NewID(k *Key, t int64) (id ID) {
	h := k.Hash()
	a := mix(h, uint64(t))
	binary.BigEndian.PutUint64(id[:8], a)
	binary.BigEndian.PutUint64(id[8:], mix(mix(uint64(t)^factor, h), a))
	return id
}

// CommunityID returns the Community ID, version 1, seed 0, of a conversation.
//
// Source: https://github.com/corelight/community-id-spec. For ICMP, srcPort is the type and dstPort the code
// or, for types that come in pairs, the type of the counterpart.
func CommunityID(protocol uint8, src packet.Addr, srcPort uint16, dst packet.Addr, dstPort uint16, oneWay bool) string {
	a, b := src.Netip().AsSlice(), dst.Netip().AsSlice()
	if !oneWay {
		if c := bytes.Compare(a, b); c > 0 || c == 0 && srcPort > dstPort {
			a, b, srcPort, dstPort = b, a, dstPort, srcPort
		}
	}
	var buf [40]byte
	out := append(buf[:0], 0, 0)
	out = append(out, a...)
	out = append(out, b...)
	out = append(out, protocol, 0)
	switch protocol {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP, packet.ProtoICMP, packet.ProtoICMPv6:
		out = binary.BigEndian.AppendUint16(out, srcPort)
		out = binary.BigEndian.AppendUint16(out, dstPort)
	}
	sum := sha1.Sum(out)
	return "1:" + base64.StdEncoding.EncodeToString(sum[:])
}

// ICMPPair returns the type that answers t, in ICMP or ICMPv6, and whether there is one. A type without a
// counterpart makes a conversation of its own (as Zeek and the Community ID have it).
func ICMPPair(v6 bool, t uint8) (answer uint8, ok bool) {
	if v6 {
		switch t {
		case 128, 130, 133, 135, 139, 144, 146: // echo, MLD, router, neighbour, node information, home agent, mobile prefix
			return t + 1, true
		case 129, 131, 134, 136, 140, 145, 147:
			return t - 1, true
		}
		return 0, false
	}
	switch t {
	case 0, 8: // echo
		return 8 - t, true
	case 9, 10: // router advertisement and solicitation
		return 19 - t, true
	case 13, 15, 17: // time stamp, information, address mask
		return t + 1, true
	case 14, 16, 18:
		return t - 1, true
	}
	return 0, false
}

// ICMPRequest says whether a type of those that come in pairs is the one that asks.
func ICMPRequest(v6 bool, t uint8) bool {
	if v6 {
		switch t {
		case 128, 130, 133, 135, 139, 144, 146:
			return true
		}
		return false
	}
	switch t {
	case 8, 10, 13, 15, 17:
		return true
	}
	return false
}

// ICMPError says whether a type is an error, which quotes the packet that caused it (RFC 792, RFC 4443).
func ICMPError(v6 bool, t uint8) bool {
	if v6 {
		return t < 128
	}
	switch t {
	case 3, 4, 5, 11, 12:
		return true
	}
	return false
}
