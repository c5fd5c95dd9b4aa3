//go:build static

package servers

import "errors"

// A program that can load a shared library is linked with the C library's loader. With the tag static it is not, and
// runs where there is none: in an image that holds nothing else.
const loads = false

func serveLibrary(string, []string) error { return errors.New("this program cannot load ClickHouse") }
