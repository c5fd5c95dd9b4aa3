package document

import (
	"math"
	"testing"

	"github.com/tapweave/tapweave/proto/columns"
	"github.com/tapweave/tapweave/proto/session"
)

func TestWriter(t *testing.T) {
	w := Begin([]byte("before "))
	mark := w.Mark()
	w.Open(`"empty":{`)
	w.Text(`"nothing":`, "")
	w.CloseUnlessEmpty(mark)
	mark = w.Mark()
	w.Open(`"none":[`)
	w.Element("")
	w.CloseListUnlessEmpty(mark)
	w.Raw(`"kind":"event","list":[1,2]`)
	from := w.Mark() + len(`,"a":`)
	mark = w.Mark()
	w.Open(`"a":{`)
	w.Text(`"brace":`, "{[")
	w.Uint(`"n":`, math.MaxUint64)
	w.Long(`"long":`, math.MaxUint64)
	w.Int(`"int":`, math.MaxInt64)
	w.CloseUnlessEmpty(mark)
	w.Copy(`"b":`, from, w.Mark())
	w.Open(`"objects":[`)
	for _, s := range []string{"x", "y"} {
		w.Open("{")
		w.Text(`"name":`, s)
		w.Close()
	}
	w.CloseList()
	w.Texts(`"texts":`, []string{"", "z"})
	Uints(&w, `"vlans":`, []uint16{1, 65535})
	w.Float(`"nan":`, math.NaN())
	w.Float(`"one":`, 1)
	w.Float(`"part":`, 0.125)
	w.MAC(`"mac":`, columns.MAC{0, 0x0d, 0x3a, 0xff, 0x34, 0x56}, '-')
	w.MAC(`"no_mac":`, columns.MAC{}, '-')
	w.ID(`"id":`, session.ID{0x5f, 15: 0x0c}, 7)
	w.Millis(`"ms":`, -1)
	w.Digits(`"digits":`, 58)
	const a = `{"brace":"{[","n":18446744073709551615,"long":9223372036854775807,"int":2147483647}`
	const want = `before {"kind":"event","list":[1,2],"a":` + a + `,"b":` + a + `,"objects":[{"name":"x"},{"name":"y"}],"texts":["","z"],` +
		`"vlans":[1,65535],"one":1,"part":0.125,"mac":"00-0D-3A-FF-34-56","id":"5f00000000000000000000000000000c:7","ms":-1,"digits":"58"}`
	if got := string(w.End()); got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
}
