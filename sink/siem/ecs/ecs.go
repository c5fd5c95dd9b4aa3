// Package ecs writes sessions as documents of the Elastic Common Schema.
//
// A document is nested objects, one line, without what is unknown. Its id, event.id, is session_id:version:
// whoever indexes by it overwrites a repeat. Fields that ECS does not have are below tapweave.
// Source: https://www.elastic.co/docs/reference/ecs
package ecs

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/packet"
)

// Version of the schema that documents conform to.
const Version = "9.4.0"

// Append appends the document of a session, without a line end.
func Append(dst []byte, s *columns.Session) []byte {
	w := writer{b: dst, fresh: true}
	w.open()
	// The time at which the session is over and known, so that a rule that looks back from now finds it however
	// long it lasted.
	w.time("@timestamp", s.End)
	w.object("ecs", func() { w.text("version", Version) })
	w.object("event", func() {
		w.text("kind", "event")
		w.list("category", "network")
		w.list("type", types(s)...)
		w.text("module", "tapweave")
		w.text("dataset", "tapweave.session")
		w.key("id")
		w.b = append(w.b, '"')
		w.b = appendHex(w.b, s.ID[:])
		w.b = append(w.b, ':')
		w.b = strconv.AppendUint(w.b, uint64(s.Version), 10)
		w.b = append(w.b, '"')
		w.time("start", s.Start)
		w.time("end", s.End)
		w.number("duration", uint64(max(0, s.End-s.Start)))
		w.text("reason", s.CloseReason)
	})
	w.object("network", func() {
		w.text("type", family(s.Src))
		w.text("transport", s.Protocol())
		w.text("iana_number", strconv.Itoa(int(s.IPProtocol)))
		w.text("protocol", s.App)
		w.text("direction", s.Direction)
		w.text("community_id", s.CommunityID)
		w.number("bytes", s.SrcBytes+s.DstBytes)
		w.number("packets", s.SrcPackets+s.DstPackets)
		if len(s.VLANs) > 0 {
			w.object("vlan", func() { w.text("id", strconv.Itoa(int(s.VLANs[0]))) })
		}
	})
	w.object("source", func() {
		w.end(s.Src, s.SrcPort, s, s.SrcBytes, s.SrcPackets, s.SrcMAC, &s.SrcLabels)
	})
	w.object("destination", func() {
		w.end(s.Dst, s.DstPort, s, s.DstBytes, s.DstPackets, s.DstMAC, &s.DstLabels)
	})
	w.object("observer", func() {
		w.text("vendor", "Tapweave")
		w.text("product", "Tapweave")
		w.text("type", "ndr")
	})
	w.object("related", func() {
		w.key("ip")
		w.b = append(w.b, '[', '"')
		w.b = s.Src.Netip().AppendTo(w.b)
		if s.Dst != s.Src {
			w.b = append(w.b, '"', ',', '"')
			w.b = s.Dst.Netip().AppendTo(w.b)
		}
		w.b = append(w.b, '"', ']')
	})
	w.object("tapweave", func() {
		w.text("tenant", s.Tenant)
		w.key("session_id")
		w.b = append(w.b, '"')
		w.b = appendHex(w.b, s.ID[:])
		w.b = append(w.b, '"')
		w.number("version", uint64(s.Version))
		w.text("conn_state", s.ConnState)
		w.text("history", s.History)
		w.text("flow_type", s.FlowType)
		if !math.IsNaN(s.Sampled) && !math.IsInf(s.Sampled, 0) {
			w.key("sampled")
			w.b = strconv.AppendFloat(w.b, s.Sampled, 'g', -1, 64)
		}
		w.number("duplicate_packets", s.DuplicatePackets)
		w.object("source", func() {
			w.side(s, s.SrcPort, "type", s.SrcPayloadBytes, s.SrcMissedBytes, s.SrcRetransmits, &s.SrcLabels)
		})
		w.object("destination", func() {
			w.side(s, s.DstPort, "code", s.DstPayloadBytes, s.DstMissedBytes, s.DstRetransmits, &s.DstLabels)
		})
	})
	return append(w.b, '}')
}

// types are event.type: what ECS allows for the category network, and fits.
func types(s *columns.Session) []string {
	list := []string{"connection", "end"}
	switch s.ConnState {
	case "REJ":
		list = append(list, "denied")
	case "S0":
	default:
		list = append(list, "start")
	}
	return list
}

func family(a packet.Addr) string {
	if a.Netip().Is4() {
		return "ipv4"
	}
	return "ipv6"
}

// hasPorts says whether the ports of a session are ports, not types and codes of ICMP.
func hasPorts(s *columns.Session) bool {
	switch s.IPProtocol {
	case packet.ProtoTCP, packet.ProtoUDP, packet.ProtoSCTP, packet.ProtoDCCP, packet.ProtoUDPLite:
		return true
	}
	return false
}

// end writes what ECS has of source and destination.
func (w *writer) end(a packet.Addr, port uint16, s *columns.Session, bytes, packets uint64, mac columns.MAC, l *columns.Labels) {
	for _, name := range []string{"address", "ip"} {
		w.key(name)
		w.b = append(w.b, '"')
		w.b = a.Netip().AppendTo(w.b)
		w.b = append(w.b, '"')
	}
	if hasPorts(s) {
		w.number("port", uint64(port))
	}
	w.number("bytes", bytes)
	w.number("packets", packets)
	if mac != (columns.MAC{}) {
		w.key("mac")
		w.b = append(w.b, '"')
		for i, x := range mac { // RFC 7042: upper case, hyphens
			if i > 0 {
				w.b = append(w.b, '-')
			}
			w.b = append(w.b, upperHex[x>>4], upperHex[x&15])
		}
		w.b = append(w.b, '"')
	}
	w.text("domain", l.Name)
	if l.Country != "" {
		w.object("geo", func() { w.text("country_iso_code", l.Country) })
	}
	if l.ASN != 0 {
		w.object("as", func() {
			w.number("number", uint64(l.ASN))
			if l.ASOrg != "" {
				w.object("organization", func() { w.text("name", l.ASOrg) })
			}
		})
	}
}

// side writes what ECS does not have of source and destination.
func (w *writer) side(s *columns.Session, port uint16, icmp string, payload, missed, retransmits uint64, l *columns.Labels) {
	if s.IPProtocol == packet.ProtoICMP || s.IPProtocol == packet.ProtoICMPv6 {
		w.number("icmp_"+icmp, uint64(port))
	}
	w.number("payload_bytes", payload)
	if s.IPProtocol == packet.ProtoTCP {
		w.number("missed_bytes", missed)
		w.number("retransmits", retransmits)
	}
	w.text("subnet", l.Subnet)
	w.text("vnet", l.VNet)
	w.text("threat", l.Threat)
}

const (
	lowerHex = "0123456789abcdef"
	upperHex = "0123456789ABCDEF"
)

func appendHex(dst, src []byte) []byte {
	for _, x := range src {
		dst = append(dst, lowerHex[x>>4], lowerHex[x&15])
	}
	return dst
}

// writer writes JSON.
type writer struct {
	b     []byte
	fresh bool // nothing stands in the object yet
}

func (w *writer) open() {
	w.b = append(w.b, '{')
	w.fresh = true
}

func (w *writer) key(name string) {
	if !w.fresh {
		w.b = append(w.b, ',')
	}
	w.fresh = false
	w.b = append(w.b, '"')
	w.b = append(w.b, name...)
	w.b = append(w.b, '"', ':')
}

func (w *writer) object(name string, members func()) {
	w.key(name)
	w.open()
	members()
	w.b = append(w.b, '}')
	w.fresh = false
}

// text writes a string, unless it is empty.
func (w *writer) text(name, s string) {
	if s != "" {
		w.key(name)
		w.b = appendString(w.b, s)
	}
}

func (w *writer) list(name string, values ...string) {
	w.key(name)
	w.b = append(w.b, '[')
	for i, v := range values {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		w.b = appendString(w.b, v)
	}
	w.b = append(w.b, ']')
}

func (w *writer) time(name string, ns int64) {
	w.key(name)
	w.b = append(w.b, '"')
	w.b = time.Unix(0, ns).UTC().AppendFormat(w.b, "2006-01-02T15:04:05.000000000Z")
	w.b = append(w.b, '"')
}

func (w *writer) number(name string, n uint64) {
	w.key(name)
	w.b = strconv.AppendUint(w.b, n, 10)
}

func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			return appendUnusual(dst, s)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

func appendUnusual(dst []byte, s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.Encode(s) // of a string: it cannot fail
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte{'\n'})...)
}
