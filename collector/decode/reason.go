package decode

// Reason says why a frame gave no packet. Frames are data, not errors: each is counted under its reason.
type Reason uint8

// The reasons, in the order in which a frame is taken apart. A "truncated" one means that the capture cut
// the frame before the header was complete; the others that what stands there contradicts itself.
const (
	OK                Reason = iota
	TruncatedVXLAN           // datagram ends before the VXLAN header does
	VXLANFlagMissing         // VXLAN header without the I flag (RFC 7348, section 5)
	TruncatedGENEVE          // datagram ends before the GENEVE header, its options included, does
	GENEVEVersion            // another version than 0, or a control packet (RFC 8926, section 3.4)
	GENEVEOptions            // an option reaches beyond the header
	GENEVECritical           // an option that is critical and not known
	TunnelTooDeep            // more tunnels inside each other than Configuration.MaxDepth
	FragmentedCarrier        // first fragment of a carrier: what is inside cannot be had without the others
	UnknownLinkType          // a capture file's link type that is not decoded
	TruncatedLink            // Ethernet, VLAN tag, PPPoE, cooked or loopback header
	ARP
	NotIP // another EtherType, PPP protocol or address family
	IPVersion
	IPHeaderLength // IPv4 header length below 20
	IPLength       // IP packet shorter than its own header
	TruncatedIPv4
	TruncatedIPv6
	IPv6Extensions // extension headers beyond the packet's end, or too many
	TCPHeader      // segment shorter than its header, or data offset below 5
	TruncatedTCP
	UDPHeader
	TruncatedUDP
	ICMPHeader
	TruncatedICMP
	SCTPHeader
	TruncatedSCTP
	DCCPHeader
	TruncatedDCCP

	// NumReasons is the number of reasons, OK included.
	NumReasons = iota
)

var reasons = [NumReasons]string{
	OK:                "ok",
	TruncatedVXLAN:    "truncated_vxlan",
	VXLANFlagMissing:  "vxlan_flag_missing",
	TruncatedGENEVE:   "truncated_geneve",
	GENEVEVersion:     "geneve_version",
	GENEVEOptions:     "geneve_options",
	GENEVECritical:    "geneve_critical_option",
	TunnelTooDeep:     "tunnel_too_deep",
	FragmentedCarrier: "fragmented_carrier",
	UnknownLinkType:   "link_type",
	TruncatedLink:     "truncated_ethernet",
	ARP:               "arp",
	NotIP:             "not_ip",
	IPVersion:         "ip_version",
	IPHeaderLength:    "ip_header_length",
	IPLength:          "ip_length",
	TruncatedIPv4:     "truncated_ipv4",
	TruncatedIPv6:     "truncated_ipv6",
	IPv6Extensions:    "ipv6_extensions",
	TCPHeader:         "tcp_header",
	TruncatedTCP:      "truncated_tcp",
	UDPHeader:         "udp_header",
	TruncatedUDP:      "truncated_udp",
	ICMPHeader:        "icmp_header",
	TruncatedICMP:     "truncated_icmp",
	SCTPHeader:        "sctp_header",
	TruncatedSCTP:     "truncated_sctp",
	DCCPHeader:        "dccp_header",
	TruncatedDCCP:     "truncated_dccp",
}

// String returns the name under which the reason is counted in metrics and in pipeline_stats.
func (r Reason) String() string { return reasons[r] }
