module github.com/tapweave/tapweave/deploy/standalone

go 1.26.0

replace (
	github.com/tapweave/tapweave/collector => ../../collector
	github.com/tapweave/tapweave/enricher => ../../enricher
	github.com/tapweave/tapweave/proto => ../../proto
	github.com/tapweave/tapweave/service => ../../service
	github.com/tapweave/tapweave/sink => ../../sink
)

require (
	github.com/google/gopacket v1.1.19
	github.com/tapweave/tapweave/collector v0.0.0
	github.com/tapweave/tapweave/enricher v0.0.0
	github.com/tapweave/tapweave/proto v0.0.0
)
