package decode_test

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tapweave/tapweave/collector/decode"
	"github.com/tapweave/tapweave/proto/packet"
)

// unhex reads hexadecimal digits; white space is for the reader of the test.
func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

func cat(parts ...[]byte) []byte { return slices.Concat(parts...) }

func eth(etherType uint16, rest ...[]byte) []byte {
	return cat(unhex("020000000002 020000000001"), binary.BigEndian.AppendUint16(nil, etherType), cat(rest...))
}

// ip4 is a packet from 10.0.0.1 to 10.0.0.2 with id 0x1234 and TTL 64. bits are flags and fragment offset.
func ip4(protocol byte, bits uint16, rest ...[]byte) []byte {
	body := cat(rest...)
	h := unhex("45000000 12340000 40000000 0a000001 0a000002")
	h[9] = protocol
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(body)))
	binary.BigEndian.PutUint16(h[6:], bits)
	return append(h, body...)
}

// ip6 is a packet from fd00::1 to fd00::2 with hop limit 63.
func ip6(next byte, rest ...[]byte) []byte {
	body := cat(rest...)
	h := unhex("60000000 0000 00 3f fd000000000000000000000000000001 fd000000000000000000000000000002")
	h[6] = next
	binary.BigEndian.PutUint16(h[4:], uint16(len(body)))
	return append(h, body...)
}

// tcp has ports 1000 and 80, sequence number 1, acknowledgement 2, window 3, checksum 4.
func tcp(flags byte, options []byte, payload string) []byte {
	h := unhex("03e80050 00000001 00000002 0000 0003 0004 0000")
	h[12], h[13] = byte(20+len(options))/4<<4, flags
	return cat(h, options, []byte(payload))
}

// udp has source port 2000 and checksum 5.
func udp(port uint16, payload []byte) []byte {
	h := unhex("07d0 0000 0000 0005")
	binary.BigEndian.PutUint16(h[2:], port)
	binary.BigEndian.PutUint16(h[4:], uint16(8+len(payload)))
	return append(h, payload...)
}

func vxlan(vni uint32, frame []byte) []byte {
	return cat([]byte{8, 0, 0, 0}, binary.BigEndian.AppendUint32(nil, vni<<8), frame)
}

func change(b []byte, at int, to ...byte) []byte {
	b = slices.Clone(b)
	copy(b[at:], to)
	return b
}

func addr(s string) packet.Addr { return packet.AddrFrom(netip.MustParseAddr(s)) }

var segment = ip4(6, 0, tcp(packet.ACK, nil, "hello"))

// plain is the flow of segment in Ethernet.
var plain = packet.Flow{
	Src: addr("10.0.0.1"), Dst: addr("10.0.0.2"), SrcPort: 1000, DstPort: 80, Protocol: 6, TTL: 64,
	SrcMAC: [6]byte{2, 0, 0, 0, 0, 1}, DstMAC: [6]byte{2, 0, 0, 0, 0, 2},
}

var plain6 = packet.Flow{
	Src: addr("fd00::1"), Dst: addr("fd00::2"), SrcPort: 1000, DstPort: 80, Protocol: 6, TTL: 63, V6: true,
	SrcMAC: [6]byte{2, 0, 0, 0, 0, 1}, DstMAC: [6]byte{2, 0, 0, 0, 0, 2},
}

func flow(f packet.Flow, change func(f *packet.Flow)) packet.Flow {
	change(&f)
	return f
}

// ack is what segment says.
var ack = packet.Packet{
	Time: 7, Length: 45, Payload: 5, ID: 0x1234, Checksum: 4, Flags: packet.ACK, Seq: 1, Ack: 2, Window: 3,
	WindowScale: packet.NoWindowScale, Data: []byte("hello"),
}

func pkt(p packet.Packet, change func(p *packet.Packet)) packet.Packet {
	change(&p)
	return p
}

func ack6(headers int, id uint32) packet.Packet {
	return pkt(ack, func(p *packet.Packet) { p.Length, p.ID = uint32(headers+25), id })
}

func noLink(f *packet.Flow) { f.SrcMAC, f.DstMAC = [6]byte{}, [6]byte{} }

func same(a, b packet.Packet) bool {
	head, data := slices.Equal(a.Head, b.Head), slices.Equal(a.Data, b.Data)
	a.Head, a.Data, b.Head, b.Data = nil, nil, nil, nil
	return head && data && a.Time == b.Time && a.Length == b.Length && a.Payload == b.Payload && a.ID == b.ID &&
		a.Checksum == b.Checksum && a.FragmentOffset == b.FragmentOffset && a.Fragment == b.Fragment &&
		a.Flags == b.Flags && a.Seq == b.Seq && a.Ack == b.Ack && a.Window == b.Window && a.MSS == b.MSS && a.WindowScale == b.WindowScale
}

// anySum stands for a checksum that is a digest.
const anySum = 0xfffe

func TestFrame(t *testing.T) {
	ext := unhex("0000 0000 0000 0000") // 8 bytes of an extension header or options, next header to be set
	next := func(n byte) []byte { return change(ext, 0, n) }
	hello6 := tcp(packet.ACK, nil, "hello")
	syn := tcp(packet.SYN, unhex("0204 05b4 01 0303 07 0402 0000"), "")
	quote := ip4(17, 0, udp(53, []byte("query")))
	nested := func(inner []byte, vnis ...uint32) []byte {
		for _, v := range slices.Backward(vnis) {
			inner = eth(0x0800, ip4(17, 0, udp(4789, vxlan(v, inner))))
		}
		return inner
	}
	carried := func(vnis ...uint32) packet.Flow {
		return flow(plain, func(f *packet.Flow) {
			f.OuterPort, f.NCarriers = 2000, uint8(len(vnis))
			for i, v := range vnis {
				f.Carriers[i] = packet.Carrier{Source: f.Src, VNI: v}
			}
		})
	}
	udpFlow := func(port uint16) packet.Flow {
		return flow(plain, func(f *packet.Flow) { f.Protocol, f.SrcPort, f.DstPort = 17, 2000, port })
	}
	udpPacket := func(payload string) packet.Packet {
		return packet.Packet{Time: 7, Length: uint32(28 + len(payload)), Payload: uint32(len(payload)), ID: 0x1234, Checksum: 5, WindowScale: packet.NoWindowScale, Data: []byte(payload)}
	}
	other := func(protocol uint8) packet.Flow {
		return flow(plain, func(f *packet.Flow) { f.Protocol, f.SrcPort, f.DstPort = protocol, 0, 0 })
	}
	bare := func(length, payload uint32, data string) packet.Packet {
		return packet.Packet{Time: 7, Length: length, Payload: payload, ID: 0x1234, Checksum: anySum, WindowScale: packet.NoWindowScale, Data: []byte(data)}
	}
	for _, c := range []struct {
		name   string
		link   decode.LinkType
		frame  []byte
		extra  int // bytes of the frame that were not captured
		flow   packet.Flow
		packet packet.Packet
	}{
		{"ethernet", 1, eth(0x0800, segment), 0, plain, ack},
		{"padding", 1, eth(0x0800, segment, make([]byte, 20)), 0, plain, ack},
		{"cut by the capture", 1, eth(0x0800, segment[:43]), 2, plain, pkt(ack, func(p *packet.Packet) { p.Data = p.Data[:3] })},
		{"recorded length cut as well", 1, eth(0x0800, segment[:40]), 0, plain, pkt(ack, func(p *packet.Packet) { p.Data = nil })},
		{"no IP length", 1, eth(0x0800, change(segment, 2, 0, 0)), 0, plain, ack},
		{"no IP length, cut", 1, eth(0x0800, change(segment, 2, 0, 0)), 4000, plain, pkt(ack, func(p *packet.Packet) { p.Length, p.Payload = 4045, 4005 })},
		{"IP options", 1, eth(0x0800, change(cat(segment[:20], unhex("01010100"), segment[20:]), 0, 0x46, 0, 0, 49)), 0, plain,
			pkt(ack, func(p *packet.Packet) { p.Length = 49 })},
		{"VLAN", 1, eth(0x8100, unhex("e00a 0800"), segment), 0, flow(plain, func(f *packet.Flow) { f.NVLANs, f.VLANs[0] = 1, 10 }), ack},
		{"QinQ", 1, eth(0x88a8, unhex("0007 9100 0008 8100 0009 0800"), segment), 0,
			flow(plain, func(f *packet.Flow) { f.NVLANs, f.VLANs = 3, [4]uint16{7, 8, 9} }), ack},
		{"more tags than are recorded", 1, eth(0x8100, unhex("0001 8100 0002 8100 0003 8100 0004 8100 0005 0800"), segment), 0,
			flow(plain, func(f *packet.Flow) { f.NVLANs, f.VLANs = 4, [4]uint16{1, 2, 3, 4} }), ack},
		{"PPPoE", 1, eth(0x8864, unhex("1100 0001 002f 0021"), segment), 0, plain, ack},
		{"PPPoE IPv6", 1, eth(0x8864, unhex("1100 0001 002f 0057"), ip6(6, hello6)), 0, plain6, ack6(40, 0)},
		{"raw", 101, segment, 0, flow(plain, noLink), ack},
		{"raw IPv6", 12, ip6(6, hello6), 0, flow(plain6, noLink), ack6(40, 0)},
		{"IPv4", 228, segment, 0, flow(plain, noLink), ack},
		{"IPv6", 229, ip6(6, hello6), 0, flow(plain6, noLink), ack6(40, 0)},
		{"cooked", 113, cat(unhex("0000 0001 0006 020000000001 0000 0800"), segment), 0, flow(plain, func(f *packet.Flow) { f.DstMAC = [6]byte{} }), ack},
		{"cooked without address", 113, cat(unhex("0000 0304 0000 020000000001 0000 0800"), segment), 0, flow(plain, noLink), ack},
		{"cooked, VLAN", 113, cat(unhex("0000 0001 0000 000000000000 0000 8100 000a 0800"), segment), 0,
			flow(plain, func(f *packet.Flow) { noLink(f); f.NVLANs, f.VLANs[0] = 1, 10 }), ack},
		{"cooked v2", 276, cat(unhex("0800 0000 00000002 0001 00 06 020000000001 0000"), segment), 0, flow(plain, func(f *packet.Flow) { f.DstMAC = [6]byte{} }), ack},
		{"null", 0, cat(unhex("02000000"), segment), 0, flow(plain, noLink), ack},
		{"null IPv6", 0, cat(unhex("1e000000"), ip6(6, hello6)), 0, flow(plain6, noLink), ack6(40, 0)},
		{"loopback", 108, cat(unhex("00000018"), ip6(6, hello6)), 0, flow(plain6, noLink), ack6(40, 0)},
		{"SYN", 1, eth(0x0800, ip4(6, 0, syn)), 0, plain, pkt(ack, func(p *packet.Packet) {
			p.Length, p.Payload, p.Flags, p.MSS, p.WindowScale, p.Data = 52, 0, packet.SYN, 1460, 7, nil
		})},
		{"SYN, window scale out of range", 1, eth(0x0800, ip4(6, 0, tcp(packet.SYN, unhex("0303ff00"), ""))), 0, plain, pkt(ack, func(p *packet.Packet) {
			p.Length, p.Payload, p.Flags, p.WindowScale, p.Data = 44, 0, packet.SYN, 14, nil
		})},
		{"SYN, options run over", 1, eth(0x0800, ip4(6, 0, tcp(packet.SYN, unhex("0209 05b4"), ""))), 0, plain, pkt(ack, func(p *packet.Packet) {
			p.Length, p.Payload, p.Flags, p.Data = 44, 0, packet.SYN, nil
		})},
		{"TCP options cut", 1, eth(0x0800, ip4(6, 0, syn)[:44]), 0, plain, pkt(ack, func(p *packet.Packet) {
			p.Length, p.Payload, p.Flags, p.MSS, p.Data = 52, 0, packet.SYN, 1460, nil
		})},
		{"UDP", 1, eth(0x0800, ip4(17, 0, udp(53, []byte("query")))), 0, udpFlow(53), udpPacket("query")},
		{"UDP shorter than its IP packet", 1, eth(0x0800, ip4(17, 0, udp(53, []byte("query")), []byte("rest"))), 0, udpFlow(53),
			pkt(udpPacket("query"), func(p *packet.Packet) { p.Length += 4 })},
		{"UDP longer than its IP packet", 1, eth(0x0800, ip4(17, 0, change(udp(53, []byte("query")), 4, 0xff, 0xff))), 0, udpFlow(53), udpPacket("query")},
		{"UDP length below its header", 1, eth(0x0800, ip4(17, 0, change(udp(53, []byte("query")), 4, 0, 3))), 0, udpFlow(53),
			pkt(udpPacket("query"), func(p *packet.Packet) { p.Payload, p.Data = 0, nil })},
		{"UDP without length", 1, eth(0x0800, ip4(17, 0, change(udp(53, []byte("query")), 4, 0, 0))), 0, udpFlow(53), udpPacket("query")},
		{"UDP without checksum", 1, eth(0x0800, ip4(17, 0, change(udp(53, []byte("query")), 6, 0, 0))), 0, udpFlow(53),
			pkt(udpPacket("query"), func(p *packet.Packet) { p.Checksum = anySum })},
		{"UDP-Lite", 1, eth(0x0800, ip4(136, 0, change(udp(53, []byte("query")), 4, 0, 8))), 0,
			flow(udpFlow(53), func(f *packet.Flow) { f.Protocol = 136 }), udpPacket("query")},
		{"echo", 1, eth(0x0800, ip4(1, 0, unhex("0800 aaaa bbbb cccc"), []byte("ping"))), 0,
			flow(other(1), func(f *packet.Flow) { f.SrcPort, f.ICMPID = 8, 0xbbbb }),
			pkt(bare(32, 4, "ping"), func(p *packet.Packet) { p.Checksum, p.Seq = 0xaaaa, 0xcccc })},
		{"unreachable", 1, eth(0x0800, ip4(1, 0, unhex("0303 aaaa 0000 0000"), quote)), 0,
			flow(other(1), func(f *packet.Flow) { f.SrcPort, f.DstPort = 3, 3 }),
			pkt(bare(61, 33, string(quote)), func(p *packet.Packet) { p.Checksum, p.Head = 0xaaaa, quote })},
		{"long quote", 1, eth(0x0800, ip4(1, 0, unhex("0b00 aaaa 0000 0000"), quote, make([]byte, 500))), 0,
			flow(other(1), func(f *packet.Flow) { f.SrcPort = 11 }),
			pkt(bare(561, 533, string(cat(quote, make([]byte, 500)))), func(p *packet.Packet) {
				p.Checksum, p.Head = 0xaaaa, cat(quote, make([]byte, 95))
			})},
		{"ICMPv6 echo reply", 1, eth(0x86dd, ip6(58, unhex("8100 aaaa bbbb cccc"))), 0,
			flow(plain6, func(f *packet.Flow) { f.Protocol, f.SrcPort, f.DstPort, f.ICMPID = 58, 129, 0, 0xbbbb }),
			pkt(bare(48, 0, ""), func(p *packet.Packet) { p.ID, p.Checksum, p.Seq = 0, 0xaaaa, 0xcccc })},
		{"ICMPv6 too big", 1, eth(0x86dd, ip6(58, unhex("0200 aaaa 000005dc"), ip6(6, hello6))), 0,
			flow(plain6, func(f *packet.Flow) { f.Protocol, f.SrcPort, f.DstPort = 58, 2, 0 }),
			pkt(bare(113, 65, string(ip6(6, hello6))), func(p *packet.Packet) { p.ID, p.Checksum, p.Head = 0, 0xaaaa, ip6(6, hello6) })},
		{"SCTP", 1, eth(0x0800, ip4(132, 0, unhex("03e8 0050 00000000 00ff0f00"), []byte("chunk"))), 0,
			flow(plain, func(f *packet.Flow) { f.Protocol = 132 }), pkt(bare(37, 5, "chunk"), func(p *packet.Packet) { p.Checksum = 0x0fff })},
		{"DCCP", 1, eth(0x0800, ip4(33, 0, unhex("03e8 0050 04 00 aaaa 00000000 00000000"), []byte("data"))), 0,
			flow(plain, func(f *packet.Flow) { f.Protocol = 33 }), pkt(bare(40, 4, "data"), func(p *packet.Packet) { p.Checksum = 0xaaaa })},
		{"GRE is not unwrapped", 1, eth(0x0800, ip4(47, 0, unhex("0000 0800"), segment)), 0, other(47), bare(69, 49, "\x00\x00\x08\x00"+string(segment))},
		{"IP in IP is not unwrapped", 1, eth(0x0800, ip4(4, 0, segment)), 0, other(4), bare(65, 45, string(segment))},
		{"no next header", 1, eth(0x86dd, ip6(59)), 0, flow(plain6, func(f *packet.Flow) { f.Protocol, f.SrcPort, f.DstPort = 59, 0, 0 }),
			pkt(bare(40, 0, ""), func(p *packet.Packet) { p.ID = 0 })},
		{"first fragment", 1, eth(0x0800, ip4(6, 0x2000, tcp(packet.ACK, nil, "hell"))), 0, other(6), pkt(bare(44, 24, ""), func(p *packet.Packet) {
			p.Fragment, p.Head = packet.IsFragment|packet.MoreFragments, tcp(packet.ACK, nil, "hell")
		})},
		{"second fragment", 1, eth(0x0800, ip4(6, 3, []byte("o"))), 0, other(6), pkt(bare(21, 1, ""), func(p *packet.Packet) {
			p.Fragment, p.FragmentOffset, p.Head = packet.IsFragment, 24, []byte("o")
		})},
		{"fragment across the end of the head", 1, eth(0x0800, ip4(6, 0x2000|15, []byte("12345678abcdefgh"))), 0, other(6), pkt(bare(36, 16, ""), func(p *packet.Packet) {
			p.Fragment, p.FragmentOffset, p.Head = packet.IsFragment|packet.MoreFragments, 120, []byte("12345678")
		})},
		{"last possible fragment", 1, eth(0x0800, ip4(6, 0x1fff, []byte("end"))), 0, other(6), pkt(bare(23, 3, ""), func(p *packet.Packet) {
			p.Fragment, p.FragmentOffset = packet.IsFragment, 65528
		})},
		{"IPv6 extension headers", 1, eth(0x86dd, ip6(0, next(43), next(60), next(135), next(51), change(cat(ext, ext), 0, 6, 2), hello6)), 0, plain6, ack6(88, 0)},
		{"IPv6 atomic fragment", 1, eth(0x86dd, ip6(44, unhex("06 00 0006 0000abcd"), hello6)), 0, plain6, ack6(48, 0xabcd)},
		{"IPv6 first fragment", 1, eth(0x86dd, ip6(60, next(44), unhex("06 00 0001 0000abcd"), hello6[:24])), 0,
			flow(plain6, func(f *packet.Flow) { f.SrcPort, f.DstPort = 0, 0 }), pkt(bare(80, 24, ""), func(p *packet.Packet) {
				p.ID, p.Fragment, p.Head = 0xabcd, packet.IsFragment|packet.MoreFragments, hello6[:24]
			})},
		{"IPv6 later fragment", 1, eth(0x86dd, ip6(44, unhex("3c 00 0018 0000abcd"), []byte("o"))), 0,
			flow(plain6, func(f *packet.Flow) { f.Protocol, f.SrcPort, f.DstPort = 60, 0, 0 }), pkt(bare(49, 1, ""), func(p *packet.Packet) {
				p.ID, p.Fragment, p.FragmentOffset, p.Head = 0xabcd, packet.IsFragment, 24, []byte("o")
			})},
		{"IPv6 jumbogram", 1, eth(0x86dd, change(ip6(0, unhex("11 00 c2 04 00020000"), change(udp(53, []byte("query")), 4, 0, 0)), 4, 0, 0)), 131032,
			flow(plain6, func(f *packet.Flow) { f.Protocol, f.SrcPort, f.DstPort = 17, 2000, 53 }),
			pkt(udpPacket("query"), func(p *packet.Packet) { p.ID, p.Length, p.Payload = 0, 131112, 131056 })},
		{"IPv6 without length", 1, eth(0x86dd, change(ip6(6, hello6), 4, 0, 0)), 70000, plain6,
			pkt(ack6(40, 0), func(p *packet.Packet) { p.Length, p.Payload = 70065, 70005 })},
		{"VXLAN", 1, nested(eth(0x0800, segment), 27), 0, carried(27), ack},
		{"VXLAN, reserved bits", 1, eth(0x0800, ip4(17, 0, udp(4789, cat(unhex("ffffffff 00001bff"), eth(0x0800, segment))))), 0, carried(27), ack},
		{"VXLAN without checksum", 1, eth(0x0800, ip4(17, 0, change(udp(4789, vxlan(27, eth(0x0800, segment))), 6, 0, 0))), 0, carried(27), ack},
		{"four VXLANs", 1, nested(eth(0x0800, segment), 1, 2, 3, 4), 0, carried(1, 2, 3, 4), ack},
		{"VXLAN, no length inside", 1, nested(eth(0x0800, change(segment, 2, 0, 0)), 27), 0, carried(27), ack},
		{"VXLAN of a tagged frame", 1, nested(eth(0x8100, unhex("000a 0800"), segment), 27), 0,
			flow(carried(27), func(f *packet.Flow) { f.NVLANs, f.VLANs[0] = 1, 10 }), ack},
		{"to VXLAN's port, too short", 1, eth(0x0800, ip4(17, 0, udp(4789, []byte("\x08hello")))), 0, udpFlow(4789), udpPacket("\x08hello")},
		{"to VXLAN's port, no I flag", 1, eth(0x0800, ip4(17, 0, udp(4789, change(vxlan(27, eth(0x0800, segment)), 0, 0)))), 0, udpFlow(4789),
			udpPacket(string(change(vxlan(27, eth(0x0800, segment)), 0, 0)))},
		{"VXLAN around what is none", 1, nested(eth(0x0800, ip4(17, 0, udp(4789, vxlan(27, eth(0x0800, segment[:10]))))), 9), 0,
			flow(carried(9), func(f *packet.Flow) { f.Protocol, f.SrcPort, f.DstPort = 17, 2000, 4789 }),
			udpPacket(string(vxlan(27, eth(0x0800, segment[:10]))))},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := decode.DefaultConfiguration()
			conf.Payload = true
			d := decode.New(conf)
			// A frame before it has to leave nothing behind.
			if r := d.Frame(1, 1, nested(eth(0x8100, unhex("0001 8100 0002 8100 0003 0800"), ip4(6, 0, syn)), 91, 92, 93, 94), 1000); r != decode.OK {
				t.Fatal(r)
			}
			d.Frame(1, 1, nested(eth(0x8100, unhex("0001 8100 0002 8100 0003 0800"), segment[:10]), 91, 92, 93, 94), 1000)
			if r := d.Frame(7, c.link, c.frame, len(c.frame)+c.extra); r != decode.OK {
				t.Fatal(r)
			}
			got := d.Packet
			if c.packet.Checksum == anySum {
				got.Checksum = anySum
			}
			if d.Flow != c.flow {
				t.Errorf("flow\n%+v, want\n%+v", d.Flow, c.flow)
			}
			if !same(got, c.packet) {
				t.Errorf("packet\n%+v, want\n%+v", got, c.packet)
			}
		})
	}
}

func TestReasons(t *testing.T) {
	chain := unhex("3c00000000000000")
	deep := eth(0x0800, segment)
	for range 5 {
		deep = eth(0x0800, ip4(17, 0, udp(4789, vxlan(1, deep))))
	}
	seen := map[decode.Reason]bool{decode.OK: true, decode.TruncatedVXLAN: true, decode.VXLANFlagMissing: true,
		decode.TruncatedGENEVE: true, decode.GENEVEVersion: true, decode.GENEVEOptions: true} // see TestGENEVEReasons
	for _, c := range []struct {
		name  string
		link  decode.LinkType
		frame []byte
		want  decode.Reason
	}{
		{"link type", 147, segment, decode.UnknownLinkType},
		{"nothing", 1, nil, decode.TruncatedLink},
		{"Ethernet header", 1, eth(0x0800)[:13], decode.TruncatedLink},
		{"VLAN tag", 1, eth(0x8100, unhex("000a 08")), decode.TruncatedLink},
		{"PPPoE header", 1, eth(0x8864, unhex("11000001002f00")), decode.TruncatedLink},
		{"cooked header", 113, make([]byte, 15), decode.TruncatedLink},
		{"cooked v2 header", 276, make([]byte, 19), decode.TruncatedLink},
		{"loopback header", 0, make([]byte, 3), decode.TruncatedLink},
		{"raw nothing", 101, nil, decode.TruncatedLink},
		{"ARP", 1, eth(0x0806, make([]byte, 28)), decode.ARP},
		{"ARP in VXLAN", 1, eth(0x0800, ip4(17, 0, udp(4789, vxlan(1, eth(0x0806, make([]byte, 28)))))), decode.ARP},
		{"LLDP", 1, eth(0x88cc), decode.NotIP},
		{"VXLAN in a fragment", 1, eth(0x0800, change(ip4(17, 0, udp(4789, vxlan(1, eth(0x0800, segment)))), 6, 0x20)), decode.FragmentedCarrier},
		{"LLDP in VXLAN", 1, eth(0x0800, ip4(17, 0, udp(4789, vxlan(1, eth(0x88cc, make([]byte, 28)))))), decode.NotIP},
		{"802.3 length", 1, eth(38, make([]byte, 38)), decode.NotIP},
		{"PPP control", 1, eth(0x8864, unhex("1100 0001 002f c021")), decode.NotIP},
		{"address family", 0, unhex("07000000 00"), decode.NotIP},
		{"IPv4 with version 6", 1, eth(0x0800, ip6(6)), decode.IPVersion},
		{"IPv6 with version 4", 1, eth(0x86dd, segment), decode.IPVersion},
		{"raw IP version", 101, unhex("00"), decode.IPVersion},
		{"IHL", 1, eth(0x0800, change(segment, 0, 0x44)), decode.IPHeaderLength},
		{"IPv4 length", 1, eth(0x0800, change(segment, 2, 0, 19)), decode.IPLength},
		{"IPv4 length below its options", 1, eth(0x0800, change(segment, 0, 0x4f)), decode.IPLength},
		{"no IPv4", 1, eth(0x0800), decode.TruncatedIPv4},
		{"IPv4 header", 1, eth(0x0800, segment[:19]), decode.TruncatedIPv4},
		{"IPv4 options", 1, eth(0x0800, change(segment, 0, 0x46)[:23]), decode.TruncatedIPv4},
		{"no IPv6", 1, eth(0x86dd), decode.TruncatedIPv6},
		{"IPv6 header", 1, eth(0x86dd, ip6(6)[:39]), decode.TruncatedIPv6},
		{"IPv6 extension cut", 1, eth(0x86dd, ip6(60, chain)[:44]), decode.TruncatedIPv6},
		{"IPv6 long extension cut", 1, eth(0x86dd, ip6(60, unhex("0601000000000000"), make([]byte, 8))[:50]), decode.TruncatedIPv6},
		{"IPv6 extension beyond the end", 1, eth(0x86dd, ip6(60, chain[:4])), decode.IPv6Extensions},
		{"IPv6 long extension beyond the end", 1, eth(0x86dd, ip6(60, unhex("06ff000000000000"))), decode.IPv6Extensions},
		{"IPv6 extensions without end", 1, eth(0x86dd, ip6(60, slices.Repeat(chain, 17))), decode.IPv6Extensions},
		{"IPv6 jumbo length too small", 1, eth(0x86dd, change(ip6(0, unhex("11 00 c2 04 00000010"), udp(53, nil)), 4, 0, 0)), decode.IPv6Extensions},
		{"TCP length", 1, eth(0x0800, ip4(6, 0, make([]byte, 19))), decode.TCPHeader},
		{"TCP data offset 4", 1, eth(0x0800, ip4(6, 0, change(tcp(0, nil, ""), 12, 0x40))), decode.TCPHeader},
		{"TCP data offset beyond the end", 1, eth(0x0800, ip4(6, 0, change(tcp(0, nil, ""), 12, 0x60))), decode.TCPHeader},
		{"TCP header cut", 1, eth(0x0800, segment[:39]), decode.TruncatedTCP},
		{"UDP length", 1, eth(0x0800, ip4(17, 0, make([]byte, 7))), decode.UDPHeader},
		{"UDP header cut", 1, eth(0x0800, ip4(17, 0, udp(53, nil))[:27]), decode.TruncatedUDP},
		{"ICMP length", 1, eth(0x0800, ip4(1, 0, unhex("030300"))), decode.ICMPHeader},
		{"ICMP echo length", 1, eth(0x0800, ip4(1, 0, unhex("08000000 0000"))), decode.ICMPHeader},
		{"ICMP header cut", 1, eth(0x0800, ip4(1, 0, make([]byte, 8))[:23]), decode.TruncatedICMP},
		{"ICMP echo cut", 1, eth(0x0800, ip4(1, 0, make([]byte, 8))[:26]), decode.TruncatedICMP},
		{"SCTP length", 1, eth(0x0800, ip4(132, 0, make([]byte, 11))), decode.SCTPHeader},
		{"SCTP header cut", 1, eth(0x0800, ip4(132, 0, make([]byte, 12))[:31]), decode.TruncatedSCTP},
		{"DCCP length", 1, eth(0x0800, ip4(33, 0, make([]byte, 11))), decode.DCCPHeader},
		{"DCCP data offset", 1, eth(0x0800, ip4(33, 0, make([]byte, 12))), decode.DCCPHeader},
		{"DCCP header cut", 1, eth(0x0800, ip4(33, 0, make([]byte, 12))[:31]), decode.TruncatedDCCP},
		{"GENEVE, critical option", 1, eth(0x0800, ip4(17, 0, udp(6081, geneve(1, 0x6558, unhex("0101 80 00"), eth(0x0800, segment))))), decode.GENEVECritical},
		{"five VXLANs", 1, deep, decode.TunnelTooDeep},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := decode.New(decode.DefaultConfiguration())
			if r := d.Frame(7, c.link, c.frame, len(c.frame)); r != c.want || d.Counts[r] != 1 {
				t.Errorf("%v, counted %s, want %v", r, counts(d), c.want)
			}
		})
		seen[c.want] = true
	}
	for r := range decode.Reason(decode.NumReasons) {
		if !seen[r] || r.String() == "" {
			t.Errorf("reason %d (%q) is not tested", r, r)
		}
	}
}

func TestDatagram(t *testing.T) {
	source := addr("192.0.2.7")
	d := decode.New(decode.DefaultConfiguration())
	for _, c := range []struct {
		payload []byte
		want    decode.Reason
	}{
		{vxlan(27, nil)[:7], decode.TruncatedVXLAN},
		{change(vxlan(27, eth(0x0800, segment)), 0, 0xf7), decode.VXLANFlagMissing},
		{vxlan(27, nil), decode.TruncatedLink},
		{vxlan(27, eth(0x1234)), decode.NotIP},
		{vxlan(27, eth(0x0800, segment[:8])), decode.TruncatedIPv4},
		{vxlan(27, eth(0x0800, segment)), decode.OK},
	} {
		if r := d.Datagram(7, source, 4242, c.payload); r != c.want {
			t.Errorf("% x: %v, want %v", c.payload, r, c.want)
		}
	}
	want := flow(plain, func(f *packet.Flow) {
		f.OuterPort, f.NCarriers, f.Carriers[0] = 4242, 1, packet.Carrier{Source: source, VNI: 27}
	})
	if d.Flow != want {
		t.Errorf("%+v, want\n%+v", d.Flow, want)
	}
}

// TestMirrored wants the same from a frame as if mirrored as from the frame, but for the carrier.
func TestMirrored(t *testing.T) {
	inner := eth(0x0800, segment)
	c := decode.DefaultConfiguration()
	c.Scope = decode.Isolated
	plain, mirrored := decode.New(c), decode.New(c)
	tap := packet.Carrier{Source: addr("192.0.2.7"), VNI: 99}
	for depth := range 7 {
		a := plain.Frame(7, 1, inner, len(inner))
		b := mirrored.Mirrored(7, tap, 4242, 1, inner, len(inner))
		if a != b || (a == decode.OK) != (depth <= 4) {
			t.Fatalf("depth %d: %v and %v", depth, a, b)
		}
		if a == decode.OK {
			f := mirrored.Flow
			if f.Carriers[0] != tap || f.OuterPort != 4242 {
				t.Errorf("depth %d: carrier %v, port %d", depth, f.Carriers[0], f.OuterPort)
			}
			f.OuterPort = plain.Flow.OuterPort
			copy(f.Carriers[:], f.Carriers[1:])
			f.NCarriers--
			if f != plain.Flow || !same(mirrored.Packet, plain.Packet) {
				t.Errorf("depth %d: %+v, want\n%+v", depth, f, plain.Flow)
			}
		}
		inner = eth(0x0800, ip4(17, 0, udp(4789, vxlan(uint32(depth), inner))))
	}
}

func TestTenants(t *testing.T) {
	frame := eth(0x0800, ip4(17, 0, udp(4789, vxlan(8, eth(0x0800, segment)))))
	for _, c := range []struct {
		scope      decode.Scope
		vni        uint32
		datagram   string
		frame, raw string
	}{
		{decode.Shared, 7, "", "", ""},
		{decode.Isolated, 7, "vni-7", "vni-8", ""},
		{decode.Mapped, 7, "blue", "", ""},
		{decode.Mapped, 9, "", "", ""},
	} {
		conf := decode.DefaultConfiguration()
		conf.Scope, conf.Tenants = c.scope, map[uint32]string{7: "blue"}
		d := decode.New(conf)
		d.Datagram(1, addr("192.0.2.7"), 1, vxlan(c.vni, frame))
		if d.Flow.Tenant != c.datagram {
			t.Errorf("scope %d: datagram of VNI %d: tenant %q, want %q", c.scope, c.vni, d.Flow.Tenant, c.datagram)
		}
		d.Frame(1, 1, frame, len(frame))
		if d.Flow.Tenant != c.frame {
			t.Errorf("scope %d: frame: tenant %q, want %q", c.scope, d.Flow.Tenant, c.frame)
		}
		d.Frame(1, 101, segment, len(segment))
		if d.Flow.Tenant != c.raw {
			t.Errorf("scope %d: packet without tunnel: tenant %q, want %q", c.scope, d.Flow.Tenant, c.raw)
		}
	}
}

func TestPayload(t *testing.T) {
	for payload, want := range map[bool]string{false: "", true: "hello"} {
		conf := decode.DefaultConfiguration()
		conf.Payload = payload
		d := decode.New(conf)
		if d.Frame(1, 101, segment, len(segment)); string(d.Packet.Data) != want {
			t.Errorf("%v: %q, want %q", payload, d.Packet.Data, want)
		}
	}
}

// TestDigest wants copies that were cut at different lengths to agree, and different packets not to.
func TestDigest(t *testing.T) {
	d := decode.New(decode.DefaultConfiguration())
	frame := ip4(47, 0, make([]byte, 400))
	sum := func(b []byte) uint16 {
		if r := d.Frame(1, 101, b, len(frame)); r != decode.OK {
			t.Fatal(r)
		}
		return d.Packet.Checksum
	}
	if a, b := sum(frame), sum(frame[:200]); a != b {
		t.Errorf("%#x whole, %#x cut", a, b)
	}
	seen := map[uint16]int{}
	for i := range 128 {
		seen[sum(change(frame, 20+i, 1))]++
	}
	if len(seen) < 126 {
		t.Errorf("128 packets gave %d digests", len(seen))
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		change func(c *decode.Configuration)
		ok     bool
	}{
		{func(c *decode.Configuration) {}, true},
		{func(c *decode.Configuration) { c.MaxDepth = 0 }, false},
		{func(c *decode.Configuration) { c.MaxDepth = packet.MaxCarriers }, true},
		{func(c *decode.Configuration) { c.MaxDepth = packet.MaxCarriers + 1 }, false},
		{func(c *decode.Configuration) { c.Tenants = map[uint32]string{1 << 24: "x"} }, false},
	} {
		conf := decode.DefaultConfiguration()
		c.change(&conf)
		if err := conf.Validate(); (err == nil) != c.ok {
			t.Errorf("%+v: %v", conf, err)
		}
	}
}

// TestPorts unwraps what goes to the configured ports, and nothing else.
func TestPorts(t *testing.T) {
	conf := decode.DefaultConfiguration()
	conf.VXLANPorts, conf.GENEVEPorts = []uint16{8472, 4790}, []uint16{6082}
	d := decode.New(conf)
	for _, c := range []struct {
		port     uint16
		payload  []byte
		carriers uint8
	}{
		{8472, vxlan(1, eth(0x0800, segment)), 1},
		{4790, vxlan(1, eth(0x0800, segment)), 1},
		{4789, vxlan(1, eth(0x0800, segment)), 0},
		{6082, geneve(1, 0x0800, nil, segment), 1},
		{6081, geneve(1, 0x0800, nil, segment), 0},
	} {
		if r := d.Frame(1, decode.LinkRaw, ip4(17, 0, udp(c.port, c.payload)), 1500); r != decode.OK || d.Flow.NCarriers != c.carriers {
			t.Errorf("port %d: %v, %d carriers, want %d", c.port, r, d.Flow.NCarriers, c.carriers)
		}
	}
}

// TestDeepest decodes at the greatest depth that a packet can record, and one beyond it.
func TestDeepest(t *testing.T) {
	conf := decode.DefaultConfiguration()
	conf.MaxDepth = packet.MaxCarriers
	d := decode.New(conf)
	inner := eth(0x0800, segment)
	for range packet.MaxCarriers {
		inner = eth(0x0800, ip4(17, 0, udp(4789, vxlan(1, inner))))
	}
	if r := d.Frame(1, 1, inner, len(inner)); r != decode.OK || d.Flow.NCarriers != packet.MaxCarriers {
		t.Errorf("%v, %d carriers", r, d.Flow.NCarriers)
	}
	if r := d.Mirrored(1, packet.Carrier{}, 1, 1, inner, len(inner)); r != decode.TunnelTooDeep {
		t.Error(r)
	}
	inner = eth(0x0800, ip4(17, 0, udp(4789, vxlan(1, inner))))
	if r := d.Frame(1, 1, inner, len(inner)); r != decode.TunnelTooDeep {
		t.Error(r)
	}
}
