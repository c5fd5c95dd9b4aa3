package collector

// Shares of the memory bound. From payloadAt on no payload is taken; from packetsAt on packets are shed by
// session, so many that none would be left at the bound itself. Constant overload finds its balance between
// the two, with whole sessions kept, instead of at the bound, where whatever comes is lost.
const (
	payloadAt = 0.7
	packetsAt = 0.94
)

// shedding is what is not taken, because too much waits for Kafka.
type shedding struct {
	payload bool
	// threshold: packets of sessions whose hash is at or above it are shed; 0: none are. Thresholds are nested,
	// and the hash is the same everywhere, so that several collectors shed the same sessions.
	threshold uint64
}

// relief is a function of the share of the memory bound that is in use.
func relief(pressure float64) (s shedding) {
	s.payload = pressure >= payloadAt
	if pressure >= packetsAt {
		// In steps, so that a wavering load does not touch ever more sessions.
		const steps = 64
		keep := uint64(max(0, (1-pressure)/(1-packetsAt)) * steps)
		s.threshold = max(1, keep*(1<<63/(steps/2)))
		if keep >= steps {
			s.threshold = 0
		}
	}
	return s
}
