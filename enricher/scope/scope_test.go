package scope

import (
	"net/netip"
	"testing"
)

// The examples are first and last addresses of the registries' blocks, and their neighbours.
func TestOf(t *testing.T) {
	for _, c := range []struct {
		address string
		want    Scope
	}{
		{"9.255.255.255", Public}, {"10.0.0.0", Private}, {"10.255.255.255", Private}, {"11.0.0.0", Public},
		{"172.15.255.255", Public}, {"172.16.0.0", Private}, {"172.31.255.255", Private}, {"172.32.0.0", Public},
		{"192.167.255.255", Public}, {"192.168.0.0", Private}, {"192.168.255.255", Private}, {"192.169.0.0", Public},
		{"100.63.255.255", Public}, {"100.64.0.0", Shared}, {"100.127.255.255", Shared}, {"100.128.0.0", Public},
		{"127.0.0.1", Loopback}, {"169.254.169.254", LinkLocal}, {"169.253.255.255", Public},
		{"0.0.0.0", Unspecified}, {"0.1.2.3", Unspecified},
		{"224.0.0.1", Multicast}, {"239.255.255.250", Multicast}, {"240.0.0.1", Reserved}, {"255.255.255.254", Reserved}, {"255.255.255.255", Broadcast},
		{"192.0.2.1", Documentation}, {"198.51.100.7", Documentation}, {"203.0.113.255", Documentation}, {"203.0.114.0", Public},
		{"198.17.255.255", Public}, {"198.18.0.0", Benchmarking}, {"198.19.255.255", Benchmarking}, {"198.20.0.0", Public},
		{"192.0.0.8", Reserved}, {"192.0.0.9", Public}, {"192.0.0.10", Public}, {"192.0.1.0", Public}, {"192.88.99.1", Public}, {"192.88.99.2", Reserved}, {"192.0.0.170", Reserved},
		{"192.31.196.1", Public}, {"192.52.193.1", Public}, {"192.175.48.1", Public},
		{"168.63.129.16", Public}, {"8.8.8.8", Public},
		{"::", Unspecified}, {"::1", Loopback}, {"::2", Public}, {"fe80::1", LinkLocal}, {"febf:ffff::", LinkLocal}, {"fec0::1", Public},
		{"fc00::1", UniqueLocal}, {"fdff::1", UniqueLocal}, {"ff02::fb", Multicast}, {"2001:db8::1", Documentation}, {"2001:db9::", Public},
		{"3fff::1", Documentation}, {"3fff:1000::", Public}, {"2001:2::1", Benchmarking}, {"2001:2:1::", Reserved},
		{"64:ff9b::a00:1", Public}, {"64:ff9b:1::1", Translation}, {"2001:1::1", Public}, {"2001:1::4", Reserved}, {"2001:20::1", Public},
		{"2001:4860:4860::8888", Public}, {"100::1", Reserved}, {"100:0:0:1::5", Reserved}, {"100:0:0:2::", Public}, {"5f00::1", Reserved},
		{"2001::1", Public}, {"2001:10::1", Reserved}, {"2001:1::2", Public}, {"2001:1::3", Public}, {"2001:3::1", Public}, {"2001:4:112::1", Public}, {"2001:30::1", Public},
		{"2001:1ff:ffff::1", Reserved}, {"2001:200::", Public}, {"2002:a00:1::1", Public}, {"2620:4f:8000::1", Public}, {"::ffff:10.0.0.1", Translation},
	} {
		if got := Of(netip.MustParseAddr(c.address)); got != c.want {
			t.Errorf("%s is %v, want %v", c.address, got, c.want)
		}
	}
}
