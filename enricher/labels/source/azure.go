package source

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/tapweave/tapweave/proto/pb"
)

// azure is what the lists of az say, which refer to each other by the ids of resources.
type azure struct {
	interfaces []azureInterface
	machines   map[string]azureMachine // by id in lower case
	publics    []azurePublic
}

type azureInterface struct {
	network
	id, machine string // ids
	publics     []string
}

type azureMachine struct {
	name   string
	labels []string
}

type azurePublic struct {
	network
	id         string
	attachedTo string // id of an IP configuration
}

type reference struct {
	ID string `json:"id"`
}

// azureResource is the union of what is used of network interfaces, virtual networks, machines and public addresses.
type azureResource struct {
	ID   string            `json:"id"`
	Name string            `json:"name"`
	Tags map[string]string `json:"tags"`

	// az network nic list
	IPConfigurations *[]struct {
		PrivateIPAddress string     `json:"privateIPAddress"` // older versions of az write privateIpAddress
		Subnet           *reference `json:"subnet"`
		PublicIPAddress  *reference `json:"publicIPAddress"`
	} `json:"ipConfigurations"`
	VirtualMachine *reference `json:"virtualMachine"`

	// az network vnet list
	AddressSpace *struct {
		AddressPrefixes []string `json:"addressPrefixes"`
	} `json:"addressSpace"`
	Subnets []struct {
		Name            string   `json:"name"`
		AddressPrefix   string   `json:"addressPrefix"`
		AddressPrefixes []string `json:"addressPrefixes"`
	} `json:"subnets"`

	// az vm list; the addresses only with --show-details
	HardwareProfile *struct{} `json:"hardwareProfile"`
	PrivateIPs      string    `json:"privateIps"`
	PublicIPs       string    `json:"publicIps"`

	// az network public-ip list
	PublicIPAllocationMethod string     `json:"publicIPAllocationMethod"`
	IPAddress                string     `json:"ipAddress"`
	IPConfiguration          *reference `json:"ipConfiguration"`
	DNSSettings              *struct {
		FQDN string `json:"fqdn"`
	} `json:"dnsSettings"`
}

// part returns the name behind a kind of resources in an id: /…/virtualNetworks/NAME/subnets/NAME.
func part(id, kind string) string {
	p := strings.Split(id, "/")
	for i := 0; i+1 < len(p); i++ {
		if strings.EqualFold(p[i], kind) {
			return p[i+1]
		}
	}
	return ""
}

func (g *gatherer) az(d *document) error {
	var list []azureResource
	if err := d.decode(&list); err != nil {
		return err
	}
	for i := range list {
		r := &list[i]
		var err error
		switch {
		case r.IPConfigurations != nil && r.HardwareProfile == nil:
			err = g.azInterface(d, r)
		case r.AddressSpace != nil:
			err = g.azNetwork(d, r)
		case r.HardwareProfile != nil:
			err = g.azMachine(d, r)
		case r.IPAddress != "" || r.PublicIPAllocationMethod != "":
			err = g.azPublic(d, r)
		default:
			err = d.wrong(cmp.Or(r.ID, r.Name), "resource %q is no network interface, virtual network, machine or public address", cmp.Or(r.Name, r.ID))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (g *gatherer) azNetwork(d *document, r *azureResource) error {
	add := func(text, subnet string) error {
		p, err := parsePrefix(text)
		if err != nil {
			return d.wrong(text, "virtual network %s: %v", r.Name, err)
		}
		g.add(network{prefix: p, subnet: subnet, vnet: r.Name, labels: tags(r.Tags), owner: pb.Network_OWN})
		return nil
	}
	for _, p := range r.AddressSpace.AddressPrefixes {
		if err := add(p, ""); err != nil {
			return err
		}
	}
	for _, s := range r.Subnets {
		list := s.AddressPrefixes
		if len(list) == 0 {
			list = []string{s.AddressPrefix}
		}
		for _, p := range list {
			if err := add(p, s.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *gatherer) azInterface(d *document, r *azureResource) error {
	for _, c := range *r.IPConfigurations {
		n := azureInterface{id: strings.ToLower(r.ID)}
		n.name, n.labels, n.owner = r.Name, tags(r.Tags), pb.Network_OWN
		n.file, n.tenant = g.at, g.files[g.at].given
		if r.VirtualMachine != nil {
			n.machine = strings.ToLower(r.VirtualMachine.ID)
			n.name = cmp.Or(part(r.VirtualMachine.ID, "virtualMachines"), n.name)
		}
		if c.Subnet != nil {
			n.subnet, n.vnet = part(c.Subnet.ID, "subnets"), part(c.Subnet.ID, "virtualNetworks")
		}
		if c.PublicIPAddress != nil {
			n.publics = append(n.publics, strings.ToLower(c.PublicIPAddress.ID))
		}
		if c.PrivateIPAddress == "" {
			continue // not given yet
		}
		var err error
		if n.prefix, err = parsePrefix(c.PrivateIPAddress); err != nil {
			return d.wrong(c.PrivateIPAddress, "network interface %s: %v", r.Name, err)
		}
		g.azure.interfaces = append(g.azure.interfaces, n)
	}
	return nil
}

func (g *gatherer) azMachine(d *document, r *azureResource) error {
	if g.azure.machines == nil {
		g.azure.machines = map[string]azureMachine{}
	}
	g.azure.machines[strings.ToLower(r.ID)] = azureMachine{r.Name, tags(r.Tags)}
	for a := range strings.SplitSeq(r.PrivateIPs+","+r.PublicIPs, ",") {
		if a = strings.TrimSpace(a); a == "" {
			continue
		}
		p, err := parsePrefix(a)
		if err != nil {
			return d.wrong(r.Name, "machine %s: %v", r.Name, err)
		}
		g.add(network{prefix: p, name: r.Name, labels: tags(r.Tags), owner: pb.Network_OWN})
	}
	return nil
}

func (g *gatherer) azPublic(d *document, r *azureResource) error {
	if r.IPAddress == "" {
		return nil // not given yet
	}
	n := azurePublic{id: strings.ToLower(r.ID)}
	var err error
	if n.prefix, err = parsePrefix(r.IPAddress); err != nil {
		return d.wrong(r.IPAddress, "public address %s: %v", r.Name, err)
	}
	n.name, n.labels, n.owner = r.Name, tags(r.Tags), pb.Network_OWN
	n.file, n.tenant = g.at, g.files[g.at].given
	if r.DNSSettings != nil && r.DNSSettings.FQDN != "" {
		n.labels = append(n.labels, "fqdn="+r.DNSSettings.FQDN)
	}
	if r.IPConfiguration != nil {
		n.attachedTo = strings.ToLower(r.IPConfiguration.ID)
	}
	g.azure.publics = append(g.azure.publics, n)
	return nil
}

// finish gives interfaces the tags of their machines, and public addresses what their interfaces have.
func (a *azure) finish(g *gatherer) {
	of := map[string]*azureInterface{} // by their own ids, and those of their public addresses
	for i := range a.interfaces {
		n := &a.interfaces[i]
		if m, ok := a.machines[n.machine]; ok {
			n.name, n.labels = m.name, append(n.labels, m.labels...)
		}
		of[n.id] = n
		for _, p := range n.publics {
			of[p] = n
		}
		n.where = g.files[n.file].path
		g.all = append(g.all, n.network)
	}
	for _, p := range a.publics {
		n := of[p.id]
		if n == nil {
			id, _, _ := strings.Cut(p.attachedTo, "/ipconfigurations/")
			n = of[id]
		}
		if n != nil {
			p.labels = append(p.labels, "public_ip="+p.name)
			p.name, p.subnet, p.vnet = n.name, n.subnet, n.vnet
		}
		p.where = g.files[p.file].path
		g.all = append(g.all, p.network)
	}
}

// serviceTags reads Azure's service tags, as Microsoft publishes them for download and `az network
// list-service-tags` prints them.
func (g *gatherer) serviceTags(d *document) error {
	var m struct {
		Values []struct {
			Name       string `json:"name"`
			Properties *struct {
				AddressPrefixes []string `json:"addressPrefixes"`
			} `json:"properties"`
		} `json:"values"`
	}
	if err := d.decode(&m); err != nil {
		return err
	}
	// Thousands of prefixes stand under several tags: the whole cloud, the region, the service.
	of := map[string][]string{}
	for _, v := range m.Values {
		if v.Properties == nil {
			return d.wrong(v.Name, "service tag %q has no properties", v.Name)
		}
		for _, p := range v.Properties.AddressPrefixes {
			of[p] = append(of[p], "service_tag="+v.Name)
		}
	}
	for _, text := range slices.Sorted(maps.Keys(of)) {
		p, err := parsePrefix(text)
		if err != nil {
			return d.wrong(text, "%v", err)
		}
		g.add(network{prefix: p, labels: of[text], owner: pb.Network_MICROSOFT})
	}
	return nil
}
