package fold

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tapweave/tapweave/enricher/application"
	"github.com/tapweave/tapweave/enricher/labels"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
)

// threats is a label set: 10.0.0.0/16 is a network whose servers are watched, and some things are on a list.
func threats(t *testing.T, entries ...indicator) *labels.Set {
	t.Helper()
	m := &pb.Threats{Names: []string{"list"}}
	for _, e := range entries {
		m.Values = append(m.Values, e.value...)
		m.Ends = append(m.Ends, uint32(len(m.Values)))
		m.Kinds = append(m.Kinds, byte(e.kind))
		m.Name = append(m.Name, 0)
		m.Confidences = append(m.Confidences, 90)
		m.Expires = append(m.Expires, uint32(e.until/time.Second))
	}
	var parts []*labels.Part
	for _, body := range []*pb.Labels{
		{Body: &pb.Labels_Networks{Networks: &pb.Networks{Networks: []*pb.Network{
			{Address: []byte{10, 0, 0, 0}, Bits: 16, Vnet: "here", Labels: []string{WatchTLS}, Owner: pb.Network_OWN},
		}}}},
		{Body: &pb.Labels_Threats{Threats: m}},
	} {
		b, err := labels.Encode(body)
		if err != nil {
			t.Fatal(err)
		}
		p, err := labels.Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, p)
	}
	return labels.NewSet(parts...)
}

type indicator struct {
	kind  labels.Kind
	value string
	until time.Duration // since the Unix epoch
}

func (b *bench) use(set *labels.Set) {
	b.t.Helper()
	if err := b.f.Label(func(*pb.LabelSet) (*labels.Set, error) { return set, nil }); err != nil {
		b.t.Fatal(err)
	}
	b.record(&pb.PacketsRecord{Body: &pb.PacketsRecord_LabelSet{LabelSet: set.Named()}})
}

// dnsQuestion is a question for the A record of a name.
func dnsQuestion(name string) []byte {
	b := []byte{0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for l := range strings.SplitSeq(name, ".") {
		b = append(append(b, byte(len(l))), l...)
	}
	return append(b, 0, 0, 1, 0, 1)
}

func ask(at time.Duration, name string) pk {
	q := dnsQuestion(name)
	return pk{at: at, from: "a", n: uint32(len(q)), mod: func(f *packet.Flow, p *packet.Packet) { f.DstPort, p.Data = 53, q }}
}

func texts(list []columns.Alert) string {
	var all []string
	for _, a := range list {
		all = append(all, fmt.Sprintf("%v %s %v:%d>%v:%d %s %s %d: %s", time.Duration(a.Time-base), a.Kind, a.Src, a.SrcPort, a.Dst, a.DstPort, a.Threat, a.Indicator, a.Confidence, a.Message))
	}
	return strings.Join(all, "\n")
}

// A hit makes columns, flow type and bookings agree, also where it is found after the session was booked first.
func TestThreatHits(t *testing.T) {
	b := newBench(t, nil)
	b.use(threats(t, indicator{labels.Domain, "bad.example.com", 0}, indicator{labels.Address, string(addrB[:]), 0}))
	b.send("c", 10*time.Second, ask(0, "good.example.com"), ask(2*time.Second, "bad.example.com"))
	b.end()
	b.check()
	s := b.one()
	if s.SrcLabels.Threat != "" || s.DstLabels.Threat != "list" || s.FlowType != "MaliciousFlow" || s.Direction != "internal" || s.SrcLabels.VNet != "here" {
		t.Errorf("%+v", s)
	}
	want := `0s threat 10.0.0.4:40000>10.0.0.5:53 list 10.0.0.5 90: dst (10.0.0.5) is on the threat list as list, confidence 90 %
2s threat 10.0.0.4:40000>10.0.0.5:53 list bad.example.com 90: a name that src asked for (bad.example.com) is on the threat list as list, confidence 90 %`
	if got := texts(b.alerts); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}

	b = newBench(t, nil)
	b.use(threats(t, indicator{labels.Domain, "bad.example.com", 0}))
	b.send("c", 10*time.Second, ask(0, "good.example.com"), ask(2*time.Second, "bad.example.com"))
	b.end()
	if b.versions[0].FlowType != "IntraVNet" || b.one().FlowType != "MaliciousFlow" || b.one().DstLabels.Threat != "list" {
		t.Errorf("%s, then %s", b.versions[0].FlowType, b.one().FlowType)
	}
	booked := map[string]int64{}
	for d, sums := range b.traffic {
		booked[d.FlowType] += sums.SrcPackets
	}
	if booked["IntraVNet"] != 0 || booked["MaliciousFlow"] != 2 {
		t.Errorf("booked %v", booked)
	}

	// An entry that ended before the session began does not count.
	b = newBench(t, nil)
	b.use(threats(t, indicator{labels.Address, string(addrB[:]), time.Duration(base) + time.Second}))
	b.send("c", 10*time.Second, ask(0, "x.example.com"))
	b.send("c", time.Hour, pk{at: 30 * time.Minute, from: "a", n: 1})
	b.end()
	if len(b.settled) != 2 || b.settled[0].FlowType != "MaliciousFlow" || b.settled[1].FlowType != "IntraVNet" {
		t.Errorf("%s, %d sessions", b.settled[0].FlowType, len(b.settled))
	}
}

// The addresses of a session are labelled by the set in force as it began.
func TestLabelsStay(t *testing.T) {
	b := newBench(t, nil)
	b.send("c", time.Millisecond, pk{at: 0, from: "a", n: 1})
	b.use(threats(t))
	b.send("c", 3*time.Second, pk{at: time.Second, from: "a", n: 1}, pk{at: 2 * time.Second, from: "a", n: 1, mod: func(f *packet.Flow, _ *packet.Packet) { f.SrcPort++ }})
	b.record(&pb.PacketsRecord{Body: &pb.PacketsRecord_LabelSet{LabelSet: &pb.LabelSet{}}})
	b.send("c", 5*time.Second, pk{at: 4 * time.Second, from: "a", n: 1, mod: func(f *packet.Flow, _ *packet.Packet) { f.SrcPort++ }})
	b.send("c", 6*time.Second, pk{at: 5 * time.Second, from: "a", n: 1, mod: func(f *packet.Flow, _ *packet.Packet) { f.SrcPort += 2 }})
	b.end()
	var got []string
	for _, s := range b.settled {
		got = append(got, fmt.Sprintf("%d:%s%s:%d", s.SrcPort, s.SrcLabels.VNet, s.FlowType, s.SrcPackets))
	}
	if want := "[40000::2 40001:hereIntraVNet:2 40002::1]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
	// A set of an owner that is none any more is not taken.
	b.tick(3, 7*time.Second)
	named := threats(t).Named()
	named.OwnerEpoch = 2
	b.record(&pb.PacketsRecord{Body: &pb.PacketsRecord_LabelSet{LabelSet: named}})
	if len(b.f.LabelSet().Parts) != 0 || b.f.Counts()[StaleControl] != 1 {
		t.Error("an earlier owner's label set is in force")
	}
}

func TestOverlapAlert(t *testing.T) {
	say := func(text string) func(*packet.Flow, *packet.Packet) {
		return func(_ *packet.Flow, p *packet.Packet) { p.Data = []byte(text) }
	}
	b := fold(t, nil, pk{at: 0, from: "a", flags: "S", seq: 100}, pk{at: ms, from: "b", flags: "S.", seq: 500, ack: 101}, pk{at: 2 * ms, from: "a", flags: ".", seq: 101, ack: 501},
		pk{at: 3 * ms, from: "b", flags: "P.", seq: 501, ack: 101, n: 8, mod: say("original")}, pk{at: 4 * ms, from: "b", flags: "P.", seq: 501, ack: 101, n: 8, mod: say("injected")})
	if got := texts(b.alerts); got != "4ms overlap 10.0.0.4:40000>10.0.0.5:443   0: dst sent 8 bytes again with another content" {
		t.Error(got)
	}
}

// A scan is told once, where the number of ports is reached within the window, and only of what nobody answered.
func TestPortScan(t *testing.T) {
	scan := func(ports int, every time.Duration, answered bool) *bench {
		b := newBench(t, func(s *Settings) { s.ScanPorts, s.ScanWindow = 10, time.Minute })
		for i := range ports {
			at := time.Duration(i) * every
			to := func(f *packet.Flow, _ *packet.Packet) {
				if f.Src == addrA {
					f.DstPort = uint16(1000 + i)
				} else {
					f.SrcPort = uint16(1000 + i)
				}
			}
			list := []pk{{at: at, from: "a", flags: "S", seq: 100, mod: to}}
			if answered {
				list = append(list, pk{at: at + ms, from: "b", flags: "S.", seq: 500, ack: 101, mod: to}, pk{at: at + 2*ms, from: "a", flags: ".", seq: 101, ack: 501, mod: to})
			} else if i%2 == 0 {
				list = append(list, pk{at: at + ms, from: "b", flags: "R.", seq: 0, ack: 101, mod: to})
			}
			b.send("c", at+every, list...)
			if i == ports/2 { // the state of a scan is in snapshots
				var saved bytes.Buffer
				if err := b.f.Save(&saved); err != nil {
					t.Fatal(err)
				}
				var err error
				if b.f, _, err = Load(&saved, home, b); err != nil {
					t.Fatal(err)
				}
			}
		}
		b.end()
		return b
	}
	if got := texts(scan(30, time.Second, false).alerts); got != "9s port_scan 10.0.0.4:40000>10.0.0.5:1009  10.0.0.4 0: 10.0.0.4 tried 10 ports of 10.0.0.5 within 1m0s, and none of them answered" {
		t.Error(got)
	}
	for what, b := range map[string]*bench{"nine ports": scan(9, time.Second, false), "too slow": scan(30, 10*time.Second, false), "answered": scan(30, time.Second, true)} {
		if len(b.alerts) != 0 {
			t.Errorf("%s: %s", what, texts(b.alerts))
		}
	}
}

// A watched server tells of a client that it had not met while it learned; each fingerprint once.
func TestFingerprintAlert(t *testing.T) {
	b := newBench(t, func(s *Settings) { s.PrintsLearned = time.Hour })
	b.use(threats(t))
	for i, c := range []struct {
		at    time.Duration
		print string
	}{{0, "one"}, {time.Minute, "two"}, {2 * time.Hour, "one"}, {2*time.Hour + time.Minute, "three"}, {3 * time.Hour, "three"}} {
		b.send("c", c.at+ms, pk{at: c.at, from: "a", flags: "S", seq: 100, mod: func(f *packet.Flow, _ *packet.Packet) { f.SrcPort += uint16(i) }})
		s := b.f.table.last
		s.app = new(application.Session)
		s.app.Founds[s.orient()] = &application.Found{TLS: application.FoundTLS{Client: true, JA4: c.print}}
		b.f.watchPrints(s)
	}
	want := "2h1m0s tls_fingerprint 10.0.0.4:40003>10.0.0.5:443  three 0: 10.0.0.5 met a client with the TLS fingerprint three, of which it had not met any since 2026-03-01T09:00:00Z"
	if got := texts(b.alerts); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}
