package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

type settings struct {
	Name  string            `yaml:"name" doc:"Name of the thing."`
	Kafka connection        `yaml:"kafka" doc:"Where the log is."`
	Wait  time.Duration     `yaml:"wait" doc:"How long to wait."`
	Level slog.Level        `yaml:"level"`
	Names map[uint32]string `yaml:"names"`
	Ports []uint16          `yaml:"ports"`
	Inner string            `yaml:"-"`
}

type connection struct {
	Brokers      []string `yaml:"brokers" doc:"Addresses."`
	Bytes        int      `yaml:"bytes"`
	Secure       bool     `yaml:"secure"`
	Password     Secret   `yaml:"password" doc:"Secret."`
	PasswordFile string   `yaml:"password_file"`
}

func (c connection) Validate() error {
	if c.Bytes < 0 {
		return errors.New("bytes is negative")
	}
	return nil
}

func defaults() settings {
	return settings{Name: "one", Wait: time.Second, Kafka: connection{Brokers: []string{"localhost:9092"}, Bytes: 7}}
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestUnknownVariable(t *testing.T) {
	type section struct {
		Brokers []string `yaml:"brokers"`
	}
	type config struct {
		Kafka section `yaml:"kafka"`
	}
	for name, want := range map[string]string{
		"TAPWEAVE_KAFKA_BROKER":                    "overrides no key, the nearest that does is TAPWEAVE_KAFKA_BROKERS",
		"TAPWEAVE_KAFKA":                           "TAPWEAVE_KAFKA overrides no key",
		"TAPWEAVE_KAFKA_BROKERS":                   "",
		"TAPWEAVE_COLLECTOR_SERVICE_HOST":          "", // as Kubernetes sets them
		"TAPWEAVE_COLLECTOR_PORT_4789_UDP_ADDR":    "",
		"TAPWEAVE_COLLECTOR_SERVICE_PORT_MIRRORED": "",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "x")
			_, err := Load("", config{})
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	file := write(t, "c.yaml", `# all of it
name: two
wait: 250ms
level: warn
names: {5: five}
kafka:
  brokers: [a:1, b:2]
  secure: true
`)
	t.Setenv("TAPWEAVE_KAFKA_BYTES", "9")
	got, err := Load(file, defaults())
	if err != nil {
		t.Fatal(err)
	}
	want := settings{
		Name: "two", Wait: 250 * time.Millisecond, Level: slog.LevelWarn, Names: map[uint32]string{5: "five"},
		Kafka: connection{Brokers: []string{"a:1", "b:2"}, Bytes: 9, Secure: true},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestEnvironment(t *testing.T) {
	for name, value := range map[string]string{
		"NAME": "5", "WAIT": "3m", "KAFKA_BROKERS": "x:1, y:2", "KAFKA_SECURE": "true", "KAFKA_PASSWORD": "a,b: c", "NAMES": "{7: seven}", "PORTS": "4789, 8472", "LEVEL": "error",
	} {
		t.Setenv(Prefix+name, value)
	}
	got, err := Load("", defaults())
	if err != nil {
		t.Fatal(err)
	}
	want := settings{
		Name: "5", Wait: 3 * time.Minute, Level: slog.LevelError, Names: map[uint32]string{7: "seven"}, Ports: []uint16{4789, 8472},
		Kafka: connection{Brokers: []string{"x:1", "y:2"}, Bytes: 7, Secure: true, Password: "a,b: c"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %#v", got)
	}
	t.Setenv("TAPWEAVE_WAIT", "soon")
	if _, err := Load("", defaults()); err == nil || !strings.Contains(err.Error(), `TAPWEAVE_WAIT: "soon" is not a duration`) {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		"name: x\nkafak: {}\n":                   `c.yaml:2: unknown key "kafak", the nearest known key is "kafka"`,
		"kafka:\n  broker: [a]\n":                `c.yaml:2: in kafka: unknown key "broker", the nearest known key is "brokers"`,
		"kafka:\n  bytes: many\n":                `c.yaml:2: kafka.bytes: "many" is not a whole number in range`,
		"kafka:\n  bytes: -1\n":                  `c.yaml: in kafka: bytes is negative`,
		"wait: 5\n":                              `c.yaml:1: wait: "5" is not a duration like 250ms, 10s or 1h`,
		"name: x\nname: y\n":                     `c.yaml:2: key "name" stands in line 1 already`,
		"kafka: here\n":                          `c.yaml:1: in kafka: keys with values are wanted here`,
		"- a\n":                                  `c.yaml:1: keys with values are wanted here`,
		"kafka:\n  password: [a]\n":              `c.yaml:2: kafka.password: not a string`,
		"name: x\n---\nname: y\n":                `a second YAML document`,
		"name: 'x\n":                             `c.yaml:`,
		"kafka: {password: x, password_file: y}": `kafka.password and kafka.password_file are both set`,
		"kafka: {password: '***'}":               `kafka.password: *** stands in a dump for a secret`,
		"kafka: {password_file: /nowhere}":       `kafka.password_file: open /nowhere`,
	} {
		_, err := Load(write(t, "c.yaml", text), defaults())
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	for _, text := range []string{"", "# nothing\n", "kafka:\n", "kafka:\n  # nothing\n"} {
		if c, err := Load(write(t, "c.yaml", text), defaults()); err != nil || !reflect.DeepEqual(c, defaults()) {
			t.Errorf("%q: %v, %v", text, c, err)
		}
	}
}

func TestSecret(t *testing.T) {
	c, err := Load(write(t, "c.yaml", "kafka:\n  password_file: "+write(t, "p", "hunter2\r\n")+"\n"), defaults())
	if err != nil || c.Kafka.Password.Reveal() != "hunter2" {
		t.Fatalf("%q, %v", c.Kafka.Password.Reveal(), err)
	}
	var b bytes.Buffer
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "config", c, "password", c.Kafka.Password)
	j, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := Dump(&b, c, defaults()); err != nil {
		t.Fatal(err)
	}
	all := b.String() + string(j) + fmt.Sprintf("%v %+v %#v %s", c, c, c, c.Kafka.Password)
	if strings.Contains(all, "hunter2") || !strings.Contains(all, "***") {
		t.Error(all)
	}
}

func TestDump(t *testing.T) {
	c := defaults()
	c.Wait = 90 * time.Second
	var b bytes.Buffer
	if err := Dump(&b, c, defaults()); err != nil {
		t.Fatal(err)
	}
	want := `# Name of the thing.
name: one
# Where the log is.
kafka:
  # Addresses.
  brokers:
    - localhost:9092
  bytes: 7
  secure: false
  # Secret.
  password: ""
  password_file: ""
# How long to wait. Default: 1s
wait: 1m30s
level: INFO
names: {}
ports: []
`
	if b.String() != want {
		t.Errorf("got\n%s", b.String())
	}
	if again, err := Load(write(t, "c.yaml", b.String()), defaults()); err != nil || again.Wait != c.Wait {
		t.Errorf("%+v, %v", again, err)
	}
}
