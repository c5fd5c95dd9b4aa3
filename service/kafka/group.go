package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	kafka "github.com/segmentio/kafka-go"
)

// GroupConfig of a member of a consumer group.
type GroupConfig struct {
	ID string // name of the group
	// SessionTimeout: a member that is not heard of for so long loses its partitions. Default: 10 s.
	SessionTimeout time.Duration
	// RebalanceTimeout: how long a member may take to finish and commit when partitions are dealt out anew.
	// Default: 30 s.
	RebalanceTimeout time.Duration
	// Failed, if not nil, hears of every failed attempt to join.
	Failed func(error)
}

// Group is one member of a consumer group.
type Group struct {
	client *Client
	config GroupConfig
	sticky *sticky
}

// Group returns a member that has not joined yet.
func (c *Client) Group(g GroupConfig) *Group {
	g.SessionTimeout = cmp.Or(g.SessionTimeout, 10*time.Second)
	g.RebalanceTimeout = cmp.Or(g.RebalanceTimeout, 30*time.Second)
	if g.Failed == nil {
		g.Failed = func(error) {}
	}
	return &Group{client: c, config: g, sticky: new(sticky)}
}

// NoOffset stands for an offset that was never committed.
const NoOffset = -1

// Assignment is a partition that a generation gives to this member, with what was last committed for it.
type Assignment struct {
	Topic     string
	Partition int
	Offset    int64 // first one not yet done; NoOffset
	Metadata  string
}

// Commit is what a member has done of a partition.
type Commit struct {
	Partition int
	Offset    int64 // first one not yet done
	Metadata  string
}

// Generation is the time between two changes of a group's members.
type Generation struct {
	ID          int32
	MemberID    string
	Assignments []Assignment // ordered by topic and partition

	group  *Group
	unsure atomic.Bool
}

// Run joins the group and calls work once for each generation, until ctx is done; then it leaves the group.
//
// work's context ends when the partitions are taken away, or ctx is done. From then on work has the rebalance
// timeout to finish and commit, with a context of its own, see [context.WithoutCancel]. If work returns
// before that, the member drops its partitions and joins again: that is how work that failed is begun anew.
// work is called without partitions too, where there are more members than partitions; then it may return.
func (g *Group) Run(ctx context.Context, topics []string, work func(context.Context, *Generation)) error {
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = g.client.name(t)
	}
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: g.client.name(g.config.ID), Brokers: g.client.config.Brokers, Topics: names, Dialer: g.client.dialer,
		GroupBalancers:    []kafka.GroupBalancer{g.sticky},
		HeartbeatInterval: min(3*time.Second, g.config.SessionTimeout/3),
		SessionTimeout:    g.config.SessionTimeout,
		RebalanceTimeout:  g.config.RebalanceTimeout,
		// Partitions that are added are not read: their number is pinned.
		WatchPartitionChanges: false,
		JoinGroupBackoff:      time.Second,
		StartOffset:           kafka.FirstOffset,
		Timeout:               callTimeout,
	})
	if err != nil {
		return fmt.Errorf("group %s: %w", g.config.ID, err)
	}
	defer func() {
		closed := make(chan struct{})
		go func() {
			group.Close()
			close(closed)
		}()
		// Close waits for a join that is under way. If that takes too long, the session timeout does the same.
		select {
		case <-closed:
		case <-time.After(5 * time.Second):
		}
	}()
	waiting := 0
	for {
		next, err := group.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, kafka.RebalanceInProgress):
			continue
		case errors.Is(err, kafka.GroupCoordinatorNotAvailable) && waiting < 10:
			waiting++ // the first group of a new cluster waits for the topic of the offsets
			continue
		case err != nil:
			g.config.Failed(fmt.Errorf("joining group %s: %w", g.config.ID, g.client.explain(err)))
			continue // the library waits before it tries again
		}
		waiting = 0
		g.generation(ctx, group, next, work)
	}
}

// generation runs work for one generation and returns when both are over.
func (g *Group) generation(ctx context.Context, group *kafka.ConsumerGroup, next *kafka.Generation, work func(context.Context, *Generation)) {
	done := make(chan struct{})
	// The generation ends when this function returns, and not before.
	next.Start(func(ended context.Context) {
		defer close(done)
		defer func() {
			if ctx.Err() != nil {
				// Leave now: the end of the generation by itself would mean to join the next one.
				go group.Close()
				<-ended.Done()
			}
		}()
		held, cancel := context.WithCancel(ctx)
		defer cancel()
		stop := context.AfterFunc(ended, cancel)
		defer stop()
		gen := &Generation{ID: next.ID, MemberID: next.MemberID, group: g}
		// The member now owns the partitions, so that no one else's commit can come after this look.
		err := Retry{}.Do(held, func() (err error) {
			gen.Assignments, err = g.committed(held, next.Assignments)
			return err
		}, g.config.Failed)
		if err != nil {
			return
		}
		g.sticky.owned(next.ID, next.Assignments)
		work(held, gen)
		if held.Err() == nil && len(gen.Assignments) == 0 {
			<-held.Done()
		} else if held.Err() == nil {
			sleep(held, time.Second) // work that fails at once must not keep the whole group rebalancing
		}
	})
	<-done
}

// committed looks up the offsets and metadata of what was assigned.
func (g *Group) committed(ctx context.Context, assigned map[string][]kafka.PartitionAssignment) ([]Assignment, error) {
	request := map[string][]int{}
	for topic, partitions := range assigned {
		for _, p := range partitions {
			request[topic] = append(request[topic], p.ID)
		}
	}
	return g.client.committed(ctx, g.config.ID, request)
}

// Unsure says whether a try of some commit had no answer: it may take effect yet, behind later ones.
func (gen *Generation) Unsure() bool { return gen.unsure.Load() }

// Commit commits offsets of a topic's partitions with their metadata, all in one call, and tries again until
// ctx is done. ErrFenced says that the partitions are this member's no more.
func (gen *Generation) Commit(ctx context.Context, topic string, commits ...Commit) error {
	return gen.commit(ctx, topic, commits, func(err error) error { return err })
}

// CommitOnce is Commit for whom a late commit would do harm: it tries again only where the broker has certainly not
// taken the first try. Any error but ErrFenced says that the commit may be there, or may yet come to be.
func (gen *Generation) CommitOnce(ctx context.Context, topic string, commits ...Commit) error {
	return gen.commit(ctx, topic, commits, func(err error) error {
		var op *net.OpError
		if errors.Is(err, kafka.NotCoordinatorForGroup) || errors.Is(err, kafka.GroupLoadInProgress) || errors.As(err, &op) && op.Op == "dial" {
			return err
		}
		return Permanent(err)
	})
}

// commit tries until it succeeds or failed makes an error permanent.
func (gen *Generation) commit(ctx context.Context, topic string, commits []Commit, failed func(error) error) error {
	if len(commits) == 0 {
		return nil
	}
	g := gen.group
	list := make([]kafka.OffsetCommit, len(commits))
	for i, c := range commits {
		list[i] = kafka.OffsetCommit{Partition: c.Partition, Offset: c.Offset, Metadata: c.Metadata}
	}
	return Retry{Max: time.Second}.Do(ctx, func() error {
		r, err := g.client.client.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
			GroupID: g.client.name(g.config.ID), GenerationID: int(gen.ID), MemberID: gen.MemberID,
			Topics: map[string][]kafka.OffsetCommit{g.client.name(topic): list},
		})
		if err != nil {
			gen.unsure.Store(true)
			return failed(fmt.Errorf("committing for group %s: %w", g.config.ID, g.client.explain(err)))
		}
		for _, p := range r.Topics[g.client.name(topic)] {
			switch {
			case p.Error == nil:
			case over(p.Error), errors.Is(p.Error, kafka.RebalanceInProgress):
				return Permanent(fmt.Errorf("committing %s/%d for group %s, generation %d: %w (%w)", topic, p.Partition, g.config.ID, gen.ID, ErrFenced, p.Error))
			case errors.Is(p.Error, kafka.OffsetMetadataTooLarge), errors.Is(p.Error, kafka.InvalidCommitOffsetSize):
				return Permanent(fmt.Errorf("committing %s/%d for group %s: %w", topic, p.Partition, g.config.ID, p.Error))
			default:
				return failed(fmt.Errorf("committing %s/%d for group %s: %w", topic, p.Partition, g.config.ID, g.client.explain(p.Error)))
			}
		}
		return nil
	}, g.config.Failed)
}

// over says whether an answer of the broker means that a generation has ended.
func over(err error) bool {
	return errors.Is(err, kafka.IllegalGeneration) || errors.Is(err, kafka.UnknownMemberId) || errors.Is(err, kafka.FencedInstanceID)
}

// Check asks the broker whether the generation still holds; ErrFenced: it does not. Other errors leave it open. While
// the group's partitions are being dealt out anew it holds until this member lets go of them.
func (gen *Generation) Check(ctx context.Context) error {
	g := gen.group
	r, err := g.client.client.Heartbeat(ctx, &kafka.HeartbeatRequest{GroupID: g.client.name(g.config.ID), GenerationID: gen.ID, MemberID: gen.MemberID})
	if err == nil {
		err = r.Error
	}
	switch {
	case err == nil, errors.Is(err, kafka.RebalanceInProgress):
		return nil
	case over(err):
		return fmt.Errorf("group %s, generation %d: %w (%w)", g.config.ID, gen.ID, ErrFenced, err)
	}
	return fmt.Errorf("group %s: %w", g.config.ID, g.client.explain(err))
}
