// Package pb is the generated Go code of proto/tapweave.proto: the envelopes of the records on every topic.
// Read and write them through package record, which checks their versions.
package pb
