package clickhouse_test

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	segmentio "github.com/segmentio/kafka-go"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/delivery"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/sink/clickhouse"
	"github.com/tapweave/tapweave/sink/clickhouse/clickhousetest"
)

// booking books some sessions in a minute.
func booking(t testing.TB, n int) *pb.Rows {
	return rowsOf(t, columns.Bookings, &columns.Traffic{
		TrafficDimensions: columns.TrafficDimensions{Minute: columns.MinuteOf(epoch), Tenant: "default", IPProtocol: 6},
		TrafficSums:       columns.TrafficSums{Sessions: int64(n)},
	})
}

// exactly waits for sessions, and sees that neither a version nor a booking is there twice.
func (r *rig) exactly(n int) {
	r.Helper()
	r.wait("SELECT uniqExact(session_id) FROM %[1]s.sessions_versions", uint64(n))
	r.wait("SELECT toUInt64(sum(sessions)) FROM %[1]s.traffic_1m", uint64(n))
	r.wait("SELECT toUInt64(sum(sessions)) FROM %[1]s.traffic_1h", uint64(n))
	if got := clickhousetest.Value[uint64](r, r.server, r.direct, "SELECT count() FROM %[1]s.sessions_versions"); got != uint64(n) {
		r.Errorf("%d rows for %d sessions", got, n)
	}
}

// The n-th life of the sink ends at its n-th step, whatever that is: before and after each commit and each insert, with
// some tables done and others not, while a bad row is searched for.
func TestCrashAtEachStep(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	if err := r.server.Exec(t.Context(), "ALTER TABLE "+r.config.Database+".sessions_versions ADD CONSTRAINT odd CHECK app != 'forbidden'"); err != nil {
		t.Fatal(err)
	}
	const batches, batch, lives = 12, 3, 34
	for i := range batches {
		r.produce(0, sessions(t, i*batch, (i+1)*batch, func(j int, s *columns.Session) {
			if j == 13 {
				s.App = "forbidden"
			}
		}), booking(t, batch))
	}
	r.config.BlockRows = 4 * batch
	var (
		mu      sync.Mutex
		life    = 1
		step    int
		reached = map[delivery.Do]int{}
	)
	crash := errors.New("crash")
	r.crash = func(do delivery.Do) error {
		mu.Lock()
		defer mu.Unlock()
		if step++; step < life || life > lives {
			return nil
		}
		life, step = life+1, 0
		reached[do]++
		return crash
	}
	r.start()
	r.rows(batches*batch-1, batches*batch)
	if n := clickhousetest.Value[uint64](t, r.server, r.direct, "SELECT count() FROM %[1]s.sessions_versions"); n != batches*batch-1 {
		t.Errorf("%d rows of %d", n, batches*batch-1)
	}
	for _, l := range r.letters(1) {
		if l.Offset != 4 || l.Rows.GetCount() != 1 || !strings.Contains(l.Reason, "table sessions_versions: rows refused") {
			t.Errorf("letter about offset %d, %d rows: %q", l.Offset, l.Rows.GetCount(), l.Reason)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	t.Logf("%d lives, ended at %v", life-1, reached)
	for _, do := range []delivery.Do{delivery.DoRead, delivery.DoCommit, delivery.DoInsert, delivery.DoDeadLetter} {
		if reached[do] == 0 {
			t.Errorf("no life ended at %v: %v", do, slices.Collect(maps.Keys(reached)))
		}
	}
}

// rows waits for sessions and bookings.
func (r *rig) rows(sessions, booked int) {
	r.Helper()
	for _, table := range []string{"traffic_1m", "traffic_1h"} {
		r.wait("SELECT toUInt64(sum(sessions)) FROM %[1]s."+table, uint64(booked))
	}
	r.wait("SELECT count() FROM %[1]s.sessions_versions", uint64(sessions))
}

// What a superseded owner writes after the marker of its successor does not count, nor does what was put out twice.
func TestRepeatsAndStale(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	marker := func(owner uint64) {
		v, err := record.MarshalSessions(&pb.SessionsRecord{LogEpoch: 1, OwnerEpoch: owner, Body: &pb.SessionsRecord_Marker{Marker: &pb.Marker{}}})
		if err != nil {
			t.Fatal(err)
		}
		r.produceRaw(record.TopicSessions, 0, v)
	}
	put := func(owner, number uint64, i int) {
		r.produceRaw(record.TopicSessions, 0, r.record(0, owner, number, sessions(t, i, i+1, nil), booking(t, 1)))
	}
	marker(3)
	put(3, 1, 0)
	put(3, 2, 1)
	put(3, 2, 1) // a produce call that was tried again
	stop := r.start()
	r.exactly(2)
	stop() // what the reader knows outlives the sink
	put(3, 2, 1)
	marker(5)
	put(3, 3, 2) // a zombie
	put(5, 1, 3)
	marker(4) // that of a claim which lost
	put(4, 1, 4)
	put(5, 2, 5)
	r.start()
	r.exactly(4)
	for reason, want := range map[string]uint64{"records_repeated": 1, "records_of_superseded_owners": 3, "outputs_missing": 0} {
		if n := r.counters.Counter("clickhouse", reason).Value(); n != want {
			t.Errorf("%s: %d, want %d", reason, n, want)
		}
	}
}

// commit puts an offset with metadata in the place of what the sinks have committed.
func (r *rig) commit(change func(a kafka.Assignment) kafka.Commit) {
	r.Helper()
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go r.kafka.Group(kafka.GroupConfig{ID: clickhouse.Group}).Run(ctx, []string{record.TopicSessions}, func(ctx context.Context, g *kafka.Generation) {
		done <- g.Commit(ctx, record.TopicSessions, change(g.Assignments[0]))
		<-ctx.Done()
	})
	if err := <-done; err != nil {
		r.Fatal(err)
	}
}

// Offsets that are gone, that a tool has set, or whose metadata somebody edited: nothing is stored twice, nothing is
// left out.
func TestOffsetsLost(t *testing.T) {
	for name, lose := range map[string]func(*rig){
		"gone": func(r *rig) {
			c := &segmentio.Client{Addr: segmentio.TCP(r.kafkaConfig.Brokers...)}
			for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
				a, err := c.OffsetDelete(r.Context(), &segmentio.OffsetDeleteRequest{GroupID: r.kafkaConfig.TopicPrefix + clickhouse.Group, Topics: map[string][]int{r.kafkaConfig.TopicPrefix + record.TopicSessions: {0}}})
				if err == nil {
					err = a.Topics[r.kafkaConfig.TopicPrefix+record.TopicSessions][0].Error
				}
				if err == nil {
					return
				}
				if time.Now().After(deadline) {
					r.Fatal(err)
				}
			}
		},
		"metadata edited": func(r *rig) {
			r.commit(func(a kafka.Assignment) kafka.Commit {
				b := []byte(a.Metadata)
				b[len(b)/2] ^= 1
				return kafka.Commit{Offset: 1, Metadata: string(b)}
			})
		},
		"set by a tool": func(r *rig) {
			r.commit(func(kafka.Assignment) kafka.Commit { return kafka.Commit{Offset: 0} })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 1)
			next := 0
			produce := func(n int) {
				for range n {
					r.produce(0, sessions(t, next, next+5, nil), booking(t, 5))
					next += 5
				}
			}
			produce(4)
			stop := r.start()
			r.exactly(next)
			stop()
			lose(r)
			produce(3)
			r.start()
			r.exactly(next)
			if n := r.counters.Counter("clickhouse", "outputs_missing").Value(); n != 0 {
				t.Errorf("%d outputs missing", n)
			}
		})
	}
}

// newer returns metadata as a newer program may write it.
func newer(t *testing.T, metadata string) string {
	b, err := base64.RawURLEncoding.DecodeString(metadata)
	if err != nil {
		t.Fatal(err)
	}
	b[1]++
	b = b[:len(b)-4]
	return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))))
}

// Metadata of a newer sink ends this one with one line.
func TestMetadataOfNewer(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.produce(0, sessions(t, 0, 5, nil))
	stop := r.start()
	r.rows(5, 0)
	stop()
	r.commit(func(a kafka.Assignment) kafka.Commit {
		return kafka.Commit{Offset: a.Offset, Metadata: newer(t, a.Metadata)}
	})
	err := r.fails()
	if err == nil || !strings.Contains(err.Error(), "tapweave.sessions/0: a newer sink has stored this partition: sink offset metadata of version 2, this program understands version 1; use that one") {
		t.Error(err)
	}
}

// A topic that was made anew is read from its beginning.
func TestTopicRemade(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	for i := range 5 {
		r.produce(0, sessions(t, i, i+1, nil), booking(t, 1))
	}
	stop := r.start()
	r.exactly(5)
	stop()
	c := &segmentio.Client{Addr: segmentio.TCP(r.kafkaConfig.Brokers...)}
	topic := r.kafkaConfig.TopicPrefix + record.TopicSessions
	if _, err := c.DeleteTopics(t.Context(), &segmentio.DeleteTopicsRequest{Topics: []string{topic}}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		a, err := c.CreateTopics(t.Context(), &segmentio.CreateTopicsRequest{Topics: []segmentio.TopicConfig{{Topic: topic, NumPartitions: 1, ReplicationFactor: 1}}})
		if err == nil {
			err = a.Errors[topic]
		}
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	r.numbers[0] = 0
	for i := range 3 { // of a cluster that knows nothing of the epochs before
		r.produce(0, sessions(t, 100+i, 101+i, nil), booking(t, 1))
	}
	r.start()
	r.exactly(8)
}
