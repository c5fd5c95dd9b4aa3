package endtoend

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tapweave/tapweave/deploy/standalone/programtest"
	"github.com/tapweave/tapweave/deploy/standalone/servers"
	"github.com/tapweave/tapweave/proto/conversation"
	"github.com/tapweave/tapweave/service/kafka"
)

// TestChaos kills, stops, cuts off, adds and removes every kind of process while traffic whose sessions are known
// goes through all of them, and then holds what is in ClickHouse and on the SIEM's topic against the truth.
//
// KILLS says how many processes are killed with SIGKILL, SEED which schedule; the same seed gives the same traffic
// and the same faults in the same order.
func TestChaos(t *testing.T) {
	kills, err := strconv.Atoi(os.Getenv("KILLS"))
	if err != nil {
		t.Skip("run by make chaos, which sets KILLS")
	}
	seed := uint64(time.Now().UnixNano()) % 1_000_000
	if n, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		seed = n
	}
	fmt.Printf("seed %d, %d kills\n", seed, kills)
	c := newChaos(t, servers.ClickHouseOptions{}, t.TempDir(), seed, kills)
	stop := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() { c.load.run(stop) })
	c.calm(30 * time.Second)
	for c.killed < kills && !c.load.over() {
		c.strike()
	}
	if c.killed < kills {
		t.Errorf("the traffic ended after %d kills", c.killed)
	}
	c.peace()
	close(stop)
	sending.Wait()
	c.verdict()
}

// The instances: those of a kind with the lower numbers run from the beginning, others come and go.
var instances = map[string]int{"collector": 3, "enricher": 2, "sink": 2}

// pace of the traffic: conversations that begin in a second. A fold has several a second in each partition, so that
// one that stands still is seen.
const conversationsPerSecond = 25

type chaos struct {
	*stack
	seed    uint64
	rng     *rand.Rand
	began   time.Time
	load    *load
	broker  *servers.Kafka
	kafka   servers.KafkaOptions
	house   servers.ClickHouseOptions
	proxies map[string]*proxy // by who is behind it
	lives   map[string]*incarnation

	killed  int
	faults  map[string]int
	trouble time.Time // since when collectors may have waited for Kafka; zero: they do not
	calmed  time.Time // when they last did not any more
	restart []string  // services that ended by themselves, and their last words

	mu        sync.Mutex
	watched   watch
	recovered []time.Duration
	pending   []time.Time // faults that the rows have not overcome
}

// watch is what the rows say of how far behind they are.
type watch struct {
	at    time.Time
	since [partitions]time.Time // creation of the newest session
}

func newChaos(t *testing.T, house servers.ClickHouseOptions, dir string, seed uint64, kills int) *chaos {
	programtest.Need(t, "java", "mvn")
	c := &chaos{
		stack: &stack{t: t, dir: dir, services: map[string]*service{}},
		seed:  seed, rng: rand.New(rand.NewPCG(seed, 1)),
		proxies: map[string]*proxy{}, lives: map[string]*incarnation{}, faults: map[string]int{},
	}
	c.build()
	var advertised []string
	listeners := map[string]string{}
	for _, kind := range []string{"collector", "enricher", "sink"} {
		c.proxies[kind] = newProxy(t)
		listener := strings.ToUpper(kind)
		listeners[listener] = "PLAINTEXT"
		advertised = append(advertised, listener+"://"+c.proxies[kind].addr())
	}
	c.proxies["clickhouse"] = newProxy(t)
	own := freePort(t, "tcp")
	_, port, _ := net.SplitHostPort(own)
	c.kafka = servers.KafkaOptions{
		Dir: filepath.Join(c.dir, "kafka"), Listeners: listeners,
		Settings: "num.network.threads=1\nadvertised.listeners=PLAINTEXT://" + own + "," + strings.Join(advertised, ","),
	}
	c.kafka.Port, _ = strconv.Atoi(port)
	c.house = house
	c.house.Dir = filepath.Join(c.dir, "clickhouse")
	c.startKafka()
	t.Cleanup(func() { c.broker.Kill() })
	c.startClickHouse()
	t.Cleanup(func() { c.clickhouse.Kill() })
	k := kafka.DefaultConfig()
	k.Brokers = []string{own}
	var err error
	if c.client, err = kafka.New(k); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.client.Close)

	// A schedule lasts as long as recovery takes: there is traffic for more than the longest.
	most := time.Duration(120+30*min(kills, 40)+15*max(kills-40, 0)) * time.Second
	c.load = newLoad(t, conversation.Options{Seed: seed, Start: time.Now(), Conversations: int(most.Seconds()) * conversationsPerSecond, Span: most})
	for _, kind := range []string{"enricher", "sink", "collector"} {
		for n := range instances[kind] {
			c.ready(c.launch(kind, n+1))
		}
	}
	for n := range instances["collector"] {
		c.load.add(c.lives[name("collector", n+1)])
	}
	c.began = time.Now()
	stopped := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { c.watch(stopped) })
	t.Cleanup(func() {
		close(stopped)
		watching.Wait()
	})
	return c
}

func name(kind string, n int) string { return fmt.Sprintf("%s-%d", kind, n) }

// say tells what happens, with the time since the beginning.
func (c *chaos) say(format string, a ...any) {
	fmt.Printf("%7.1f s  %s\n", time.Since(c.began).Seconds(), fmt.Sprintf(format, a...))
}

func (c *chaos) startKafka() {
	c.t.Helper()
	again(c.t, func() error {
		broker, err := servers.StartKafka(c.t.Context(), c.kafka)
		if err == nil {
			c.broker = broker
		}
		return err
	})
	for kind, p := range c.proxies {
		if kind != "clickhouse" {
			p.target(c.broker.Listener(strings.ToUpper(kind)))
		}
	}
}

func (c *chaos) startClickHouse() {
	c.t.Helper()
	again(c.t, func() error {
		server, err := servers.StartClickHouse(c.t.Context(), c.house)
		if err == nil {
			c.clickhouse = server
		}
		return err
	})
	_, port, _ := net.SplitHostPort(c.clickhouse.HTTPAddr())
	c.house.HTTPPort, _ = strconv.Atoi(port)
	c.proxies["clickhouse"].target(c.clickhouse.HTTPAddr())
}

// again starts a server, which may find that meanwhile a connection of somebody else has its port.
func again(t testing.TB, start func() error) {
	t.Helper()
	for try := 1; ; try++ {
		err := start()
		if err == nil {
			return
		}
		if try == 10 {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(try) * time.Second)
	}
}

// launch starts an instance, or starts it again.
func (c *chaos) launch(kind string, n int) *service {
	c.t.Helper()
	id := name(kind, n)
	env := []string{"TAPWEAVE_KAFKA_BROKERS=" + c.proxies[kind].addr()}
	switch kind {
	case "collector":
		udp := freePort(c.t, "udp")
		if i := c.lives[id]; i != nil {
			udp = i.addr.String()
		}
		c.lives[id] = c.load.begin(id, udp)
		// One worker, so that what a killed collector had sent of a partition is the first of what it was sent.
		env = append(env, "TAPWEAVE_LISTEN="+udp, "TAPWEAVE_WORKERS=1", "TAPWEAVE_DRAIN_TIME=0s", "TAPWEAVE_SAMPLING_MODE=all", "TAPWEAVE_FLUSH_TIMEOUT=2m", "TAPWEAVE_RECEIVE_BUFFER_BYTES=67108864")
	case "enricher":
		env = append(env, "TAPWEAVE_FOLD_PACKETS=true")
	case "sink":
		env = append(env, "TAPWEAVE_CLICKHOUSE_ADDRESSES="+c.proxies["clickhouse"].addr(), "TAPWEAVE_SIEM_ECS=true")
	}
	return c.start(id, kind, env...)
}

// running says whether an instance is to run.
func (c *chaos) running(id string) bool {
	v := c.services[id]
	return v != nil && !v.away
}

// back starts an instance that was killed or had left, and lets a collector have packets once it is ready. It does
// not wait for that.
func (c *chaos) back(kind string, n int) {
	v := c.launch(kind, n)
	v.away = false
	if kind == "collector" {
		life := c.lives[v.name]
		go func() { // as a probe of the load balancer finds out
			for range 1200 {
				if v.answers() == nil && life.died.IsZero() {
					c.load.add(life)
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		}()
	}
}

// revive starts what ended by itself, as whatever runs services does.
func (c *chaos) revive() {
	for id, v := range c.services {
		if v.away {
			continue
		}
		select {
		case <-v.done:
			words := c.lastWords(v)
			c.say("%s ended by itself: %s", id, words)
			c.restart = append(c.restart, id+": "+words)
			kind, n, _ := strings.Cut(id, "-")
			number, _ := strconv.Atoi(n)
			if kind == "collector" {
				c.bury(id, true)
			}
			c.back(kind, number)
		default:
		}
	}
}

func (c *chaos) lastWords(v *service) string {
	b, _ := os.ReadFile(v.log.Name())
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

// bury notes that a collector is dead.
func (c *chaos) bury(id string, gentle bool) {
	i := c.lives[id]
	c.load.remove(i)
	i.died = time.Now()
	if gentle {
		return
	}
	// The linger, and what a produce call takes on a busy machine; more while Kafka was away.
	i.bound = 2 * time.Second
	if !c.trouble.IsZero() {
		i.bound += i.died.Sub(c.trouble)
	} else if age := i.died.Sub(c.calmed); age < 15*time.Second {
		i.bound += 15 * time.Second // it may be catching up
	}
}

// sleep waits, and meanwhile starts what ended by itself.
func (c *chaos) sleep(d time.Duration) {
	for end := time.Now().Add(d); ; time.Sleep(50 * time.Millisecond) {
		c.revive()
		if !time.Now().Before(end) {
			return
		}
	}
}

// calm waits until the rows have overcome all faults, at most for so long, and says whether they have.
func (c *chaos) calm(most time.Duration) bool {
	for end := time.Now().Add(most); time.Now().Before(end); c.sleep(100 * time.Millisecond) {
		c.mu.Lock()
		n, w := len(c.pending), c.watched
		c.mu.Unlock()
		if n == 0 && w.fresh(c.began) {
			return true
		}
	}
	return false
}

// most that the newest session of a partition may be old in ClickHouse where all is well.
const stale = 4 * time.Second

// fresh says whether sessions that began after a time can be queried in every partition, and are recent.
func (w *watch) fresh(since time.Time) bool {
	for _, t := range w.since {
		if t.Before(since) || w.at.Sub(t) > stale {
			return false
		}
	}
	return true
}

// behind is how old the newest session is of the partition that is furthest behind.
func (c *chaos) behind() (most time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.watched.since {
		most = max(most, time.Since(t))
	}
	return most.Round(100 * time.Millisecond)
}

// watch asks how far behind the rows are, and notes how long it took to overcome each fault.
func (c *chaos) watch(stop <-chan struct{}) {
	asked := stack{t: c.t, clickhouse: c.clickhouse} // whose address does not change
	for {
		select {
		case <-stop:
			return
		case <-time.After(250 * time.Millisecond):
		}
		at := time.Now()
		// Through no proxy; while ClickHouse is away there is no answer, and that is one.
		rows, err := asked.tryQuery("SELECT input_partition AS p, toUnixTimestamp64Nano(max(created_time)) AS at FROM sessions_versions WHERE created_time > now() - INTERVAL 5 MINUTE GROUP BY p")
		if err != nil {
			continue
		}
		w := watch{at: at}
		for _, r := range rows {
			w.since[int(r["p"].(float64))] = time.Unix(0, int64(r["at"].(float64)))
		}
		c.mu.Lock()
		c.watched = w
		c.pending = slices.DeleteFunc(c.pending, func(fault time.Time) bool {
			if w.fresh(fault) {
				c.recovered = append(c.recovered, at.Sub(fault))
				return true
			}
			return false
		})
		c.mu.Unlock()
	}
}

// fault notes that something was done to the pipeline.
func (c *chaos) fault(kind, format string, a ...any) {
	c.faults[kind]++
	c.say("%s", fmt.Sprintf(format, a...))
	c.mu.Lock()
	c.pending = append(c.pending, time.Now())
	c.mu.Unlock()
}

func (c *chaos) between(a, b time.Duration) time.Duration {
	return a + time.Duration(c.rng.Int64N(int64(b-a)+1))
}

func (c *chaos) pick(list ...string) string { return list[c.rng.IntN(len(list))] }

// strike does one harm, or several at once. What it draws does not depend on how the pipeline fares.
func (c *chaos) strike() {
	wait, pause := c.rng.IntN(3) == 0, c.between(200*time.Millisecond, 3*time.Second)
	switch n := c.rng.IntN(20); {
	case n < 9:
		c.kill(c.victim())
	case n < 11:
		c.kill(c.victim(), c.victim(), c.victim())
	case n < 12:
		kind := c.pick("enricher", "sink")
		c.kill(target{kind, 1}, target{kind, 2})
	case n < 15:
		c.halt()
	case n < 17:
		c.membership()
	default:
		c.cut()
	}
	if wait {
		c.calm(30 * time.Second)
	}
	c.sleep(pause)
}

// target is a process.
type target struct {
	kind string
	n    int
}

func (v target) String() string {
	if v.n == 0 {
		return v.kind
	}
	return name(v.kind, v.n)
}

// victim chooses a process.
func (c *chaos) victim() target {
	switch n := c.rng.IntN(16); {
	case n < 4:
		return target{"collector", 1 + c.rng.IntN(3)}
	case n < 8:
		return target{"enricher", 1 + c.rng.IntN(2)}
	case n < 12:
		return target{"sink", 1 + c.rng.IntN(2)}
	case n < 14:
		return target{"kafka", 0}
	default:
		return target{"clickhouse", 0}
	}
}

// kill is kill -9, of several at once; then they are started again, some after a while.
func (c *chaos) kill(victims ...target) {
	gentle, down := c.rng.IntN(2) == 0, c.between(0, 3*time.Second)
	slices.SortFunc(victims, func(a, b target) int { return strings.Compare(a.String(), b.String()) })
	victims = slices.Compact(victims)
	c.revive()
	// One collector at least stays, and one that was added may have left.
	victims = slices.DeleteFunc(victims, func(v target) bool { return v.n > 0 && !c.running(v.String()) })
	for len(c.collectorsOf(victims)) > 0 && len(c.collectorsOf(victims)) >= c.collectorsIn() {
		i := slices.IndexFunc(victims, func(v target) bool { return v.kind == "collector" })
		victims = slices.Delete(victims, i, i+1)
	}
	if len(victims) == 0 {
		return
	}
	if gentle { // what collectors have taken in is with Kafka before they are killed, if Kafka is there
		for _, v := range c.collectorsOf(victims) {
			c.load.remove(c.lives[v.String()])
		}
		if len(c.collectorsOf(victims)) > 0 {
			time.Sleep(1500 * time.Millisecond)
		}
	}
	var names []string
	var dying sync.WaitGroup
	for _, v := range victims {
		names = append(names, v.String())
		c.killed++
		switch v.kind {
		case "kafka":
			c.troubled()
			dying.Go(func() { c.broker.Kill() })
		case "clickhouse":
			dying.Go(func() { c.clickhouse.Kill() })
		default:
			s := c.services[v.String()]
			s.away = true
			if v.kind == "collector" {
				c.bury(v.String(), false)
			}
			dying.Go(s.kill)
		}
		c.faults["kill "+v.kind]++
	}
	how := ""
	if gentle && len(c.collectorsOf(victims)) > 0 {
		how = " (collectors idle)"
	}
	c.fault("kills at once: "+strconv.Itoa(len(victims)), "kill -9 %s%s, %.1f s", strings.Join(names, ", "), how, down.Seconds())
	dying.Wait()
	c.sleep(down)
	for _, v := range victims {
		switch v.kind {
		case "kafka":
			c.startKafka()
			c.quiet()
		case "clickhouse":
			c.startClickHouse()
		default:
			c.back(v.kind, v.n)
		}
	}
}

func (c *chaos) collectorsOf(list []target) (of []target) {
	for _, v := range list {
		if v.kind == "collector" {
			of = append(of, v)
		}
	}
	return of
}

func (c *chaos) collectorsIn() (n int) {
	for id := range c.lives {
		if c.running(id) {
			n++
		}
	}
	return n
}

// troubled and quiet say when collectors may have to wait for Kafka.
func (c *chaos) troubled() {
	if c.trouble.IsZero() {
		c.trouble = time.Now()
	}
}

func (c *chaos) quiet() { c.trouble, c.calmed = time.Time{}, time.Now() }

// halt is SIGSTOP, and SIGCONT after a while: some of them when everybody has given the process up.
func (c *chaos) halt() {
	v, d := c.victim(), c.between(300*time.Millisecond, 5*time.Second)
	if zombie := c.rng.IntN(2) == 0; zombie && (v.kind == "enricher" || v.kind == "sink") {
		d = c.between(11*time.Second, 14*time.Second)
	}
	c.revive()
	pid := 0
	switch v.kind {
	case "kafka":
		pid = c.broker.PID()
		c.troubled()
	case "clickhouse":
		pid = c.clickhouse.PID()
	default:
		if !c.running(v.String()) {
			return
		}
		pid = c.services[v.String()].cmd.Process.Pid
	}
	c.fault("stop "+v.kind, "SIGSTOP %s, %.1f s", v, d.Seconds())
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		c.t.Fatal(err)
	}
	time.Sleep(d)
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		c.t.Fatal(err)
	}
	if v.kind == "kafka" {
		c.quiet()
	}
}

// membership lets an instance join that was not there, or leave in good order; or restarts a server so.
func (c *chaos) membership() {
	kind := c.pick("collector", "enricher", "sink", "enricher", "sink", "kafka", "clickhouse")
	c.revive()
	switch kind {
	case "kafka":
		c.troubled()
		c.fault("restart "+kind, "restart of Kafka")
		c.broker.Stop()
		c.startKafka()
		c.quiet()
		return
	case "clickhouse":
		c.fault("restart "+kind, "restart of ClickHouse")
		c.clickhouse.Stop()
		c.startClickHouse()
		return
	}
	n := instances[kind] + 1
	id := name(kind, n)
	if !c.running(id) {
		c.fault("join "+kind, "%s joins", id)
		c.back(kind, n)
		return
	}
	c.fault("leave "+kind, "%s leaves", id)
	v := c.services[id]
	v.away = true
	if kind == "collector" {
		c.load.remove(c.lives[id])
	}
	v.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-v.done:
	case <-time.After(2 * time.Minute):
		c.t.Fatalf("%s does not end", id)
	}
	if kind == "collector" {
		c.bury(id, true)
	}
}

// cut troubles connections.
func (c *chaos) cut() {
	of, how := c.pick("collector", "enricher", "sink", "clickhouse"), c.pick("drop", "half-close", "delay", "stall")
	d, share := c.between(500*time.Millisecond, 6*time.Second), 1+c.rng.IntN(2)
	p := c.proxies[of]
	if of == "collector" {
		c.troubled()
	}
	switch how {
	case "drop":
		c.fault("drop", "connections of %s dropped, 1 in %d", of, share)
		p.drop(share)
	case "half-close":
		c.fault("half-close", "connections of %s half-closed, 1 in %d", of, share)
		p.halfClose(share)
	case "delay":
		c.fault("delay", "connections of %s slow, %.1f s", of, d.Seconds())
		p.slow(200 * time.Millisecond)
		c.sleep(d)
		p.heal()
	case "stall":
		c.fault("stall", "connections of %s stalled, %.1f s", of, d.Seconds())
		p.stall()
		c.sleep(d)
		p.heal()
	}
	if of == "collector" {
		c.quiet()
	}
}

// peace waits until everything has been overcome, and all packets of the living are on the log.
func (c *chaos) peace() {
	c.say("no more faults")
	for id := range c.services {
		if c.running(id) {
			c.ready(c.services[id])
		}
	}
	if !c.calm(2*time.Minute) && !c.load.over() {
		c.t.Errorf("not recovered within 2 minutes of the last fault: %v behind", c.behind())
	}
}

// report prints how it went.
func (c *chaos) report() {
	fmt.Printf("\nseed %d\n", c.seed)
	for _, k := range slices.Sorted(maps.Keys(c.faults)) {
		fmt.Printf("  %-22s %d\n", k, c.faults[k])
	}
	fmt.Printf("  %-22s %d\n", "ended by themselves", len(c.restart))
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(c.recovered)
	if n := len(c.recovered); n > 0 {
		fmt.Printf("time to recover from a fault, until sessions that began behind it could be queried in every partition, none more than %v old: p50 %.1f s, max %.1f s\n",
			stale, c.recovered[n/2].Seconds(), c.recovered[n-1].Seconds())
	}
}
