package enricher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
	"unicode/utf8"

	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/enricher/labels/source"
	"github.com/tapweave/tapweave/enricher/output"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/admin"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/logging"
)

// Config of the service.
type Config struct {
	Name             string             `yaml:"name" doc:"Name of this enricher in pipeline_stats, another for each."`
	Partitions       int                `yaml:"partitions" doc:"P, the partitions of tapweave.packets. The same in every service. Sessions that are open when it changes are cut."`
	OutputPartitions int                `yaml:"output_partitions" doc:"S, the partitions of tapweave.sessions. The same in every service; partition p of tapweave.packets is written to partition p mod S."`
	Fold             FoldConfig         `yaml:"fold" doc:"How packets become sessions. The same in every enricher."`
	Labels           source.Config      `yaml:"labels" doc:"What sessions are labelled by. Files are read again when they change; one that is wrong leaves the labels as they are. The same in every enricher."`
	Output           OutputConfig       `yaml:"output" doc:"How sessions are written."`
	Topics           kafka.TopicsConfig `yaml:"topics" doc:"How topics are made that are missing."`
	Kafka            kafka.Config       `yaml:"kafka" doc:"Connection to Kafka."`
	Admin            admin.Config       `yaml:"admin" doc:"Health and metrics."`
	Log              logging.Config     `yaml:"log" doc:"The log."`
}

// Validate says what is wrong with a configuration.
func (c Config) Validate() error {
	const most = 1 << 16
	switch {
	case c.Name == "" || len(c.Name) > 255 || !utf8.ValidString(c.Name):
		return errors.New("name: 1 to 255 bytes of UTF-8 are wanted")
	case c.Partitions < 1 || c.Partitions > most:
		return fmt.Errorf("partitions %d is not between 1 and %d", c.Partitions, most)
	case c.OutputPartitions < 1 || c.OutputPartitions > most:
		return fmt.Errorf("output_partitions %d is not between 1 and %d", c.OutputPartitions, most)
	}
	return nil
}

// FoldConfig is [fold.Settings] but for the number of partitions.
type FoldConfig struct {
	LateLimit       time.Duration `yaml:"late_limit" doc:"How far behind the watermark a packet still counts. Closed sessions stay in memory for as long."`
	CopyDelay       time.Duration `yaml:"copy_delay" doc:"How far apart in time the copies of one packet from two tap points may be."`
	Retire          time.Duration `yaml:"producer_timeout" doc:"Silence after which a collector holds the others up no more."`
	MaxClockSkew    time.Duration `yaml:"max_clock_skew" doc:"How far a collector's clock may be from the others'. Beyond it its packets are given the time at which they are folded."`
	TCPIdle         time.Duration `yaml:"tcp_idle" doc:"Silence that ends a TCP session."`
	TCPHalfOpenIdle time.Duration `yaml:"tcp_half_open_idle" doc:"The same where only SYN, SYN-ACK or RST were seen."`
	UDPIdle         time.Duration `yaml:"udp_idle" doc:"Silence that ends a UDP conversation."`
	ICMPIdle        time.Duration `yaml:"icmp_idle" doc:"Silence that ends an ICMP conversation."`
	OtherIdle       time.Duration `yaml:"other_idle" doc:"Silence that ends a conversation of another protocol."`
	FinalAfter      time.Duration `yaml:"final_after" doc:"Silence after both FINs, or a RST, that makes a TCP session final."`
	Linger          time.Duration `yaml:"linger" doc:"For how long packets that fit still belong to a final TCP session."`
	Rollover        time.Duration `yaml:"rollover" doc:"Age at which a session is closed and goes on as another."`
	FirstVersion    time.Duration `yaml:"first_version" doc:"Age at which a session is first written."`
	VersionEvery    time.Duration `yaml:"version_every" doc:"Time between the later versions of a session that goes on."`
	Freeze          time.Duration `yaml:"freeze" doc:"Age from which src, dst and application of a session do not change any more."`
	FragmentTimeout time.Duration `yaml:"fragment_timeout" doc:"How far apart the fragments of a datagram may be."`
	MaxDatagrams    int           `yaml:"max_datagrams" doc:"Datagrams that may wait for fragments, a partition. Beyond it the oldest is given up."`
	MaxSessions     int           `yaml:"max_sessions" doc:"Sessions in memory, a partition, of some 500 bytes each. Beyond it the oldest that nobody has answered is closed first, half-open ones among them."`
	MaxWaiting      int           `yaml:"max_waiting_bytes" doc:"Batches that may wait for slower collectors, a partition. Beyond it their packets are late."`
	PayloadLog      int           `yaml:"payload_log_bytes" doc:"Sampled payload that is kept, a partition, to compare what is sent again with."`
	MaxApplications int           `yaml:"max_applications_bytes" doc:"What is kept, a partition, to recognise applications with, and of the fields found. Beyond it sessions that want more are read no further."`
	KeepPayload     int           `yaml:"keep_payload" doc:"Bytes of each side's payload that are written with the session, from its beginning, as far as they are sampled. 0 for none."`
	ScanPorts       int           `yaml:"scan_ports" doc:"Ports that one host tries in vain with another within scan_window to be told as a port scan. 0: none is."`
	ScanWindow      time.Duration `yaml:"scan_window" doc:"See scan_ports."`
	PrintsLearned   time.Duration `yaml:"tls_learned" doc:"For how long the TLS fingerprints that a server with the label watch=tls meets are learned; new ones are told from then on."`
	Packets         bool          `yaml:"packets" doc:"Whether a row is written for each packet."`
}

func foldConfig(s fold.Settings) FoldConfig {
	return FoldConfig{
		LateLimit: s.LateLimit, CopyDelay: s.CopyDelay, Retire: s.Retire, MaxClockSkew: s.MaxClockSkew,
		TCPIdle: s.TCPIdle, TCPHalfOpenIdle: s.TCPHalfOpenIdle, UDPIdle: s.UDPIdle, ICMPIdle: s.ICMPIdle, OtherIdle: s.OtherIdle,
		FinalAfter: s.FinalAfter, Linger: s.Linger, Rollover: s.Rollover,
		FirstVersion: s.FirstVersion, VersionEvery: s.VersionEvery, Freeze: s.Freeze,
		FragmentTimeout: s.FragmentTimeout, MaxDatagrams: s.MaxDatagrams, MaxSessions: s.MaxSessions, MaxWaiting: s.MaxWaiting, PayloadLog: s.PayloadLog,
		ScanPorts: s.ScanPorts, ScanWindow: s.ScanWindow, PrintsLearned: s.PrintsLearned,
		MaxApplications: s.MaxApplications, KeepPayload: s.KeepPayload, Packets: s.Packets,
	}
}

func (c FoldConfig) settings(partitions int) fold.Settings {
	return fold.Settings{
		Partitions: partitions,
		LateLimit:  c.LateLimit, CopyDelay: c.CopyDelay, Retire: c.Retire, MaxClockSkew: c.MaxClockSkew,
		TCPIdle: c.TCPIdle, TCPHalfOpenIdle: c.TCPHalfOpenIdle, UDPIdle: c.UDPIdle, ICMPIdle: c.ICMPIdle, OtherIdle: c.OtherIdle,
		FinalAfter: c.FinalAfter, Linger: c.Linger, Rollover: c.Rollover,
		FirstVersion: c.FirstVersion, VersionEvery: c.VersionEvery, Freeze: c.Freeze,
		FragmentTimeout: c.FragmentTimeout, MaxDatagrams: c.MaxDatagrams, MaxSessions: c.MaxSessions, MaxWaiting: c.MaxWaiting, PayloadLog: c.PayloadLog,
		ScanPorts: c.ScanPorts, ScanWindow: c.ScanWindow, PrintsLearned: c.PrintsLearned,
		MaxApplications: c.MaxApplications, KeepPayload: c.KeepPayload, Packets: c.Packets,
	}
}

// Validate says what is wrong with a configuration.
func (c FoldConfig) Validate() error {
	for _, d := range []struct {
		key  string
		zero bool // allowed
		d    time.Duration
	}{
		{"late_limit", true, c.LateLimit}, {"copy_delay", true, c.CopyDelay}, {"producer_timeout", false, c.Retire}, {"max_clock_skew", false, c.MaxClockSkew},
		{"tcp_idle", false, c.TCPIdle}, {"tcp_half_open_idle", false, c.TCPHalfOpenIdle}, {"udp_idle", false, c.UDPIdle},
		{"icmp_idle", false, c.ICMPIdle}, {"other_idle", false, c.OtherIdle}, {"final_after", true, c.FinalAfter},
		{"linger", true, c.Linger}, {"rollover", false, c.Rollover}, {"first_version", true, c.FirstVersion},
		{"version_every", false, c.VersionEvery}, {"freeze", true, c.Freeze}, {"fragment_timeout", false, c.FragmentTimeout},
		{"scan_window", false, c.ScanWindow}, {"tls_learned", true, c.PrintsLearned},
	} {
		switch {
		case d.d < 0 || d.d == 0 && !d.zero:
			return fmt.Errorf("%s %v is too short", d.key, d.d)
		case d.d > fold.Never:
			return fmt.Errorf("%s %v is more than %v", d.key, d.d, fold.Never)
		}
	}
	switch {
	case c.MaxDatagrams < 1:
		return fmt.Errorf("max_datagrams %d is less than 1", c.MaxDatagrams)
	case c.MaxSessions < 1:
		return fmt.Errorf("max_sessions %d is less than 1", c.MaxSessions)
	case c.MaxWaiting < 1<<20:
		return fmt.Errorf("max_waiting_bytes %d is less than 1 MiB", c.MaxWaiting)
	case c.ScanPorts < 0 || c.ScanPorts > 1<<16:
		return fmt.Errorf("scan_ports %d is not between 0 and 65536", c.ScanPorts)
	case c.PayloadLog < 0:
		return fmt.Errorf("payload_log_bytes %d is less than 0", c.PayloadLog)
	case c.MaxApplications < 0:
		return fmt.Errorf("max_applications_bytes %d is less than 0", c.MaxApplications)
	case c.KeepPayload < 0 || c.KeepPayload > fold.MaxKeepPayload:
		return fmt.Errorf("keep_payload %d is not between 0 and %d", c.KeepPayload, fold.MaxKeepPayload)
	}
	return nil
}

// settings are those that the outputs depend on.
func (c Config) settings() (fold.Settings, output.Settings) {
	return c.Fold.settings(c.Partitions), output.Settings{Every: c.Output.Every, MaxBytes: c.Output.MaxBytes}
}

// OutputConfig is [output.Settings].
type OutputConfig struct {
	Every    time.Duration `yaml:"every" doc:"Capture time from one record of sessions to the next, a partition. Shorter is sooner, and costs bytes."`
	MaxBytes int           `yaml:"max_bytes" doc:"Size of the rows of a record, before compression, that ends it sooner."`
}

// Validate says what is wrong with a configuration.
func (c OutputConfig) Validate() error {
	switch {
	case c.Every < 0 || c.Every > time.Minute:
		return fmt.Errorf("every %v is not between 0s and 1m", c.Every)
	case c.MaxBytes < 1000 || c.MaxBytes > output.MaxBytes:
		return fmt.Errorf("max_bytes %d is not between 1000 and %d", c.MaxBytes, output.MaxBytes)
	}
	return nil
}

// DefaultConfig returns the defaults. The name is the host's.
func DefaultConfig() Config {
	name, err := os.Hostname()
	if err != nil {
		name = "enricher"
	}
	o := output.DefaultSettings()
	return Config{
		Name: name, Partitions: record.DefaultInputPartitions, OutputPartitions: record.DefaultOutputPartitions,
		Fold:   foldConfig(fold.DefaultSettings()),
		Output: OutputConfig{Every: o.Every, MaxBytes: o.MaxBytes},
		Topics: kafka.DefaultTopicsConfig(),
		Kafka:  kafka.DefaultConfig(),
		Admin:  admin.Config{Listen: ":8082"},
		Log:    logging.DefaultConfig(),
	}
}

// keep is for how long the topics should keep what an enricher reads: for so long it may be away.
const keep = 12 * time.Hour

// Warnings asks Kafka, and returns what it does not give that delivery needs.
func Warnings(ctx context.Context, c Config) []string {
	return kafka.Warnings(ctx, c.Kafka, keep, record.TopicPackets, record.TopicState, record.TopicSessions)
}
