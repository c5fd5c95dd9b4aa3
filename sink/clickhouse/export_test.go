package clickhouse

import "github.com/tapweave/tapweave/proto/delivery"

// Crash sets what is called at each step at which a crash may fall; the work ends with its error.
func (o *Output) Crash(f func(delivery.Do) error) { o.crash = f }
