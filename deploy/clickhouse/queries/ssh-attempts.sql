-- Who tried SSH, from inside or outside, and what became of it?
--
-- refused: a RST for the SYN. no answer: nothing came back. unreachable: an ICMP error did. established: the handshake was
-- completed, which says nothing about the password. half seen: only one side, or the middle, was mirrored.
-- from DateTime('UTC') = now() - INTERVAL 1 DAY: sessions that began at this time or later
-- to DateTime('UTC') = now(): and before this one
-- Cost: reads the sessions of the time asked for, some of their columns.
SELECT
    multiIf(direction IN ('inbound', 'external'), 'outside', direction != '', 'inside',
        isIPAddressInRange(src_ip, '10.0.0.0/8') OR isIPAddressInRange(src_ip, '172.16.0.0/12') OR isIPAddressInRange(src_ip, '192.168.0.0/16')
            OR isIPAddressInRange(src_ip, '100.64.0.0/10') OR isIPAddressInRange(src_ip, 'fc00::/7'), 'inside', 'outside') AS origin,
    src_ip, any(src_name) AS name, dst_ip, any(dst_name) AS target,
    multiIf(conn_state IN ('S1', 'S2', 'S3', 'SF', 'RSTO', 'RSTR'), 'established', conn_state = 'REJ', 'refused',
        conn_state IN ('S0', 'SH', 'RSTOS0'), if(icmp_errors > 0, 'unreachable', 'no answer'), 'half seen') AS outcome,
    count() AS sessions, min(start_time) AS first, max(end_time) AS last, sum(dst_payload_bytes) AS answered_bytes
FROM sessions
WHERE start_time >= {from:DateTime('UTC')} AND start_time < {to:DateTime('UTC')}
    AND protocol = 'tcp' AND (dst_port = 22 OR app = 'ssh')
GROUP BY origin, src_ip, dst_ip, outcome
ORDER BY sessions DESC, src_ip, dst_ip, outcome
LIMIT 1000
