-- Which names are so long that they may carry data (a tunnel)?
--
-- from DateTime('UTC') = now() - INTERVAL 1 DAY: sessions that began at this time or later
-- to DateTime('UTC') = now(): and before this one
-- length UInt32 = 60: shorter names are left out
-- Cost: reads the sessions of the time asked for, some of their columns.
SELECT src_ip, any(src_name) AS name, arrayStringConcat(arraySlice(splitByChar('.', dns_query), -2), '.') AS domain, count() AS questions,
    uniqExact(dns_query) AS names, max(length(dns_query)) AS longest, argMax(dns_query, length(dns_query)) AS example, sum(src_bytes) AS bytes_sent
FROM dns
WHERE start_time >= {from:DateTime('UTC')} AND start_time < {to:DateTime('UTC')}
    AND length(dns_query) >= {length:UInt32}
GROUP BY src_ip, domain
ORDER BY names DESC, src_ip, domain
LIMIT 100
