-- What did Tapweave itself lose, refuse or take too late, at which stage?
--
-- Counts begin anew with each start of a process (incarnation): what a start had counted before the time asked for is taken off.
-- from DateTime('UTC') = now() - INTERVAL 1 DAY: counted at this time or later
-- to DateTime('UTC') = now(): and before this one
-- Cost: reads pipeline_stats, a row for each count that changed and second.
SELECT service, instance, stage, reason, sum(counted - before) AS counts
FROM
(
    SELECT service, instance, incarnation, stage, reason, max(count) AS counted, maxIf(count, time < {from:DateTime('UTC')}) AS before
    FROM pipeline_stats
    WHERE time < {to:DateTime('UTC')}
    GROUP BY service, instance, incarnation, stage, reason
)
WHERE stage IN ('lost', 'refused', 'deadletter', 'siem_deadletter')
    OR reason IN ('undecodable_records', 'batches_for_other_partitions', 'packets_late', 'packets_too_late', 'fragments_without_first', 'datagrams_evicted', 'datagrams_malformed', 'sessions_evicted', 'lost_records')
GROUP BY service, instance, stage, reason
HAVING counts > 0
ORDER BY service, stage, counts DESC, instance, reason
