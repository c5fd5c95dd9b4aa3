package decode_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/tapweave/tapweave/collector/decode"
	"github.com/tapweave/tapweave/collector/source/capture"
	"github.com/tapweave/tapweave/proto/packet"
)

// awsOptions are those of a gateway load balancer: endpoint's ENI, attachment, flow cookie.
var awsOptions = unhex("0108 01 02 0123456789abcdef 0108 02 02 00000000000000a7 0108 03 01 deadbeef")

func geneve(vni uint32, protocol uint16, options []byte, rest ...[]byte) []byte {
	b := []byte{byte(len(options) / 4), 0}
	b = binary.BigEndian.AppendUint16(b, protocol)
	b = binary.BigEndian.AppendUint32(b, vni<<8)
	return cat(b, options, cat(rest...))
}

func TestGENEVE(t *testing.T) {
	source := addr("192.0.2.1")
	mirror := ip4(17, 0, udp(4789, vxlan(27, eth(0x0800, segment))))
	for _, c := range []struct {
		name     string
		payload  []byte
		carriers []packet.Carrier
		tenant   string
	}{
		{"Ethernet", geneve(7, 0x6558, nil, eth(0x0800, segment)), []packet.Carrier{{Source: source, VNI: 7}}, "vni-7"},
		{"IPv4", geneve(7, 0x0800, nil, segment), []packet.Carrier{{Source: source, VNI: 7}}, "vni-7"},
		{"unknown options", geneve(7, 0x0800, unhex("ffff 7f 01 00000000 0101 00 00"), segment), []packet.Carrier{{Source: source, VNI: 7}}, "vni-7"},
		{"AWS", geneve(0, 0x0800, awsOptions, segment), []packet.Carrier{{Source: source}}, "vni-0"},
		{"AWS, around VXLAN", geneve(0, 0x0800, awsOptions, mirror), []packet.Carrier{{Source: source}, {Source: addr("10.0.0.1"), VNI: 27}}, "vni-27"},
		{"around GENEVE", geneve(1, 0x0800, nil, ip4(17, 0, udp(6081, geneve(2, 0x6558, awsOptions, eth(0x0800, segment))))),
			[]packet.Carrier{{Source: source, VNI: 1}, {Source: addr("10.0.0.1"), VNI: 2}}, "vni-2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := decode.DefaultConfiguration()
			conf.Scope = decode.Isolated
			d := decode.New(conf)
			if r := d.GENEVE(1, source, 4242, c.payload); r != decode.OK {
				t.Fatal(r)
			}
			f := &d.Flow
			if int(f.NCarriers) != len(c.carriers) || f.Tenant != c.tenant || f.Protocol != packet.ProtoTCP || f.OuterPort != 4242 || f.Src != addr("10.0.0.1") {
				t.Errorf("%+v", f)
			}
			for i, carrier := range c.carriers {
				if f.Carriers[i] != carrier {
					t.Errorf("carrier %d: %v, want %v", i, f.Carriers[i], carrier)
				}
			}
			// The same from a capture of the outer packet, but for the tenant, which is the outermost's there.
			outer := eth(0x0800, change(ip4(17, 0, udp(6081, c.payload)), 12, 192, 0, 2, 1))
			fresh := decode.New(decode.DefaultConfiguration())
			if r := fresh.Frame(1, decode.LinkEthernet, outer, len(outer)); r != decode.OK || fresh.Flow.Carriers != f.Carriers || !same(fresh.Packet, d.Packet) {
				t.Errorf("as a frame: %v, %+v", r, fresh.Flow)
			}
		})
	}
	if e, ok := decode.EndpointOf(geneve(0, 0x0800, awsOptions)); !ok || e != (decode.Endpoint{ENI: 0x0123456789abcdef, Attachment: 0xa7}) {
		t.Errorf("%v, %x", ok, e)
	}
	if e, ok := decode.EndpointOf(geneve(0, 0x0800, unhex("0108 01 01 01234567"))); ok {
		t.Errorf("%x", e)
	}
}

func TestGENEVEReasons(t *testing.T) {
	whole := geneve(1, 0x6558, awsOptions, eth(0x0800, segment))
	for _, c := range []struct {
		name    string
		payload []byte
		want    decode.Reason
	}{
		{"nothing", nil, decode.TruncatedGENEVE},
		{"header", whole[:7], decode.TruncatedGENEVE},
		{"options", whole[:8+len(awsOptions)-1], decode.TruncatedGENEVE},
		{"version", change(whole, 0, 0x40|whole[0]), decode.GENEVEVersion},
		{"control", change(whole, 1, 0x80), decode.GENEVEVersion},
		{"option beyond the header", geneve(1, 0x6558, unhex("0101 00 01"), eth(0x0800, segment)), decode.GENEVEOptions},
		{"critical option", geneve(1, 0x6558, unhex("0101 80 00"), eth(0x0800, segment)), decode.GENEVECritical},
		{"critical option behind others", geneve(1, 0x6558, cat(awsOptions, unhex("0101 81 00")), eth(0x0800, segment)), decode.GENEVECritical},
		{"MPLS", geneve(1, 0x8847, nil, segment), decode.NotIP},
		{"reserved bits", change(change(whole, 1, 0x3f), 7, 0xff), decode.OK},
		{"critical bit alone", change(whole, 1, 0x40), decode.OK}, // the options decide
	} {
		d := decode.New(decode.DefaultConfiguration())
		if r := d.GENEVE(1, packet.Addr{}, 1, c.payload); r != c.want || d.Counts[r] != 1 {
			t.Errorf("%s: %v, counted %s, want %v", c.name, r, counts(d), c.want)
		}
	}
}

// TestGENEVEHeader reads random headers as gopacket does.
func TestGENEVEHeader(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	read := 0
	for range 20000 {
		var options []byte
		for range r.IntN(4) {
			n := r.IntN(4)
			options = append(options, byte(r.IntN(2)), byte(r.IntN(256)), byte(r.IntN(128)), byte(n))
			options = append(options, make([]byte, 4*n)...)
		}
		b := geneve(uint32(r.IntN(1<<24)), 0x6558, options, eth(0x0800, segment))
		if r.IntN(4) == 0 {
			b[r.IntN(8+len(options))] ^= 1 << r.IntN(8)
		}
		d := decode.New(decode.DefaultConfiguration())
		if d.GENEVE(1, packet.Addr{}, 1, b) != decode.OK || d.Flow.Protocol != packet.ProtoTCP {
			continue
		}
		read++
		var judge layers.Geneve
		if err := judge.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
			t.Fatalf("%x: %v", b, err)
		}
		if judge.VNI != d.Flow.Carriers[0].VNI || judge.Version != 0 || judge.OAMPacket {
			t.Fatalf("%x: %+v", b, judge)
		}
		for _, o := range judge.Options {
			if o.Type&0x80 != 0 {
				t.Fatalf("%x: option %+v", b, o)
			}
		}
	}
	if read < 15000 {
		t.Errorf("%d were read", read)
	}
}

func FuzzGENEVE(f *testing.F) {
	n := 0
	seed(f, func(r capture.Record) {
		if n++; n%50 == 0 {
			f.Add(geneve(27, 0x6558, awsOptions, r.Data))
		}
	})
	conf := decode.DefaultConfiguration()
	conf.Payload, conf.Scope = true, decode.Isolated
	d := decode.New(conf)
	f.Fuzz(func(t *testing.T, payload []byte) {
		if d.GENEVE(1, packet.Addr{15: 1}, 2, payload) == decode.OK {
			sound(t, d, len(payload))
			decode.EndpointOf(payload)
			if d.Flow.NCarriers == 0 || d.Flow.OuterPort != 2 {
				t.Errorf("%+v", d.Flow)
			}
		}
	})
}
