package dns

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func name(s string) dnsmessage.Name { return dnsmessage.MustNewName(s) }

func question(n string, t dnsmessage.Type) dnsmessage.Question {
	return dnsmessage.Question{Name: name(n), Type: t, Class: dnsmessage.ClassINET}
}

func record(n string, body dnsmessage.ResourceBody) dnsmessage.Resource {
	return dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: name(n), Class: dnsmessage.ClassINET, TTL: 60}, Body: body}
}

func pack(t testing.TB, m dnsmessage.Message) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// answered is a response with a record of each type that has a text of its own, and one that has not.
func answered(t testing.TB) []byte {
	return pack(t, dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, Response: true, RCode: dnsmessage.RCodeSuccess},
		Questions: []dnsmessage.Question{question("www.example.", dnsmessage.TypeALL)},
		Answers: []dnsmessage.Resource{
			record("www.example.", &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}),
			record("www.example.", &dnsmessage.AAAAResource{AAAA: [16]byte{0x20, 1, 0x0d, 0xb8, 15: 1}}),
			record("www.example.", &dnsmessage.CNAMEResource{CNAME: name("other.example.")}),
			record("www.example.", &dnsmessage.NSResource{NS: name("ns.example.")}),
			record("www.example.", &dnsmessage.PTRResource{PTR: name("host.example.")}),
			record("www.example.", &dnsmessage.MXResource{Pref: 10, MX: name("mx.example.")}),
			record("www.example.", &dnsmessage.SRVResource{Priority: 1, Weight: 2, Port: 443, Target: name("srv.example.")}),
			record("www.example.", &dnsmessage.SOAResource{NS: name("ns.example."), MBox: name("root.example.")}),
			record("www.example.", &dnsmessage.TXTResource{TXT: []string{"v=spf1 ", "-all"}}),
			record("www.example.", &dnsmessage.UnknownResource{Type: 257, Data: []byte{0, 5}}),
		},
	})
}

func TestParse(t *testing.T) {
	b := answered(t)
	m, ok := Parse(b, len(b))
	want := []string{
		"192.0.2.1", "2001:db8::1", "other.example", "ns.example", "host.example", "10 mx.example", "1 2 443 srv.example",
		"ns.example root.example", "v=spf1 -all", `CAA \# 2 0005`,
	}
	if !ok || !m.Whole || !m.Response || m.ID != 7 || m.Name != "www.example" || m.Type != "ANY" || m.Rcode != "NOERROR" || !slices.Equal(m.Answers, want) {
		t.Errorf("%v %+v", ok, m)
	}
	// Names and codes that have no mnemonic are numbers.
	b = pack(t, dnsmessage.Message{Header: dnsmessage.Header{Response: true, RCode: 15}, Questions: []dnsmessage.Question{question(".", 4000)}})
	if m, ok = Parse(b, len(b)); !ok || m.Name != "." || m.Type != "TYPE4000" || m.Rcode != "RCODE15" {
		t.Errorf("%v %+v", ok, m)
	}
	for code, want := range map[dnsmessage.RCode]string{2: "SERVFAIL", 3: "NXDOMAIN", 5: "REFUSED"} {
		b = pack(t, dnsmessage.Message{Header: dnsmessage.Header{Response: true, RCode: code}, Questions: []dnsmessage.Question{question("a.", 1)}})
		if m, _ = Parse(b, len(b)); m.Rcode != want {
			t.Errorf("%d: %q, want %q", code, m.Rcode, want)
		}
	}
}

// Of what is cut off the question and the whole answers are read.
func TestCut(t *testing.T) {
	b := answered(t)
	last := 0
	for n := range b {
		m, ok := Parse(b[:n], len(b))
		if ok && (m.Name != "www.example" || m.Whole || len(m.Answers) < last) {
			t.Fatalf("%d of %d bytes: %+v", n, len(b), m)
		}
		last = len(m.Answers)
	}
	if last < 8 {
		t.Errorf("%d answers of the longest part", last)
	}
}

func TestNoMessage(t *testing.T) {
	q := pack(t, dnsmessage.Message{Questions: []dnsmessage.Question{question("a.example.", 1)}})
	change := func(at int, v byte) []byte {
		b := slices.Clone(q)
		b[at] = v
		return b
	}
	for what, b := range map[string][]byte{
		"nothing": {}, "a header": q[:12], "opcode 15": change(2, 0x78), "the bit that must be zero": change(3, 0x40),
		"a code in a query": change(3, 3), "256 questions": change(4, 1), "no question": change(5, 0), "a label that is too long": change(12, 70),
		"class 77": change(len(q)-1, 77), "type 0": change(len(q)-3, 0), "a name that points to itself": append(slices.Clone(q[:12]), 0xc0, 12, 0, 1, 0, 1),
		"text": []byte(strings.Repeat("no message ", 10)),
	} {
		if m, ok := Parse(b, len(b)); ok {
			t.Errorf("%s: %+v", what, m)
		}
	}
}

func TestNetBIOS(t *testing.T) {
	for n, want := range map[string]bool{
		"FHEPFCELEHFCEPFFFACACACACACACABN": true, "FHEPFCELEHFCEPFFFACACACACACACABN.EXAMPLE": true,
		"FHEPFCELEHFCEPFFFACACACACACACAB": false, "FHEPFCELEHFCEPFFFACACACACACACAXX": false, "www.example": false,
	} {
		if NetBIOS(n) != want {
			t.Errorf("%q: %v", n, !want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(answered(f), uint16(0))
	f.Add(pack(f, dnsmessage.Message{Questions: []dnsmessage.Question{question("_x._tcp.local.", 255)}}), uint16(100))
	f.Fuzz(func(t *testing.T, b []byte, more uint16) {
		m, ok := Parse(b, len(b)+int(more))
		if m.Whole && !ok {
			t.Error("whole, but no message")
		}
		if len(m.Answers) > MaxAnswers || len(m.Names) > 64 {
			t.Errorf("%d answers, %d names", len(m.Answers), len(m.Names))
		}
		for _, a := range m.Answers {
			if len(a) > 600 {
				t.Errorf("an answer of %d bytes", len(a))
			}
		}
	})
}
