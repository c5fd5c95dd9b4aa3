package replay

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/tapweave/tapweave/collector/decode"
	"github.com/tapweave/tapweave/collector/source/capture"
	"github.com/tapweave/tapweave/proto/packet"
)

// Reasons for which a frame cannot be sent.
var (
	errTooLong = errors.New("longer than a UDP datagram")
	errLink    = errors.New("link type not known")
)

const (
	// vni is the network identifier of frames that have none: Azure's.
	vni            = 27
	vxlanHeader    = 8
	ethernetHeader = 14
	// maxDatagram is the longest payload of UDP over IPv4.
	maxDatagram = 65535 - 20 - 8
)

// datagram is what a TAP sends of one packet.
type datagram struct {
	buffer  gopacket.SerializeBuffer
	payload []byte      // VXLAN header and frame, in the buffer
	source  packet.Addr // outer source address, zero if there is none
	port    uint16      // outer source port
}

// framer turns records of captures into datagrams.
type framer struct {
	decoder *decode.Decoder // tells carriers from packets, as the collectors do
	outer   *gopacket.DecodingLayerParser
	found   []gopacket.LayerType
	tunnel  tunnel
}

// tunnel is the outermost VXLAN header of a frame, behind which nothing is parsed.
type tunnel struct{ layers.VXLAN }

func (*tunnel) NextLayerType() gopacket.LayerType { return gopacket.LayerTypePayload }

func newFramer() *framer {
	f := &framer{decoder: decode.New(decode.DefaultConfiguration())}
	f.outer = gopacket.NewDecodingLayerParser(layers.LayerTypeEthernet,
		&layers.Ethernet{}, &layers.Dot1Q{}, &layers.IPv4{}, &layers.IPv6{}, &layers.UDP{}, &f.tunnel)
	f.outer.IgnoreUnsupported = true
	return f
}

// frame makes the datagram of a record.
func (f *framer) frame(rec *capture.Record, d *datagram) error {
	ethernet, skip, ok := ethernetFor(rec.Link, rec.Data)
	if !ok {
		return fmt.Errorf("%w: %d", errLink, rec.Link)
	}
	reason := f.decoder.Frame(rec.Time, rec.Link, rec.Data, rec.Original)
	flow := &f.decoder.Flow
	if flow.NCarriers > 0 {
		frame := rec.Data
		if ethernet != nil {
			if err := serialize(d, ethernet, gopacket.Payload(rec.Data[skip:])); err != nil {
				return err
			}
			frame = bytes.Clone(d.payload)
		}
		if inside := f.inside(frame); inside != nil {
			d.source, d.port = flow.Carriers[0].Source, flow.OuterPort
			return serialize(d, gopacket.Payload(inside))
		}
	}
	d.source, d.port = packet.Addr{}, firstPort
	if reason == decode.OK {
		d.port += uint16(hash(flow) % (1<<16 - firstPort))
	}
	tunnel := &layers.VXLAN{ValidIDFlag: true, VNI: vni}
	if ethernet != nil {
		return serialize(d, tunnel, ethernet, gopacket.Payload(rec.Data[skip:]))
	}
	return serialize(d, tunnel, gopacket.Payload(rec.Data))
}

// serialize makes the payload of a datagram out of layers, the last of which is a gopacket.Payload.
func serialize(d *datagram, all ...gopacket.SerializableLayer) error {
	length := len(all[len(all)-1].(gopacket.Payload))
	for _, l := range all {
		switch l.(type) {
		case *layers.VXLAN:
			length += vxlanHeader
		case *layers.Ethernet:
			length += ethernetHeader
		}
	}
	if length > maxDatagram {
		return fmt.Errorf("%w: %d bytes", errTooLong, length)
	}
	if err := gopacket.SerializeLayers(d.buffer, gopacket.SerializeOptions{}, all...); err != nil {
		return err
	}
	// Without the padding to Ethernet's least length, which nobody captured.
	d.payload = d.buffer.Bytes()[:length]
	return nil
}

// inside returns what the outermost VXLAN datagram in an Ethernet frame carries, its VXLAN header included, or nil.
func (f *framer) inside(frame []byte) []byte {
	// An error means that what was found before it is all that can be.
	f.outer.DecodeLayers(frame, &f.found)
	if n := len(f.found); n == 0 || f.found[n-1] != layers.LayerTypeVXLAN {
		return nil
	}
	header := len(f.tunnel.Contents)
	return f.tunnel.Contents[: header+len(f.tunnel.Payload) : header+len(f.tunnel.Payload)]
}

// hash is that of a flow in its direction, by which a TAP chooses the outer source port.
func hash(f *packet.Flow) uint64 {
	h := fnv.New64a()
	h.Write(f.Src[:])
	h.Write(f.Dst[:])
	var rest [5]byte
	rest[0] = f.Protocol
	if f.Protocol != packet.ProtoICMP && f.Protocol != packet.ProtoICMPv6 { // there the ports are type and code
		binary.BigEndian.PutUint16(rest[1:], f.SrcPort)
		binary.BigEndian.PutUint16(rest[3:], f.DstPort)
	}
	h.Write(rest[:])
	return mix(h.Sum64())
}

// mix lets every bit of h weigh on the low ones, which FNV does not.
func mix(h uint64) uint64 {
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	return h ^ h>>32
}

// ethernetFor returns the Ethernet header that stands for the link header of another link type, and the length of
// the latter; nil for Ethernet itself. A link header that was cut is taken for none.
func ethernetFor(link decode.LinkType, b []byte) (header *layers.Ethernet, skip int, known bool) {
	var source, none [6]byte
	var kind uint16 // EtherType
	ip := func(b []byte) uint16 {
		switch {
		case len(b) > 0 && b[0]>>4 == 4:
			return uint16(layers.EthernetTypeIPv4)
		case len(b) > 0 && b[0]>>4 == 6:
			return uint16(layers.EthernetTypeIPv6)
		}
		return 0
	}
	switch link {
	case decode.LinkEthernet:
		return nil, 0, true
	case decode.LinkRaw, decode.LinkRawBSD, decode.LinkRawOpenBSD:
		kind = ip(b)
	case decode.LinkIPv4:
		kind = uint16(layers.EthernetTypeIPv4)
	case decode.LinkIPv6:
		kind = uint16(layers.EthernetTypeIPv6)
	case decode.LinkNull, decode.LinkLoop: // address family, 4 bytes
		if len(b) >= 4 {
			kind, skip = ip(b[4:]), 4
		}
	case decode.LinkLinuxCooked:
		if len(b) >= 16 {
			kind, skip = binary.BigEndian.Uint16(b[14:]), 16
			if binary.BigEndian.Uint16(b[4:]) == 6 {
				source = [6]byte(b[6:])
			}
		}
	case decode.LinkLinuxSLL2:
		if len(b) >= 20 {
			kind, skip = binary.BigEndian.Uint16(b), 20
			if b[11] == 6 {
				source = [6]byte(b[12:])
			}
		}
	default:
		return nil, 0, false
	}
	return &layers.Ethernet{SrcMAC: source[:], DstMAC: none[:], EthernetType: layers.EthernetType(kind)}, skip, true
}
