// Package programtest says what becomes of a test that wants something which is not there: with CI=true it fails, else
// it is left out.
package programtest

import (
	"os"
	"os/exec"
	"testing"
)

// Missing ends the test for want of something.
func Missing(tb testing.TB, what string) {
	tb.Helper()
	if os.Getenv("CI") == "true" {
		tb.Fatalf("missing: %s", what)
	}
	tb.Skipf("left out for want of %s", what)
}

// Need ends the test where one of some programs is not on the PATH.
func Need(tb testing.TB, names ...string) {
	tb.Helper()
	for _, name := range names {
		Path(tb, name)
	}
}

// Path returns where a program is. It may be called by other names too, such as one with a folder.
func Path(tb testing.TB, name string, others ...string) string {
	tb.Helper()
	for _, n := range append([]string{name}, others...) {
		if path, err := exec.LookPath(n); err == nil {
			return path
		}
	}
	Missing(tb, name)
	return ""
}
