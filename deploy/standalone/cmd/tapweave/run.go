//go:build !static

package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"os/signal"
	"strings"
	"syscall"

	standalone "github.com/tapweave/tapweave/deploy/standalone/run"
)

const runHelp = `usage: tapweave run [FLAGS]

Runs all of Tapweave: two collectors that take mirrored packets (VXLAN over UDP), enricher, sink, an embedded Kafka
broker, and ClickHouse: the program on the PATH, or else a library that is fetched once by npm (180 MB) into
${XDG_CACHE_HOME:-~/.cache}/tapweave. Data stays in one directory; a later run goes on with it.
Everything listens on 127.0.0.1; --listen lets the collectors hear others. Ctrl-C ends the run in good order.`

func runRun(name string, args []string) error {
	var o standalone.Options
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.StringVar(&o.Dir, "data", "", "keep all data in `DIR` (default ${XDG_DATA_HOME:-~/.local/share}/tapweave)")
	flags.Func("listen", "UDP addresses `HOST:PORT,…`, a collector for each (default "+strings.Join(standalone.DefaultListen, ",")+")", func(s string) error {
		o.Listen = append(o.Listen, strings.Split(s, ",")...)
		return nil
	})
	flags.BoolVar(&o.Demo, "demo", false, "play the bundled sample, and print what came out")
	flags.BoolVar(&o.Once, "once", false, "with --demo: end after that")
	labelFlags(flags, &o.Labels)
	rest, err := parse(flags, runHelp, args)
	switch {
	case err != nil:
		return err
	case len(rest) > 0:
		return usageError{errors.New("run takes no files; see tapweave replay")}
	case o.Labels.Validate() != nil:
		return usageError{o.Labels.Validate()}
	case o.Once && !o.Demo:
		return usageError{errors.New("--once goes with --demo")}
	}
	if o.Listen == nil {
		o.Listen = standalone.DefaultListen
	}
	if o.Dir == "" {
		if o.Dir, err = standalone.DefaultDir(); err != nil {
			return err
		}
	}
	o.Console = newConsole(os.Stdout)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() { // a second Ctrl-C kills
		<-ctx.Done()
		stop()
	}()
	return standalone.Run(ctx, o)
}
