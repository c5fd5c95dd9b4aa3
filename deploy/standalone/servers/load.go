//go:build !static

package servers

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"unsafe"

	"github.com/ebitengine/purego"
)

// loads says whether this program can load a shared library.
const loads = true

// serveLibrary runs clickhouse-local out of the shared library, with options, until it ends.
func serveLibrary(path string, options []string) error {
	runtime.LockOSThread()
	go func() { // the parent holds the other end of standard input, and lets go of it at the latest when it dies
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return fmt.Errorf("cannot load ClickHouse: %w", err)
	}
	var (
		query   func(argc int32, argv unsafe.Pointer) uintptr
		failure func(result uintptr) string
	)
	purego.RegisterLibFunc(&query, handle, "chdb_query_cmdline")
	purego.RegisterLibFunc(&failure, handle, "chdb_result_error")
	argv := make([]*byte, 0, len(options)+2) // as in C: strings that end in 0, and a null pointer
	for _, arg := range append([]string{"clickhouse"}, options...) {
		argv = append(argv, &append([]byte(arg), 0)[0])
	}
	argv = append(argv, nil)
	result := query(int32(len(argv)-1), unsafe.Pointer(&argv[0]))
	runtime.KeepAlive(argv)
	if result == 0 {
		return errors.New("ClickHouse did not start")
	}
	if text := failure(result); text != "" {
		return errors.New(text)
	}
	return nil
}
