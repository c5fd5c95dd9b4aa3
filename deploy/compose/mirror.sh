#!/usr/bin/env bash
# mirror.sh start INTERFACE ADDRESS [VNI] | stop INTERFACE
#
# Sends a copy of all that a Linux machine's interface receives and sends to Tapweave at ADDRESS (IPv4), in VXLAN to UDP port 4789, as a
# cloud's TAP would. The kernel does all of it (tc mirred into a VXLAN device), and takes the outer source port from a hash of the inner
# addresses and ports, so that a load balancer spreads sessions. UDP to ADDRESS itself is left out: else copies would be copied.
# Needs root, and tc and ip of iproute2. The copies take as much bandwidth again, and some 50 bytes a packet.
set -euo pipefail

usage() {
	sed -n '2s/^# //p' "$0" >&2
	exit 2
}
[ $# -ge 2 ] || usage
action=$1 interface=$2
device=tw-$interface
[ ${#device} -le 15 ] || { echo "mirror.sh: the name $interface is too long by $((${#device} - 15)) for the device $device" >&2; exit 1; }

stop() {
	for direction in ingress egress; do
		tc filter del dev "$interface" $direction prio 47890 2>/dev/null || true
		tc filter del dev "$interface" $direction prio 47891 2>/dev/null || true
	done
	ip link del "$device" 2>/dev/null || true
}

case $action in
start)
	[ $# -ge 3 ] || usage
	address=$3 vni=${4:-27}
	stop
	trap stop ERR
	# As far as the outer packet is longer than the path takes, it goes in fragments. Its UDP checksum is zero, as of a cloud's TAP
	# (RFC 7348, section 5): the kernel computes one before the inner packet has its own, and whoever translates its address on this
	# very machine, as Docker does, spoils it.
	ip link add "$device" type vxlan id "$vni" remote "$address" dstport 4789 nolearning noudpcsum df unset
	ip link set "$device" mtu 65000 up
	tc qdisc show dev "$interface" clsact | grep -q . || tc qdisc add dev "$interface" clsact
	tc filter add dev "$interface" egress prio 47890 protocol ip u32 match ip protocol 17 0xff match ip dst "$address/32" flowid 1:1
	for direction in ingress egress; do
		tc filter add dev "$interface" $direction prio 47891 protocol all u32 match u32 0 0 action mirred egress mirror dev "$device"
	done
	;;
stop) stop ;;
*) usage ;;
esac
