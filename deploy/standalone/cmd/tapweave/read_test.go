package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// program is the built program, which these tests know as its user does.
var program string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "tapweave")
	if err == nil {
		program = filepath.Join(dir, "tapweave")
		var out []byte
		if out, err = exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// run starts the program and returns its exit status and what it printed.
func run(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// capture writes a small capture: an HTTP-like TCP session, a DNS-like exchange, a ping, an ARP frame, and
// extra further UDP sessions. It returns the path and the offsets at which its records begin, with that of the
// file's end.
func capture(t *testing.T, extra int) (path string, offsets []int64) {
	t.Helper()
	var file bytes.Buffer
	w := pcapgo.NewWriterNanos(&file)
	if err := w.WriteFileHeader(65536, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	clock := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	client, server := net.IP{10, 0, 0, 4}, net.IP{10, 0, 1, 5}
	macs := map[string]net.HardwareAddr{client.String(): {2, 0, 0, 0, 0, 4}, server.String(): {2, 0, 0, 0, 0, 5}}
	send := func(src, dst net.IP, protocol layers.IPProtocol, rest ...gopacket.SerializableLayer) {
		ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: protocol, SrcIP: src, DstIP: dst}
		for _, l := range rest {
			switch l := l.(type) {
			case *layers.TCP:
				l.SetNetworkLayerForChecksum(ip)
			case *layers.UDP:
				l.SetNetworkLayerForChecksum(ip)
			}
		}
		all := append([]gopacket.SerializableLayer{
			&layers.Ethernet{SrcMAC: macs[src.String()], DstMAC: macs[dst.String()], EthernetType: layers.EthernetTypeIPv4}, ip}, rest...)
		b := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
			t.Fatal(err)
		}
		offsets = append(offsets, int64(file.Len()))
		clock = clock.Add(10 * time.Millisecond)
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: clock, CaptureLength: len(b.Bytes()), Length: len(b.Bytes())}, b.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	tcp := func(fromClient bool, seq, ack uint32, flags string, data string) {
		src, dst, l := client, server, &layers.TCP{SrcPort: 40000, DstPort: 80}
		if !fromClient {
			src, dst, l = server, client, &layers.TCP{SrcPort: 80, DstPort: 40000}
		}
		l.Seq, l.Ack, l.Window = seq, ack, 64000
		l.SYN, l.ACK, l.FIN, l.PSH = strings.Contains(flags, "S"), strings.Contains(flags, "A"), strings.Contains(flags, "F"), strings.Contains(flags, "P")
		send(src, dst, layers.IPProtocolTCP, l, gopacket.Payload(data))
	}
	udp := func(src, dst net.IP, from, to layers.UDPPort, data string) {
		send(src, dst, layers.IPProtocolUDP, &layers.UDP{SrcPort: from, DstPort: to}, gopacket.Payload(data))
	}
	request, response := "GET / HTTP/1.1\r\nHost: example.test\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n"
	tcp(true, 1000, 0, "S", "")
	tcp(false, 5000, 1001, "SA", "")
	tcp(true, 1001, 5001, "A", "")
	tcp(true, 1001, 5001, "PA", request)
	tcp(false, 5001, 1001+uint32(len(request)), "PA", response+strings.Repeat("x", 12000))
	tcp(true, 1001+uint32(len(request)), 5001+uint32(len(response))+12000, "FA", "")
	tcp(false, 5001+uint32(len(response))+12000, 1002+uint32(len(request)), "FA", "")
	tcp(true, 1002+uint32(len(request)), 5002+uint32(len(response))+12000, "A", "")
	udp(client, server, 50000, 5300, "question")
	udp(server, client, 5300, 50000, "the answer")
	for _, kind := range []uint8{layers.ICMPv4TypeEchoRequest, layers.ICMPv4TypeEchoReply} {
		src, dst := client, server
		if kind == layers.ICMPv4TypeEchoReply {
			src, dst = server, client
		}
		send(src, dst, layers.IPProtocolICMPv4, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, 0), Id: 7, Seq: 1}, gopacket.Payload("ping"))
	}
	for i := range extra {
		udp(client, server, layers.UDPPort(1024+i%60000), layers.UDPPort(6000+i/60000), "x")
	}
	offsets = append(offsets, int64(file.Len()))
	path = filepath.Join(t.TempDir(), "small.pcap")
	if err := os.WriteFile(path, file.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	return path, offsets
}

// lines checks that every line of the output is a JSON object and returns how many there are.
func lines(t *testing.T, stdout string) int {
	t.Helper()
	n := 0
	for line := range strings.Lines(stdout) {
		if !json.Valid([]byte(line)) || line[0] != '{' {
			t.Errorf("no JSON object: %q", line)
		}
		n++
	}
	return n
}

// oneLine checks that the program complained in one line that holds all the words.
func oneLine(t *testing.T, stderr string, words ...string) {
	t.Helper()
	if strings.Count(stderr, "\n") != 1 {
		t.Errorf("not one line: %q", stderr)
	}
	for _, w := range words {
		if !strings.Contains(stderr, w) {
			t.Errorf("%q does not say %q", stderr, w)
		}
	}
}

func TestReadSmall(t *testing.T) {
	path, _ := capture(t, 0)
	status, stdout, stderr := run(t, "read", path)
	if status != 0 || stderr != "" || lines(t, stdout) != 3 {
		t.Errorf("status %d, %q\n%s", status, stderr, stdout)
	}
}

func TestFlagsAndFilesInAnyOrder(t *testing.T) {
	path, _ := capture(t, 0)
	_, want, _ := run(t, "read", "--collectors", "3", "--split", "packet", path)
	for _, args := range [][]string{
		{path, "--collectors", "3", "--split", "packet"},
		{"--collectors=3", path, "--split=packet"},
		{"-collectors", "3", "-split", "packet", "--", path},
	} {
		status, got, stderr := run(t, append([]string{"read"}, args...)...)
		if status != 0 || got != want || stderr != "" {
			t.Errorf("%q: status %d, %q\n%s", args, status, stderr, got)
		}
	}
	status, _, stderr := run(t, "read", "--", "--format")
	if status != 1 || !strings.Contains(stderr, "--format") {
		t.Errorf("a file called --format: status %d, %q", status, stderr)
	}
}

func TestWrongCommandLines(t *testing.T) {
	path, _ := capture(t, 0)
	for _, c := range []struct {
		args  []string
		words []string
	}{
		{[]string{"weave"}, []string{"weave", "help"}},
		{[]string{"help", "weave"}, []string{"weave"}},
		{[]string{"read"}, []string{"capture"}},
		{[]string{"read", "--colour", path}, []string{"-colour"}},
		{[]string{"read", path, "--colour"}, []string{"-colour"}},
		{[]string{"read", "--format", "xml", path}, []string{"xml", "json"}},
		{[]string{"read", "--split", "half", path}, []string{"half", "direction"}},
		{[]string{"read", "--collectors", "0", path}, []string{"collectors"}},
		{[]string{"read", "--collectors", "many", path}, []string{"many"}},
		{[]string{"read", "--jitter", "500", path}, []string{"jitter"}},
		{[]string{"read", "--jitter", "-1s", path}, []string{"jitter"}},
	} {
		status, stdout, stderr := run(t, c.args...)
		if status != 2 || stdout != "" {
			t.Errorf("%q: status %d\n%s", c.args, status, stdout)
		}
		oneLine(t, stderr, c.words...)
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"help"}, {"--help"}, {"help", "read"}, {"read", "--help"}, {"read", "-h"}} {
		status, stdout, stderr := run(t, args...)
		if status != 0 || stderr != "" || !strings.Contains(stdout, "usage: tapweave") {
			t.Errorf("%q: status %d, %q\n%s", args, status, stderr, stdout)
		}
	}
	if status, stdout, stderr := run(t); status != 2 || stdout != "" || !strings.Contains(stderr, "usage") {
		t.Errorf("without a command: status %d, %q\n%s", status, stderr, stdout)
	}
}

func TestDamagedFiles(t *testing.T) {
	whole, offsets := capture(t, 0)
	bytes, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ping := len(offsets) - 3 // the last two records are the ping and its answer
	for _, c := range []struct {
		name     string
		path     string
		sessions int
		words    []string
	}{
		{"absent", filepath.Join(dir, "absent.pcap"), 0, []string{"no such file"}},
		{"directory", dir, 0, []string{"directory"}},
		{"empty", write("empty.pcap", nil), 0, []string{"empty"}},
		{"text", write("text.pcap", []byte("This is no capture, but a text of some length.\n")), 0, []string{"not a capture"}},
		{"cut in the file header", write("header.pcap", bytes[:10]), 0, []string{"byte 0"}},
		{"cut in a record header", write("record.pcap", bytes[:offsets[ping]+7]), 2, []string{fmt.Sprint("byte ", offsets[ping])}},
		{"cut in a frame", write("frame.pcap", bytes[:offsets[ping]+30]), 2, []string{fmt.Sprint("byte ", offsets[ping])}},
		{"cut in the last frame", write("last.pcap", bytes[:len(bytes)-1]), 3, []string{fmt.Sprint("byte ", offsets[ping+1])}},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, stdout, stderr := run(t, "read", c.path)
			if n := lines(t, stdout); status != 1 || n != c.sessions {
				t.Errorf("status %d, %d sessions, not %d", status, n, c.sessions)
			}
			oneLine(t, stderr, append(c.words, c.path)...)
			// The other files are read all the same.
			status, stdout, stderr = run(t, "read", c.path, whole)
			if n := lines(t, stdout); status != 1 || n != 3 {
				t.Errorf("with a whole file: status %d, %d sessions", status, n)
			}
			oneLine(t, stderr, append(c.words, c.path)...)
		})
	}
}

func TestBrokenPipe(t *testing.T) {
	path, _ := capture(t, 100000)
	cmd := exec.Command(program, "read", path)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Error(err)
	}
	out.Close()
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		cmd.Process.Kill()
		t.Fatal("still running")
	}
	if errs.Len() > 0 {
		t.Errorf("not quiet: %q", errs.String())
	}
}

func TestTable(t *testing.T) {
	path, _ := capture(t, 0)
	status, stdout, stderr := run(t, "read", "--format", "table", path)
	if status != 0 || stderr != "" {
		t.Errorf("status %d, %q", status, stderr)
	}
	const want = `START (UTC)                 PROTO  SOURCE             DESTINATION    STATE  PACKETS→  ←PACKETS  BYTES→  ←BYTES  DURATION  APP   NAME
2024-05-06 07:08:09.010000  tcp    10.0.0.4:40000  →  10.0.1.5:80    SF            5         3     238   12.2k    0.070s  http  example.test
2024-05-06 07:08:09.090000  udp    10.0.0.4:50000  →  10.0.1.5:5300  SF            1         1      36      38    0.010s
2024-05-06 07:08:09.110000  icmp   10.0.0.4        →  10.0.1.5       8/0           1         1      32      32    0.010s
`
	if stdout != want {
		t.Errorf("got\n%s\nnot\n%s", stdout, want)
	}
}

func TestStampsThatGoBack(t *testing.T) {
	path, offsets := capture(t, 0)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The last frame, the answer to the ping, gets a stamp 10 s before the ping's: it is raised to 1 s before.
	at := offsets[len(offsets)-2]
	seconds := binary.LittleEndian.Uint32(b[at:])
	binary.LittleEndian.PutUint32(b[at:], seconds-10)
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
	status, stdout, stderr := run(t, "read", path)
	if status != 0 || lines(t, stdout) != 3 || !strings.Contains(stdout, `"start_time":"2024-05-06T07:08:08.110000000Z","end_time":"2024-05-06T07:08:09.110000000Z"`) {
		t.Errorf("status %d\n%s", status, stdout)
	}
	oneLine(t, stderr, "time_stamps_raised 1")
}
