package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// answer is what the service at an address said.
type answer struct {
	address    string
	err        error // it did not answer
	ready      bool
	said       string // by /readyz
	begin, end time.Time
	date       time.Time // by the service's clock, to the second
	metrics    map[string]*dto.MetricFamily
}

// askAll asks all services at once.
func askAll(ctx context.Context, addresses []string) <-chan []answer {
	all := make(chan []answer, 1)
	go func() {
		list := make([]answer, len(addresses))
		var wg sync.WaitGroup
		for i, a := range addresses {
			wg.Go(func() { list[i] = ask(ctx, a) })
		}
		wg.Wait()
		all <- list
	}()
	return all
}

func ask(ctx context.Context, address string) answer {
	a := answer{address: address}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	get := func(path string) (*http.Response, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
		if err != nil {
			return nil, err
		}
		return http.DefaultClient.Do(r)
	}
	a.begin = time.Now()
	r, err := get("/readyz")
	a.end = time.Now()
	if err != nil {
		a.err = err
		return a
	}
	said, _ := io.ReadAll(io.LimitReader(r.Body, 4096))
	r.Body.Close()
	a.ready, a.said = r.StatusCode == http.StatusOK, strings.ReplaceAll(strings.TrimSpace(string(said)), "\n", "; ")
	a.date, _ = http.ParseTime(r.Header.Get("Date"))
	m, err := get("/metrics")
	if err != nil {
		a.err = err
		return a
	}
	defer m.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	if a.metrics, err = parser.TextToMetricFamilies(io.LimitReader(m.Body, 16<<20)); err != nil {
		a.err = fmt.Errorf("its /metrics are none of Prometheus: %w", err)
	}
	return a
}

// name is the service that answers there, by its metrics.
func (a *answer) name() string {
	for _, s := range []string{"collector", "enricher", "sink"} {
		for f := range a.metrics {
			if strings.HasPrefix(f, "tapweave_"+s+"_") {
				return s + " at " + a.address
			}
		}
	}
	return "service at " + a.address
}

// gauges returns the values of a metric by its label, "" where it has none.
func (a *answer) gauges(name string) map[string]float64 {
	list := map[string]float64{}
	for _, m := range a.metrics[name].GetMetric() {
		label := ""
		if len(m.GetLabel()) > 0 {
			label = m.GetLabel()[0].GetValue()
		}
		list[label] = m.GetGauge().GetValue()
	}
	return list
}

func (e *exam) services(answers []answer) {
	for _, a := range answers {
		if a.err != nil {
			reason := a.err.Error()
			if errors.Is(a.err, syscall.ECONNREFUSED) {
				reason = "connection refused"
			} else if errors.Is(a.err, context.DeadlineExceeded) {
				reason = "no answer within 5s"
			}
			e.add("service", Error, "start it, or see why it ended: its log", "no service answers at %s: %s", a.address, reason)
			continue
		}
		name := a.name()
		switch {
		case a.ready:
			e.add("service", OK, "", "%s is ready", name)
		case e.broken: // it waits for what was found broken above
			e.add("service", Warning, "", "%s is not ready: %s", name, a.said)
		default:
			e.add("service", Error, "its log says more", "%s is not ready: %s", name, a.said)
		}
		if !a.date.IsZero() {
			e.compare(name, a.date, a.date.Add(time.Second), a.begin, a.end)
		}
		e.buffers(name, &a)
		e.behind(name, &a)
	}
}

// buffers checks the receive buffers of a collector.
func (e *exam) buffers(name string, a *answer) {
	got, ok := a.gauges("tapweave_collector_receive_buffer_bytes")[""]
	want := a.gauges("tapweave_collector_receive_buffer_wanted_bytes")[""]
	if !ok {
		return
	}
	text := fmt.Sprintf("%s: receive buffers of its sockets have %.1f MiB", name, got/(1<<20))
	if got >= want {
		e.add("service", OK, "", "%s", text)
		return
	}
	limit := ""
	if b, err := os.ReadFile("/proc/sys/net/core/rmem_max"); err == nil {
		limit = ", here net.core.rmem_max is " + strings.TrimSpace(string(b))
	}
	e.add("service", Warning, fmt.Sprintf("sysctl -w net.core.rmem_max=%.0f on its machine%s; then start it again", want, limit),
		"%s, %.1f are wanted: bursts are lost", text, want/(1<<20))
}

// How far the fold may be behind where records wait. Two seconds are usual; a collector that was killed holds it for ten.
const (
	foldSlow = 15 * time.Second
	foldLate = time.Minute
)

// behind checks how far an enricher's partitions are behind.
func (e *exam) behind(name string, a *answer) {
	lag, records := a.gauges("tapweave_enricher_lag_seconds"), a.gauges("tapweave_enricher_records_behind")
	if len(lag) == 0 {
		return
	}
	var worst float64
	var late []string
	for partition, seconds := range lag {
		if records[partition] > 0 && seconds > foldSlow.Seconds() {
			late = append(late, partition)
		}
		worst = max(worst, seconds)
	}
	slices.SortFunc(late, func(a, b string) int {
		x, _ := strconv.Atoi(a)
		y, _ := strconv.Atoi(b)
		return x - y
	})
	switch text := fmt.Sprintf("%s folds %d partitions, at most %s behind", name, len(lag), round(time.Duration(worst*float64(time.Second)))); {
	case len(late) == 0:
		e.add("lag", OK, "", "%s", text)
	default:
		status := Warning
		if worst > foldLate.Seconds() {
			status = Error
		}
		e.add("lag", status, "one partition: a pair of addresses with most of the traffic; all: add enrichers, or cores", "%s; records wait in partitions %s", text, strings.Join(late, ", "))
	}
}
