package session

import (
	"net/netip"
	"testing"

	"github.com/tapweave/tapweave/proto/packet"
)

func addr(s string) packet.Addr { return packet.AddrFrom(netip.MustParseAddr(s)) }

// The vectors are from the specification's baseline directory, and from Zeek's tests of the same function:
// https://github.com/corelight/community-id-spec/blob/master/baseline/baseline_deflt.json
func TestCommunityID(t *testing.T) {
	for _, c := range []struct {
		protocol     uint8
		src          string
		srcPort      uint16
		dst          string
		dstPort      uint16
		want         string
		oneDirection bool // an ICMP type without a counterpart
	}{
		{6, "128.232.110.120", 34855, "66.35.250.204", 80, "1:LQU9qZlK+B5F3KDmev6m5PMibrg=", false},
		{6, "1.2.3.4", 1122, "5.6.7.8", 3344, "1:wCb3OG7yAFWelaUydu0D+125CLM=", false},
		{17, "1.2.3.4", 1122, "5.6.7.8", 3344, "1:0Mu9InQx6z4ZiCZM/7HXi2WMhOg=", false},
		{6, "2001:470:e5bf:dead:4957:2174:e82c:4887", 63943, "2607:f8b0:400c:c03::1a", 25, "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4=", false},
		{17, "192.168.1.52", 54585, "8.8.8.8", 53, "1:d/FP5EW3wiY1vCndhwleRRKHowQ=", false},
		{132, "192.168.170.8", 7, "192.168.170.56", 7, "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs=", false},
		{46, "10.1.12.1", 0, "10.1.12.2", 0, "1:KHlLkgoJW7ifUTyTSgyVfkFHzKw=", false},
		{1, "192.168.0.89", 8, "192.168.0.1", 0, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk=", false},
		{1, "10.0.0.1", 11, "10.0.0.2", 0, "1:YHxtAirCG//0OzkcVAukqKQN9xM=", true},
		{58, "fe80::200:86ff:fe05:80da", 135, "fe80::260:97ff:fe07:69ea", 136, "1:dGHyGvjMfljg6Bppwm3bg0LO8TY=", false},
		{58, "fe80::260:97ff:fe07:69ea", 135, "fe80::200:86ff:fe05:80da", 136, "1:zavyT/cezQr1fmImYCwYnMXbgck=", false},
		{58, "3ffe:501:1800:2345::2", 3, "3ffe:507:0:1:200:86ff:fe05:80da", 0, "1:2ObVBgIn28oZvibYZhZMBgh7WdQ=", true},
		{58, "3ffe:501:410:0:2c0:dfff:fe47:33e", 1, "3ffe:507:0:1:200:86ff:fe05:80da", 4, "1:hLZd0XGWojozrvxqE0dWB1iM6R0=", true},
		{58, "3ffe:507:0:1:200:86ff:fe05:80da", 128, "3ffe:501:0:1001::2", 129, "1:+TW+HtLHvV1xnGhV1lv7XoJrqQg=", false},
		{58, "fe80::200:86ff:fe05:80da", 133, "ff02::2", 134, "1:hO+sN4H+MG5MY/8hIrXPqc4ZQz0=", false},
		{58, "fe80::260:97ff:fe07:69ea", 134, "ff02::1", 133, "1:pkvHqCL88/tg1k4cPigmZXUtL00=", false},
	} {
		if got := CommunityID(c.protocol, addr(c.src), c.srcPort, addr(c.dst), c.dstPort, c.oneDirection); got != c.want {
			t.Errorf("protocol %d, %s:%d to %s:%d: %s, want %s", c.protocol, c.src, c.srcPort, c.dst, c.dstPort, got, c.want)
		}
		if c.oneDirection {
			continue
		}
		if got := CommunityID(c.protocol, addr(c.dst), c.dstPort, addr(c.src), c.srcPort, false); got != c.want {
			t.Errorf("protocol %d, %s:%d to %s:%d, reversed: %s, want %s", c.protocol, c.src, c.srcPort, c.dst, c.dstPort, got, c.want)
		}
	}
}

func TestICMPPair(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		pairs := 0
		for i := range 256 {
			answer, ok := ICMPPair(v6, uint8(i))
			if !ok {
				continue
			}
			pairs++
			if back, ok := ICMPPair(v6, answer); !ok || back != uint8(i) {
				t.Errorf("v6 %t: %d is answered by %d, which is answered by %d (%t)", v6, i, answer, back, ok)
			}
			if ICMPError(v6, uint8(i)) {
				t.Errorf("v6 %t: type %d is an error and has an answer", v6, i)
			}
		}
		if want := map[bool]int{false: 10, true: 14}[v6]; pairs != want {
			t.Errorf("v6 %t: %d types have an answer, want %d", v6, pairs, want)
		}
	}
}

func TestKeySymmetry(t *testing.T) {
	ends := []struct {
		addr string
		port uint16
	}{{"10.0.0.4", 443}, {"10.0.0.4", 49152}, {"10.0.0.5", 443}, {"2001:db8::1", 443}, {"::", 0}, {"255.255.255.255", 65535}}
	seen := make(map[Key][2]int)
	hashes := make(map[uint64]Key)
	for i, a := range ends {
		for j, b := range ends {
			for _, tenant := range []string{"", "blue"} {
				for _, protocol := range []uint8{6, 17} {
					k, srcLow := NewKey(tenant, protocol, addr(a.addr), a.port, addr(b.addr), b.port)
					back, backLow := NewKey(tenant, protocol, addr(b.addr), b.port, addr(a.addr), a.port)
					if k != back {
						t.Errorf("%v and %v: keys of both directions differ", a, b)
					}
					if i != j && srcLow == backLow {
						t.Errorf("%v and %v: both directions say that src is low: %t", a, b, srcLow)
					}
					pair := [2]int{min(i, j), max(i, j)}
					if other, ok := seen[k]; ok && other != pair {
						t.Errorf("%v and %v have the key of another pair", a, b)
					}
					seen[k] = pair
					if other, ok := hashes[k.Hash()]; ok && other != k {
						t.Errorf("%v and %v have the same hash", other, k)
					}
					hashes[k.Hash()] = k
				}
			}
		}
	}
}

// Partitions, hashes and ids must never change: logs and snapshots of earlier versions rely on them.
func TestGolden(t *testing.T) {
	for _, c := range []struct {
		tenant, a, b string
		n, want      int
	}{
		{"", "10.0.0.4", "10.0.1.5", 16, 1},
		{"", "10.0.0.4", "10.0.1.6", 16, 15},
		{"", "192.168.1.52", "8.8.8.8", 16, 3},
		{"", "2001:db8::1", "2001:db8::2", 16, 11},
		{"green", "10.0.0.4", "10.0.1.5", 16, 3},
		{"", "10.0.0.4", "10.0.1.5", 3, 0},
		{"", "10.0.0.4", "10.0.1.5", 1, 0},
	} {
		a, b := addr(c.a), addr(c.b)
		got := Partition(c.tenant, &a, &b, c.n)
		if got != c.want {
			t.Errorf("%q %s %s of %d: partition %d, want %d", c.tenant, c.a, c.b, c.n, got, c.want)
		}
		if back := Partition(c.tenant, &b, &a, c.n); back != got {
			t.Errorf("%q %s %s of %d: partition %d, reversed %d", c.tenant, c.a, c.b, c.n, got, back)
		}
		if c.tenant == "" && Partition(DefaultTenant, &a, &b, c.n) != got {
			t.Errorf("%s %s: the empty tenant is not the default one", c.a, c.b)
		}
	}
	k, _ := NewKey("", 6, addr("10.0.0.4"), 49152, addr("10.0.1.5"), 443)
	if got, want := k.Hash(), uint64(0xb3b7b6f007e4ad87); got != want {
		t.Errorf("hash %#x, want %#x", got, want)
	}
	if got, want := NewID(&k, 1772356502123456789).String(), "2075ba707ca0c718695552a1f954aec8"; got != want {
		t.Errorf("session_id %s, want %s", got, want)
	}
}

func TestPartitionsAreEven(t *testing.T) {
	const n, pairs = 16, 64 * 1024
	var count [n]int
	for i := range pairs {
		a := packet.AddrFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
		b := addr("10.1.0.1")
		count[Partition("", &a, &b, n)]++
	}
	for p, c := range count {
		if c < pairs/n*9/10 || c > pairs/n*11/10 {
			t.Errorf("partition %d has %d of %d pairs", p, c, pairs)
		}
	}
}

func TestIDsAreUnique(t *testing.T) {
	seen := make(map[ID]bool)
	for port := range 256 {
		k, _ := NewKey("", 6, addr("10.0.0.4"), uint16(port), addr("10.0.1.5"), 443)
		for ns := range int64(256) {
			id := NewID(&k, 1772356502123456789+ns)
			if seen[id] {
				t.Fatalf("port %d, %d ns: id %s again", port, ns, id)
			}
			seen[id] = true
		}
	}
	a, _ := NewKey("", 6, addr("10.0.0.4"), 49152, addr("10.0.1.5"), 443)
	b := a
	b.Tenant = "blue"
	c := a
	c.Extra = 7
	ids := map[ID]bool{NewID(&a, 1): true, NewID(&b, 1): true, NewID(&c, 1): true}
	if len(ids) != 3 {
		t.Errorf("tenant or Extra is no part of the id")
	}
}

// Pairs of neighbouring addresses spread evenly over partitions, and their keys over a table's buckets.
func TestSpread(t *testing.T) {
	const partitions, buckets, pairs = 64, 1 << 12, 1 << 16
	for _, prefix := range []string{"10.0.0.0", "2001:db8::"} {
		var p [partitions]int
		var b [buckets]int
		base := addr(prefix)
		for i := range pairs {
			src, dst := base, base
			src[14], src[15], dst[13], dst[15] = byte(i>>12), byte(i>>4), 1, byte(i&15)
			p[Partition("", &src, &dst, partitions)]++
			k, _ := NewKey("", packet.ProtoTCP, src, uint16(40000+i%1000), dst, 443)
			b[k.Hash()%buckets]++
		}
		// Chi squared over its degrees of freedom is 1 for random numbers, within sqrt(2/n) or so.
		for what, counts := range map[string][]int{"partitions": p[:], "buckets": b[:]} {
			mean, sum := float64(pairs)/float64(len(counts)), 0.0
			for _, n := range counts {
				sum += (float64(n) - mean) * (float64(n) - mean) / mean
			}
			if x := sum / float64(len(counts)-1); x > 2 {
				t.Errorf("%s: %s are used unevenly: chi squared is %.2f times that of random numbers", prefix, what, x)
			}
		}
	}
}
