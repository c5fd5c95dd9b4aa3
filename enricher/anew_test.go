package enricher

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/tapweave/tapweave/enricher/internal/synthetic"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
)

// admin is a client for what no service does.
func (b *bench) admin() *kafkago.Client {
	return &kafkago.Client{Addr: kafkago.TCP(b.config.Brokers[0])}
}

// emptied waits until the group has no members.
func (b *bench) emptied() {
	b.Helper()
	b.wait("left by all", func() (bool, string) {
		r, err := b.admin().DescribeGroups(b.Context(), &kafkago.DescribeGroupsRequest{GroupIDs: []string{b.config.TopicPrefix + Group}})
		if err != nil || len(r.Groups) != 1 {
			return false, fmt.Sprint(err)
		}
		return len(r.Groups[0].Members) == 0, r.Groups[0].GroupState
	})
}

// Where the group's offsets are lost, the outputs begin anew under another log epoch, and that is told.
func TestLostOffsets(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.topics(partitions)
	l := synthetic.Write(options(20, 100))
	m := b.stopped(l)
	b.emptied()
	r, err := b.admin().DeleteGroups(b.Context(), &kafkago.DeleteGroupsRequest{GroupIDs: []string{b.config.TopicPrefix + Group}})
	if err == nil {
		for _, e := range r.Errors {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	s := b.start("after")
	v := newView(b)
	b.wait("begun anew", func() (bool, string) {
		v.read()
		last := v.markers[0][len(v.markers[0])-1]
		return last.Log > m.Epoch.Log && last.Owner > m.Epoch.Owner, last.String()
	})
	s.waitReady()
	s.stop()
	if log := s.log.String(); !strings.Contains(log, "no committed offset, but outputs of epoch") || s.counts.degraded.Value() != partitions {
		t.Errorf("%d degraded, log:\n%s", s.counts.degraded.Value(), log)
	}
}

// An input topic that was deleted and made anew is no continuation: its sessions are not taken for repeats of those
// that the former one had under the same numbers, also where it has more records already.
func TestInputRemade(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.topics(partitions)
	before := synthetic.Write(options(21, 60))
	m := b.stopped(before)
	b.emptied()
	topic := b.config.TopicPrefix + record.TopicPackets
	if r, err := b.admin().DeleteTopics(b.Context(), &kafkago.DeleteTopicsRequest{Topics: []string{topic}}); err != nil || r.Errors[topic] != nil {
		t.Fatal(err, r)
	}
	// The client that makes it anew has to know that it is gone: clients remember for some seconds what there was.
	b.wait("deleted", func() (bool, string) {
		_, err := b.client.EnsureTopics(b.Context(), false, kafka.Topic{Name: record.TopicPackets, Partitions: 1})
		return errors.Is(err, kafka.ErrNoTopic), "still there"
	})
	b.topics(partitions)
	o := options(22, 200)
	o.First = 5000
	after := synthetic.Write(o)
	b.feed(after.Records)
	// Only what was put out of the first one is there before; the sessions of the second are all to come.
	v := newView(b)
	v.read()
	known := len(v.sessions)
	sums := v.traffic
	s := b.start("after")
	b.wait("complete", func() (bool, string) {
		v.read()
		return len(v.sessions) >= known+len(after.Sessions), fmt.Sprintf("%d sessions, %d before", len(v.sessions), known)
	})
	b.wait("booked", func() (bool, string) {
		v.read()
		n := v.traffic.Sessions - sums.Sessions
		return n == int64(len(after.Sessions)), fmt.Sprintf("%d sessions booked", n)
	})
	s.stop()
	if last := v.markers[0][len(v.markers[0])-1]; last.Log <= m.Epoch.Log {
		t.Errorf("the log epoch is still %v", last)
	}
	if log := s.log.String(); !strings.Contains(log, "outputs begin anew") || s.counts.degraded.Value() == 0 {
		t.Errorf("log:\n%s", log)
	}
}

// The number of input partitions grows as the operator's page says: everything is read first, then the topic, then the
// setting. Nothing is lost or counted twice, and what was made for the former number is refused from then on.
func TestMorePartitions(t *testing.T) {
	t.Parallel()
	const few = 2
	b := newBench(t)
	b.topics(few)
	o := options(23, 100)
	o.Partitions = few
	first := synthetic.Write(o)
	b.feed(first.Records)
	c := config(b.config, "before")
	c.Partitions = few
	s := b.startWith(c)
	newView(b).complete(first)
	s.stop()
	for _, topic := range []string{record.TopicPackets, record.TopicState} {
		name := b.config.TopicPrefix + topic
		r, err := b.admin().CreatePartitions(b.Context(), &kafkago.CreatePartitionsRequest{Topics: []kafkago.TopicPartitionsConfig{{Name: name, Count: partitions}}})
		if err == nil {
			err = r.Errors[name]
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	b.wait("grown", func() (bool, string) {
		_, err := b.client.EnsureTopics(b.Context(), false, kafka.Topic{Name: record.TopicPackets, Partitions: partitions}, kafka.Topic{Name: record.TopicState, Partitions: partitions})
		return err == nil, fmt.Sprint(err)
	})
	o = options(24, 200)
	o.First, o.Restarts, o.Start = 5000, 1, o.Start.Add(15*time.Minute) // behind the last watermark
	second := synthetic.Write(o)
	s = b.start("after")
	s.waitReady()
	b.feed(first.Records[:10]) // of a collector that was forgotten
	b.feed(second.Records)
	newView(b).complete(&synthetic.Log{Sessions: slices.Concat(first.Sessions, second.Sessions)})
	s.stop()
	if n := s.counts.degraded.Value(); n != 0 {
		t.Errorf("%d degraded assignments", n)
	}
}

// The number of input partitions shrinks as the operator's page says: everything is read first, then the group's offsets
// are set to the end, as a tool does it that knows no metadata, then the setting. Nothing is lost or counted twice.
func TestFewerPartitions(t *testing.T) {
	t.Parallel()
	const few = 2
	b := newBench(t)
	b.topics(partitions)
	first := synthetic.Write(options(26, 100))
	b.feed(first.Records)
	s := b.start("before")
	newView(b).complete(first)
	epoch := s.owned[0].owner.Epoch()
	s.stop()
	b.emptied()
	var offsets []kafkago.OffsetCommit
	for p := range partitions {
		_, end, err := b.client.Offsets(t.Context(), record.TopicPackets, p)
		if err != nil {
			t.Fatal(err)
		}
		offsets = append(offsets, kafkago.OffsetCommit{Partition: p, Offset: end})
	}
	topic := b.config.TopicPrefix + record.TopicPackets
	r, err := b.admin().OffsetCommit(t.Context(), &kafkago.OffsetCommitRequest{
		GroupID: b.config.TopicPrefix + Group, GenerationID: -1, Topics: map[string][]kafkago.OffsetCommit{topic: offsets},
	})
	if err == nil {
		for _, p := range r.Topics[topic] {
			err = errors.Join(err, p.Error)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	o := options(27, 200)
	o.Partitions, o.First, o.Restarts, o.Start = few, 5000, 1, o.Start.Add(15*time.Minute)
	second := synthetic.Write(o)
	c := config(b.config, "after")
	c.Partitions = few
	s = b.startWith(c)
	s.waitReady()
	if now := s.owned[0].owner.Epoch(); len(s.owned) != few || now.Log <= epoch.Log {
		t.Errorf("%d partitions, epoch %v after %v", len(s.owned), now, epoch)
	}
	b.feed(first.Records[:10]) // of a collector that was forgotten
	b.feed(second.Records)
	newView(b).complete(&synthetic.Log{Sessions: slices.Concat(first.Sessions, second.Sessions)})
	s.stop()
}

// Records of others on tapweave.sessions and tapweave.state say nothing about numbers, and do no harm.
func TestForeignRecords(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.topics(partitions)
	o := options(25, 100)
	o.Long = true
	l := synthetic.Write(o)
	foreign := func() {
		for _, topic := range []string{record.TopicState, record.TopicPackets} {
			for p := range partitions {
				if _, err := b.client.Produce(b.Context(), topic, p, kafka.Record{Value: []byte("a record of somebody else")}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	c := b.child()
	v := newView(b)
	b.wait("folding", func() (bool, string) { v.read(); return len(v.markers[0]) > 0, "" })
	b.feedSlowly(l.Records[:len(l.Records)/2], time.Second)
	foreign()
	c.kill()
	foreign()
	s := b.start("after")
	b.feed(l.Records[len(l.Records)/2:])
	v.complete(l)
	s.stop()
	if n := s.counts.degraded.Value(); n != 0 {
		t.Errorf("%d degraded assignments", n)
	}
}

// -check tells what the topics do not give.
func TestWarnings(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for topic, keep := range map[string]time.Duration{record.TopicPackets: 48 * time.Hour, record.TopicState: 24 * time.Hour, record.TopicSessions: time.Hour} {
		if _, err := b.client.EnsureTopics(b.Context(), true, kafka.TopicsConfig{Create: true, Replicas: 1, Retention: keep}.Topic(topic, 1)); err != nil {
			t.Fatal(err)
		}
	}
	c := config(b.config, "one")
	prefix := "topic " + b.config.TopicPrefix
	var rest []string
	for _, w := range Warnings(b.Context(), c) {
		if !strings.Contains(w, "has 1 replica") {
			rest = append(rest, w)
		}
	}
	want := []string{
		prefix + record.TopicSessions + " keeps its records for 1h0m0s: what is not read by then is lost; keep them for 12h0m0s or more",
		prefix + record.TopicState + " keeps its records for 24h0m0s, less than " + b.config.TopicPrefix + record.TopicPackets + ": after a pause as long as that, snapshots are gone and outputs begin anew; keep them as long",
	}
	if !slices.Equal(rest, want) {
		t.Errorf("%s\nwant %s", strings.Join(rest, "\n"), strings.Join(want, "\n"))
	}
	c.Kafka.Brokers = []string{"127.0.0.1:1"}
	if got := Warnings(b.Context(), c); len(got) != 1 || !strings.Contains(got[0], "not checked: Kafka at 127.0.0.1:1") {
		t.Errorf("nobody there: %q", got)
	}
}
