package endtoend

import (
	"encoding/binary"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tapweave/tapweave/deploy/standalone/servers"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
)

// TestSinksOnce lets two sinks store what a test puts on tapweave.sessions, while ClickHouse is killed in mid-insert, a
// sink is killed, and one stands still for longer than its session lasts and then goes on, believing that it still has
// its partitions. Each session is there once in every table.
func TestSinksOnce(t *testing.T) {
	s := &stack{t: t, dir: t.TempDir(), services: map[string]*service{}}
	s.build()
	broker, err := servers.StartKafka(t.Context(), servers.KafkaOptions{Dir: filepath.Join(s.dir, "kafka")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { broker.Kill() })
	options := servers.ClickHouseOptions{Dir: filepath.Join(s.dir, "clickhouse")}
	if s.clickhouse, err = servers.StartClickHouse(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.clickhouse.Kill() })
	_, port, err := net.SplitHostPort(s.clickhouse.HTTPAddr())
	if err != nil {
		t.Fatal(err)
	}
	options.HTTPPort, _ = strconv.Atoi(port)
	c := kafka.DefaultConfig()
	c.Brokers = []string{broker.Addr()}
	if s.client, err = kafka.New(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.client.Close)
	s.env = append(s.env, "TAPWEAVE_KAFKA_BROKERS="+broker.Addr(), "TAPWEAVE_CLICKHOUSE_ADDRESSES="+s.clickhouse.HTTPAddr(), "TAPWEAVE_SIEM_ECS=false", "TAPWEAVE_CLICKHOUSE_RETENTION_SESSIONS=0s")
	for _, name := range []string{"sink-1", "sink-2"} {
		s.ready(s.start(name, "sink"))
	}

	const rows = 40
	stop, stopped := make(chan struct{}), make(chan struct{})
	var put uint64 // outputs of each input partition
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			put++
			var all sync.WaitGroup
			for p := range record.DefaultOutputPartitions {
				value := output(t, p, put, rows)
				all.Go(func() {
					if _, err := s.client.ProduceRetry(t.Context(), record.TopicSessions, p, func() ([]kafka.Record, error) { return []kafka.Record{{Value: value}}, nil }, nil); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
		}
	}()
	for range 2 {
		time.Sleep(1500 * time.Millisecond)
		s.clickhouse.Kill()
		time.Sleep(300 * time.Millisecond)
		if s.clickhouse, err = servers.StartClickHouse(t.Context(), options); err != nil {
			t.Fatal(err)
		}
	}
	// Longer than the session timeout of 10 s.
	if err := s.services["sink-1"].cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(13 * time.Second)
	if err := s.services["sink-1"].cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	s.services["sink-2"].kill()
	s.start("sink-2", "sink")
	close(stop)
	<-stopped

	want := float64(put * rows * uint64(record.DefaultOutputPartitions))
	var got map[string]any
	s.eventually(90*time.Second, "all rows", func() error {
		list, err := s.tryQuery(`SELECT (SELECT count() FROM sessions_versions) AS versions, (SELECT uniqExact(session_id) FROM sessions) AS sessions,
			(SELECT toUInt64(sum(sessions)) FROM traffic_1m) AS minutes, (SELECT toUInt64(sum(sessions)) FROM traffic_1h) AS hours`)
		if err != nil {
			return err
		}
		if got = list[0]; got["sessions"] != want || got["minutes"].(float64) < want || got["hours"].(float64) < want {
			return fmt.Errorf("%v, want %v", got, want)
		}
		return nil
	})
	for table, n := range got {
		if n != want {
			t.Errorf("%s: %v, want %v", table, n, want)
		}
	}
	t.Logf("%v sessions", want)
}

// output is a record of an input partition with some sessions and their booking.
func output(t *testing.T, partition int, number uint64, rows int) []byte {
	sessions, bookings := columns.NewBuilder(columns.Sessions), columns.NewBuilder(columns.Bookings)
	row := columns.NewSession()
	now := time.Now()
	for i := range rows {
		row.Reset()
		row.Tenant, row.IPProtocol, row.Version, row.IsFinal = "default", 6, 1, true
		binary.BigEndian.PutUint64(row.ID[:], number)
		binary.BigEndian.PutUint64(row.ID[8:], uint64(partition)<<32|uint64(i))
		row.Created = now.UnixNano()
		row.Start, row.End = row.Created, row.Created
		row.InputPartition, row.LogEpoch, row.OwnerEpoch, row.OutputNumber = uint32(partition), 1, 1, number
		sessions.Append(row)
	}
	bookings.Append(&columns.Traffic{
		TrafficDimensions: columns.TrafficDimensions{Minute: columns.MinuteOf(now.UnixNano()), Tenant: "default", IPProtocol: 6},
		TrafficSums:       columns.TrafficSums{Sessions: int64(rows)},
	})
	var list []*pb.Rows
	for _, f := range []func() (*pb.Rows, error){sessions.Rows, bookings.Rows} {
		r, err := f()
		if err != nil {
			t.Error(err)
		}
		list = append(list, r)
	}
	value, err := record.MarshalSessions(&pb.SessionsRecord{InputPartition: uint32(partition), LogEpoch: 1, OwnerEpoch: 1, Body: &pb.SessionsRecord_Output{Output: &pb.Output{Number: number, Rows: list}}})
	if err != nil {
		t.Error(err)
	}
	return value
}
