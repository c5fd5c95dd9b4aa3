-- Who uses a gateway, how much, and what share of it?
--
-- A session goes over the gateway if the gateway's own tap saw it. Without a gateway: all sessions with one end outside. The
-- consumer is the end that is inside: by its label, else by its address.
-- from DateTime('UTC') = now() - INTERVAL 1 DAY: sessions that began at this time or later
-- to DateTime('UTC') = now(): and before this one
-- gateway String = '': address of the gateway's tap, as in tap_points; empty: whatever goes in or out
-- Cost: reads the sessions of the time asked for, some of their columns.
WITH
    arrayExists(net -> isIPAddressInRange(src_ip, net), ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', 'fc00::/7']) AS src_private,
    arrayExists(net -> isIPAddressInRange(dst_ip, net), ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', 'fc00::/7']) AS dst_private,
    direction = 'inbound' OR (direction = '' AND dst_private AND NOT src_private) AS inbound
SELECT
    if(inbound, if(dst_name != '', dst_name, dst_ip), if(src_name != '', src_name, src_ip)) AS consumer,
    any(if(inbound, dst_subnet, src_subnet)) AS subnet,
    sum(if(inbound, dst_bytes, src_bytes)) AS bytes_out, sum(if(inbound, src_bytes, dst_bytes)) AS bytes_in,
    count() AS sessions,
    round((bytes_out + bytes_in) / sum(bytes_out + bytes_in) OVER (), 4) AS share
FROM sessions
WHERE start_time >= {from:DateTime('UTC')} AND start_time < {to:DateTime('UTC')}
    AND if({gateway:String} != '', has(tap_points, {gateway:String}),
        direction IN ('inbound', 'outbound') OR (direction = '' AND src_private != dst_private))
GROUP BY consumer
ORDER BY bytes_out + bytes_in DESC, consumer
LIMIT 100
