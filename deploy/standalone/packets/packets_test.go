package packets_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tapweave/tapweave/deploy/standalone/packets"
	"github.com/tapweave/tapweave/deploy/standalone/programtest"
	"github.com/tapweave/tapweave/deploy/standalone/query"
	"github.com/tapweave/tapweave/deploy/standalone/rowstest"
	"github.com/tapweave/tapweave/proto/capturetest"
)

// fields is what tshark reads out of a frame of a plain capture and out of the rebuilt one alike.
var fields = []string{"frame.time_epoch", "_ws.malformed", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "ip.len", "ip.id", "ip.ttl", "ip.flags.mf", "ip.frag_offset",
	"tcp.srcport", "tcp.dstport", "tcp.seq_raw", "tcp.ack_raw", "tcp.flags", "tcp.window_size_value", "tcp.checksum", "tcp.len",
	"udp.srcport", "udp.dstport", "udp.length", "udp.checksum", "icmp.type", "icmp.code", "icmp.seq", "dns.qry.name", "http.host", "tls.handshake.extensions_server_name", "ssh.protocol"}

// tshark prints fields of each frame, one line each.
func tshark(t *testing.T, file string, names ...string) []string {
	t.Helper()
	path := programtest.Path(t, "tshark")
	args := []string{"-n", "-r", file, "-T", "fields", "-E", "separator=|", "-E", "occurrence=f", "-o", "ip.defragment:FALSE", "-o", "tcp.desegment_tcp_streams:FALSE"}
	for _, f := range names {
		args = append(args, "-e", f)
	}
	out, err := exec.Command(path, args...).Output()
	if err != nil {
		t.Fatalf("tshark %s: %v", file, err)
	}
	return strings.Split(strings.TrimRight(string(out), "\n"), "\n")
}

// What is written is what was captured, frame by frame, as tshark sees it.
func TestAsCaptured(t *testing.T) {
	for _, name := range []string{
		"zeek__echo-connections.pcap", "zeek__ssh-dups.pcap", "zeek__206_example_b.pcap",
		"suricata-verify__dns-tcp-multirequest-buffer.pcap", "suricata-verify__tls-subjectaltname__input.pcap", "zeek__ipv6-http-atomic-frag.pcap",
	} {
		t.Run(name, func(t *testing.T) {
			path := capturetest.File(t, name)
			c, server := rowstest.Database(t, path)
			d := query.Database{Server: server, Name: c.Database}
			var out bytes.Buffer
			n, err := packets.Write(t.Context(), d, "true", &out)
			if err != nil {
				t.Fatal(err)
			}
			rebuilt := filepath.Join(t.TempDir(), "rebuilt.pcapng")
			if err := os.WriteFile(rebuilt, out.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
			want, got := tshark(t, path, fields...), tshark(t, rebuilt, fields...)
			// Frames of one time have no order among them, and what is no IP is no packet.
			want = slices.DeleteFunc(want, func(l string) bool {
				return strings.Contains(l, "||||") && strings.Split(l, "|")[2] == "" && strings.Split(l, "|")[4] == ""
			})
			slices.Sort(want)
			slices.Sort(got)
			if len(got) != n || len(got) != len(want) {
				t.Errorf("%d frames, tshark reads %d, want %d", n, len(got), len(want))
			}
			different := 0
			for i := range min(len(got), len(want)) {
				if got[i] != want[i] {
					if different++; different <= 5 {
						t.Errorf("frame %d:\n%s\nwant\n%s", i, got[i], want[i])
					}
				}
			}
			for _, l := range tshark(t, rebuilt, "frame.comment") {
				if !strings.HasPrefix(l, "session_id=") {
					t.Fatalf("comment %q", l)
				}
			}
		})
	}
}

// Cut payload, chosen sessions, labels.
func TestChosen(t *testing.T) {
	path := capturetest.File(t, "suricata-verify__http-protocol-nodup__input.pcap")
	c, server := rowstest.Database(t, path)
	d := query.Database{Server: server, Name: c.Database}
	for _, sql := range []string{
		// As if 100 bytes of each packet had been sampled, and the ends had labels.
		"ALTER TABLE %s.packets UPDATE data = substring(data, 1, 100) WHERE 1 SETTINGS mutations_sync = 1",
		"ALTER TABLE %s.sessions_versions UPDATE src_name = 'vm-1', src_subnet = 'web', src_vnet = 'spoke', src_labels = ['env=prod'] WHERE 1 SETTINGS mutations_sync = 1",
	} {
		if err := server.Exec(t.Context(), fmt.Sprintf(sql, c.Database)); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	n, err := packets.Write(t.Context(), d, "dst_port = 80 -- the web", &out)
	if err != nil {
		t.Fatal(err)
	}
	rebuilt := filepath.Join(t.TempDir(), "rebuilt.pcapng")
	if err := os.WriteFile(rebuilt, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	cut := 0
	for _, l := range tshark(t, rebuilt, "frame.len", "frame.cap_len", "frame.comment", "tcp.port") {
		f := strings.Split(l, "|")
		if !strings.HasSuffix(f[2], " src: vm-1 spoke/web env=prod dst:") {
			t.Errorf("%s", l)
		}
		if f[0] != f[1] {
			cut++
		}
	}
	whole := tshark(t, path, "frame.len", "tcp.len")
	want := 0
	for _, l := range whole {
		var length, payload int
		if fmt.Sscanf(l, "%d|%d", &length, &payload); payload > 100 {
			want++
		}
	}
	if cut != want || want == 0 || n != len(whole) {
		t.Errorf("%d packets, %d of them cut; want %d, %d", n, cut, len(whole), want)
	}
	if _, err := packets.Write(t.Context(), d, "dst_port = 9999", &out); !errors.Is(err, packets.ErrNone) {
		t.Errorf("%v", err)
	}
	if _, err := packets.Write(t.Context(), d, "nonsense = 1", &out); err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("%v", err)
	}
}
