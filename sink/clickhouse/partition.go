package clickhouse

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/apache/arrow/go/v17/arrow"
	"golang.org/x/sync/errgroup"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/sink/deadletter"
	"github.com/tapweave/tapweave/sink/intake"
)

// partition is one partition of tapweave.sessions for as long as it is assigned.
type partition struct {
	*Output
	gen        *kafka.Generation
	assignment kafka.Assignment
	in         *intake.Partition
}

// run reads, assembles and inserts side by side: while one block is inserted, the next one grows.
func (p *partition) run(ctx context.Context) error {
	label := strconv.Itoa(p.assignment.Partition)
	defer p.metrics.lag.DeleteLabelValues(label)

	fetched, blocks, inserted := make(chan kafka.Fetched), make(chan *block), make(chan struct{})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return p.in.Follow(ctx, func(f kafka.Fetched) error {
			select {
			case fetched <- f:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	g.Go(func() error {
		defer close(blocks)
		return p.assemble(ctx, fetched, blocks, inserted)
	})
	g.Go(func() error {
		defer close(inserted)
		ctx, cancel := lingering(ctx)
		defer cancel()
		parse := newParser(p.config.Packets)
		for b := range blocks {
			if err := p.insert(ctx, parse, b); err != nil {
				return err
			}
			if err := p.gen.Commit(ctx, p.assignment.Topic, kafka.Commit{Partition: p.assignment.Partition, Offset: b.next}); err != nil {
				return err
			}
			p.metrics.lag.WithLabelValues(label).Set(float64(max(0, b.highWatermark-b.next)))
		}
		return nil
	})
	return g.Wait()
}

// patience is for how many times the linger time a block waits to become full while there is more to read:
// where there is a backlog, rows are late anyway, and large blocks are what makes up for it.
const patience = 5

// assemble makes blocks of what was fetched. A block goes to the inserter when it is full, or old enough and
// the inserter is free; until then it grows. When ctx is done what was begun still goes there.
func (p *partition) assemble(ctx context.Context, fetched <-chan kafka.Fetched, blocks chan<- *block, inserted <-chan struct{}) error {
	var (
		timer  = time.NewTimer(time.Hour)
		b      *block
		began  time.Time      // when the block was
		old    bool           // the block has lingered
		queue  []kafka.Record // fetched, and not in the block yet
		latest int64          // high watermark
	)
	defer timer.Stop()
	for {
		full := false
		for len(queue) > 0 && !full {
			if b == nil {
				b, began, old = newBlock(queue[0].Offset), time.Now(), false
				timer.Reset(p.config.Linger)
			}
			b.highWatermark = latest
			var err error
			if full, err = p.take(ctx, b, queue[0]); err != nil {
				return err
			}
			if !full {
				queue = queue[1:]
			}
		}
		in, out := fetched, blocks
		if len(queue) > 0 {
			in = nil
		}
		if b == nil || !full && !(old && (b.next >= latest || time.Since(began) >= patience*p.config.Linger)) {
			out = nil
		}
		select {
		case f := <-in:
			queue, latest = f.Records, f.HighWatermark
		case out <- b:
			b = nil
		case <-timer.C:
			old = true
			timer.Reset(p.config.Linger)
		case <-ctx.Done():
			if b != nil {
				select {
				case blocks <- b:
				case <-inserted:
				case <-time.After(grace):
				}
			}
			return nil
		}
	}
}

// take puts a record into the block. Where there is no room for it, it says that the block is full.
func (p *partition) take(ctx context.Context, b *block, r kafka.Record) (full bool, err error) {
	rows, err := envelope(r.Value)
	switch {
	case err != nil:
		if err := p.refuse(ctx, r, err); err != nil {
			return false, err
		}
	case len(rows) > 0 && !b.add(r, rows, &p.config):
		return true, nil
	}
	b.next = r.Offset + 1
	return false, nil
}

// refuse makes a record a dead letter.
func (p *partition) refuse(ctx context.Context, r kafka.Record, cause error) error {
	return p.letters.Send(ctx, deadletter.Letter{
		Topic: p.assignment.Topic, Partition: p.assignment.Partition, Offset: r.Offset, Cause: cause, Value: r.Value,
	})
}

// insert puts a block into all tables, and returns when each has it.
func (p *partition) insert(ctx context.Context, parse *parser, b *block) error {
	size := min(b.raw, p.config.MemoryBytes)
	if err := p.budget.Acquire(ctx, size); err != nil {
		return err
	}
	defer p.budget.Release(size)
	rows := newTables()
	defer rows.free()
	for _, r := range b.records {
		list, err := envelope(r.Value)
		if err != nil {
			return err // it was read once before
		}
		batches, err := parse.open(list)
		if err != nil {
			if err := p.refuse(ctx, r, err); err != nil {
				return err
			}
			continue
		}
		rows.add(r.Offset, batches)
		release(batches)
		p.metrics.records.Inc()
	}
	b.records = nil
	g, ctx := errgroup.WithContext(ctx)
	for _, t := range targets {
		if r := rows.rows[t.kind]; r.n > 0 {
			g.Go(func() error {
				return p.insertRows(ctx, t, rows, r.record(), func(from, to int) string {
					return b.token(t.table, p.assignment.Topic, p.assignment.Partition, from, to)
				}, 0, r.n)
			})
		}
	}
	return g.Wait()
}

// refusals is how often ClickHouse must refuse the same rows until that is believed: a connection that broke in
// mid-insert looks like damaged rows to it.
const refusals = 3

// insertRows puts some rows of a block, all of them at first, into one table. Rows that ClickHouse refuses for
// what they are, are searched for by halves, and become dead letters.
func (p *partition) insertRows(ctx context.Context, t target, rows *tables, all arrow.Record, token func(from, to int) string, from, to int) error {
	query := fmt.Sprintf("INSERT INTO `%s`.`%s` (%s)", p.config.Database, t.table, columns.Names(t.kind))
	settings := clickhouse.WithSettings(settings(token(from, to)))
	refused := 0
	err := p.keepTrying(ctx, func() error {
		began := time.Now()
		err := p.stream(clickhouse.Context(ctx, settings), query, all.NewSlice(int64(from), int64(to)))
		switch {
		case err == nil:
			p.metrics.inserted(t.table, to-from, time.Since(began))
		case refusedRows(err):
			if refused++; refused >= refusals {
				return kafka.Permanent(fmt.Errorf("%w: %w", errRefused, p.server.Explain(err)))
			}
		default:
			refused = 0
		}
		return err
	})
	switch {
	case !errors.Is(err, errRefused):
		return err
	case to-from > 1:
		half := from + (to-from)/2
		if err := p.insertRows(ctx, t, rows, all, token, from, half); err != nil {
			return err
		}
		return p.insertRows(ctx, t, rows, all, token, half, to)
	}
	row, e := rows.letter(t.kind, from)
	if e != nil {
		return e
	}
	return p.letters.Send(ctx, deadletter.Letter{
		Topic: p.assignment.Topic, Partition: p.assignment.Partition, Offset: rows.offset(t.kind, from),
		Cause: fmt.Errorf("table %s: %w", t.table, err), Rows: row,
	})
}

// errRefused is wrapped by what ClickHouse says of rows that it does not take.
var errRefused = errors.New("rows refused")

// stream makes one insert of a record batch.
func (p *partition) stream(ctx context.Context, query string, rec arrow.Record) error {
	r, w := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		buffered := bufio.NewWriterSize(w, 256<<10)
		err := streamTo(buffered, rec)
		if err == nil {
			err = buffered.Flush()
		}
		w.CloseWithError(err)
	}()
	err := p.server.InsertFormat(ctx, "ArrowStream", query, r)
	r.Close() // ends the writer where the insert did not take all
	<-written
	return err
}

// refusedRows says whether an error of ClickHouse is about the rows, not about the table, the server or the
// way to it.
func refusedRows(err error) bool {
	var e *clickhouse.Exception
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case 6, // CANNOT_PARSE_TEXT
		27,   // CANNOT_PARSE_INPUT_ASSERTION_FAILED
		32,   // ATTEMPT_TO_READ_AFTER_EOF
		33,   // CANNOT_READ_ALL_DATA
		38,   // CANNOT_PARSE_DATE
		41,   // CANNOT_PARSE_DATETIME
		69,   // ARGUMENT_OUT_OF_BOUND
		70,   // CANNOT_CONVERT_TYPE
		72,   // CANNOT_PARSE_NUMBER
		117,  // INCORRECT_DATA
		131,  // TOO_LARGE_STRING_SIZE
		321,  // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
		349,  // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
		407,  // DECIMAL_OVERFLOW
		469,  // VIOLATED_CONSTRAINT
		636,  // CANNOT_EXTRACT_TABLE_STRUCTURE
		1001: // STD_EXCEPTION, e.g. of the Arrow library
		return true
	}
	return false
}
