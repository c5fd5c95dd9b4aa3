// Package scope says what kind of address an address is, by IANA's registries: the IPv4 and the IPv6
// Special-Purpose Address Registry (RFC 6890 and the RFCs named below), and the multicast address spaces.
package scope

import "net/netip"

// Scope is the kind of an address.
type Scope uint8

const (
	Public        Scope = iota // globally reachable
	Private                    // RFC 1918
	UniqueLocal                // fc00::/7, RFC 4193
	Shared                     // carriers' own, 100.64.0.0/10, RFC 6598
	Loopback                   // RFC 1122, RFC 4291
	LinkLocal                  // RFC 3927, RFC 4291
	Multicast                  // RFC 5771, RFC 4291
	Broadcast                  // 255.255.255.255, RFC 8190
	Unspecified                // :: and 0.0.0.0/8, "this network", RFC 791
	Documentation              // RFC 5737, RFC 3849, RFC 9637
	Benchmarking               // RFC 2544, RFC 5180
	Translation                // IPv4 within IPv6: RFC 6052, RFC 8215
	Reserved                   // the rest of what is not globally reachable
	numScopes
)

var names = [numScopes]string{
	"public", "private", "unique-local", "shared", "loopback", "link-local", "multicast", "broadcast", "unspecified",
	"documentation", "benchmarking", "translation", "reserved",
}

func (s Scope) String() string { return names[s] }

// block is an entry of a registry. An address has the scope of the longest that it is in; what is not in any is public.
type block struct {
	prefix netip.Prefix
	scope  Scope
}

func blocks(list ...struct {
	prefix string
	scope  Scope
}) (all []block) {
	for _, b := range list {
		all = append(all, block{netip.MustParsePrefix(b.prefix), b.scope})
	}
	return all
}

type entry = struct {
	prefix string
	scope  Scope
}

// Longer prefixes stand before those that they are in.
var (
	v4 = blocks(
		entry{"10.0.0.0/8", Private}, entry{"172.16.0.0/12", Private}, entry{"192.168.0.0/16", Private},
		entry{"127.0.0.0/8", Loopback},
		entry{"169.254.0.0/16", LinkLocal},
		entry{"100.64.0.0/10", Shared},
		entry{"224.0.0.0/4", Multicast},
		entry{"255.255.255.255/32", Broadcast},
		entry{"0.0.0.0/8", Unspecified},
		entry{"192.0.2.0/24", Documentation}, entry{"198.51.100.0/24", Documentation}, entry{"203.0.113.0/24", Documentation},
		entry{"198.18.0.0/15", Benchmarking},
		// IETF protocol assignments (RFC 6890), of which two are globally reachable: PCP and TURN anycast
		// (RFC 7723, RFC 8155).
		entry{"192.0.0.9/32", Public}, entry{"192.0.0.10/32", Public}, entry{"192.0.0.0/24", Reserved},
		entry{"192.88.99.2/32", Reserved}, // 6a44 relay anycast, RFC 6751; of 6to4 around it nothing is said
		// AS112 and AMT (RFC 7535, RFC 7450, RFC 7534).
		entry{"192.31.196.0/24", Public}, entry{"192.52.193.0/24", Public}, entry{"192.175.48.0/24", Public},
		entry{"240.0.0.0/4", Reserved}, // RFC 1112
	)
	v6 = blocks(
		entry{"fe80::/10", LinkLocal},
		entry{"fc00::/7", UniqueLocal},
		entry{"ff00::/8", Multicast},
		entry{"::/128", Unspecified},
		entry{"::1/128", Loopback},
		entry{"2001:db8::/32", Documentation}, entry{"3fff::/20", Documentation},
		entry{"2001:2::/48", Benchmarking},
		entry{"64:ff9b::/96", Public}, // RFC 6052: globally reachable
		entry{"64:ff9b:1::/48", Translation},
		// IETF protocol assignments (RFC 2928), and what in them is globally reachable: PCP, TURN and DNS-SD anycast,
		// AMT, AS112, ORCHIDv2, drone remote identification.
		entry{"2001:1::1/128", Public}, entry{"2001:1::2/128", Public}, entry{"2001:1::3/128", Public},
		entry{"2001:3::/32", Public}, entry{"2001:4:112::/48", Public}, entry{"2001:20::/28", Public}, entry{"2001:30::/28", Public},
		entry{"2001::/32", Public}, // Teredo, and 2002::/16, 6to4: not said
		entry{"2001::/23", Reserved},
		entry{"100::/64", Reserved},         // discard-only, RFC 6666
		entry{"100:0:0:1::/64", Reserved},   // dummy prefix, RFC 9780
		entry{"5f00::/16", Reserved},        // segment routing SIDs, RFC 9602
		entry{"2620:4f:8000::/48", Public},  // AS112, RFC 7534
		entry{"::ffff:0:0/96", Translation}, // IPv4-mapped, RFC 4291
	)
)

// Of returns the scope of an address.
func Of(a netip.Addr) Scope {
	list := v4
	if !a.Is4() {
		list = v6
	}
	for i := range list {
		if list[i].prefix.Contains(a) {
			return list[i].scope
		}
	}
	return Public
}
