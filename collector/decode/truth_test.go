package decode_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapweave/tapweave/collector/decode"
	"github.com/tapweave/tapweave/collector/source/capture"
	"github.com/tapweave/tapweave/proto/capturetest"
	"github.com/tapweave/tapweave/proto/packet"
)

// records calls f for each record of a capture.
func records(tb testing.TB, name string, f func(r capture.Record)) {
	tb.Helper()
	c, err := capture.Open(name)
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	for {
		r, err := c.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			tb.Fatal(err)
		}
		f(r)
	}
}

// side sums up what one end of a conversation sent.
type side struct{ packets, bytes, payload int }

type end struct {
	IP   netip.Addr `json:"ip"`
	Port uint16     `json:"port"`
}

type conversation struct {
	A         end      `json:"a"`
	B         end      `json:"b"`
	Encap     []string `json:"encap"`
	FramesA   int      `json:"frames_a"`
	FramesB   int      `json:"frames_b"`
	BytesA    int      `json:"ip_bytes_a"`
	BytesB    int      `json:"ip_bytes_b"`
	PayloadA  int      `json:"payload_bytes_a"`
	PayloadB  int      `json:"payload_bytes_b"`
	ByHeaderA *header  `json:"payload_by_header_a"`
	ByHeaderB *header  `json:"payload_by_header_b"`
}

type header struct {
	Payload int `json:"payload_bytes"`
}

type truth struct {
	Frames struct {
		Total int `json:"total"`
		IP    int `json:"ip_innermost"`
	} `json:"frames"`
	TCP   []conversation `json:"tcp"`
	UDP   []conversation `json:"udp"`
	Other []conversation `json:"other_ip"`
}

type direction struct {
	protocol uint8
	src, dst end
}

// sums adds the truth up by direction.
func (t *truth) sums() map[direction]side {
	m := map[direction]side{}
	for protocol, list := range map[uint8][]conversation{6: t.TCP, 17: t.UDP} {
		for _, c := range list {
			pa, pb := c.PayloadA, c.PayloadB
			if c.ByHeaderA != nil {
				pa = c.ByHeaderA.Payload
			}
			if c.ByHeaderB != nil {
				pb = c.ByHeaderB.Payload
			}
			for _, x := range []struct {
				d direction
				s side
			}{
				{direction{protocol, c.A, c.B}, side{c.FramesA, c.BytesA, pa}},
				{direction{protocol, c.B, c.A}, side{c.FramesB, c.BytesB, pb}},
			} {
				if x.s.packets > 0 {
					s := m[x.d]
					m[x.d] = side{s.packets + x.s.packets, s.bytes + x.s.bytes, s.payload + x.s.payload}
				}
			}
		}
	}
	return m
}

// datagram names the fragments of one.
type datagram struct {
	src, dst packet.Addr
	protocol uint8
	id       uint32
}

// TestTruth compares what is decoded with what tshark says about the shared captures: by direction of each
// TCP and UDP conversation the packets, IP bytes and payload bytes.
func TestTruth(t *testing.T) {
	inexact := map[string]string{
		"nDPI__fuzz-2006-06-26-2594.pcap":  "broken headers, of which tools make different things",
		"nDPI__ip_fragmented_garbage.pcap": "overlapping fragments: the ports depend on reassembly",
	}
	for _, name := range capturetest.Files(t) {
		base := filepath.Base(name)
		t.Run(base, func(t *testing.T) {
			b, err := os.ReadFile(capturetest.Truth(name))
			if err != nil {
				t.Fatal(err)
			}
			var want truth
			if err := json.Unmarshal(b, &want); err != nil {
				t.Fatal(err)
			}
			d := decode.New(decode.DefaultConfiguration())
			frames := 0
			got := map[direction]side{}
			parts := map[datagram]*side{} // of datagrams whose first fragment was not seen
			firsts := map[datagram]direction{}
			records(t, name, func(r capture.Record) {
				frames++
				if d.Frame(r.Time, r.Link, r.Data, r.Original) != decode.OK {
					return
				}
				f, p := &d.Flow, &d.Packet
				if f.Protocol != 6 && f.Protocol != 17 {
					return
				}
				dir := direction{f.Protocol, end{f.Src.Netip(), f.SrcPort}, end{f.Dst.Netip(), f.DstPort}}
				payload := int(p.Payload)
				if p.Fragment != 0 {
					k := datagram{f.Src, f.Dst, f.Protocol, p.ID}
					if p.FragmentOffset == 0 {
						dir.src.Port, dir.dst.Port = uint16(p.Head[0])<<8|uint16(p.Head[1]), uint16(p.Head[2])<<8|uint16(p.Head[3])
						if payload -= 8; f.Protocol == 6 {
							payload += 8 - int(p.Head[12]>>4)*4
						}
						firsts[k] = dir
					}
					s := parts[k]
					if s == nil {
						s = &side{}
						parts[k] = s
					}
					*s = side{s.packets + 1, s.bytes + int(p.Length), s.payload + payload}
					return
				}
				s := got[dir]
				got[dir] = side{s.packets + 1, s.bytes + int(p.Length), s.payload + payload}
			})
			for k, dir := range firsts {
				s, p := got[dir], parts[k]
				got[dir] = side{s.packets + p.packets, s.bytes + p.bytes, s.payload + p.payload}
			}
			if frames != want.Frames.Total {
				t.Errorf("%d frames, want %d", frames, want.Frames.Total)
			}
			if why := inexact[base]; why != "" {
				t.Log("not compared:", why)
				return
			}
			if int(d.Counts[decode.OK]) != want.Frames.IP {
				t.Errorf("%d packets, want %d: %s", d.Counts[decode.OK], want.Frames.IP, counts(d))
			}
			sums := want.sums()
			for k, w := range sums {
				if got[k] != w {
					t.Errorf("%v: %v, want %v", k, got[k], w)
				}
			}
			for k, g := range got {
				if _, ok := sums[k]; !ok {
					t.Errorf("%v: %v, want none", k, g)
				}
			}
		})
	}
}

func counts(d *decode.Decoder) string {
	var s strings.Builder
	for r, n := range d.Counts {
		if n > 0 {
			fmt.Fprintf(&s, "%s %d ", decode.Reason(r), n)
		}
	}
	return s.String()
}
