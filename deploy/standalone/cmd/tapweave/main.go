// Command tapweave is Tapweave in one program.
//
//	tapweave run [--demo]    all services, a broker and ClickHouse in one process
//	tapweave read FILE…      sessions of captures, one JSON object a line
//	tapweave replay FILE…    captures sent to collectors as mirrored VXLAN
//	tapweave query SQL       answers from ClickHouse, read only
//	tapweave pcap -o FILE    packets of sessions, as a capture
//	tapweave backfill        stored sessions corrected from the log
//	tapweave doctor          what is wrong with an installation, and what to do
//	tapweave help            what there is
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/tapweave/tapweave/deploy/standalone/servers"
)

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1 // a file was damaged, or something else did not work
	exitUsage  = 2 // the command line was wrong
)

// command is one of the program's commands. run gets the arguments behind the command's name.
type command struct {
	name, arguments, summary string
	run                      func(name string, args []string) error
}

var commands = []command{
	{"run", "[--demo]", "run everything in this process: VXLAN in, sessions in ClickHouse out", runRun},
	{"read", "FILE…", "print the sessions of captures", runRead},
	{"replay", "FILE…", "send captures to collectors as mirrored VXLAN", runReplay},
	{"query", "SQL | --saved NAME", "ask ClickHouse, read only", runQuery},
	{"pcap", "--where SQL -o FILE", "write packets of sessions as a capture", runPcap},
	{"backfill", "--from T --to T", "correct stored sessions, e.g. after a mistake in labels", runBackfill},
	{"doctor", "[--json]", "say what is wrong with an installation, and what to do", runDoctor},
}

// usageError is a wrong command line.
type usageError struct{ error }

// errReported is a failure of which the user has been told.
var errReported = errors.New("reported")

func main() {
	servers.MaybeChild()
	os.Exit(dispatch(os.Args[1:]))
}

func dispatch(args []string) int {
	if len(args) == 0 {
		usage(os.Stderr)
		return exitUsage
	}
	name, args := args[0], args[1:]
	switch name {
	case "help", "-h", "-help", "--help":
		if len(args) == 0 {
			usage(os.Stdout)
			return exitOK
		}
		name, args = args[0], []string{"--help"}
	}
	for _, c := range commands {
		if c.name == name {
			return status("tapweave "+name, c.run("tapweave "+name, args))
		}
	}
	return status("tapweave", usageError{fmt.Errorf("unknown command %q, see tapweave help", name)})
}

// status prints an error as one line and returns the exit status that it stands for.
func status(name string, err error) int {
	var wrong usageError
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, errReported):
		return exitFailed
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	if errors.As(err, &wrong) {
		return exitUsage
	}
	return exitFailed
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Tapweave weaves mirrored packets into sessions.\n\nusage: tapweave COMMAND [FLAGS] [ARGUMENTS]\n\n")
	for _, c := range commands {
		fmt.Fprintf(w, "  %-22s %s\n", c.name+" "+c.arguments, c.summary)
	}
	fmt.Fprintf(w, "  %-22s %s\n", "help [COMMAND]", "print this, or the flags of a command")
}

// parse reads flags and other arguments, in any order, and returns the latter. Behind "--" there are no flags.
// For --help it prints help on standard output and returns flag.ErrHelp.
func parse(flags *flag.FlagSet, help string, args []string) (rest []string, err error) {
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	for len(args) > 0 {
		if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
			fmt.Print(help, "\n\n")
			flags.SetOutput(os.Stdout)
			printFlags(flags)
			return nil, err
		} else if err != nil {
			return nil, usageError{err}
		}
		left := flags.Args()
		if n := len(args) - len(left); n > 0 && args[n-1] == "--" {
			return append(rest, left...), nil
		}
		if len(left) == 0 {
			break
		}
		rest, args = append(rest, left[0]), left[1:]
	}
	return rest, nil
}

// printFlags prints the flags with two dashes, as they are written in the documentation.
func printFlags(flags *flag.FlagSet) {
	flags.VisitAll(func(f *flag.Flag) {
		value, text := flag.UnquoteUsage(f)
		left := strings.TrimRight("--"+f.Name+" "+value, " ")
		if f.DefValue != "" && f.DefValue != "false" {
			text += " (default " + f.DefValue + ")"
		}
		fmt.Fprintf(flags.Output(), "  %-20s %s\n", left, text)
	})
}
