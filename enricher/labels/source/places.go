package source

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/oschwald/maxminddb-golang/v2"

	"github.com/tapweave/tapweave/enricher/labels"
	"github.com/tapweave/tapweave/proto/pb"
)

// maxRanges bounds what is read of one file: the largest that are known have half as many.
const maxRanges = 1 << 23

// placeRange is what one file says of the addresses from first to last.
type placeRange struct {
	first, last netip.Addr
	place       labels.Place
}

// places reads files of countries and of autonomous systems, and puts them together: ranges that have the same of
// both.
func places(country, asn []string) (*pb.Labels, error) {
	var lists [2][]placeRange
	for i, files := range [][]string{country, asn} {
		for _, f := range files {
			list, err := placesOf(f, i == 1)
			if err != nil {
				return nil, err
			}
			lists[i] = append(lists[i], list...)
		}
		lists[i] = flatten(lists[i])
	}
	m := &pb.Places{}
	index := map[labels.Place]uint32{{}: 0}
	var at [2]int
	// Both lists are gone through at once; whatever begins or ends in one of them begins a range.
	add := func(from netip.Addr, p labels.Place) {
		n, ok := index[p]
		if !ok {
			n = uint32(len(m.Places) + 1)
			index[p] = n
			m.Places = append(m.Places, &pb.Place{Country: p.Country, Asn: p.ASN, AsOrg: p.ASOrg})
		}
		if from.Is4() {
			b := from.As4()
			if k := len(m.V4Place); k > 0 && m.V4Place[k-1] == n {
				return
			}
			m.V4, m.V4Place = append(m.V4, binary.BigEndian.Uint32(b[:])), append(m.V4Place, n)
			return
		}
		b := from.As16()
		if k := len(m.V6Place); k > 0 && m.V6Place[k-1] == n {
			return
		}
		m.V6High, m.V6Low = append(m.V6High, binary.BigEndian.Uint64(b[:])), append(m.V6Low, binary.BigEndian.Uint64(b[8:]))
		m.V6Place = append(m.V6Place, n)
	}
	for _, from := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		for from.IsValid() {
			var p labels.Place
			var next netip.Addr // where something changes
			sooner := func(a netip.Addr) {
				if a.IsValid() && a.BitLen() == from.BitLen() && (!next.IsValid() || a.Less(next)) {
					next = a
				}
			}
			for i := range lists {
				l := lists[i]
				for at[i] < len(l) && l[at[i]].last.Less(from) {
					at[i]++
				}
				if at[i] == len(l) || l[at[i]].first.BitLen() != from.BitLen() {
					continue
				}
				if r := &l[at[i]]; from.Less(r.first) {
					sooner(r.first)
				} else {
					p.Country, p.ASN, p.ASOrg = cmp.Or(p.Country, r.place.Country), cmp.Or(p.ASN, r.place.ASN), cmp.Or(p.ASOrg, r.place.ASOrg)
					sooner(r.last.Next())
				}
			}
			add(from, p)
			from = next
		}
	}
	return &pb.Labels{Body: &pb.Labels_Places{Places: m}}, nil
}

// flatten returns ranges that do not overlap, in order: where some do, the one that begins last counts, which is the
// narrower one where one is in another.
func flatten(list []placeRange) []placeRange {
	slices.SortStableFunc(list, func(a, b placeRange) int {
		return cmp.Or(a.first.Compare(b.first), b.last.Compare(a.last))
	})
	flat := make([]placeRange, 0, len(list))
	var open []placeRange // what goes on behind those that began later
	put := func(r placeRange) {
		if !r.last.Less(r.first) {
			flat = append(flat, r)
		}
	}
	// closeTo ends what is open before an address, or all.
	closeTo := func(a netip.Addr) {
		for len(open) > 0 {
			r := &open[len(open)-1]
			if a.IsValid() && a.BitLen() == r.first.BitLen() && !r.last.Less(a) {
				if r.first.Less(a) {
					put(placeRange{r.first, a.Prev(), r.place})
				}
				return
			}
			done := *r
			open = open[:len(open)-1]
			put(done)
			for len(open) > 0 && !done.last.Less(open[len(open)-1].last) {
				open = open[:len(open)-1] // nothing is left of it
			}
			if len(open) > 0 {
				open[len(open)-1].first = done.last.Next()
			}
		}
	}
	for _, r := range list {
		closeTo(r.first)
		open = append(open, r)
	}
	closeTo(netip.Addr{})
	return flat
}

// placesOf reads a file: MaxMind's format by its mark, else CSV.
func placesOf(path string, asn bool) ([]placeRange, error) {
	b, err := whole(path)
	if err != nil {
		return nil, err
	}
	if len(b) == 0 {
		return nil, &Error{File: path, Reason: "is empty"}
	}
	if bytes.LastIndex(b[max(0, len(b)-128<<10):], []byte("\xab\xcd\xefMaxMind.com")) >= 0 {
		return placesMMDB(path, b, asn)
	}
	if err := encoding(path, b); err != nil {
		if strings.HasSuffix(path, ".mmdb") {
			return nil, &Error{File: path, Reason: "is no database in MaxMind's format, or one that was cut short: the metadata at its end is missing"}
		}
		return nil, err
	}
	return placesCSV(path, b, asn)
}

// aliases are where files in MaxMind's format have IPv4 once more: mapped, Teredo, 6to4.
var aliases = []netip.Prefix{netip.MustParsePrefix("::ffff:0:0/96"), netip.MustParsePrefix("2001::/32"), netip.MustParsePrefix("2002::/16")}

func placesMMDB(path string, b []byte, asn bool) (list []placeRange, err error) {
	wrong := func(err error) ([]placeRange, error) {
		return nil, &Error{File: path, Reason: "is no sound database in MaxMind's format: " + reason(err)}
	}
	db, err := maxminddb.OpenBytes(b)
	if err != nil {
		return wrong(err)
	}
	// A tree has no more leaves than nodes and one, and some times as many where branches share nodes. Those of a damaged
	// one may share them again and again, so that even its empty leaves are too many to be passed over unseen.
	most := min(64*uint(db.Metadata.NodeCount), maxRanges)
	seen := uint(0)
	for r := range db.Networks(maxminddb.IncludeNetworksWithoutData(), maxminddb.IncludeAliasedNetworks()) {
		if seen++; seen > most {
			return wrong(fmt.Errorf("more than %d networks in a tree of %d nodes", most, db.Metadata.NodeCount))
		}
		prefix := r.Prefix()
		if r.Err() == nil && (!r.Found() || slices.ContainsFunc(aliases, func(a netip.Prefix) bool { return a.Bits() <= prefix.Bits() && a.Contains(prefix.Addr()) })) {
			continue
		}
		// MaxMind's own names, and those of databases that are flat.
		var v struct {
			Country struct {
				ISO string `maxminddb:"iso_code"`
			} `maxminddb:"country"`
			Flat string `maxminddb:"country_code"`
			ASN  uint32 `maxminddb:"autonomous_system_number"`
			Org  string `maxminddb:"autonomous_system_organization"`
		}
		if err := r.Decode(&v); err != nil {
			return wrong(err)
		}
		var p labels.Place
		if asn {
			p.ASN, p.ASOrg = v.ASN, strings.ToValidUTF8(v.Org, "\uFFFD")
		} else if country := cmp.Or(v.Country.ISO, v.Flat); country != "" {
			if p.Country, err = countryOf(country); err != nil {
				return wrong(err)
			}
		}
		if p == (labels.Place{}) {
			continue
		}
		list = append(list, placeRange{prefix.Addr(), lastOf(prefix), p})
	}
	if len(list) == 0 && asn {
		return nil, &Error{File: path, Reason: "has no autonomous_system_number: it is no file of autonomous systems"}
	} else if len(list) == 0 {
		return nil, &Error{File: path, Reason: "has no country_code or country.iso_code: it is no file of countries"}
	}
	return list, nil
}

// countryOf returns a country's two letters of ISO 3166-1.
func countryOf(s string) (string, error) {
	if len(s) != 2 || !letter(s[0]) || !letter(s[1]) {
		return "", fmt.Errorf("%.20q is no country of ISO 3166-1", s)
	}
	return strings.ToUpper(strings.Clone(s)), nil // not part of a row that is used again
}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// lastOf returns the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// placesCSV reads lines of first address, last address, and a country or the number and holder of a system.
func placesCSV(path string, b []byte, asn bool) (list []placeRange, err error) {
	if err := lineEnds(path, b); err != nil {
		return nil, err
	}
	r := csv.NewReader(bufio.NewReader(bytes.NewReader(bytes.TrimPrefix(b, []byte(utf8Mark)))))
	r.ReuseRecord, r.FieldsPerRecord = true, -1
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		var p *csv.ParseError
		if errors.As(err, &p) {
			return nil, &Error{path, p.Line, reason(p.Err)}
		} else if err != nil {
			return nil, &Error{File: path, Reason: reason(err)}
		}
		line, _ := r.FieldPos(0)
		if len(row) < 3 {
			return nil, &Error{path, line, fmt.Sprintf("%d columns separated by commas, want first address, last address and what is known", len(row))}
		}
		first, err1 := netip.ParseAddr(row[0])
		last, err2 := netip.ParseAddr(row[1])
		if err1 != nil || err2 != nil || first.Zone()+last.Zone() != "" || first.BitLen() != last.BitLen() || last.Less(first) {
			return nil, &Error{path, line, fmt.Sprintf("%q to %q is no range of addresses", row[0], row[1])}
		}
		v := placeRange{first: first, last: last}
		if asn {
			n, err := strconv.ParseUint(strings.TrimPrefix(row[2], "AS"), 10, 32)
			if err != nil {
				return nil, &Error{path, line, fmt.Sprintf("%q is no number of an autonomous system", row[2])}
			}
			if v.place.ASN = uint32(n); len(row) > 3 {
				v.place.ASOrg = strings.Clone(strings.ToValidUTF8(row[3], "\uFFFD"))
			}
		} else if v.place.Country, err = countryOf(row[2]); err != nil {
			return nil, &Error{path, line, err.Error()}
		}
		if list = append(list, v); len(list) > maxRanges {
			return nil, &Error{path, line, fmt.Sprintf("more than %d ranges", maxRanges)}
		}
	}
}
