package enricher

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/enricher/internal/synthetic"
	"github.com/tapweave/tapweave/enricher/output"
	"github.com/tapweave/tapweave/proto/delivery"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/kafka"
)

// feedSlowly appends records over a while.
func (b *bench) feedSlowly(records []synthetic.Record, over time.Duration) {
	b.Helper()
	const steps = 10
	for i := range steps {
		b.feed(records[len(records)*i/steps : len(records)*(i+1)/steps])
		time.Sleep(over / steps)
	}
}

// Enrichers that are killed while they fold, put out and take snapshots, one after another with other settings,
// lose nothing and count nothing twice.
func TestKilledOften(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.topics(partitions)
	o := options(5, 400)
	o.Long = true
	l := synthetic.Write(o)
	const lives = 5
	v := newView(b)
	loaded, settings := 0, 0
	for life := range lives {
		var environment []string
		if life%2 == 1 {
			environment = append(environment, childOther+"=1")
		}
		c := b.child(environment...)
		b.wait("folding", func() (bool, string) { v.read(); return len(v.markers[0]) > life, fmt.Sprint(v.markers[0]) })
		b.feedSlowly(l.Records[len(l.Records)*life/(lives+1):len(l.Records)*(life+1)/(lives+1)], 1500*time.Millisecond+time.Duration(life)*70*time.Millisecond)
		c.kill()
		loaded += strings.Count(c.log.String(), "from=snapshot")
		settings += strings.Count(c.log.String(), "other settings from here on")
	}
	b.feed(l.Records[len(l.Records)*lives/(lives+1):])
	s := b.start("last")
	v.complete(l)
	s.stop()
	if n := s.counts.degraded.Value(); n != 0 || loaded < (lives-1)*partitions || settings < (lives-2)*partitions {
		t.Errorf("%d degraded assignments, %d snapshots loaded, settings changed %d times", n, loaded, settings)
	}
}

// older makes the snapshot that is committed for each partition one of an older version of the fold, which put out
// other rows in other outputs than this one does: as it was made with other settings, which it does not name.
func (b *bench) older() {
	b.Helper()
	f, o := config(b.config, "").settings()
	b.member(func(g *kafka.Generation) {
		for _, a := range g.Assignments {
			m, err := delivery.DecodeEnricher(a.Metadata)
			if err != nil {
				b.Error(err)
				return
			}
			s := m.Snapshots[0]
			p := &partition{Service: &Service{client: b.client, config: config(b.config, ""), log: slog.New(slog.DiscardHandler)}, assigned: a}
			chunks, sum, err := p.fetchSnapshot(b.Context(), s)
			if err != nil {
				b.Error(err)
				return
			}
			stream, _, err := unpack(chunks, output.Config{Partition: uint32(a.Partition), Fold: f, Output: o})
			if err != nil {
				b.Error(err)
				return
			}
			stream.Set(f, o)
			var state bytes.Buffer
			if err := stream.Save(&state); err != nil {
				b.Error(err)
				return
			}
			raw := state.Bytes()
			at := 0
			for range 5 { // of the stream
				_, n := binary.Varint(raw[at:])
				at += n
			}
			_, n := binary.Uvarint(raw[at:]) // the form
			if at += n; raw[at] != fold.Version {
				b.Errorf("version %d", raw[at])
			}
			raw[at]--
			z, err := zstd.NewWriter(nil)
			if err != nil {
				b.Error(err)
				return
			}
			c := chunkOf(s, z.EncodeAll(raw, nil))
			c.InputPartition, c.InputCrc32C = uint32(a.Partition), sum
			s.State = b.stateOf(a.Partition, c)
			m.Snapshots = []delivery.Snapshot{s}
			text, err := m.Encode()
			if err == nil {
				err = g.Commit(b.Context(), record.TopicPackets, kafka.Commit{Partition: a.Partition, Offset: a.Offset, Metadata: text})
			}
			if err != nil {
				b.Error(err)
			}
		}
	})
}

// An upgrade that another version of the fold comes with, after a crash of the version before: what that one had put
// out since its snapshot is replaced, also if the new one is killed over it.
func TestOtherVersion(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.topics(partitions)
	o := options(12, 400)
	o.Long = true
	l := synthetic.Write(o)
	v := newView(b)
	half := len(l.Records) / 2
	c := b.child(childOther + "=1")
	b.wait("folding", func() (bool, string) { v.read(); return len(v.markers[0]) > 0 && len(v.markers[3]) > 0, "" })
	b.feedSlowly(l.Records[:half], 2*time.Second)
	c.kill()
	v.read()
	before := len(v.sessions)
	b.older()
	next := b.child()
	markers := len(v.markers[0])
	b.wait("taken over", func() (bool, string) { v.read(); return len(v.markers[0]) > markers, "" })
	b.feedSlowly(l.Records[half:half+half/4], 500*time.Millisecond)
	next.kill()
	s := b.start("last")
	b.feed(l.Records[half+half/4:])
	v.complete(l)
	s.stop()
	told := strings.Count(next.log.String(), "is of an older version") + strings.Count(s.log.String(), "is of an older version")
	if n := s.counts.degraded.Value(); n != 0 || told < partitions || before == 0 {
		t.Errorf("%d degraded assignments, %d snapshots of an older version, %d sessions before", n, told, before)
	}
}

// An enricher that stands still for longer than the session timeout, and goes on, writes what nobody counts.
func TestZombie(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.topics(partitions)
	o := options(6, 300)
	o.Long = true
	l := synthetic.Write(o)
	third := len(l.Records) / 3
	v := newView(b)
	zombie := b.child()
	b.wait("folding", func() (bool, string) { v.read(); return len(v.markers[0]) > 0, "" })
	b.feedSlowly(l.Records[:third], time.Second)
	zombie.Process.Signal(syscall.SIGSTOP)
	b.feed(l.Records[third : third+10])
	s := b.start("one")
	b.wait("taken over", func() (bool, string) { v.read(); return len(v.markers[0]) > 1 && len(v.markers[3]) > 1, "" })
	b.feedSlowly(l.Records[third+10:2*third], time.Second)
	zombie.Process.Signal(syscall.SIGCONT)
	b.feedSlowly(l.Records[2*third:], time.Second)
	v.complete(l)
	zombie.kill()
	s.stop()
}

// Enrichers that come and go leave the state of those partitions in memory that stay where they were.
func TestComingAndGoing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.topics(partitions)
	o := options(7, 300)
	o.Long = true
	l := synthetic.Write(o)
	v := newView(b)
	one := b.start("one")
	const times = 4
	for i := range times {
		b.feedSlowly(l.Records[len(l.Records)*i/times:len(l.Records)*(i+1)/times], time.Second)
		two := b.start(fmt.Sprint("two", i))
		b.wait("shared", func() (bool, string) {
			two.mu.Lock()
			defer two.mu.Unlock()
			return len(two.owned) == 2, ""
		})
		two.waitReady()
		two.stop()
	}
	v.complete(l)
	one.stop()
	if n := strings.Count(one.log.String(), "from=memory"); n < times {
		t.Errorf("%d times from memory", n)
	}
	if n := one.counts.degraded.Value(); n != 0 {
		t.Errorf("%d degraded assignments", n)
	}
}

// stopped lets an enricher fold half of a log and stop in an orderly way, and returns the first partition's
// metadata.
func (b *bench) stopped(l *synthetic.Log) delivery.Enricher {
	b.Helper()
	s := b.start("before")
	s.waitReady()
	b.feedSlowly(l.Records[:len(l.Records)/2], time.Second)
	b.wait("saved", func() (bool, string) {
		n := s.counts.committed.Value()
		return n >= partitions, fmt.Sprint(n)
	})
	s.stop() // with another snapshot
	m, err := delivery.DecodeEnricher(b.committed()[0].Metadata)
	if err != nil || len(m.Snapshots) != 2 {
		b.Fatalf("%+v, %v", m, err)
	}
	return m
}

// committed returns what is committed.
func (b *bench) committed() (all []kafka.Assignment) {
	b.Helper()
	b.member(func(g *kafka.Generation) { all = g.Assignments })
	return all
}

// member joins the group for one generation.
func (b *bench) member(work func(*kafka.Generation)) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	err := b.client.Group(kafka.GroupConfig{ID: Group}).Run(ctx, []string{record.TopicPackets}, func(_ context.Context, g *kafka.Generation) {
		work(g)
		cancel()
	})
	if err != nil {
		b.Fatal(err)
	}
}

// commit commits metadata of partition 0.
func (b *bench) commit(m delivery.Enricher) {
	b.Helper()
	text, err := m.Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.commitText(m.Snapshots[0].Input, text)
}

func (b *bench) commitText(offset int64, text string) {
	b.Helper()
	b.member(func(g *kafka.Generation) {
		if err := g.Commit(b.Context(), record.TopicPackets, kafka.Commit{Partition: 0, Offset: offset, Metadata: text}); err != nil {
			b.Error(err)
		}
	})
}

// state appends a record to tapweave.state and returns its offset.
func (b *bench) state(c *pb.SnapshotChunk) int64 {
	b.Helper()
	return b.stateOf(0, c)
}

func (b *bench) stateOf(partition int, c *pb.SnapshotChunk) int64 {
	b.Helper()
	value, err := record.MarshalState(&pb.StateRecord{Body: &pb.StateRecord_Snapshot{Snapshot: c}})
	if err != nil {
		b.Fatal(err)
	}
	offset, err := b.client.Produce(b.Context(), record.TopicState, partition, kafka.Record{Value: value})
	if err != nil {
		b.Fatal(err)
	}
	return offset
}

func chunkOf(s delivery.Snapshot, data []byte) *pb.SnapshotChunk {
	return &pb.SnapshotChunk{
		LogEpoch: s.At.Log, OwnerEpoch: s.At.Owner, Number: s.At.Number, InputOffset: s.Input, Chunks: 1, Data: data,
	}
}

// What cannot be read is told, and the snapshot before it does.
func TestDamagedSnapshots(t *testing.T) {
	for name, damage := range map[string]func(*bench, *delivery.Enricher) string{
		"garbage": func(b *bench, m *delivery.Enricher) string {
			m.Snapshots[0].State = b.state(chunkOf(m.Snapshots[0], []byte("no snapshot")))
			return "a snapshot cannot be read"
		},
		"a flipped byte": func(b *bench, m *delivery.Enricher) string {
			f, err := b.client.Fetch(b.Context(), record.TopicState, 0, m.Snapshots[0].State, 1<<20, time.Second)
			if err != nil {
				b.Fatal(err)
			}
			value := slices.Clone(f.Records[0].Value)
			value[len(value)/2] ^= 4
			if m.Snapshots[0].State, err = b.client.Produce(b.Context(), record.TopicState, 0, kafka.Record{Value: value}); err != nil {
				b.Fatal(err)
			}
			return "checksum"
		},
		"another partition's": func(b *bench, m *delivery.Enricher) string {
			c := chunkOf(m.Snapshots[0], []byte("no snapshot"))
			c.InputPartition = 1
			m.Snapshots[0].State = b.state(c)
			return "it is of partition 1"
		},
		"removed": func(b *bench, m *delivery.Enricher) string {
			m.Snapshots[0].State = 1 << 40
			return "a snapshot cannot be read"
		},
		"half": func(b *bench, m *delivery.Enricher) string {
			c := chunkOf(m.Snapshots[0], []byte("no snapshot"))
			c.Chunks = 2
			m.Snapshots[0].State = b.state(c)
			return "1 of 2 parts"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.topics(partitions)
			o := options(8, 200)
			o.Long = true
			l := synthetic.Write(o)
			m := b.stopped(l)
			told := damage(b, &m)
			b.commit(m)
			s := b.start("after")
			b.feed(l.Records[len(l.Records)/2:])
			newView(b).complete(l)
			s.stop()
			if log := s.log.String(); !strings.Contains(log, told) || s.counts.damaged.Value() != 1 || s.counts.degraded.Value() != 0 {
				t.Errorf("%d damaged, %d degraded, log without %q:\n%s", s.counts.damaged.Value(), s.counts.degraded.Value(), told, log)
			}
		})
	}
}

// Without a state a partition begins anew, under another log epoch, and says so.
func TestLostState(t *testing.T) {
	for name, lose := range map[string]func(*bench, *delivery.Enricher) string{
		"both snapshots": func(b *bench, m *delivery.Enricher) string {
			m.Snapshots[0].State, m.Snapshots[1].State = 1<<40, 1<<40
			b.commit(*m)
			return "no snapshot can be read"
		},
		"edited metadata": func(b *bench, m *delivery.Enricher) string {
			text, err := m.Encode()
			if err != nil {
				b.Fatal(err)
			}
			edited := []byte(text)
			edited[20] ^= 1
			b.commitText(m.Snapshots[0].Input, string(edited))
			return "corrupt record"
		},
		"an offset beyond the end": func(b *bench, m *delivery.Enricher) string {
			m.Snapshots = m.Snapshots[:1]
			m.Snapshots[0].State, m.Snapshots[0].Input = delivery.Nothing, 1<<40
			b.commit(*m)
			return "made anew, or offsets were set by hand"
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.topics(partitions)
			l := synthetic.Write(options(9, 100))
			m := b.stopped(l)
			told := lose(b, &m)
			s := b.start("after")
			b.feed(l.Records[len(l.Records)/2:])
			v := newView(b)
			b.wait("begun anew", func() (bool, string) {
				v.read()
				last := v.markers[0][len(v.markers[0])-1]
				return last.Log > m.Epoch.Log, last.String()
			})
			s.stop()
			if log := s.log.String(); !strings.Contains(log, told) || !strings.Contains(log, "outputs begin anew") || s.counts.degraded.Value() != 1 {
				t.Errorf("%d degraded, log without %q:\n%s", s.counts.degraded.Value(), told, log)
			}
		})
	}
}

// What a newer program has left makes this one leave, with a line that says what to do.
func TestNewerState(t *testing.T) {
	for name, leave := range map[string]func(*bench, *delivery.Enricher){
		"metadata": func(b *bench, m *delivery.Enricher) { b.commitText(m.Snapshots[0].Input, newerMetadata) },
		"snapshot": func(b *bench, m *delivery.Enricher) {
			m.Snapshots[0].State = b.state(chunkOf(m.Snapshots[0], newerSnapshot(b)))
			b.commit(*m)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.topics(partitions)
			m := b.stopped(synthetic.Write(options(10, 50)))
			leave(b, &m)
			s := b.start("older")
			select {
			case <-s.done:
			case <-time.After(patience):
				t.Fatal("it has not left")
			}
			var version *record.VersionError
			if !errors.As(s.err, &version) || !strings.Contains(s.err.Error(), "upgrade this one") || strings.Contains(s.err.Error(), "\n") {
				t.Errorf("%v", s.err)
			}
			s.err = nil
		})
	}
}

// newerMetadata is that of an enricher, of version 200, without fields.
var newerMetadata = func() string {
	b := []byte{'E', 200}
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return base64.RawURLEncoding.EncodeToString(b)
}()

// newerSnapshot is the beginning of a state whose form is of version 200.
func newerSnapshot(b *bench) []byte {
	z, err := zstd.NewWriter(nil)
	if err != nil {
		b.Fatal(err)
	}
	var state []byte
	for range 5 { // of the stream
		state = binary.AppendVarint(state, 1)
	}
	return z.EncodeAll(binary.AppendUvarint(binary.AppendUvarint(state, 200), 1), nil)
}

// A state of which any byte is damaged is refused.
func FuzzUnpack(f *testing.F) {
	l := synthetic.Write(synthetic.Options{Seed: 1, Sessions: 20, Partitions: 1, Start: time.Unix(1e9, 0), Span: 5 * time.Second, Every: 100 * time.Millisecond})
	c := DefaultConfig()
	c.Partitions = 1
	set, out := c.settings()
	s := output.New(output.Config{Fold: set, Output: out, Emit: func(uint64, []byte) error { return nil }}, new(delivery.Numbers))
	for i, r := range l.Records[:len(l.Records)/2] {
		if err := s.Record(int64(i), r.Value); err != nil {
			f.Fatal(err)
		}
	}
	s.Set(set, out)
	if !s.Whole() {
		f.Fatal("rows wait")
	}
	chunks, err := pack(s)
	if err != nil {
		f.Fatal(err)
	}
	good := chunks[0]
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, _, err := unpack([][]byte{b}, output.Config{}); err == nil && !bytes.Equal(b, good) {
			t.Skip("another whole state")
		}
	})
}
