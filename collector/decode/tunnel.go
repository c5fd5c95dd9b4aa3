package decode

import (
	"encoding/binary"
	"slices"

	"github.com/tapweave/tapweave/proto/packet"
)

// tunnel is what a tunnel's header says.
type tunnel struct {
	header int // bytes, without UDP's
	vni    uint32
	link   LinkType // of what is inside
}

const (
	geneveHeader    = 8
	etherTransEther = 0x6558 // transparent Ethernet bridging
	geneveCritical  = 0x80   // first bit of an option's type
)

// vxlan reads a header of VXLAN (RFC 7348, section 5): the I flag must be set, the other reserved bits may be
// anything.
func vxlan(b []byte) (tunnel, Reason) {
	if len(b) < vxlanHeader {
		return tunnel{}, TruncatedVXLAN
	}
	if b[0]&0x08 == 0 {
		return tunnel{}, VXLANFlagMissing
	}
	return tunnel{vxlanHeader, binary.BigEndian.Uint32(b[4:]) >> 8, LinkEthernet}, OK
}

// geneve reads a header of GENEVE (RFC 8926, section 3.4). Its options end where the header says, no option of
// it is known to be critical, and so a critical one is a packet that must not be interpreted.
func geneve(b []byte) (tunnel, Reason) {
	if len(b) < geneveHeader {
		return tunnel{}, TruncatedGENEVE
	}
	if b[0]>>6 != 0 || b[1]&0x80 != 0 { // of another version; a control packet, which carries none
		return tunnel{}, GENEVEVersion
	}
	t := tunnel{header: geneveHeader + int(b[0]&0x3f)*4, vni: binary.BigEndian.Uint32(b[4:]) >> 8}
	switch binary.BigEndian.Uint16(b[2:]) {
	case etherTransEther:
		t.link = LinkEthernet
	case etherIPv4:
		t.link = LinkIPv4
	case etherIPv6:
		t.link = LinkIPv6
	default:
		return tunnel{}, NotIP
	}
	if len(b) < t.header {
		return tunnel{}, TruncatedGENEVE
	}
	for o := b[geneveHeader:t.header]; len(o) > 0; {
		n := 4 + int(o[3]&0x1f)*4
		if n > len(o) {
			return tunnel{}, GENEVEOptions
		}
		if o[2]&geneveCritical != 0 {
			return tunnel{}, GENEVECritical
		}
		o = o[n:]
	}
	return t, OK
}

// isCarrier says whether a UDP datagram inside a frame goes to a tunnel's port, has its header, and room for
// what that promises. Where the header must not be interpreted, it says so.
func (d *Decoder) isCarrier(udp []byte) (t tunnel, _ bool, r Reason) {
	if len(udp) < udpHeader+vxlanHeader+ethernetHeader {
		return t, false, OK
	}
	port := binary.BigEndian.Uint16(udp[2:])
	switch {
	case slices.Contains(d.ports, port):
		t, r = vxlan(udp[udpHeader:])
	case slices.Contains(d.genevePorts, port):
		if t, r = geneve(udp[udpHeader:]); r == GENEVECritical {
			return t, false, r
		}
	default:
		return t, false, OK
	}
	return t, r == OK && len(udp) >= udpHeader+t.header+ethernetHeader, OK
}

// carries says whether what is inside of a tunnel is what is looked for there.
func (t *tunnel) carries(inside []byte) bool {
	if t.link != LinkEthernet {
		return inside[0]>>4 == 4 || inside[0]>>4 == 6
	}
	switch binary.BigEndian.Uint16(inside[12:]) {
	case etherIPv4, etherIPv6, etherARP, etherVLAN, etherQinQ, etherQinQ1, etherPPPoE:
		return true
	}
	return false
}

// Endpoint is where an AWS gateway load balancer had a packet from.
//
// Source: https://aws.amazon.com/blogs/networking-and-content-delivery/integrate-your-custom-logic-or-appliance-with-aws-gateway-load-balancer/
type Endpoint struct {
	ENI        uint64 // of the gateway load balancer's endpoint
	Attachment uint64
}

const (
	classAWS          = 0x0108
	typeENI           = 1
	typeAttachment    = 2
	endpointOptionLen = 8
)

// EndpointOf returns what the options of a GENEVE header say, if they are AWS's. The header has been decoded.
func EndpointOf(b []byte) (e Endpoint, ok bool) {
	for o := b[geneveHeader : geneveHeader+int(b[0]&0x3f)*4]; len(o) >= 4; {
		n := 4 + int(o[3]&0x1f)*4
		if binary.BigEndian.Uint16(o) == classAWS && n == 4+endpointOptionLen && n <= len(o) {
			switch o[2] {
			case typeENI:
				e.ENI, ok = binary.BigEndian.Uint64(o[4:]), true
			case typeAttachment:
				e.Attachment, ok = binary.BigEndian.Uint64(o[4:]), true
			}
		}
		o = o[min(n, len(o)):]
	}
	return e, ok
}

// Datagram decodes what a UDP socket delivered: a VXLAN header and a frame. source and port are the datagram's
// sender.
func (d *Decoder) Datagram(time int64, source packet.Addr, port uint16, payload []byte) Reason {
	t, r := vxlan(payload)
	if r != OK {
		d.Counts[r]++
		return r
	}
	return d.carried(time, source, port, payload, t, 0)
}

// GENEVE decodes what a UDP socket delivered: a GENEVE header and a frame or an IP packet. Where a tunnel of a
// mirror is inside, as behind an AWS gateway load balancer, that one decides the tenant.
func (d *Decoder) GENEVE(time int64, source packet.Addr, port uint16, payload []byte) Reason {
	t, r := geneve(payload)
	if r != OK {
		d.Counts[r]++
		return r
	}
	return d.carried(time, source, port, payload, t, 1)
}

// carried decodes what is in the tunnel t, which payload begins with.
func (d *Decoder) carried(time int64, source packet.Addr, port uint16, payload []byte, t tunnel, tenantBy int) Reason {
	d.Flow.OuterPort, d.Flow.Carriers[0] = port, packet.Carrier{Source: source, VNI: t.vni}
	tenant := d.tenants.of(t.vni)
	d.Flow.Tenant = tenant
	inside := payload[t.header:]
	return d.decode(start{time: time, link: t.link, carriers: 1, limit: d.maxDepth, tenantBy: tenantBy, tenant: tenant}, inside, len(inside))
}

// VNI returns the network identifier of a datagram for Datagram, if it has a header with one.
func VNI(payload []byte) (uint32, bool) {
	t, r := vxlan(payload)
	return t.vni, r == OK
}

// VNIOfGENEVE is VNI for GENEVE.
func VNIOfGENEVE(payload []byte) (uint32, bool) {
	t, r := geneve(payload)
	return t.vni, r == OK
}
