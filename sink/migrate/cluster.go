package migrate

import (
	"context"
	"fmt"
	"regexp"
	"strings"
)

// StoredSuffix is what the database of a cluster's own tables has behind the name of the one that people query.
const StoredSuffix = "_local"

// Stored returns the database of the tables themselves. On one server it is the one that people query. In a cluster each
// server has its own replicated tables in a database beside it, and people query tables over all shards.
func Stored(database, cluster string) string {
	if cluster == "" {
		return database
	}
	return database + StoredSuffix
}

var (
	createTable = regexp.MustCompile("^CREATE TABLE IF NOT EXISTS `[^\n]*`\\.`?(\\w+)`?\n")
	engineLine  = regexp.MustCompile(`(?m)^ENGINE = (\w*MergeTree)(?:\((.*)\))?$`)
)

// replicated makes the table of a statement a replicated one, with one state in ZooKeeper for each shard. Whoever is told the
// path by the table's first name finds it under that name always: tables that take another's name keep their path.
func replicated(database, sql string) string {
	name := createTable.FindStringSubmatch(sql)
	if name == nil {
		return sql
	}
	sql = strings.ReplaceAll(sql, "non_replicated_deduplication_window", "replicated_deduplication_window")
	return engineLine.ReplaceAllStringFunc(sql, func(line string) string {
		m := engineLine.FindStringSubmatch(line)
		arguments := ""
		if m[2] != "" {
			arguments = ", " + m[2]
		}
		return fmt.Sprintf("ENGINE = Replicated%s(%s, '{replica}'%s)", m[1], literal("/clickhouse/tables/{shard}/"+database+"/"+name[1]), arguments)
	})
}

// distributed are the tables and views that people find in their database, each over all shards.
var distributed = []string{Versions, TrafficMinute, TrafficHour, Packets, Alerts, PipelineStats, Marks, "NTANetAnalytics", "zeek_conn", "ipfix", "dns", "tls", "http", Sessions}

// mark is the comment of the last of them: the others are as it says.
func distributedMark(cluster string) string {
	return fmt.Sprintf("schema %d over cluster %s", Version(), cluster)
}

func distributedDDL(database, cluster string) []string {
	list := []string{"CREATE DATABASE IF NOT EXISTS " + ident(database)}
	list = append(list, dashboard(database)...)
	for _, name := range distributed {
		list = append(list, fmt.Sprintf("CREATE OR REPLACE TABLE %[1]s.%[3]s AS %[2]s.%[3]s\nENGINE = Distributed(%[4]s, %[5]s, %[6]s)\nCOMMENT %[7]s",
			ident(database), ident(Stored(database, cluster)), ident(name), literal(cluster), literal(Stored(database, cluster)), literal(name), literal(distributedMark(cluster))))
	}
	return list
}

// distribute makes the tables over all shards, where they are not those of this schema.
func (m *Migrator) distribute(ctx context.Context) error {
	var done bool
	err := m.Conn.QueryRow(ctx, fmt.Sprintf("SELECT toBool(count()) FROM system.tables WHERE database = %s AND name = %s AND comment = %s",
		literal(m.Database), literal(Sessions), literal(distributedMark(m.Cluster)))).Scan(&done)
	if err != nil || done {
		return err
	}
	for _, s := range distributedDDL(m.Database, m.Cluster) {
		if err := m.exec(ctx, s); err != nil {
			return fmt.Errorf("tables over cluster %s: %w", m.Cluster, err)
		}
	}
	return nil
}
