package kafka

import (
	"cmp"
	"encoding/json"
	"slices"
	"sync"

	kafka "github.com/segmentio/kafka-go"
)

// sticky deals partitions out evenly, and lets each member keep as many as it may of those that it had: what
// it knows of them is in its memory.
type sticky struct {
	mu  sync.Mutex
	had claim
}

func (s *sticky) owned(generation int32, assigned map[string][]kafka.PartitionAssignment) {
	c := claim{Generation: generation, Partitions: map[string][]int{}}
	for topic, partitions := range assigned {
		for _, p := range partitions {
			c.Partitions[topic] = append(c.Partitions[topic], p.ID)
		}
	}
	s.mu.Lock()
	s.had = c
	s.mu.Unlock()
}

// claim is what a member says of itself when it joins.
type claim struct {
	Generation int32            `json:"generation"`
	Partitions map[string][]int `json:"partitions"`
}

// ProtocolName implements kafka.GroupBalancer.
func (s *sticky) ProtocolName() string { return "tapweave-sticky" }

// UserData implements kafka.GroupBalancer.
func (s *sticky) UserData() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return json.Marshal(s.had)
}

// AssignGroups implements kafka.GroupBalancer: for each topic, no member has two partitions more than another,
// and a member keeps what it had unless that would be too many. Where two claim a partition, the one of the
// later generation has it.
func (s *sticky) AssignGroups(members []kafka.GroupMember, partitions []kafka.Partition) kafka.GroupMemberAssignments {
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b kafka.GroupMember) int { return cmp.Compare(a.ID, b.ID) })
	claims := make([]claim, len(members))
	all := kafka.GroupMemberAssignments{}
	for i, m := range members {
		if json.Unmarshal(m.UserData, &claims[i]) != nil {
			claims[i] = claim{}
		}
		all[m.ID] = map[string][]int{}
	}
	byTopic := map[string][]int{}
	for _, p := range partitions {
		byTopic[p.Topic] = append(byTopic[p.Topic], p.ID)
	}
	for topic, ids := range byTopic {
		var in []int // indexes of the members that read the topic, those of later generations first
		for i, m := range members {
			if slices.Contains(m.Topics, topic) {
				in = append(in, i)
			}
		}
		if len(in) == 0 {
			continue
		}
		slices.SortStableFunc(in, func(a, b int) int { return cmp.Compare(claims[b].Generation, claims[a].Generation) })
		slices.Sort(ids)
		// Every member has least; more of them have one more.
		least, more := len(ids)/len(in), len(ids)%len(in)
		taken := map[int]bool{}
		got := map[int][]int{}
		take := func(i, id int) {
			if len(got[i]) == least {
				more--
			}
			got[i] = append(got[i], id)
			taken[id] = true
		}
		room := func(i int) bool { return len(got[i]) < least || len(got[i]) == least && more > 0 }
		for _, i := range in {
			for _, id := range claims[i].Partitions[topic] {
				if _, ok := slices.BinarySearch(ids, id); ok && !taken[id] && room(i) {
					take(i, id)
				}
			}
		}
		for _, id := range ids {
			if taken[id] {
				continue
			}
			to := slices.MinFunc(in, func(a, b int) int { return cmp.Compare(len(got[a]), len(got[b])) })
			take(to, id)
		}
		for i, list := range got {
			slices.Sort(list)
			all[members[i].ID][topic] = list
		}
	}
	return all
}
