package doctor

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tapweave/tapweave/proto/record"
)

// loss is a count that should not grow.
type loss struct {
	service, stage, reason string // reason "": each of the stage
	status                 Status // while it grows
	what, remedy           string
}

// losses are in the order of the data. docs/troubleshooting.md says more about each.
var losses = []loss{
	{"collector", "lost", "kernel", Error, "packets, as its sockets were full", "raise net.core.rmem_max and receive_buffer_bytes; give it cores, or add collectors"},
	{"collector", "lost", "memory", Error, "packets, as memory_bytes was full of what waits for Kafka", "Kafka was away, or is too slow: its log says; raise memory_bytes to bridge longer"},
	{"collector", "lost", "too_large", Error, "packets, as Kafka did not take records of their size", "set max.message.bytes of the topic to 1 MB"},
	{"collector", "lost", "undelivered", Error, "packets that were not on Kafka when it ended", "raise flush_timeout; look why Kafka was slow"},
	{"collector", "shed", "packets", Error, "packets, shed by session", "Kafka is too slow for what comes in: add brokers or partitions, raise memory_bytes"},
	{"collector", "shed", "payload_bytes", Warning, "bytes of payload, left out for want of memory", "Kafka is too slow for what comes in: add brokers or partitions, raise memory_bytes"},
	{"collector", "gap", "", Warning, "milliseconds of the time before it was killed, at most", "stop collectors by SIGTERM: they drain"},
	{"enricher", "input", "records_removed_before_read", Error, "records, which retention had removed before it read them", "let tapweave.packets keep its records for longer; add enrichers"},
	{"enricher", "clock_skew", "", Error, "the times of batches of a collector", ""},
	{"enricher", "fold", "undecodable_records", Error, "records that do not decode", "something else writes to tapweave.packets, or versions do not fit"},
	{"enricher", "fold", "batches_for_other_partitions", Error, "batches made for another number of partitions", "set the same partitions in every service"},
	{"enricher", "fold", "packets_of_other_partitions", Error, "packets that belong to another partition", "set the same partitions in every service"},
	{"enricher", "fold", "packets_too_late", Error, "packets that came more than fold.late_limit late", "a collector was cut off from Kafka, or the enricher went on without it: see its log"},
	{"enricher", "fold", "sessions_evicted", Warning, "sessions, closed as max_sessions were open", "a flood, or fold.max_sessions is too small"},
	{"enricher", "fold", "watermark_forced", Warning, "times its patience with a slow collector", "a collector lags; raise fold.max_waiting_bytes"},
	{"enricher", "group", "assignments_degraded", Warning, "partitions' state when it took them over", "let tapweave.state keep its records for longer"},
	{"sink", "clickhouse", "records_lost_to_retention", Error, "records, which retention had removed before it read them", "let tapweave.sessions keep its records for longer; add sinks"},
	{"sink", "clickhouse", "outputs_missing", Error, "outputs of an enricher that are not on the topic", "sink -check says what the cluster lacks"},
	{"sink", "siem", "records_lost_to_retention", Error, "records, which retention had removed before it read them", "let tapweave.sessions keep its records for longer; add sinks"},
	{"sink", "siem", "documents_too_large", Warning, "documents that were too large", ""},
	{"sink", "deadletter", "", Error, "records that could not be stored", "tapweave.deadletter says which and why"},
	{"sink", "siem_deadletter", "", Error, "records that are no documents", "tapweave.deadletter says which and why"},
}

// silent is how long a service may say nothing of its counts: it does each second.
const silent = 20 * time.Second

type (
	instance struct{ service, name string }
	counter  struct {
		instance
		incarnation   uint64
		stage, reason string
	}
	// counts of a counter: before the time since, and now.
	counts struct{ before, now uint64 }
)

// loss reads what the services have counted, off tapweave.stats.
func (e *exam) loss(ctx context.Context) {
	if e.kafka == nil || e.topics[record.TopicStats] == 0 {
		return
	}
	since := time.Now().Add(-e.Since)
	all, heard, err := e.counts(ctx, since)
	if err != nil {
		e.fail("loss", err)
		return
	}
	e.heard(heard)

	found := false
	for _, l := range losses {
		type sum struct{ recent, earlier uint64 }
		sums := map[string]sum{}
		for c, n := range all {
			if c.service != l.service || c.stage != l.stage || l.reason != "" && c.reason != l.reason {
				continue
			}
			who := fmt.Sprintf("%s %s", c.service, c.name)
			if l.reason == "" {
				who += " (" + c.reason + ")"
			}
			s := sums[who]
			s.recent += n.now - n.before
			s.earlier += n.before
			sums[who] = s
		}
		for _, who := range slices.Sorted(maps.Keys(sums)) {
			s := sums[who]
			switch {
			case l.stage == "clock_skew" && s.recent > 0:
				e.add("loss", Error, mendClock, "%s: the clock of that collector is more than fold.max_clock_skew off: the packets of %d batches in the last %s have the time at which they were folded", who, s.recent, e.Since)
			case s.recent > 0:
				e.add("loss", l.status, l.remedy, "%s lost %d %s, in the last %s", who, s.recent, l.what, e.Since)
			case s.earlier > 0:
				e.add("loss", Warning, l.remedy, "%s lost %d %s, but none in the last %s", who, s.earlier, l.what, e.Since)
			default:
				continue
			}
			found = true
		}
	}
	if !found {
		e.add("loss", OK, "", "no stage has lost anything: %d instances have counted since they started", len(heard))
	}
	e.mirror(all)
}

// mirror says what comes in.
func (e *exam) mirror(all map[counter]counts) {
	var received, refused, most uint64
	var reason string
	for c, n := range all {
		switch {
		case c.service != "collector":
		case c.stage == "received" && c.reason == "datagrams":
			received += n.now - n.before
		case c.stage == "refused":
			refused += n.now - n.before
			if d := n.now - n.before; d > most {
				most, reason = d, c.reason
			}
		}
	}
	switch {
	case received == 0:
		e.add("loss", Warning, "is the mirror on, and does a security rule let UDP 4789 through? tcpdump -ni any udp port 4789 on a collector", "no collector has received anything in the last %s", e.Since)
	case refused > received/2:
		e.add("loss", Warning, "docs/collector.md says what each reason means", "the collectors have refused %d of %d datagrams in the last %s, most for %s", refused, received, e.Since, reason)
	default:
		e.add("loss", OK, "", "the collectors have received %d datagrams in the last %s, and refused %d", received, e.Since, refused)
	}
}

// heard checks that collectors are there, and that nobody who was has fallen silent.
func (e *exam) heard(last map[instance]time.Time) {
	collectors := 0
	for _, i := range slices.SortedFunc(maps.Keys(last), func(a, b instance) int { return cmp.Or(cmp.Compare(a.service, b.service), cmp.Compare(a.name, b.name)) }) {
		quiet := time.Since(last[i])
		switch {
		case quiet > e.Since:
		case quiet > silent:
			e.add("service", Warning, "start it, if it was not stopped on purpose", "%s %s has said nothing for %s", i.service, i.name, round(quiet))
		case i.service == "collector":
			collectors++
		}
	}
	if collectors == 0 {
		e.add("service", Error, "start one; if it runs, its log says why Kafka does not take its records", "no collector has been heard on %s for %s", record.TopicStats, silent)
	}
}

// counts reads the newest counts of each incarnation that was heard since, and those before; and when each was heard last.
func (e *exam) counts(ctx context.Context, since time.Time) (map[counter]counts, map[instance]time.Time, error) {
	first, next, err := e.kafka.Offsets(ctx, record.TopicStats, 0)
	if err != nil {
		return nil, nil, err
	}
	// There is no index to ask by time without trusting the producers' clocks: go back until a record is old enough.
	const piece, most = 2000, 200_000
	from := max(first, next-piece)
	for from > first && next-from < most {
		f, err := e.kafka.Fetch(ctx, record.TopicStats, 0, from, 1, 0)
		if err != nil {
			return nil, nil, err
		}
		if len(f.Records) == 0 || f.Records[0].Time.Before(since) {
			break
		}
		from = max(first, next-2*(next-from))
	}
	all, heard := map[counter]counts{}, map[instance]time.Time{}
	for from < next {
		f, err := e.kafka.Fetch(ctx, record.TopicStats, 0, from, 1<<20, time.Second)
		if err != nil {
			return nil, nil, err
		}
		if f.Next == from {
			return nil, nil, fmt.Errorf("%s ends at %d, not at %d", record.TopicStats, from, next)
		}
		from = f.Next
		for _, r := range f.Records {
			s, err := record.UnmarshalStats(r.Value)
			if err != nil {
				continue // the sink counts it
			}
			i := instance{s.Service, s.Instance}
			began := time.Unix(0, int64(s.Incarnation))
			for _, n := range s.Counts {
				c := counter{i, s.Incarnation, n.Stage, n.Reason}
				old, known := all[c]
				switch {
				case n.Stage == "gap": // said once, when a collector came back
					old.now = max(old.now, n.Count)
					if r.Time.Before(since) {
						old.before = old.now
					}
				case r.Time.Before(since):
					old = counts{n.Count, n.Count}
				case !known && began.Before(since): // it was not heard before: what it counted then is not known
					old = counts{n.Count, n.Count}
				default:
					old.now = max(old.now, n.Count)
				}
				all[c] = old
			}
			if len(s.Counts) != 1 || s.Counts[0].Stage != "gap" { // that one is an enricher's word
				heard[i] = r.Time
			}
		}
	}
	return all, heard, nil
}
