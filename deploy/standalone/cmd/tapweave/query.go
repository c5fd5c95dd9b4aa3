package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	saved "github.com/tapweave/tapweave/deploy/clickhouse"
	ask "github.com/tapweave/tapweave/deploy/standalone/query"
	"github.com/tapweave/tapweave/deploy/standalone/servers"
	"github.com/tapweave/tapweave/service/config"
	"github.com/tapweave/tapweave/sink"
)

const queryHelp = `usage: tapweave query [FLAGS] "SELECT …"
       tapweave query [FLAGS] --saved NAME [--param NAME=VALUE]…
       tapweave query --list

Prints what ClickHouse answers, and never changes anything. Without flags it asks the ClickHouse of tapweave run.
--config takes the file of a sink; TAPWEAVE_CLICKHOUSE_… variables work here as they do there.`

func runQuery(name string, args []string) error {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	format := flags.String("format", "table", "`"+strings.Join(ask.Formats(), ", ")+"`")
	which := flags.String("saved", "", "ask the saved query `NAME`")
	list := flags.Bool("list", false, "list the saved queries and their parameters")
	parameters := map[string]string{}
	flags.Func("param", "`NAME=VALUE` of a parameter {NAME:Type}", func(s string) error {
		k, v, ok := strings.Cut(s, "=")
		if !ok {
			return errors.New("want NAME=VALUE")
		}
		parameters[k] = v
		return nil
	})
	connect := connectionFlags(flags)
	rest, err := parse(flags, queryHelp, args)
	if err != nil {
		return err
	}
	switch {
	case *list:
		return listSaved(os.Stdout)
	case *which == "" && len(rest) == 0:
		return usageError{errors.New("which query? See " + name + " --help")}
	case *which != "" && len(rest) > 0, len(rest) > 1:
		return usageError{errors.New("one query at a time; quote it")}
	}
	d, stop, err := connect()
	if err != nil {
		return err
	}
	defer stop()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if *which != "" {
		err = d.Saved(ctx, *format, *which, parameters, os.Stdout)
	} else {
		err = d.Run(ctx, *format, rest[0], parameters, os.Stdout)
	}
	if errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}

// connectionFlags adds the flags that say where ClickHouse is. The function that it returns opens it.
func connectionFlags(flags *flag.FlagSet) func() (ask.Database, func(), error) {
	file := flags.String("config", "", "take the connection from the sink's configuration `FILE`")
	server := flags.String("server", "", "HTTP interface of ClickHouse, `HOST:PORT` (default 127.0.0.1:8123)")
	user := flags.String("user", "", "`USER` of ClickHouse (default reader)")
	database := flags.String("database", "", "`DATABASE` of the tables (default tapweave)")
	return func() (d ask.Database, stop func(), err error) {
		defaults := sink.DefaultConfig()
		defaults.ClickHouse.Addresses, defaults.ClickHouse.Username = []string{"127.0.0.1:8123"}, servers.ReaderUser
		c, err := config.Load(*file, defaults)
		if err != nil {
			return d, nil, err
		}
		for flag, key := range map[*string]*string{user: &c.ClickHouse.Username, database: &c.ClickHouse.Database} {
			if *flag != "" {
				*key = *flag
			}
		}
		if *server != "" {
			c.ClickHouse.Addresses = strings.Split(*server, ",")
		}
		s, err := c.ClickHouse.Open()
		if err != nil {
			return d, nil, err
		}
		d = ask.Database{Server: s, Name: c.ClickHouse.Database}
		if console := newConsole(os.Stderr); console.Terminal() {
			d.Progress = console.Status
		}
		return d, func() { s.Close() }, nil
	}
}

func listSaved(out io.Writer) error {
	all, err := saved.Queries()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, q := range all {
		fmt.Fprintf(w, "%s\t%s\n", q.Name, q.Question)
		for _, p := range q.Parameters {
			fmt.Fprintf(w, "\t  %s=%s  %s\n", p.Name, strings.Trim(p.Default, "'"), p.Meaning)
		}
	}
	return w.Flush()
}
