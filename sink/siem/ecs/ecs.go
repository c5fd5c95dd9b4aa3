// Package ecs writes sessions and alerts as documents of the Elastic Common Schema, as Packetbeat does its flows.
//
// A document is nested objects, one line, without what is unknown. Its id, event.id, is session_id:version:
// whoever indexes by it overwrites a repeat. Fields that ECS does not have are below tapweave.
// Source: https://www.elastic.co/docs/reference/ecs
package ecs

import (
	"strings"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/jsontext"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/sink/siem/document"
)

// Version of the schema that documents conform to.
const Version = "9.4.0"

// end is one end of a session.
type end struct {
	ip                    []byte // as text
	port                  uint16
	bytes, packets        uint64
	mac                   columns.MAC
	name                  string
	labels                *columns.Labels
	payload, missed       uint64
	retransmits, disorder uint64
	zeroWindows, overlap  uint64
	flags, ttl            uint8
	rtt                   float64
	icmp                  string // key of what stands in the port of an ICMP session
}

// Append appends the document of a version of a session, without a line end.
func Append(dst []byte, s *columns.Session) []byte {
	var text [2][64]byte
	src := end{
		jsontext.AppendAddress(text[0][:0], s.Src), s.SrcPort, s.SrcBytes, s.SrcPackets, s.SrcMAC, s.SrcLabels.Name, &s.SrcLabels,
		s.SrcPayloadBytes, s.SrcMissedBytes, s.SrcRetransmits, s.SrcOutOfOrder, s.SrcZeroWindows, s.SrcOverlapBytes,
		s.SrcTCPFlags, s.SrcTTL, s.SrcRTT, `"icmp_type":`,
	}
	dest := end{
		jsontext.AppendAddress(text[1][:0], s.Dst), s.DstPort, s.DstBytes, s.DstPackets, s.DstMAC, document.Name(s), &s.DstLabels,
		s.DstPayloadBytes, s.DstMissedBytes, s.DstRetransmits, s.DstOutOfOrder, s.DstZeroWindows, s.DstOverlapBytes,
		s.DstTCPFlags, s.DstTTL, s.DstRTT, `"icmp_code":`,
	}
	w := document.Begin(dst)
	// The time at which the session is over and known, so that a rule that looks back from now finds it however
	// long it lasted.
	w.Time(`"@timestamp":`, s.End)
	w.Raw(`"ecs":{"version":"` + Version + `"}`)

	w.Open(`"event":{"kind":"event","category":["network"],"module":"tapweave","dataset":"tapweave.session","action":"network_flow","type":["connection"`)
	switch s.ConnState {
	case "REJ":
		w.Raw(`"denied"`)
	case "S0":
	default:
		w.Raw(`"start"`)
	}
	if s.IsFinal {
		w.Raw(`"end"`)
	}
	if s.App != "" {
		w.Raw(`"protocol"`)
	}
	w.CloseList()
	w.ID(`"id":`, s.ID, s.Version)
	w.Time(`"start":`, s.Start)
	w.Time(`"end":`, s.End)
	w.Uint(`"duration":`, uint64(max(0, s.End-s.Start)))
	w.Text(`"reason":`, s.CloseReason)
	w.Close()

	network(&w, s.Src, s.IPProtocol)
	w.Text(`"protocol":`, s.App)
	w.Text(`"direction":`, s.Direction)
	w.Text(`"community_id":`, s.CommunityID)
	w.Long(`"bytes":`, s.SrcBytes+s.DstBytes)
	w.Long(`"packets":`, s.SrcPackets+s.DstPackets)
	if len(s.VLANs) > 0 {
		w.Open(`"vlan":{`)
		w.Digits(`"id":`, uint64(s.VLANs[0]))
		w.Close()
	}
	w.Close()

	// Who began is the client: as far as is known, src is.
	src.write(&w, `"source":`, `"client":`, s)
	dest.write(&w, `"destination":`, `"server":`, s)
	w.Raw(observer)
	related(&w, s, &src, &dest)
	if len(s.TLSVersion)|len(s.TLSSNI)|len(s.TLSJA3)|len(s.TLSALPN) > 0 {
		tls(&w, s)
	}
	if document.IsDNS(s) {
		dns(&w, s)
	}
	if document.IsHTTP(s) {
		http(&w, s)
	}
	if len(s.SrcLabels.Threat)|len(s.DstLabels.Threat) > 0 {
		threat(&w, s, &src, &dest)
	}
	own(&w, s, &src, &dest)
	return w.End()
}

const observer = `"observer":{"vendor":"Tapweave","product":"Tapweave","type":"ndr"}`

// network opens the object of that name.
func network(w *document.Writer, a packet.Addr, protocol uint8) {
	if a.Netip().Is4() {
		w.Open(`"network":{"type":"ipv4"`)
	} else {
		w.Open(`"network":{"type":"ipv6"`)
	}
	w.Text(`"transport":`, columns.Protocol(protocol))
	w.Digits(`"iana_number":`, uint64(protocol))
}

// write writes what ECS has of an end, twice: by its direction, and by its part.
func (e *end) write(w *document.Writer, key, again string, s *columns.Session) {
	w.Key(key)
	from := w.Mark()
	w.Begin()
	w.Quoted(`"address":`, e.ip)
	w.Quoted(`"ip":`, e.ip)
	if document.HasPorts(s.IPProtocol) {
		w.Uint(`"port":`, uint64(e.port))
	}
	w.Long(`"bytes":`, e.bytes)
	w.Long(`"packets":`, e.packets)
	w.MAC(`"mac":`, e.mac, '-') // RFC 7042
	w.Text(`"domain":`, e.name)
	if e.labels.Country != "" {
		w.Open(`"geo":{`)
		w.Text(`"country_iso_code":`, e.labels.Country)
		w.Close()
	}
	if e.labels.ASN != 0 {
		w.Open(`"as":{`)
		w.Uint(`"number":`, uint64(e.labels.ASN))
		if e.labels.ASOrg != "" {
			w.Open(`"organization":{`)
			w.Text(`"name":`, e.labels.ASOrg)
			w.Close()
		}
		w.Close()
	}
	w.Close()
	w.Copy(again, from, w.Mark())
}

// related collects what a search over all fields is for.
func related(w *document.Writer, s *columns.Session, src, dest *end) {
	w.Open(`"related":{`)
	w.Open(`"ip":[`)
	w.Quoted("", src.ip)
	if s.Dst != s.Src {
		w.Quoted("", dest.ip)
	}
	if document.IsDNS(s) {
		for _, a := range s.DNSAnswers {
			if document.IsAddress(a) {
				w.Element(a)
			}
		}
	}
	w.CloseList()
	host, _ := document.Host(s.HTTPHost)
	names := [...]string{s.SrcLabels.Name, s.DstLabels.Name, s.TLSSNI, host, s.DNSQuery}
	mark := w.Mark()
	w.Open(`"hosts":[`)
	for i, name := range names {
		if !known(names[:i], name) {
			w.Element(name)
		}
	}
	for _, authority := range s.HTTPHosts {
		if name, _ := document.Host(authority); !known(names[:], name) {
			w.Element(name)
		}
	}
	for _, name := range s.DNSQueries {
		if !known(names[:], name) {
			w.Element(name)
		}
	}
	w.CloseListUnlessEmpty(mark)
	if s.TLSJA3 != "" {
		w.Open(`"hash":[`)
		w.Element(s.TLSJA3)
		w.CloseList()
	}
	w.Close()
}

func known(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

func tls(w *document.Writer, s *columns.Session) {
	w.Open(`"tls":{`)
	if protocol, version, ok := strings.Cut(s.TLSVersion, "v"); ok {
		w.Text(`"version":`, version)
		w.Text(`"version_protocol":`, strings.ToLower(protocol))
	}
	w.Text(`"next_protocol":`, s.TLSALPN)
	mark := w.Mark()
	w.Open(`"client":{`)
	w.Text(`"ja3":`, s.TLSJA3)
	w.Text(`"server_name":`, s.TLSSNI)
	w.CloseUnlessEmpty(mark)
	w.Close()
}

func dns(w *document.Writer, s *columns.Session) {
	if s.DNSRcode == "" {
		w.Open(`"dns":{"type":"query"`)
	} else {
		w.Open(`"dns":{"type":"answer"`)
	}
	mark := w.Mark()
	w.Open(`"question":{`)
	w.Text(`"name":`, s.DNSQuery)
	w.Text(`"type":`, s.DNSType)
	w.CloseUnlessEmpty(mark)
	w.Text(`"response_code":`, s.DNSRcode)
	if len(s.DNSAnswers) > 0 {
		w.Open(`"answers":[`)
		for _, a := range s.DNSAnswers {
			w.Open(`{`)
			w.Text(`"data":`, a)
			w.Text(`"type":`, document.AddressType(a))
			w.Close()
		}
		w.CloseList()
		mark = w.Mark()
		w.Open(`"resolved_ip":[`)
		for _, a := range s.DNSAnswers {
			if document.IsAddress(a) {
				w.Element(a)
			}
		}
		w.CloseListUnlessEmpty(mark)
	}
	w.Close()
}

func http(w *document.Writer, s *columns.Session) {
	w.Open(`"http":{`)
	if s.App == "http2" {
		w.Raw(`"version":"2"`)
	}
	if s.HTTPMethod != "" {
		w.Open(`"request":{`)
		w.Text(`"method":`, s.HTTPMethod)
		w.Close()
	}
	if s.HTTPStatus != 0 {
		w.Open(`"response":{`)
		w.Uint(`"status_code":`, uint64(s.HTTPStatus))
		w.Close()
	}
	w.Close()
	if s.HTTPPath != "" || s.HTTPHost != "" {
		w.Open(`"url":{"scheme":"http"`)
		host, port := document.Host(s.HTTPHost)
		w.Text(`"domain":`, host)
		if port != 0 {
			w.Uint(`"port":`, uint64(port))
		}
		path, query := document.Path(s.HTTPPath)
		w.Text(`"path":`, path)
		w.Text(`"query":`, query)
		w.Text(`"original":`, s.HTTPPath)
		w.URL(`"full":`, s)
		w.Close()
	}
	if s.HTTPUserAgent != "" {
		w.Open(`"user_agent":{`)
		w.Text(`"original":`, s.HTTPUserAgent)
		w.Close()
	}
}

// threat names the entry of a threat list that an end is on; of two, that of dst. Both are below tapweave.
func threat(w *document.Writer, s *columns.Session, src, dest *end) {
	e, a := dest, s.Dst
	if dest.labels.Threat == "" {
		e, a = src, s.Src
	}
	w.Open(`"threat":{`)
	w.Open(`"indicator":{`)
	w.Text(`"name":`, e.labels.Threat)
	// dst may be on the list by a name that was asked for: which of them it was, the alert says.
	if e == src || s.TLSSNI == "" && s.HTTPHost == "" && s.DNSQuery == "" {
		indicatorIP(w, a, e.ip)
	}
	w.Close()
	w.Close()
}

func indicatorIP(w *document.Writer, a packet.Addr, text []byte) {
	if a.Netip().Is4() {
		w.Raw(`"type":"ipv4-addr"`)
	} else {
		w.Raw(`"type":"ipv6-addr"`)
	}
	w.Quoted(`"ip":`, text)
}

// own writes what ECS does not have.
func own(w *document.Writer, s *columns.Session, src, dest *end) {
	w.Open(`"tapweave":{`)
	w.Text(`"tenant":`, s.Tenant)
	w.SessionID(`"session_id":`, s.ID)
	w.Uint(`"version":`, uint64(s.Version))
	w.Bool(`"final":`, s.IsFinal)
	w.Text(`"conn_state":`, s.ConnState)
	w.Text(`"history":`, s.History)
	w.Text(`"flow_type":`, s.FlowType)
	w.Float(`"handshake_rtt":`, s.HandshakeRTT)
	w.Float(`"sampled":`, s.Sampled)
	w.Long(`"duplicate_packets":`, s.DuplicatePackets)
	w.Long(`"icmp_errors":`, s.ICMPErrors)
	w.Long(`"late_packets":`, s.LatePackets)
	w.Uint(`"outer_ports":`, uint64(s.OuterPorts))
	document.Uints(w, `"vlans":`, s.VLANs)
	document.Uints(w, `"vnis":`, s.VNIs)
	w.Texts(`"tap_points":`, s.TapPoints)
	w.Texts(`"collectors":`, s.Collectors)
	w.Texts(`"http_hosts":`, s.HTTPHosts)
	w.Texts(`"dns_queries":`, s.DNSQueries)
	w.Text(`"ja4":`, s.TLSJA4)
	w.Text(`"ssh_client":`, s.SSHClient)
	w.Text(`"ssh_server":`, s.SSHServer)
	src.own(w, `"source":{`, s.IPProtocol)
	dest.own(w, `"destination":{`, s.IPProtocol)
	w.Close()
}

func (e *end) own(w *document.Writer, key string, protocol uint8) {
	w.Open(key)
	w.Long(`"payload_bytes":`, e.payload)
	switch {
	case protocol == packet.ProtoTCP:
		w.Long(`"missed_bytes":`, e.missed)
		w.Long(`"retransmits":`, e.retransmits)
		w.Long(`"out_of_order":`, e.disorder)
		w.Long(`"zero_windows":`, e.zeroWindows)
		w.Long(`"overlap_bytes":`, e.overlap)
		w.Uint(`"tcp_flags":`, uint64(e.flags))
		w.Float(`"rtt":`, e.rtt)
	case document.IsICMP(protocol):
		w.Uint(e.icmp, uint64(e.port))
	}
	if e.ttl != 0 {
		w.Uint(`"ttl":`, uint64(e.ttl))
	}
	w.Text(`"subnet":`, e.labels.Subnet)
	w.Text(`"vnet":`, e.labels.VNet)
	w.Texts(`"labels":`, e.labels.Labels)
	w.Text(`"threat":`, e.labels.Threat)
	w.Close()
}
