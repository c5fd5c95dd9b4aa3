package read

import (
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
)

// memoryLog stands for tapweave.packets: records appended to partitions, which whoever folds them reads in
// order. Records travel in rounds, so that reading and folding go on at the same time and memory is bounded
// by the rounds in flight. What is handed over are bytes, as they would stand on the broker.
type memoryLog struct {
	next   []int64 // offset of the next record, by partition
	open   *round
	rounds chan *round
	free   chan *round
	stop   <-chan struct{} // closed when nobody folds any more
}

// round holds records, by partition, in the order of their appending.
type round [][]logged

// logged is a record at its place in a partition.
type logged struct {
	offset int64
	value  []byte
}

// roundsInFlight is how many rounds exist: one is filled while another is folded and a third waits.
const roundsInFlight = 3

func newMemoryLog(partitions int, stop <-chan struct{}) *memoryLog {
	l := &memoryLog{
		next:   make([]int64, partitions),
		rounds: make(chan *round, roundsInFlight),
		free:   make(chan *round, roundsInFlight),
		stop:   stop,
	}
	for range roundsInFlight {
		r := make(round, partitions)
		l.free <- &r
	}
	l.open = <-l.free
	return l
}

// append writes a record to the end of a partition.
func (l *memoryLog) append(partition int, r *pb.PacketsRecord) error {
	value, err := record.MarshalPackets(r)
	if err != nil {
		return err
	}
	p := &(*l.open)[partition]
	*p = append(*p, logged{l.next[partition], value})
	l.next[partition]++
	return nil
}

// deliver hands what was appended to the folds. It waits while they lag, and returns false when they have
// stopped.
func (l *memoryLog) deliver() bool {
	select {
	case l.rounds <- l.open:
	case <-l.stop:
		return false
	}
	select {
	case l.open = <-l.free:
		return true
	case <-l.stop:
		return false
	}
}

// release takes back a round that was folded.
func (l *memoryLog) release(r *round) {
	for i, records := range *r {
		clear(records)
		(*r)[i] = records[:0]
	}
	l.free <- r
}

// close says that nothing will be appended any more.
func (l *memoryLog) close() { close(l.rounds) }
