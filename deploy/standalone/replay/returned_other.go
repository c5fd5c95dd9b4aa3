//go:build !linux

package replay

import (
	"net"
	"net/netip"
)

// prepare leaves a socket as it is.
func prepare(*net.UDPConn) error { return nil }

// returned knows of nothing: only Linux keeps the datagrams that come back.
func returned(*net.UDPConn, func(to netip.AddrPort, why error)) {}
