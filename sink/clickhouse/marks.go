package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/cespare/xxhash/v2"

	"github.com/tapweave/tapweave/proto/delivery"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/sink/migrate"
)

// mark is what the table of marks says of an output partition: the other tables have everything up to there.
type mark struct {
	known     bool
	next      int64  // offset behind the last record that was read
	last      uint64 // xxHash64 of that record
	positions []delivery.At
}

// mark reads the newest mark of the partition.
func (p *partition) mark(ctx context.Context) (m mark, err error) {
	from := fmt.Sprintf("FROM `%s`.`%s` WHERE output_partition = %d", p.config.Stored(), migrate.Marks, p.assignment.Partition)
	err = p.keepTrying(ctx, p.server, func() error {
		m = mark{}
		row := p.server.QueryRow(ctx, "SELECT count() > 0, argMax(next_offset, (time, next_offset)), argMax(last_record, (time, next_offset)) "+from)
		if err := row.Scan(&m.known, &m.next, &m.last); err != nil || !m.known {
			return err
		}
		rows, err := p.server.Query(ctx, "SELECT input_partition, newest.1, newest.2, newest.3 FROM (SELECT input_partition, max((log_epoch, owner_epoch, output_number)) AS newest "+from+" GROUP BY input_partition) ORDER BY input_partition")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var at delivery.At
			if err := rows.Scan(&at.Partition, &at.Log, &at.Owner, &at.Number); err != nil {
				return err
			}
			m.positions = append(m.positions, at)
		}
		return rows.Err()
	})
	return m, err
}

// recover says where to go on without usable offsets. What was in flight when they were lost may be in some of the
// tables: that one block is stored again.
func (p *partition) recover(ctx context.Context, committed, earliest, latest int64) (offset int64, positions []delivery.At, err error) {
	a := p.assignment
	where := fmt.Sprintf("%s/%d", a.Topic, a.Partition)
	m, err := p.mark(ctx)
	if err != nil {
		return 0, nil, err
	}
	if !m.known {
		if committed < earliest || committed > latest {
			committed = earliest
		}
		return committed, nil, nil
	}
	same := m.next <= latest
	if last := m.next - 1; same && last >= earliest {
		var f kafka.Fetched
		err := kafka.Retry{}.Do(ctx, func() (err error) {
			f, err = p.kafka.Fetch(ctx, a.Topic, a.Partition, last, p.config.FetchBytes, time.Second)
			if errors.Is(err, kafka.ErrOffsetOutOfRange) {
				return kafka.Permanent(err)
			}
			return err
		}, func(err error) {
			p.limited.Warn("fetch", "cannot read, trying again", "partition", where, "error", err)
		})
		switch {
		case errors.Is(err, kafka.ErrOffsetOutOfRange): // retention removed it just now
		case err != nil:
			return 0, nil, err
		default:
			same = len(f.Records) > 0 && f.Records[0].Offset == last && xxhash.Sum64(f.Records[0].Value) == m.last
		}
	}
	if !same {
		// A log of other epochs: measured by the marks, all of it could seem to be old.
		p.log.Error("no usable offset is committed, and this is not the log whose rows ClickHouse has: storing all of it",
			"partition", where, "from", earliest, "stored_up_to", m.next, "end", latest)
		return earliest, nil, nil
	}
	offset = max(m.next, earliest)
	p.log.Warn("no usable offset is committed, going on behind the last mark in ClickHouse", "partition", where, "offset", offset)
	return offset, m.positions, nil
}

// insertMark says that the other tables have the block.
func (s *store) insertMark(ctx context.Context, token string) error {
	var values []string
	last := xxhash.Sum64(s.block.last.Value)
	for _, at := range s.reader.Positions() {
		values = append(values, fmt.Sprintf("(%d,%d,%d,%d,%d,%d,%d)", s.assignment.Partition, at.Partition, at.Log, at.Owner, at.Number, s.block.last.Offset+1, last))
	}
	query := fmt.Sprintf("INSERT INTO `%s`.`%s` (output_partition, input_partition, log_epoch, owner_epoch, output_number, next_offset, last_record) VALUES ",
		s.config.Stored(), migrate.Marks) + strings.Join(values, ",")
	return s.keepTrying(ctx, s.server, func() error {
		if err := s.hold(ctx); err != nil {
			return err
		}
		return s.server.Exec(clickhouse.Context(ctx, clickhouse.WithSettings(settings(token))), query)
	})
}
