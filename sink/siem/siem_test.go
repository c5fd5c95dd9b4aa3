package siem_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
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
	"github.com/tapweave/tapweave/sink/siem/siemtest"
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
	return rowsValue(t, columns.Sessions, list...)
}

func rowsValue[R any](t testing.TB, table *columns.Table[R], list ...*R) []byte {
	b := columns.NewBuilder(table)
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

// bench is an output at work, on a broker of its own.
type bench struct {
	testing.TB
	client     *kafka.Client
	config     siem.Config
	partitions map[string]int
	counters   *stats.Counters
}

func newBench(t *testing.T, config siem.Config) *bench {
	b := &bench{TB: t, client: kafkatest.New(t), config: config}
	list := []kafka.Topic{{Name: record.TopicSessions, Partitions: 2}, {Name: record.TopicDeadLetter, Partitions: 1}}
	for _, topic := range config.Topics() {
		list = append(list, kafka.Topic{Name: topic, Partitions: 3})
	}
	if err := (kafka.Retry{}).Do(t.Context(), func() (err error) {
		b.partitions, err = b.client.EnsureTopics(t.Context(), true, list...)
		return err
	}, nil); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) produce(partition int, value []byte) {
	b.Helper()
	one := func() ([]kafka.Record, error) { return []kafka.Record{{Value: value}}, nil }
	if _, err := b.client.ProduceRetry(b.Context(), record.TopicSessions, partition, one, nil); err != nil {
		b.Fatal(err)
	}
}

// start runs an output until stop is called.
func (b *bench) start() (stop func()) {
	b.counters = stats.New("sink", prometheus.NewRegistry())
	log := slog.New(slog.NewTextHandler(b.Output(), nil))
	output := siem.New(b.config, b.partitions, b.client, deadletter.New(b.client, b.counters, "deadletter", log), b.counters, log)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := output.Run(ctx); err != nil {
			b.Error(err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	b.Cleanup(stop)
	return stop
}

// documents waits for so many documents on a topic, and returns their ids by key.
func (b *bench) documents(topic string, want int) map[string][]string {
	b.Helper()
	var got map[string][]string
	n := 0
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		got, n = map[string][]string{}, 0
		for p := range b.partitions[topic] {
			for next := int64(0); ; {
				f, err := b.client.Fetch(b.Context(), topic, p, next, 10<<20, 20*time.Millisecond)
				if err != nil {
					b.Fatal(err)
				}
				if len(f.Records) == 0 {
					break
				}
				for _, r := range f.Records {
					var d struct {
						Event            struct{ ID string }
						Metadata         struct{ UID string }
						EventOriginalUID string
					}
					if err := json.Unmarshal(r.Value, &d); err != nil {
						b.Fatalf("%v: %s", err, r.Value)
					}
					got[string(r.Key)] = append(got[string(r.Key)], d.Event.ID+d.Metadata.UID+d.EventOriginalUID)
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
		b.Fatalf("%d documents on %s, want %d", n, topic, want)
	}
	return got
}

// Each finished session is one document of each format under its id, in the order of its versions; open ones are
// none; what was committed is not written again.
func TestDocuments(t *testing.T) {
	config := siem.DefaultConfig()
	config.OCSF, config.ASIM = true, true
	b := newBench(t, config)
	const n = 900
	stop := b.start()
	var open, final []*columns.Session
	for i := range n {
		open, final = append(open, sessionOf(i, 1, false)), append(final, sessionOf(i, 2, true))
	}
	b.produce(0, value(t, open...))
	b.produce(0, []byte("no record"))
	b.produce(0, value(t, final...))
	b.produce(0, value(t, sessionOf(7, 3, true))) // a late packet
	b.produce(1, value(t, sessionOf(n, 1, true)))
	alert := siemtest.ExampleAlert()
	b.produce(1, rowsValue(t, columns.Alerts, alert))
	for _, topic := range []string{record.TopicSIEMECS, record.TopicSIEMOCSF, record.TopicSIEMASIM} {
		got := b.documents(topic, n+3)
		for i := range n {
			id := sessionOf(i, 0, false).ID.String()
			want := []string{id + ":2"}
			if i == 7 {
				want = append(want, id+":3")
			}
			if !slices.Equal(got[id], want) {
				t.Fatalf("%s: documents of session %d: %q, want %q", topic, i, got[id], want)
			}
		}
	}
	for _, f := range siem.Formats {
		id := alert.SessionID.String()
		if got, want := b.documents(f.Topic, n+3)[id], fmt.Sprintf("%s:threat:%d", id, alert.Time); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: documents of the alert: %q, want %q", f.Topic, got, want)
		}
	}
	if bad := b.counters.Counter("deadletter", "undecodable").Value(); bad != 1 {
		t.Errorf("%d records undecodable", bad)
	}
	stop()
	b.produce(1, value(t, sessionOf(n+1, 1, true)))
	stop = b.start()
	b.documents(record.TopicSIEMASIM, n+4)
	stop()
	for _, f := range siem.Formats {
		b.documents(f.Topic, n+4)
	}
}

// Where it is configured so, each version is a document; what is switched off has none.
func TestUpdates(t *testing.T) {
	config := siem.DefaultConfig()
	config.ECS, config.OCSF, config.Updates = false, true, true
	if got := config.Topics(); !slices.Equal(got, []string{record.TopicSIEMOCSF}) {
		t.Fatalf("topics %q", got)
	}
	b := newBench(t, config)
	b.start()
	b.produce(0, value(t, sessionOf(1, 1, false)))
	b.produce(0, value(t, sessionOf(1, 2, false), sessionOf(1, 3, true)))
	id := sessionOf(1, 0, false).ID.String()
	if got, want := b.documents(record.TopicSIEMOCSF, 3)[id], []string{id + ":1", id + ":2", id + ":3"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
