// Package capturetest finds the public captures that tests read, with what is known to be in them. They are
// other people's data and no part of the project: they lie in shared/captures beside the repository, or where
// the environment variable TAPWEAVE_CAPTURES says.
package capturetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Files returns the paths of all captures. Where there are none the test is left out, but where CI is set it
// fails.
func Files(tb testing.TB) []string {
	tb.Helper()
	dir := folder(tb)
	truths, err := filepath.Glob(filepath.Join(dir, "truth", "*.json"))
	if err != nil {
		tb.Fatal(err)
	}
	if len(truths) == 0 {
		Missing(tb, dir)
	}
	for i, t := range truths {
		truths[i] = filepath.Join(dir, strings.TrimSuffix(filepath.Base(t), ".json"))
	}
	return truths
}

// File returns the path of one capture, on the terms of Files.
func File(tb testing.TB, name string) string {
	tb.Helper()
	path := filepath.Join(folder(tb), name)
	if _, err := os.Stat(path); err != nil {
		Missing(tb, path)
	}
	return path
}

// Truth returns the path of what is known to be in a capture, in JSON.
func Truth(capture string) string {
	return filepath.Join(filepath.Dir(capture), "truth", filepath.Base(capture)+".json")
}

// Mirrored returns files of a capture as collectors behind a load balancer would get it, one file a collector, made by
// the splitter of other make that lies in tools/vxlan_split beside the captures, with its options.
func Mirrored(tb testing.TB, path string, options ...string) []string {
	tb.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		Missing(tb, "python3")
	}
	splitter := filepath.Join(filepath.Dir(folder(tb)), "tools", "vxlan_split", "vxlan_split.py")
	if _, err := os.Stat(splitter); err != nil {
		Missing(tb, splitter)
	}
	prefix := filepath.Join(tb.TempDir(), "mirrored")
	out, err := exec.Command(python, append([]string{splitter, path, "-o", prefix}, options...)...).CombinedOutput()
	if err != nil {
		tb.Fatalf("%v\n%s", err, out)
	}
	files, err := filepath.Glob(prefix + ".c*.pcap")
	if err != nil || len(files) == 0 {
		tb.Fatalf("no files of %s, %v", path, err)
	}
	return files
}

// Missing leaves the test out for want of something that belongs to the captures, but where CI is set it fails.
func Missing(tb testing.TB, what string) {
	tb.Helper()
	if os.Getenv("CI") == "true" {
		tb.Fatalf("missing: %s (TAPWEAVE_CAPTURES)", what)
	}
	tb.Skipf("left out for want of %s (TAPWEAVE_CAPTURES)", what)
}

// folder is the captures' folder. It is found from the test's folder upwards, by the file that is at the root of
// the repository.
func folder(tb testing.TB) string {
	tb.Helper()
	if dir := os.Getenv("TAPWEAVE_CAPTURES"); dir != "" {
		return dir
	}
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return filepath.Join(dir, "..", "shared", "captures")
		}
		up := filepath.Dir(dir)
		if up == dir {
			tb.Fatal("the root of the repository was not found: there is no go.work above the test")
		}
		dir = up
	}
}

// Schema returns the path of a list of official schema fields, which lie in schemas beside the captures, on the terms
// of Files.
func Schema(tb testing.TB, name string) string {
	tb.Helper()
	path := filepath.Join(filepath.Dir(folder(tb)), "schemas", name)
	if _, err := os.Stat(path); err != nil {
		Missing(tb, path)
	}
	return path
}
