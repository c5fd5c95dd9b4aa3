package servers

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tapweave/tapweave/deploy/clickhouse"
)

// The users of a ClickHouse that was started here.
const (
	// WriterUser is the sink: with a password it may do what deploy/clickhouse/privileges.sql says.
	WriterUser = "writer"
	// ReaderUser may read all tables, nothing outside of them, from this host and without a password. A query of its
	// has 4 GiB of memory and a minute.
	ReaderUser = "reader"
)

// ClickHouseOptions say where and how ClickHouse runs.
type ClickHouseOptions struct {
	// Dir holds its data, configuration and logs, and is made if need be. One server at a time can use it.
	Dir string
	// Host is the address to listen on. Default: 127.0.0.1. Over another one only [WriterUser] may come in, who then
	// needs a password.
	Host string
	// HTTPPort and TCPPort (the native protocol); 0: a free one.
	HTTPPort, TCPPort int
	// WriterPassword is that of the user [WriterUser]; the user default may then do no more than [ReaderUser], so that
	// no page in the user's browser can change anything. Empty: none, and the user default may do everything as well,
	// as suits tests.
	WriterPassword string
	// Macros are its macros, such as shard and replica.
	Macros map[string]string
	// KeepFreeBytes is how much of its disk it leaves free: a merge that met a disk without any room was seen to leave a
	// part that cannot be read.
	KeepFreeBytes int64
	// Settings are more elements of its configuration, in XML.
	Settings string
	// Progress is told what goes on; may be nil.
	Progress func(Progress)
}

// ClickHouse is a running server, a child process.
type ClickHouse struct {
	*process
	dir, http, tcp string
	password       string
	library        bool
}

// HTTPAddr is host:port of the HTTP interface.
func (c *ClickHouse) HTTPAddr() string { return c.http }

// TCPAddr is host:port of the native protocol.
func (c *ClickHouse) TCPAddr() string { return c.tcp }

// LogFile is ClickHouse's own log.
func (c *ClickHouse) LogFile() string { return filepath.Join(c.dir, "log", "clickhouse.log") }

// startTimeout is how long a server may take until it answers, recovery of its data included.
const startTimeout = 2 * time.Minute

// StartClickHouse starts the clickhouse-server or clickhouse program on the PATH, or else ClickHouse as a library that
// is fetched once (566 MB), and returns when it answers queries. The context ends the start, not the server.
func StartClickHouse(ctx context.Context, o ClickHouseOptions) (*ClickHouse, error) {
	tell := report(o.Progress)
	if o.Host == "" {
		o.Host = loopback
	}
	if ip := net.ParseIP(o.Host); (ip == nil || !ip.IsLoopback()) && o.WriterPassword == "" {
		return nil, fmt.Errorf("ClickHouse: listening on %s needs a password of the user %s", o.Host, WriterUser)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"data", "log"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("ClickHouse: %w", err)
		}
	}
	program, err := findClickHouse(ctx, tell)
	if err != nil {
		return nil, err
	}
	o.Dir = dir
	tell.step(Progress{Step: "starting ClickHouse"})
	deadline := time.Now().Add(startTimeout)
	locked := time.Now().Add(5 * time.Second) // a predecessor that was just killed needs a moment to be gone
	for attempt := 1; ; attempt++ {
		c, err := program.start(ctx, o, deadline)
		switch {
		case err == nil:
			tell.step(Progress{Step: "starting ClickHouse", Finished: true})
			return c, nil
		case errors.Is(err, errLocked) && time.Now().Before(locked):
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(200 * time.Millisecond):
			}
		case errors.Is(err, errPortTaken) && attempt < 5 && (o.HTTPPort == 0 || o.TCPPort == 0):
		default:
			return nil, fmt.Errorf("ClickHouse in %s: %w", dir, err)
		}
	}
}

var (
	errLocked    = errors.New("another server uses this directory")
	errPortTaken = errors.New("a port is in use")
)

// holdQuery runs until it is killed. It needs no more rights than its user, default, has anyway; a query that waits for
// standard input would need that of reading files.
const holdQuery = "SELECT sleepEachRow(0.5) FROM system.numbers FORMAT Null SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 1000000"

// clickhouseProgram is a way to run ClickHouse.
type clickhouseProgram struct {
	argv    []string // the program and its first arguments
	library bool     // it is clickhouse-local, which serves as long as its query runs
}

func findClickHouse(ctx context.Context, tell report) (clickhouseProgram, error) {
	if path, err := exec.LookPath("clickhouse"); err == nil {
		return clickhouseProgram{argv: []string{path, "server"}}, nil
	}
	if path, err := exec.LookPath("clickhouse-server"); err == nil {
		return clickhouseProgram{argv: []string{path}}, nil
	}
	path, err := fetchLibrary(ctx, tell)
	if err != nil {
		return clickhouseProgram{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return clickhouseProgram{}, err
	}
	if _, err := os.Stat("/proc/self/exe"); err == nil {
		self = "/proc/self/exe" // the very program that runs, whatever became of its file
	}
	return clickhouseProgram{argv: []string{self, childMode, path}, library: true}, nil
}

// start starts the server once and waits until it answers.
func (p clickhouseProgram) start(ctx context.Context, o ClickHouseOptions, deadline time.Time) (*ClickHouse, error) {
	httpPort, err := choosePort(o.Host, o.HTTPPort)
	if err != nil {
		return nil, err
	}
	tcpPort, err := choosePort(o.Host, o.TCPPort)
	if err != nil {
		return nil, err
	}
	nonce := rand.Text()
	config := filepath.Join(o.Dir, "config.xml")
	if err := os.WriteFile(config, clickhouseConfig(o, config, httpPort, tcpPort, nonce), 0o600); err != nil {
		return nil, err
	}
	args := append(p.argv[1:len(p.argv):len(p.argv)], "--config-file="+config)
	if p.library {
		args = append(args, "--path", filepath.Join(o.Dir, "data"), "--log-level", "warning",
			"--query", "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; "+holdQuery)
	}
	cmd := exec.Command(p.argv[0], args...)
	cmd.Dir = o.Dir
	cmd.Env = append(os.Environ(), "CLICKHOUSE_WATCHDOG_ENABLE=0") // no process in between that would not pass signals on
	child, err := start("ClickHouse", cmd, filepath.Join(o.Dir, "log", "console.log"), p.library, 30*time.Second)
	if err != nil {
		return nil, err
	}
	host := o.Host
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = loopback
	}
	c := &ClickHouse{
		process:  child,
		dir:      o.Dir,
		http:     net.JoinHostPort(host, strconv.Itoa(httpPort)),
		tcp:      net.JoinHostPort(host, strconv.Itoa(tcpPort)),
		password: o.WriterPassword,
		library:  p.library,
	}
	for {
		if c.answers(ctx, nonce) {
			return c, nil
		}
		select {
		case <-child.Done():
			return nil, whyEnded(child)
		case <-ctx.Done():
			child.Kill()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			child.Kill()
			return nil, fmt.Errorf("did not answer within %s, see %s", startTimeout, c.LogFile())
		}
	}
}

// answers says whether the server that was configured with this nonce serves queries: another one may have taken its port.
func (c *ClickHouse) answers(ctx context.Context, nonce string) bool {
	answer, err := c.query(ctx, ReaderUser, "", "SELECT getMacro('start')")
	return err == nil && answer == nonce
}

// query returns the short answer to a query.
func (c *ClickHouse) query(ctx context.Context, user, password, query string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.http+"/", strings.NewReader(query))
	if err != nil {
		return "", err
	}
	request.Header.Set("X-ClickHouse-User", user)
	request.Header.Set("X-ClickHouse-Key", password)
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("ClickHouse: %s", lastLines(string(body), 1))
	}
	return strings.TrimSpace(string(body)), err
}

// Stop lets ClickHouse shut down in good order.
func (c *ClickHouse) Stop() error {
	if c.library {
		_, err := c.query(context.Background(), WriterUser, c.password, "KILL QUERY WHERE user = '' AND query LIKE 'SELECT sleepEachRow%' ASYNC")
		if err == nil {
			select {
			case <-c.done:
				return nil
			case <-time.After(c.grace):
			}
		}
	}
	return c.process.Stop()
}

var exception = regexp.MustCompile(`(?s)Code: \d+\. DB::Exception: (.*?)(?:\(version|\([A-Z_]+\)|\n|$)`)

// whyEnded turns what a server printed before it ended into one line.
func whyEnded(p *process) error {
	text := p.printed()
	switch {
	case strings.Contains(text, "Cannot lock file"):
		return errLocked
	case strings.Contains(text, "Address already in use"):
		return errPortTaken
	}
	if m := exception.FindAllStringSubmatch(text, -1); m != nil {
		return errors.New(strings.TrimSpace(m[len(m)-1][1]))
	}
	return fmt.Errorf("ended at once (%v): %s", p.err, lastLines(text, 2))
}

// granted is what a file of users says of grants.
func granted(list []string) string {
	return "<grants><query>" + strings.Join(list, "</query><query>") + "</query></grants>"
}

// clickhouseConfig is the configuration of server and users, one file for both.
func clickhouseConfig(o ClickHouseOptions, path string, httpPort, tcpPort int, nonce string) []byte {
	text := func(s string) string {
		var b strings.Builder
		xml.EscapeText(&b, []byte(s))
		return b.String()
	}
	const local = "<networks><ip>127.0.0.0/8</ip><ip>::1</ip></networks>"
	networks := local
	if ip := net.ParseIP(o.Host); ip == nil || !ip.IsLoopback() {
		networks = "<networks><ip>::/0</ip></networks>"
	}
	const read = "<query>GRANT SELECT, SHOW, dictGet ON *.*</query>"
	password, grants, writes := "<no_password/>", "", ""
	if o.WriterPassword != "" {
		sum := sha256.Sum256([]byte(o.WriterPassword))
		password = "<password_sha256_hex>" + hex.EncodeToString(sum[:]) + "</password_sha256_hex>"
		grants = "<grants>" + read + "<query>GRANT SYSTEM LISTEN ON *.*</query></grants>" // the latter is for the start
		// The last two are for the stop.
		writes = granted(append(clickhouse.Grants(WriterUser), "GRANT SELECT ON system.processes", "GRANT KILL QUERY ON *.*"))
	}
	macros := ""
	for _, name := range slices.Sorted(maps.Keys(o.Macros)) {
		macros += "<" + name + ">" + text(o.Macros[name]) + "</" + name + ">"
	}
	return fmt.Appendf(nil, `<!-- Written at every start. -->
<clickhouse>
  <logger>
    <level>warning</level>
    <log>%[1]s/log/clickhouse.log</log>
    <size>10M</size>
    <count>2</count>
    <console>false</console>
  </logger>
  <listen_host>%[2]s</listen_host>
  <http_port>%[3]d</http_port>
  <tcp_port>%[4]d</tcp_port>
  <path>%[1]s/data/</path>
  <tmp_path>%[1]s/data/tmp/</tmp_path>
  <user_files_path>%[1]s/data/user_files/</user_files_path>
  <users_config>%[5]s</users_config>
  <user_directories><users_xml><path>%[5]s</path></users_xml></user_directories>
  <macros><start>%[6]s</start>%[14]s</macros>
  <mark_cache_size>268435456</mark_cache_size>
  <profiles>
    <default>
      <async_insert>0</async_insert>
    </default>
    <reader>
      <async_insert>0</async_insert>
      <readonly>2</readonly>
      <max_memory_usage>4294967296</max_memory_usage>
      <max_execution_time>60</max_execution_time>
      <constraints>
        <max_memory_usage><min>1</min><max>4294967296</max></max_memory_usage>
        <max_execution_time><min>1</min><max>60</max></max_execution_time>
      </constraints>
    </reader>
  </profiles>
  <quotas><default/></quotas>
  <users>
    <default>
      <no_password/>
      %[7]s<profile>default</profile><quota>default</quota>
      %[8]s
    </default>
    <reader>
      <no_password/>
      %[7]s<profile>reader</profile><quota>default</quota>
      %[9]s
    </reader>
    <writer>
      %[10]s
      %[11]s<profile>default</profile><quota>default</quota>
      %[12]s
    </writer>
  </users>
  <storage_configuration><disks><default><keep_free_space_bytes>%[13]d</keep_free_space_bytes></default></disks></storage_configuration>
  %[15]s
</clickhouse>
`, text(o.Dir), text(o.Host), httpPort, tcpPort, text(path), nonce, local, grants, granted(clickhouse.Grants(ReaderUser)), password, networks, writes, o.KeepFreeBytes, macros, o.Settings)
}
