// Columnsdoc writes the page docs/columns.md.
//
//	go run ./cmd/columnsdoc ../docs/columns.md
package main

import (
	"fmt"
	"os"

	"github.com/tapweave/tapweave/proto/columns"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: columnsdoc FILE")
		os.Exit(2)
	}
	if err := os.WriteFile(os.Args[1], columns.Markdown(), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "columnsdoc:", err)
		os.Exit(1)
	}
}
