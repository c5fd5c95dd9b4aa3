package quic

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/tapweave/tapweave/enricher/application/tls"
)

// The client's first CRYPTO frame of RFC 9001, appendix A.2, and RFC 9369, appendix A.2.
const vectorFrames = "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c00000413011302010000c00000" +
	"0010000e00000b6578616d706c652e636f6dff01000100000a00080006001d0017001800100007000504616c706e000500050100000000003300260024001d00" +
	"209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b0003020304000d0010000e0403050306030203080408050806002d0002" +
	"0101001c00024001003900320408ffffffffffffffff05048000ffff07048000ffff0801100104800075300901100f088394c8f03e51570806048000ffff"

// vectors are the same packet in both versions: its header, and how it begins and ends once it is protected.
var vectors = []struct {
	name                 string
	version              uint32
	header, begins, ends string
}{
	{"RFC 9001, A.2", Version1, "c300000001088394c8f03e5157080000449e00000002",
		"c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11",
		"7e78bfe706ca4cf5e9c5453e9f7cfd2b8b4c8d169a44e55c88d4a9a7f9474241e221af44860018ab0856972e194cd934"},
	{"RFC 9369, A.2", Version2, "d36b3343cf088394c8f03e5157080000449e00000002",
		"d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6abcdb4298b485",
		"6f4c4938ae79324dc402894b44faf8afbab35282ab659d13c93f70412e85cb199a37ddec600545473cfb5a05e08d0b209973b2172b4d21fb69745a262ccde96ba18b2faa745b6fe189cf772a9f84cbfc"},
}

// unhex reads hexadecimal digits.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// seal protects an Initial packet of a client; the last bytes of the header are the packet number.
func seal(t testing.TB, version uint32, id, header, frames []byte, number uint64, numberBytes int) []byte {
	t.Helper()
	k, ok := clientKeys(version, id)
	if !ok {
		t.Fatal("no keys")
	}
	nonce := bytes.Clone(k.iv)
	for i := range 8 {
		nonce[len(nonce)-1-i] ^= byte(number >> (8 * i))
	}
	p := k.aead.Seal(bytes.Clone(header), nonce, frames, header)
	at := len(header) - numberBytes
	var mask [16]byte
	k.header.Encrypt(mask[:], p[at+4:at+20])
	p[0] ^= mask[0] & 0x0f
	for i := range numberBytes {
		p[at+i] ^= mask[1+i]
	}
	return p
}

func vector(t testing.TB, i int) []byte {
	v := vectors[i]
	frames := unhex(t, vectorFrames)
	frames = append(frames, make([]byte, 1162-len(frames))...)
	return seal(t, v.version, unhex(t, "8394c8f03e515708"), unhex(t, v.header), frames, 2, 4)
}

func TestVectors(t *testing.T) {
	for i, v := range vectors {
		p := vector(t, i)
		if len(p) != 1200 || !bytes.HasPrefix(p, unhex(t, v.begins)) || !bytes.HasSuffix(p, unhex(t, v.ends)) {
			t.Fatalf("%s: the keys give another packet:\n%x", v.name, p)
		}
		var q Hello
		if !q.Datagram(p, len(p)) {
			t.Fatalf("%s: does not open", v.name)
		}
		body, whole, ok := q.Message()
		if !whole || !ok {
			t.Fatalf("%s: no message", v.name)
		}
		h, ok := tls.ParseClientHello(body)
		if !ok || !h.Whole || h.SNI != "example.com" || h.ALPN != "alpn" || h.Version != 0x0304 {
			t.Errorf("%s: %+v", v.name, h)
		}
		if got := h.JA4('q'); got[:10] != "q13d0211an" {
			t.Errorf("%s: JA4 %s", v.name, got)
		}
		p[600] ^= 1
		if q = (Hello{}); q.Datagram(p, len(p)) {
			t.Errorf("%s: a packet that was changed opens", v.name)
		}
	}
}

// The stream may be spread over packets in any order, and packets may share a datagram.
func TestSplitCrypto(t *testing.T) {
	id := unhex(t, "8394c8f03e515708")
	hello := unhex(t, vectorFrames)[4:]
	packet := func(number byte, from, to int) []byte {
		frames := []byte{0, 1} // PADDING, PING
		frames = append(frames, 2, 0, 0, 0, 0)
		frames = append(frames, 6, 0x40|byte(from>>8), byte(from), 0x40|byte((to-from)>>8), byte(to-from))
		frames = append(frames, hello[from:to]...)
		frames = append(frames, make([]byte, 20)...)
		length := 1 + len(frames) + 16
		header := append([]byte{0xc0, 0, 0, 0, 1, 8}, id...)
		header = append(header, 0, 0, 0x40|byte(length>>8), byte(length), number)
		return seal(t, Version1, id, header, frames, uint64(number), 1)
	}
	a, b, c := packet(0, 0, 80), packet(1, 60, 150), packet(2, 150, len(hello))
	for _, order := range [][][]byte{{a, b, c}, {c, b, a}, {b, a, c}, {a, a, c, b}, {append(bytes.Clone(a), b...), c}, {append(append(bytes.Clone(c), b...), a...)}} {
		var q Hello
		for i, d := range order {
			_, whole, _ := q.Message()
			if whole {
				t.Errorf("whole after %d of %d", i, len(order))
			}
			if !q.Datagram(d, len(d)) {
				t.Fatal("does not open")
			}
		}
		body, whole, ok := q.Message()
		if !ok || !whole || !bytes.Equal(body, hello[4:]) {
			t.Errorf("%v %v %x", ok, whole, body)
		}
	}
}

// A Retry makes the client derive other keys: from the connection ID that it is to use from then on.
func TestRetry(t *testing.T) {
	first := vector(t, 0)
	var q Hello
	if !q.Datagram(first[:1200], 1200) {
		t.Fatal("does not open")
	}
	id := []byte{1, 2, 3, 4}
	frames := append(unhex(t, vectorFrames), make([]byte, 800)...)
	length := 1 + len(frames) + 16
	header := append([]byte{0xc0, 0, 0, 0, 1, 4}, id...)
	header = append(header, 0, 5, 't', 'o', 'k', 'e', 'n', 0x40|byte(length>>8), byte(length), 7)
	second := seal(t, Version1, id, header, frames, 7, 1)
	if !q.Datagram(second, len(second)) || !bytes.Equal(q.ID, id) {
		t.Error("a packet behind a Retry does not open")
	}
}

func FuzzDatagram(f *testing.F) {
	for i := range vectors {
		f.Add(vector(f, i), vector(f, i)[:300])
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var q Hello
		q.Datagram(a, len(a))
		q.Datagram(b, len(b)+100)
		q.frames(a) // what lies behind the encryption is foreign too
		q.frames(b)
		if body, _, ok := q.Message(); ok {
			tls.ParseClientHello(body)
		}
		if len(q.Crypto) > MaxCrypto || len(q.Have) > maxRanges {
			t.Errorf("%d bytes, %d ranges", len(q.Crypto), len(q.Have))
		}
	})
}
