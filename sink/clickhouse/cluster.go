package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tapweave/tapweave/sink/migrate"
)

// Stored is the database of the tables that rows go into. In a cluster it is not the one that people query.
func (c Config) Stored() string { return migrate.Stored(c.Database, c.Cluster) }

// Servers returns a server for each address: all of them in a cluster, else one for all addresses.
func (c Config) Servers() ([]*Server, error) {
	if c.Cluster == "" {
		s, err := c.Open()
		return []*Server{s}, err
	}
	var list []*Server
	for _, a := range c.Addresses {
		one := c
		one.Addresses = []string{a}
		s, err := one.Open()
		if err != nil {
			return nil, errors.Join(err, Close(list))
		}
		list = append(list, s)
	}
	return list, nil
}

// Close closes servers.
func Close(list []*Server) (err error) {
	for _, s := range list {
		err = errors.Join(err, s.Close())
	}
	return err
}

// Shards returns a server for each shard of the cluster, by number: the first of its replicas that answers takes what is
// inserted. Each server is asked which shard it is. A replica that does not answer now is not used until the next start;
// a shard of which none answers is an error, for the partitions would go elsewhere.
func (c Config) Shards(ctx context.Context) ([]*Server, error) {
	servers, err := c.Servers()
	if err != nil || c.Cluster == "" {
		return servers, err
	}
	defer Close(servers)
	var shards [][]string
	var failed error
	for i, s := range servers {
		var own, all uint32
		err := s.QueryRow(ctx, "SELECT toUInt32(maxIf(shard_num, is_local)), toUInt32(max(shard_num)) FROM system.clusters WHERE cluster = ?", c.Cluster).Scan(&own, &all)
		switch {
		case err != nil:
			failed = s.Explain(err)
			continue
		case all == 0:
			return nil, fmt.Errorf("ClickHouse at %s knows no cluster %q: define it under remote_servers", c.Addresses[i], c.Cluster)
		case own == 0:
			return nil, fmt.Errorf("ClickHouse at %s is no part of the cluster %q", c.Addresses[i], c.Cluster)
		case shards == nil:
			shards = make([][]string, all)
		case len(shards) != int(all):
			return nil, fmt.Errorf("ClickHouse at %s says that cluster %q has %d shards, others say %d", c.Addresses[i], c.Cluster, all, len(shards))
		}
		shards[own-1] = append(shards[own-1], c.Addresses[i])
	}
	if shards == nil {
		return nil, failed
	}
	var list []*Server
	for i, addresses := range shards {
		if len(addresses) == 0 {
			err := failed
			if err == nil {
				err = fmt.Errorf("clickhouse.addresses has none of it: %s", strings.Join(c.Addresses, ","))
			}
			return nil, errors.Join(fmt.Errorf("shard %d of cluster %q: %w", i+1, c.Cluster, err), Close(list))
		}
		one := c
		one.Addresses = addresses
		s, err := one.Open()
		if err != nil {
			return nil, errors.Join(err, Close(list))
		}
		list = append(list, s)
	}
	return list, nil
}
