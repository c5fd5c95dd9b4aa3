// Command testservers runs a command with real servers beside it: Apache Kafka and ClickHouse, started in a temporary
// directory and stopped when the command ends. Its exit status is the command's.
//
//	testservers [flags] -- COMMAND ARG…
//
// The command finds them in the environment: TAPWEAVE_TEST_KAFKA is host:port of the broker, TAPWEAVE_TEST_CLICKHOUSE
// host:port of ClickHouse's HTTP interface, where the user default may do everything without a password.
// Without a command, testservers prints these two as shell exports and serves until it is interrupted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/tapweave/tapweave/deploy/standalone/servers"
)

func main() {
	servers.MaybeChild()
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: testservers [flags] [-- COMMAND ARG…]")
		flag.PrintDefaults()
	}
	dir := flag.String("dir", "", "`directory` for data and logs, kept; default: a temporary one, removed at the end")
	withKafka := flag.Bool("kafka", true, "start Apache Kafka")
	withClickHouse := flag.Bool("clickhouse", true, "start ClickHouse")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	status, err := run(ctx, *dir, *withKafka, *withClickHouse, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "testservers:", err)
		status = 1
	}
	os.Exit(status)
}

// run returns the command's exit status, or an error where the servers failed.
func run(ctx context.Context, dir string, withKafka, withClickHouse bool, command []string) (status int, err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "tapweave-testservers-"); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	set, err := start(ctx, dir, withKafka, withClickHouse)
	defer set.stop()
	if err != nil {
		return 0, err
	}
	if len(command) == 0 {
		for _, variable := range set.environment() {
			fmt.Println("export", variable)
		}
		select {
		case <-ctx.Done():
			return 0, nil
		case err := <-set.failed():
			return 0, err
		}
	}

	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), set.environment()...)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-ctx.Done(): // the terminal's Ctrl-C reached the command as well; a SIGTERM did not
		cmd.Process.Signal(syscall.SIGTERM)
		err = <-ended
	case failure := <-set.failed():
		cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		return 0, failure
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if exit.ExitCode() >= 0 {
			return exit.ExitCode(), nil
		}
		return 1, err
	}
	return 0, err
}

// serverSet is the servers that run; either may be nil.
type serverSet struct {
	kafka      *servers.Kafka
	clickhouse *servers.ClickHouse
}

// start starts both servers at once. What is in the set must be stopped even after an error.
func start(ctx context.Context, dir string, withKafka, withClickHouse bool) (*serverSet, error) {
	began := time.Now()
	set := &serverSet{}
	var (
		starts sync.WaitGroup
		errs   [2]error
	)
	tell := servers.PrintProgress(os.Stderr, "testservers: ")
	if withKafka {
		starts.Go(func() {
			set.kafka, errs[0] = servers.StartKafka(ctx, servers.KafkaOptions{Dir: filepath.Join(dir, "kafka"), Progress: tell})
		})
	}
	if withClickHouse {
		starts.Go(func() {
			set.clickhouse, errs[1] = servers.StartClickHouse(ctx, servers.ClickHouseOptions{Dir: filepath.Join(dir, "clickhouse"), Progress: tell})
		})
	}
	starts.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return set, err
	}
	fmt.Fprintf(os.Stderr, "testservers: ready after %.1f s\n", time.Since(began).Seconds())
	return set, nil
}

func (s *serverSet) environment() []string {
	var list []string
	if s.kafka != nil {
		list = append(list, "TAPWEAVE_TEST_KAFKA="+s.kafka.Addr())
	}
	if s.clickhouse != nil {
		list = append(list, "TAPWEAVE_TEST_CLICKHOUSE="+s.clickhouse.HTTPAddr())
	}
	return list
}

// failed yields an error when a server ends by itself.
func (s *serverSet) failed() <-chan error {
	failures := make(chan error, 2)
	if s.kafka != nil {
		go func() { failures <- fmt.Errorf("Kafka ended: %v", s.kafka.Wait()) }()
	}
	if s.clickhouse != nil {
		go func() { failures <- fmt.Errorf("ClickHouse ended: %v", s.clickhouse.Wait()) }()
	}
	return failures
}

func (s *serverSet) stop() {
	var stops sync.WaitGroup
	if s.kafka != nil {
		stops.Go(func() { s.kafka.Kill() }) // nothing of it is kept, and a good shutdown takes seconds
	}
	if s.clickhouse != nil {
		stops.Go(func() { s.clickhouse.Kill() })
	}
	stops.Wait()
}
