// Package replay sends captures to collectors as a virtual network TAP would: each frame in VXLAN over UDP.
//
// A packet of the capture that is such a datagram itself, because the capture was taken behind a TAP, goes on as
// it is, VXLAN header included. Any other frame is what a TAP mirrors: it gets a VXLAN header around it, and an
// Ethernet header where the capture's link type is another one.
//
// # The outer header
//
// The sender's kernel makes it, and a collector takes its source address as the name of the tap. So that the
// taps of a capture stay apart:
//
//   - to collectors on this host, reached by IPv4, each outer source address of the capture is sent from an address
//     of its own, 127.77.x.y, where x.y are the last two bytes of the address in the capture, or the next that are
//     free;
//   - to others a packet is sent from its outer source address if this host owns it. Otherwise the source is
//     this host: all such taps are one, and the copies of a packet that two of them made are counted as two.
//
// Frames that were no VXLAN have no outer source: they come from this host, as one tap.
//
// The outer source port of the capture, or one hashed from addresses and ports in the direction of the packet,
// decides with the outer source address which collector a packet goes to, as it does at a load balancer, and
// which of a few sockets it is sent from. The sockets' ports are chosen by the kernel.
//
// # What does not survive
//
// A frame that the capture cut is sent as it was captured: its lengths are taken from its IP header. Where that
// says 0, because the sender's card was to fill it in, the length is that of what was captured. Times are those
// of the sending.
package replay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// Options of a replay.
type Options struct {
	// To are the collectors, HOST:PORT, either all IPv4 or all IPv6.
	To []string
	// PPS is the number of packets a second; 0: at the pace of the captures' time stamps, pauses included.
	PPS float64
	// Progress, where it is set, is called every 200 ms.
	Progress func(Progress)
}

// Progress says how far a replay is.
type Progress struct {
	Packets uint64  // sent
	Share   float64 // of the captures' bytes that were read; 0 where their size is not known
	Elapsed time.Duration
}

// Result says what was sent.
type Result struct {
	Packets uint64
	Bytes   uint64 // of the mirrored frames
	Elapsed time.Duration
	Targets []Target
	Taps    []Tap // in the order in which they were met

	TooLong     uint64 // frames longer than a UDP datagram can be
	UnknownLink uint64 // frames of a link type that is not known
	Left        string // the first frame that was not sent, and why

	Damaged []error // one for each capture that could not be read to its end
}

// Target is what one collector got.
type Target struct {
	Address string // as in the options
	Packets uint64
	Refused uint64 // of these, those that came back, because nobody listens there or there is no way to it
	Reason  error  // why the last one came back
}

// Tap is an outer source address of the captures.
type Tap struct {
	Address, SentFrom string // SentFrom is empty where that is left to the kernel
}

// String is one line: how many packets were sent where.
func (r *Result) String() string {
	text := fmt.Sprintf("sent %d packets (%.1f MB) in %.1f s", r.Packets, float64(r.Bytes)/1e6, r.Elapsed.Seconds())
	for i, t := range r.Targets {
		sep := ", "
		if i == 0 {
			sep = ": "
		}
		text += fmt.Sprintf("%s%d to %s", sep, t.Packets, t.Address)
	}
	return text
}

// TapLine is one line about the taps, or empty where there were none.
func (r *Result) TapLine() string {
	const most = 8
	var parts []string
	for i, t := range r.Taps {
		switch {
		case i == most:
			parts = append(parts, fmt.Sprintf("and %d more", len(r.Taps)-most))
		case i > most:
		case t.SentFrom == "":
			parts = append(parts, t.Address+" as this host")
		default:
			parts = append(parts, t.Address+" as "+t.SentFrom)
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "taps: " + strings.Join(parts, ", ")
}

// Problems says, one line each, what of the captures did not arrive.
func (r *Result) Problems() []string {
	var lines []string
	for _, t := range r.Targets {
		if t.Refused > 0 {
			lines = append(lines, fmt.Sprintf("%d of %d packets did not arrive at %s: %v; is a collector listening there?", t.Refused, t.Packets, t.Address, t.Reason))
		}
	}
	if n := r.TooLong + r.UnknownLink; n > 0 {
		lines = append(lines, fmt.Sprintf("%d frames were not sent (too_long %d, link_type %d), the first: %s", n, r.TooLong, r.UnknownLink, r.Left))
	}
	for _, err := range r.Damaged {
		lines = append(lines, err.Error())
	}
	return lines
}

// ErrInterrupted says that the context ended a replay.
var ErrInterrupted = errors.New("interrupted")

// Run sends captures, several as one in the order of their time stamps. What was sent by then is in the result
// even where there is an error.
func Run(ctx context.Context, o Options, captures []*Capture) (Result, error) {
	began := time.Now()
	s, err := newSender(o.To)
	if err != nil {
		return Result{}, err
	}
	defer s.close()
	in := newInput(captures)
	defer in.close()
	r := run{
		options: o,
		sender:  s,
		framer:  newFramer(),
		input:   in,
	}
	err = r.run(ctx)
	r.result.Damaged = in.damaged
	s.result(&r.result)
	r.result.Elapsed = time.Since(began)
	return r.result, err
}

const (
	// reportEvery is the time between two calls of Options.Progress.
	reportEvery = 200 * time.Millisecond
	// slack is how much too early a packet may be sent, where sleeping would make it too late.
	slack = 200 * time.Microsecond
	// firstPort is the first port of those that outer sources have (RFC 7348, section 5).
	firstPort = 49152
)

// run is one replay under way.
type run struct {
	options Options
	sender  *sender
	framer  *framer
	input   *input
	result  Result

	began    time.Time
	first    int64 // time stamp of the first packet
	newest   int64 // greatest time stamp so far
	number   uint64
	reported time.Time
}

func (r *run) run(ctx context.Context) error {
	for c := r.input.next(); c != nil; c = r.input.next() {
		if err := r.pace(ctx, c.record.Time); err != nil {
			return errors.Join(err, r.sender.flush())
		}
		d := r.sender.next()
		switch err := r.framer.frame(&c.record, d); {
		case errors.Is(err, errTooLong):
			r.left(&r.result.TooLong, c, err)
			continue
		case err != nil:
			r.left(&r.result.UnknownLink, c, err)
			continue
		}
		r.result.Packets++
		r.result.Bytes += uint64(len(d.payload) - vxlanHeader)
		if err := r.sender.take(); err != nil {
			return err
		}
	}
	return r.sender.flush()
}

func (r *run) left(count *uint64, c *Capture, err error) {
	*count++
	if r.result.Left == "" {
		r.result.Left = fmt.Sprintf("%s: record %d: %v", c.Name, c.number, err)
	}
}

// pace waits until a packet with this time stamp is due.
func (r *run) pace(ctx context.Context, stamp int64) error {
	if r.number == 0 {
		r.first, r.newest = stamp, stamp
		r.began = time.Now()
		r.reported = r.began
	}
	r.newest = max(r.newest, stamp)
	after := time.Duration(r.newest - r.first)
	if r.options.PPS > 0 {
		after = time.Duration(float64(r.number) / r.options.PPS * float64(time.Second))
	}
	r.number++
	for {
		now := time.Now()
		if now.Sub(r.reported) >= reportEvery {
			r.reported = now
			if err := ctx.Err(); err != nil {
				return ErrInterrupted
			}
			if r.options.Progress != nil {
				r.options.Progress(Progress{Packets: r.result.Packets, Share: r.input.share(), Elapsed: now.Sub(r.began)})
			}
		}
		wait := after - now.Sub(r.began)
		if wait <= slack {
			return nil
		}
		if err := r.sender.flush(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ErrInterrupted
		case <-time.After(min(wait, reportEvery)):
		}
	}
}

// resolve turns HOST:PORT into addresses of one family.
func resolve(to []string) ([]*net.UDPAddr, error) {
	if len(to) == 0 {
		return nil, errors.New("no collector to send to")
	}
	var targets []*net.UDPAddr
	for _, t := range to {
		a, err := net.ResolveUDPAddr("udp", t)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t, err)
		}
		if a.IP == nil || a.Port == 0 {
			return nil, fmt.Errorf("%q is not HOST:PORT", t)
		}
		if four := a.IP.To4(); four != nil {
			a.IP = four
		}
		if len(targets) > 0 && len(a.IP) != len(targets[0].IP) {
			return nil, fmt.Errorf("%s and %s: both must be IPv4, or both IPv6", to[0], t)
		}
		targets = append(targets, a)
	}
	return targets, nil
}
