package capture

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/tapweave/tapweave/collector/decode"
	"github.com/tapweave/tapweave/proto/capturetest"
)

// all reads a capture to its end. The error is nil if that is a clean one.
func all(r *Reader) (list []Record, err error) {
	for {
		rec, err := r.Next()
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		rec.Data = bytes.Clone(rec.Data)
		list = append(list, rec)
	}
}

func open(tb testing.TB, name string) *Reader {
	tb.Helper()
	r, err := Open(name)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { r.Close() })
	return r
}

// TestShared reads every shared capture in full, and compares each record with what pcapgo reads.
func TestShared(t *testing.T) {
	for _, name := range capturetest.Files(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			got, err := all(open(t, name))
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(capturetest.Truth(name))
			if err != nil {
				t.Fatal(err)
			}
			var truth struct {
				Frames struct {
					Total    int    `json:"total"`
					Captured int    `json:"bytes_captured"`
					First    string `json:"first_ts"`
				} `json:"frames"`
			}
			if err := json.Unmarshal(b, &truth); err != nil {
				t.Fatal(err)
			}
			sum := 0
			for _, r := range got {
				sum += len(r.Data)
			}
			if len(got) != truth.Frames.Total || sum != truth.Frames.Captured {
				t.Errorf("%d frames, %d bytes, want %d and %d", len(got), sum, truth.Frames.Total, truth.Frames.Captured)
			}
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var judge interface {
				ReadPacketData() ([]byte, gopacket.CaptureInfo, error)
				LinkType() layers.LinkType
			}
			if filepath.Ext(name) == ".pcapng" {
				judge, err = pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
			} else {
				judge, err = pcapgo.NewReader(f)
			}
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range got {
				data, info, err := judge.ReadPacketData()
				if err != nil {
					t.Fatalf("record %d: pcapgo: %v", i+1, err)
				}
				if !bytes.Equal(r.Data, data) || r.Time != info.Timestamp.UnixNano() || r.Original != info.Length || r.Link != decode.LinkType(judge.LinkType()) {
					t.Fatalf("record %d: %d bytes of %d at %d on link %d, pcapgo has %d of %d at %d", i+1, len(r.Data), r.Original, r.Time, r.Link, len(data), info.Length, info.Timestamp.UnixNano())
				}
			}
		})
	}
}

// pcap writes a capture file.
func pcap(order binary.AppendByteOrder, magic, link uint32, records ...[]byte) []byte {
	b := order.AppendUint32(nil, magic)
	b = order.AppendUint32(b, 0)
	order.(binary.ByteOrder).PutUint16(b[4:], 2)
	order.(binary.ByteOrder).PutUint16(b[6:], 4)
	for _, v := range []uint32{0, 0, 10, link} {
		b = order.AppendUint32(b, v)
	}
	for i, r := range records {
		for _, v := range []uint32{uint32(1000 + i), 123456, uint32(len(r)), uint32(len(r) + 5)} {
			b = order.AppendUint32(b, v)
		}
		b = append(b, r...)
	}
	return b
}

func TestPcap(t *testing.T) {
	one, two := []byte("first frame, longer than the snap length"), []byte{}
	for _, c := range []struct {
		order binary.AppendByteOrder
		magic uint32
		frac  int64
	}{
		{binary.LittleEndian, 0xa1b2c3d4, 123456000},
		{binary.BigEndian, 0xa1b2c3d4, 123456000},
		{binary.LittleEndian, 0xa1b23c4d, 123456},
		{binary.BigEndian, 0xa1b23c4d, 123456},
	} {
		r, err := NewReader("x", bytes.NewReader(pcap(c.order, c.magic, 0x10000114, one, two)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := all(r)
		if err != nil || len(got) != 2 {
			t.Fatalf("%d records, %v", len(got), err)
		}
		for i, want := range [][]byte{one, two} {
			g := got[i]
			if !bytes.Equal(g.Data, want) || g.Time != int64(1000+i)*1e9+c.frac || g.Original != len(want)+5 || g.Link != decode.LinkLinuxSLL2 {
				t.Errorf("%v %#x: record %d: %+v", c.order, c.magic, i, g)
			}
		}
	}
}

// block writes a pcapng block.
func block(order binary.AppendByteOrder, kind uint32, body []byte) []byte {
	for len(body)%4 != 0 {
		body = append(body, 0)
	}
	b := order.AppendUint32(nil, kind)
	b = order.AppendUint32(b, uint32(len(body)+12))
	b = append(b, body...)
	return order.AppendUint32(b, uint32(len(body)+12))
}

func words(order binary.AppendByteOrder, v ...uint32) (b []byte) {
	for _, w := range v {
		b = order.AppendUint32(b, w)
	}
	return b
}

func section(order binary.AppendByteOrder) []byte {
	b := words(order, 0x1a2b3c4d, 0, 0xffffffff, 0xffffffff)
	order.(binary.ByteOrder).PutUint16(b[4:], 1)
	return block(order, sectionHeader, b)
}

func description(order binary.AppendByteOrder, link uint16, snap uint32, options ...[]byte) []byte {
	b := order.AppendUint16(order.AppendUint16(nil, link), 0)
	b = order.AppendUint32(b, snap)
	return block(order, interfaceDescription, append(b, bytes.Join(options, nil)...))
}

func option(order binary.AppendByteOrder, code uint16, value ...byte) []byte {
	b := order.AppendUint16(order.AppendUint16(nil, code), uint16(len(value)))
	for b = append(b, value...); len(b)%4 != 0; {
		b = append(b, 0)
	}
	return b
}

func enhanced(order binary.AppendByteOrder, n uint32, stamp uint64, data string) []byte {
	b := words(order, n, uint32(stamp>>32), uint32(stamp), uint32(len(data)), uint32(len(data)+1))
	return block(order, enhancedPacket, append(b, data...))
}

func TestPcapNG(t *testing.T) {
	le, be := binary.LittleEndian, binary.BigEndian
	old := words(be, 0x00010000, 0, 3e9, 3, 30)
	file := slices.Concat(
		section(le),
		description(le, 1, 0),
		description(le, 276, 0, option(le, optionName, 'e', 't', 'h', '1'), option(le, optionResolution, 9), option(le, optionEnd)),
		description(le, 101, 0, option(le, optionName, 'w', 'l', 'a', 'n', '0', 0), option(le, optionResolution, 0x80|10), option(le, optionOffset, le.AppendUint64(nil, 1000)...)),
		block(le, 4, bytes.Repeat([]byte{1}, 3000)), // name resolution
		enhanced(le, 0, 5_000_001, "one"),
		enhanced(le, 1, 5_000_000_001, "two"),
		enhanced(le, 2, 5<<10|512, "three"),
		section(be),
		description(be, 113, 0),
		description(be, 113, 0, option(be, optionResolution, 12)),
		block(be, simplePacket, append(words(be, 4), "four"...)),
		block(be, obsoletePacket, append(old, "five"...)),
		enhanced(be, 0, 1<<63, "six"),
	)
	want := []struct {
		data string
		time int64
		link decode.LinkType
		n    int
		orig int
		name string
	}{
		{"one", 5_000_001_000, 1, 0, 4, ""},
		{"two", 5_000_000_001, 276, 1, 4, "eth1"},
		{"three", 1005_500_000_000, 101, 2, 6, "wlan0"},
		{"four", 0, 113, 0, 4, ""},
		{"fiv", 3e9 / 1000, 113, 1, 30, ""},
		{"six", lastSecond*1e9 + (1<<63%1_000_000)*1000, 113, 0, 4, ""},
	}
	r, err := NewReader("x", bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	got, err := all(r)
	if err != nil || len(got) != len(want) {
		t.Fatalf("%d records, %v", len(got), err)
	}
	for i, w := range want {
		g := got[i]
		if string(g.Data) != w.data || g.Time != w.time || g.Link != w.link || g.Interface != w.n || g.Name != w.name || g.Original != w.orig {
			t.Errorf("%+v %q, want %+v", g, g.Data, w)
		}
	}
}

// TestWritten reads back what pcapgo writes.
func TestWritten(t *testing.T) {
	when := time.Date(2024, 5, 6, 7, 8, 9, 123456789, time.UTC)
	info := gopacket.CaptureInfo{Timestamp: when, CaptureLength: 5, Length: 9}
	var plain, ng bytes.Buffer
	w := pcapgo.NewWriterNanos(&plain)
	n, err := pcapgo.NewNgWriter(&ng, layers.LinkTypeEthernet)
	if err := errors.Join(err, w.WriteFileHeader(100, layers.LinkTypeEthernet), w.WritePacket(info, []byte("hello")), n.WritePacket(info, []byte("hello")), n.Flush()); err != nil {
		t.Fatal(err)
	}
	for _, b := range []*bytes.Buffer{&plain, &ng} {
		r, err := NewReader("x", b)
		if err != nil {
			t.Fatal(err)
		}
		got, err := all(r)
		if err != nil || len(got) != 1 || got[0].Time != when.UnixNano() || string(got[0].Data) != "hello" || got[0].Original != 9 {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

func packed(b []byte, w io.WriteCloser, buf *bytes.Buffer) []byte {
	w.Write(b)
	w.Close()
	return buf.Bytes()
}

func TestCompressed(t *testing.T) {
	plain := pcap(binary.LittleEndian, 0xa1b2c3d4, 1, []byte("hello"), bytes.Repeat([]byte("x"), 100000))
	var g, z bytes.Buffer
	zw, err := zstd.NewWriter(&z)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"gzip": packed(plain, gzip.NewWriter(&g), &g), "zstd": packed(plain, zw, &z)} {
		r, err := NewReader("x", bytes.NewReader(b))
		if err != nil {
			t.Fatal(name, err)
		}
		if got, err := all(r); err != nil || len(got) != 2 || string(got[0].Data) != "hello" {
			t.Errorf("%s: %d records, %v", name, len(got), err)
		}
		r.Close()
		r, err = NewReader("x", bytes.NewReader(b[:len(b)-9]))
		if err == nil {
			_, err = all(r)
		}
		if !errors.Is(err, ErrCutShort) {
			t.Errorf("%s, cut: %v", name, err)
		}
	}
}

// TestErrors wants one line that names the file and, behind its beginning, the byte.
func TestErrors(t *testing.T) {
	le := binary.LittleEndian
	good := pcap(le, 0xa1b2c3d4, 1, []byte("hello"), []byte("world"))
	ng := slices.Concat(section(le), description(le, 1, 0), enhanced(le, 0, 1, "hello"))
	with := func(more ...[]byte) []byte { return slices.Concat(ng, slices.Concat(more...)) }
	absurd := bytes.Clone(good)
	le.PutUint32(absurd[24+21+8:], 0xfffffff0)
	for _, c := range []struct {
		name string
		file []byte
		read int
		want error
		text string
	}{
		{"empty", nil, 0, ErrNotCapture, "it is empty"},
		{"two bytes", []byte("ab"), 0, ErrNotCapture, "only 2 bytes"},
		{"text", []byte("hello, world"), 0, ErrNotCapture, "68 65 6c 6c"},
		{"version", []byte("\xd4\xc3\xb2\xa1\x03\x00\x04\x00                "), 0, ErrNotCapture, "pcap version 3"},
		{"gzip of nothing", []byte{0x1f, 0x8b, 0, 0}, 0, ErrNotCapture, ""},
		{"file header", good[:20], 0, ErrCutShort, "file header at byte 0: cut short: 20 of at least 24"},
		{"record header", good[:24+21+3], 1, ErrCutShort, "record 2 at byte 45: cut short: 3 of at least 16"},
		{"record", good[:24+21+18], 1, ErrCutShort, "record 2 at byte 45: cut short: 18 of at least 21"},
		{"length", absurd, 1, ErrCorrupt, "record 2 at byte 45: corrupt: it says that it has 4294967280 bytes"},
		{"block cut", ng[:len(ng)-1], 0, ErrCutShort, "record 1 at byte 48"},
		{"skipped block cut", with(block(le, 4, make([]byte, 100))[:50]), 1, ErrCutShort, "record 2 at byte 88"},
		{"block length", with(words(le, 6, 33, 0)), 1, ErrCorrupt, "at byte 88: corrupt: a block of type 6 says that it has 33 bytes"},
		{"block too long", with(words(le, 6, 1<<30, 0)), 1, ErrCorrupt, "1073741824 bytes"},
		{"lengths differ", with(words(le, 6, 12, 16)), 1, ErrCorrupt, "ends with the length 16"},
		{"byte order", with(words(le, sectionHeader, 28, 5, 5, 5, 5, 28)), 1, ErrCorrupt, "byte order"},
		{"section header", with(block(le, sectionHeader, words(le, 0x1a2b3c4d))), 1, ErrCorrupt, "section header of 4 bytes"},
		{"section version", with(block(le, sectionHeader, words(le, 0x1a2b3c4d, 2, 0, 0))), 1, ErrNotCapture, "pcapng version 2 at byte 88"},
		{"interface", with(block(le, interfaceDescription, nil)), 1, ErrCorrupt, "interface description of 0 bytes"},
		{"option", with(description(le, 1, 0, []byte{2, 0, 9, 0})), 1, ErrCorrupt, "option 2"},
		{"resolution", with(description(le, 1, 0, option(le, optionResolution, 20))), 1, ErrCorrupt, "time resolution 0x14"},
		{"binary resolution", with(description(le, 1, 0, option(le, optionResolution, 0xc0))), 1, ErrCorrupt, "time resolution 0xc0"},
		{"packet block", with(block(le, enhancedPacket, make([]byte, 16))), 1, ErrCorrupt, "packet block of 16 bytes"},
		{"interface number", with(enhanced(le, 1, 0, "")), 1, ErrCorrupt, "interface 1 of 1"},
		{"captured", with(block(le, enhancedPacket, words(le, 0, 0, 0, 5, 5, 0))), 1, ErrCorrupt, "5 bytes captured in a block of 36"},
		{"simple without interface", slices.Concat(section(le), block(le, simplePacket, words(le, 0))), 0, ErrCorrupt, "0 interfaces"},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "x.pcap")
			if err := os.WriteFile(name, c.file, 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := Open(name)
			var got []Record
			if err == nil {
				got, err = all(r)
				r.Close()
			}
			if !errors.Is(err, c.want) || len(got) != c.read || !strings.HasPrefix(err.Error(), name+": ") || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%d records, %v; want %d, %v, %q", len(got), err, c.read, c.want, c.text)
			}
		})
	}
	dir := t.TempDir()
	if _, err := Open(dir); !errors.Is(err, ErrNotCapture) || !strings.Contains(err.Error(), dir) {
		t.Error(err)
	}
	if _, err := Open(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// TestStdin reads "-".
func TestStdin(t *testing.T) {
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		out.Write(pcap(binary.LittleEndian, 0xa1b2c3d4, 1, []byte("hello")))
		out.Close()
	}()
	old := os.Stdin
	os.Stdin = in
	defer func() { os.Stdin = old }()
	if got, err := all(open(t, "-")); err != nil || len(got) != 1 {
		t.Errorf("%d records, %v", len(got), err)
	}
}

func FuzzCapture(f *testing.F) {
	for _, name := range capturetest.Files(f) {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:min(len(b), 4000)])
	}
	f.Add(slices.Concat(section(binary.BigEndian), description(binary.BigEndian, 1, 0, option(binary.BigEndian, optionResolution, 0x8a)), enhanced(binary.BigEndian, 0, 1, "x")))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewReader("x", bytes.NewReader(b))
		if err != nil {
			return
		}
		defer r.Close()
		for n := 0; ; n++ {
			rec, err := r.Next()
			if err != nil {
				if _, again := r.Next(); again != err {
					t.Errorf("%v, then %v", err, again)
				}
				return
			}
			if len(rec.Data) > bufferSize || rec.Original < 0 {
				t.Errorf("record of %d bytes, originally %d", len(rec.Data), rec.Original)
			}
			if n > 1<<16 {
				return // a small file that unpacks to a large one
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	name := filepath.Join(filepath.Dir(capturetest.Files(b)[0]), "zeek__echo-connections.pcap")
	file, err := os.ReadFile(name)
	if err != nil {
		b.Fatal(err)
	}
	run := func(name string, f func() int) {
		b.Run(name, func(b *testing.B) {
			packets := 0
			for b.Loop() {
				packets += f()
			}
			b.ReportMetric(float64(packets)/b.Elapsed().Seconds(), "packets/s")
		})
	}
	run("own", func() (n int) {
		r, err := NewReader("x", bytes.NewReader(file))
		for ; err == nil; n++ {
			_, err = r.Next()
		}
		return n - 1
	})
	run("pcapgo", func() (n int) {
		r, err := pcapgo.NewReader(bytes.NewReader(file))
		for ; err == nil; n++ {
			_, _, err = r.ZeroCopyReadPacketData()
		}
		return n - 1
	})
}
