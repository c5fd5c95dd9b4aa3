// Package scheduledevents learns from Azure's metadata service that this machine is about to go, and approves
// that when its work is done.
//
// Source: https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events, version 2020-07-01.
package scheduledevents

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tapweave/tapweave/service/logging"
)

// Config of the watch.
type Config struct {
	Enabled  bool          `yaml:"enabled" doc:"Whether the machine's scheduled events (terminate, preempt, reboot, redeploy) drain the collector. They are approved when it has drained."`
	Endpoint string        `yaml:"endpoint" doc:"URL of the metadata service."`
	Every    time.Duration `yaml:"every" doc:"How often it is asked."`
	Machine  string        `yaml:"machine" doc:"Name of this machine in the events. Empty: as the metadata service has it."`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{Endpoint: "http://169.254.169.254", Every: time.Second}
}

// Validate says what is wrong with a configuration.
func (c Config) Validate() error {
	if u, err := url.Parse(c.Endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("endpoint: %q is no URL like http://169.254.169.254", c.Endpoint)
	}
	if c.Every < 100*time.Millisecond {
		return fmt.Errorf("every: %v is less than 100ms", c.Every)
	}
	return nil
}

// Event is one that is coming.
type Event struct {
	ID     string   `json:"EventId"`
	Type   string   `json:"EventType"`
	Status string   `json:"EventStatus"` // Scheduled, or Started: too late to approve
	Names  []string `json:"Resources"`
	Before string   `json:"NotBefore"`
}

const (
	eventsPath   = "/metadata/scheduledevents?api-version=2020-07-01"
	instancePath = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
	// callTimeout: the service takes up to two minutes for its first answer.
	callTimeout = 2 * time.Minute
	maxAnswer   = 1 << 20
)

// Watch asks the metadata service.
type Watch struct {
	config  Config
	client  *http.Client
	limited *logging.Limited
	machine string
}

// New returns a watch that has asked nothing yet.
func New(c Config, log *slog.Logger) *Watch {
	// The service is never reached through a proxy.
	return &Watch{config: c, client: &http.Client{Timeout: callTimeout, Transport: &http.Transport{Proxy: nil}}, limited: logging.NewLimited(log), machine: c.Machine}
}

// Next returns the first event that takes this machine away, or the error of ctx. That the service cannot be
// reached is said in the log, and it is asked again.
func (w *Watch) Next(ctx context.Context) (Event, error) {
	tick := time.NewTicker(w.config.Every)
	defer tick.Stop()
	for {
		e, err := w.ask(ctx)
		switch {
		case ctx.Err() != nil:
			return Event{}, ctx.Err()
		case err != nil:
			w.limited.Warn("events", "scheduled events cannot be had, trying again", "error", err)
		case e != nil:
			return *e, nil
		}
		select {
		case <-ctx.Done():
			return Event{}, ctx.Err()
		case <-tick.C:
		}
	}
}

func (w *Watch) ask(ctx context.Context) (*Event, error) {
	if w.machine == "" {
		b, err := w.call(ctx, http.MethodGet, instancePath, nil)
		if err != nil {
			return nil, err
		}
		if w.machine = strings.TrimSpace(string(b)); w.machine == "" {
			return nil, errors.New("the metadata service does not know this machine's name; set azure_events.machine")
		}
	}
	b, err := w.call(ctx, http.MethodGet, eventsPath, nil)
	if err != nil {
		return nil, err
	}
	var document struct{ Events []Event }
	if err := json.Unmarshal(b, &document); err != nil {
		return nil, fmt.Errorf("scheduled events: %w", err)
	}
	for _, e := range document.Events {
		// Freeze is a pause of seconds, which the machine survives.
		gone := e.Type == "Terminate" || e.Type == "Preempt" || e.Type == "Reboot" || e.Type == "Redeploy"
		if gone && slices.ContainsFunc(e.Names, func(n string) bool { return strings.EqualFold(n, w.machine) }) {
			return &e, nil
		}
	}
	return nil, nil
}

// Approve lets an event begin before its time.
func (w *Watch) Approve(ctx context.Context, e Event) error {
	if e.Status != "Scheduled" {
		return nil
	}
	type request struct{ EventId string }
	b, err := json.Marshal(struct{ StartRequests []request }{[]request{{e.ID}}})
	if err != nil {
		return err
	}
	_, err = w.call(ctx, http.MethodPost, eventsPath, b)
	return err
}

func (w *Watch) call(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(w.config.Endpoint, "/")+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Metadata", "true")
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	answer, err := w.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s %s: %s", method, r.URL.Path, answer.Status)
	}
	return b, nil
}
