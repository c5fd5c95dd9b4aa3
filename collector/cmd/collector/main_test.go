package main

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tapweave/tapweave/service/kafka/kafkatest"
	"github.com/tapweave/tapweave/service/logging/logtest"
)

// The test binary is the program where this variable is set.
const asProgram = "TAPWEAVE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

func program(t *testing.T, variables []string, args ...string) (*exec.Cmd, *logtest.Buffer) {
	t.Helper()
	c := exec.Command(os.Args[0], args...)
	c.Env = append(os.Environ(), asProgram+"=1", "TAPWEAVE_ADMIN_LISTEN=127.0.0.1:0", "TAPWEAVE_LISTEN=127.0.0.1:0")
	c.Env = append(c.Env, variables...)
	out := new(logtest.Buffer)
	c.Stdout, c.Stderr = out, out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill() })
	return c, out
}

func TestSIGTERM(t *testing.T) {
	k := kafkatest.Config(t)
	c, out := program(t, []string{
		"TAPWEAVE_KAFKA_BROKERS=" + k.Brokers[0], "TAPWEAVE_KAFKA_TOPIC_PREFIX=" + k.TopicPrefix,
		"TAPWEAVE_DRAIN_TIME=500ms", "TAPWEAVE_PARTITIONS=2",
	})
	for limit := time.Now().Add(20 * time.Second); !strings.Contains(out.String(), "msg=ready"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("not ready:\n%s", out)
		}
	}
	began := time.Now()
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if d := time.Since(began); d < 500*time.Millisecond || d > 10*time.Second || !strings.Contains(out.String(), "msg=draining") {
		t.Errorf("it took %v:\n%s", d, out)
	}
}

func TestPortInUse(t *testing.T) {
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, out := program(t, []string{"TAPWEAVE_LISTEN=" + l.LocalAddr().String()})
	err = c.Wait()
	var exit *exec.ExitError
	if want := "collector: listen: UDP " + l.LocalAddr().String() + " is in use by another program; stop it or choose another address\n"; !errors.As(err, &exit) || exit.ExitCode() != 1 || out.String() != want {
		t.Errorf("%v: %q", err, out)
	}
}

// SIGHUP reads the allow-lists anew; a file that is wrong keeps the old ones, and says so.
func TestSIGHUP(t *testing.T) {
	k := kafkatest.Config(t)
	file := filepath.Join(t.TempDir(), "collector.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("drain_time: 0s\nallow:\n  sources: [10.0.0.0/8]\n")
	c, out := program(t, []string{
		"TAPWEAVE_KAFKA_BROKERS=" + k.Brokers[0], "TAPWEAVE_KAFKA_TOPIC_PREFIX=" + k.TopicPrefix, "TAPWEAVE_PARTITIONS=1",
	}, "-config", file)
	await := func(want string) {
		t.Helper()
		for limit := time.Now().Add(20 * time.Second); !strings.Contains(out.String(), want); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("no %q in\n%s", want, out)
			}
		}
	}
	await("msg=ready")
	for _, step := range []struct{ text, want string }{
		{"drain_time: 0s\nallow:\n  sources: [10.0.0.0/8, 192.0.2.1]\n", `msg="allow-lists read anew" service=collector`},
		{"drain_time: 0s\nallow:\n  sources: [10.0.0.0/99]\n", `10.0.0.0/99\" is neither a prefix`},
		{"drain_time: 1s\nallow:\n  vnis: [27]\n", "other keys than allow have changed"},
	} {
		write(step.text)
		if err := c.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		await(step.want)
	}
	if !strings.Contains(out.String(), "the old ones hold") {
		t.Error(out)
	}
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// What -dump prints is a configuration.
func TestDump(t *testing.T) {
	c, out := program(t, []string{"TAPWEAVE_KAFKA_SASL_MECHANISM=plain", "TAPWEAVE_KAFKA_SASL_USERNAME=u", "TAPWEAVE_KAFKA_SASL_PASSWORD=hunter2"}, "-dump")
	if err := c.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if s := out.String(); strings.Contains(s, "hunter2") || !strings.Contains(s, "# UDP address of the mirrored packets") {
		t.Error(s)
	}
	c, out = program(t, nil, "-dump")
	if err := c.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	file := t.TempDir() + "/c.yaml"
	if err := os.WriteFile(file, []byte(out.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	c, out = program(t, nil, "-check", "-config", file)
	if err := c.Wait(); err != nil || !strings.HasSuffix(out.String(), "the configuration is valid\n") { // before it: that no Kafka is there
		t.Errorf("%v: %s", err, out)
	}
}
