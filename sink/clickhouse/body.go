package clickhouse

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/ipc"
)

// body is a record batch as the body of a request: an Arrow IPC stream. Package net/http has bodies write themselves where
// they can ([io.WriterTo]); so large columns go from where they stand to the socket. Read by a pipe, they were copied twice,
// and went in pieces of 32 KiB.
type body struct {
	rec  arrow.Record
	hold func() error // asked before the last bytes

	mu     sync.Mutex // held while the body is being written
	closed bool
	err    error // what hold said
}

// writeBytes is the size from which on a column is not copied before it is written.
const writeBytes = 256 << 10

// WriteTo implements [io.WriterTo].
func (b *body) WriteTo(w io.Writer) (int64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, io.ErrClosedPipe
	}
	count := &counter{w: w}
	buffered := bufio.NewWriterSize(count, writeBytes)
	err := streamTo(buffered, b.rec)
	if err == nil {
		b.err = b.hold()
		err = b.err
	}
	if err == nil {
		err = buffered.Flush() // at least the end of the stream
	}
	return count.n, err
}

// close waits until nobody reads the record batch any more, which the end of the request sees to, and returns what hold said.
func (b *body) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return b.err
}

// Read implements [io.Reader], which a body of a request has to be.
func (*body) Read([]byte) (int, error) {
	return 0, errors.New("the body of an insert is written, not read")
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// streamTo writes a record batch as an Arrow IPC stream.
func streamTo(w io.Writer, rec arrow.Record) error {
	s := ipc.NewWriter(w, ipc.WithSchema(rec.Schema()))
	if err := s.Write(rec); err != nil {
		return fmt.Errorf("arrow stream: %w", err)
	}
	if err := s.Close(); err != nil {
		return fmt.Errorf("arrow stream: %w", err)
	}
	return nil
}
