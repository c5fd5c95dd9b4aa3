package decode

import (
	"fmt"
	"strconv"

	"github.com/tapweave/tapweave/proto/packet"
)

// Scope says what a VXLAN network identifier means for the address space.
type Scope uint8

const (
	// Shared is one address space; the VNI is recorded, but tells no sessions apart.
	Shared Scope = iota
	// Isolated makes each VNI a tenant of its own, named "vni-" and its number.
	Isolated
	// Mapped looks the tenant up in Configuration.Tenants; a VNI that is not in it is the default tenant's.
	Mapped
)

// Configuration of a Decoder.
type Configuration struct {
	// MaxDepth is how many tunnels around a packet are unwrapped, the mirror's own included; 1 to
	// packet.MaxCarriers. A frame with more is refused (TunnelTooDeep). Default: 4.
	MaxDepth int
	// VXLANPorts are the UDP destination ports that carry VXLAN inside a frame. Default: 4789.
	VXLANPorts []uint16
	// GENEVEPorts are those that carry GENEVE. Default: 6081.
	GENEVEPorts []uint16
	// Scope and Tenants give the tenant by the VNI of the outermost tunnel, that of the mirror session.
	// Default: Shared.
	Scope   Scope
	Tenants map[uint32]string
	// Payload says whether Packet.Data holds the captured payload, or nothing. Default: nothing.
	Payload bool
}

// DefaultConfiguration returns the defaults.
func DefaultConfiguration() Configuration {
	return Configuration{MaxDepth: 4, VXLANPorts: []uint16{4789}, GENEVEPorts: []uint16{6081}}
}

// Validate says what is wrong with a configuration.
func (c Configuration) Validate() error {
	if c.MaxDepth < 1 || c.MaxDepth > packet.MaxCarriers {
		return fmt.Errorf("max_depth %d is not between 1 and %d", c.MaxDepth, packet.MaxCarriers)
	}
	for vni := range c.Tenants {
		if vni >= 1<<24 {
			return fmt.Errorf("tenants: VNI %d has more than 24 bits", vni)
		}
	}
	return nil
}

// maxTenants bounds the names that are kept for Isolated: whoever reaches the port chooses the VNI.
const maxTenants = 1 << 16

// tenants gives the tenant of a VNI without an allocation for one that it has met before.
type tenants struct {
	scope Scope
	names map[uint32]string
}

func newTenants(scope Scope, mapped map[uint32]string) tenants {
	t := tenants{scope: scope, names: map[uint32]string{}}
	if scope == Mapped {
		t.names = mapped
	}
	return t
}

func (t *tenants) of(vni uint32) string {
	if t.scope == Shared {
		return ""
	}
	name, ok := t.names[vni]
	if ok || t.scope == Mapped {
		return name
	}
	if len(t.names) >= maxTenants {
		clear(t.names)
	}
	name = "vni-" + strconv.FormatUint(uint64(vni), 10)
	t.names[vni] = name
	return name
}
