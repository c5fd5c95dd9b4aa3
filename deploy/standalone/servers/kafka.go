package servers

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/segmentio/kafka-go"
)

// The Apache Kafka that tests run against.
const (
	kafkaVersion = "4.1.0"
	log4jVersion = "2.25.1"
	mavenPlugin  = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
)

// MaxMessageBytes is the greatest record batch that the brokers started here take.
const MaxMessageBytes = 1 << 20

// KafkaOptions say where and how Apache Kafka runs.
type KafkaOptions struct {
	// Dir holds its data, configuration and logs, and is made if need be.
	Dir string
	// Port on 127.0.0.1; 0: a free one. Clients know a broker by its port: a restart should name the former one.
	Port int
	// Listeners are more listeners: name to security protocol, e.g. "CLIENTS": "SASL_SSL". Each gets a free port.
	Listeners map[string]string
	// Settings are more lines of its server.properties. They win over those that are there.
	Settings string
	// Progress is told what goes on; may be nil.
	Progress func(Progress)
}

// Kafka is a running Apache Kafka of one node, a child process, on loopback. It is for tests.
type Kafka struct {
	*process
	addr      string
	listeners map[string]string
}

// Addr is host:port of the broker.
func (k *Kafka) Addr() string { return k.addr }

// Listener is host:port of one of the options' listeners.
func (k *Kafka) Listener(name string) string { return k.listeners[name] }

// Pause stops the process in its tracks, as an overloaded machine might, until [Kafka.Continue].
func (k *Kafka) Pause() error { return k.signal(syscall.SIGSTOP) }

// Continue undoes [Kafka.Pause].
func (k *Kafka) Continue() error { return k.signal(syscall.SIGCONT) }

// Stop lets Kafka shut down in good order. A paused one goes on for that.
func (k *Kafka) Stop() error {
	k.Continue()
	return k.process.Stop()
}

// StartKafka starts Apache Kafka, fetched once by Maven (43 MB), and returns when it has a coordinator for consumer
// groups. It needs java (17 or newer) and, for the first time, mvn. The context ends the start, not the server.
func StartKafka(ctx context.Context, o KafkaOptions) (*Kafka, error) {
	tell := report(o.Progress)
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, errors.New("Kafka needs java, 17 or newer, on the PATH")
	}
	libs, err := cached(ctx, "kafka-"+kafkaVersion, tell, kafkaComplete, func(dir string) error {
		return fetchJars(ctx, dir, "Apache Kafka "+kafkaVersion+" (43 MB)", tell, jar{"org.apache.kafka", "kafka_2.13", kafkaVersion},
			jar{"org.apache.logging.log4j", "log4j-core", log4jVersion}, jar{"org.apache.logging.log4j", "log4j-slf4j-impl", log4jVersion})
	})
	if err != nil {
		return nil, fmt.Errorf("cannot fetch Apache Kafka: %w", err)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "log"), 0o755); err != nil {
		return nil, fmt.Errorf("Kafka: %w", err)
	}
	tell.step(Progress{Step: "starting Kafka"})
	k, err := startKafka(ctx, java, libs, dir, o)
	// Whatever connects to somewhere may be given a port between its choice and its use.
	for range 4 {
		if !errors.Is(err, errPortTaken) {
			break
		}
		k, err = startKafka(ctx, java, libs, dir, o)
	}
	if err != nil {
		return nil, fmt.Errorf("Kafka in %s: %w", dir, err)
	}
	tell.step(Progress{Step: "starting Kafka", Finished: true})
	return k, nil
}

func kafkaComplete(dir string) bool {
	for _, name := range []string{"kafka_2.13-" + kafkaVersion, "kafka-server-" + kafkaVersion, "log4j-core-" + log4jVersion} {
		if _, err := os.Stat(filepath.Join(dir, name+".jar")); err != nil {
			return false
		}
	}
	return true
}

// jar is an artifact of Maven.
type jar struct{ group, artifact, version string }

// fetchJars puts artifacts and what they need into a directory. what names them for people.
func fetchJars(ctx context.Context, dir, what string, tell report, list ...jar) error {
	mvn, err := exec.LookPath("mvn")
	if err != nil {
		return errors.New("mvn (Maven) is not on the PATH")
	}
	dependencies := ""
	for _, j := range list {
		dependencies += fmt.Sprintf("    <dependency><groupId>%s</groupId><artifactId>%s</artifactId><version>%s</version></dependency>\n", j.group, j.artifact, j.version)
	}
	project := filepath.Join(dir, "pom.xml")
	err = os.WriteFile(project, []byte(`<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>com.github.tapweave</groupId>
  <artifactId>servers</artifactId>
  <version>1</version>
  <dependencies>
`+dependencies+`  </dependencies>
</project>
`), 0o644)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, mvn, "--batch-mode", "--no-transfer-progress", "--strict-checksums", "--file", project, mavenPlugin, "-DoutputDirectory="+dir)
	cmd.Dir = dir
	return fetch(ctx, Progress{Step: "fetching " + what}, tell, dir, cmd)
}

func startKafka(ctx context.Context, java, libs, dir string, o KafkaOptions) (*Kafka, error) {
	port, err := choosePort(loopback, o.Port)
	if err != nil {
		return nil, err
	}
	controller, err := choosePort(loopback, 0)
	if err != nil {
		return nil, err
	}
	addr := loopback + ":" + strconv.Itoa(port)
	listeners := map[string]string{}
	for name := range o.Listeners {
		port, err := choosePort(loopback, 0)
		if err != nil {
			return nil, err
		}
		listeners[name] = loopback + ":" + strconv.Itoa(port)
	}
	settings := filepath.Join(dir, "server.properties")
	if err := os.WriteFile(settings, kafkaSettings(dir, addr, controller, listeners, o), 0o600); err != nil {
		return nil, err
	}
	logging := filepath.Join(dir, "log4j2.properties")
	if err := os.WriteFile(logging, fmt.Appendf(nil, `rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
appender.file.type = File
appender.file.name = file
appender.file.fileName = %s/log/kafka.log
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %%d %%p %%c %%m%%n
`, dir), 0o644); err != nil {
		return nil, err
	}
	run := func(class string, args ...string) *exec.Cmd {
		flags := []string{"-Xmx512m", "-XX:+UseSerialGC", "-Dlog4j2.configurationFile=" + logging, "-cp", filepath.Join(libs, "*"), class}
		cmd := exec.Command(java, append(flags, args...)...)
		cmd.Dir = dir
		return cmd
	}
	console := filepath.Join(dir, "log", "console.log")
	if _, err := os.Stat(filepath.Join(dir, "data", "meta.properties")); errors.Is(err, os.ErrNotExist) {
		format, err := start("Kafka's format", run("kafka.tools.StorageTool", "format", "--ignore-formatted", "-t", clusterID(), "-c", settings), console, false, 10*time.Second)
		if err != nil {
			return nil, err
		}
		if err := endOf(ctx, format); err != nil {
			return nil, fmt.Errorf("cannot format the storage: %w", err)
		}
	}
	log := filepath.Join(dir, "log", "kafka.log")
	logged, err := os.ReadFile(log) // by earlier starts
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	child, err := start("Kafka", run("kafka.Kafka", settings), console, false, 30*time.Second)
	if err != nil {
		return nil, err
	}
	k := &Kafka{process: child, addr: addr, listeners: listeners}
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("did not answer within %s, see %s", startTimeout, filepath.Join(dir, "log")))
	defer cancel()
	for !k.coordinates(ctx) {
		select {
		case <-child.Done():
			text, _ := os.ReadFile(log)
			if text = text[min(len(logged), len(text)):]; bytes.Contains(text, []byte("Address already in use")) {
				return nil, errPortTaken
			}
			return nil, fmt.Errorf("ended at once (%v), see %s: %s", child.err, log, lastLines(child.printed(), 2))
		case <-ctx.Done():
			child.Kill()
			return nil, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return k, nil
}

// endOf waits for a process that ends by itself.
func endOf(ctx context.Context, p *process) error {
	select {
	case <-p.Done():
	case <-ctx.Done():
		p.Kill()
		return ctx.Err()
	}
	if p.err != nil {
		return fmt.Errorf("%w: %s", p.err, lastLines(p.printed(), 2))
	}
	return nil
}

// coordinates says whether the broker has a coordinator for consumer groups; the first question makes it set one up.
func (k *Kafka) coordinates(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(k.addr), Transport: transport}
	answer, err := client.FindCoordinator(ctx, &kafka.FindCoordinatorRequest{Key: "ready", KeyType: kafka.CoordinatorKeyTypeConsumer})
	return err == nil && answer.Error == nil
}

// clusterID is a random one in Kafka's notation, which does not begin with a dash.
func clusterID() string {
	var id [16]byte
	rand.Read(id[:])
	id[0] &= 0x7f
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// kafkaSettings are those of one node that is broker and controller, quick to start and small.
func kafkaSettings(dir, addr string, controller int, listeners map[string]string, o KafkaOptions) []byte {
	escaped := strings.ReplaceAll(dir, `\`, `\\`)
	more, protocols := "", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"
	for name, at := range listeners {
		more += "," + name + "://" + at
		protocols += "," + name + ":" + o.Listeners[name]
	}
	return fmt.Appendf(nil, `process.roles=broker,controller
node.id=1
controller.quorum.voters=1@%[1]s:%[2]d
listeners=PLAINTEXT://%[3]s,CONTROLLER://%[1]s:%[2]d%[7]s
advertised.listeners=PLAINTEXT://%[3]s%[7]s
listener.security.protocol.map=%[8]s
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs=%[4]s/data
log.segment.bytes=%[5]d
message.max.bytes=%[6]d
auto.create.topics.enable=false
num.partitions=1
num.recovery.threads.per.data.dir=2
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.cleaner.dedupe.buffer.size=16777216
%[9]s
`, loopback, controller, addr, escaped, 64<<20, MaxMessageBytes, more, protocols, o.Settings)
}
