CREATE DATABASE IF NOT EXISTS `tapweave`;

CREATE TABLE IF NOT EXISTS `tapweave`.schema_migrations
(
    version UInt32 COMMENT 'Number of the migration',
    name String,
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3),
    applied_by String COMMENT 'Instance of the sink'
)
ENGINE = ReplacingMergeTree
ORDER BY version
COMMENT 'schema migrations that were applied';

CREATE TABLE IF NOT EXISTS `tapweave`.sessions_versions
(
    `tenant` LowCardinality(String) COMMENT 'Address space that the session belongs to',
    `session_id` String COMMENT 'Name of the session, given once and kept for life: a hash of tenant, protocol, addresses, ports and the time of the packet that created it' CODEC(ZSTD(1)),
    `community_id` String COMMENT 'Community ID, version 1, seed 0' CODEC(ZSTD(1)),
    `start_time` DateTime64(9, 'UTC') COMMENT 'Time of the first packet, UTC' CODEC(Delta, ZSTD(1)),
    `end_time` DateTime64(9, 'UTC') COMMENT 'Time of the last packet so far, UTC' CODEC(Delta, ZSTD(1)),
    `duration` Float64 COMMENT 'end_time less start_time [s]' CODEC(ZSTD(1)),
    `src_ip` String COMMENT 'Address of the side that began the session; IPv4 as a dotted quad' CODEC(ZSTD(1)),
    `src_port` UInt16 COMMENT 'Port of src; ICMP: the type, of an echo the request\'s; unknown for protocols without ports (ClickHouse: 0)' CODEC(ZSTD(1)),
    `dst_ip` String COMMENT 'Address of the other side' CODEC(ZSTD(1)),
    `dst_port` UInt16 COMMENT 'Port of dst; ICMP: the code, of an echo the type of the reply; unknown for protocols without ports (ClickHouse: 0)' CODEC(ZSTD(1)),
    `ip_protocol` UInt8 COMMENT 'IANA protocol number; IPv6: of the header behind the extension headers' CODEC(ZSTD(1)),
    `protocol` LowCardinality(String) COMMENT 'IANA\'s keyword of the protocol in lower case; unknown where IANA has none',
    `src_packets` UInt64 COMMENT 'Packets that src sent; second copies are not counted [packets]' CODEC(T64, ZSTD(1)),
    `dst_packets` UInt64 COMMENT 'Packets that dst sent; second copies are not counted [packets]' CODEC(T64, ZSTD(1)),
    `src_bytes` UInt64 COMMENT 'IP bytes that src sent, by the headers, whatever was captured [bytes]' CODEC(T64, ZSTD(1)),
    `dst_bytes` UInt64 COMMENT 'IP bytes that dst sent, by the headers, whatever was captured [bytes]' CODEC(T64, ZSTD(1)),
    `src_payload_bytes` UInt64 COMMENT 'Payload that src sent; TCP: union of the sequence ranges seen, else the sum of payload lengths [bytes]' CODEC(T64, ZSTD(1)),
    `dst_payload_bytes` UInt64 COMMENT 'Payload that dst sent; TCP: union of the sequence ranges seen, else the sum of payload lengths [bytes]' CODEC(T64, ZSTD(1)),
    `src_missed_bytes` UInt64 COMMENT 'Sequence ranges between the first and the last of src that no packet covered [bytes]' CODEC(T64, ZSTD(1)),
    `dst_missed_bytes` UInt64 COMMENT 'Sequence ranges between the first and the last of dst that no packet covered [bytes]' CODEC(T64, ZSTD(1)),
    `src_retransmits` UInt64 COMMENT 'Packets of src that repeat only data seen before, or its SYN or FIN; not keep-alives [packets]' CODEC(T64, ZSTD(1)),
    `dst_retransmits` UInt64 COMMENT 'Packets of dst that repeat only data seen before, or its SYN or FIN; not keep-alives [packets]' CODEC(T64, ZSTD(1)),
    `src_out_of_order` UInt64 COMMENT 'Packets of src with new data below the highest sequence number seen, in capture order [packets]' CODEC(T64, ZSTD(1)),
    `dst_out_of_order` UInt64 COMMENT 'Packets of dst with new data below the highest sequence number seen, in capture order [packets]' CODEC(T64, ZSTD(1)),
    `src_zero_windows` UInt64 COMMENT 'Packets of src with a window of 0, but SYN, FIN and RST [packets]' CODEC(T64, ZSTD(1)),
    `dst_zero_windows` UInt64 COMMENT 'Packets of dst with a window of 0, but SYN, FIN and RST [packets]' CODEC(T64, ZSTD(1)),
    `src_overlap_bytes` UInt64 COMMENT 'Bytes that src retransmitted with another content than seen first, where sampled (evasion, injection) [bytes]' CODEC(T64, ZSTD(1)),
    `dst_overlap_bytes` UInt64 COMMENT 'Bytes that dst retransmitted with another content than seen first, where sampled (evasion, injection) [bytes]' CODEC(T64, ZSTD(1)),
    `src_tcp_flags` UInt8 COMMENT 'TCP flags that src set, or-ed: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128; unknown for other protocols (ClickHouse: 0)' CODEC(ZSTD(1)),
    `dst_tcp_flags` UInt8 COMMENT 'TCP flags that dst set, or-ed, as in src_tcp_flags' CODEC(ZSTD(1)),
    `conn_state` LowCardinality(String) COMMENT 'State of the connection in Zeek\'s words: S0 no answer, S1 established, SF closed by both, REJ refused, S2 and S3 closed by src or dst alone, RSTO and RSTR reset by src or dst, RSTOS0 and SH the same or a FIN by src with no answer seen, RSTRH and SHR by dst with no SYN seen, OTH midstream; UDP: S0, SF, SHR by who spoke; follows from what each side sent, in whatever order it was captured',
    `history` String COMMENT 'What happened, in Zeek\'s letters, upper case by src, lower case by dst: S SYN, H SYN-ACK, A ACK alone, D payload, F FIN, R RST, I FIN with RST, Q SYN with FIN or RST; at the 1st, 10th, 100th time T payload repeated or out of order, W zero window, G acknowledged but never seen; ^ in front: dst sent the first packet. At most 36 letters; C (bad checksum) does not occur, as checksums are not verified' CODEC(ZSTD(1)),
    `handshake_rtt` Nullable(Float64) COMMENT 'From the SYN to the ACK that ends the handshake; unknown where not seen [s]' CODEC(ZSTD(1)),
    `src_rtt` Nullable(Float64) COMMENT 'From the SYN-ACK to the ACK: between the tap and src; unknown where not seen [s]' CODEC(ZSTD(1)),
    `dst_rtt` Nullable(Float64) COMMENT 'From the SYN to the SYN-ACK: between the tap and dst; unknown where not seen [s]' CODEC(ZSTD(1)),
    `close_reason` LowCardinality(String) COMMENT 'What closed the session first: fin, rst, idle, reuse, evicted, rollover or end; unknown while it is open',
    `is_final` Bool COMMENT 'Whether the session is over; late packets may still make another version',
    `version` UInt32 COMMENT 'Number of the version, from 1; a later one replaces those before it' CODEC(T64, ZSTD(1)),
    `icmp_errors` UInt64 COMMENT 'ICMP errors that quoted a packet of the session [packets]' CODEC(T64, ZSTD(1)),
    `late_packets` UInt64 COMMENT 'Packets that came behind the watermark and were still counted [packets]' CODEC(T64, ZSTD(1)),
    `sampled` Float64 COMMENT 'Below 1 where packets of the session may have been shed for lack of memory: the share of all sessions that were kept whole at the worst time of its life; else 1' CODEC(ZSTD(1)),
    `duplicate_packets` UInt64 COMMENT 'Second copies of packets, from another tap point; counted nowhere else [packets]' CODEC(T64, ZSTD(1)),
    `tap_points` Array(LowCardinality(String)) COMMENT 'Source addresses of the carriers, outermost first and joined by >, of each tap that saw the session; empty for plain captures',
    `collectors` Array(LowCardinality(String)) COMMENT 'Names of the collectors that received its packets',
    `vnis` Array(UInt32) COMMENT 'VXLAN and GENEVE network identifiers seen' CODEC(ZSTD(1)),
    `outer_ports` UInt32 COMMENT 'Number of different source ports of the outermost carrier' CODEC(T64, ZSTD(1)),
    `src_mac` LowCardinality(String) COMMENT 'Ethernet address that src\'s packets came from',
    `dst_mac` LowCardinality(String) COMMENT 'Ethernet address that dst\'s packets came from, else that src\'s were sent to',
    `vlans` Array(UInt16) COMMENT 'VLAN identifiers seen' CODEC(ZSTD(1)),
    `src_ttl` UInt8 COMMENT 'TTL or hop limit of src\'s first packet; 0 is unknown' CODEC(ZSTD(1)),
    `dst_ttl` UInt8 COMMENT 'TTL or hop limit of dst\'s first packet; 0 is unknown' CODEC(ZSTD(1)),
    `app` LowCardinality(String) COMMENT 'Application by content, not by port, of the outermost protocol (an HTTP request through SOCKS is socks): amqp, bgp, bittorrent, cassandra, dcerpc, dhcp, dnp3, dns, dtls, ftp, http, http2, imap, isakmp, kafka, kerberos, ldap, llmnr, mdns, memcached, modbus, mongodb, mqtt, mssql, mysql, nbns, ntlm, ntp, openvpn, pop3, postgresql, quic, radius, rdp, redis, rtp, rtsp, sip, smb, smtp, snmp, socks, ssdp, ssh, stun, telnet, tftp, tls, vnc, websocket, wireguard',
    `tls_sni` String COMMENT 'Server name that the client asked for, in TLS, in QUIC, or in what began TLS (STARTTLS, a proxy)' CODEC(ZSTD(1)),
    `tls_version` LowCardinality(String) COMMENT 'Version that the server chose, else the highest that the client offered',
    `tls_alpn` LowCardinality(String) COMMENT 'Application protocol that the server chose, else the first that the client offered',
    `tls_ja3` String COMMENT 'JA3 fingerprint of the ClientHello; unknown where not all of it was sampled' CODEC(ZSTD(1)),
    `tls_ja4` String COMMENT 'JA4 fingerprint of the ClientHello, beginning with t for TCP, q for QUIC; unknown where not all of it was sampled' CODEC(ZSTD(1)),
    `http_method` LowCardinality(String) COMMENT 'Method of the first request',
    `http_host` String COMMENT 'Host of the first request: Host field, authority of HTTP/2, or target of a proxy' CODEC(ZSTD(1)),
    `http_path` String COMMENT 'Path of the first request, without its query' CODEC(ZSTD(1)),
    `http_status` UInt16 COMMENT 'Status of the first response; 0 is unknown' CODEC(ZSTD(1)),
    `http_user_agent` LowCardinality(String) COMMENT 'User agent of the first request',
    `dns_query` String COMMENT 'Name of the first question, without the last dot; of DNS, mDNS, LLMNR, DNS over HTTPS in clear' CODEC(ZSTD(1)),
    `dns_type` LowCardinality(String) COMMENT 'Type of the first question: mnemonic, else TYPE and its number',
    `dns_rcode` LowCardinality(String) COMMENT 'Response code of the answer to the first question: mnemonic, else RCODE and its number',
    `dns_answers` Array(String) COMMENT 'Answers to the first question, in their order, at most 32: addresses, names, texts, else in the form of RFC 3597' CODEC(ZSTD(1)),
    `ssh_client` LowCardinality(String) COMMENT 'Software version that the client names',
    `ssh_server` LowCardinality(String) COMMENT 'Software version that the server names',
    `http_hosts` Array(String) COMMENT 'Hosts of all requests, at most 64' CODEC(ZSTD(1)),
    `dns_queries` Array(String) COMMENT 'Names of all questions, at most 64' CODEC(ZSTD(1)),
    `src_payload` String COMMENT 'First bytes that src sent, reassembled, where keep_payload is set (tapweave read: --payload), up to the first hole; base64 in JSON' CODEC(ZSTD(1)),
    `dst_payload` String COMMENT 'First bytes that dst sent, reassembled, where keep_payload is set (tapweave read: --payload), up to the first hole; base64 in JSON' CODEC(ZSTD(1)),
    `src_name` LowCardinality(String) COMMENT 'Name of src',
    `src_subnet` LowCardinality(String) COMMENT 'Subnet of src',
    `src_vnet` LowCardinality(String) COMMENT 'Virtual network of src',
    `src_labels` Array(LowCardinality(String)) COMMENT 'Labels of src, as key=value',
    `src_country` LowCardinality(String) COMMENT 'Country of src, ISO 3166-1',
    `src_asn` UInt32 COMMENT 'Autonomous system of src; 0 is unknown' CODEC(T64, ZSTD(1)),
    `src_as_org` LowCardinality(String) COMMENT 'Holder of src\'s autonomous system',
    `src_threat` LowCardinality(String) COMMENT 'Threat list entry that src is on',
    `dst_name` LowCardinality(String) COMMENT 'Name of dst',
    `dst_subnet` LowCardinality(String) COMMENT 'Subnet of dst',
    `dst_vnet` LowCardinality(String) COMMENT 'Virtual network of dst',
    `dst_labels` Array(LowCardinality(String)) COMMENT 'Labels of dst, as key=value',
    `dst_country` LowCardinality(String) COMMENT 'Country of dst, ISO 3166-1',
    `dst_asn` UInt32 COMMENT 'Autonomous system of dst; 0 is unknown' CODEC(T64, ZSTD(1)),
    `dst_as_org` LowCardinality(String) COMMENT 'Holder of dst\'s autonomous system',
    `dst_threat` LowCardinality(String) COMMENT 'Threat list entry that dst is on, by its address or by a name asked for',
    `flow_type` LowCardinality(String) COMMENT 'IntraVNet, InterVNet, AzurePublic, ExternalPublic, MaliciousFlow or UnknownPrivate, as Traffic Analytics names them',
    `direction` LowCardinality(String) COMMENT 'internal, inbound, outbound or external',
    `input_partition` UInt32 COMMENT 'Partition of tapweave.packets that the session was folded in' CODEC(ZSTD(1)),
    `log_epoch` UInt64 COMMENT 'Life of the input log: grows when the topic is made anew or its partitions change' CODEC(ZSTD(1)),
    `owner_epoch` UInt64 COMMENT 'Generation of the enricher that made this version' CODEC(ZSTD(1)),
    `output_number` UInt64 COMMENT 'Number of the fold\'s output that held this version' CODEC(Delta, ZSTD(1)),
    `created_time` DateTime64(9, 'UTC') COMMENT 'Capture time of the packet that created the session; unlike start_time it never changes, so that keys can be made of it' CODEC(Delta, ZSTD(1)),
    INDEX start_time start_time TYPE minmax GRANULARITY 1,
    INDEX end_time end_time TYPE minmax GRANULARITY 1,
    INDEX src_ip src_ip TYPE set(0) GRANULARITY 1,
    INDEX dst_ip dst_ip TYPE set(0) GRANULARITY 1,
    INDEX session_id session_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX community_id community_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toDate(created_time)
PRIMARY KEY (created_time)
ORDER BY (created_time, session_id)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1
COMMENT 'all versions of sessions; query sessions';

CREATE TABLE IF NOT EXISTS `tapweave`.traffic_1m
(
    `minute` DateTime('UTC') COMMENT 'Start of the minute that the packets were captured in, UTC' CODEC(Delta, ZSTD(1)),
    `tenant` LowCardinality(String) COMMENT 'Address space, as in sessions',
    `src_name` LowCardinality(String) COMMENT 'Name of src',
    `src_subnet` LowCardinality(String) COMMENT 'Subnet of src',
    `src_vnet` LowCardinality(String) COMMENT 'Virtual network of src',
    `src_country` LowCardinality(String) COMMENT 'Country of src, ISO 3166-1',
    `src_asn` UInt32 COMMENT 'Autonomous system of src; 0 is unknown' CODEC(T64, ZSTD(1)),
    `dst_name` LowCardinality(String) COMMENT 'Name of dst',
    `dst_subnet` LowCardinality(String) COMMENT 'Subnet of dst',
    `dst_vnet` LowCardinality(String) COMMENT 'Virtual network of dst',
    `dst_country` LowCardinality(String) COMMENT 'Country of dst, ISO 3166-1',
    `dst_asn` UInt32 COMMENT 'Autonomous system of dst; 0 is unknown' CODEC(T64, ZSTD(1)),
    `dst_port` UInt16 COMMENT 'Port of dst, as in sessions; 0 for protocols without ports' CODEC(ZSTD(1)),
    `ip_protocol` UInt8 COMMENT 'IANA protocol number' CODEC(ZSTD(1)),
    `protocol` LowCardinality(String) COMMENT 'IANA\'s keyword of the protocol in lower case',
    `app` LowCardinality(String) COMMENT 'Application by content',
    `direction` LowCardinality(String) COMMENT 'internal, inbound, outbound or external',
    `flow_type` LowCardinality(String) COMMENT 'As in sessions',
    `sessions` Int64 COMMENT 'Sessions that began in the minute [sessions]' CODEC(T64, ZSTD(1)),
    `src_packets` Int64 COMMENT 'Packets that src sent [packets]' CODEC(T64, ZSTD(1)),
    `dst_packets` Int64 COMMENT 'Packets that dst sent [packets]' CODEC(T64, ZSTD(1)),
    `src_bytes` Int64 COMMENT 'IP bytes that src sent [bytes]' CODEC(T64, ZSTD(1)),
    `dst_bytes` Int64 COMMENT 'IP bytes that dst sent [bytes]' CODEC(T64, ZSTD(1)),
    `src_payload_bytes` Int64 COMMENT 'Payload that src sent, as in sessions [bytes]' CODEC(T64, ZSTD(1)),
    `dst_payload_bytes` Int64 COMMENT 'Payload that dst sent, as in sessions [bytes]' CODEC(T64, ZSTD(1))
)
ENGINE = SummingMergeTree((sessions, src_packets, dst_packets, src_bytes, dst_bytes, src_payload_bytes, dst_payload_bytes))
PARTITION BY toDate(minute)
PRIMARY KEY (minute, tenant)
ORDER BY (minute, tenant, src_name, src_subnet, src_vnet, src_country, src_asn, dst_name, dst_subnet, dst_vnet, dst_country, dst_asn, dst_port, ip_protocol, app, direction, flow_type)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1
COMMENT 'bookings by minute; sum() what is asked for';

CREATE TABLE IF NOT EXISTS `tapweave`.traffic_1h
(
    `minute` DateTime('UTC') EPHEMERAL,
    `hour` DateTime('UTC') DEFAULT toStartOfHour(minute) COMMENT 'Start of the hour that the packets were captured in, UTC' CODEC(Delta, ZSTD(1)),
    `tenant` LowCardinality(String) COMMENT 'Address space, as in sessions',
    `src_name` LowCardinality(String) COMMENT 'Name of src',
    `src_subnet` LowCardinality(String) COMMENT 'Subnet of src',
    `src_vnet` LowCardinality(String) COMMENT 'Virtual network of src',
    `src_country` LowCardinality(String) COMMENT 'Country of src, ISO 3166-1',
    `src_asn` UInt32 COMMENT 'Autonomous system of src; 0 is unknown' CODEC(T64, ZSTD(1)),
    `dst_name` LowCardinality(String) COMMENT 'Name of dst',
    `dst_subnet` LowCardinality(String) COMMENT 'Subnet of dst',
    `dst_vnet` LowCardinality(String) COMMENT 'Virtual network of dst',
    `dst_country` LowCardinality(String) COMMENT 'Country of dst, ISO 3166-1',
    `dst_asn` UInt32 COMMENT 'Autonomous system of dst; 0 is unknown' CODEC(T64, ZSTD(1)),
    `dst_port` UInt16 COMMENT 'Port of dst, as in sessions; 0 for protocols without ports' CODEC(ZSTD(1)),
    `ip_protocol` UInt8 COMMENT 'IANA protocol number' CODEC(ZSTD(1)),
    `protocol` LowCardinality(String) COMMENT 'IANA\'s keyword of the protocol in lower case',
    `app` LowCardinality(String) COMMENT 'Application by content',
    `direction` LowCardinality(String) COMMENT 'internal, inbound, outbound or external',
    `flow_type` LowCardinality(String) COMMENT 'As in sessions',
    `sessions` Int64 COMMENT 'Sessions that began in the hour [sessions]' CODEC(T64, ZSTD(1)),
    `src_packets` Int64 COMMENT 'Packets that src sent [packets]' CODEC(T64, ZSTD(1)),
    `dst_packets` Int64 COMMENT 'Packets that dst sent [packets]' CODEC(T64, ZSTD(1)),
    `src_bytes` Int64 COMMENT 'IP bytes that src sent [bytes]' CODEC(T64, ZSTD(1)),
    `dst_bytes` Int64 COMMENT 'IP bytes that dst sent [bytes]' CODEC(T64, ZSTD(1)),
    `src_payload_bytes` Int64 COMMENT 'Payload that src sent, as in sessions [bytes]' CODEC(T64, ZSTD(1)),
    `dst_payload_bytes` Int64 COMMENT 'Payload that dst sent, as in sessions [bytes]' CODEC(T64, ZSTD(1))
)
ENGINE = SummingMergeTree((sessions, src_packets, dst_packets, src_bytes, dst_bytes, src_payload_bytes, dst_payload_bytes))
PARTITION BY toYYYYMM(hour)
PRIMARY KEY (hour, tenant)
ORDER BY (hour, tenant, src_name, src_subnet, src_vnet, src_country, src_asn, dst_name, dst_subnet, dst_vnet, dst_country, dst_asn, dst_port, ip_protocol, app, direction, flow_type)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1
COMMENT 'bookings by hour; sum() what is asked for';

CREATE TABLE IF NOT EXISTS `tapweave`.packets
(
    `time` DateTime64(9, 'UTC') COMMENT 'Capture time, UTC' CODEC(Delta, ZSTD(1)),
    `session_id` String COMMENT 'Session that the packet belongs to' CODEC(ZSTD(1)),
    `side` LowCardinality(String) COMMENT 'Who sent it: src or dst',
    `length` UInt32 COMMENT 'Length of the IP packet by its header [bytes]' CODEC(T64, ZSTD(1)),
    `payload_length` UInt32 COMMENT 'Payload by the headers; of a fragment all behind the IP header [bytes]' CODEC(T64, ZSTD(1)),
    `ip_id` UInt32 COMMENT 'IPv4 identification, or that of an IPv6 fragment; 0 where there is none' CODEC(T64, ZSTD(1)),
    `ttl` UInt8 COMMENT 'TTL or hop limit' CODEC(ZSTD(1)),
    `fragment_offset` UInt16 COMMENT 'Offset of a fragment [bytes]' CODEC(T64, ZSTD(1)),
    `more_fragments` Bool COMMENT 'Whether it is a fragment, and not the last',
    `tcp_seq` UInt32 COMMENT 'TCP sequence number; of an ICMP echo its sequence number; else 0' CODEC(T64, ZSTD(1)),
    `tcp_ack` UInt32 COMMENT 'TCP acknowledgement number' CODEC(T64, ZSTD(1)),
    `tcp_flags` UInt8 COMMENT 'TCP flags, as in sessions' CODEC(ZSTD(1)),
    `tcp_window` UInt16 COMMENT 'TCP window as it stands in the header, not scaled [bytes]' CODEC(T64, ZSTD(1)),
    `checksum` UInt16 COMMENT 'Transport checksum as it stands in the header' CODEC(ZSTD(1)),
    `data` String COMMENT 'First bytes of the payload, as many as were sampled; base64 in JSON' CODEC(ZSTD(1)),
    `tap_point` LowCardinality(String) COMMENT 'Tap that the copy came from, as in sessions',
    `collector` LowCardinality(String) COMMENT 'Collector that received it',
    INDEX time time TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toStartOfInterval(time, INTERVAL 6 HOUR)
PRIMARY KEY (session_id)
ORDER BY (session_id, time)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1
COMMENT 'packets of sessions, for a short time';

CREATE TABLE IF NOT EXISTS `tapweave`.alerts
(
    `time` DateTime64(9, 'UTC') COMMENT 'Capture time of the packet that raised it, UTC' CODEC(Delta, ZSTD(1)),
    `tenant` LowCardinality(String) COMMENT 'Address space of the session',
    `session_id` String COMMENT 'Session that raised it' CODEC(ZSTD(1)),
    `kind` LowCardinality(String) COMMENT 'What kind of alert: threat, overlap, port_scan or tls_fingerprint',
    `src_ip` String COMMENT 'src of the session at that time; IPv4 as a dotted quad' CODEC(ZSTD(1)),
    `src_port` UInt16 COMMENT 'Port of src; 0 for protocols without ports' CODEC(ZSTD(1)),
    `dst_ip` String COMMENT 'dst of the session at that time' CODEC(ZSTD(1)),
    `dst_port` UInt16 COMMENT 'Port of dst; 0 for protocols without ports' CODEC(ZSTD(1)),
    `ip_protocol` UInt8 COMMENT 'IANA protocol number' CODEC(ZSTD(1)),
    `threat` LowCardinality(String) COMMENT 'Threat list entry that was hit',
    `indicator` String COMMENT 'What was found: the address, prefix, name or fingerprint on the threat list, or the new fingerprint' CODEC(ZSTD(1)),
    `confidence` UInt8 COMMENT 'How sure the threat list is of the entry; 0 is unknown [percent]' CODEC(ZSTD(1)),
    `message` String COMMENT 'What happened, for people' CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toDate(time)
PRIMARY KEY (time)
ORDER BY (time, session_id)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1
COMMENT 'what is worth a look';

CREATE TABLE IF NOT EXISTS `tapweave`.pipeline_stats
(
    `time` DateTime64(3, 'UTC') COMMENT 'When it was counted, by the clock of the instance, UTC' CODEC(Delta, ZSTD(1)),
    `service` LowCardinality(String) COMMENT 'collector, enricher or sink',
    `instance` LowCardinality(String) COMMENT 'Name of the instance',
    `incarnation` UInt64 COMMENT 'Grows with each start of the instance, and the counts begin at 0 again' CODEC(ZSTD(1)),
    `stage` LowCardinality(String) COMMENT 'Step of the service',
    `reason` LowCardinality(String) COMMENT 'What was counted',
    `count` UInt64 COMMENT 'Count since the start of the incarnation' CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toDate(time)
PRIMARY KEY (service, stage, reason, instance, incarnation)
ORDER BY (service, stage, reason, instance, incarnation, time)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1
COMMENT 'what each stage took in, put out and lost: counts since the start of the incarnation';

CREATE OR REPLACE VIEW `tapweave`.sessions
(
    `tenant` LowCardinality(String) COMMENT 'Address space that the session belongs to',
    `session_id` String COMMENT 'Name of the session, given once and kept for life: a hash of tenant, protocol, addresses, ports and the time of the packet that created it',
    `community_id` String COMMENT 'Community ID, version 1, seed 0',
    `start_time` DateTime64(9, 'UTC') COMMENT 'Time of the first packet, UTC',
    `end_time` DateTime64(9, 'UTC') COMMENT 'Time of the last packet so far, UTC',
    `duration` Float64 COMMENT 'end_time less start_time [s]',
    `src_ip` String COMMENT 'Address of the side that began the session; IPv4 as a dotted quad',
    `src_port` UInt16 COMMENT 'Port of src; ICMP: the type, of an echo the request\'s; unknown for protocols without ports (ClickHouse: 0)',
    `dst_ip` String COMMENT 'Address of the other side',
    `dst_port` UInt16 COMMENT 'Port of dst; ICMP: the code, of an echo the type of the reply; unknown for protocols without ports (ClickHouse: 0)',
    `ip_protocol` UInt8 COMMENT 'IANA protocol number; IPv6: of the header behind the extension headers',
    `protocol` LowCardinality(String) COMMENT 'IANA\'s keyword of the protocol in lower case; unknown where IANA has none',
    `src_packets` UInt64 COMMENT 'Packets that src sent; second copies are not counted [packets]',
    `dst_packets` UInt64 COMMENT 'Packets that dst sent; second copies are not counted [packets]',
    `src_bytes` UInt64 COMMENT 'IP bytes that src sent, by the headers, whatever was captured [bytes]',
    `dst_bytes` UInt64 COMMENT 'IP bytes that dst sent, by the headers, whatever was captured [bytes]',
    `src_payload_bytes` UInt64 COMMENT 'Payload that src sent; TCP: union of the sequence ranges seen, else the sum of payload lengths [bytes]',
    `dst_payload_bytes` UInt64 COMMENT 'Payload that dst sent; TCP: union of the sequence ranges seen, else the sum of payload lengths [bytes]',
    `src_missed_bytes` UInt64 COMMENT 'Sequence ranges between the first and the last of src that no packet covered [bytes]',
    `dst_missed_bytes` UInt64 COMMENT 'Sequence ranges between the first and the last of dst that no packet covered [bytes]',
    `src_retransmits` UInt64 COMMENT 'Packets of src that repeat only data seen before, or its SYN or FIN; not keep-alives [packets]',
    `dst_retransmits` UInt64 COMMENT 'Packets of dst that repeat only data seen before, or its SYN or FIN; not keep-alives [packets]',
    `src_out_of_order` UInt64 COMMENT 'Packets of src with new data below the highest sequence number seen, in capture order [packets]',
    `dst_out_of_order` UInt64 COMMENT 'Packets of dst with new data below the highest sequence number seen, in capture order [packets]',
    `src_zero_windows` UInt64 COMMENT 'Packets of src with a window of 0, but SYN, FIN and RST [packets]',
    `dst_zero_windows` UInt64 COMMENT 'Packets of dst with a window of 0, but SYN, FIN and RST [packets]',
    `src_overlap_bytes` UInt64 COMMENT 'Bytes that src retransmitted with another content than seen first, where sampled (evasion, injection) [bytes]',
    `dst_overlap_bytes` UInt64 COMMENT 'Bytes that dst retransmitted with another content than seen first, where sampled (evasion, injection) [bytes]',
    `src_tcp_flags` UInt8 COMMENT 'TCP flags that src set, or-ed: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128; unknown for other protocols (ClickHouse: 0)',
    `dst_tcp_flags` UInt8 COMMENT 'TCP flags that dst set, or-ed, as in src_tcp_flags',
    `conn_state` LowCardinality(String) COMMENT 'State of the connection in Zeek\'s words: S0 no answer, S1 established, SF closed by both, REJ refused, S2 and S3 closed by src or dst alone, RSTO and RSTR reset by src or dst, RSTOS0 and SH the same or a FIN by src with no answer seen, RSTRH and SHR by dst with no SYN seen, OTH midstream; UDP: S0, SF, SHR by who spoke; follows from what each side sent, in whatever order it was captured',
    `history` String COMMENT 'What happened, in Zeek\'s letters, upper case by src, lower case by dst: S SYN, H SYN-ACK, A ACK alone, D payload, F FIN, R RST, I FIN with RST, Q SYN with FIN or RST; at the 1st, 10th, 100th time T payload repeated or out of order, W zero window, G acknowledged but never seen; ^ in front: dst sent the first packet. At most 36 letters; C (bad checksum) does not occur, as checksums are not verified',
    `handshake_rtt` Nullable(Float64) COMMENT 'From the SYN to the ACK that ends the handshake; unknown where not seen [s]',
    `src_rtt` Nullable(Float64) COMMENT 'From the SYN-ACK to the ACK: between the tap and src; unknown where not seen [s]',
    `dst_rtt` Nullable(Float64) COMMENT 'From the SYN to the SYN-ACK: between the tap and dst; unknown where not seen [s]',
    `close_reason` LowCardinality(String) COMMENT 'What closed the session first: fin, rst, idle, reuse, evicted, rollover or end; unknown while it is open',
    `is_final` Bool COMMENT 'Whether the session is over; late packets may still make another version',
    `version` UInt32 COMMENT 'Number of the version, from 1; a later one replaces those before it',
    `icmp_errors` UInt64 COMMENT 'ICMP errors that quoted a packet of the session [packets]',
    `late_packets` UInt64 COMMENT 'Packets that came behind the watermark and were still counted [packets]',
    `sampled` Float64 COMMENT 'Below 1 where packets of the session may have been shed for lack of memory: the share of all sessions that were kept whole at the worst time of its life; else 1',
    `duplicate_packets` UInt64 COMMENT 'Second copies of packets, from another tap point; counted nowhere else [packets]',
    `tap_points` Array(LowCardinality(String)) COMMENT 'Source addresses of the carriers, outermost first and joined by >, of each tap that saw the session; empty for plain captures',
    `collectors` Array(LowCardinality(String)) COMMENT 'Names of the collectors that received its packets',
    `vnis` Array(UInt32) COMMENT 'VXLAN and GENEVE network identifiers seen',
    `outer_ports` UInt32 COMMENT 'Number of different source ports of the outermost carrier',
    `src_mac` LowCardinality(String) COMMENT 'Ethernet address that src\'s packets came from',
    `dst_mac` LowCardinality(String) COMMENT 'Ethernet address that dst\'s packets came from, else that src\'s were sent to',
    `vlans` Array(UInt16) COMMENT 'VLAN identifiers seen',
    `src_ttl` UInt8 COMMENT 'TTL or hop limit of src\'s first packet; 0 is unknown',
    `dst_ttl` UInt8 COMMENT 'TTL or hop limit of dst\'s first packet; 0 is unknown',
    `app` LowCardinality(String) COMMENT 'Application by content, not by port, of the outermost protocol (an HTTP request through SOCKS is socks): amqp, bgp, bittorrent, cassandra, dcerpc, dhcp, dnp3, dns, dtls, ftp, http, http2, imap, isakmp, kafka, kerberos, ldap, llmnr, mdns, memcached, modbus, mongodb, mqtt, mssql, mysql, nbns, ntlm, ntp, openvpn, pop3, postgresql, quic, radius, rdp, redis, rtp, rtsp, sip, smb, smtp, snmp, socks, ssdp, ssh, stun, telnet, tftp, tls, vnc, websocket, wireguard',
    `tls_sni` String COMMENT 'Server name that the client asked for, in TLS, in QUIC, or in what began TLS (STARTTLS, a proxy)',
    `tls_version` LowCardinality(String) COMMENT 'Version that the server chose, else the highest that the client offered',
    `tls_alpn` LowCardinality(String) COMMENT 'Application protocol that the server chose, else the first that the client offered',
    `tls_ja3` String COMMENT 'JA3 fingerprint of the ClientHello; unknown where not all of it was sampled',
    `tls_ja4` String COMMENT 'JA4 fingerprint of the ClientHello, beginning with t for TCP, q for QUIC; unknown where not all of it was sampled',
    `http_method` LowCardinality(String) COMMENT 'Method of the first request',
    `http_host` String COMMENT 'Host of the first request: Host field, authority of HTTP/2, or target of a proxy',
    `http_path` String COMMENT 'Path of the first request, without its query',
    `http_status` UInt16 COMMENT 'Status of the first response; 0 is unknown',
    `http_user_agent` LowCardinality(String) COMMENT 'User agent of the first request',
    `dns_query` String COMMENT 'Name of the first question, without the last dot; of DNS, mDNS, LLMNR, DNS over HTTPS in clear',
    `dns_type` LowCardinality(String) COMMENT 'Type of the first question: mnemonic, else TYPE and its number',
    `dns_rcode` LowCardinality(String) COMMENT 'Response code of the answer to the first question: mnemonic, else RCODE and its number',
    `dns_answers` Array(String) COMMENT 'Answers to the first question, in their order, at most 32: addresses, names, texts, else in the form of RFC 3597',
    `ssh_client` LowCardinality(String) COMMENT 'Software version that the client names',
    `ssh_server` LowCardinality(String) COMMENT 'Software version that the server names',
    `http_hosts` Array(String) COMMENT 'Hosts of all requests, at most 64',
    `dns_queries` Array(String) COMMENT 'Names of all questions, at most 64',
    `src_payload` String COMMENT 'First bytes that src sent, reassembled, where keep_payload is set (tapweave read: --payload), up to the first hole; base64 in JSON',
    `dst_payload` String COMMENT 'First bytes that dst sent, reassembled, where keep_payload is set (tapweave read: --payload), up to the first hole; base64 in JSON',
    `src_name` LowCardinality(String) COMMENT 'Name of src',
    `src_subnet` LowCardinality(String) COMMENT 'Subnet of src',
    `src_vnet` LowCardinality(String) COMMENT 'Virtual network of src',
    `src_labels` Array(LowCardinality(String)) COMMENT 'Labels of src, as key=value',
    `src_country` LowCardinality(String) COMMENT 'Country of src, ISO 3166-1',
    `src_asn` UInt32 COMMENT 'Autonomous system of src; 0 is unknown',
    `src_as_org` LowCardinality(String) COMMENT 'Holder of src\'s autonomous system',
    `src_threat` LowCardinality(String) COMMENT 'Threat list entry that src is on',
    `dst_name` LowCardinality(String) COMMENT 'Name of dst',
    `dst_subnet` LowCardinality(String) COMMENT 'Subnet of dst',
    `dst_vnet` LowCardinality(String) COMMENT 'Virtual network of dst',
    `dst_labels` Array(LowCardinality(String)) COMMENT 'Labels of dst, as key=value',
    `dst_country` LowCardinality(String) COMMENT 'Country of dst, ISO 3166-1',
    `dst_asn` UInt32 COMMENT 'Autonomous system of dst; 0 is unknown',
    `dst_as_org` LowCardinality(String) COMMENT 'Holder of dst\'s autonomous system',
    `dst_threat` LowCardinality(String) COMMENT 'Threat list entry that dst is on, by its address or by a name asked for',
    `flow_type` LowCardinality(String) COMMENT 'IntraVNet, InterVNet, AzurePublic, ExternalPublic, MaliciousFlow or UnknownPrivate, as Traffic Analytics names them',
    `direction` LowCardinality(String) COMMENT 'internal, inbound, outbound or external',
    `input_partition` UInt32 COMMENT 'Partition of tapweave.packets that the session was folded in',
    `log_epoch` UInt64 COMMENT 'Life of the input log: grows when the topic is made anew or its partitions change',
    `owner_epoch` UInt64 COMMENT 'Generation of the enricher that made this version',
    `output_number` UInt64 COMMENT 'Number of the fold\'s output that held this version',
    `created_time` DateTime64(9, 'UTC') COMMENT 'Capture time of the packet that created the session; unlike start_time it never changes, so that keys can be made of it'
)
AS SELECT `tenant`, `session_id`, `community_id`, `start_time`, `end_time`, `duration`, `src_ip`, `src_port`, `dst_ip`, `dst_port`, `ip_protocol`, `protocol`, `src_packets`, `dst_packets`, `src_bytes`, `dst_bytes`, `src_payload_bytes`, `dst_payload_bytes`, `src_missed_bytes`, `dst_missed_bytes`, `src_retransmits`, `dst_retransmits`, `src_out_of_order`, `dst_out_of_order`, `src_zero_windows`, `dst_zero_windows`, `src_overlap_bytes`, `dst_overlap_bytes`, `src_tcp_flags`, `dst_tcp_flags`, `conn_state`, `history`, `handshake_rtt`, `src_rtt`, `dst_rtt`, `close_reason`, `is_final`, `version`, `icmp_errors`, `late_packets`, `sampled`, `duplicate_packets`, `tap_points`, `collectors`, `vnis`, `outer_ports`, `src_mac`, `dst_mac`, `vlans`, `src_ttl`, `dst_ttl`, `app`, `tls_sni`, `tls_version`, `tls_alpn`, `tls_ja3`, `tls_ja4`, `http_method`, `http_host`, `http_path`, `http_status`, `http_user_agent`, `dns_query`, `dns_type`, `dns_rcode`, `dns_answers`, `ssh_client`, `ssh_server`, `http_hosts`, `dns_queries`, `src_payload`, `dst_payload`, `src_name`, `src_subnet`, `src_vnet`, `src_labels`, `src_country`, `src_asn`, `src_as_org`, `src_threat`, `dst_name`, `dst_subnet`, `dst_vnet`, `dst_labels`, `dst_country`, `dst_asn`, `dst_as_org`, `dst_threat`, `flow_type`, `direction`, `input_partition`, `log_epoch`, `owner_epoch`, `output_number`, `created_time`
FROM `tapweave`.sessions_versions FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

INSERT INTO `tapweave`.schema_migrations (version, name, applied_by) VALUES (1, 'tables', 'by hand');

CREATE TABLE IF NOT EXISTS `tapweave`.sessions_versions_next
(
    `tenant` LowCardinality(String) COMMENT 'Address space that the session belongs to',
    `session_id` String COMMENT 'Name of the session, given once and kept for life: a hash of tenant, protocol, addresses, ports and the time of the packet that created it' CODEC(ZSTD(1)),
    `community_id` String COMMENT 'Community ID, version 1, seed 0' CODEC(ZSTD(1)),
    `start_time` DateTime64(9, 'UTC') COMMENT 'Time of the first packet, UTC' CODEC(Delta, ZSTD(1)),
    `end_time` DateTime64(9, 'UTC') COMMENT 'Time of the last packet so far, UTC' CODEC(Delta, ZSTD(1)),
    `duration` Float64 COMMENT 'end_time less start_time [s]' CODEC(ZSTD(1)),
    `src_ip` String COMMENT 'Address of the side that began the session; IPv4 as a dotted quad' CODEC(ZSTD(1)),
    `src_port` UInt16 COMMENT 'Port of src; ICMP: the type, of an echo the request\'s; unknown for protocols without ports (ClickHouse: 0)' CODEC(ZSTD(1)),
    `dst_ip` String COMMENT 'Address of the other side' CODEC(ZSTD(1)),
    `dst_port` UInt16 COMMENT 'Port of dst; ICMP: the code, of an echo the type of the reply; unknown for protocols without ports (ClickHouse: 0)' CODEC(ZSTD(1)),
    `ip_protocol` UInt8 COMMENT 'IANA protocol number; IPv6: of the header behind the extension headers' CODEC(ZSTD(1)),
    `protocol` LowCardinality(String) COMMENT 'IANA\'s keyword of the protocol in lower case; unknown where IANA has none',
    `src_packets` UInt64 COMMENT 'Packets that src sent; second copies are not counted [packets]' CODEC(T64, ZSTD(1)),
    `dst_packets` UInt64 COMMENT 'Packets that dst sent; second copies are not counted [packets]' CODEC(T64, ZSTD(1)),
    `src_bytes` UInt64 COMMENT 'IP bytes that src sent, by the headers, whatever was captured [bytes]' CODEC(T64, ZSTD(1)),
    `dst_bytes` UInt64 COMMENT 'IP bytes that dst sent, by the headers, whatever was captured [bytes]' CODEC(T64, ZSTD(1)),
    `src_payload_bytes` UInt64 COMMENT 'Payload that src sent; TCP: union of the sequence ranges seen, else the sum of payload lengths [bytes]' CODEC(T64, ZSTD(1)),
    `dst_payload_bytes` UInt64 COMMENT 'Payload that dst sent; TCP: union of the sequence ranges seen, else the sum of payload lengths [bytes]' CODEC(T64, ZSTD(1)),
    `src_missed_bytes` UInt64 COMMENT 'Sequence ranges between the first and the last of src that no packet covered [bytes]' CODEC(T64, ZSTD(1)),
    `dst_missed_bytes` UInt64 COMMENT 'Sequence ranges between the first and the last of dst that no packet covered [bytes]' CODEC(T64, ZSTD(1)),
    `src_retransmits` UInt64 COMMENT 'Packets of src that repeat only data seen before, or its SYN or FIN; not keep-alives [packets]' CODEC(T64, ZSTD(1)),
    `dst_retransmits` UInt64 COMMENT 'Packets of dst that repeat only data seen before, or its SYN or FIN; not keep-alives [packets]' CODEC(T64, ZSTD(1)),
    `src_out_of_order` UInt64 COMMENT 'Packets of src with new data below the highest sequence number seen, in capture order [packets]' CODEC(T64, ZSTD(1)),
    `dst_out_of_order` UInt64 COMMENT 'Packets of dst with new data below the highest sequence number seen, in capture order [packets]' CODEC(T64, ZSTD(1)),
    `src_zero_windows` UInt64 COMMENT 'Packets of src with a window of 0, but SYN, FIN and RST [packets]' CODEC(T64, ZSTD(1)),
    `dst_zero_windows` UInt64 COMMENT 'Packets of dst with a window of 0, but SYN, FIN and RST [packets]' CODEC(T64, ZSTD(1)),
    `src_overlap_bytes` UInt64 COMMENT 'Bytes that src retransmitted with another content than seen first, where sampled (evasion, injection) [bytes]' CODEC(T64, ZSTD(1)),
    `dst_overlap_bytes` UInt64 COMMENT 'Bytes that dst retransmitted with another content than seen first, where sampled (evasion, injection) [bytes]' CODEC(T64, ZSTD(1)),
    `src_tcp_flags` UInt8 COMMENT 'TCP flags that src set, or-ed: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128; unknown for other protocols (ClickHouse: 0)' CODEC(ZSTD(1)),
    `dst_tcp_flags` UInt8 COMMENT 'TCP flags that dst set, or-ed, as in src_tcp_flags' CODEC(ZSTD(1)),
    `conn_state` LowCardinality(String) COMMENT 'State of the connection in Zeek\'s words: S0 no answer, S1 established, SF closed by both, REJ refused, S2 and S3 closed by src or dst alone, RSTO and RSTR reset by src or dst, RSTOS0 and SH the same or a FIN by src with no answer seen, RSTRH and SHR by dst with no SYN seen, OTH midstream; UDP: S0, SF, SHR by who spoke; follows from what each side sent, in whatever order it was captured',
    `history` String COMMENT 'What happened, in Zeek\'s letters, upper case by src, lower case by dst: S SYN, H SYN-ACK, A ACK alone, D payload, F FIN, R RST, I FIN with RST, Q SYN with FIN or RST; at the 1st, 10th, 100th time T payload repeated or out of order, W zero window, G acknowledged but never seen; ^ in front: dst sent the first packet. At most 36 letters; C (bad checksum) does not occur, as checksums are not verified' CODEC(ZSTD(1)),
    `handshake_rtt` Nullable(Float64) COMMENT 'From the SYN to the ACK that ends the handshake; unknown where not seen [s]' CODEC(ZSTD(1)),
    `src_rtt` Nullable(Float64) COMMENT 'From the SYN-ACK to the ACK: between the tap and src; unknown where not seen [s]' CODEC(ZSTD(1)),
    `dst_rtt` Nullable(Float64) COMMENT 'From the SYN to the SYN-ACK: between the tap and dst; unknown where not seen [s]' CODEC(ZSTD(1)),
    `close_reason` LowCardinality(String) COMMENT 'What closed the session first: fin, rst, idle, reuse, evicted, rollover or end; unknown while it is open',
    `is_final` Bool COMMENT 'Whether the session is over; late packets may still make another version',
    `version` UInt32 COMMENT 'Number of the version, from 1; a later one replaces those before it' CODEC(T64, ZSTD(1)),
    `icmp_errors` UInt64 COMMENT 'ICMP errors that quoted a packet of the session [packets]' CODEC(T64, ZSTD(1)),
    `late_packets` UInt64 COMMENT 'Packets that came behind the watermark and were still counted [packets]' CODEC(T64, ZSTD(1)),
    `sampled` Float64 COMMENT 'Below 1 where packets of the session may have been shed for lack of memory: the share of all sessions that were kept whole at the worst time of its life; else 1' CODEC(ZSTD(1)),
    `duplicate_packets` UInt64 COMMENT 'Second copies of packets, from another tap point; counted nowhere else [packets]' CODEC(T64, ZSTD(1)),
    `tap_points` Array(LowCardinality(String)) COMMENT 'Source addresses of the carriers, outermost first and joined by >, of each tap that saw the session; empty for plain captures',
    `collectors` Array(LowCardinality(String)) COMMENT 'Names of the collectors that received its packets',
    `vnis` Array(UInt32) COMMENT 'VXLAN and GENEVE network identifiers seen' CODEC(ZSTD(1)),
    `outer_ports` UInt32 COMMENT 'Number of different source ports of the outermost carrier' CODEC(T64, ZSTD(1)),
    `src_mac` LowCardinality(String) COMMENT 'Ethernet address that src\'s packets came from',
    `dst_mac` LowCardinality(String) COMMENT 'Ethernet address that dst\'s packets came from, else that src\'s were sent to',
    `vlans` Array(UInt16) COMMENT 'VLAN identifiers seen' CODEC(ZSTD(1)),
    `src_ttl` UInt8 COMMENT 'TTL or hop limit of src\'s first packet; 0 is unknown' CODEC(ZSTD(1)),
    `dst_ttl` UInt8 COMMENT 'TTL or hop limit of dst\'s first packet; 0 is unknown' CODEC(ZSTD(1)),
    `app` LowCardinality(String) COMMENT 'Application by content, not by port, of the outermost protocol (an HTTP request through SOCKS is socks): amqp, bgp, bittorrent, cassandra, dcerpc, dhcp, dnp3, dns, dtls, ftp, http, http2, imap, isakmp, kafka, kerberos, ldap, llmnr, mdns, memcached, modbus, mongodb, mqtt, mssql, mysql, nbns, ntlm, ntp, openvpn, pop3, postgresql, quic, radius, rdp, redis, rtp, rtsp, sip, smb, smtp, snmp, socks, ssdp, ssh, stun, telnet, tftp, tls, vnc, websocket, wireguard',
    `tls_sni` String COMMENT 'Server name that the client asked for, in TLS, in QUIC, or in what began TLS (STARTTLS, a proxy)' CODEC(ZSTD(1)),
    `tls_version` LowCardinality(String) COMMENT 'Version that the server chose, else the highest that the client offered',
    `tls_alpn` LowCardinality(String) COMMENT 'Application protocol that the server chose, else the first that the client offered',
    `tls_ja3` String COMMENT 'JA3 fingerprint of the ClientHello; unknown where not all of it was sampled' CODEC(ZSTD(1)),
    `tls_ja4` String COMMENT 'JA4 fingerprint of the ClientHello, beginning with t for TCP, q for QUIC; unknown where not all of it was sampled' CODEC(ZSTD(1)),
    `http_method` LowCardinality(String) COMMENT 'Method of the first request',
    `http_host` String COMMENT 'Host of the first request: Host field, authority of HTTP/2, or target of a proxy' CODEC(ZSTD(1)),
    `http_path` String COMMENT 'Path of the first request, without its query' CODEC(ZSTD(1)),
    `http_status` UInt16 COMMENT 'Status of the first response; 0 is unknown' CODEC(ZSTD(1)),
    `http_user_agent` LowCardinality(String) COMMENT 'User agent of the first request',
    `dns_query` String COMMENT 'Name of the first question, without the last dot; of DNS, mDNS, LLMNR, DNS over HTTPS in clear' CODEC(ZSTD(1)),
    `dns_type` LowCardinality(String) COMMENT 'Type of the first question: mnemonic, else TYPE and its number',
    `dns_rcode` LowCardinality(String) COMMENT 'Response code of the answer to the first question: mnemonic, else RCODE and its number',
    `dns_answers` Array(String) COMMENT 'Answers to the first question, in their order, at most 32: addresses, names, texts, else in the form of RFC 3597' CODEC(ZSTD(1)),
    `ssh_client` LowCardinality(String) COMMENT 'Software version that the client names',
    `ssh_server` LowCardinality(String) COMMENT 'Software version that the server names',
    `http_hosts` Array(String) COMMENT 'Hosts of all requests, at most 64' CODEC(ZSTD(1)),
    `dns_queries` Array(String) COMMENT 'Names of all questions, at most 64' CODEC(ZSTD(1)),
    `src_payload` String COMMENT 'First bytes that src sent, reassembled, where keep_payload is set (tapweave read: --payload), up to the first hole; base64 in JSON' CODEC(ZSTD(1)),
    `dst_payload` String COMMENT 'First bytes that dst sent, reassembled, where keep_payload is set (tapweave read: --payload), up to the first hole; base64 in JSON' CODEC(ZSTD(1)),
    `src_name` LowCardinality(String) COMMENT 'Name of src',
    `src_subnet` LowCardinality(String) COMMENT 'Subnet of src',
    `src_vnet` LowCardinality(String) COMMENT 'Virtual network of src',
    `src_labels` Array(LowCardinality(String)) COMMENT 'Labels of src, as key=value',
    `src_country` LowCardinality(String) COMMENT 'Country of src, ISO 3166-1',
    `src_asn` UInt32 COMMENT 'Autonomous system of src; 0 is unknown' CODEC(T64, ZSTD(1)),
    `src_as_org` LowCardinality(String) COMMENT 'Holder of src\'s autonomous system',
    `src_threat` LowCardinality(String) COMMENT 'Threat list entry that src is on',
    `dst_name` LowCardinality(String) COMMENT 'Name of dst',
    `dst_subnet` LowCardinality(String) COMMENT 'Subnet of dst',
    `dst_vnet` LowCardinality(String) COMMENT 'Virtual network of dst',
    `dst_labels` Array(LowCardinality(String)) COMMENT 'Labels of dst, as key=value',
    `dst_country` LowCardinality(String) COMMENT 'Country of dst, ISO 3166-1',
    `dst_asn` UInt32 COMMENT 'Autonomous system of dst; 0 is unknown' CODEC(T64, ZSTD(1)),
    `dst_as_org` LowCardinality(String) COMMENT 'Holder of dst\'s autonomous system',
    `dst_threat` LowCardinality(String) COMMENT 'Threat list entry that dst is on, by its address or by a name asked for',
    `flow_type` LowCardinality(String) COMMENT 'IntraVNet, InterVNet, AzurePublic, ExternalPublic, MaliciousFlow or UnknownPrivate, as Traffic Analytics names them',
    `direction` LowCardinality(String) COMMENT 'internal, inbound, outbound or external',
    `input_partition` UInt32 COMMENT 'Partition of tapweave.packets that the session was folded in' CODEC(ZSTD(1)),
    `log_epoch` UInt64 COMMENT 'Life of the input log: grows when the topic is made anew or its partitions change' CODEC(ZSTD(1)),
    `owner_epoch` UInt64 COMMENT 'Generation of the enricher that made this version' CODEC(ZSTD(1)),
    `output_number` UInt64 COMMENT 'Number of the fold\'s output that held this version' CODEC(Delta, ZSTD(1)),
    `created_time` DateTime64(9, 'UTC') COMMENT 'Capture time of the packet that created the session; unlike start_time it never changes, so that keys can be made of it' CODEC(Delta, ZSTD(1)),
    `revision` UInt128 MATERIALIZED bitOr(bitShiftLeft(toUInt128(least(log_epoch, 4294967295)), 96), bitOr(bitShiftLeft(toUInt128(owner_epoch), 32), toUInt128(version))) COMMENT 'Log epoch, owner epoch and version in one number: the greatest counts' CODEC(ZSTD(1)),
    INDEX start_time start_time TYPE minmax GRANULARITY 1,
    INDEX end_time end_time TYPE minmax GRANULARITY 1,
    INDEX src_ip src_ip TYPE set(0) GRANULARITY 1,
    INDEX dst_ip dst_ip TYPE set(0) GRANULARITY 1,
    INDEX session_id session_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX community_id community_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toDate(created_time)
PRIMARY KEY (created_time)
ORDER BY (created_time, session_id)
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1
COMMENT 'all versions of sessions; query sessions';

ALTER TABLE `tapweave`.sessions_versions ADD COLUMN IF NOT EXISTS `revision` UInt128 MATERIALIZED bitOr(bitShiftLeft(toUInt128(least(log_epoch, 4294967295)), 96), bitOr(bitShiftLeft(toUInt128(owner_epoch), 32), toUInt128(version))) COMMENT 'Log epoch, owner epoch and version in one number: the greatest counts' CODEC(ZSTD(1));

RENAME TABLE `tapweave`.sessions_versions TO `tapweave`.sessions_versions_1, `tapweave`.sessions_versions_next TO `tapweave`.sessions_versions;

SELECT sleep(2) FROM (SELECT 1 FROM `tapweave`.sessions_versions_1 LIMIT 1);

ALTER TABLE `tapweave`.sessions_versions ATTACH PARTITION ALL FROM `tapweave`.sessions_versions_1;

DROP TABLE IF EXISTS `tapweave`.sessions_versions_1 SYNC;

DROP TABLE IF EXISTS `tapweave`.sessions_versions_next SYNC;

CREATE TABLE IF NOT EXISTS `tapweave`.delivery_marks
(
    `output_partition` UInt32 COMMENT 'Partition of tapweave.sessions',
    `input_partition` UInt32 COMMENT 'Partition of tapweave.packets',
    `log_epoch` UInt64,
    `owner_epoch` UInt64,
    `output_number` UInt64 COMMENT 'All outputs up to this one are in the tables, or were to be left out',
    `next_offset` Int64 COMMENT 'Offset on tapweave.sessions behind the last record that was read',
    `last_record` UInt64 COMMENT 'xxHash64 of that record',
    `time` DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When it was inserted'
)
ENGINE = ReplacingMergeTree(output_number)
ORDER BY (output_partition, input_partition, log_epoch, owner_epoch)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'up to where the other tables have everything';

INSERT INTO `tapweave`.schema_migrations (version, name, applied_by) VALUES (2, 'revisions', 'by hand');

CREATE OR REPLACE VIEW `tapweave`.`dns`
AS SELECT
    `session_id`,
    `tenant`,
    `start_time`,
    `end_time`,
    `src_ip`,
    `src_port`,
    `dst_ip`,
    `dst_port`,
    `protocol`,
    `src_name`,
    `src_subnet`,
    `src_vnet`,
    `src_country`,
    `dst_name`,
    `dst_subnet`,
    `dst_vnet`,
    `dst_country`,
    `direction`,
    `app`,
    `dns_query`,
    `dns_type`,
    `dns_rcode`,
    `dns_answers`,
    `dns_queries`,
    `src_bytes`,
    `dst_bytes`,
    `duration`
FROM `tapweave`.sessions AS s
WHERE app = 'dns' OR dns_query != ''
COMMENT 'sessions with DNS, newest version';

CREATE OR REPLACE VIEW `tapweave`.`tls`
AS SELECT
    `session_id`,
    `tenant`,
    `start_time`,
    `end_time`,
    `src_ip`,
    `src_port`,
    `dst_ip`,
    `dst_port`,
    `protocol`,
    `src_name`,
    `src_subnet`,
    `src_vnet`,
    `src_country`,
    `dst_name`,
    `dst_subnet`,
    `dst_vnet`,
    `dst_country`,
    `direction`,
    `app`,
    `tls_sni`,
    `tls_version`,
    `tls_alpn`,
    `tls_ja3`,
    `tls_ja4`,
    `src_bytes`,
    `dst_bytes`,
    `duration`
FROM `tapweave`.sessions AS s
WHERE app = 'tls' OR tls_version != '' OR tls_sni != ''
COMMENT 'sessions with TLS, newest version';

CREATE OR REPLACE VIEW `tapweave`.`http`
AS SELECT
    `session_id`,
    `tenant`,
    `start_time`,
    `end_time`,
    `src_ip`,
    `src_port`,
    `dst_ip`,
    `dst_port`,
    `protocol`,
    `src_name`,
    `src_subnet`,
    `src_vnet`,
    `src_country`,
    `dst_name`,
    `dst_subnet`,
    `dst_vnet`,
    `dst_country`,
    `direction`,
    `app`,
    `http_method`,
    `http_host`,
    `http_path`,
    `http_status`,
    `http_user_agent`,
    `http_hosts`,
    `src_bytes`,
    `dst_bytes`,
    `duration`
FROM `tapweave`.sessions AS s
WHERE app = 'http' OR http_method != '' OR http_status != 0
COMMENT 'sessions with HTTP, newest version';

CREATE OR REPLACE VIEW `tapweave`.`NTANetAnalytics`
AS SELECT
    CAST(NULL, 'Nullable(String)') AS `AclGroup`,
    CAST(NULL, 'Nullable(String)') AS `AclRule`,
    CAST(NULL, 'Nullable(String)') AS `Action`,
    CAST(NULL, 'Nullable(Int64)') AS `AllowedInFlows`,
    CAST(NULL, 'Nullable(Int64)') AS `AllowedOutFlows`,
    CAST(NULL, 'Nullable(String)') AS `AzureRegion`,
    CAST(NULL, 'Nullable(Float64)') AS `_BilledSize`,
    dst_bytes AS `BytesDestToSrc`,
    src_bytes AS `BytesSrcToDest`,
    toInt64(is_final) AS `CompletedFlows`,
    if(src_vnet != '' AND dst_vnet != '' AND src_vnet != dst_vnet, concat(src_vnet, ' ', dst_vnet), NULL) AS `ConnectingVnets`,
    CAST(NULL, 'Nullable(String)') AS `ConnectionName`,
    CAST(NULL, 'Nullable(String)') AS `ConnectionType`,
    nullIf(if(dst_country != '', dst_country, src_country), '') AS `Country`,
    CAST(NULL, 'Nullable(Int64)') AS `DeniedInFlows`,
    CAST(NULL, 'Nullable(Int64)') AS `DeniedOutFlows`,
    CAST(NULL, 'Nullable(String)') AS `Description`,
    CAST(NULL, 'Nullable(String)') AS `DestApplicationGateway`,
    CAST(NULL, 'Nullable(String)') AS `DestCloud`,
    CAST(NULL, 'Nullable(String)') AS `DestEnvironment`,
    CAST(NULL, 'Nullable(String)') AS `DestExpressRouteCircuit`,
    dst_ip AS `DestIp`,
    CAST(NULL, 'Nullable(String)') AS `DestLoadBalancer`,
    CAST(NULL, 'Nullable(String)') AS `DestLocalNetworkGateway`,
    CAST(NULL, 'Nullable(String)') AS `DestNetworkGroups`,
    CAST(NULL, 'Nullable(String)') AS `DestNic`,
    if(ip_protocol IN (6, 17, 33, 132, 136), toInt32(dst_port), NULL) AS `DestPort`,
    CAST(NULL, 'Nullable(String)') AS `DestPublicIps`,
    CAST(NULL, 'Nullable(String)') AS `DestRegion`,
    CAST(NULL, 'Nullable(String)') AS `DestServiceId`,
    CAST(NULL, 'Nullable(String)') AS `DestServiceName`,
    CAST(NULL, 'Nullable(String)') AS `DestServiceTags`,
    nullIf(dst_subnet, '') AS `DestSubnet`,
    CAST(NULL, 'Nullable(String)') AS `DestSubscription`,
    CAST(NULL, 'Nullable(String)') AS `DestTenantId`,
    CAST(NULL, 'Nullable(String)') AS `DestTenantName`,
    nullIf(dst_name, '') AS `DestVm`,
    CAST(NULL, 'Nullable(String)') AS `ExpressRouteCircuitPeeringType`,
    '3' AS `FaSchemaVersion`,
    multiIf(direction = 'inbound', 'Inbound', direction = 'outbound', 'Outbound', NULL) AS `FlowDirection`,
    CAST(NULL, 'Nullable(String)') AS `FlowEncryption`,
    end_time AS `FlowEndTime`,
    end_time AS `FlowIntervalEndTime`,
    start_time AS `FlowIntervalStartTime`,
    CAST(NULL, 'Nullable(String)') AS `FlowLogResourceId`,
    start_time AS `FlowStartTime`,
    CAST(NULL, 'Nullable(String)') AS `FlowStatus`,
    nullIf(flow_type, '') AS `FlowType`,
    CAST(NULL, 'Nullable(String)') AS `_IsBillable`,
    CAST(NULL, 'Nullable(Bool)') AS `IsFlowCapturedAtUdrHop`,
    multiIf(ip_protocol = 6, 'T', ip_protocol = 17, 'U', NULL) AS `L4Protocol`,
    nullIf(app, '') AS `L7Protocol`,
    CAST(NULL, 'Nullable(String)') AS `LogResourceId`,
    nullIf(src_mac, '') AS `MacAddress`,
    CAST(NULL, 'Nullable(String)') AS `NsgList`,
    CAST(NULL, 'Nullable(String)') AS `NsgRule`,
    CAST(NULL, 'Nullable(String)') AS `NsgRuleType`,
    dst_packets AS `PacketsDestToSrc`,
    src_packets AS `PacketsSrcToDest`,
    CAST(NULL, 'Nullable(String)') AS `PrivateEndpointResourceId`,
    CAST(NULL, 'Nullable(String)') AS `PrivateLinkResourceId`,
    CAST(NULL, 'Nullable(String)') AS `PrivateLinkResourceName`,
    toInt64(1) AS `RecordCount`,
    'Tapweave' AS `SourceSystem`,
    CAST(NULL, 'Nullable(String)') AS `SrcApplicationGateway`,
    CAST(NULL, 'Nullable(String)') AS `SrcCloud`,
    CAST(NULL, 'Nullable(String)') AS `SrcEnvironment`,
    CAST(NULL, 'Nullable(String)') AS `SrcExpressRouteCircuit`,
    src_ip AS `SrcIp`,
    CAST(NULL, 'Nullable(String)') AS `SrcLoadBalancer`,
    CAST(NULL, 'Nullable(String)') AS `SrcLocalNetworkGateway`,
    CAST(NULL, 'Nullable(String)') AS `SrcNetworkGroups`,
    CAST(NULL, 'Nullable(String)') AS `SrcNic`,
    if(ip_protocol IN (6, 17, 33, 132, 136), toString(src_port), NULL) AS `SrcPorts`,
    CAST(NULL, 'Nullable(String)') AS `SrcPublicIps`,
    CAST(NULL, 'Nullable(String)') AS `SrcRegion`,
    CAST(NULL, 'Nullable(String)') AS `SrcServiceId`,
    CAST(NULL, 'Nullable(String)') AS `SrcServiceName`,
    CAST(NULL, 'Nullable(String)') AS `SrcServiceTags`,
    nullIf(src_subnet, '') AS `SrcSubnet`,
    CAST(NULL, 'Nullable(String)') AS `SrcSubscription`,
    CAST(NULL, 'Nullable(String)') AS `SrcTenantId`,
    CAST(NULL, 'Nullable(String)') AS `SrcTenantName`,
    nullIf(src_name, '') AS `SrcVm`,
    CAST(NULL, 'Nullable(String)') AS `Status`,
    'FlowLog' AS `SubType`,
    CAST(NULL, 'Nullable(String)') AS `TargetResourceId`,
    CAST(NULL, 'Nullable(String)') AS `TargetResourceType`,
    CAST(NULL, 'Nullable(String)') AS `TenantId`,
    end_time AS `TimeGenerated`,
    CAST(NULL, 'Nullable(DateTime)') AS `TimeProcessed`,
    CAST(NULL, 'Nullable(String)') AS `TrafficAnalyticsResourceId`,
    'NTANetAnalytics' AS `Type`,
    `session_id`
FROM `tapweave`.sessions AS s
COMMENT 'sessions in the columns of Azure Traffic Analytics; what no mirror can know is NULL';

CREATE OR REPLACE VIEW `tapweave`.`zeek_conn`
AS SELECT
    start_time AS `ts`,
    session_id AS `uid`,
    src_ip AS `id.orig_h`,
    src_port AS `id.orig_p`,
    dst_ip AS `id.resp_h`,
    dst_port AS `id.resp_p`,
    multiIf(ip_protocol = 6, 'tcp', ip_protocol = 17, 'udp', ip_protocol IN (1, 58), 'icmp', 'unknown_transport') AS `proto`,
    nullIf(app, '') AS `service`,
    nullIf(s.duration, 0) AS `duration`,
    src_payload_bytes + src_missed_bytes AS `orig_bytes`,
    dst_payload_bytes + dst_missed_bytes AS `resp_bytes`,
    nullIf(s.conn_state, '') AS `conn_state`,
    multiIf(direction IN ('internal', 'outbound'), true, direction IN ('inbound', 'external'), false, NULL) AS `local_orig`,
    multiIf(direction IN ('internal', 'inbound'), true, direction IN ('outbound', 'external'), false, NULL) AS `local_resp`,
    src_missed_bytes + dst_missed_bytes AS `missed_bytes`,
    nullIf(s.history, '') AS `history`,
    src_packets AS `orig_pkts`,
    src_bytes AS `orig_ip_bytes`,
    dst_packets AS `resp_pkts`,
    dst_bytes AS `resp_ip_bytes`,
    CAST([], 'Array(String)') AS `tunnel_parents`,
    ip_protocol AS `ip_proto`,
    if(empty(vlans), NULL, vlans[1]) AS `vlan`,
    if(length(vlans) > 1, vlans[2], NULL) AS `inner_vlan`,
    nullIf(src_mac, '') AS `orig_l2_addr`,
    nullIf(dst_mac, '') AS `resp_l2_addr`,
    `community_id`
FROM `tapweave`.sessions AS s
COMMENT 'sessions in the words of Zeek\'s conn.log';

CREATE OR REPLACE VIEW `tapweave`.`ipfix`
AS SELECT
    start_time AS `flowStartNanoseconds`,
    end_time AS `flowEndNanoseconds`,
    toUInt32(least(toUInt64(round(duration * 1e6)), 4294967295)) AS `flowDurationMicroseconds`,
    toUInt8(if(position(src_ip, ':') > 0, 6, 4)) AS `ipVersion`,
    if(position(src_ip, ':') > 0, NULL, src_ip) AS `sourceIPv4Address`,
    if(position(src_ip, ':') > 0, NULL, dst_ip) AS `destinationIPv4Address`,
    if(position(src_ip, ':') > 0, src_ip, NULL) AS `sourceIPv6Address`,
    if(position(src_ip, ':') > 0, dst_ip, NULL) AS `destinationIPv6Address`,
    ip_protocol AS `protocolIdentifier`,
    if(ip_protocol IN (6, 17, 33, 132, 136), src_port, NULL) AS `sourceTransportPort`,
    if(ip_protocol IN (6, 17, 33, 132, 136), dst_port, NULL) AS `destinationTransportPort`,
    if(ip_protocol = 1, toUInt8(src_port), NULL) AS `icmpTypeIPv4`,
    if(ip_protocol = 58, toUInt8(src_port), NULL) AS `icmpTypeIPv6`,
    src_bytes AS `octetDeltaCount`,
    src_packets AS `packetDeltaCount`,
    dst_bytes AS `reverseOctetDeltaCount`,
    dst_packets AS `reversePacketDeltaCount`,
    if(ip_protocol = 6, src_tcp_flags, NULL) AS `tcpControlBits`,
    if(ip_protocol = 6, dst_tcp_flags, NULL) AS `reverseTcpControlBits`,
    multiIf(close_reason = 'idle', 1, is_final = 0, 2, close_reason IN ('fin', 'rst', 'reuse'), 3, close_reason IN ('end', 'rollover'), 4, close_reason = 'evicted', 5, NULL) AS `flowEndReason`,
    toUInt8(1) AS `biflowDirection`,
    nullIf(src_ttl, 0) AS `minimumTTL`,
    nullIf(src_mac, '') AS `sourceMacAddress`,
    nullIf(dst_mac, '') AS `destinationMacAddress`,
    if(empty(vlans), NULL, vlans[1]) AS `vlanId`,
    sampled AS `samplingProbability`,
    nullIf(src_asn, 0) AS `bgpSourceAsNumber`,
    nullIf(dst_asn, 0) AS `bgpDestinationAsNumber`,
    nullIf(app, '') AS `applicationName`,
    nullIf(http_status, 0) AS `httpStatusCode`,
    nullIf(http_method, '') AS `httpRequestMethod`,
    nullIf(http_host, '') AS `httpRequestHost`,
    nullIf(http_path, '') AS `httpRequestTarget`,
    nullIf(http_user_agent, '') AS `httpUserAgent`,
    `session_id`
FROM `tapweave`.sessions AS s
COMMENT 'sessions in the names of IPFIX information elements, both directions in one row (RFC 5103)';

INSERT INTO `tapweave`.schema_migrations (version, name, applied_by) VALUES (3, 'words', 'by hand');

ALTER TABLE `tapweave`.sessions_versions
    DROP INDEX IF EXISTS src_ip,
    DROP INDEX IF EXISTS dst_ip,
    ADD INDEX IF NOT EXISTS src_address src_ip TYPE bloom_filter(0.01) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS src_range src_ip TYPE set(0) GRANULARITY 8,
    ADD INDEX IF NOT EXISTS dst_address dst_ip TYPE bloom_filter(0.01) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS dst_range dst_ip TYPE set(0) GRANULARITY 8,
    ADD INDEX IF NOT EXISTS src_name src_name TYPE bloom_filter(0.01) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS dst_name dst_name TYPE bloom_filter(0.01) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS tls_sni tls_sni TYPE bloom_filter(0.01) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS http_host http_host TYPE bloom_filter(0.01) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS dns_query dns_query TYPE bloom_filter(0.01) GRANULARITY 1;

INSERT INTO `tapweave`.schema_migrations (version, name, applied_by) VALUES (4, 'indexes', 'by hand');

CREATE OR REPLACE VIEW `tapweave`.dashboard
AS SELECT title, query FROM values('title String, query String',
    ('Traffic by application [bit/s]', 'SELECT toStartOfInterval(minute, toIntervalSecond({rounding:UInt32}))::INT AS t, if(app = \'\', \'unknown\', toString(app)) AS application, sum(src_bytes + dst_bytes) * 8 / {rounding:UInt32} AS rate
FROM `tapweave`.traffic_1m WHERE minute >= now() - {seconds:UInt32} GROUP BY t, application ORDER BY t, application'),
    ('Sessions begun [1/s]', 'SELECT toStartOfInterval(minute, toIntervalSecond({rounding:UInt32}))::INT AS t, sum(sessions) / {rounding:UInt32} AS rate
FROM `tapweave`.traffic_1m WHERE minute >= now() - {seconds:UInt32} GROUP BY t ORDER BY t'),
    ('Top talkers, by src [bit/s, at the start of the session]', 'WITH top AS (SELECT src_ip FROM `tapweave`.sessions WHERE start_time >= now() - {seconds:UInt32} GROUP BY src_ip ORDER BY sum(src_bytes + dst_bytes) DESC, src_ip LIMIT 8)
SELECT toStartOfInterval(start_time, toIntervalSecond({rounding:UInt32}))::INT AS t, if(src_ip IN top, src_ip, \'all others\') AS talker, sum(src_bytes + dst_bytes) * 8 / {rounding:UInt32} AS rate
FROM `tapweave`.sessions WHERE start_time >= now() - {seconds:UInt32} GROUP BY t, talker ORDER BY t, talker'),
    ('Round trip time of handshakes, median and 95 % [ms]', 'SELECT toStartOfInterval(start_time, toIntervalSecond({rounding:UInt32}))::INT AS t, quantile(0.5)(handshake_rtt) * 1000 AS p50, quantile(0.95)(handshake_rtt) * 1000 AS p95
FROM `tapweave`.sessions WHERE start_time >= now() - {seconds:UInt32} AND handshake_rtt IS NOT NULL GROUP BY t ORDER BY t'),
    ('Retransmitted packets [%]', 'SELECT toStartOfInterval(start_time, toIntervalSecond({rounding:UInt32}))::INT AS t, 100 * sum(src_retransmits + dst_retransmits) / sum(src_packets + dst_packets) AS share
FROM `tapweave`.sessions WHERE start_time >= now() - {seconds:UInt32} AND protocol = \'tcp\' GROUP BY t ORDER BY t'),
    ('TCP sessions by outcome [1/s]', 'SELECT toStartOfInterval(start_time, toIntervalSecond({rounding:UInt32}))::INT AS t, toString(conn_state) AS state, count() / {rounding:UInt32} AS rate
FROM `tapweave`.sessions WHERE start_time >= now() - {seconds:UInt32} AND protocol = \'tcp\' GROUP BY t, state ORDER BY t, state'),
    ('The pipeline: packets in and lost, by stage [1/s]', 'SELECT toStartOfInterval(time, toIntervalSecond({rounding:UInt32}))::INT AS t, concat(service, \' \', stage, \' \', reason) AS what, sum(step) / {rounding:UInt32} AS rate
FROM
(
    SELECT time, service, stage, reason, toInt64(count) - lagInFrame(toInt64(count), 1, toInt64(count)) OVER (PARTITION BY service, instance, incarnation, stage, reason ORDER BY time) AS step
    FROM `tapweave`.pipeline_stats WHERE time >= now() - {seconds:UInt32}
        AND (stage IN (\'lost\', \'refused\', \'deadletter\') OR reason IN (\'datagrams\', \'packets_folded\', \'packets_late\', \'packets_too_late\'))
)
GROUP BY t, what ORDER BY t, what'))
COMMENT 'charts for the page /dashboard of ClickHouse';

INSERT INTO `tapweave`.schema_migrations (version, name, applied_by) VALUES (5, 'dashboard', 'by hand');

ALTER TABLE `tapweave`.alerts ADD COLUMN IF NOT EXISTS `tenant` LowCardinality(String) COMMENT 'Address space of the session' AFTER `time`, ADD COLUMN IF NOT EXISTS `session_id` String COMMENT 'Session that raised it' CODEC(ZSTD(1)) AFTER `tenant`, ADD COLUMN IF NOT EXISTS `kind` LowCardinality(String) COMMENT 'What kind of alert: threat, overlap, port_scan or tls_fingerprint' AFTER `session_id`, ADD COLUMN IF NOT EXISTS `src_ip` String COMMENT 'src of the session at that time; IPv4 as a dotted quad' CODEC(ZSTD(1)) AFTER `kind`, ADD COLUMN IF NOT EXISTS `src_port` UInt16 COMMENT 'Port of src; 0 for protocols without ports' CODEC(ZSTD(1)) AFTER `src_ip`, ADD COLUMN IF NOT EXISTS `dst_ip` String COMMENT 'dst of the session at that time' CODEC(ZSTD(1)) AFTER `src_port`, ADD COLUMN IF NOT EXISTS `dst_port` UInt16 COMMENT 'Port of dst; 0 for protocols without ports' CODEC(ZSTD(1)) AFTER `dst_ip`, ADD COLUMN IF NOT EXISTS `ip_protocol` UInt8 COMMENT 'IANA protocol number' CODEC(ZSTD(1)) AFTER `dst_port`, ADD COLUMN IF NOT EXISTS `threat` LowCardinality(String) COMMENT 'Threat list entry that was hit' AFTER `ip_protocol`, ADD COLUMN IF NOT EXISTS `indicator` String COMMENT 'What was found: the address, prefix, name or fingerprint on the threat list, or the new fingerprint' CODEC(ZSTD(1)) AFTER `threat`, ADD COLUMN IF NOT EXISTS `confidence` UInt8 COMMENT 'How sure the threat list is of the entry; 0 is unknown [percent]' CODEC(ZSTD(1)) AFTER `indicator`, ADD COLUMN IF NOT EXISTS `message` String COMMENT 'What happened, for people' CODEC(ZSTD(1)) AFTER `confidence`;

INSERT INTO `tapweave`.schema_migrations (version, name, applied_by) VALUES (6, 'alerts', 'by hand');

ALTER TABLE `tapweave`.packets MODIFY TTL toDateTime(time) + toIntervalSecond(86400) SETTINGS materialize_ttl_after_modify = 0;

ALTER TABLE `tapweave`.sessions_versions MODIFY TTL toDateTime(created_time) + toIntervalSecond(2592000) SETTINGS materialize_ttl_after_modify = 0;

ALTER TABLE `tapweave`.alerts MODIFY TTL toDateTime(time) + toIntervalSecond(2592000) SETTINGS materialize_ttl_after_modify = 0;

ALTER TABLE `tapweave`.traffic_1m MODIFY TTL toDateTime(minute) + toIntervalSecond(7776000) SETTINGS materialize_ttl_after_modify = 0;

ALTER TABLE `tapweave`.traffic_1h MODIFY TTL toDateTime(hour) + toIntervalSecond(63072000) SETTINGS materialize_ttl_after_modify = 0;

ALTER TABLE `tapweave`.pipeline_stats MODIFY TTL toDateTime(time) + toIntervalSecond(2592000) SETTINGS materialize_ttl_after_modify = 0;
