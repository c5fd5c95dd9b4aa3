-- Who tries the same port on many hosts, mostly in vain?
--
-- from DateTime('UTC') = now() - INTERVAL 1 DAY: sessions that began at this time or later
-- to DateTime('UTC') = now(): and before this one
-- hosts UInt32 = 50: fewer are no scan
-- failed Float64 = 0.5: least share of tries that were refused or not answered
-- Cost: reads the sessions of the time asked for, some of their columns.
SELECT src_ip, any(src_name) AS name, dst_port, protocol, uniqExact(dst_ip) AS hosts_tried, count() AS sessions,
    round(countIf(conn_state IN ('REJ', 'S0', 'SH', 'RSTOS0')) / sessions, 3) AS failed_share, min(start_time) AS first, max(start_time) AS last
FROM sessions
WHERE start_time >= {from:DateTime('UTC')} AND start_time < {to:DateTime('UTC')}
    AND protocol = 'tcp'
GROUP BY src_ip, dst_port, protocol
HAVING hosts_tried >= {hosts:UInt32} AND failed_share >= {failed:Float64}
ORDER BY hosts_tried DESC, src_ip, dst_port
LIMIT 200
