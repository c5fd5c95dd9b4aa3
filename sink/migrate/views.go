package migrate

import (
	"fmt"
	"strings"
)

// Views over sessions.
const (
	DNS              = "dns"
	TLS              = "tls"
	HTTP             = "http"
	TrafficAnalytics = "NTANetAnalytics"
	ZeekConn         = "zeek_conn"
	IPFIX            = "ipfix"
)

// view is a view over sessions: a column and its expression, separated by a space, a line. Empty lines and what is
// behind # are left out. A column without an expression is the one of sessions.
type view struct {
	name, comment, columns, where string
}

// words makes the views over sessions.
func words(database string) []string {
	var list []string
	for _, v := range views {
		list = append(list, v.statement(database))
	}
	return list
}

func (v view) statement(database string) string {
	var lines []string
	for line := range strings.Lines(v.columns) {
		line, _, _ = strings.Cut(line, "#")
		name, expression, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch expression = strings.TrimSpace(expression); {
		case name == "":
		case expression == "":
			lines = append(lines, "    "+ident(name))
		default:
			lines = append(lines, "    "+expression+" AS "+ident(name))
		}
	}
	where := ""
	if v.where != "" {
		where = "\nWHERE " + v.where
	}
	return fmt.Sprintf("CREATE OR REPLACE VIEW %s.%s\nAS SELECT\n%s\nFROM %s.%s AS s%s\nCOMMENT %s",
		ident(database), ident(v.name), strings.Join(lines, ",\n"), ident(database), Sessions, where, literal(v.comment))
}

// ends is what the views of applications say of a session beside the application.
const ends = `
session_id
tenant
start_time
end_time
src_ip
src_port
dst_ip
dst_port
protocol
src_name
src_subnet
src_vnet
src_country
dst_name
dst_subnet
dst_vnet
dst_country
direction
app
`

var views = []view{
	{DNS, "sessions with DNS, newest version", ends + `
dns_query
dns_type
dns_rcode
dns_answers
dns_queries
src_bytes
dst_bytes
duration
`, "app = 'dns' OR dns_query != ''"},

	{TLS, "sessions with TLS, newest version", ends + `
tls_sni
tls_version
tls_alpn
tls_ja3
tls_ja4
src_bytes
dst_bytes
duration
`, "app = 'tls' OR tls_version != '' OR tls_sni != ''"},

	{HTTP, "sessions with HTTP, newest version", ends + `
http_method
http_host
http_path
http_status
http_user_agent
http_hosts
src_bytes
dst_bytes
duration
`, "app = 'http' OR http_method != '' OR http_status != 0"},

	{TrafficAnalytics, "sessions in the columns of Azure Traffic Analytics; what no mirror can know is NULL", `
# Source: Azure Monitor Logs reference, table NTANetAnalytics, in the order given there. A row is a session, not the
# flows of an interval that share a four-tuple. What follows from rules, resources and subscriptions is not in packets.
AclGroup CAST(NULL, 'Nullable(String)')
AclRule CAST(NULL, 'Nullable(String)')
Action CAST(NULL, 'Nullable(String)')
AllowedInFlows CAST(NULL, 'Nullable(Int64)')
AllowedOutFlows CAST(NULL, 'Nullable(Int64)')
AzureRegion CAST(NULL, 'Nullable(String)')
_BilledSize CAST(NULL, 'Nullable(Float64)')
BytesDestToSrc dst_bytes
BytesSrcToDest src_bytes
CompletedFlows toInt64(is_final)
ConnectingVnets if(src_vnet != '' AND dst_vnet != '' AND src_vnet != dst_vnet, concat(src_vnet, ' ', dst_vnet), NULL)
ConnectionName CAST(NULL, 'Nullable(String)')
ConnectionType CAST(NULL, 'Nullable(String)')
Country nullIf(if(dst_country != '', dst_country, src_country), '')
DeniedInFlows CAST(NULL, 'Nullable(Int64)')
DeniedOutFlows CAST(NULL, 'Nullable(Int64)')
Description CAST(NULL, 'Nullable(String)')
DestApplicationGateway CAST(NULL, 'Nullable(String)')
DestCloud CAST(NULL, 'Nullable(String)')
DestEnvironment CAST(NULL, 'Nullable(String)')
DestExpressRouteCircuit CAST(NULL, 'Nullable(String)')
DestIp dst_ip
DestLoadBalancer CAST(NULL, 'Nullable(String)')
DestLocalNetworkGateway CAST(NULL, 'Nullable(String)')
DestNetworkGroups CAST(NULL, 'Nullable(String)')
DestNic CAST(NULL, 'Nullable(String)')
DestPort if(ip_protocol IN (6, 17, 33, 132, 136), toInt32(dst_port), NULL)
DestPublicIps CAST(NULL, 'Nullable(String)')
DestRegion CAST(NULL, 'Nullable(String)')
DestServiceId CAST(NULL, 'Nullable(String)')
DestServiceName CAST(NULL, 'Nullable(String)')
DestServiceTags CAST(NULL, 'Nullable(String)')
DestSubnet nullIf(dst_subnet, '')
DestSubscription CAST(NULL, 'Nullable(String)')
DestTenantId CAST(NULL, 'Nullable(String)')
DestTenantName CAST(NULL, 'Nullable(String)')
DestVm nullIf(dst_name, '')
ExpressRouteCircuitPeeringType CAST(NULL, 'Nullable(String)')
FaSchemaVersion '3'
FlowDirection multiIf(direction = 'inbound', 'Inbound', direction = 'outbound', 'Outbound', NULL)
FlowEncryption CAST(NULL, 'Nullable(String)')
FlowEndTime end_time
FlowIntervalEndTime end_time # the interval that the row tells of
FlowIntervalStartTime start_time
FlowLogResourceId CAST(NULL, 'Nullable(String)')
FlowStartTime start_time
FlowStatus CAST(NULL, 'Nullable(String)')
FlowType nullIf(flow_type, '')
_IsBillable CAST(NULL, 'Nullable(String)')
IsFlowCapturedAtUdrHop CAST(NULL, 'Nullable(Bool)')
L4Protocol multiIf(ip_protocol = 6, 'T', ip_protocol = 17, 'U', NULL)
L7Protocol nullIf(app, '')
LogResourceId CAST(NULL, 'Nullable(String)')
MacAddress nullIf(src_mac, '')
NsgList CAST(NULL, 'Nullable(String)')
NsgRule CAST(NULL, 'Nullable(String)')
NsgRuleType CAST(NULL, 'Nullable(String)')
PacketsDestToSrc dst_packets
PacketsSrcToDest src_packets
PrivateEndpointResourceId CAST(NULL, 'Nullable(String)')
PrivateLinkResourceId CAST(NULL, 'Nullable(String)')
PrivateLinkResourceName CAST(NULL, 'Nullable(String)')
RecordCount toInt64(1)
SourceSystem 'Tapweave'
SrcApplicationGateway CAST(NULL, 'Nullable(String)')
SrcCloud CAST(NULL, 'Nullable(String)')
SrcEnvironment CAST(NULL, 'Nullable(String)')
SrcExpressRouteCircuit CAST(NULL, 'Nullable(String)')
SrcIp src_ip
SrcLoadBalancer CAST(NULL, 'Nullable(String)')
SrcLocalNetworkGateway CAST(NULL, 'Nullable(String)')
SrcNetworkGroups CAST(NULL, 'Nullable(String)')
SrcNic CAST(NULL, 'Nullable(String)')
SrcPorts if(ip_protocol IN (6, 17, 33, 132, 136), toString(src_port), NULL)
SrcPublicIps CAST(NULL, 'Nullable(String)')
SrcRegion CAST(NULL, 'Nullable(String)')
SrcServiceId CAST(NULL, 'Nullable(String)')
SrcServiceName CAST(NULL, 'Nullable(String)')
SrcServiceTags CAST(NULL, 'Nullable(String)')
SrcSubnet nullIf(src_subnet, '')
SrcSubscription CAST(NULL, 'Nullable(String)')
SrcTenantId CAST(NULL, 'Nullable(String)')
SrcTenantName CAST(NULL, 'Nullable(String)')
SrcVm nullIf(src_name, '')
Status CAST(NULL, 'Nullable(String)')
SubType 'FlowLog'
TargetResourceId CAST(NULL, 'Nullable(String)')
TargetResourceType CAST(NULL, 'Nullable(String)')
TenantId CAST(NULL, 'Nullable(String)')
TimeGenerated end_time # no time of arrival is kept; this is what queries cut by
TimeProcessed CAST(NULL, 'Nullable(DateTime)')
TrafficAnalyticsResourceId CAST(NULL, 'Nullable(String)')
Type 'NTANetAnalytics'
session_id # ours, for a join
`, ""},

	{ZeekConn, "sessions in the words of Zeek's conn.log", `
# Source: Zeek, base/protocols/conn/main.zeek (Conn::Info), then what its policy scripts add.
ts start_time
uid session_id
id.orig_h src_ip
id.orig_p src_port
id.resp_h dst_ip
id.resp_p dst_port
proto multiIf(ip_protocol = 6, 'tcp', ip_protocol = 17, 'udp', ip_protocol IN (1, 58), 'icmp', 'unknown_transport')
service nullIf(app, '')
duration nullIf(s.duration, 0)
orig_bytes src_payload_bytes + src_missed_bytes # Zeek counts by sequence numbers, holes included
resp_bytes dst_payload_bytes + dst_missed_bytes
conn_state nullIf(s.conn_state, '')
local_orig multiIf(direction IN ('internal', 'outbound'), true, direction IN ('inbound', 'external'), false, NULL)
local_resp multiIf(direction IN ('internal', 'inbound'), true, direction IN ('outbound', 'external'), false, NULL)
missed_bytes src_missed_bytes + dst_missed_bytes
history nullIf(s.history, '')
orig_pkts src_packets
orig_ip_bytes src_bytes
resp_pkts dst_packets
resp_ip_bytes dst_bytes
tunnel_parents CAST([], 'Array(String)') # the carrier of a mirror is no session
ip_proto ip_protocol
vlan if(empty(vlans), NULL, vlans[1])
inner_vlan if(length(vlans) > 1, vlans[2], NULL)
orig_l2_addr nullIf(src_mac, '')
resp_l2_addr nullIf(dst_mac, '')
community_id
`, ""},

	{IPFIX, "sessions in the names of IPFIX information elements, both directions in one row (RFC 5103)", `
# Source: IANA, IP Flow Information Export (IPFIX) Entities. NetFlow v9 shares the numbers 1 to 127 (RFC 3954).
flowStartNanoseconds start_time # 156
flowEndNanoseconds end_time # 157
flowDurationMicroseconds toUInt32(least(toUInt64(round(duration * 1e6)), 4294967295)) # 162
ipVersion toUInt8(if(position(src_ip, ':') > 0, 6, 4)) # 60
sourceIPv4Address if(position(src_ip, ':') > 0, NULL, src_ip) # 8, NetFlow IPV4_SRC_ADDR
destinationIPv4Address if(position(src_ip, ':') > 0, NULL, dst_ip) # 12, IPV4_DST_ADDR
sourceIPv6Address if(position(src_ip, ':') > 0, src_ip, NULL) # 27, IPV6_SRC_ADDR
destinationIPv6Address if(position(src_ip, ':') > 0, dst_ip, NULL) # 28, IPV6_DST_ADDR
protocolIdentifier ip_protocol # 4, PROTOCOL
sourceTransportPort if(ip_protocol IN (6, 17, 33, 132, 136), src_port, NULL) # 7, L4_SRC_PORT
destinationTransportPort if(ip_protocol IN (6, 17, 33, 132, 136), dst_port, NULL) # 11, L4_DST_PORT
icmpTypeIPv4 if(ip_protocol = 1, toUInt8(src_port), NULL) # 176
icmpTypeIPv6 if(ip_protocol = 58, toUInt8(src_port), NULL) # 178
octetDeltaCount src_bytes # 1, IN_BYTES
packetDeltaCount src_packets # 2, IN_PKTS
reverseOctetDeltaCount dst_bytes
reversePacketDeltaCount dst_packets
tcpControlBits if(ip_protocol = 6, src_tcp_flags, NULL) # 6, TCP_FLAGS
reverseTcpControlBits if(ip_protocol = 6, dst_tcp_flags, NULL)
flowEndReason multiIf(close_reason = 'idle', 1, is_final = 0, 2, close_reason IN ('fin', 'rst', 'reuse'), 3, close_reason IN ('end', 'rollover'), 4, close_reason = 'evicted', 5, NULL) # 136
biflowDirection toUInt8(1) # 239: src began it
minimumTTL nullIf(src_ttl, 0) # 52, MIN_TTL, of the first packet
sourceMacAddress nullIf(src_mac, '') # 56
destinationMacAddress nullIf(dst_mac, '') # 80
vlanId if(empty(vlans), NULL, vlans[1]) # 58, SRC_VLAN
samplingProbability sampled # 311
bgpSourceAsNumber nullIf(src_asn, 0) # 16, SRC_AS
bgpDestinationAsNumber nullIf(dst_asn, 0) # 17, DST_AS
applicationName nullIf(app, '') # 96
httpStatusCode nullIf(http_status, 0) # 457
httpRequestMethod nullIf(http_method, '') # 459
httpRequestHost nullIf(http_host, '') # 460
httpRequestTarget nullIf(http_path, '') # 461
httpUserAgent nullIf(http_user_agent, '') # 468
session_id # ours, for a join
`, ""},
}
