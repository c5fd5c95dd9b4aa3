package read

import (
	"fmt"
	"strings"

	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/session"
)

// Split says how the packets are spread over the collectors.
type Split uint8

const (
	// ByDirection sends the two directions of a session to different collectors.
	ByDirection Split = iota
	// BySession sends each session whole to one collector. Fragments behind the first, which have no ports,
	// may go to another one.
	BySession
	// ByPacket sends each packet anywhere.
	ByPacket
	// ByRehash sends each session to one collector, but every rehashEvery packets the hash changes, as it does
	// when a backend comes or goes.
	ByRehash
)

var splitNames = [...]string{ByDirection: "direction", BySession: "session", ByPacket: "packet", ByRehash: "rehash"}

func (s Split) String() string { return splitNames[s] }

// MarshalText returns the name of the split.
func (s Split) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText sets the split by its name.
func (s *Split) UnmarshalText(text []byte) error {
	for i, name := range splitNames {
		if string(text) == name {
			*s = Split(i)
			return nil
		}
	}
	return fmt.Errorf("must be one of %s", strings.Join(splitNames[:], ", "))
}

// rehashEvery is after how many packets ByRehash changes its hash: few, so that most sessions of a small
// capture are torn too.
const rehashEvery = 29

// tap is a place at which packets are mirrored: the address and VNI of the carrier that it puts around them.
type tap struct {
	address packet.Addr
	vni     uint32
}

// The addresses are of TEST-NET-1 (RFC 5737).
var taps = [2]tap{
	{address: packet.Addr{10: 0xff, 11: 0xff, 12: 192, 13: 0, 14: 2, 15: 1}, vni: 27},
	{address: packet.Addr{10: 0xff, 11: 0xff, 12: 192, 13: 0, 14: 2, 15: 2}, vni: 28},
}

// maxCopyDelay bounds how much later, in nanoseconds, the second tap stamps its copy.
const maxCopyDelay = 1e6

// spread decides, from the packet and its number alone, where a load balancer takes a mirrored packet.
type spread struct {
	split      Split
	collectors int
}

// route is where one copy of a packet goes.
type route struct {
	collector int
	port      uint16 // outer source port
}

// route returns the way of a packet of flow f (nil: it was not understood), the number-th of the input, as
// tap number end mirrors it.
func (s spread) route(f *packet.Flow, number uint64, end int) route {
	var hash uint64
	low := true
	if f != nil {
		src, dst := f.SrcPort, f.DstPort
		if f.Protocol == packet.ProtoICMP || f.Protocol == packet.ProtoICMPv6 {
			src, dst = 0, 0
		}
		var key session.Key
		key, low = session.NewKey(f.Tenant, f.Protocol, f.Src, src, f.Dst, dst)
		hash = key.Hash()
	}
	hash = scramble(hash + uint64(end))
	direction := hash
	if !low {
		direction = scramble(hash)
	}
	// Ephemeral ports, by the direction's hash, as a virtual switch picks them (RFC 7348, 5).
	r := route{port: uint16(49152 + direction%16384)}
	n := uint64(s.collectors)
	switch s.split {
	case ByDirection:
		if !low {
			hash++
		}
	case ByPacket:
		hash = scramble(number*2 + uint64(end))
	case ByRehash:
		hash = scramble(hash ^ number/rehashEvery)
	}
	r.collector = int(hash % n)
	return r
}

// scramble is the finalizer of SplitMix64: a well mixed permutation of 64-bit numbers.
func scramble(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
