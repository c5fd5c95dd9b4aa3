package decode_test

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/tapweave/tapweave/collector/batcher"
	"github.com/tapweave/tapweave/collector/decode"
	"github.com/tapweave/tapweave/collector/source/capture"
	"github.com/tapweave/tapweave/proto/capturetest"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/session"
)

// mixed returns the frames of the captures that the project's mixed performance capture is made of.
func mixed(tb testing.TB) []capture.Record {
	want := []string{
		"try-zeek__http", "zeek__echo-connections", "zeek__1000-requests-one-dropped-response",
		"suricata-verify__tls-subjectaltname__input", "zeek__smb2_100_small_files", "nDPI__reddit",
		"zeek__206_example_b", "zeek__rdp-to-ssl", "PcapPlusPlus__650HttpResponses",
	}
	var all []capture.Record
	for _, name := range capturetest.Files(tb) {
		base := filepath.Base(name)
		if !slices.Contains(want, base[:len(base)-len(filepath.Ext(base))]) {
			continue
		}
		records(tb, name, func(r capture.Record) {
			r.Data = slices.Clone(r.Data)
			all = append(all, r)
		})
	}
	slices.SortStableFunc(all, func(a, b capture.Record) int { return int(a.Time%1e9 - b.Time%1e9) })
	return all
}

// burst is how many datagrams come with one system call.
const burst = 64

// decoders are as many as packets are held at once.
func decoders() (all [batcher.MaxHeld]*decode.Decoder) {
	for i := range all {
		all[i] = decode.New(decode.DefaultConfiguration())
	}
	return all
}

// block is how many datagrams lie in the cache when they are decoded, as they do behind a socket that was just read.
const block = 512

// measure gives f the frames of the mixed capture in VXLAN, block by block, and reports the processor time that f took
// for each. What puts a block into the cache is left out, for whatever is measured.
func measure(b *testing.B, frames []capture.Record, source func(i int) packet.Addr, f func(time int64, source packet.Addr, datagram []byte)) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	type datagram struct {
		time    int64
		source  packet.Addr
		payload []byte
	}
	var datagrams [block]datagram
	next := 0
	fill := func() {
		for i := range datagrams {
			d, r := &datagrams[i], &frames[next%len(frames)]
			d.time, d.source = r.Time, source(next%len(frames))
			d.payload = append(append(d.payload[:0], 8, 0, 0, 0, 0, 0, 27, 0), r.Data...)
			next++
		}
	}
	take := func() {
		for i := range datagrams {
			d := &datagrams[i]
			f(d.time, d.source, d.payload)
		}
	}
	for next < 2*len(frames) { // buffers find their sizes
		fill()
		take()
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	spent := time.Duration(0)
	for b.Loop() {
		fill()
		began := thread(b)
		take()
		spent += thread(b) - began
	}
	runtime.ReadMemStats(&after)
	packets := float64(b.N * block)
	b.ReportMetric(float64(spent.Nanoseconds())/packets, "cpu-ns/packet")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/packets, "allocs/packet")
}

// thread is the time that this thread has had a processor. Unlike the time on the clock it is not much changed by what
// else the machine does.
func thread(b *testing.B) time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}

// BenchmarkFlat measures decoder and batcher by the number of partitions and of sources. Batches are flushed as often
// as a collector does at half a million packets a second.
func BenchmarkFlat(b *testing.B) {
	frames := mixed(b)
	const flush = 100_000
	for _, c := range []struct{ partitions, sources int }{{1, 1}, {64, 1}, {16, 1}, {16, 10_000}} {
		sources := make([]packet.Addr, len(frames))
		d := decode.New(decode.DefaultConfiguration())
		for i, r := range frames {
			// All packets of two hosts come from the same source.
			n := uint64(0)
			if d.Frame(r.Time, decode.LinkEthernet, r.Data, r.Original) == decode.OK {
				n = session.PairHash("", &d.Flow.Src, &d.Flow.Dst) + uint64(d.Flow.SrcPort^d.Flow.DstPort)
			}
			sources[i] = packet.Addr{10: 0xff, 11: 0xff, 12: 10}
			binary.BigEndian.PutUint16(sources[i][14:], uint16(n%uint64(c.sources)))
		}
		b.Run(fmt.Sprintf("%d-partitions,%d-sources", c.partitions, c.sources), func(b *testing.B) {
			w := batcher.New(batcher.DefaultConfiguration("bench", 1, c.partitions), 1, func(int, *pb.PacketBatch) {})[0]
			all, n := decoders(), 0
			measure(b, frames, func(i int) packet.Addr { return sources[i] }, func(time int64, source packet.Addr, datagram []byte) {
				d := all[w.Held()]
				if d.Datagram(time, source, 4242, datagram) == decode.OK {
					w.Hold(&d.Flow, &d.Packet)
				}
				if n++; n%burst == 0 {
					w.Release()
				}
				if n%flush == 0 {
					w.Flush(int64(n))
				}
			})
		})
	}
}

// BenchmarkDecode compares the decoder, and decoder and batcher together, with gopacket's
// DecodingLayerParser on the same frames, which were mirrored in VXLAN.
func BenchmarkDecode(b *testing.B) {
	frames := mixed(b)
	source := func(int) packet.Addr { return packet.Addr{10: 0xff, 11: 0xff, 12: 10, 15: 4} }
	run := func(name string, f func(time int64, source packet.Addr, datagram []byte)) {
		b.Run(name, func(b *testing.B) { measure(b, frames, source, f) })
	}
	d := decode.New(decode.DefaultConfiguration())
	run("own", func(time int64, source packet.Addr, datagram []byte) { d.Datagram(time, source, 4242, datagram) })
	sealed := 0
	c := batcher.DefaultConfiguration("bench", 1, 16)
	w := batcher.New(c, 1, func(_ int, p *pb.PacketBatch) { sealed += len(p.Columns) })[0]
	all, n := decoders(), 0
	run("own+batch", func(time int64, source packet.Addr, datagram []byte) {
		d := all[w.Held()]
		if d.Datagram(time, source, 4242, datagram) == decode.OK {
			w.Hold(&d.Flow, &d.Packet)
		}
		if n++; n%burst == 0 {
			w.Release()
		}
	})
	var (
		vxlan layers.VXLAN
		eth   layers.Ethernet
		tag   layers.Dot1Q
		ip4   layers.IPv4
		ip6   layers.IPv6
		tcp   layers.TCP
		udp   layers.UDP
		icmp  layers.ICMPv4
		rest  gopacket.Payload
	)
	p := gopacket.NewDecodingLayerParser(layers.LayerTypeVXLAN, &vxlan, &eth, &tag, &ip4, &ip6, &tcp, &udp, &icmp, &rest)
	p.IgnoreUnsupported = true
	var decoded []gopacket.LayerType
	run("gopacket", func(_ int64, _ packet.Addr, datagram []byte) { p.DecodeLayers(datagram, &decoded) })
}
