package clickhouse_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tapweave/tapweave/service/tlsclient"
	"github.com/tapweave/tapweave/sink/clickhouse"
	"github.com/tapweave/tapweave/sink/clickhouse/clickhousetest"
)

// terminator is a proxy that speaks TLS for a server that cannot. It returns its address and its authority's file.
func terminator(t *testing.T, to string) (address, ca string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"clickhouse.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				server, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer server.Close()
				go func() { io.Copy(server, client); server.Close() }()
				io.Copy(client, server)
			}()
		}
	}()
	return l.Addr().String(), ca
}

func TestTLS(t *testing.T) {
	r := newRig(t, 1)
	address, ca := terminator(t, r.config.Addresses[0])
	r.config.Addresses = []string{address}
	r.config.TLS = tlsclient.Config{Enabled: true, CAFile: ca, ServerName: "clickhouse.test"}
	r.start()
	r.produce(0, sessions(t, 0, 10, nil))
	r.wait("SELECT count() FROM %[1]s.sessions", 10)

	explain := func(change func(*clickhouse.Config)) string {
		c := r.config
		change(&c)
		server := clickhousetest.Open(t, c)
		err := server.Explain(server.Ping(t.Context()))
		if err == nil || strings.Contains(err.Error(), "\n") {
			t.Fatalf("%q", err)
		}
		if !clickhouse.Stays(err) {
			t.Errorf("taken to go away by itself: %v", err)
		}
		return err.Error()
	}
	if got := explain(func(c *clickhouse.Config) { c.TLS.CAFile = "" }); !strings.Contains(got, "set clickhouse.tls.ca_file") {
		t.Error(got)
	}
	if got := explain(func(c *clickhouse.Config) { c.TLS.ServerName = "" }); !strings.Contains(got, "set clickhouse.tls.server_name") {
		t.Error(got)
	}
	if got := explain(func(c *clickhouse.Config) { c.Addresses = r.direct.Addresses }); !strings.Contains(got, "does not speak TLS") {
		t.Error(got)
	}
}

// Errors are one line that says what to do.
func TestExplain(t *testing.T) {
	c := clickhousetest.Config(t)
	server := clickhousetest.Open(t, c)
	for query, want := range map[string]string{
		"SELECT * FROM " + c.Database + ".sessions": "has no database",
		"SELECT * FROM system.nothing":              "lacks a table",
		"SELECT nonsense":                           "refused: code 47",
	} {
		err := server.Explain(server.Exec(t.Context(), query))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "version 26") {
			t.Errorf("%s: %v, want %s", query, err, want)
		}
	}
	c.Addresses = []string{"nowhere.invalid:8123"}
	server = clickhousetest.Open(t, c)
	if err := server.Explain(server.Ping(t.Context())); !strings.Contains(err.Error(), "no address for host nowhere.invalid") {
		t.Error(err)
	}
}
