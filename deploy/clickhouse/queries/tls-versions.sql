-- Which versions of TLS are spoken, by which clients (JA4)?
--
-- from DateTime('UTC') = now() - INTERVAL 1 DAY: sessions that began at this time or later
-- to DateTime('UTC') = now(): and before this one
-- Cost: reads the sessions of the time asked for, some of their columns.
SELECT if(tls_version = '', 'unknown', tls_version) AS version, tls_ja4 AS ja4, count() AS sessions, uniqExact(src_ip) AS clients, uniqExact(dst_ip) AS servers,
    groupUniqArray(3)(tls_sni) AS names, sum(src_bytes + dst_bytes) AS bytes
FROM tls
WHERE start_time >= {from:DateTime('UTC')} AND start_time < {to:DateTime('UTC')}
GROUP BY version, ja4
ORDER BY sessions DESC, version, ja4
LIMIT 200
