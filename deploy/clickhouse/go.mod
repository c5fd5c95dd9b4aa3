module github.com/tapweave/tapweave/deploy/clickhouse

go 1.26.0
