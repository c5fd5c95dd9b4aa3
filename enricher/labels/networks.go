package labels

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/gaissmai/bart"

	"github.com/tapweave/tapweave/proto/pb"
)

// Network is what is known of an address by the prefixes that it is in.
type Network struct {
	Name, Subnet, VNet string
	Labels             []string // key=value, sorted
	Owner              pb.Network_Owner
}

// networks finds the longest prefix. An address of a tenant is looked up among the tenant's and those of all
// tenants; of the same prefix the tenant's counts.
type networks struct {
	all     bart.Table[*Network]
	tenants map[string]*bart.Table[*Network]
	len     int
}

func newNetworks(m *pb.Networks) (*networks, error) {
	n := &networks{tenants: map[string]*bart.Table[*Network]{}, len: len(m.Networks)}
	for _, e := range m.Networks {
		a, ok := netip.AddrFromSlice(e.Address)
		if !ok || int(e.Bits) > a.BitLen() {
			return nil, fmt.Errorf("prefix of %d bytes and %d bits", len(e.Address), e.Bits)
		}
		p := netip.PrefixFrom(a, int(e.Bits))
		if p != p.Masked() || a.Is4In6() {
			return nil, errors.New("prefix with bits behind its length")
		}
		t := &n.all
		if e.Tenant != "" {
			if t = n.tenants[e.Tenant]; t == nil {
				t = n.all.Clone() // those of all tenants come first
				n.tenants[e.Tenant] = t
			}
		} else if len(n.tenants) > 0 {
			return nil, errors.New("networks out of order")
		}
		t.Insert(p, &Network{Name: e.Name, Subnet: e.Subnet, VNet: e.Vnet, Labels: e.Labels, Owner: e.Owner})
	}
	return n, nil
}

func (n *networks) find(tenant string, a netip.Addr) *Network {
	t := n.tenants[tenant]
	if t == nil {
		t = &n.all
	}
	e, _ := t.Lookup(a)
	return e
}
