package clickhouse

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

const (
	dialTimeout = 5 * time.Second
	// answerTimeout is how long an insert may take. One that is tried again is the same block with the same token,
	// so that it does no harm if the first was only slow.
	answerTimeout = time.Minute
	// idleTimeout is shorter than the server's keep_alive_timeout, so that no request goes out on a connection
	// that the server is closing.
	idleTimeout = 2 * time.Second
)

// Server is a ClickHouse that was configured; it is connected to when it is asked something.
type Server struct {
	driver.Conn
	where, user, database string
}

// Open reads the files that the configuration names. It does not connect.
func (c Config) Open() (*Server, error) { return c.OpenWithin(answerTimeout) }

// OpenWithin is Open for statements that may take so long.
func (c Config) OpenWithin(answer time.Duration) (*Server, error) {
	t, err := c.TLS.TLS()
	if err != nil {
		return nil, fmt.Errorf("clickhouse.tls: %w", err)
	}
	// The library takes TLS without a password for authentication by certificate.
	var headers map[string]string
	if t != nil && len(t.Certificates) == 0 {
		headers = map[string]string{"X-ClickHouse-SSL-Certificate-Auth": "off"}
	}
	conn, err := clickhouse.Open(&clickhouse.Options{
		Protocol: clickhouse.HTTP,
		Addr:     c.Addresses,
		TLS:      t,
		// The database is named in every statement: it may not be there yet.
		Auth:         clickhouse.Auth{Username: c.Username, Password: c.Password.Reveal()},
		HttpHeaders:  headers,
		DialTimeout:  dialTimeout,
		ReadTimeout:  answer,
		MaxOpenConns: 64,
		MaxIdleConns: 16,
		// Answers to queries of our own are small; what is inserted is a raw stream.
		Compression: &clickhouse.Compression{Method: clickhouse.CompressionNone},
		TransportFunc: func(t *http.Transport) (http.RoundTripper, error) {
			t.IdleConnTimeout = idleTimeout
			t.WriteBufferSize = 256 << 10
			return t, nil
		},
	})
	if err != nil {
		return nil, fmt.Errorf("clickhouse: %w", err)
	}
	return &Server{Conn: conn, where: strings.Join(c.Addresses, ","), user: c.Username, database: c.Database}, nil
}

// Addresses is where the server is, for messages.
func (s *Server) Addresses() string { return s.where }

// explained is an error in one line.
type explained struct {
	what string
	err  error
}

func (e *explained) Error() string { return e.what }
func (e *explained) Unwrap() error { return e.err }

// Codes of ClickHouse's exceptions.
// Source: https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp
const (
	codeUnknownTable         = 60
	codeUnknownDatabase      = 81
	codeReadOnly             = 164
	codeUnknownUser          = 192
	codeWrongPassword        = 193
	codeRequiredPassword     = 194
	codeMemoryLimit          = 241
	codeNotEnoughSpace       = 243
	codeTooManyParts         = 252
	codeAccessDenied         = 497
	codeAuthenticationFailed = 516
)

// Explain says in one line what failed, where, and what to do about it.
func (s *Server) Explain(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	var known *explained
	if errors.As(err, &known) {
		return err
	}
	say := func(format string, args ...any) error {
		return &explained{fmt.Sprintf("ClickHouse at %s ", s.where) + fmt.Sprintf(format, args...), err}
	}
	var e *clickhouse.Exception
	if errors.As(err, &e) {
		switch e.Code {
		case codeAuthenticationFailed, codeUnknownUser, codeWrongPassword, codeRequiredPassword:
			return say("refused user %q: wrong name or password; check clickhouse.username and password", s.user)
		case codeAccessDenied, codeReadOnly:
			return say("does not allow user %q that: %s", s.user, oneLine(e.Message))
		case codeUnknownDatabase:
			return say("has no database %q: make it, or let the sink do so (clickhouse.migrate)", s.database)
		case codeUnknownTable:
			return say("lacks a table: %s; run sink -migrate-only", oneLine(e.Message))
		case codeNotEnoughSpace:
			return say("has no disk space left: %s", oneLine(e.Message))
		case codeMemoryLimit:
			return say("has no memory left: %s", oneLine(e.Message))
		case codeTooManyParts:
			return say("cannot keep up with merging: %s", oneLine(e.Message))
		}
		return say("refused: code %d, %s", e.Code, oneLine(e.Message))
	}
	var (
		op        *net.OpError
		dns       *net.DNSError
		answer    *clickhouse.HTTPError
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		alert     tls.AlertError
		header    tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &dns):
		return say("cannot be reached: no address for host %s; check clickhouse.addresses", dns.Name)
	case errors.As(err, &authority):
		return say("has a certificate of an unknown authority; set clickhouse.tls.ca_file")
	case errors.As(err, &hostname):
		return say("has a certificate for another name (%v); set clickhouse.tls.server_name", hostname)
	case errors.As(err, &alert):
		return say("refused the TLS handshake (%v); check clickhouse.tls.cert_file and key_file", alert)
	case errors.As(err, &header), errors.Is(err, http.ErrSchemeMismatch):
		return say("does not speak TLS on that port; check clickhouse.tls.enabled and the port")
	case errors.Is(err, syscall.ECONNREFUSED):
		return say("cannot be reached: connection refused; check that it runs and that clickhouse.addresses names its HTTP port")
	case errors.As(err, &op) && op.Op == "dial":
		return say("cannot be reached: %v", op.Err)
	case errors.As(err, &answer):
		return say("answered with HTTP status %d: %s; check that clickhouse.addresses names its HTTP port", answer.StatusCode, oneLine(answer.Err.Error()))
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), strings.Contains(err.Error(), "timeout awaiting response headers"):
		return say("did not answer in time")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return say("closed the connection: it is restarting, or clickhouse.tls.enabled does not fit that port")
	}
	return say("failed: %s", oneLine(err.Error()))
}

// oneLine returns the beginning of s without line ends, stack traces and the server's version.
func oneLine(s string) string {
	if i := strings.Index(s, " (version "); i >= 0 {
		s = s[:i]
	}
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}

// Stays says whether an error will not go away by itself: the configuration is wrong, or a right is missing.
func Stays(err error) bool {
	var e *clickhouse.Exception
	if errors.As(err, &e) {
		switch e.Code {
		case codeAuthenticationFailed, codeUnknownUser, codeWrongPassword, codeRequiredPassword, codeAccessDenied, codeReadOnly:
			return true
		}
	}
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var header tls.RecordHeaderError
	return errors.As(err, &authority) || errors.As(err, &hostname) || errors.As(err, &header) || errors.Is(err, http.ErrSchemeMismatch)
}
