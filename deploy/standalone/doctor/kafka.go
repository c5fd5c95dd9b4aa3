package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/sink"
)

// wanted are all topics of an installation, with the numbers of partitions that are pinned.
func (e *exam) wanted() []kafka.Topic {
	list := []kafka.Topic{
		{Name: record.TopicPackets, Partitions: e.Sink.Partitions},
		{Name: record.TopicState, Partitions: e.Sink.Partitions},
		{Name: record.TopicSessions, Partitions: e.Sink.OutputPartitions},
		{Name: record.TopicStats, Partitions: 1},
		{Name: record.TopicDeadLetter, Partitions: 1},
	}
	for _, t := range e.Sink.SIEM.Topics() {
		list = append(list, kafka.Topic{Name: t, Partitions: e.Sink.SIEM.Partitions})
	}
	return list
}

// brokers checks Kafka and the topics. Where Kafka cannot be used, e.kafka stays nil.
func (e *exam) brokers(ctx context.Context) {
	client, err := kafka.New(e.Sink.Kafka)
	if err == nil {
		if err = client.Ping(ctx); err != nil {
			client.Close()
		}
	}
	if err != nil {
		e.broken = true
		e.fail("kafka", err)
		return
	}
	e.kafka = client
	e.add("kafka", OK, "", "Kafka at %s answers", client.Brokers())

	e.topics = map[string]int{}
	var names []string
	good := true
	for _, t := range e.wanted() {
		have, err := client.EnsureTopics(ctx, false, t)
		if n, ok := have[t.Name]; ok {
			e.topics[t.Name] = n
			names = append(names, t.Name)
		}
		switch n := e.topics[t.Name]; {
		case err != nil:
			good = false
			e.broken = e.broken || errors.Is(err, kafka.ErrNoTopic) || errors.Is(err, kafka.ErrPartitions)
			e.fail("kafka", err)
		case n > t.Partitions && (t.Name == record.TopicPackets || t.Name == record.TopicSessions):
			e.add("kafka", Warning, "pin the same number in every service, or make the topic anew", "topic %s has %d partitions, %d are pinned: the others stay empty", t.Name, n, t.Partitions)
		}
	}
	if good {
		var s []string
		for _, name := range names {
			s = append(s, fmt.Sprintf("%s %d", strings.TrimPrefix(name, "tapweave."), e.topics[name]))
		}
		e.add("kafka", OK, "", "all topics are there, with partitions: %s", strings.Join(s, ", "))
	}

	problems, err := client.Unwritable(ctx, names...)
	for _, p := range problems {
		e.broken = true
		e.add("kafka", Error, "", "%s", p)
	}
	if err == nil && len(problems) == 0 && good {
		e.add("kafka", OK, "", "every partition has a leader, and replicas enough for acks=all")
	}
	if err == nil {
		var warnings []string
		warnings, err = client.Durability(ctx, sink.Keep, names...)
		e.warn("kafka", warnings)
	}
	if err == nil {
		err = e.stateKept(ctx)
	}
	if err != nil {
		e.fail("kafka", err)
	}
}

// stateKept checks that snapshots outlive the packets from which the fold would have to go on.
func (e *exam) stateKept(ctx context.Context) error {
	if e.topics[record.TopicPackets] == 0 || e.topics[record.TopicState] == 0 {
		return nil
	}
	kept, err := e.kafka.Retention(ctx, record.TopicPackets, record.TopicState)
	if err != nil {
		return err
	}
	packets, state := kept[record.TopicPackets], kept[record.TopicState]
	if state < packets {
		e.add("kafka", Warning, fmt.Sprintf("set retention.ms of %s to that of %s or more", record.TopicState, record.TopicPackets),
			"topic %s keeps its records for %s, %s for %s: an enricher that starts on old packets finds no snapshot before them", record.TopicState, forever(state), record.TopicPackets, forever(packets))
	}
	return nil
}

func forever(d time.Duration) string {
	if d == kafka.Forever {
		return "ever"
	}
	return d.String()
}
