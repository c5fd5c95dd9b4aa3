#!/usr/bin/env bash
# Elasticsearch 8.9 and later, 9: ingest pipeline and index template of logs-tapweave-* (or another pattern: PATTERN).
# 1. ELASTICSEARCH=https://elasticsearch:9200 API_KEY=… deploy/siem/elasticsearch.sh (API_KEY as Elasticsearch shows it, encoded; CURL="curl --cacert …").
# 2. Fill it with filebeat.yml or logstash.conf. 3. In Kibana: Discover, logs-tapweave-*; alerts have event.kind: alert.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
put() { ${CURL:-curl -fsS} -X PUT "${ELASTICSEARCH:?}/$1" -H "Authorization: ApiKey ${API_KEY:?}" -H 'Content-Type: application/json' --data-binary "@$here/$2"; echo; }
put _ingest/pipeline/tapweave elasticsearch-pipeline.json
put _index_template/tapweave elasticsearch-template.json
