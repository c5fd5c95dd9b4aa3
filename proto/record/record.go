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
		return tooLarge(what, b)
	}
	if err := proto.Unmarshal(b, m); err != nil {
		return fmt.Errorf("%s: %w: %v", what, ErrCorrupt, err)
	}
	if v := m.GetVersion(); v != Version {
		return &VersionError{what, v, Version}
	}
	return nil
}

func tooLarge(what string, b []byte) error {
	return fmt.Errorf("%s of %d bytes, at most %d: %w", what, len(b), maxRead, ErrTooLarge)
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
	r := new(pb.PacketsRecord)
	if len(b) > maxRead {
		return nil, tooLarge(what, b)
	}
	rest, columns := cutColumns(b)
	if err := unmarshal(what, rest, r); err != nil {
		return nil, err
	}
	if batch := r.GetBatch(); batch != nil && columns != nil {
		batch.Columns = columns
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

// Field numbers in tapweave.proto.
const (
	fieldBatch   = 2  // of PacketsRecord
	fieldColumns = 10 // of PacketBatch
)

// cutColumns takes the columns out of a packets record: package proto would copy them, and they are nearly all
// of it. What is no record with a batch of one piece is left as it is.
func cutColumns(b []byte) (rest, columns []byte) {
	at, batch := field(b, fieldBatch)
	if batch == nil {
		return b, nil
	}
	from, columns := field(batch, fieldColumns)
	if columns == nil {
		return b, nil
	}
	to := from + protowire.SizeTag(fieldColumns) + protowire.SizeBytes(len(columns))
	rest = make([]byte, 0, len(b)-len(columns))
	rest = append(rest, b[:at]...)
	rest = protowire.AppendTag(rest, fieldBatch, protowire.BytesType)
	rest = protowire.AppendVarint(rest, uint64(len(batch)-(to-from)))
	rest = append(append(rest, batch[:from]...), batch[to:]...)
	return append(rest, b[at+protowire.SizeTag(fieldBatch)+protowire.SizeBytes(len(batch)):]...), columns
}

// field returns the value of a field of bytes in message b, and where the field begins. It is nil where there
// is none, more than one, or one not in its shortest form, and where b is no message.
func field(b []byte, number protowire.Number) (at int, value []byte) {
	for i := 0; i < len(b); {
		n, kind, tag := protowire.ConsumeTag(b[i:])
		if tag < 0 {
			return 0, nil
		}
		size := protowire.ConsumeFieldValue(n, kind, b[i+tag:])
		if size < 0 {
			return 0, nil
		}
		if n == number {
			v, _ := protowire.ConsumeBytes(b[i+tag:])
			if value != nil || v == nil || kind != protowire.BytesType || tag+size != protowire.SizeTag(number)+protowire.SizeBytes(len(v)) {
				return 0, nil
			}
			at, value = i, v
		}
		i += tag + size
	}
	return at, value
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
