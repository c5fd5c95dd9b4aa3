package endtoend

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"github.com/tapweave/tapweave/collector"
	"github.com/tapweave/tapweave/deploy/standalone/programtest"
	"github.com/tapweave/tapweave/deploy/standalone/servers"
	"github.com/tapweave/tapweave/proto/batch"
	"github.com/tapweave/tapweave/proto/packet"
	"github.com/tapweave/tapweave/proto/pb"
	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/config"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/kafka/kafkatest"
	"github.com/tapweave/tapweave/service/logging/logtest"
	"github.com/tapweave/tapweave/service/tlsclient"
)

// startKafka starts a Kafka of the test's own, which it may end and start again.
func startKafka(t *testing.T, o servers.KafkaOptions) *servers.Kafka {
	t.Helper()
	programtest.Need(t, "java", "mvn")
	k, err := servers.StartKafka(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Kill() })
	return k
}

// tested is a collector in this process.
type tested struct {
	*collector.Collector
	t    *testing.T
	log  *logtest.Buffer
	stop func() error
}

func collect(t *testing.T, k kafka.Config, change func(*collector.Config)) *tested {
	t.Helper()
	c := collector.DefaultConfig()
	c.Name, c.Listen, c.Workers, c.Partitions, c.ReceiveBytes = "c1", "127.0.0.1:0", 1, 2, 8<<20
	c.DrainTime, c.FlushTimeout, c.Admin.Listen, c.Kafka = 0, 20*time.Second, "", k
	c.Sampling = collector.Sampling{Mode: "all"}
	if change != nil {
		change(&c)
	}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	x := &tested{t: t, log: new(logtest.Buffer)}
	x.Collector = collector.New(c, collector.Dependencies{Log: x.log.Logger()})
	if err := x.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- x.Run(ctx) }()
	x.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(time.Minute):
			return errors.New("the collector does not end")
		}
	})
	t.Cleanup(func() { x.stop() })
	return x
}

func (x *tested) await(what string, holds func() bool) {
	x.t.Helper()
	for limit := time.Now().Add(30 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			x.t.Fatalf("not in 30 s: %s\n%s", what, x.log)
		}
	}
}

func (x *tested) ready() {
	x.t.Helper()
	x.await("ready", func() bool { ok, _ := x.Ready(); return ok })
}

func (x *tested) count(stage, reason string) uint64 {
	return x.Counters().Counter(stage, reason).Value()
}

// balance wants every datagram that was received to be published, or counted as lost for one reason.
func (x *tested) balance() {
	x.t.Helper()
	var refused, lost uint64
	for _, c := range x.Counters().Counts() {
		switch {
		case c.Stage == "refused":
			refused += c.Count
		case c.Stage == "lost" && c.Reason != "kernel", c.Stage == "shed" && c.Reason == "packets":
			lost += c.Count
		}
	}
	if received, published := x.count("received", "datagrams"), x.count("published", "packets"); received != refused+lost+published {
		x.t.Errorf("received %d, but %d refused, %d lost and %d published: %v", received, refused, lost, published, x.Counters().Counts())
	}
}

// mirrored is a TCP segment of one of 64 connections, in VXLAN.
func mirrored(connection int, seq uint32, flags byte, payload []byte) []byte {
	b := make([]byte, 8+14+20+20, 8+14+20+20+len(payload))
	be := binary.BigEndian
	b[0], b[6] = 0x08, 27
	be.PutUint16(b[20:], 0x0800)
	ip := b[22:]
	ip[0], ip[8], ip[9] = 0x45, 64, packet.ProtoTCP
	be.PutUint16(ip[2:], uint16(40+len(payload)))
	copy(ip[12:], []byte{10, 0, 0, byte(connection)})
	copy(ip[16:], []byte{10, 0, 1, 1})
	tcp := ip[20:]
	be.PutUint16(tcp, uint16(20000+connection))
	be.PutUint16(tcp[2:], 80)
	be.PutUint32(tcp[4:], seq)
	tcp[12], tcp[13] = 5<<4, flags
	return append(b, payload...)
}

// published returns the batches of each partition, those that a retry wrote twice once.
func published(t *testing.T, c kafka.Config) [][]*pb.PacketBatch {
	t.Helper()
	k, err := kafka.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	all := make([][]*pb.PacketBatch, 2)
	for i := range all {
		last := uint64(0)
		for _, v := range kafkatest.Values(t, k, record.TopicPackets, i) {
			p, err := record.UnmarshalPackets(v)
			if err != nil {
				t.Fatal(err)
			}
			s := p.GetBatch()
			if s.Sequence <= last {
				continue
			}
			if s.Sequence != last+1 {
				t.Errorf("partition %d: batch %d behind %d", i, s.Sequence, last)
			}
			last = s.Sequence
			all[i] = append(all[i], s)
		}
	}
	return all
}

func packets(t *testing.T, batches [][]*pb.PacketBatch, visit func(f *packet.Flow, p *packet.Packet)) {
	t.Helper()
	var d batch.Packets
	for _, list := range batches {
		for _, s := range list {
			if s.Packets == 0 {
				continue
			}
			if err := d.Decode(s.Columns); err != nil {
				t.Fatal(err)
			}
			for i := range d.Packets {
				visit(&d.Flows[d.Packets[i].Flow], &d.Packets[i])
			}
		}
	}
}

// While Kafka is away, what fits the memory waits, and is on its partitions in order when Kafka is back. The time is
// a tenth of the minute that the default memory is made for, so is the memory; with SOAK set both are whole.
func TestKafkaAway(t *testing.T) {
	dir := t.TempDir()
	broker := startKafka(t, servers.KafkaOptions{Dir: dir})
	k := kafka.Config{Brokers: []string{broker.Addr()}}
	away, memory := 6*time.Second, int64(13<<20)
	if os.Getenv("SOAK") != "" {
		away, memory = time.Minute, collector.DefaultConfig().MemoryBytes
	}
	x := collect(t, k, func(c *collector.Config) { c.MemoryBytes = memory })
	x.ready()
	s, err := net.Dial("udp", x.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sent := uint32(0)
	payload := make([]byte, 400)
	send := func(d time.Duration) { // 2,000 packets a second
		for limit := time.Now().Add(d); time.Now().Before(limit); time.Sleep(5 * time.Millisecond) {
			for range 10 {
				rand.Read(payload)
				if _, err := s.Write(mirrored(int(sent%64), sent, packet.ACK, payload)); err != nil {
					t.Fatal(err)
				}
				sent++
			}
		}
	}
	send(time.Second)
	_, port, _ := net.SplitHostPort(broker.Addr())
	if err := broker.Kill(); err != nil {
		t.Log(err)
	}
	send(away)
	var number int
	fmt.Sscan(port, &number)
	startKafka(t, servers.KafkaOptions{Dir: dir, Port: number})
	send(time.Second)
	if err := x.stop(); err != nil {
		t.Error(err)
	}
	x.balance()
	if n := x.count("received", "datagrams"); n != uint64(sent) || x.count("published", "packets") != n || x.count("produce", "failed_calls") == 0 {
		t.Errorf("%d sent, counts %v", sent, x.Counters().Counts())
	}
	last, got := map[uint16]uint32{}, uint32(0)
	packets(t, published(t, k), func(f *packet.Flow, p *packet.Packet) {
		if before, ok := last[f.SrcPort]; ok && p.Seq <= before {
			t.Errorf("connection %d: %d behind %d", f.SrcPort, p.Seq, before)
		}
		last[f.SrcPort] = p.Seq
		got++
	})
	if got != sent {
		t.Errorf("%d of %d packets", got, sent)
	}
}

// What a collector and a Kafka do together that runs: one Kafka serves all of it.
func TestCollectorOnKafka(t *testing.T) {
	dir := t.TempDir()
	a := newAuthority(t)
	a.issue("broker", a)
	a.issue("client", a)
	stranger := newAuthority(t)
	stranger.issue("client", stranger)
	const password = "Nachtigall-0815"
	broker := startKafka(t, servers.KafkaOptions{
		Dir:       dir,
		Listeners: map[string]string{"TLS": "SSL", "MUTUAL": "SSL", "SASL": "SASL_PLAINTEXT", "SASLTLS": "SASL_SSL"},
		Settings: `ssl.keystore.type=PEM
ssl.keystore.location=` + a.file("broker-both.pem") + `
ssl.truststore.type=PEM
ssl.truststore.location=` + a.file("authority.pem") + `
listener.name.mutual.ssl.client.auth=required
` + saslSettings("sasl", password) + saslSettings("sasltls", password),
	})
	admin := &kafkago.Client{Addr: kafkago.TCP(broker.Addr())}
	for _, m := range []kafkago.ScramMechanism{kafkago.ScramMechanismSha256, kafkago.ScramMechanismSha512} {
		salt := []byte("0123456789abcdef")
		r, err := admin.AlterUserScramCredentials(t.Context(), &kafkago.AlterUserScramCredentialsRequest{Upsertions: []kafkago.UserScramCredentialsUpsertion{{
			Name: "alice", Mechanism: m, Iterations: 4096, Salt: salt, SaltedPassword: salted(m, password, salt, 4096),
		}}})
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range r.Results {
			if u.Error != nil {
				t.Fatal(u.Error)
			}
		}
	}
	t.Run("security", func(t *testing.T) { testSecurity(t, broker, a, stranger, password) })
	t.Run("overload", func(t *testing.T) { testOverload(t, broker) })
	t.Run("canary", func(t *testing.T) { testCanary(t, broker, dir) })
}

// Beyond the memory payload goes first, then whole sessions, by the threshold that the batches bear; what is received
// balances with what is published and what is counted as lost, and receiving goes on.
func testOverload(t *testing.T, broker *servers.Kafka) {
	k := kafka.Config{Brokers: []string{broker.Addr()}, TopicPrefix: "overload."}
	x := collect(t, k, func(c *collector.Config) { c.MemoryBytes, c.Linger = 1<<20, 20*time.Millisecond })
	x.ready()
	if err := broker.Pause(); err != nil {
		t.Fatal(err)
	}
	s, err := net.Dial("udp", x.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	payload, sent := make([]byte, 1000), uint32(0)
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit) && x.count("shed", "packets") < 5000; time.Sleep(2 * time.Millisecond) {
		for range 40 {
			rand.Read(payload)
			if _, err := s.Write(mirrored(int(sent%64), sent*77777, packet.ACK, payload)); err != nil {
				t.Fatal(err)
			}
			sent++
		}
	}
	broker.Continue()
	if err := x.stop(); err != nil {
		t.Error(err)
	}
	x.balance()
	if got := x.count("received", "datagrams") + x.count("lost", "kernel"); got != uint64(sent) {
		t.Errorf("%d of %d received", got, sent)
	}
	if x.count("shed", "packets") < 5000 || x.count("shed", "payload_bytes") == 0 {
		t.Errorf("counts %v", x.Counters().Counts())
	}
	batches, marked, whole := published(t, k), false, 0
	for _, list := range batches {
		for _, b := range list {
			marked = marked || b.ShedThreshold > 1
		}
	}
	if !marked {
		t.Error("no batch bears a threshold")
	}
	// Sessions were shed whole: some connections are there to the end, others not.
	perConnection := map[uint16]int{}
	packets(t, batches, func(f *packet.Flow, p *packet.Packet) { perConnection[f.SrcPort]++ })
	most := 0
	for _, n := range perConnection {
		most = max(most, n)
	}
	for _, n := range perConnection {
		if n > most*9/10 {
			whole++
		}
	}
	t.Logf("%d sent; of 64 connections %d are there for the longest; counts %v", sent, whole, x.Counters().Counts())
	if whole == 0 || whole == 64 {
		t.Errorf("%d of 64 connections are whole", whole)
	}
}

// No secret of an HTTP header is in Kafka's log files in mode starts, wherever its header is split between packets.
func testCanary(t *testing.T, broker *servers.Kafka, dir string) {
	k := kafka.Config{Brokers: []string{broker.Addr()}, TopicPrefix: "canary."}
	x := collect(t, k, func(c *collector.Config) { c.Sampling = collector.DefaultConfig().Sampling })
	x.ready()
	s, err := net.Dial("udp", x.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	secrets := []string{"kanarienvogel", "Zeisig4711", "4111 1111 1111 1111"}
	requests := []string{
		"GET /cart HTTP/1.1\r\nHost: shop.example\r\nAuthorization: Bearer kanarienvogel\r\nAccept: */*\r\n\r\n",
		"HTTP/1.1 200 OK\r\nSet-Cookie: sid=Zeisig4711; Path=/\r\nContent-Length: 2\r\n\r\nok",
		"POST /pay HTTP/1.1\r\nHost: shop.example\r\nCookie: sid=Zeisig4711\r\nX-Card: 4111 1111 1111 1111\r\nContent-Length: 25\r\n\r\ncard=4111 1111 1111 1111\n",
	}
	sent := 0
	for n, r := range requests {
		for at := range len(r) {
			for i, part := range []string{r[:at], r[at:]} {
				if _, err := s.Write(mirrored(n, uint32(i*at), packet.ACK|packet.PSH, []byte(part))); err != nil {
					t.Fatal(err)
				}
				sent++
			}
			if at%50 == 0 {
				time.Sleep(2 * time.Millisecond)
			}
		}
	}
	x.await("all packets", func() bool { return x.count("received", "datagrams") == uint64(sent) })
	if err := x.stop(); err != nil {
		t.Fatal(err)
	}
	var payload bytes.Buffer
	hosts, got := 0, 0
	packets(t, published(t, k), func(f *packet.Flow, p *packet.Packet) {
		got++
		payload.Write(p.Data)
		payload.Write(p.Head)
		payload.WriteByte(0)
		if bytes.Contains(p.Data, []byte("Host: shop.example\r\n")) {
			hosts++
		}
	})
	if got != sent || hosts < 100 {
		t.Errorf("%d of %d packets, %d with a host", got, sent, hosts)
	}
	files := 0
	err = filepath.WalkDir(filepath.Join(dir, "data"), func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".log") {
			return err
		}
		b, err := os.ReadFile(name)
		if strings.Contains(name, k.TopicPrefix+record.TopicPackets) && len(b) > 0 {
			files++
		}
		payload.Write(b)
		return err
	})
	if err != nil || files != 2 {
		t.Fatalf("%d log files, %v", files, err)
	}
	for _, secret := range secrets {
		// Half of one is one as well.
		for _, part := range []string{secret, secret[:len(secret)/2+1], secret[len(secret)/2-1:]} {
			if bytes.Contains(payload.Bytes(), []byte(part)) {
				i := bytes.Index(payload.Bytes(), []byte(part))
				t.Errorf("%q travels: %q", part, payload.Bytes()[max(0, i-60):i+len(part)])
			}
		}
	}
}

// authority signs certificates of a test.
type authority struct {
	t    *testing.T
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.key, a.cert = a.issue("authority", nil)
	return a
}

// issue makes a certificate, and the files NAME.pem, NAME.key and NAME-both.pem, the last as Kafka wants it.
func (a *authority) issue(name string, signer *authority) (*ecdsa.PrivateKey, *x509.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<60))
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: signer == nil,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, with := c, key
	if signer != nil {
		parent, with = signer.cert, signer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, with)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	for file, b := range map[string][]byte{".pem": certPEM, ".key": keyPEM, "-both.pem": append(keyPEM, certPEM...)} {
		if err := os.WriteFile(a.file(name+file), b, 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		a.t.Fatal(err)
	}
	return key, c
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// A collector publishes over TLS, mutual TLS, SASL PLAIN and SCRAM; what is wrong with its credentials it says in one
// line with a remedy, and never the secret.
func testSecurity(t *testing.T, broker *servers.Kafka, a, stranger *authority, password string) {
	trusted := tlsclient.Config{Enabled: true, CAFile: a.file("authority.pem")}
	mutual := trusted
	mutual.CertFile, mutual.KeyFile = a.file("client.pem"), a.file("client.key")
	strange := mutual
	strange.CertFile, strange.KeyFile = stranger.file("client.pem"), stranger.file("client.key")
	sasl := func(mechanism, secret string) kafka.SASLConfig {
		return kafka.SASLConfig{Mechanism: mechanism, Username: "alice", Password: config.Secret(secret)}
	}
	for i, c := range []struct {
		name, listener string
		tls            tlsclient.Config
		sasl           kafka.SASLConfig
		want           string // what is wrong
	}{
		{"TLS", "TLS", trusted, kafka.SASLConfig{}, ""},
		{"mutual TLS", "MUTUAL", mutual, kafka.SASLConfig{}, ""},
		{"SASL PLAIN", "SASL", tlsclient.Config{}, sasl("plain", password), ""},
		{"SASL PLAIN over TLS", "SASLTLS", trusted, sasl("plain", password), ""},
		{"SASL SCRAM-SHA-256", "SASL", tlsclient.Config{}, sasl("scram-sha-256", password), ""},
		{"SASL SCRAM-SHA-512 over TLS", "SASLTLS", trusted, sasl("scram-sha-512", password), ""},
		{"unknown authority", "TLS", tlsclient.Config{Enabled: true, CAFile: stranger.file("authority.pem")}, kafka.SASLConfig{}, "set kafka.tls.ca_file"},
		{"no certificate", "MUTUAL", trusted, kafka.SASLConfig{}, "kafka.tls.cert_file"},
		{"strange certificate", "MUTUAL", strange, kafka.SASLConfig{}, "kafka.tls.cert_file"},
		{"wrong password", "SASL", tlsclient.Config{}, sasl("plain", password+"x"), "check kafka.sasl.username and password"},
		{"wrong password, SCRAM", "SASL", tlsclient.Config{}, sasl("scram-sha-256", password+"x"), "check kafka.sasl.username and password"},
		{"TLS to a port without", "SASL", trusted, sasl("plain", password), "kafka.tls"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := kafka.Config{Brokers: []string{broker.Listener(c.listener)}, TopicPrefix: fmt.Sprintf("t%d.", i), TLS: c.tls, SASL: c.sasl}
			x := collect(t, k, nil)
			if c.want == "" {
				x.ready()
			} else {
				x.await(c.want, func() bool { _, why := x.Ready(); return strings.Contains(why, c.want) })
			}
			if err := x.stop(); err != nil {
				t.Error(err)
			}
			if s := x.log.String(); strings.Contains(s, password) {
				t.Errorf("the password is in the log:\n%s", s)
			}
		})
	}
}

// saslSettings let alice in by PLAIN, and whoever has credentials by SCRAM.
func saslSettings(listener, password string) string {
	return fmt.Sprintf(`listener.name.%[1]s.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.%[1]s.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_alice="%[2]s";
listener.name.%[1]s.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.%[1]s.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
`, listener, password)
}

// salted is SaltedPassword of RFC 5802, section 3.
func salted(m kafkago.ScramMechanism, password string, salt []byte, iterations int) []byte {
	var h func() hash.Hash
	size := sha256.Size
	if h = sha256.New; m == kafkago.ScramMechanismSha512 {
		h, size = sha512.New, sha512.Size
	}
	b, err := pbkdf2.Key(h, password, salt, iterations, size)
	if err != nil {
		panic(err)
	}
	return b
}
