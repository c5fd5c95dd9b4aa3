package clickhouse

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// pause is for how long a sink may stand still, at least, and what it then sends once more be recognised.
const pause = 10 * time.Minute

var dedupWindow = regexp.MustCompile(`\b(non_)?replicated_deduplication_window = (\d+)`)

// Windows returns in words which tables forget the tokens of their blocks too soon. partitions is how many of
// tapweave.sessions are written to the same tables.
func (s *Server) Windows(ctx context.Context, c Config, partitions int) (warnings []string, err error) {
	rows, err := s.Query(ctx, "SELECT name, engine, create_table_query FROM system.tables WHERE database = ? ORDER BY name", c.Stored())
	if err != nil {
		return nil, s.Explain(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name, engine, query string
		if err := rows.Scan(&name, &engine, &query); err != nil {
			return nil, s.Explain(err)
		}
		if !slices.Contains(tableNames, name) || !strings.HasSuffix(engine, "MergeTree") {
			continue
		}
		blocks, setting := 0, "non_replicated_deduplication_window"
		if strings.HasPrefix(engine, "Replicated") {
			blocks, setting = 10_000, "replicated_deduplication_window" // the server's default
		}
		for _, m := range dedupWindow.FindAllStringSubmatch(query, -1) {
			if (m[1] == "") == strings.HasPrefix(engine, "Replicated") {
				blocks, _ = strconv.Atoi(m[2])
			}
		}
		// Each partition makes a block in a linger time, where there is something to store.
		linger := max(c.Linger, 100*time.Millisecond)
		if held := time.Duration(blocks) * linger / time.Duration(partitions); held < pause {
			warnings = append(warnings, fmt.Sprintf("table %s.%s remembers %d blocks, those of %s: what a sink sends again after a longer pause is stored twice; ALTER TABLE %s.%s MODIFY SETTING %s = %d",
				c.Stored(), name, blocks, held.Round(time.Second), c.Stored(), name, setting, int(pause/linger+1)*partitions))
		}
	}
	return warnings, s.Explain(rows.Err())
}
