package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/tapweave/tapweave/deploy/standalone/replay"
)

const replayHelp = `usage: tapweave replay --to HOST:PORT[,HOST:PORT…] [FLAGS] FILE…

Sends captures (pcap or pcapng, plain or VXLAN; Ethernet, raw IP or Linux cooked) to collectors as a virtual network
TAP mirrors packets: in VXLAN over UDP. Several collectors share the packets as behind a load balancer, by a hash of
the outer source address and port. Several files are sent as one, in the order of their time stamps.

VXLAN in a capture goes on with its own VXLAN header; any other frame gets one, with VNI 27. Each tap (outer source
address) of a capture is sent from an address of its own, 127.77.x.y, to collectors on this host. To others it is sent
from this host, all taps as one, unless the host owns the tap's address.
The exit status is 1 if a file is damaged or a collector did not listen.`

func runReplay(name string, args []string) error {
	var o replay.Options
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.Func("to", "send to these collectors, `HOST:PORT`, separated by commas", func(s string) error {
		o.To = append(o.To, strings.Split(s, ",")...)
		return nil
	})
	flags.Func("pps", "send `N` packets a second (default: at the pace of the time stamps)", func(s string) (err error) {
		if o.PPS, err = strconv.ParseFloat(s, 64); err == nil && !(o.PPS > 0) {
			err = errors.New("must be above 0")
		}
		return err
	})
	files, err := parse(flags, replayHelp, args)
	switch {
	case err != nil:
		return err
	case len(files) == 0:
		return usageError{errors.New("which capture? See " + name + " --help")}
	case len(o.To) == 0:
		return usageError{errors.New("to which collector? See " + name + " --help")}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() { // a second Ctrl-C kills
		<-ctx.Done()
		stop()
	}()

	var captures []*replay.Capture
	failed := false
	problem := func(err any) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		failed = true
	}
	for _, file := range files {
		c, err := replay.Open(file)
		if err != nil {
			problem(err)
			continue
		}
		captures = append(captures, c)
	}
	if len(captures) == 0 {
		return errReported
	}
	progress := newConsole(os.Stderr)
	var last replay.Progress
	o.Progress = func(p replay.Progress) {
		rate := float64(p.Packets-last.Packets) / (p.Elapsed - last.Elapsed).Seconds()
		last = p
		text := fmt.Sprintf("%d packets, %.0f/s", p.Packets, rate)
		if p.Share > 0 {
			text += fmt.Sprintf(", %.0f %% of the capture", 100*p.Share)
		}
		progress.Status(text)
	}
	result, err := replay.Run(ctx, o, captures)
	progress.Status("")
	if err != nil && result.Targets == nil {
		return err // before anything was sent
	}
	fmt.Println(&result)
	if line := result.TapLine(); line != "" {
		fmt.Println(line)
	}
	for _, line := range result.Problems() {
		problem(line)
	}
	if err != nil {
		return err
	}
	if failed {
		return errReported
	}
	return nil
}
