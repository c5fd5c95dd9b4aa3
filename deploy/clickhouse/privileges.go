package clickhouse

import (
	_ "embed"
	"strings"
)

// Privileges is SQL that makes the users.
//
//go:embed privileges.sql
var Privileges string

// Grants returns what [Privileges] grants a user, each as GRANT … without the name at its end: as it stands in files
// that make users.
func Grants(user string) (list []string) {
	for line := range strings.Lines(Privileges) {
		if grant, ok := strings.CutSuffix(strings.TrimSpace(line), " TO "+user+";"); ok {
			list = append(list, grant)
		}
	}
	return list
}
