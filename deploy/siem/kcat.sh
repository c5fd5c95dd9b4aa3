#!/usr/bin/env bash
# kcat (Debian: kcat): documents of a topic on standard output, one a line, for jq, scripts, or any program that reads lines.
# 1. KAFKA=kafka:9092 deploy/siem/kcat.sh follows tapweave.siem.ecs, as a member of GROUP it goes on where it ended.
# 2. TOPIC=tapweave.siem.ocsf names another. 3. Further arguments are kcat's: -e ends at the end of the topic, -X security.protocol=SASL_SSL …
set -euo pipefail
exec kcat -q -u -b "${KAFKA:?}" -X auto.offset.reset=earliest "$@" -f '%s\n' -G "${GROUP:-kcat-tapweave}" "${TOPIC:-tapweave.siem.ecs}"
