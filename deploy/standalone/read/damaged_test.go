package read

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/tapweave/tapweave/collector/decode"
	"github.com/tapweave/tapweave/collector/source/capture"
	"github.com/tapweave/tapweave/proto/capturetest"
)

// Every capture, with a byte of each of its frames flipped, with each frame cut somewhere, and with bytes of the file
// itself flipped, is read to its end, or to where the file says that it is damaged; what comes out is sessions, and every
// frame is in them or counted.
func TestDamaged(t *testing.T) {
	rounds := 4
	if testing.Short() {
		rounds = 1
	}
	for _, name := range capturetest.Files(t) {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(7, uint64(len(name))))
			dir := t.TempDir()
			read := func(file []byte) Result {
				t.Helper()
				path := filepath.Join(dir, "damaged")
				if err := os.WriteFile(path, file, 0o600); err != nil {
					t.Fatal(err)
				}
				o := DefaultOptions()
				o.Collectors = 1 + r.IntN(3)
				var out bytes.Buffer
				result, err := Run(o, []string{path}, &out)
				if err != nil {
					t.Fatal(err)
				}
				packets := uint64(0)
				for d := json.NewDecoder(&out); ; {
					var s struct {
						Src uint64 `json:"src_packets"`
						Dst uint64 `json:"dst_packets"`
					}
					if err := d.Decode(&s); err == io.EOF {
						break
					} else if err != nil {
						t.Fatal(err)
					}
					packets += s.Src + s.Dst
				}
				decoded := uint64(0)
				for _, n := range result.Decoded {
					decoded += n
				}
				if decoded != result.Frames || packets > result.Decoded[decode.OK] {
					t.Errorf("%d frames, %d decoded or refused, %d packets in sessions: %s", result.Frames, decoded, packets, &result)
				}
				return result
			}
			for round := range rounds {
				flipped := rewrite(t, name, func(b []byte) []byte {
					if len(b) > 0 {
						b[r.IntN(min(len(b), 160))] ^= byte(1 + r.IntN(255))
					}
					return b
				})
				cut := rewrite(t, name, func(b []byte) []byte { return b[:r.IntN(1+min(len(b), 200))] })
				for _, file := range [][]byte{flipped, cut} {
					if result := read(file); len(result.Damaged) > 0 {
						t.Errorf("round %d: %v", round, result.Damaged)
					}
				}
			}
			file, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			file = file[:min(len(file), 64<<10)]
			for range 8 * rounds {
				at := r.IntN(len(file))
				if r.IntN(3) == 0 {
					at = r.IntN(min(len(file), 200))
				}
				was := file[at]
				file[at] ^= byte(1 + r.IntN(255))
				read(file)
				file[at] = was
			}
		})
	}
}

// rewrite returns a pcap file of the first frames of a capture, each as change leaves it.
func rewrite(t *testing.T, name string, change func([]byte) []byte) []byte {
	t.Helper()
	r, err := capture.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	le := binary.LittleEndian
	var b []byte
	for n := range 3000 {
		rec, err := r.Next()
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			for _, v := range []uint32{0xa1b23c4d, 2 | 4<<16, 0, 0, 1 << 18, uint32(rec.Link)} {
				b = le.AppendUint32(b, v)
			}
		}
		data := change(rec.Data)
		for _, v := range []uint32{uint32(rec.Time / 1e9), uint32(rec.Time % 1e9), uint32(len(data)), uint32(rec.Original)} {
			b = le.AppendUint32(b, v)
		}
		b = append(b, data...)
	}
	return b
}
