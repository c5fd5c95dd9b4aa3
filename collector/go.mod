module github.com/tapweave/tapweave/collector

go 1.26.0

replace github.com/tapweave/tapweave/proto => ../proto

require (
	github.com/google/gopacket v1.1.19
	github.com/klauspost/compress v1.20.3
	github.com/tapweave/tapweave/proto v0.0.0
)

require (
	golang.org/x/net v0.0.0-20190620200207-3b0461eec859 // indirect
	golang.org/x/sys v0.21.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)
