package endtoend

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tapweave/tapweave/collector/decode"
	"github.com/tapweave/tapweave/deploy/standalone/read"
)

// composition is docker-compose.yml, running under a name of its own on the engine of DOCKER_HOST.
type composition struct {
	t       *testing.T
	program []string // docker compose
	dir     string   // a copy of the tree's files
	files   []string
	env     []string
	reader  string // password
}

// TestCompose runs docker-compose.yml, unchanged, on a Docker engine: `make e2e` starts one, makes the images, and says by
// TAPWEAVE_COMPOSE how compose is called.
func TestCompose(t *testing.T) {
	c := newComposition(t)
	root, sample := c.dir, filepath.Join(c.dir, "deploy/standalone/sample/sample.pcap")
	want, packets := asRead(t, sample)

	c.step("up", func() { c.up() })
	c.step("demo", func() {
		c.compose("--profile", "demo", "run", "--rm", "demo")
		c.rowsEqual(want)
		c.prompt(len(want))
	})
	c.step("documents for a SIEM", func() { c.documents() })
	c.step("metrics and rules", func() { c.prometheus() })
	c.step("rights of the containers", func() { c.hardened() })
	c.step("doctor", func() { c.examined("") })

	// A host with a network of its own sends as a TAP would: to the machine's address, through the load balancer.
	host := newHost(t)
	tapweave := filepath.Join(t.TempDir(), "tapweave")
	build := exec.Command("go", "build", "-o", tapweave, "./cmd/tapweave")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c.env = append(c.env, "TAPWEAVE_LISTEN="+host.gateway)
	c.step("listen to the host's network", func() { c.up() })
	// What is sent from here on is counted at the end: all of it, and nothing twice.
	before := c.packets()
	sent := 0
	send := func(pps int) *exec.Cmd {
		sent += packets
		cmd := host.command(tapweave, "replay", "--to", host.gateway+":4789", "--pps", fmt.Sprint(pps), sample)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	wait := func(cmd *exec.Cmd) {
		if err := cmd.Wait(); err != nil {
			t.Fatalf("replay: %v", err)
		}
	}
	c.step("traffic from another network reaches both collectors", func() {
		wait(send(500))
		c.eventually(3*time.Minute, func() error {
			used := c.value("SELECT length(groupUniqArrayArray(collectors)) FROM sessions WHERE has(tap_points, '" + host.address + "')")
			if used != 2 {
				return fmt.Errorf("%v collectors took the packets of %s, want 2", used, host.address)
			}
			return nil
		})
	})
	c.step("a collector leaves in mid-traffic", func() {
		cmd := send(100)
		time.Sleep(2 * time.Second)
		c.compose("stop", "collector-1")
		wait(cmd)
		c.examined("no service answers at collector-1:8081")
		c.compose("start", "collector-1")
	})
	c.step("an enricher and the sink are killed in mid-traffic", func() {
		cmd := send(100)
		time.Sleep(2 * time.Second)
		c.compose("kill", "-s", "KILL", "enricher-1", "sink")
		time.Sleep(time.Second)
		c.compose("start", "enricher-1", "sink")
		wait(cmd)
	})
	c.step("nothing was lost, and rows are exact", func() {
		c.arrived(before, sent)
		c.trafficEqual()
	})
	c.step("a mirror of the host's own interface", func() { c.mirror(host) })
	c.step("down, and up again with the same volumes", func() {
		before := c.sessions()
		c.compose("down")
		c.up()
		after := c.sessions() // with those that were on their way
		for id := range before {
			if after[id] != 1 {
				t.Errorf("session %s is there %d times after the restart", id, after[id])
			}
		}
	})
	c.compose("down", "--volumes")

	c.step("TLS and SASL between all of them", func() {
		c.files = []string{"docker-compose.yml", "deploy/compose/tls.yml"}
		if out, err := exec.Command(filepath.Join(root, "deploy/compose/certificates.sh")).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		c.up()
		c.compose("--profile", "demo", "run", "--rm", "demo")
		c.rowsEqual(want)
		c.prompt(len(want))
	})
}

func newComposition(t *testing.T) *composition {
	program := strings.Fields(os.Getenv("TAPWEAVE_COMPOSE"))
	if len(program) == 0 {
		t.Skip("needs a Docker engine: make e2e")
	}
	c := &composition{t: t, program: program, dir: t.TempDir(), files: []string{"docker-compose.yml"}}
	for _, path := range []string{"docker-compose.yml", "Makefile", "deploy/compose", "deploy/clickhouse", "deploy/standalone/sample"} {
		to := filepath.Join(c.dir, filepath.Dir(path))
		if err := os.MkdirAll(to, 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("cp", "-r", filepath.Join("../../..", path), to).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	os.Remove(filepath.Join(c.dir, "deploy/compose/.env"))
	// Containers run as users of their own, who are to read these files.
	if err := os.Chmod(c.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(filepath.Join(c.dir, "deploy/compose/passwords.sh")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(c.dir, "deploy/compose/.env"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "CLICKHOUSE_READER_PASSWORD="); ok {
			c.reader = v
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := c.command("logs", "--tail", "20").CombinedOutput()
			t.Logf("logs of the containers:\n%s", out)
		}
		c.command("--profile", "*", "down", "--volumes", "--remove-orphans").Run()
	})
	return c
}

func (c *composition) command(args ...string) *exec.Cmd {
	argv := slices.Concat(c.program[1:], []string{"--project-name", "tapweave-test", "--ansi", "never", "--progress", "quiet"})
	for _, f := range c.files {
		argv = append(argv, "--file", f)
	}
	cmd := exec.Command(c.program[0], append(argv, args...)...)
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), c.env...)
	return cmd
}

// compose runs a command of compose and returns what it prints.
func (c *composition) compose(args ...string) string {
	c.t.Helper()
	out, err := c.command(args...).CombinedOutput()
	if err != nil {
		c.t.Fatalf("docker compose %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// up returns when all services are healthy.
func (c *composition) up() {
	c.t.Helper()
	c.compose("up", "--detach", "--wait", "--wait-timeout", "600", "--no-build", "--pull", "never")
}

func (c *composition) step(what string, do func()) {
	c.t.Helper()
	begin := time.Now()
	do()
	if c.t.Failed() {
		c.t.FailNow()
	}
	c.t.Logf("%s: %.1f s", what, time.Since(begin).Seconds())
}

// query asks ClickHouse as a user of the stack does.
func (c *composition) query(sql string) (rows []map[string]any, err error) {
	q := url.Values{"user": {"reader"}, "password": {c.reader}, "database": {"tapweave"}, "default_format": {"JSONEachRow"},
		"output_format_json_quote_64bit_integers": {"0"}}
	address := "http://127.0.0.1:8123/?" + q.Encode()
	client := http.DefaultClient
	if len(c.files) > 1 {
		if client, err = c.trusting(); err != nil {
			return nil, err
		}
		address = "https://127.0.0.1:8443/?" + q.Encode()
	}
	response, err := client.Post(address, "text/plain", strings.NewReader(sql))
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", sql, body)
	}
	for line := range bytes.Lines(body) {
		var row map[string]any
		if err := json.Unmarshal(line, &row); err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// value is the one number of a query's answer.
func (c *composition) value(sql string) float64 {
	c.t.Helper()
	rows, err := c.query(sql)
	if err != nil || len(rows) != 1 {
		c.t.Fatalf("%s: %v, %v", sql, rows, err)
	}
	for _, v := range rows[0] {
		return v.(float64)
	}
	return 0
}

// prompt wants make sql to be a SQL prompt, by which so many sessions can be counted.
func (c *composition) prompt(sessions int) {
	c.t.Helper()
	files := ""
	for _, f := range c.files {
		files += " --file " + f
	}
	cmd := exec.Command("make", "sql", "COMPOSE="+strings.Join(c.program, " ")+" --project-name tapweave-test", "FILES="+files)
	cmd.Dir = c.dir
	cmd.Stdin = strings.NewReader("SELECT count() FROM sessions")
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != fmt.Sprintln(sessions) {
		c.t.Errorf("make sql: %v: %q, want %d", err, out, sessions)
	}
}

func (c *composition) eventually(most time.Duration, holds func() error) {
	c.t.Helper()
	deadline := time.Now().Add(most)
	for {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
	}
}

const everyPacket = "toFloat64(sum(src_packets + dst_packets + duplicate_packets))"

// sessions is how many rows each session has.
func (c *composition) sessions() map[string]int {
	c.t.Helper()
	rows, err := c.query("SELECT session_id FROM sessions")
	if err != nil || len(rows) == 0 {
		c.t.Fatalf("%d sessions: %v", len(rows), err)
	}
	n := map[string]int{}
	for _, r := range rows {
		n[r["session_id"].(string)]++
	}
	return n
}

func (c *composition) packets() float64 {
	c.t.Helper()
	return c.value("SELECT " + everyPacket + " FROM sessions")
}

// arrived waits until all packets sent since a count are in sessions.
func (c *composition) arrived(before float64, sent int) {
	c.t.Helper()
	c.eventually(3*time.Minute, func() error {
		if n := c.packets() - before; n != float64(sent) {
			return fmt.Errorf("%v packets in sessions, %d were sent", n, sent)
		}
		return nil
	})
}

// rowsEqual waits until the sessions are those that tapweave read prints, but for what time alone decides.
func (c *composition) rowsEqual(want []map[string]any) {
	c.t.Helper()
	c.eventually(3*time.Minute, func() error {
		if n := c.packets(); n != total(want) {
			return fmt.Errorf("%v packets in sessions, want %v", n, total(want))
		}
		return nil
	})
	got, err := c.query("SELECT * FROM sessions ORDER BY start_time")
	if err != nil {
		c.t.Fatal(err)
	}
	undecided(got)
	compare(c.t, want, got)
}

func (c *composition) trafficEqual() {
	c.t.Helper()
	const sums = "[sum(src_packets), sum(dst_packets), sum(src_bytes), sum(dst_bytes), sum(src_payload_bytes), sum(dst_payload_bytes)]"
	c.eventually(3*time.Minute, func() error {
		rows, err := c.query("SELECT (SELECT arrayMap(x -> toInt64(x), " + sums + ") FROM sessions) AS a, (SELECT arrayMap(x -> toInt64(x), " + sums + ") FROM traffic_1m) AS b")
		if err != nil {
			return err
		}
		if a, b := fmt.Sprint(rows[0]["a"]), fmt.Sprint(rows[0]["b"]); a != b {
			return fmt.Errorf("traffic_1m adds up to %s, sessions to %s", b, a)
		}
		return nil
	})
}

// asRead is what tapweave read makes of a capture, and how many packets it holds.
func asRead(t *testing.T, path string) ([]map[string]any, int) {
	t.Helper()
	var out bytes.Buffer
	result, err := read.Run(read.DefaultOptions(), []string{path}, &out)
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]any
	for line := range bytes.Lines(out.Bytes()) {
		var row map[string]any
		if err := json.Unmarshal(line, &row); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row)
	}
	slices.SortStableFunc(rows, func(a, b map[string]any) int {
		return strings.Compare(a["start_time"].(string), b["start_time"].(string))
	})
	undecided(rows)
	return rows, int(result.Decoded[decode.OK])
}

// undecided takes out what is not decided while a session is open.
func undecided(rows []map[string]any) {
	for _, r := range rows {
		delete(r, "is_final")
		delete(r, "close_reason")
	}
}

// documents reads the topic that a SIEM reads: there is one document of each session that has ended, and no other, but for
// repeats of a document's id.
func (c *composition) documents() {
	c.t.Helper()
	c.eventually(4*time.Minute, func() error {
		out, _ := c.command("--profile", "siem", "run", "--rm", "siem",
			"--bootstrap-server", "kafka:9092", "--topic", "tapweave.siem.ecs", "--from-beginning", "--timeout-ms", "5000").Output()
		ids := map[string]bool{}
		for line := range strings.Lines(string(out)) {
			var d struct {
				Event struct{ ID, Kind string }
			}
			if !strings.HasPrefix(line, "{") {
				continue
			}
			if err := json.Unmarshal([]byte(line), &d); err != nil || d.Event.ID == "" {
				c.t.Fatalf("no document: %v: %s", err, line)
			}
			ids[d.Event.ID] = true
		}
		ended, err := c.query("SELECT session_id || ':' || toString(version) AS id FROM sessions WHERE is_final")
		if err != nil {
			return err
		}
		for _, r := range ended {
			if !ids[r["id"].(string)] {
				return fmt.Errorf("no document of the session %s", r["id"])
			}
		}
		if len(ended) == 0 || len(ids) != len(ended) {
			return fmt.Errorf("%d documents of %d sessions that have ended", len(ids), len(ended))
		}
		return nil
	})
}

// prometheus checks that our metrics are there, and that the rules load.
func (c *composition) prometheus() {
	c.t.Helper()
	get := func(path string, into any) error {
		response, err := http.Get("http://127.0.0.1:9090/api/v1/" + path)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		return json.NewDecoder(response.Body).Decode(into)
	}
	c.eventually(3*time.Minute, func() error {
		var up struct {
			Data struct {
				Result []struct{ Value [2]any }
			}
		}
		if err := get("query?query="+url.QueryEscape("sum(up)"), &up); err != nil {
			return err
		}
		if len(up.Data.Result) != 1 || up.Data.Result[0].Value[1] != "5" {
			return fmt.Errorf("not all five targets are up: %v", up.Data.Result)
		}
		for _, metric := range []string{"tapweave_collector_received_total", "tapweave_enricher_lag_seconds", "tapweave_sink_clickhouse_insert_rows_count"} {
			var found struct{ Data struct{ Result []any } }
			if err := get("query?query="+metric, &found); err != nil {
				return err
			}
			if len(found.Data.Result) == 0 {
				return fmt.Errorf("no metric %s", metric)
			}
		}
		return nil
	})
	var rules struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	if err := get("rules", &rules); err != nil {
		c.t.Fatal(err)
	}
	n := 0
	for _, g := range rules.Data.Groups {
		for _, r := range g.Rules {
			n++
			if r.Health != "ok" {
				c.t.Errorf("rule %s: %s %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	if n == 0 {
		c.t.Error("no rules")
	}
}

// host is a network namespace with a link to this machine.
type host struct{ name, gateway, address string }

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{name: fmt.Sprintf("tapweave%d", os.Getpid()), gateway: "192.168.213.1", address: "192.168.213.2"}
	link := fmt.Sprintf("tw%d", os.Getpid()%100000)
	for _, line := range []string{
		"ip netns add " + h.name,
		"ip link add " + link + " type veth peer name eth0 netns " + h.name,
		"ip addr add " + h.gateway + "/24 dev " + link,
		"ip link set " + link + " up",
		"ip -n " + h.name + " addr add " + h.address + "/24 dev eth0",
		"ip -n " + h.name + " link set eth0 up",
		"ip -n " + h.name + " route add default via " + h.gateway,
	} {
		if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
	t.Cleanup(func() { exec.Command("ip", "netns", "del", h.name).Run() })
	return h
}

// command runs in the host's network.
func (h *host) command(args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", h.name}, args...)...)
}

// mirror mirrors a host's interface to the stack: its connections are there, whole.
func (c *composition) mirror(h *host) {
	c.t.Helper()
	l, err := net.Listen("tcp4", h.gateway+":0")
	if err != nil {
		c.t.Fatal(err)
	}
	const size = 300_000
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, size)) })}
	go server.Serve(l)
	defer server.Close()
	script := filepath.Join(c.dir, "deploy/compose/mirror.sh")
	for _, args := range [][]string{
		{script, "start", "eth0", h.gateway},
		{"wget", "-q", "-O", "/dev/null", "http://" + l.Addr().String() + "/"},
		{script, "stop", "eth0"},
		{"wget", "-q", "-O", "/dev/null", "http://" + l.Addr().String() + "/"}, // which nobody sees
	} {
		if out, err := h.command(args...).CombinedOutput(); err != nil {
			c.t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	c.eventually(3*time.Minute, func() error {
		rows, err := c.query("SELECT src_ip, conn_state, dst_payload_bytes, src_missed_bytes + dst_missed_bytes AS missed, arrayStringConcat(tap_points) AS tap FROM sessions WHERE " + port + " IN (src_port, dst_port)")
		if err != nil {
			return err
		}
		if len(rows) != 1 || rows[0]["src_ip"] != h.address || rows[0]["conn_state"] != "SF" || rows[0]["dst_payload_bytes"].(float64) < size || rows[0]["missed"] != 0.0 || rows[0]["tap"] != h.address {
			return fmt.Errorf("want one whole session of %d bytes from %s, tapped there: %v", size, h.address, rows)
		}
		return nil
	})
}

// trusting is a client that trusts the stack's own authority.
func (c *composition) trusting() (*http.Client, error) {
	pem, err := os.ReadFile(filepath.Join(c.dir, "deploy/compose/tls/ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}, nil
}
