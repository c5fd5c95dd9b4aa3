-- Who asks for names that do not exist? Malware that makes up names does; so does a wrong search list.
--
-- from DateTime('UTC') = now() - INTERVAL 1 DAY: sessions that began at this time or later
-- to DateTime('UTC') = now(): and before this one
-- questions UInt32 = 20: who asked less is left out
-- Cost: reads the sessions of the time asked for, some of their columns.
SELECT src_ip, any(src_name) AS name, count() AS questions, countIf(dns_rcode = 'NXDOMAIN') AS nonexistent, round(nonexistent / questions, 3) AS share,
    groupUniqArrayIf(5)(dns_query, dns_rcode = 'NXDOMAIN') AS examples
FROM dns
WHERE start_time >= {from:DateTime('UTC')} AND start_time < {to:DateTime('UTC')}
    AND dns_rcode != ''
GROUP BY src_ip
HAVING questions >= {questions:UInt32} AND nonexistent > 0
ORDER BY share DESC, nonexistent DESC, src_ip
LIMIT 100
