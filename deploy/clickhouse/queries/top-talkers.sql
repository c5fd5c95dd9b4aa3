-- Which addresses move most bytes, whichever side they are?
--
-- from DateTime('UTC') = now() - INTERVAL 1 DAY: sessions that began at this time or later
-- to DateTime('UTC') = now(): and before this one
-- Cost: reads the sessions of the time asked for, some of their columns.
SELECT address, any(label) AS name, sum(sent) AS bytes_sent, sum(received) AS bytes_received, bytes_sent + bytes_received AS bytes, count() AS sessions, uniq(peer) AS peers
FROM
(
    SELECT (ends.1) AS address, (ends.2) AS label, (ends.3) AS sent, (ends.4) AS received, (ends.5) AS peer
    FROM
    (
        SELECT arrayJoin([(src_ip, toString(src_name), src_bytes, dst_bytes, dst_ip), (dst_ip, toString(dst_name), dst_bytes, src_bytes, src_ip)]) AS ends
        FROM sessions
        WHERE start_time >= {from:DateTime('UTC')} AND start_time < {to:DateTime('UTC')}
    )
)
GROUP BY address
ORDER BY bytes DESC, address
LIMIT 100
