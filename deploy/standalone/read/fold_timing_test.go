package read

import (
	"cmp"
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
	"github.com/tapweave/tapweave/collector/sample"
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

// readdressed returns n copies of frames, each with other addresses and a little later, in the order of time.
func readdressed(frames []capture.Record, n int) (all []capture.Record) {
	const later = int64(7 * time.Millisecond)
	for i := range n {
		for _, f := range frames {
			f.Data = slices.Clone(f.Data)
			f.Time += int64(i) * later
			at := 14
			for at+4 <= len(f.Data) && f.Data[at-2] == 0x81 && f.Data[at-1] == 0 {
				at += 4
			}
			switch kind := f.Data[at-2 : at]; { // the second byte of an address of IPv4, the fourth of IPv6
			case at+20 <= len(f.Data) && kind[0] == 0x08 && kind[1] == 0x00:
				f.Data[at+13] += byte(i)
				f.Data[at+17] += byte(i)
			case at+40 <= len(f.Data) && kind[0] == 0x86 && kind[1] == 0xdd:
				f.Data[at+11] += byte(i)
				f.Data[at+27] += byte(i)
			}
			all = append(all, f)
		}
	}
	slices.SortStableFunc(all, func(a, b capture.Record) int { return cmp.Compare(a.Time, b.Time) })
	return all
}

// batches returns the records that a collector with the service's defaults, but for whose payload travels, makes
// of mirrored frames, by partition, and how many packets and bytes they hold.
func batches(tb testing.TB, frames []capture.Record, mode sample.Mode) (log [16][][]byte, packets, bytes int) {
	const linger = 200 * time.Millisecond
	sampling := sample.DefaultConfiguration()
	sampling.Mode = mode
	sampler := sample.New(sampling)
	decoding := decode.DefaultConfiguration()
	decoding.Payload = sampler.Wants()
	d := decode.New(decoding)
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
			sampler.Apply(&d.Flow, &d.Packet)
			b.Take(&d.Flow, &d.Packet)
		}
	}
	b.Goodbye(frames[len(frames)-1].Time + 1)
	return log, packets, bytes
}

// nothing is a fold's output that is not used.
type nothing struct{ sessions int }

func (n *nothing) Session(s *fold.Session)                 { n.sessions++ }
func (n *nothing) Settled(int64, *fold.Session)            {}
func (n *nothing) Traffic(*fold.Session, *columns.Traffic) {}
func (n *nothing) Packet(*columns.Packet)                  {}
func (n *nothing) Alert(*columns.Alert)                    {}

// BenchmarkFold folds encoded batches of all partitions, from bytes to versions, against gopacket's decoding
// and reassembly of the same frames. What applications cost is the difference between the modes of sampling.
func BenchmarkFold(b *testing.B) {
	frames := readdressed(mixed(b), 8)
	for _, c := range []struct {
		name string
		mode sample.Mode
	}{{"own", sample.Starts}, {"own,no-payload", sample.None}, {"own,all-payload", sample.All}} {
		b.Run(c.name, func(b *testing.B) {
			log, packets, bytes := batches(b, frames, c.mode)
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
	}
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
