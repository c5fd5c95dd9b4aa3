// Enricher weaves packets into sessions: it reads tapweave.packets and writes tapweave.sessions.
package main

import (
	"context"
	"log/slog"

	"github.com/tapweave/tapweave/enricher"
	"github.com/tapweave/tapweave/enricher/labels/source"
	"github.com/tapweave/tapweave/service/admin"
	"github.com/tapweave/tapweave/service/command"
	"github.com/tapweave/tapweave/service/logging"
)

func main() {
	command.Main(command.Program[enricher.Config]{
		Name:     "enricher",
		About:    "weaves packets into sessions",
		Defaults: enricher.DefaultConfig(),
		Logging:  func(c enricher.Config) logging.Config { return c.Log },
		Admin:    func(c enricher.Config) admin.Config { return c.Admin },
		Check: func(c enricher.Config) error {
			if _, err := enricher.New(c, enricher.Dependencies{}); err != nil {
				return err
			}
			_, _, err := source.NewCompiler(c.Labels).Compile()
			return err
		},
		Warnings: enricher.Warnings,
		Run: func(ctx context.Context, c enricher.Config, log *slog.Logger) error {
			s, err := enricher.New(c, enricher.Dependencies{Log: log})
			if err != nil {
				return err
			}
			return s.Run(ctx)
		},
	})
}
