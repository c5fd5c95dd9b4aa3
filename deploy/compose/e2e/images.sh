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

have() { $docker image inspect "$1" >/dev/null 2>&1; }
# build IMAGE CONTEXT ARG…: what it prints is shown where it fails.
build() {
	local image=$1 context=$2 begin=$SECONDS
	shift 2
	echo "building $image …"
	$docker build --progress=plain -t "$image" "$@" "$context" >"$work/log" 2>&1 || { tail -40 "$work/log" >&2; exit 1; }
	echo "building $image: $((SECONDS - begin)) s"
}

if ! have debian:bookworm-slim; then
	echo "building debian:bookworm-slim (debootstrap) …"
	debootstrap --variant=minbase --include=ca-certificates bookworm "$work/debian" http://deb.debian.org/debian >"$work/log" 2>&1 ||
		{ tail -20 "$work/log" >&2; exit 1; }
	# The authorities that this machine trusts: what the builds fetch may come through a proxy of its own.
	cp /etc/ssl/certs/ca-certificates.crt "$work/debian/etc/ssl/certs/"
	tar -C "$work/debian" --exclude=./var/cache/apt/archives -c . | $docker import - debian:bookworm-slim >/dev/null
	rm -rf "$work/debian"
fi
have golang:1.26 || build golang:1.26 "$(go env GOROOT)" -f "$here/standins/golang.Dockerfile"
have gcr.io/distroless/base-debian12:nonroot || build gcr.io/distroless/base-debian12:nonroot "$here/standins" -f "$here/standins/distroless.Dockerfile"
if ! have apache/kafka:4.1.0; then
	mkdir "$work/kafka"
	cp "$here"/standins/kafka/* "$work/kafka/"
	(cd "$work/kafka" && mvn -q -B dependency:copy-dependencies -DoutputDirectory=libs)
	build apache/kafka:4.1.0 "$work/kafka"
fi
if ! have clickhouse/clickhouse-server:26.7; then
	mkdir "$work/clickhouse"
	cp "$here"/standins/clickhouse/* "$work/clickhouse/"
	cp "$cache"/libchdb-26.7.*/libchdb.so "$work/clickhouse/" # fetched by bin/testservers
	build clickhouse/clickhouse-server:26.7 "$work/clickhouse"
fi
have prom/prometheus:v3.8.0 || build prom/prometheus:v3.8.0 "$here/standins/prometheus"
build grafana/grafana:12.3.0 "$here/standins/grafana"
for target in collector enricher sink tapweave loadbalancer; do
	build "tapweave/$target:devel" "$root" -f "$root/deploy/compose/Dockerfile" --target "$target"
done
