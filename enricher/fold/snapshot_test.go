package fold

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/tapweave/tapweave/enricher/labels"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
)

// derived are the fields of the state that are not saved, each with what it follows from.
var derived = map[string]string{
	"Fold.out":             "given to Load",
	"Fold.producers":       "spoken",
	"Fold.nameIndex":       "names",
	"Session.fold":         "the fold it is in",
	"Session.hash":         "key",
	"Session.chain":        "the order of the table",
	"extra.older":          "the order of the table",
	"extra.newer":          "the order of the table",
	"Session.prev":         "the order of the table",
	"Session.next":         "the order of the table",
	"Session.timer":        "the timers",
	"Session.gone":         "those in the table are not",
	"table.buckets":        "the sessions in their order",
	"table.keys":           "the sessions in their order",
	"table.first":          "saved as a list; the test goes on with its sessions",
	"table.unanswered":     "what is answered stays so",
	"table.last":           "the sessions in their order",
	"table.count":          "the sessions in their order",
	"table.touched":        "of no meaning",
	"merger.free":          "spare",
	"merger.waiting":       "the batches",
	"merger.group":         "empty between records",
	"merger.done":          "empty between records",
	"merger.broken":        "empty between records",
	"merger.order":         "scratch",
	"cursor.decoded":       "columns and the serial number of the first reference",
	"extra.long":           "the lists are saved as such",
	"path.taps":            "the lists are saved as such",
	"path.collectors":      "the lists are saved as such",
	"path.vnis":            "the lists are saved as such",
	"path.outerPorts":      "the lists are saved as such",
	"ref.s":                "found by the key",
	"ref.met":              "noted again",
	"ref.counted":          "noted again",
	"ref.strange":          "the flow; what is strange is not kept",
	"Fold.clocks":          "scratch",
	"Fold.fresh":           "scratch",
	"copies.tail":          "head and the number of sightings",
	"copies.asked":         "of the packet being folded",
	"copies.buckets":       "ring",
	"copies.linked":        "buckets are made anew",
	"sighting.before":      "buckets",
	"copies.datagrams":     "saved with the datagrams",
	"taps.index":           "lists, and depths that are saved beside",
	"taps.lists":           "saved as deep as each is; the first is always empty",
	"taps.depth":           "lists",
	"fragments.open":       "saved as a list; the test goes on with its datagrams",
	"fragments.head":       "saved as a list; the test goes on with its datagrams",
	"fragments.tail":       "the datagrams in their order",
	"fragments.due":        "the first of the datagrams",
	"datagram.next":        "the datagrams in their order",
	"datagram.prev":        "the datagrams in their order",
	"datagram.session":     "saved by its number",
	"payloadLog.pages":     "the entries that sessions can come to",
	"timer.s":              "saved by its number",
	"packet.Flow.VLANs":    "as many as NVLANs says",
	"packet.Flow.Carriers": "as many as NCarriers says",
	"http2.Side.decoder":   "the header blocks",
	"http2.Side.message":   "scratch",
	"sighting.taps":        "as many as ntaps says",
	"labelling.source":     "given to Label",
	"labelling.set":        "fetched by its name",
	"labelling.cache":      "looked up again",
	"labelling.cached":     "the cache",
	"watched.of":           "the list",
	"watched.list":         "saved but for what has ended; the test goes on with what is in it",
}

// lived returns a fold with something in each part of its state.
func lived(t testing.TB) *Fold {
	b := newBench(t, func(s *Settings) { s.Packets = true })
	mark := func(b byte) func(*packet.Flow, *packet.Packet) {
		return func(f *packet.Flow, p *packet.Packet) {
			f.NVLANs, f.VLANs[0] = 1, 7
			p.Data = bytes.Repeat([]byte{b}, int(p.Payload))
		}
	}
	piece := func(more bool, offset uint16) func(*packet.Flow, *packet.Packet) {
		return func(f *packet.Flow, p *packet.Packet) {
			f.Protocol, f.SrcPort, f.DstPort = packet.ProtoUDP, 0, 0
			p.ID, p.FragmentOffset, p.Fragment, p.Payload, p.Length = 5, offset, packet.IsFragment, 64, 84
			p.Head = make([]byte, 64)
			if offset > 0 {
				p.ID++
			}
			if more {
				p.Fragment |= packet.MoreFragments
			}
		}
	}
	b.send("one", 0, pk{at: 0, from: "a/1", flags: "S", seq: 100},
		pk{at: 1 * time.Millisecond, from: "b/1", flags: "S.", seq: 500, ack: 101},
		pk{at: 2 * time.Millisecond, from: "a/1", flags: ".", seq: 101, ack: 501},
		pk{at: 2 * time.Millisecond, from: "a/2", flags: ".", seq: 101, ack: 501},
		pk{at: 3 * time.Millisecond, from: "a/1", flags: "P.", seq: 101, ack: 501, n: 10, mod: mark(1)},
		pk{at: 4 * time.Millisecond, from: "a/1", flags: "P.", seq: 131, ack: 501, n: 10, mod: mark(2)},
		pk{at: 5 * time.Millisecond, from: "a/1", flags: "S", seq: 90000},
		pk{at: 6 * time.Millisecond, from: "a/1", mod: piece(true, 0)},
		pk{at: 7 * time.Millisecond, from: "a/1", mod: piece(true, 64)})
	b.send("two", 100*time.Millisecond)
	b.tick(3, 0)
	b.tick(3, time.Second)
	b.send("one", 6500*time.Microsecond, pk{at: 6 * time.Millisecond, from: "a/1", n: 3}, pk{at: 200 * time.Millisecond, from: "b/1", n: 4})
	b.send("one", 7500*time.Microsecond, pk{at: 300 * time.Millisecond, from: "b/1", n: 4})
	f := b.f
	f.labelling.named.parts = []namedPart{{digest: []byte{1}, partition: 2, offset: 3}}
	f.scans.add(scanPair{tenant: "t"}, &scan{pair: scanPair{tenant: "t"}, since: 5, ports: []uint16{6}})
	f.prints.add(printServer{tenant: "t"}, &prints{server: printServer{tenant: "t"}, since: 5, known: []string{"x"}})
	one, other := &labels.End{Network: labels.Network{Name: "one", Labels: []string{"a=b"}}}, &labels.End{Threat: &labels.Threat{Name: "x"}}
	f.table.first.labels = &labelled{ends: [2]*labels.End{one, other}}
	f.table.last.labels = &labelled{ends: [2]*labels.End{other, other}, asked: &labels.Threat{Name: "x"}}
	return f
}

func saved(t testing.TB, f *Fold) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := f.Save(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Every field of every struct that a fold reaches is saved, or follows from others and is in the list.
func TestEveryFieldIsSaved(t *testing.T) {
	f := lived(t)
	w := &walker{t: t, f: f, base: saved(t, f), seen: map[string]bool{}}
	w.value("Fold", reflect.ValueOf(f).Elem())
	w.value("Session", reflect.ValueOf(f.table.first).Elem())
	w.value("scan", reflect.ValueOf(f.scans.list[0]).Elem())
	w.value("prints", reflect.ValueOf(f.prints.list[0]).Elem())
	w.value("datagram", reflect.ValueOf(f.fragments.head).Elem())
	w.value("ref", reflect.ValueOf(&f.fragments.head.refs[0]).Elem())
	w.value("sighting.taps", reflect.ValueOf(&f.copies.at(f.copies.head).taps[0]).Elem())
	w.value("packet.Flow.VLANs", reflect.ValueOf(&f.table.first.held.packets[0].r.flow.Carriers[0]).Elem())
	for name := range derived {
		if !w.seen[name] {
			t.Errorf("listed as derived, but not there any more: %s", name)
		}
	}
}

// walker changes one value after another and looks whether that changes the snapshot.
type walker struct {
	t    *testing.T
	f    *Fold
	base []byte
	seen map[string]bool
}

func (w *walker) value(name string, v reflect.Value) {
	v = reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem() // unexported fields can be set then
	was := reflect.New(v.Type()).Elem()
	was.Set(v)
	defer v.Set(was)
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			kind := v.Type().String()
			if v.Type().Name() != "" {
				kind, _, _ = strings.Cut(kind, "[") // without the types that it is made for
			}
			field := strings.TrimPrefix(kind, "fold.") + "." + v.Type().Field(i).Name
			if derived[field] != "" {
				w.seen[field] = true
				continue
			}
			if !w.seen[field] {
				w.seen[field] = true
				w.value(field, v.Field(i))
			}
		}
		return
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		w.value(name, v.Elem())
		return
	case reflect.Slice:
		if v.Len() == 0 {
			v.Set(reflect.Append(v, reflect.New(v.Type().Elem()).Elem()))
			w.differs(name)
		}
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.Set(reflect.ValueOf(append(slices.Clone(v.Bytes()), 1)).Convert(v.Type()))
			w.differs(name)
			return
		}
		w.value(name, v.Index(0))
		return
	case reflect.Array:
		w.value(name, v.Index(0))
		w.value(name, v.Index(v.Len()-1))
		return
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(v.Int() ^ 1)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(v.Uint() ^ 1)
	case reflect.Float32, reflect.Float64:
		v.SetFloat(v.Float() + 1)
	default:
		w.t.Errorf("%s is a %v: save it, or say in the list of this test what it follows from", name, v.Kind())
		return
	}
	w.differs(name)
}

func (w *walker) differs(name string) {
	w.t.Helper()
	defer func() {
		if r := recover(); r != nil {
			return // the value leads elsewhere: it was looked at
		}
	}()
	if bytes.Equal(saved(w.t, w.f), w.base) {
		w.t.Errorf("%s is not saved: name it in snapshot.go, or say in the list of this test what it follows from", name)
	}
}

// The state that is read is the one that was written.
func TestLoadedStateIsTheSame(t *testing.T) {
	f := lived(t)
	base := saved(t, f)
	g, older, err := Load(bytes.NewReader(base), home, newBench(t, nil))
	if err != nil || older {
		t.Fatal(older, err)
	}
	if !bytes.Equal(saved(t, g), base) {
		t.Error("it is saved to other bytes")
	}
	if g.Open() != f.Open() || g.Buffered() != f.Buffered() || g.Buffered() == 0 || len(g.fragments.open) != 2 || g.table.first.held == nil {
		t.Errorf("%d sessions, %d bytes waiting, %d datagrams", g.Open(), g.Buffered(), len(g.fragments.open))
	}
}

func TestLoadRefuses(t *testing.T) {
	base := saved(t, lived(t))
	var version *record.VersionError
	newer := append([]byte{SnapshotVersion + 1}, base[1:]...)
	if _, _, err := Load(bytes.NewReader(newer), home, nil); !errors.As(err, &version) {
		t.Errorf("a newer form: %v", err)
	}
	newer = append([]byte{base[0], Version + 1}, base[2:]...)
	if _, _, err := Load(bytes.NewReader(newer), home, nil); !errors.As(err, &version) {
		t.Errorf("a newer fold: %v", err)
	}
	if _, _, err := Load(bytes.NewReader(base), 1, nil); !errors.Is(err, ErrSnapshot) {
		t.Errorf("another partition's: %v", err)
	}
	for n := range len(base) {
		if _, _, err := Load(bytes.NewReader(base[:n]), home, nil); !errors.Is(err, ErrSnapshot) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	if _, _, err := Load(bytes.NewReader(append(base, 0)), home, nil); !errors.Is(err, ErrSnapshot) {
		t.Errorf("longer: %v", err)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(saved(f, lived(f)))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = slices.Clone(b)
		if len(b) > 2 {
			b[0], b[1] = SnapshotVersion, Version
		}
		g, _, err := Load(bytes.NewReader(b), home, new(nothing))
		if err != nil {
			return
		}
		if g.set.MaxDatagrams < 1 || g.set.MaxSessions < 1 {
			return // settings are checked by whoever loads
		}
		n := &bench{t: t, f: g, offset: 100, damaged: true, sequence: map[string]uint64{"one": 50, "two": 50}}
		for i := range 20 {
			at := time.Duration(i) * time.Second
			n.send("one", at, pk{at: at, from: "a/1", flags: "P.", seq: uint32(101 + i*100), ack: 501, n: 100})
			n.send("two", at, pk{at: at, from: "b/2", flags: "P.", seq: uint32(501 + i*100), ack: 101, n: 100})
		}
		n.record(&pb.PacketsRecord{Body: &pb.PacketsRecord_EndOfInput{EndOfInput: &pb.EndOfInput{}}})
	})
}

type nothing struct{}

func (*nothing) Session(*Session)                   {}
func (*nothing) Settled(int64, *Session)            {}
func (*nothing) Traffic(*Session, *columns.Traffic) {}
func (*nothing) Packet(*columns.Packet)             {}
func (*nothing) Alert(*columns.Alert)               {}
