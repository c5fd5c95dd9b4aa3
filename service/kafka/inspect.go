package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	kafka "github.com/segmentio/kafka-go"
)

// metadata asks for topics, without those that are not there.
func (c *Client) metadata(ctx context.Context, topics []string) (*kafka.MetadataResponse, error) {
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = c.name(t)
	}
	m, err := c.client.Metadata(ctx, &kafka.MetadataRequest{Topics: names})
	return m, c.explain(err)
}

// Unwritable returns in words which topics do not take records that all replicas are to acknowledge: for want of a leader,
// or of replicas. A topic that is not there is passed over. An error says that the brokers could not be asked.
func (c *Client) Unwritable(ctx context.Context, topics ...string) (problems []string, err error) {
	m, err := c.metadata(ctx, topics)
	if err != nil {
		return nil, err
	}
	insync, err := c.setting(ctx, "min.insync.replicas", topics)
	if err != nil {
		return nil, err
	}
	for _, t := range m.Topics {
		for _, p := range t.Partitions {
			switch {
			case p.Leader.Host == "":
				problems = append(problems, fmt.Sprintf("topic %s, partition %d has no leader: start the brokers that hold it", t.Name, p.ID))
			case int64(len(p.Isr)) < insync[strings.TrimPrefix(t.Name, c.config.TopicPrefix)]:
				problems = append(problems, fmt.Sprintf("topic %s, partition %d has %d replicas in sync, min.insync.replicas is %d: with acks=all nothing is taken; start the other brokers, or lower it",
					t.Name, p.ID, len(p.Isr), insync[strings.TrimPrefix(t.Name, c.config.TopicPrefix)]))
			default:
				continue
			}
			break // one partition is enough to tell
		}
	}
	return problems, nil
}

// Forever is the retention of a topic that keeps its records without a limit in time.
const Forever time.Duration = math.MaxInt64

// Retention returns for how long topics keep their records.
func (c *Client) Retention(ctx context.Context, topics ...string) (map[string]time.Duration, error) {
	list, err := c.setting(ctx, "retention.ms", topics)
	kept := map[string]time.Duration{}
	for t, ms := range list {
		kept[t] = Forever
		if ms >= 0 && ms < int64(Forever/time.Millisecond) {
			kept[t] = time.Duration(ms) * time.Millisecond
		}
	}
	return kept, err
}

// setting returns a numeric setting of topics; those without it are left out.
func (c *Client) setting(ctx context.Context, name string, topics []string) (map[string]int64, error) {
	request := &kafka.DescribeConfigsRequest{}
	for _, t := range topics {
		request.Resources = append(request.Resources, kafka.DescribeConfigRequestResource{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: c.name(t), ConfigNames: []string{name},
		})
	}
	list := map[string]int64{}
	if len(topics) == 0 {
		return list, nil
	}
	r, err := c.client.DescribeConfigs(ctx, request)
	if err != nil {
		return nil, c.explain(err)
	}
	for _, resource := range r.Resources {
		for _, e := range resource.ConfigEntries {
			if n, err := strconv.ParseInt(e.ConfigValue, 10, 64); err == nil && e.ConfigName == name {
				list[strings.TrimPrefix(resource.ResourceName, c.config.TopicPrefix)] = n
			}
		}
	}
	return list, nil
}

// Member is a client that is in a consumer group.
type Member struct {
	ClientID, Host string
	Partitions     map[string][]int // that it has been assigned, by topic
}

// Members returns who is in a consumer group now; nobody if the group is not known.
func (c *Client) Members(ctx context.Context, group string) ([]Member, error) {
	r, err := c.client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{c.name(group)}})
	if err == nil && len(r.Groups) == 1 {
		err = r.Groups[0].Error
	}
	if errors.Is(err, kafka.GroupIdNotFound) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("group %s: %w", c.name(group), c.explain(err))
	}
	var list []Member
	for _, m := range r.Groups[0].Members {
		member := Member{ClientID: m.ClientID, Host: m.ClientHost, Partitions: map[string][]int{}}
		for _, t := range m.MemberAssignments.Topics {
			member.Partitions[strings.TrimPrefix(t.Topic, c.config.TopicPrefix)] = t.Partitions
		}
		list = append(list, member)
	}
	return list, nil
}

// Committed returns what a group has committed of partitions 0 to n-1 of a topic, in their order; [NoOffset] where it never has.
func (c *Client) Committed(ctx context.Context, group, topic string, n int) ([]int64, error) {
	request := map[string][]int{}
	for p := range n {
		request[c.name(topic)] = append(request[c.name(topic)], p)
	}
	list, err := c.committed(ctx, group, request)
	offsets := make([]int64, len(list))
	for i, a := range list {
		offsets[i] = a.Offset
	}
	return offsets, err
}

// committed looks up offsets and metadata of partitions, by topics' full names.
func (c *Client) committed(ctx context.Context, group string, request map[string][]int) ([]Assignment, error) {
	want := 0
	for _, partitions := range request {
		want += len(partitions)
	}
	if want == 0 {
		return nil, nil
	}
	r, err := c.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: c.name(group), Topics: request})
	if err == nil {
		err = r.Error
	}
	if err != nil {
		return nil, fmt.Errorf("offsets of group %s: %w", group, c.explain(err))
	}
	var list []Assignment
	for name, partitions := range r.Topics {
		topic := strings.TrimPrefix(name, c.config.TopicPrefix)
		for _, p := range partitions {
			if p.Error != nil {
				return nil, fmt.Errorf("offset of group %s for %s/%d: %w", group, topic, p.Partition, c.explain(p.Error))
			}
			list = append(list, Assignment{Topic: topic, Partition: p.Partition, Offset: max(p.CommittedOffset, NoOffset), Metadata: p.Metadata})
		}
	}
	slices.SortFunc(list, func(a, b Assignment) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	if len(list) != want {
		return nil, fmt.Errorf("offsets of group %s: the broker told %d of %d", group, len(list), want)
	}
	return list, nil
}
