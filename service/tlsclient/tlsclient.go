// Package tlsclient is the configuration of encrypted connections, to whatever server.
package tlsclient

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
)

// Config of a connection's encryption.
type Config struct {
	Enabled    bool   `yaml:"enabled" doc:"Whether connections are encrypted."`
	CAFile     string `yaml:"ca_file" doc:"PEM file of the authorities that sign the server's certificate. Empty: the system's."`
	CertFile   string `yaml:"cert_file" doc:"PEM file of the client's certificate, for mutual TLS."`
	KeyFile    string `yaml:"key_file" doc:"PEM file of the client certificate's key."`
	ServerName string `yaml:"server_name" doc:"Name that the server's certificate must bear. Empty: the host that is dialled."`
}

// Validate says what is wrong with a configuration. Files are looked at by TLS.
func (c Config) Validate() error {
	switch {
	case !c.Enabled && (c.CAFile != "" || c.CertFile != "" || c.KeyFile != "" || c.ServerName != ""):
		return errors.New("enabled is false, but other keys are set")
	case (c.CertFile == "") != (c.KeyFile == ""):
		return errors.New("cert_file and key_file belong together")
	}
	return nil
}

// TLS reads the files, and returns nil where encryption is off. Nothing older than TLS 1.2 is spoken.
func (c Config) TLS() (*tls.Config, error) {
	if err := c.Validate(); err != nil || !c.Enabled {
		return nil, err
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CAFile != "" {
		b, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("ca_file: %s holds no PEM certificate", c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("cert_file, key_file: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}
