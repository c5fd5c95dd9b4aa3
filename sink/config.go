package sink

import (
	"errors"
	"fmt"
	"os"
	"unicode/utf8"

	"github.com/tapweave/tapweave/proto/record"
	"github.com/tapweave/tapweave/service/admin"
	"github.com/tapweave/tapweave/service/kafka"
	"github.com/tapweave/tapweave/service/logging"
	"github.com/tapweave/tapweave/sink/clickhouse"
	"github.com/tapweave/tapweave/sink/siem"
)

// Config of a sink.
type Config struct {
	Name             string             `yaml:"name" doc:"Name of this sink, another for each. It stands in pipeline_stats."`
	Partitions       int                `yaml:"partitions" doc:"P, the partitions of tapweave.packets. The same in every service. Records of others are foreign to the log."`
	OutputPartitions int                `yaml:"output_partitions" doc:"S, the partitions of tapweave.sessions, when the sink creates it. The same in every service."`
	ClickHouse       clickhouse.Config  `yaml:"clickhouse" doc:"Output to ClickHouse."`
	SIEM             siem.Config        `yaml:"siem" doc:"Output of JSON documents to Kafka topics for SIEMs."`
	Topics           kafka.TopicsConfig `yaml:"topics" doc:"How topics that are missing are made."`
	Kafka            kafka.Config       `yaml:"kafka" doc:"Connection to Kafka."`
	Admin            admin.Config       `yaml:"admin" doc:"Health and metrics over HTTP."`
	Log              logging.Config     `yaml:"log" doc:"The log."`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	name, err := os.Hostname()
	if err != nil || name == "" {
		name = "sink"
	}
	return Config{
		Name:             name,
		Partitions:       record.DefaultInputPartitions,
		OutputPartitions: record.DefaultOutputPartitions,
		ClickHouse:       clickhouse.DefaultConfig(),
		SIEM:             siem.DefaultConfig(),
		Topics:           kafka.DefaultTopicsConfig(),
		Kafka:            kafka.DefaultConfig(),
		Admin:            admin.Config{Listen: ":8083"},
		Log:              logging.DefaultConfig(),
	}
}

// Validate says what is wrong with a configuration.
func (c Config) Validate() error {
	if c.Name == "" || len(c.Name) > 255 || !utf8.ValidString(c.Name) {
		return errors.New("name: 1 to 255 bytes of UTF-8 are wanted")
	}
	if c.Partitions < 1 {
		return fmt.Errorf("partitions: %d is less than 1", c.Partitions)
	}
	if c.OutputPartitions < 1 {
		return fmt.Errorf("output_partitions: %d is less than 1", c.OutputPartitions)
	}
	if !c.ClickHouse.Enabled && !c.SIEM.Enabled() {
		return errors.New("neither clickhouse.enabled nor one of siem.ecs, siem.ocsf and siem.asim is set: there is nothing to do")
	}
	return nil
}
