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
	github.com/ebitengine/purego v0.11.3
	github.com/google/gopacket v1.1.19
	github.com/segmentio/kafka-go v0.4.51
	github.com/tapweave/tapweave/collector v0.0.0
	github.com/tapweave/tapweave/enricher v0.0.0
	github.com/tapweave/tapweave/proto v0.0.0
	github.com/twmb/franz-go v1.22.0
	github.com/twmb/franz-go/pkg/kfake v0.0.0-20260918054303-01f206a7e32c
	golang.org/x/net v0.59.0
	golang.org/x/sys v0.49.0
	golang.org/x/term v0.47.0
)

require (
	github.com/apache/arrow/go/v17 v17.0.0 // indirect
	github.com/goccy/go-json v0.10.3 // indirect
	github.com/google/flatbuffers v24.3.25+incompatible // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/klauspost/cpuid/v2 v2.2.8 // indirect
	github.com/pierrec/lz4/v4 v4.1.30 // indirect
	github.com/twmb/franz-go/pkg/kmsg v1.14.0 // indirect
	github.com/zeebo/xxh3 v1.0.2 // indirect
	golang.org/x/exp v0.0.0-20240222234643-814bf88cf225 // indirect
	golang.org/x/mod v0.18.0 // indirect
	golang.org/x/sync v0.8.0 // indirect
	golang.org/x/tools v0.22.0 // indirect
	golang.org/x/xerrors v0.0.0-20231012003039-104605ab7028 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)
