// Package source makes label sets out of files.
//
//	source.go      which files; what is compiled again
//	file.go        reading a file: encodings, errors with their line
//	networks.go    networks and hosts put together, and our own format of them
//	azure.go       az network nic, vnet, public-ip, az vm; service tags
//	aws.go         describe-instances, describe-subnets, describe-network-interfaces
//	kubernetes.go  kubectl get pods,services,nodes -A -o json
//	places.go      country and autonomous system
//	threats.go     threat lists put together; plain lists and CSV
//	stix.go        STIX 2.1 bundles
//	misp.go        MISP feeds
//	watch.go       files that change
//
// A format is known by a file's content. Whatever is wrong with a file is an *Error; then nothing of the set is
// made, and whoever has one keeps it.
package source

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/tapweave/tapweave/enricher/labels"
	"github.com/tapweave/tapweave/proto/pb"
)

// Config says which files a label set is made of. The zero Config is none.
type Config struct {
	Networks []string `yaml:"networks" doc:"Files of networks and hosts: our own YAML or CSV, lists of az, aws and kubectl in JSON, Azure service tags. TENANT=FILE gives what is in it to one tenant. What an earlier file says of a prefix counts."`
	Country  []string `yaml:"country" doc:"Files of countries by address: MaxMind's format, or CSV of first address, last address, country."`
	ASN      []string `yaml:"asn" doc:"Files of autonomous systems by address: MaxMind's format, or CSV of first address, last address, number, holder."`
	Threats  []string `yaml:"threats" doc:"Threat lists: plain, CSV, STIX 2.1 bundles, MISP feeds. NAME=FILE names the entries that have no name of their own; else it is the file's."`
}

// Validate says what is wrong with a configuration.
func (c Config) Validate() error {
	for _, f := range c.files() {
		if f.path == "" {
			return errors.New("the empty name of a file")
		}
	}
	return nil
}

// Empty says whether no file is configured.
func (c Config) Empty() bool {
	return len(c.Networks)+len(c.Country)+len(c.ASN)+len(c.Threats) == 0
}

// file is a file with what stands before it in the configuration.
type file struct{ given, path string }

func split(list []string) (files []file) {
	for _, s := range list {
		given, path, ok := strings.Cut(s, "=")
		if !ok || strings.ContainsAny(given, `/\.`) {
			given, path = "", s
		}
		files = append(files, file{given, path})
	}
	return files
}

func (c Config) files() (all []file) {
	for _, list := range [][]string{c.Networks, c.Country, c.ASN, c.Threats} {
		all = append(all, split(list)...)
	}
	return all
}

// Compiled is a part of a label set, and its bytes.
type Compiled struct {
	*labels.Part
	Bytes []byte
}

// Compiler makes label sets, again and again.
type Compiler struct {
	config Config
	kinds  [3]kind
}

// kind is what is remembered of one kind of parts.
type kind struct {
	made  bool
	files [sha256.Size]byte // names, sizes and times
	part  *Compiled
	wrong error // with these files; nil: none
}

// NewCompiler returns the compiler of some files.
func NewCompiler(c Config) *Compiler { return &Compiler{config: c} }

// Compile reads the files that have changed since it last did, and returns the label set with the bytes of its
// parts. An error leaves the compiler as it was.
func (c *Compiler) Compile() (*labels.Set, []Compiled, error) {
	kinds := c.kinds
	for i, k := range []struct {
		files []string
		make  func() (*pb.Labels, error)
	}{
		{c.config.Networks, func() (*pb.Labels, error) { return networks(split(c.config.Networks)) }},
		{append(c.config.Country[:len(c.config.Country):len(c.config.Country)], c.config.ASN...), func() (*pb.Labels, error) {
			return places(c.config.Country, c.config.ASN)
		}},
		{c.config.Threats, func() (*pb.Labels, error) { return threats(split(c.config.Threats)) }},
	} {
		if len(k.files) == 0 {
			continue
		}
		now, err := state(split(k.files))
		if err != nil {
			return nil, nil, err
		}
		if kinds[i].files == now && kinds[i].wrong != nil {
			return nil, nil, kinds[i].wrong
		}
		if kinds[i].made && kinds[i].files == now {
			continue
		}
		m, err := k.make()
		if err != nil {
			c.kinds[i].files, c.kinds[i].wrong = now, err // not read again as they are
			return nil, nil, err
		}
		b, err := labels.Encode(m)
		if err != nil {
			return nil, nil, err
		}
		p, err := labels.Decode(b)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", strings.Join(k.files, ", "), err)
		}
		kinds[i] = kind{made: true, files: now, part: &Compiled{p, b}}
	}
	c.kinds = kinds
	var all []Compiled
	var parts []*labels.Part
	for _, k := range kinds {
		if k.part != nil {
			all, parts = append(all, *k.part), append(parts, k.part.Part)
		}
	}
	return labels.NewSet(parts...), all, nil
}

// state is a digest of names, sizes and times of files: it changes when they do.
func state(files []file) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	for _, f := range files {
		info, err := os.Stat(f.path)
		if err != nil {
			return sum, &Error{File: f.path, Reason: reason(err)}
		}
		fmt.Fprintf(h, "%q %d %d\n", f.path, info.Size(), info.ModTime().UnixNano())
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}
