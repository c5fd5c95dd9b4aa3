package migrate

import (
	"fmt"
	"strings"
)

// indexes are the skipping indexes of sessions_versions that the first schema did not have, and in place of which.
//
// An address has two. A Bloom filter finds one address, also where "src_ip = … OR dst_ip = …" asks for either end. Of
// isIPAddressInRange it knows nothing: that needs the addresses themselves, and is quickest where these are listed
// coarsely, once in eight granules (listed in every granule, the list takes longer to read, and spoils the OR).
// docs/database.md has the measurement.
func indexes(database string) []string {
	alter := []string{"DROP INDEX IF EXISTS src_ip", "DROP INDEX IF EXISTS dst_ip"}
	for _, end := range []string{"src", "dst"} {
		alter = append(alter,
			fmt.Sprintf("ADD INDEX IF NOT EXISTS %[1]s_address %[1]s_ip TYPE bloom_filter(0.01) GRANULARITY 1", end),
			fmt.Sprintf("ADD INDEX IF NOT EXISTS %[1]s_range %[1]s_ip TYPE set(0) GRANULARITY 8", end))
	}
	for _, name := range []string{"src_name", "dst_name", "tls_sni", "http_host", "dns_query"} {
		alter = append(alter, fmt.Sprintf("ADD INDEX IF NOT EXISTS %[1]s %[1]s TYPE bloom_filter(0.01) GRANULARITY 1", name))
	}
	return []string{fmt.Sprintf("ALTER TABLE %s.%s\n    %s", ident(database), Versions, strings.Join(alter, ",\n    "))}
}
