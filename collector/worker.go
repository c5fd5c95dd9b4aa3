package collector

import (
	"context"
	"fmt"
	"time"

	"github.com/tapweave/tapweave/collector/allow"
	"github.com/tapweave/tapweave/collector/batcher"
	"github.com/tapweave/tapweave/collector/decode"
	"github.com/tapweave/tapweave/collector/sample"
	"github.com/tapweave/tapweave/collector/source/udp"
	"github.com/tapweave/tapweave/proto/session"
	"github.com/tapweave/tapweave/service/stats"
)

// settle is how much older than the newest stamp a datagram may be that is read after it: those of one socket
// come over several receive queues of the network card and are stamped before they are queued.
const settle = int64(10 * time.Millisecond)

// worker takes the datagrams of one source.
type worker struct {
	collector *Collector
	source    Source
	form      form
	guard     *udp.Guard // whose count this worker reports; nil: none
	batcher   *batcher.Batcher
	slots     [batcher.MaxHeld]slot
	stop      <-chan struct{}
	// promise: nothing captured before will be taken any more. Nanoseconds since the Unix epoch.
	promise int64

	// Counts since the last report.
	datagrams, bytes          uint64
	shedPackets, shedBytes    uint64
	strangers, networks       uint64 // refused by allow-list: source, VNI
	reported                  [decode.NumReasons]uint64
	dropped, repelled         uint64 // by the kernel: for want of room, by the guard
	received, receivedBytes   *stats.Counter
	accepted                  *stats.Counter // not refused by allow-list
	decoded, kernel           *stats.Counter
	shed, shedPayload         *stats.Counter
	refusedSource, refusedVNI *stats.Counter
	endpoints                 map[decode.Endpoint]bool
	endpointsMet              *stats.Counter
	refused                   [decode.NumReasons]*stats.Counter
}

// slot is what a packet comes from, and stays in while the batcher holds it.
type slot struct {
	decoder *decode.Decoder
	sampler *sample.Sampler
}

func (c *Collector) newWorker(s input, b *batcher.Batcher, d decode.Configuration, sampling sample.Configuration, stop <-chan struct{}) *worker {
	w := &worker{
		collector: c, source: s, form: s.form, guard: s.guard, endpoints: map[decode.Endpoint]bool{}, batcher: b, stop: stop, promise: c.opened - settle,
		received:      c.counters.Counter("received", "datagrams"),
		receivedBytes: c.counters.Counter("received", "bytes"),
		accepted:      c.counters.Counter("accepted", "datagrams"),
		decoded:       c.counters.Counter("decoded", "packets"),
		kernel:        c.counters.Counter("lost", "kernel"),
		shed:          c.counters.Counter("shed", "packets"),
		refusedSource: c.counters.Counter("refused", "source"),
		endpointsMet:  c.counters.Counter("geneve", "endpoints"),
		refusedVNI:    c.counters.Counter("refused", "vni"),
		shedPayload:   c.counters.Counter("shed", "payload_bytes"),
	}
	for i := range w.slots {
		w.slots[i] = slot{decode.New(d), sample.New(sampling)}
	}
	for r := decode.OK + 1; r < decode.NumReasons; r++ {
		w.refused[r] = c.counters.Counter("refused", r.String())
	}
	return w
}

// run takes datagrams until stop is closed, then those that are still there, and says goodbye.
func (w *worker) run(life context.Context) error {
	linger := w.collector.config.Linger
	next := time.Now().Add(linger)
	for life.Err() == nil {
		select {
		case <-w.stop:
			return w.leave()
		default:
		}
		if _, err := w.receive(time.Until(next)); err != nil {
			return err
		}
		if now := time.Now(); !now.Before(next) {
			w.batcher.Flush(w.promise)
			w.report()
			next = now.Add(linger)
		}
	}
	return nil
}

// leave takes what is still in the socket; it gives up after a second if more keeps coming.
func (w *worker) leave() error {
	for limit := time.Now().Add(time.Second); time.Now().Before(limit); {
		n, err := w.receive(0)
		if err != nil {
			return err
		} else if n == 0 {
			break
		}
	}
	w.batcher.Goodbye(w.promise)
	w.report()
	return nil
}

// receive takes the datagrams of one read.
func (w *worker) receive(wait time.Duration) (int, error) {
	datagrams, empty, err := w.source.Receive(max(wait, 0))
	if err != nil {
		return 0, err
	}
	if len(datagrams) == 0 {
		w.promise = max(w.promise, empty-settle)
		return 0, nil
	}
	newest := int64(0)
	allowed := w.collector.allowed.Load()
	shed := relief(w.collector.publisher.Pressure())
	for i := range datagrams {
		g := &datagrams[i]
		newest = max(newest, g.Time)
		w.bytes += uint64(len(g.Payload))
		if !w.allowed(allowed, g) {
			continue
		}
		at := &w.slots[w.batcher.Held()]
		d := at.decoder
		if w.decode(d, g) != decode.OK {
			continue
		}
		at.sampler.Apply(&d.Flow, &d.Packet)
		if shed.payload {
			if shed.threshold != 0 && session.PacketHash(&d.Flow, &d.Packet) >= shed.threshold {
				w.batcher.Shed(&d.Flow, &d.Packet, shed.threshold)
				w.shedPackets++
				continue
			}
			w.shedBytes += uint64(len(d.Packet.Data))
			d.Packet.Data = nil
		}
		w.batcher.Hold(&d.Flow, &d.Packet)
	}
	w.batcher.Release()
	w.datagrams += uint64(len(datagrams))
	w.promise = max(w.promise, newest-settle)
	return len(datagrams), nil
}

// allowed says whether a datagram may come, and counts it by reason if it may not.
func (w *worker) allowed(l *allow.List, g *udp.Datagram) bool {
	if w.form == bare {
		return true
	}
	if !l.Source(&g.Source) {
		w.strangers++
		return false
	}
	if l.AllVNIs() {
		return true
	}
	of := decode.VNI
	if w.form == inGENEVE {
		of = decode.VNIOfGENEVE
	}
	if vni, ok := of(g.Payload); ok && !l.VNI(vni) {
		w.networks++
		return false
	}
	return true
}

func (w *worker) decode(d *decode.Decoder, g *udp.Datagram) decode.Reason {
	switch w.form {
	case inGENEVE:
		r := d.GENEVE(g.Time, g.Source, g.Port, g.Payload)
		if r == decode.OK {
			w.meet(g)
		}
		return r
	case bare:
		return d.Frame(g.Time, decode.LinkEthernet, g.Payload, g.Original)
	}
	return d.Datagram(g.Time, g.Source, g.Port, g.Payload)
}

// maxEndpoints bounds how many endpoints a worker tells apart.
const maxEndpoints = 1024

// meet notes the endpoint that a gateway load balancer names in its options, and says once that it is there.
func (w *worker) meet(g *udp.Datagram) {
	e, ok := decode.EndpointOf(g.Payload)
	if !ok || w.endpoints[e] || len(w.endpoints) >= maxEndpoints {
		return
	}
	w.endpoints[e] = true
	w.endpointsMet.Inc()
	w.collector.log.Info("packets of a gateway load balancer's endpoint", "endpoint", fmt.Sprintf("%016x", e.ENI),
		"attachment", fmt.Sprintf("%016x", e.Attachment), "from", g.Source)
}

// report adds the counts since the last report to the collector's.
func (w *worker) report() {
	if w.guard != nil {
		n := w.guard.Refused()
		w.datagrams += n - w.repelled
		w.strangers += n - w.repelled
		w.repelled = n
	}
	w.received.Add(w.datagrams)
	w.receivedBytes.Add(w.bytes)
	w.accepted.Add(w.datagrams - w.strangers - w.networks)
	w.refusedSource.Add(w.strangers)
	w.refusedVNI.Add(w.networks)
	w.strangers, w.networks = 0, 0
	w.shed.Add(w.shedPackets)
	w.shedPayload.Add(w.shedBytes)
	w.datagrams, w.bytes, w.shedPackets, w.shedBytes = 0, 0, 0, 0
	var counts [decode.NumReasons]uint64
	for i := range w.slots {
		for r, n := range w.slots[i].decoder.Counts {
			counts[r] += n
		}
	}
	for r, n := range counts {
		to := w.refused[r]
		if r == int(decode.OK) {
			to = w.decoded
		}
		to.Add(n - w.reported[r])
		w.reported[r] = n
	}
	if n := w.source.Dropped(); n > w.dropped {
		w.kernel.Add(n - w.dropped)
		w.dropped = n
	}
}
