-- Which sessions last longest, those still open among them?
--
-- from DateTime('UTC') = now() - INTERVAL 1 DAY: sessions that began at this time or later
-- to DateTime('UTC') = now(): and before this one
-- seconds UInt32 = 3600: shorter ones are left out
-- Cost: reads the sessions of the time asked for, some of their columns.
SELECT start_time, end_time, round(duration) AS seconds, is_final, src_ip, src_name, dst_ip, dst_name, dst_port, protocol, app, src_bytes, dst_bytes, session_id
FROM sessions
WHERE start_time >= {from:DateTime('UTC')} AND start_time < {to:DateTime('UTC')}
    AND duration >= {seconds:UInt32}
ORDER BY duration DESC, session_id
LIMIT 100
