package servers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
)

// Topic is a topic that a broker has from its start on. One that it has already stays as it is.
type Topic struct {
	Name       string
	Partitions int
	// Retention is how long records are kept, RetentionBytes how many bytes of a partition; 0: the broker's setting.
	Retention      time.Duration
	RetentionBytes int64
}

// BrokerOptions say where and how the embedded broker runs.
type BrokerOptions struct {
	// Dir holds the records, and is made if need be. One broker at a time can use it.
	Dir string
	// Addr is host:port to listen on, on loopback only: the broker asks nobody who they are. Default: 127.0.0.1 and a
	// free port.
	Addr string
	// Retention and RetentionBytes (of a partition) hold for topics that say nothing themselves.
	// Default: 24 h and 1 GiB.
	Retention      time.Duration
	RetentionBytes int64
	// Topics are made at the start where they are missing.
	Topics []Topic
	// Log is told of the broker's own troubles; may be nil.
	Log func(message string)
}

// Segments are what retention removes, and what a start has to read the last of.
const segmentBytes = 16 << 20

// retentionInterval is how often expired segments are removed.
const retentionInterval = 30 * time.Second

// Broker is an embedded Kafka broker in this process, for development and the standalone program. What it has
// acknowledged outlives this process, not a loss of power.
type Broker struct {
	cluster *kfake.Cluster
	addr    string
	unlock  func()
	stopped chan struct{}
	ticker  sync.WaitGroup
	once    sync.Once
}

// Addr is host:port of the broker.
func (b *Broker) Addr() string { return b.addr }

// StartBroker starts a broker on the records that Dir holds.
func StartBroker(ctx context.Context, o BrokerOptions) (*Broker, error) {
	if o.Addr == "" {
		o.Addr = net.JoinHostPort(loopback, "0")
	}
	host, port, err := net.SplitHostPort(o.Addr)
	if err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("broker: %s is not a loopback address, and the embedded broker serves no others", host)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, fmt.Errorf("broker: port %q is not a number", port)
	}
	if number, err = choosePort(host, number); err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	if o.Retention == 0 {
		o.Retention = 24 * time.Hour
	}
	if o.RetentionBytes == 0 {
		o.RetentionBytes = 1 << 30
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("broker: %w", err)
	}
	patience, cancel := context.WithTimeout(ctx, 5*time.Second) // a predecessor may be about to end
	defer cancel()
	unlock, err := lockFile(patience, filepath.Join(o.Dir, "broker.lock"), func() {})
	if errors.Is(err, context.DeadlineExceeded) {
		err = errLocked
	}
	if err != nil {
		return nil, fmt.Errorf("broker in %s: %w", o.Dir, err)
	}

	addr := net.JoinHostPort(host, strconv.Itoa(number))
	cluster, err := kfake.NewCluster(
		kfake.NumBrokers(1),
		kfake.DataDir(filepath.Join(o.Dir, "data")),
		kfake.ListenFn(func(network, _ string) (net.Listener, error) { return net.Listen(network, addr) }),
		kfake.BrokerConfigs(map[string]string{
			"log.segment.bytes":   strconv.Itoa(segmentBytes),
			"log.retention.ms":    strconv.FormatInt(o.Retention.Milliseconds(), 10),
			"log.retention.bytes": strconv.FormatInt(o.RetentionBytes, 10),
			"message.max.bytes":   strconv.Itoa(MaxMessageBytes),
		}),
		kfake.WithLogger(brokerLog(o.Log)),
	)
	if err != nil {
		unlock()
		return nil, fmt.Errorf("broker in %s: %w", o.Dir, err)
	}
	b := &Broker{cluster: cluster, addr: addr, unlock: unlock, stopped: make(chan struct{})}
	for _, topic := range o.Topics {
		if err := b.create(topic); err != nil {
			b.Stop()
			return nil, fmt.Errorf("broker: topic %s: %w", topic.Name, err)
		}
	}
	b.ticker.Go(func() {
		tick := time.NewTicker(retentionInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				cluster.ApplyRetention()
			case <-b.stopped:
				return
			}
		}
	})
	return b, nil
}

func (b *Broker) create(t Topic) error {
	settings := map[string]string{}
	if t.Retention != 0 {
		settings["retention.ms"] = strconv.FormatInt(t.Retention.Milliseconds(), 10)
	}
	if t.RetentionBytes != 0 {
		settings["retention.bytes"] = strconv.FormatInt(t.RetentionBytes, 10)
	}
	err := b.cluster.CreateTopic(t.Name, int32(t.Partitions), settings)
	if errors.Is(err, kerr.TopicAlreadyExists) {
		return nil
	}
	return err
}

// Stop writes what is in memory to the directory, ends all connections and releases the directory.
func (b *Broker) Stop() {
	b.once.Do(func() {
		close(b.stopped)
		b.ticker.Wait()
		b.cluster.Close()
		b.unlock()
	})
}

// brokerLog passes on what the embedded broker logs as an error.
type brokerLog func(string)

func (l brokerLog) Logf(level kfake.LogLevel, format string, args ...any) {
	if l != nil && level == kfake.LogLevelError {
		l(fmt.Sprintf(format, args...))
	}
}
