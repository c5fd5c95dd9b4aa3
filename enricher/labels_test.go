package enricher

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapweave/tapweave/enricher/fold"
	"github.com/tapweave/tapweave/enricher/internal/synthetic"
	"github.com/tapweave/tapweave/enricher/labels"
	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/proto/session"
	"github.com/tapweave/tapweave/service/kafka"
)

// inForce waits until every partition goes by the set that the files of a service make.
func (r *running) inForce() labels.Digest {
	r.bench.Helper()
	var want labels.Digest
	r.bench.wait("labelled", func() (bool, string) {
		w, _ := r.labels.want()
		if w == nil {
			return false, "no files read"
		}
		want = w.set.Digest()
		return r.all(want)
	})
	return want
}

// all says whether all partitions are this service's and go by a label set.
func (r *running) all(want labels.Digest) (bool, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.owned {
		if in := p.inForce.Load(); in == nil || *in != want {
			return false, fmt.Sprintf("partition %d goes by %v, want %v", p.assigned.Partition, in, want)
		}
	}
	return len(r.owned) == partitions, "not all partitions"
}

// Sessions are labelled by the set in force as they begin: while files change, by an enricher that takes over and
// whose own files are broken, and by whoever folds the log again.
func TestLabels(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.topics(partitions)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	networks := func(vnet string) string {
		return "networks:\n  - prefix: 0.0.0.0/0\n    vnet: " + vnet + "\n"
	}
	o := options(8, 300)
	l := synthetic.Write(o)
	quarter := len(l.Records) / 4
	v := newView(b)

	c := config(b.config, "one")
	c.Labels.Networks = []string{write("networks.yaml", networks("red"))}
	c.Labels.Threats = []string{write("threats.txt", "203.0.113.7\n")}
	one := b.startWith(c)
	red := one.inForce()
	b.feed(l.Records[:quarter])
	write("networks.yaml", networks("blue"))
	b.wait("changed", func() (bool, string) { return one.inForce() != red, "" })
	blue := one.inForce()
	b.feed(l.Records[quarter : 2*quarter])
	write("networks.yaml", "networks:\n  - prefix: everything\n")
	b.wait("refused", func() (bool, string) {
		return strings.Contains(one.log.String(), `networks.yaml:2: \"everything\" is no prefix`) || strings.Contains(one.log.String(), "is no address"), one.log.String()
	})
	if ok, why := one.all(blue); !ok {
		t.Errorf("a broken file changed the labels: %s", why)
	}
	one.stop()

	c.Name = "two" // on a machine whose files are broken from the start
	two := b.startWith(c)
	two.waitReady()
	b.feed(l.Records[2*quarter:])
	v.complete(l)
	if ok, why := two.all(blue); !ok {
		t.Errorf("the other enricher: %s", why)
	}
	if n := two.counts.labelsFetched.Value(); n != 2 {
		t.Errorf("%d parts of label sets were fetched, want 2", n)
	}
	again := b.foldAgain(two.Service)
	seen := map[string]int{}
	for id, s := range v.sessions {
		seen[s.SrcLabels.VNet+s.FlowType]++
		a := again[id]
		if s.SrcLabels.VNet != a.SrcLabels.VNet || s.FlowType != a.FlowType {
			t.Fatalf("folded again:\n%s\nwant\n%s", columns.AppendJSON(nil, &a), columns.AppendJSON(nil, &s))
		}
	}
	if len(seen) != 2 || seen["redIntraVNet"] == 0 || seen["blueIntraVNet"] == 0 {
		t.Errorf("%v", seen)
	}
	two.stop()

	// Without any files, the labels end.
	three := b.start("three")
	three.waitReady()
	b.wait("without labels", func() (bool, string) { return three.all(labels.NewSet().Digest()) })
	three.stop()
}

type lastRows map[session.ID]columns.Session

func (r lastRows) Session(s *fold.Session) {
	var row columns.Session
	s.Row(&row)
	r[row.ID] = row
}
func (lastRows) Settled(int64, *fold.Session)            {}
func (lastRows) Traffic(*fold.Session, *columns.Traffic) {}
func (lastRows) Packet(*columns.Packet)                  {}
func (lastRows) Alert(*columns.Alert)                    {}

// foldAgain folds what is on tapweave.packets from its beginning.
func (b *bench) foldAgain(s *Service) lastRows {
	rows := lastRows{}
	set := fold.DefaultSettings()
	set.Partitions = partitions
	for i := range partitions {
		p := &partition{Service: s, assigned: kafka.Assignment{Partition: i}}
		f := fold.New(i, set, rows)
		if err := f.Label(p.labelSource(b.Context())); err != nil {
			b.Fatal(err)
		}
		_, end, err := p.offsets(b.Context(), record.TopicPackets, i)
		if err != nil {
			b.Fatal(err)
		}
		for next := int64(0); next < end; {
			got, err := p.read(b.Context(), record.TopicPackets, i, next)
			if err != nil {
				b.Fatal(err)
			}
			for _, r := range got.Records {
				if err := f.Record(r.Offset, r.Value); err != nil {
					b.Fatal(err)
				}
			}
			next = got.Next
		}
	}
	return rows
}

// A set that is named but not there is told, and does not stop the fold.
func TestLostLabels(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.topics(partitions)
	s := b.start("one")
	s.waitReady()
	p := &partition{Service: s.Service}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	encoded, err := labels.Encode(&pb.Labels{Body: &pb.Labels_Networks{Networks: &pb.Networks{}}})
	if err != nil {
		t.Fatal(err)
	}
	part, err := labels.Decode(encoded)
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.labelSource(ctx)(labels.NewSet(part).Named())
	if got != nil || err != nil || !strings.Contains(s.log.String(), "cannot be read: sessions go without labels") {
		t.Errorf("%v, %v\n%s", got, err, s.log)
	}
}
