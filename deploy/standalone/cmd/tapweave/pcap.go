package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/tapweave/tapweave/deploy/standalone/packets"
)

const pcapHelp = `usage: tapweave pcap [FLAGS] --where "src_ip = '10.0.0.4' AND …" -o FILE

Writes the stored packets of the sessions for which the condition holds as pcapng, in the order of their capture, each with
its session's id and labels as a comment. A packet has its original length, and as much payload as was sampled.
The condition is SQL over the columns of sessions. The flags of the connection are those of tapweave query.`

func runPcap(name string, args []string) (err error) {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	where := flags.String("where", "", "`CONDITION` over the columns of sessions")
	file := flags.String("o", "", "write to `FILE`; - is standard output")
	connect := connectionFlags(flags)
	rest, err := parse(flags, pcapHelp, args)
	switch {
	case err != nil:
		return err
	case *where == "":
		return usageError{errors.New("packets of which sessions? Say --where; see " + name + " --help")}
	case *file == "":
		return usageError{errors.New("where to? Say -o FILE")}
	case len(rest) > 0:
		return usageError{fmt.Errorf("%q is not expected here; quote the condition", rest[0])}
	}
	d, stop, err := connect()
	if err != nil {
		return err
	}
	defer stop()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	out := os.Stdout
	if *file != "-" {
		if out, err = os.Create(*file); err != nil {
			return err
		}
		defer func() {
			if err = errors.Join(err, out.Close()); err != nil {
				os.Remove(*file) // half a capture would pass for a whole one
			}
		}()
	}
	w := bufio.NewWriterSize(out, 1<<20)
	n, err := packets.Write(ctx, d, *where, w)
	if err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%s: %d packets in %s\n", name, n, *file)
	return nil
}
