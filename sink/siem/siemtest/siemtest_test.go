package siemtest

import (
	"strings"
	"testing"

	"github.com/tapweave/tapweave/sink/siem"
	"github.com/tapweave/tapweave/sink/siem/asim"
	"github.com/tapweave/tapweave/sink/siem/ecs"
	"github.com/tapweave/tapweave/sink/siem/ocsf"
)

// The checks find what is wrong: each change to a valid document is noticed.
func TestCheck(t *testing.T) {
	for _, f := range []struct {
		name    string
		valid   string
		changes map[string]string // from, to
	}{
		{"ecs", string(ecs.Append(nil, Example())), map[string]string{
			`"kind":"event"`:                     `"kind":"events"`,
			`"category":["network"]`:             `"category":"network"`,
			`"ip":"10.0.0.4"`:                    `"ip":"10.0.0"`,
			`"port":49152`:                       `"port":"49152x"`,
			`"mac":"00-0D-3A-12-34-56"`:          `"mac":"00:0D:3A:12:34:56"`,
			`"transport":"tcp"`:                  `"transporter":"tcp"`,
			`"transport":"tcp",`:                 `"transport":"tcp","transport":"tcp",`,
			`"direction":"outbound"`:             `"direction":"out"`,
			`"ecs":{"version":"9.4.0"}`:          `"ecs.version":"9.4.0"`,
			`"duration":2500000000`:              `"duration":2.5`,
			`"start":"2026-03-01T09:15:02.1234`:  `"start":"2026-03-01 09:15:02.1234`,
			`"observer":{`:                       `"observer":{"x":1,`,
			`"organization":{"name":"EXAMPLE \"`: `"organization":{"name":7,"x":"`,
			`"id":"5f0c`:                         `"uid":"5f0c`,
		}},
		{"ocsf", string(ocsf.Append(nil, Example())), map[string]string{
			`"class_uid":4001`:                    `"class_uid":4009`,
			`"activity_id":2`:                     `"activity_id":42`,
			`"type_uid":400102`:                   `"type_uid":400106`,
			`"activity_name":"Close"`:             `"activity_name":"Closed"`,
			`"severity_id":1,`:                    ``,
			`"version":"1.8.0",`:                  ``,
			`"direction_id":2`:                    `"direction_id":77`,
			`"port":443`:                          `"port":65536`,
			`"ip":"10.0.0.4"`:                     `"ip":"ten"`,
			`"value":"e7d705a3286e19ea42f587b344`: `"value2":"e7d705a3286e19ea42f587b344`,
			`"traffic":{`:                         `"traffic":{"x":1,`,
			`"tls":{"version":"TLSv1.3",`:         `"tls":{`,
			`"type_id":2,"type":"IP Address"`:     `"type_id":2,"type":"Address"`,
			`"metadata":{`:                        `"osint":[],"metadata":{`,
			`"location":{"country":"US"}`:         `"location":{"desc":"US"}`,
			`"observables":[`:                     `"observables":[7,`,
			`"time":177`:                          `"time":"177`,
			`"protocol_ver_id":4`:                 `"protocol_ver_id":5`,
			`"hostname":"vm-web-1"`:               `"hostname":["vm-web-1"]`,
			`"is_src_dst_assignment_known":true`:  `"is_src_dst_assignment_known":1`,
		}},
		{"asim", string(asim.Append(nil, Example())), map[string]string{
			`"EventSchema":"NetworkSession"`:  `"EventSchema":"Network"`,
			`"EventSchemaVersion":"0.2.7"`:    `"EventSchemaVersion":"x"`,
			`"EventCount":1,`:                 ``,
			`"EventResult":"Success"`:         `"EventResult":"success"`,
			`"SrcIpAddr":"10.0.0.4"`:          `"SrcIpAddr":"10.0.0.5"`,
			`"NetworkDuration":2500`:          `"NetworkDuration":99999999999`,
			`"Duration":2500,"Src`:            `"Duration":2501,"Src`,
			`"DstDomainType":"FQDN",`:         ``,
			`"SrcMacAddr":"00:0D`:             `"SrcMacAddr":"00-0D`,
			`"NetworkProtocol":"TCP"`:         `"NetworkProtocol":"tcp"`,
			`"SrcBytes":1840`:                 `"SrcBytes":"1840"`,
			`"Dvc":"collector-1"`:             `"Dvc":""`,
			`"EventSeverity":"Informational"`: `"EventSeverity":"Info"`,
			`"DstGeoCountry":"US"`:            `"DstGeoCountry":"us"`,
			`"TimeGenerated"`:                 `"Time"`,
			`"AdditionalFields":{`:            `"More":{},"AdditionalFields":{`,
		}},
	} {
		schema := ByFormat(t, f.name)
		if found := schema.Check([]byte(f.valid)); len(found) > 0 {
			t.Errorf("%s: %q in %s", f.name, found, f.valid)
		}
		for from, to := range f.changes {
			changed := strings.Replace(f.valid, from, to, 1)
			if changed == f.valid {
				t.Errorf("%s: there is no %s in %s", f.name, from, f.valid)
			} else if found := schema.Check([]byte(changed)); len(found) == 0 {
				t.Errorf("%s: %s in place of %s is not noticed", f.name, to, from)
			}
		}
	}
}

// Every kind of session is a valid document in each schema.
func TestSessions(t *testing.T) {
	for _, f := range siem.Formats {
		schema := ByFormat(t, f.Name)
		for name, s := range Sessions() {
			b := f.Append(nil, s)
			if found := schema.Check(b); len(found) > 0 {
				t.Errorf("%s, %s: %q\n%s", f.Name, name, found, b)
			}
		}
	}
}

// So is every kind of alert, and it tells all that is known of it.
func TestAlerts(t *testing.T) {
	for _, f := range siem.Formats {
		schema := ByFormat(t, f.Name)
		for name, a := range Alerts() {
			b := f.AppendAlert(nil, a)
			if found := schema.Check(b); len(found) > 0 {
				t.Errorf("%s, %s: %q\n%s", f.Name, name, found, b)
			}
		}
		document, err := parse(f.AppendAlert(nil, ExampleAlert()))
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]bool{}
		leaves(document, have)
		for _, want := range []string{"default", "5f0c0000000000000000000000000055", "5f0c0000000000000000000000000055:threat:1772356502123456789", "threat",
			"10.0.0.4", "49152", "203.0.113.7", "443", "6", "botnet-c2", "90", ExampleAlert().Message} {
			if !have[want] {
				t.Errorf("%s: %s is nowhere", f.Name, want)
			}
		}
	}
}
