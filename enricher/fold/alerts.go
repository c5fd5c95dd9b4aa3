package fold

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/tapweave/tapweave/enricher/labels"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/packet"
)

// Kinds of alerts.
const (
	AlertThreat         = "threat"          // an end, or what was asked for, is on a threat list
	AlertOverlap        = "overlap"         // what was sent again differs from what was sent first
	AlertPortScan       = "port_scan"       // one host tries many ports of another
	AlertTLSFingerprint = "tls_fingerprint" // a client that a watched server had not met
)

// WatchTLS is the label of servers whose clients' fingerprints are watched.
const WatchTLS = "watch=tls"

// told are the alerts that a session has raised, each at most once, and what it was counted for.
type told uint8

const (
	toldAddress told = 1 << iota
	toldAsked
	toldShown
	toldOverlap
	countedAttempt
	countedPrint
)

// watch raises the alerts of a session whose newest version has just been put out.
func (f *Fold) watch(s *Session) {
	if s.labels != nil {
		f.watchThreats(s)
		f.watchPrints(s)
	}
	if s.told&toldOverlap == 0 {
		f.watchOverlap(s)
	}
	if s.told&countedAttempt == 0 && f.set.ScanPorts > 0 && s.attempt() {
		s.told |= countedAttempt
		f.watchScan(s)
	}
}

// raise puts out an alert about a session, with the ends as they are now.
func (f *Fold) raise(s *Session, a columns.Alert) {
	a.Tenant, a.SessionID, a.IPProtocol = s.key.Tenant, s.ID(), s.key.Protocol
	a.Src, a.SrcPort, a.Dst, a.DstPort = s.key.Low, s.key.LowPort, s.key.High, s.key.HighPort
	if s.orient() == high {
		a.Src, a.SrcPort, a.Dst, a.DstPort = a.Dst, a.DstPort, a.Src, a.SrcPort
	}
	f.counts[AlertsRaised]++
	f.out.Alert(&a)
}

// watchThreats raises one alert for what is on threat lists and was not told yet.
func (f *Fold) watchThreats(s *Session) {
	l, src := s.labels, s.orient()
	var first *labels.Threat
	var what []string
	var now told
	hit := func(t *labels.Threat, mark told, text string) {
		if t == nil || s.told&mark != 0 {
			return
		}
		if now |= mark; first == nil {
			first = t
		}
		sure := ""
		if t.Confidence > 0 {
			sure = fmt.Sprintf(", confidence %d %%", t.Confidence)
		}
		what = append(what, fmt.Sprintf("%s (%s) is on the threat list as %s%s", text, t.Indicator, t.Name, sure))
	}
	hit(l.ends[src].Threat, toldAddress, "src")
	hit(l.ends[1-src].Threat, toldAddress, "dst")
	hit(l.asked, toldAsked, "a name that src asked for")
	hit(l.shown, toldShown, "the TLS fingerprint of src")
	if first == nil {
		return
	}
	at := s.created
	if now&toldAddress == 0 {
		at = max(s.last, s.created+1) // an alert of the same kind about the same session has another time
	}
	if now == toldShown && s.told&toldAsked != 0 || now == toldAsked && s.told&toldShown != 0 {
		at++
	}
	s.told |= now
	f.raise(s, columns.Alert{
		Time: at, Kind: AlertThreat, Threat: first.Name, Indicator: first.Indicator, Confidence: first.Confidence,
		Message: strings.Join(what, "; "),
	})
}

// watchOverlap tells of retransmitted bytes that differ from those seen first.
func (f *Fold) watchOverlap(s *Session) {
	src := s.orient()
	var what []string
	for i, name := range [...]string{"src", "dst"} {
		if n := s.ends[src^uint8(i)].sequence.flaws.overlap; n > 0 {
			what = append(what, fmt.Sprintf("%s sent %d bytes again with another content", name, n))
		}
	}
	if what == nil {
		return
	}
	s.told |= toldOverlap
	f.raise(s, columns.Alert{Time: s.last, Kind: AlertOverlap, Message: strings.Join(what, "; ")})
}

// attempt says whether the session is an attempt to reach a port that nobody serves: nothing but SYNs, and at most
// RSTs for answer; or a datagram that an ICMP error is the answer to.
func (s *Session) attempt() bool {
	switch s.key.Protocol {
	case packet.ProtoTCP:
		return s.handshake.has(sawSYN) && s.halfOpen() && !s.ends[1-s.handshake.from].sequence.has(sentSYN|sentSYNACK)
	case packet.ProtoUDP:
		return s.icmpErrors > 0 && s.ends[1-s.orient()].packets == 0
	}
	return false
}

// maxScans is how many pairs of hosts are watched at a time; beyond it the one that began first is forgotten.
const maxScans = 1 << 12

// watched is what is watched by a key, in the order in which that began. What has ended is not in the map any more.
type watched[K comparable, T any] struct {
	of   map[K]*T
	list []*T
}

func (w *watched[K, T]) add(key K, v *T) {
	if w.of == nil {
		w.of = map[K]*T{}
	}
	w.of[key] = v
	w.list = append(w.list, v)
}

// code codes what has not ended, up to max of it.
func (w *watched[K, T]) code(c *coder, max int, key func(*T) K, each func(*T, *coder)) {
	var live []*T
	for _, v := range w.list {
		if w.of[key(v)] == v {
			live = append(live, v)
		}
	}
	list(c, &live, max, func(c *coder, v **T) {
		if c.loading {
			*v = new(T)
		}
		each(*v, c)
	})
	if c.loading {
		for _, v := range live {
			w.add(key(v), v)
		}
	}
}

type scanPair struct {
	tenant   string
	from, to packet.Addr
}

// scan counts, for a pair of hosts, the ports that one tried in vain with the other.
type scan struct {
	pair  scanPair
	since int64
	ports []uint16 // sorted
	told  bool
}

// watchScan counts an attempt.
func (f *Fold) watchScan(s *Session) {
	g := &f.scans
	window := int64(f.set.ScanWindow)
	src := s.orient()
	pair, port := scanPair{s.key.Tenant, s.key.Low, s.key.High}, s.key.HighPort
	if src == high {
		pair.from, pair.to, port = pair.to, pair.from, s.key.LowPort
	}
	v := g.of[pair]
	switch {
	case v != nil && s.created < v.since-window:
		return // late
	case v == nil || s.created > expires(v.since, window):
		v = &scan{pair: pair, since: s.created}
		g.add(pair, v)
	}
	for len(g.list) > maxScans || len(g.list) > 0 && g.list[0] != v && (g.of[g.list[0].pair] != g.list[0] || expires(g.list[0].since, window) < f.now) {
		if first := g.list[0]; g.of[first.pair] == first {
			delete(g.of, first.pair)
		}
		g.list[0] = nil
		g.list = g.list[1:]
	}
	i, known := slices.BinarySearch(v.ports, port)
	if known || v.told {
		return
	}
	v.ports = slices.Insert(v.ports, i, port)
	if len(v.ports) < f.set.ScanPorts {
		return
	}
	v.told, v.ports = true, nil
	f.raise(s, columns.Alert{
		Time: s.created, Kind: AlertPortScan, Indicator: pair.from.String(),
		Message: fmt.Sprintf("%s tried %d ports of %s within %v, and none of them answered", pair.from, f.set.ScanPorts, pair.to, f.set.ScanWindow),
	})
}

// maxServers and maxPrints are how many servers are watched, and how many fingerprints are kept of each. One with
// more has clients of all kinds, and is not watched any more.
const (
	maxServers = 1 << 10
	maxPrints  = 256
)

type printServer struct {
	tenant  string
	address packet.Addr
	port    uint16
}

// prints are the fingerprints of the clients of a watched server.
type prints struct {
	server printServer
	since  int64
	known  []string // sorted
}

// watchPrints tells of a fingerprint that a server with the label WatchTLS has not met before. What it meets in its
// first time is learned without a word.
func (f *Fold) watchPrints(s *Session) {
	if s.app == nil || s.told&countedPrint != 0 {
		return
	}
	dst := 1 - s.orient()
	found := s.app.Founds[1-dst]
	if found == nil || !found.TLS.Client || found.TLS.JA4 == "" || !slices.Contains(s.labels.ends[dst].Network.Labels, WatchTLS) {
		return
	}
	s.told |= countedPrint
	server := printServer{s.key.Tenant, s.key.Low, s.key.LowPort}
	if dst == high {
		server.address, server.port = s.key.High, s.key.HighPort
	}
	v := f.prints.of[server]
	if v == nil {
		if len(f.prints.list) == maxServers {
			return
		}
		v = &prints{server: server, since: s.created}
		f.prints.add(server, v)
	}
	i, known := slices.BinarySearch(v.known, found.TLS.JA4)
	if known || len(v.known) == maxPrints {
		return
	}
	v.known = slices.Insert(v.known, i, found.TLS.JA4)
	if s.created < expires(v.since, int64(f.set.PrintsLearned)) {
		return
	}
	f.raise(s, columns.Alert{
		Time: s.created, Kind: AlertTLSFingerprint, Indicator: found.TLS.JA4,
		Message: fmt.Sprintf("%s met a client with the TLS fingerprint %s, of which it had not met any since %s", server.address, found.TLS.JA4, time.Unix(0, v.since).UTC().Format(time.RFC3339)),
	})
}

func (v *scan) key() scanPair { return v.pair }

func (v *scan) code(c *coder) {
	c.string(&v.pair.tenant)
	c.array(v.pair.from[:])
	c.array(v.pair.to[:])
	c.time(&v.since)
	list(c, &v.ports, math.MaxUint16+1, num[uint16])
	flag(c, &v.told)
}

func (v *prints) key() printServer { return v.server }

func (v *prints) code(c *coder) {
	c.string(&v.server.tenant)
	c.array(v.server.address[:])
	num(c, &v.server.port)
	c.time(&v.since)
	list(c, &v.known, maxPrints, (*coder).string)
}
