-- Who calls the same place again and again, at nearly the same intervals? Candidates: updates and monitoring do so too.
--
-- jitter is the standard deviation of the intervals over their mean: 0 is a clock, people are well above 1.
-- from DateTime('UTC') = now() - INTERVAL 1 DAY: sessions that began at this time or later
-- to DateTime('UTC') = now(): and before this one
-- sessions UInt32 = 12: fewer calls are no pattern
-- jitter Float64 = 0.2: most that the intervals may vary
-- Cost: reads the sessions of the time asked for, some of their columns.
SELECT * EXCEPT steps FROM
(
SELECT src_ip, dst_ip, dst_port, protocol, any(dst_name) AS name, any(app) AS application, count() AS calls,
    arrayPopFront(arrayDifference(arraySort(groupArray(10000)(toUnixTimestamp64Milli(start_time))))) AS steps,
    round(arrayAvg(steps) / 1000, 1) AS every_seconds,
    round(arrayReduce('stddevPop', steps) / greatest(1, arrayAvg(steps)), 3) AS variation,
    round(avg(src_bytes)) AS bytes_sent_each, round(avg(dst_bytes)) AS bytes_answered_each
FROM sessions
WHERE start_time >= {from:DateTime('UTC')} AND start_time < {to:DateTime('UTC')}
GROUP BY src_ip, dst_ip, dst_port, protocol
HAVING calls >= {sessions:UInt32}
)
WHERE every_seconds >= 1 AND variation <= {jitter:Float64}
ORDER BY variation, calls DESC, src_ip, dst_ip, dst_port
LIMIT 200
