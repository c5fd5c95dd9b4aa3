package decode_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/tapweave/tapweave/collector/batcher"
	"github.com/tapweave/tapweave/collector/decode"
	"github.com/tapweave/tapweave/collector/source/capture"
	"github.com/tapweave/tapweave/proto/batch"
	"github.com/tapweave/tapweave/proto/capturetest"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
)

// TestThroughBatches wants whatever is decoded to come out of the batches as it went in.
func TestThroughBatches(t *testing.T) {
	type described struct {
		flow   packet.Flow
		packet packet.Packet
	}
	const partitions = 4
	conf := decode.DefaultConfiguration()
	conf.Payload, conf.Scope = true, decode.Isolated
	for _, name := range capturetest.Files(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			var in, out [partitions][]described
			var p batch.Packets
			w := batcher.New(batcher.DefaultConfiguration("a", 1, partitions), 1, func(i int, b *pb.PacketBatch) {
				if b.Packets == 0 {
					return
				}
				if err := p.Decode(b.Columns); err != nil {
					t.Fatal(err)
				}
				for _, q := range p.Packets {
					q.Head, q.Data = slices.Clone(q.Head), slices.Clone(q.Data)
					out[i] = append(out[i], described{p.Flows[q.Flow], q})
				}
			})[0]
			d := decode.New(conf)
			records(t, name, func(r capture.Record) {
				if d.Mirrored(r.Time, packet.Carrier{VNI: 9, Source: packet.Addr{10: 0xff, 11: 0xff, 15: 1}}, 7, r.Link, r.Data, r.Original) != decode.OK {
					return
				}
				w.Take(&d.Flow, &d.Packet)
				q := d.Packet
				q.Head, q.Data = slices.Clone(q.Head), slices.Clone(q.Data)
				i := batcher.Partition(&d.Flow, &q, partitions)
				in[i] = append(in[i], described{d.Flow, q})
			})
			w.Goodbye(0)
			for i := range in {
				if len(in[i]) != len(out[i]) {
					t.Fatalf("partition %d: %d packets in, %d out", i, len(in[i]), len(out[i]))
				}
				for j, a := range in[i] {
					if b := out[i][j]; a.flow != b.flow || !same(a.packet, b.packet) {
						t.Fatalf("partition %d, packet %d:\n%+v\nbecame\n%+v", i, j, a, b)
					}
				}
			}
		})
	}
}
