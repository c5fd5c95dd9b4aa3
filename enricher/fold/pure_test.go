package fold_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The fold is a function of its log. That is kept by what its packages may use: no clock, no randomness, no
// goroutine, no lock, nothing of the machine or the network, and no order of a map. The test reads the code of
// these packages, and of all packages of the project that they import.
var pure = []string{
	"github.com/tapweave/tapweave/enricher/fold",
	"github.com/tapweave/tapweave/enricher/output",
}

const project = "github.com/tapweave/tapweave/"

// generated code is protoc-gen-go's: its locks and its reflection are for descriptors, not for messages.
var generated = map[string]bool{project + "proto/pb": true}

// foreign are the packages that must not be imported; all below them too.
var foreign = []string{
	"crypto/rand", "hash/maphash", "log", "math/rand", "net", "os", "reflect", "runtime", "sync", "syscall", "unsafe", "weak",
}

// clocks are the functions of package time that look at one.
var clocks = []string{"After", "AfterFunc", "NewTicker", "NewTimer", "Now", "Since", "Sleep", "Tick", "Until"}

// allowed is what does no harm, and why: package, function or variable, what is found there.
var allowed = map[string]string{
	"enricher/application/dns: imports net/netip":                "addresses as texts",
	"proto/columns: imports net/netip":                           "addresses as values",
	"proto/packet: imports net/netip":                            "addresses as values",
	"enricher/labels: imports net/netip":                         "addresses as values",
	"enricher/scope: imports net/netip":                          "addresses as values",
	"proto/columns: imports sync":                                "for what is computed once, the same each time",
	"proto/columns: imports unsafe":                              "to align what is read, which the fold never does",
	"enricher/output: (*Stream).book: ranges over map s.traffic": "collects the keys, which are sorted before use",
	"proto/columns: schemaMessages: ranges over map tables":      "fills another map",
	"proto/delivery: (*Reader).Positions: uses maps.Keys":        "sorted before use",
	"enricher/output: (*Stream).revised: uses maps.Keys":         "sorted before use",
}

func TestFoldIsPure(t *testing.T) {
	found, err := impurities(pure)
	if err != nil {
		t.Fatal(err)
	}
	for what, where := range found {
		if allowed[what] == "" {
			t.Errorf("%s: %s\n(package fold must follow from its log alone; where this does no harm, give the reason in pure_test.go)", where, what)
		}
	}
	for what := range allowed {
		if found[what] == "" {
			t.Errorf("allowed, but not there any more: %s", what)
		}
	}
}

// listed is what go list says of a package.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	Imports                 []string
}

// impurities returns what is found in the packages and those of the project below them, and where.
func impurities(roots []string) (map[string]string, error) {
	cmd := exec.Command("go", append([]string{"list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,Imports"}, roots...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, &stderr)
	}
	packages := map[string]listed{}
	var ours []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		packages[p.ImportPath] = p
		if strings.HasPrefix(p.ImportPath, project) && !generated[p.ImportPath] {
			ours = append(ours, p)
		}
	}
	fset := token.NewFileSet()
	exports := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(packages[path].Export)
	})
	found := map[string]string{}
	for _, p := range ours {
		var files []*ast.File
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				return nil, err
			}
			files = append(files, f)
		}
		if err := inspect(fset, exports, strings.TrimPrefix(p.ImportPath, project), files, found); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// inspect adds what is found in one package.
func inspect(fset *token.FileSet, imp types.Importer, path string, files []*ast.File, found map[string]string) error {
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
	if _, err := (&types.Config{Importer: imp}).Check(path, fset, files, info); err != nil {
		return err
	}
	for _, f := range files {
		for _, i := range f.Imports {
			name := strings.Trim(i.Path.Value, `"`)
			for _, bad := range foreign {
				if name == bad || strings.HasPrefix(name, bad+"/") {
					found[path+": imports "+name] = fset.Position(i.Pos()).String()
				}
			}
		}
		for _, d := range f.Decls {
			in := ""
			say := func(n ast.Node, what string) {
				found[fmt.Sprintf("%s: %s: %s", path, in, what)] = fset.Position(n.Pos()).String()
			}
			look := func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.ValueSpec:
					if _, global := d.(*ast.GenDecl); global {
						in = n.Names[0].Name
					}
				case *ast.GoStmt:
					say(n, "starts a goroutine")
				case *ast.SelectStmt:
					say(n, "selects between channels")
				case *ast.RangeStmt:
					if _, ok := core(info.TypeOf(n.X)).(*types.Map); ok {
						say(n, "ranges over map "+types.ExprString(n.X))
					}
				case *ast.Ident:
					o := info.Uses[n]
					if o == nil || o.Pkg() == nil {
						break
					}
					_, isFunc := o.(*types.Func)
					switch o.Pkg().Path() {
					case "time":
						if isFunc && slices.Contains(clocks, o.Name()) && o.Parent() == o.Pkg().Scope() {
							say(n, "uses time."+o.Name())
						}
					case "maps":
						if slices.Contains([]string{"All", "Keys", "Values"}, o.Name()) {
							say(n, "uses maps."+o.Name())
						}
					}
				}
				return true
			}
			if fn, ok := d.(*ast.FuncDecl); ok {
				in = fn.Name.Name
				if fn.Recv != nil {
					in = "(" + types.ExprString(fn.Recv.List[0].Type) + ")." + in
				}
			}
			ast.Inspect(d, look)
		}
	}
	return nil
}

// core is the type below names and type parameters.
func core(t types.Type) types.Type {
	if p, ok := t.(*types.TypeParam); ok {
		u := p.Constraint().Underlying().(*types.Interface)
		for i := range u.NumEmbeddeds() {
			if union, ok := u.EmbeddedType(i).(*types.Union); ok && union.Len() > 0 {
				return union.Term(0).Type().Underlying()
			}
		}
	}
	return t.Underlying()
}

// The test itself sees what it is there to see.
func TestImpuritiesAreFound(t *testing.T) {
	const source = `package p
import ("maps"; "slices"; "sync"; "time")
type set map[int]bool
var mu sync.Mutex
var now = time.Now
func (s set) f() {
	for range s {}
	go func() {}()
	select {}
	_ = time.Since(time.Time{})
	_ = slices.Collect(maps.Keys(s))
	_ = time.Time{}.After(time.Unix(0, 0))
}
func g[M ~map[int]int](m M) { for range m {} }
`
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "p.go", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	if err := inspect(fset, importer.ForCompiler(fset, "source", nil), "p", []*ast.File{f}, found); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"p: imports sync", "p: now: uses time.Now", "p: (set).f: ranges over map s", "p: (set).f: starts a goroutine",
		"p: (set).f: selects between channels", "p: (set).f: uses time.Since", "p: (set).f: uses maps.Keys", "p: g: ranges over map m",
	}
	for _, w := range want {
		if found[w] == "" {
			t.Errorf("not found: %s", w)
		}
	}
	if len(found) != len(want) {
		t.Errorf("found %v", found)
	}
}
