package endtoend

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tapweave/tapweave/proto/capturetest"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/sink/clickhouse"
)

// TestBackfill corrects the labels of the sessions of a range of time, with sessions that go on over its borders: those
// that began in it have the labels of now, all else is as it was, and traffic adds up, however often the correction is
// killed while partitions are swapped.
func TestBackfill(t *testing.T) {
	paths := capturetest.Files(t)
	find := func(name string) string {
		i := slices.IndexFunc(paths, func(p string) bool { return filepath.Base(p) == name })
		if i < 0 {
			capturetest.Missing(t, name)
		}
		return paths[i]
	}
	before, within, behind := find("retina__quic.pcap"), find("nDPI__reddit.pcap"), find("nDPI__dns_fragmented.pcap")
	labels := func(name, threat string) []string {
		dir := t.TempDir()
		networks, threats := filepath.Join(dir, "networks.yaml"), filepath.Join(dir, name)
		for file, text := range map[string]string{
			networks: "networks:\n  - {prefix: 0.0.0.0/0, subnet: " + name + "}\n  - {prefix: '::/0', subnet: " + name + "}\n",
			threats:  threat + "\n",
		} {
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return []string{"TAPWEAVE_LABELS_NETWORKS=" + networks, "TAPWEAVE_LABELS_THREATS=" + name + "=" + threats}
	}
	rows, _ := expected(t, within)
	wrong, right := labels("wrong", rows[0]["src_ip"].(string)), labels("right", rows[0]["dst_ip"].(string))
	const limit = "TAPWEAVE_FOLD_LATE_LIMIT=2s"
	s := newStack(t, append(wrong, limit)...)
	b := &backfilling{s, filepath.Join(s.dir, "tapweave")}
	c := exec.Command("go", "build", "-o", b.program, "./cmd/tapweave")
	c.Dir, c.Env = "..", append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("building tapweave: %v\n%s", err, out)
	}
	play := func(list ...string) {
		for _, path := range list {
			_, packets := expected(t, path)
			s.play(packets, path)
		}
	}

	// What is played again goes on as the same sessions.
	play(before)
	b.stop("enricher-1") // with a snapshot
	from := time.Now().Truncate(time.Millisecond).Add(time.Millisecond)
	time.Sleep(time.Until(from))
	s.ready(s.start("enricher-1", "enricher"))
	play(before, within)
	to := time.Now().Truncate(time.Millisecond).Add(time.Millisecond)
	time.Sleep(time.Until(to))
	play(before, within, behind)
	s.endOfInput()
	b.stored()

	inRange := fmt.Sprintf("created_time >= toDateTime64('%d.%03d', 9) AND created_time < toDateTime64('%d.%03d', 9)", from.Unix(), from.Nanosecond()/1e6, to.Unix(), to.Nanosecond()/1e6)
	of := func(filter string) float64 {
		return s.query("SELECT toFloat64(count()) AS n FROM sessions WHERE " + filter)[0]["n"].(float64)
	}
	if n := s.query("SELECT toFloat64(count()) AS n FROM sessions WHERE NOT (" + inRange + ") AND (created_time < now64(9)) AND end_time >= toDateTime64('" + fmt.Sprint(from.Unix()) + "', 9)")[0]["n"]; n == 0.0 {
		t.Error("no session from before goes on in the range")
	}
	if of(inRange+" AND src_subnet = 'wrong'") == 0 || of(inRange+" AND src_subnet = 'wrong'") != of(inRange) || of(inRange+fmt.Sprintf(" AND end_time >= toDateTime64('%d.%03d', 9)", to.Unix(), to.Nanosecond()/1e6)) == 0 || of("NOT ("+inRange+")") == 0 {
		t.Fatal("not the sessions that were wanted")
	}
	s.checkTraffic()
	first := b.state(inRange)

	env := append(right, limit)
	span := []string{"--from", from.UTC().Format(time.RFC3339Nano), "--to", to.UTC().Format(time.RFC3339Nano)}
	n := of(inRange)
	s.eventually(time.Minute, "a correction to be possible", func() error { // late packets may come before
		out, err := b.run(env, span...)
		if want := fmt.Sprintf("%v of %v sessions would be corrected", n, n); err != nil || !strings.Contains(out, want) {
			return fmt.Errorf("%v: %s, want %s", err, out, want)
		}
		return nil
	})
	if out, err := b.run(env, append(span, "--swap")...); err == nil || !strings.Contains(out, "stop the sinks") {
		t.Errorf("while a sink runs: %v: %s", err, out)
	}
	if !reflect.DeepEqual(first, b.state(inRange)) {
		t.Error("something was changed without --swap, or while a sink runs")
	}
	b.stop("sink-1")
	kills := 0
	for ; kills < 12 && b.killed(env, append(span, "--swap")...); kills++ {
	}
	if kills < 3 || kills == 12 {
		t.Errorf("killed %d times: want once a table at least, and what is swapped stays so", kills)
	}
	second := b.state(inRange)
	if !reflect.DeepEqual(first.outside, second.outside) {
		t.Errorf("outside of the range: %v\nbefore: %v", second.outside, first.outside)
	}
	if !reflect.DeepEqual(first.unlabelled, second.unlabelled) {
		t.Error("more than labels was changed")
	}
	if !reflect.DeepEqual(first.minutes, second.minutes) {
		t.Errorf("traffic by minute: %v\nbefore: %v", second.minutes, first.minutes)
	}
	if of(inRange+" AND src_subnet = 'right' AND dst_subnet = 'right'") != n || of("src_subnet = 'right'") != n {
		t.Error("not all sessions of the range are labelled anew, or others are")
	}
	if a := s.query("SELECT countIf(threat = 'wrong') AS wrong, countIf(threat = 'right') AS right FROM alerts WHERE session_id IN (SELECT session_id FROM sessions WHERE " + inRange + ")")[0]; a["wrong"] != 0.0 || a["right"] == 0.0 {
		t.Errorf("alerts: %v", a)
	}
	s.checkTraffic()

	if out, err := b.run(env, append(span, "--swap")...); err != nil || !strings.Contains(out, "all as they are to be") {
		t.Errorf("done again: %v: %s", err, out)
	}
	if !reflect.DeepEqual(second, b.state(inRange)) {
		t.Error("done again, it changes something")
	}

	s.ready(s.start("sink-1", "sink"))
	play(behind)
	s.endOfInput()
	b.stored()
	s.checkTraffic()

	// All from the beginning on, without a snapshot, what was corrected already too.
	b.stop("sink-1")
	span[1] = "2020-01-01T00:00:00Z"
	if out, err := b.run(append(labels("other", "192.0.2.1"), limit), append(span, "--swap")...); err != nil || !strings.Contains(out, "sessions corrected") {
		t.Fatalf("from the beginning: %v: %s", err, out)
	}
	if got, want := of("src_subnet = 'other'"), of("created_time < toDateTime64('"+fmt.Sprintf("%d.%03d", to.Unix(), to.Nanosecond()/1e6)+"', 9)"); got != want {
		t.Errorf("%v sessions are labelled anew, want %v", got, want)
	}
	s.checkTraffic()
	if out, err := b.run(append(right, limit), "--from", "2020-01-01T00:00:00Z", "--to", "2020-01-02T00:00:00Z", "--swap"); err != nil || !strings.Contains(out, "0 sessions") {
		t.Errorf("a range without sessions: %v: %s", err, out)
	}
}

// backfilling runs corrections on a stack.
type backfilling struct {
	*stack
	program string
}

// stop ends a service in good order.
func (b *backfilling) stop(name string) {
	v := b.services[name]
	v.cmd.Process.Signal(syscall.SIGTERM)
	<-v.done
}

// stored waits until the sink has stored all that was put out, and all of it is final.
func (b *backfilling) stored() {
	b.t.Helper()
	var last []int64
	b.eventually(time.Minute, "all to be stored", func() error {
		done, err := b.client.Committed(b.t.Context(), clickhouse.Group, record.TopicSessions, record.DefaultOutputPartitions)
		if err != nil {
			return err
		}
		for p, offset := range done {
			if _, end, err := b.client.Offsets(b.t.Context(), record.TopicSessions, p); err != nil || offset < end {
				return fmt.Errorf("partition %d: %d of %d, %v", p, offset, end, err)
			}
		}
		if open := b.query("SELECT count() AS n FROM sessions WHERE NOT is_final")[0]["n"]; open != 0.0 {
			return fmt.Errorf("%v sessions are open", open)
		}
		if still := slices.Equal(last, done); !still {
			last = done
			time.Sleep(2 * time.Second) // longer than records take from collector to sink
			return fmt.Errorf("outputs come")
		}
		return nil
	})
}

func (b *backfilling) command(env []string, args ...string) *exec.Cmd {
	c := exec.Command(b.program, append([]string{"backfill"}, args...)...)
	c.Env = append(slices.Clone(b.env), "TAPWEAVE_CLICKHOUSE_ADDRESSES="+b.clickhouse.HTTPAddr())
	c.Env = append(append(c.Env, b.services["enricher-1"].env...), env...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

func (b *backfilling) run(env []string, args ...string) (string, error) {
	out, err := b.command(env, args...).CombinedOutput()
	return string(out), err
}

// killed runs a correction and kills it when it has swapped a partition; false: it came to its end before.
func (b *backfilling) killed(env []string, args ...string) bool {
	b.t.Helper()
	c := b.command(env, args...)
	r, err := c.StderrPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		b.t.Fatal(err)
	}
	var said bytes.Buffer
	killed := false
	swapped := regexp.MustCompile(`msg=swapped`)
	for lines := bufio.NewScanner(r); lines.Scan(); {
		fmt.Fprintln(&said, lines.Text())
		if swapped.Match(lines.Bytes()) {
			c.Process.Kill()
			killed = true
		}
	}
	if err := c.Wait(); err != nil && !killed {
		b.t.Fatalf("%v\n%s", err, &said)
	}
	return killed
}

// state is what is stored.
type state struct {
	outside    []map[string]any // rows and alerts of sessions outside of a range
	unlabelled []map[string]any // of those in it, without what depends on labels
	labelled   []map[string]any
	minutes    []map[string]any
}

func (b *backfilling) state(inRange string) (st state) {
	b.t.Helper()
	const labels = "COLUMNS('^(src|dst)_(name|subnet|vnet|labels|country|asn|as_org|threat)$'), flow_type, direction"
	const without = "SELECT * EXCEPT ('^(src|dst)_(name|subnet|vnet|labels|country|asn|as_org|threat)$') EXCEPT (flow_type, direction, version)"
	st.outside = append(b.query("SELECT * FROM sessions WHERE NOT ("+inRange+") ORDER BY session_id"),
		b.query("SELECT * FROM alerts WHERE session_id NOT IN (SELECT session_id FROM sessions WHERE "+inRange+") ORDER BY ALL")...)
	st.unlabelled = b.query(without + " FROM sessions WHERE " + inRange + " ORDER BY session_id")
	st.labelled = b.query("SELECT session_id, version, " + labels + " FROM sessions WHERE " + inRange + " ORDER BY session_id")
	for table, at := range map[string]string{"traffic_1m": "minute", "traffic_1h": "hour"} {
		st.minutes = append(st.minutes, b.query("SELECT '"+table+"' AS table, "+at+", sum(sessions), sum(src_packets), sum(dst_packets), sum(src_bytes), sum(dst_bytes), sum(src_payload_bytes), sum(dst_payload_bytes) FROM "+table+" GROUP BY ALL ORDER BY ALL")...)
	}
	slices.SortStableFunc(st.minutes, func(a, b map[string]any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	return st
}
