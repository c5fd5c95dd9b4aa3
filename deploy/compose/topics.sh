#!/usr/bin/env bash
# Makes those of Tapweave's topics that are missing; what is there stays as it is. Runs in Kafka's image.
# The numbers of partitions are those that collector.yml, enricher.yml and sink.yml pin.
set -euo pipefail
bin=/opt/kafka/bin
hour=3600000
gigabyte=1073741824

# kafka ARG…: Kafka's tool, with the file CLIENT where the connection is secured.
kafka() { "$bin/kafka-topics.sh" --bootstrap-server "$KAFKA" ${CLIENT:+--command-config "$CLIENT"} "$@"; }

have=$(kafka --list)

# topic NAME PARTITIONS RETENTION_MS RETENTION_BYTES: the latter is a partition's, -1 for no limit.
topic() {
	if grep -qxF "$1" <<<"$have"; then return; fi # each call of Kafka's tool costs seconds
	kafka --create --if-not-exists --topic "$1" --partitions "$2" --replication-factor 1 \
		--config "retention.ms=$3" --config "retention.bytes=$4"
}

topic tapweave.packets 16 $((24 * hour)) $gigabyte
# Snapshots of the fold stay at least as long as the packets that it would have to go on from.
topic tapweave.state 16 $((48 * hour)) -1
topic tapweave.sessions 4 $((24 * hour)) $gigabyte
# Those that sink.yml switches on are written to: siem.ecs (so by default), siem.ocsf, siem.asim.
for schema in ecs ocsf asim; do topic "tapweave.siem.$schema" 4 $((24 * hour)) $gigabyte; done
topic tapweave.stats 1 $((24 * hour)) $gigabyte
topic tapweave.deadletter 1 $((168 * hour)) $gigabyte
