#!/usr/bin/env bash
# Builds Telegraf with what telegraf.conf uses of it, once (a minute of processor time), and prints where it is. Needs Go.
# 1. deploy/siem/telegraf.sh prints the program's path. 2. KAFKA=kafka:9092 $(deploy/siem/telegraf.sh) --config deploy/siem/telegraf.conf
# 3. make siem runs it in a test. With a Telegraf from a package none of this is needed.
set -euo pipefail
version=v1.37.2
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tapweave
program=$cache/telegraf-$version
if [ ! -x "$program" ]; then
	echo "building Telegraf $version (once) …" >&2
	mkdir -p "$cache"
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	export GOWORK=off CGO_ENABLED=0
	source=$(cd "$work" && go mod download -json "github.com/influxdata/telegraf@$version" | sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p')
	tags=custom,inputs.kafka_consumer,parsers.json_v2,outputs.file,serializers.json
	if ! (cd "$source" && go build -trimpath -tags "$tags" -ldflags "-s -w" -o "$work/telegraf" ./cmd/telegraf) >"$work/log" 2>&1; then
		cat "$work/log" >&2
		exit 1
	fi
	mv "$work/telegraf" "$program"
fi
echo "$program"
