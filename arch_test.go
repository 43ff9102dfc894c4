package agented_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mayImport is the floor plan: which of our packages each package may import.
// Everyone may import the root; the root imports only the standard library.
var mayImport = map[string][]string{
	"":                   {},
	"bench":              {},
	"cmd/agshim":         {"internal/shim"},
	"cmd/agented":        {"internal/app", "internal/ask", "internal/backend", "internal/backup", "internal/client", "internal/config", "internal/cron", "internal/doctor", "internal/redact", "internal/report", "internal/runlog", "internal/secret", "internal/service", "internal/shim", "internal/store", "internal/trace", "internal/webhook"},
	"deploy/test/check":  {},
	"internal/api":       {"internal/backend", "internal/backup", "internal/config", "internal/cron", "internal/dispatch", "internal/hub", "internal/redact", "internal/runlog", "internal/secret", "internal/store", "internal/webhook", "web"},
	"internal/app":       {"internal/api", "internal/backend", "internal/backup", "internal/client", "internal/config", "internal/dispatch", "internal/hub", "internal/redact", "internal/secret", "internal/shim", "internal/store", "internal/workspace", "internal/trace", "web"},
	"internal/ask":       {},
	"internal/backend":   {},
	"internal/backup":    {"internal/cron", "internal/runlog", "internal/shim", "internal/store"},
	"internal/client":    {},
	"internal/clireal":   {"internal/backend"},
	"internal/config":    {"internal/dotenv"},
	"internal/cron":      {},
	"internal/dispatch":  {"internal/backend", "internal/cron", "internal/runlog", "internal/shim", "internal/store", "internal/webhook", "internal/workspace"},
	"internal/doctor":    {"internal/backend", "internal/backup", "internal/config", "internal/secret", "internal/service", "internal/shim", "internal/store"},
	"internal/dotenv":    {},
	"internal/hub":       {"internal/redact", "internal/runlog"},
	"internal/redact":    {},
	"internal/report":    {},
	"internal/runlog":    {},
	"internal/secret":    {},
	"internal/service":   {},
	"internal/shim":      {"internal/redact", "internal/runlog"},
	"internal/store":     {},
	"internal/trace":     {},
	"internal/webhook":   {},
	"internal/workspace": {},
	"web":                {},
}

// noInit lists packages of which nothing may happen before main: the shim is
// the same program, and there is one for each running attempt.
var noInit = []string{"", "internal/redact", "internal/runlog", "internal/shim"}

const module = "github.com/agented/agented"

// files parses every Go file of the module, by the folder it is in.
func files(t *testing.T, mode parser.Mode) map[string]map[string]*ast.File {
	t.Helper()
	out := map[string]map[string]*ast.File{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules" || name == "data" || name == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, mode)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		if dir == "." {
			dir = ""
		}
		if out[dir] == nil {
			out[dir] = map[string]*ast.File{}
		}
		out[dir][path] = f
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestImportsGoDownstairsOnly(t *testing.T) {
	t.Parallel()
	for dir, parsed := range files(t, parser.ImportsOnly) {
		allowed, known := mayImport[dir]
		if !known {
			t.Errorf("package %s is not on the floor plan: add it to mayImport with what it may import", dir)
			continue
		}
		for path, f := range parsed {
			test := strings.HasSuffix(path, "_test.go")
			for _, spec := range f.Imports {
				name, _ := strconv.Unquote(spec.Path.Value)
				ours, isOurs := strings.CutPrefix(name, module+"/")
				switch {
				case isOurs && !test && !slices.Contains(allowed, ours):
					t.Errorf("%s: %s may not import %s", path, dir, ours)
				case dir == "" && !test && name != module && strings.Contains(strings.Split(name, "/")[0], "."):
					t.Errorf("%s: the root imports only the standard library, not %s", path, name)
				}
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	t.Parallel()
	for dir, parsed := range files(t, parser.ParseComments) {
		var docs []string
		for path, f := range parsed {
			if f.Doc != nil && !strings.HasSuffix(path, "_test.go") {
				docs = append(docs, path)
			}
		}
		onlyTests := true
		for path := range parsed {
			onlyTests = onlyTests && strings.HasSuffix(path, "_test.go")
		}
		if len(docs) != 1 && !onlyTests {
			t.Errorf("package %q has %d doc comments (%v), want one", dir, len(docs), docs)
		}
	}
}

func TestNothingHappensBeforeMainInTheShim(t *testing.T) {
	t.Parallel()
	all := files(t, 0)
	for _, dir := range noInit {
		for path, f := range all[dir] {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			for _, decl := range f.Decls {
				fn, ok := decl.(*ast.FuncDecl)
				if ok && fn.Recv == nil && fn.Name.Name == "init" {
					t.Errorf("%s has an init function", path)
				}
				gen, ok := decl.(*ast.GenDecl)
				if !ok || gen.Tok != token.VAR {
					continue
				}
				for _, spec := range gen.Specs {
					for _, value := range spec.(*ast.ValueSpec).Values {
						call, ok := value.(*ast.CallExpr)
						if !ok {
							continue
						}
						if sel, ok := call.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "MustCompile" {
							t.Errorf("%s compiles a pattern before main", path)
						}
					}
				}
			}
		}
	}
}

func TestOnlyConfigReadsTheEnvironment(t *testing.T) {
	t.Parallel()
	// cmd/agented hands the environment to config as a function; bench starts
	// servers with one of its own.
	exempt := []string{"internal/config", "cmd/agented", "bench"}
	for dir, parsed := range files(t, 0) {
		if slices.Contains(exempt, dir) {
			continue
		}
		for path, f := range parsed {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				pkg, ok := sel.X.(*ast.Ident)
				if ok && pkg.Name == "os" && slices.Contains([]string{"Getenv", "LookupEnv", "Environ", "ExpandEnv"}, sel.Sel.Name) {
					t.Errorf("%s reads the environment with os.%s: let internal/config do it", path, sel.Sel.Name)
				}
				return true
			})
		}
	}
}

func TestSecretsAndDataAreIgnoredByGit(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed, so what it ignores cannot be asked")
	}
	if _, err := os.Stat(".git"); err != nil {
		t.Skip("not a git checkout, so what git ignores cannot be asked")
	}
	for _, path := range []string{".env", ".secret_key", "data/agented.db", "agented.db", "agented.db-wal", "agented.db.lock", "sub/.env", "data/.secret_key"} {
		if err := exec.Command("git", "check-ignore", "-q", path).Run(); err != nil {
			t.Errorf("git does not ignore %s: %v", path, err)
		}
	}
	for _, path := range []string{".env.example", "web/dist/index.html", "cmd/agented/main.go"} {
		if err := exec.Command("git", "check-ignore", "-q", path).Run(); err == nil {
			t.Errorf("git ignores %s, which belongs to the repository", path)
		}
	}
}

func TestEveryGuaranteeNamesTestsThatExist(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("docs/guarantees.md")
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, parsed := range files(t, parser.SkipObjectResolution) {
		for path, f := range parsed {
			for _, decl := range f.Decls {
				if fn, ok := decl.(*ast.FuncDecl); ok && strings.HasSuffix(path, "_test.go") {
					there[fn.Name.Name] = true
				}
			}
		}
	}
	promises := strings.Split(string(doc), "\n1. ")
	if len(promises) < 2 {
		t.Fatal("docs/guarantees.md lists nothing")
	}
	for item := range strings.SplitSeq(string(doc), "MUST") {
		for word := range strings.SplitSeq(item, "`") {
			if strings.HasPrefix(word, "Test") && !there[word] {
				t.Errorf("docs/guarantees.md names %s, which is no test", word)
			}
		}
	}
}
