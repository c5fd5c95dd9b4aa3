#!/usr/bin/env bash
# Makes passwords for the compose stack in deploy/compose/.env, which git ignores. Those that are there stay.
set -euo pipefail
file=$(cd "$(dirname "$0")" && pwd)/.env
umask 077
touch "$file"
for name in TAPWEAVE_CLICKHOUSE_PASSWORD CLICKHOUSE_READER_PASSWORD GF_SECURITY_ADMIN_PASSWORD; do
	grep -q "^$name=" "$file" || echo "$name=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')" >>"$file"
done
