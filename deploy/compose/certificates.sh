#!/usr/bin/env bash
# Makes what deploy/compose/tls.yml needs in deploy/compose/tls, which git ignores: an authority of this stack alone, certificates of
# Kafka and ClickHouse signed by it, and the password that clients show to Kafka. What is there stays.
# The keys can be read by every user of this machine, since each container runs as another one.
set -euo pipefail
dir=$(cd "$(dirname "$0")" && pwd)/tls
mkdir -p "$dir"
cd "$dir"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ ! -f ca.crt ]; then
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 825 -subj "/CN=Tapweave compose" \
		-keyout ca.key -out ca.crt 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
	chmod 600 ca.key
fi
for name in kafka clickhouse; do
	[ ! -f $name.crt ] || continue
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout $name.key -out "$work/csr" 2>"$work/log" &&
		openssl x509 -req -in "$work/csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 825 -out $name.crt \
			-extfile <(echo "subjectAltName=DNS:$name,DNS:localhost,IP:127.0.0.1") 2>>"$work/log" || { cat "$work/log" >&2; exit 1; }
	# In the form that Kafka reads: key, then certificates.
	cat $name.key $name.crt ca.crt >$name.pem
	chmod 644 $name.key $name.pem
done

if [ ! -f kafka.env ]; then
	password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
	(
		umask 077
		echo "TAPWEAVE_KAFKA_SASL_PASSWORD=$password" >kafka.env
	)
	cat >client.properties <<-END
		security.protocol=SASL_SSL
		sasl.mechanism=SCRAM-SHA-512
		sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username="tapweave" password="$password";
		ssl.truststore.type=PEM
		ssl.truststore.location=/etc/tapweave/tls/ca.crt
	END
	chmod 644 client.properties
fi
