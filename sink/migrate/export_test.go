package migrate

import "time"

// SetLockStale changes the age of a stale lock until the function that it returns is called.
func SetLockStale(d time.Duration) func() {
	old := lockStale
	lockStale = d
	return func() { lockStale = old }
}
