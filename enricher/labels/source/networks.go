package source

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/gaissmai/bart"
	"go.yaml.in/yaml/v3"

	"github.com/tapweave/tapweave/proto/pb"
)

// network is what one entry of a file says of a prefix.
type network struct {
	tenant             string
	prefix             netip.Prefix
	name, subnet, vnet string
	labels             []string
	owner              pb.Network_Owner
	foreign            bool // said not to be one's own, within what is
	file               int  // place in the configuration
	where              string
}

// gatherer takes in what files say. What az says of one machine stands in several of them.
type gatherer struct {
	all   []network
	files []file
	at    int // file that is read
	azure azure
}

func (g *gatherer) add(n network) {
	n.file = g.at
	if n.tenant == "" {
		n.tenant = g.files[g.at].given
	}
	if n.where == "" {
		n.where = g.files[g.at].path
	}
	g.all = append(g.all, n)
}

// networks reads files of networks and hosts.
func networks(files []file) (*pb.Labels, error) {
	g := &gatherer{files: files}
	for i, f := range files {
		g.at = i
		b, err := content(f.path)
		if err != nil {
			return nil, err
		}
		d := &document{f, b}
		switch head := bytes.TrimLeft(b, " \t\r\n"); {
		case len(head) == 0:
			err = &Error{File: f.path, Reason: "is empty"}
		case head[0] == '{' || head[0] == '[':
			err = g.json(d)
		case strings.EqualFold(filepath.Ext(f.path), ".csv"):
			err = g.csv(d)
		default:
			err = g.yaml(d)
		}
		if err != nil {
			return nil, err
		}
	}
	g.azure.finish(g)
	return g.merge()
}

// json reads a list as a cloud's tool writes it.
func (g *gatherer) json(d *document) error {
	var top struct {
		Values, Reservations, Subnets, NetworkInterfaces, Items *[]struct{}
		Kind                                                    string
		ID                                                      *string // of a single resource of az
	}
	if bytes.HasPrefix(bytes.TrimLeft(d.bytes, " \t\r\n"), []byte("[")) {
		return g.az(d)
	}
	if err := d.decode(&top); err != nil {
		return err
	}
	switch {
	case top.ID == nil && (top.Reservations != nil || top.Subnets != nil || top.NetworkInterfaces != nil):
		return g.aws(d)
	case top.Items != nil:
		return g.kubernetes(d)
	case top.Values != nil:
		return g.serviceTags(d)
	}
	return &Error{File: d.path, Reason: "is no list of az, aws or kubectl, and no Azure service tags"}
}

// merge puts together what is said of the same prefix, gives each prefix what it does not say itself from those
// around it, and returns all in their order.
func (g *gatherer) merge() (*pb.Labels, error) {
	slices.SortStableFunc(g.all, func(a, b network) int {
		return cmp.Or(strings.Compare(a.tenant, b.tenant), a.prefix.Addr().Compare(b.prefix.Addr()), cmp.Compare(a.prefix.Bits(), b.prefix.Bits()), cmp.Compare(a.file, b.file))
	})
	var merged []*network
	for i := range g.all {
		n := &g.all[i]
		n.labels = sortLabels(n.labels)
		if len(merged) > 0 {
			if last := merged[len(merged)-1]; last.tenant == n.tenant && last.prefix == n.prefix {
				if what := last.differs(n); what != "" && last.file == n.file {
					return nil, &Error{lineless(n.where), lineOf(n.where), fmt.Sprintf("%s has two %s (the other in %s); leave one out, or put one into a file of another tenant, TENANT=FILE", n.prefix, what, last.where)}
				}
				last.inherit(n)
				continue
			}
		}
		merged = append(merged, n)
	}
	// Outer prefixes come before inner ones: what is around a prefix is complete when its turn comes.
	m := &pb.Networks{}
	var all bart.Table[*network]
	tenants := map[string]*bart.Table[*network]{}
	for _, n := range merged {
		t := &all
		if n.tenant != "" {
			if t = tenants[n.tenant]; t == nil {
				t = all.Clone()
				tenants[n.tenant] = t
			}
		}
		if same, ok := t.Get(n.prefix); ok {
			n.inherit(same)
		}
		for around, outer := range t.Supernets(n.prefix) {
			if around != n.prefix {
				n.inherit(outer)
				break
			}
		}
		t.Insert(n.prefix, n)
		m.Networks = append(m.Networks, &pb.Network{
			Tenant: n.tenant, Address: n.prefix.Addr().AsSlice(), Bits: uint32(n.prefix.Bits()),
			Name: n.name, Subnet: n.subnet, Vnet: n.vnet, Labels: n.labels, Owner: n.owner,
		})
	}
	return &pb.Labels{Body: &pb.Labels_Networks{Networks: m}}, nil
}

func lineless(where string) string {
	if i := strings.LastIndexByte(where, ':'); i >= 0 && lineOf(where) > 0 {
		return where[:i]
	}
	return where
}

func lineOf(where string) int {
	n, _ := strconv.Atoi(where[strings.LastIndexByte(where, ':')+1:])
	return n
}

// differs says which of the fields that both give is another, and what they are.
func (n *network) differs(o *network) string {
	for _, f := range []struct{ what, a, b string }{{"name", n.name, o.name}, {"subnet", n.subnet, o.subnet}, {"vnet", n.vnet, o.vnet}} {
		if f.a != "" && f.b != "" && f.a != f.b {
			return fmt.Sprintf("%ss, %q and %q", f.what, f.a, f.b)
		}
	}
	return ""
}

// inherit takes over what n does not say itself. Of labels it is those whose keys n does not have; of service tags,
// which all have the same key, those of the same prefix are joined.
func (n *network) inherit(o *network) {
	n.name, n.subnet, n.vnet = cmp.Or(n.name, o.name), cmp.Or(n.subnet, o.subnet), cmp.Or(n.vnet, o.vnet)
	if n.owner == pb.Network_UNKNOWN && !(n.foreign && o.owner == pb.Network_OWN) {
		n.owner, n.foreign = o.owner, n.foreign || o.foreign
	}
	keys := map[string]bool{}
	if n.prefix != o.prefix || n.file != o.file {
		for _, l := range n.labels {
			keys[key(l)] = true
		}
	}
	own := n.labels[:len(n.labels):len(n.labels)]
	for _, l := range o.labels {
		if !keys[key(l)] {
			own = append(own, l)
		}
	}
	n.labels = sortLabels(own)
}

func key(label string) string {
	k, _, _ := strings.Cut(label, "=")
	return k
}

func sortLabels(l []string) []string {
	slices.Sort(l)
	return slices.Compact(l)
}

// tags turns keys with values into labels.
func tags(m map[string]string) (l []string) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		l = append(l, k+"="+m[k])
	}
	return l
}

// Our own format. An entry has prefixes and what is known of them:
//
//	networks:
//	  - prefix: 10.1.0.0/16
//	    vnet: spoke-1
//	  - prefix: 10.1.2.0/24
//	    subnet: web
//	    labels: {env: prod}
//	hosts:
//	  - address: 10.1.2.4
//	    name: vm-web-1
func (g *gatherer) yaml(d *document) error {
	var doc, more yaml.Node
	r := yaml.NewDecoder(bytes.NewReader(d.bytes))
	if err := r.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		line, what := 0, strings.TrimPrefix(reason(err), "yaml: ")
		if _, e := fmt.Sscanf(what, "line %d:", &line); e == nil {
			_, what, _ = strings.Cut(what, ": ")
		}
		return &Error{d.path, line, what}
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return &Error{d.path, 1, "the keys networks and hosts are wanted, each with a list"}
	}
	if err := r.Decode(&more); !errors.Is(err, io.EOF) {
		return &Error{d.path, more.Line, "more than one document; put all networks and hosts into one"}
	}
	top := doc.Content[0].Content
	for i := 0; i+1 < len(top); i += 2 {
		k, list := top[i], anchored(top[i+1])
		if k.Value != "networks" && k.Value != "hosts" {
			return &Error{d.path, k.Line, fmt.Sprintf("unknown key %q, must be networks or hosts", k.Value)}
		}
		if list.Kind != yaml.SequenceNode {
			if list.Tag == "!!null" {
				continue
			}
			return &Error{d.path, list.Line, k.Value + " must be a list"}
		}
		for _, e := range list.Content {
			if err := g.yamlEntry(d, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// anchored is the node that an alias stands for.
func anchored(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// scalar is the text of a node: none of null.
func scalar(n *yaml.Node) string {
	if n.ShortTag() == "!!null" {
		return ""
	}
	return n.Value
}

func (g *gatherer) yamlEntry(d *document, e *yaml.Node) error {
	e = anchored(e)
	wrong := func(n *yaml.Node, format string, args ...any) error {
		return &Error{d.path, n.Line, fmt.Sprintf(format, args...)}
	}
	if e.Kind != yaml.MappingNode {
		return wrong(e, "an entry has keys with values: prefix, name, …")
	}
	n := network{owner: pb.Network_OWN, where: fmt.Sprintf("%s:%d", d.path, e.Line)}
	var prefixes []netip.Prefix
	for i := 0; i+1 < len(e.Content); i += 2 {
		k, v := e.Content[i], anchored(e.Content[i+1])
		var texts []string
		one := scalar(v)
		switch v.Kind {
		case yaml.ScalarNode:
			if one != "" {
				texts = []string{one}
			}
		case yaml.SequenceNode, yaml.MappingNode:
			for j, c := range v.Content {
				if c = anchored(c); c.Kind != yaml.ScalarNode {
					return wrong(c, "%s must be values, not lists of them", k.Value)
				}
				if text := scalar(c); v.Kind == yaml.SequenceNode || j%2 == 0 {
					texts = append(texts, text)
				} else {
					texts[len(texts)-1] += "=" + text
				}
			}
		}
		switch k.Value {
		case "prefix", "prefixes", "address", "addresses":
			for _, s := range texts {
				p, err := parsePrefix(s)
				if err != nil {
					return wrong(v, "%v", err)
				}
				prefixes = append(prefixes, p)
			}
			continue
		case "labels":
			for _, l := range texts {
				if !strings.Contains(l, "=") {
					return wrong(v, "label %q is not key=value", l)
				}
			}
			n.labels = texts
			continue
		}
		if v.Kind != yaml.ScalarNode {
			return wrong(v, "%s must be one value", k.Value)
		}
		if err := n.set(k.Value, one); err != nil {
			return wrong(k, "%v", err)
		}
	}
	if len(prefixes) == 0 {
		return wrong(e, "an entry without a prefix or an address")
	}
	for _, n.prefix = range prefixes {
		n.labels = slices.Clone(n.labels)
		g.add(n)
	}
	return nil
}

// set sets a field by its key.
func (n *network) set(key, value string) error {
	switch key {
	case "name":
		n.name = value
	case "subnet":
		n.subnet = value
	case "vnet":
		n.vnet = value
	case "tenant":
		n.tenant = value
	case "vni":
		if v, err := strconv.ParseUint(value, 10, 24); err == nil {
			n.tenant = fmt.Sprintf("vni-%d", v) // as collectors name it under the scope isolated
		} else if value != "" {
			return fmt.Errorf("vni %q is no number of 24 bits", value)
		}
	case "own":
		switch value {
		case "true", "":
		case "false":
			n.owner, n.foreign = pb.Network_UNKNOWN, true
		default:
			return fmt.Errorf("own must be true or false, not %q", value)
		}
	default:
		return fmt.Errorf("unknown key %q, must be one of prefix, address, name, subnet, vnet, labels, tenant, vni, own", key)
	}
	return nil
}

// csv reads the same with a column for each key. Labels are separated by blanks.
func (g *gatherer) csv(d *document) error {
	if err := lineEnds(d.path, d.bytes); err != nil {
		return err
	}
	r := csv.NewReader(bytes.NewReader(d.bytes))
	r.TrimLeadingSpace = true
	r.Comment = '#'
	var header []string
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		var p *csv.ParseError
		if errors.As(err, &p) {
			return &Error{d.path, p.Line, reason(p.Err)}
		} else if err != nil {
			return &Error{File: d.path, Reason: reason(err)}
		}
		line, _ := r.FieldPos(0)
		if header == nil {
			header = row
			if len(row) == 1 && strings.ContainsAny(row[0], ";\t|") {
				return &Error{d.path, line, fmt.Sprintf("the columns are not separated by commas: %q", row[0])}
			}
			if !slices.Contains(row, "prefix") && !slices.Contains(row, "address") {
				return &Error{d.path, line, "the first line must name the columns, one of them prefix"}
			}
			for _, column := range row {
				if slices.Contains([]string{"prefix", "address", "labels"}, column) {
					continue
				}
				if err := new(network).set(column, ""); err != nil {
					return &Error{d.path, line, reason(err)}
				}
			}
			continue
		}
		n := network{owner: pb.Network_OWN, where: fmt.Sprintf("%s:%d", d.path, line)}
		for i, value := range row {
			value = strings.TrimSpace(value)
			switch header[i] {
			case "prefix", "address":
				if n.prefix, err = parsePrefix(value); err != nil {
					return &Error{d.path, line, reason(err)}
				}
			case "labels":
				for _, l := range strings.Fields(value) {
					if !strings.Contains(l, "=") {
						return &Error{d.path, line, fmt.Sprintf("label %q is not key=value", l)}
					}
					n.labels = append(n.labels, l)
				}
			default:
				if err := n.set(header[i], value); err != nil {
					return &Error{d.path, line, reason(err)}
				}
			}
		}
		g.add(n)
	}
	if header == nil {
		return &Error{File: d.path, Reason: "has no line"}
	}
	return nil
}
