// Command collector receives mirrored packets and publishes them to Kafka.
package main

import (
	"context"
	"log/slog"

	"github.com/tapweave/tapweave/collector"
	"github.com/tapweave/tapweave/service/admin"
	"github.com/tapweave/tapweave/service/command"
	"github.com/tapweave/tapweave/service/logging"
)

func main() {
	reloads := make(chan func() (collector.Config, error), 1)
	command.Main(command.Program[collector.Config]{
		Name: "collector", About: "receives mirrored packets (VXLAN) and publishes them to Kafka",
		Defaults: collector.DefaultConfig(),
		Logging:  func(c collector.Config) logging.Config { return c.Log },
		Admin:    func(c collector.Config) admin.Config { return c.Admin },
		Warnings: collector.Warnings,
		Run: func(ctx context.Context, c collector.Config, log *slog.Logger) error {
			return collector.New(c, collector.Dependencies{Log: log, Reloads: reloads}).Run(ctx)
		},
		Hangup: func(load func() (collector.Config, error)) {
			select {
			case reloads <- load:
			default: // one is waiting, and will read the same file
			}
		},
	})
}
