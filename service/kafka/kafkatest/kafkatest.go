// Package kafkatest gives tests a place of their own on a real Kafka.
package kafkatest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/tapweave/tapweave/service/kafka"
)

// Variable names the broker, HOST:PORT. Without it tests are skipped; with CI=true they fail.
const Variable = "TAPWEAVE_TEST_KAFKA"

// Config returns the configuration of a connection whose topics and groups are this test's alone. They are
// deleted at its end.
func Config(t testing.TB) kafka.Config {
	t.Helper()
	broker := os.Getenv(Variable)
	if broker == "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not set: no Kafka to test with", Variable)
		}
		t.Skipf("%s is not set: no Kafka to test with", Variable)
	}
	prefix := fmt.Sprintf("test-%016x.", rand.Uint64())
	t.Cleanup(func() { remove(t, broker, prefix) })
	return kafka.Config{Brokers: []string{broker}, ClientID: "test", TopicPrefix: prefix}
}

// New returns a client with a Config of its own.
func New(t testing.TB) *kafka.Client {
	t.Helper()
	c, err := kafka.New(Config(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// Values returns the values of the records that are on a partition, up to the last that is there when it is called.
func Values(t testing.TB, c *kafka.Client, topic string, partition int) (all [][]byte) {
	t.Helper()
	next, end, err := c.Offsets(t.Context(), topic, partition)
	for limit := time.Now().Add(time.Minute); err == nil && next < end; {
		var f kafka.Fetched
		if f, err = c.Fetch(t.Context(), topic, partition, next, 8<<20, time.Second); err != nil {
			break
		}
		for _, r := range f.Records {
			all = append(all, r.Value)
		}
		next = f.Next
		if time.Now().After(limit) {
			t.Fatalf("%s/%d was not read to offset %d in a minute, only to %d", topic, partition, end, next)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func remove(t testing.TB, broker, prefix string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	transport := new(kafkago.Transport)
	defer transport.CloseIdleConnections()
	c := &kafkago.Client{Addr: kafkago.TCP(broker), Transport: transport}
	r, err := c.Metadata(ctx, new(kafkago.MetadataRequest))
	if err != nil {
		t.Logf("deleting topics: %v", err)
		return
	}
	var names []string
	for _, topic := range r.Topics {
		if strings.HasPrefix(topic.Name, prefix) {
			names = append(names, topic.Name)
		}
	}
	if len(names) == 0 {
		return
	}
	if _, err := c.DeleteTopics(ctx, &kafkago.DeleteTopicsRequest{Topics: names}); err != nil {
		t.Logf("deleting topics: %v", err)
	}
}
