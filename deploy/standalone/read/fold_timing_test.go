package read

import (
	"math"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/reassembly"

	"github.com/tapweave/tapweave/collector/batcher"
	"github.com/tapweave/tapweave/collector/decode"
	"github.com/tapweave/tapweave/collector/source/capture"
	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/proto/capturetest"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
)

// busy are captures with ordinary TCP traffic, which also make up the large mixed capture.
var busy = []string{
	"try-zeek__http.pcap", "zeek__1000-requests-one-dropped-response.pcap", "suricata-verify__tls-subjectaltname__input.pcap",
	"zeek__smb2_100_small_files.pcap", "nDPI__reddit.pcap", "zeek__206_example_b.pcap", "zeek__rdp-to-ssl.pcap",
	"PcapPlusPlus__650HttpResponses.pcap", "zeek__echo-connections.pcap",
}

// mixed returns the frames of the busy captures, in the order of time since each began.
func mixed(tb testing.TB) (frames []capture.Record) {
	for _, path := range capturetest.Files(tb) {
		if !slices.Contains(busy, filepath.Base(path)) {
			continue
		}
		r, err := capture.Open(path)
		if err != nil {
			tb.Fatal(err)
		}
		begin := int64(math.MinInt64)
		for {
			rec, err := r.Next()
			if err != nil {
				break
			}
			if begin == math.MinInt64 {
				begin = rec.Time
			}
			rec.Data = slices.Clone(rec.Data)
			rec.Time += 1_700_000_000_000_000_000 - begin
			frames = append(frames, rec)
		}
		r.Close()
	}
	slices.SortStableFunc(frames, func(a, b capture.Record) int { return int(a.Time - b.Time) })
	return frames
}

// batches returns the records that a collector with the service's defaults makes of mirrored frames, by
// partition, and how many packets and bytes they hold.
func batches(tb testing.TB, frames []capture.Record) (log [16][][]byte, packets, bytes int) {
	const linger = 200 * time.Millisecond
	d := decode.New(decode.DefaultConfiguration())
	b := batcher.New(batcher.DefaultConfiguration("c", 1, len(log)), 1, func(i int, p *pb.PacketBatch) {
		value, err := record.MarshalPackets(&pb.PacketsRecord{Body: &pb.PacketsRecord_Batch{Batch: p}})
		if err != nil {
			tb.Fatal(err)
		}
		log[i] = append(log[i], value)
		if packets += int(p.Packets); p.Packets > 0 {
			bytes += len(value)
		}
	})[0]
	last := frames[0].Time
	for _, f := range frames {
		if f.Time-last >= int64(linger) {
			b.Flush(f.Time)
			last = f.Time
		}
		if d.Mirrored(f.Time, packet.Carrier{Source: taps[0].address, VNI: 27}, 4242, f.Link, f.Data, f.Original) == decode.OK {
			b.Take(&d.Flow, &d.Packet)
		}
	}
	b.Goodbye(frames[len(frames)-1].Time + 1)
	return log, packets, bytes
}

// nothing is a fold's output that is not used.
type nothing struct{ sessions int }

func (n *nothing) Session(s *fold.Session)      { n.sessions++ }
func (n *nothing) Settled(int64, *fold.Session) {}
func (n *nothing) Traffic(*columns.Traffic)     {}
func (n *nothing) Packet(*columns.Packet)       {}
func (n *nothing) Alert(*columns.Alert)         {}

// BenchmarkFold folds encoded batches of all partitions, from bytes to versions, against gopacket's decoding
// and reassembly of the same frames.
func BenchmarkFold(b *testing.B) {
	frames := mixed(b)
	log, packets, bytes := batches(b, frames)
	b.Run("own", func(b *testing.B) {
		b.ReportAllocs()
		began := processor(b)
		for b.Loop() {
			var out nothing
			for i := range log {
				f := fold.New(i, fold.DefaultSettings(), &out)
				for n, value := range log[i] {
					if err := f.Record(int64(n), value); err != nil {
						b.Fatal(err)
					}
				}
			}
		}
		b.ReportMetric(float64((processor(b)-began).Nanoseconds())/float64(b.N)/float64(packets), "cpu-ns/packet")
		b.ReportMetric(float64(bytes)/float64(packets), "wire-B/packet")
	})
	b.Run("gopacket", func(b *testing.B) {
		b.ReportAllocs()
		began := processor(b)
		for b.Loop() {
			reassemble(frames)
		}
		b.ReportMetric(float64((processor(b)-began).Nanoseconds())/float64(b.N)/float64(len(frames)), "cpu-ns/packet")
	})
}

// reassemble decodes frames and puts their TCP streams together by gopacket.
func reassemble(frames []capture.Record) {
	var (
		eth layers.Ethernet
		tag layers.Dot1Q
		ip4 layers.IPv4
		ip6 layers.IPv6
		tcp layers.TCP
		udp layers.UDP
		raw gopacket.Payload
	)
	p := gopacket.NewDecodingLayerParser(layers.LayerTypeEthernet, &eth, &tag, &ip4, &ip6, &tcp, &udp, &raw)
	p.IgnoreUnsupported = true
	a := reassembly.NewAssembler(reassembly.NewStreamPool(streams{}))
	var decoded []gopacket.LayerType
	for i := range frames {
		f := &frames[i]
		if p.DecodeLayers(f.Data, &decoded) != nil {
			continue
		}
		var network gopacket.Flow
		for _, l := range decoded {
			switch l {
			case layers.LayerTypeIPv4:
				network = ip4.NetworkFlow()
			case layers.LayerTypeIPv6:
				network = ip6.NetworkFlow()
			case layers.LayerTypeTCP:
				c := stamp(gopacket.CaptureInfo{Timestamp: time.Unix(0, f.Time), CaptureLength: len(f.Data), Length: f.Original})
				a.AssembleWithContext(network, &tcp, &c)
			}
		}
	}
	a.FlushAll()
}

type stamp gopacket.CaptureInfo

func (s *stamp) GetCaptureInfo() gopacket.CaptureInfo { return gopacket.CaptureInfo(*s) }

// streams counts bytes, the least that a user of reassembly does.
type streams struct{}

func (streams) New(_, _ gopacket.Flow, _ *layers.TCP, _ reassembly.AssemblerContext) reassembly.Stream {
	return new(stream)
}

type stream struct{ bytes int }

func (*stream) Accept(*layers.TCP, gopacket.CaptureInfo, reassembly.TCPFlowDirection, reassembly.Sequence, *bool, reassembly.AssemblerContext) bool {
	return true
}

func (s *stream) ReassembledSG(sg reassembly.ScatterGather, _ reassembly.AssemblerContext) {
	n, _ := sg.Lengths()
	s.bytes += n
}

func (*stream) ReassemblyComplete(reassembly.AssemblerContext) bool { return true }
