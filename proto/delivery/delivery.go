// Package delivery is the protocol by which nothing is lost and nothing counted twice between tapweave.packets
// and ClickHouse: numbers, epochs, markers, and what is committed with the offsets. It is one protocol for
// enricher and sink, so that neither has a recovery path of its own. docs/delivery.md tells it on one page.
//
// Everything in it is pure: no Kafka client, no clock, no goroutine. The state machines [Owner] (an enricher
// takes an input partition over) and [Blocks] (a sink stores an output partition) say what is to be done next
// and are told how it came out; [Reader] says which records of tapweave.sessions count. The tests drive them
// through crashes at every step against logs in memory.
package delivery

import (
	"cmp"
	"fmt"

	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
)

// Epoch says whose an output is. Epochs are ordered, log epoch first; the largest seen counts, not the latest.
type Epoch struct {
	// Log grows when the outputs begin anew: the input topic was remade, the number of partitions changed, or
	// the group's offsets or snapshots were lost. From 1.
	Log uint64
	// Owner grows with each assignment of the input partition: the generation of the enrichers' group, plus
	// what [Owner] adds where the broker began to count generations anew.
	Owner uint64
}

// Compare returns -1, 0 or 1.
func (e Epoch) Compare(o Epoch) int {
	return cmp.Or(cmp.Compare(e.Log, o.Log), cmp.Compare(e.Owner, o.Owner))
}

func (e Epoch) String() string { return fmt.Sprintf("%d/%d", e.Log, e.Owner) }

// Position is one output of the fold of one input partition. The zero value is before everything.
type Position struct {
	Epoch
	// Number is counted in the fold, from 1.
	Number uint64
}

// Compare returns -1, 0 or 1: by log epoch, then owner epoch, then number.
func (p Position) Compare(o Position) int {
	return cmp.Or(p.Epoch.Compare(o.Epoch), cmp.Compare(p.Number, o.Number))
}

func (p Position) String() string { return fmt.Sprintf("%v/%d", p.Epoch, p.Number) }

// At is the position of an input partition.
type At struct {
	Partition uint32
	Position
}

// Entry is what the protocol looks at in a record of tapweave.sessions.
type Entry struct {
	Partition uint32 // of tapweave.packets
	Position         // Number is 0 in a marker
	// Marker says that a new owner begins. Whatever bears an older epoch behind it does not count.
	Marker bool
	// Continues, in a marker, says that numbers go on where they ended in the same log epoch. Otherwise they
	// begin at 1 again: the owner has no state of the one before it, and equal numbers mean nothing.
	Continues bool
	// Input, in an output, is the offset of the record on tapweave.packets that was being folded.
	Input int64
}

// EntryOf returns what the protocol looks at in r. inputs is the number of partitions of tapweave.packets: a
// record of another is foreign to the log, and so is an output without a number.
func EntryOf(r *pb.SessionsRecord, inputs int) (Entry, error) {
	if int64(r.InputPartition) >= int64(inputs) {
		return Entry{}, fmt.Errorf("sessions record: %w: input partition %d of %d", record.ErrCorrupt, r.InputPartition, inputs)
	}
	e := Entry{Partition: r.InputPartition, Position: Position{Epoch: Epoch{r.LogEpoch, r.OwnerEpoch}}}
	switch b := r.Body.(type) {
	case *pb.SessionsRecord_Marker:
		e.Marker, e.Continues = true, b.Marker.GetContinues()
		return e, nil
	case *pb.SessionsRecord_Output:
		if b.Output.GetNumber() > 0 {
			e.Number, e.Input = b.Output.Number, b.Output.InputOffset
			return e, nil
		}
	}
	return Entry{}, fmt.Errorf("sessions record: %w: neither a marker nor a numbered output", record.ErrCorrupt)
}

// Outcome is how something came out that another process was asked to do.
type Outcome uint8

const (
	// Done: it is durable.
	Done Outcome = iota + 1
	// Refused: it has not happened and will not. A commit: the generation is over. An insert: the server said
	// that the data is wrong; any other answer of the server is Unknown.
	Refused
	// Unknown: it may have happened, or may happen yet.
	Unknown
)
