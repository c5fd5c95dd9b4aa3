// Package command is what the programs of the services have in common: flags, signals, exit status. A main is
// one call of [Main].
package command

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/tapweave/tapweave/service/admin"
	"github.com/tapweave/tapweave/service/config"
	"github.com/tapweave/tapweave/service/logging"
)

// Program is one service as a program. C is its configuration, see package config.
type Program[C any] struct {
	Name     string // of the program
	About    string // one line for -help
	Defaults C
	// Logging and Admin find these sections in a configuration.
	Logging func(C) logging.Config
	Admin   func(C) admin.Config
	// Check, if set, is asked by -check for what Validate cannot know, e.g. files.
	Check func(C) error
	// Warnings, if set, is asked by -check what the servers do not give that delivery needs, one line each.
	Warnings func(context.Context, C) []string
	// Run runs the service until ctx is done, which is what SIGTERM and SIGINT do.
	Run func(ctx context.Context, c C, log *slog.Logger) error
	// Hangup, if set, is called whenever the process gets SIGHUP. load reads the configuration anew, as at the
	// start.
	Hangup func(load func() (C, error))
}

// Main runs the program and exits: with 0; with 1 after an error, which is one line on standard error; with 2
// after a wrong command line.
func Main[C any](p Program[C]) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	status := Run(ctx, p, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// Run is Main without the process around it; it returns the exit status.
func Run[C any](ctx context.Context, p Program[C], args []string, stdout, stderr io.Writer) int {
	f := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprintf(stderr, "%s: %s\n\nUsage: %s [flags]\n", p.Name, p.About, p.Name)
		f.PrintDefaults()
		fmt.Fprintf(stderr, "Environment variables override keys, e.g. %s for kafka.brokers.\n", config.Variable("kafka", "brokers"))
	}
	var (
		file    = f.String("config", "", "read the configuration from `FILE` (YAML)")
		check   = f.Bool("check", false, "check the configuration and exit")
		dump    = f.Bool("dump", false, "print the configuration with defaults and comments and exit")
		health  = f.Bool("healthcheck", false, "ask the running service whether it is ready and exit")
		version = f.Bool("version", false, "print the version and exit")
	)
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if f.NArg() > 0 {
		fmt.Fprintf(stderr, "%s: unexpected argument %q; see %s -help\n", p.Name, f.Arg(0), p.Name)
		return 2
	}
	fail := func(err error) int {
		fmt.Fprintf(stderr, "%s: %s\n", p.Name, strings.ReplaceAll(err.Error(), "\n", "; "))
		return 1
	}
	if *version {
		fmt.Fprintln(stdout, p.Name, Version())
		return 0
	}
	c, err := config.Load(*file, p.Defaults)
	if err != nil {
		return fail(err)
	}
	switch {
	case *dump:
		if err := config.Dump(stdout, c, p.Defaults); err != nil {
			return fail(err)
		}
		return 0
	case *check:
		if p.Check != nil {
			if err := p.Check(c); err != nil {
				return fail(err)
			}
		}
		if p.Warnings != nil {
			for _, w := range p.Warnings(ctx, c) {
				fmt.Fprintln(stdout, "warning:", w)
			}
		}
		fmt.Fprintln(stdout, "the configuration is valid")
		return 0
	case *health:
		if err := admin.Probe(ctx, p.Admin(c).Listen); err != nil {
			return fail(err)
		}
		return 0
	}
	if p.Hangup != nil {
		hangups := make(chan os.Signal, 1)
		signal.Notify(hangups, syscall.SIGHUP)
		defer signal.Stop(hangups)
		go func() {
			for range hangups {
				p.Hangup(func() (C, error) { return config.Load(*file, p.Defaults) })
			}
		}()
	}
	if err := p.Run(ctx, c, logging.New(stderr, p.Logging(c))); err != nil {
		return fail(err)
	}
	return 0
}

// Version tells which source the program was built from.
func Version() string {
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := b.Main.Version
	if v == "" {
		v = "(devel)"
	}
	return v + " " + b.GoVersion
}
