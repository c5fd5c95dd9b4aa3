module github.com/tapweave/tapweave/service

go 1.26.0
