package clickhouse_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/delivery"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/kafka/kafkatest"
	"github.com/tapweave/tapweave/service/stats"
	"github.com/tapweave/tapweave/sink/clickhouse"
	"github.com/tapweave/tapweave/sink/clickhouse/clickhousetest"
	"github.com/tapweave/tapweave/sink/deadletter"
)

// rig is an output with a Kafka and a ClickHouse of its own.
type rig struct {
	testing.TB
	config      clickhouse.Config // of the output; the server may be behind a proxy
	direct      clickhouse.Config
	server      *clickhouse.Server // reached directly
	kafka       *kafka.Client
	counters    *stats.Counters
	partitions  int
	kafkaConfig kafka.Config
	crash       func(delivery.Do) error
	away        func(error)
	numbers     map[int]uint64 // of the last output by input partition, which is the partition
}

func newRig(t testing.TB, partitions int) *rig {
	c, k := clickhousetest.Config(t), kafkatest.Config(t)
	client, err := kafka.New(k)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	r := &rig{TB: t, config: c, direct: c, kafka: client, kafkaConfig: k, partitions: partitions, numbers: map[int]uint64{}}
	r.server = clickhousetest.Migrated(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := (kafka.Retry{}).Do(ctx, func() error {
		_, err := r.kafka.EnsureTopics(ctx, true, kafka.Topic{Name: record.TopicSessions, Partitions: partitions},
			kafka.Topic{Name: record.TopicStats, Partitions: 1}, kafka.Topic{Name: record.TopicDeadLetter, Partitions: 1})
		return err
	}, nil); err != nil {
		t.Fatal(err)
	}
	return r
}

// start runs an output until the function that it returns is called, or the test ends.
func (r *rig) start() (stop func()) {
	r.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	run := r.output(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(); err != nil {
			r.Error(err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	r.Cleanup(stop)
	return stop
}

// fails runs an output that is to end by itself.
func (r *rig) fails() error {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
	defer cancel()
	return r.output(ctx)()
}

func (r *rig) output(ctx context.Context) (run func() error) {
	r.Helper()
	server, err := r.config.Open()
	if err != nil {
		r.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(r.Output(), nil))
	registry := prometheus.NewRegistry()
	r.counters = stats.New("sink", registry)
	letters := deadletter.New(r.kafka, r.counters, "deadletter", log)
	output := clickhouse.New(r.config, []*clickhouse.Server{server}, r.kafka, letters, r.counters, registry, log)
	output.Crash(r.crash)
	output.Away = r.away
	return func() error {
		defer server.Close()
		return output.Run(ctx)
	}
}

// produce writes the next output of an input partition to the partition of the same number.
func (r *rig) produce(partition int, rows ...*pb.Rows) int64 {
	r.Helper()
	r.numbers[partition]++
	return r.produceRaw(record.TopicSessions, partition, r.record(partition, 1, r.numbers[partition], rows...))
}

// record is an output of the fold.
func (r *rig) record(input int, owner, number uint64, rows ...*pb.Rows) []byte {
	r.Helper()
	value, err := record.MarshalSessions(&pb.SessionsRecord{
		InputPartition: uint32(input), LogEpoch: 1, OwnerEpoch: owner,
		Body: &pb.SessionsRecord_Output{Output: &pb.Output{Number: number, Rows: rows}},
	})
	if err != nil {
		r.Fatal(err)
	}
	return value
}

func (r *rig) produceRaw(topic string, partition int, value []byte) int64 {
	r.Helper()
	offset, err := r.kafka.ProduceRetry(r.Context(), topic, partition, func() ([]kafka.Record, error) {
		return []kafka.Record{{Value: value}}, nil
	}, nil)
	if err != nil {
		r.Fatal(err)
	}
	return offset
}

// wait waits until a query says so.
func (r *rig) wait(query string, want uint64) {
	r.Helper()
	var got uint64
	var err error
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if got, err = clickhousetest.Try[uint64](r.Context(), r.server, r.direct, query); err == nil && got == want {
			return
		}
	}
	r.Fatalf("%s: %d, %v; want %d", query, got, err, want)
}

// letters waits for dead letters.
func (r *rig) letters(n int) []*pb.DeadLetterRecord {
	r.Helper()
	var all []*pb.DeadLetterRecord
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		f, err := r.kafka.Fetch(r.Context(), record.TopicDeadLetter, 0, 0, 10<<20, time.Second)
		if err != nil || len(f.Records) < n {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		for _, k := range f.Records {
			l, err := record.UnmarshalDeadLetter(k.Value)
			if err != nil {
				r.Fatal(err)
			}
			all = append(all, l)
		}
		return all
	}
	r.Fatalf("no %d dead letters", n)
	return nil
}

var epoch = time.Date(2026, 3, 1, 9, 15, 2, 123456789, time.UTC).UnixNano()

// example fills in a session as it comes: the same for the same number.
func example(s *columns.Session, i int) {
	r := rand.New(rand.NewPCG(uint64(i), 1))
	s.Reset()
	s.Tenant = "default"
	binary.BigEndian.PutUint64(s.ID[:], r.Uint64())
	binary.BigEndian.PutUint64(s.ID[8:], uint64(i))
	s.CommunityID = fmt.Sprintf("1:%016x%011x=", r.Uint64(), r.Uint64()>>20)
	s.Created = epoch + int64(i)*1e6
	s.Start, s.End = s.Created, s.Created+int64(r.ExpFloat64()*5e9)
	s.Src, s.Dst = v4(10, 0, byte(r.IntN(40)), byte(r.IntN(250))), v4(10, 1, byte(r.IntN(10)), byte(r.IntN(250)))
	s.SrcPort, s.DstPort = uint16(32768+r.IntN(28000)), []uint16{443, 80, 53, 22, 5432}[r.IntN(5)]
	s.IPProtocol = packet.ProtoTCP
	if s.DstPort == 53 {
		s.IPProtocol = packet.ProtoUDP
	}
	s.SrcPackets, s.DstPackets = 1+uint64(r.IntN(40)), uint64(r.IntN(50))
	s.SrcBytes, s.DstBytes = s.SrcPackets*uint64(40+r.IntN(300)), s.DstPackets*uint64(40+r.IntN(1400))
	s.SrcPayloadBytes, s.DstPayloadBytes = s.SrcBytes*8/10, s.DstBytes*9/10
	s.SrcTCPFlags, s.DstTCPFlags = 27, 27
	s.ConnState, s.History = "SF", "ShADadFf"
	s.HandshakeRTT = r.Float64() * 0.1
	s.SrcRTT, s.DstRTT = s.HandshakeRTT*0.1, s.HandshakeRTT*0.9
	s.CloseReason, s.IsFinal, s.Version = "fin", true, 1
	s.TapPoints = append(s.TapPoints, "10.0.0.4")
	s.Collectors = append(s.Collectors, "collector-1", "collector-2")
	s.VNIs, s.OuterPorts = append(s.VNIs, 27), 1
	s.SrcMAC, s.DstMAC = columns.MAC{0, 1, 2, 3, 4, s.Src[15]}, columns.MAC{0, 1, 2, 3, 5, s.Dst[15]}
	s.SrcTTL, s.DstTTL = 64, 57
	s.LogEpoch, s.OwnerEpoch, s.OutputNumber = 1, 5, uint64(i/100)
}

func v4(a, b, c, d byte) packet.Addr { return packet.AddrFrom(netip.AddrFrom4([4]byte{a, b, c, d})) }

func rowsOf[R any](t testing.TB, table *columns.Table[R], rows ...*R) *pb.Rows {
	b := columns.NewBuilder(table)
	for _, r := range rows {
		b.Append(r)
	}
	list, err := b.Rows()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// sessions returns examples from one number to another, changed by each.
func sessions(t testing.TB, from, to int, each func(i int, s *columns.Session)) *pb.Rows {
	b := columns.NewBuilder(columns.Sessions)
	s := columns.NewSession()
	for i := from; i < to; i++ {
		example(s, i)
		if each != nil {
			each(i, s)
		}
		b.Append(s)
	}
	rows, err := b.Rows()
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// Whatever of a session changes between versions, it is one row, the newest; in any order of arrival and before
// anything is merged.
func TestOneRowASession(t *testing.T) {
	r := newRig(t, 2)
	if err := r.server.Exec(t.Context(), "SYSTEM STOP MERGES "+r.config.Database+".sessions_versions"); err != nil {
		t.Fatal(err)
	}
	r.start()
	const n = 500
	for version := uint32(1); version <= 4; version++ {
		final := version == 4
		rows := sessions(t, 0, n, func(i int, s *columns.Session) {
			s.Version, s.IsFinal = version, final
			s.SrcBytes = uint64(version) * 1000
			if version > 1 { // an earlier packet came late, and the other side was the client
				s.Start -= 1e9
				s.Src, s.Dst, s.SrcPort, s.DstPort = s.Dst, s.Src, s.DstPort, s.SrcPort
			}
		})
		r.produce(0, rows)
		r.wait(fmt.Sprintf("SELECT count() FROM %%[1]s.sessions_versions WHERE version = %d", version), n)
		if version == 3 { // a late repeat of an old version changes nothing
			r.produce(1, sessions(t, 0, n, nil))
			r.wait("SELECT count() FROM %[1]s.sessions_versions", 4*n)
		}
	}
	for query, want := range map[string]uint64{
		"SELECT count() FROM %[1]s.sessions":                             n,
		"SELECT uniqExact(session_id) FROM %[1]s.sessions":               n,
		"SELECT count() FROM %[1]s.sessions WHERE version = 4":           n,
		"SELECT count() FROM %[1]s.sessions WHERE is_final":              n,
		"SELECT count() FROM %[1]s.sessions WHERE NOT is_final":          0, // a filter does not bring old versions back
		"SELECT sum(src_bytes) FROM %[1]s.sessions":                      n * 4000,
		"SELECT count() FROM %[1]s.sessions WHERE src_ip LIKE '10.0.%%'": 0, // it was the other side
		"SELECT count() FROM %[1]s.sessions_versions":                    5 * n,
	} {
		if got := clickhousetest.Value[uint64](t, r.server, r.direct, query); got != want {
			t.Errorf("%s: %d, want %d", query, got, want)
		}
	}
	s := columns.NewSession()
	example(s, 0)
	got := clickhousetest.Value[uint64](t, r.server, r.direct, fmt.Sprintf("SELECT count() FROM %%[1]s.sessions WHERE src_ip = '%s' AND session_id = '%s'", s.Dst.Netip(), s.ID))
	if got != 1 {
		t.Errorf("session 0 by address and id: %d rows", got)
	}
	if got := clickhousetest.Value[uint64](t, r.server, r.direct, fmt.Sprintf("SELECT count() FROM %%[1]s.sessions WHERE src_ip = '%s' AND session_id = '%s'", s.Src.Netip(), s.ID)); got != 0 {
		t.Errorf("session 0 by the address of its old version: %d rows", got)
	}
}

// Every column arrives as columns.AppendJSON has it.
func TestColumns(t *testing.T) {
	r := newRig(t, 1)
	r.start()
	s := columns.NewSession()
	example(s, 7)
	s.Src = packet.AddrFrom(netip.MustParseAddr("2001:db8::4"))
	s.SrcLabels = columns.Labels{Name: "vm-1", Labels: []string{"env=prod"}, ASN: 64500, Country: "DE"}
	s.SrcPayload = []byte("\x00\xffraw")
	s.SrcRTT = math.NaN()
	s.DNSAnswers = []string{"a", "'quoted'"}
	r.produce(0, rowsOf(t, columns.Sessions, s))
	r.wait("SELECT count() FROM %[1]s.sessions", 1)
	for query, want := range map[string]string{
		"SELECT src_ip FROM %[1]s.sessions":                              "2001:db8::4",
		"SELECT dst_ip FROM %[1]s.sessions":                              s.Dst.Netip().String(),
		"SELECT toString(start_time) FROM %[1]s.sessions":                time.Unix(0, s.Start).UTC().Format("2006-01-02 15:04:05.000000000"),
		"SELECT toString(src_rtt IS NULL) FROM %[1]s.sessions":           "1",
		"SELECT hex(src_payload) FROM %[1]s.sessions":                    "00FF726177",
		"SELECT toString(dns_answers) FROM %[1]s.sessions":               `['a','\'quoted\'']`,
		"SELECT toString(src_labels) FROM %[1]s.sessions":                "['env=prod']",
		"SELECT toString((vnis, src_asn)) FROM %[1]s.sessions":           "([27],64500)",
		"SELECT toString((is_final, protocol)) FROM %[1]s.sessions":      fmt.Sprintf("(true,'%s')", s.Protocol()),
		"SELECT toString(created_time = start_time) FROM %[1]s.sessions": "1",
	} {
		if got := clickhousetest.Value[string](t, r.server, r.direct, query); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}

// A look-up by address reads few granules, through the view.
func TestAddressIndex(t *testing.T) {
	r := newRig(t, 1)
	r.start()
	const n, batch = 120_000, 1000
	s := columns.NewSession()
	example(s, 77_777)
	for from := 0; from < n; from += batch {
		r.produce(0, sessions(t, from, from+batch, func(i int, s *columns.Session) {
			if i == 77_777 {
				s.Src = v4(10, 0, 0, 4)
			} else if s.Src == v4(10, 0, 0, 4) {
				s.Src = v4(10, 0, 0, 5)
			}
		}))
	}
	r.wait("SELECT count() FROM %[1]s.sessions_versions", n)
	if err := r.server.Exec(t.Context(), "OPTIMIZE TABLE "+r.config.Database+".sessions_versions FINAL"); err != nil {
		t.Fatal(err)
	}
	for where, most := range map[string]int{
		"src_ip = '10.0.0.4'":                       3,
		"isIPAddressInRange(src_ip, '10.0.0.4/32')": 8, // its index lists eight granules together
		"session_id = '" + s.ID.String() + "'":      3,
	} {
		if got := clickhousetest.Value[string](t, r.server, r.direct, "SELECT session_id FROM %[1]s.sessions WHERE "+where); got != s.ID.String() {
			t.Errorf("%s: session %s", where, got)
		}
		read, all := granules(t, r, "SELECT count() FROM "+r.config.Database+".sessions WHERE "+where)
		t.Logf("%s: %d of %d granules", where, read, all)
		if all < 14 || read > most {
			t.Errorf("%s: %d of %d granules read", where, read, all)
		}
	}
}

// granules says how many granules a query reads, and of how many.
func granules(t *testing.T, r *rig, query string) (read, all int) {
	rows, err := r.server.Query(t.Context(), "EXPLAIN indexes = 1 "+query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			t.Fatal(err)
		}
		var selected, total int
		if n, _ := fmt.Sscanf(strings.TrimSpace(line), "Granules: %d/%d", &selected, &total); n == 2 {
			all, read = max(all, total), selected
		}
	}
	return read, all
}

// What is booked in, out and in again adds up in both tables, and what adds up to nothing is gone.
func TestTraffic(t *testing.T) {
	r := newRig(t, 2)
	r.start()
	const minute = int64(time.Minute)
	base := columns.MinuteOf(epoch)
	booking := func(i int, app string, n int64) *columns.Traffic {
		return &columns.Traffic{
			TrafficDimensions: columns.TrafficDimensions{Minute: base + int64(i)*minute, Tenant: "default", DstPort: 443, IPProtocol: 6, App: app},
			TrafficSums:       columns.TrafficSums{Sessions: n, SrcPackets: 2 * n, DstPackets: 3 * n, SrcBytes: 200 * n, DstBytes: 300 * n, SrcPayloadBytes: 20 * n, DstPayloadBytes: 30 * n},
		}
	}
	for i := range 120 {
		// Booked without an application, then taken out and booked with it: in another record.
		r.produce(i%2, rowsOf(t, columns.Bookings, booking(i, "", 5)))
		r.produce(i%2, rowsOf(t, columns.Bookings, booking(i, "", -5), booking(i, "tls", 5)))
	}
	for _, table := range []string{"traffic_1m", "traffic_1h"} {
		r.wait("SELECT toUInt64(sum(sessions)) FROM %[1]s."+table+" WHERE app = 'tls'", 600)
		if err := r.server.Exec(t.Context(), "OPTIMIZE TABLE "+r.config.Database+"."+table+" FINAL"); err != nil {
			t.Fatal(err)
		}
		for query, want := range map[string]int64{
			"SELECT sum(sessions) FROM %[1]s." + table:                       600,
			"SELECT sum(src_packets) FROM %[1]s." + table:                    1200,
			"SELECT sum(dst_bytes) FROM %[1]s." + table:                      180_000,
			"SELECT sum(dst_payload_bytes) FROM %[1]s." + table:              18_000,
			"SELECT toInt64(countIf(app = '')) FROM %[1]s." + table:          0,
			"SELECT toInt64(countIf(protocol != 'tcp')) FROM %[1]s." + table: 0,
			"SELECT toInt64(max(toUnixTimestamp(time))) FROM (SELECT " + map[string]string{"traffic_1m": "minute", "traffic_1h": "hour"}[table] + " AS time FROM %[1]s." + table + ")": map[string]int64{
				"traffic_1m": (base + 119*minute) / 1e9, "traffic_1h": (base + 119*minute) / 3_600_000_000_000 * 3600}[table],
		} {
			if got := clickhousetest.Value[int64](t, r.server, r.direct, query); got != want {
				t.Errorf("%s: %d, want %d", query, got, want)
			}
		}
	}
	if n := clickhousetest.Value[uint64](t, r.server, r.direct, "SELECT count() FROM %[1]s.traffic_1h"); n != 3 {
		t.Errorf("%d rows of hours", n) // 09:15 to 11:14
	}
}

// proxy forwards to ClickHouse, and can be cut.
type proxy struct {
	listener net.Listener
	to       string
	cut      atomic.Bool
	limit    atomic.Int64 // bytes from a client until its connection is cut, if not 0
	mu       sync.Mutex
	open     []net.Conn
}

func newProxy(t testing.TB, to string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, to: to}
	t.Cleanup(func() { l.Close(); p.close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			if p.cut.Load() {
				client.Close()
				continue
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				client.Close()
				continue
			}
			p.mu.Lock()
			p.open = append(p.open, client, server)
			p.mu.Unlock()
			go func() {
				defer server.Close()
				defer client.Close()
				if n := p.limit.Load(); n > 0 {
					io.CopyN(server, client, n)
					return
				}
				io.Copy(server, client)
			}()
			go func() {
				defer server.Close()
				defer client.Close()
				io.Copy(client, server)
			}()
		}
	}()
	return p
}

func (p *proxy) close() {
	p.mu.Lock()
	for _, c := range p.open {
		c.Close()
	}
	p.open = nil
	p.mu.Unlock()
}

// ClickHouse goes away in mid-insert, several times, and the sink is stopped and started in between: nothing is
// missing, and within one life of the sink nothing is there twice.
func TestAway(t *testing.T) {
	r := newRig(t, 2)
	p := newProxy(t, r.config.Addresses[0])
	r.config.Addresses = []string{p.listener.Addr().String()}
	stop := r.start()
	const batches, batch = 60, 400
	go func() {
		for i := range 12 {
			time.Sleep(120 * time.Millisecond)
			switch i % 4 {
			case 0: // connections break after part of a request
				p.limit.Store(50_000)
			case 1:
				p.close()
			case 2: // nobody answers
				p.cut.Store(true)
				p.close()
			case 3:
				p.cut.Store(false)
				p.limit.Store(0)
			}
		}
		p.cut.Store(false)
		p.limit.Store(0)
	}()
	for i := range batches {
		booking := &columns.Traffic{TrafficDimensions: columns.TrafficDimensions{Minute: columns.MinuteOf(epoch), Tenant: "default"}, TrafficSums: columns.TrafficSums{Sessions: batch}}
		r.produce(i%2, sessions(t, i*batch, (i+1)*batch, nil), rowsOf(t, columns.Bookings, booking))
		time.Sleep(20 * time.Millisecond)
	}
	r.wait("SELECT count() FROM %[1]s.sessions", batches*batch)
	r.wait("SELECT toUInt64(sum(sessions)) FROM %[1]s.traffic_1m", batches*batch)
	r.wait("SELECT toUInt64(sum(sessions)) FROM %[1]s.traffic_1h", batches*batch)
	if n := clickhousetest.Value[uint64](t, r.server, r.direct, "SELECT count() FROM %[1]s.sessions_versions"); n != batches*batch {
		t.Errorf("%d rows for %d sessions", n, batches*batch)
	}
	if n := r.counters.Counter("clickhouse", "retries").Value(); n == 0 {
		t.Error("no insert was tried again: the test tests nothing")
	}
	if n := r.counters.Counter("deadletter", "refused").Value(); n != 0 {
		t.Errorf("%d records refused", n)
	}

	stop()
	r.produce(0, sessions(t, batches*batch, batches*batch+10, nil))
	r.start()
	r.wait("SELECT count() FROM %[1]s.sessions", batches*batch+10)
	// What was committed is not read again.
	if n := clickhousetest.Value[uint64](t, r.server, r.direct, "SELECT count() FROM %[1]s.sessions_versions"); n != batches*batch+10 {
		t.Errorf("%d rows for %d sessions after a restart", n, batches*batch+10)
	}
}

// damaged changes a byte of rows so that their framing is still good, and a column in them is not.
func damaged(t *testing.T, rows *pb.Rows) *pb.Rows {
	good, err := record.Stream(rows, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(columns.SchemaMessage(rows.Kind)); i < len(good); i++ {
		raw := slices.Clone(good)
		raw[i] ^= 0x70
		bad := &pb.Rows{Kind: rows.Kind, ColumnsVersion: rows.ColumnsVersion, Count: rows.Count, RawSize: uint64(len(raw)), Arrow: raw}
		s, err := columns.Open(bad, nil)
		if err == nil && s.Each(func(*columns.Batch) error { return nil }) != nil {
			return bad
		}
	}
	t.Fatal("no byte does that")
	return nil
}

// Records that are no records, or hold what is none of their rows, are set aside; what is around them is stored.
func TestUndecodable(t *testing.T) {
	r := newRig(t, 1)
	good := func(i int) { r.produce(0, sessions(t, i, i+1, nil)) }
	var bad []int64
	var values [][]byte
	add := func(value []byte) {
		bad = append(bad, r.produceRaw(record.TopicSessions, 0, value))
		values = append(values, value)
	}
	envelope := func(version uint32, rows *pb.Rows) []byte {
		if version == record.Version {
			r.numbers[0]++
		}
		v := r.record(0, 1, r.numbers[0], rows)
		if version != record.Version {
			v[1] = byte(version) // the first field of the message
		}
		return v
	}
	good(0)
	add([]byte("hello"))
	good(1)
	add(envelope(9, sessions(t, 100, 101, nil)))
	rows := sessions(t, 100, 101, nil)
	rows.ColumnsVersion++
	add(envelope(record.Version, rows))
	rows = sessions(t, 100, 101, nil)
	rows.Count = 3
	add(envelope(record.Version, rows))
	good(2)
	// Well framed, and a column whose offsets lead out of it: ClickHouse must not see that.
	rows = sessions(t, 100, 101, nil)
	add(envelope(record.Version, damaged(t, rows)))
	good(3)
	// Of a partition that there is none of, and without a number.
	add(r.record(16, 1, 1, sessions(t, 100, 101, nil)))
	add(r.record(0, 1, 0, sessions(t, 100, 101, nil)))
	// An epoch marker is neither.
	marker, err := record.MarshalSessions(&pb.SessionsRecord{LogEpoch: 1, OwnerEpoch: 1, Body: &pb.SessionsRecord_Marker{Marker: &pb.Marker{Owner: "enricher-1"}}})
	if err != nil {
		t.Fatal(err)
	}
	r.produceRaw(record.TopicSessions, 0, marker)
	good(4)
	r.produceRaw(record.TopicStats, 0, []byte("no counts"))

	r.start()
	r.wait("SELECT count() FROM %[1]s.sessions", 5)
	letters := r.letters(len(bad) + 1)
	i := 0
	for _, l := range letters {
		if l.Topic == record.TopicStats {
			if !strings.Contains(l.Reason, "stats record: corrupt record") {
				t.Errorf("letter about stats: %q", l.Reason)
			}
			continue
		}
		if l.Offset != bad[i] || l.Partition != 0 || l.Topic != record.TopicSessions || string(l.Value) != string(values[i]) {
			t.Errorf("letter %d: %s/%d at %d, want offset %d", i, l.Topic, l.Partition, l.Offset, bad[i])
		}
		t.Logf("%d: %s", l.Offset, l.Reason)
		i++
	}
	if got := r.counters.Counter("deadletter", "undecodable").Value(); got != 6 {
		t.Errorf("%d undecodable", got)
	}
	if got := r.counters.Counter("deadletter", "unknown_version").Value(); got != 2 {
		t.Errorf("%d of an unknown version", got)
	}
}

// Rows that ClickHouse refuses for what they are, are found; the others go in.
func TestRefused(t *testing.T) {
	r := newRig(t, 1)
	if err := r.server.Exec(t.Context(), "ALTER TABLE "+r.config.Database+".sessions_versions ADD CONSTRAINT odd CHECK app != 'forbidden'"); err != nil {
		t.Fatal(err)
	}
	var bad int64
	for i := range 10 {
		offset := r.produce(0, sessions(t, i, i+1, func(i int, s *columns.Session) {
			if i == 6 {
				s.App = "forbidden"
			}
		}))
		if i == 6 {
			bad = offset
		}
	}
	r.start()
	r.wait("SELECT count() FROM %[1]s.sessions", 9)
	l := r.letters(1)[0]
	if l.Offset != bad || l.Rows.GetKind() != pb.Rows_SESSIONS || l.Rows.GetCount() != 1 || !strings.Contains(l.Reason, "sessions_versions") || strings.Contains(l.Reason, "\n") {
		t.Errorf("letter about offset %d, rows %v, %q", l.Offset, l.Rows.GetCount(), l.Reason)
	}
	t.Log(l.Reason)
}

// Values that no session should have are stored as they are, or as near as the column's type comes, and get in nobody's way.
func TestOddValues(t *testing.T) {
	r := newRig(t, 1)
	r.start()
	long := strings.Repeat("a", 1<<20)
	rows := sessions(t, 0, 6, func(i int, s *columns.Session) {
		switch i {
		case 1: // before 1970
			s.Created = -5e18
			s.Start, s.End = s.Created, s.Created+1e9
		case 2: // all that 64 bits hold
			s.Created = math.MaxInt64
			s.Start, s.End = s.Created, s.Created
		case 3:
			s.TLSSNI = long
		case 4:
			s.TLSSNI, s.App = "caf\xe9\xff.example", "\xff\xfe"
		}
	})
	r.produce(0, rows, rowsOf(t, columns.Bookings, &columns.Traffic{
		TrafficDimensions: columns.TrafficDimensions{Minute: columns.MinuteOf(-5e18), Tenant: "default"}, TrafficSums: columns.TrafficSums{Sessions: -1},
	}))
	r.produce(0, sessions(t, 6, 9, nil))
	// What a writer without our care puts into a text.
	raw := sessions(t, 9, 10, func(_ int, s *columns.Session) { s.TLSSNI = "another writer's" })
	stream, err := record.Stream(raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw.Compression, raw.Arrow = pb.Rows_NONE, bytes.Replace(stream, []byte("another"), []byte("an\xff\x00her"), 1)
	r.produce(0, raw)
	r.wait("SELECT count() FROM %[1]s.sessions", 10)
	for query, want := range map[string]uint64{
		"SELECT length(tls_sni) FROM %[1]s.sessions ORDER BY length(tls_sni) DESC LIMIT 1": 1 << 20,
		"SELECT count() FROM %[1]s.sessions WHERE isValidUTF8(tls_sni)":                    9,
		"SELECT count() FROM %[1]s.sessions WHERE hex(tls_sni) LIKE '616EFF00686572%%'":    1,
		"SELECT countIf(startsWith(tls_sni, 'caf')) FROM %[1]s.sessions":                   1,
		"SELECT countIf(start_time < toDateTime64(0, 9, 'UTC')) FROM %[1]s.sessions":       1,
		"SELECT countIf(start_time > '2262-01-01') FROM %[1]s.sessions":                    1,
		"SELECT count() FROM %[1]s.traffic_1m":                                             1,
	} {
		if got := clickhousetest.Value[uint64](t, r.server, r.direct, query); got != want {
			t.Errorf("%s: %d, want %d", query, got, want)
		}
	}
	if n := r.counters.Counter("deadletter", "refused").Value(); n != 0 {
		t.Errorf("%d records refused", n)
	}
}

// A full disk is told in one line; nothing is given up, and everything arrives once there is room.
func TestDiskFull(t *testing.T) {
	r := newRig(t, 1)
	said := make(chan error, 100)
	r.away = func(err error) {
		select {
		case said <- err:
		default:
		}
	}
	alter := func(setting string) {
		t.Helper()
		if err := r.server.Exec(t.Context(), "ALTER TABLE "+r.config.Database+".sessions_versions "+setting); err != nil {
			t.Fatal(err)
		}
	}
	alter("MODIFY SETTING min_free_disk_bytes_to_perform_insert = 1000000000000000000")
	r.start()
	r.produce(0, sessions(t, 0, 100, nil))
	select {
	case err := <-said:
		if err == nil || !strings.Contains(err.Error(), "has no disk space left: ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%v", err)
		}
		t.Log(err)
	case <-time.After(20 * time.Second):
		t.Fatal("nothing was said")
	}
	alter("RESET SETTING min_free_disk_bytes_to_perform_insert")
	r.wait("SELECT count() FROM %[1]s.sessions", 100)
	if n := r.counters.Counter("deadletter", "refused").Value(); n != 0 {
		t.Errorf("%d records refused for want of space", n)
	}
}

// However small and many the records are, a block, and so a part, comes no more often than the linger time has it: merges keep
// up with that. Where they do not, the sink waits for them; nothing is lost, and nothing is there twice.
func TestTooManyParts(t *testing.T) {
	r := newRig(t, 1)
	r.config.Linger = 200 * time.Millisecond
	stop := r.start()
	r.produce(0, sessions(t, 0, 1, nil))
	r.wait("SELECT count() FROM %[1]s.sessions_versions", 1)
	began := time.Now()
	const n = 200
	for i := 1; i < n; i++ {
		r.produce(0, sessions(t, i, i+1, nil))
		time.Sleep(10 * time.Millisecond)
	}
	r.wait("SELECT count() FROM %[1]s.sessions_versions", n)
	most := 2 + uint64(time.Since(began)/r.config.Linger)
	parts := "SELECT toUInt64(max(max_block_number)) FROM system.parts WHERE database = '%[1]s' AND table = 'sessions_versions'" // counts inserts
	if got := clickhousetest.Value[uint64](t, r.server, r.direct, parts); got == 0 || got > most {
		t.Errorf("%d parts of %d records, more than %d", got, n, most)
	}
	stop()

	alter := func(format string) {
		t.Helper()
		if err := r.server.Exec(t.Context(), fmt.Sprintf(format, r.config.Database+".sessions_versions")); err != nil {
			t.Fatal(err)
		}
	}
	alter("SYSTEM STOP MERGES %s")
	alter("ALTER TABLE %s MODIFY SETTING parts_to_throw_insert = 1, parts_to_delay_insert = 1, max_delay_to_insert = 1")
	said := make(chan error, 1)
	r.away = func(err error) {
		if err == nil {
			return
		}
		select {
		case said <- err:
		default:
		}
	}
	r.start()
	for i := n; i < 2*n; i++ {
		r.produce(0, sessions(t, i, i+1, nil))
	}
	select {
	case err := <-said:
		if !strings.Contains(err.Error(), "cannot keep up with merging: ") || strings.Contains(err.Error(), "\n") {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("nothing was said")
	}
	alter("ALTER TABLE %s RESET SETTING parts_to_throw_insert, parts_to_delay_insert, max_delay_to_insert")
	alter("SYSTEM START MERGES %s")
	r.wait("SELECT count() FROM %[1]s.sessions_versions", 2*n)
	if n := r.counters.Counter("deadletter", "refused").Value(); n != 0 {
		t.Errorf("%d records refused for want of merges", n)
	}
}

// Counts are rows, one for all repeats in an interval, and none while nothing changes.
func TestStats(t *testing.T) {
	r := newRig(t, 1)
	r.start()
	now := time.Now()
	publish := func(at time.Time, n uint64) {
		value, err := record.MarshalStats(&pb.StatsRecord{
			Service: "collector", Instance: "collector-1", Incarnation: 3, Time: at.UnixNano(),
			Counts: []*pb.Count{{Stage: "decode", Reason: "truncated", Count: n}, {Stage: "decode", Reason: "never", Count: 0}},
		})
		if err != nil {
			t.Fatal(err)
		}
		r.produceRaw(record.TopicStats, 0, value)
	}
	for i := range 10 {
		publish(now.Add(time.Duration(i)*time.Second), uint64(i))
	}
	r.wait("SELECT max(count) FROM %[1]s.pipeline_stats WHERE service = 'collector' AND instance = 'collector-1' AND incarnation = 3 AND stage = 'decode' AND reason = 'truncated'", 9)
	publish(now.Add(11*time.Second), 9)
	publish(now.Add(12*time.Second), 10)
	r.wait("SELECT max(count) FROM %[1]s.pipeline_stats WHERE reason = 'truncated'", 10)
	if n := clickhousetest.Value[uint64](t, r.server, r.direct, "SELECT count() FROM %[1]s.pipeline_stats WHERE reason = 'never'"); n != 1 {
		t.Errorf("%d rows for a count that never changed", n)
	}
}

// While ClickHouse is away what is held stays within the bound, and all of it arrives afterwards.
func TestMemory(t *testing.T) {
	r := newRig(t, 2)
	p := newProxy(t, r.config.Addresses[0])
	r.config.Addresses = []string{p.listener.Addr().String()}
	r.config.MemoryBytes, r.config.FetchBytes = 4<<20, 100<<10
	r.start()
	const batches, batch = 60, 500 // 20 MB of rows
	for i := range 2 {
		r.produce(i, sessions(t, i*batch, (i+1)*batch, nil))
	}
	r.wait("SELECT count() FROM %[1]s.sessions", 2*batch)
	r.wait("SELECT count() FROM %[1]s.delivery_marks", 2) // the last of a block
	p.cut.Store(true)
	p.close()
	for i := 2; i < batches; i++ {
		r.produce(i%2, sessions(t, i*batch, (i+1)*batch, nil))
	}
	// What is decompressed at one time are two blocks of half of the bound.
	for end := time.Now().Add(20 * time.Second); r.counters.Counter("clickhouse", "records").Value() <= 2 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(time.Second)
	if n := r.counters.Counter("clickhouse", "records").Value(); n <= 2 || n > 14 {
		t.Errorf("%d records of 340 kB held in 4 MiB", n)
	}
	p.cut.Store(false)
	r.wait("SELECT count() FROM %[1]s.sessions", batches*batch)
}
