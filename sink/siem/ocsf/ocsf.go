// Package ocsf writes sessions and alerts as events of the Open Cybersecurity Schema Framework: Network Activity
// (4001), and where the application is known, HTTP Activity (4002) and DNS Activity (4003); alerts are Detection
// Findings (2004).
//
// An event's id, metadata.uid, is session_id:version. What OCSF does not have is below unmapped.
// Source: https://schema.ocsf.io
package ocsf

import (
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/jsontext"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/sink/siem/document"
)

// Version of the schema that events conform to.
const Version = "1.8.0"

// Append appends the event of a version of a session, without a line end.
func Append(dst []byte, s *columns.Session) []byte {
	var text [2][64]byte
	src, dest := jsontext.AppendAddress(text[0][:0], s.Src), jsontext.AppendAddress(text[1][:0], s.Dst)
	w := document.Begin(dst)
	switch {
	case document.IsDNS(s):
		dns(&w, s)
	case document.IsHTTP(s):
		http(&w, s)
	default:
		network(&w, s)
	}
	malicious := len(s.SrcLabels.Threat)|len(s.DstLabels.Threat) > 0
	if malicious {
		w.Raw(`"severity_id":4,"severity":"High"`)
	} else {
		w.Raw(`"severity_id":1,"severity":"Informational"`)
	}
	// The time at which the session is over and known.
	w.Millis(`"time":`, s.End)
	w.Millis(`"start_time":`, s.Start)
	w.Millis(`"end_time":`, s.End)
	w.Uint(`"duration":`, uint64(max(0, s.End-s.Start))/1e6)
	w.Text(`"status_detail":`, s.CloseReason)
	w.Text(`"app_protocol_name":`, s.App)

	w.Open(`"metadata":{"version":"` + Version + `",` + product + `,"log_name":"tapweave.sessions"`)
	if malicious {
		w.Raw(`"profiles":["osint"]`)
	}
	w.ID(`"uid":`, s.ID, s.Version)
	w.SessionID(`"correlation_uid":`, s.ID)
	w.Uint(`"sequence":`, uint64(s.Version))
	w.Text(`"tenant_uid":`, s.Tenant)
	w.Close()

	endpoint(&w, `"src_endpoint":{`, src, s.SrcPort, s.IPProtocol, s.SrcMAC, s.SrcLabels.Name, &s.SrcLabels, s.VLANs, s.Direction, "inbound")
	endpoint(&w, `"dst_endpoint":{`, dest, s.DstPort, s.IPProtocol, s.DstMAC, document.Name(s), &s.DstLabels, s.VLANs, s.Direction, "outbound")
	connection(&w, s)
	w.Open(`"traffic":{`)
	w.Long(`"bytes":`, s.SrcBytes+s.DstBytes)
	w.Long(`"bytes_out":`, s.SrcBytes)
	w.Long(`"bytes_in":`, s.DstBytes)
	w.Long(`"packets":`, s.SrcPackets+s.DstPackets)
	w.Long(`"packets_out":`, s.SrcPackets)
	w.Long(`"packets_in":`, s.DstPackets)
	if s.IPProtocol == packet.ProtoTCP {
		w.Long(`"bytes_missed":`, s.SrcMissedBytes+s.DstMissedBytes)
	}
	w.Close()
	if s.TLSVersion != "" {
		w.Open(`"tls":{`)
		w.Text(`"version":`, s.TLSVersion)
		w.Text(`"sni":`, s.TLSSNI)
		if s.TLSJA3 != "" {
			w.Open(`"ja3_hash":{"algorithm_id":1,"algorithm":"MD5"`)
			w.Text(`"value":`, s.TLSJA3)
			w.Close()
		}
		w.Close()
	}
	if s.TLSJA4 != "" {
		w.Open(`"ja4_fingerprint_list":[{"type_id":1,"type":"JA4"`)
		w.Text(`"value":`, s.TLSJA4)
		w.Close()
		w.CloseList()
	}
	observables(&w, s, src, dest)
	if malicious {
		threats(&w, s, src, dest)
	}
	unmapped(&w, s)
	return w.End()
}

const product = `"product":{"name":"Tapweave","vendor_name":"Tapweave"}`

// network writes the classification of a session as Network Activity. OCSF calls a report of what was seen of a
// connection Traffic; where the report is the last, it says how the connection ended.
func network(w *document.Writer, s *columns.Session) {
	const class = `"class_uid":4001,"class_name":"Network Activity","category_uid":4,"category_name":"Network Activity",`
	activity, status := class+`"activity_id":6,"activity_name":"Traffic","type_uid":400106,"type_name":"Network Activity: Traffic"`, unknown
	switch s.ConnState {
	case "SF", "S1", "S2", "S3", "RSTO", "RSTR":
		status = success
	case "S0", "REJ", "RSTOS0", "RSTRH", "SH", "SHR":
		if s.IPProtocol == packet.ProtoTCP {
			status = failure
		}
	}
	if s.IsFinal && s.IPProtocol == packet.ProtoTCP {
		switch s.ConnState {
		case "SF":
			activity = class + `"activity_id":2,"activity_name":"Close","type_uid":400102,"type_name":"Network Activity: Close"`
		case "RSTO", "RSTR":
			activity = class + `"activity_id":3,"activity_name":"Reset","type_uid":400103,"type_name":"Network Activity: Reset"`
		case "S0":
			activity = class + `"activity_id":4,"activity_name":"Fail","type_uid":400104,"type_name":"Network Activity: Fail"`
		case "REJ":
			activity = class + `"activity_id":5,"activity_name":"Refuse","type_uid":400105,"type_name":"Network Activity: Refuse"`
		}
	}
	w.Raw(activity)
	w.Raw(status)
	if document.Began(s) {
		w.Raw(`"is_src_dst_assignment_known":true`)
	}
}

const (
	unknown = `"status_id":0,"status":"Unknown"`
	success = `"status_id":1,"status":"Success"`
	failure = `"status_id":2,"status":"Failure"`
)

// endpoint writes one end. It is external where the direction says so, or is the one that names it.
func endpoint(w *document.Writer, key string, ip []byte, port uint16, protocol uint8, mac columns.MAC, name string, l *columns.Labels, vlans []uint16, direction, external string) {
	w.Open(key)
	w.Quoted(`"ip":`, ip)
	if document.HasPorts(protocol) {
		w.Uint(`"port":`, uint64(port))
	}
	w.MAC(`"mac":`, mac, ':')
	w.Text(`"hostname":`, name)
	w.Text(`"subnet_uid":`, l.Subnet)
	w.Text(`"vpc_uid":`, l.VNet)
	if len(vlans) > 0 {
		w.Digits(`"vlan_uid":`, uint64(vlans[0]))
	}
	if l.Country != "" {
		w.Open(`"location":{`)
		w.Text(`"country":`, l.Country)
		w.Close()
	}
	if l.ASN != 0 {
		w.Open(`"autonomous_system":{`)
		w.Uint(`"number":`, uint64(l.ASN))
		w.Text(`"name":`, l.ASOrg)
		w.Close()
	}
	switch {
	case direction == "":
	case direction == "external" || direction == external:
		w.Raw(`"network_scope_id":2,"network_scope":"External"`)
	default:
		w.Raw(`"network_scope_id":1,"network_scope":"Internal"`)
	}
	w.Close()
}

func connection(w *document.Writer, s *columns.Session) {
	w.Open(`"connection_info":{`)
	w.SessionID(`"uid":`, s.ID)
	w.Text(`"community_uid":`, s.CommunityID)
	w.Uint(`"protocol_num":`, uint64(s.IPProtocol))
	w.Text(`"protocol_name":`, s.Protocol())
	if s.Src.Netip().Is4() {
		w.Raw(`"protocol_ver_id":4,"protocol_ver":"Internet Protocol version 4 (IPv4)"`)
	} else {
		w.Raw(`"protocol_ver_id":6,"protocol_ver":"Internet Protocol version 6 (IPv6)"`)
	}
	switch s.Direction {
	case "inbound":
		w.Raw(`"direction_id":1,"direction":"Inbound"`)
	case "outbound":
		w.Raw(`"direction_id":2,"direction":"Outbound"`)
	case "internal":
		w.Raw(`"direction_id":3,"direction":"Lateral"`)
	case "external":
		w.Raw(`"direction_id":99,"direction":"External"`)
	default:
		w.Raw(`"direction_id":0,"direction":"Unknown"`)
	}
	switch s.FlowType {
	case "IntraVNet":
		w.Raw(`"boundary_id":4,"boundary":"Same VPC"`)
	case "InterVNet":
		w.Raw(`"boundary_id":2,"boundary":"Internal"`)
	case "AzurePublic", "ExternalPublic":
		w.Raw(`"boundary_id":3,"boundary":"External"`)
	}
	if s.IPProtocol == packet.ProtoTCP {
		w.Uint(`"tcp_flags":`, uint64(s.SrcTCPFlags|s.DstTCPFlags))
	}
	w.Text(`"flag_history":`, s.History)
	w.Close()
}

// Ids of observables, from the dictionary of OCSF.
const (
	observableHostname  = `"type_id":1,"type":"Hostname"`
	observableIP        = `"type_id":2,"type":"IP Address"`
	observableUserAgent = `"type_id":16,"type":"HTTP User-Agent"`
	observableHash      = `"type_id":8,"type":"Hash"`
	observableJA4       = `"type_id":99,"type":"JA4"`
)

// observables names what a search over all events is for, and where in this one it stands.
func observables(w *document.Writer, s *columns.Session, src, dest []byte) {
	w.Open(`"observables":[`)
	w.Open(`{"name":"src_endpoint.ip",` + observableIP)
	w.Quoted(`"value":`, src)
	w.Close()
	w.Open(`{"name":"dst_endpoint.ip",` + observableIP)
	w.Quoted(`"value":`, dest)
	w.Close()
	observe(w, `{"name":"src_endpoint.hostname",`+observableHostname, s.SrcLabels.Name)
	observe(w, `{"name":"dst_endpoint.hostname",`+observableHostname, document.Name(s))
	if s.TLSVersion != "" {
		observe(w, `{"name":"tls.sni",`+observableHostname, s.TLSSNI)
		observe(w, `{"name":"tls.ja3_hash.value",`+observableHash, s.TLSJA3)
	}
	observe(w, `{"name":"ja4_fingerprint_list[0].value",`+observableJA4, s.TLSJA4)
	switch {
	case document.IsDNS(s):
		observe(w, `{"name":"query.hostname",`+observableHostname, s.DNSQuery)
		for _, a := range s.DNSAnswers {
			if document.IsAddress(a) {
				observe(w, `{"name":"answers[].rdata",`+observableIP, a)
			}
		}
	case document.IsHTTP(s):
		if host, _ := document.Host(s.HTTPHost); host != "" {
			observe(w, `{"name":"http_request.url.hostname",`+observableHostname, host)
		}
		observe(w, `{"name":"http_request.user_agent",`+observableUserAgent, s.HTTPUserAgent)
	}
	w.CloseList()
}

func observe(w *document.Writer, open, value string) {
	if value != "" {
		w.Open(open)
		w.Text(`"value":`, value)
		w.Close()
	}
}

// threats writes the entries of threat lists, as OCSF's profile osint has them.
func threats(w *document.Writer, s *columns.Session, src, dest []byte) {
	w.Open(`"osint":[`)
	if t := s.SrcLabels.Threat; t != "" {
		w.Open(`{"type_id":1,"type":"IP Address"`)
		w.Quoted(`"value":`, src)
		w.Text(`"name":`, t)
		w.Close()
	}
	if t := s.DstLabels.Threat; t != "" {
		// It may be on the list by a name that was asked for: which it was, the alert says.
		if s.TLSSNI == "" && s.HTTPHost == "" && s.DNSQuery == "" {
			w.Open(`{"type_id":1,"type":"IP Address"`)
		} else {
			w.Open(`{"type_id":0,"type":"Unknown"`)
		}
		w.Quoted(`"value":`, dest)
		w.Text(`"name":`, t)
		w.Close()
	}
	w.CloseList()
}

// unmapped writes what OCSF does not have.
func unmapped(w *document.Writer, s *columns.Session) {
	w.Open(`"unmapped":{`)
	w.Bool(`"is_final":`, s.IsFinal)
	w.Text(`"conn_state":`, s.ConnState)
	w.Text(`"flow_type":`, s.FlowType)
	w.Float(`"handshake_rtt":`, s.HandshakeRTT)
	w.Float(`"src_rtt":`, s.SrcRTT)
	w.Float(`"dst_rtt":`, s.DstRTT)
	w.Float(`"sampled":`, s.Sampled)
	w.Long(`"src_payload_bytes":`, s.SrcPayloadBytes)
	w.Long(`"dst_payload_bytes":`, s.DstPayloadBytes)
	switch {
	case s.IPProtocol == packet.ProtoTCP:
		w.Long(`"src_missed_bytes":`, s.SrcMissedBytes)
		w.Long(`"dst_missed_bytes":`, s.DstMissedBytes)
		w.Long(`"src_retransmits":`, s.SrcRetransmits)
		w.Long(`"dst_retransmits":`, s.DstRetransmits)
		w.Long(`"src_out_of_order":`, s.SrcOutOfOrder)
		w.Long(`"dst_out_of_order":`, s.DstOutOfOrder)
		w.Long(`"src_zero_windows":`, s.SrcZeroWindows)
		w.Long(`"dst_zero_windows":`, s.DstZeroWindows)
		w.Long(`"src_overlap_bytes":`, s.SrcOverlapBytes)
		w.Long(`"dst_overlap_bytes":`, s.DstOverlapBytes)
		w.Uint(`"src_tcp_flags":`, uint64(s.SrcTCPFlags))
		w.Uint(`"dst_tcp_flags":`, uint64(s.DstTCPFlags))
	case document.IsICMP(s.IPProtocol):
		w.Uint(`"icmp_type":`, uint64(s.SrcPort))
		w.Uint(`"icmp_code":`, uint64(s.DstPort))
	}
	w.Long(`"icmp_errors":`, s.ICMPErrors)
	w.Long(`"late_packets":`, s.LatePackets)
	w.Long(`"duplicate_packets":`, s.DuplicatePackets)
	w.Uint(`"outer_ports":`, uint64(s.OuterPorts))
	document.Uints(w, `"vlans":`, s.VLANs)
	document.Uints(w, `"vnis":`, s.VNIs)
	w.Texts(`"tap_points":`, s.TapPoints)
	w.Texts(`"collectors":`, s.Collectors)
	w.Texts(`"src_labels":`, s.SrcLabels.Labels)
	w.Texts(`"dst_labels":`, s.DstLabels.Labels)
	if s.SrcTTL != 0 {
		w.Uint(`"src_ttl":`, uint64(s.SrcTTL))
	}
	if s.DstTTL != 0 {
		w.Uint(`"dst_ttl":`, uint64(s.DstTTL))
	}
	if s.TLSVersion == "" { // OCSF has no tls without a version
		w.Text(`"tls_sni":`, s.TLSSNI)
		w.Text(`"tls_ja3":`, s.TLSJA3)
	}
	w.Text(`"tls_alpn":`, s.TLSALPN)
	w.Texts(`"http_hosts":`, s.HTTPHosts)
	w.Texts(`"dns_queries":`, s.DNSQueries)
	w.Text(`"ssh_client":`, s.SSHClient)
	w.Text(`"ssh_server":`, s.SSHServer)
	w.Close()
}
