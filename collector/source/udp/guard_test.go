package udp

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tapweave/tapweave/collector/allow"
	"github.com/tapweave/tapweave/collector/networktest"
	"github.com/tapweave/tapweave/proto/packet"
)

// guarded are sockets, and their guard.
func guarded(t *testing.T, address string, sockets int) ([]*Socket, *Guard) {
	t.Helper()
	all := listen(t, Config{Address: address, Sockets: sockets, ReceiveBytes: 4 << 20})
	g := NewGuard(all)
	t.Cleanup(func() { g.Close() })
	return all, g
}

// received are the senders of what waits in the sockets, and at which of them.
func received(t *testing.T, all []*Socket) map[netip.AddrPort][]int {
	t.Helper()
	from := map[netip.AddrPort][]int{}
	for i, s := range all {
		for {
			b, _, err := s.Receive(0)
			if err != nil {
				t.Fatal(err)
			}
			if len(b) == 0 {
				break
			}
			for _, d := range b {
				a := netip.AddrPortFrom(d.Source.Netip(), d.Port)
				from[a] = append(from[a], i)
			}
		}
	}
	return from
}

// The kernel refuses exactly whom the list does not have, and counts them; whoever may come is spread over the sockets.
func TestGuard(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	lists := [][]string{
		{"127.0.0.0/8"}, {"10.0.0.0/8"}, {"0.0.0.0/0"}, {"::/0"}, {"::ffff:0:0/96"}, {"::ffff:127.0.0.0/105"}, {"::/64"}, {"::1"},
		{"8000::/1"}, {"::fffe:0:0/95"}, {"127.128.0.0/9", "127.0.0.1", "::1"}, {"192.0.2.0/24", "2001:db8::/32"}, {},
	}
	address := func() netip.Addr {
		return netip.AddrFrom4([4]byte{127, byte(random.Uint32()), byte(random.Uint32()), byte(1 + random.IntN(250))})
	}
	var senders []netip.Addr
	for range 60 {
		senders = append(senders, address())
	}
	lists = append(lists, prefixes(random, address, senders, 9)...)
	here := func(f func() error) {
		t.Helper()
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("IPv4", func(t *testing.T) { exact(t, here, "127.0.0.1:0", senders, lists) })
	t.Run("IPv4 at a socket of both", func(t *testing.T) { exact(t, here, ":0", senders, lists) })
}

// The same over IPv6, with addresses of a network of the test's own.
func TestGuardIPv6(t *testing.T) {
	random := rand.New(rand.NewPCG(6, 6))
	address := func() netip.Addr {
		// They agree in their first bits, some in many.
		a := [16]byte{0xfd, 7}
		for i := 2; i < 16; i++ {
			if random.IntN(3) == 0 {
				a[i] = byte(random.Uint32()) >> random.IntN(8)
			}
		}
		a[15] |= 1
		return netip.AddrFrom16(a)
	}
	n := networktest.New(t)
	var senders []netip.Addr
	for range 60 {
		a := address()
		n.IP(fmt.Sprintf("addr replace %v/128 dev lo", a))
		senders = append(senders, a)
	}
	lists := [][]string{{"fd07::/16"}, {"::/0"}, {"0.0.0.0/0"}, {"fd07::/16", "10.0.0.0/8"}, {}}
	lists = append(lists, prefixes(random, address, senders, 16)...)
	exact(t, n.Do, "[::]:0", senders, lists)
}

// prefixes returns lists of prefixes of at least so many bits, half of them of senders.
func prefixes(random *rand.Rand, address func() netip.Addr, senders []netip.Addr, bits int) (lists [][]string) {
	for range 60 {
		var l []string
		for range 1 + random.IntN(6) {
			a := address()
			if random.IntN(2) == 0 {
				a = senders[random.IntN(len(senders))]
			}
			l = append(l, netip.PrefixFrom(a, bits+random.IntN(a.BitLen()-bits+1)).String())
		}
		lists = append(lists, l)
	}
	return lists
}

// exact wants that of each list exactly those senders are refused that the list refuses. do runs what opens sockets.
func exact(t *testing.T, do func(func() error), address string, senders []netip.Addr, lists [][]string) {
	t.Helper()
	const sockets = 3
	type sender struct {
		*net.UDPConn
		at netip.AddrPort
	}
	var (
		all   []*Socket
		guard *Guard
		conns []sender
	)
	do(func() (err error) {
		all, err = Listen(Config{Address: address, Sockets: sockets, ReceiveBytes: 4 << 20}, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		t.Cleanup(func() {
			for _, s := range all {
				s.Close()
			}
		})
		guard = NewGuard(all)
		t.Cleanup(func() { guard.Close() })
		at, err := all[0].Addr()
		if err != nil {
			return err
		}
		for _, from := range senders {
			to := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(at.Port())}
			if from.Is6() {
				to.IP = net.IPv6loopback
			}
			c, err := net.DialUDP("udp", &net.UDPAddr{IP: from.AsSlice()}, to)
			if err != nil {
				return err
			}
			t.Cleanup(func() { c.Close() })
			a := c.LocalAddr().(*net.UDPAddr).AddrPort()
			conns = append(conns, sender{c, netip.AddrPortFrom(a.Addr().Unmap(), a.Port())})
		}
		return nil
	})
	used, before, some := map[int]bool{}, uint64(0), 0
	for _, l := range lists {
		judge, err := allow.New(l, nil)
		if err != nil {
			t.Fatal(err)
		}
		do(func() error { return guard.Allow(judge.Prefixes()) })
		for _, c := range conns {
			for range 2 {
				if _, err := c.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
			}
		}
		got, refused := received(t, all), 0
		for _, c := range conns {
			a, want := packet.AddrFrom(c.at.Addr()), 2
			if !judge.Source(&a) {
				want = 0
				refused += 2
			}
			if n := got[c.at]; len(n) != want || want > 0 && n[0] != n[1] {
				t.Errorf("%v: datagrams of %v at the sockets %v, wanted %d at one", l, c.at, n, want)
			} else if want > 0 {
				used[n[0]] = true
			}
		}
		if n := guard.Refused() - before; n != uint64(refused) {
			t.Errorf("%v: %d are counted as refused, %d were", l, n, refused)
		}
		before += uint64(refused)
		if refused > 0 && refused < 2*len(conns) {
			some++
		}
	}
	if len(used) != sockets || some < 10 {
		t.Errorf("sockets %v of %d were used, and %d lists refused some, but not all", used, sockets, some)
	}
	for _, s := range all {
		if n := s.Dropped(); n != 0 {
			t.Errorf("%d are counted as dropped for want of room", n)
		}
	}
}

// While the list changes, whoever is on it all the time is never refused, and nothing is lost. No privilege is needed.
func TestGuardChanges(t *testing.T) {
	runtime.LockOSThread() // it ends with the test
	forbid(t, ^uint32(0))
	all, guard := guarded(t, "127.0.0.1:0", 2)
	out, from := dial(t, fmt.Sprintf("127.0.0.1:%d", port(t, all[0])))
	stop, sent := make(chan struct{}), 0
	var sending sync.WaitGroup
	sending.Go(func() {
		for ; ; sent++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := out.Write([]byte("x")); err != nil {
				t.Error(err)
				return
			}
			if sent%100 == 0 {
				time.Sleep(100 * time.Microsecond)
			}
		}
	})
	got := 0
	for i := range 200 {
		var prefixes []netip.Prefix
		for j := range i % 4 {
			prefixes = append(prefixes, netip.PrefixFrom(from.Addr(), 32-j).Masked())
		}
		if err := guard.Allow(prefixes); err != nil {
			t.Fatal(err)
		}
		got += len(received(t, all)[from])
	}
	close(stop)
	sending.Wait()
	got += len(received(t, all)[from])
	if n := guard.Refused(); n != 0 || got != sent || sent == 0 {
		t.Errorf("%d sent, %d received, %d refused", sent, got, n)
	}
}

// More prefixes than the kernel takes are an error, and nobody is refused by it then.
func TestGuardTooMany(t *testing.T) {
	all, err := Listen(Config{Address: "127.0.0.1:0", Sockets: 2, ReceiveBytes: 1 << 20}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	guard := NewGuard(all)
	address := fmt.Sprintf("127.0.0.1:%d", port(t, all[0]))
	out, from := dial(t, address)
	other := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	if err := guard.Allow(other); err != nil {
		t.Fatal(err)
	}
	out.Write([]byte("x"))
	if n, m := len(received(t, all)[from]), guard.Refused(); n != 0 || m != 1 {
		t.Fatalf("%d received, %d refused", n, m)
	}
	for range 16 {
		other = append(other, other...)
	}
	if err := guard.Allow(other); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("%d prefixes: %v", len(other), err)
	}
	out.Write([]byte("x"))
	if n, m := len(received(t, all)[from]), guard.Refused(); n != 1 || m != 1 {
		t.Errorf("%d received, %d refused", n, m)
	}
	// Nothing is left of it that would keep the address from another.
	guard.Close()
	for _, s := range all {
		s.Close()
	}
	listen(t, Config{Address: address, Sockets: 1, ReceiveBytes: 1 << 20})
}
