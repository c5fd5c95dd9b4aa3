package kafka

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	kafka "github.com/segmentio/kafka-go"

	"github.com/tapweave/tapweave/service/tlsclient"
)

func TestRetry(t *testing.T) {
	boom := errors.New("boom")
	r := Retry{Min: time.Millisecond, Max: 4 * time.Millisecond}
	var tries, heard int
	err := r.Do(t.Context(), func() error {
		if tries++; tries < 5 {
			return boom
		}
		return nil
	}, func(err error) {
		if err == boom {
			heard++
		}
	})
	if err != nil || tries != 5 || heard != 4 {
		t.Errorf("%v after %d tries, %d heard of", err, tries, heard)
	}

	tries = 0
	err = r.Do(t.Context(), func() error { tries++; return Permanent(fmt.Errorf("no: %w", boom)) }, nil)
	if !errors.Is(err, boom) || err.Error() != "no: boom" || tries != 1 {
		t.Errorf("permanent: %v after %d tries", err, tries)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err = r.Do(ctx, func() error { return boom }, nil); err != boom {
		t.Errorf("at the end of its time: %v", err)
	}
	if err = r.Do(ctx, func() error { t.Error("tried"); return nil }, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no time at all: %v", err)
	}
}

// flaky fails as often as it is told to.
type flaky struct {
	failures int
	err      error
	written  []string
}

func (f *flaky) Produce(_ context.Context, _ string, _ int, records ...Record) (int64, error) {
	if f.failures--; f.failures >= 0 {
		return 0, f.err
	}
	f.written = append(f.written, string(records[0].Value))
	return 42, nil
}

func TestProduceRetry(t *testing.T) {
	r := Retry{Min: time.Millisecond, Max: time.Millisecond}
	clock := 0
	now := func() ([]Record, error) {
		clock++
		return []Record{{Value: fmt.Append(nil, clock)}}, nil
	}
	p := &flaky{failures: 3, err: errors.New("not now")}
	offset, err := produceRetry(t.Context(), p, r, "t", 0, now, nil)
	if err != nil || offset != 42 || !slices.Equal(p.written, []string{"4"}) {
		t.Errorf("%d, %v, wrote %v", offset, err, p.written)
	}
	p = &flaky{failures: 1, err: fmt.Errorf("wrapped: %w", ErrTooLarge)}
	if _, err := produceRetry(t.Context(), p, r, "t", 0, now, nil); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	for want, c := range map[string]Config{
		"none is given":              {},
		`"here" is not HOST:PORT`:    {Brokers: []string{"here"}},
		"but no mechanism":           {Brokers: []string{"a:1"}, SASL: SASLConfig{Username: "u"}},
		"needs username and":         {Brokers: []string{"a:1"}, SASL: SASLConfig{Mechanism: "plain", Username: "u"}},
		`mechanism "gssapi" is none`: {Brokers: []string{"a:1"}, SASL: SASLConfig{Mechanism: "gssapi"}},
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
}

func ping(t *testing.T, c Config) string {
	t.Helper()
	k, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err = k.Ping(ctx); err == nil {
		t.Fatal("it answers")
	}
	return err.Error()
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	if s := ping(t, Config{Brokers: []string{addr}}); s != "Kafka at "+addr+" cannot be reached: connection refused; check that it runs and that kafka.brokers is right" {
		t.Error(s)
	}
	if s := ping(t, Config{Brokers: []string{"nowhere.invalid:9092"}}); !strings.HasPrefix(s, "Kafka at nowhere.invalid:9092 cannot be reached: no address for host nowhere.invalid;") {
		t.Error(s)
	}
}

// serve answers every connection in the same way and closes it.
func serve(t *testing.T, answer string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			bufio.NewReader(c).ReadByte()
			c.Write([]byte(answer))
			c.Close()
		}
	}()
	return l.Addr().String()
}

func TestWrongPort(t *testing.T) {
	if s := ping(t, Config{Brokers: []string{serve(t, "HTTP/1.1 400 Bad Request\r\n\r\n")}, TLS: tlsclient.Config{Enabled: true}}); !strings.Contains(s, "does not speak TLS on that port; check kafka.tls.enabled") {
		t.Error(s)
	}
	if s := ping(t, Config{Brokers: []string{serve(t, "")}}); !strings.Contains(s, "closed the connection: ") || !strings.Contains(s, "kafka.tls or kafka.sasl do not fit") {
		t.Error(s)
	}
}

func TestSticky(t *testing.T) {
	var partitions []kafka.Partition
	for i := range 16 {
		partitions = append(partitions, kafka.Partition{Topic: "t", ID: i})
	}
	members := map[string]*sticky{}
	// deal lets the named members join, and returns how many partitions have another owner than before.
	before := map[int]string{}
	generation := int32(0)
	deal := func(names ...string) int {
		t.Helper()
		var joined []kafka.GroupMember
		for _, n := range names {
			if members[n] == nil {
				members[n] = new(sticky)
			}
			data, err := members[n].UserData()
			if err != nil {
				t.Fatal(err)
			}
			joined = append(joined, kafka.GroupMember{ID: n, Topics: []string{"t"}, UserData: data})
		}
		moved, owners := 0, map[int]string{}
		generation++
		for n, topics := range new(sticky).AssignGroups(joined, partitions) {
			if k := len(topics["t"]); k < 16/len(names) || k > (15+len(names))/len(names) {
				t.Errorf("%s has %d of 16 among %d", n, k, len(names))
			}
			var a []kafka.PartitionAssignment
			for _, id := range topics["t"] {
				if owners[id] != "" {
					t.Errorf("%d has two owners", id)
				}
				if owners[id] = n; before[id] != n {
					moved++
				}
				a = append(a, kafka.PartitionAssignment{ID: id})
			}
			members[n].owned(generation, map[string][]kafka.PartitionAssignment{"t": a})
		}
		if len(owners) != 16 {
			t.Errorf("%d of 16 have an owner", len(owners))
		}
		before = owners
		return moved
	}
	deal("a")
	for _, c := range []struct {
		names string
		moved int
	}{
		{"a b", 8}, {"b a", 0}, {"a b c", 5}, {"a c", 5}, {"a b c", 5}, {"a b c d e", 6},
	} {
		if n := deal(strings.Fields(c.names)...); n > c.moved {
			t.Errorf("%s: %d moved, %d need to", c.names, n, c.moved)
		}
	}
}
