#!/bin/sh
# A load balancer for UDP 4789 as a cloud's internal one behaves: a hash of the outer source address and port picks a collector among
# those whose probe answers, the packet's source address and port stay, and nothing is remembered about a packet. nftables does the work
# in the kernel by rewriting the destination alone: a proxy would put its own address there, by which copies of two tap points could
# not be told apart. Nothing ever comes back from a collector, so no way back is needed. Needs NET_ADMIN in a network of its own.
#
# COLLECTORS: their names, in a fixed order. PROBE: port and path that answer 200 while a collector takes packets.
set -eu

# alive prints the addresses of the collectors that take packets.
alive() {
	for name in $COLLECTORS; do
		timeout 1 wget -q -O /dev/null "http://$name:$PROBE" 2>/dev/null || continue
		getent ahostsv4 "$name" | awk 'NR == 1 { print $1 }'
	done
}

# rules prints the table for the addresses given. They replace the former ones in one step.
rules() {
	echo 'table ip balance'
	echo 'delete table ip balance'
	echo 'table ip balance {'
	echo '	chain prerouting {'
	echo '		type filter hook prerouting priority raw; policy accept;'
	if [ $# = 0 ]; then
		echo '		udp dport 4789 counter drop'
	else
		n=0 map=
		for address; do
			map="$map${map:+, }$n : $address" n=$((n + 1))
		done
		echo '		udp dport 4789 notrack'
		echo "		udp dport 4789 ip daddr set jhash ip saddr . udp sport mod $n seed 0x7a9 map { $map }"
	fi
	echo '	}'
	echo '}'
}

trap 'exit 0' INT TERM
before=none
while :; do
	now=$(alive)
	if [ "$now" != "$before" ]; then
		rules $now | nft -f -
		echo "collectors that take packets:" ${now:-none}
		before=$now
	fi
	sleep 1 &
	wait $!
done
