package endtoend

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// proxy passes TCP connections on to a server, until it is told to trouble them.
type proxy struct {
	listener net.Listener

	mu      sync.Mutex
	to      string
	ends    map[*net.TCPConn]bool // of connections, on both sides
	delay   time.Duration         // of each piece that is read
	stalled chan struct{}         // closed when bytes pass again; nil: they do
}

// newProxy listens on a port of its own. Without a server to pass them on to, connections are closed.
func newProxy(t *testing.T) *proxy {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, ends: map[*net.TCPConn]bool{}}
	t.Cleanup(func() {
		l.Close()
		p.heal()
		p.drop(1)
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.connect(c.(*net.TCPConn))
		}
	}()
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

// target says where the server is.
func (p *proxy) target(addr string) {
	p.mu.Lock()
	p.to = addr
	p.mu.Unlock()
}

func (p *proxy) connect(client *net.TCPConn) {
	p.pass()
	p.mu.Lock()
	to := p.to
	p.mu.Unlock()
	c, err := net.DialTimeout("tcp", to, 3*time.Second)
	if err != nil {
		client.SetLinger(0)
		client.Close()
		return
	}
	server := c.(*net.TCPConn)
	p.mu.Lock()
	p.ends[client], p.ends[server] = true, true
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.copy(server, client) })
	both.Go(func() { p.copy(client, server) })
	both.Wait()
	client.Close()
	server.Close()
	p.mu.Lock()
	delete(p.ends, client)
	delete(p.ends, server)
	p.mu.Unlock()
}

// copy passes on what one side sends, its end included.
func (p *proxy) copy(to, from *net.TCPConn) {
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		wait := p.pass()
		if n > 0 {
			time.Sleep(wait)
			if _, err := to.Write(b[:n]); err != nil {
				from.CloseRead()
				return
			}
		}
		if err != nil {
			if err == io.EOF {
				to.CloseWrite()
			} else {
				to.Close()
			}
			return
		}
	}
}

// pass waits while nothing passes, and returns the delay.
func (p *proxy) pass() time.Duration {
	p.mu.Lock()
	stalled, delay := p.stalled, p.delay
	p.mu.Unlock()
	if stalled != nil {
		<-stalled
	}
	return delay
}

// drop resets one in n connections.
func (p *proxy) drop(n int) { p.each(n, func(c *net.TCPConn) { c.SetLinger(0); c.Close() }) }

// halfClose ends one direction of one in n connections; the other stays.
func (p *proxy) halfClose(n int) { p.each(n, func(c *net.TCPConn) { c.CloseWrite() }) }

func (p *proxy) each(n int, do func(*net.TCPConn)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := 0
	for c := range p.ends {
		if i++; i%n == 0 {
			do(c)
		}
	}
}

// slow delays what passes.
func (p *proxy) slow(delay time.Duration) {
	p.mu.Lock()
	p.delay = delay
	p.mu.Unlock()
}

// stall lets nothing pass, nor anybody in, and says nothing.
func (p *proxy) stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stalled == nil {
		p.stalled = make(chan struct{})
	}
}

// heal ends what slow and stall began.
func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = 0
	if p.stalled != nil {
		close(p.stalled)
		p.stalled = nil
	}
}
