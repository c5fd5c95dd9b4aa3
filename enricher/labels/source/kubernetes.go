package source

import (
	"net/netip"
	"slices"

	"github.com/tapweave/tapweave/proto/pb"
)

// kubernetes reads what kubectl get pods,services,nodes -A -o json prints. A pod's namespace is its label
// k8s_namespace; pods on the network of their node, and those that have ended, are left out: their addresses are
// others'. What services have on the outside may be a node's address, or that of several services: then it is the
// node's, or the first one's.
func (g *gatherer) kubernetes(d *document) error {
	var m struct {
		Items []struct {
			Kind     string `json:"kind"`
			Metadata struct {
				Name      string            `json:"name"`
				Namespace string            `json:"namespace"`
				Labels    map[string]string `json:"labels"`
			} `json:"metadata"`
			Spec struct {
				HostNetwork bool     `json:"hostNetwork"`
				NodeName    string   `json:"nodeName"`
				ClusterIPs  []string `json:"clusterIPs"`
				ExternalIPs []string `json:"externalIPs"`
				PodCIDRs    []string `json:"podCIDRs"`
			} `json:"spec"`
			Status struct {
				Phase  string `json:"phase"`
				PodIPs []struct {
					IP string `json:"ip"`
				} `json:"podIPs"`
				Addresses []struct {
					Type    string `json:"type"`
					Address string `json:"address"`
				} `json:"addresses"`
				LoadBalancer struct {
					Ingress []struct {
						IP string `json:"ip"`
					} `json:"ingress"`
				} `json:"loadBalancer"`
			} `json:"status"`
		} `json:"items"`
	}
	if err := d.decode(&m); err != nil {
		return err
	}
	taken := map[netip.Prefix]bool{}
	var outside []network
	for i := range m.Items {
		it := &m.Items[i]
		meta := &it.Metadata
		var texts, shared []string
		list := append(tags(meta.Labels), "k8s_kind="+it.Kind)
		if meta.Namespace != "" {
			list = append(list, "k8s_namespace="+meta.Namespace)
		}
		switch it.Kind {
		case "Pod":
			if it.Spec.HostNetwork || it.Status.Phase == "Succeeded" || it.Status.Phase == "Failed" {
				continue
			}
			for _, a := range it.Status.PodIPs {
				texts = append(texts, a.IP)
			}
			if it.Spec.NodeName != "" {
				list = append(list, "k8s_node="+it.Spec.NodeName)
			}
		case "Service":
			for _, a := range it.Spec.ClusterIPs {
				if a != "None" { // headless
					texts = append(texts, a)
				}
			}
			shared = it.Spec.ExternalIPs
			for _, a := range it.Status.LoadBalancer.Ingress {
				if a.IP != "" {
					shared = append(shared, a.IP)
				}
			}
		case "Node":
			for _, a := range it.Status.Addresses {
				if a.Type == "InternalIP" || a.Type == "ExternalIP" {
					texts = append(texts, a.Address)
				}
			}
			for _, c := range it.Spec.PodCIDRs {
				p, err := parsePrefix(c)
				if err != nil {
					return d.wrong(c, "node %s: %v", meta.Name, err)
				}
				g.add(network{prefix: p, subnet: "pods of " + meta.Name, labels: []string{"k8s_node=" + meta.Name}, owner: pb.Network_OWN})
			}
		}
		for k, t := range slices.Concat(texts, shared) {
			p, err := parsePrefix(t)
			if err != nil {
				return d.wrong(t, "%s %s: %v", it.Kind, meta.Name, err)
			}
			n := network{prefix: p, name: meta.Name, labels: slices.Clone(list), owner: pb.Network_OWN}
			if k >= len(texts) {
				outside = append(outside, n)
				continue
			}
			taken[p] = true
			g.add(n)
		}
	}
	for _, n := range outside {
		if !taken[n.prefix] {
			taken[n.prefix] = true
			g.add(n)
		}
	}
	return nil
}
