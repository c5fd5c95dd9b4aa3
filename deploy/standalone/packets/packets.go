// Package packets takes the sampled packets of sessions out of ClickHouse and writes them as a capture that Wireshark's
// tools read: frames rebuilt from what is kept of their headers, in the order of their capture, each with its session
// as a comment.
package packets

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"github.com/tapweave/tapweave/deploy/standalone/query"
)

// ErrNone says that there was nothing to write.
var ErrNone = errors.New("no packets of such sessions are stored: rows of packets are kept for a short time, and only where the enricher's fold.packets is set")

// Write writes the packets of all sessions for which a condition in SQL over the columns of sessions holds, and returns how
// many there are.
func Write(ctx context.Context, d query.Database, where string, out io.Writer) (n int, err error) {
	ctx, done := d.Watch(ctx, nil)
	defer done()
	rows, err := d.Server.Query(ctx, statement(where))
	if err != nil {
		return 0, d.Server.Explain(err)
	}
	defer rows.Close()
	w, err := newWriter(out, where)
	if err != nil {
		return 0, err
	}
	last := time.Now()
	for rows.Next() {
		var p packet
		var at time.Time
		var side, srcIP, dstIP, srcMAC, dstMAC, comment string
		var vlans []uint16
		if err := rows.Scan(&at, &side, &p.Length, &p.PayloadLength, &p.IPID, &p.TTL, &p.FragmentOffset, &p.MoreFragments,
			&p.Seq, &p.Ack, &p.Flags, &p.Window, &p.Checksum, &p.Data,
			&srcIP, &p.SrcPort, &dstIP, &p.DstPort, &p.Protocol, &srcMAC, &dstMAC, &vlans, &comment); err != nil {
			return n, d.Server.Explain(err)
		}
		p.Time = at.UnixNano()
		if p.Src, err = netip.ParseAddr(srcIP); err != nil {
			return n, fmt.Errorf("a session's src_ip: %w", err)
		}
		if p.Dst, err = netip.ParseAddr(dstIP); err != nil {
			return n, fmt.Errorf("a session's dst_ip: %w", err)
		}
		p.SrcMAC, _ = net.ParseMAC(srcMAC) // unknown: zeros
		p.DstMAC, _ = net.ParseMAC(dstMAC)
		if len(vlans) == 1 {
			p.VLAN = vlans[0] // of several it is not known which came first
		}
		p.turn(side == "dst")
		if err := w.write(&p, comment); err != nil {
			return n, err
		}
		n++
		if d.Progress != nil && time.Since(last) > time.Second {
			d.Progress(fmt.Sprintf("%d packets written", n))
			last = time.Now()
		}
	}
	if err := rows.Err(); err != nil {
		return n, d.Server.Explain(err)
	}
	if n == 0 {
		return 0, ErrNone
	}
	return n, nil
}

// turn makes the session's ends those of the packet; of ICMP the ports are types and code.
func (p *packet) turn(back bool) {
	if p.Protocol == protoICMP || p.Protocol == protoICMPv6 {
		p.ICMPType = uint8(p.SrcPort)
		if request, _ := echo(p.Protocol == protoICMPv6); uint8(p.SrcPort) != request {
			p.ICMPCode = uint8(p.DstPort)
		} else if back {
			p.ICMPType = uint8(p.DstPort)
		}
	}
	if back {
		p.Src, p.Dst, p.SrcPort, p.DstPort, p.SrcMAC, p.DstMAC = p.Dst, p.Src, p.DstPort, p.SrcPort, p.DstMAC, p.SrcMAC
	}
}

// echo is the types of a request and its reply.
func echo(v6 bool) (request, reply uint8) {
	if v6 {
		return 128, 129
	}
	return 8, 0
}

// statement asks for the packets with what is said of them. The sessions are asked for twice, so that only their packets
// are read: packets are sorted by session_id.
func statement(where string) string {
	const end = "concat(if(%[1]s_name != '', concat(' ', %[1]s_name), ''), if(%[1]s_subnet != '', concat(' ', %[1]s_vnet, '/', %[1]s_subnet), ''), " +
		"if(empty(%[1]s_labels), '', concat(' ', arrayStringConcat(%[1]s_labels, ' '))), if(%[1]s_threat != '', concat(' threat=', %[1]s_threat), ''))"
	comment := "concat('session_id=', session_id, if(app != '', concat(' app=', app), ''), ' src:'," + fmt.Sprintf(end, "src") + ", ' dst:', " + fmt.Sprintf(end, "dst") + ")"
	return `SELECT p.time, toString(p.side), p.length, p.payload_length, p.ip_id, p.ttl, p.fragment_offset, p.more_fragments,
    p.tcp_seq, p.tcp_ack, p.tcp_flags, p.tcp_window, p.checksum, p.data,
    s.src_ip, s.src_port, s.dst_ip, s.dst_port, s.ip_protocol, toString(s.src_mac), toString(s.dst_mac), s.vlans, s.comment
FROM packets AS p
INNER JOIN
(
    SELECT session_id AS id, src_ip, src_port, dst_ip, dst_port, ip_protocol, src_mac, dst_mac, vlans, ` + comment + ` AS comment
    FROM sessions WHERE (` + where + `
    )
) AS s ON p.session_id = s.id
WHERE p.session_id IN (SELECT session_id FROM sessions WHERE (` + where + `
))
ORDER BY p.time, p.session_id, p.tcp_seq, p.ip_id`
}

// writer writes pcapng. Section and interface are pcapgo's; it cannot write options of packets, so the blocks of packets
// are written here.
type writer struct {
	out    io.Writer
	block  []byte
	packet []byte
}

func newWriter(out io.Writer, where string) (*writer, error) {
	options := pcapgo.DefaultNgWriterOptions
	options.SectionInfo.Application = "tapweave"
	options.SectionInfo.Comment = "sessions where " + where
	w, err := pcapgo.NewNgWriterInterface(out, pcapgo.NgInterface{
		Name: "tapweave", Description: "packets rebuilt from what was sampled of them",
		LinkType: layers.LinkTypeEthernet, TimestampResolution: 9,
	}, options)
	if err != nil {
		return nil, err
	}
	return &writer{out: out}, w.Flush()
}

// write writes an enhanced packet block of interface 0 with a comment.
// Source: draft-ietf-opsawg-pcapng, section 4.3.
func (w *writer) write(p *packet, comment string) error {
	const enhancedPacket, fixed, optComment = 6, 32, 1
	var length int
	w.packet, length = p.frame(w.packet[:0])
	comment = strings.TrimSpace(comment)
	if len(comment) > 4096 {
		comment = strings.ToValidUTF8(comment[:4096], "")
	}
	total := fixed + padded(len(w.packet)) + 4 + padded(len(comment)) + 4
	le := binary.LittleEndian
	b := le.AppendUint32(w.block[:0], enhancedPacket)
	b = le.AppendUint32(b, uint32(total))
	b = le.AppendUint32(b, 0)
	b = le.AppendUint32(b, uint32(uint64(p.Time)>>32))
	b = le.AppendUint32(b, uint32(p.Time))
	b = le.AppendUint32(b, uint32(len(w.packet)))
	b = le.AppendUint32(b, uint32(length))
	b = append(b, w.packet...)
	b = append(b, make([]byte, padded(len(w.packet))-len(w.packet))...)
	b = le.AppendUint16(b, optComment)
	b = le.AppendUint16(b, uint16(len(comment)))
	b = append(b, comment...)
	b = append(b, make([]byte, padded(len(comment))-len(comment))...)
	b = le.AppendUint32(b, 0) // end of options
	b = le.AppendUint32(b, uint32(total))
	w.block = b
	_, err := w.out.Write(b)
	return err
}

func padded(n int) int { return (n + 3) &^ 3 }
