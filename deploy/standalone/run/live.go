package run

import (
	"context"
	"fmt"
	"time"

	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/service/stats"
	"github.com/tapweave/tapweave/sink/migrate"
)

// activity is what the services have done so far.
type activity struct {
	packets   uint64 // received
	lost      uint64 // of those sent to the collectors, on the way to a session
	undecoded uint64 // received, and no IP packet
	open      int    // sessions
	rows      uint64 // written to ClickHouse, but for the counts of the services themselves
}

// notFolded are the reasons for which the fold counts packets that no session has.
var notFolded = map[string]bool{
	fold.TooLate.String(): true, fold.FragmentsUnowned.String(): true, fold.DatagramsBroken.String(): true,
}

// line says it in one line; rate is the packets a second.
func (a activity) line(rate float64) string {
	text := fmt.Sprintf("%.0f packets/s in, %d sessions in memory, %d rows written, %d packets dropped", rate, a.open, a.rows, a.lost)
	if a.undecoded > 0 {
		text += fmt.Sprintf(", %d not decoded", a.undecoded)
	}
	return text
}

// activity asks the services.
func (r *run) activity() (a activity) {
	for _, c := range r.collectors {
		each(c.Counters(), func(stage, reason string, n uint64) {
			switch {
			case stage == "received" && reason == "datagrams":
				a.packets += n
			case stage == "lost":
				a.lost += n
			case stage == "refused":
				a.undecoded += n
			}
		})
	}
	each(r.sink.Counters(), func(stage, reason string, n uint64) {
		if stage == "rows" && reason != migrate.PipelineStats {
			a.rows += n
		}
	})
	if families, err := r.metrics.Gather(); err == nil {
		for _, f := range families {
			for _, m := range f.GetMetric() {
				switch f.GetName() {
				case "tapweave_enricher_sessions_open":
					a.open += int(m.GetGauge().GetValue())
				case "tapweave_enricher_fold_total":
					if len(m.GetLabel()) == 1 && notFolded[m.GetLabel()[0].GetValue()] {
						a.lost += uint64(m.GetCounter().GetValue())
					}
				}
			}
		}
	}
	return a
}

func each(c *stats.Counters, f func(stage, reason string, n uint64)) {
	for _, n := range c.Counts() {
		f(n.Stage, n.Reason, n.Count)
	}
}

// live shows what goes on until ctx is done: on a terminal a line that changes every second, else one every 10 s.
func (r *run) live(ctx context.Context) {
	every := 10 * time.Second
	if r.Console.Terminal() {
		every = time.Second
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	last := r.activity()
	for {
		select {
		case <-ctx.Done():
			r.Console.Status("")
			return
		case <-tick.C:
		}
		now := r.activity()
		text := now.line(float64(now.packets-last.packets) / every.Seconds())
		last = now
		if r.Console.Terminal() {
			r.Console.Status(text)
		} else {
			r.Console.Line(text)
		}
	}
}
