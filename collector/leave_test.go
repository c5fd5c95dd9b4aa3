package collector

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapweave/tapweave/proto/batch"
	"github.com/tapweave/tapweave/service/kafka/kafkatest"
	"github.com/tapweave/tapweave/service/logging/logtest"
)

// POST /drain fails the probe, takes packets for the drain time, and ends Run without an error.
func TestDrainByPost(t *testing.T) {
	config := testConfig(kafkatest.Config(t))
	config.DrainTime, config.Probe.Listen = 500*time.Millisecond, "127.0.0.1:0"
	c, stop := begin(t, config, Dependencies{})
	waitFor(t, "ready", func() bool { ok, _ := c.Ready(); return ok })
	port := func() bool {
		s, err := net.Dial("tcp", c.probe.Addr())
		if err == nil {
			s.Close()
		}
		return err == nil
	}
	waitFor(t, "the probe's port", port)
	if r, err := http.Get("http://" + c.AdminAddr() + "/drain"); err != nil || r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %v, %v", r, err)
	}
	frame := frames(t, "zeek__vlan-collisions.pcap")[0]
	r, err := http.Post("http://"+c.AdminAddr()+"/drain", "", nil)
	if err != nil || r.StatusCode != http.StatusAccepted {
		t.Fatal(r, err)
	}
	waitFor(t, "the closed port", func() bool { return !port() })
	s, err := net.Dial("udp", c.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Write(vxlan(1, frame)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end", func() bool { _, err := net.Dial("tcp", c.AdminAddr()); return err != nil })
	if err := stop(); err != nil {
		t.Error(err)
	}
	if n := c.counters.Counter("published", "packets").Value(); n != 1 {
		t.Errorf("%d packets", n)
	}
}

// metadata is Azure's service, as it is documented.
type metadata struct {
	mu       sync.Mutex
	events   []map[string]any
	approved []string
	requests int
}

func (m *metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests++
	if r.Header.Get("Metadata") != "true" {
		http.Error(w, "Bad request. Required metadata header not specified", http.StatusBadRequest)
		return
	}
	switch {
	case r.URL.Path == "/metadata/instance/compute/name" && r.URL.Query().Get("format") == "text":
		io.WriteString(w, "collector_3")
	case r.URL.Path != "/metadata/scheduledevents" || r.URL.Query().Get("api-version") != "2020-07-01":
		http.NotFound(w, r)
	case r.Method == http.MethodPost:
		var body struct{ StartRequests []struct{ EventId string } }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		for _, s := range body.StartRequests {
			m.approved = append(m.approved, s.EventId)
		}
	case m.requests < 4:
		http.Error(w, "not yet", http.StatusServiceUnavailable)
	default:
		json.NewEncoder(w).Encode(map[string]any{"DocumentIncarnation": m.requests, "Events": m.events})
	}
}

func event(id, kind, status string, machines ...string) map[string]any {
	return map[string]any{
		"EventId": id, "EventType": kind, "ResourceType": "VirtualMachine", "Resources": machines, "EventStatus": status,
		"NotBefore": "Mon, 19 Sep 2016 18:29:47 GMT", "Description": "", "EventSource": "Platform", "DurationInSeconds": -1,
	}
}

// Of the events, the one that takes this machine away drains the collector, and is approved afterwards.
func TestScheduledEvents(t *testing.T) {
	for _, kind := range []string{"Terminate", "Preempt", "Reboot"} {
		t.Run(kind, func(t *testing.T) {
			m := new(metadata)
			server := httptest.NewServer(m)
			defer server.Close()
			config := testConfig(kafkatest.Config(t))
			config.DrainTime = 100 * time.Millisecond
			config.AzureEvents.Enabled, config.AzureEvents.Endpoint, config.AzureEvents.Every = true, server.URL, 100*time.Millisecond
			var log logtest.Buffer
			c, stop := begin(t, config, Dependencies{Log: log.Logger()})
			waitFor(t, "ready", func() bool { ok, _ := c.Ready(); return ok })
			m.mu.Lock()
			m.events = []map[string]any{event("E1", kind, "Scheduled", "collector_2"), event("E2", "Freeze", "Scheduled", "collector_3")}
			m.mu.Unlock()
			time.Sleep(300 * time.Millisecond)
			if ok, why := c.Ready(); !ok {
				t.Fatalf("another's event: %s", why)
			}
			m.mu.Lock()
			m.events = append(m.events, event("E3", kind, "Scheduled", "collector_1", "Collector_3"))
			m.mu.Unlock()
			waitFor(t, "drained", func() bool { return strings.Contains(log.String(), "msg=collected") })
			if err := stop(); err != nil {
				t.Error(err)
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			if fmt.Sprint(m.approved) != "[E3]" {
				t.Errorf("approved %v", m.approved)
			}
			if s := log.String(); !strings.Contains(s, "not before Mon, 19 Sep 2016") || strings.Index(s, "msg=draining") > strings.Index(s, "approved the scheduled event") {
				t.Error(s)
			}
		})
	}
}

// What comes in GENEVE from a gateway load balancer is unwrapped down to the mirrored packet, and its endpoint is told.
func TestGENEVE(t *testing.T) {
	config := testConfig(kafkatest.Config(t))
	config.Listen, config.ListenGENEVE, config.Tunnels.VNIScope = "", "127.0.0.1:0", "isolated"
	var log logtest.Buffer
	c, stop := begin(t, config, Dependencies{Log: log.Logger()})
	waitFor(t, "ready", func() bool { ok, _ := c.Ready(); return ok })
	s, err := net.Dial("udp", c.geneve)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mirror := vxlan(27, frames(t, "zeek__vlan-collisions.pcap")[0])
	outer := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2, 0xd0, 0, 4789 >> 8, 4789 & 0xff, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(outer[2:], uint16(len(outer)+len(mirror)))
	binary.BigEndian.PutUint16(outer[24:], uint16(8+len(mirror)))
	header := []byte{3, 0, 0x08, 0, 0, 0, 0, 0, 0x01, 0x08, 1, 2, 1, 2, 3, 4, 5, 6, 7, 8}
	for range 3 {
		if _, err := s.Write(slices.Concat(header, outer, mirror)); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "decoded", func() bool { return c.counters.Counter("decoded", "packets").Value() == 3 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	packets := 0
	for _, batches := range read(t, config.Kafka) {
		for _, b := range batches {
			if b.Packets == 0 {
				continue
			}
			var p batch.Packets
			if err := p.Decode(b.Columns); err != nil {
				t.Fatal(err)
			}
			for _, q := range p.Packets {
				f := &p.Flows[q.Flow]
				if f.NCarriers != 2 || f.Carriers[0].Source.String() != "127.0.0.1" || f.Carriers[1].Source.String() != "10.9.0.1" || f.Carriers[1].VNI != 27 || f.Tenant != "vni-27" {
					t.Errorf("%+v", f)
				}
				packets++
			}
		}
	}
	if packets != 3 || strings.Count(log.String(), "endpoint=0102030405060708") != 1 {
		t.Errorf("%d packets\n%s", packets, log.String())
	}
}

// What may not come is counted by reason and not published; new lists hold from the next packet on.
func TestAllow(t *testing.T) {
	config := testConfig(kafkatest.Config(t))
	config.Allow.VNIs = []uint32{27}
	reloads := make(chan func() (Config, error))
	var log logtest.Buffer
	c, stop := begin(t, config, Dependencies{Log: log.Logger(), Reloads: reloads})
	waitFor(t, "ready", func() bool { ok, _ := c.Ready(); return ok })
	frame := frames(t, "zeek__vlan-collisions.pcap")[0]
	s, err := net.Dial("udp", c.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sent := 0
	send := func(vnis ...uint32) {
		t.Helper()
		for _, vni := range vnis {
			if _, err := s.Write(vxlan(vni, frame)); err != nil {
				t.Fatal(err)
			}
			sent++
		}
		waitFor(t, "received", func() bool { return c.counters.Counter("received", "datagrams").Value() == uint64(sent) })
	}
	count := func(want map[string]uint64) {
		t.Helper()
		for name, n := range want {
			stage, reason, _ := strings.Cut(name, " ")
			if got := c.counters.Counter(stage, reason).Value(); got != n {
				t.Errorf("%s: %d, want %d", name, got, n)
			}
		}
	}
	send(27, 28, 27, 1)
	count(map[string]uint64{"refused vni": 2, "refused source": 0, "accepted datagrams": 2, "decoded packets": 2})
	reload := func(a Allow, err error, want string) {
		t.Helper()
		next := config
		next.Allow = a
		reloads <- func() (Config, error) { return next, err }
		waitFor(t, want, func() bool { return strings.Contains(log.String(), want) })
	}
	reload(Allow{Sources: []string{"192.0.2.0/24"}, VNIs: []uint32{27}}, nil, "read anew")
	bytes := c.counters.Counter("received", "bytes").Value()
	send(27, 28)
	count(map[string]uint64{"refused vni": 2, "refused source": 2, "accepted datagrams": 2, "decoded packets": 2, "lost kernel": 0})
	if n := c.counters.Counter("received", "bytes").Value(); n != bytes {
		t.Errorf("%d bytes were received of refused senders, whose datagrams are to stay in the kernel", n-bytes)
	}
	reload(Allow{Sources: []string{"192.0.2.0/244"}}, nil, "the old ones hold")
	send(27)
	count(map[string]uint64{"refused source": 3})
	reload(Allow{Sources: []string{"127.0.0.0/8"}}, nil, "sources=1 vnis=0")
	send(28)
	count(map[string]uint64{"refused vni": 2, "refused source": 3, "decoded packets": 3})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	count(map[string]uint64{"published packets": 3})
}
