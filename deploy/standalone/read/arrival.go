package read

import "container/heap"

// arrival is a mirrored packet under way to its collector.
type arrival struct {
	time   int64  // by the clock of the input
	number uint64 // of the packet in the input
	end    int    // which of the taps mirrored it
	frame  frame  // with data of its own
	route  route
}

// arrivals is a queue of packets under way, the earliest first, and, among those of one time, in the order of
// their sending.
type arrivals struct {
	items []*arrival
	spare []*arrival
}

func (a *arrivals) Len() int { return len(a.items) }
func (a *arrivals) Less(i, j int) bool {
	x, y := a.items[i], a.items[j]
	if x.time != y.time {
		return x.time < y.time
	}
	if x.number != y.number {
		return x.number < y.number
	}
	return x.end < y.end
}
func (a *arrivals) Swap(i, j int) { a.items[i], a.items[j] = a.items[j], a.items[i] }
func (a *arrivals) Push(x any)    { a.items = append(a.items, x.(*arrival)) }
func (a *arrivals) Pop() any {
	n := len(a.items) - 1
	x := a.items[n]
	a.items = a.items[:n]
	return x
}

// new returns an arrival to fill in, whose frame has a buffer that may be reused.
func (a *arrivals) new() *arrival {
	if n := len(a.spare); n > 0 {
		x := a.spare[n-1]
		a.spare = a.spare[:n-1]
		return x
	}
	return &arrival{}
}

// add puts x on its way.
func (a *arrivals) add(x *arrival) { heap.Push(a, x) }

// next takes out the earliest packet that has arrived by time until, or returns nil. When it was dealt with,
// it goes back with done.
func (a *arrivals) next(until int64) *arrival {
	if len(a.items) == 0 || a.items[0].time > until {
		return nil
	}
	return heap.Pop(a).(*arrival)
}

func (a *arrivals) done(x *arrival) { a.spare = append(a.spare, x) }
