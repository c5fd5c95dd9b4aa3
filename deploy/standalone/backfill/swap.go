package backfill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/sink/migrate"
)

// plans is the table that says which partitions are swapped.
const plans = "plan"

// planned is a partition of a table that is to be swapped. All parts that it had when that was decided have no number
// above Block, and all that it has when it was swapped do: so it is known, wherever the work was left, what is done.
type planned struct {
	Table, Partition string
	Block            int64
}

// target is a table that is corrected, and how. Its corrections are in a table of its name with the suffix _difference:
// for alerts, all that the partition is to have.
type target struct {
	table    string
	columns  []string // as they are stored
	replaced bool     // the difference is all that the partition is to have
}

func targets() []target {
	return []target{
		{migrate.Versions, names(pb.Rows_SESSIONS), false},
		{migrate.TrafficMinute, names(pb.Rows_TRAFFIC), false},
		{migrate.TrafficHour, append([]string{"hour"}, names(pb.Rows_TRAFFIC)[1:]...), false},
		{migrate.Alerts, names(pb.Rows_ALERTS), true},
	}
}

func difference(table string) string { return table + "_difference" }
func corrected(table string) string  { return table + "_corrected" }

// planned returns what was decided before, nothing where nothing was.
func (w *work) planned(ctx context.Context) (list []planned, err error) {
	var there uint8
	if err := w.server.QueryRow(ctx, fmt.Sprintf("EXISTS TABLE %s", w.besideAt(plans))).Scan(&there); err != nil || there == 0 {
		return nil, w.server.Explain(err)
	}
	err = w.server.Select(ctx, &list, fmt.Sprintf("SELECT table AS Table, partition AS Partition, block AS Block FROM %s ORDER BY ALL", w.besideAt(plans)))
	return list, w.server.Explain(err)
}

// plan makes the corrections, and decides which partitions are swapped.
func (w *work) plan(ctx context.Context) ([]planned, error) {
	ctx = clickhouse.Context(ctx, settings)
	for _, t := range targets() {
		if err := w.exec(ctx, "CREATE OR REPLACE TABLE %s AS %s", w.besideAt(difference(t.table)), w.at(t.table)); err != nil {
			return nil, err
		}
	}
	for _, sql := range append([]string{
		w.sessionsDifference(), w.trafficDifference(migrate.TrafficMinute), w.trafficDifference(migrate.TrafficHour),
	}, w.alertsDifference()...) {
		if err := w.exec(ctx, "%s", sql); err != nil {
			return nil, err
		}
	}
	var list []planned
	for _, t := range targets() {
		var some []planned
		ids := "SELECT DISTINCT _partition_id AS id FROM " + w.besideAt(difference(t.table))
		if t.replaced {
			ids = "SELECT id FROM " + w.besideAt(alertPartitions) // also those that are to be empty
		}
		// Partitions of traffic that retention has removed stay away.
		err := w.server.Select(ctx, &some, fmt.Sprintf(`SELECT '%[1]s' AS Table, d.id AS Partition, p.block AS Block
FROM (%[2]s) AS d
LEFT JOIN (SELECT partition_id AS id, max(max_block_number) AS block FROM system.parts WHERE active AND database = '%[3]s' AND table = '%[1]s' GROUP BY id) AS p ON p.id = d.id
WHERE p.id != '' OR %[4]v ORDER BY ALL`, t.table, ids, w.stored, t.replaced))
		if err != nil {
			return nil, w.server.Explain(err)
		}
		list = append(list, some...)
	}
	if len(list) == 0 {
		return nil, nil
	}
	// One statement, so that it is there as a whole or not at all.
	rows := make([]string, len(list))
	for i, p := range list {
		rows[i] = fmt.Sprintf("('%s', '%s', %d)", p.Table, p.Partition, p.Block)
	}
	return list, w.exec(ctx, "CREATE TABLE %s ENGINE = MergeTree ORDER BY table AS SELECT * FROM values('table String, partition String, block Int64', %s)",
		w.besideAt(plans), strings.Join(rows, ", "))
}

// sessionsDifference makes one more version of each session that differs.
func (w *work) sessionsDifference() string {
	all := names(pb.Rows_SESSIONS)
	values := make([]string, len(all))
	for i, name := range all {
		switch {
		case name == "version":
			values[i] = "o.version + 1"
		case slices.Contains(origin, name):
			values[i] = "o." + ident(name)
		default:
			values[i] = "n." + ident(name)
		}
	}
	return fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM %s AS o INNER JOIN %s AS n ON o.session_id = n.session_id WHERE o.whole != n.whole"+spill,
		w.besideAt(difference(migrate.Versions)), joined(all, "%s"), strings.Join(values, ", "),
		w.newest(w.at(migrate.Versions), joined(append([]string{"session_id"}, origin...), "%s")+", "+digest(descriptive())+" AS whole"),
		w.newest(w.besideAt(sessions), joined(all, "%s")+", "+digest(descriptive())+" AS whole"))
}

// trafficDifference books the sessions that differ out as they are stored, and in as they are to be.
func (w *work) trafficDifference(table string) string {
	ids := "(SELECT session_id FROM " + w.besideAt(difference(migrate.Versions)) + ")"
	side := func(from, sign string) string {
		return fmt.Sprintf("SELECT b.minute AS minute, %s, %s FROM %s AS b INNER JOIN %s AS s ON b.session_id = s.session_id WHERE b.session_id IN %s",
			joined(dimensions(), "s.%s AS %s"), joined(sums(), sign+"b.%s AS %s"), w.besideAt(bookings),
			w.newest(from, "session_id, "+joined(dimensions(), "%s")), ids)
	}
	total := func(format string) string { return joined(sums(), format) }
	return fmt.Sprintf(`INSERT INTO %s (minute, %s, %s)
SELECT minute, %s, %s FROM (%s UNION ALL %s) AS r
GROUP BY minute, %s HAVING (%s) != (%s)`+spill,
		w.besideAt(difference(table)), joined(dimensions(), "%s"), total("%s"),
		joined(dimensions(), "%s"), total("sum(r.%s) AS %s"), side(w.at(migrate.Versions), "-"), side(w.besideAt(sessions), ""),
		joined(dimensions(), "%s"), total("sum(r.%s)"), strings.TrimSuffix(strings.Repeat("0, ", len(sums())), ", "))
}

// alertPartitions is the table of the partitions of alerts in which sessions of the range raise others than are stored.
const alertPartitions = "alert_partitions"

// alertsDifference finds these partitions, and makes them anew.
func (w *work) alertsDifference() []string {
	within := "session_id IN " + w.newest(w.besideAt(sessions), "session_id")
	all := joined(names(pb.Rows_ALERTS), "%s")
	either := func(selected string) string {
		return fmt.Sprintf("SELECT %[1]s, 1 AS side FROM %[2]s WHERE %[4]s UNION ALL SELECT %[1]s, -1 AS side FROM %[3]s WHERE %[4]s", selected, w.besideAt(alerts), w.at(migrate.Alerts), within)
	}
	differ := fmt.Sprintf("CREATE OR REPLACE TABLE %s ENGINE = MergeTree ORDER BY id AS SELECT DISTINCT id FROM (SELECT id, sum(side) AS n FROM (%s) GROUP BY id, row) WHERE n != 0",
		w.besideAt(alertPartitions), either("_partition_id AS id, "+digest(names(pb.Rows_ALERTS))+" AS row"))
	return []string{differ, fmt.Sprintf("INSERT INTO %[1]s (%[2]s) SELECT %[2]s FROM (SELECT _partition_id AS id, %[2]s FROM %[3]s WHERE %[5]s UNION ALL SELECT _partition_id AS id, %[2]s FROM %[4]s WHERE NOT (%[5]s)) WHERE id IN %[6]s",
		w.besideAt(difference(migrate.Alerts)), all, w.besideAt(alerts), w.at(migrate.Alerts), within, "(SELECT id FROM "+w.besideAt(alertPartitions)+")")}
}

func names(kind pb.Rows_Kind) (list []string) {
	for _, c := range columns.Infos(kind) {
		list = append(list, c.Name)
	}
	return list
}

// numbers returns the least and the greatest number of the active parts of a stored partition; 0 without parts.
func (w *work) numbers(ctx context.Context, p planned) (least, greatest int64, err error) {
	err = w.server.QueryRow(ctx, fmt.Sprintf("SELECT min(min_block_number), max(max_block_number) FROM system.parts WHERE active AND database = '%s' AND table = '%s' AND partition_id = '%s'",
		w.stored, p.Table, p.Partition)).Scan(&least, &greatest)
	return least, greatest, w.server.Explain(err)
}

// swap replaces the partitions that were not replaced yet.
func (w *work) swap(ctx context.Context, list []planned) (swapped int, err error) {
	ctx = clickhouse.Context(ctx, settings)
	for _, p := range list {
		least, greatest, err := w.numbers(ctx, p)
		if err != nil {
			return swapped, err
		}
		if least > p.Block {
			continue // before this was broken off
		}
		if err := w.correct(ctx, p); err != nil {
			return swapped, err
		}
		if err := w.stopped(ctx); err != nil {
			return swapped, err
		}
		if _, now, err := w.numbers(ctx, p); err != nil {
			return swapped, err
		} else if now != greatest {
			return swapped, errors.New("something was stored in " + p.Table + " while its partition " + p.Partition + " was corrected: stop the sinks, then do this again")
		}
		if err := w.exec(ctx, "ALTER TABLE %s REPLACE PARTITION ID '%s' FROM %s SETTINGS allow_replace_partition_from_empty_source = 1", w.at(p.Table), p.Partition, w.besideAt(corrected(p.Table))); err != nil {
			return swapped, err
		}
		swapped++
		w.Log.Info("swapped", "table", p.Table, "partition", p.Partition)
	}
	return swapped, nil
}

// correct makes the partition beside as it is to be: the parts that are stored, which are linked and not copied, and the
// difference.
func (w *work) correct(ctx context.Context, p planned) error {
	i := slices.IndexFunc(targets(), func(t target) bool { return t.table == p.Table })
	if i < 0 {
		return fmt.Errorf("database %s was made by another version of this program: drop it, and begin again", w.beside)
	}
	t := targets()[i]
	beside := w.besideAt(corrected(t.table))
	if err := w.exec(ctx, "CREATE OR REPLACE TABLE %s AS %s", beside, w.at(t.table)); err != nil {
		return err
	}
	if !t.replaced {
		if err := w.exec(ctx, "ALTER TABLE %s ATTACH PARTITION ID '%s' FROM %s", beside, p.Partition, w.at(t.table)); err != nil {
			return err
		}
	}
	return w.exec(ctx, "INSERT INTO %s (%[2]s) SELECT %[2]s FROM %[3]s WHERE _partition_id = '%[4]s'",
		beside, joined(t.columns, "%s"), w.besideAt(difference(t.table)), p.Partition)
}
