package application

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/tapweave/tapweave/enricher/application/applicationtest"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
)

// part is a segment or a datagram of one side.
type part struct {
	side     uint8
	pos      int64
	data     []byte
	size     int // by the header; 0: as much as there is
	datagram bool
}

const firstByte = 1 << 33

// endsOf are the ends that a sample's name depends on.
func endsOf(s *applicationtest.Sample) Ends {
	return Ends{Addresses: [2]packet.Addr{1: s.Group}, Ports: s.Ports, UDP: s.Datagrams()}
}

// whole are a sample's parts without any cut.
func whole(s *applicationtest.Sample, client, server bool) (parts []part) {
	if client && len(s.Client) > 0 {
		parts = append(parts, part{0, 0, s.Client, 0, false})
	}
	if server && len(s.Server) > 0 {
		parts = append(parts, part{1, 0, s.Server, 0, false})
	}
	for _, d := range s.Asks {
		if client {
			parts = append(parts, part{0, 0, d, 0, true})
		}
	}
	for _, d := range s.Answers {
		if server {
			parts = append(parts, part{1, 0, d, 0, true})
		}
	}
	return parts
}

// read reads parts as a session whose SYNs were seen or not.
func read(parts []part, syn bool, set Settings) *Session {
	s := new(Session)
	for _, p := range parts {
		size := max(p.size, len(p.data))
		if p.datagram {
			s.Datagram(&set, p.side, p.data, size)
		} else {
			s.Segment(&set, p.side, Place{Pos: firstByte + p.pos, Size: int64(size), Begin: firstByte, Known: syn}, p.data)
		}
	}
	s.End(&set)
	return s
}

// result is all that a session says.
func result(s *Session, ends Ends) string {
	row := columns.NewSession()
	s.Fill(row, 0)
	row.HandshakeRTT, row.SrcRTT, row.DstRTT = 0, 0, 0
	return fmt.Sprintf("%v %+v", s.Name(ends), *row)
}

// cut cuts the stream parts into segments of the sizes that next gives.
func cut(parts []part, next func() int) (all []part) {
	for _, p := range parts {
		if p.datagram {
			all = append(all, p)
			continue
		}
		for at := 0; at < len(p.data); {
			n := min(max(next(), 1), len(p.data)-at)
			all = append(all, part{p.side, int64(at), p.data[at : at+n], 0, false})
			at += n
		}
	}
	return all
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for i := range applicationtest.Samples {
		s := &applicationtest.Samples[i]
		seen[s.App] = true
		for _, c := range []struct {
			client, server bool
			want           string
		}{{true, true, s.App}, {true, false, s.ClientOnly}, {false, true, s.ServerOnly}} {
			if got := read(whole(s, c.client, c.server), true, Settings{}).Name(endsOf(s)).String(); got != c.want {
				t.Errorf("%s (client %v, server %v) is %q, want %q", s.Name, c.client, c.server, got, c.want)
			}
		}
	}
	for n := Name(1); n < numNames; n++ {
		if !seen[n.String()] {
			t.Errorf("no sample of %v", n)
		}
	}
}

// The page of the columns lists the names.
func TestNamesListed(t *testing.T) {
	var want []string
	for n := Name(1); n < numNames; n++ {
		want = append(want, n.String())
	}
	slices.Sort(want)
	for _, c := range columns.Infos(pb.Rows_SESSIONS) {
		if _, list, _ := strings.Cut(c.Meaning, "): "); c.Name == "app" && list != strings.Join(want, ", ") {
			t.Errorf("the column app is said to be one of %s, not %s", list, strings.Join(want, ", "))
		}
	}
}

// What is found does not depend on how the bytes are cut, nor on the order in which the segments come, nor on
// which side comes first; a second copy does no harm.
func TestCuts(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	for i := range applicationtest.Samples {
		s := &applicationtest.Samples[i]
		t.Run(s.Name, func(t *testing.T) {
			uncut := whole(s, true, true)
			want := result(read(uncut, true, Settings{Keep: 100}), endsOf(s))
			check := func(how string, parts []part, syn bool) {
				t.Helper()
				if got := result(read(parts, syn, Settings{Keep: 100}), endsOf(s)); got != want {
					t.Fatalf("%s:\n%s, whole:\n%s", how, got, want)
				}
			}
			for n := 1; n <= 40; n++ {
				check(fmt.Sprintf("segments of %d bytes", n), cut(uncut, func() int { return n }), true)
			}
			reversed := slices.Clone(uncut)
			slices.SortStableFunc(reversed, func(a, b part) int { return int(b.side) - int(a.side) })
			check("the server first", reversed, true)
			for seed := range uint64(rounds) {
				r := rand.New(rand.NewPCG(seed, 1))
				parts := cut(uncut, func() int { return 1 + r.IntN(60) })
				for range 3 {
					parts = append(parts, parts[r.IntN(len(parts))])
					if parts[len(parts)-1].datagram {
						parts = parts[:len(parts)-1]
					}
				}
				if !s.Datagrams() {
					r.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
				}
				check(fmt.Sprintf("seed %d", seed), parts, true)
			}
		})
	}
}

// Segments that came before the first one seen are put before it while the session is young.
func TestWithoutSYN(t *testing.T) {
	for i := range applicationtest.Samples {
		s := &applicationtest.Samples[i]
		if s.Datagrams() || s.Name == "http" {
			continue
		}
		uncut := whole(s, true, true)
		want := result(read(uncut, false, Settings{}), endsOf(s))
		for seed := range uint64(20) {
			r := rand.New(rand.NewPCG(seed, 2))
			parts := cut(uncut, func() int { return 20 + r.IntN(60) })
			r.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
			if got := result(read(parts, false, Settings{}), endsOf(s)); got != want && len(parts) <= maxSegments {
				// A side whose beginning is not known is looked at where segments begin.
				if read(parts, false, Settings{}).Name(endsOf(s)) != read(uncut, false, Settings{}).Name(endsOf(s)) {
					t.Errorf("%s, seed %d:\n%s, whole:\n%s", s.Name, seed, got, want)
				}
			}
		}
	}
}

// A session that is saved and loaded after any segment goes on as if nothing had been.
func TestState(t *testing.T) {
	for i := range applicationtest.Samples {
		s := &applicationtest.Samples[i]
		parts := cut(whole(s, true, true), func() int { return 7 })
		if !s.Datagrams() && len(parts) > 8 {
			parts[1], parts[4] = parts[4], parts[1]
		}
		set := Settings{Keep: 20}
		want := result(read(parts, true, set), endsOf(s))
		now := new(Session)
		for n, p := range parts {
			if p.datagram {
				now.Datagram(&set, p.side, p.data, len(p.data))
			} else {
				now.Segment(&set, p.side, Place{Pos: firstByte + p.pos, Size: int64(len(p.data)), Begin: firstByte, Known: true}, p.data)
			}
			state := now.Append([]byte("before"))
			loaded := new(Session)
			rest, err := loaded.Load(append(state[6:], "behind"...))
			if err != nil || string(rest) != "behind" {
				t.Fatalf("%s, after %d: %v, %q", s.Name, n, err, rest)
			}
			if again := loaded.Append(nil); !bytes.Equal(again, state[6:]) {
				t.Fatalf("%s, after %d: saved again it is %x, not %x", s.Name, n, again, state[6:])
			}
			now = loaded
		}
		now.End(&set)
		if got := result(now, endsOf(s)); got != want {
			t.Errorf("%s:\n%s, without being saved:\n%s", s.Name, got, want)
		}
	}
}

// Wherever a hole is, what was found before it stays, and nothing is taken for another protocol.
func TestHoles(t *testing.T) {
	for i := range applicationtest.Samples {
		s := &applicationtest.Samples[i]
		if s.Datagrams() {
			continue
		}
		for seed := range uint64(200) {
			r := rand.New(rand.NewPCG(seed, 3))
			parts := cut(whole(s, true, true), func() int { return 1 + r.IntN(80) })
			lost := r.IntN(len(parts))
			sampled := slices.Clone(parts)
			p := &sampled[lost]
			p.size, p.data = len(p.data), p.data[:r.IntN(len(p.data))] // it travels without its end
			for _, parts := range [][]part{slices.Delete(slices.Clone(parts), lost, lost+1), sampled} {
				got := read(parts, true, Settings{}).Name(endsOf(s)).String()
				if got != s.App && got != s.ClientOnly && got != s.ServerOnly && got != "" && !((s.App == "http2" || s.App == "socks") && got == "http") {
					// (What SOCKS carries is recognised where SOCKS itself is lost, and a request before an upgrade is one.)
					t.Errorf("%s, seed %d, without part %d: %v", s.Name, seed, lost, got)
				}
			}
		}
	}
}

// The two sides of two protocols are neither's third.
func TestCrossed(t *testing.T) {
	for i := range applicationtest.Samples {
		for j := range applicationtest.Samples {
			a, b := &applicationtest.Samples[i], &applicationtest.Samples[j]
			if a.Datagrams() != b.Datagrams() {
				continue
			}
			crossed := read(append(whole(a, true, false), whole(b, false, true)...), true, Settings{})
			got := crossed.Name(endsOf(a))
			if crossed.Verdicts[0].Set.has(got) && crossed.Verdicts[1].Set.has(got) {
				continue // "USER x" and "+OK" are POP3, whoever else may have said either
			}
			if got != Unknown && got.String() != a.App && got.String() != b.App && got != HTTP {
				t.Errorf("%s asks, %s answers: %v", a.Name, b.Name, got)
			}
		}
	}
}

// What differs in a byte from a protocol's first packet is the same protocol, or none, or what its kin is.
func TestMutations(t *testing.T) {
	kin := map[string]string{"nbns": "dns", "http2": "http"} // names of NetBIOS; an upgrade to HTTP/2 that fails
	for i := range applicationtest.Samples {
		s := &applicationtest.Samples[i]
		for j := range 400 {
			r := rand.New(rand.NewPCG(uint64(i), uint64(j)))
			parts := whole(s, true, true)
			for k := range parts {
				parts[k].data = slices.Clone(parts[k].data)
				parts[k].data[r.IntN(min(len(parts[k].data), 24))] ^= byte(1 << r.IntN(8))
			}
			got := read(parts, true, Settings{}).Name(endsOf(s)).String()
			if got != "" && got != s.App && got != s.ClientOnly && got != s.ServerOnly && kin[s.App] != got {
				t.Errorf("%s, seed %d: %s", s.Name, j, got)
			}
		}
	}
}

// Random bytes are nothing.
func TestRandom(t *testing.T) {
	n := 200_000
	if testing.Short() {
		n = 20_000
	}
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 256)
	var wrong [numNames]int
	for i := range n {
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		size := 16 + i%len(b[16:])
		p := []part{{0, 0, b[:size], 0, i%2 == 0}, {1, 0, b[size:], 0, i%2 == 0}}
		wrong[read(p, true, Settings{}).Name(Ends{})]++
	}
	for name, count := range wrong[1:] {
		if count > 0 {
			t.Errorf("%d of %d random sessions are %v", count, n, Name(name+1))
		}
	}
}

func fields(t *testing.T, name string) *columns.Session {
	t.Helper()
	for i := range applicationtest.Samples {
		if s := &applicationtest.Samples[i]; s.Name == name {
			row := columns.NewSession()
			read(whole(s, true, true), true, Settings{}).Fill(row, 0)
			return row
		}
	}
	t.Fatalf("no sample %q", name)
	return nil
}

func TestFields(t *testing.T) {
	row := fields(t, "http")
	if want := []string{"four.example", "one.example", "three.example", "two.example"}; !reflect.DeepEqual(row.HTTPHosts, want) {
		t.Errorf("hosts %v", row.HTTPHosts)
	}
	if row.HTTPMethod != "GET" || row.HTTPHost != "one.example" || row.HTTPPath != "/a" || row.HTTPStatus != 204 || row.HTTPUserAgent != "x/1" {
		t.Errorf("%+v", row)
	}
	row = fields(t, "http through connect")
	if row.HTTPMethod != "CONNECT" || row.HTTPHost != "inner.example:443" || row.TLSSNI != "inner.example" || row.TLSVersion != "TLSv1.3" || row.HTTPStatus != 200 {
		t.Errorf("%+v", row)
	}
	if row = fields(t, "http in connect"); !reflect.DeepEqual(row.HTTPHosts, []string{"inner.example", "inner.example:80"}) {
		t.Errorf("hosts %v", row.HTTPHosts)
	}
	if row = fields(t, "tls 1.3"); row.TLSSNI != "example.com" || row.TLSVersion != "TLSv1.3" || row.TLSALPN != "h2" || len(row.TLSJA3) != 32 || row.TLSJA4[:10] != "t13d0205h2" {
		t.Errorf("%+v", row)
	}
	if row = fields(t, "tls 1.2"); row.TLSVersion != "TLSv1.2" || row.TLSALPN != "h2" {
		t.Errorf("%+v", row)
	}
	for _, name := range []string{"smtp", "ftp", "pop3", "imap", "postgresql with tls", "rdp with tls", "socks5 with password"} {
		if row = fields(t, name); row.TLSSNI == "" || row.TLSVersion == "" || row.TLSJA3 == "" {
			t.Errorf("%s: no TLS in it: %+v", name, row)
		}
	}
	if row = fields(t, "ssh"); row.SSHClient != "OpenSSH_9.6" || row.SSHServer != "dropbear_2022.83" {
		t.Errorf("%+v", row)
	}
	if row = fields(t, "socks5"); row.HTTPHost != "w.example" || row.HTTPStatus != 302 {
		t.Errorf("%+v", row)
	}
	if row = fields(t, "http2"); row.HTTPMethod != "GET" || row.HTTPHost != "www.example.com" || row.HTTPPath != "/" || row.HTTPStatus != 200 {
		t.Errorf("%+v", row)
	}
	for _, name := range []string{"quic", "quic version 2"} {
		if row = fields(t, name); row.TLSSNI != "example.com" || row.TLSALPN != "alpn" || row.TLSVersion != "TLSv1.3" || !strings.HasPrefix(row.TLSJA4, "q13d0211an_") {
			t.Errorf("%s: %+v", name, row)
		}
	}
	// The answer belongs to the first question, though another came before.
	for _, name := range []string{"dns over tcp", "dns"} {
		row = fields(t, name)
		if row.DNSQuery != "a.example" || row.DNSType != "A" || row.DNSRcode != "NOERROR" || row.DNSAnswers[0] != "192.0.2.1" {
			t.Errorf("%s: %+v", name, row)
		}
	}
	if !reflect.DeepEqual(fields(t, "dns over tcp").DNSQueries, []string{"a.example", "b.example"}) {
		t.Error(row.DNSQueries)
	}
}

// Segments without bytes are holes: the default sampling lets only beginnings travel.
func TestStarts(t *testing.T) {
	request := []byte("POST /a HTTP/1.1\r\nHost: one.example\r\nContent-Length: 5000\r\n\r\n")
	second := []byte("GET /b HTTP/1.1\r\nHost: two.example\r\nCookie: ")
	third := []byte("GET /c HTTP/1.1\r\nHost: three.example\r\n\r\n")
	pos := int64(0)
	var parts []part
	add := func(data []byte, size int) {
		parts = append(parts, part{0, pos, data, size, false})
		pos += int64(size)
	}
	add(request, len(request)+1000)
	for range 4 {
		add(nil, 1000)
	}
	add(second, 700) // cut at its unfinished line
	add(third, len(third))
	row := columns.NewSession()
	read(parts, true, Settings{}).Fill(row, 0)
	if want := []string{"one.example", "three.example", "two.example"}; !reflect.DeepEqual(row.HTTPHosts, want) {
		t.Errorf("%v", row.HTTPHosts)
	}
	// What was not sampled at all, before the first that was, is no beginning.
	s := new(Session)
	s.Segment(&Settings{}, 0, Place{Pos: 500, Size: int64(len(third)), Begin: 100, Known: true, Seen: true}, third)
	if got := s.Name(Ends{}); got != HTTP {
		t.Errorf("%v", got)
	}
}

func TestKeep(t *testing.T) {
	parts := []part{{0, 3, []byte("defgh"), 0, false}, {0, 0, []byte("abc"), 0, false}, {1, 0, []byte("12"), 5, false}, {1, 5, []byte("678"), 0, false}, {0, 8, []byte("ijkl"), 0, false}}
	s := read(parts, true, Settings{Keep: 10})
	if string(s.Kept[0]) != "abcdefghij" || string(s.Kept[1]) != "12" {
		t.Errorf("%q %q", s.Kept[0], s.Kept[1])
	}
	if s = read(parts, true, Settings{}); s.Kept[0] != nil {
		t.Errorf("%q", s.Kept[0])
	}
}

// What a side holds is bounded, whatever it sends, and counted to the byte.
func TestBounds(t *testing.T) {
	set := Settings{Keep: 100}
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 4))
		s := new(Session)
		most := 0
		for range 400 {
			sample := &applicationtest.Samples[r.IntN(len(applicationtest.Samples))]
			b := bytes.Repeat(sample.Client, 1+r.IntN(20))
			side := uint8(r.IntN(2))
			s.Segment(&set, side, Place{Pos: int64(r.IntN(100_000)), Size: int64(len(b)), Begin: 0, Known: r.IntN(2) == 0, Settled: r.IntN(2) == 0}, b)
			most = max(most, s.Bytes)
		}
		if most > 2*(maxWaiting+64<<10+64<<10+readerBytes+foundBytes) {
			t.Errorf("seed %d: %d bytes", seed, most)
		}
		held := 0
		for i := range 2 {
			if rd := s.Readers[i]; rd != nil {
				held += rd.size() + readerBytes
			}
		}
		before := s.Bytes
		s.GiveUp()
		if before-s.Bytes != held || s.Listens(0) || s.Listens(1) {
			t.Errorf("seed %d: %d bytes freed of %d", seed, before-s.Bytes, held)
		}
	}
}

// A side that is recognised, or is not to be, costs nothing more.
func TestAllocations(t *testing.T) {
	s := new(Session)
	set := Settings{}
	pos := int64(0)
	request := []byte("GET / HTTP/1.1\r\nHost: one.example\r\nUser-Agent: x\r\n\r\n")
	send := func() {
		s.Segment(&set, 0, Place{Pos: pos, Size: int64(len(request)), Known: true}, request)
		pos += int64(len(request))
	}
	send()
	if n := testing.AllocsPerRun(1000, send); n > 0 {
		t.Errorf("%v allocations a request", n)
	}
	noise := bytes.Repeat([]byte{0xee}, 100)
	reply := int64(0)
	other := func() {
		s.Segment(&set, 1, Place{Pos: reply, Size: 100, Known: true}, noise)
		reply += 100
	}
	other()
	if n := testing.AllocsPerRun(1000, other); n > 0 || s.Listens(1) {
		t.Errorf("%v allocations a segment of what is not recognised", n)
	}
}
