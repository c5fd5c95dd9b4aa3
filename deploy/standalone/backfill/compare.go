package backfill

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/sink/migrate"
)

// counted are the columns of a session that no correction changes: whose packets they were, and how many.
var counted = []string{
	"tenant", "created_time", "start_time", "end_time", "src_ip", "src_port", "dst_ip", "dst_port", "ip_protocol",
	"src_packets", "dst_packets", "src_bytes", "dst_bytes", "src_payload_bytes", "dst_payload_bytes",
}

// origin are the columns that say where a row comes from, not what the session was.
var origin = []string{"version", "input_partition", "log_epoch", "owner_epoch", "output_number"}

// sums are the columns of traffic that are added up, and dimensions those that they are grouped by, but for the minute.
func sums() (names []string) {
	for _, c := range columns.Infos(pb.Rows_TRAFFIC) {
		if c.ClickHouse == "Int64" {
			names = append(names, c.Name)
		}
	}
	return names
}

func dimensions() (names []string) {
	for _, c := range columns.Infos(pb.Rows_TRAFFIC) {
		if c.Name != "minute" && !slices.Contains(sums(), c.Name) {
			names = append(names, c.Name)
		}
	}
	return names
}

// joined writes each name in a format, with commas between.
func joined(names []string, format string) string {
	list := make([]string, len(names))
	for i, n := range names {
		list[i] = strings.ReplaceAll(format, "%s", ident(n))
	}
	return strings.Join(list, ", ")
}

// digest is of some columns of a row. NULL has one too.
func digest(names []string) string { return "sipHash64(toString(tuple(" + joined(names, "%s") + ")))" }

// descriptive are all columns of sessions but those of origin.
func descriptive() (names []string) {
	for _, c := range columns.Infos(pb.Rows_SESSIONS) {
		if !slices.Contains(origin, c.Name) {
			names = append(names, c.Name)
		}
	}
	return names
}

// newest selects the newest versions of the sessions of the range from a table of versions.
func (w *work) newest(table, selected string) string {
	return fmt.Sprintf("(SELECT %s FROM %s FINAL WHERE created_time >= %s AND created_time < %s)", selected, table, literal(w.From), literal(w.To))
}

// spill lets joins and sums that do not fit into memory go to disk.
const spill = " SETTINGS join_algorithm = 'grace_hash', max_bytes_before_external_group_by = 1000000000"

// compare holds the sessions that were folded again against those that are stored. It returns how many there are, and
// how many are not the same. The errors are that the log does not give what is stored.
func (w *work) compare(ctx context.Context) (all, differ int64, err error) {
	selected := "session_id, end_time, is_final, " + digest(counted) + " AS counted, " + digest(descriptive()) + " AS whole"
	var lost, added, other, open int64
	var example string
	var end time.Time
	err = w.server.QueryRow(ctx, fmt.Sprintf(`SELECT toInt64(count()), toInt64(countIf(o.session_id = '')), toInt64(countIf(n.session_id = '')),
    toInt64(countIf(o.counted != n.counted)), toInt64(countIf(NOT (o.is_final AND n.is_final))), toInt64(countIf(o.whole != n.whole)),
    max(o.end_time), anyIf(o.session_id || n.session_id, o.session_id = '' OR n.session_id = '')
FROM %s AS o FULL OUTER JOIN %s AS n ON o.session_id = n.session_id`+spill,
		w.newest(w.at(migrate.Versions), selected), w.newest(w.besideAt(sessions), selected))).
		Scan(&all, &added, &lost, &other, &open, &differ, &end, &example)
	if err != nil {
		return 0, 0, w.server.Explain(err)
	}
	const nothing = "; nothing was changed"
	switch settled := end.Add(w.Enricher.Fold.LateLimit); {
	case lost > 0:
		return 0, 0, fmt.Errorf("%d of %d stored sessions cannot be folded again (session_id %s): packets or snapshots from before them are gone by retention, or settings of the fold were others; begin later"+nothing, lost, all-added, example)
	case added > 0:
		return 0, 0, fmt.Errorf("%d sessions are on the log and not stored (session_id %s): sinks have not stored all, or retention has removed some; wait, or begin later"+nothing, added, example)
	case open > 0:
		return 0, 0, fmt.Errorf("%d sessions of the range are still open: end earlier, or wait"+nothing, open)
	case other > 0:
		return 0, 0, fmt.Errorf("%d of %d sessions were counted otherwise than they are stored: the settings or the version of the fold were others; they cannot be corrected"+nothing, other, all)
	case all > 0 && settled.UnixNano() > w.folded:
		return 0, 0, fmt.Errorf("late packets may still come for sessions of the range: end earlier, or wait until event time is %s"+nothing, settled.UTC().Format(time.RFC3339))
	}
	return all, differ, w.booked(ctx)
}

// booked returns an error where a session's bookings do not add up to the session: then traffic cannot be corrected.
func (w *work) booked(ctx context.Context) error {
	var wrong int64
	amounts := sums()[1:]
	err := w.server.QueryRow(ctx, fmt.Sprintf(`SELECT toInt64(count())
FROM %s AS n LEFT JOIN (SELECT session_id, %s FROM %s AS r GROUP BY session_id) AS b ON n.session_id = b.session_id
WHERE b.sessions != 1 OR `+strings.ReplaceAll(joined(amounts, "toInt64(n.%s) != b.%s"), ", ", " OR ")+spill,
		w.newest(w.besideAt(sessions), "session_id, "+joined(amounts, "%s")), joined(sums(), "sum(r.%s) AS %s"), w.besideAt(bookings))).Scan(&wrong)
	if err != nil {
		return w.server.Explain(err)
	}
	if wrong > 0 {
		return fmt.Errorf("the bookings of %d sessions do not add up to them; nothing was changed", wrong)
	}
	return nil
}
