// Package query asks ClickHouse questions for people: any SELECT, or one of the saved queries. It never writes.
package query

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	driver "github.com/ClickHouse/clickhouse-go/v2"

	saved "github.com/tapweave/tapweave/deploy/clickhouse"
	"github.com/tapweave/tapweave/sink/clickhouse"
)

// formats are what answers can be printed as, and ClickHouse's names for them.
var formats = map[string]string{"table": "PrettyCompactMonoBlock", "csv": "CSVWithNames", "json": "JSONEachRow"}

// Formats are the names of the formats.
func Formats() []string { return slices.Sorted(maps.Keys(formats)) }

// Database is where questions go.
type Database struct {
	Server *clickhouse.Server
	Name   string
	// Progress is told from time to time how far a query is, and "" when it has ended. May be nil.
	Progress func(text string)
}

// Run prints the answer to a query, whose tables are those of the database unless it says otherwise.
func (d Database) Run(ctx context.Context, format, sql string, parameters map[string]string, out io.Writer) error {
	name, ok := formats[format]
	if !ok {
		return fmt.Errorf("unknown format %q: %s", format, strings.Join(Formats(), ", "))
	}
	ctx, done := d.Watch(ctx, parameters)
	defer done()
	answer, err := d.Server.QueryFormat(ctx, name, sql)
	if err != nil {
		return d.Server.Explain(err)
	}
	defer answer.Close()
	_, err = io.Copy(tell{out, d.Progress}, answer)
	return d.Server.Explain(err)
}

// tell clears the line of progress before anything is printed.
type tell struct {
	out      io.Writer
	progress func(string)
}

func (t tell) Write(b []byte) (int, error) {
	if t.progress != nil {
		t.progress("")
	}
	return t.out.Write(b)
}

// Watch returns a context for one query that only reads, in the database; its progress is told until done is called.
func (d Database) Watch(ctx context.Context, parameters map[string]string) (context.Context, func()) {
	id := rand.Text()
	watching, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.watch(watching, id)
	}()
	ctx = driver.Context(ctx,
		driver.WithQueryID(id),
		driver.WithParameters(parameters),
		driver.WithSettings(driver.Settings{
			"readonly": 2,
			"database": d.Name, // a parameter of the request, as settings are
			// Numbers are numbers; tables are for terminals of any kind.
			"output_format_json_quote_64bit_integers":                0,
			"output_format_pretty_color":                             0,
			"output_format_pretty_row_numbers":                       0,
			"output_format_pretty_single_large_number_tip_threshold": 0,
		}))
	return ctx, func() {
		stop()
		<-ended
		if d.Progress != nil {
			d.Progress("")
		}
	}
}

// watch asks every second how far a query is.
func (d Database) watch(ctx context.Context, id string) {
	if d.Progress == nil {
		return
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var seconds float64
		var rows, total uint64
		if err := d.Server.QueryRow(ctx, "SELECT elapsed, read_rows, total_rows_approx FROM system.processes WHERE query_id = '"+id+"'").Scan(&seconds, &rows, &total); err != nil {
			continue // it has just ended, or the user may not see
		}
		text := fmt.Sprintf("%.0f s, %s rows read", seconds, thousands(rows))
		if total > rows {
			text += fmt.Sprintf(" of about %s", thousands(total))
		}
		d.Progress(text)
	}
}

// thousands prints 1234567 as 1,234,567.
func thousands(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Saved prints the answer to a saved query. Parameters that are not given have the query's defaults.
func (d Database) Saved(ctx context.Context, format, name string, given map[string]string, out io.Writer) error {
	q, err := saved.Named(name)
	if err != nil {
		return err
	}
	parameters := maps.Clone(given)
	if parameters == nil {
		parameters = map[string]string{}
	}
	known := map[string]bool{}
	for _, p := range q.Parameters {
		known[p.Name] = true
		if _, ok := parameters[p.Name]; ok {
			continue
		}
		var value string
		// Times in UTC, whatever the server's time zone.
		if err := d.Server.QueryRow(ctx, "SELECT toString(CAST("+p.Default+", '"+strings.ReplaceAll(p.Type, "'", `\'`)+"'))").Scan(&value); err != nil {
			return fmt.Errorf("default of %s: %w", p.Name, d.Server.Explain(err))
		}
		parameters[p.Name] = value
	}
	for name := range given {
		if !known[name] {
			return fmt.Errorf("the saved query %s has no parameter %s", q.Name, name)
		}
	}
	return d.Run(ctx, format, q.SQL, parameters, out)
}
