-- How much goes between hub and spokes, between one spoke and another, and within?
--
-- from DateTime('UTC') = now() - INTERVAL 1 DAY: minutes at this time or later
-- to DateTime('UTC') = now(): and before this one
-- hub String = 'hub': virtual network that is the hub
-- seconds UInt32 = 3600: length of a step
-- Cost: reads traffic_1m, a row for each minute and combination of dimensions.
SELECT
    toStartOfInterval(minute, toIntervalSecond({seconds:UInt32})) AS time,
    multiIf(src_vnet = '' OR dst_vnet = '', 'to or from elsewhere', src_vnet = dst_vnet, 'within one network',
        {hub:String} IN (src_vnet, dst_vnet), 'hub and spoke', 'spoke to spoke') AS path,
    sum(src_bytes + dst_bytes) AS bytes, sum(src_packets + dst_packets) AS packets, sum(sessions) AS begun
FROM traffic_1m
WHERE minute >= {from:DateTime('UTC')} AND minute < {to:DateTime('UTC')}
GROUP BY time, path
ORDER BY time, path
