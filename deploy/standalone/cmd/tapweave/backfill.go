package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tapweave/tapweave/deploy/standalone/backfill"
	"github.com/tapweave/tapweave/enricher"
	"github.com/tapweave/tapweave/service/config"
	"github.com/tapweave/tapweave/service/logging"
	"github.com/tapweave/tapweave/sink"
)

const backfillHelp = `usage: tapweave backfill --from TIME --to TIME [--enricher FILE] [--sink FILE] [--swap]

Corrects what is stored of the sessions that were created within a range of time, e.g. after a mistake in the files of
labels: folds their packets again as far as Kafka still has them, with the labels of the enricher's configuration, and
says how many sessions would be others. --swap stores them, and the difference in traffic: stop the sinks for it, Kafka
keeps what comes meanwhile. Whatever it is stopped at, the same command goes on; done twice it changes nothing more.
TAPWEAVE_… variables work as they do for enricher and sink.`

func runBackfill(name string, args []string) error {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	var o backfill.Options
	enricherFile := flags.String("enricher", "", "the enrichers' configuration `FILE`")
	sinkFile := flags.String("sink", "", "the sinks' configuration `FILE`")
	for key, t := range map[string]*time.Time{"from": &o.From, "to": &o.To} {
		flags.Func(key, "`TIME` in RFC 3339, e.g. 2026-03-01T09:00:00Z", func(s string) (err error) {
			*t, err = time.Parse(time.RFC3339, s)
			return err
		})
	}
	flags.BoolVar(&o.Swap, "swap", false, "change what is stored")
	rest, err := parse(flags, backfillHelp, args)
	switch {
	case err != nil:
		return err
	case len(rest) > 0:
		return usageError{fmt.Errorf("unexpected argument %q", rest[0])}
	case o.From.IsZero() || o.To.IsZero():
		return usageError{fmt.Errorf("--from and --to are wanted, see %s --help", name)}
	}
	if o.Enricher, err = config.Load(*enricherFile, enricher.DefaultConfig(), sink.DefaultConfig()); err != nil {
		return err
	}
	if o.Sink, err = config.Load(*sinkFile, sink.DefaultConfig(), enricher.DefaultConfig()); err != nil {
		return err
	}
	o.Log = logging.New(os.Stderr, o.Enricher.Log)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := backfill.Run(ctx, o)
	switch {
	case err != nil:
		return err
	case r.Swapped > 0:
		fmt.Printf("%d sessions corrected, %d partitions swapped\n", r.Corrected, r.Swapped)
	case r.Corrected > 0:
		fmt.Printf("%d of %d sessions would be corrected: stop the sinks and do this with --swap\n", r.Corrected, r.Sessions)
	default:
		fmt.Printf("%d sessions, all as they are to be\n", r.Sessions)
	}
	return nil
}
