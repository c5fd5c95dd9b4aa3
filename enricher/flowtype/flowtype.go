// Package flowtype names the kinds of traffic as Azure's Traffic Analytics does.
//
// Source: "Traffic analytics schema and data aggregation", Notes, in Microsoft's documentation of Azure Network
// Watcher. What is there S2S and P2S (a customer's site behind a gateway) is IntraVNet or InterVNet here where the
// site is given as a virtual network, else UnknownPrivate; what is Unknown there is empty. Beyond it, whatever is on
// a threat list is MaliciousFlow, also by a name or a fingerprint, and also within Azure.
package flowtype

import "github.com/tapweave/tapweave/enricher/scope"

// The kinds of traffic.
const (
	IntraVNet      = "IntraVNet"      // both ends in the same virtual network
	InterVNet      = "InterVNet"      // in two
	AzurePublic    = "AzurePublic"    // one end in a virtual network, the other a public address of Microsoft
	ExternalPublic = "ExternalPublic" // the other a public address that is not in Azure
	MaliciousFlow  = "MaliciousFlow"  // on a threat list
	UnknownPrivate = "UnknownPrivate" // the other a private address that is in no known network
)

// Directions of a session, seen from one's own networks.
const (
	Internal = "internal" // both ends inside
	Inbound  = "inbound"  // src outside
	Outbound = "outbound" // dst outside
	External = "external" // both outside
)

// End is what is known of one end of a session.
type End struct {
	VNet      string // virtual network, empty: in none that is known
	Own       bool   // known to be one's own
	Microsoft bool   // a public address of Azure that is not one's own
	Scope     scope.Scope
}

// Of returns the kind of traffic between two ends, in either order. malicious says that one of them, or what was
// asked for, is on a threat list.
func Of(a, b End, malicious bool) string {
	if malicious {
		return MaliciousFlow
	}
	if a.VNet == "" {
		a, b = b, a
	}
	switch {
	case a.VNet == "":
		return ""
	case a.VNet == b.VNet:
		return IntraVNet
	case b.VNet != "":
		return InterVNet
	case b.Own && b.Scope == scope.Public:
		return "" // one's own public address is neither Microsoft's nor outside of Azure
	case b.Microsoft:
		return AzurePublic
	case b.Scope == scope.Public:
		return ExternalPublic
	case b.Scope == scope.Private || b.Scope == scope.UniqueLocal:
		return UnknownPrivate
	}
	return ""
}

// inside says whether an end belongs to one's own networks: it is known to, or nobody else can have its address.
func (e End) inside() bool { return e.VNet != "" || e.Own || e.Scope != scope.Public }

// Direction returns the direction of a session.
func Direction(src, dst End) string {
	switch {
	case src.inside() && dst.inside():
		return Internal
	case src.inside():
		return Outbound
	case dst.inside():
		return Inbound
	}
	return External
}
