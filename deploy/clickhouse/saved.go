// Package clickhouse is the SQL that comes with Tapweave, as files, and in programs that import it.
package clickhouse

import (
	"embed"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

//go:embed queries/*.sql
var files embed.FS

// Query is a saved query. Its file begins with comments: the question, a line for each parameter, and what it costs.
type Query struct {
	Name       string // of the file, without .sql
	Question   string // first line
	Notes      string // what else is to know, several lines
	Parameters []Parameter
	Cost       string
	SQL        string // the whole file; tables are named without their database
}

// Parameter is a value that a query takes, in ClickHouse's notation {name:Type}.
type Parameter struct {
	Name, Type string
	Default    string // an expression in SQL
	Meaning    string
}

var parameterLine = regexp.MustCompile(`^(\w+) (.+?) = (.+?): (.+)$`)

// Queries returns all saved queries by name.
func Queries() ([]Query, error) {
	entries, err := files.ReadDir("queries")
	if err != nil {
		return nil, err
	}
	var all []Query
	for _, e := range entries {
		b, err := files.ReadFile(path.Join("queries", e.Name()))
		if err != nil {
			return nil, err
		}
		q, err := parse(strings.TrimSuffix(e.Name(), ".sql"), string(b))
		if err != nil {
			return nil, err
		}
		all = append(all, q)
	}
	return all, nil
}

// Named returns a saved query.
func Named(name string) (Query, error) {
	all, err := Queries()
	if err != nil {
		return Query{}, err
	}
	i := slices.IndexFunc(all, func(q Query) bool { return q.Name == name })
	if i < 0 {
		return Query{}, fmt.Errorf("no saved query %q; there are: %s", name, strings.Join(names(all), ", "))
	}
	return all[i], nil
}

func names(all []Query) []string {
	var list []string
	for _, q := range all {
		list = append(list, q.Name)
	}
	return list
}

func parse(name, text string) (Query, error) {
	q := Query{Name: name, SQL: text}
	var notes []string
	for line := range strings.Lines(text) {
		line, comment := strings.CutPrefix(strings.TrimSpace(line), "--")
		if !comment {
			break
		}
		line = strings.TrimSpace(line)
		if q.Question == "" {
			q.Question = line
		} else if cost, ok := strings.CutPrefix(line, "Cost: "); ok {
			q.Cost = cost
		} else if m := parameterLine.FindStringSubmatch(line); m != nil {
			q.Parameters = append(q.Parameters, Parameter{m[1], m[2], m[3], m[4]})
		} else if line != "" {
			notes = append(notes, line)
		}
	}
	q.Notes = strings.Join(notes, "\n")
	if q.Question == "" || q.Cost == "" {
		return q, fmt.Errorf("%s.sql: the comments at its beginning lack the question or the cost", name)
	}
	for _, p := range q.Parameters {
		if !strings.Contains(text, "{"+p.Name+":"+p.Type+"}") {
			return q, fmt.Errorf("%s.sql: its parameter %s, a %s, is not used", name, p.Name, p.Type)
		}
	}
	return q, nil
}
