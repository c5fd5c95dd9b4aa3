package endtoend

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// image is what Docker tells of one, and what it holds.
type image struct {
	Architecture string
	Size         int64
	Config       struct {
		User        string
		Labels      map[string]string
		Healthcheck struct{ Test []string }
	}
	files map[string][]byte // but for directories
}

// largest is the size that no image may reach.
const largest = 30_000_000

// docker runs a command of Docker's client.
func docker(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(os.Getenv("TAPWEAVE_DOCKER"), args...)
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=1")
	var failed bytes.Buffer
	cmd.Stderr = &failed
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, failed.Bytes())
	}
	return out
}

func inspect(t *testing.T, name string) image {
	t.Helper()
	var list []image
	if err := json.Unmarshal(docker(t, "image", "inspect", name), &list); err != nil {
		t.Fatal(err)
	}
	i := list[0]
	i.files = map[string][]byte{}
	container := strings.TrimSpace(string(docker(t, "create", name)))
	defer docker(t, "rm", container)
	for r := tar.NewReader(bytes.NewReader(docker(t, "export", container))); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return i
		} else if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeDir || h.Size == 0 { // what the engine puts there is empty
			continue
		}
		if i.files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// TestImages looks at the images of docker-compose.yml, which `make e2e` has made.
func TestImages(t *testing.T) {
	if os.Getenv("TAPWEAVE_DOCKER") == "" {
		t.Skip("needs a Docker engine: make e2e")
	}
	const certificates = "etc/ssl/certs/ca-certificates.crt"
	for _, program := range []string{"collector", "enricher", "sink", "tapweave"} {
		i := inspect(t, "tapweave/"+program+":devel")
		check(t, program, i)
		if i.Config.User != "65532:65532" {
			t.Errorf("%s runs as %s", program, i.Config.User)
		}
		if want := []string{"CMD", "/" + program, "--healthcheck"}; program != "tapweave" && !slices.Equal(i.Config.Healthcheck.Test, want) {
			t.Errorf("%s is checked by %q", program, i.Config.Healthcheck.Test)
		}
		if len(i.files) != 2 || i.files[program] == nil || i.files[certificates] == nil {
			t.Errorf("%s holds more than its program and certificates, or less: %d files", program, len(i.files))
		}
		executable(t, program, i.files[program], elf.EM_X86_64)
		// Built again, on this machine and elsewhere in its file system, it is the same to the byte.
		if again := rebuilt(t, program); sha256.Sum256(again) != sha256.Sum256(i.files[program]) {
			t.Errorf("%s: built again it is another", program)
		}
		t.Logf("%s: %.1f MB, sha256 %x", program, float64(i.Size)/1e6, sha256.Sum256(i.files[program]))
	}
	balancer := inspect(t, "tapweave/loadbalancer:devel")
	check(t, "loadbalancer", balancer)
	t.Logf("loadbalancer: %.1f MB, %d files", float64(balancer.Size)/1e6, len(balancer.files))

	docker(t, "build", "--quiet", "--platform", "linux/arm64", "--file", "../../../deploy/compose/Dockerfile", "--target", "collector", "--tag", "tapweave/collector:arm64", "../../..")
	arm := inspect(t, "tapweave/collector:arm64")
	if arm.Architecture != "arm64" {
		t.Errorf("the image for arm64 is for %s", arm.Architecture)
	}
	executable(t, "collector for arm64", arm.files["collector"], elf.EM_AARCH64)
}

// check is what all images have in common.
func check(t *testing.T, name string, i image) {
	t.Helper()
	if i.Size >= largest {
		t.Errorf("%s has %d bytes", name, i.Size)
	}
	for _, label := range []string{"title", "vendor", "source", "licenses", "version", "revision"} {
		if i.Config.Labels["org.opencontainers.image."+label] == "" {
			t.Errorf("%s has no label %s", name, label)
		}
	}
}

// executable wants a program for a machine that needs no other file.
func executable(t *testing.T, name string, b []byte, machine elf.Machine) {
	t.Helper()
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 || f.Machine != machine {
		t.Errorf("%s is for %v, and needs %q: %v", name, f.Machine, libraries, err)
	}
}

// rebuilt builds a program as the Dockerfile does, but here.
func rebuilt(t *testing.T, program string) []byte {
	t.Helper()
	module, tags := "../../../"+program, ""
	if program == "tapweave" {
		module, tags = "..", "static"
	}
	out := filepath.Join(t.TempDir(), program)
	cmd := exec.Command("go", "build", "-C", module, "-tags", tags, "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, "./cmd/"+program)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOTOOLCHAIN=local", "GOFLAGS=")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hardened looks at the running containers.
func (c *composition) hardened() {
	c.t.Helper()
	type container struct {
		Name       string
		Config     struct{ User string }
		HostConfig struct {
			ReadonlyRootfs bool
			CapAdd         []string
			CapDrop        []string
			SecurityOpt    []string
			Memory         int64
			LogConfig      struct{ Config map[string]string }
			PortBindings   map[string][]struct{ HostIp string }
		}
	}
	var list []container
	ids := strings.Fields(c.compose("ps", "--quiet"))
	if err := json.Unmarshal(docker(c.t, append([]string{"inspect"}, ids...)...), &list); err != nil {
		c.t.Fatal(err)
	}
	if len(list) < 10 {
		c.t.Errorf("%d containers", len(list))
	}
	for _, v := range list {
		h, balancer := v.HostConfig, strings.Contains(v.Name, "loadbalancer")
		if !h.ReadonlyRootfs || !slices.Equal(h.CapDrop, []string{"ALL"}) || !slices.Contains(h.SecurityOpt, "no-new-privileges:true") || h.Memory == 0 {
			c.t.Errorf("%s is not hardened: %+v", v.Name, h)
		}
		if h.LogConfig.Config["max-size"] == "" || h.LogConfig.Config["max-file"] == "" {
			c.t.Errorf("%s writes logs without end", v.Name)
		}
		if !balancer && (len(h.CapAdd) > 0 || v.Config.User == "" || strings.HasPrefix(v.Config.User, "0")) {
			c.t.Errorf("%s runs as %q with %q", v.Name, v.Config.User, h.CapAdd)
		}
		for port, bindings := range h.PortBindings {
			for _, b := range bindings {
				if b.HostIp != "127.0.0.1" {
					c.t.Errorf("%s listens on %q, port %s", v.Name, b.HostIp, port)
				}
			}
		}
	}
}

// examined lets doctor look at the stack. want is the beginning of the one error that there should be, "" for none.
func (c *composition) examined(want string) {
	c.t.Helper()
	cmd := c.command("run", "--rm", "doctor", "--json")
	var failed bytes.Buffer
	cmd.Stderr = &failed
	out, err := cmd.Output()
	var errs []string
	areas, broken := map[string]bool{}, false
	for line := range bytes.Lines(out) {
		var l struct{ Area, Status, Text string }
		if err := json.Unmarshal(line, &l); err != nil {
			c.t.Fatalf("%v: %s", err, line)
		}
		areas[l.Area] = true
		if l.Status == "error" {
			broken = true
			if !strings.HasPrefix(l.Text, "disk ") { // how full this machine's is does not matter
				errs = append(errs, l.Text)
			}
		}
	}
	if fmt.Sprint(areas) != "map[clickhouse:true clock:true kafka:true lag:true loss:true service:true]" {
		c.t.Errorf("doctor looked at %v\n%s", areas, failed.Bytes())
	}
	if (err != nil) != broken {
		c.t.Errorf("doctor ended with %v:\n%s", err, out)
	}
	if want == "" && len(errs) > 0 || want != "" && (len(errs) != 1 || !strings.HasPrefix(errs[0], want)) {
		c.t.Errorf("doctor found %q, want %q", errs, want)
	}
}
