package enricher

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/tapweave/tapweave/enricher/output"
	"github.com/tapweave/tapweave/proto/batch"
	"github.com/tapweave/tapweave/proto/delivery"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/proto/session"
	"github.com/tapweave/tapweave/service/kafka"
)

// crowd is a number of TCP sessions that stay open.
type crowd struct {
	rng      *rand.Rand
	seq      [][2]uint32
	opened   int
	encoders []*batch.Encoder
	sequence []uint64
	packets  int
}

func newCrowd(sessions, partitions int) *crowd {
	c := &crowd{rng: rand.New(rand.NewPCG(1, 2)), seq: make([][2]uint32, sessions), sequence: make([]uint64, partitions)}
	for range partitions {
		c.encoders = append(c.encoders, batch.NewEncoder())
	}
	return c
}

// send puts a packet of session i into the batch of its partition; side 1 is the server.
func (c *crowd) send(i, side int, flags uint8, payload uint32, at int64) {
	var f packet.Flow
	for end, a := range [2]*packet.Addr{&f.Src, &f.Dst} {
		a[10], a[11] = 0xff, 0xff
		if end == side {
			binary.BigEndian.PutUint32(a[12:], 10<<24+uint32(i/8))
		} else {
			binary.BigEndian.PutUint32(a[12:], 10<<24+200<<16+uint32(i%1000))
		}
	}
	f.SrcPort, f.DstPort = uint16(20000+i%8*1000), 443
	if side == 1 {
		f.SrcPort, f.DstPort = f.DstPort, f.SrcPort
	}
	f.Protocol, f.TTL, f.NCarriers, f.OuterPort = packet.ProtoTCP, 64, 1, uint16(49152+i%1000)
	f.Carriers[0] = packet.Carrier{Source: packet.Addr{10: 0xff, 11: 0xff, 12: 192, 14: 2, 15: byte(side)}, VNI: 27}
	s := &c.seq[i]
	p := packet.Packet{
		Time: at, Length: 40 + payload, Payload: payload, Seq: s[side], Ack: s[1-side], Flags: flags, Window: 1000,
		ID: s[side] >> 6 & 0xffff, Checksum: uint16(c.rng.Uint32()), WindowScale: packet.NoWindowScale,
	}
	s[side] += payload + uint32(flags&packet.SYN)>>1
	c.encoders[session.Partition("", &f.Src, &f.Dst, len(c.encoders))].Append(&f, &p)
	c.packets++
}

// open begins up to n sessions by a handshake, and says whether there were any left.
func (c *crowd) open(n int, at int64) bool {
	from := c.opened
	for ; c.opened < min(from+n, len(c.seq)); c.opened++ {
		i := c.opened
		c.seq[i] = [2]uint32{c.rng.Uint32(), c.rng.Uint32()}
		c.send(i, 0, packet.SYN, 0, at)
		c.send(i, 1, packet.SYN|packet.ACK, 0, at+1)
		c.send(i, 0, packet.ACK, 0, at+2)
	}
	return c.opened > from
}

// talk lets n packets of random sessions be sent.
func (c *crowd) talk(n int, at int64) {
	for k := range n {
		c.send(c.rng.IntN(c.opened), c.rng.IntN(2), packet.ACK|packet.PSH, c.rng.Uint32N(1000), at+int64(k))
	}
}

// seal returns the batch of each partition.
func (c *crowd) seal(tb testing.TB, watermark int64) (values [][]byte) {
	for i, e := range c.encoders {
		c.sequence[i]++
		m := &pb.PacketBatch{
			Producer: "c", Incarnation: 1, Sequence: c.sequence[i], Watermark: watermark, Clock: time.Now().UnixNano(),
			Partitions: uint32(len(c.encoders)), Packets: uint32(e.Len()), Oldest: e.Oldest(),
		}
		if e.Len() > 0 {
			m.Columns = e.Seal(batch.S2)
		}
		value, err := record.MarshalPackets(&pb.PacketsRecord{Body: &pb.PacketsRecord_Batch{Batch: m}})
		if err != nil {
			tb.Fatal(err)
		}
		values = append(values, value)
	}
	return values
}

// BenchmarkSnapshot measures what a snapshot takes by the number of open sessions, and what it costs the fold.
func BenchmarkSnapshot(b *testing.B) {
	for _, sessions := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("%d-sessions", sessions), func(b *testing.B) {
			const partitions = 16
			conf := DefaultConfig()
			conf.Partitions = partitions
			f, o := conf.settings()
			c := newCrowd(sessions, partitions)
			var streams []*output.Stream
			numbers := make([]uint64, partitions)
			for p := range partitions {
				owner, err := delivery.NewOwner(delivery.Assignment{Partition: uint32(p), Generation: 1, Committed: delivery.Commit{Offset: -1}})
				if err != nil {
					b.Fatal(err)
				}
				owner.Surveyed(0, 0)
				streams = append(streams, output.New(output.Config{Partition: uint32(p), Epoch: delivery.Epoch{Log: 1, Owner: 1}, Fold: f, Output: o,
					Emit: func(n uint64, _ []byte) error { numbers[p] = n; return nil }}, owner.Numbers(0)))
			}
			at, offset := time.Now().UnixNano(), int64(0)
			fold := func() {
				at += int64(100 * time.Millisecond)
				for p, value := range c.seal(b, at) {
					if err := streams[p].Record(offset, value); err != nil {
						b.Fatal(err)
					}
				}
				offset++
			}
			for c.open(20_000, at) {
				fold()
			}
			for range 20 {
				c.talk(2000, at)
				fold()
			}
			runtime.GC()
			var size int
			var saving, loading, folding time.Duration
			for b.Loop() {
				size = 0
				began := cpu()
				var packed [][][]byte
				for _, s := range streams {
					chunks, err := pack(s)
					if err != nil {
						b.Fatal(err)
					}
					packed = append(packed, chunks)
					for _, k := range chunks {
						size += len(k)
					}
				}
				saving += cpu() - began
				began = cpu()
				for p, chunks := range packed {
					if _, _, err := unpack(chunks, output.Config{Partition: uint32(p), Fold: f, Output: o}); err != nil {
						b.Fatal(err)
					}
				}
				loading += cpu() - began
				for range 10 {
					c.talk(20_000, at)
					at += int64(100 * time.Millisecond)
					values := c.seal(b, at)
					began = cpu()
					for p, value := range values {
						if err := streams[p].Record(offset, value); err != nil {
							b.Fatal(err)
						}
					}
					folding += cpu() - began
					offset++
				}
			}
			n := float64(b.N)
			b.ReportMetric(float64(size)/float64(sessions), "B/session")
			b.ReportMetric(saving.Seconds()/n, "cpu-s/save")
			b.ReportMetric(loading.Seconds()/n, "cpu-s/load")
			b.ReportMetric(folding.Seconds()/n/200_000*1e9, "cpu-ns/packet")
		})
	}
}

// cpu is the processor time of this process.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// asked asks an enricher for one of its gauges: the values of those partitions that it has.
func asked(address, gauge string) (values []float64, err error) {
	client := http.Client{Timeout: time.Second}
	r, err := client.Get("http://" + address + "/metrics")
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	for s := bufio.NewScanner(r.Body); s.Scan(); {
		if value, ok := strings.CutPrefix(s.Text(), "tapweave_enricher_"+gauge+"{"); ok {
			_, value, _ = strings.Cut(value, " ")
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return nil, err
			}
			values = append(values, v)
		}
	}
	return values, nil
}

// lag asks enrichers how old the packets are that they fold: the oldest of all partitions, of which there are n.
func lag(n int, addresses ...string) (time.Duration, error) {
	var all []float64
	for _, a := range addresses {
		values, err := asked(a, "lag_seconds")
		if err != nil && len(addresses) == 1 {
			return 0, err
		}
		all = append(all, values...)
	}
	if len(all) != n {
		return 0, fmt.Errorf("%d of %d partitions", len(all), n)
	}
	return time.Duration(slices.Max(all) * 1e9), nil
}

// BenchmarkRecovery kills an enricher with SIGKILL while packets come, starts another at once, and measures how long it
// takes until no partition lags more than 2 s; and the same after an orderly stop.
func BenchmarkRecovery(b *testing.B) {
	for _, c := range []struct {
		sessions int
		kill     bool
	}{{100_000, true}, {1_000_000, true}, {1_000_000, false}} {
		how := "stop"
		if c.kill {
			how = "kill"
		}
		b.Run(fmt.Sprintf("%s,%d-sessions", how, c.sessions), func(b *testing.B) {
			for b.Loop() {
				recovery(b, c.sessions, c.kill)
			}
		})
	}
}

// live opens all sessions of a crowd and lets some of them talk, five times a second, until what it returns is called.
func (c *crowd) live(b *bench) (stop func()) {
	write := func() {
		for p, value := range c.seal(b.TB, time.Now().UnixNano()) {
			b.produce(p, kafka.Record{Value: value})
		}
	}
	for c.open(20_000, time.Now().UnixNano()) {
		write()
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for tick := time.NewTicker(200 * time.Millisecond); ; {
			select {
			case <-end:
				tick.Stop()
				return
			case <-tick.C:
				c.talk(1000, time.Now().UnixNano())
				write()
			}
		}
	}()
	return func() { close(end); <-ended }
}

// calm waits until no partition lags by two seconds, by the word of whoever answers at the addresses.
func calm(tb testing.TB, partitions int, addresses ...string) {
	tb.Helper()
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		d, err := lag(partitions, addresses...)
		if err == nil && d < 2*time.Second {
			return
		}
		if time.Now().After(end) {
			tb.Fatalf("the lag is %v: %v", d, err)
		}
	}
}

func recovery(tb *testing.B, sessions int, kill bool) {
	const partitions = 16
	b := newBench(tb)
	b.topics(partitions)
	c := newCrowd(sessions, partitions)
	address := freeAddress(tb)
	start := func() *child {
		return b.child(childPartitions+"="+strconv.Itoa(partitions), childAdmin+"="+address)
	}
	live := start()
	stop := c.live(b)
	defer stop()
	wait := func() { calm(tb, partitions, address) }
	wait()
	time.Sleep(25 * time.Second) // for snapshots of all sessions
	began := time.Now()
	if kill {
		live.kill()
	} else {
		live.Process.Signal(syscall.SIGTERM)
		live.Wait()
		tb.ReportMetric(time.Since(began).Seconds(), "s/leave")
		began = time.Now()
	}
	next := start()
	steps := map[string]int{"joined the group": 1, "loaded a snapshot": partitions, "took the partition over": partitions}
	watched := make(chan struct{})
	go func() { // beside, for the log is all that tells
		defer close(watched)
		for ; len(steps) > 0; time.Sleep(20 * time.Millisecond) {
			for step, n := range steps {
				if strings.Count(next.log.String(), step) >= n {
					tb.ReportMetric(time.Since(began).Seconds(), "s/"+strings.Fields(step)[0])
					delete(steps, step)
				}
			}
		}
	}()
	wait()
	tb.ReportMetric(time.Since(began).Seconds(), "s/recovery")
	<-watched
	if n := strings.Count(next.log.String(), "from=snapshot"); n != partitions {
		tb.Fatalf("%d partitions from snapshots\n%s", n, next.log)
	}
	next.kill()
	tb.ReportMetric((next.ProcessState.UserTime() + next.ProcessState.SystemTime()).Seconds(), "cpu-s")
}

// BenchmarkDurability lets enrichers fold the same backlog with 1 M sessions open, one with snapshots at their usual pace
// and one without, by turns, and compares what they take of the processor, all in all: folding, saving, compressing, and
// writing to a real Kafka. On two cores a backlog of less than 10 s has no snapshot in it, and tells nothing.
func BenchmarkDurability(tb *testing.B) {
	const partitions, sessions, packets = 16, 1_000_000, 30_000_000
	b := newBench(tb)
	b.topics(partitions)
	c := newCrowd(sessions, partitions)
	at := time.Now().Add(-5 * time.Minute).UnixNano() // no collector promises the future
	write := func() {
		at += int64(100 * time.Millisecond)
		for p, value := range c.seal(tb, at) {
			b.produce(p, kafka.Record{Value: value})
		}
	}
	for c.open(20_000, at) {
		write()
	}
	for range packets / 40_000 {
		c.talk(40_000, at)
		write()
	}
	// fold returns what an enricher takes to fold all of it, and how many snapshots it stored.
	fold := func(every time.Duration) (cpu time.Duration, snapshots int) {
		b.emptied()
		// It begins with the first record again.
		group := b.config.TopicPrefix + Group
		if r, err := b.admin().DeleteGroups(tb.Context(), &kafkago.DeleteGroupsRequest{GroupIDs: []string{group}}); err != nil || r.Errors[group] != nil && !errors.Is(r.Errors[group], kafkago.GroupIdNotFound) {
			tb.Fatal(err, r)
		}
		b.wait("empty topics", func() (bool, string) {
			own := []string{b.config.TopicPrefix + record.TopicSessions, b.config.TopicPrefix + record.TopicState}
			r, err := b.admin().DeleteTopics(tb.Context(), &kafkago.DeleteTopicsRequest{Topics: own})
			if err == nil {
				err = errors.Join(r.Errors[own[0]], r.Errors[own[1]])
			}
			return errors.Is(err, kafkago.UnknownTopicOrPartition), fmt.Sprint(err)
		})
		b.topics(partitions)
		address := freeAddress(tb)
		e := b.child(childPartitions+"="+strconv.Itoa(partitions), childAdmin+"="+address, childEvery+"="+every.String())
		for end := time.Now().Add(5 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
			behind, err := asked(address, "records_behind")
			open, _ := asked(address, "sessions_open")
			if err == nil && len(behind) == partitions && slices.Max(behind) < 5 && len(open) == partitions && slices.Min(open) > sessions/partitions/2 {
				break
			}
			if time.Now().After(end) {
				tb.Fatalf("behind by %v records: %v\n%s", behind, err, e.log)
			}
		}
		e.kill()
		return e.ProcessState.UserTime() + e.ProcessState.SystemTime(), int(b.end(record.TopicState, partitions))
	}
	var with, without time.Duration
	var stored int
	for tb.Loop() {
		cpu, _ := fold(time.Hour)
		without += cpu
		cpu, n := fold(snapshotEvery)
		with, stored = with+cpu, stored+n
	}
	runs := float64(tb.N)
	if least := 2*partitions + sessions*50/record.MaxBytes; float64(stored)/runs < float64(least) {
		tb.Fatalf("%v records of snapshots a run, less than %d: the backlog is too short", float64(stored)/runs, least)
	}
	tb.ReportMetric(float64(c.packets)*runs/with.Seconds(), "packets/cpu-s")
	tb.ReportMetric(float64(c.packets)*runs/without.Seconds(), "without-packets/cpu-s")
	tb.ReportMetric(float64(stored)/runs, "state-records")
	tb.ReportMetric(without.Seconds()/with.Seconds(), "throughput")
}

// end returns how many records a topic has got so far.
func (b *bench) end(topic string, partitions int) (n int64) {
	b.Helper()
	for p := range partitions {
		_, end, err := b.client.Offsets(b.Context(), topic, p)
		if err != nil {
			b.Fatal(err)
		}
		n += end
	}
	return n
}

// BenchmarkRebalances lets an enricher join and leave another one ten times a minute while 1 M sessions are open and packets
// come: in each turn every partition must get on, and at the end nothing may lag.
func BenchmarkRebalances(tb *testing.B) {
	const partitions, sessions, every = 16, 1_000_000, 6 * time.Second
	b := newBench(tb)
	b.topics(partitions)
	c := newCrowd(sessions, partitions)
	stays, guest := freeAddress(tb), freeAddress(tb)
	start := func(address string) *child {
		return b.child(childPartitions+"="+strconv.Itoa(partitions), childAdmin+"="+address)
	}
	start(stays)
	stop := c.live(b)
	defer stop()
	wait := func() { calm(tb, partitions, stays, guest) }
	wait()
	time.Sleep(25 * time.Second) // for snapshots of all sessions
	for tb.Loop() {
		var worst time.Duration
		var visitor *child
		caught := 0 // turns in which all was caught up with
		const turns = 10
		for range turns {
			if visitor == nil {
				visitor = start(guest)
			} else {
				visitor.Process.Signal(syscall.SIGTERM)
				go func(v *child) { v.Wait() }(visitor)
				visitor = nil
			}
			up := false
			for end := time.Now().Add(every); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				if d, err := lag(partitions, stays, guest); err == nil {
					worst, up = max(worst, d), up || d < every
				}
			}
			if up {
				caught++
			}
		}
		began := time.Now()
		wait()
		tb.ReportMetric(worst.Seconds(), "s/worst-lag")
		tb.ReportMetric(float64(caught)/turns, "turns-caught-up")
		tb.ReportMetric(time.Since(began).Seconds(), "s/calm")
		if caught < turns/2 {
			tb.Errorf("all partitions had got on in %d of %d turns", caught, turns)
		}
		if visitor != nil {
			visitor.Process.Signal(syscall.SIGTERM)
			visitor.Wait()
		}
	}
}
