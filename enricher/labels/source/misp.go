package source

import (
	"fmt"
	"strings"
	"time"

	"github.com/tapweave/tapweave/enricher/labels"
)

// mispEvent is what is used of an event (MISP core format, draft-dulaunoy-misp-core-format).
type mispEvent struct {
	Info      string          `json:"info"`
	Attribute []mispAttribute `json:"Attribute"`
	Object    []struct {
		Attribute []mispAttribute `json:"Attribute"`
	} `json:"Object"`
}

type mispAttribute struct {
	Type     string `json:"type"`
	Value    string `json:"value"`
	Comment  string `json:"comment"`
	ToIDS    *bool  `json:"to_ids"`
	Deleted  bool   `json:"deleted"`
	LastSeen string `json:"last_seen"`
}

func (g *threatGatherer) event(e *mispEvent) error {
	before := g.given
	defer func() { g.given = before }()
	if e.Info != "" {
		g.given = e.Info
	}
	lists := [][]mispAttribute{e.Attribute}
	for _, o := range e.Object {
		lists = append(lists, o.Attribute)
	}
	for _, list := range lists {
		for i := range list {
			if err := g.misp(&list[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// misp takes in an attribute that is meant for detection and of a kind that sessions have. Its name is the event's.
func (g *threatGatherer) misp(a *mispAttribute) error {
	if a.Deleted || a.ToIDS != nil && !*a.ToIDS {
		return nil
	}
	value := strings.TrimSpace(a.Value)
	switch a.Type {
	case "ip-src", "ip-dst", "domain", "hostname":
	case "ip-src|port", "ip-dst|port", "hostname|port", "domain|ip":
		first, second, _ := strings.Cut(value, "|")
		value = first
		if a.Type == "domain|ip" {
			if err := g.text(second, "", 0, time.Time{}); err != nil {
				return fmt.Errorf("attribute %s: %w", a.Type, err)
			}
		}
	case "url", "uri", "link":
		if !strings.Contains(value, "://") {
			value = "http://" + value
		}
	case "ja3-fingerprint-md5":
		if !isHex(value, 32) {
			return fmt.Errorf("attribute %s: %.60q is no JA3", a.Type, value)
		}
		return g.add(labels.JA3, []byte(strings.ToLower(value)), "", 0, time.Time{})
	case "ja4-fingerprint", "ja4":
	default:
		g.unused++
		return nil
	}
	if err := g.text(value, "", 0, time.Time{}); err != nil {
		return fmt.Errorf("attribute %s: %w", a.Type, err)
	}
	return nil
}
