package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/tapweave/tapweave/deploy/standalone/doctor"
	"github.com/tapweave/tapweave/service/config"
	"github.com/tapweave/tapweave/sink"
)

const doctorHelp = `usage: tapweave doctor [--config FILE] [--services HOST:PORT,…] [FLAGS]

Examines an installation of the services, Kafka and ClickHouse, and says line by line what is right, what is not, and
what to do about it. It changes nothing. --config takes the file of a sink, which has the connections, the numbers of
partitions and the outputs; TAPWEAVE_… variables work here as they do there. The exit status is 1 if there is an error.`

func runDoctor(name string, args []string) error {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	file := flags.String("config", "", "the sink's configuration `FILE`")
	services := flags.String("services", "", "where services answer /readyz and /metrics, `HOST:PORT,…`")
	since := flags.Duration("since", 10*time.Minute, "`TIME` back in which what was lost is an error")
	asJSON := flags.Bool("json", false, "print one JSON object a line")
	rest, err := parse(flags, doctorHelp, args)
	switch {
	case err != nil:
		return err
	case len(rest) > 0:
		return usageError{fmt.Errorf("unexpected argument %q", rest[0])}
	case *since <= 0:
		return usageError{errors.New("--since is more than 0")}
	}
	o := doctor.Options{Since: *since}
	if *services != "" {
		o.Services = strings.Split(*services, ",")
	}
	if o.Sink, err = config.Load(*file, sink.DefaultConfig()); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	lines := doctor.Run(ctx, o)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if *asJSON {
		out := json.NewEncoder(os.Stdout)
		for _, l := range lines {
			if err := out.Encode(l); err != nil {
				return err
			}
		}
	} else {
		fmt.Print(doctor.Table(lines))
	}
	if doctor.Worst(lines) == doctor.Error {
		return errReported
	}
	return nil
}
