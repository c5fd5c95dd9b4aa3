package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/apache/arrow/go/v17/arrow"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/delivery"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/sink/deadletter"
)

// store takes blocks through the protocol, one at a time, see [delivery.Blocks].
type store struct {
	*partition
	blocks *delivery.Blocks
	parse  *parser
	lag    prometheus.Gauge

	block     *block // in flight
	reader    *delivery.Reader
	kept      []entry // those of the block that count
	rows      *tables // nil: not opened yet
	held      int64   // of the budget
	refusal   error   // what ClickHouse said of the rows that it refused last
	committed time.Time
}

const (
	// settleAfter is how long a sink waits for more until it commits that everything is stored.
	settleAfter = time.Second
	// recommit is how often it does so again, so that brokers which forget old offsets do not forget these.
	recommit = time.Hour
)

// run stores the blocks that come. It returns when there are no more, or when the generation is over.
func (s *store) run(ctx context.Context, filled <-chan *block) error {
	defer s.release()
	idle := time.NewTicker(settleAfter)
	defer idle.Stop()
	s.committed = time.Now()
	for open := true; ; {
		next := s.blocks.Next()
		if err := s.pause(next[0].Do); err != nil {
			return err
		}
		switch a := next[0]; a.Do {
		case delivery.DoRead:
			s.release()
			if !open {
				if s.blocks.Settled() {
					return nil
				}
				s.blocks.Settle()
				continue
			}
			select {
			case b, ok := <-filled:
				if open = ok; !ok {
					if a.Range.To >= 0 {
						return nil // the range in flight is the successor's
					}
					continue
				}
				if err := s.take(b); err != nil {
					return err
				}
			case <-idle.C:
				if now := time.Now(); now.Sub(s.committed) >= settleAfter && !s.blocks.Settled() || now.Sub(s.committed) >= recommit {
					s.blocks.Settle()
				}
			}
		case delivery.DoCommit:
			err := s.gen.CommitOnce(ctx, s.assignment.Topic, kafka.Commit{Partition: s.assignment.Partition, Offset: a.Commit.Offset, Metadata: a.Commit.Metadata})
			if err != nil {
				return err
			}
			s.committed = time.Now()
			if err := s.pause(a.Do); err != nil {
				return err
			}
			s.blocks.Committed(delivery.Done)
		case delivery.DoInsert:
			if err := s.insertAll(ctx, next); err != nil {
				return err
			}
			if s.blocks.Next()[0].Do == delivery.DoRead {
				s.lag.Set(float64(max(0, s.block.highWatermark-s.block.To)))
			}
		case delivery.DoDeadLetter:
			if err := s.deadLetter(ctx, a); err != nil {
				return err
			}
			s.blocks.DeadLettered(delivery.Done)
		default:
			return kafka.ErrFenced
		}
	}
}

// pause is where a test may stop the work, as a crash would.
func (s *store) pause(do delivery.Do) error {
	if s.crash == nil {
		return nil
	}
	return s.crash(do)
}

// release lets go of the block.
func (s *store) release() {
	if s.rows != nil {
		s.spares.put(s.rows)
		s.budget.Release(s.held)
	}
	s.block, s.reader, s.kept, s.rows = nil, nil, nil, nil
}

// take reads the next block: what of it counts.
func (s *store) take(b *block) error {
	r := s.blocks.Reader()
	s.block, s.reader = b, r
	for _, e := range b.entries {
		if e.bad == nil {
			// A foreign record that looks like one of ours must not take the place of an input partition.
			if _, known := r.Position(e.Partition); !known && len(r.Positions()) >= s.inputs {
				e.bad = fmt.Errorf("sessions record: %w: of input partition %d, one more than the %d that offset metadata has room for; raise output_partitions",
					record.ErrCorrupt, e.Partition, s.inputs)
				e.value, _ = record.MarshalSessions(e.output)
			}
		}
		if e.bad == nil && !r.Read(e.Entry).Kept() || e.bad == nil && e.output == nil {
			continue
		}
		s.kept = append(s.kept, e)
	}
	b.entries = nil
	if err := s.blocks.Filled(b.To, r, func(table string, offset int64) int {
		from, to := s.rows.span(kindOf(table), delivery.Range{From: offset, To: offset + 1}, delivery.Range{})
		return to - from
	}); err != nil {
		return fmt.Errorf("%s/%d: %w", s.assignment.Topic, s.assignment.Partition, err)
	}
	s.metrics.repeats.Add(r.Counts[delivery.Repeat])
	s.metrics.stale.Add(r.Counts[delivery.Stale])
	if r.Missing > 0 {
		s.metrics.missing.Add(r.Missing)
		s.limited.Error("missing", "outputs of the enricher are missing before these records: retention was too short, or the broker lost what it had acknowledged",
			"partition", fmt.Sprintf("%s/%d", s.assignment.Topic, s.assignment.Partition), "from", b.From, "to", b.To, "outputs", r.Missing)
	}
	return nil
}

// open decompresses the rows of the block. Records that hold something else become dead letters.
func (s *store) open(ctx context.Context) error {
	size := min(s.block.raw, s.config.MemoryBytes)
	if err := s.budget.Acquire(ctx, size); err != nil {
		return err
	}
	s.held, s.rows = size, s.spares.get()
	for _, e := range s.kept {
		var batches []*columns.Batch
		err := e.bad
		if err == nil {
			batches, err = s.parse.open(e.output.GetOutput().GetRows())
		}
		if err != nil {
			value := e.value
			if value == nil {
				if value, _ = record.MarshalSessions(e.output); value == nil {
					value = []byte{}
				}
			}
			if err := s.letters.Send(ctx, deadletter.Letter{
				Topic: s.assignment.Topic, Partition: s.assignment.Partition, Offset: e.offset, Cause: err, Value: value,
			}); err != nil {
				return err
			}
			continue
		}
		s.rows.add(e.offset, batches, s.block.counts, 2*s.held)
		s.metrics.records.Inc()
	}
	s.kept = nil
	return nil
}

// insertAll makes the inserts that are next, at once.
func (s *store) insertAll(ctx context.Context, actions []delivery.Action) error {
	if s.rows == nil {
		if err := s.open(ctx); err != nil {
			return err
		}
	}
	refused := make([]error, len(actions))
	g, all := errgroup.WithContext(ctx)
	for i, a := range actions {
		t, isMark := targetOf(a.Table)
		if isMark {
			if !s.rows.empty() {
				g.Go(func() error { return s.insertMark(all, a.Token) })
			}
			continue
		}
		if from, to := s.rows.span(t.kind, a.Range, a.Rows); from < to {
			g.Go(func() (err error) {
				if refused[i], err = s.insert(all, t, a.Token, from, to); err != nil {
					return err
				}
				return s.pause(delivery.DoInsert)
			})
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, a := range actions {
		outcome := delivery.Done
		if refused[i] != nil {
			outcome, s.refusal = delivery.Refused, refused[i]
		}
		s.blocks.Inserted(a.Table, outcome)
	}
	return nil
}

// refusals is how often ClickHouse must refuse the same rows until that is believed: a connection that broke in
// mid-insert looks like damaged rows to it.
const refusals = 3

// errRefused is wrapped by what ClickHouse says of rows that it does not take.
var errRefused = errors.New("rows refused")

// insert puts some rows of the block into a table, and tries until it has them or has refused them for what they are.
func (s *store) insert(ctx context.Context, t target, token string, from, to int) (refused, err error) {
	query := fmt.Sprintf("INSERT INTO `%s`.`%s` (%s)", s.config.Stored(), t.table, columns.Names(t.kind))
	settings := clickhouse.WithSettings(settings(token))
	rec := s.rows.rows[t.kind].record().NewSlice(int64(from), int64(to))
	n := 0
	err = s.keepTrying(ctx, s.server, func() error {
		began := time.Now()
		err := s.stream(clickhouse.Context(ctx, settings), query, rec)
		switch {
		case err == nil:
			s.metrics.inserted(t.table, to-from, time.Since(began))
		case refusedRows(err):
			if n++; n >= refusals {
				return kafka.Permanent(fmt.Errorf("%w: %w", errRefused, s.server.Explain(err)))
			}
		default:
			n = 0
		}
		return err
	})
	if errors.Is(err, errRefused) {
		return err, nil
	}
	return nil, err
}

// deadLetter sets aside the one row that a table refuses.
func (s *store) deadLetter(ctx context.Context, a delivery.Action) error {
	t, _ := targetOf(a.Table)
	from, to := s.rows.span(t.kind, a.Range, a.Rows)
	for i := from; i < to; i++ {
		row, err := s.rows.letter(t.kind, i)
		if err != nil {
			return err
		}
		if err := s.letters.Send(ctx, deadletter.Letter{
			Topic: s.assignment.Topic, Partition: s.assignment.Partition, Offset: a.Range.From,
			Cause: fmt.Errorf("table %s: %w", t.table, s.refusal), Rows: row,
		}); err != nil {
			return err
		}
	}
	return nil
}

// hold returns an error where the generation does not hold any more. It is asked before the last bytes of an insert:
// a sink that stood still meanwhile may find that another has the partition.
func (s *store) hold(ctx context.Context) error {
	err := s.gen.Check(ctx)
	if errors.Is(err, kafka.ErrFenced) {
		return kafka.Permanent(err)
	}
	return err
}

// stream makes one insert of a record batch. The end of the request is held back until the generation was checked.
func (s *store) stream(ctx context.Context, query string, rec arrow.Record) error {
	b := &body{rec: rec, hold: func() error { return s.hold(ctx) }}
	err := s.server.InsertFormat(ctx, "ArrowStream", query, b)
	if held := b.close(); errors.Is(held, kafka.ErrFenced) {
		return kafka.Permanent(held)
	}
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
