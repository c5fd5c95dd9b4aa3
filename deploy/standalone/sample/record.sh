#!/usr/bin/env bash
# Records sample.pcap: real programs talk between machines made of network namespaces, three NICs are tapped, and what was seen there is
# stored as the VXLAN that a virtual network TAP sends. See README.md for what comes out.
#
#   sudo deploy/standalone/sample/record.sh [OUT]     needs iproute2, ethtool, nftables, tcpdump, tshark, python3, dnsmasq, dig, curl, openssl, OpenSSH
#
#   client 10.20.1.4 ─┐                           ┌─ db     10.20.2.4      (DNS, SSH, a protocol of its own)
#      (tapped)       ├─ bridge ─── fabric ───────┼─ ext    198.51.100.20  (outside; scans from .77)
#   web   10.20.1.20 ─┘ bad wire   (routes)       └─ worker 203.0.113.10   (tapped, egress only: as behind a NAT gateway)
#      (tapped)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/sample.pcap}
[ "$(id -u)" = 0 ] || { echo "record.sh: needs root, to make network namespaces" >&2; exit 1; }
for tool in ip ethtool nft tcpdump tshark python3 dnsmasq dig curl openssl ssh ssh-keygen ping /usr/sbin/sshd; do
	command -v "$tool" >/dev/null || { echo "record.sh: $tool is missing" >&2; exit 1; }
done

work=$(mktemp -d /tmp/tapweave-sample.XXXXXX)
machines="fabric client web db ext worker"
ns() { echo "tapweave-$1"; }
on() { ip netns exec "$(ns "$1")" "${@:2}"; }
# start is for commands in the background: it becomes the command, so that $! is the command's own id.
start() { exec ip netns exec "$(ns "$1")" "${@:2}"; }
# await WORD FILE: until a program in the background has written the word.
await() {
	for _ in {1..200}; do
		if grep -qs "$1" "$2"; then return; fi
		sleep 0.1
	done
	echo "record.sh: no \"$1\" after 20 s: $(cat "$2")" >&2
	exit 1
}
pids=()
cleanup() {
	for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done
	wait
	for m in $machines; do
		ip netns del "$(ns "$m")" 2>/dev/null || true
		rm -rf "/etc/netns/$(ns "$m")"
	done
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' INT TERM

# link MACHINE NUMBER ADDRESS GATEWAY [ADDRESS6 GATEWAY6]: gives the machine eth0, the fabric the other end, to-MACHINE.
# MTU 1400: a mirrored frame fits the 1500 bytes of an ordinary network. Offloads are off, else frames larger than the MTU and unfinished
# checksums would be recorded.
link() {
	local m=$1 n=$2
	ip link add eth0 netns "$(ns "$m")" address "02:00:5e:20:00:0$n" mtu 1400 type veth \
		peer name "to-$m" netns "$(ns fabric)" address "02:00:5e:20:01:0$n" mtu 1400
	on "$m" ethtool -K eth0 tx off tso off gso off gro off >/dev/null
	on fabric ethtool -K "to-$m" tx off tso off gso off gro off >/dev/null
	on fabric ip link set "to-$m" up
	on "$m" ip link set lo up
	on "$m" ip link set eth0 up
	on "$m" ip addr add "$3" dev eth0
	on "$m" ip route add default via "$4" dev eth0 onlink
	if [ $# = 6 ]; then
		on "$m" ip addr add "$5" dev eth0 nodad
		on "$m" ip route add default via "$6" dev eth0
	fi
	mkdir -p "/etc/netns/$(ns "$m")"
	echo "nameserver 10.20.2.4" >"/etc/netns/$(ns "$m")/resolv.conf"
}

for m in $machines; do ip netns add "$(ns "$m")"; done
# arp_ignore: to-web, which is not on the bridge itself, must not answer for the bridge's address.
on fabric sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.arp_ignore=1
link client 1 10.20.1.4/24 10.20.1.1 2001:db8:20:1::4/64 2001:db8:20:1::1
link web 2 10.20.1.20/24 10.20.1.1 2001:db8:20:1::20/64 2001:db8:20:1::1
link db 3 10.20.2.4/24 10.20.2.1 2001:db8:20:2::4/64 2001:db8:20:2::1
link ext 4 198.51.100.20/24 198.51.100.1
link worker 5 203.0.113.10/24 203.0.113.1
on ext ip addr add 198.51.100.77/24 dev eth0
on fabric ip link add br0 address 02:00:5e:20:01:0f mtu 1400 type bridge
on fabric ip link set to-client master br0
on fabric ip link add wire mtu 1400 type veth peer name wire-br mtu 1400
for i in wire wire-br; do on fabric ethtool -K $i tx off tso off gso off gro off >/dev/null; on fabric ip link set $i up; done
on fabric ip link set wire-br master br0
on fabric ip link set br0 up
for a in br0=10.20.1.1/24 to-db=10.20.2.1/24 to-ext=198.51.100.1/24 to-worker=203.0.113.1/24; do on fabric ip addr add "${a#*=}" dev "${a%%=*}"; done
on fabric ip addr add 2001:db8:20:1::1/64 dev br0 nodad
on fabric ip addr add 2001:db8:20:2::1/64 dev to-db nodad
on web nft -f - <<<'table inet sample { chain in { type filter hook input priority 0; tcp dport 9999 drop; }; }'

# Servers, on keys that live no longer than the record.
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/O=Tapweave sample/CN=www.example.com" \
	-addext "subjectAltName=DNS:*.example.com" -keyout "$work/key.pem" -out "$work/cert.pem" 2>/dev/null
ssh-keygen -q -t ed25519 -N "" -C sample -f "$work/host"
ssh-keygen -q -t ed25519 -N "" -C sample -f "$work/user"
mkdir -p /run/sshd
seq -f "line %g of an upload" 600 >"$work/upload"
for m in web db ext; do
	start "$m" python3 "$here/servers.py" $m "$work" >"$work/$m.ready" 2>&1 &
	pids+=($!)
done
start db /usr/sbin/sshd -D -f /dev/null -h "$work/host" -o "AuthorizedKeysFile=$work/user.pub" -o PermitRootLogin=yes -o StrictModes=no \
	-o UsePAM=no -o PidFile=none -o PrintMotd=no 2>/dev/null &
pids+=($!)
start db dnsmasq -k -C /dev/null --no-resolv --no-hosts --local=/example.com/ --log-facility=/dev/null --pid-file= \
	--host-record=www.example.com,10.20.1.20,2001:db8:20:1::20 --host-record=api.example.com,10.20.1.20 \
	--host-record=db.internal.example.com,10.20.2.4 --host-record=updates.example.com,198.51.100.20 \
	--txt-record=notes.example.com,"$(printf 'sample %.0s' {1..30})" &
pids+=($!)
for m in web db ext; do await ready "$work/$m.ready"; done

# The bad wire lies between the taps of client and web: a packet lost there is seen at its sender's end only.
start fabric python3 "$here/wire.py" to-web wire &
pids+=($!)
# Neighbours are found before the record begins: a lost ARP request would cost a second of it.
for pair in client=10.20.1.20 client=2001:db8:20:1::20 client=10.20.2.4 client=2001:db8:20:2::4 web=10.20.2.4 ext=10.20.1.20 worker=198.51.100.20; do
	on "${pair%%=*}" ping -q -i 0.2 -c 1 -w 5 "${pair#*=}" >/dev/null || { echo "record.sh: no way from ${pair/=/ to }" >&2; exit 1; }
done

# Taps. Neighbour discovery and multicast listener reports are left out, as a virtual network's fabric answers them by itself.
taps=()
for t in client=10.20.1.4=inout web=10.20.1.20=inout worker=10.20.3.4=out; do
	IFS== read -r m nic way <<<"$t"
	start "$m" tcpdump -q -n -p -s 0 -Z root --time-stamp-precision=nano -Q "$way" -i eth0 -w "$work/$m.pcap" \
		'ip or (ip6 and ip6[6] != 0 and not (icmp6 and ip6[40] >= 133 and ip6[40] <= 137))' 2>"$work/$m.log" &
	tap=$!
	pids+=("$tap")
	taps+=("$tap")
	await listening "$work/$m.log"
done

# The scenes. Those that last run beside the others; what fails on purpose must not end the script.
get() { local m=$1; shift; on "$m" curl -sk -m 8 -o /dev/null "$@" || true; }
shell() { local m=$1; shift; on "$m" ssh -q -F /dev/null -i "$work/user" -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@db.internal.example.com "$@" || true; }
scene() { local m=$1; shift; on "$m" python3 "$here/clients.py" "$@" || true; }
started=$SECONDS
scenes=()
scene client keepalive & scenes+=($!)
scene client closed & scenes+=($!)
on client ping -q -c 4 -i 0.5 10.20.1.20 >/dev/null & scenes+=($!)
on client ping -q -c 3 -i 0.5 2001:db8:20:1::20 >/dev/null & scenes+=($!)
on client ping -q -c 2 -i 0.5 2001:db8:20:2::4 >/dev/null & scenes+=($!)
scene web lines & scenes+=($!)
get client http://www.example.com/ -A "sample-browser/1.0" -4
get client http://www.example.com/ -A "sample-browser/1.0" -6
get client http://www.example.com/bytes/24000 -4
get client http://api.example.com/items -d '{"name":"tap"}' -H "Content-Type: application/json"
get client http://www.example.com/old -L -4
get client http://www.example.com/missing -4
scene client slow & scenes+=($!)
get client https://www.example.com/ --tlsv1.3 -4
get client https://api.example.com/status --tls-max 1.2
get client https://www.example.com/bytes/6000 --tlsv1.3 -6
scene client abort & scenes+=($!)
on client dig +short www.example.com AAAA >/dev/null
on client dig +short nothing.example.com >/dev/null
on client dig +tcp +short notes.example.com TXT >/dev/null
on web dig +short db.internal.example.com >/dev/null
shell client uptime >/dev/null & scenes+=($!)
shell web "sleep 1; date" >/dev/null & scenes+=($!)
scene client fragments
# Outside: visitors come in, somebody scans, and the worker calls out, of which only its own packets are seen.
at="--resolve www.example.com:80:10.20.1.20 --resolve www.example.com:443:10.20.1.20"
get ext $at http://www.example.com/
get ext $at https://www.example.com/ --tlsv1.3
get ext $at http://www.example.com/upload --data-binary "@$work/upload" -H "Content-Type: text/plain"
scene ext scan & scenes+=($!)
at="--resolve updates.example.com:80:198.51.100.20 --resolve updates.example.com:443:198.51.100.20"
get worker $at http://updates.example.com/bytes/9000
get worker $at https://updates.example.com/status --tlsv1.3
wait "${scenes[@]}" || true
sleep 1 # last acknowledgements
for t in "${taps[@]}"; do kill "$t"; wait "$t" || true; done

python3 "$here/wrap.py" "$out" 10.20.1.4="$work/client.pcap" 10.20.1.20="$work/web.pcap" 10.20.3.4="$work/worker.pcap"

# A record without loss would not be worth keeping; nor would one that the repository should not carry.
again=$(tshark -r "$work/client.pcap" -Y tcp.analysis.retransmission 2>/dev/null | wc -l)
size=$(stat -c %s "$out")
echo "$out: $size bytes, $((SECONDS - started)) s, $again retransmissions seen at the client"
[ "$again" -gt 0 ] && [ "$size" -le 400000 ] || { echo "record.sh: no retransmission, or over 400 kB: record again" >&2; exit 1; }
