package command

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tapweave/tapweave/service/admin"
	"github.com/tapweave/tapweave/service/logging"
)

type settings struct {
	Name string         `yaml:"name" doc:"Its name."`
	Log  logging.Config `yaml:"log"`
}

func program() Program[settings] {
	return Program[settings]{
		Name: "thing", About: "does a thing", Defaults: settings{Name: "x", Log: logging.DefaultConfig()},
		Logging: func(c settings) logging.Config { return c.Log },
		Admin:   func(settings) admin.Config { return admin.Config{Listen: "127.0.0.1:1"} },
		Run: func(_ context.Context, c settings, log *slog.Logger) error {
			log.Info("running", "name", c.Name)
			if c.Name == "bad" {
				return errors.New("first\nsecond")
			}
			return nil
		},
	}
}

func TestRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte("nam: y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args        string
		name        string
		status      int
		out, errout string
	}{
		{"", "x", 0, "", "msg=running name=x"},
		{"", "bad", 1, "", "thing: first; second\n"},
		{"-dump", "x", 0, "# Its name.\nname: x\n", ""},
		{"--check", "x", 0, "the configuration is valid\n", ""},
		{"--check --config " + file, "x", 1, "", `c.yaml:1: unknown key "nam", the nearest known key is "name"`},
		{"--config /nowhere", "x", 1, "", "thing: open /nowhere: no such file or directory\n"},
		{"--healthcheck", "x", 1, "", "connection refused"},
		{"--version", "x", 0, "thing ", ""},
		{"--nonsense", "x", 2, "", "Usage: thing"},
		{"more", "x", 2, "", `unexpected argument "more"`},
		{"--help", "x", 0, "", "does a thing"},
	} {
		t.Setenv("TAPWEAVE_NAME", c.name)
		var out, errout bytes.Buffer
		status := Run(t.Context(), program(), strings.Fields(c.args), &out, &errout)
		if status != c.status || !strings.Contains(out.String(), c.out) || !strings.Contains(errout.String(), c.errout) {
			t.Errorf("%q: status %d, wrote %q and %q", c.args, status, out.String(), errout.String())
		}
	}
}
