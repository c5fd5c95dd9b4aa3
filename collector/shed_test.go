package collector

import "testing"

func TestRelief(t *testing.T) {
	for p, want := range map[float64]shedding{
		0: {}, 0.69: {}, 0.7: {payload: true}, 0.93: {payload: true}, 0.97: {true, 1 << 63}, 0.985: {true, 1 << 62}, 1: {true, 1}, 1.1: {true, 1},
	} {
		got := relief(p)
		if got.payload != want.payload || (got.threshold == 0) != (want.threshold == 0) || max(got.threshold, want.threshold)-min(got.threshold, want.threshold) > 1<<58 {
			t.Errorf("at %v: %v, %x, want %v, %x", p, got.payload, got.threshold, want.payload, want.threshold)
		}
	}
	// More pressure never keeps a session that less pressure shed.
	last := ^uint64(0)
	for p := packetsAt + 0.002; p < 1.1; p += 0.0005 {
		if n := relief(p).threshold; n == 0 || n > last {
			t.Fatalf("at %v: threshold %x after %x", p, n, last)
		} else {
			last = n
		}
	}
}
