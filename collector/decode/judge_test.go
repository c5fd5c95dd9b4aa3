package decode_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/tapweave/tapweave/collector/decode"
	"github.com/tapweave/tapweave/collector/source/capture"
	"github.com/tapweave/tapweave/proto/capturetest"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/session"
)

// TestGopacket compares each TCP and UDP packet of the shared captures with what gopacket makes of it.
func TestGopacket(t *testing.T) {
	conf := decode.DefaultConfiguration()
	conf.Payload = true
	compared := 0
	for _, name := range capturetest.Files(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			d := decode.New(conf)
			n := 0
			records(t, name, func(r capture.Record) {
				n++
				if d.Frame(r.Time, r.Link, r.Data, r.Original) != decode.OK || d.Packet.Fragment != 0 {
					return
				}
				if judge(t, n, d, r) {
					compared++
				}
			})
		})
	}
	if compared < 130000 {
		t.Errorf("only %d packets were compared", compared)
	}
}

// judge says whether gopacket could decode the packet's transport header.
func judge(t *testing.T, n int, d *decode.Decoder, r capture.Record) bool {
	f, p := &d.Flow, &d.Packet
	if f.Protocol != packet.ProtoTCP && f.Protocol != packet.ProtoUDP {
		return false
	}
	g := gopacket.NewPacket(r.Data, layers.LinkType(r.Link), gopacket.NoCopy)
	var (
		last    gopacket.NetworkLayer
		eth     *layers.Ethernet
		tcp     *layers.TCP
		udp     *layers.UDP
		tags    []uint16
		vnis    []uint32
		length  int
		headers int // of IP
		trunc   = g.Metadata().Truncated
	)
	for _, l := range g.Layers() {
		switch l := l.(type) {
		case *layers.Ethernet:
			eth, tags, tcp, udp = l, nil, nil, nil
		case *layers.Dot1Q:
			tags = append(tags, l.VLANIdentifier)
		case *layers.VXLAN:
			vnis = append(vnis, l.VNI)
			tcp, udp = nil, nil
		case *layers.IPv4:
			last, headers = l, int(l.IHL)*4
			length = int(l.Length)
		case *layers.IPv6:
			last, headers = l, 40
			length = 40 + int(l.Length)
		case *layers.IPv6Fragment:
			headers += 8
		case *layers.IPv6HopByHop:
			headers += len(l.Contents)
		case *layers.IPv6Destination:
			headers += len(l.Contents)
		case *layers.IPv6Routing:
			headers += len(l.Contents)
		case *layers.TCP:
			tcp = l
		case *layers.UDP:
			udp = l
		}
	}
	if last == nil || tcp == nil && udp == nil || int(f.NCarriers) != len(vnis) {
		return false
	}
	check := func(what string, got, want any) {
		if got != want {
			t.Errorf("frame %d: %s %v, gopacket says %v", n, what, got, want)
		}
	}
	src, dst := last.NetworkFlow().Endpoints()
	check("source", f.Src.String(), src.String())
	check("destination", f.Dst.String(), dst.String())
	check("length", int(p.Length), length)
	check("source MAC", gopacket.NewFlow(layers.EndpointMAC, f.SrcMAC[:], f.DstMAC[:]), eth.LinkFlow())
	check("tags", slices.Equal(f.VLANs[:f.NVLANs], tags), true)
	for i, v := range vnis {
		check("VNI", f.Carriers[i].VNI, v)
	}
	switch l := last.(type) {
	case *layers.IPv4:
		check("id", p.ID, uint32(l.Id))
		check("TTL", f.TTL, l.TTL)
	case *layers.IPv6:
		check("hop limit", f.TTL, l.HopLimit)
	}
	if udp != nil {
		check("source port", f.SrcPort, uint16(udp.SrcPort))
		check("destination port", f.DstPort, uint16(udp.DstPort))
		if udp.Length >= 8 && int(udp.Length) <= length-headers {
			check("payload", p.Payload, uint32(udp.Length-8))
			check("data", trunc || slices.Equal(p.Data, udp.Payload), true)
		}
		if udp.Checksum != 0 {
			check("checksum", p.Checksum, udp.Checksum)
		}
		return true
	}
	check("source port", f.SrcPort, uint16(tcp.SrcPort))
	check("destination port", f.DstPort, uint16(tcp.DstPort))
	check("sequence", p.Seq, tcp.Seq)
	check("acknowledgement", p.Ack, tcp.Ack)
	check("window", p.Window, tcp.Window)
	check("checksum", p.Checksum, tcp.Checksum)
	check("payload", int(p.Payload), length-headers-int(tcp.DataOffset)*4)
	check("data", trunc || slices.Equal(p.Data, tcp.Payload), true)
	var flags uint8
	for i, set := range []bool{tcp.FIN, tcp.SYN, tcp.RST, tcp.PSH, tcp.ACK, tcp.URG, tcp.ECE, tcp.CWR} {
		if set {
			flags |= 1 << i
		}
	}
	check("flags", p.Flags, flags)
	if tcp.SYN {
		mss, scale := uint16(0), uint8(packet.NoWindowScale)
		for _, o := range tcp.Options {
			switch {
			case o.OptionType == layers.TCPOptionKindMSS && len(o.OptionData) == 2:
				mss = uint16(o.OptionData[0])<<8 | uint16(o.OptionData[1])
			case o.OptionType == layers.TCPOptionKindWindowScale && len(o.OptionData) == 1:
				scale = min(o.OptionData[0], 14)
			}
		}
		check("MSS", p.MSS, mss)
		check("window scale", p.WindowScale, scale)
	}
	return true
}

// sound fails if a decoded packet says what cannot be.
func sound(tb testing.TB, d *decode.Decoder, frame int) {
	tb.Helper()
	f, p := &d.Flow, &d.Packet
	switch {
	case p.Payload > p.Length:
		tb.Errorf("payload %d of a packet of %d", p.Payload, p.Length)
	case len(p.Data) > int(p.Payload):
		tb.Errorf("%d bytes sampled of a payload of %d", len(p.Data), p.Payload)
	case len(p.Head) > packet.HeadBytes || len(p.Head)+len(p.Data) > 2*frame:
		tb.Errorf("head of %d bytes in a frame of %d", len(p.Head), frame)
	case p.Fragment == 0 && p.FragmentOffset != 0, p.Fragment != 0 && f.SrcPort|f.DstPort != 0:
		tb.Errorf("fragment bits %d, offset %d, ports %d and %d", p.Fragment, p.FragmentOffset, f.SrcPort, f.DstPort)
	case !f.V6 && !(f.Src.Netip().Is4() && f.Dst.Netip().Is4()):
		tb.Errorf("IPv4 from %v to %v", f.Src, f.Dst)
	}
	for i, v := range f.VLANs {
		if v > 4095 || i >= int(f.NVLANs) && v != 0 {
			tb.Errorf("%d tags: %v", f.NVLANs, f.VLANs)
		}
	}
	for i, c := range f.Carriers {
		if c.VNI >= 1<<24 || i >= int(f.NCarriers) && c != (packet.Carrier{}) {
			tb.Errorf("%d carriers: %v", f.NCarriers, f.Carriers)
		}
	}
}

// TestDamaged cuts and flips sampled frames of every capture at sampled places.
func TestDamaged(t *testing.T) {
	conf := decode.DefaultConfiguration()
	conf.Payload = true
	for _, name := range capturetest.Files(t) {
		d := decode.New(conf)
		n := 0
		records(t, name, func(r capture.Record) {
			if n++; n%97 != 1 && n > 20 {
				return
			}
			for cut := 0; cut < len(r.Data); cut += 1 + cut/40 {
				if d.Frame(r.Time, r.Link, r.Data[:cut], r.Original) == decode.OK {
					sound(t, d, cut)
				}
			}
			for at := 0; at < min(len(r.Data), 160); at++ {
				for _, mask := range []byte{0xff, 0x01, 0x80, 0x40} {
					r.Data[at] ^= mask
					if d.Frame(r.Time, r.Link, r.Data, r.Original) == decode.OK {
						sound(t, d, len(r.Data))
					}
					r.Data[at] ^= mask
				}
			}
		})
	}
}

func TestAllocations(t *testing.T) {
	conf := decode.DefaultConfiguration()
	conf.Payload, conf.Scope = true, decode.Isolated
	for _, name := range capturetest.Files(t) {
		var frames []capture.Record
		records(t, name, func(r capture.Record) {
			if len(frames) < 500 {
				r.Data = slices.Clone(r.Data)
				frames = append(frames, r)
			}
		})
		d := decode.New(conf)
		payload := make([]byte, 0, 1<<16)
		all := func() {
			for _, r := range frames {
				d.Frame(r.Time, r.Link, r.Data, r.Original)
				d.Mirrored(r.Time, packet.Carrier{VNI: 9}, 1, r.Link, r.Data, r.Original)
				payload = append(append(payload[:0], 8, 0, 0, 0, 0, 0, 27, 0), r.Data...)
				d.Datagram(r.Time, packet.Addr{}, 1, payload)
			}
		}
		if n := testing.AllocsPerRun(5, all); n != 0 {
			t.Errorf("%s: %v allocations for %d frames", filepath.Base(name), n, len(frames))
		}
	}
}

func seed(f *testing.F, add func(r capture.Record)) {
	for _, name := range capturetest.Files(f) {
		n := 0
		records(f, name, func(r capture.Record) {
			if n++; n <= 3 && len(r.Data) <= 2000 {
				r.Data = slices.Clone(r.Data)
				add(r)
			}
		})
	}
}

func FuzzFrame(f *testing.F) {
	seed(f, func(r capture.Record) { f.Add(uint32(r.Link), r.Data, r.Original) })
	f.Add(uint32(decode.LinkLinuxSLL2), make([]byte, 60), 60)
	conf := decode.DefaultConfiguration()
	conf.Payload = true
	d, fresh := decode.New(conf), decode.New(conf)
	f.Fuzz(func(t *testing.T, link uint32, frame []byte, original int) {
		if original > 1<<30 {
			t.Skip("no frame is longer")
		}
		r := d.Frame(1, decode.LinkType(link), frame, original)
		if r == decode.OK {
			sound(t, d, len(frame))
		}
		// What came before makes no difference, nor does the way through a mirror.
		*fresh = *decode.New(conf)
		if s := fresh.Frame(1, decode.LinkType(link), frame, original); s != r || r == decode.OK && (fresh.Flow != d.Flow || !same(fresh.Packet, d.Packet)) {
			t.Errorf("%v %+v, new decoder %v %+v", r, d.Flow, s, fresh.Flow)
		}
		if s := fresh.Mirrored(1, packet.Carrier{VNI: 1}, 2, decode.LinkType(link), frame, original); s != r || r == decode.OK && !same(fresh.Packet, d.Packet) {
			t.Errorf("%v, mirrored %v", r, s)
		}
	})
}

func FuzzDatagram(f *testing.F) {
	seed(f, func(r capture.Record) { f.Add(append([]byte{8, 0, 0, 0, 0, 0, 27, 0}, r.Data...)) })
	conf := decode.DefaultConfiguration()
	conf.Payload, conf.Scope = true, decode.Isolated
	d := decode.New(conf)
	f.Fuzz(func(t *testing.T, payload []byte) {
		if d.Datagram(1, packet.Addr{15: 1}, 2, payload) == decode.OK {
			sound(t, d, len(payload))
			if d.Flow.NCarriers == 0 || d.Flow.OuterPort != 2 {
				t.Errorf("%+v", d.Flow)
			}
		}
	})
}

// TestQuotes wants the quote of each ICMP error in the captures to name a pair that can be partitioned.
func TestQuotes(t *testing.T) {
	errors := 0
	for _, name := range capturetest.Files(t) {
		d := decode.New(decode.DefaultConfiguration())
		records(t, name, func(r capture.Record) {
			if d.Frame(r.Time, r.Link, r.Data, r.Original) != decode.OK || d.Flow.Protocol != packet.ProtoICMP ||
				d.Packet.Fragment != 0 || !session.ICMPError(false, uint8(d.Flow.SrcPort)) {
				return
			}
			errors++
			g := gopacket.NewPacket(d.Packet.Head, layers.LayerTypeIPv4, gopacket.NoCopy)
			src, dst, protocol, _, _, ok := packet.Quote(d.Packet.Head)
			ip, _ := g.NetworkLayer().(*layers.IPv4)
			if ip == nil || !ok || src.String() != ip.SrcIP.String() || dst.String() != ip.DstIP.String() || protocol != uint8(ip.Protocol) {
				t.Errorf("%s: quote % x read as %v, %v, %d, %v", name, d.Packet.Head, src, dst, protocol, ok)
			}
		})
	}
	if errors < 20 {
		t.Errorf("only %d ICMP errors", errors)
	}
}
