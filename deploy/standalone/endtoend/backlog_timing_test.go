package endtoend

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/sink/clickhouse"
	"github.com/tapweave/tapweave/sink/siem/siemtest"
)

// BenchmarkBacklog is what the sink, as a program, makes of sessions that wait in Kafka: rows for each second of processor time
// that it takes from its start to its end, and the most memory that it takes; as it comes, with documents for SIEMs, and
// without these.
func BenchmarkBacklog(b *testing.B) {
	b.Run("defaults", func(b *testing.B) { backlog(b) })
	b.Run("clickhouse", func(b *testing.B) { backlog(b, "TAPWEAVE_SIEM_ECS=false") })
}

func backlog(b *testing.B, env ...string) {
	const outputs, each = 1500, 1000
	s := newServers(b)
	if _, err := s.client.EnsureTopics(b.Context(), true, kafka.Topic{Name: record.TopicSessions, Partitions: record.DefaultOutputPartitions}); err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	mix, builder := siemtest.Mix(), columns.NewBuilder(columns.Sessions)
	began := time.Now().UnixNano()
	for i := range outputs {
		for n := range each {
			v := *mix[n%len(mix)]
			binary.BigEndian.PutUint64(v.ID[:], r.Uint64())
			binary.BigEndian.PutUint64(v.ID[8:], r.Uint64())
			v.CommunityID = fmt.Sprintf("1:%016x%011x=", r.Uint64(), r.Uint64()>>20)
			v.Created = began + int64(i*each+n)*10_000
			v.Start, v.End = v.Created, v.Created+int64(r.ExpFloat64()*5e9)
			v.Src = packet.AddrFrom(netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(40)), byte(r.IntN(250))}))
			v.SrcPort, v.SrcBytes, v.DstBytes = uint16(32768+r.IntN(28000)), uint64(r.IntN(10000)), uint64(r.IntN(1000000))
			v.HandshakeRTT, v.SrcRTT = r.Float64(), r.Float64()
			builder.Append(&v)
		}
		rows, err := builder.Rows()
		if err != nil {
			b.Fatal(err)
		}
		input := i % record.DefaultInputPartitions
		value, err := record.MarshalSessions(&pb.SessionsRecord{
			InputPartition: uint32(input), LogEpoch: 1, OwnerEpoch: 1,
			Body: &pb.SessionsRecord_Output{Output: &pb.Output{Number: uint64(i/record.DefaultInputPartitions + 1), Rows: []*pb.Rows{rows}}},
		})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.client.Produce(b.Context(), record.TopicSessions, input%record.DefaultOutputPartitions, kafka.Record{Value: value}); err != nil {
			b.Fatal(err)
		}
	}
	start := time.Now()
	sink := s.start("sink-1", "sink", env...)
	s.eventually(5*time.Minute, "all to be stored", func() error {
		done, err := s.client.Committed(b.Context(), clickhouse.Group, record.TopicSessions, record.DefaultOutputPartitions)
		if err != nil {
			return err
		}
		for p, offset := range done {
			if _, end, err := s.client.Offsets(b.Context(), record.TopicSessions, p); err != nil || offset < end {
				return fmt.Errorf("partition %d: %d of %d, %v", p, offset, end, err)
			}
		}
		return nil
	})
	took := time.Since(start)
	most := memory(b, sink)
	sink.cmd.Process.Signal(syscall.SIGTERM)
	<-sink.done
	if n := s.query("SELECT toFloat64(count()) AS n FROM sessions")[0]["n"]; n != float64(outputs*each) {
		b.Fatalf("%v sessions of %d", n, outputs*each)
	}
	used := sink.cmd.ProcessState.UserTime() + sink.cmd.ProcessState.SystemTime()
	b.ReportMetric(outputs*each/took.Seconds(), "rows/s")
	b.ReportMetric(outputs*each/used.Seconds(), "rows/cpu-s")
	b.ReportMetric(float64(most)/(1<<20), "RSS-MiB")
	b.ReportMetric(0, "ns/op")
}
