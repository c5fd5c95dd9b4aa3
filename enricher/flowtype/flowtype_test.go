package flowtype

import (
	"testing"

	"github.com/tapweave/tapweave/enricher/scope"
)

// The cases are those of Microsoft's definitions, one sentence of theirs after another.
func TestOf(t *testing.T) {
	vm := End{VNet: "spoke-1", Own: true, Scope: scope.Private}
	same := End{VNet: "spoke-1", Own: true, Scope: scope.Private}
	other := End{VNet: "hub", Own: true, Scope: scope.Private}
	site := End{VNet: "site-berlin", Own: true, Scope: scope.Private}
	storage := End{Microsoft: true, Scope: scope.Public}
	ownPublic := End{Own: true, Scope: scope.Public}
	publicOfVM := End{VNet: "spoke-1", Own: true, Scope: scope.Public}
	internet := End{Scope: scope.Public}
	private := End{Scope: scope.Private}
	for _, c := range []struct {
		what      string
		src, dst  End
		malicious bool
		want      string
		direction string
	}{
		{"both in the same virtual network", vm, same, false, IntraVNet, Internal},
		{"in two virtual networks", vm, other, false, InterVNet, Internal},
		{"a site behind a gateway, given as a network", vm, site, false, InterVNet, Internal},
		{"a public address of Microsoft", vm, storage, false, AzurePublic, Outbound},
		{"from a public address of Microsoft", storage, vm, false, AzurePublic, Inbound},
		{"one's own public address is not part of AzurePublic", vm, ownPublic, false, "", Internal},
		{"the public address of a machine in the network", vm, publicOfVM, false, IntraVNet, Internal},
		{"a public address that is not in Azure", vm, internet, false, ExternalPublic, Outbound},
		{"from a public address that is not in Azure", internet, vm, false, ExternalPublic, Inbound},
		{"reported as malicious", vm, internet, true, MaliciousFlow, Outbound},
		{"malicious src", internet, vm, true, MaliciousFlow, Inbound},
		{"malicious within Azure", vm, storage, true, MaliciousFlow, Outbound},
		{"a private address in no known network", vm, private, false, UnknownPrivate, Internal},
		{"a unique local address in no known network", vm, End{Scope: scope.UniqueLocal}, false, UnknownPrivate, Internal},
		{"an address shared by a carrier is not of RFC 1918", vm, End{Scope: scope.Shared}, false, "", Internal},
		{"link-local", vm, End{Scope: scope.LinkLocal}, false, "", Internal},
		{"multicast", vm, End{Scope: scope.Multicast}, false, "", Internal},
		{"neither end in a virtual network", private, internet, false, "", Outbound},
		{"two private ends in no known network", private, private, false, "", Internal},
		{"two public ends", internet, storage, false, "", External},
		{"malicious, neither end known", internet, internet, true, MaliciousFlow, External},
	} {
		if got := Of(c.src, c.dst, c.malicious); got != c.want {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
		if got := Of(c.dst, c.src, c.malicious); got != c.want {
			t.Errorf("%s, turned round: %q, want %q", c.what, got, c.want)
		}
		if got := Direction(c.src, c.dst); got != c.direction {
			t.Errorf("%s: direction %q, want %q", c.what, got, c.direction)
		}
	}
}
