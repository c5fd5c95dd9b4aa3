package clickhouse_test

import (
	"bytes"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
)

// BenchmarkSink is Kafka to durable rows, all columns of sessions, against ClickHouse's own INSERT SELECT of the
// same rows into the same kind of table, in turn, so that both have the same noise around them. vs_insert_select
// is to be 0.8 or more.
func BenchmarkSink(b *testing.B) {
	const batches, batch, partitions = 600, 1000, 4
	const poll = 10 * time.Millisecond // which this process pays for as well
	r := newRig(b, partitions)
	rows := make([][]*pb.Rows, partitions)
	for i := range batches {
		rows[i%partitions] = append(rows[i%partitions], sessions(b, i*batch, (i+1)*batch, nil))
	}
	round := uint64(0) // each is an owner of its own, so that nothing is taken for a repeat
	produce := func() {
		round++
		for i, outputs := range rows {
			var list []kafka.Record
			for n, o := range outputs {
				list = append(list, kafka.Record{Value: r.record(i, round, uint64(n+1), o)})
			}
			for len(list) > 0 {
				n := min(4, len(list))
				if _, err := r.kafka.ProduceRetry(b.Context(), record.TopicSessions, i, func() ([]kafka.Record, error) { return list[:n], nil }, nil); err != nil {
					b.Fatal(err)
				}
				list = list[n:]
			}
		}
	}
	exec := func(format string) {
		if err := r.server.Exec(b.Context(), fmt.Sprintf(format, r.config.Database)); err != nil {
			b.Fatal(err)
		}
	}
	exec("CREATE TABLE %[1]s.copy AS %[1]s.sessions_versions")
	var sink, cpu, own time.Duration
	for range b.N {
		exec("TRUNCATE TABLE %[1]s.sessions_versions SYNC")
		produce()
		used := processCPU()
		stop := r.start()
		for r.counters.Counter("clickhouse", "records").Value() == 0 {
			time.Sleep(poll)
		}
		began := time.Now()
		for r.counters.Counter("rows", "sessions_versions").Value() < batches*batch {
			time.Sleep(poll)
		}
		sink += time.Since(began)
		stop()
		cpu += processCPU() - used
		r.wait("SELECT count() FROM %[1]s.sessions_versions", batches*batch)

		exec("TRUNCATE TABLE %[1]s.copy SYNC")
		began = time.Now()
		exec("INSERT INTO %[1]s.copy SELECT * FROM %[1]s.sessions_versions")
		own += time.Since(began)
	}
	n := float64(b.N * batches * batch)
	b.ReportMetric(n/sink.Seconds(), "rows/s")
	b.ReportMetric(n/own.Seconds(), "insert_select_rows/s")
	b.ReportMetric(own.Seconds()/sink.Seconds(), "vs_insert_select")
	b.ReportMetric(n/cpu.Seconds(), "rows/cpu-s")
	b.ReportMetric(0, "ns/op")
}

// processCPU is the time that this process has computed.
func processCPU() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkBatches is why record batches are put together: the same rows, as ClickHouse takes them into a table
// that stores nothing.
func BenchmarkBatches(b *testing.B) {
	const total = 20_000
	r := newRig(b, 1)
	if err := r.server.Exec(b.Context(), fmt.Sprintf("CREATE TABLE %[1]s.nothing AS %[1]s.sessions_versions ENGINE = Null", r.config.Database)); err != nil {
		b.Fatal(err)
	}
	for _, batch := range []int{10, 100, 1000, total} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			stream := slices.Clone(columns.SchemaMessage(pb.Rows_SESSIONS))
			for i := 0; i < total; i += batch {
				s, err := columns.Open(sessions(b, i, i+batch, nil), nil)
				if err != nil {
					b.Fatal(err)
				}
				stream = append(stream, slices.Concat(s.RecordBatches()...)...)
			}
			stream = append(stream, columns.EndOfStream...)
			for b.Loop() {
				if err := r.server.InsertFormat(b.Context(), "ArrowStream", "INSERT INTO "+r.config.Database+".nothing", bytes.NewReader(stream)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*total)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
