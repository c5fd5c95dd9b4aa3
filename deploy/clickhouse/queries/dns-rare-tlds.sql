-- Which top-level domains does hardly anybody here ask for?
--
-- from DateTime('UTC') = now() - INTERVAL 1 DAY: sessions that began at this time or later
-- to DateTime('UTC') = now(): and before this one
-- clients UInt32 = 3: a domain that more clients ask for is not rare
-- Cost: reads the sessions of the time asked for, some of their columns.
SELECT lower(arrayElement(splitByChar('.', trimRight(dns_query, '.')), -1)) AS tld, uniqExact(src_ip) AS clients_asking, count() AS questions,
    groupUniqArray(5)(dns_query) AS examples, groupUniqArray(5)(src_ip) AS clients
FROM dns
WHERE start_time >= {from:DateTime('UTC')} AND start_time < {to:DateTime('UTC')}
    AND position(dns_query, '.') > 0 AND dns_type != 'PTR'
GROUP BY tld
HAVING clients_asking <= {clients:UInt32}
ORDER BY clients_asking, questions, tld
LIMIT 100
