// Package sample is the bundled capture: what a virtual network TAP sent of three network cards while real programs
// talked HTTP, TLS, DNS, SSH and more.
package sample

import _ "embed"

// Capture is a pcap file.
//
//go:embed sample.pcap
var Capture []byte
