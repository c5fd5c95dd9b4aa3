package source

import (
	"cmp"

	"github.com/tapweave/tapweave/proto/pb"
)

type awsTags []struct{ Key, Value string }

// labels returns the tag Name, and all others as labels.
func (t awsTags) labels() (name string, list []string) {
	for _, e := range t {
		if e.Key == "Name" {
			name = e.Value
		} else {
			list = append(list, e.Key+"="+e.Value)
		}
	}
	return name, list
}

type awsAssociation *struct{ PublicIp string }

type awsInterface struct {
	NetworkInterfaceId, Description, SubnetId, VpcId string
	TagSet                                           awsTags
	Attachment                                       *struct{ InstanceId string }
	PrivateIpAddresses                               []struct {
		PrivateIpAddress string
		Association      awsAssociation
	}
	Ipv6Addresses []struct{ Ipv6Address string }
	Ipv4Prefixes  []struct{ Ipv4Prefix string } // delegated: those of pods and containers
	Ipv6Prefixes  []struct{ Ipv6Prefix string }
}

// aws reads what aws ec2 describe-instances, describe-subnets and describe-network-interfaces print.
func (g *gatherer) aws(d *document) error {
	var m struct {
		Reservations []struct {
			Instances []struct {
				InstanceId        string
				Tags              awsTags
				NetworkInterfaces []awsInterface
			}
		}
		Subnets []struct {
			SubnetId, VpcId, CidrBlock  string
			Tags                        awsTags
			Ipv6CidrBlockAssociationSet []struct{ Ipv6CidrBlock string }
		}
		NetworkInterfaces []awsInterface
	}
	if err := d.decode(&m); err != nil {
		return err
	}
	for _, s := range m.Subnets {
		name, list := s.Tags.labels()
		blocks := []string{s.CidrBlock}
		for _, b := range s.Ipv6CidrBlockAssociationSet {
			blocks = append(blocks, b.Ipv6CidrBlock)
		}
		for _, b := range blocks {
			if b == "" {
				continue // a subnet of IPv6 alone
			}
			p, err := parsePrefix(b)
			if err != nil {
				return d.wrong(b, "subnet %s: %v", s.SubnetId, err)
			}
			g.add(network{prefix: p, subnet: cmp.Or(name, s.SubnetId), vnet: s.VpcId, labels: list, owner: pb.Network_OWN})
		}
	}
	for _, r := range m.Reservations {
		for _, i := range r.Instances {
			name, list := i.Tags.labels()
			for _, n := range i.NetworkInterfaces {
				if err := g.awsInterface(d, &n, cmp.Or(name, i.InstanceId), append(list, "instance_id="+i.InstanceId)); err != nil {
					return err
				}
			}
		}
	}
	for _, n := range m.NetworkInterfaces {
		name, list := n.TagSet.labels()
		if n.Attachment != nil && n.Attachment.InstanceId != "" {
			list = append(list, "instance_id="+n.Attachment.InstanceId)
		}
		if err := g.awsInterface(d, &n, cmp.Or(name, n.Description, n.NetworkInterfaceId), list); err != nil {
			return err
		}
	}
	return nil
}

// awsInterface adds the addresses of an interface. Its subnet has an id here; the name comes with describe-subnets,
// by the prefix.
func (g *gatherer) awsInterface(d *document, n *awsInterface, name string, list []string) error {
	var texts []string
	for _, a := range n.PrivateIpAddresses {
		texts = append(texts, a.PrivateIpAddress)
		if a.Association != nil && a.Association.PublicIp != "" {
			texts = append(texts, a.Association.PublicIp)
		}
	}
	for _, a := range n.Ipv6Addresses {
		texts = append(texts, a.Ipv6Address)
	}
	for _, a := range n.Ipv4Prefixes {
		texts = append(texts, a.Ipv4Prefix)
	}
	for _, a := range n.Ipv6Prefixes {
		texts = append(texts, a.Ipv6Prefix)
	}
	for _, t := range texts {
		p, err := parsePrefix(t)
		if err != nil {
			return d.wrong(t, "network interface %s: %v", n.NetworkInterfaceId, err)
		}
		g.add(network{prefix: p, name: name, vnet: n.VpcId, labels: append(list[:len(list):len(list)], "subnet_id="+n.SubnetId), owner: pb.Network_OWN})
	}
	return nil
}
