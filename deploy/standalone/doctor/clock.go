package doctor

import (
	"context"
	"time"

	"github.com/tapweave/tapweave/enricher/fold"
)

// tolerated is how far apart two clocks may be before something is said; the fold stops listening to a collector at its
// max_clock_skew.
const tolerated = 2 * time.Second

var maxSkew = fold.DefaultSettings().MaxClockSkew

const mendClock = "mend time synchronisation there (chronyc tracking, timedatectl): sessions are ordered by the collectors' clocks"

// clock checks this machine's, which the others are compared with.
func (e *exam) clock(context.Context) {
	switch yes, most, err := synchronised(); {
	case err != nil:
		e.add("clock", Warning, "run this on Linux, or check by hand", "whether this machine's clock is synchronised cannot be told: %v", err)
	case !yes:
		e.add("clock", Warning, "start chrony or systemd-timesyncd, if this is a machine of Tapweave", "this machine's clock is not synchronised, by the kernel's word")
	default:
		e.add("clock", OK, "", "this machine's clock is synchronised, to %s or better", round(most))
	}
}

// compare checks a clock that showed a time between from and to when this machine's was between begin and end.
func (e *exam) compare(whose string, from, to, begin, end time.Time) {
	ahead := time.Duration(0)
	switch {
	case from.After(end):
		ahead = from.Sub(end)
	case to.Before(begin):
		ahead = to.Sub(begin)
	}
	switch off := ahead.Abs(); {
	case off > maxSkew:
		e.add("clock", Error, mendClock, "the clock of %s is %s from this machine's; from %s on packets lose their time", whose, round(ahead), maxSkew)
	case off > tolerated:
		e.add("clock", Warning, mendClock, "the clock of %s is %s from this machine's", whose, round(ahead))
	}
}
