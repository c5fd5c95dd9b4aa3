package endtoend

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tapweave/tapweave/deploy/standalone/programtest"
	"github.com/tapweave/tapweave/deploy/standalone/servers"
)

// TestDiskFull lets the disks of ClickHouse and of Kafka fill up while known traffic comes in, and makes room again.
func TestDiskFull(t *testing.T) {
	if os.Getenv("KILLS") == "" {
		t.Skip("run by make chaos, which sets KILLS")
	}
	if os.Getuid() != 0 {
		programtest.Missing(t, "root, who alone can mount a disk of its own")
	}
	dir := t.TempDir()
	for _, name := range []string{"kafka", "clickhouse"} {
		disk := filepath.Join(dir, name)
		if err := os.Mkdir(disk, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=1g"); err != nil {
			programtest.Missing(t, fmt.Sprintf("a tmpfs: %v", err))
		}
		t.Cleanup(func() { syscall.Unmount(disk, syscall.MNT_DETACH) })
	}
	// A merge that meets a disk without any room was seen to leave a part that cannot be read: ClickHouse has to keep
	// some, as the operator's page says.
	const kept = 256 << 20
	c := newChaos(t, servers.ClickHouseOptions{KeepFreeBytes: kept}, dir, 1, 10)
	stop := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() { c.load.run(stop) })
	c.calm(time.Minute)

	c.fault("disk full clickhouse", "ClickHouse's disk is full")
	room := c.fill(filepath.Join(dir, "clickhouse"), kept/2)
	c.told("sink", `ClickHouse does not take rows.*(?i:space|disk)`)
	c.sleep(5 * time.Second)
	room()
	c.say("room")
	if !c.calm(2 * time.Minute) {
		t.Error("not recovered within 2 minutes of room on ClickHouse's disk")
	}

	c.fault("disk full kafka", "Kafka's disk is full")
	c.troubled()
	room = c.fill(filepath.Join(dir, "kafka"), 0)
	select {
	case <-c.broker.Done(): // it ends where it cannot write
	case <-time.After(time.Minute):
		t.Error("Kafka goes on with a full disk")
	}
	c.told("collector", `level=(WARN|ERROR) .*Kafka`)
	c.sleep(3 * time.Second)
	room()
	c.say("room")
	c.startKafka()
	c.quiet()
	c.peace()
	close(stop)
	sending.Wait()
	c.verdict()
}

// fill takes all the room of a disk but for so many bytes, and returns what gives it back.
func (c *chaos) fill(disk string, left uint64) (room func()) {
	c.t.Helper()
	path := filepath.Join(disk, "ballast")
	f, err := os.Create(path)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 1<<20); len(block) > 0; {
		var is syscall.Statfs_t
		if err := syscall.Statfs(disk, &is); err != nil || is.Bavail*uint64(is.Bsize) <= left {
			break
		}
		if _, err := f.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			c.t.Error(err)
		}
	}
}

// told waits until a service of a kind says so.
func (c *chaos) told(kind, pattern string) {
	c.t.Helper()
	re := regexp.MustCompile(pattern)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); c.sleep(200 * time.Millisecond) {
		for _, v := range c.services {
			if v.program != kind {
				continue
			}
			b, err := os.ReadFile(v.log.Name())
			if err != nil {
				c.t.Fatal(err)
			}
			if line := re.Find(b); line != nil {
				c.say("%s says: %s", v.name, line)
				return
			}
		}
	}
	c.t.Errorf("no %s has said %s", kind, pattern)
}
