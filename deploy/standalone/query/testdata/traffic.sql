-- What the fold would have booked for the sessions that there are, if each had happened in the minute of its start.
INSERT INTO traffic_1m (minute, tenant, src_name, src_subnet, src_vnet, dst_name, dst_subnet, dst_vnet, dst_country, dst_asn, dst_port, ip_protocol, protocol, app, direction, flow_type,
    sessions, src_packets, dst_packets, src_bytes, dst_bytes, src_payload_bytes, dst_payload_bytes)
SELECT toStartOfMinute(start_time), tenant, src_name, src_subnet, src_vnet, dst_name, dst_subnet, dst_vnet, dst_country, dst_asn, dst_port, ip_protocol, protocol, app, direction, flow_type,
    count(), sum(src_packets), sum(dst_packets), sum(src_bytes), sum(dst_bytes), sum(src_payload_bytes), sum(dst_payload_bytes)
FROM sessions
WHERE start_time >= {from:DateTime('UTC')} AND start_time < {to:DateTime('UTC')}
GROUP BY ALL
SETTINGS async_insert = 0, max_partitions_per_insert_block = 1000
