-- Users with no more rights than they need, for a server on which users are made by SQL: put passwords in, and run it
-- once as an administrator. Where users are made by files: deploy/compose/clickhouse-users.xml has the same.

-- The sink. It makes its database and tables when it starts, changes them after an upgrade, and inserts.
CREATE USER IF NOT EXISTS writer IDENTIFIED BY 'PUT A PASSWORD HERE';
GRANT SELECT, INSERT, ALTER, CREATE, DROP, TRUNCATE ON tapweave.* TO writer;
GRANT TABLE ENGINE ON * TO writer;
GRANT SELECT ON system.tables TO writer;
-- tapweave doctor asks with the sink's rights how much room there is.
GRANT SELECT ON system.disks TO writer;

-- People and dashboards. A query cannot write, and has 4 GiB of memory and a minute: it may ask for less, not for more.
CREATE SETTINGS PROFILE IF NOT EXISTS tapweave_reader SETTINGS
    max_memory_usage = 4294967296 MIN 1 MAX 4294967296, max_execution_time = 60 MIN 1 MAX 60, readonly = 2;
CREATE USER IF NOT EXISTS reader IDENTIFIED BY 'PUT A PASSWORD HERE' SETTINGS PROFILE 'tapweave_reader';
GRANT SELECT ON tapweave.* TO reader;
GRANT SELECT ON system.* TO reader;
