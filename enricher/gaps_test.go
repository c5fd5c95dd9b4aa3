package enricher

import (
	"testing"

	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
)

func TestGaps(t *testing.T) {
	g := gaps{}
	for i, c := range []struct {
		producer    string
		incarnation uint64
		kind        pb.PacketBatch_Kind
		watermark   int64
		clock       int64
		want        gap
	}{
		{"a", 1, pb.PacketBatch_HELLO, 100, 101, gap{}},
		{"a", 1, pb.PacketBatch_PACKETS, 200, 201, gap{}},
		{"b", 1, pb.PacketBatch_PACKETS, 210, 211, gap{}},
		{"a", 1, pb.PacketBatch_PACKETS, 150, 202, gap{}}, // the watermark never goes back
		{"a", 5, pb.PacketBatch_HELLO, 900, 901, gap{"a", 1, 200, 901}},
		{"a", 1, pb.PacketBatch_PACKETS, 950, 951, gap{}}, // written late by the incarnation that ended
		{"a", 5, pb.PacketBatch_PACKETS, 960, 961, gap{}},
		{"b", 1, pb.PacketBatch_GOODBYE, 970, 971, gap{}},
		{"b", 2, pb.PacketBatch_HELLO, 990, 991, gap{}}, // it had taken its leave
		{"b", 3, pb.PacketBatch_HELLO, 991, 992, gap{"b", 2, 990, 992}},
		{"b", 4, pb.PacketBatch_HELLO, 980, 981, gap{}}, // its clock was set back: nothing can be said
	} {
		value, err := record.MarshalPackets(&pb.PacketsRecord{Body: &pb.PacketsRecord_Batch{Batch: &pb.PacketBatch{
			Kind: c.kind, Producer: c.producer, Incarnation: c.incarnation, Watermark: c.watermark, Clock: c.clock}}})
		if err != nil {
			t.Fatal(err)
		}
		got, ok := g.see(value)
		if !ok {
			got = gap{}
		}
		if got != c.want {
			t.Errorf("%d: %+v, want %+v", i, got, c.want)
		}
	}
	if _, ok := g.see([]byte("nothing")); ok {
		t.Error("a gap in nothing")
	}
}
