package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tapweave/tapweave/enricher"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/sink/clickhouse"
	"github.com/tapweave/tapweave/sink/siem"
)

// stage is a consumer group: who reads a topic.
type stage struct {
	group, topic, who string
	// How old what it has not committed may be, before something is said, and before it is an error.
	slow, late time.Duration
}

// stages are those of the configuration, in the order of the data.
func (e *exam) stages() []stage {
	// The enricher commits with its snapshots, not sooner.
	list := []stage{{enricher.Group, record.TopicPackets, "enricher", 2 * time.Minute, 10 * time.Minute}}
	if e.Sink.ClickHouse.Enabled {
		list = append(list, stage{clickhouse.Group, record.TopicSessions, "sink (ClickHouse)", 30 * time.Second, 2 * time.Minute})
	}
	if e.Sink.SIEM.Enabled() {
		list = append(list, stage{siem.Group, record.TopicSessions, "sink (SIEM)", 30 * time.Second, 2 * time.Minute})
	}
	return list
}

// lag checks whether somebody reads each topic, and how old the first record is that was not read.
func (e *exam) lag(ctx context.Context) {
	if e.kafka == nil {
		e.add("lag", Warning, "", "not checked, and neither what was lost: Kafka does not answer")
		return
	}
	for _, s := range e.stages() {
		n := e.topics[s.topic]
		if n == 0 {
			continue // it was said above
		}
		members, err := e.kafka.Members(ctx, s.group)
		if err != nil {
			e.fail("lag", err)
			continue
		}
		owned := 0
		for _, m := range members {
			owned += len(m.Partitions[s.topic])
		}
		if owned == 0 {
			status := Error
			if e.broken { // it waits, or has ended, because of what was found above
				status = Warning
			}
			e.add("lag", status, "start one; if it runs, its log says why it has not joined", "nobody reads %s: no %s is in group %s", s.topic, s.who, s.group)
			continue
		}
		age, records, err := e.oldest(ctx, s, n)
		text := fmt.Sprintf("%s: %d of %d partitions of %s are read, by %d; ", s.who, owned, n, s.topic, len(members))
		switch {
		case errors.Is(err, errRemoved):
			e.add("lag", Error, "let the topic keep its records for longer; add readers", "%s%v", text, err)
		case err != nil:
			e.fail("lag", err)
		case age > s.slow:
			status := Warning
			if age > s.late {
				status = Error
			}
			e.add("lag", status, "its log says what it waits for; if nothing: add instances, up to one a partition", "%s%d records wait, the oldest for %s", text, records, round(age))
		case owned < n:
			e.add("lag", Warning, "look again: while members come or go they are dealt out anew", "%sthe others have no reader now", text)
		default:
			e.add("lag", OK, "", "%s%d records are not committed, the oldest is %s old", text, records, round(age))
		}
	}
}

// errRemoved: retention was faster than the reader.
var errRemoved = errors.New("records were removed by retention before they were read")

// oldest returns how many records of a topic a group has not committed, and how old the oldest of them is.
func (e *exam) oldest(ctx context.Context, s stage, partitions int) (age time.Duration, records int64, err error) {
	offsets, err := e.kafka.Committed(ctx, s.group, s.topic, partitions)
	if err != nil {
		return 0, 0, err
	}
	now := time.Now()
	for p, offset := range offsets {
		first, next, err := e.kafka.Offsets(ctx, s.topic, p)
		if err != nil {
			return 0, 0, err
		}
		if offset == kafka.NoOffset {
			offset = first
		} else if offset < first {
			return 0, 0, fmt.Errorf("%w: %s/%d from %d to %d", errRemoved, s.topic, p, offset, first)
		}
		if offset >= next {
			continue
		}
		records += next - offset
		f, err := e.kafka.Fetch(ctx, s.topic, p, offset, 1, 0)
		if err != nil && !errors.Is(err, kafka.ErrOffsetOutOfRange) {
			return 0, 0, err
		}
		if len(f.Records) > 0 {
			age = max(age, now.Sub(f.Records[0].Time))
		}
	}
	return age, records, nil
}
