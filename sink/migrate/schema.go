package migrate

import (
	"fmt"
	"strings"
	"time"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/pb"
)

// Tables and the view, all in one database.
const (
	Sessions      = "sessions"          // view: one row a session
	Versions      = "sessions_versions" // what is behind it: every version that was not merged away yet
	TrafficMinute = "traffic_1m"
	TrafficHour   = "traffic_1h"
	Packets       = "packets"
	Alerts        = "alerts"
	PipelineStats = "pipeline_stats"
	// Marks says up to which output the other tables have everything: where sinks begin if their group's offsets
	// are lost.
	Marks      = "delivery_marks"
	migrations = "schema_migrations"
	lock       = "schema_lock"
)

// DedupWindow is how many blocks a table remembers the tokens of: with one block in 400 ms more than ten minutes
// of four partitions.
const DedupWindow = 10_000

// migration takes the schema from the version before to its own. Its statements can be applied again from the
// first, wherever they were left: what is there already is left alone. Two programs that apply them at once do no
// harm: at worst one of them fails, and finds everything done when it tries again.
type migration struct {
	version    int
	name       string
	statements func(database string) []statement
}

type statement struct {
	sql string
	// unless, where not empty, is a query: where its value is not 0, the statement has nothing to do any more.
	unless string
}

func plain(list ...string) []statement {
	s := make([]statement, len(list))
	for i, sql := range list {
		s[i].sql = sql
	}
	return s
}

// all is every migration, in order. A migration that was released is not changed any more, but for the columns: its
// tables have those of the current definition. A new column comes with a migration of its own, which adds it IF NOT
// EXISTS to the tables of an older schema, and makes the view anew.
var all = []migration{
	{1, "tables", func(database string) []statement { return plain(tables(database)...) }},
	{2, "revisions", revisions},
	{3, "words", func(database string) []statement { return plain(words(database)...) }},
	{4, "indexes", func(database string) []statement { return plain(indexes(database)...) }},
	{5, "dashboard", func(database string) []statement { return plain(dashboard(database)...) }},
	{6, "alerts", func(database string) []statement { return plain(alerts(database)...) }},
}

// Version is the schema that this program works with.
func Version() int { return all[len(all)-1].version }

func tables(database string) []string {
	return []string{
		// Every value in a key is frozen when the session is created, so that all versions of a session meet. Time
		// comes first: it is what queries and the TTL cut by, and rows arrive in its order.
		versionsTable(database, Versions, "version", ""),
		table(database, TrafficMinute, "bookings by minute; sum() what is asked for", columns.DDL(pb.Rows_TRAFFIC),
			summing(), "toDate(minute)", trafficKey("minute", 2), trafficKey("minute", 0)),
		// The same rows go into both tables: minute is not stored here.
		table(database, TrafficHour, "bookings by hour; sum() what is asked for", hourColumns(),
			summing(), "toYYYYMM(hour)", trafficKey("hour", 2), trafficKey("hour", 0)),
		table(database, Packets, "packets of sessions, for a short time", columns.DDL(pb.Rows_PACKETS)+`,
    INDEX time time TYPE minmax GRANULARITY 1`,
			"MergeTree", "toStartOfInterval(time, INTERVAL 6 HOUR)", "session_id", "session_id, time"),
		table(database, Alerts, "what is worth a look", columns.DDL(pb.Rows_ALERTS),
			"MergeTree", "toDate(time)", "time", "time, session_id"),
		table(database, PipelineStats, "what each stage took in, put out and lost: counts since the start of the incarnation", statsColumns,
			"ReplacingMergeTree", "toDate(time)", "service, stage, reason, instance, incarnation", "service, stage, reason, instance, incarnation, time"),
		sessionsView(database),
	}
}

// alerts gives the table of alerts the columns that it began without. Nothing had been written to it.
func alerts(database string) []string {
	var list []string
	after := ""
	for _, c := range columns.Infos(pb.Rows_ALERTS) {
		if after != "" {
			list = append(list, "ADD COLUMN IF NOT EXISTS "+c.DDL()+" AFTER "+ident(after))
		}
		after = c.Name
	}
	return []string{"ALTER TABLE " + ident(database) + "." + Alerts + " " + strings.Join(list, ", ")}
}

// versionsTable returns the statement that makes the table of versions of which the greatest counts.
func versionsTable(database, name, greatest, more string) string {
	return table(database, name, "all versions of sessions; query sessions", columns.DDL(pb.Rows_SESSIONS)+more+`,
    INDEX start_time start_time TYPE minmax GRANULARITY 1,
    INDEX end_time end_time TYPE minmax GRANULARITY 1,
    INDEX src_ip src_ip TYPE set(0) GRANULARITY 1,
    INDEX dst_ip dst_ip TYPE set(0) GRANULARITY 1,
    INDEX session_id session_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX community_id community_id TYPE bloom_filter(0.01) GRANULARITY 1`,
		"ReplacingMergeTree("+greatest+")", "toDate(created_time)", "created_time", "created_time, session_id")
}

// revision is what orders the rows of a session: a fold that began anew counts versions from 1 again, and what it
// says replaces what an older one said, whatever the versions.
const revision = "`revision` UInt128 MATERIALIZED bitOr(bitShiftLeft(toUInt128(least(log_epoch, 4294967295)), 96), " +
	"bitOr(bitShiftLeft(toUInt128(owner_epoch), 32), toUInt128(version))) COMMENT 'Log epoch, owner epoch and version in one number: the greatest counts' CODEC(ZSTD(1))"

// revisions gives the table of versions an engine that goes by revision. The engine of a table cannot be changed,
// so a new table takes its name, and then its parts, which costs no copying. What a sink of the version before is
// just inserting goes to the old table still; those parts are waited for.
func revisions(database string) []statement {
	const next, old = Versions + "_next", Versions + "_1"
	name := func(table string) string { return ident(database) + "." + table }
	from := " FROM system.tables WHERE database = " + literal(database) + " AND name = "
	done := "SELECT count()" + from + literal(Versions) + " AND engine_full LIKE '%MergeTree(%revision%'"
	moved := "SELECT count() = 0" + from + literal(old)
	return append([]statement{
		{versionsTable(database, next, "revision", ",\n    "+revision), done},
		{"ALTER TABLE " + name(Versions) + " ADD COLUMN IF NOT EXISTS " + revision, done},
		{fmt.Sprintf("RENAME TABLE %s TO %s, %s TO %s", name(Versions), name(old), name(next), name(Versions)), done},
		{"SELECT sleep(2) FROM (SELECT 1 FROM " + name(old) + " LIMIT 1)", moved},
		{"ALTER TABLE " + name(Versions) + " ATTACH PARTITION ALL FROM " + name(old), moved},
	}, plain(
		"DROP TABLE IF EXISTS "+name(old)+" SYNC",
		"DROP TABLE IF EXISTS "+name(next)+" SYNC",
		fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %s
(
    `+"`output_partition`"+` UInt32 COMMENT 'Partition of tapweave.sessions',
    `+"`input_partition`"+` UInt32 COMMENT 'Partition of tapweave.packets',
    `+"`log_epoch`"+` UInt64,
    `+"`owner_epoch`"+` UInt64,
    `+"`output_number`"+` UInt64 COMMENT 'All outputs up to this one are in the tables, or were to be left out',
    `+"`next_offset`"+` Int64 COMMENT 'Offset on tapweave.sessions behind the last record that was read',
    `+"`last_record`"+` UInt64 COMMENT 'xxHash64 of that record',
    `+"`time`"+` DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When it was inserted'
)
ENGINE = ReplacingMergeTree(output_number)
ORDER BY (output_partition, input_partition, log_epoch, owner_epoch)
SETTINGS non_replicated_deduplication_window = %d
COMMENT 'up to where the other tables have everything'`, name(Marks), DedupWindow))...)
}

// table returns the statement that makes a table. Its parts hold rows of one partition each, so that the TTL
// drops whole parts and rewrites none.
func table(database, name, comment, columns, engine, partition, primary, order string) string {
	return fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %s.%s
(
%s
)
ENGINE = %s
PARTITION BY %s
PRIMARY KEY (%s)
ORDER BY (%s)
SETTINGS non_replicated_deduplication_window = %d, ttl_only_drop_parts = 1
COMMENT %s`, ident(database), name, columns, engine, partition, primary, order, DedupWindow, literal(comment))
}

// trafficSums are the columns of traffic that are added up; all others but protocol, which follows from
// ip_protocol, are dimensions.
const trafficSums = "sessions, src_packets, dst_packets, src_bytes, dst_bytes, src_payload_bytes, dst_payload_bytes"

func summing() string { return "SummingMergeTree((" + trafficSums + "))" }

// trafficKey returns time and the dimensions; only the first few, if few is not 0.
func trafficKey(time string, few int) string {
	key := []string{time}
	for _, c := range columns.Infos(pb.Rows_TRAFFIC) {
		if c.Name != "minute" && c.Name != "protocol" && !strings.Contains(", "+trafficSums+",", ", "+c.Name+",") {
			key = append(key, c.Name)
		}
	}
	if few > 0 {
		key = key[:few]
	}
	return strings.Join(key, ", ")
}

func hourColumns() string {
	lines := []string{
		"    `minute` DateTime('UTC') EPHEMERAL",
		"    `hour` DateTime('UTC') DEFAULT toStartOfHour(minute) COMMENT 'Start of the hour that the packets were captured in, UTC' CODEC(Delta, ZSTD(1))",
	}
	for _, c := range columns.Infos(pb.Rows_TRAFFIC) {
		if c.Name != "minute" {
			c.Meaning = strings.Replace(c.Meaning, "in the minute", "in the hour", 1)
			lines = append(lines, "    "+c.DDL())
		}
	}
	return strings.Join(lines, ",\n")
}

const statsColumns = "    `time` DateTime64(3, 'UTC') COMMENT 'When it was counted, by the clock of the instance, UTC' CODEC(Delta, ZSTD(1)),\n" +
	"    `service` LowCardinality(String) COMMENT 'collector, enricher or sink',\n" +
	"    `instance` LowCardinality(String) COMMENT 'Name of the instance',\n" +
	"    `incarnation` UInt64 COMMENT 'Grows with each start of the instance, and the counts begin at 0 again' CODEC(ZSTD(1)),\n" +
	"    `stage` LowCardinality(String) COMMENT 'Step of the service',\n" +
	"    `reason` LowCardinality(String) COMMENT 'What was counted',\n" +
	"    `count` UInt64 COMMENT 'Count since the start of the incarnation' CODEC(Delta, ZSTD(1))"

// sessionsView returns the statement that makes the view. Its columns are those of the table, with their
// comments. All versions of a session are in one partition, so that none has to be merged with another.
func sessionsView(database string) string {
	var list []string
	for _, c := range columns.Infos(pb.Rows_SESSIONS) {
		list = append(list, fmt.Sprintf("    `%s` %s COMMENT %s", c.Name, c.ClickHouse, literal(c.Comment())))
	}
	return fmt.Sprintf(`CREATE OR REPLACE VIEW %s.%s
(
%s
)
AS SELECT %s
FROM %s.%s FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1`,
		ident(database), Sessions, strings.Join(list, ",\n"), columns.Names(pb.Rows_SESSIONS), ident(database), Versions)
}

// Retention says for how long rows are kept, by the time that is in them. 0 keeps them for ever.
type Retention struct {
	Packets       time.Duration `yaml:"packets" doc:"How long packets are kept, by capture time; 0: for ever."`
	Sessions      time.Duration `yaml:"sessions" doc:"How long sessions are kept, by the time of the packet that created them; 0: for ever."`
	Alerts        time.Duration `yaml:"alerts" doc:"How long alerts are kept, by capture time; 0: for ever."`
	TrafficMinute time.Duration `yaml:"traffic_1m" doc:"How long traffic by minute is kept; 0: for ever."`
	TrafficHour   time.Duration `yaml:"traffic_1h" doc:"How long traffic by hour is kept; 0: for ever."`
	PipelineStats time.Duration `yaml:"pipeline_stats" doc:"How long the counts of the pipeline are kept; 0: for ever."`
}

// DefaultRetention returns the defaults.
func DefaultRetention() Retention {
	const day = 24 * time.Hour
	return Retention{
		Packets: day, Sessions: 30 * day, Alerts: 30 * day,
		TrafficMinute: 90 * day, TrafficHour: 730 * day, PipelineStats: 30 * day,
	}
}

// Validate says what is wrong with a retention.
func (r Retention) Validate() error {
	for _, t := range r.tables() {
		if t.keep != 0 && (t.keep < time.Second || t.keep%time.Second != 0) {
			return fmt.Errorf("%s: %s is not a number of whole seconds", t.name, t.keep)
		}
	}
	return nil
}

type tableRetention struct {
	name, table, column string
	keep                time.Duration
}

func (r Retention) tables() []tableRetention {
	return []tableRetention{
		{"packets", Packets, "time", r.Packets},
		{"sessions", Versions, "created_time", r.Sessions},
		{"alerts", Alerts, "time", r.Alerts},
		{"traffic_1m", TrafficMinute, "minute", r.TrafficMinute},
		{"traffic_1h", TrafficHour, "hour", r.TrafficHour},
		{"pipeline_stats", PipelineStats, "time", r.PipelineStats},
	}
}

// expression returns the TTL as ClickHouse prints it, so that it can be found in system.tables; empty for none.
func (t tableRetention) expression() string {
	if t.keep == 0 {
		return ""
	}
	return fmt.Sprintf("toDateTime(%s) + toIntervalSecond(%d)", t.column, int64(t.keep/time.Second))
}

// statement returns what gives a table its TTL. What is there already is dropped at the next merge, not
// rewritten at once.
func (t tableRetention) statement(database string) string {
	if t.keep == 0 {
		return fmt.Sprintf("ALTER TABLE %s.%s REMOVE TTL", ident(database), t.table)
	}
	return fmt.Sprintf("ALTER TABLE %s.%s MODIFY TTL %s SETTINGS materialize_ttl_after_modify = 0", ident(database), t.table, t.expression())
}

// migrationsTable remembers which migrations were applied.
func migrationsTable(database string) string {
	return fmt.Sprintf(`CREATE TABLE IF NOT EXISTS %s.%s
(
    version UInt32 COMMENT 'Number of the migration',
    name String,
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3),
    applied_by String COMMENT 'Instance of the sink'
)
ENGINE = ReplacingMergeTree
ORDER BY version
COMMENT 'schema migrations that were applied'`, ident(database), migrations)
}

// DDL returns all statements that make a database of the newest schema from nothing, for people to read or to
// apply by hand, once and to a database without tables: unlike [Migrator.Run] they do not look at what is there. Those of a
// cluster are for each of its servers.
func DDL(database, cluster string, r Retention) []string {
	stored := Stored(database, cluster)
	list := []string{"CREATE DATABASE IF NOT EXISTS " + ident(stored), migrationsTable(stored)}
	for _, m := range all {
		for _, s := range m.statements(stored) {
			if cluster != "" {
				s.sql = replicated(stored, s.sql)
			}
			list = append(list, s.sql)
		}
		list = append(list, fmt.Sprintf("INSERT INTO %s.%s (version, name, applied_by) VALUES (%d, %s, 'by hand')", ident(stored), migrations, m.version, literal(m.name)))
	}
	for _, t := range r.tables() {
		if t.keep != 0 {
			list = append(list, t.statement(stored))
		}
	}
	if cluster != "" {
		list = append(list, distributedDDL(database, cluster)...)
	}
	return list
}

func ident(name string) string {
	return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`").Replace(name) + "`"
}

func literal(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
