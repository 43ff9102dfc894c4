package agented_test

import (
	"go/ast"
	"go/token"
	"maps"
	"slices"
	"strings"
	"testing"
)

// The limits of size. Code beyond them is listed below with its present size, which may only
// shrink.
const (
	maxFiles = 30 // product files in a package
	maxLines = 80 // lines in a function
)

// manyFiles lists the packages with more than maxFiles product files.
var manyFiles = map[string]int{
	"cmd/agented":   39, // one file a group of commands
	"internal/shim": 31,
}

// longFunctions lists the functions with more than maxLines lines.
var longFunctions = map[string]int{
	"deploy/test/check.main":          161, // a test program
	"internal/clireal.call.anthropic": 86,
}

// holdsContext lists the structs that store a context.
var holdsContext = map[string]string{
	"internal/postgres.Tx":     "a transaction ends with its context, as in database/sql",
	"internal/postgres.ReadTx": "a transaction ends with its context, as in database/sql",
	"internal/sqlite.Tx":       "a transaction ends with its context, as in database/sql",
	"internal/sqlite.ReadTx":   "a transaction ends with its context, as in database/sql",
}

// mutableGlobals lists the package variables that change while the program runs.
var mutableGlobals = map[string]string{
	"bench.keep":                     "keeps the optimizer from removing the measured work",
	"deploy/test/check.failures":     "a test program",
	"deploy/test/check.key":          "a test program",
	"internal/cron.zones":            "a cache of time zones",
	"internal/shim.program":          "the program of all shims of this process",
	"internal/shim.warmPool":         "the waiting shims of this process",
	"internal/testrun.template":      "the database that the tests of a package copy",
	"internal/testrun/pgtest.shared": "the server that the tests of a package share",
}

// productFiles returns the files of the module without tests, by folder.
func productFiles(t *testing.T) map[string]map[string]*ast.File {
	t.Helper()
	out := map[string]map[string]*ast.File{}
	for dir, parsed := range files(t) {
		for path, f := range parsed {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			if out[dir] == nil {
				out[dir] = map[string]*ast.File{}
			}
			out[dir][path] = f
		}
	}
	return out
}

// checkShrinking compares sizes above a limit with the list of exceptions.
func checkShrinking(t *testing.T, limit int, sizes, exceptions map[string]int) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(sizes)) {
		size, excepted := sizes[name], exceptions[name]
		switch {
		case size > max(limit, excepted):
			t.Errorf("%s has %d, and the limit is %d: split it", name, size, max(limit, excepted))
		case excepted > 0 && size < excepted:
			t.Errorf("%s has only %d now: change its exception from %d, or remove it at %d", name, size, excepted, limit)
		}
	}
	for name := range exceptions {
		if sizes[name] == 0 {
			t.Errorf("%s does not exist any more: remove its exception", name)
		}
	}
}

func TestPackages_have_few_files(t *testing.T) {
	t.Parallel()
	sizes := map[string]int{}
	for dir, parsed := range productFiles(t) {
		sizes[dir] = len(parsed)
	}
	checkShrinking(t, maxFiles, sizes, manyFiles)
}

func TestFunctions_are_short(t *testing.T) {
	t.Parallel()
	sizes := map[string]int{}
	for dir, parsed := range productFiles(t) {
		for _, f := range parsed {
			for _, decl := range f.Decls {
				if fn, ok := decl.(*ast.FuncDecl); ok {
					sizes[strings.TrimPrefix(dir+"."+functionName(fn), ".")] = positions.Position(fn.End()).Line - positions.Position(fn.Pos()).Line + 1
				}
			}
		}
	}
	checkShrinking(t, maxLines, sizes, longFunctions)
}

// functionName returns the name of a function, with its receiver.
func functionName(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return fn.Name.Name
	}
	typ := fn.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	switch x := typ.(type) {
	case *ast.IndexExpr:
		typ = x.X
	case *ast.IndexListExpr:
		typ = x.X
	}
	if id, ok := typ.(*ast.Ident); ok {
		return id.Name + "." + fn.Name.Name
	}
	return fn.Name.Name
}

// checkNames compares findings with a list of exceptions.
func checkNames(t *testing.T, found map[string]string, exceptions map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if exceptions[name] == "" {
			t.Errorf("%s %s", name, found[name])
		}
	}
	for name := range exceptions {
		if found[name] == "" {
			t.Errorf("%s: the exception is not needed any more: remove it", name)
		}
	}
}

func TestStructs_store_no_context(t *testing.T) {
	t.Parallel()
	found := map[string]string{}
	for dir, parsed := range productFiles(t) {
		for _, f := range parsed {
			ast.Inspect(f, func(n ast.Node) bool {
				spec, ok := n.(*ast.TypeSpec)
				if !ok {
					return true
				}
				s, ok := spec.Type.(*ast.StructType)
				if !ok {
					return true
				}
				for _, field := range s.Fields.List {
					if sel, ok := field.Type.(*ast.SelectorExpr); ok && sel.Sel.Name == "Context" && isPackage(sel.X, "context") {
						found[dir+"."+spec.Name.Name] = "stores a context: pass it to the methods"
					}
				}
				return true
			})
		}
	}
	checkNames(t, found, holdsContext)
}

func isPackage(x ast.Expr, name string) bool {
	id, ok := x.(*ast.Ident)
	return ok && id.Name == name
}

func TestPackages_have_no_mutable_variables(t *testing.T) {
	t.Parallel()
	found := map[string]string{}
	for dir, parsed := range productFiles(t) {
		globals := map[string]bool{}
		for _, f := range parsed {
			for _, decl := range f.Decls {
				gen, ok := decl.(*ast.GenDecl)
				if !ok || gen.Tok != token.VAR {
					continue
				}
				for _, spec := range gen.Specs {
					v := spec.(*ast.ValueSpec)
					for _, name := range v.Names {
						if globals[name.Name] = name.Name != "_"; isState(v) {
							found[dir+"."+name.Name] = "is state of the package: make it a field of a type"
						}
					}
				}
			}
		}
		for _, f := range parsed {
			for _, decl := range f.Decls {
				fn, ok := decl.(*ast.FuncDecl)
				if !ok || fn.Body == nil {
					continue
				}
				locals := localNames(fn)
				for _, name := range assigned(fn.Body) {
					if globals[name] && !locals[name] {
						found[dir+"."+name] = "is assigned by " + functionName(fn) + ": make it a field of a type"
					}
				}
			}
		}
	}
	checkNames(t, found, mutableGlobals)
}

// isState reports whether a variable has a type of sync or sync/atomic that holds state. Values
// that are computed once are constants in effect.
func isState(v *ast.ValueSpec) bool {
	state := false
	inspect := func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && (isPackage(sel.X, "atomic") || isPackage(sel.X, "sync") && !strings.HasPrefix(sel.Sel.Name, "Once") && sel.Sel.Name != "Pool") {
			state = true
		}
		_, isFunc := n.(*ast.FuncLit)
		return !isFunc
	}
	if v.Type != nil {
		ast.Inspect(v.Type, inspect)
	}
	for _, value := range v.Values {
		ast.Inspect(value, inspect)
	}
	return state
}

// localNames returns the names that a function declares.
func localNames(fn *ast.FuncDecl) map[string]bool {
	names := map[string]bool{}
	add := func(list *ast.FieldList) {
		if list == nil {
			return
		}
		for _, field := range list.List {
			for _, name := range field.Names {
				names[name.Name] = true
			}
		}
	}
	add(fn.Recv)
	ast.Inspect(fn, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncType:
			add(n.Params)
			add(n.Results)
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				for _, x := range n.Lhs {
					if id, ok := x.(*ast.Ident); ok {
						names[id.Name] = true
					}
				}
			}
		case *ast.RangeStmt:
			for _, x := range []ast.Expr{n.Key, n.Value} {
				if id, ok := x.(*ast.Ident); ok && n.Tok == token.DEFINE {
					names[id.Name] = true
				}
			}
		case *ast.ValueSpec:
			for _, name := range n.Names {
				names[name.Name] = true
			}
		}
		return true
	})
	return names
}

// assigned returns the names of the variables that a function assigns, wholly or in part.
func assigned(body ast.Node) []string {
	var names []string
	target := func(x ast.Expr) {
		for {
			switch y := x.(type) {
			case *ast.Ident:
				names = append(names, y.Name)
				return
			case *ast.SelectorExpr:
				x = y.X
			case *ast.IndexExpr:
				x = y.X
			default:
				return
			}
		}
	}
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, x := range n.Lhs {
				if n.Tok != token.DEFINE {
					target(x)
				}
			}
		case *ast.IncDecStmt:
			target(n.X)
		}
		return true
	})
	return names
}
