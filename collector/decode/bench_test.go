package decode_test

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

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

// processor is the time that the process has had processors, its collections of garbage among it. Unlike the time on
// the clock it is not much changed by what else the machine does.
func processor(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFlat measures decoder and batcher by the number of partitions and of sources. Batches are flushed as often
// as a collector does at half a million packets a second.
func BenchmarkFlat(b *testing.B) {
	frames := mixed(b)
	const flush = 100_000
	for _, c := range []struct{ partitions, sources int }{{1, 1}, {64, 1}, {16, 1}, {16, 10_000}} {
		datagrams := make([][]byte, len(frames))
		sources := make([]packet.Addr, len(frames))
		d := decode.New(decode.DefaultConfiguration())
		for i, r := range frames {
			datagrams[i] = append([]byte{8, 0, 0, 0, 0, 0, 27, 0}, r.Data...)
			// All packets of two hosts come from the same source.
			n := uint64(0)
			if d.Datagram(r.Time, packet.Addr{}, 1, datagrams[i]) == decode.OK {
				n = session.PairHash("", &d.Flow.Src, &d.Flow.Dst) + uint64(d.Flow.SrcPort^d.Flow.DstPort)
			}
			sources[i] = packet.Addr{10: 0xff, 11: 0xff, 12: 10}
			binary.BigEndian.PutUint16(sources[i][14:], uint16(n%uint64(c.sources)))
		}
		b.Run(fmt.Sprintf("%d-partitions,%d-sources", c.partitions, c.sources), func(b *testing.B) {
			w := batcher.New(batcher.DefaultConfiguration("bench", 1, c.partitions), 1, func(int, *pb.PacketBatch) {})[0]
			d := decode.New(decode.DefaultConfiguration())
			b.ReportAllocs()
			began := processor(b)
			for n := 0; b.Loop(); n++ {
				i := n % len(frames)
				if d.Datagram(frames[i].Time, sources[i], 4242, datagrams[i]) == decode.OK {
					w.Take(&d.Flow, &d.Packet)
				}
				if n%flush == flush-1 {
					w.Flush(int64(n))
				}
			}
			b.ReportMetric(float64((processor(b)-began).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

// BenchmarkDecode compares the decoder, and decoder and batcher together, with gopacket's
// DecodingLayerParser on the same frames, which were mirrored in VXLAN.
func BenchmarkDecode(b *testing.B) {
	frames := mixed(b)
	datagrams := make([][]byte, len(frames))
	for i, r := range frames {
		datagrams[i] = append([]byte{8, 0, 0, 0, 0, 0, 27, 0}, r.Data...)
	}
	source := packet.Addr{10: 0xff, 11: 0xff, 12: 10, 15: 4}
	run := func(name string, f func(i int)) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			began := processor(b)
			for n := 0; b.Loop(); n++ {
				f(n % len(frames))
			}
			b.ReportMetric(float64((processor(b)-began).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
	d := decode.New(decode.DefaultConfiguration())
	run("own", func(i int) { d.Datagram(frames[i].Time, source, 4242, datagrams[i]) })
	sealed := 0
	c := batcher.DefaultConfiguration("bench", 1, 16)
	w := batcher.New(c, 1, func(_ int, p *pb.PacketBatch) { sealed += len(p.Columns) })[0]
	run("own+batch", func(i int) {
		if d.Datagram(frames[i].Time, source, 4242, datagrams[i]) == decode.OK {
			w.Take(&d.Flow, &d.Packet)
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
	run("gopacket", func(i int) { p.DecodeLayers(datagrams[i], &decoded) })
}
