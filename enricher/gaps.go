package enricher

import (
	"context"
	"time"

	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
)

// gaps remembers the last word of each producer of a partition, and tells where one came back that had not taken
// its leave: what it had taken in and not yet written is lost.
type gaps map[string]word

type word struct {
	incarnation uint64
	watermark   int64
	goodbye     bool
}

// maxProducers bounds how many producers are remembered.
const maxProducers = 10_000

// gap is the time that a producer says nothing of, by its own clock.
type gap struct {
	producer    string
	incarnation uint64 // that ended
	from, to    int64  // its last watermark, and its return; nanoseconds since the Unix epoch
}

// see takes a record of tapweave.packets in the order of the log.
func (g gaps) see(value []byte) (found gap, ok bool) {
	r, err := record.UnmarshalPackets(value)
	b := r.GetBatch()
	if err != nil || b == nil {
		return gap{}, false
	}
	last, known := g[b.Producer]
	switch {
	case known && b.Incarnation < last.incarnation, !known && len(g) >= maxProducers:
		return gap{}, false
	case known && b.Incarnation > last.incarnation && !last.goodbye:
		found, ok = gap{b.Producer, last.incarnation, last.watermark, b.Clock}, b.Clock > last.watermark
	}
	if !known || b.Incarnation > last.incarnation {
		last = word{incarnation: b.Incarnation, watermark: b.Watermark}
	}
	last.watermark, last.goodbye = max(last.watermark, b.Watermark), b.Kind == pb.PacketBatch_GOODBYE
	g[b.Producer] = last
	return found, ok
}

// tell writes a gap as a count of the incarnation that ended: the row of pipeline_stats bears the time of the return,
// and the count is how many milliseconds before it the last watermark was. Told again, it is the same row.
func (p *partition) tell(g gap) {
	away := time.Duration(g.to - g.from)
	p.limited.Warn("gap", "a collector came back that had not taken its leave: what it had not yet written is lost",
		"collector", g.producer, "partition", p.assigned.Partition, "last_watermark", time.Unix(0, g.from).UTC(), "return", time.Unix(0, g.to).UTC(), "away", away)
	value, err := record.MarshalStats(&pb.StatsRecord{
		Service: "collector", Instance: g.producer, Incarnation: g.incarnation, Time: g.to,
		Counts: []*pb.Count{{Stage: "gap", Reason: "away_milliseconds", Count: uint64(away.Milliseconds())}},
	})
	if err != nil {
		p.failed(err)
		return
	}
	p.storing.Go(func() {
		ctx, cancel := context.WithTimeout(p.late, time.Minute)
		defer cancel()
		if _, err := p.client.ProduceRetry(ctx, record.TopicStats, 0, func() ([]kafka.Record, error) {
			return []kafka.Record{{Key: []byte(g.producer), Value: value}}, nil
		}, p.failed); err != nil && p.late.Err() == nil {
			p.failed(err)
		}
	})
}
