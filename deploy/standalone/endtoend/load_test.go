package endtoend

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tapweave/tapweave/collector/batcher"
	"github.com/tapweave/tapweave/proto/conversation"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/record"
)

// load sends traffic whose sessions are known to collectors, as VXLAN behind a load balancer: a hash of the outer
// source port chooses among those that are in.
type load struct {
	traffic *conversation.Traffic
	sockets []*net.UDPConn

	mu   sync.Mutex
	in   []*incarnation // what is balanced over
	all  []*incarnation
	sent []sending // by packet of the traffic
	err  error
}

// sending is one packet that was sent.
type sending struct {
	to        *incarnation
	partition uint8
	vague     bool // between its time and its way into the socket something else had the processor
}

// incarnation is one life of a collector.
type incarnation struct {
	name  string
	addr  *net.UDPAddr
	since time.Time
	died  time.Time     // zero: it did not
	bound time.Duration // how old what it lost may have been: what linger, and Kafka at that time, explain

	sent, logged [partitions]int
}

func newLoad(t *testing.T, o conversation.Options) *load {
	t.Helper()
	l := &load{traffic: conversation.New(o)}
	for range 16 {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		l.sockets = append(l.sockets, c)
	}
	return l
}

// begin lets a collector live; add lets it have packets.
func (l *load) begin(name, addr string) *incarnation {
	a, err := net.ResolveUDPAddr("udp4", addr)
	if err != nil {
		panic(err) // it is an address of our own making
	}
	i := &incarnation{name: name, addr: a, since: time.Now()}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, i)
	return i
}

func (l *load) add(i *incarnation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Contains(l.in, i) {
		l.in = append(l.in, i)
	}
}

// remove takes a collector out: when it returns, nothing more is sent to it.
func (l *load) remove(i *incarnation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.in = slices.DeleteFunc(l.in, func(o *incarnation) bool { return o == i })
}

// run sends at the pace of the traffic until it ends or stop is closed. The packets bear the times at which they
// were sent.
func (l *load) run(stop <-chan struct{}) {
	began, first := time.Now(), l.traffic.Packets[0].Time
	header := []byte{0x08, 0, 0, 0, 0, 0, 27, 0}
	for _, p := range l.traffic.Packets {
		if wait := time.Duration(p.Time-first) - time.Since(began); wait > time.Millisecond {
			select {
			case <-time.After(wait):
			case <-stop:
				return
			}
		} else {
			select {
			case <-stop:
				return
			default:
			}
		}
		port := outerPort(&p.Flow)
		socket := l.sockets[port%uint32(len(l.sockets))]
		datagram := append(header[:8:8], p.Frame()...)
		partition := batcher.Partition(&p.Flow, &p.Packet, partitions)
		l.mu.Lock()
		for len(l.in) == 0 { // nobody is there: the packets do not reach the socket of anybody
			l.mu.Unlock()
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
			l.mu.Lock()
		}
		to := l.in[int(port)%len(l.in)]
		now := time.Now()
		p.Time = now.UnixNano()
		_, err := socket.WriteToUDP(datagram, to.addr)
		to.sent[partition]++
		l.sent = append(l.sent, sending{to, uint8(partition), time.Since(now) > 5*time.Millisecond})
		if err != nil && l.err == nil {
			l.err = fmt.Errorf("sending to %s: %w", to.name, err)
		}
		l.mu.Unlock()
	}
}

// over says whether all of the traffic was sent.
func (l *load) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.sent) == len(l.traffic.Packets)
}

// outerPort is what a TAP chooses by the inner flow, in its direction.
func outerPort(f *packet.Flow) uint32 {
	h := fnv.New32a()
	h.Write(f.Src[:])
	h.Write(f.Dst[:])
	var ports [4]byte
	binary.BigEndian.PutUint16(ports[:], f.SrcPort)
	binary.BigEndian.PutUint16(ports[2:], f.DstPort)
	h.Write(ports[:])
	v := h.Sum32()
	return (v ^ v>>16) & 0x3fff
}

// reader counts what comes to stand on tapweave.packets, batches that a retry wrote twice once.
type reader struct {
	next [partitions]int64
	last map[batchSource]uint64
	n    map[batchSource]int
}

type batchSource struct {
	producer    string
	incarnation uint64
	partition   int
}

func (r *reader) read(s *stack) error {
	if r.last == nil {
		r.last, r.n = map[batchSource]uint64{}, map[batchSource]int{}
	}
	for p := range partitions {
		for {
			f, err := s.client.Fetch(s.t.Context(), record.TopicPackets, p, r.next[p], 4<<20, 10*time.Millisecond)
			if err != nil {
				return err
			}
			for _, v := range f.Records {
				m, err := record.UnmarshalPackets(v.Value)
				if err != nil {
					return err
				}
				b := m.GetBatch()
				if b == nil {
					continue
				}
				k := batchSource{b.Producer, b.Incarnation, p}
				if b.Sequence <= r.last[k] {
					continue
				}
				if b.Sequence != r.last[k]+1 {
					return fmt.Errorf("partition %d: batch %d of %s behind %d", p, b.Sequence, b.Producer, r.last[k])
				}
				r.last[k] = b.Sequence
				r.n[k] += int(b.Packets)
			}
			if len(f.Records) == 0 {
				break
			}
			r.next[p] = f.Next
		}
	}
	return nil
}

// logged fills in what came to stand on the log of each collector's lives.
func (l *load) logged(r *reader) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, i := range l.all {
		i.logged = [partitions]int{}
	}
	for k, n := range r.n {
		var of *incarnation
		for _, i := range l.all { // in the order of their starts
			if i.name == k.producer && uint64(i.since.UnixNano()) <= k.incarnation {
				of = i
			}
		}
		if of != nil {
			of.logged[k.partition] += n
		}
	}
}

// missing is how many packets of collectors that did not die are not on the log yet.
func (l *load) missing() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, i := range l.all {
		if i.died.IsZero() {
			for p := range partitions {
				n += i.sent[p] - i.logged[p]
			}
		}
	}
	return n
}

// loss is what was in the memory of a collector that was killed.
type loss struct {
	*incarnation
	packets int
	oldest  time.Duration // before its death
}

// seen says which packets are on the log: of those that a collector's life was sent for one partition, the first.
// It returns what is missing of each life.
func (l *load) seen() (seen map[*conversation.Packet]bool, losses []loss, vague map[*conversation.Conversation]bool) {
	seen, vague = make(map[*conversation.Packet]bool, len(l.sent)), map[*conversation.Conversation]bool{}
	type place struct {
		*incarnation
		partition uint8
	}
	counts, at := map[place]int{}, map[*incarnation]int{}
	for n, s := range l.sent {
		p := l.traffic.Packets[n]
		if s.vague {
			vague[p.Conversation] = true
		}
		k := place{s.to, s.partition}
		if counts[k]++; counts[k] <= s.to.logged[s.partition] {
			seen[p] = true
			continue
		}
		i, ok := at[s.to]
		if !ok {
			i = len(losses)
			at[s.to] = i
			losses = append(losses, loss{incarnation: s.to, oldest: s.to.died.Sub(time.Unix(0, p.Time))})
		}
		losses[i].packets++
	}
	return seen, losses, vague
}
