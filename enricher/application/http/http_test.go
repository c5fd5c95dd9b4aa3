package http

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseRequest(t *testing.T) {
	for head, want := range map[string]string{
		"GET /a?b=c HTTP/1.1\r\nHost: one.example\r\nUser-Agent:  x/1 \r\n\r\n":           `GET "one.example" /a "x/1" -1 false`,
		"GET http://two.example:80/a HTTP/1.1\r\n\r\n":                                    `GET "two.example:80" /a "" -1 false`,
		"GET http://two.example?q HTTP/1.0\r\nHost: three.example\r\n\r\n":                `GET "three.example"  "" -1 false`,
		"CONNECT four.example:443 HTTP/1.1\r\n\r\n":                                       `CONNECT "four.example:443"  "" -1 false`,
		"OPTIONS * HTTP/1.1\nHOST: five\n\n":                                              `OPTIONS "five" * "" -1 false`,
		"POST / HTTP/1.1\r\nContent-Length: 12\r\ncontent-length: 12\r\n\r\n":             `POST "" / "" 12 false`,
		"POST / HTTP/1.1\r\nContent-Length: 12\r\nContent-Length: 13\r\n\r\n":             `POST "" / "" 12 false malformed`,
		"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n":                                   `POST "" / "" -1 false malformed`,
		"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n":                     `POST "" / "" -1 true`,
		"GET / HTTP/1.1\r\nHost: first\r\nHost: second\r\nNo colon\r\nHost:third\r\n\r\n": `GET "first" / "" -1 false`,
		"GET / HTTP/1.1\r\nHost: a\r\nUser-Ag":                                            `GET "a" / "" -1 false`,
	} {
		h, ok := ParseRequest([]byte(head))
		got := fmt.Sprintf("%s %q %s %q %d %v", h.Method, h.Host, h.Path, h.UserAgent, h.Length, h.Chunked)
		if h.Malformed {
			got += " malformed"
		}
		if !ok || got != want {
			t.Errorf("%q: %s, want %s", head, got, want)
		}
	}
	for _, head := range []string{"", "GET", "GET ", "get / HTTP/1.1\r\n\r\n", " GET / HTTP/1.1\r\n\r\n", strings.Repeat("A", 40) + " / HTTP/1.1\r\n\r\n"} {
		if h, ok := ParseRequest([]byte(head)); ok {
			t.Errorf("%q: %+v", head, h)
		}
	}
}

func TestParseResponse(t *testing.T) {
	h, ok := ParseResponse([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nContent-Type: text/x\r\n\r\n"))
	if !ok || h.Status != 101 || string(h.Upgrade) != "websocket" || string(h.ContentType) != "text/x" {
		t.Errorf("%v %+v", ok, h)
	}
	for _, head := range []string{"", "HTTP/1.1 20", "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1 099 No\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n", "ICY 200 OK 1 2 3\r\n\r\n"} {
		if h, ok := ParseResponse([]byte(head)); ok {
			t.Errorf("%q: %+v", head, h)
		}
	}
}

func TestEnd(t *testing.T) {
	for b, want := range map[string]int{
		"": -1, "GET / HTTP/1.1\r\n": -1, "GET / HTTP/1.1\r\n\r": -1, "GET / HTTP/1.1\r\n\r\nbody": 18, "a\n\nb": 3, "a\r\nb\n\r\n": 7,
	} {
		if got := End([]byte(b)); got != want {
			t.Errorf("%q: %d, want %d", b, got, want)
		}
	}
}

func TestChunkSize(t *testing.T) {
	for line, want := range map[string]int64{"0": 0, "1a\r": 26, "FF;name=value": 255, " 10 ": 16, "": -1, "-1": -1, "xyz": -1, "fffffffffffffffff": -1} {
		n, ok := ChunkSize([]byte(line))
		if ok != (want >= 0) || ok && n != want {
			t.Errorf("%q: %d %v, want %d", line, n, ok, want)
		}
	}
}

func FuzzHead(f *testing.F) {
	f.Add([]byte("POST http://a.example/b?c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nUser-Agent: x\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 12\r\nUpgrade: h2c\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n := End(b); n > len(b) || n == 0 {
			t.Errorf("a head of %d bytes in %d", n, len(b))
		}
		if h, ok := ParseRequest(b); ok && (len(h.Method) == 0 || len(h.Host) > maxHost || len(h.Path) > maxPath || len(h.UserAgent) > maxUserAgent || h.Length < -1) {
			t.Errorf("%+v", h)
		}
		if h, ok := ParseResponse(b); ok && (h.Status < 100 || h.Status > 999 || h.Length < -1) {
			t.Errorf("%+v", h)
		}
		if n, ok := ChunkSize(b); ok && n < 0 {
			t.Errorf("a chunk of %d bytes", n)
		}
	})
}
