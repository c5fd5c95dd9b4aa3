#!/usr/bin/env bash
# Makes the images of docker-compose.yml on the engine of DOCKER_HOST: those of Tapweave from this tree, the others as stand-ins
# (standins/README.md), once.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tapweave
work=$(mktemp -d -t tapweave-images-XXXXXX)
trap 'rm -rf "$work"' EXIT
export DOCKER_BUILDKIT=1
docker=/usr/bin/docker # Debian's, which has BuildKit built in

# have IMAGE FILE…: whether it was made from these very files.
have() {
	sum=$(cat "${@:2}" | sha256sum | cut -c1-64)
	[ "$($docker image inspect --format '{{index .Config.Labels "tapweave.standin"}}' "$1" 2>/dev/null)" = "$sum" ]
}
# build IMAGE CONTEXT ARG…: what it prints is shown where it fails.
build() {
	local image=$1 context=$2 begin=$SECONDS log
	log=$work/$(tr -c 'a-z0-9\n' - <<<"$1").log
	shift 2
	$docker build --progress=plain -t "$image" "$@" "$context" >"$log" 2>&1 || { echo "building $image:"; tail -40 "$log"; exit 1; } >&2
	echo "building $image: $((SECONDS - begin)) s"
}
# standin IMAGE CONTEXT ARG…: an image that have, called before, did not find.
standin() { build "$@" --label "tapweave.standin=$sum"; }

kafka() {
	have apache/kafka:4.1.0 kafka/* && return
	cp -r kafka "$work/kafka"
	(cd "$work/kafka" && mvn -q -B -Dstyle.color=never dependency:copy-dependencies -DoutputDirectory=libs >/dev/null)
	standin apache/kafka:4.1.0 "$work/kafka"
}
clickhouse() {
	have clickhouse/clickhouse-server:26.7 clickhouse/* && return
	cp -r clickhouse "$work/clickhouse"
	cp "$cache"/libchdb-26.7.*/libchdb.so "$work/clickhouse/" # fetched by bin/testservers
	standin clickhouse/clickhouse-server:26.7 "$work/clickhouse"
}
prometheus() { have prom/prometheus:v3.8.0 prometheus/* || standin prom/prometheus:v3.8.0 prometheus; }
grafana() { have grafana/grafana:12.3.0 grafana/* || standin grafana/grafana:12.3.0 grafana; }
tapweave() {
	have golang:1.26 golang.Dockerfile "$(go env GOROOT)/VERSION" || standin golang:1.26 "$(go env GOROOT)" -f golang.Dockerfile
	for target in collector enricher sink tapweave loadbalancer; do
		build "tapweave/$target:devel" "$root" -f "$root/deploy/compose/Dockerfile" --target "$target"
	done
}

if ! have debian:bookworm-slim /etc/ssl/certs/ca-certificates.crt; then
	begin=$SECONDS
	debootstrap --variant=minbase --include=ca-certificates bookworm "$work/debian" http://deb.debian.org/debian >"$work/log" 2>&1 ||
		{ echo "debootstrap:"; tail -20 "$work/log"; exit 1; } >&2
	# The authorities that this machine trusts: what the builds fetch may come through a proxy of its own.
	cp /etc/ssl/certs/ca-certificates.crt "$work/debian/etc/ssl/certs/"
	tar -C "$work/debian" --exclude=./var/cache/apt/archives -c . | $docker import --change "LABEL tapweave.standin=$sum" - debian:bookworm-slim >/dev/null
	rm -rf "$work/debian"
	echo "building debian:bookworm-slim (debootstrap): $((SECONDS - begin)) s"
fi
# The others at once: some fetch packages while one compiles.
cd "$here/standins"
pids=()
for image in tapweave kafka clickhouse prometheus grafana; do
	$image &
	pids+=($!)
done
failed=0
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
# What no name leads to any more is given back, so that the engine's data do not grow with each change.
$docker image prune --force >/dev/null
$docker builder prune --force --keep-storage 6g >/dev/null
exit $failed
