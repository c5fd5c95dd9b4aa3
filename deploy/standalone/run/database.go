package run

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/tapweave/tapweave/deploy/standalone/servers"
	"github.com/tapweave/tapweave/sink/migrate"
)

// database is ClickHouse, which is started again where it ends by itself.
type database struct {
	options servers.ClickHouseOptions
	http    string // host:port, the same after every start

	cancel context.CancelFunc
	ended  sync.WaitGroup
}

const (
	// A ClickHouse that ends restarts times within restartsIn has something that a restart does not cure.
	restarts   = 3
	restartsIn = 2 * time.Minute
)

// keepFree is what ClickHouse leaves free of its disk: below it inserts wait, and merges do not begin.
const keepFree = 256 << 20

// startDatabase returns when ClickHouse answers.
func (r *run) startDatabase(ctx context.Context, password string) (*database, error) {
	d := &database{options: servers.ClickHouseOptions{
		Dir:            filepath.Join(r.Dir, "clickhouse"),
		WriterPassword: password,
		KeepFreeBytes:  keepFree,
		Progress:       r.progress(),
	}}
	if l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(httpPort))); err == nil {
		l.Close()
		d.options.HTTPPort = httpPort
	}
	c, err := servers.StartClickHouse(ctx, d.options)
	if err != nil {
		return nil, err
	}
	d.http = c.HTTPAddr()
	// Whoever is connected expects it there after a restart.
	for addr, port := range map[string]*int{c.HTTPAddr(): &d.options.HTTPPort, c.TCPAddr(): &d.options.TCPPort} {
		_, text, err := net.SplitHostPort(addr)
		if err == nil {
			*port, err = strconv.Atoi(text)
		}
		if err != nil {
			c.Stop()
			return nil, fmt.Errorf("ClickHouse: address %q: %w", addr, err)
		}
	}
	r.stage("ClickHouse at http://%s and, for its own clients, %s", c.HTTPAddr(), c.TCPAddr())
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	d.cancel = cancel
	d.ended.Go(func() { r.keep(own, d, c) })
	return d, nil
}

// keep starts ClickHouse again whenever it ends, until ctx is done; then it stops it.
func (r *run) keep(ctx context.Context, d *database, c *servers.ClickHouse) {
	var ends []time.Time
	for {
		select {
		case <-ctx.Done():
			if err := c.Stop(); err != nil {
				r.log.Warn(err.Error(), "service", "clickhouse")
			}
			return
		case <-c.Done():
		}
		now := time.Now()
		ends = append(ends, now)
		if n := len(ends); n >= restarts && now.Sub(ends[n-restarts]) < restartsIn {
			r.fail(fmt.Errorf("ClickHouse ended %d times (%v); see %s", n, c.Wait(), c.LogFile()))
			return
		}
		r.stage("ClickHouse ended (%v) and is started again; nothing is lost", c.Wait())
		next, err := servers.StartClickHouse(ctx, d.options)
		if err != nil {
			if ctx.Err() == nil {
				r.fail(err)
			}
			return
		}
		r.stage("ClickHouse is back")
		c = next
	}
}

// stop stops ClickHouse in good order.
func (d *database) stop() {
	d.cancel()
	d.ended.Wait()
}

// address is host:port of the HTTP interface.
func (d *database) address() string { return d.http }

// page is the URL of ClickHouse's SQL page.
func (d *database) page() string { return "http://" + d.http + "/play?user=" + servers.ReaderUser }

// dashboard is the URL of ClickHouse's page with our charts.
func (d *database) dashboard() string { return DashboardURL(d.http, "tapweave", servers.ReaderUser) }

// DashboardURL is the address of ClickHouse's page /dashboard that asks the charts of a database, without a password.
// The page takes its state from the fragment: JSON in base64.
func DashboardURL(address, database, user string) string {
	state, err := json.Marshal(map[string]any{
		"host": "http://" + address, "user": user, "queries": []string{}, "customized_": false,
		"params":        map[string]string{"seconds": "3600", "rounding": "60"},
		"search_query_": "SELECT title, query FROM " + database + "." + migrate.Dashboard,
	})
	if err != nil {
		panic(err) // strings only
	}
	return "http://" + address + "/dashboard?user=" + url.QueryEscape(user) + "#" + base64.StdEncoding.EncodeToString(state)
}

// progress shows downloads: on a terminal all the time, else every 10 s.
func (r *run) progress() func(servers.Progress) {
	var mu sync.Mutex
	var told time.Time
	return func(p servers.Progress) {
		mu.Lock()
		defer mu.Unlock()
		text := p.Step
		if p.Total > 0 {
			text = fmt.Sprintf("%s: %d %% of %d MB", p.Step, min(100, 100*p.Done/p.Total), p.Total/1e6)
		}
		switch {
		case p.Finished && p.Total > 0:
			r.Console.Status("")
			r.stage("%s: done", p.Step)
			told = time.Time{}
		case p.Finished:
			r.Console.Status("")
		case r.Console.Terminal():
			r.Console.Status(text)
		case p.Total > 0 && time.Since(told) > 10*time.Second:
			r.stage("%s", text)
			told = time.Now()
		}
	}
}
