package columns

import (
	"strings"

	"github.com/tapweave/tapweave/proto/pb"
)

// DDL returns the column list of the ClickHouse table of a kind of rows, for use between the parentheses of
// CREATE TABLE: one column a line, without a comma behind the last.
func DDL(kind pb.Rows_Kind) string {
	infos := Infos(kind)
	lines := make([]string, len(infos))
	for i, c := range infos {
		lines[i] = "    " + c.DDL()
	}
	return strings.Join(lines, ",\n")
}

// DDL returns the column as CREATE TABLE and ALTER TABLE ADD COLUMN have it.
func (c Info) DDL() string {
	var b strings.Builder
	b.WriteString("`" + c.Name + "` " + c.ClickHouse)
	if c.Meaning != "" {
		b.WriteString(" COMMENT " + quote(c.Comment()))
	}
	if c.Codec != "" {
		b.WriteString(" CODEC(" + c.Codec + ")")
	}
	return b.String()
}

// Comment returns the meaning and the unit in one line.
func (c Info) Comment() string {
	if c.Unit == "" {
		return c.Meaning
	}
	return c.Meaning + " [" + c.Unit + "]"
}

// Names returns the names of the columns of a kind of rows, separated by commas, for use in INSERT.
func Names(kind pb.Rows_Kind) string {
	var names []string
	for _, c := range Infos(kind) {
		names = append(names, "`"+c.Name+"`")
	}
	return strings.Join(names, ", ")
}

// quote returns a ClickHouse string literal.
func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}
