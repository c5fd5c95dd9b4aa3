// Package batch encodes the packets of one partition compactly, in columns, and decodes them again.
//
// Each packet is described by how it departs from what its flow led to expect: the next sequence number, the
// same acknowledgement, window and flags, the next IP identification. A control byte says what was as
// expected; only the rest is written, each field in a column of its own, and the columns are compressed.
//
// Layout:
//
//	byte     format version
//	byte     Compression
//	uvarint  length of the body before compression
//	body     uvarint packets, uvarint flows, uvarint tenants, tenants (uvarint length, bytes),
//	         uvarint length of each column in the order of the column constants, the columns
//
// A decoder refuses a version that it does not know, and never allocates more than a small multiple of what
// the input holds.
package batch

import (
	"errors"
	"fmt"
)

// Version of the format written here, and the only one read.
const Version = 1

// MaxPackets is the most packets that one batch may hold.
const MaxPackets = 1 << 16

// MaxBody is the largest body, in bytes before compression, that a decoder accepts.
const MaxBody = 16 << 20

// Compression of a batch's body.
type Compression uint8

const (
	None Compression = iota // for a batch that does not leave the process
	S2                      // github.com/klauspost/compress/s2, block format
)

// ErrCorrupt is wrapped by every error about a batch that does not decode, but for an unknown version.
var ErrCorrupt = errors.New("corrupt packet batch")

// VersionError says that a batch was written in a format that is not known here.
type VersionError struct{ Found, Known uint8 }

func (e *VersionError) Error() string {
	return fmt.Sprintf("packet batch has format version %d, this program reads version %d", e.Found, e.Known)
}

// Columns of the body.
const (
	colFlows   = iota // see appendFlow
	colControl        // a control byte a packet
	colTime           // zigzag varint: ns since the packet before
	colFlow           // uvarint: flow, where it is not that of the packet before
	colLength         // uvarint: IP length
	colSum            // 2 bytes a packet: checksum
	colID             // zigzag varint: distance from the flow's last ID
	colSeq            // zigzag varint: distance from the expected sequence number
	colAck            // zigzag varint: distance from the flow's last
	colWindow         // zigzag varint: distance from the flow's last
	colMisc           // flags, header overhead, extras
	colBytes          // Head and Data
	columns
)

// Bits of the control byte. A set bit means: as expected, nothing written.
const (
	sameFlow = 1 << iota
	nextSeq
	sameAck
	sameWindow
	sameFlags
	noExtra
	nextID
	sameOverhead // Length - Payload is that of the flow's last packet
)

// Bits of the extra byte, which colMisc holds for packets without noExtra.
const (
	hasFragment = 1 << iota
	hasMSS
	hasWindowScale
	hasHead
	hasData
	dataIsPayload // Data is as long as Payload
)

// Bits of a flow's first byte.
const (
	flowV6 = 1 << iota
	flowSameAddrs
	flowSwappedAddrs
	flowSameMACs
	flowSwappedMACs
	flowSamePath // carriers and VLANs
	flowTenant
	flowICMPID
)

// state is what a flow's packets so far lead to expect of the next. Encoder and decoder keep the same.
type state struct {
	seq, ack, id, overhead, idStep uint32
	window                         uint16
	flags                          uint8
}

func zigzag(v int64) uint64   { return uint64(v<<1) ^ uint64(v>>63) }
func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }
