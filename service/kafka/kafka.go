// Package kafka connects the services to their topics: explicit partitions, acknowledgement by all replicas,
// one attempt a call with retries that the caller sees, and consumer groups whose commits are fenced.
//
// It is built on github.com/segmentio/kafka-go's Client and ConsumerGroup. That library's Reader is not used:
// after a rebalance its late commits moved the offset of a lost partition backwards without an error.
package kafka

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	kafka "github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"

	"github.com/tapweave/tapweave/service/config"
	"github.com/tapweave/tapweave/service/tlsclient"
)

// Config of the connection.
type Config struct {
	Brokers  []string `yaml:"brokers" doc:"Addresses to begin with, HOST:PORT; the cluster tells the others."`
	ClientID string   `yaml:"client_id" doc:"Name of this client in the brokers' logs and quotas. Empty: the service's name."`
	// TopicPrefix is put before the names of topics and groups in every call; callers never see it.
	TopicPrefix string           `yaml:"topic_prefix" doc:"Put before the names of all topics and groups, where several installations share a cluster."`
	TLS         tlsclient.Config `yaml:"tls" doc:"Encryption, and the client's certificate where the brokers want one."`
	SASL        SASLConfig       `yaml:"sasl" doc:"Authentication."`
}

// SASLConfig of the connection.
type SASLConfig struct {
	Mechanism    string        `yaml:"mechanism" doc:"plain, scram-sha-256 or scram-sha-512. Empty: no authentication."`
	Username     string        `yaml:"username" doc:"For Azure Event Hubs: $ConnectionString."`
	Password     config.Secret `yaml:"password" doc:"Better by TAPWEAVE_KAFKA_SASL_PASSWORD or password_file."`
	PasswordFile string        `yaml:"password_file" doc:"File whose content is the password."`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config { return Config{Brokers: []string{"localhost:9092"}} }

// Validate says what is wrong with a configuration. Files are looked at by New.
func (c Config) Validate() error {
	if len(c.Brokers) == 0 {
		return errors.New("brokers: none is given")
	}
	for _, b := range c.Brokers {
		if _, _, err := net.SplitHostPort(b); err != nil {
			return fmt.Errorf("brokers: %q is not HOST:PORT", b)
		}
	}
	switch s := c.SASL; s.Mechanism {
	case "":
		if s.Username != "" {
			return errors.New("sasl: username is given, but no mechanism")
		}
	case "plain", "scram-sha-256", "scram-sha-512":
		if s.Username == "" || s.Password == "" {
			return fmt.Errorf("sasl: mechanism %s needs username and password", s.Mechanism)
		}
	default:
		return fmt.Errorf("sasl: mechanism %q is none of plain, scram-sha-256, scram-sha-512", s.Mechanism)
	}
	return nil
}

const (
	// callTimeout bounds one call. Half of it is what a broker may wait for its replicas.
	callTimeout = 10 * time.Second
	// metadataTTL bounds how long a change of a partition's leader goes unnoticed.
	metadataTTL = 3 * time.Second
)

// Client makes calls to one cluster. It is safe for concurrent use.
type Client struct {
	config    Config
	transport *kafka.Transport
	client    *kafka.Client
	dialer    *kafka.Dialer // of consumer groups
}

// New returns a client that has not connected to anything yet; it reads the files that the configuration names.
func New(c Config) (*Client, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	t, err := c.TLS.TLS()
	if err != nil {
		return nil, fmt.Errorf("kafka.tls: %w", err)
	}
	m, err := mechanism(c.SASL)
	if err != nil {
		return nil, fmt.Errorf("kafka.sasl: %w", err)
	}
	dial := &net.Dialer{Timeout: 3 * time.Second, KeepAlive: 15 * time.Second}
	k := &Client{
		config: c,
		transport: &kafka.Transport{
			Dial: dial.DialContext, ClientID: c.ClientID, TLS: t, SASL: m,
			MetadataTTL: metadataTTL, IdleTimeout: time.Minute,
		},
		dialer: &kafka.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second, ClientID: c.ClientID, TLS: t, SASLMechanism: m},
	}
	k.client = &kafka.Client{Addr: kafka.TCP(c.Brokers...), Timeout: callTimeout, Transport: k.transport}
	return k, nil
}

func mechanism(c SASLConfig) (sasl.Mechanism, error) {
	switch c.Mechanism {
	case "plain":
		return plain.Mechanism{Username: c.Username, Password: c.Password.Reveal()}, nil
	case "scram-sha-256":
		return scram.Mechanism(scram.SHA256, c.Username, c.Password.Reveal())
	case "scram-sha-512":
		return scram.Mechanism(scram.SHA512, c.Username, c.Password.Reveal())
	}
	return nil, nil
}

// Close closes idle connections; those in use close when their call ends.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Brokers is where the client begins, for messages.
func (c *Client) Brokers() string { return strings.Join(c.config.Brokers, ",") }

// name is what the brokers call a topic or a group.
func (c *Client) name(s string) string { return c.config.TopicPrefix + s }

// Ping returns nil if a broker answers.
func (c *Client) Ping(ctx context.Context) error {
	// The transport answers from its cache; what it cannot know is whether the topics exist now.
	_, err := c.client.ApiVersions(ctx, &kafka.ApiVersionsRequest{})
	return c.explain(err)
}

// Wait returns when a broker answers. Until then failed, if not nil, hears of every failed attempt.
func (c *Client) Wait(ctx context.Context, failed func(error)) error {
	return Retry{}.Do(ctx, func() error { return c.Ping(ctx) }, failed)
}

// Errors that callers tell apart with errors.Is; whatever else a call returns may pass when it is tried again.
var (
	// ErrOffsetOutOfRange: the offset is not, or no longer, in the log.
	ErrOffsetOutOfRange = errors.New("offset out of range")
	// ErrFenced: the commit came from a generation of the group that is over. The work is another's now.
	ErrFenced = errors.New("fenced: the group has gone on to another generation")
	// ErrTooLarge: the broker does not take a record of that size, now or later.
	ErrTooLarge = errors.New("record too large for the broker")
	// ErrPartitions: a topic has fewer partitions than the configuration pins.
	ErrPartitions = errors.New("too few partitions")
	// ErrNoTopic: the topic is not there, and the service may not create it.
	ErrNoTopic = errors.New("no such topic")
)

// callError says in one line what failed and what to do about it.
type callError struct {
	what string
	err  error
}

func (e *callError) Error() string { return e.what }
func (e *callError) Unwrap() error { return e.err }

// explain gives an error the address and the remedy.
func (c *Client) explain(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	var known *callError
	if errors.As(err, &known) {
		return err
	}
	say := func(format string, args ...any) error { return &callError{fmt.Sprintf(format, args...), err} }
	addr := c.Brokers()
	var (
		op        *net.OpError
		dns       *net.DNSError
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		header    tls.RecordHeaderError
	)
	if errors.As(err, &op) && op.Addr != nil {
		addr = op.Addr.String()
	}
	switch {
	case errors.As(err, &dns):
		return say("Kafka at %s cannot be reached: no address for host %s; check kafka.brokers and the brokers' advertised listeners", c.Brokers(), dns.Name)
	case errors.As(err, &authority):
		return say("Kafka at %s: its certificate is signed by an unknown authority; set kafka.tls.ca_file", addr)
	case errors.As(err, &hostname):
		return say("Kafka at %s: its certificate is not for that name (%v); set kafka.tls.server_name", addr, hostname)
	case errors.As(err, &invalid):
		return say("Kafka at %s: its certificate is not valid (%v)", addr, invalid)
	case op != nil && op.Op == "remote error": // a TLS alert
		return say("Kafka at %s refused the TLS handshake (%v); check kafka.tls.cert_file and key_file", addr, op.Err)
	case errors.As(err, &header):
		return say("Kafka at %s does not speak TLS on that port; check kafka.tls.enabled and the port", addr)
	case errors.Is(err, kafka.SASLAuthenticationFailed):
		return say("Kafka at %s refused user %q (SASL %s); check kafka.sasl.username and password", addr, c.config.SASL.Username, c.config.SASL.Mechanism)
	case errors.Is(err, kafka.UnsupportedSASLMechanism):
		return say("Kafka at %s does not offer SASL %s; check kafka.sasl.mechanism", addr, c.config.SASL.Mechanism)
	case errors.Is(err, kafka.IllegalSASLState):
		return say("Kafka at %s wants SASL otherwise than it is configured; check kafka.sasl and the port", addr)
	case errors.Is(err, syscall.ECONNREFUSED), errors.As(err, &op) && op.Op == "dial":
		reason := "no answer"
		if errors.Is(err, syscall.ECONNREFUSED) {
			reason = "connection refused"
		} else if !op.Timeout() {
			reason = op.Err.Error()
		}
		return say("Kafka at %s cannot be reached: %s; check that it runs and that kafka.brokers is right", addr, reason)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		hint := "it is restarting, or kafka.tls or kafka.sasl do not fit that port"
		return say("Kafka at %s closed the connection: %s", addr, hint)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return say("Kafka at %s did not answer in time", addr)
	case errors.Is(err, kafka.TopicAuthorizationFailed), errors.Is(err, kafka.GroupAuthorizationFailed), errors.Is(err, kafka.ClusterAuthorizationFailed):
		return say("Kafka at %s does not allow this user that: %v", addr, code(err))
	}
	return say("Kafka at %s: %v", addr, code(err))
}

// code returns the broker's error code where err is one, without the names of the functions it came through.
func code(err error) error {
	var e kafka.Error
	if errors.As(err, &e) {
		return fmt.Errorf("[%d] %s", int(e), e.Title())
	}
	return err
}

// Topic is a topic that a service needs.
type Topic struct {
	Name       string
	Partitions int // at least
	// The rest is for its creation; zero leaves it to the broker.
	Replicas       int
	Retention      time.Duration
	RetentionBytes int64 // of a partition
	MaxRecordBytes int
	SegmentBytes   int64
}

// TopicsConfig says how a service makes the topics that it writes to.
type TopicsConfig struct {
	Create    bool          `yaml:"create" doc:"Whether missing topics are created. Not on Azure Event Hubs, where they are made beforehand."`
	Replicas  int           `yaml:"replicas" doc:"Replicas of topics that are created. 0: the broker's default."`
	Retention time.Duration `yaml:"retention" doc:"How long topics that are created keep their records. 0: the broker's default."`
}

// DefaultTopicsConfig returns the defaults.
func DefaultTopicsConfig() TopicsConfig { return TopicsConfig{Create: true, Retention: 24 * time.Hour} }

// Validate says what is wrong with a configuration.
func (c TopicsConfig) Validate() error {
	if c.Replicas < 0 || c.Retention < 0 {
		return errors.New("replicas and retention are not negative")
	}
	return nil
}

// Topic returns a topic made in this way.
func (c TopicsConfig) Topic(name string, partitions int) Topic {
	return Topic{Name: name, Partitions: partitions, Replicas: c.Replicas, Retention: c.Retention}
}

// EnsureTopics creates what is missing, where create allows it, and checks the numbers of partitions. It
// returns how many each topic has.
//
// A missing topic is ErrNoTopic, one with too few partitions ErrPartitions; one with more is for the caller
// to tell. Everything else may pass when it is tried again.
func (c *Client) EnsureTopics(ctx context.Context, create bool, topics ...Topic) (map[string]int, error) {
	have, err := c.partitions(ctx, topics)
	if err != nil {
		return nil, err
	}
	var missing []kafka.TopicConfig
	for _, t := range topics {
		if _, ok := have[t.Name]; ok {
			continue
		}
		if !create {
			return nil, fmt.Errorf("%w: %s on Kafka at %s; create it with %d partitions or set topics.create", ErrNoTopic, c.name(t.Name), c.Brokers(), t.Partitions)
		}
		k := t.creation()
		k.Topic = c.name(t.Name)
		missing = append(missing, k)
	}
	if len(missing) > 0 {
		r, err := c.client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: missing})
		if err != nil {
			return nil, fmt.Errorf("creating topics: %w", c.explain(err))
		}
		for name, err := range r.Errors {
			if err != nil && !errors.Is(err, kafka.TopicAlreadyExists) {
				return nil, fmt.Errorf("creating topic %s: %w", name, c.explain(err))
			}
		}
		// It takes a moment until the brokers tell of a topic that has just been made, and have leaders for it.
		for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
			if have, err = c.partitions(ctx, topics); err == nil && len(have) == len(topics) && c.led(ctx, topics, have) {
				break
			}
			if e := sleep(ctx, wait); e != nil {
				return nil, cmp.Or(err, e)
			}
		}
	}
	for _, t := range topics {
		if n := have[t.Name]; n < t.Partitions {
			return have, fmt.Errorf("%w: topic %s on Kafka at %s has %d, the configuration pins %d; add partitions or lower the number in every service", ErrPartitions, c.name(t.Name), c.Brokers(), n, t.Partitions)
		}
	}
	return have, nil
}

func (t Topic) creation() kafka.TopicConfig {
	k := kafka.TopicConfig{NumPartitions: t.Partitions, ReplicationFactor: cmp.Or(t.Replicas, -1)}
	set := func(name string, value int64) {
		if value != 0 {
			k.ConfigEntries = append(k.ConfigEntries, kafka.ConfigEntry{ConfigName: name, ConfigValue: fmt.Sprint(value)})
		}
	}
	set("retention.ms", t.Retention.Milliseconds())
	set("retention.bytes", t.RetentionBytes)
	set("max.message.bytes", int64(t.MaxRecordBytes))
	set("segment.bytes", t.SegmentBytes)
	return k
}

// led says whether every partition has a leader that knows of it: metadata tells of leaders that do not yet.
func (c *Client) led(ctx context.Context, topics []Topic, have map[string]int) bool {
	request := map[string][]kafka.OffsetRequest{}
	for _, t := range topics {
		for i := range have[t.Name] {
			request[c.name(t.Name)] = append(request[c.name(t.Name)], kafka.LastOffsetOf(i))
		}
	}
	r, err := c.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: request})
	if err != nil {
		return false
	}
	for _, partitions := range r.Topics {
		for _, p := range partitions {
			if p.Error != nil {
				return false
			}
		}
	}
	return len(r.Topics) == len(topics)
}

// partitions returns the number of partitions of those topics that exist.
func (c *Client) partitions(ctx context.Context, topics []Topic) (map[string]int, error) {
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = c.name(t.Name)
	}
	r, err := c.client.Metadata(ctx, &kafka.MetadataRequest{Topics: names})
	if err != nil {
		return nil, c.explain(err)
	}
	have := map[string]int{}
	for _, t := range r.Topics {
		switch {
		case t.Error == nil:
			have[strings.TrimPrefix(t.Name, c.config.TopicPrefix)] = len(t.Partitions)
		case errors.Is(t.Error, kafka.UnknownTopicOrPartition):
		default:
			return nil, fmt.Errorf("topic %s: %w", t.Name, c.explain(t.Error))
		}
	}
	return have, nil
}

// Offsets returns the first offset that is in the log of a partition, and the one that its next record will have.
func (c *Client) Offsets(ctx context.Context, topic string, partition int) (earliest, latest int64, err error) {
	r, err := c.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
		c.name(topic): {kafka.FirstOffsetOf(partition), kafka.LastOffsetOf(partition)},
	}})
	if err != nil {
		return 0, 0, fmt.Errorf("offsets of %s/%d: %w", topic, partition, c.explain(err))
	}
	for _, p := range r.Topics[c.name(topic)] {
		if p.Partition == partition {
			if p.Error != nil {
				return 0, 0, fmt.Errorf("offsets of %s/%d: %w", topic, partition, c.explain(p.Error))
			}
			return p.FirstOffset, p.LastOffset, nil
		}
	}
	return 0, 0, fmt.Errorf("offsets of %s/%d: Kafka at %s said nothing of that partition", topic, partition, c.Brokers())
}
