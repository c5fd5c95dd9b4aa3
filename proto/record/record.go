// Package record reads and writes the records of every topic: the envelopes of package pb, with their versions
// checked and their sizes bounded.
//
// A record comes from a log that others can write to as well. Whatever its bytes, reading it never panics, and
// never allocates more than a small multiple of its size.
package record

import (
	"errors"
	"fmt"
	"hash/crc32"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/tapweave/tapweave/proto/pb"
)

// Topics.
const (
	TopicPackets    = "tapweave.packets"
	TopicSessions   = "tapweave.sessions"
	TopicSIEMECS    = "tapweave.siem.ecs"
	TopicSIEMOCSF   = "tapweave.siem.ocsf"
	TopicSIEMASIM   = "tapweave.siem.asim"
	TopicState      = "tapweave.state"
	TopicStats      = "tapweave.stats"
	TopicDeadLetter = "tapweave.deadletter"
)

const (
	// DefaultInputPartitions is P, the number of partitions of tapweave.packets and of tapweave.state.
	DefaultInputPartitions = 16
	// DefaultOutputPartitions is S, the number of partitions of tapweave.sessions.
	DefaultOutputPartitions = 4
)

// OutputPartition returns the partition of tapweave.sessions that the outputs of an input partition go to.
func OutputPartition(input, outputs int) int { return input % outputs }

const (
	// MaxBytes is the most that a record may have when it is written: Azure Event Hubs takes less than
	// 1,000,000 bytes a produce call, and the batch around the record and its headers count as well.
	MaxBytes = 900_000
	// maxRead is the most that is read. It leaves room for writers with other bounds.
	maxRead = 1 << 20
)

// Version is the version of the envelopes that this program writes, and the only one that it reads.
const Version = 1

var (
	// ErrCorrupt is wrapped by the errors about bytes that are no record.
	ErrCorrupt = errors.New("corrupt record")
	// ErrTooLarge is wrapped by the errors about records beyond the bounds.
	ErrTooLarge = errors.New("record too large")
)

// VersionError says that something was written in a version that this program does not understand.
type VersionError struct {
	What              string // e.g. "sessions record"
	Found, Understood uint32
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s of version %d, this program understands version %d", e.What, e.Found, e.Understood)
}

// envelope is a record of any topic.
type envelope interface {
	proto.Message
	GetVersion() uint32
}

func marshal(what string, m envelope) ([]byte, error) {
	if n := proto.Size(m); n > MaxBytes {
		return nil, fmt.Errorf("%s of %d bytes, at most %d: %w", what, n, MaxBytes, ErrTooLarge)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return b, nil
}

func unmarshal(what string, b []byte, m envelope) error {
	if len(b) > maxRead {
		return fmt.Errorf("%s of %d bytes, at most %d: %w", what, len(b), maxRead, ErrTooLarge)
	}
	if err := proto.Unmarshal(b, m); err != nil {
		return fmt.Errorf("%s: %w: %v", what, ErrCorrupt, err)
	}
	if v := m.GetVersion(); v != Version {
		return &VersionError{what, v, Version}
	}
	return nil
}

func corrupt(what, format string, args ...any) error {
	return fmt.Errorf("%s: %w: %s", what, ErrCorrupt, fmt.Sprintf(format, args...))
}

// MarshalPackets returns a record of tapweave.packets; it sets the version.
func MarshalPackets(r *pb.PacketsRecord) ([]byte, error) {
	r.Version = Version
	return marshal("packets record", r)
}

// UnmarshalPackets reads a record of tapweave.packets. Its body is set; the packet columns are not looked into.
// They are not copied either: they stay part of b.
func UnmarshalPackets(b []byte) (*pb.PacketsRecord, error) {
	const what = "packets record"
	r := plainBatch(b)
	if r == nil {
		r = new(pb.PacketsRecord)
		if err := unmarshal(what, b, r); err != nil {
			return nil, err
		}
	}
	switch body := r.Body.(type) {
	case *pb.PacketsRecord_Batch:
		if k := body.Batch.Kind; k < pb.PacketBatch_PACKETS || k > pb.PacketBatch_GOODBYE {
			return nil, corrupt(what, "batch of kind %d", k)
		}
	case *pb.PacketsRecord_Tick, *pb.PacketsRecord_LabelSet, *pb.PacketsRecord_EndOfInput:
	default:
		return nil, corrupt(what, "no body that this program knows")
	}
	return r, nil
}

// plainBatch reads a record as this program writes it: a batch of the version that is known, with the fields that
// are known. It returns nil for all else, which package proto reads, by the same rules but with a copy of the
// columns and ten allocations.
func plainBatch(b []byte) *pb.PacketsRecord {
	if len(b) > maxRead {
		return nil
	}
	var r struct {
		record pb.PacketsRecord
		body   pb.PacketsRecord_Batch
		batch  pb.PacketBatch
	}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil
		}
		b = b[n:]
		switch {
		case number == 1 && kind == protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 || uint32(v) != Version {
				return nil
			}
			r.record.Version, b = uint32(v), b[n:]
		case number == 2 && kind == protowire.BytesType && r.record.Body == nil:
			v, n := protowire.ConsumeBytes(b)
			if n < 0 || !readBatch(&r.batch, v) {
				return nil
			}
			r.body.Batch, r.record.Body, b = &r.batch, &r.body, b[n:]
		default:
			return nil
		}
	}
	if r.record.Version != Version || r.record.Body == nil {
		return nil
	}
	return &r.record
}

func readBatch(m *pb.PacketBatch, b []byte) bool {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		var v uint64
		var bytes []byte
		switch kind {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			bytes, n = protowire.ConsumeBytes(b)
		default:
			return false
		}
		if n < 0 {
			return false
		}
		b = b[n:]
		if (kind == protowire.BytesType) != (number == 2 || number == 10) {
			return false
		}
		switch number {
		case 1:
			m.Kind = pb.PacketBatch_Kind(v)
		case 2:
			if !utf8.Valid(bytes) {
				return false
			}
			m.Producer = string(bytes)
		case 3:
			m.Incarnation = v
		case 4:
			m.Sequence = v
		case 5:
			m.Watermark = int64(v)
		case 6:
			m.Clock = int64(v)
		case 7:
			m.Partitions = uint32(v)
		case 8:
			m.ShedThreshold = v
		case 9:
			m.Packets = uint32(v)
		case 10:
			m.Columns = bytes
		case 11:
			m.Oldest = int64(v)
		default:
			return false
		}
	}
	return true
}

// MarshalSessions returns a record of tapweave.sessions; it sets the version.
func MarshalSessions(r *pb.SessionsRecord) ([]byte, error) {
	r.Version = Version
	return marshal("sessions record", r)
}

// UnmarshalSessions reads a record of tapweave.sessions. Its body is set; see [Stream] for the rows in it.
func UnmarshalSessions(b []byte) (*pb.SessionsRecord, error) {
	const what = "sessions record"
	r := new(pb.SessionsRecord)
	if err := unmarshal(what, b, r); err != nil {
		return nil, err
	}
	switch r.Body.(type) {
	case *pb.SessionsRecord_Output, *pb.SessionsRecord_Marker:
	default:
		return nil, corrupt(what, "no body that this program knows")
	}
	return r, nil
}

// MarshalStats returns a record of tapweave.stats; it sets the version.
func MarshalStats(r *pb.StatsRecord) ([]byte, error) {
	r.Version = Version
	return marshal("stats record", r)
}

// UnmarshalStats reads a record of tapweave.stats.
func UnmarshalStats(b []byte) (*pb.StatsRecord, error) {
	r := new(pb.StatsRecord)
	if err := unmarshal("stats record", b, r); err != nil {
		return nil, err
	}
	return r, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// MarshalState returns a record of tapweave.state; it sets the version and a snapshot's checksum.
func MarshalState(r *pb.StateRecord) ([]byte, error) {
	r.Version = Version
	if s := r.GetSnapshot(); s != nil {
		s.Crc32C = crc32.Checksum(s.Data, castagnoli)
	}
	return marshal("state record", r)
}

// UnmarshalState reads a record of tapweave.state, and checks a snapshot's checksum.
func UnmarshalState(b []byte) (*pb.StateRecord, error) {
	const what = "state record"
	r := new(pb.StateRecord)
	if err := unmarshal(what, b, r); err != nil {
		return nil, err
	}
	switch body := r.Body.(type) {
	case *pb.StateRecord_Snapshot:
		s := body.Snapshot
		if s.Chunk >= s.Chunks {
			return nil, corrupt(what, "chunk %d of %d", s.Chunk, s.Chunks)
		}
		if sum := crc32.Checksum(s.Data, castagnoli); sum != s.Crc32C {
			return nil, corrupt(what, "checksum %08x of data with %08x", s.Crc32C, sum)
		}
	case *pb.StateRecord_LabelSet:
		if s := body.LabelSet; s.Chunk >= s.Chunks {
			return nil, corrupt(what, "chunk %d of %d", s.Chunk, s.Chunks)
		}
	default:
		return nil, corrupt(what, "no body that this program knows")
	}
	return r, nil
}

// MarshalDeadLetter returns a record of tapweave.deadletter; it sets the version.
func MarshalDeadLetter(r *pb.DeadLetterRecord) ([]byte, error) {
	r.Version = Version
	return marshal("dead letter", r)
}

// UnmarshalDeadLetter reads a record of tapweave.deadletter.
func UnmarshalDeadLetter(b []byte) (*pb.DeadLetterRecord, error) {
	r := new(pb.DeadLetterRecord)
	if err := unmarshal("dead letter", b, r); err != nil {
		return nil, err
	}
	return r, nil
}
