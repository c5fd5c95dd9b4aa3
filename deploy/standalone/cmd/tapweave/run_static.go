//go:build static

package main

import "errors"

// What runs all in one process is more than half of the program, and needs ClickHouse, which an image of this one lacks.
func runRun(string, []string) error {
	return errors.New("this program was built without it (tag static); docker-compose.yml runs all of Tapweave")
}
