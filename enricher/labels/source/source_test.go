package source

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/tapweave/tapweave/enricher/labels"
	"github.com/tapweave/tapweave/proto/packet"
)

func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func compile(t testing.TB, c Config) *labels.Set {
	t.Helper()
	set, _, err := NewCompiler(c).Compile()
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func end(set *labels.Set, tenant, address string, at time.Time) *labels.End {
	e, _ := set.End(tenant, packet.Addr(netip.MustParseAddr(address).As16()), at.UnixNano())
	return e
}

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// what is one line of what a set knows of an address.
func what(set *labels.Set, tenant, address string) string {
	n := end(set, tenant, address, now).Network
	s := fmt.Sprintf("%s|%s|%s|%s|%v", n.Name, n.Subnet, n.VNet, strings.Join(n.Labels, " "), n.Owner)
	return strings.TrimSuffix(s, "|UNKNOWN")
}

// The samples are written after the documented output of the tools, with the keys that they always have.
const (
	nics = `[{
  "etag": "W/\"1\"", "id": "/subscriptions/0000/resourceGroups/rg/providers/Microsoft.Network/networkInterfaces/vm-web-1-nic",
  "ipConfigurations": [{
    "name": "ipconfig1", "primary": true, "privateIPAddress": "10.1.2.4", "privateIPAddressVersion": "IPv4", "privateIPAllocationMethod": "Dynamic",
    "publicIPAddress": {"id": "/subscriptions/0000/resourceGroups/rg/providers/Microsoft.Network/publicIPAddresses/vm-web-1-ip", "resourceGroup": "rg"},
    "subnet": {"id": "/subscriptions/0000/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/spoke-1/subnets/web", "resourceGroup": "rg"}
  }],
  "location": "westeurope", "macAddress": "00-0D-3A-12-34-56", "name": "vm-web-1-nic", "tags": {"owner": "web-team"}, "type": "Microsoft.Network/networkInterfaces",
  "virtualMachine": {"id": "/subscriptions/0000/resourceGroups/RG/providers/Microsoft.Compute/virtualMachines/vm-web-1", "resourceGroup": "RG"}
}, {
  "id": "/subscriptions/0000/resourceGroups/rg/providers/Microsoft.Network/networkInterfaces/pe-nic", "name": "pe-nic", "tags": null, "virtualMachine": null,
  "ipConfigurations": [{"privateIPAddress": "10.1.3.9", "publicIPAddress": null, "subnet": {"id": "/subscriptions/0000/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/spoke-1/subnets/db"}}]
}]`
	vnets = `[{
  "addressSpace": {"addressPrefixes": ["10.1.0.0/16", "fd00:1::/48"]}, "id": "/subscriptions/0000/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/spoke-1",
  "name": "spoke-1", "tags": {"env": "prod"}, "type": "Microsoft.Network/virtualNetworks",
  "subnets": [{"addressPrefix": "10.1.2.0/24", "name": "web"}, {"addressPrefixes": ["10.1.3.0/24", "fd00:1:0:3::/64"], "name": "db"}]
}]`
	vms = `[{
  "hardwareProfile": {"vmSize": "Standard_B1s"}, "id": "/subscriptions/0000/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm-web-1", "name": "vm-web-1",
  "networkProfile": {"networkInterfaces": [{"id": "/subscriptions/0000/resourceGroups/rg/providers/Microsoft.Network/networkInterfaces/vm-web-1-nic"}]},
  "tags": {"role": "web"}, "type": "Microsoft.Compute/virtualMachines"
}]`
	publicIPs = `[{
  "id": "/subscriptions/0000/resourceGroups/rg/providers/Microsoft.Network/publicIPAddresses/vm-web-1-ip", "ipAddress": "20.1.1.1",
  "ipConfiguration": {"id": "/subscriptions/0000/resourceGroups/rg/providers/Microsoft.Network/networkInterfaces/vm-web-1-nic/ipConfigurations/ipconfig1"},
  "dnsSettings": {"domainNameLabel": "web", "fqdn": "web.westeurope.cloudapp.azure.com"},
  "name": "vm-web-1-ip", "publicIPAllocationMethod": "Static", "tags": {}
}, {
  "id": "/subscriptions/0000/resourceGroups/rg/providers/Microsoft.Network/publicIPAddresses/lb-ip", "ipAddress": "20.1.1.2", "name": "lb-ip", "publicIPAllocationMethod": "Static", "tags": null, "ipConfiguration": null
}, {"id": "/x/unused", "name": "unused", "publicIPAllocationMethod": "Dynamic", "ipAddress": null}]`
	serviceTags = `{"changeNumber": 300, "cloud": "Public", "values": [
  {"name": "AzureCloud", "id": "AzureCloud", "properties": {"changeNumber": 1, "region": "", "platform": "Azure", "systemService": "", "addressPrefixes": ["20.0.0.0/8", "2603:1000::/25"]}},
  {"name": "Storage.WestEurope", "id": "Storage.WestEurope", "properties": {"changeNumber": 1, "region": "westeurope", "platform": "Azure", "systemService": "AzureStorage", "addressPrefixes": ["20.60.0.0/16"]}},
  {"name": "Storage", "id": "Storage", "properties": {"changeNumber": 1, "region": "", "platform": "Azure", "systemService": "AzureStorage", "addressPrefixes": ["20.60.0.0/16"]}}
]}`
	instances = `{"Reservations": [{"ReservationId": "r-1", "Instances": [{
  "InstanceId": "i-0abc", "State": {"Code": 16, "Name": "running"}, "Tags": [{"Key": "Name", "Value": "app-1"}, {"Key": "env", "Value": "prod"}],
  "PrivateIpAddress": "172.31.5.10", "SubnetId": "subnet-1", "VpcId": "vpc-1",
  "NetworkInterfaces": [{
    "NetworkInterfaceId": "eni-1", "SubnetId": "subnet-1", "VpcId": "vpc-1", "Description": "",
    "PrivateIpAddresses": [{"Primary": true, "PrivateIpAddress": "172.31.5.10", "Association": {"PublicIp": "3.120.1.1", "IpOwnerId": "amazon"}}, {"Primary": false, "PrivateIpAddress": "172.31.5.11"}],
    "Ipv6Addresses": [{"Ipv6Address": "2a05:d014::10"}], "Ipv4Prefixes": [{"Ipv4Prefix": "172.31.7.16/28"}], "Ipv6Prefixes": [{"Ipv6Prefix": "2a05:d014:0:1::/80"}]
  }]}]}]}`
	subnets = `{"Subnets": [{"SubnetId": "subnet-1", "VpcId": "vpc-1", "CidrBlock": "172.31.0.0/20", "Ipv6CidrBlockAssociationSet": [], "Tags": [{"Key": "Name", "Value": "private-a"}, {"Key": "tier", "Value": "app"}]}]}`
	enis    = `{"NetworkInterfaces": [{"NetworkInterfaceId": "eni-2", "SubnetId": "subnet-1", "VpcId": "vpc-1", "Description": "ELB app/front", "TagSet": [],
  "Attachment": {"AttachmentId": "ela-attach-1"}, "PrivateIpAddresses": [{"Primary": true, "PrivateIpAddress": "172.31.6.6"}], "Ipv6Addresses": []}]}`
	kubectl = `{"apiVersion": "v1", "kind": "List", "items": [
  {"kind": "Pod", "metadata": {"name": "web-5d9f", "namespace": "shop", "labels": {"app": "web"}}, "spec": {"nodeName": "node-1"}, "status": {"phase": "Running", "podIP": "10.244.1.7", "podIPs": [{"ip": "10.244.1.7"}, {"ip": "fd00:10::7"}]}},
  {"kind": "Pod", "metadata": {"name": "job-1", "namespace": "shop"}, "spec": {"nodeName": "node-1"}, "status": {"phase": "Succeeded", "podIPs": [{"ip": "10.244.1.7"}]}},
  {"kind": "Pod", "metadata": {"name": "kube-proxy-x", "namespace": "kube-system"}, "spec": {"nodeName": "node-1", "hostNetwork": true}, "status": {"phase": "Running", "podIPs": [{"ip": "10.1.2.10"}]}},
  {"kind": "Service", "metadata": {"name": "web", "namespace": "shop"}, "spec": {"clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20"], "type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [{"ip": "20.1.1.9"}, {"ip": "10.1.2.10"}]}}},
  {"kind": "Service", "metadata": {"name": "web-udp", "namespace": "shop"}, "spec": {"clusterIPs": ["10.96.0.21"], "type": "LoadBalancer", "externalIPs": ["20.1.1.9"]}, "status": {"loadBalancer": {}}},
  {"kind": "Service", "metadata": {"name": "headless", "namespace": "shop"}, "spec": {"clusterIP": "None", "clusterIPs": ["None"]}, "status": {"loadBalancer": {}}},
  {"kind": "Node", "metadata": {"name": "node-1", "labels": {"zone": "1"}}, "spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]}, "status": {"addresses": [{"type": "InternalIP", "address": "10.1.2.10"}, {"type": "Hostname", "address": "node-1"}]}}
]}`
)

func TestNetworks(t *testing.T) {
	own := write(t, "own.yaml", `
networks:
  - prefix: 192.168.0.0/16
    vnet: lab
    labels: {env: test, owner: us}
  - prefix: 192.168.7.0/24
    subnet: racks
    labels: [env=rack]
  - prefix: 192.168.0.0/16
    vnet: other
    vni: 27
  - {prefixes: [198.51.100.0/24], name: partner, own: false}
hosts:
  - {address: 192.168.7.1, name: switch}
  - {addresses: [192.168.7.2, "2001:db8::2"], name: nas, tenant: blue}
`)
	anchors := write(t, "anchors.yaml", `
networks:
  - {prefix: 100.66.0.0/16, vnet: ~, labels: &l {env: &e prod}}
  - {prefix: 100.67.0.0/16, name: null, labels: *l}
  - {prefix: 100.68.0.0/16, labels: {stage: *e}}
  - {prefix: 100.67.1.0/24, name: partner, own: false}
hosts:
  - {address: 100.67.1.1, name: of-partner, own: false}
  - {address: 100.67.1.2, name: ours-there}
`)
	table := write(t, "hosts.csv", "prefix,name,labels,vnet\n# a comment\n10.9.0.0/16,,,branch\n10.9.1.1,\"printer, big\",floor=1 room=12,\n")
	set := compile(t, Config{Networks: []string{
		own, anchors, table, write(t, "nics.json", nics), write(t, "vnets.json", vnets), write(t, "vms.json", vms), write(t, "ips.json", publicIPs), write(t, "tags.json", serviceTags),
		write(t, "instances.json", instances), write(t, "subnets.json", subnets), write(t, "enis.json", enis), write(t, "k8s.json", kubectl),
		"red=" + write(t, "red.csv", "prefix,name\n10.1.2.4,of-red\n"),
	}})
	for _, c := range []struct{ tenant, address, want string }{
		{"default", "100.66.1.1", "|||env=prod|OWN"},
		{"default", "100.67.2.1", "|||env=prod|OWN"},
		{"default", "100.68.1.1", "|||stage=prod|OWN"},
		{"default", "100.67.1.9", "partner|||env=prod"},
		{"default", "100.67.1.1", "of-partner|||env=prod"},
		{"default", "100.67.1.2", "ours-there|||env=prod|OWN"},
		{"default", "192.168.1.1", "||lab|env=test owner=us|OWN"},
		{"default", "192.168.7.9", "|racks|lab|env=rack owner=us|OWN"},
		{"default", "192.168.7.1", "switch|racks|lab|env=rack owner=us|OWN"},
		{"blue", "192.168.7.2", "nas|racks|lab|env=rack owner=us|OWN"},
		{"default", "192.168.7.2", "|racks|lab|env=rack owner=us|OWN"},
		{"vni-27", "192.168.1.1", "||other|env=test owner=us|OWN"},
		{"default", "198.51.100.3", "partner|||"},
		{"default", "8.8.8.8", "|||"},
		{"default", "10.9.1.1", "printer, big||branch|floor=1 room=12|OWN"},
		// az: the machine's name and tags, and what the prefix has
		{"default", "10.1.2.4", "vm-web-1|web|spoke-1|env=prod owner=web-team role=web|OWN"},
		{"red", "10.1.2.4", "of-red|web|spoke-1|env=prod owner=web-team role=web|OWN"},
		{"default", "10.1.3.9", "pe-nic|db|spoke-1|env=prod|OWN"},
		{"default", "10.1.200.1", "||spoke-1|env=prod|OWN"},
		{"default", "fd00:1:0:3::5", "|db|spoke-1|env=prod|OWN"},
		{"default", "20.1.1.1", "vm-web-1|web|spoke-1|fqdn=web.westeurope.cloudapp.azure.com public_ip=vm-web-1-ip service_tag=AzureCloud|OWN"},
		{"default", "20.1.1.2", "lb-ip|||service_tag=AzureCloud|OWN"},
		{"default", "20.60.1.1", "|||service_tag=Storage service_tag=Storage.WestEurope|MICROSOFT"},
		{"default", "2603:1000::1", "|||service_tag=AzureCloud|MICROSOFT"},
		// aws
		{"default", "172.31.5.11", "app-1|private-a|vpc-1|env=prod instance_id=i-0abc subnet_id=subnet-1 tier=app|OWN"},
		{"default", "3.120.1.1", "app-1||vpc-1|env=prod instance_id=i-0abc subnet_id=subnet-1|OWN"},
		{"default", "2a05:d014::10", "app-1||vpc-1|env=prod instance_id=i-0abc subnet_id=subnet-1|OWN"},
		{"default", "172.31.7.20", "app-1|private-a|vpc-1|env=prod instance_id=i-0abc subnet_id=subnet-1 tier=app|OWN"},
		{"default", "2a05:d014:0:1::5", "app-1||vpc-1|env=prod instance_id=i-0abc subnet_id=subnet-1|OWN"},
		{"default", "172.31.6.6", "ELB app/front|private-a|vpc-1|subnet_id=subnet-1 tier=app|OWN"},
		// kubectl
		{"default", "10.244.1.7", "web-5d9f|pods of node-1||app=web k8s_kind=Pod k8s_namespace=shop k8s_node=node-1|OWN"},
		{"default", "fd00:10::7", "web-5d9f|||app=web k8s_kind=Pod k8s_namespace=shop k8s_node=node-1|OWN"},
		{"default", "10.96.0.20", "web|||k8s_kind=Service k8s_namespace=shop|OWN"},
		{"default", "20.1.1.9", "web|||k8s_kind=Service k8s_namespace=shop service_tag=AzureCloud|OWN"},
		{"default", "10.1.2.10", "node-1|web|spoke-1|env=prod k8s_kind=Node zone=1|OWN"},
	} {
		if got := what(set, c.tenant, c.address); got != c.want {
			t.Errorf("%s of %s: %s, want %s", c.address, c.tenant, got, c.want)
		}
	}
}

// Longest prefixes are found as a plain search finds them.
func TestLongestPrefix(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var text strings.Builder
	text.WriteString("prefix,name\n")
	names := map[netip.Prefix]string{}
	for range 3000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), byte(r.IntN(256)), byte(r.IntN(256))}), 8+r.IntN(25)).Masked()
		if names[p] == "" {
			names[p] = fmt.Sprintf("n%d", len(names))
			fmt.Fprintf(&text, "%s,%s\n", p, names[p])
		}
	}
	set := compile(t, Config{Networks: []string{write(t, "n.csv", text.String())}})
	for range 5000 {
		a := netip.AddrFrom4([4]byte{10, byte(r.IntN(5)), byte(r.IntN(256)), byte(r.IntN(256))})
		want, bits := "", -1
		for p, name := range names {
			if p.Contains(a) && p.Bits() > bits {
				want, bits = name, p.Bits()
			}
		}
		if got := end(set, "default", a.String(), now).Network.Name; got != want {
			t.Fatalf("%s is in %q, want %q", a, got, want)
		}
	}
}

func TestPlaces(t *testing.T) {
	set := compile(t, Config{
		Country: []string{write(t, "c.csv", "1.0.0.0,1.0.0.255,au\n1.0.1.0,1.0.3.255,CN\n2001:200::,2001:200:ffff:ffff:ffff:ffff:ffff:ffff,JP\n")},
		// The second range is within the first; the last overlaps with the one before.
		ASN: []string{write(t, "a.csv", "1.0.0.0,1.0.255.255,64500,\"Outer, Inc.\"\n1.0.2.0,1.0.2.255,AS64501,Inner\n1.0.255.0,1.1.0.255,64502,Behind\n")},
	})
	for address, want := range map[string]labels.Place{
		"0.255.255.255": {}, "1.0.0.0": {Country: "AU", ASN: 64500, ASOrg: "Outer, Inc."}, "1.0.1.0": {Country: "CN", ASN: 64500, ASOrg: "Outer, Inc."},
		"1.0.2.0": {Country: "CN", ASN: 64501, ASOrg: "Inner"}, "1.0.2.255": {Country: "CN", ASN: 64501, ASOrg: "Inner"},
		"1.0.3.0": {Country: "CN", ASN: 64500, ASOrg: "Outer, Inc."}, "1.0.4.0": {ASN: 64500, ASOrg: "Outer, Inc."},
		"1.0.255.1": {ASN: 64502, ASOrg: "Behind"}, "1.1.0.255": {ASN: 64502, ASOrg: "Behind"}, "1.1.1.0": {},
		"255.255.255.255": {}, "2001:200::1": {Country: "JP"}, "2001:201::": {}, "::": {},
	} {
		if got := end(set, "default", address, now).Place; got != want {
			t.Errorf("%s: %+v, want %+v", address, got, want)
		}
	}
}

// Random ranges give what a plain search over them gives: the one that begins last counts.
func TestFlatten(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	at := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}) }
	for range 300 {
		var list []placeRange
		for i := range 1 + r.IntN(8) {
			a := r.IntN(250)
			list = append(list, placeRange{at(a), at(a + r.IntN(256-a)), labels.Place{ASN: uint32(i + 1)}})
		}
		flat := flatten(append([]placeRange(nil), list...))
		for n := range 256 {
			var want, got uint32
			best := placeRange{}
			for _, v := range list {
				in := !at(n).Less(v.first) && !v.last.Less(at(n))
				if in && (want == 0 || best.first.Less(v.first) || best.first == v.first && v.last.Less(best.last)) {
					want, best = v.place.ASN, v
				}
			}
			found := 0
			for _, v := range flat {
				if !at(n).Less(v.first) && !v.last.Less(at(n)) {
					got = v.place.ASN
					found++
				}
			}
			same := false // of two that are alike either counts
			for _, v := range list {
				same = same || v.place.ASN == got && v.first == best.first && v.last == best.last
			}
			if found > 1 || got != want && !same {
				t.Fatalf("%v: %d in %d ranges, want %d\n%v\n%v", at(n), got, found, want, list, flat)
			}
		}
	}
}

const bundle = `{"type": "bundle", "id": "bundle--1", "objects": [
  {"type": "identity", "spec_version": "2.1", "id": "identity--1", "name": "a list"},
  {"type": "indicator", "spec_version": "2.1", "id": "indicator--1", "name": "c2 server", "confidence": 85, "pattern_type": "stix", "pattern": "[ipv4-addr:value = '203.0.113.7' OR ipv4-addr:value = '203.0.113.128/25']", "valid_from": "2026-01-01T00:00:00Z", "valid_until": "2026-06-01T00:00:00.000Z"},
  {"type": "indicator", "id": "indicator--2", "name": "phish", "pattern_type": "stix", "pattern": "[domain-name:value = 'Login.Example.com'] AND [url:value = 'https://bad.example.net:8443/x']"},
  {"type": "indicator", "id": "indicator--3", "name": "old", "revoked": true, "pattern_type": "stix", "pattern": "[ipv4-addr:value = '203.0.113.8']"},
  {"type": "indicator", "id": "indicator--4", "name": "file", "pattern_type": "stix", "pattern": "[file:hashes.MD5 = 'd41d8cd98f00b204e9800998ecf8427e']"},
  {"type": "indicator", "id": "indicator--5", "name": "rule", "pattern_type": "yara", "pattern": "rule x { condition: true }"},
  {"type": "indicator", "id": "indicator--6", "name": "tool", "pattern_type": "stix", "pattern": "[network-traffic:extensions.'tls-ext'.ja3 = 'E7D705A3286E19EA42F587B344EE6865' AND ipv6-addr:value IN ('2001:db8::1', '2001:db8::2')]"}
]}`

const misp = `{"Event": {"info": "campaign 7", "date": "2026-02-01", "uuid": "1", "Attribute": [
  {"type": "ip-dst", "category": "Network activity", "to_ids": true, "value": "198.51.100.9"},
  {"type": "ip-dst|port", "to_ids": true, "value": "198.51.100.10|443"},
  {"type": "domain|ip", "to_ids": true, "value": "evil.example.org|198.51.100.11"},
  {"type": "hostname", "to_ids": false, "value": "seen.example.org"},
  {"type": "url", "to_ids": true, "value": "http://drop.example.org/a?b"},
  {"type": "md5", "to_ids": true, "value": "d41d8cd98f00b204e9800998ecf8427e"},
  {"type": "ja3-fingerprint-md5", "to_ids": true, "value": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}],
 "RelatedEvent": [{"Event": {"info": "campaign 6", "id": "6"}}],
 "Object": [{"name": "domain-ip", "Attribute": [{"type": "domain", "to_ids": true, "value": "object.example.org"}]}]}}`

func TestThreats(t *testing.T) {
	plain := write(t, "block.txt", "# list\n192.0.2.1\n192.0.2.64/26 # a net\nbad.example.com\n*.wild.example.com\n.dotted.example.com\n0.0.0.0 hosts.example.com\nt13d1516h2_8DAAF6152771_b186095e22b6\n\n")
	block := write(t, "hosts", "127.0.0.1 localhost localhost.localdomain\n255.255.255.255\tbroadcasthost\n::1 ip6-localhost\nfe80::1%lo0 localhost\nff02::1 ip6-allnodes\n0.0.0.0 0.0.0.0\n0.0.0.0 one.example.net two.example.net\t# why\n")
	odd := write(t, "odd.txt", "[2001:db8:9::1]:443\n[2001:db8:9::2]\nport.example.net:8443\nhttp://192.0.2.33:8080/%zz/%%%.exe?u=http://x\nhttps://me:p%w@login.example.net/\nb\u00fccher.example.net\n")
	table := write(t, "table.csv", "ip,name,confidence,expires\n192.0.2.200,\"short, lived\",40,2026-03-01\n192.0.2.1,again,99,2026-02-01\n2001:db8:1::/48,six,,\n")
	set := compile(t, Config{Threats: []string{plain, "named=" + write(t, "n.txt", "192.0.2.2\n"), table, block, odd, write(t, "b.json", bundle), write(t, "m.json", misp), write(t, "empty.txt", "")}})
	th := set.Threats()
	address := func(a string, at time.Time) *labels.Threat {
		hit, _ := th.Address(netip.MustParseAddr(a), at.UnixNano())
		return hit
	}
	for _, c := range []struct {
		what string
		hit  *labels.Threat
		want string
	}{
		{"address", address("192.0.2.1", now), "block 192.0.2.1 0"}, // the entry that ends does not hide the one that stays
		{"named list", address("192.0.2.2", now), "named 192.0.2.2 0"},
		{"prefix", address("192.0.2.127", now), "block 192.0.2.64/26 0"},
		{"beside it", address("192.0.2.128", now), ""},
		{"before it ends", address("192.0.2.200", now.AddDate(0, 0, -1)), "short, lived 192.0.2.200 40"},
		{"after it ended", address("192.0.2.200", now), ""},
		{"prefix of IPv6", address("2001:db8:1::9", now), "six 2001:db8:1::/48 0"},
		{"stix address", address("203.0.113.7", now), "c2 server 203.0.113.7 85"},
		{"stix prefix", address("203.0.113.200", now), "c2 server 203.0.113.128/25 85"},
		{"stix, after valid_until", address("203.0.113.7", now.AddDate(0, 6, 0)), ""},
		{"stix, revoked", address("203.0.113.8", now), ""},
		{"stix list", address("2001:db8::2", now), "tool 2001:db8::2 0"},
		{"misp", address("198.51.100.9", now), "campaign 7 198.51.100.9 0"},
		{"misp with port", address("198.51.100.10", now), "campaign 7 198.51.100.10 0"},
		{"misp pair", address("198.51.100.11", now), "campaign 7 198.51.100.11 0"},
		{"name", th.Name("BAD.example.com.", 0), "block bad.example.com 0"},
		{"with a port", th.Name("bad.example.com:8080", 0), "block bad.example.com 0"},
		{"below a name that does not say so", th.Name("x.bad.example.com", 0), ""},
		{"wildcard", th.Name("a.b.wild.example.com", 0), "block *.wild.example.com 0"},
		{"the wildcard's own name", th.Name("wild.example.com", 0), ""},
		{"leading dot", th.Name("x.dotted.example.com", 0), "block *.dotted.example.com 0"},
		{"hosts file", th.Name("hosts.example.com", 0), "block hosts.example.com 0"},
		{"hosts file, several names", th.Name("two.example.net", 0), "hosts two.example.net 0"},
		{"hosts file, the machine's own name", th.Name("localhost.localdomain", 0), ""},
		{"hosts file, no name", address("0.0.0.0", now), ""},
		{"address in brackets with a port", address("2001:db8:9::1", now), "odd 2001:db8:9::1 0"},
		{"address in brackets", address("2001:db8:9::2", now), "odd 2001:db8:9::2 0"},
		{"name with a port", th.Name("port.example.net", 0), "odd port.example.net 0"},
		{"url whose path is no path", address("192.0.2.33", now), "odd 192.0.2.33 0"},
		{"url with a user", th.Name("login.example.net", 0), "odd login.example.net 0"},
		{"name in letters beyond ASCII", th.Name("xn--bcher-kva.example.net", 0), "odd xn--bcher-kva.example.net 0"},
		{"stix name", th.Name("login.example.com", 0), "phish login.example.com 0"},
		{"stix url", th.Name("bad.example.net", 0), "phish bad.example.net 0"},
		{"misp name", th.Name("evil.example.org", 0), "campaign 7 evil.example.org 0"},
		{"misp, not for detection", th.Name("seen.example.org", 0), ""},
		{"misp url", th.Name("drop.example.org", 0), "campaign 7 drop.example.org 0"},
		{"misp object", th.Name("object.example.org", 0), "campaign 7 object.example.org 0"},
		{"an address as host", th.Name("192.0.2.1", 0), ""},
		{"ja4", th.Print(labels.JA4, "t13d1516h2_8daaf6152771_b186095e22b6", 0), "block t13d1516h2_8daaf6152771_b186095e22b6 0"},
		{"stix ja3", th.Print(labels.JA3, "e7d705a3286e19ea42f587b344ee6865", 0), "tool e7d705a3286e19ea42f587b344ee6865 0"},
		{"misp ja3", th.Print(labels.JA3, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 0), "campaign 7 aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa 0"},
		{"no fingerprint", th.Print(labels.JA3, "", 0), ""},
	} {
		got := ""
		if c.hit != nil {
			got = fmt.Sprint(c.hit.Name, " ", c.hit.Indicator, " ", c.hit.Confidence)
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
	if _, span := th.Address(netip.MustParseAddr("192.0.2.200"), now.UnixNano()); span.Holds(now.AddDate(0, 0, -1).UnixNano()) || !span.Holds(now.UnixNano()) {
		t.Errorf("the answer holds for %v", span)
	}
}

// Random lists give what a plain search over them gives: the address itself, else the longest prefix, of those that
// have not ended.
func TestThreatSearch(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	random := func() netip.Addr {
		if r.IntN(3) == 0 {
			return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 14: byte(r.IntN(4)), 15: byte(r.IntN(256))})
		}
		return netip.AddrFrom4([4]byte{203, 0, byte(r.IntN(4)), byte(r.IntN(256))})
	}
	var text strings.Builder
	text.WriteString("indicator,name,expires\n")
	ends := map[netip.Prefix]time.Time{}
	for i := range 1500 {
		a := random()
		p := netip.PrefixFrom(a, a.BitLen())
		if i%5 == 0 {
			p = netip.PrefixFrom(a, a.BitLen()-1-r.IntN(12)).Masked()
		}
		if _, ok := ends[p]; ok {
			continue
		}
		ends[p] = time.Time{}
		if r.IntN(2) == 0 {
			ends[p] = now.Add(time.Duration(r.IntN(20)-10) * time.Hour)
			fmt.Fprintf(&text, "%s,,%s\n", p, ends[p].Format(time.RFC3339))
		} else {
			fmt.Fprintf(&text, "%s,,\n", p)
		}
	}
	th := compile(t, Config{Threats: []string{write(t, "t.csv", text.String())}}).Threats()
	if th.Len() != len(ends) {
		t.Errorf("%d indicators, want %d", th.Len(), len(ends))
	}
	for range 5000 {
		a, at := random(), now.Add(time.Duration(r.IntN(24)-12)*time.Hour)
		best := netip.Prefix{}
		for p, end := range ends {
			if p.Contains(a) && (end.IsZero() || at.Before(end)) && (!best.IsValid() || p.Bits() > best.Bits()) {
				best = p
			}
		}
		want := ""
		if best.IsValid() {
			if want = best.String(); best.IsSingleIP() {
				want = a.String()
			}
		}
		got := ""
		hit, span := th.Address(a, at.UnixNano())
		if hit != nil {
			got = hit.Indicator
		}
		if got != want || !span.Holds(at.UnixNano()) {
			t.Fatalf("%s at %v: %q for %v, want %q", a, at, got, span, want)
		}
	}
}

// The same files in the same order always make the same bytes.
func TestSameBytes(t *testing.T) {
	c := Config{Networks: []string{write(t, "k.json", kubectl), write(t, "t.json", serviceTags)}, Threats: []string{write(t, "b.json", bundle)}}
	_, first, err := NewCompiler(c).Compile()
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		_, again, err := NewCompiler(c).Compile()
		if err != nil {
			t.Fatal(err)
		}
		for i := range again {
			if !bytes.Equal(again[i].Bytes, first[i].Bytes) {
				t.Fatalf("part %d has other bytes", i)
			}
		}
	}
}

// What is wrong with a file is told with its line where it has one, and in one line.
func TestWrong(t *testing.T) {
	utf := func(s string) string {
		b := []byte{0xff, 0xfe}
		for _, u := range utf16.Encode([]rune(s)) {
			b = append(b, byte(u), byte(u>>8))
		}
		return string(b)
	}
	for _, c := range []struct{ kind, name, text, want string }{
		{"networks", "a.yaml", "networks:\n  - prefix: 10.0.0.0/8\n    vnett: x\n", `a.yaml:3: unknown key "vnett", must be one of prefix, address, name, subnet, vnet, labels, tenant, vni, own`},
		{"networks", "a.yaml", "hosts:\n  - name: x\n", "a.yaml:2: an entry without a prefix or an address"},
		{"networks", "a.yaml", "hosts: [\n", "a.yaml:"},
		{"networks", "a.yaml", "networks:\n  - prefix: 10.0.0.1/8\n", `a.yaml:2: "10.0.0.1/8" has bits behind its length; the prefix is 10.0.0.0/8`},
		{"networks", "a.yaml", "hosts:\n  - {address: 10.0.0.1, name: a}\n  - {address: 10.0.0.2, name: b}\n  - {address: 10.0.0.1, name: c}\n", `a.yaml:4: 10.0.0.1/32 has two names, "a" and "c" (the other in DIR/a.yaml:2); leave one out, or put one into a file of another tenant, TENANT=FILE`},
		{"networks", "a.json", strings.Replace(vnets, "\n}]", "\n}, {\"addressSpace\": {\"addressPrefixes\": [\"10.1.0.0/16\"]}, \"id\": \"/x\", \"name\": \"spoke-2\"}]", 1), `a.json: 10.1.0.0/16 has two vnets, "spoke-1" and "spoke-2" (the other in DIR/a.json); leave one out`},
		{"networks", "a.yaml", "", "a.yaml: is empty"},
		{"networks", "a.csv", "prefix;name\n10.0.0.0/8;x\n", `a.csv:1: the columns are not separated by commas: "prefix;name"`},
		{"networks", "a.csv", "prefix,name\n10.0.0.0/8,x\n10.1.0.0/16\n", "a.csv:3: wrong number of fields"},
		{"networks", "a.csv", "prefix,name\n10.0.0.\"0/8,x\n", `a.csv:2: bare " in non-quoted-field`},
		{"networks", "a.csv", "10.0.0.0/8,x\n", "a.csv:1: the first line must name the columns, one of them prefix"},
		{"networks", "a.csv", utf("prefix,name\n"), "a.csv:1: is UTF-16; save it as UTF-8"},
		{"networks", "a.csv", "prefix,name\n10.0.0.0/8,caf\xe9\n", "a.csv:2: is not UTF-8; save it as UTF-8"},
		{"networks", "a.json", `[{"name": "x", "id": "/y"}]`, `a.json:1: resource "x" is no network interface, virtual network, machine or public address`},
		{"networks", "a.json", strings.Replace(nics, "10.1.3.9", "10.1.3.900", 1), `a.json:12: network interface pe-nic: "10.1.3.900" is no address`},
		{"networks", "a.json", nics[:700], "a.json:"},
		{"networks", "a.json", `{"a": 1}`, "a.json: is no list of az, aws or kubectl, and no Azure service tags"},
		{"networks", "a.json", `{"id": "/x", "name": "spoke-1", "addressSpace": {"addressPrefixes": ["10.1.0.0/16"]}, "subnets": []}`, "a.json: is no list of az, aws or kubectl, and no Azure service tags"},
		{"networks", "a.json", `[5]`, "a.json:1: an element is number where an object is wanted"},
		{"networks", "a.json", `[{"subnets": 5}]`, "a.json:1: subnets is number where a list is wanted"},
		{"networks", "a.csv", "prefix,nam\n", `a.csv:1: unknown key "nam", must be one of prefix`},
		{"networks", "a.csv", "prefix,name\r10.0.0.1,x\r", "a.csv:1: its lines end by carriage returns alone; save it with line feeds"},
		{"networks", "a.yaml", "hosts:\n  - {address: 10.0.0.1, labels: {env: [a, b]}}\n", "a.yaml:2: labels must be values, not lists of them"},
		{"networks", "a.yaml", "hosts: []\n---\nhosts: []\n", "a.yaml:2: more than one document; put all networks and hosts into one"},
		{"networks", "a.yaml", "hosts: &a\n  - *a\n", "a.yaml:1: an entry has keys with values: prefix, name, …"},
		{"asn", "a.csv", "1.0.0.0,1.0.0.255,1,x\r1.0.1.0,1.0.1.255,2,y\r", "a.csv:1: its lines end by carriage returns alone; save it with line feeds"},
		{"country", "c.csv", "1.0.0.0,1.0.0.255,AU\n1.0.1.0;1.0.1.255;CN\n", "c.csv:2: 1 columns separated by commas, want first address, last address and what is known"},
		{"country", "c.csv", "1.0.0.9,1.0.0.1,AU\n", `c.csv:1: "1.0.0.9" to "1.0.0.1" is no range of addresses`},
		{"country", "c.mmdb", "\x00\x01\x02 cut short \x00", "c.mmdb: is no database in MaxMind's format, or one that was cut short: the metadata at its end is missing"},
		{"asn", "a.csv", "1.0.0.0,1.0.0.255,x\n", `a.csv:1: "x" is no number of an autonomous system`},
		{"threats", "t.txt", "192.0.2.1\nnot an indicator\n", `t.txt:2: "not an indicator" is no address, prefix, domain name or fingerprint`},
		{"threats", "t.csv", "indicator;name\n192.0.2.1;x\n", `t.csv:1: the columns are not separated by commas: "indicator;name"`},
		{"threats", "t.csv", "indicator,confidence\n192.0.2.1,high\n", `t.csv:2: confidence "high" is not 0 to 100`},
		{"threats", "t.txt", utf("192.0.2.1\n"), "t.txt:1: is UTF-16; save it as UTF-8"},
		{"threats", "b.json", bundle[:1200], "b.json:7: the JSON is cut short"},
		{"threats", "t.txt", "10.0.0.300\n", `t.txt:1: "10.0.0.300" is no address, prefix, domain name or fingerprint`},
		{"threats", "t.txt", "192.0.2.1-192.0.2.9\n", `t.txt:1: "192.0.2.1-192.0.2.9" is no address`},
		{"threats", "t.txt", "caf\xe9.example.com\n", `t.txt:1: "caf\xe9.example.com" is no domain name`},
		{"threats", "t.txt", "]:x\n", `t.txt:1: "]:x" is no address`},
		{"threats", "t.txt", "\x1f\x8b\x08\x00\x00", "t.txt: is compressed; unpack it"},
		{"threats", "t.csv", "indicator,name\r192.0.2.1,x\r", "t.csv:1: its lines end by carriage returns alone; save it with line feeds"},
		{"threats", "t.csv", "indicator,expires\n192.0.2.1,1577836800000\n", `t.csv:2: expires: "1577836800000" is no date`},
		{"threats", "b.json", strings.Replace(bundle, `"confidence": 85`, `"confidence": 300`, 1), "b.json:3: confidence is number 300 where a whole number of 0 to 100 is wanted"},
		{"threats", "b.json", strings.Replace(bundle, "'2001:db8::1'", "'fe80::1%eth0'", 1), `b.json:8: indicator "tool": "fe80::1%eth0" is no address`},
		{"threats", "n.json", nics, "n.json: is no STIX bundle, and no event, feed or list of attributes of MISP"},
		{"threats", "m.json", `{"0001": {"info": "an event", "date": "2026-01-01"}}`, "m.json: is no STIX bundle"},
		{"threats", "m.json", "[null]", "m.json: is no STIX bundle"},
		{"threats", "b.json", strings.Replace(bundle, "'203.0.113.7'", "'203.0.113.700'", 1), `b.json:`},
	} {
		path := write(t, c.name, c.text)
		var config Config
		list := map[string]*[]string{"networks": &config.Networks, "country": &config.Country, "asn": &config.ASN, "threats": &config.Threats}[c.kind]
		*list = []string{path}
		k := NewCompiler(config)
		_, _, err := k.Compile()
		var own *Error
		if !errors.As(err, &own) {
			t.Errorf("%s %q: %v", c.name, c.want, err)
			continue
		}
		got := strings.ReplaceAll(err.Error(), filepath.Dir(path), "DIR")
		if !strings.HasPrefix(got, "DIR/"+c.want) || strings.Contains(got, "\n") {
			t.Errorf("%s\nwant DIR/%s", got, c.want)
		}
		if _, _, again := k.Compile(); !reflect.DeepEqual(again, err) {
			t.Errorf("then %v", again)
		}
	}
}

// A list may have run empty.
func TestEmptyLists(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "indicator,name\n", "[]", `{"type": "bundle", "id": "bundle--1"}`, `{"type": "bundle", "objects": []}`, `{"response": []}`, `{"response": {"Attribute": []}}`} {
		if n := compile(t, Config{Threats: []string{write(t, "list", text)}}).Threats().Len(); n != 0 {
			t.Errorf("%q: %d indicators", text, n)
		}
	}
}

// A bundle larger than what memory should hold is read one object after another: what is held grows by what is used of an
// indicator. When it is cut short, what was read before stays.
func TestLargeBundle(t *testing.T) {
	objects := 30_000 // some 12 MB; LARGE=2500000 makes 1 GB
	if n, err := strconv.Atoi(os.Getenv("LARGE")); err == nil {
		objects = n
	}
	path := filepath.Join(t.TempDir(), "large.json")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(f)
	w.WriteString(`{"type": "bundle", "objects": [`)
	for i := range objects {
		if i > 0 {
			w.WriteByte(',')
		}
		pattern := fmt.Sprintf("[ipv4-addr:value = '%s']", netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}))
		switch i % 3 {
		case 1:
			pattern = fmt.Sprintf("[domain-name:value = 'host-%d.example.com']", i)
		case 2:
			pattern = fmt.Sprintf("[file:name = 'f%d']", i)
		}
		fmt.Fprintf(w, `{"type": "indicator", "id": "indicator--%d", "name": "campaign %d", "description": %q, "pattern_type": "stix", "pattern": "%s", "valid_until": "2027-01-01T00:00:00Z"}`+"\n",
			i, i%100, strings.Repeat("words ", 40), pattern)
	}
	w.WriteString(`]}`)
	w.Flush()
	size, _ := f.Seek(0, 1)
	f.Close()
	c := NewCompiler(Config{Threats: []string{path}})
	read := func() error {
		var most uint64
		done := make(chan error)
		began := time.Now()
		go func() {
			_, _, err := c.Compile()
			done <- err
		}()
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
			select {
			case err := <-done:
				t.Logf("a bundle of %d MB took %d MB of heap at most, and %v", size>>20, most>>20, time.Since(began).Round(time.Millisecond))
				if limit := uint64(24<<20 + 400*objects); most > limit {
					t.Errorf("%d MB are allowed", limit>>20)
				}
				return err
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	if err := read(); err != nil {
		t.Fatal(err)
	}
	before := c.kinds[2].part
	if n := before.Len(); n != objects-objects/3 {
		t.Errorf("%d indicators of %d objects", n, objects)
	}
	size -= size / 5
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	var own *Error
	if err := read(); !errors.As(err, &own) || own.Reason != "the JSON is cut short" || own.Line < objects/5*3 || own.Line > objects {
		t.Error(err)
	}
	if c.kinds[2].part != before {
		t.Error("what was read before is gone")
	}
}

func TestCompilesWhatChanged(t *testing.T) {
	n, th := write(t, "n.csv", "prefix,name\n10.0.0.1,a\n"), write(t, "t.txt", "192.0.2.1\n")
	c := NewCompiler(Config{Networks: []string{n}, Threats: []string{th}})
	one, _, err := c.Compile()
	if err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Minute)
	if err := errors.Join(os.WriteFile(n, []byte("prefix,name\n10.0.0.1,b\n"), 0o600), os.Chtimes(n, later, later)); err != nil {
		t.Fatal(err)
	}
	two, _, err := c.Compile()
	if err != nil {
		t.Fatal(err)
	}
	if one.Digest() == two.Digest() || one.Parts()[1] != two.Parts()[1] || what(two, "default", "10.0.0.1") != "b||||OWN" {
		t.Errorf("%v", what(two, "default", "10.0.0.1"))
	}
	os.Remove(n)
	if _, _, err := c.Compile(); err == nil || err.Error() != n+": no such file or directory" {
		t.Error(err)
	}
}
