package source

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/net/idna"

	"github.com/tapweave/tapweave/enricher/labels"
	"github.com/tapweave/tapweave/proto/pb"
)

const (
	// maxIndicators bounds what is read of all threat lists: the label set has to fit into memory.
	maxIndicators = 20_000_000
	// maxIndicator is the length of the longest indicator: that of a domain name.
	maxIndicator = 255
	// maxThreatName is the length of the longest name of an entry.
	maxThreatName = 256
	// maxSeconds is the end of the year 9999.
	maxSeconds = 253402300799
)

// indicator is an entry of a threat list. Its value stands in the gatherer's arena.
type indicator struct {
	from, to   uint32
	name       uint32
	expires    uint32
	kind       labels.Kind
	confidence uint8
}

// threatGatherer takes in indicators, so that a million of them cost few bytes each.
type threatGatherer struct {
	all    []indicator
	arena  []byte
	names  []string
	index  map[string]uint32
	given  string // name where an entry has none
	path   string
	known  bool   // something of the JSON that is read is of STIX or MISP
	unused uint64 // patterns and attributes of kinds that are not compared with anything
}

// threats reads threat lists.
func threats(files []file) (*pb.Labels, error) {
	g := &threatGatherer{index: map[string]uint32{}}
	for _, f := range files {
		g.path, g.given = f.path, f.given
		if g.given == "" {
			g.given = strings.TrimSuffix(filepath.Base(f.path), filepath.Ext(f.path))
		}
		if err := g.read(); err != nil {
			return nil, err
		}
	}
	return g.merge(), nil
}

func (g *threatGatherer) read() error {
	f, err := os.Open(g.path)
	if err != nil {
		return &Error{File: g.path, Reason: reason(err)}
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<16)
	head, err := r.Peek(1 << 12)
	if err != nil && !errors.Is(err, io.EOF) {
		return &Error{File: g.path, Reason: reason(err)}
	}
	if err := encoding(g.path, head); err != nil {
		return err
	}
	if bytes.HasPrefix(head, []byte(utf8Mark)) {
		r.Discard(len(utf8Mark))
		head = head[len(utf8Mark):]
	}
	head = bytes.TrimLeft(head, " \t\r\n")
	switch {
	case len(head) == 0:
		return nil // a list may have run empty
	case head[0] == '{' || head[0] == '[' && !bracketed(head):
		return g.json(r)
	}
	return g.lines(r)
}

// bracketed says whether a line is an address of IPv6 with brackets around it, as it stands before a port.
func bracketed(line []byte) bool {
	inner, _, ok := bytes.Cut(line, []byte("]"))
	if !ok || len(inner) == 0 || inner[0] != '[' {
		return false
	}
	a, err := netip.ParseAddr(string(inner[1:]))
	return err == nil && a.Is6()
}

// lineOf is the line of an offset in the file, behind a byte order mark.
func (g *threatGatherer) lineOf(offset int64) int {
	f, err := os.Open(g.path)
	if err != nil {
		return 0
	}
	defer f.Close()
	line, b := 1, make([]byte, 1<<16)
	for r := io.LimitReader(f, offset); ; {
		n, err := r.Read(b)
		line += bytes.Count(b[:n], []byte("\n"))
		if err != nil {
			return line
		}
	}
}

func (g *threatGatherer) wrong(line int, format string, args ...any) error {
	return &Error{g.path, line, fmt.Sprintf(format, args...)}
}

// add takes in an indicator. confidence is in percent; expires the zero time: never.
func (g *threatGatherer) add(kind labels.Kind, value []byte, name string, confidence uint8, expires time.Time) error {
	if len(g.all) == maxIndicators || len(g.arena) > 1<<31 {
		return fmt.Errorf("more than %d indicators in all", maxIndicators)
	}
	if name == "" {
		name = g.given
	}
	name = strings.ToValidUTF8(name[:min(len(name), maxThreatName)], "")
	n, ok := g.index[name]
	if !ok {
		n = uint32(len(g.names))
		g.names = append(g.names, name)
		g.index[name] = n
	}
	e := indicator{from: uint32(len(g.arena)), name: n, kind: kind, confidence: min(confidence, 100)}
	if !expires.IsZero() {
		// What ended before 1970 has ended.
		e.expires = uint32(min(max(expires.Unix(), 1), 1<<32-1))
	}
	g.arena = append(g.arena, value...)
	e.to = uint32(len(g.arena))
	g.all = append(g.all, e)
	return nil
}

// address takes in an address or a prefix.
func (g *threatGatherer) address(p netip.Prefix, name string, confidence uint8, expires time.Time) error {
	b := p.Addr().As16()
	if p.IsSingleIP() {
		return g.add(labels.Address, b[:], name, confidence, expires)
	}
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	return g.add(labels.Prefix, append(b[:], byte(bits)), name, confidence, expires)
}

// text takes in an indicator as people write it: an address, a prefix, a domain name, *.domain, a URL, JA3 or JA4.
func (g *threatGatherer) text(s, name string, confidence uint8, expires time.Time) error {
	switch {
	case s == "" || len(s) > 2048:
		return fmt.Errorf("%.40q is no indicator", s)
	case strings.Contains(s, "://"):
		host, err := hostOf(s)
		if err != nil {
			return err
		}
		s = host
	}
	if isHex(s, 32) {
		return g.add(labels.JA3, []byte(strings.ToLower(s)), name, confidence, expires)
	}
	if isJA4(s) {
		return g.add(labels.JA4, ja4(s), name, confidence, expires)
	}
	if a, err := netip.ParseAddrPort(s); err == nil {
		s = a.Addr().String()
	} else if host, port, ok := strings.Cut(s, ":"); ok {
		if _, err := strconv.ParseUint(port, 10, 16); err == nil {
			s = host
		} else if bracketed([]byte(s)) && strings.HasSuffix(s, "]") {
			s = s[1 : len(s)-1]
		}
	}
	if p, err := netip.ParsePrefix(s); err == nil && !p.Addr().Is4In6() {
		return g.address(p.Masked(), name, confidence, expires)
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return g.address(netip.PrefixFrom(a, a.BitLen()), name, confidence, expires)
	}
	return g.domain(s, name, confidence, expires)
}

// hostOf returns the host of a URL. Paths of malware are not always what RFC 3986 allows, and do not matter.
func hostOf(s string) (string, error) {
	scheme, rest, _ := strings.Cut(s, "://")
	if i := strings.IndexAny(rest, `/?#\`); i >= 0 {
		rest = rest[:i]
	}
	u, err := url.Parse(scheme + "://" + rest[strings.LastIndexByte(rest, '@')+1:])
	if err != nil || u.Hostname() == "" {
		return "", fmt.Errorf("%.40q is no URL", s)
	}
	return u.Hostname(), nil
}

// ascii writes domain names that are not in ASCII as they stand in packets.
var ascii = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false))

func (g *threatGatherer) domain(s, name string, confidence uint8, expires time.Time) error {
	kind := labels.Domain
	domain := strings.ToLower(strings.TrimSuffix(s, "."))
	if d, ok := strings.CutPrefix(domain, "*."); ok {
		domain, kind = d, labels.Below
	} else if d, ok := strings.CutPrefix(domain, "."); ok {
		domain, kind = d, labels.Below
	}
	if strings.ContainsFunc(domain, func(r rune) bool { return r >= utf8.RuneSelf }) {
		var err error
		if domain, err = ascii.ToASCII(domain); err != nil {
			return fmt.Errorf("%.60q is no domain name", s)
		}
	}
	if !isDomain(domain) || kind == labels.Domain && !strings.Contains(domain, ".") {
		return fmt.Errorf("%.60q is no address, prefix, domain name or fingerprint", s)
	}
	return g.add(kind, []byte(domain), name, confidence, expires)
}

func isHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return true
}

// isJA4 goes by the form: t13d1516h2_8daaf6152771_b186095e22b6.
func isJA4(s string) bool {
	return len(s) == 36 && s[10] == '_' && s[23] == '_' && (s[0] == 't' || s[0] == 'q' || s[0] == 'd') && isHex(s[11:23], 12) && isHex(s[24:], 12)
}

// ja4 is a fingerprint as it is computed, with hashes in lower case.
func ja4(s string) []byte { return []byte(s[:10] + strings.ToLower(s[10:])) }

// isDomain says whether a text in lower case can be a domain name. No top-level domain is a number (RFC 3696, section
// 2): what ends like that is an address that is wrong, or a range.
func isDomain(s string) bool {
	if len(s) == 0 || len(s) > maxIndicator || strings.HasPrefix(s, ".") || strings.Contains(s, "..") {
		return false
	}
	if strings.Trim(s[strings.LastIndexByte(s, '.')+1:], "0123456789") == "" {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c == 0x7f || strings.IndexByte(`/\,;:"'<>()[]{}|@=*?`, c) >= 0 {
			return false
		}
	}
	return true
}

// lines reads a plain list, an indicator a line, or CSV whose first line names the columns: indicator (or ip, prefix,
// domain, ja3, ja4, value), name, confidence, expires. # and ; begin comments; a line of a hosts file is its name.
func (g *threatGatherer) lines(r io.Reader) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 1<<12), 1<<20)
	var columns map[string]int
	first := true
	line := 1
	for ; s.Scan(); line++ {
		text := strings.TrimSpace(s.Text())
		if strings.Contains(text, "\r") {
			return g.wrong(line, "its lines end by carriage returns alone; save it with line feeds")
		}
		if text == "" || text[0] == '#' || text[0] == ';' {
			continue
		}
		if first {
			first = false
			if c := header(text); c != nil {
				columns = c
				continue
			} else if c := header(strings.NewReplacer(";", ",", "\t", ",", "|", ",").Replace(text)); len(c) > 1 {
				return g.wrong(line, "the columns are not separated by commas: %.80q", text)
			}
		}
		var err error
		if columns != nil {
			err = g.row(text, columns)
		} else {
			text = strings.ReplaceAll(text, "\t", " ")
			text, _, _ = strings.Cut(text, " #")
			text, _, _ = strings.Cut(text, " ;")
			list := []string{strings.TrimSpace(text)}
			if names, ok := hosts(text); ok {
				list = names
			}
			for i := 0; i < len(list) && err == nil; i++ {
				err = g.text(list[i], "", 0, time.Time{})
			}
		}
		if err != nil {
			return g.wrong(line, "%v", err)
		}
	}
	if errors.Is(s.Err(), bufio.ErrTooLong) {
		return g.wrong(line, "a line of more than 1 MiB")
	} else if s.Err() != nil {
		return g.wrong(0, "%s", reason(s.Err()))
	}
	return nil
}

// hosts returns the names of a line of a hosts file that leads them nowhere. Such files begin with the machine's own
// names, which have no dot.
func hosts(line string) (names []string, ok bool) {
	f := strings.Fields(line)
	if len(f) < 2 {
		return nil, false
	}
	a, err := netip.ParseAddr(f[0])
	if err != nil || !a.IsUnspecified() && !a.IsLoopback() && !a.IsLinkLocalUnicast() && !a.IsMulticast() && a != broadcast {
		return nil, false
	}
	for _, n := range f[1:] {
		if _, err := netip.ParseAddr(n); err != nil && strings.Contains(n, ".") && n != "localhost.localdomain" {
			names = append(names, n)
		}
	}
	return names, true
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// fields splits a line of CSV.
func fields(line string) ([]string, error) {
	if !strings.Contains(line, `"`) {
		return strings.Split(line, ","), nil
	}
	return csvLine(line)
}

var indicatorColumns = []string{"indicator", "value", "ip", "address", "prefix", "domain", "ja3", "ja4"}

// header returns the columns that a line names, nil if it names none.
func header(line string) map[string]int {
	columns := map[string]int{}
	row, err := fields(line)
	if err != nil {
		return nil
	}
	known := false
	for i, c := range row {
		c = strings.ToLower(strings.TrimSpace(c))
		columns[c] = i
		known = known || slices.Contains(indicatorColumns, c)
	}
	if !known {
		return nil
	}
	return columns
}

func (g *threatGatherer) row(line string, columns map[string]int) error {
	row, err := fields(line)
	if err != nil {
		return err
	}
	get := func(names ...string) string {
		for _, n := range names {
			if i, ok := columns[n]; ok && i < len(row) {
				if v := strings.TrimSpace(row[i]); v != "" {
					return v
				}
			}
		}
		return ""
	}
	var confidence uint64
	if c := get("confidence"); c != "" {
		if confidence, err = strconv.ParseUint(c, 10, 8); err != nil || confidence > 100 {
			return fmt.Errorf("confidence %q is not 0 to 100", c)
		}
	}
	var expires time.Time
	if e := get("expires", "expiry", "valid_until"); e != "" {
		if expires, err = parseTime(e); err != nil {
			return fmt.Errorf("expires: %w", err)
		}
	}
	return g.text(get(indicatorColumns...), get("name", "threat"), uint8(confidence), expires)
}

// parseTime reads a date, a time of RFC 3339, or seconds since the Unix epoch.
func parseTime(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, time.DateTime, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n <= maxSeconds { // milliseconds are no seconds
		return time.Unix(n, 0), nil
	}
	return time.Time{}, fmt.Errorf("%q is no date, time of RFC 3339 or number of seconds", s)
}

// merge orders the indicators. Of several entries of the same value the one that lasts longest counts, then the
// surest, then the name that comes first.
func (g *threatGatherer) merge() *pb.Labels {
	value := func(e *indicator) []byte { return g.arena[e.from:e.to] }
	slices.SortFunc(g.all, func(a, b indicator) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), bytes.Compare(value(&a), value(&b)),
			-cmp.Compare(a.expires-1, b.expires-1), // 0 is for ever
			-cmp.Compare(a.confidence, b.confidence), strings.Compare(g.names[a.name], g.names[b.name]))
	})
	m := &pb.Threats{}
	index := map[uint32]uint32{}
	for i := range g.all {
		e := &g.all[i]
		if i > 0 {
			if p := &g.all[i-1]; p.kind == e.kind && bytes.Equal(value(p), value(e)) {
				continue
			}
		}
		n, ok := index[e.name]
		if !ok {
			n = uint32(len(m.Names))
			index[e.name] = n
			m.Names = append(m.Names, g.names[e.name])
		}
		m.Values = append(m.Values, value(e)...)
		m.Ends = append(m.Ends, uint32(len(m.Values)))
		m.Kinds = append(m.Kinds, byte(e.kind))
		m.Name = append(m.Name, n)
		m.Confidences = append(m.Confidences, e.confidence)
		m.Expires = append(m.Expires, e.expires)
	}
	return &pb.Labels{Body: &pb.Labels_Threats{Threats: m}}
}
