// Package rowstest gives tests a database on a real ClickHouse that holds what the pipeline makes of captures:
// decoded and batched as a collector does, folded and put out as an enricher does, inserted as record batches of
// the sink's tables. Only Kafka is left out.
package rowstest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/tapweave/tapweave/collector/batcher"
	"github.com/tapweave/tapweave/collector/decode"
	"github.com/tapweave/tapweave/collector/source/capture"
	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/enricher/output"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/delivery"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/sink/clickhouse"
	"github.com/tapweave/tapweave/sink/clickhouse/clickhousetest"
	"github.com/tapweave/tapweave/sink/migrate"
)

// Database returns a new database with the rows of captures, packets among them, and a connection to its server.
// It is dropped when the test ends.
func Database(tb testing.TB, captures ...string) (clickhouse.Config, *clickhouse.Server) {
	tb.Helper()
	c := clickhousetest.Config(tb)
	server := clickhousetest.Migrated(tb, c)
	rows := map[pb.Rows_Kind]*bytes.Buffer{}
	for i, path := range captures {
		if err := fill(rows, path, uint64(i+1)); err != nil {
			tb.Fatalf("%s: %v", path, err)
		}
	}
	for kind, names := range map[pb.Rows_Kind][]string{
		pb.Rows_SESSIONS: {migrate.Versions},
		pb.Rows_TRAFFIC:  {migrate.TrafficMinute, migrate.TrafficHour},
		pb.Rows_PACKETS:  {migrate.Packets},
	} {
		if rows[kind] == nil {
			continue
		}
		stream := slices.Concat(columns.SchemaMessage(kind), rows[kind].Bytes(), columns.EndOfStream)
		for _, name := range names {
			into := fmt.Sprintf("INSERT INTO %s.%s (%s) SETTINGS async_insert = 0, max_partitions_per_insert_block = 0", c.Database, name, columns.Names(kind))
			if err := server.InsertFormat(tb.Context(), "ArrowStream", into, bytes.NewReader(stream)); err != nil {
				tb.Fatalf("%s: %v", name, err)
			}
		}
	}
	return c, server
}

// fill folds a capture as a log of its own and appends the record batches that come out.
func fill(rows map[pb.Rows_Kind]*bytes.Buffer, path string, epoch uint64) error {
	owner, err := delivery.NewOwner(delivery.Assignment{Generation: 1, Committed: delivery.Commit{Offset: -1}})
	if err != nil {
		return err
	}
	owner.Surveyed(0, 0)
	settings := fold.DefaultSettings()
	settings.Partitions, settings.Packets = 1, true
	stream := output.New(output.Config{
		Epoch: delivery.Epoch{Log: epoch, Owner: 1}, Fold: settings, Output: output.DefaultSettings(),
		Emit: func(_ uint64, value []byte) error { return collect(rows, value) },
	}, owner.Numbers(0))

	var offset int64
	var failed error
	log := func(r *pb.PacketsRecord) {
		value, err := record.MarshalPackets(r)
		if err == nil {
			err = stream.Record(offset, value)
		}
		failed = errors.Join(failed, err)
		offset++
	}
	b := batcher.New(batcher.DefaultConfiguration("collector-1", 1, settings.Partitions), 1, func(_ int, b *pb.PacketBatch) {
		log(&pb.PacketsRecord{Body: &pb.PacketsRecord_Batch{Batch: b}})
	})[0]
	all := decode.DefaultConfiguration()
	all.Payload = true
	d := decode.New(all)

	in, err := capture.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	var clock int64
	for first := true; ; first = false {
		r, err := in.Next()
		if err != nil {
			if err != io.EOF && first {
				return err
			}
			break // a capture that is cut in the middle has rows all the same
		}
		if first {
			clock = r.Time
			b.Hello(clock - 1e9)
		}
		clock = max(clock, r.Time)
		if d.Frame(max(r.Time, clock-1e9), r.Link, r.Data, r.Original) == decode.OK {
			b.Take(&d.Flow, &d.Packet)
		}
	}
	b.Goodbye(clock + 1)
	log(&pb.PacketsRecord{Body: &pb.PacketsRecord_EndOfInput{EndOfInput: &pb.EndOfInput{}}})
	return failed
}

// collect appends the record batches of one record of tapweave.sessions.
func collect(rows map[pb.Rows_Kind]*bytes.Buffer, value []byte) error {
	r, err := record.UnmarshalSessions(value)
	if err != nil {
		return err
	}
	for _, list := range r.GetOutput().GetRows() {
		s, err := columns.Open(list, nil)
		if err != nil {
			return err
		}
		if rows[s.Kind] == nil {
			rows[s.Kind] = new(bytes.Buffer)
		}
		for _, b := range s.RecordBatches() {
			rows[s.Kind].Write(b)
		}
	}
	return nil
}
