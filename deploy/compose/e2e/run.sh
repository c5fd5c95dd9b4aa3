#!/usr/bin/env bash
# Runs docker-compose.yml on a Docker engine of its own and tests it and the images, see engine.sh, images.sh and
# deploy/standalone/endtoend/compose_test.go and images_test.go. Needs root. What failed is said at the end, after the containers' logs.
set -euo pipefail
cd "$(dirname "$0")/../../.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tapweave
log=$(mktemp -t tapweave-e2e-XXXXXX)
trap 'rm -f "$log"' EXIT

deploy/compose/check.sh # which makes the compose program, too
export TAPWEAVE_COMPOSE=${COMPOSE:-$cache/docker-compose-v2.40.3}
if ! ls "$cache"/libchdb-26.7.*/libchdb.so >/dev/null 2>&1; then
	make bin/testservers
	bin/testservers -kafka=false -- true # fetches it
fi
export GOWORK=off TAPWEAVE_DOCKER=/usr/bin/docker # Debian's: another one on the PATH may be none of an engine
failed=0
deploy/compose/e2e/engine.sh bash -euo pipefail -c '
	deploy/compose/e2e/images.sh
	cd deploy/standalone
	go test -count=1 -timeout 40m -v -run "^Test(Images|Compose)$" ./endtoend' 2>&1 | tee "$log" || failed=1
# A test that was left out has not passed.
for test in TestImages TestCompose; do
	grep -q "^--- PASS: $test " "$log" || { echo "$test has not passed"; failed=1; }
done
if [ $failed = 1 ]; then
	echo "what failed:"
	awk '
		/^ +[a-z_]+_test\.go:[0-9]+: / { told = !/: [0-9.]+ (s$|MB, )|: logs of the containers:$/ }
		/^(===|---|FAIL|ok|PASS)/ { told = 0 }
		told || /^--- (FAIL|SKIP)|^panic: /' "$log" | cut -c1-600 | tail -30
	exit 1
fi
