package document

import (
	"strconv"
	"strings"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/jsontext"
)

// AlertID writes the id of a document of an alert: session_id:kind:time, which no other alert has.
func (w *Writer) AlertID(key string, a *columns.Alert) {
	w.Key(key)
	w.buf = append(w.buf, '"')
	w.appendID(a.SessionID)
	w.buf = append(w.buf, ':')
	w.buf = jsontext.AppendEscaped(w.buf, a.Kind)
	w.buf = append(w.buf, ':')
	w.buf = strconv.AppendInt(w.buf, a.Time, 10)
	w.buf = append(w.buf, '"')
}

// Level is how bad something is, or how sure.
type Level uint8

// Levels.
const (
	Unknown Level = iota
	Low
	Medium
	High
)

// AlertKind is what is known of a kind of alert.
type AlertKind struct {
	Title    string
	Severity Level
}

// alertKinds are the kinds that the enricher raises.
var alertKinds = map[string]AlertKind{
	"threat":          {"Traffic with what is on a threat list", High},
	"overlap":         {"Retransmission with another content", High},
	"port_scan":       {"Port scan between two hosts", Medium},
	"tls_fingerprint": {"TLS fingerprint that the server had not met", Low},
}

// KindOf describes the kind of an alert; one that is not known by its name.
func KindOf(a *columns.Alert) AlertKind {
	k, ok := alertKinds[a.Kind]
	switch {
	case ok:
		return k
	case a.Kind == "":
		return AlertKind{"Alert", Medium}
	}
	return AlertKind{a.Kind, Medium}
}

// Confidence is a threat list's confidence in words. The borders are those of STIX 2.1, appendix A: low up to 29,
// medium up to 69 percent.
func Confidence(percent uint8) Level {
	switch {
	case percent == 0:
		return Unknown
	case percent < 30:
		return Low
	case percent < 70:
		return Medium
	}
	return High
}

// IndicatorKind says what an indicator is by its form.
type IndicatorKind uint8

// Kinds of indicators.
const (
	NoIndicator IndicatorKind = iota
	IPv4
	IPv6
	Prefix
	Domain
	Fingerprint // JA3 or JA4
)

// Indicator says what an alert's indicator is.
func Indicator(text string) IndicatorKind {
	switch {
	case text == "":
		return NoIndicator
	case IsAddress(text):
		if strings.IndexByte(text, ':') < 0 {
			return IPv4
		}
		return IPv6
	case strings.IndexByte(text, '/') > 0:
		return Prefix
	case isFingerprint(text):
		return Fingerprint
	}
	return Domain
}

// isFingerprint knows JA3 (an MD5 sum) and JA4 (three parts of 10, 12 and 12 characters).
func isFingerprint(text string) bool {
	const ja3, ja4, first, second = 32, 36, 10, 23
	switch len(text) {
	case ja3:
		return strings.Trim(text, "0123456789abcdefABCDEF") == ""
	case ja4:
		return text[first] == '_' && text[second] == '_' && strings.IndexByte(text, '.') < 0
	}
	return false
}
