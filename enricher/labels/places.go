package labels

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"sort"

	"github.com/tapweave/tapweave/proto/pb"
)

// Place is where a public address is used, and by whom it is announced.
type Place struct {
	Country string // ISO 3166-1
	ASN     uint32 // 0: unknown
	ASOrg   string
}

// places finds the range that an address is in. A range goes up to the next.
type places struct {
	v4            []uint32
	v6High, v6Low []uint64
	at4, at6      []uint32 // in list, from 1; 0: nothing is known
	list          []Place
}

func newPlaces(m *pb.Places) (*places, error) {
	p := &places{v4: m.V4, v6High: m.V6High, v6Low: m.V6Low, at4: m.V4Place, at6: m.V6Place}
	if len(p.v4) != len(p.at4) || len(p.v6High) != len(p.at6) || len(p.v6Low) != len(p.at6) {
		return nil, errors.New("ranges without an end")
	}
	for _, e := range m.Places {
		p.list = append(p.list, Place{e.Country, e.Asn, e.AsOrg})
	}
	for i := 1; i < len(p.v4); i++ {
		if p.v4[i] <= p.v4[i-1] {
			return nil, errors.New("ranges out of order")
		}
	}
	for i := 1; i < len(p.v6High); i++ {
		if p.v6High[i] < p.v6High[i-1] || p.v6High[i] == p.v6High[i-1] && p.v6Low[i] <= p.v6Low[i-1] {
			return nil, errors.New("ranges out of order")
		}
	}
	for _, at := range [][]uint32{p.at4, p.at6} {
		if len(at) > 0 && int(slices.Max(at)) > len(p.list) {
			return nil, errors.New("range of no place")
		}
	}
	return p, nil
}

func (p *places) find(a netip.Addr) *Place {
	var place uint32
	if a.Is4() {
		b := a.As4()
		v := binary.BigEndian.Uint32(b[:])
		if i := sort.Search(len(p.v4), func(i int) bool { return p.v4[i] > v }); i > 0 {
			place = p.at4[i-1]
		}
	} else {
		b := a.As16()
		high, low := binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])
		if i := sort.Search(len(p.v6High), func(i int) bool {
			return p.v6High[i] > high || p.v6High[i] == high && p.v6Low[i] > low
		}); i > 0 {
			place = p.at6[i-1]
		}
	}
	if place == 0 {
		return nil
	}
	return &p.list[place-1]
}
