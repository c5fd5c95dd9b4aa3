package migrate

import (
	"fmt"
	"strings"
)

// Dashboard is a view of charts, for ClickHouse's own page /dashboard: a title and a query each, with the page's
// parameters seconds (how far back) and rounding (seconds a point).
const Dashboard = "dashboard"

// charts are titles and queries. {at} stands for the start of a point's time, {lately} for the time that is shown, both
// with the column in brackets behind, {db} for the database.
var charts = [][2]string{
	{"Traffic by application [bit/s]", `SELECT {at}(minute) AS t, if(app = '', 'unknown', toString(app)) AS application, sum(src_bytes + dst_bytes) * 8 / {rounding:UInt32} AS rate
FROM {db}.traffic_1m WHERE {lately}(minute) GROUP BY t, application ORDER BY t, application`},
	{"Sessions begun [1/s]", `SELECT {at}(minute) AS t, sum(sessions) / {rounding:UInt32} AS rate
FROM {db}.traffic_1m WHERE {lately}(minute) GROUP BY t ORDER BY t`},
	{"Top talkers, by src [bit/s, at the start of the session]", `WITH top AS (SELECT src_ip FROM {db}.sessions WHERE {lately}(start_time) GROUP BY src_ip ORDER BY sum(src_bytes + dst_bytes) DESC, src_ip LIMIT 8)
SELECT {at}(start_time) AS t, if(src_ip IN top, src_ip, 'all others') AS talker, sum(src_bytes + dst_bytes) * 8 / {rounding:UInt32} AS rate
FROM {db}.sessions WHERE {lately}(start_time) GROUP BY t, talker ORDER BY t, talker`},
	{"Round trip time of handshakes, median and 95 % [ms]", `SELECT {at}(start_time) AS t, quantile(0.5)(handshake_rtt) * 1000 AS p50, quantile(0.95)(handshake_rtt) * 1000 AS p95
FROM {db}.sessions WHERE {lately}(start_time) AND handshake_rtt IS NOT NULL GROUP BY t ORDER BY t`},
	{"Retransmitted packets [%]", `SELECT {at}(start_time) AS t, 100 * sum(src_retransmits + dst_retransmits) / sum(src_packets + dst_packets) AS share
FROM {db}.sessions WHERE {lately}(start_time) AND protocol = 'tcp' GROUP BY t ORDER BY t`},
	{"TCP sessions by outcome [1/s]", `SELECT {at}(start_time) AS t, toString(conn_state) AS state, count() / {rounding:UInt32} AS rate
FROM {db}.sessions WHERE {lately}(start_time) AND protocol = 'tcp' GROUP BY t, state ORDER BY t, state`},
	{"The pipeline: packets in and lost, by stage [1/s]", `SELECT {at}(time) AS t, concat(service, ' ', stage, ' ', reason) AS what, sum(step) / {rounding:UInt32} AS rate
FROM
(
    SELECT time, service, stage, reason, toInt64(count) - lagInFrame(toInt64(count), 1, toInt64(count)) OVER (PARTITION BY service, instance, incarnation, stage, reason ORDER BY time) AS step
    FROM {db}.pipeline_stats WHERE {lately}(time)
        AND (stage IN ('lost', 'refused', 'deadletter') OR reason IN ('datagrams', 'packets_folded', 'packets_late', 'packets_too_late'))
)
GROUP BY t, what ORDER BY t, what`},
}

func dashboard(database string) []string {
	var rows []string
	for _, c := range charts {
		sql := c[1]
		for _, column := range []string{"minute", "start_time", "time"} {
			sql = strings.ReplaceAll(sql, "{at}("+column+")", "toStartOfInterval("+column+", toIntervalSecond({rounding:UInt32}))::INT")
			sql = strings.ReplaceAll(sql, "{lately}("+column+")", column+" >= now() - {seconds:UInt32}")
		}
		rows = append(rows, fmt.Sprintf("    (%s, %s)", literal(c[0]), literal(strings.ReplaceAll(sql, "{db}", ident(database)))))
	}
	return []string{fmt.Sprintf("CREATE OR REPLACE VIEW %s.%s\nAS SELECT title, query FROM values('title String, query String',\n%s)\nCOMMENT 'charts for the page /dashboard of ClickHouse'",
		ident(database), Dashboard, strings.Join(rows, ",\n"))}
}
