-- In which sessions is something missing that was sent? Lost on the way to us, not necessarily on the way.
--
-- A hole is a range of sequence numbers that no packet covered. Where many sessions of one tap have holes, look at the mirror;
-- pipeline-loss says what was lost behind it.
-- from DateTime('UTC') = now() - INTERVAL 1 DAY: sessions that began at this time or later
-- to DateTime('UTC') = now(): and before this one
-- Cost: reads the sessions of the time asked for, some of their columns.
SELECT start_time, src_ip, src_port, dst_ip, dst_port, src_missed_bytes, dst_missed_bytes,
    round((src_missed_bytes + dst_missed_bytes) / (src_missed_bytes + dst_missed_bytes + src_payload_bytes + dst_payload_bytes), 4) AS missed_share,
    sampled, tap_points, collectors, session_id
FROM sessions
WHERE start_time >= {from:DateTime('UTC')} AND start_time < {to:DateTime('UTC')}
    AND (src_missed_bytes > 0 OR dst_missed_bytes > 0)
ORDER BY src_missed_bytes + dst_missed_bytes DESC, session_id
LIMIT 200
