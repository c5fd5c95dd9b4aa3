-- Who met what is on a threat list now, and was not when the session began?
--
-- Addresses, prefixes, names, *.names, JA3 and JA4, as threat lists have them. For a long list see labels.md.
--
-- from DateTime('UTC') = now() - INTERVAL 30 DAY: sessions that began at this time or later
-- to DateTime('UTC') = now(): and before this one
-- indicators Array(String) = []: what is looked for
-- Cost: reads addresses, names and fingerprints of the sessions of the time asked for.
WITH
    arrayFilter(i -> position(i, '/') > 0, {indicators:Array(String)}) AS prefixes,
    arrayMap(i -> substring(i, 2), arrayFilter(i -> startsWith(i, '*.'), {indicators:Array(String)})) AS endings,
    arrayConcat([tls_sni, http_host, dns_query], http_hosts, dns_queries) AS asked,
    arrayConcat([src_ip, dst_ip, tls_ja3, tls_ja4], asked) AS values
SELECT start_time, src_ip, src_name AS name, dst_ip, dst_port, app,
    arrayDistinct(arrayConcat(arrayIntersect({indicators:Array(String)}, values),
        arrayFilter(p -> isIPAddressInRange(src_ip, p) OR isIPAddressInRange(dst_ip, p), prefixes),
        arrayMap(e -> concat('*', e), arrayFilter(e -> arrayExists(n -> endsWith(n, e), asked), endings)))) AS met,
    src_threat, dst_threat, src_bytes + dst_bytes AS bytes, session_id
FROM sessions
WHERE start_time >= {from:DateTime('UTC')} AND start_time < {to:DateTime('UTC')}
    AND (src_ip IN {indicators:Array(String)} OR dst_ip IN {indicators:Array(String)} OR tls_ja3 IN {indicators:Array(String)} OR tls_ja4 IN {indicators:Array(String)}
        OR hasAny(asked, {indicators:Array(String)})
        OR arrayExists(p -> isIPAddressInRange(src_ip, p) OR isIPAddressInRange(dst_ip, p), prefixes)
        OR arrayExists(e -> arrayExists(n -> endsWith(n, e), asked), endings))
ORDER BY start_time, session_id, met -- so that met is not made of columns that are read late, which ClickHouse 26.7 refuses
LIMIT 1000
