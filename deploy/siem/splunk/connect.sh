#!/usr/bin/env bash
# Splunk Connect for Kafka 2: tapweave.siem.ecs to Splunk's HTTP Event Collector, sourcetype tapweave:ecs, with acknowledgements.
# 1. Install the connector in Kafka Connect; in Splunk make a HEC token with acknowledgement, and put props.conf, eventtypes.conf and tags.conf into an app's local/.
# 2. CONNECT=http://connect:8083 HEC=https://splunk:8088 TOKEN=… INDEX=network deploy/siem/splunk/connect.sh 3. Search: index=network sourcetype=tapweave:ecs
set -euo pipefail
curl -fsS -X PUT "${CONNECT:?}/connectors/tapweave-splunk/config" -H 'Content-Type: application/json' --data-binary @- <<JSON
{
  "connector.class": "com.splunk.kafka.connect.SplunkSinkConnector",
  "tasks.max": "4",
  "topics": "tapweave.siem.ecs",
  "key.converter": "org.apache.kafka.connect.storage.StringConverter",
  "value.converter": "org.apache.kafka.connect.storage.StringConverter",
  "splunk.hec.uri": "${HEC:?}",
  "splunk.hec.token": "${TOKEN:?}",
  "splunk.hec.ack.enabled": "true",
  "splunk.hec.raw": "true",
  "splunk.hec.raw.line.breaker": "\n",
  "splunk.indexes": "${INDEX:?}",
  "splunk.sourcetypes": "tapweave:ecs",
  "splunk.sources": "tapweave"
}
JSON
