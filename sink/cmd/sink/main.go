// Command sink stores what the enricher puts out: in ClickHouse, and as documents for SIEMs.
package main

import (
	"context"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"

	"github.com/tapweave/tapweave/service/admin"
	"github.com/tapweave/tapweave/service/command"
	"github.com/tapweave/tapweave/service/logging"
	"github.com/tapweave/tapweave/sink"
)

func main() {
	run := func(ctx context.Context, c sink.Config, log *slog.Logger) error {
		if os.Getenv("GOMEMLIMIT") == "" {
			// Rows come and go in large pieces; without a limit half as much again waits for the collector.
			debug.SetMemoryLimit(c.ClickHouse.MemoryBytes * 3)
		}
		return sink.New(c, sink.Dependencies{Log: log}).Run(ctx)
	}
	if took("migrate-only") {
		run = sink.MigrateOnly
	} else if took("print-ddl") {
		run = func(_ context.Context, c sink.Config, _ *slog.Logger) error { return sink.PrintDDL(os.Stdout, c) }
	}
	command.Main(command.Program[sink.Config]{
		Name: "sink", About: "stores sessions in ClickHouse and writes documents for SIEMs; -migrate-only brings the tables up to date and exits, -print-ddl prints their SQL and exits",
		Defaults: sink.DefaultConfig(),
		Logging:  func(c sink.Config) logging.Config { return c.Log },
		Admin:    func(c sink.Config) admin.Config { return c.Admin },
		Check:    sink.Check,
		Warnings: sink.Warnings,
		Run:      run,
	})
}

// took takes a flag that the other services do not have off the command line.
func took(name string) bool {
	isFlag := func(arg string) bool { return arg == "-"+name || arg == "--"+name }
	found := slices.ContainsFunc(os.Args[1:], isFlag)
	os.Args = slices.DeleteFunc(os.Args, isFlag)
	return found
}
