#!/usr/bin/env bash
# engine.sh COMMAND ARG…: runs a command with a Docker engine of its own, started as root with its data in
# ${XDG_CACHE_HOME:-~/.cache}/tapweave/docker, and ended by its pid when the command ends. The command finds it in DOCKER_HOST.
# docker.io, debootstrap and what else is missing comes from Debian. What the engine leaves in this machine's network goes as well,
# unless another engine runs here.
set -euo pipefail
data=${XDG_CACHE_HOME:-$HOME/.cache}/tapweave/docker
[ "$(id -u)" = 0 ] || { echo "engine.sh: a Docker engine is started as root" >&2; exit 1; }

declare -A package=([dockerd]=docker.io [debootstrap]=debootstrap [iptables]=iptables [ip]=iproute2 [mvn]=maven
	[sysctl]=procps [openssl]=openssl [wget]=wget)
missing=()
for program in "${!package[@]}"; do command -v "$program" >/dev/null || missing+=("${package[$program]}"); done
if ((${#missing[@]})); then
	echo "installing ${missing[*]} …"
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

mkdir -p "$data"
exec 9>"$data/lock"
flock -n 9 || { echo "engine.sh: another engine uses $data" >&2; exit 1; }
run=$(mktemp -d /run/tapweave-docker-XXXXXX) # short: the paths of sockets have a limit
export DOCKER_HOST=unix://$run/docker.sock
others=$(pgrep -x dockerd || true)
policy=$(iptables -S FORWARD | head -1)
forward=$(sysctl -n net.ipv4.ip_forward)
# Should this script itself be killed, the engine still ends.
setpriv --pdeathsig TERM dockerd --data-root "$data/root" --exec-root "$run/exec" --pidfile "$run/docker.pid" --host "$DOCKER_HOST" >"$run/log" 2>&1 9>&- &
pid=$!
stop() {
	kill "$pid" 2>/dev/null && wait "$pid" || true
	umount "$run"/exec/netns/* 2>/dev/null || true # of a build that was broken off
	rm -rf "$run" || true
	[ -n "$others" ] || clean
}
# clean removes the engine's bridge and chains, and sets back what it has set.
clean() {
	ip link del docker0 2>/dev/null || true
	local table
	for table in filter nat; do
		iptables -t $table -S | sed -n '/^-A .*docker\|^-A .*DOCKER/s/^-A/-D/p' | while read -r rule; do xargs iptables -t $table <<<"$rule" || true; done
		iptables -t $table -S | sed -n 's/^-N \(DOCKER.*\)/\1/p' | while read -r chain; do iptables -t $table -F "$chain" && iptables -t $table -X "$chain"; done || true
	done
	iptables $policy
	sysctl -q -w net.ipv4.ip_forward="$forward"
}
trap stop EXIT
trap 'exit 130' INT TERM
trap : PIPE # whoever reads the output may have been ended before
for ((i = 0; ; i++)); do
	/usr/bin/docker version >/dev/null 2>&1 && break
	if ((i == 300)) || ! kill -0 "$pid" 2>/dev/null; then
		echo "engine.sh: the engine does not start:" >&2
		tail -20 "$run/log" >&2
		exit 1
	fi
	sleep 0.2
done
"$@" 9>&-
