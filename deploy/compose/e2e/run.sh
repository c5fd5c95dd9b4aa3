#!/usr/bin/env bash
# Runs docker-compose.yml on a Docker engine of its own and tests it and the images, see engine.sh, images.sh and
# deploy/standalone/endtoend/compose_test.go and images_test.go.
set -euo pipefail
cd "$(dirname "$0")/../../.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tapweave

deploy/compose/check.sh # which makes the compose program, too
export TAPWEAVE_COMPOSE=${COMPOSE:-$cache/docker-compose-v2.40.3}
if ! ls "$cache"/libchdb-26.7.*/libchdb.so >/dev/null 2>&1; then
	make bin/testservers
	bin/testservers -kafka=false -- true # fetches it
fi
export GOWORK=off TAPWEAVE_DOCKER=/usr/bin/docker # Debian's: another one on the PATH may be none of an engine
deploy/compose/e2e/engine.sh bash -euo pipefail -c '
	deploy/compose/e2e/images.sh
	cd deploy/standalone
	go test -count=1 -timeout 30m -v -run "TestImages|TestCompose" ./endtoend'
