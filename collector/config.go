package collector

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
	"unicode/utf8"

	"github.com/tapweave/tapweave/collector/allow"
	"github.com/tapweave/tapweave/collector/batcher"
	"github.com/tapweave/tapweave/collector/decode"
	"github.com/tapweave/tapweave/collector/sample"
	"github.com/tapweave/tapweave/collector/scheduledevents"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/admin"
	"github.com/tapweave/tapweave/service/config"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/logging"
)

// Config of a collector.
type Config struct {
	Name         string                 `yaml:"name" doc:"Name of this collector, another for each. It stands in the sessions' column collectors."`
	Listen       string                 `yaml:"listen" doc:"UDP address of the mirrored packets in VXLAN, HOST:PORT. Without a host: IPv4 and IPv6. Empty: none."`
	ListenGENEVE string                 `yaml:"listen_geneve" doc:"UDP address of mirrored packets in GENEVE, usually :6081: AWS's gateway load balancers send it. Empty: none."`
	Interface    string                 `yaml:"interface" doc:"Network interface whose frames are taken as they are, for mirrors without a tunnel (a SPAN port, GCP packet mirroring). Needs CAP_NET_RAW. Empty: none."`
	Workers      int                    `yaml:"workers" doc:"Receiving workers for each of listen, listen_geneve and interface, each with a socket of its own. 0: one a core."`
	ReceiveBytes int                    `yaml:"receive_buffer_bytes" doc:"Buffer of each socket in the kernel. It bridges pauses of the process."`
	Partitions   int                    `yaml:"partitions" doc:"P, the partitions of tapweave.packets. The same in every service. Sessions that are open when it changes are cut."`
	Linger       time.Duration          `yaml:"linger" doc:"How long packets wait for others before they are published."`
	MemoryBytes  int64                  `yaml:"memory_bytes" doc:"What may wait for Kafka. At 70 % payload is no longer taken; from 94 % on packets are shed by session, ever more up to 100 %. All of it is counted."`
	BatchBytes   int                    `yaml:"batch_bytes" doc:"Size of a batch before compression at which it is published."`
	BatchPackets int                    `yaml:"batch_packets" doc:"Packets of a batch at which it is published."`
	DrainTime    time.Duration          `yaml:"drain_time" doc:"How long packets are still taken after SIGTERM, while /readyz and the probe fail: longer than the load balancer needs to notice."`
	FlushTimeout time.Duration          `yaml:"flush_timeout" doc:"How long to wait for Kafka at the end. What is not published then is lost, and counted."`
	Sampling     Sampling               `yaml:"sampling" doc:"Which payload travels with the packets."`
	Tunnels      Tunnels                `yaml:"tunnels" doc:"What is unwrapped, and what network identifiers (VNI) mean."`
	Allow        Allow                  `yaml:"allow" doc:"Who may send. SIGHUP reads this section anew, and no other."`
	Probe        Probe                  `yaml:"probe" doc:"What a load balancer asks."`
	AzureEvents  scheduledevents.Config `yaml:"azure_events" doc:"Azure's announcements that this machine is about to go."`
	Topics       kafka.TopicsConfig     `yaml:"topics" doc:"How tapweave.packets and tapweave.stats are made."`
	Kafka        kafka.Config           `yaml:"kafka" doc:"Connection to Kafka."`
	Admin        admin.Config           `yaml:"admin" doc:"Health and metrics over HTTP."`
	Log          logging.Config         `yaml:"log" doc:"The log."`
}

// Sampling says which payload travels.
type Sampling struct {
	Mode        string        `yaml:"mode" doc:"none. starts: the beginnings of known protocols, which applications are recognised by. rate: all of a share of the sessions. all. With rate and all a secret that is split between two packets is not redacted, nor a header's value that begins in another packet than its name."`
	Bytes       int           `yaml:"bytes" doc:"Most bytes of a packet's payload that travel. 0: as many as there are."`
	PushedBytes int           `yaml:"pushed_bytes" doc:"With mode starts, the longest pushed TCP segment that travels although its protocol is not known, if it is no text; a ClientHello's second one is such. 0: none."`
	Share       float64       `yaml:"share" doc:"With mode rate, the share of the sessions, 0 to 1."`
	Key         config.Secret `yaml:"key" doc:"With mode rate, what decides which sessions these are. The same in every collector."`
	KeyFile     string        `yaml:"key_file" doc:"File whose content is the key."`
	Redact      bool          `yaml:"redact" doc:"Whether asterisks replace the values of HTTP's Authorization, Proxy-Authorization, Cookie and Set-Cookie, and card numbers."`
	Patterns    []string      `yaml:"patterns" doc:"RE2 expressions; asterisks replace what they match within one packet."`
}

// Allow says who may send. What is refused is counted by reason: source, vni.
type Allow struct {
	Sources []string `yaml:"sources" doc:"Prefixes of the addresses that may send VXLAN or GENEVE (10.0.0.0/8, 2001:db8::/32): with vTAP those of the mirrored machines. None: all."`
	VNIs    []uint32 `yaml:"vnis" doc:"Network identifiers of the outermost tunnel that are taken. None: all."`
}

// Probe is what a load balancer asks.
type Probe struct {
	Listen string `yaml:"listen" doc:"TCP address, HOST:PORT, that is open only while the collector is ready, and answers HTTP with 200. Empty: none."`
}

// Tunnels says what is unwrapped.
type Tunnels struct {
	MaxDepth    int               `yaml:"max_depth" doc:"How many tunnels inside each other are unwrapped, the mirror's own included. A packet with more is refused, and counted."`
	VXLANPorts  []uint16          `yaml:"vxlan_ports" doc:"UDP destination ports that carry VXLAN inside a mirrored packet."`
	GENEVEPorts []uint16          `yaml:"geneve_ports" doc:"UDP destination ports that carry GENEVE inside a mirrored packet."`
	VNIScope    string            `yaml:"vni_scope" doc:"shared: one address space. isolated: each VNI is a tenant of its own. map: see tenants."`
	Tenants     map[uint32]string `yaml:"tenants" doc:"With vni_scope map: VNI to tenant; others are the default tenant's."`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	b := batcher.DefaultConfiguration("", 0, 0)
	d := decode.DefaultConfiguration()
	s := sample.DefaultConfiguration()
	name, err := os.Hostname()
	if err != nil || name == "" {
		name = "collector"
	}
	return Config{
		Name: name, Listen: ":4789", ReceiveBytes: 16 << 20,
		Partitions: record.DefaultInputPartitions, Linger: 200 * time.Millisecond, MemoryBytes: 128 << 20,
		BatchBytes: b.MaxBytes, BatchPackets: b.MaxPackets,
		DrainTime: 10 * time.Second, FlushTimeout: 10 * time.Second,
		Sampling:    Sampling{Mode: s.Mode.String(), Bytes: s.Bytes, PushedBytes: s.PushedBytes, Share: s.Share, Redact: s.Redact},
		Tunnels:     Tunnels{MaxDepth: d.MaxDepth, VXLANPorts: d.VXLANPorts, GENEVEPorts: d.GENEVEPorts, VNIScope: "shared"},
		AzureEvents: scheduledevents.DefaultConfig(),
		Topics:      kafka.DefaultTopicsConfig(),
		Kafka:       kafka.DefaultConfig(),
		Admin:       admin.Config{Listen: ":8081"},
		Log:         logging.DefaultConfig(),
	}
}

// Validate says what is wrong with a configuration.
func (c Config) Validate() error {
	if c.Name == "" || len(c.Name) > 255 || !utf8.ValidString(c.Name) {
		return errors.New("name: 1 to 255 bytes of UTF-8 are wanted")
	}
	if c.Listen == "" && c.ListenGENEVE == "" && c.Interface == "" {
		return errors.New("listen, listen_geneve, interface: none of them is set")
	}
	for key, address := range map[string]string{"listen": c.Listen, "listen_geneve": c.ListenGENEVE, "probe.listen": c.Probe.Listen} {
		if _, _, err := net.SplitHostPort(address); address != "" && err != nil {
			return fmt.Errorf("%s: %q is not HOST:PORT", key, address)
		}
	}
	if c.Workers < 0 || c.Workers > 256 {
		return fmt.Errorf("workers: %d is not between 0 and 256", c.Workers)
	}
	if c.ReceiveBytes < 1 || c.ReceiveBytes > 1<<30-1 {
		return fmt.Errorf("receive_buffer_bytes: %d is not between 1 and %d", c.ReceiveBytes, 1<<30-1)
	}
	if c.Linger < time.Millisecond || c.Linger > 10*time.Second {
		return fmt.Errorf("linger: %v is not between 1ms and 10s", c.Linger)
	}
	if c.MemoryBytes < 1<<20 {
		return fmt.Errorf("memory_bytes: %d is less than 1 MiB", c.MemoryBytes)
	}
	if c.DrainTime < 0 || c.FlushTimeout < 0 {
		return errors.New("drain_time and flush_timeout are not negative")
	}
	if err := c.batcher(0).Validate(); err != nil {
		return err
	}
	if _, err := c.Allow.list(); err != nil {
		return err
	}
	s, err := c.sampler()
	if err != nil {
		return err
	}
	if err := s.Validate(); err != nil {
		return fmt.Errorf("sampling.%w", err)
	}
	d, err := c.decoder()
	if err != nil {
		return err
	}
	return d.Validate()
}

func (a Allow) list() (*allow.List, error) {
	l, err := allow.New(a.Sources, a.VNIs)
	if err != nil {
		return nil, fmt.Errorf("allow.%w", err)
	}
	return l, nil
}

func (c Config) sampler() (sample.Configuration, error) {
	s := sample.Configuration{
		Bytes: c.Sampling.Bytes, PushedBytes: c.Sampling.PushedBytes, Share: c.Sampling.Share, Key: c.Sampling.Key.Reveal(),
		Redact: c.Sampling.Redact, Patterns: c.Sampling.Patterns,
	}
	if err := s.Mode.UnmarshalText([]byte(c.Sampling.Mode)); err != nil {
		return s, fmt.Errorf("sampling.mode: %w", err)
	}
	return s, nil
}

func (c Config) batcher(incarnation uint64) batcher.Configuration {
	b := batcher.DefaultConfiguration(c.Name, incarnation, c.Partitions)
	b.MaxBytes, b.MaxPackets = c.BatchBytes, c.BatchPackets
	return b
}

func (c Config) decoder() (decode.Configuration, error) {
	d := decode.DefaultConfiguration()
	d.MaxDepth, d.VXLANPorts, d.GENEVEPorts, d.Tenants = c.Tunnels.MaxDepth, c.Tunnels.VXLANPorts, c.Tunnels.GENEVEPorts, c.Tunnels.Tenants
	switch c.Tunnels.VNIScope {
	case "shared":
		d.Scope = decode.Shared
	case "isolated":
		d.Scope = decode.Isolated
	case "map":
		d.Scope = decode.Mapped
	default:
		return d, fmt.Errorf("tunnels.vni_scope: %q is none of shared, isolated, map", c.Tunnels.VNIScope)
	}
	d.Payload = c.Sampling.Mode != "none"
	return d, nil
}

// keep is for how long the topic should keep what collectors write: for so long the enrichers may be away.
const keep = 12 * time.Hour

// Warnings asks Kafka, and returns what it does not give that delivery needs.
func Warnings(ctx context.Context, c Config) []string {
	return kafka.Warnings(ctx, c.Kafka, keep, record.TopicPackets)
}
