-- How many bytes go between subnets and virtual networks, over time?
--
-- from DateTime('UTC') = now() - INTERVAL 1 DAY: minutes at this time or later
-- to DateTime('UTC') = now(): and before this one
-- seconds UInt32 = 3600: length of a step
-- Cost: reads traffic_1m, a row for each minute and combination of dimensions.
SELECT
    toStartOfInterval(minute, toIntervalSecond({seconds:UInt32})) AS time,
    src_vnet, src_subnet, dst_vnet, dst_subnet,
    sum(src_bytes) AS bytes_sent, sum(dst_bytes) AS bytes_answered, sum(sessions) AS begun
FROM traffic_1m
WHERE minute >= {from:DateTime('UTC')} AND minute < {to:DateTime('UTC')}
GROUP BY time, src_vnet, src_subnet, dst_vnet, dst_subnet
HAVING bytes_sent != 0 OR bytes_answered != 0 OR begun != 0
ORDER BY time, bytes_sent + bytes_answered DESC, src_vnet, src_subnet, dst_vnet, dst_subnet
LIMIT 10000
