package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/tapweave/tapweave/collector/decode"
	"github.com/tapweave/tapweave/collector/source/capture"
	"github.com/tapweave/tapweave/deploy/standalone/programtest"
	"github.com/tapweave/tapweave/proto/capturetest"
	"github.com/tapweave/tapweave/proto/packet"
)

// collector is a socket that keeps what it gets.
type collector struct {
	conn *net.UDPConn
	got  []received
	done chan struct{}
}

type received struct {
	from    netip.AddrPort
	at      time.Time
	payload []byte
}

// listen starts collectors on free ports and returns them with their addresses.
func listen(t *testing.T, n int) (list []*collector, to []string) {
	t.Helper()
	for range n {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		conn.SetReadBuffer(8 << 20)
		c := &collector{conn: conn, done: make(chan struct{})}
		go func() {
			defer close(c.done)
			b := make([]byte, 1<<16)
			for {
				n, from, err := conn.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				c.got = append(c.got, received{from, time.Now(), bytes.Clone(b[:n])})
			}
		}()
		list, to = append(list, c), append(to, conn.LocalAddr().String())
	}
	return list, to
}

// stop returns what arrived.
func (c *collector) stop() []received {
	c.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	<-c.done
	c.conn.Close()
	return c.got
}

var macs = [2]net.HardwareAddr{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}}

// frame serializes layers.
func frame(t *testing.T, all ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// udp is an IPv4 packet with a payload of its own.
func udp(t *testing.T, src, dst string, from, to int, payload string) []byte {
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.ParseIP(src).To4(), DstIP: net.ParseIP(dst).To4()}
	u := &layers.UDP{SrcPort: layers.UDPPort(from), DstPort: layers.UDPPort(to)}
	u.SetNetworkLayerForChecksum(ip)
	return frame(t, ip, u, gopacket.Payload(payload))
}

// ethernet puts an Ethernet header before an IPv4 packet.
func ethernet(t *testing.T, ip []byte) []byte {
	return frame(t, &layers.Ethernet{SrcMAC: macs[0], DstMAC: macs[1], EthernetType: layers.EthernetTypeIPv4}, gopacket.Payload(ip))
}

// mirrored is a frame as a tap sends it, with VNI and source port.
func mirrored(t *testing.T, tap string, port, vni int, inner []byte) []byte {
	vxlan := frame(t, &layers.VXLAN{ValidIDFlag: true, VNI: uint32(vni)}, gopacket.Payload(inner))
	return ethernet(t, udp(t, tap, "10.9.9.9", port, 4789, string(vxlan)))
}

// pcap is a capture of frames, step apart.
func pcap(t *testing.T, link layers.LinkType, step time.Duration, frames ...[]byte) *Capture {
	t.Helper()
	c, err := NewCapture("test.pcap", bytes.NewReader(pcapFile(t, link, step, frames...)), 0)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func pcapFile(t *testing.T, link layers.LinkType, step time.Duration, frames ...[]byte) []byte {
	t.Helper()
	var file bytes.Buffer
	w := pcapgo.NewWriterNanos(&file)
	if err := w.WriteFileHeader(1<<18, link); err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1700000000, 0)
	for _, f := range frames {
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(f), Length: len(f)}, f); err != nil {
			t.Fatal(err)
		}
		at = at.Add(step)
	}
	return file.Bytes()
}

func replay(t *testing.T, o Options, captures ...*Capture) Result {
	t.Helper()
	result, err := Run(t.Context(), o, captures)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// A capture that was taken behind a TAP: its taps stay apart, its VXLAN headers stay as they are, and each outer flow
// has one way.
func TestMirrored(t *testing.T) {
	var frames [][]byte
	const n = 400
	for i := range n {
		inner := ethernet(t, udp(t, "10.0.0.4", "10.0.0.5", 1000+i%100, 53, fmt.Sprint("payload ", i)))
		frames = append(frames, mirrored(t, []string{"10.1.1.4", "10.1.1.5", "10.2.1.4"}[i%3], 50000+i%100, 27+i%3, inner))
	}
	list, to := listen(t, 3)
	result := replay(t, Options{To: to, PPS: 1e6}, pcap(t, layers.LinkTypeEthernet, 0, frames...))
	if result.Packets != n || len(result.Problems()) != 0 {
		t.Errorf("%v, %v", &result, result.Problems())
	}
	if want := []Tap{{"10.1.1.4", "127.77.1.4"}, {"10.1.1.5", "127.77.1.5"}, {"10.2.1.4", "127.77.1.6"}}; !slices.Equal(result.Taps, want) {
		t.Errorf("taps %v", result.Taps)
	}
	total := 0
	taps := map[string]int{}
	ways := map[string]int{} // outer flow to collector
	d := decode.New(decode.DefaultConfiguration())
	for i, c := range list {
		got := c.stop()
		if uint64(len(got)) != result.Targets[i].Packets || len(got) < n/6 {
			t.Errorf("collector %d got %d packets, was sent %v", i, len(got), result.Targets[i])
		}
		total += len(got)
		for _, r := range got {
			source := r.from.Addr()
			if reason := d.Datagram(0, packet.AddrFrom(source), r.from.Port(), r.payload); reason != decode.OK {
				t.Fatal(reason)
			}
			taps[source.String()]++
			flow := fmt.Sprint(source, d.Flow.SrcPort)
			if way, ok := ways[flow]; ok && way != i {
				t.Errorf("flow %s went to collectors %d and %d", flow, way, i)
			}
			ways[flow] = i
			if want := map[string]uint32{"127.77.1.4": 27, "127.77.1.5": 28, "127.77.1.6": 29}[source.String()]; d.Flow.Carriers[0].VNI != want {
				t.Errorf("VNI %d from %s, not %d", d.Flow.Carriers[0].VNI, source, want)
			}
		}
	}
	if total != n || !maps.Equal(taps, map[string]int{"127.77.1.4": 134, "127.77.1.5": 133, "127.77.1.6": 133}) {
		t.Errorf("%d packets from %v", total, taps)
	}
}

// A plain capture: what arrives is decoded to what the capture holds, and the two directions of a session may part.
func TestPlain(t *testing.T) {
	var frames [][]byte
	const n = 300
	for i := range n {
		src, dst, from, to := "10.0.0.4", "10.0.0.5", 2000+i, 53
		if i%2 == 1 {
			src, dst, from, to = dst, src, to, from
		}
		frames = append(frames, ethernet(t, udp(t, src, dst, from, to, strings.Repeat("x", i))))
	}
	list, to := listen(t, 2)
	replay(t, Options{To: to, PPS: 1e6}, pcap(t, layers.LinkTypeEthernet, 0, frames...))
	var all [][]byte
	ports := map[uint16]bool{}
	for i, c := range list {
		got := c.stop()
		if len(got) < n/4 {
			t.Errorf("collector %d got %d of %d packets", i, len(got), n)
		}
		for _, r := range got {
			if r.from.Addr() != netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
				t.Errorf("from %v", r.from)
			}
			ports[r.from.Port()] = true
			if !bytes.Equal(r.payload[:8], []byte{8, 0, 0, 0, 0, 0, 27, 0}) {
				t.Fatalf("VXLAN header % x", r.payload[:8])
			}
			all = append(all, r.payload[8:])
		}
	}
	slices.SortFunc(all, bytes.Compare)
	slices.SortFunc(frames, bytes.Compare)
	if !slices.EqualFunc(all, frames, bytes.Equal) {
		t.Errorf("%d frames arrived, which are not the %d that were sent", len(all), len(frames))
	}
	if len(ports) < sockets/2 {
		t.Errorf("only %d outer source ports", len(ports))
	}
}

// withLinkHeaders is an IPv4 packet behind the link headers of every link type but Ethernet.
func withLinkHeaders(ip []byte) map[decode.LinkType][]byte {
	behind := func(header ...byte) []byte { return append(header, ip...) }
	return map[decode.LinkType][]byte{
		decode.LinkRaw: ip, decode.LinkRawBSD: ip, decode.LinkRawOpenBSD: ip, decode.LinkIPv4: ip,
		decode.LinkNull:        behind(2, 0, 0, 0),
		decode.LinkLoop:        behind(0, 0, 0, 2),
		decode.LinkLinuxCooked: behind(0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0),
		decode.LinkLinuxSLL2:   behind(8, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0),
	}
}

func TestOtherLinkTypes(t *testing.T) {
	ip := udp(t, "10.0.0.4", "10.0.0.5", 2000, 53, "x") // so short that Ethernet would be padded
	f := newFramer()
	d := &datagram{buffer: gopacket.NewSerializeBuffer()}
	for link, b := range withLinkHeaders(ip) {
		name := fmt.Sprint("link type ", link)
		rec := &capture.Record{Link: link, Data: b, Original: len(b)}
		if err := f.frame(rec, d); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(d.payload) != vxlanHeader+ethernetHeader+len(ip) {
			t.Errorf("%s: %d bytes, padded?", name, len(d.payload))
		}
		compare(t, name, rec, d)
	}
	tunnel := mirrored(t, "10.1.1.4", 50000, 99, ethernet(t, ip))[ethernetHeader:]
	for link, b := range withLinkHeaders(tunnel) {
		name := fmt.Sprint("VXLAN in link type ", link)
		rec := &capture.Record{Link: link, Data: b, Original: len(b)}
		if err := f.frame(rec, d); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d.source.String() != "10.1.1.4" || d.port != 50000 {
			t.Errorf("%s: carrier %v:%d", name, d.source, d.port)
		}
		compare(t, name, rec, d)
	}
	if err := f.frame(&capture.Record{Link: 127, Data: ip}, d); !errors.Is(err, errLink) {
		t.Errorf("link type 127: %v", err)
	}
}

// compare checks that a collector makes the same of a datagram as `tapweave read` of the record itself.
func compare(t *testing.T, name string, rec *capture.Record, d *datagram) {
	t.Helper()
	c := decode.DefaultConfiguration()
	c.Payload = true
	want := decode.New(c)
	reason := want.Frame(rec.Time, rec.Link, rec.Data, rec.Original)
	if want.Flow.NCarriers == 0 {
		c.MaxDepth++ // for the tunnel that there is now
	}
	got := decode.New(c)
	if r := got.Datagram(rec.Time, d.source, d.port, d.payload); r != reason {
		t.Errorf("%s: %v, not %v", name, r, reason)
		return
	}
	if reason != decode.OK {
		return
	}
	// A capture's carriers stay; around a packet that had none there is one now.
	g, w := got.Flow, want.Flow
	if w.NCarriers == 0 {
		if g.Carriers[0].VNI != vni || g.OuterPort < firstPort {
			t.Errorf("%s: VNI %d, outer port %d", name, g.Carriers[0].VNI, g.OuterPort)
		}
		g.NCarriers, g.Carriers, g.OuterPort = 0, w.Carriers, 0
	}
	if g != w {
		t.Errorf("%s: %+v\nnot %+v", name, g, w)
	}
	gp, wp := got.Packet, want.Packet
	head, data := bytes.Equal(gp.Head, wp.Head), bytes.Equal(gp.Data, wp.Data)
	gp.Head, gp.Data, wp.Head, wp.Data = nil, nil, nil, nil
	if !head || !data || fmt.Sprintf("%+v", gp) != fmt.Sprintf("%+v", wp) {
		t.Errorf("%s: %+v (head equal: %v, data: %v)\nnot %+v", name, gp, head, data, wp)
	}
}

// Every frame of the public captures arrives as what it is. The captures lie beside the repository; without them
// the test is skipped, but where CI is set it fails.
func TestCaptures(t *testing.T) {
	f := newFramer()
	d := &datagram{buffer: gopacket.NewSerializeBuffer()}
	for _, path := range capturetest.Files(t) {
		r, err := capture.Open(path)
		if errors.Is(err, capture.ErrNotCapture) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for n := 1; ; n++ {
			rec, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Log(err)
				break
			}
			name := fmt.Sprintf("%s, record %d", filepath.Base(path), n)
			if err := f.frame(&rec, d); err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if compare(t, name, &rec, d); t.Failed() {
				break
			}
		}
		r.Close()
	}
}

func TestPace(t *testing.T) {
	var frames [][]byte
	for i := range 11 {
		frames = append(frames, ethernet(t, udp(t, "10.0.0.4", "10.0.0.5", 2000, 53, fmt.Sprint(i))))
	}
	for _, c := range []struct {
		step time.Duration
		pps  float64
		want time.Duration
	}{
		{30 * time.Millisecond, 0, 300 * time.Millisecond},
		{time.Hour, 50, 200 * time.Millisecond},
	} {
		list, to := listen(t, 1)
		replay(t, Options{To: to, PPS: c.pps}, pcap(t, layers.LinkTypeEthernet, c.step, frames...))
		got := list[0].stop()
		if len(got) != len(frames) {
			t.Fatalf("%d packets", len(got))
		}
		if d := got[len(got)-1].at.Sub(got[0].at); d < c.want-20*time.Millisecond || d > c.want+2*time.Second {
			t.Errorf("step %v, %v/s: took %v", c.step, c.pps, d)
		}
	}
}

func TestSeveralCapturesAreOne(t *testing.T) {
	one := func(payload ...string) (frames [][]byte) {
		for _, p := range payload {
			frames = append(frames, ethernet(t, udp(t, "10.0.0.4", "10.0.0.5", 2000, 53, p)))
		}
		return frames
	}
	list, to := listen(t, 1)
	replay(t, Options{To: to, PPS: 1e6},
		pcap(t, layers.LinkTypeEthernet, 2*time.Second, one("0", "2", "4")...),
		pcap(t, layers.LinkTypeEthernet, 3*time.Second, one("0", "3", "6")...))
	text := ""
	for _, r := range list[0].stop() {
		text += string(r.payload[8+14+20+8])
	}
	if text != "002346" {
		t.Errorf("in the order %s", text)
	}
}

func TestProblems(t *testing.T) {
	small := ethernet(t, udp(t, "10.0.0.4", "10.0.0.5", 2000, 53, "x"))
	file := pcapFile(t, layers.LinkTypeEthernet, 0, small, make([]byte, 70000), small, small)
	cut, err := NewCapture("cut.pcap", bytes.NewReader(file[:len(file)-5]), 0)
	if err != nil {
		t.Fatal(err)
	}
	list, to := listen(t, 1)
	list[0].stop()
	result := replay(t, Options{To: to, PPS: 1e6}, cut)
	if result.Packets != 2 || result.TooLong != 1 || result.Targets[0].Refused != 2 || len(result.Damaged) != 1 {
		t.Errorf("%+v", result)
	}
	text := strings.Join(result.Problems(), "\n")
	for _, want := range []string{"2 of 2 packets did not arrive at " + to[0], "connection refused", "too_long 1", "cut.pcap: record 2", "cut short"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

func TestInterrupted(t *testing.T) {
	small := ethernet(t, udp(t, "10.0.0.4", "10.0.0.5", 2000, 53, "x"))
	list, to := listen(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	reports := 0
	o := Options{To: to, Progress: func(p Progress) {
		if reports++; reports == 2 {
			cancel()
		}
	}}
	result, err := Run(ctx, o, []*Capture{pcap(t, layers.LinkTypeEthernet, time.Hour, small, small)})
	if !errors.Is(err, ErrInterrupted) || result.Packets != 1 || len(list[0].stop()) != 1 {
		t.Errorf("%v, %v", &result, err)
	}
}

func TestResolve(t *testing.T) {
	for _, to := range [][]string{nil, {"127.0.0.1"}, {"127.0.0.1:0"}, {":4789"}, {"127.0.0.1:1", "[::1]:1"}} {
		if _, err := resolve(to); err == nil {
			t.Errorf("%q is taken", to)
		}
	}
	if a, err := resolve([]string{"127.0.0.1:4789", "127.0.0.2:4789"}); err != nil || len(a) != 2 {
		t.Error(a, err)
	}
}

// An IPv6 collector gets the packets too, all from this host.
func TestIPv6(t *testing.T) {
	conn, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		programtest.Missing(t, fmt.Sprintf("IPv6 on loopback: %v", err))
	}
	defer conn.Close()
	inner := ethernet(t, udp(t, "10.0.0.4", "10.0.0.5", 2000, 53, "x"))
	result := replay(t, Options{To: []string{conn.LocalAddr().String()}}, pcap(t, layers.LinkTypeEthernet, 0, mirrored(t, "10.1.1.4", 50000, 5, inner)))
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 1<<16)
	n, _, err := conn.ReadFromUDPAddrPort(b)
	if err != nil || !bytes.Equal(b[8:n], inner) || result.TapLine() != "taps: 10.1.1.4 as this host" {
		t.Errorf("%v, %v, %s", b[:n], err, result.TapLine())
	}
}
