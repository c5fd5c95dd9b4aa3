package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"github.com/tapweave/tapweave/collector/sample"
	"github.com/tapweave/tapweave/deploy/standalone/read"
	"github.com/tapweave/tapweave/enricher/labels/source"
)

const readHelp = `usage: tapweave read [FLAGS] FILE…

Reads captures (pcap or pcapng, plain or VXLAN; Ethernet, raw IP or Linux cooked) and prints their sessions,
one JSON object a line. Several files are read as one, in the order of their time stamps.
What could not be taken in is said on standard error. The exit status is 1 if a file is damaged.`

func runRead(name string, args []string) error {
	o := read.DefaultOptions()
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.StringVar(&o.Format, "format", o.Format, "`json` or table; ecs, ocsf or asim: documents as SIEMs get them")
	flags.IntVar(&o.Collectors, "collectors", o.Collectors, "take the packets through `N` collectors")
	flags.TextVar(&o.Split, "split", o.Split, "how they are spread over the collectors: `direction`, session, packet or rehash")
	flags.DurationVar(&o.Jitter, "jitter", o.Jitter, "delay the arrival of each packet by up to `D`")
	flags.Var((*payloadBytes)(&o.Fold.KeepPayload), "payload", "print the first bytes of each side's payload: `[=N]`, 4096 without N")
	flags.TextVar(&o.Sampling.Mode, "sampling", o.Sampling.Mode, "whose payload the collectors let travel: none, starts or `all`")
	flags.BoolVar(&o.Duplicate, "duplicate", o.Duplicate, "tap both ends: each packet comes twice")
	labelFlags(flags, &o.Labels)
	files, err := parse(flags, readHelp, args)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return usageError{errors.New("which capture? See " + name + " --help")}
	}
	if err := o.Check(); err != nil {
		return usageError{err}
	}
	if o.Sampling.Mode != sample.All {
		mode := o.Sampling.Mode
		o.Sampling = sample.DefaultConfiguration()
		o.Sampling.Mode = mode
	}
	result, err := read.Run(o, files, os.Stdout)
	if errors.Is(err, syscall.EPIPE) {
		return nil // whoever read the output has had enough
	}
	if err != nil {
		return err
	}
	if line := result.String(); line != "" {
		fmt.Fprintf(os.Stderr, "%s: %s\n", name, line)
	}
	for _, line := range result.Foreign {
		fmt.Fprintf(os.Stderr, "%s: %s\n", name, line)
	}
	for _, e := range result.Damaged {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, e)
	}
	if len(result.Damaged) > 0 {
		return errReported
	}
	return nil
}

// labelFlags are the files that sessions are labelled by.
func labelFlags(flags *flag.FlagSet, c *source.Config) {
	for _, f := range []struct {
		name, usage string
		list        *[]string
	}{
		{"labels", "`FILE` of networks and hosts: our own YAML or CSV, or JSON of az, aws, kubectl or Azure service tags; TENANT=FILE for one tenant", &c.Networks},
		{"country", "`FILE` of countries by address: MaxMind's format or CSV", &c.Country},
		{"asn", "`FILE` of autonomous systems by address: MaxMind's format or CSV", &c.ASN},
		{"threats", "threat list `FILE`: plain, CSV, STIX 2.1 or MISP; NAME=FILE names its entries", &c.Threats},
	} {
		flags.Func(f.name, f.usage+" (may be repeated)", func(s string) error {
			*f.list = append(*f.list, s)
			return nil
		})
	}
}

// payloadBytes is a flag that may stand without a value.
type payloadBytes int

func (b *payloadBytes) String() string   { return "" }
func (b *payloadBytes) IsBoolFlag() bool { return true }

func (b *payloadBytes) Set(text string) error {
	if text == "true" {
		*b = 4096
		return nil
	}
	n, err := strconv.Atoi(text)
	*b = payloadBytes(n)
	return err
}
