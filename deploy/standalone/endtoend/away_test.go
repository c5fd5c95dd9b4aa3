package endtoend

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapweave/tapweave/deploy/standalone/replay"
	"github.com/tapweave/tapweave/deploy/standalone/servers"
	"github.com/tapweave/tapweave/proto/capturetest"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/sink/clickhouse"
)

// mostSink is how much memory a sink may take, with its defaults and any backlog.
const mostSink = 512 << 20

// TestClickHouseAway kills ClickHouse for AWAY while packets come. Then the sink stores what has gathered: all of it, once, in
// bounded memory.
func TestClickHouseAway(t *testing.T) {
	if os.Getenv("AWAY") == "" {
		t.Skip("takes as long as AWAY says, and a minute: AWAY=10m")
	}
	away, err := time.ParseDuration(os.Getenv("AWAY"))
	if err != nil {
		t.Fatal(err)
	}
	path := capturetest.File(t, "zeek__echo-connections.pcap")
	if other := os.Getenv("BENCH_CAPTURE"); other != "" {
		path = other
	}
	s := newServers(t)
	udp := freePort(t, "udp")
	s.start("collector-1", "collector", "TAPWEAVE_LISTEN="+udp)
	s.start("enricher-1", "enricher", "TAPWEAVE_FOLD_PACKETS=true")
	sink := s.start("sink-1", "sink")
	for _, v := range s.services {
		s.ready(v)
	}
	const pps = 4000
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var sending sync.WaitGroup
	sending.Go(func() {
		for ctx.Err() == nil {
			in, err := replay.Open(path)
			if err == nil {
				_, err = replay.Run(ctx, replay.Options{To: []string{udp}, PPS: pps}, []*replay.Capture{in})
			}
			if err != nil && ctx.Err() == nil {
				t.Error(err)
				return
			}
		}
	})
	time.Sleep(10 * time.Second)

	_, port, _ := net.SplitHostPort(s.clickhouse.HTTPAddr())
	again := servers.ClickHouseOptions{Dir: filepath.Join(s.dir, "clickhouse")}
	again.HTTPPort, _ = strconv.Atoi(port)
	s.clickhouse.Kill()
	s.eventually(time.Minute, "the sink to say that ClickHouse is away", func() error {
		if err := sink.answers(); err == nil || !strings.Contains(err.Error(), "cannot be reached") {
			return fmt.Errorf("it says %v", err)
		}
		return nil
	})
	time.Sleep(away)
	stop()
	sending.Wait()
	t.Logf("without ClickHouse: %d MiB", memory(t, sink)>>20)
	began := time.Now()
	if s.clickhouse, err = servers.StartClickHouse(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	s.eventually(10*time.Minute, "all to be stored", func() error {
		var before []int64
		for {
			done, err := s.client.Committed(t.Context(), clickhouse.Group, record.TopicSessions, record.DefaultOutputPartitions)
			if err != nil {
				return err
			}
			for p, offset := range done {
				if _, end, err := s.client.Offsets(t.Context(), record.TopicSessions, p); err != nil || offset < end {
					return fmt.Errorf("partition %d: %d of %d, %v", p, offset, end, err)
				}
			}
			if slices.Equal(before, done) {
				return nil
			}
			before = done
			time.Sleep(2 * time.Second) // more may be on its way through the enricher
		}
	})
	t.Logf("caught up in %v", time.Since(began).Round(time.Second))
	most := memory(t, sink)
	if t.Logf("at most: %d MiB", most>>20); most > mostSink {
		t.Errorf("the sink took %d MiB", most>>20)
	}

	sessions, packets, bookings := map[string]bool{}, uint64(0), int64(0)
	for p := range record.DefaultOutputPartitions {
		_, end, err := s.client.Offsets(t.Context(), record.TopicSessions, p)
		if err != nil {
			t.Fatal(err)
		}
		for next := int64(0); next < end; {
			f, err := s.client.Fetch(t.Context(), record.TopicSessions, p, next, 4<<20, time.Second)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range f.Records {
				m, err := record.UnmarshalSessions(r.Value)
				if err != nil {
					t.Fatal(err)
				}
				for _, rows := range m.GetOutput().GetRows() {
					switch rows.Kind {
					case pb.Rows_SESSIONS:
						err = columns.Sessions.Read(rows, func(s *columns.Session) error { sessions[s.ID.String()] = true; return nil })
					case pb.Rows_TRAFFIC:
						err = columns.Bookings.Read(rows, func(b *columns.Traffic) error { bookings += b.Sessions; return nil })
					case pb.Rows_PACKETS:
						packets += uint64(rows.Count)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			next = f.Next
		}
	}
	t.Logf("%d sessions, %d packets", len(sessions), packets)
	if len(sessions) == 0 || packets == 0 {
		t.Error("nothing was put out")
	}
	for query, want := range map[string]float64{
		"SELECT toFloat64(count()) AS n FROM sessions":               float64(len(sessions)),
		"SELECT toFloat64(uniqExact(session_id)) AS n FROM sessions": float64(len(sessions)),
		"SELECT toFloat64(count()) AS n FROM packets":                float64(packets),
		"SELECT toFloat64(sum(sessions)) AS n FROM traffic_1m":       float64(bookings),
		"SELECT toFloat64(sum(sessions)) AS n FROM traffic_1h":       float64(bookings),
	} {
		if got := s.query(query)[0]["n"]; got != want {
			t.Errorf("%s: %v, want %v", query, got, want)
		}
	}
}

// memory is the most that a service has taken so far, in bytes.
func memory(t testing.TB, v *service) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "VmHWM:"); found {
			kib, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
