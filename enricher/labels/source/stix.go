package source

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tapweave/tapweave/enricher/labels"
)

// csvLine splits a line of CSV with quotation marks.
func csvLine(line string) ([]string, error) {
	r := csv.NewReader(strings.NewReader(line))
	r.FieldsPerRecord = -1
	row, err := r.Read()
	var p *csv.ParseError
	if errors.As(err, &p) {
		return nil, p.Err
	}
	return row, err
}

// json reads a STIX bundle or a MISP event, feed or list of attributes, one object after another: the file may be
// larger than memory.
func (g *threatGatherer) json(r io.Reader) error {
	d := json.NewDecoder(r)
	g.known = false
	err := g.value(d, "")
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	var own *Error
	switch {
	case err == nil:
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			return g.wrong(g.lineOf(d.InputOffset()), "something follows behind the JSON")
		}
		if !g.known {
			return g.wrong(0, "is no STIX bundle, and no event, feed or list of attributes of MISP")
		}
		return nil
	case errors.As(err, &own):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return g.wrong(g.lineOf(d.InputOffset()), "the JSON is cut short")
	case errors.As(err, &syntax):
		return g.wrong(g.lineOf(d.InputOffset()), "%s", syntax.Error())
	case errors.As(err, &kind):
		return g.wrong(g.lineOf(d.InputOffset()), "%s", wanted(kind))
	}
	return g.wrong(g.lineOf(d.InputOffset()), "%s", reason(err))
}

// value reads a value that stands under a key. Lists of objects and of attributes are read one by one.
func (g *threatGatherer) value(d *json.Decoder, key string) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	switch t {
	case json.Delim('['):
		g.known = g.known || slices.Contains([]string{"objects", "response", "Attribute"}, key) || key == "" && !d.More()
		for d.More() {
			if err := g.element(d, key); err != nil {
				return err
			}
		}
	case json.Delim('{'):
		for d.More() {
			k, err := d.Token()
			if err != nil {
				return err
			}
			name, _ := k.(string)
			if name == "info" && key == "Event" {
				var info string
				if err := d.Decode(&info); err != nil {
					return err
				}
				g.given = info
				continue
			}
			if name == "RelatedEvent" { // has a name, and no attributes
				var other json.RawMessage
				if err := d.Decode(&other); err != nil {
					return err
				}
				continue
			}
			g.known = g.known || name == "Event"
			if err := g.value(d, name); err != nil {
				return err
			}
		}
	default:
		g.known = g.known || key == "type" && t == "bundle" // without objects
		return nil
	}
	_, err = d.Token()
	return err
}

// element reads an element of the list under a key.
func (g *threatGatherer) element(d *json.Decoder, key string) error {
	switch key {
	case "objects":
		var o stixObject
		if err := d.Decode(&o); err != nil {
			return err
		}
		return g.stix(&o)
	case "Attribute", "":
		if key == "" {
			return g.loose(d)
		}
		var a mispAttribute
		if err := d.Decode(&a); err != nil {
			return err
		}
		return g.misp(&a)
	}
	return g.value(d, key)
}

// loose reads an element of a list at the top: a STIX object, or a MISP attribute or event.
func (g *threatGatherer) loose(d *json.Decoder) error {
	var raw json.RawMessage
	if err := d.Decode(&raw); err != nil {
		return err
	}
	var kind struct {
		Pattern string
		Event   *mispEvent
	}
	if err := json.Unmarshal(raw, &kind); err != nil {
		return err
	}
	if kind.Event != nil {
		g.known = true
		return g.event(kind.Event)
	}
	if kind.Pattern != "" {
		var o stixObject
		if err := json.Unmarshal(raw, &o); err != nil {
			return err
		}
		g.known = true
		return g.stix(&o)
	}
	var a mispAttribute
	if err := json.Unmarshal(raw, &a); err != nil {
		return err
	}
	g.known = g.known || a.Type != "" && a.Value != ""
	return g.misp(&a)
}

// stixObject is what is used of an indicator of STIX 2.1 (part 4.7).
type stixObject struct {
	Type       string `json:"type"`
	Name       string `json:"name"`
	Pattern    string `json:"pattern"`
	PatternOf  string `json:"pattern_type"`
	ValidUntil string `json:"valid_until"`
	Confidence uint8  `json:"confidence"`
	Revoked    bool   `json:"revoked"`
}

// comparison finds the comparisons of a pattern that are equalities: [ipv4-addr:value = '203.0.113.7']. All that a
// pattern compares with are taken as indicators, however it joins them.
var comparison = regexp.MustCompile(`([a-z0-9-]+):([A-Za-z0-9_.'"\[\]*-]+)\s*(=|IN|ISSUBSET)\s*(\(?)\s*((?:'(?:[^'\\]|\\.)*'\s*,?\s*)+)`)

var quoted = regexp.MustCompile(`'((?:[^'\\]|\\.)*)'`)

func (g *threatGatherer) stix(o *stixObject) error {
	if o.Type != "indicator" || o.Revoked || o.PatternOf != "" && o.PatternOf != "stix" {
		return nil
	}
	var expires time.Time
	if o.ValidUntil != "" {
		var err error
		if expires, err = parseTime(o.ValidUntil); err != nil {
			return fmt.Errorf("valid_until of indicator %.60q: %w", o.Name, err)
		}
	}
	for _, c := range comparison.FindAllStringSubmatch(o.Pattern, -1) {
		for _, v := range quoted.FindAllStringSubmatch(c[5], -1) {
			value := strings.NewReplacer(`\'`, `'`, `\\`, `\`).Replace(v[1])
			if err := g.observable(c[1], c[2], value, o, expires); err != nil {
				return fmt.Errorf("indicator %.60q: %w", o.Name, err)
			}
		}
	}
	return nil
}

// observable takes in what a pattern compares with, if it is of a kind that sessions have.
func (g *threatGatherer) observable(object, path, value string, o *stixObject, expires time.Time) error {
	switch {
	case (object == "ipv4-addr" || object == "ipv6-addr") && path == "value",
		object == "network-traffic" && (strings.HasSuffix(path, "_ref.value")):
		p, err := netip.ParsePrefix(value)
		if err != nil {
			a, err := netip.ParseAddr(value)
			if err != nil || a.Zone() != "" {
				if object == "network-traffic" {
					return g.domain(value, o.Name, o.Confidence, expires)
				}
				return fmt.Errorf("%.60q is no address", value)
			}
			p = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen())
		}
		return g.address(p.Masked(), o.Name, o.Confidence, expires)
	case object == "domain-name" && path == "value":
		return g.domain(value, o.Name, o.Confidence, expires)
	case object == "url" && path == "value":
		if !strings.Contains(value, "://") {
			value = "http://" + value
		}
		return g.text(value, o.Name, o.Confidence, expires)
	case strings.Contains(strings.ToLower(path), "ja4") && isJA4(value):
		return g.add(labels.JA4, ja4(value), o.Name, o.Confidence, expires)
	case strings.Contains(strings.ToLower(path), "ja3") && isHex(value, 32):
		return g.add(labels.JA3, []byte(strings.ToLower(value)), o.Name, o.Confidence, expires)
	}
	g.unused++
	return nil
}
