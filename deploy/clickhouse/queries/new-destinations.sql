-- Which destinations did somebody reach that nobody reached in the days before?
--
-- from DateTime('UTC') = now() - INTERVAL 1 DAY: sessions that began at this time or later
-- to DateTime('UTC') = now(): and before this one
-- days UInt32 = 1: how many days before count as known
-- Cost: reads the addresses of all sessions of both times.
SELECT dst_ip, any(dst_name) AS name, any(dst_as_org) AS as_org, any(dst_country) AS country, min(start_time) AS first, count() AS sessions,
    uniq(src_ip) AS sources, any(src_ip) AS one_source, groupUniqArray(5)(dst_port) AS ports, sum(src_bytes + dst_bytes) AS bytes
FROM sessions
WHERE start_time >= {from:DateTime('UTC')} AND start_time < {to:DateTime('UTC')}
    AND dst_packets > 0
    AND dst_ip NOT IN
    (
        SELECT dst_ip FROM sessions
        WHERE start_time >= {from:DateTime('UTC')} - toIntervalDay({days:UInt32}) AND start_time < {from:DateTime('UTC')} AND dst_packets > 0
    )
GROUP BY dst_ip
ORDER BY bytes DESC, dst_ip
LIMIT 1000
