package packet_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"strings"
	"testing"

	"github.com/tapweave/tapweave/proto/capturetest"
	"github.com/tapweave/tapweave/proto/packet"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

const (
	v4    = "45000054 00010000 4011 0000 0a000001 0a000002 "
	v6    = "60000000 0014 %s 40 fd000000000000000000000000000001 fd000000000000000000000000000002 "
	ports = "03e8 0035"
)

func ipv6(next string) string { return strings.Replace(v6, "%s", next, 1) }

func TestQuote(t *testing.T) {
	for _, c := range []struct {
		name     string
		head     string
		protocol uint8
		src, dst uint16
		id       uint16
		ok       bool
	}{
		{"nothing", "", 0, 0, 0, 0, false},
		{"another version", "55" + v4[2:], 0, 0, 0, 0, false},
		{"IPv4", v4 + ports, 17, 1000, 53, 0, true},
		{"IPv4 options", "46" + v4[2:] + "01010101" + ports, 17, 1000, 53, 0, true},
		{"IPv4 options cut", "4f" + v4[2:] + ports, 17, 0, 0, 0, true},
		{"IPv4 without ports", v4 + "03e800", 17, 0, 0, 0, true},
		{"IPv4 header length", "44" + v4[2:] + ports, 0, 0, 0, 0, false},
		{"IPv4 cut", v4[:len(v4)-3], 0, 0, 0, 0, false},
		{"IPv4 later fragment", strings.Replace(v4, "00010000", "00010001", 1) + ports, 17, 0, 0, 0, true},
		{"IPv4 first fragment", strings.Replace(v4, "00010000", "00012000", 1) + ports, 17, 1000, 53, 0, true},
		{"echo", strings.Replace(v4, "4011", "4001", 1) + "0800 0000 abcd 0001", 1, 8, 0, 0xabcd, true},
		{"echo cut", strings.Replace(v4, "4011", "4001", 1) + "0800 0000 ab", 1, 8, 0, 0, true},
		{"no ports", strings.Replace(v4, "4011", "402f", 1) + ports, 47, 0, 0, 0, true},
		{"IPv6", ipv6("06") + ports, 6, 1000, 53, 0, true},
		{"IPv6 cut", ipv6("06")[:len(ipv6("06"))-3], 0, 0, 0, 0, false},
		{"IPv6 extensions", ipv6("00") + "33 00 0000 00000000  2c 01 0000 00000000 00000000  3a 00 0000 00000001  8000 0000 abcd 0001", 58, 128, 0, 0xabcd, true},
		{"IPv6 later fragment", ipv6("2c") + "11 00 0008 00000001" + ports, 17, 0, 0, 0, true},
		{"IPv6 extension cut", ipv6("3c") + "11 00 0000", 60, 0, 0, 0, true},
		{"IPv6 extension longer than the quote", ipv6("3c") + "11 09 0000 00000000" + ports, 17, 0, 0, 0, true},
	} {
		src, dst, protocol, srcPort, dstPort, ok := packet.Quote(unhex(c.head))
		if ok != c.ok || protocol != c.protocol || srcPort != c.src || dstPort != c.dst {
			t.Errorf("%s: %v %d %d %d, want %v %d %d %d", c.name, ok, protocol, srcPort, dstPort, c.ok, c.protocol, c.src, c.dst)
		}
		if ok {
			want := map[bool]string{true: "10.0.0.1 10.0.0.2", false: "fd00::1 fd00::2"}[c.head[0] == '4']
			if got := src.String() + " " + dst.String(); got != want {
				t.Errorf("%s: %s, want %s", c.name, got, want)
			}
		}
		if id := packet.QuoteICMPID(unhex(c.head)); id != c.id {
			t.Errorf("%s: ICMP id %#x, want %#x", c.name, id, c.id)
		}
	}
}

func FuzzQuote(f *testing.F) {
	// Seeds are what looks like an IP header in the shared captures, which lie beside the repository.
	for _, name := range capturetest.Files(f) {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for range 3 {
			i := bytes.Index(b, []byte{0x45, 0})
			if j := bytes.Index(b, []byte{0x86, 0xdd, 0x60}); j >= 0 && (i < 0 || j < i) {
				i = j + 2
			}
			if i < 0 {
				break
			}
			f.Add(b[i:min(len(b), i+packet.HeadBytes)])
			b = b[i+2:]
		}
	}
	f.Add(unhex(v4 + ports))
	f.Add(unhex(ipv6("00") + "33 00 0000 00000000 2c 01 0000 00000000 00000000 3a 00 0000 00000001 8000 0000 abcd 0001"))
	f.Fuzz(func(t *testing.T, head []byte) {
		src, dst, protocol, srcPort, dstPort, ok := packet.Quote(head)
		if !ok && (src != packet.Addr{} || dst != packet.Addr{} || protocol != 0 || srcPort|dstPort != 0) {
			t.Error("not ok, but something was read")
		}
		// What a longer quote adds changes neither the pair nor, once known, the ports.
		src2, dst2, _, _, _, ok2 := packet.Quote(append(head[:len(head):len(head)], make([]byte, 8)...))
		if ok && (!ok2 || src != src2 || dst != dst2) {
			t.Errorf("%v %v, longer %v %v %v", src, dst, src2, dst2, ok2)
		}
	})
}
