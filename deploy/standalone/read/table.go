package read

import (
	"bufio"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/packet"
)

// tableColumns are the columns of the table. Numbers stand to the right.
var tableColumns = [...]struct {
	title string
	right bool
}{
	{"START (UTC)", false}, {"PROTO", false}, {"SOURCE", false}, {"", false}, {"DESTINATION", false}, {"STATE", false},
	{"PACKETS→", true}, {"←PACKETS", true}, {"BYTES→", true}, {"←BYTES", true}, {"DURATION", true}, {"APP", false}, {"NAME", false},
}

// tableAhead is how many rows are looked at before the first is printed, to find the widths of the columns.
const tableAhead = 500

// tableFormat is for people: aligned columns, a session a line. A row's text is its cells with a tab between.
type tableFormat struct {
	widths  [len(tableColumns)]int
	held    [][]string
	started bool
}

func (*tableFormat) append(dst []byte, s *columns.Session) []byte {
	dst = time.Unix(0, s.Start).UTC().AppendFormat(dst, "2006-01-02 15:04:05.000000")
	dst = append(append(append(dst, '\t'), s.Protocol()...), '\t')
	icmp := s.IPProtocol == packet.ProtoICMP || s.IPProtocol == packet.ProtoICMPv6
	if icmp {
		dst = s.Src.Netip().AppendTo(dst)
		dst = append(dst, "\t→\t"...)
		dst = s.Dst.Netip().AppendTo(dst)
		// Type and code (or type of the reply) stand where TCP has its state.
		dst = append(dst, '\t')
		dst = strconv.AppendUint(dst, uint64(s.SrcPort), 10)
		dst = append(dst, '/')
		dst = strconv.AppendUint(dst, uint64(s.DstPort), 10)
	} else {
		dst = appendEnd(dst, s.Src, s.SrcPort)
		dst = append(dst, "\t→\t"...)
		dst = appendEnd(dst, s.Dst, s.DstPort)
		dst = append(append(dst, '\t'), s.ConnState...)
	}
	for _, n := range [...]uint64{s.SrcPackets, s.DstPackets} {
		dst = strconv.AppendUint(append(dst, '\t'), n, 10)
	}
	for _, n := range [...]uint64{s.SrcBytes, s.DstBytes} {
		dst = appendSize(append(dst, '\t'), n)
	}
	dst = append(dst, '\t')
	dst = strconv.AppendFloat(dst, s.Duration(), 'f', 3, 64)
	dst = append(append(dst, "s\t"...), s.App...)
	return appendPrintable(append(dst, '\t'), tableName(s))
}

// appendEnd appends an address, and its port where the protocol has ports.
func appendEnd(dst []byte, a packet.Addr, port uint16) []byte {
	if port == 0 {
		return a.Netip().AppendTo(dst)
	}
	return netip.AddrPortFrom(a.Netip(), port).AppendTo(dst)
}

// appendSize appends a number of bytes to three or four digits.
func appendSize(dst []byte, n uint64) []byte {
	if n < 10000 {
		return strconv.AppendUint(dst, n, 10)
	}
	v := float64(n)
	for _, unit := range "kMGTPE" {
		if v /= 1000; v < 999.5 {
			digits := 1
			if v >= 99.95 {
				digits = 0
			}
			return append(strconv.AppendFloat(dst, v, 'f', digits, 64), byte(unit))
		}
	}
	return strconv.AppendUint(dst, n, 10)
}

// tableName is the name by which people know a session best.
func tableName(s *columns.Session) string {
	for _, name := range [...]string{s.TLSSNI, s.HTTPHost, s.DNSQuery} {
		if name != "" {
			return name
		}
	}
	return ""
}

// appendPrintable appends a name from the network without what a terminal would act upon.
func appendPrintable(dst []byte, name string) []byte {
	for _, r := range name {
		if !unicode.IsPrint(r) {
			r = unicode.ReplacementChar
		}
		dst = utf8.AppendRune(dst, r)
	}
	return dst
}

func (*tableFormat) appendAlert(dst []byte, _ *columns.Alert) []byte { return dst }

func (t *tableFormat) print(w *bufio.Writer, text []byte) error {
	cells := strings.Split(string(text), "\t")
	for i, c := range cells {
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c))
	}
	if t.started {
		return t.line(w, cells)
	}
	t.held = append(t.held, cells)
	if len(t.held) < tableAhead {
		return nil
	}
	return t.start(w)
}

// start prints the titles and what was held back.
func (t *tableFormat) start(w *bufio.Writer) error {
	t.started = true
	titles := make([]string, len(tableColumns))
	for i, c := range tableColumns {
		titles[i] = c.title
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c.title))
	}
	if err := t.line(w, titles); err != nil {
		return err
	}
	for _, cells := range t.held {
		if err := t.line(w, cells); err != nil {
			return err
		}
	}
	t.held = nil
	return nil
}

func (t *tableFormat) line(w *bufio.Writer, cells []string) error {
	var b strings.Builder
	for i, c := range cells {
		pad := strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(c))
		if tableColumns[i].right {
			b.WriteString(pad + c + "  ")
		} else {
			b.WriteString(c + pad + "  ")
		}
	}
	_, err := w.WriteString(strings.TrimRight(b.String(), " ") + "\n")
	return err
}

// end prints what is still held back, or the titles alone where there was no session.
func (t *tableFormat) end(w *bufio.Writer) error {
	if t.started {
		return nil
	}
	return t.start(w)
}
