package query_test

import (
	"bytes"
	"encoding/json"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	driver "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/tapweave/tapweave/deploy/standalone/programtest"
	"github.com/tapweave/tapweave/deploy/standalone/query"
	"github.com/tapweave/tapweave/deploy/standalone/run"
	"github.com/tapweave/tapweave/deploy/standalone/servers"
	"github.com/tapweave/tapweave/sink/clickhouse/clickhousetest"
)

func TestMain(m *testing.M) {
	servers.MaybeChild()
	os.Exit(m.Run())
}

// lately fills a database with the sessions of the last day, and with counts of the pipeline.
func lately(t *testing.T, d query.Database, rows int) {
	t.Helper()
	fill(t, d, rows, time.Now().UTC().Format(time.DateTime))
	ctx := driver.Context(t.Context(), driver.WithSettings(driver.Settings{"database": d.Name}))
	if err := d.Server.Exec(ctx, `INSERT INTO pipeline_stats (time, service, instance, incarnation, stage, reason, count)
		SELECT now() - 60 * number, 'collector', 'c1', 1, stage, reason, (1440 - number) * each
		FROM numbers(1440) ARRAY JOIN ['received', 'lost'] AS stage, ['datagrams', 'kernel'] AS reason, [6000, 60] AS each`); err != nil {
		t.Fatal(err)
	}
}

// panel is one chart and its question.
type panel struct{ title, sql string }

// charts are those of ClickHouse's page, with the page's parameters filled in.
func charts(t *testing.T, d query.Database) []panel {
	t.Helper()
	var out bytes.Buffer
	if err := d.Run(t.Context(), "json", "SELECT title, query FROM dashboard", nil, &out); err != nil {
		t.Fatal(err)
	}
	var list []panel
	for _, r := range rows(t, out.Bytes()) {
		list = append(list, panel{r["title"].(string), strings.NewReplacer("{seconds:UInt32}", "86400", "{rounding:UInt32}", "60").Replace(r["query"].(string))})
	}
	return list
}

// panels are those of Grafana, with the macros of its data source replaced as it does.
func panels(t *testing.T) []panel {
	t.Helper()
	files, err := filepath.Glob("../../clickhouse/dashboards/grafana/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d dashboards: %v", len(files), err)
	}
	filter, interval := regexp.MustCompile(`\$__timeFilter\((\w+)\)`), regexp.MustCompile(`\$__timeInterval\((\w+)\)`)
	var list []panel
	for _, name := range files {
		var file struct {
			Panels []struct {
				Title      string                     `json:"title"`
				Datasource struct{ Type, UID string } `json:"datasource"`
				Targets    []struct {
					RawSQL string `json:"rawSql"`
				} `json:"targets"`
			} `json:"panels"`
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &file); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, p := range file.Panels {
			// As docker-compose.yml provisions it.
			if p.Datasource.UID != "tapweave-clickhouse" || p.Datasource.Type != "grafana-clickhouse-datasource" || len(p.Targets) == 0 {
				t.Errorf("%s: %s: data source %v, %d queries", name, p.Title, p.Datasource, len(p.Targets))
			}
			for _, target := range p.Targets {
				sql := filter.ReplaceAllString(target.RawSQL, "$1 >= toDateTime(now() - 86400) AND $1 <= toDateTime(now())")
				sql = interval.ReplaceAllString(sql, "toStartOfInterval(toDateTime($1), INTERVAL 60 second)")
				list = append(list, panel{p.Title, strings.ReplaceAll(sql, "$__interval_s", "60")})
			}
		}
	}
	return list
}

// Every chart has something to show, over the whole day, and no two points of one time.
func TestCharts(t *testing.T) {
	c := clickhousetest.Config(t)
	d := query.Database{Server: clickhousetest.Migrated(t, c), Name: c.Database}
	lately(t, d, 20_000)
	all := append(charts(t, d), panels(t)...)
	if len(all) != 14 {
		t.Errorf("%d charts", len(all))
	}
	for _, p := range all {
		var out bytes.Buffer
		if err := d.Run(t.Context(), "json", "SELECT count() AS points, uniq(at) AS times, max(greatest(0, ifNull(value, 0))) AS most FROM (SELECT tuple(*).1 AS at, toFloat64(tuple(*).-1) AS value FROM ("+p.sql+"))", nil, &out); err != nil {
			t.Errorf("%s: %v", p.title, err)
			continue
		}
		if r := rows(t, out.Bytes())[0]; r.number("times") < 100 || r.number("most") <= 0 {
			t.Errorf("%s: %v", p.title, r)
		}
	}
}

// TestDashboardInBrowser opens /dashboard of a server as tapweave run starts it: the page needs nothing but the server,
// and each chart is drawn.
func TestDashboardInBrowser(t *testing.T) {
	browser := programtest.Path(t, "chromium")
	dir := t.TempDir()
	ch, err := servers.StartClickHouse(t.Context(), servers.ClickHouseOptions{Dir: filepath.Join(dir, "clickhouse"), WriterPassword: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	defer ch.Kill()
	c := clickhousetest.Config(t)
	c.Addresses, c.Username, c.Password, c.Database = []string{ch.HTTPAddr()}, servers.WriterUser, "secret", "tapweave"
	d := query.Database{Server: clickhousetest.Migrated(t, c), Name: c.Database}
	lately(t, d, 20_000)

	page := run.DashboardURL(ch.HTTPAddr(), "tapweave", servers.ReaderUser)
	open := func(args ...string) []byte {
		t.Helper()
		profile := t.TempDir()
		args = append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
			"--disable-sync", "--disable-dev-shm-usage", "--user-data-dir=" + profile, "--window-size=1600,1400", "--virtual-time-budget=20000",
			"--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"}, args...)
		cmd := exec.CommandContext(t.Context(), browser, append(args, page)...)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("chromium: %v", err)
		}
		return out
	}
	dom := string(open("--dump-dom"))
	for _, p := range charts(t, d) {
		if !strings.Contains(dom, strings.NewReplacer("&", "&amp;").Replace(p.title)) {
			t.Errorf("no chart %q", p.title)
		}
	}
	for _, series := range []string{"tls", "10.0.1.66", "p95", "collector lost kernel"} {
		if !strings.Contains(dom, ">"+series+"<") {
			t.Errorf("no series %q in a legend", series)
		}
	}
	if n := strings.Count(dom, "<canvas"); n < len(charts(t, d)) {
		t.Errorf("%d charts are drawn", n)
	}
	if m := regexp.MustCompile(`class="query-error"[^>]*display: block[^>]*>([^<]*)`).FindAllStringSubmatch(dom, -1); m != nil {
		t.Errorf("errors on the page: %v", m)
	}

	shot := filepath.Join(dir, "dashboard.png")
	open("--screenshot=" + shot)
	f, err := os.Open(shot)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	image, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	// Behind the charts the page is blue, inside of them grey on white, but for the lines: most of these have red in them.
	// Seven charts, the last as wide as two, in two columns and four rows under the bar.
	const bar = 130
	colour := map[[2]int]int{}
	b := image.Bounds()
	for y := bar; y < b.Dy(); y++ {
		for x := range b.Dx() {
			r, g, bl, _ := image.At(x, y).RGBA()
			if r > 0x8000 && max(r, g, bl)-min(r, g, bl) > 0x4000 {
				colour[[2]int{x * 2 / b.Dx(), (y - bar) * 4 / (b.Dy() - bar)}]++
			}
		}
	}
	for column := range 2 {
		for row := range 4 {
			if n := colour[[2]int{column, row}]; n < 30 {
				t.Errorf("nothing is drawn in column %d, row %d: %d pixels of a line", column, row, n)
			}
		}
	}
	if keep := os.Getenv("TAPWEAVE_SCREENSHOT"); keep != "" {
		if err := exec.Command("cp", shot, keep).Run(); err != nil {
			t.Error(err)
		}
	}
}
