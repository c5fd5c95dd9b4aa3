package labels_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/tapweave/tapweave/enricher/labels"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
)

// Whatever the bytes of a part, it is refused, or can be looked into.
func FuzzDecode(f *testing.F) {
	mapped := netip.MustParseAddr("::ffff:10.1.2.3").As16()
	for _, m := range []*pb.Labels{
		{Body: &pb.Labels_Networks{Networks: &pb.Networks{Networks: []*pb.Network{{Address: []byte{10, 0, 0, 0}, Bits: 8, Name: "x"}, {Tenant: "t", Address: make([]byte, 16), Bits: 0}}}}},
		{Body: &pb.Labels_Places{Places: &pb.Places{V4: []uint32{0, 5}, V4Place: []uint32{1, 0}, V6High: []uint64{1}, V6Low: []uint64{2}, V6Place: []uint32{1}, Places: []*pb.Place{{Country: "DE"}}}}},
		{Body: &pb.Labels_Threats{Threats: &pb.Threats{Kinds: []byte{3, 4}, Values: []byte("a.bb.c"), Ends: []uint32{3, 6}, Name: []uint32{0, 0}, Confidences: []byte{1, 2}, Expires: []uint32{0, 9}, Names: []string{"n"}}}},
		{Body: &pb.Labels_Threats{Threats: &pb.Threats{Kinds: []byte{1, 1, 2}, Values: append(append(mapped[:], make([]byte, 16)...), append(mapped[:15:15], 0, 120)...), Ends: []uint32{16, 32, 49},
			Name: []uint32{0, 0, 0}, Confidences: []byte{1, 2, 3}, Expires: []uint32{0, 9, 0}, Names: []string{"n"}}}},
	} {
		b, err := labels.Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, []byte{10, 1, 2, 3}, "x.a.b")
	}
	f.Fuzz(func(t *testing.T, b, address []byte, name string) {
		p, err := labels.Decode(b)
		if err != nil {
			var version *record.VersionError
			if !errors.Is(err, labels.ErrCorrupt) && !errors.As(err, &version) {
				t.Error(err)
			}
			return
		}
		set := labels.NewSet(p)
		a, _ := netip.AddrFromSlice(address)
		if !a.IsValid() {
			a = netip.IPv6Unspecified()
		}
		for _, at := range []int64{0, 10e9} {
			e, span := set.End("t", packet.Addr(a.As16()), at)
			if again, _ := set.End("t", packet.Addr(a.As16()), at); !span.Holds(at) || (e.Threat == nil) != (again.Threat == nil) {
				t.Errorf("%+v for %v", e, span)
			}
			if th := set.Threats(); th != nil {
				th.Name(name, at)
				th.Print(labels.JA4, name, at)
			}
		}
	})
}
