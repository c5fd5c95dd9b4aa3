package fold_test

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/proto/batch"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/conversation"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/proto/session"
)

var (
	seedsFlag = flag.Uint64("seeds", 200, "how many seeds TestProperties tries")
	seedFlag  = flag.Uint64("seed", 0, "try this seed alone")
)

// TestProperties writes traffic whose sessions are known, takes it through collectors in ways drawn from the seed, and
// folds what they publish: the sessions are those of one collector that saw everything in order, and the true ones.
//
// A seed that fails prints itself, to be tried alone.
func TestProperties(t *testing.T) {
	from, seeds := uint64(1), *seedsFlag
	if *seedFlag > 0 {
		from, seeds = *seedFlag, 1
	}
	const atOnce = 2
	next := atomic.Uint64{}
	next.Store(from - 1)
	failed := atomic.Uint64{}
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for {
				seed := next.Add(1)
				if seed >= from+seeds || failed.Load() >= 10 {
					return
				}
				if text := trial(seed); text != "" {
					failed.Add(1)
					t.Errorf("go test ./fold -run TestProperties -seed %d\n%s", seed, text)
				}
			}
		})
	}
	wg.Wait()
}

// trial tries one seed and says what is wrong.
func trial(seed uint64) string {
	r := rand.New(rand.NewPCG(seed, 13))
	o := conversation.Options{
		Seed: seed, Start: time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC), Conversations: 5 + r.IntN(20),
		Span: time.Duration(1+r.IntN(60)) * time.Second, Silences: r.IntN(4) == 0,
	}
	if r.IntN(4) == 0 {
		o.Resolution = []time.Duration{time.Microsecond, time.Millisecond, 10 * time.Millisecond}[r.IntN(3)]
	}
	traffic := conversation.New(o)
	end := o.Start.UnixNano()
	for _, p := range traffic.Packets {
		end = max(end, p.Time)
	}
	end += int64(3 * time.Second)

	plain := newTrip(traffic, nil, way{collectors: 1}, end, r).fold()
	if plain.err != nil {
		return fmt.Sprintf("unsplit: %v", plain.err)
	}
	if lines := conversation.Differences(traffic.Sessions(nil, end), plain.rows(), 0); len(lines) > 0 {
		return fmt.Sprintf("unsplit, not true:\n%s", describe(traffic, lines))
	}
	for range 4 {
		w := drawWay(r, o.Silences)
		trip := newTrip(traffic, nil, w, end, r)
		got := trip.fold()
		if got.err != nil {
			return fmt.Sprintf("%v: %v", w, got.err)
		}
		seen := func(p *conversation.Packet) bool { return trip.came[p] }
		truth := traffic.Sessions(seen, end)
		if lines := conversation.Differences(truth, got.rows(), w.allowance()); len(lines) > 0 {
			return fmt.Sprintf("%v, not true:\n%s", w, describe(traffic, lines))
		}
		if w.allowance() != 0 {
			continue
		}
		want := plain
		if len(trip.came) < len(traffic.Packets) {
			want = newTrip(traffic, seen, way{collectors: 1}, end, r).fold()
		}
		if text := want.differs(got); text != "" {
			return fmt.Sprintf("%v, not as unsplit:\n%s", w, text)
		}
	}
	return ""
}

// describe shows what differs, and the packets of the first conversation that does.
func describe(traffic *conversation.Traffic, lines []string) string {
	text := strings.Join(lines[:min(len(lines), 5)], "\n")
	for _, c := range traffic.Conversations {
		if !strings.HasPrefix(lines[0], c.String()) {
			continue
		}
		start := c.Packets[0].Time
		for _, p := range c.Packets[:min(len(c.Packets), 100)] {
			text += fmt.Sprintf("\n  %12v %v", time.Duration(p.Time-start), p)
		}
	}
	return text
}

// way is how packets come from the taps to the log.
type way struct {
	collectors int
	split      int           // see route
	jitter     time.Duration // arrivals are late by as much, and promises hold back for it
	lag        time.Duration // between a batch's sealing and its append
	taps       int           // 2: both ends are tapped
	copyDelay  time.Duration // the second tap's copy is later by as much
	torn       bool          // now and then only one of the two taps sees a packet
	repeats    bool          // batches are written again
	skew       time.Duration // between clocks
	stops      time.Duration // a collector is cut off for so long, once; 0: none is
	crash      time.Duration // a collector is killed and comes back after so long; 0: none is
	leaves     bool          // a collector leaves in good order and comes back
}

var splitNames = [...]string{"direction", "session", "packet", "rehash"}

func (w way) String() string {
	s := fmt.Sprintf("%d collectors by %s, jitter %v, lag %v", w.collectors, splitNames[w.split], w.jitter, w.lag)
	for _, c := range []struct {
		holds bool
		text  string
	}{
		{w.taps == 2, fmt.Sprintf("two taps %v apart", w.copyDelay)}, {w.torn, "copies lost"}, {w.repeats, "batches repeated"},
		{w.skew > 0, fmt.Sprintf("clocks %v off", w.skew)}, {w.stops > 0, fmt.Sprintf("one stopped for %v", w.stops)},
		{w.crash > 0, fmt.Sprintf("one killed for %v", w.crash)}, {w.leaves, "one leaves and comes back"},
	} {
		if c.holds {
			s += ", " + c.text
		}
	}
	return s
}

// allowance is what the rows of a way may differ in.
func (w way) allowance() (a conversation.Allowance) {
	if w.skew > 0 {
		a |= conversation.Skewed
	}
	if w.torn || w.taps == 2 && w.crash > 0 || w.stops >= retired || w.skew > 0 && (w.crash > 0 || w.leaves) {
		a |= conversation.Late
	}
	return a
}

// retired is longer than a producer may be silent; stopped is shorter.
const (
	retired = 12 * time.Second
	stopped = 7 * time.Second
)

func drawWay(r *rand.Rand, silences bool) way {
	between := func(a, b time.Duration) time.Duration { return a + time.Duration(r.Int64N(int64(b-a)+1)) }
	w := way{collectors: 1 + r.IntN(8), split: r.IntN(len(splitNames)), taps: 1}
	if r.IntN(2) == 0 {
		w.jitter = between(time.Millisecond, 500*time.Millisecond)
	}
	if r.IntN(2) == 0 {
		w.lag = between(time.Millisecond, 2*time.Second)
	}
	if r.IntN(3) == 0 {
		w.taps, w.copyDelay = 2, between(time.Microsecond, time.Millisecond)
		if r.IntN(4) == 0 {
			w.copyDelay = between(time.Millisecond, time.Second)
		}
		w.torn = r.IntN(4) == 0
	}
	w.repeats = r.IntN(3) == 0
	if r.IntN(4) == 0 {
		w.skew = 20 * time.Millisecond
		w.copyDelay = min(w.copyDelay, time.Second-2*w.skew) // by their clocks copies may not be further apart than that
	}
	switch r.IntN(8) {
	case 0:
		w.stops = between(100*time.Millisecond, stopped)
	case 1:
		if !silences {
			w.stops = between(retired, time.Minute)
		}
	case 2, 3:
		w.crash = between(50*time.Millisecond, 30*time.Second)
	case 4:
		w.leaves = true
	}
	return w
}

// trip takes the packets of traffic to the log.
type trip struct {
	way
	*rand.Rand
	traffic    *conversation.Traffic
	start, end int64
	sent       func(*conversation.Packet) bool // which are taken along, nil: all
	came       map[*conversation.Packet]bool   // a copy at least is on the log
	gaps       [][2]int64                      // when nothing happens for long
	log        []entry
	members    []*member
}

// entry is one record and when it is written.
type entry struct {
	at    int64
	value []byte
}

// member is a collector.
type member struct {
	name     string
	clock    int64 // how far ahead
	arrivals []arrival

	incarnation, sequence uint64
	written               int64 // when its last record was

	from, until int64 // when it is cut off
	dies, back  int64
	reborn      int64 // when its hello was written
}

type arrival struct {
	at, stamp int64
	tap       int
	p         *conversation.Packet
}

func newTrip(traffic *conversation.Traffic, sent func(*conversation.Packet) bool, w way, end int64, r *rand.Rand) *trip {
	t := &trip{way: w, Rand: r, traffic: traffic, end: end, sent: sent, came: map[*conversation.Packet]bool{}}
	t.start = end
	if len(traffic.Packets) > 0 {
		t.start = traffic.Packets[0].Time
	}
	last := t.start
	for _, p := range traffic.Packets {
		if p.Time-last > int64(time.Minute) {
			t.gaps = append(t.gaps, [2]int64{last + int64(20*time.Second), p.Time - int64(5*time.Second)})
		}
		last = max(last, p.Time)
	}
	for i := range w.collectors {
		m := &member{name: fmt.Sprintf("collector-%d", i+1)}
		if w.skew > 0 {
			m.clock = r.Int64N(2*int64(w.skew)+1) - int64(w.skew)
		}
		t.members = append(t.members, m)
	}
	victim := t.members[r.IntN(len(t.members))]
	at := t.start + r.Int64N(t.end-t.start)
	if w.stops > 0 {
		victim.from, victim.until = at, at+int64(w.stops)
	}
	if w.crash > 0 {
		victim.dies, victim.back = at, at+int64(w.crash)
	}
	t.arrive()
	for _, m := range t.members {
		t.publish(m)
	}
	return t
}

// arrive takes each packet to a collector, or its two copies to two.
func (t *trip) arrive() {
	rehash := t.start + t.Int64N(t.end-t.start)
	leaver, leaves, returns := t.members[t.IntN(len(t.members))], int64(0), int64(0)
	if t.leaves && len(t.members) > 1 {
		leaves = t.start + t.Int64N(t.end-t.start)
		returns = leaves + t.Int64N(int64(20*time.Second))
		leaver.dies, leaver.back = leaves, returns
	}
	for _, p := range t.traffic.Packets {
		if t.sent != nil && !t.sent(p) {
			continue
		}
		first, second := true, t.taps == 2
		if t.torn && second && p.Unique() && t.IntN(10) == 0 {
			first, second = t.IntN(2) == 0, false
			if !first {
				second = true
			}
		}
		for tap, there := range []bool{first, second} {
			if !there {
				continue
			}
			stamp := p.Time
			if tap == 1 {
				stamp += t.Int64N(int64(t.copyDelay) + 1)
			}
			at := stamp
			if t.jitter > 0 {
				at += t.Int64N(int64(t.jitter))
			}
			m := t.route(p, tap, at > rehash)
			if m == leaver && leaves > 0 && at >= leaves-int64(t.jitter) && at <= returns+int64(5*time.Second) {
				// The load balancer sends nothing there before it is ready again.
				m = t.members[(slices.Index(t.members, m)+1)%len(t.members)]
			}
			m.arrivals = append(m.arrivals, arrival{at, stamp + m.clock, tap, p})
		}
	}
}

// route says to which collector a copy goes.
func (t *trip) route(p *conversation.Packet, tap int, rehashed bool) *member {
	f := &p.Flow
	k, low := session.NewKey("", f.Protocol, f.Src, f.SrcPort, f.Dst, f.DstPort)
	h := k.Hash() + uint64(tap)*7919
	switch splitNames[t.split] {
	case "direction":
		if low {
			h++
		}
	case "packet":
		h = t.Uint64()
	case "rehash":
		if rehashed {
			h = h>>32 ^ h*31
		}
	}
	return t.members[h%uint64(len(t.members))]
}

// skip returns when the next thing happens that was to happen at time t, given that nothing does for long.
func (t *trip) skip(at int64) int64 {
	for _, g := range t.gaps {
		if g[0] <= at && at < g[1] {
			return g[1]
		}
	}
	return at
}

// publish writes the batches of a collector.
func (t *trip) publish(m *member) {
	slices.SortStableFunc(m.arrivals, func(a, b arrival) int { return cmp.Compare(a.at, b.at) })
	inGoodOrder := m.dies > 0 && t.leaves
	now := t.start - int64(5*time.Second)
	m.incarnation, m.written = 1, now
	t.write(m, now, pb.PacketBatch_HELLO, now, nil)
	rest := m.arrivals
	for {
		at := t.skip(now + int64(20*time.Millisecond) + t.Int64N(int64(380*time.Millisecond)))
		if m.dies > 0 && at >= m.dies {
			if inGoodOrder {
				n := arrivedBy(rest, m.dies)
				t.write(m, m.dies, pb.PacketBatch_GOODBYE, m.dies, rest[:n])
				rest = rest[n:]
			}
			// What has come since the last batch was sealed is lost, and what comes before it is back.
			hello := max(m.back, m.written)
			t.seal(m, hello)
			rest = rest[arrivedBy(rest, m.reborn):]
			m.dies, now = 0, m.reborn
			continue
		}
		now = at
		if now > t.end+int64(t.jitter)+int64(t.copyDelay) {
			t.write(m, now, pb.PacketBatch_GOODBYE, math.MaxInt64, rest)
			return
		}
		n := arrivedBy(rest, now)
		t.write(m, now, pb.PacketBatch_PACKETS, now, rest[:n])
		rest = rest[n:]
	}
}

// arrivedBy counts the arrivals up to a time.
func arrivedBy(arrivals []arrival, at int64) int {
	n := 0
	for n < len(arrivals) && arrivals[n].at <= at {
		n++
	}
	return n
}

// seal begins a new incarnation.
func (t *trip) seal(m *member, at int64) {
	m.incarnation, m.sequence = m.incarnation+1, 0
	t.write(m, at, pb.PacketBatch_HELLO, at, nil)
	m.reborn = m.written
}

// write appends a batch that was sealed at a time.
func (t *trip) write(m *member, sealed int64, kind pb.PacketBatch_Kind, promise int64, arrivals []arrival) {
	at := sealed
	if t.lag > 0 {
		at += t.Int64N(int64(t.lag))
	}
	at = max(at, m.written)
	if m.from > 0 && at >= m.from && at < m.until {
		at = m.until
	}
	if m.dies > 0 && at > m.dies && !t.leaves {
		return // it was killed before that
	}
	m.written = at
	m.sequence++
	promise = min(promise, t.end+int64(time.Second)+int64(t.jitter))
	b := &pb.PacketBatch{
		Kind: kind, Producer: m.name, Incarnation: m.incarnation, Sequence: m.sequence,
		Watermark: promise - int64(t.jitter) + m.clock, Clock: at + m.clock, Partitions: 1,
	}
	if len(arrivals) > 0 {
		e := batch.NewEncoder()
		for _, a := range arrivals {
			f, p := a.p.Flow, a.p.Packet
			p.Time = a.stamp
			if t.taps > 0 {
				f.NCarriers, f.OuterPort = 1, uint16(50000+a.p.Time%4)
				f.Carriers[0] = packet.Carrier{Source: packet.Addr{10: 0xff, 11: 0xff, 12: 192, 14: 2, 15: byte(1 + a.tap)}, VNI: 27}
			}
			if a.tap == 1 {
				f.TTL--
				f.SrcMAC[5] ^= 0xff
			}
			e.Append(&f, &p)
			t.came[a.p] = true
		}
		b.Packets, b.Oldest, b.Columns = uint32(len(arrivals)), e.Oldest(), e.Seal(batch.S2)
	}
	t.append(at, &pb.PacketsRecord{Body: &pb.PacketsRecord_Batch{Batch: b}})
	if t.repeats && t.IntN(20) == 0 {
		again := t.log[len(t.log)-1]
		again.at += t.Int64N(int64(2 * time.Second))
		t.log = append(t.log, again)
	}
}

func (t *trip) append(at int64, r *pb.PacketsRecord) {
	value, err := record.MarshalPackets(r)
	if err != nil {
		panic(err)
	}
	t.log = append(t.log, entry{at, value})
}

// fold folds the log.
func (t *trip) fold() *folded {
	for at := t.start - int64(time.Second); at < t.end; at = t.skip(at + int64(time.Second)) {
		t.append(at, &pb.PacketsRecord{Body: &pb.PacketsRecord_Tick{Tick: &pb.Tick{OwnerEpoch: 1, Clock: at}}})
	}
	slices.SortStableFunc(t.log, func(a, b entry) int { return cmp.Compare(a.at, b.at) })
	t.append(t.end, &pb.PacketsRecord{Body: &pb.PacketsRecord_EndOfInput{EndOfInput: &pb.EndOfInput{}}})
	set := fold.DefaultSettings()
	set.Partitions = 1
	out := &folded{versions: map[session.ID][]columns.Session{}, booked: map[columns.TrafficDimensions]columns.TrafficSums{}}
	f := fold.New(0, set, out)
	cut := t.IntN(len(t.log)) // where the state is saved, and another fold goes on with it
	for i, e := range t.log {
		if i == cut {
			var state bytes.Buffer
			if out.err = f.Save(&state); out.err != nil {
				return out
			}
			if f, _, out.err = fold.Load(&state, 0, out); out.err != nil {
				return out
			}
		}
		if err := f.Record(int64(i), e.value); err != nil {
			out.err = err
			return out
		}
	}
	counts := f.Counts()
	for _, reason := range []fold.Reason{fold.Undecodable, fold.OtherPartitions, fold.TooLate, fold.SessionsEvicted, fold.WatermarkForced} {
		if n := counts[reason]; n > 0 {
			out.err = fmt.Errorf("%v: %d", reason, n)
		}
	}
	if n := counts[fold.Late]; n > 0 && t.allowance()&conversation.Late == 0 {
		out.err = fmt.Errorf("%v: %d", fold.Late, n)
	}
	if out.err == nil {
		out.err = out.check()
	}
	return out
}

// folded is what a fold has put out.
type folded struct {
	versions map[session.ID][]columns.Session
	settled  []columns.Session
	booked   map[columns.TrafficDimensions]columns.TrafficSums
	err      error
}

func (o *folded) Session(s *fold.Session) {
	r := columns.NewSession()
	s.Row(r)
	o.versions[r.ID] = append(o.versions[r.ID], *r)
}

func (o *folded) Settled(_ int64, s *fold.Session) {
	r := columns.NewSession()
	s.Row(r)
	o.settled = append(o.settled, *r)
}

func (o *folded) Traffic(_ *fold.Session, t *columns.Traffic) {
	s := o.booked[t.TrafficDimensions]
	s.Add(t.TrafficSums)
	o.booked[t.TrafficDimensions] = s
}

func (o *folded) Packet(*columns.Packet) {}
func (o *folded) Alert(*columns.Alert)   {}

func (o *folded) rows() []columns.Session { return o.settled }

// check says what does not fit together: versions in order, the last of them final, and bookings equal to sessions.
func (o *folded) check() error {
	type ports struct {
		port     uint16
		protocol uint8
	}
	want, got := map[ports]columns.TrafficSums{}, map[ports]columns.TrafficSums{}
	for i := range o.settled {
		s := &o.settled[i]
		versions := o.versions[s.ID]
		for n := range versions {
			if versions[n].Version != uint32(n+1) {
				return fmt.Errorf("version %d is the %d-th of session\n%s", versions[n].Version, n+1, line(versions[n]))
			}
		}
		if n := len(versions); n == 0 || !versions[n-1].IsFinal || line(versions[n-1]) != line(*s) {
			return fmt.Errorf("session settled as\n%s\nput out last as\n%s", line(*s), line(versions[n-1]))
		}
		k := ports{s.DstPort, s.IPProtocol}
		sums := want[k]
		sums.Add(columns.TrafficSums{
			Sessions: 1, SrcPackets: int64(s.SrcPackets), DstPackets: int64(s.DstPackets), SrcBytes: int64(s.SrcBytes), DstBytes: int64(s.DstBytes),
			SrcPayloadBytes: int64(s.SrcPayloadBytes), DstPayloadBytes: int64(s.DstPayloadBytes),
		})
		want[k] = sums
	}
	for d, t := range o.booked {
		k := ports{d.DstPort, d.IPProtocol}
		sums := got[k]
		sums.Add(t)
		got[k] = sums
	}
	maps.DeleteFunc(got, func(_ ports, s columns.TrafficSums) bool { return s == columns.TrafficSums{} })
	if !maps.Equal(want, got) {
		return fmt.Errorf("bookings %v, sessions %v", got, want)
	}
	return nil
}

// differs compares everything that was put out but for the columns that say which way the packets came.
func (o *folded) differs(got *folded) string {
	want, other := o.lines(), got.lines()
	if len(want) != len(other) {
		return fmt.Sprintf("%d versions, want %d", len(other), len(want))
	}
	for i := range want {
		if want[i] != other[i] {
			return fmt.Sprintf("%s\nwant\n%s", other[i], want[i])
		}
	}
	if !maps.Equal(o.booked, got.booked) {
		return fmt.Sprintf("bookings %v, want %v", got.booked, o.booked)
	}
	return ""
}

// lines are all versions of all sessions.
func (o *folded) lines() (lines []string) {
	for _, versions := range o.versions {
		for _, v := range versions {
			lines = append(lines, line(v))
		}
	}
	slices.Sort(lines)
	return lines
}

// line is a row without the columns that say which way the packets came.
func line(v columns.Session) string {
	v.Collectors, v.TapPoints, v.VNIs, v.OuterPorts, v.DuplicatePackets = nil, nil, nil, 0, 0
	return string(columns.AppendJSON(nil, &v))
}
