package enricher

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

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
			// A fold stands still for its snapshot for one part in snapshotShare at most, and rests for snapshotEvery.
			packets := folding.Seconds() / n / 200_000
			every := max(snapshotEvery.Seconds(), snapshotShare*saving.Seconds()/n)
			b.ReportMetric(packets*1e9, "cpu-ns/packet")
			b.ReportMetric(every/(every+saving.Seconds()/n), "throughput")
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

// lag asks an enricher how old the packets are that it folds: the oldest of its partitions, of which there are n.
func lag(address string, n int) (time.Duration, error) {
	client := http.Client{Timeout: time.Second}
	r, err := client.Get("http://" + address + "/metrics")
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	most, seen := time.Duration(0), 0
	for s := bufio.NewScanner(r.Body); s.Scan(); {
		if value, ok := strings.CutPrefix(s.Text(), "tapweave_enricher_lag_seconds{"); ok {
			_, value, _ = strings.Cut(value, " ")
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return 0, err
			}
			seen++
			most = max(most, time.Duration(v*1e9))
		}
	}
	if seen < n {
		return 0, fmt.Errorf("%d of %d partitions", seen, n)
	}
	return most, nil
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
	write := func() {
		for p, value := range c.seal(tb, time.Now().UnixNano()) {
			b.produce(p, kafka.Record{Value: value})
		}
	}
	for c.open(20_000, time.Now().UnixNano()) {
		write()
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for tick := time.NewTicker(200 * time.Millisecond); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
				c.talk(1000, time.Now().UnixNano())
				write()
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	wait := func() {
		for end := time.Now().Add(3 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
			d, err := lag(address, partitions)
			if err == nil && d < 2*time.Second {
				return
			}
			if time.Now().After(end) {
				tb.Fatalf("the lag is %v: %v", d, err)
			}
		}
	}
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
	wait()
	tb.ReportMetric(time.Since(began).Seconds(), "s/recovery")
	if n := strings.Count(next.log.String(), "from=snapshot"); n != partitions {
		tb.Fatalf("%d partitions from snapshots\n%s", n, next.log)
	}
	next.kill()
}
