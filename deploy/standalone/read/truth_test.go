package read

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/tapweave/tapweave/proto/capturetest"
	conversations "github.com/tapweave/tapweave/proto/conversation"
)

// The captures that the set's README calls not exact, figure by figure, with the reason. A figure is one of
// packets, bytes, payload, sessions, others, names.
var notExact = map[string]map[string]string{
	"nDPI__ip_fragmented_garbage.pcap": {
		"packets":  "6: four connections depend on how tshark puts overlapping garbage together",
		"bytes":    "6",
		"payload":  "6",
		"sessions": "6",
	},
	"nDPI__fuzz-2006-06-26-2594.pcap": {
		"packets":  "6: fragments with fuzzed headers",
		"bytes":    "6",
		"payload":  "6: UDP lengths are fuzzed",
		"sessions": "6: a fragment whose first one is missing",
		"others":   "6: fuzzed protocol numbers and extension headers",
		"names":    "9: fuzzed names, and names of NetBIOS, which are no DNS",
	},
}

// truthFile is what is used of a truth file.
type truthFile struct {
	TCP     []conversation `json:"tcp"`
	UDP     []conversation `json:"udp"`
	OtherIP []conversation `json:"other_ip"`

	Names struct {
		SNI       []string `json:"sni"`
		Host      []string `json:"http_host"`
		Authority []string `json:"http2_authority"`
		Question  []string `json:"dns_qname"`
	} `json:"names"`
	// Independent is a scan without tshark, which takes zeek__rdp-to-ssl.pcap for RDP and sees no ClientHello there.
	Independent struct {
		SNI map[string]int `json:"sni"`
	} `json:"independent"`
}

type conversation struct {
	Proto int `json:"proto"`
	A     end `json:"a"`
	B     end `json:"b"`
	Encap []string

	FramesA uint64 `json:"frames_a"`
	FramesB uint64 `json:"frames_b"`
	BytesA  uint64 `json:"ip_bytes_a"`
	BytesB  uint64 `json:"ip_bytes_b"`

	PayloadA *uint64   `json:"payload_bytes_a"`
	PayloadB *uint64   `json:"payload_bytes_b"`
	UniqueA  *uint64   `json:"unique_payload_bytes_a"`
	UniqueB  *uint64   `json:"unique_payload_bytes_b"`
	HeaderA  *byHeader `json:"payload_by_header_a"`
	HeaderB  *byHeader `json:"payload_by_header_b"`
}

type byHeader struct {
	Unique uint64 `json:"unique_payload_bytes"`
}

// payload is what a side's payload bytes should be: by the headers where the truth says so, else the union of
// the sequence ranges, which UDP does not have, else the sum.
func payload(h *byHeader, unique, sum *uint64) uint64 {
	switch {
	case h != nil:
		return h.Unique
	case unique != nil:
		return *unique
	case sum != nil:
		return *sum
	}
	return 0
}

// end is one end of a conversation.
type end struct {
	IP   string `json:"ip"`
	Port uint16 `json:"port"`
}

func (e end) compare(f end) int { return cmp.Or(cmp.Compare(e.IP, f.IP), cmp.Compare(e.Port, f.Port)) }

// tuple is two ends of a protocol, in order. Protocols other than TCP and UDP have no ports here.
type tuple struct {
	protocol  uint8
	low, high end
}

func newTuple(protocol uint8, a, b end) (t tuple, swapped bool) {
	if a.compare(b) <= 0 {
		return tuple{protocol, a, b}, false
	}
	return tuple{protocol, b, a}, true
}

func (t tuple) String() string {
	return fmt.Sprintf("protocol %d %s:%d–%s:%d", t.protocol, t.low.IP, t.low.Port, t.high.IP, t.high.Port)
}

// sums are the figures of one tuple; index 0 is what the low end sent.
type sums struct {
	packets, bytes, payload [2]uint64
	sessions                int
}

func (s *sums) add(swapped bool, packets, bytes, payload [2]uint64) {
	for i := range 2 {
		j := i
		if swapped {
			j = 1 - i
		}
		s.packets[j] += packets[i]
		s.bytes[j] += bytes[i]
		s.payload[j] += payload[i]
	}
}

// readTruth reads a capture's truth file.
func readTruth(t *testing.T, path string) (f truthFile) {
	t.Helper()
	text, err := os.ReadFile(capturetest.Truth(path))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// truth is what a truth file says of each tuple.
func truth(f truthFile) map[tuple]*sums {
	all := map[tuple]*sums{}
	add := func(protocol uint8, c conversation) {
		key, swapped := newTuple(protocol, c.A, c.B)
		s := all[key]
		if s == nil {
			s = &sums{}
			all[key] = s
		}
		s.add(swapped, [2]uint64{c.FramesA, c.FramesB}, [2]uint64{c.BytesA, c.BytesB},
			[2]uint64{payload(c.HeaderA, c.UniqueA, c.PayloadA), payload(c.HeaderB, c.UniqueB, c.PayloadB)})
		s.sessions++
	}
	for _, c := range f.TCP {
		add(6, c)
	}
	for _, c := range f.UDP {
		add(17, c)
	}
	for _, c := range f.OtherIP {
		add(uint8(c.Proto), c)
	}
	return all
}

// sessionLine is what is used of a line of JSON.
type sessionLine struct {
	Protocol         uint8     `json:"ip_protocol"`
	SrcIP            string    `json:"src_ip"`
	DstIP            string    `json:"dst_ip"`
	SrcPort          uint16    `json:"src_port"`
	DstPort          uint16    `json:"dst_port"`
	Start            time.Time `json:"start_time"`
	End              time.Time `json:"end_time"`
	SrcPackets       uint64    `json:"src_packets"`
	DstPackets       uint64    `json:"dst_packets"`
	SrcBytes         uint64    `json:"src_bytes"`
	DstBytes         uint64    `json:"dst_bytes"`
	SrcPayload       uint64    `json:"src_payload_bytes"`
	DstPayload       uint64    `json:"dst_payload_bytes"`
	DuplicatePackets uint64    `json:"duplicate_packets"`
	Collectors       []string  `json:"collectors"`
	ID               string    `json:"session_id"`
	CloseReason      string    `json:"close_reason"`
	IsFinal          bool      `json:"is_final"`
	App              string    `json:"app"`
	TLSSNI           string    `json:"tls_sni"`
	HTTPHost         string    `json:"http_host"`
	HTTPHosts        []string  `json:"http_hosts"`
	DNSQuery         string    `json:"dns_query"`
	DNSQueries       []string  `json:"dns_queries"`
}

func (s *sessionLine) tuple() (t tuple, swapped bool) {
	a, b := end{s.SrcIP, s.SrcPort}, end{s.DstIP, s.DstPort}
	if s.Protocol != 6 && s.Protocol != 17 {
		a.Port, b.Port = 0, 0
	}
	return newTuple(s.Protocol, a, b)
}

// sessionsOf reads captures and returns the text and the sessions.
func sessionsOf(t *testing.T, o Options, paths ...string) ([]byte, []sessionLine) {
	t.Helper()
	var out bytes.Buffer
	result, err := Run(o, paths, &out)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range result.Damaged {
		t.Error(err)
	}
	var lines []sessionLine
	for d := json.NewDecoder(bytes.NewReader(out.Bytes())); ; {
		var l sessionLine
		if err := d.Decode(&l); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
	}
	return out.Bytes(), lines
}

// syn is a SYN without ACK.
type syn struct {
	time time.Time
	from end
	isn  uint32
}

// packetSource is a capture as gopacket reads it, sharing no code with what is tested.
type packetSource interface {
	ReadPacketData() ([]byte, gopacket.CaptureInfo, error)
	LinkType() layers.LinkType
}

func openCapture(t *testing.T, path string) packetSource {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := pcapgo.NewReader(bytes.NewReader(text)); err == nil {
		return r
	}
	r, err := pcapgo.NewNgReader(bytes.NewReader(text), pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// syns returns the SYNs without ACK of each tuple, in the order of time.
func syns(t *testing.T, path string) map[tuple][]syn {
	t.Helper()
	all := map[tuple][]syn{}
	for r := openCapture(t, path); ; {
		data, info, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		var src, dst string
		for _, l := range gopacket.NewPacket(data, r.LinkType(), gopacket.DecodeOptions{NoCopy: true}).Layers() {
			switch l := l.(type) {
			case *layers.IPv4:
				src, dst = l.SrcIP.String(), l.DstIP.String()
			case *layers.IPv6:
				src, dst = l.SrcIP.String(), l.DstIP.String()
			case *layers.TCP:
				if l.SYN && !l.ACK {
					from := end{src, uint16(l.SrcPort)}
					key, _ := newTuple(6, from, end{dst, uint16(l.DstPort)})
					all[key] = append(all[key], syn{info.Timestamp, from, l.Seq})
				}
			}
		}
	}
	for _, s := range all {
		slices.SortStableFunc(s, func(a, b syn) int { return a.time.Compare(b.time) })
	}
	return all
}

// joined is the number of a tuple's sessions as tshark counts streams: it never splits on silence, only on a
// SYN without ACK whose initial sequence number is new.
func joined(sessions []sessionLine, syns []syn) int {
	slices.SortFunc(sessions, func(a, b sessionLine) int { return a.Start.Compare(b.Start) })
	n := 1
	for _, s := range sessions[1:] {
		fresh := false
		for i, y := range syns {
			if y.time.Before(s.Start) || y.time.After(s.End) {
				continue
			}
			fresh = !slices.ContainsFunc(syns[:i], func(x syn) bool {
				return x.from == y.from && x.isn == y.isn && x.time.Before(s.Start)
			})
			break
		}
		if fresh {
			n++
		}
	}
	return n
}

// TestTruth compares every capture with what tshark says of it.
func TestTruth(t *testing.T) {
	for _, path := range capturetest.Files(t) {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := readTruth(t, path)
			_, lines := sessionsOf(t, DefaultOptions(), path)
			got := map[tuple]*sums{}
			byTuple := map[tuple][]sessionLine{}
			for _, l := range lines {
				if !l.IsFinal {
					t.Errorf("%v is not final", l)
				}
				key, swapped := l.tuple()
				if got[key] == nil {
					got[key] = &sums{}
				}
				got[key].add(swapped, [2]uint64{l.SrcPackets, l.DstPackets}, [2]uint64{l.SrcBytes, l.DstBytes}, [2]uint64{l.SrcPayload, l.DstPayload})
				byTuple[key] = append(byTuple[key], l)
			}
			for key, s := range syns(t, path) {
				if sessions := byTuple[key]; len(sessions) > 0 {
					got[key].sessions = joined(sessions, s)
				}
			}
			for _, s := range got {
				s.sessions = max(s.sessions, 1) // without a SYN, and without TCP, tshark never splits
			}
			compareTruth(t, name, got, truth(file), differingNames(&file, lines))
		})
	}
}

// differingNames says which server names, hosts and DNS names were found that the truth does not have, and the
// other way round.
func differingNames(f *truthFile, lines []sessionLine) (differ []string) {
	compare := func(what string, want []string, of func(*sessionLine) []string) {
		found := map[string]bool{}
		for i := range lines {
			for _, n := range of(&lines[i]) {
				found[n] = true
			}
		}
		for _, n := range want {
			if n != "" && !found[n] {
				differ = append(differ, fmt.Sprintf("%s %q not found", what, n))
			}
		}
		for n := range found {
			if n != "" && !slices.Contains(want, n) {
				differ = append(differ, fmt.Sprintf("%s %q found", what, n))
			}
		}
	}
	servers := f.Names.SNI
	for n := range f.Independent.SNI {
		servers = append(servers, n)
	}
	compare("server name", servers, func(l *sessionLine) []string { return []string{l.TLSSNI} })
	compare("host", append(f.Names.Host, f.Names.Authority...), func(l *sessionLine) []string { return append(l.HTTPHosts, l.HTTPHost) })
	compare("DNS name", f.Names.Question, func(l *sessionLine) []string { return append(l.DNSQueries, l.DNSQuery) })
	slices.Sort(differ)
	return differ
}

func compareTruth(t *testing.T, name string, got, want map[tuple]*sums, names []string) {
	t.Helper()
	excused := notExact[name]
	used := map[string]bool{}
	differ := func(figure string, key tuple, got, want any) {
		if excused[figure] != "" {
			used[figure] = true
			return
		}
		t.Errorf("%v: %s are %v, tshark says %v", key, figure, got, want)
	}
	keys := map[tuple]bool{}
	for k := range got {
		keys[k] = true
	}
	for k := range want {
		keys[k] = true
	}
	for k := range keys {
		g, w := got[k], want[k]
		if g == nil {
			g = &sums{}
		}
		if w == nil {
			w = &sums{}
		}
		if k.protocol != 6 && k.protocol != 17 {
			if g.packets != w.packets || g.bytes != w.bytes {
				differ("others", k, [2]any{g.packets, g.bytes}, [2]any{w.packets, w.bytes})
			}
			continue
		}
		if g.packets != w.packets {
			differ("packets", k, g.packets, w.packets)
		}
		if g.bytes != w.bytes {
			differ("bytes", k, g.bytes, w.bytes)
		}
		if g.payload != w.payload {
			differ("payload", k, g.payload, w.payload)
		}
		if g.sessions != w.sessions {
			differ("sessions", k, g.sessions, w.sessions)
		}
	}
	if len(names) > 0 {
		if excused["names"] == "" {
			t.Errorf("names: %s", strings.Join(names, ", "))
		}
		used["names"] = true
	}
	for figure, reason := range excused {
		if !used[figure] {
			t.Errorf("%s agree, though said not to be exact (%s)", figure, reason)
		}
	}
}

// TestOrder looks at the order of the lines: by the event time at which a session settled, where a line tells
// it; from the first session that only the end of input closed, by start and session_id.
func TestOrder(t *testing.T) {
	for _, path := range capturetest.Files(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			_, lines := sessionsOf(t, DefaultOptions(), path)
			end := slices.IndexFunc(lines, func(l sessionLine) bool { return l.CloseReason == "end" })
			if end < 0 {
				end = len(lines)
			}
			if !slices.IsSortedFunc(lines[end:], func(a, b sessionLine) int {
				return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(a.ID, b.ID))
			}) {
				t.Error("sessions that the end of input closed are not sorted by start")
			}
			var last time.Time
			for _, l := range lines[:end] {
				if l.Protocol == 6 || l.CloseReason != "idle" {
					continue
				}
				if l.End.Before(last) {
					t.Errorf("%s, idle since %v, is printed behind one idle since %v", l.ID, l.End, last)
				}
				last = l.End
			}
		})
	}
}

// TestTimesAtTheEnds reads stamps as early and as late as a capture can bear: none makes a record that the fold refuses.
func TestTimesAtTheEnds(t *testing.T) {
	traffic := conversations.New(conversations.Options{Seed: 1, Start: time.Unix(1e9, 0), Conversations: 1})
	path := filepath.Join(t.TempDir(), "times.pcapng")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w, err := pcapgo.NewNgWriter(file, layers.LinkTypeEthernet)
	if err != nil {
		t.Fatal(err)
	}
	frame := traffic.Packets[0].Frame()
	for _, at := range []time.Time{time.Unix(0, 0), time.Unix(1e9, 0), time.Unix(0, math.MaxInt64), time.Unix(1e9, 0)} {
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: len(frame), Length: len(frame)}, frame); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	_, lines := sessionsOf(t, DefaultOptions(), path)
	packets := uint64(0)
	for _, l := range lines {
		packets += l.SrcPackets + l.DstPackets
	}
	if packets != 4 {
		t.Errorf("%d packets in %d sessions, want 4", packets, len(lines))
	}
}
