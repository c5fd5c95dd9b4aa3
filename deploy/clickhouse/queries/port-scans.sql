-- Who tries many ports of one host?
--
-- from DateTime('UTC') = now() - INTERVAL 1 DAY: sessions that began at this time or later
-- to DateTime('UTC') = now(): and before this one
-- ports UInt32 = 50: fewer are no scan
-- Cost: reads the sessions of the time asked for, some of their columns.
SELECT src_ip, any(src_name) AS name, dst_ip, any(dst_name) AS target, protocol, uniqExact(dst_port) AS ports_tried, count() AS sessions,
    countIf(conn_state = 'REJ') AS refused, countIf(conn_state IN ('S0', 'SH', 'RSTOS0')) AS unanswered,
    arraySort(groupUniqArrayIf(20)(dst_port, conn_state IN ('S1', 'S2', 'S3', 'SF', 'RSTO', 'RSTR'))) AS open_ports, min(start_time) AS first, max(start_time) AS last
FROM sessions
WHERE start_time >= {from:DateTime('UTC')} AND start_time < {to:DateTime('UTC')}
    AND protocol IN ('tcp', 'udp')
GROUP BY src_ip, dst_ip, protocol
HAVING ports_tried >= {ports:UInt32}
ORDER BY ports_tried DESC, src_ip, dst_ip
LIMIT 200
