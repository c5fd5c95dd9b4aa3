package batch

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/tapweave/tapweave/proto/packet"
)

// traffic returns flows and packets that look like those of a busy partition, odd ones among them.
func traffic(seed uint64, flows, packets int) ([]packet.Flow, []packet.Packet) {
	r := rand.New(rand.NewPCG(seed, 1))
	v4 := func(n int) (a packet.Addr) {
		a[10], a[11], a[12], a[14], a[15] = 0xff, 0xff, 10, byte(n>>8), byte(n)
		return a
	}
	fs := make([]packet.Flow, flows)
	for i := range fs {
		f := &fs[i]
		*f = packet.Flow{
			Src: v4(r.IntN(50)), Dst: v4(r.IntN(50)), SrcPort: uint16(r.Uint32()), DstPort: 443, Protocol: packet.ProtoTCP, TTL: 64,
			SrcMAC: [6]byte{2, 0, 0, 0, 0, byte(i)}, DstMAC: [6]byte{2, 0, 0, 0, 1, byte(i)},
			NCarriers: 1, OuterPort: uint16(i), Carriers: [packet.MaxCarriers]packet.Carrier{{Source: v4(7), VNI: 27}},
		}
		switch r.IntN(8) {
		case 0:
			f.V6, f.Src[0], f.Dst[0], f.Protocol = true, 0x20, 0x20, packet.ProtoUDP
		case 1:
			f.Protocol, f.ICMPID, f.NVLANs, f.VLANs = packet.ProtoICMP, 77, 2, [packet.MaxVLANs]uint16{5, 6}
		case 2:
			f.Tenant = fmt.Sprint("tenant-", r.IntN(3))
		case 3:
			f.NCarriers, f.OuterPort, f.Carriers = 0, 0, [packet.MaxCarriers]packet.Carrier{}
		case 4:
			f.NCarriers = 2
			f.Carriers[1].Source[0], f.Carriers[1].VNI = 0xfd, 1<<24-1
		}
	}
	ps := make([]packet.Packet, packets)
	now := int64(1_700_000_000_000_000_000)
	seqs := make([]uint32, flows)
	for i := range ps {
		now += int64(r.IntN(2e6)) - 1e5
		f := r.IntN(flows)
		p := &ps[i]
		*p = packet.Packet{
			Time: now, Flow: uint32(f), ID: r.Uint32N(1 << 16), Checksum: uint16(r.Uint32()), Payload: r.Uint32N(1460),
			Seq: seqs[f], Ack: seqs[(f+1)%flows], Flags: packet.ACK, Window: uint16(r.Uint32N(3)) << 8, WindowScale: packet.NoWindowScale,
		}
		p.Length = p.Payload + 40
		seqs[f] += p.Payload
		switch r.IntN(20) {
		case 0:
			p.Flags, p.MSS, p.WindowScale = packet.SYN, 1460, 7
		case 1:
			p.Fragment, p.FragmentOffset, p.Head = packet.IsFragment|packet.MoreFragments, 8, []byte{1, 2, 3}
		case 2:
			p.Data = bytes.Repeat([]byte{byte(i)}, int(p.Payload))
		case 3:
			p.Data = []byte("GET")
		}
	}
	return fs, ps
}

func encode(fs []packet.Flow, ps []packet.Packet, c Compression) []byte {
	e := NewEncoder()
	for i := range ps {
		e.Append(&fs[ps[i].Flow], &ps[i])
	}
	return e.Seal(c)
}

func TestRoundTrip(t *testing.T) {
	for _, c := range []Compression{None, S2} {
		for seed := range uint64(20) {
			fs, ps := traffic(seed, 1+int(seed)*9, 1+int(seed)*200)
			b := encode(fs, ps, c)
			var got Packets
			if err := got.Decode(b); err != nil {
				t.Fatal(seed, err)
			}
			if len(got.Packets) != len(ps) {
				t.Fatalf("seed %d: %d packets, want %d", seed, len(got.Packets), len(ps))
			}
			for i, p := range got.Packets {
				want := ps[i]
				if got.Flows[p.Flow] != fs[want.Flow] {
					t.Fatalf("seed %d packet %d: flow %+v, want %+v", seed, i, got.Flows[p.Flow], fs[want.Flow])
				}
				want.Flow = p.Flow
				if len(want.Data) == 0 {
					want.Data = nil
				}
				if !reflect.DeepEqual(p, want) {
					t.Fatalf("seed %d packet %d: %+v, want %+v", seed, i, p, want)
				}
			}
			sorted := slices.IsSortedFunc(ps, func(a, b packet.Packet) int { return int(a.Time - b.Time) })
			if got.Sorted != sorted {
				t.Fatalf("seed %d: sorted %v, want %v", seed, got.Sorted, sorted)
			}
		}
	}
}

// An encoder and a decoder that are used again behave like new ones, and allocate nothing.
func TestReuse(t *testing.T) {
	e, d := NewEncoder(), new(Packets)
	var buf []byte
	fs, ps := traffic(3, 100, 2000)
	want := encode(fs, ps, S2)
	round := func() {
		for i := range ps {
			e.Append(&fs[ps[i].Flow], &ps[i])
		}
		buf = e.Seal(S2)
	}
	for range 3 {
		round()
		if !bytes.Equal(buf, want) {
			t.Fatal("a reused encoder encodes otherwise")
		}
		if err := d.Decode(buf); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(10, round); n > 0 {
		t.Errorf("%v allocations to encode a batch", n)
	}
}

func TestVersion(t *testing.T) {
	fs, ps := traffic(1, 3, 10)
	b := encode(fs, ps, None)
	b[0] = 9
	var v *VersionError
	if err := new(Packets).Decode(b); !errors.As(err, &v) || v.Found != 9 || v.Known != Version {
		t.Fatal(err)
	}
}

// Every cut and every flipped byte either decodes to something or is corrupt: nothing panics.
func TestDamage(t *testing.T) {
	for _, c := range []Compression{None, S2} {
		fs, ps := traffic(5, 12, 60)
		b := encode(fs, ps, c)
		var d Packets
		for i := range b {
			if err := d.Decode(b[:i]); err == nil {
				t.Fatalf("%d of %d bytes decode", i, len(b))
			}
			for _, x := range []byte{1, 0x80, 0xff} {
				bad := bytes.Clone(b)
				bad[i] ^= x
				check(t, d.Decode(bad), &d)
			}
		}
	}
}

func check(t *testing.T, err error, d *Packets) {
	var v *VersionError
	if err != nil && !errors.Is(err, ErrCorrupt) && !errors.As(err, &v) {
		t.Fatalf("unnamed error %v", err)
	}
	if err == nil {
		for i := range d.Packets {
			if int(d.Packets[i].Flow) >= len(d.Flows) || d.Packets[i].Payload > d.Packets[i].Length {
				t.Fatalf("packet %d: %+v", i, d.Packets[i])
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for seed := range uint64(4) {
		fs, ps := traffic(seed, 5, 20)
		f.Add(encode(fs, ps, None))
		f.Add(encode(fs, ps, S2))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var d Packets
		err := d.Decode(b)
		check(t, err, &d)
		if err != nil {
			return
		}
		// What decodes can be encoded, and is then the same.
		var again Packets
		if err := again.Decode(encode(d.Flows, d.Packets, None)); err != nil || len(again.Packets) != len(d.Packets) {
			t.Fatalf("%d packets, again %d, %v", len(d.Packets), len(again.Packets), err)
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	fs, ps := traffic(1, 400, 8000)
	e := NewEncoder()
	b.ReportAllocs()
	for b.Loop() {
		for i := range ps {
			e.Append(&fs[ps[i].Flow], &ps[i])
		}
		e.Seal(S2)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(ps)), "ns/packet")
}

func BenchmarkDecode(b *testing.B) {
	fs, ps := traffic(1, 400, 8000)
	buf := encode(fs, ps, S2)
	var d Packets
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Decode(buf); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(ps)), "ns/packet")
}
