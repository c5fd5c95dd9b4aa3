package kafka

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	kafka "github.com/segmentio/kafka-go"

	"github.com/tapweave/tapweave/proto/record"
)

// Durability returns in words what the brokers do not give that delivery needs: acknowledged records that outlive the
// loss of a broker, topics that keep their records for at least so long, offsets whose metadata fits. A topic that is
// not there yet is passed over. An error says that the brokers could not be asked.
func (c *Client) Durability(ctx context.Context, keep time.Duration, topics ...string) (warnings []string, err error) {
	list := make([]Topic, len(topics))
	for i, t := range topics {
		list[i].Name = t
	}
	have, err := c.partitions(ctx, list)
	if err != nil {
		return nil, err
	}
	m, err := c.metadata(ctx, topics)
	if err != nil {
		return nil, err
	}
	request := &kafka.DescribeConfigsRequest{}
	for _, t := range topics {
		if have[t] > 0 {
			request.Resources = append(request.Resources, kafka.DescribeConfigRequestResource{ResourceType: kafka.ResourceTypeTopic, ResourceName: c.name(t)})
		}
	}
	if len(m.Brokers) > 0 {
		request.Resources = append(request.Resources, kafka.DescribeConfigRequestResource{ResourceType: kafka.ResourceTypeBroker, ResourceName: strconv.Itoa(m.Brokers[0].ID)})
	}
	r, err := c.client.DescribeConfigs(ctx, request)
	if err != nil {
		return nil, c.explain(err)
	}
	warn := func(format string, args ...any) { warnings = append(warnings, fmt.Sprintf(format, args...)) }
	configs := map[string]map[string]string{}
	for _, resource := range r.Resources {
		if resource.Error != nil {
			warn("Kafka does not tell the configuration of %s: %v", resource.ResourceName, code(resource.Error))
			continue
		}
		of := map[string]string{}
		for _, e := range resource.ConfigEntries {
			of[e.ConfigName] = e.ConfigValue
		}
		if resource.ResourceType != int8(kafka.ResourceTypeTopic) {
			if n, err := strconv.Atoi(of["offset.metadata.max.bytes"]); err == nil && n < 4096 {
				warn("offset.metadata.max.bytes of the brokers is %d: set it to 4096, the services commit where they stand as metadata", n)
			}
			continue
		}
		configs[resource.ResourceName] = of
	}
	for _, t := range m.Topics {
		of := configs[t.Name]
		if of == nil || len(t.Partitions) == 0 {
			continue
		}
		replicas := len(t.Partitions[0].Replicas)
		insync, _ := strconv.Atoi(of["min.insync.replicas"])
		switch {
		case replicas < 2:
			warn("topic %s has 1 replica: what a broker acknowledged is gone with its disk; 3 are usual", t.Name)
		case insync < 2:
			warn("topic %s: min.insync.replicas is %d: one broker acknowledges alone, and its disk may be lost; set 2", t.Name, insync)
		}
		if of["unclean.leader.election.enable"] == "true" {
			warn("topic %s: unclean.leader.election.enable is true: a replica that lags may become leader, and acknowledged records are gone; set false", t.Name)
		}
		if strings.Contains(of["cleanup.policy"], "compact") {
			warn("topic %s: cleanup.policy is %s: compaction removes records that are needed; set delete", t.Name, of["cleanup.policy"])
		}
		if ms, err := strconv.ParseInt(of["retention.ms"], 10, 64); err == nil && ms >= 0 && time.Duration(ms)*time.Millisecond < keep {
			warn("topic %s keeps its records for %s: what is not read by then is lost; keep them for %s or more", t.Name, time.Duration(ms)*time.Millisecond, keep)
		}
	}
	retention := func(topic string) (time.Duration, bool) {
		ms, err := strconv.ParseInt(configs[c.name(topic)]["retention.ms"], 10, 64)
		if err == nil && ms < 0 {
			return math.MaxInt64, true
		}
		return time.Duration(ms) * time.Millisecond, err == nil
	}
	state, ok := retention(record.TopicState)
	if packets, known := retention(record.TopicPackets); ok && known && state < packets {
		warn("topic %s keeps its records for %s, less than %s: after a pause as long as that, snapshots are gone and outputs begin anew; keep them as long", c.name(record.TopicState), state, c.name(record.TopicPackets))
	}
	return warnings, nil
}

// Warnings is [Client.Durability] for a program that only asks: what keeps it from asking is a warning too.
func Warnings(ctx context.Context, c Config, keep time.Duration, topics ...string) []string {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	client, err := New(c)
	if err != nil {
		return []string{err.Error()}
	}
	defer client.Close()
	warnings, err := client.Durability(ctx, keep, topics...)
	if err != nil {
		warnings = append(warnings, "not checked: "+err.Error())
	}
	return warnings
}
