// Package labels holds what is known of addresses and names beside the packets: networks and hosts, country and
// autonomous system, threat lists.
//
//	labels.go    a label set and its parts; what is known of an address
//	networks.go  networks and hosts, by longest prefix
//	places.go    country and autonomous system, by range
//	threats.go   threat lists, by value and by prefix
//
// A [Set] is made of parts that are known by the digest of their bytes, as they stand on tapweave.state: whoever
// has the same digests labels alike. It does not change, and any number of folds may share it. How files become
// parts is in package source.
package labels

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"net/netip"

	"google.golang.org/protobuf/proto"

	"github.com/tapweave/tapweave/enricher/flowtype"
	"github.com/tapweave/tapweave/enricher/scope"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
)

// Version of the form of a part.
const Version = 1

// Digest is the SHA-256 of a part's bytes, or of the digests of a set's parts.
type Digest [sha256.Size]byte

// String is the beginning of the digest, for people.
func (d Digest) String() string { return fmt.Sprintf("%x", d[:6]) }

// Part is a part of a label set.
type Part struct {
	digest   Digest
	networks *networks
	places   *places
	threats  *Threats
}

// Digest is that of the part's bytes.
func (p *Part) Digest() Digest { return p.digest }

// Len is the number of entries.
func (p *Part) Len() int {
	switch {
	case p.networks != nil:
		return p.networks.len
	case p.places != nil:
		return len(p.places.v4) + len(p.places.v6High)
	}
	return p.threats.Len()
}

// ErrCorrupt is wrapped by the errors of Decode.
var ErrCorrupt = errors.New("part of a label set does not decode")

// Encode returns the bytes of a part.
func Encode(m *pb.Labels) ([]byte, error) {
	m.Version = Version
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// Decode returns the part whose bytes are b. The bytes are not kept.
func Decode(b []byte) (*Part, error) {
	var m pb.Labels
	if err := proto.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if m.Version != Version {
		return nil, &record.VersionError{What: "part of a label set", Found: m.Version, Understood: Version}
	}
	p := &Part{digest: sha256.Sum256(b)}
	var err error
	switch body := m.Body.(type) {
	case *pb.Labels_Networks:
		p.networks, err = newNetworks(body.Networks)
	case *pb.Labels_Places:
		p.places, err = newPlaces(body.Places)
	case *pb.Labels_Threats:
		p.threats, err = newThreats(body.Threats)
	default:
		err = errors.New("of no kind that is known")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return p, nil
}

// Set is a label set: at most one part of each kind counts, the last.
type Set struct {
	digest Digest
	parts  []*Part
	part   Part // all kinds
}

// NewSet returns the set of some parts.
func NewSet(parts ...*Part) *Set {
	s := &Set{parts: parts}
	var all [][]byte
	for _, p := range parts {
		all = append(all, p.digest[:])
		if p.networks != nil {
			s.part.networks = p.networks
		}
		if p.places != nil {
			s.part.places = p.places
		}
		if p.threats != nil {
			s.part.threats = p.threats
		}
	}
	s.digest = DigestOf(all)
	return s
}

// DigestOf is the digest of the set whose parts have these digests.
func DigestOf(parts [][]byte) Digest { return sha256.Sum256(bytes.Join(parts, nil)) }

// Digest names the set.
func (s *Set) Digest() Digest { return s.digest }

// Parts returns the parts, in order.
func (s *Set) Parts() []*Part { return s.parts }

// Named returns the set as a control record names it; where its parts stand is for whoever stored them to say.
func (s *Set) Named() *pb.LabelSet {
	m := &pb.LabelSet{Digest: s.digest[:]}
	for _, p := range s.parts {
		m.Parts = append(m.Parts, &pb.LabelPart{Digest: p.digest[:]})
	}
	return m
}

// Threats returns the threat lists, nil without any.
func (s *Set) Threats() *Threats { return s.part.threats }

// End is what is known of an address. It is shared and does not change.
type End struct {
	Network Network
	Place   Place
	Threat  *Threat // nil: on no list
	Kind    flowtype.End
}

// Span is a time, from its first nanosecond on and up to before its last, that an answer holds for.
type Span struct{ From, Until int64 }

// Always is all times.
var Always = Span{math.MinInt64, math.MaxInt64}

// Holds says whether the answer holds at a time.
func (s Span) Holds(at int64) bool { return at >= s.From && at < s.Until }

// End returns what is known of an address of a tenant at a time, and when that holds: entries of threat lists end.
func (s *Set) End(tenant string, a packet.Addr, at int64) (*End, Span) {
	ip := a.Netip()
	e := &End{Kind: flowtype.End{Scope: scope.Of(ip)}}
	if s.part.networks != nil {
		if n := s.part.networks.find(tenant, ip); n != nil {
			e.Network = *n
			own := n.Owner == pb.Network_OWN
			e.Kind.VNet, e.Kind.Own, e.Kind.Microsoft = n.VNet, own, n.Owner == pb.Network_MICROSOFT
		}
	}
	if ip == wireServer {
		e.Kind.Microsoft = true
	}
	if s.part.places != nil {
		if p := s.part.places.find(ip); p != nil {
			e.Place = *p
		}
	}
	span := Always
	if s.part.threats != nil {
		e.Threat, span = s.part.threats.Address(ip, at)
	}
	return e, span
}

// wireServer is a public address of Azure's platform, the same in every region, which Traffic Analytics counts
// as Microsoft's ("What is IP address 168.63.129.16?" in Microsoft's documentation).
var wireServer = netip.AddrFrom4([4]byte{168, 63, 129, 16})
