package record

import (
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/tapweave/tapweave/proto/pb"
)

const (
	// MaxStreamBytes is the most that an Arrow stream in a record may have before compression.
	MaxStreamBytes = 64 << 20

	// An Arrow stream may be this much larger than what it was compressed to, and at least minStreamBytes. Rows
	// differ at least in their session_id or in their dimensions, so that real ones stay far below.
	maxRatio       = 1000
	minStreamBytes = 256 << 10
)

var (
	encoder = must(zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true)))
	decoder = must(zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxMemory(MaxStreamBytes)))
)

// must is for options that are constants.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func ratioBound(compressed int) int {
	return max(minStreamBytes, maxRatio*compressed)
}

// NewRows wraps an Arrow IPC stream of count rows, compressed where that makes it smaller.
func NewRows(kind pb.Rows_Kind, columnsVersion uint32, count int, stream []byte) (*pb.Rows, error) {
	if len(stream) > MaxStreamBytes {
		return nil, fmt.Errorf("%s rows: Arrow stream of %d bytes, at most %d: %w", kind, len(stream), MaxStreamBytes, ErrTooLarge)
	}
	rows := &pb.Rows{
		Kind:           kind,
		ColumnsVersion: columnsVersion,
		Count:          uint32(count),
		RawSize:        uint64(len(stream)),
	}
	if z := encoder.EncodeAll(stream, nil); len(z) < len(stream) && len(stream) <= ratioBound(len(z)) {
		rows.Compression, rows.Arrow = pb.Rows_ZSTD, z
	} else {
		rows.Compression, rows.Arrow = pb.Rows_NONE, stream
	}
	return rows, nil
}

// Stream returns the Arrow IPC stream in rows, decompressed. It has raw_size bytes; it is not looked into.
func Stream(rows *pb.Rows) ([]byte, error) {
	what := rows.GetKind().String() + " rows"
	size := rows.GetRawSize()
	if size > MaxStreamBytes {
		return nil, fmt.Errorf("%s: Arrow stream of %d bytes, at most %d: %w", what, size, MaxStreamBytes, ErrTooLarge)
	}
	switch rows.GetCompression() {
	case pb.Rows_NONE:
		if uint64(len(rows.GetArrow())) != size {
			return nil, corrupt(what, "Arrow stream of %d bytes said to have %d", len(rows.GetArrow()), size)
		}
		return rows.GetArrow(), nil
	case pb.Rows_ZSTD:
		if n := len(rows.Arrow); size > uint64(ratioBound(n)) {
			return nil, corrupt(what, "%d bytes said to decompress to %d", n, size)
		}
		// The capacity is the limit that the decoder keeps to, whatever the frames claim.
		stream, err := decoder.DecodeAll(rows.Arrow, make([]byte, 0, size))
		if err != nil {
			return nil, corrupt(what, "%v", err)
		}
		if uint64(len(stream)) != size {
			return nil, corrupt(what, "decompressed to %d bytes, said to have %d", len(stream), size)
		}
		return stream, nil
	}
	return nil, corrupt(what, "compression %d", rows.GetCompression())
}
