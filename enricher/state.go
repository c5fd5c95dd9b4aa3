package enricher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/tapweave/tapweave/enricher/output"
	"github.com/tapweave/tapweave/proto/delivery"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
)

const (
	// snapshotEvery is the least time from one snapshot of a partition to the next.
	snapshotEvery = 10 * time.Second
	// snapshotRefresh is the most: what is on tapweave.state must stay within its retention.
	snapshotRefresh = 10 * time.Minute
	// snapshotShare bounds the time that a partition's fold stands still for its snapshots: one part in so many.
	snapshotShare = 40

	// chunkBytes leaves room for the envelope in a record of [record.MaxBytes].
	chunkBytes = record.MaxBytes - 1000
	// maxChunks bounds what is read on the word of one record: 16 GB.
	maxChunks = 20_000
	// maxExpansion bounds what a compressed state may grow to: a row of zeros of an empty session is far below.
	maxExpansion = 200
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// pack returns the state of a stream, compressed and cut to the size of records.
func pack(s *output.Stream) ([][]byte, error) {
	var c chunker
	z, err := zstd.NewWriter(&c, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2), zstd.WithEncoderCRC(true))
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.Save(z), z.Close()); err != nil {
		return nil, err
	}
	return c.chunks, nil
}

// chunker cuts what is written to it.
type chunker struct{ chunks [][]byte }

func (c *chunker) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		last := len(c.chunks) - 1
		if last < 0 || len(c.chunks[last]) == chunkBytes {
			c.chunks = append(c.chunks, nil)
			last++
		}
		k := min(len(b), chunkBytes-len(c.chunks[last]))
		c.chunks[last] = append(c.chunks[last], b[:k]...)
		b = b[k:]
	}
	return n, nil
}

// unpack returns the stream whose state was packed.
func unpack(chunks [][]byte, c output.Config) (s *output.Stream, older bool, err error) {
	err = decompress(chunks, func(r io.Reader) error {
		s, older, err = output.Load(r, c)
		return err
	})
	return s, older, err
}

// decompress gives read what was packed.
func decompress(chunks [][]byte, read func(io.Reader) error) error {
	size := 0
	parts := make([]io.Reader, len(chunks))
	for i, chunk := range chunks {
		size += len(chunk)
		parts[i] = bytes.NewReader(chunk)
	}
	z, err := zstd.NewReader(io.MultiReader(parts...), zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxWindow(16<<20))
	if err != nil {
		return err
	}
	defer z.Close()
	return read(io.LimitReader(z, int64(size)*maxExpansion+1<<20))
}

// snapshot is a state that is on its way to tapweave.state.
type snapshot struct {
	delivery.Snapshot        // State and Output below 0: not known yet
	inputSum          uint32 // of the last record in it
	chunks            [][]byte
	copies            int // to be written
}

// store writes a snapshot and returns the offset of its first record.
func (p *partition) store(ctx context.Context, s *snapshot) (int64, error) {
	at := int64(-1)
	for i, chunk := range s.chunks {
		value, err := record.MarshalState(&pb.StateRecord{Body: &pb.StateRecord_Snapshot{Snapshot: &pb.SnapshotChunk{
			InputPartition: uint32(p.assigned.Partition), LogEpoch: s.At.Log, OwnerEpoch: s.At.Owner, Number: s.At.Number,
			InputOffset: s.Input, OutputOffset: max(s.Output, 0), InputCrc32C: s.inputSum,
			Chunk: uint32(i), Chunks: uint32(len(s.chunks)), Data: chunk,
		}}})
		if err != nil {
			return 0, err
		}
		r := []kafka.Record{{Key: []byte(strconv.Itoa(p.assigned.Partition)), Value: value}}
		offset, err := p.client.ProduceRetry(ctx, record.TopicState, p.assigned.Partition, func() ([]kafka.Record, error) { return r, nil }, p.failed)
		if err != nil {
			return 0, err
		}
		if i == 0 {
			at = offset
		}
		p.counts.snapshotBytes.Add(uint64(len(value)))
	}
	p.counts.snapshots.Inc()
	return at, nil
}

// errSnapshot is wrapped by the errors about a snapshot that is not where it was said to be.
var errSnapshot = errors.New("no such snapshot")

// fetchSnapshot reads the snapshot that the metadata names. Records of other snapshots may stand between its
// own, where two enrichers took the partition for theirs.
func (p *partition) fetchSnapshot(ctx context.Context, want delivery.Snapshot) (chunks [][]byte, inputSum uint32, err error) {
	from := fmt.Sprintf("%s/%d from offset %d on", record.TopicState, p.assigned.Partition, want.State)
	_, end, err := p.offsets(ctx, record.TopicState, p.assigned.Partition)
	if err != nil {
		return nil, 0, err
	}
	total := 0
	for next := want.State; next < end; {
		f, err := p.read(ctx, record.TopicState, p.assigned.Partition, next)
		if errors.Is(err, kafka.ErrOffsetOutOfRange) {
			return nil, 0, fmt.Errorf("%s: %w: removed by retention, or the topic was made anew", from, errSnapshot)
		} else if err != nil {
			return nil, 0, err
		}
		for _, r := range f.Records {
			s, err := record.UnmarshalState(r.Value)
			var version *record.VersionError
			if errors.As(err, &version) {
				return nil, 0, err
			}
			c := s.GetSnapshot()
			if r.Offset == want.State {
				switch {
				case err != nil:
					return nil, 0, fmt.Errorf("%s: %w", from, err)
				case c == nil || c.Chunk != 0 || c.Chunks > maxChunks:
					return nil, 0, fmt.Errorf("%s: %w: another record", from, errSnapshot)
				case c.InputPartition != uint32(p.assigned.Partition):
					return nil, 0, fmt.Errorf("%s: %w: it is of partition %d", from, errSnapshot, c.InputPartition)
				case !is(c, want):
					return nil, 0, fmt.Errorf("%s: %w: another of the same partition", from, errSnapshot)
				}
				total, inputSum = int(c.Chunks), c.InputCrc32C
			}
			if err != nil || total == 0 || c == nil || !is(c, want) || c.Chunk != uint32(len(chunks)) {
				continue
			}
			if chunks = append(chunks, c.Data); len(chunks) == total {
				return chunks, inputSum, nil
			}
		}
		next = f.Next
	}
	return nil, 0, fmt.Errorf("%s: %w: %d of %d parts", from, errSnapshot, len(chunks), total)
}

// is says whether a chunk is one of a snapshot.
func is(c *pb.SnapshotChunk, s delivery.Snapshot) bool {
	return c.LogEpoch == s.At.Log && c.OwnerEpoch == s.At.Owner && c.Number == s.At.Number && c.InputOffset == s.Input
}

// pace says when the next snapshot is due. What is written to tapweave.state stays below what was read from
// tapweave.packets, and what a successor has to fold again below what it has to load, but for the least and the
// greatest time between two.
type pace struct {
	taken time.Time     // the last one
	took  time.Duration // the fold stood still
	size  int           // of the last one
	bytes int           // folded since
}

func (p *pace) due(now time.Time, every time.Duration) bool {
	since := now.Sub(p.taken)
	return since >= max(every, snapshotShare*p.took) && p.worth() || since >= snapshotRefresh
}

// worth says whether it takes longer to fold again what was folded since than to load another snapshot.
func (p *pace) worth() bool { return p.bytes > 0 && p.bytes >= p.size }
