#!/usr/bin/env bash
# Checks docker-compose.yml by `docker compose config`, for the default and for each profile. Needs Go, no Docker: compose is built once
# (some minutes) and kept in ${XDG_CACHE_HOME:-~/.cache}/tapweave. COMPOSE names another one, e.g. COMPOSE="docker compose".
set -euo pipefail
version=v2.40.3
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ -z "${COMPOSE:-}" ]; then
	cache=${XDG_CACHE_HOME:-$HOME/.cache}/tapweave
	COMPOSE=$cache/docker-compose-$version
	if [ ! -x "$COMPOSE" ]; then
		echo "building docker compose $version (once) …"
		mkdir -p "$cache"
		# Not `go install …@version`: compose's go.mod has exclude lines, which only a main module may have.
		export GOWORK=off GOFLAGS=-mod=mod CGO_ENABLED=0
		source=$(cd "$work" && go mod download -json "github.com/docker/compose/v2@$version" | sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p')
		cp -r "$source" "$work/compose"
		chmod -R u+w "$work/compose"
		if ! (cd "$work/compose" && go build -trimpath -ldflags "-s -w -X github.com/docker/compose/v2/internal.Version=$version" \
			-o "$work/docker-compose" ./cmd) >"$work/log" 2>&1; then
			cat "$work/log" >&2
			exit 1
		fi
		mv "$work/docker-compose" "$COMPOSE"
	fi
fi

# A copy, so that neither passwords of this machine nor their absence matter.
mkdir -p "$work/tree/deploy/compose"
cp "$root/docker-compose.yml" "$work/tree/"
config() { (cd "$work/tree" && $COMPOSE "$@" config -q); }
cp "$root/deploy/compose/passwords.sh" "$work/tree/deploy/compose/"

if message=$(config 2>&1) || [[ $message != *deploy/compose/.env* ]]; then
	echo "without passwords there should be an error that names deploy/compose/.env, not: $message" >&2
	exit 1
fi
"$work/tree/deploy/compose/passwords.sh"
config
echo "docker-compose.yml: valid"
for profile in $(cd "$work/tree" && $COMPOSE config --profiles); do
	config --profile "$profile"
	echo "docker-compose.yml: valid with profile $profile"
done
