// Package batch encodes the packets of one partition compactly, and decodes them again.
//
// Each packet is described by how it departs from what its flow led to expect: the next sequence number, the
// same acknowledgement, window, flags and length, the next IP identification. A control word says what was as
// expected, and how many bytes are written of the rest. What is written is sorted into four parts by its nature:
//
//	bytes  Head and Data of the packets, one behind the other
//	low    what repeats: control words, lengths, windows, flags, header overheads, extras
//	flows  each flow once, as it departs from the one before
//	high   what does not: times, checksums, flows, and departures of identification, sequence, acknowledgement
//
// Layout, with all fixed numbers in little endian:
//
//	byte     format version
//	byte     Compression of bytes, low and flows
//	6 uint32 packets, flows, lengths of bytes, low, flows and high before compression
//	bytes, low and flows, compressed together
//	high, never compressed: it would not get smaller
//
// A decoder refuses a version that it does not know, and never allocates more than a small multiple of what
// the input holds.
package batch

import (
	"errors"
	"fmt"
)

// Version of the format written here, and the only one read.
const Version = 2

// MaxPackets is the most packets that one batch may hold.
const MaxPackets = 1 << 16

// MaxBody is the largest sum of the four parts, in bytes before compression, that a decoder accepts.
const MaxBody = 16 << 20

// Compression of a batch.
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

// header is the number of bytes before the parts.
const header = 2 + 6*4

// slack is more than one packet takes of high (at most 24 bytes) or of low (at most 27), so that encoder and
// decoder look for room once a packet, and may write and read whole words.
const slack = 32

// The control word, which begins what a packet has in low. Codes have two bits; 0 says that the value is the
// expected one, and that nothing is written.
const (
	codeFlow     = 0       // bytes of the flow's index in high; expected is the flow of the packet before
	codeTime     = 2       // bytes, by timeWidth, in high: zigzag of the nanoseconds since the packet before
	codeID       = 4       // 1 or 2: bytes of a signed distance in the lower 16 bits, in high; 3: all 4 bytes
	codeSeq      = 6       // bytes, by width, in high: signed distance from the expected sequence number
	codeAck      = 8       // bytes, by width, in high: signed distance from the flow's last
	codeLength   = 10      // bytes, by width, in low: the length; expected is the flow's last
	otherWindow  = 1 << 12 // 2 bytes in low
	otherFlags   = 1 << 13 // 1 byte in low
	otherHeaders = 1 << 14 // 1 byte in low, Length - Payload; longHeaders: 4 more follow
	hasExtra     = 1 << 15 // extra in low
)

// longHeaders says that the number of header bytes follows in four bytes.
const longHeaders = 0xff

var (
	// timeWidth is the width of a time by its code. A time is always written.
	timeWidth = [4]uint8{1, 3, 4, 8}
	// width is that of a sequence number, an acknowledgement and a length.
	width = [4]uint8{0, 1, 2, 4}
)

// Bits of the extra byte, and what follows it in low.
const (
	hasFragment    = 1 << iota // 1 byte, and 2 for the offset
	hasMSS                     // 2 bytes
	hasWindowScale             // 1 byte
	hasHead                    // 2 bytes: length
	hasData
	dataIsPayload // Data is as long as Payload; else 4 bytes: length
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
	seq, ack, id, length, headers uint32
	window                        uint16
	flags, idStep                 uint8
}

func zigzag(v int64) uint64   { return uint64(v<<1) ^ uint64(v>>63) }
func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }
