// Package asim writes sessions and alerts as records of Microsoft Sentinel's Advanced Security Information Model:
// NetworkSession, and where the application is known, Dns and WebSession; alerts are AlertEvent.
//
// ASIM's fields are columns of flat tables, named as they are here; what it does not have is in the one dynamic
// column, AdditionalFields, of those schemas that have it. EventOriginalUid, the record's id, is session_id:version.
// Source: https://learn.microsoft.com/azure/sentinel/normalization-about-schemas
package asim

import (
	"strings"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/jsontext"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/sink/siem/document"
)

// Versions of the schemas that records conform to.
const (
	NetworkSessionVersion = "0.2.7"
	DNSVersion            = "0.1.7"
	WebSessionVersion     = "0.2.7"
	AlertVersion          = "0.1"
)

// protocols are the keywords of IP protocols as ASIM has them, in upper case.
var protocols = func() (names [256]string) {
	for i := range names {
		names[i] = strings.ToUpper(columns.Protocol(uint8(i)))
	}
	return names
}()

// Append appends the record of a version of a session, without a line end.
func Append(dst []byte, s *columns.Session) []byte {
	var text [2][64]byte
	src, dest := jsontext.AppendAddress(text[0][:0], s.Src), jsontext.AppendAddress(text[1][:0], s.Dst)
	isDNS := document.IsDNS(s)
	isWeb := !isDNS && document.IsHTTP(s)
	w := document.Begin(dst)
	common(&w, s.Start, s.End)
	w.ID(`"EventOriginalUid":`, s.ID, s.Version)
	if len(s.SrcLabels.Threat)|len(s.DstLabels.Threat) > 0 {
		w.Raw(`"EventSeverity":"High"`)
	} else {
		w.Raw(`"EventSeverity":"Informational"`)
	}
	switch {
	case isDNS:
		dns(&w, s)
	case isWeb:
		web(&w, s)
	default:
		network(&w, s)
	}
	if len(s.Collectors) > 0 && s.Collectors[0] != "" {
		w.Text(`"Dvc":`, s.Collectors[0])
	} else {
		w.Raw(`"Dvc":"Tapweave"`)
	}
	w.Quoted(`"Src":`, src)
	w.Quoted(`"SrcIpAddr":`, src)
	w.Quoted(`"IpAddr":`, src)
	w.Quoted(`"Dst":`, dest)
	w.Quoted(`"DstIpAddr":`, dest)
	if document.HasPorts(s.IPProtocol) {
		w.Uint(`"SrcPortNumber":`, uint64(s.SrcPort))
		w.Uint(`"DstPortNumber":`, uint64(s.DstPort))
	}
	host(&w, s.SrcLabels.Name, `"SrcHostname":`, `"SrcDomain":`, `"SrcDomainType":"FQDN"`, `"SrcFQDN":`)
	host(&w, document.Name(s), `"DstHostname":`, `"DstDomain":`, `"DstDomainType":"FQDN"`, `"DstFQDN":`)
	w.Text(`"SrcGeoCountry":`, s.SrcLabels.Country)
	w.Text(`"DstGeoCountry":`, s.DstLabels.Country)
	if s.Src.Netip().Is4() {
		w.Raw(`"NetworkProtocolVersion":"IPv4"`)
	} else {
		w.Raw(`"NetworkProtocolVersion":"IPv6"`)
	}
	if !isDNS {
		flow(&w, s)
	}
	if !isWeb { // Microsoft's list gives WebSession no such column
		additional(&w, s, isDNS)
	}
	return w.End()
}

// common writes what all schemas have.
func common(w *document.Writer, start, end int64) {
	w.Time(`"TimeGenerated":`, end)
	w.Time(`"EventStartTime":`, start)
	w.Time(`"EventEndTime":`, end)
	w.Raw(`"EventCount":1,"EventVendor":"Tapweave","EventProduct":"Tapweave"`)
}

// network writes the classification of a session as NetworkSession.
func network(w *document.Writer, s *columns.Session) {
	w.Raw(`"EventSchema":"NetworkSession","EventSchemaVersion":"` + NetworkSessionVersion + `","EventType":"NetworkSession"`)
	switch {
	case s.IsFinal:
		w.Raw(`"EventSubType":"End"`)
	case s.Version == 1:
		w.Raw(`"EventSubType":"Start"`)
	}
	switch s.ConnState {
	case "SF", "S1", "S2", "S3", "RSTO", "RSTR":
		w.Raw(`"EventResult":"Success"`)
	case "S0", "REJ", "RSTOS0", "RSTRH", "SH", "SHR":
		if s.IPProtocol == packet.ProtoTCP {
			w.Raw(`"EventResult":"Failure"`)
			break
		}
		fallthrough
	default:
		w.Raw(`"EventResult":"NA"`)
	}
	switch s.CloseReason {
	case "fin":
		w.Raw(`"EventResultDetails":"Terminated"`)
	case "rst":
		w.Raw(`"EventResultDetails":"Reset"`)
	case "idle":
		w.Raw(`"EventResultDetails":"Timeout"`)
	default:
		w.Raw(`"EventResultDetails":"NA"`)
	}
	w.Text(`"EventOriginalResultDetails":`, s.ConnState)
	w.Text(`"ThreatName":`, threatName(s))
	if document.IsICMP(s.IPProtocol) {
		w.Digits(`"NetworkIcmpType":`, uint64(s.SrcPort))
		w.Uint(`"NetworkIcmpCode":`, uint64(s.DstPort))
	}
}

func threatName(s *columns.Session) string {
	if s.DstLabels.Threat != "" {
		return s.DstLabels.Threat
	}
	return s.SrcLabels.Threat
}

// host writes a name, one with dots as host and domain. An address is no name.
func host(w *document.Writer, name, hostname, domain, domainType, fqdn string) {
	name = strings.Trim(name, ".")
	if document.IsAddress(name) {
		return
	}
	first, rest, dotted := strings.Cut(name, ".")
	if !dotted {
		w.Text(hostname, name)
		return
	}
	w.Text(hostname, first)
	w.Text(domain, rest)
	w.Raw(domainType)
	w.Text(fqdn, name)
}

// flow writes what NetworkSession and WebSession have of the packets.
func flow(w *document.Writer, s *columns.Session) {
	w.SessionID(`"NetworkSessionId":`, s.ID)
	w.SessionID(`"SessionId":`, s.ID)
	w.Text(`"NetworkApplicationProtocol":`, s.App)
	w.Text(`"NetworkProtocol":`, protocols[s.IPProtocol])
	switch s.Direction {
	case "inbound":
		w.Raw(`"NetworkDirection":"Inbound"`)
	case "outbound":
		w.Raw(`"NetworkDirection":"Outbound"`)
	case "internal":
		w.Raw(`"NetworkDirection":"Local"`)
	case "external":
		w.Raw(`"NetworkDirection":"External"`)
	default:
		w.Raw(`"NetworkDirection":"Unknown"`)
	}
	milliseconds := max(0, s.End-s.Start) / 1e6
	w.Int(`"NetworkDuration":`, milliseconds)
	w.Int(`"Duration":`, milliseconds)
	w.Long(`"SrcBytes":`, s.SrcBytes)
	w.Long(`"DstBytes":`, s.DstBytes)
	w.Long(`"NetworkBytes":`, s.SrcBytes+s.DstBytes)
	w.Long(`"SrcPackets":`, s.SrcPackets)
	w.Long(`"DstPackets":`, s.DstPackets)
	w.Long(`"NetworkPackets":`, s.SrcPackets+s.DstPackets)
	w.MAC(`"SrcMacAddr":`, s.SrcMAC, ':')
	w.MAC(`"DstMacAddr":`, s.DstMAC, ':')
	if len(s.VLANs) > 0 {
		w.Digits(`"SrcVlanId":`, uint64(s.VLANs[0]))
		w.Digits(`"InnerVlanId":`, uint64(s.VLANs[0]))
	}
}

// additional writes what the schema does not have.
func additional(w *document.Writer, s *columns.Session, isDNS bool) {
	w.Open(`"AdditionalFields":{`)
	w.Text(`"Tenant":`, s.Tenant)
	w.SessionID(`"SessionId":`, s.ID)
	w.Uint(`"Version":`, uint64(s.Version))
	w.Bool(`"IsFinal":`, s.IsFinal)
	w.Text(`"CommunityId":`, s.CommunityID)
	w.Uint(`"IpProtocol":`, uint64(s.IPProtocol))
	w.Text(`"ConnState":`, s.ConnState)
	w.Text(`"History":`, s.History)
	w.Text(`"CloseReason":`, s.CloseReason)
	w.Text(`"FlowType":`, s.FlowType)
	w.Float(`"HandshakeRtt":`, s.HandshakeRTT)
	w.Float(`"SrcRtt":`, s.SrcRTT)
	w.Float(`"DstRtt":`, s.DstRTT)
	w.Float(`"Sampled":`, s.Sampled)
	if isDNS {
		w.Text(`"Direction":`, s.Direction)
		w.Text(`"ApplicationProtocol":`, s.App)
		w.Long(`"SrcBytes":`, s.SrcBytes)
		w.Long(`"DstBytes":`, s.DstBytes)
		w.Long(`"SrcPackets":`, s.SrcPackets)
		w.Long(`"DstPackets":`, s.DstPackets)
		w.MAC(`"SrcMacAddr":`, s.SrcMAC, ':')
		w.MAC(`"DstMacAddr":`, s.DstMAC, ':')
	}
	w.Long(`"SrcPayloadBytes":`, s.SrcPayloadBytes)
	w.Long(`"DstPayloadBytes":`, s.DstPayloadBytes)
	if s.IPProtocol == packet.ProtoTCP {
		w.Long(`"SrcMissedBytes":`, s.SrcMissedBytes)
		w.Long(`"DstMissedBytes":`, s.DstMissedBytes)
		w.Long(`"SrcRetransmits":`, s.SrcRetransmits)
		w.Long(`"DstRetransmits":`, s.DstRetransmits)
		w.Long(`"SrcOutOfOrder":`, s.SrcOutOfOrder)
		w.Long(`"DstOutOfOrder":`, s.DstOutOfOrder)
		w.Long(`"SrcZeroWindows":`, s.SrcZeroWindows)
		w.Long(`"DstZeroWindows":`, s.DstZeroWindows)
		w.Long(`"SrcOverlapBytes":`, s.SrcOverlapBytes)
		w.Long(`"DstOverlapBytes":`, s.DstOverlapBytes)
		w.Uint(`"SrcTcpFlags":`, uint64(s.SrcTCPFlags))
		w.Uint(`"DstTcpFlags":`, uint64(s.DstTCPFlags))
	}
	w.Long(`"IcmpErrors":`, s.ICMPErrors)
	w.Long(`"LatePackets":`, s.LatePackets)
	w.Long(`"DuplicatePackets":`, s.DuplicatePackets)
	w.Uint(`"OuterPorts":`, uint64(s.OuterPorts))
	document.Uints(w, `"Vlans":`, s.VLANs)
	document.Uints(w, `"Vnis":`, s.VNIs)
	w.Texts(`"TapPoints":`, s.TapPoints)
	w.Texts(`"Collectors":`, s.Collectors)
	if s.SrcTTL != 0 {
		w.Uint(`"SrcTtl":`, uint64(s.SrcTTL))
	}
	if s.DstTTL != 0 {
		w.Uint(`"DstTtl":`, uint64(s.DstTTL))
	}
	w.Text(`"TlsSni":`, s.TLSSNI)
	w.Text(`"TlsVersion":`, s.TLSVersion)
	w.Text(`"TlsAlpn":`, s.TLSALPN)
	w.Text(`"TlsJa3":`, s.TLSJA3)
	w.Text(`"TlsJa4":`, s.TLSJA4)
	w.Texts(`"HttpHosts":`, s.HTTPHosts)
	w.Texts(`"DnsQueries":`, s.DNSQueries)
	w.Text(`"SshClient":`, s.SSHClient)
	w.Text(`"SshServer":`, s.SSHServer)
	end(w, &s.SrcLabels, `"SrcSubnet":`, `"SrcVnet":`, `"SrcLabels":`, `"SrcAsn":`, `"SrcAsOrg":`, `"SrcThreat":`)
	end(w, &s.DstLabels, `"DstSubnet":`, `"DstVnet":`, `"DstLabels":`, `"DstAsn":`, `"DstAsOrg":`, `"DstThreat":`)
	w.Close()
}

func end(w *document.Writer, l *columns.Labels, subnet, vnet, labels, asn, org, threat string) {
	w.Text(subnet, l.Subnet)
	w.Text(vnet, l.VNet)
	w.Texts(labels, l.Labels)
	if l.ASN != 0 {
		w.Uint(asn, uint64(l.ASN))
	}
	w.Text(org, l.ASOrg)
	w.Text(threat, l.Threat)
}
