package fold

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/tapweave/tapweave/proto/packet"
)

// orderer puts packets of equal time into an order that follows from the packets alone: never from the way
// they arrived or where they stood in a file.
type orderer struct {
	items []ordered
	sides [2][]ordered
	out   []item
}

type ordered struct {
	item
	rank uint8
	rel  int64 // sequence number relative to one of its direction
}

// sort returns the packets in order. The result is valid until the next call.
//
// All are first sorted by a total key of the packet. Then the packets of each TCP conversation are put into a
// causal order: SYN, SYN-ACK, rest; by sequence number within a direction; an acknowledgement behind what it
// acknowledges; RST last.
func (o *orderer) sort(group []item) []item {
	o.items, o.out = o.items[:0], o.out[:0]
	for _, it := range group {
		o.items = append(o.items, ordered{item: it, rank: rank(it)})
	}
	slices.SortFunc(o.items, compareTotal)
	for i := 0; i < len(o.items); {
		j := i + 1
		for j < len(o.items) && sameConversation(&o.items[i], &o.items[j]) {
			j++
		}
		if j-i > 1 && o.items[i].r.flow.Protocol == packet.ProtoTCP && o.items[i].p.Fragment == 0 {
			o.causal(o.items[i:j])
		} else {
			for _, it := range o.items[i:j] {
				o.out = append(o.out, it.item)
			}
		}
		i = j
	}
	clear(o.items)
	clear(o.sides[0][:cap(o.sides[0])])
	clear(o.sides[1][:cap(o.sides[1])])
	return o.out
}

// rank puts fragments first, as they may complete a datagram, and ICMP errors last, as they quote packets.
func rank(it item) uint8 {
	switch {
	case it.p.Fragment != 0:
		return 0
	case it.r.shared:
		return 2
	}
	return 1
}

func sameConversation(a, b *ordered) bool {
	return a.rank == b.rank && a.r.hash == b.r.hash && a.r.key == b.r.key
}

// compareTotal compares by everything that the packets say of themselves, the tap point last.
func compareTotal(a, b ordered) int {
	p, q, r, s := a.p, b.p, a.r, b.r
	if c := cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(r.hash, s.hash), cmp.Compare(r.side, s.side),
		cmp.Compare(p.Seq, q.Seq), cmp.Compare(p.Payload, q.Payload), cmp.Compare(p.Flags, q.Flags),
		cmp.Compare(p.Ack, q.Ack), cmp.Compare(p.ID, q.ID), cmp.Compare(p.FragmentOffset, q.FragmentOffset),
		cmp.Compare(p.Fragment, q.Fragment), cmp.Compare(p.Window, q.Window), cmp.Compare(p.Length, q.Length),
		cmp.Compare(p.Checksum, q.Checksum), cmp.Compare(r.flow.SrcPort, s.flow.SrcPort), cmp.Compare(r.flow.DstPort, s.flow.DstPort),
		cmp.Compare(r.flow.ICMPID, s.flow.ICMPID)); c != 0 {
		return c
	}
	f, g := r.flow, s.flow
	if c := cmp.Or(bytes.Compare(f.Src[:], g.Src[:]), bytes.Compare(f.Dst[:], g.Dst[:]),
		bytes.Compare(p.Head, q.Head), bytes.Compare(p.Data, q.Data)); c != 0 {
		return c
	}
	if c := cmp.Compare(f.NCarriers, g.NCarriers); c != 0 {
		return c
	}
	for i := range f.Carriers[:f.NCarriers] {
		if c := cmp.Or(bytes.Compare(f.Carriers[i].Source[:], g.Carriers[i].Source[:]), cmp.Compare(f.Carriers[i].VNI, g.Carriers[i].VNI)); c != 0 {
			return c
		}
	}
	return cmp.Or(bytes.Compare(f.SrcMAC[:], g.SrcMAC[:]), bytes.Compare(f.DstMAC[:], g.DstMAC[:]),
		cmp.Compare(f.TTL, g.TTL), slices.Compare(f.VLANs[:f.NVLANs], g.VLANs[:g.NVLANs]))
}

// causal appends the packets of one conversation, which come sorted by the total key, to o.out.
//
// Each direction is sorted by sequence number; then the two are merged: the head of one waits while it
// acknowledges the head of the other. Where both wait for each other, the total key decides.
func (o *orderer) causal(items []ordered) {
	o.sides[0], o.sides[1] = o.sides[0][:0], o.sides[1][:0]
	for _, it := range items {
		s := &o.sides[it.r.side]
		if len(*s) > 0 {
			it.rel = int64(int32(it.p.Seq - (*s)[0].p.Seq))
		}
		*s = append(*s, it)
	}
	for i := range o.sides {
		slices.SortStableFunc(o.sides[i], func(a, b ordered) int {
			return cmp.Or(cmp.Compare(phase(a.p), phase(b.p)), cmp.Compare(a.rel, b.rel), cmp.Compare(a.rel+span(a.p), b.rel+span(b.p)))
		})
	}
	a, b := o.sides[0], o.sides[1]
	for len(a) > 0 && len(b) > 0 {
		if first(&a[0], &b[0]) {
			o.out = append(o.out, a[0].item)
			a = a[1:]
		} else {
			o.out = append(o.out, b[0].item)
			b = b[1:]
		}
	}
	for _, it := range append(a, b...) {
		o.out = append(o.out, it.item)
	}
}

// first says whether a, of the low end, goes before b, of the high end.
func first(a, b *ordered) bool {
	if c := cmp.Compare(phase(a.p), phase(b.p)); c != 0 {
		return c < 0
	}
	waitsA, waitsB := acknowledges(a.p, b.p), acknowledges(b.p, a.p)
	if waitsA != waitsB {
		return waitsB
	}
	return compareTotal(*a, *b) <= 0
}

// phase is 0 for a SYN, 1 for a SYN-ACK, 3 for a RST, 2 for all others.
func phase(p *packet.Packet) int {
	switch {
	case p.Flags&packet.RST != 0:
		return 3
	case p.Flags&(packet.SYN|packet.ACK) == packet.SYN:
		return 0
	case p.Flags&packet.SYN != 0:
		return 1
	}
	return 2
}

// span is how many sequence numbers a TCP packet occupies.
func span(p *packet.Packet) int64 {
	n := int64(p.Payload)
	if p.Flags&packet.SYN != 0 {
		n++
	}
	if p.Flags&packet.FIN != 0 {
		n++
	}
	return n
}

// acknowledges says whether p acknowledges all that q occupies, so that it was sent behind q.
func acknowledges(p, q *packet.Packet) bool {
	n := span(q)
	return n > 0 && p.Flags&packet.ACK != 0 && int32(p.Ack-q.Seq-uint32(n)) >= 0
}
