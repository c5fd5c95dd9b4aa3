package clickhouse

import (
	"context"
	"fmt"
)

// Rights returns in words which rights the user of the sink lacks: those without which nothing is stored, and those that it
// needs only to make or change tables, where the configuration lets it do so.
func (s *Server) Rights(ctx context.Context, c Config) (missing, later []string, err error) {
	lack := func(rights ...string) (list []string) {
		for _, right := range rights {
			on := "`" + c.Stored() + "`.*"
			var has uint8
			if err == nil {
				err = s.Explain(s.QueryRow(ctx, fmt.Sprintf("CHECK GRANT %s ON %s", right, on)).Scan(&has))
			}
			if err == nil && has == 0 {
				list = append(list, fmt.Sprintf("ClickHouse at %s does not allow user %q %s on database %s: GRANT %s ON %s TO `%s`",
					s.where, s.user, right, c.Stored(), right, on, s.user))
			}
		}
		return list
	}
	missing = lack("SELECT", "INSERT")
	if c.Migrate {
		later = lack("CREATE TABLE", "CREATE VIEW", "ALTER TABLE", "DROP TABLE", "DROP VIEW")
	}
	return missing, later, err
}
