package fold

import "time"

// Settings are all that the fold depends on beside its input: with the same settings and the same log it puts
// out the same bytes.
type Settings struct {
	// Partitions is P: batches made for another number are refused.
	Partitions int

	// LateLimit is how far behind the watermark a packet is still folded. Sessions are kept for as long.
	LateLimit time.Duration
	// CopyDelay is how far apart in time two copies of one packet, from two tap points, may be.
	CopyDelay time.Duration
	// Retire is the log time without a word after which a producer holds the watermark no more.
	Retire time.Duration
	// MaxClockSkew is how far a producer's clock may be from the others'. Beyond it the producer neither moves nor
	// holds the watermark, and the times of its packets are not believed.
	MaxClockSkew time.Duration

	// A conversation ends when it was idle for this long.
	TCPIdle, TCPHalfOpenIdle, UDPIdle, ICMPIdle, OtherIdle time.Duration
	// FinalAfter is the silence after both FINs, or a RST, that makes a TCP session final.
	FinalAfter time.Duration
	// Linger is for how long what fits its sequence numbers still belongs to a final TCP session.
	Linger time.Duration
	// Rollover is the age at which a session is closed and goes on as another.
	Rollover time.Duration

	// FirstVersion is the event time from a session's first packet to its first version, VersionEvery that
	// between later ones.
	FirstVersion, VersionEvery time.Duration
	// Freeze is the age of a session from which its dimensions (src, application) do not change any more.
	Freeze time.Duration

	// FragmentTimeout is how long the fragments of a datagram may be apart.
	FragmentTimeout time.Duration
	// MaxDatagrams is how many datagrams may wait for fragments; beyond it the oldest is given up.
	MaxDatagrams int
	// MaxSessions is how many sessions are kept; beyond it the oldest that nobody has answered goes first.
	MaxSessions int

	// MaxWaiting is how many bytes of batches may wait for the watermark. Beyond it the watermark goes on without
	// the collectors that hold it; what they send then is late.
	MaxWaiting int

	// PayloadLog is how many bytes of sampled payload are kept to be compared with what is sent again.
	PayloadLog int

	// MaxApplications is how many bytes may be kept, of all sessions, to recognise applications with and of what
	// was found. Beyond it the payload of the session that wants more is read no further.
	MaxApplications int
	// KeepPayload is how many bytes of each side's payload are kept, from its beginning; 0: none.
	KeepPayload int

	// ScanPorts is how many ports one host tries in vain with another within ScanWindow to be told as a port scan;
	// 0: none is.
	ScanPorts  int
	ScanWindow time.Duration
	// PrintsLearned is for how long the TLS fingerprints of a watched server's clients are learned before new ones
	// are told.
	PrintsLearned time.Duration

	// Packets says whether a row is put out for each packet.
	Packets bool
}

// MaxKeepPayload is the largest KeepPayload: a row with both sides' payload has to fit an output.
const MaxKeepPayload = 16 << 10

// Never is longer than any session: for timeouts that are not to happen.
const Never = 100 * 365 * 24 * time.Hour

// DefaultSettings are those of the fixed design: see docs/architecture.md.
func DefaultSettings() Settings {
	return Settings{
		Partitions:      16,
		LateLimit:       2 * time.Minute,
		CopyDelay:       time.Second,
		Retire:          10 * time.Second,
		MaxClockSkew:    5 * time.Second,
		TCPIdle:         time.Hour,
		TCPHalfOpenIdle: time.Minute,
		UDPIdle:         time.Minute,
		ICMPIdle:        time.Minute,
		OtherIdle:       time.Minute,
		FinalAfter:      5 * time.Second,
		Linger:          2 * time.Minute,
		Rollover:        24 * time.Hour,
		FirstVersion:    500 * time.Millisecond,
		VersionEvery:    time.Minute,
		Freeze:          10 * time.Minute,
		FragmentTimeout: 30 * time.Second,
		MaxDatagrams:    4096,
		MaxSessions:     1 << 17,
		MaxWaiting:      64 << 20,
		PayloadLog:      4 << 20,
		ScanPorts:       25,
		ScanWindow:      time.Minute,
		PrintsLearned:   24 * time.Hour,
		MaxApplications: 64 << 20,
	}
}

// Endless returns s with no border that depends on the pace of the packets: sessions end by their headers or
// with the input. What was replayed at another pace then folds to the same sessions.
func (s Settings) Endless() Settings {
	s.TCPIdle, s.TCPHalfOpenIdle, s.UDPIdle, s.ICMPIdle, s.OtherIdle = Never, Never, Never, Never, Never
	s.FinalAfter, s.Linger, s.Rollover, s.FragmentTimeout = Never, Never, Never, Never
	return s
}
