-- How good is each path: round trip time, retransmissions, zero windows?
--
-- A path is from subnet to subnet, by label, else from /24 (IPv6: /64) to the same. Times are of the handshake, between the tap
-- and each side; shares are of packets.
-- from DateTime('UTC') = now() - INTERVAL 1 DAY: sessions that began at this time or later
-- to DateTime('UTC') = now(): and before this one
-- sessions UInt32 = 1: paths with fewer are left out
-- Cost: reads the sessions of the time asked for, some of their columns.
SELECT
    if(src_subnet != '', src_subnet, if(position(src_ip, ':') > 0, IPv6CIDRToRange(toIPv6(src_ip), 64).1::String, concat(arrayStringConcat(arraySlice(splitByChar('.', src_ip), 1, 3), '.'), '.0'))) AS from_subnet,
    if(dst_subnet != '', dst_subnet, if(position(dst_ip, ':') > 0, IPv6CIDRToRange(toIPv6(dst_ip), 64).1::String, concat(arrayStringConcat(arraySlice(splitByChar('.', dst_ip), 1, 3), '.'), '.0'))) AS to_subnet,
    count() AS sessions,
    round(quantile(0.5)(handshake_rtt) * 1000, 3) AS rtt_ms_p50, round(quantile(0.95)(handshake_rtt) * 1000, 3) AS rtt_ms_p95,
    round(quantile(0.5)(src_rtt) * 1000, 3) AS src_side_ms, round(quantile(0.5)(dst_rtt) * 1000, 3) AS dst_side_ms,
    round(sum(src_retransmits + dst_retransmits) / sum(src_packets + dst_packets), 5) AS retransmitted,
    round(sum(src_out_of_order + dst_out_of_order) / sum(src_packets + dst_packets), 5) AS out_of_order,
    sum(src_zero_windows + dst_zero_windows) AS zero_windows
FROM sessions
WHERE start_time >= {from:DateTime('UTC')} AND start_time < {to:DateTime('UTC')}
    AND protocol = 'tcp'
GROUP BY from_subnet, to_subnet
HAVING sessions >= {sessions:UInt32}
ORDER BY retransmitted DESC, sessions DESC, from_subnet, to_subnet
LIMIT 500
