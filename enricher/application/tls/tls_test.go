package tls

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func prefixed(size int, b []byte) []byte {
	n := binary.BigEndian.AppendUint32(nil, uint32(len(b)))
	return append(n[4-size:], b...)
}

func list(values ...uint16) (b []byte) {
	for _, v := range values {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return b
}

type extension struct {
	id   uint16
	body []byte
}

// clientHello makes the body of a ClientHello.
func clientHello(version uint16, ciphers []uint16, extensions ...extension) []byte {
	b := binary.BigEndian.AppendUint16(nil, version)
	b = append(b, make([]byte, 32)...)
	b = append(b, 0)
	b = append(b, prefixed(2, list(ciphers...))...)
	b = append(b, 1, 0)
	var all []byte
	for _, e := range extensions {
		all = binary.BigEndian.AppendUint16(all, e.id)
		all = append(all, prefixed(2, e.body)...)
	}
	return append(b, prefixed(2, all)...)
}

func serverName(name string) extension {
	return extension{0, prefixed(2, append([]byte{0}, prefixed(2, []byte(name))...))}
}

func alpn(names ...string) extension {
	var b []byte
	for _, n := range names {
		b = append(b, prefixed(1, []byte(n))...)
	}
	return extension{16, prefixed(2, b)}
}

// The example of the JA4 specification: technical_details/JA4.md, with GREASE added where clients send it.
func specified() []byte {
	return clientHello(0x0303,
		[]uint16{0x1a1a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035},
		extension{0x2a2a, nil}, extension{0x001b, []byte{2, 0, 2}}, serverName("example.com"), extension{0x0033, nil}, alpn("h2", "http/1.1"),
		extension{0x4469, nil}, extension{0x0017, nil}, extension{0x002d, []byte{1, 1}},
		extension{0x000d, prefixed(2, list(0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601))},
		extension{0x0005, nil}, extension{0x0023, nil}, extension{0x0012, nil}, extension{0x002b, prefixed(1, list(0x7a7a, 0x0304, 0x0303))},
		extension{0xff01, []byte{0}}, extension{0x000b, []byte{1, 0}}, extension{0x000a, prefixed(2, list(0x8a8a, 0x001d, 0x0017))},
		extension{0x0015, make([]byte, 4)}, extension{0xbaba, []byte{0}})
}

func TestJA4(t *testing.T) {
	h, ok := ParseClientHello(specified())
	if !ok || !h.Whole || h.SNI != "example.com" || h.ALPN != "h2" || h.Version != 0x0304 {
		t.Fatalf("%+v", h)
	}
	if got, want := h.JA4('t'), "t13d1516h2_8daaf6152771_e5627efa2ab1"; got != want {
		t.Errorf("%s, the specification says %s", got, want)
	}
	// Ends of ALPN names: first and last character, else of the hexadecimal form.
	for name, want := range map[string]string{"h2": "h2", "http/1.1": "h1", "": "00", "\xab": "ab", "\xab\xcd": "ad", "\x30\xab": "3b", "a": "aa"} {
		a, b := alpnEnds(name)
		if got := string([]byte{a, b}); got != want {
			t.Errorf("ALPN %q: %s, want %s", name, got, want)
		}
	}
	bare, _ := ParseClientHello(clientHello(0x0301, []uint16{0x002f})[:2+32+1+4+2])
	if got := bare.JA4('t'); got != "t10i010000_"+short([]byte("002f"))+"_000000000000" {
		t.Errorf("without extensions: %s", got)
	}
}

// The example of JA3's description: 769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0.
func TestJA3(t *testing.T) {
	h, ok := ParseClientHello(clientHello(769, []uint16{47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4},
		serverName("a"), extension{10, prefixed(2, list(23, 24, 25))}, extension{11, []byte{1, 0}}))
	if got, want := h.JA3(), "ada70206e40642a3e4461f35503241d5"; !ok || got != want {
		t.Errorf("%s, want %s", got, want)
	}
	h, _ = ParseClientHello(clientHello(769, []uint16{4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99})[:2+32+1+24+2])
	if got, want := h.JA3(), "de350869b8c85de67a350c8d186f11e6"; got != want {
		t.Errorf("without extensions: %s, want %s", got, want)
	}
}

func record(fragment []byte) []byte { return append([]byte{22, 3, 1}, prefixed(2, fragment)...) }

// However the message is cut into records, and the records into segments, it is put together.
func TestFirst(t *testing.T) {
	body := specified()
	message := append([]byte{TypeClientHello}, prefixed(3, body)...)
	for _, size := range []int{1, 2, 3, 5, 100, 1000} {
		var stream []byte
		for at := 0; at < len(message); at += size {
			stream = append(stream, record(message[at:min(at+size, len(message))])...)
		}
		for n := range len(stream) {
			_, _, whole, need, ok := First(stream[:n])
			if !ok || whole || need <= n || need > len(stream) {
				t.Fatalf("records of %d, %d of %d bytes: %v %v, needs %d", size, n, len(stream), ok, whole, need)
			}
		}
		kind, got, whole, _, ok := First(append(stream, "more"...))
		if !ok || !whole || kind != TypeClientHello || !bytes.Equal(got, body) {
			t.Errorf("records of %d: %v %v %d", size, ok, whole, kind)
		}
	}
}

// What is cut off is read as far as it goes, and has no fingerprint.
func TestCutHello(t *testing.T) {
	body := specified()
	named := false
	for n := range len(body) {
		h, _ := ParseClientHello(body[:n])
		if h.Whole && n > 2+32+1+2+32+2 {
			t.Errorf("%d bytes are whole", n)
		}
		named = named || h.SNI == "example.com"
	}
	if !named {
		t.Error("no name in any part")
	}
}

func TestServerHello(t *testing.T) {
	hello := func(extensions ...extension) []byte {
		b := append(list(0x0303), make([]byte, 32)...)
		b = append(b, 0, 0x13, 0x01, 0)
		var all []byte
		for _, e := range extensions {
			all = append(append(all, list(e.id)...), prefixed(2, e.body)...)
		}
		return append(b, prefixed(2, all)...)
	}
	for _, c := range []struct {
		body []byte
		want ServerHello
	}{
		{hello(extension{43, list(0x0304)}, extension{51, nil}), ServerHello{0x0304, ""}},
		{hello(alpn("http/1.1")), ServerHello{0x0303, "http/1.1"}},
		{hello()[:2+32+1+3], ServerHello{0x0303, ""}},
	} {
		if got, ok := ParseServerHello(c.body); !ok || got != c.want {
			t.Errorf("%+v, want %+v", got, c.want)
		}
	}
}

func FuzzHello(f *testing.F) {
	f.Add(record(append([]byte{TypeClientHello}, prefixed(3, specified())...)))
	f.Add(record(append([]byte{TypeServerHello}, prefixed(3, append(list(0x0303), make([]byte, 40)...))...)))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, body, _, _, _ := First(b)
		for _, b := range [][]byte{b, body} {
			if h, ok := ParseClientHello(b); ok {
				if a, b := h.JA3(), h.JA4('t'); h.Whole != (a != "") || h.Whole != (b != "") {
					t.Error(a, b)
				}
			}
			ParseServerHello(b)
		}
	})
}
