-- Of {rows} sessions of {hours} hours up to {until}, one version each, {count} from the {first} on, as a hub with three spokes and the internet might
-- have them. Nothing is random: a row follows from its number. In it are, to be found again:
--   10.0.1.66 asks 203.0.113.7:443 every 300 s (a beacon)
--   10.0.2.99 tries all ports of 10.0.3.4 (a port scan), and port 22 of all of 10.0.4.0/22 (a host scan)
INSERT INTO sessions_versions (tenant, session_id, community_id, start_time, end_time, created_time, duration,
    src_ip, src_port, dst_ip, dst_port, ip_protocol, protocol, src_packets, dst_packets, src_bytes, dst_bytes,
    src_payload_bytes, dst_payload_bytes, src_missed_bytes, dst_missed_bytes, src_retransmits, dst_retransmits, src_tcp_flags, dst_tcp_flags,
    conn_state, history, handshake_rtt, src_rtt, dst_rtt, close_reason, is_final, version, sampled,
    tap_points, collectors, vnis, outer_ports, src_mac, dst_mac, src_ttl, dst_ttl,
    app, tls_sni, tls_version, tls_ja4, http_method, http_host, http_path, http_status, dns_query, dns_type, dns_rcode,
    src_name, src_subnet, src_vnet, dst_name, dst_subnet, dst_vnet, dst_country, dst_asn, flow_type, direction,
    input_partition, log_epoch, owner_epoch, output_number)
WITH
    cityHash64(number, 1) AS a, cityHash64(number, 2) AS b, cityHash64(number, 3) AS c, cityHash64(number, 4) AS d, cityHash64(number, 5) AS e,
    toUInt64({rows:UInt64}) AS total, toUInt64({hours:UInt32}) * 3600000000000 AS span,
    intDiv(span, total) AS gap,
    toUnixTimestamp64Nano(toDateTime64({until:DateTime('UTC')}, 9, 'UTC')) - span + number * gap + a % gap AS t,
    -- The beacon takes the first row of each 300 s, the scans thousands of rows in the middle.
    intDiv(number * gap, 300000000000) != intDiv((number + 1) * gap, 300000000000) AS beacon,
    number - intDiv(total, 2) AS n, n >= 0 AND n < 2000 AS portscan, n >= 2000 AND n < 3000 AS hostscan,
    intDiv(a, 7) % 1000 AS h, pow((b % 1000000) / 1000000, 3) AS skew,
    toUInt64(skew * 4000) AS s, -- number of src, few of them busy
    c % 100 < 35 AS out, -- to the internet
    toUInt64(pow((c % 1000003) / 1000003, 4) * (if(out, 60000, 4000))) AS r,
    multiIf(d % 100 < 45, 'tls', d % 100 < 75, 'dns', d % 100 < 87, 'http', d % 100 < 90, 'ssh', '') AS kind0,
    multiIf(beacon, 'tls', portscan OR hostscan, '', kind0) AS kind,
    multiIf(beacon, '10.0.1.66', portscan OR hostscan, '10.0.2.99', concat('10.', toString(s % 4), '.', toString(intDiv(s, 4) % 16), '.', toString(intDiv(s, 64) % 250 + 1))) AS src,
    multiIf(beacon, '203.0.113.7', portscan, '10.0.3.4', hostscan, concat('10.0.', toString(4 + intDiv(n, 256) % 4), '.', toString(n % 256)),
        out, concat(toString(20 + r % 150), '.', toString(intDiv(r, 150) % 200), '.', toString(r % 251), '.', toString(r % 241 + 1)),
        concat('10.', toString(r % 4), '.', toString(intDiv(r, 4) % 16), '.', toString(intDiv(r, 64) % 250 + 1))) AS dst,
    startsWith(dst, '10.') AS private,
    multiIf(kind = 'dns', 53, kind = 'tls', 443, kind = 'http', 80, kind = 'ssh', 22, portscan, 1 + n, hostscan, 22, 1024 + d % 40000) AS port,
    kind = 'dns' OR (kind = '' AND d % 2 = 0 AND NOT portscan AND NOT hostscan) AS udp,
    multiIf(udp, 'SF', portscan, 'REJ', hostscan, 'S0', e % 100 < 88, 'SF', e % 100 < 92, 'RSTO', e % 100 < 95, 'S0', e % 100 < 97, 'REJ', 'S1') AS state,
    state IN ('S0', 'REJ') AS failed,
    if(failed, 0, toUInt64(exp((e % 10000) / 1000))) AS up, if(failed, 0, toUInt64(exp((d % 10000) / 800))) AS down,
    if(failed, 1, 2 + intDiv(up, 1400)) AS sp, multiIf(state = 'S0', 0, failed, 1, 2 + intDiv(down, 1400)) AS dp,
    if(failed, 0, exp((a % 100000) / 10000) / 100) AS seconds,
    (0.0002 + (e % 100) / 1000) AS rtt
SELECT
    'default', lower(hex(MD5(toString(number)))), concat('1:', base64Encode(SHA1(toString(number)))),
    fromUnixTimestamp64Nano(toInt64(t), 'UTC'), fromUnixTimestamp64Nano(toInt64(t + seconds * 1e9), 'UTC'), fromUnixTimestamp64Nano(toInt64(t), 'UTC'), seconds,
    src, 1024 + b % 64000, dst, port, if(udp, 17, 6), if(udp, 'udp', 'tcp'), sp, dp, up + 40 * sp, down + 40 * dp,
    up, down, if(e % 1000 = 0, 1460, 0), if(e % 500 = 0, 2920, 0), if(e % 50 = 0, 2, 0), if(e % 40 = 0, 1, 0), if(udp, 0, 27), if(udp OR state = 'S0', 0, 27),
    state, multiIf(udp, 'Dd', state = 'S0', 'S', state = 'REJ', 'Sr', 'ShADadFf'),
    if(udp OR failed, NULL, rtt + 0.0005), if(udp OR failed, NULL, 0.0005), if(udp OR failed, NULL, rtt), if(failed, 'rst', 'fin'), true, 2, 1,
    ['10.0.0.4'], ['collector-1'], [27], 2, concat('00:0d:3a:00:00:', lower(hex(toUInt8(s)))), '12:34:56:78:9a:bc', 64, 57,
    kind, if(kind = 'tls', concat('host', toString(r % 500), '.example.com'), ''), if(kind = 'tls', if(d % 10 < 8, 'TLSv1.3', 'TLSv1.2'), ''), if(kind = 'tls', concat('t13d1516h2_8daaf6152771_', lower(hex(toUInt32(s % 40)))), ''),
    if(kind = 'http', 'GET', ''), if(kind = 'http', concat('www', toString(r % 300), '.example.net'), ''), if(kind = 'http', concat('/', toString(e % 5000)), ''), if(kind = 'http', if(e % 20 = 0, 404, 200), 0),
    if(kind = 'dns', concat('name', toString(e % 20000), if(e % 7 = 0, '.example.zip', '.example.org')), ''), if(kind = 'dns', if(e % 2 = 0, 'A', 'AAAA'), ''), if(kind = 'dns', if(e % 12 = 0, 'NXDOMAIN', 'NOERROR'), ''),
    concat('vm-', toString(s)), concat('subnet-', toString(s % 4), '-', toString(intDiv(s, 4) % 16)), multiIf(src LIKE '10.0.%', 'hub', concat('spoke-', toString(s % 4))),
    if(private, concat('vm-', toString(r)), ''), if(private, concat('subnet-', splitByChar('.', dst)[2], '-', splitByChar('.', dst)[3]), ''), multiIf(NOT private, '', dst LIKE '10.0.%', 'hub', concat('spoke-', splitByChar('.', dst)[2])),
    if(private, '', ['US', 'DE', 'NL', 'IE'][r % 4 + 1]), if(private, 0, 64500 + r % 300), multiIf(NOT private, 'ExternalPublic', splitByChar('.', src)[2] = splitByChar('.', dst)[2], 'IntraVNet', 'InterVNet'), if(private, 'internal', 'outbound'),
    a % 16, 1, 1, intDiv(number, 1000)
FROM numbers_mt({first:UInt64}, {count:UInt64})
SETTINGS max_insert_threads = 2, async_insert = 0, max_partitions_per_insert_block = 1000
