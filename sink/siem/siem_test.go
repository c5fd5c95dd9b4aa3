package siem_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/kafka/kafkatest"
	"github.com/tapweave/tapweave/service/stats"
	"github.com/tapweave/tapweave/sink/deadletter"
	"github.com/tapweave/tapweave/sink/siem"
)

func sessionOf(i int, version uint32, final bool) *columns.Session {
	s := columns.NewSession()
	binary.BigEndian.PutUint64(s.ID[:], uint64(i)*0x9e3779b97f4a7c15)
	s.IPProtocol, s.Version, s.IsFinal = packet.ProtoTCP, version, final
	s.Start = time.Date(2026, 3, 1, 0, 0, i, 0, time.UTC).UnixNano()
	s.End = s.Start + 5
	return s
}

func value(t *testing.T, list ...*columns.Session) []byte {
	b := columns.NewBuilder(columns.Sessions)
	for _, s := range list {
		b.Append(s)
	}
	rows, err := b.Rows()
	if err != nil {
		t.Fatal(err)
	}
	v, err := record.MarshalSessions(&pb.SessionsRecord{Body: &pb.SessionsRecord_Output{Output: &pb.Output{Rows: []*pb.Rows{rows}}}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Each finished session is one document under its id, in the order of its versions; open ones are none; what
// was committed is not written again.
func TestDocuments(t *testing.T) {
	client := kafkatest.New(t)
	ctx := t.Context()
	var partitions map[string]int
	if err := (kafka.Retry{}).Do(ctx, func() (err error) {
		partitions, err = client.EnsureTopics(ctx, true, kafka.Topic{Name: record.TopicSessions, Partitions: 2},
			kafka.Topic{Name: record.TopicDeadLetter, Partitions: 1}, kafka.Topic{Name: record.TopicSIEMECS, Partitions: 3})
		return err
	}, nil); err != nil {
		t.Fatal(err)
	}
	produce := func(partition int, value []byte) {
		t.Helper()
		if _, err := client.ProduceRetry(ctx, record.TopicSessions, partition, func() ([]kafka.Record, error) { return []kafka.Record{{Value: value}}, nil }, nil); err != nil {
			t.Fatal(err)
		}
	}
	var counters *stats.Counters
	start := func() (stop func()) {
		counters = stats.New("sink", prometheus.NewRegistry())
		log := slog.New(slog.NewTextHandler(t.Output(), nil))
		output := siem.New(siem.DefaultConfig(), partitions, client, deadletter.New(client, counters, "deadletter", log), counters, log)
		ctx, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := output.Run(ctx); err != nil {
				t.Error(err)
			}
		}()
		stop = sync.OnceFunc(func() { cancel(); <-done })
		t.Cleanup(stop)
		return stop
	}
	documents := func(want int) map[string][]string { // ids by key
		t.Helper()
		var got map[string][]string
		n := 0
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			got, n = map[string][]string{}, 0
			for p := range 3 {
				for next := int64(0); ; {
					f, err := client.Fetch(ctx, record.TopicSIEMECS, p, next, 10<<20, 20*time.Millisecond)
					if err != nil {
						t.Fatal(err)
					}
					if len(f.Records) == 0 {
						break
					}
					for _, r := range f.Records {
						var d struct {
							Event struct{ ID string }
						}
						if err := json.Unmarshal(r.Value, &d); err != nil {
							t.Fatalf("%v: %s", err, r.Value)
						}
						got[string(r.Key)] = append(got[string(r.Key)], d.Event.ID)
						n++
					}
					next = f.Next
				}
			}
			if n >= want {
				break
			}
		}
		if n != want {
			t.Fatalf("%d documents, want %d", n, want)
		}
		return got
	}

	const n = 900
	stop := start()
	var open, final []*columns.Session
	for i := range n {
		open, final = append(open, sessionOf(i, 1, false)), append(final, sessionOf(i, 2, true))
	}
	produce(0, value(t, open...))
	produce(0, []byte("no record"))
	produce(0, value(t, final...))
	produce(0, value(t, sessionOf(7, 3, true))) // a late packet
	produce(1, value(t, sessionOf(n, 1, true)))
	got := documents(n + 2)
	for i := range n {
		id := sessionOf(i, 0, false).ID.String()
		want := []string{id + ":2"}
		if i == 7 {
			want = append(want, id+":3")
		}
		if len(got[id]) != len(want) || got[id][0] != want[0] || got[id][len(want)-1] != want[len(want)-1] {
			t.Fatalf("documents of session %d: %q, want %q", i, got[id], want)
		}
	}
	if bad := counters.Counter("deadletter", "undecodable").Value(); bad != 1 {
		t.Errorf("%d records undecodable", bad)
	}
	stop()
	produce(1, value(t, sessionOf(n+1, 1, true)))
	stop = start()
	documents(n + 3)
	stop()
	documents(n + 3)
}
