-- How does the volume over a gateway change, by consumer? The ten largest by name, the rest as one.
--
-- Gateway and consumer as in gateway-consumers.
-- from DateTime('UTC') = now() - INTERVAL 1 DAY: sessions that began at this time or later
-- to DateTime('UTC') = now(): and before this one
-- gateway String = '': address of the gateway's tap, as in tap_points; empty: whatever goes in or out
-- seconds UInt32 = 3600: length of a step; a session counts when it began
-- Cost: reads the sessions of the time asked for twice, some of their columns.
WITH used AS
(
    WITH
        arrayExists(net -> isIPAddressInRange(src_ip, net), ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', 'fc00::/7']) AS src_private,
        arrayExists(net -> isIPAddressInRange(dst_ip, net), ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', 'fc00::/7']) AS dst_private
    SELECT
        toStartOfInterval(start_time, toIntervalSecond({seconds:UInt32})) AS time,
        if(direction = 'inbound' OR (direction = '' AND dst_private AND NOT src_private),
            if(dst_name != '', dst_name, dst_ip), if(src_name != '', src_name, src_ip)) AS consumer,
        sum(src_bytes + dst_bytes) AS bytes
    FROM sessions
    WHERE start_time >= {from:DateTime('UTC')} AND start_time < {to:DateTime('UTC')}
        AND if({gateway:String} != '', has(tap_points, {gateway:String}),
            direction IN ('inbound', 'outbound') OR (direction = '' AND src_private != dst_private))
    GROUP BY time, consumer
)
SELECT time, if(consumer IN (SELECT consumer FROM used GROUP BY consumer ORDER BY sum(bytes) DESC, consumer LIMIT 10), consumer, 'all others') AS who, sum(used.bytes) AS volume
FROM used
GROUP BY time, who
ORDER BY time, volume DESC, who
