package read

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// Of a capture of several interfaces, those whose frames can be decoded are read; the others are named.
func TestInterfaces(t *testing.T) {
	var file bytes.Buffer
	w, err := pcapgo.NewNgWriterInterface(&file, pcapgo.NgInterface{Name: "eth7", LinkType: layers.LinkTypeEthernet}, pcapgo.DefaultNgWriterOptions)
	if err != nil {
		t.Fatal(err)
	}
	usb, err := w.AddInterface(pcapgo.NgInterface{Name: "usbmon1", LinkType: 189})
	if err != nil {
		t.Fatal(err)
	}
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true},
		&layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: layers.EthernetTypeIPv4},
		&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: []byte{10, 0, 0, 1}, DstIP: []byte{10, 0, 0, 2}},
		&layers.UDP{SrcPort: 1, DstPort: 2}, gopacket.Payload("x")); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, usb, 0, usb} {
		info := gopacket.CaptureInfo{Timestamp: time.Unix(1700000000, 0), InterfaceIndex: i, CaptureLength: len(b.Bytes()), Length: len(b.Bytes())}
		if err := w.WritePacket(info, b.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "two.pcapng")
	if err := os.WriteFile(name, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	result, err := Run(DefaultOptions(), []string{name}, io.Discard)
	if err != nil || len(result.Damaged) > 0 {
		t.Fatal(err, result.Damaged)
	}
	if want := "link type 189 (" + name + ", interface usbmon1) is not decoded"; len(result.Foreign) != 1 || result.Foreign[0] != want {
		t.Errorf("%q, want %q", result.Foreign, want)
	}
	if s := result.String(); s != "2 of 4 frames hold no packet: link_type 2" {
		t.Error(s)
	}
}
