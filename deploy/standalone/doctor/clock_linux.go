package doctor

import (
	"time"

	"golang.org/x/sys/unix"
)

// synchronised says whether something disciplines this machine's clock, and how far it may be off at most.
func synchronised() (yes bool, most time.Duration, err error) {
	var t unix.Timex // Modes 0: it is only read
	state, err := unix.Adjtimex(&t)
	return state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, time.Duration(t.Maxerror) * time.Microsecond, err
}
