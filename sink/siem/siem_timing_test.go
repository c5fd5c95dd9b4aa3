package siem

import (
	"encoding/binary"
	"testing"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/sink/siem/siemtest"
)

// BenchmarkDocuments measures all that is between two calls to the broker: a record of tapweave.sessions is decoded, and
// its finished sessions become documents.
func BenchmarkDocuments(b *testing.B) {
	const perRecord = 1000
	builder := columns.NewBuilder(columns.Sessions)
	mix := siemtest.Mix()
	for i := range perRecord {
		s := *mix[i%len(mix)]
		binary.BigEndian.PutUint64(s.ID[:], uint64(i)*0x9e3779b97f4a7c15)
		builder.Append(&s)
	}
	rows, err := builder.Rows()
	if err != nil {
		b.Fatal(err)
	}
	value, err := record.MarshalSessions(&pb.SessionsRecord{Body: &pb.SessionsRecord_Output{Output: &pb.Output{Rows: []*pb.Rows{rows}}}})
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range Formats {
		b.Run(f.Name, func(b *testing.B) {
			p := (&Output{targets: []target{{Format: f}}}).newPartition()
			documents := 0
			began := siemtest.Processor(b)
			for b.Loop() {
				if err := p.take(value); err != nil {
					b.Fatal(err)
				}
				documents += len(p.batches[0].documents)
				p.batches[0] = batch{text: p.batches[0].text[:0], documents: p.batches[0].documents[:0]}
			}
			if documents != b.N*perRecord {
				b.Fatalf("%d documents of %d", documents, b.N*perRecord)
			}
			b.ReportMetric(float64(documents)/(siemtest.Processor(b)-began).Seconds(), "documents/cpu-s")
		})
	}
}
