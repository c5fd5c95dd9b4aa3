package columns

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"google.golang.org/protobuf/proto"

	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
)

func addr(s string) packet.Addr { return packet.AddrFrom(netip.MustParseAddr(s)) }

// random fills every field of a row with values that survive a round trip.
func random(r *rand.Rand, row any) {
	fill(r, reflect.ValueOf(row).Elem())
	switch row := row.(type) {
	case *Traffic:
		row.Minute = MinuteOf(row.Minute)
	}
}

func fill(r *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(r, v.Field(i))
		}
	case reflect.String:
		v.SetString([]string{"", "tls", "vm-web-1", "grüße", `a"b\c`, "\x00\n\x7f"}[r.IntN(6)])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Float64:
		v.SetFloat([]float64{0, 1, 0.25, 0.0312, 1e-9, float64(r.Int64()) / 1e9}[r.IntN(6)])
	case reflect.Int64:
		v.SetInt(r.Int64() >> r.IntN(64))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(r.Uint64() >> (64 - v.Type().Bits()) >> r.IntN(v.Type().Bits()))
	case reflect.Array:
		for i := range v.Len() {
			fill(r, v.Index(i))
		}
	case reflect.Slice:
		n := r.IntN(4)
		if n == 0 && v.Type().Elem().Kind() != reflect.Uint8 {
			return // lists come back as nil
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(r, v.Index(i))
		}
	default:
		panic(v.Kind())
	}
}

func rowsOf[R any](t *testing.T, table *Table[R], rows []R) *pb.Rows {
	t.Helper()
	b := NewBuilder(table)
	for i := range rows {
		b.Append(&rows[i])
	}
	if b.Len() != len(rows) {
		t.Fatalf("%d rows in the builder, want %d", b.Len(), len(rows))
	}
	out, err := b.Rows()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func testRoundTrip[R any](t *testing.T, table *Table[R]) {
	t.Run(table.Name, func(t *testing.T) {
		r := rand.New(rand.NewPCG(1, 2))
		for _, n := range []int{0, 1, 2, 9, 300} {
			rows := make([]R, n)
			for i := range rows {
				random(r, &rows[i])
			}
			out := rowsOf(t, table, rows)
			if again := rowsOf(t, table, rows); !bytes.Equal(out.Arrow, again.Arrow) {
				t.Errorf("%d rows: the same rows gave other bytes", n)
			}
			i := 0
			err := table.Read(out, func(got *R) error {
				if i >= n {
					return errors.New("too many")
				}
				if g, w := fmt.Sprintf("%+v", *got), fmt.Sprintf("%+v", rows[i]); g != w {
					t.Fatalf("row %d of %d:\n%s\nwant\n%s", i+1, n, g, w)
				}
				if g, w := table.AppendJSON(nil, got), table.AppendJSON(nil, &rows[i]); !bytes.Equal(g, w) {
					t.Fatalf("row %d of %d:\n%s\nwant\n%s", i+1, n, g, w)
				}
				i++
				return nil
			})
			if err != nil || i != n {
				t.Errorf("%d of %d rows, %v", i, n, err)
			}
		}
	})
}

func TestRoundTrip(t *testing.T) {
	testRoundTrip(t, Sessions)
	testRoundTrip(t, Bookings)
	testRoundTrip(t, Packets)
	testRoundTrip(t, Alerts)
}

// Every field of a row must be in a column, or it would be lost between the enricher and the sink.
func testEveryFieldHasAColumn[R any](t *testing.T, table *Table[R]) {
	var walk func(v reflect.Value, path string)
	var row R
	base := table.AppendJSON(nil, &row)
	walk = func(v reflect.Value, path string) {
		if v.Kind() == reflect.Struct {
			for i := range v.NumField() {
				walk(v.Field(i), path+"."+v.Type().Field(i).Name)
			}
			return
		}
		old := reflect.ValueOf(v.Interface())
		fill(rand.New(rand.NewPCG(7, 7)), v)
		for seed := uint64(0); v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0; seed++ {
			fill(rand.New(rand.NewPCG(seed, 7)), v)
		}
		if v.Type() == reflect.TypeFor[int64]() && path == ".TrafficDimensions.Minute" {
			v.SetInt(60e9)
		}
		b := NewBuilder(table)
		b.Append(&row)
		s, err := b.Stream()
		if err != nil {
			t.Fatal(err)
		}
		v.Set(old)
		b.Append(&row)
		without, err := b.Stream()
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(s, without) {
			t.Errorf("%s: %s is in no column", table.Name, path)
		}
	}
	walk(reflect.ValueOf(&row).Elem(), "")
	if again := table.AppendJSON(nil, &row); !bytes.Equal(base, again) {
		t.Fatalf("the row was not restored: %s, want %s", again, base)
	}
}

func TestEveryFieldHasAColumn(t *testing.T) {
	testEveryFieldHasAColumn(t, Sessions)
	testEveryFieldHasAColumn(t, Bookings)
	testEveryFieldHasAColumn(t, Packets)
	testEveryFieldHasAColumn(t, Alerts)
}

func TestInfos(t *testing.T) {
	for kind := range pb.Rows_Kind_name {
		infos := Infos(pb.Rows_Kind(kind))
		if len(infos) == 0 {
			t.Fatalf("no columns of kind %d", kind)
		}
		seen := make(map[string]bool)
		for i, c := range infos {
			if seen[c.Name] {
				t.Errorf("%s twice", c.Name)
			}
			seen[c.Name] = true
			if !regexp.MustCompile(`^[a-z][a-z0-9_]*$`).MatchString(c.Name) {
				t.Errorf("name %q", c.Name)
			}
			if c.Meaning == "" || c.Source == "" || c.Example == "" || c.ClickHouse == "" {
				t.Errorf("%s: incomplete: %+v", c.Name, c)
			}
			if f := Schema(pb.Rows_Kind(kind)).Field(i); f.Nullable != strings.HasPrefix(c.ClickHouse, "Nullable") {
				t.Errorf("%s: nullable in Arrow %t, in ClickHouse %s", c.Name, f.Nullable, c.ClickHouse)
			}
		}
	}
	if Infos(99) != nil || Schema(99) != nil {
		t.Error("an unknown kind has columns")
	}
}

func example() *Session {
	s := NewSession()
	s.Tenant = "default"
	for i := range s.ID {
		s.ID[i] = byte(i * 17)
	}
	s.CommunityID = "1:LQU9qZlK+B5F3KDmev6m5PMibrg="
	s.Start, s.End = 1772356502123456789, 1772356504623456789
	s.Src, s.SrcPort = addr("10.0.0.4"), 49152
	s.Dst, s.DstPort = addr("2001:db8::1"), 443
	s.IPProtocol = packet.ProtoTCP
	s.SrcPackets, s.DstPackets, s.SrcBytes, s.DstBytes = 12, 15, 1840, 18230
	s.SrcTCPFlags, s.DstTCPFlags, s.ConnState, s.History = 27, 0, "SF", "ShADadFf"
	s.HandshakeRTT = 0.0312
	s.CloseReason, s.IsFinal, s.Version = "fin", true, 2
	s.VNIs, s.Collectors = []uint32{27, 28}, []string{"c1"}
	s.SrcMAC = MAC{0x00, 0x0d, 0x3a, 0x12, 0x34, 0x56}
	s.SrcTTL = 64
	s.TLSSNI = "bad\xff\"name\"\n"
	s.SrcPayload = []byte("GET /")
	s.DstLabels.ASN = 64500
	s.Created = 1
	return s
}

func TestAppendJSON(t *testing.T) {
	const want = `{"tenant":"default","session_id":"00112233445566778899aabbccddeeff",` +
		`"community_id":"1:LQU9qZlK+B5F3KDmev6m5PMibrg=",` +
		`"start_time":"2026-03-01T09:15:02.123456789Z","end_time":"2026-03-01T09:15:04.623456789Z","duration":2.5,` +
		`"src_ip":"10.0.0.4","src_port":49152,"dst_ip":"2001:db8::1","dst_port":443,"ip_protocol":6,"protocol":"tcp",` +
		`"src_packets":12,"dst_packets":15,"src_bytes":1840,"dst_bytes":18230,"src_payload_bytes":0,"dst_payload_bytes":0,` +
		`"src_missed_bytes":0,"dst_missed_bytes":0,"src_retransmits":0,"dst_retransmits":0,"src_out_of_order":0,` +
		`"dst_out_of_order":0,"src_zero_windows":0,"dst_zero_windows":0,"src_overlap_bytes":0,"dst_overlap_bytes":0,` +
		`"src_tcp_flags":27,"dst_tcp_flags":0,"conn_state":"SF","history":"ShADadFf","handshake_rtt":0.0312,` +
		`"close_reason":"fin","is_final":true,"version":2,"icmp_errors":0,"late_packets":0,"sampled":1,` +
		`"duplicate_packets":0,"tap_points":[],"collectors":["c1"],"vnis":[27,28],"outer_ports":0,` +
		`"src_mac":"00:0d:3a:12:34:56","vlans":[],"src_ttl":64,"tls_sni":"bad` + "\ufffd" + `\"name\"\n",` +
		`"src_payload":"R0VUIC8=","dst_asn":64500}`
	got := AppendJSON([]byte("x"), example())
	if string(got) != "x"+want {
		t.Errorf("got\n%s\nwant\n%s", got[1:], want)
	}
	if !json.Valid(got[1:]) {
		t.Error("invalid JSON")
	}

	// A protocol without ports, flags and keyword; a lone SYN of 0 ports.
	s := NewSession()
	s.IPProtocol = 200
	for _, name := range []string{"src_port", "dst_port", "src_tcp_flags", "protocol", "handshake_rtt", "src_mac", "src_ttl", "app", "http_status"} {
		if bytes.Contains(AppendJSON(nil, s), []byte(`"`+name+`"`)) {
			t.Errorf("%s of a session of protocol 200: %s", name, AppendJSON(nil, s))
		}
	}
	s.IPProtocol = packet.ProtoICMP
	if !bytes.Contains(AppendJSON(nil, s), []byte(`"src_port":0`)) {
		t.Errorf("ICMP type 0 is unknown: %s", AppendJSON(nil, s))
	}
}

// Names that the table of sessions has since its first version, in order.
func TestSessionColumns(t *testing.T) {
	want := strings.Fields(`tenant session_id community_id start_time end_time duration
		src_ip src_port dst_ip dst_port ip_protocol protocol src_packets dst_packets src_bytes dst_bytes
		src_payload_bytes dst_payload_bytes src_missed_bytes dst_missed_bytes
		src_retransmits dst_retransmits src_out_of_order dst_out_of_order src_zero_windows dst_zero_windows
		src_overlap_bytes dst_overlap_bytes src_tcp_flags dst_tcp_flags conn_state history
		handshake_rtt src_rtt dst_rtt close_reason is_final version icmp_errors late_packets sampled
		duplicate_packets tap_points collectors vnis outer_ports src_mac dst_mac vlans src_ttl dst_ttl app
		tls_sni tls_version tls_alpn tls_ja3 tls_ja4 http_method http_host http_path http_status http_user_agent
		dns_query dns_type dns_rcode dns_answers ssh_client ssh_server http_hosts dns_queries src_payload dst_payload
		src_name src_subnet src_vnet src_labels src_country src_asn src_as_org src_threat
		dst_name dst_subnet dst_vnet dst_labels dst_country dst_asn dst_as_org dst_threat flow_type direction
		input_partition log_epoch owner_epoch output_number created_time`)
	var got []string
	for _, c := range Sessions.Columns {
		got = append(got, c.Name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%v\nwant\n%v", got, want)
	}
}

// Every line must be what encoding/json makes of the same values.
func FuzzAppendJSON(f *testing.F) {
	f.Add("plain", 0.5, int64(1772356502123456789), []byte{1})
	f.Add("\xff\"\\\x00\u2028<>&", math.MaxFloat64, int64(math.MinInt64), []byte{})
	f.Add("\xed\xa0\x80", 1e-10, int64(math.MaxInt64), []byte("x"))
	f.Fuzz(func(t *testing.T, text string, number float64, ns int64, raw []byte) {
		s := NewSession()
		s.App, s.SrcRTT, s.Sampled, s.Start = text, number, number, ns
		s.TapPoints, s.SrcPayload = []string{text}, raw
		line := AppendJSON(nil, s)
		if bytes.ContainsAny(line, "\n\r\x00\x7f") || !utf8.Valid(line) {
			t.Fatalf("%q", line)
		}
		var got struct {
			App       *string   `json:"app"`
			SrcRTT    *float64  `json:"src_rtt"`
			Sampled   *float64  `json:"sampled"`
			Start     time.Time `json:"start_time"`
			TapPoints []string  `json:"tap_points"`
			Payload   *string   `json:"src_payload"`
		}
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		var want string
		j, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(j, &want); err != nil {
			t.Fatal(err)
		}
		if text == "" && got.App != nil || text != "" && (got.App == nil || *got.App != want) || got.TapPoints[0] != want {
			t.Fatalf("text %q: %s", text, line)
		}
		finite := !math.IsNaN(number) && !math.IsInf(number, 0)
		for _, v := range []*float64{got.SrcRTT, got.Sampled} {
			if (v != nil) != finite || finite && *v != number {
				t.Fatalf("number %v: %s", number, line)
			}
		}
		if got.Start.UnixNano() != ns {
			t.Fatalf("time %d: %s", ns, line)
		}
		if (got.Payload != nil) != (len(raw) > 0) || len(raw) > 0 && *got.Payload != base64.StdEncoding.EncodeToString(raw) {
			t.Fatalf("payload %x: %s", raw, line)
		}

		// Arrow must hold the same text.
		out := rowsOf(t, Sessions, []Session{*s})
		if err := Sessions.Read(out, func(r *Session) error {
			if r.App != want || r.TapPoints[0] != want || !bytes.Equal(r.SrcPayload, raw) || r.Start != ns {
				t.Fatalf("%q, %q, %x, %d from Arrow", r.App, r.TapPoints, r.SrcPayload, r.Start)
			}
			if math.IsNaN(r.SrcRTT) == finite {
				t.Fatalf("number %v came back as %v", number, r.SrcRTT)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestDocsAreFresh(t *testing.T) {
	const page = "../../docs/columns.md"
	have, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, Markdown()) {
		t.Errorf("%s is stale: run make generate", page)
	}
}

func TestDDL(t *testing.T) {
	ddl := DDL(pb.Rows_SESSIONS)
	for _, want := range []string{
		"    `tenant` LowCardinality(String) COMMENT 'Address space that the session belongs to',\n",
		"    `start_time` DateTime64(9, 'UTC') COMMENT 'Time of the first packet, UTC' CODEC(Delta, ZSTD(1)),\n",
		"`duration` Float64 COMMENT 'end_time less start_time [s]'",
		`IANA\'s keyword`,
	} {
		if !strings.Contains(ddl, want) {
			t.Errorf("no %q in\n%s", want, ddl)
		}
	}
	if n := strings.Count(ddl, "\n") + 1; n != len(Sessions.Columns) || strings.HasSuffix(ddl, ",") {
		t.Errorf("%d lines for %d columns", n, len(Sessions.Columns))
	}
	if names := Names(pb.Rows_ALERTS); names != "`time`, `tenant`, `session_id`, `kind`, `src_ip`, `src_port`, `dst_ip`, `dst_port`, `ip_protocol`, `threat`, `indicator`, `confidence`, `message`" {
		t.Error(names)
	}
}

func TestUnknownVersion(t *testing.T) {
	rows := rowsOf(t, Sessions, []Session{*example()})
	rows.ColumnsVersion = Version + 1
	_, err := Open(rows, nil)
	var v *record.VersionError
	if !errors.As(err, &v) || v.Found != Version+1 || v.Understood != Version {
		t.Fatalf("%v", err)
	}
	if want := "columns of SESSIONS rows of version 2, this program understands version 1"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
}

// A stream with other columns, or with the right ones but written by another library, is told apart.
func TestSchema(t *testing.T) {
	write := func(fields []arrow.Field, metadata *arrow.Metadata) *pb.Rows {
		b, err := stream(arrow.NewSchema(fields, metadata))
		if err != nil {
			t.Fatal(err)
		}
		rows, err := record.NewRows(pb.Rows_ALERTS, Version, 0, b)
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	fields := func() []arrow.Field { return slices.Clone(Alerts.Schema().Fields()) }
	renamed, retyped, dictionary := fields(), fields(), fields()
	renamed[3].Name = "sort"
	retyped[4].Type = arrow.BinaryTypes.Binary
	dictionary[4].Type = &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}
	nullable := fields()
	nullable[4].Nullable = true
	metadata := arrow.MetadataFrom(map[string]string{"writer": "another"})
	for _, c := range []struct {
		name string
		rows *pb.Rows
		want string
	}{
		{"same", write(fields(), nil), ""},
		{"metadata", write(fields(), &metadata), ""},
		{"renamed", write(renamed, nil), `column 4 is "sort" (utf8), this program has "kind" (utf8)`},
		{"retyped", write(retyped, nil), `column 5 is "src_ip" (binary), this program has "src_ip" (utf8)`},
		{"nullable", write(nullable, nil), `column 5 is "src_ip" (utf8, nullable), this program has "src_ip" (utf8)`},
		{"fewer", write(fields()[:4], nil), `column 5 is absent, this program has "src_ip" (utf8)`},
		{"more", write(append(fields(), arrow.Field{Name: "x", Type: arrow.PrimitiveTypes.Int64}), nil), `column 14 is "x" (int64), this program has absent`},
		{"dictionary", write(dictionary, nil), `column 5 is a dictionary`},
	} {
		_, err := Open(c.rows, nil)
		if c.want == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// Record batch messages of several streams make one stream.
func TestRecordBatches(t *testing.T) {
	joined := slices.Clone(SchemaMessage(pb.Rows_SESSIONS))
	for range 3 {
		s, err := Open(rowsOf(t, Sessions, []Session{*example(), *example()}), nil)
		if err != nil {
			t.Fatal(err)
		}
		if s.Rows != 2 {
			t.Errorf("%d rows", s.Rows)
		}
		for _, m := range s.RecordBatches() {
			joined = append(joined, m...)
		}
	}
	joined = append(joined, EndOfStream...)
	r, err := ipc.NewReader(bytes.NewReader(joined))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	n := 0
	for r.Next() {
		n += int(r.Record().NumRows())
	}
	if r.Err() != nil || n != 6 {
		t.Errorf("%d rows, %v", n, r.Err())
	}
}

func TestSize(t *testing.T) {
	b := NewBuilder(Sessions)
	r := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		s := example()
		s.SrcPayload = make([]byte, r.IntN(1000))
		b.Append(s)
	}
	size := b.Size()
	s, err := b.Stream()
	if err != nil {
		t.Fatal(err)
	}
	if len(s) < size/2 || len(s) > size*3/2 {
		t.Errorf("size %d, stream of %d bytes", size, len(s))
	}
	if b.Size() != 0 || b.Len() != 0 {
		t.Errorf("size %d, %d rows after the stream was taken", b.Size(), b.Len())
	}
}

// read does with hostile rows all that a sink does.
func read[R any](table *Table[R], rows *pb.Rows) error {
	return table.Read(rows, func(r *R) error {
		table.AppendJSON(nil, r)
		return nil
	})
}

func readAny(rows *pb.Rows) error {
	switch rows.Kind {
	case pb.Rows_SESSIONS:
		return read(Sessions, rows)
	case pb.Rows_TRAFFIC:
		return read(Bookings, rows)
	case pb.Rows_PACKETS:
		return read(Packets, rows)
	}
	return read(Alerts, rows)
}

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Each byte of a stream, changed in several ways: an error or rows, never a panic.
func TestCorrupted(t *testing.T) {
	b := NewBuilder(Packets)
	for range 2 {
		b.Append(&Packet{Side: SideSrc, Data: []byte("abc")})
	}
	good, err := b.Stream()
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for _, x := range []byte{0x01, 0x80, 0xff} {
			bad := slices.Clone(good)
			bad[i] ^= x
			readAny(&pb.Rows{Kind: pb.Rows_PACKETS, ColumnsVersion: Version, Count: 2, RawSize: uint64(len(bad)), Arrow: bad})
		}
	}
	for i := range good {
		if err := readAny(&pb.Rows{Kind: pb.Rows_PACKETS, ColumnsVersion: Version, Count: 2, RawSize: uint64(i), Arrow: good[:i]}); err == nil && i < len(good)-len(EndOfStream) {
			t.Fatalf("no error for the first %d of %d bytes", i, len(good))
		}
	}
}

func FuzzRead(f *testing.F) {
	add := func(rows *pb.Rows, err error) {
		if err != nil {
			f.Fatal(err)
		}
		s, err := record.Stream(rows, nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(rows.Kind), s)
	}
	sb, tb, pkb, ab := NewBuilder(Sessions), NewBuilder(Bookings), NewBuilder(Packets), NewBuilder(Alerts)
	sb.Append(example())
	tb.Append(&Traffic{})
	pkb.Append(&Packet{Side: SideDst, Data: []byte("x")})
	ab.Append(&Alert{Kind: "overlap"})
	add(sb.Rows())
	add(tb.Rows())
	add(pkb.Rows())
	add(ab.Rows())
	metadata := arrow.MetadataFrom(map[string]string{"writer": "another"})
	other, err := stream(arrow.NewSchema(Alerts.Schema().Fields(), &metadata))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(byte(pb.Rows_ALERTS), other)
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		rows := &pb.Rows{Kind: pb.Rows_Kind(kind % 4), ColumnsVersion: Version, RawSize: uint64(len(b)), Arrow: b}
		s, err := parse(rows.Kind, b)
		if err != nil {
			return
		}
		rows.Count = uint32(s.Rows)
		n := allocated(func() { readAny(rows) })
		for range 3 { // others of the process allocate, too
			n = min(n, allocated(func() { readAny(rows) }))
		}
		if n > 1<<20+200*uint64(len(b)) {
			t.Fatalf("%d bytes allocated for %d", n, len(b))
		}
	})
}

// A schema that claims millions of columns in a few bytes is refused before anything is allocated for them.
func TestHostileSchema(t *testing.T) {
	metadata := arrow.MetadataFrom(map[string]string{"writer": "another"})
	good, err := stream(arrow.NewSchema(Alerts.Schema().Fields(), &metadata))
	if err != nil {
		t.Fatal(err)
	}
	for i := 8; i+4 <= len(good); i++ {
		bad := slices.Clone(good)
		binary.LittleEndian.PutUint32(bad[i:], 0x0fffffff)
		if n := allocated(func() { parse(pb.Rows_ALERTS, bad) }); n > 1<<20 {
			t.Errorf("length at %d: %d bytes allocated", i, n)
		}
	}
}

func TestProtocol(t *testing.T) {
	for number, want := range map[uint8]string{0: "hopopt", 1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 51: "ah", 58: "ipv6-icmp", 89: "ospfigp", 103: "pim", 112: "vrrp", 132: "sctp", 136: "udplite", 61: "", 253: "", 255: ""} {
		if got := Protocol(number); got != want {
			t.Errorf("%d: %q, want %q", number, got, want)
		}
	}
	seen := make(map[string]int)
	for i, p := range protocols {
		if p != "" && (seen[p] != 0 || p != strings.ToLower(p)) {
			t.Errorf("%d: %q", i, p)
		}
		seen[p] = i
	}
}

func TestTrafficCompare(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	all := make([]TrafficDimensions, 40)
	for i := range all {
		fill(r, reflect.ValueOf(&all[i]).Elem())
		if i%4 == 0 && i > 0 { // differ in one field only
			all[i] = all[i-1]
			all[i].Dst.ASN++
		}
	}
	for i := range all {
		for j := range all {
			c, d := all[i].Compare(&all[j]), all[j].Compare(&all[i])
			if c != -d || (c == 0) != (all[i] == all[j]) {
				t.Fatalf("%+v\n%+v\n%d and %d", all[i], all[j], c, d)
			}
		}
	}
}

func TestTrafficSums(t *testing.T) {
	a := TrafficSums{1, 2, 3, 4, 5, 6, 7}
	b := a
	b.Add(a.Negated())
	if b != (TrafficSums{}) {
		t.Errorf("%+v", b)
	}
	for ns, want := range map[int64]int64{0: 0, 59_999_999_999: 0, 60_000_000_000: 60_000_000_000, -1: -60_000_000_000, -60_000_000_000: -60_000_000_000} {
		if got := MinuteOf(ns); got != want {
			t.Errorf("minute of %d: %d, want %d", ns, got, want)
		}
	}
}

func TestResetKeepsMemory(t *testing.T) {
	s := example()
	p := &s.VNIs[0]
	s.Reset()
	if got := AppendJSON(nil, s); !bytes.Equal(got, AppendJSON(nil, NewSession())) {
		t.Errorf("after a reset: %s", got)
	}
	if s.VNIs = append(s.VNIs, 1); &s.VNIs[0] != p {
		t.Error("the list's memory was dropped")
	}
}

func BenchmarkAppend(b *testing.B) {
	builder, s := NewBuilder(Sessions), example()
	b.ReportAllocs()
	for i := range b.N {
		builder.Append(s)
		if i%1000 == 999 {
			builder.Record().Release()
		}
	}
}

func BenchmarkRows(b *testing.B) {
	builder, s := NewBuilder(Sessions), example()
	b.ReportAllocs()
	for range b.N {
		for i := range 1000 {
			s.SrcPort = uint16(i)
			binary.BigEndian.PutUint64(s.ID[:], uint64(i)*0x9e3779b97f4a7c15)
			builder.Append(s)
		}
		rows, err := builder.Rows()
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(proto.Size(rows))/1000, "bytes/row")
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/row")
}

func BenchmarkAppendJSON(b *testing.B) {
	s := example()
	var buf []byte
	b.ReportAllocs()
	for range b.N {
		buf = AppendJSON(buf[:0], s)
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			builder := NewBuilder(Sessions)
			for range n {
				builder.Append(example())
			}
			rows, err := builder.Rows()
			if err != nil {
				b.Fatal(err)
			}
			into := make([]byte, rows.RawSize)
			b.ReportAllocs()
			for range b.N {
				s, err := Open(rows, into)
				if err != nil {
					b.Fatal(err)
				}
				if err := s.Each(func(*Batch) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/row")
		})
	}
}
