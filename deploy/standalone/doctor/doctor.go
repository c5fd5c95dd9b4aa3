// Package doctor examines a running installation, and says in one line a check what it found and what to do: clocks and sockets,
// Kafka and its topics, ClickHouse and its tables, the services, how far behind each stage is, and what each has lost.
//
// It only reads. What depends on something that was found broken is not checked, so that the errors are causes.
package doctor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/sink"
)

// Status of a check.
type Status string

// Statuses. A warning is what may do harm, or has; an error is what does now.
const (
	OK      Status = "ok"
	Warning Status = "warning"
	Error   Status = "error"
)

// Line is what one check found.
type Line struct {
	Area   string `json:"area"` // clock, kafka, clickhouse, service, lag, loss
	Status Status `json:"status"`
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"` // what to do about it
}

// Options say what is examined.
type Options struct {
	// Sink is the configuration of the sinks: it has the connections, the numbers of partitions, and which outputs there are.
	Sink sink.Config
	// Services are the addresses, HOST:PORT, where services answer /readyz and /metrics. What they alone know is not checked
	// without: readiness, clocks, receive buffers, and how far behind the fold is.
	Services []string
	// Since is how far back what was lost counts as an error; what was lost earlier is a warning.
	Since time.Duration
}

// exam is one examination.
type exam struct {
	Options
	lines  []Line
	kafka  *kafka.Client
	topics map[string]int // partitions of those topics that are there
	broken bool           // a server is: that services wait for it is no news
}

func (e *exam) add(area string, s Status, remedy, format string, args ...any) {
	e.lines = append(e.lines, Line{area, s, fmt.Sprintf(format, args...), remedy})
}

// fail adds an error that says itself what to do.
func (e *exam) fail(area string, err error) { e.add(area, Error, "", "%s", err) }

// warn adds what other checks found, a warning each.
func (e *exam) warn(area string, warnings []string) {
	for _, w := range warnings {
		e.add(area, Warning, "", "%s", w)
	}
}

// answerTimeout is how long the checks of one area may take in all.
const answerTimeout = 20 * time.Second

// Run examines. The lines come in an order in which causes stand before what follows from them.
func Run(ctx context.Context, o Options) []Line {
	e := &exam{Options: o}
	asked := askAll(ctx, o.Services) // at the same time as all else
	for _, area := range []func(context.Context){
		e.clock, e.brokers, e.database,
		func(context.Context) { e.services(<-asked) },
		e.lag, e.loss,
	} {
		ctx, cancel := context.WithTimeout(ctx, answerTimeout)
		area(ctx)
		cancel()
	}
	if e.kafka != nil {
		e.kafka.Close()
	}
	return e.lines
}

// Worst is the worst status of all lines.
func Worst(lines []Line) Status {
	worst := OK
	for _, l := range lines {
		if l.Status == Error || worst == OK {
			worst = l.Status
		}
	}
	return worst
}

// Table prints the lines for people.
func Table(lines []Line) string {
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "%-8s %-11s %s\n", l.Status, l.Area, l.Text)
		if l.Remedy != "" {
			fmt.Fprintf(&b, "%-20s → %s\n", "", l.Remedy)
		}
	}
	return b.String()
}

// round makes a duration readable.
func round(d time.Duration) time.Duration {
	switch {
	case d > time.Minute || d < -time.Minute:
		return d.Round(time.Second)
	case d > time.Second || d < -time.Second:
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Millisecond)
}
