module github.com/tapweave/tapweave/sink

go 1.26.0
