package servers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

const zookeeperVersion = "3.9.3"

// ZooKeeperOptions say where ZooKeeper runs.
type ZooKeeperOptions struct {
	// Dir holds its data and logs, and is made if need be.
	Dir string
	// Progress is told what goes on; may be nil.
	Progress func(Progress)
}

// ZooKeeper is a running Apache ZooKeeper of one node, a child process, on loopback: what replicated tables of ClickHouse
// need. It is for tests.
type ZooKeeper struct {
	*process
	port int
}

// Port is the one for clients, on 127.0.0.1.
func (z *ZooKeeper) Port() int { return z.port }

// StartZooKeeper starts Apache ZooKeeper, fetched once by Maven (14 MB), and returns when it takes connections. It needs java
// and, for the first time, mvn. The context ends the start, not the server.
func StartZooKeeper(ctx context.Context, o ZooKeeperOptions) (*ZooKeeper, error) {
	tell := report(o.Progress)
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, errors.New("ZooKeeper needs java on the PATH")
	}
	complete := func(dir string) bool {
		_, err := os.Stat(filepath.Join(dir, "zookeeper-"+zookeeperVersion+".jar"))
		return err == nil
	}
	libs, err := cached(ctx, "zookeeper-"+zookeeperVersion, tell, complete, func(dir string) error {
		return fetchJars(ctx, dir, "Apache ZooKeeper "+zookeeperVersion+" (14 MB)", tell, jar{"org.apache.zookeeper", "zookeeper", zookeeperVersion},
			// What its server needs and does not name as needed.
			jar{"io.dropwizard.metrics", "metrics-core", "4.1.12.1"}, jar{"org.xerial.snappy", "snappy-java", "1.1.10.5"})
	})
	if err != nil {
		return nil, fmt.Errorf("cannot fetch Apache ZooKeeper: %w", err)
	}
	for _, sub := range []string{"data", "log"} {
		if err := os.MkdirAll(filepath.Join(o.Dir, sub), 0o755); err != nil {
			return nil, fmt.Errorf("ZooKeeper: %w", err)
		}
	}
	port, err := choosePort(loopback, 0)
	if err != nil {
		return nil, err
	}
	settings := filepath.Join(o.Dir, "zoo.cfg")
	if err := os.WriteFile(settings, fmt.Appendf(nil, "dataDir=%s/data\nclientPort=%d\nclientPortAddress=%s\ntickTime=500\nadmin.enableServer=false\n", o.Dir, port, loopback), 0o644); err != nil {
		return nil, err
	}
	tell.step(Progress{Step: "starting ZooKeeper"})
	cmd := exec.Command(java, "-Xmx128m", "-XX:+UseSerialGC", "-cp", filepath.Join(libs, "*"), "org.apache.zookeeper.server.quorum.QuorumPeerMain", settings)
	cmd.Dir = o.Dir
	child, err := start("ZooKeeper", cmd, filepath.Join(o.Dir, "log", "console.log"), false, 10*time.Second)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("ZooKeeper did not answer within %s, see %s", startTimeout, filepath.Join(o.Dir, "log")))
	defer cancel()
	for {
		if serves(net.JoinHostPort(loopback, strconv.Itoa(port))) {
			tell.step(Progress{Step: "starting ZooKeeper", Finished: true})
			return &ZooKeeper{process: child, port: port}, nil
		}
		select {
		case <-child.Done():
			return nil, fmt.Errorf("ZooKeeper ended at once (%v): %s", child.err, lastLines(child.printed(), 2))
		case <-ctx.Done():
			child.Kill()
			return nil, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// serves asks by the command srvr, for the port is open before sessions can begin.
func serves(addr string) bool {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(conn, "srvr"); err != nil {
		return false
	}
	answer, _ := io.ReadAll(conn)
	return bytes.Contains(answer, []byte("Mode: standalone"))
}
