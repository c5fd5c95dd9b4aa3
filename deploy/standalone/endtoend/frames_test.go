package endtoend

import (
	"reflect"
	"testing"
	"time"

	"github.com/tapweave/tapweave/collector/decode"
	"github.com/tapweave/tapweave/proto/conversation"
	"github.com/tapweave/tapweave/proto/packet"
)

// TestFrames decodes the frames of traffic that was written together with its description.
func TestFrames(t *testing.T) {
	c := decode.DefaultConfiguration()
	c.Payload = true
	d := decode.New(c)
	for seed := range uint64(20) {
		traffic := conversation.New(conversation.Options{Seed: seed, Start: time.Unix(1e9, 0), Conversations: 20, Span: time.Minute})
		for _, p := range traffic.Packets {
			frame := p.Frame()
			if r := d.Frame(p.Time, decode.LinkEthernet, frame, len(frame)); r != decode.OK {
				t.Fatalf("seed %d, %v, %v: %v", seed, p.Conversation, p, r)
			}
			want, got := p.Packet, d.Packet
			if p.Fragment != 0 {
				want.Checksum, got.Checksum = 0, 0 // a digest of the decoder's own making
				want.Data, got.Data = nil, nil
			}
			if len(want.Data) == 0 {
				want.Data = nil
			}
			if len(got.Data) == 0 {
				got.Data = nil
			}
			if len(want.Head) == 0 || p.Flow.Protocol == packet.ProtoTCP {
				want.Head = nil
			}
			if len(got.Head) == 0 {
				got.Head = nil
			}
			if !reflect.DeepEqual(want, got) || p.Flow != d.Flow {
				t.Fatalf("seed %d, %v, %v:\n%+v %+v\nwant\n%+v %+v", seed, p.Conversation, p, d.Flow, got, p.Flow, want)
			}
		}
	}
}
