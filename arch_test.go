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
	"sync"
	"testing"
)

// mayImport lists the packages of the module that each package may import.
// Every package may import the root; the root imports only the standard
// library.
var mayImport = map[string][]string{
	"":                            {},
	"bench":                       {},
	"cmd/agented":                 {"examples", "internal/agentcli", "internal/agentcli/registry", "internal/anthropicapi", "internal/app", "internal/backup", "internal/chaos", "internal/client", "internal/config", "internal/cron", "internal/diffview", "internal/discovery", "internal/doctor", "internal/format", "internal/logview", "internal/manifest", "internal/naming", "internal/redact", "internal/report", "internal/runlog", "internal/secret", "internal/serverlog", "internal/service", "internal/shim", "internal/store", "internal/term", "internal/trace", "internal/webhook"},
	"cmd/agshim":                  {"internal/shim"},
	"deploy/test/check":           {},
	"examples":                    {},
	"internal/agentcli":           {"internal/format"},
	"internal/agentcli/anthropic": {"internal/agentcli", "internal/agentcli/claude"},
	"internal/agentcli/claude":    {"internal/agentcli"},
	"internal/agentcli/codex":     {"internal/agentcli"},
	"internal/agentcli/command":   {"internal/agentcli"},
	"internal/agentcli/gemini":    {"internal/agentcli"},
	"internal/agentcli/opencode":  {"internal/agentcli"},
	"internal/agentcli/registry":  {"internal/agentcli", "internal/agentcli/anthropic", "internal/agentcli/claude", "internal/agentcli/codex", "internal/agentcli/command", "internal/agentcli/gemini", "internal/agentcli/opencode"},
	"internal/anthropicapi":       {"internal/filelock", "internal/format"},
	"internal/api":                {"examples", "internal/agentcli", "internal/agentcli/registry", "internal/api/attention", "internal/api/channels", "internal/api/conversations", "internal/api/diffs", "internal/api/hooks", "internal/api/identity", "internal/api/messages", "internal/api/pages", "internal/api/publications", "internal/api/rest", "internal/api/secrets", "internal/api/sse", "internal/auth", "internal/backup", "internal/config", "internal/contract", "internal/cron", "internal/disk", "internal/dispatch", "internal/format", "internal/hub", "internal/intake", "internal/logsearch", "internal/metrics", "internal/naming", "internal/notify", "internal/redact", "internal/retention", "internal/runlog", "internal/searchpath", "internal/secret", "internal/store", "internal/vault"},
	"internal/api/channels":       {"internal/api/rest", "internal/auth", "internal/cron", "internal/notices", "internal/notify", "internal/store"},
	"internal/api/conversations":  {"internal/api/rest", "internal/api/sse", "internal/format", "internal/remove", "internal/store"},
	"internal/api/attention":      {"internal/api/rest", "internal/store"},
	"internal/api/diffs":          {"internal/api/rest", "internal/api/sse", "internal/changes", "internal/redact", "internal/store"},
	"internal/api/hooks":          {"internal/api/rest", "internal/auth", "internal/github", "internal/intake", "internal/store", "internal/webhook"},
	"internal/api/identity":       {"internal/api/rest", "internal/auth", "internal/store"},
	"internal/api/messages":       {"internal/api/rest", "internal/api/sse", "internal/store"},
	"internal/api/pages":          {"internal/api/rest", "internal/auth", "internal/format", "internal/secret", "internal/store", "web"},
	"internal/api/publications":   {"internal/api/rest", "internal/redact", "internal/store"},
	"internal/api/rest":           {"internal/auth", "internal/config", "internal/format", "internal/metrics", "internal/ratelimit", "internal/store"},
	"internal/api/secrets":        {"internal/api/rest", "internal/store", "internal/vault"},
	"internal/api/sse":            {"internal/agentcli", "internal/agentcli/registry", "internal/api/rest", "internal/hub", "internal/redact", "internal/runlog"},
	"internal/app":                {"internal/agentcli", "internal/agentcli/registry", "internal/api", "internal/api/hooks", "internal/auth", "internal/backup", "internal/changes", "internal/client", "internal/config", "internal/conversation", "internal/costs", "internal/disk", "internal/dispatch", "internal/filelock", "internal/github", "internal/hub", "internal/localsocket", "internal/metrics", "internal/notify", "internal/publish", "internal/pull", "internal/redact", "internal/reseal", "internal/retention", "internal/sandbox", "internal/scheduler", "internal/searchpath", "internal/secret", "internal/shim", "internal/store", "internal/trace", "internal/vault", "internal/workspace", "web"},
	"internal/auth":               {"internal/config", "internal/disk", "internal/naming", "internal/ratelimit", "internal/secret", "internal/store"},
	"internal/backoff":            {},
	"internal/backup":             {"internal/cron", "internal/disk", "internal/filelock", "internal/format", "internal/remove", "internal/runlog", "internal/shim", "internal/store"},
	"internal/broker":             {"internal/egress"},
	"internal/changes":            {"internal/disk", "internal/format", "internal/remove"},
	"internal/chaos":              {"internal/client", "internal/config", "internal/runlog", "internal/shim"},
	"internal/client":             {"internal/disk", "internal/filelock", "internal/localsocket"},
	"internal/clireal":            {"internal/agentcli", "internal/agentcli/registry"},
	"internal/config":             {"internal/agentcli", "internal/agentcli/registry", "internal/dotenv"},
	"internal/contract":           {"internal/changes", "internal/format"},
	"internal/conversation":       {"internal/agentcli", "internal/agentcli/registry", "internal/printed", "internal/runlog", "internal/store"},
	"internal/costs":              {"internal/agentcli", "internal/agentcli/registry", "internal/printed", "internal/runlog", "internal/shim", "internal/store"},
	"internal/cron":               {"internal/format"},
	"internal/database":           {},
	"internal/deadman":            {"internal/notices"},
	"internal/diffview":           {"internal/client", "internal/term"},
	"internal/discovery":          {"internal/client", "internal/config"},
	"internal/disk":               {},
	"internal/dispatch":           {"internal/agentcli", "internal/agentcli/registry", "internal/backoff", "internal/broker", "internal/changes", "internal/contract", "internal/costs", "internal/cron", "internal/disk", "internal/format", "internal/printed", "internal/proposal", "internal/redact", "internal/remove", "internal/retention", "internal/runlog", "internal/sandbox", "internal/searchpath", "internal/shim", "internal/store", "internal/webhook", "internal/workspace"},
	"internal/doctor":             {"internal/agentcli", "internal/agentcli/registry", "internal/backup", "internal/config", "internal/disk", "internal/filelock", "internal/format", "internal/github", "internal/sandbox", "internal/searchpath", "internal/secret", "internal/service", "internal/shim", "internal/store"},
	"internal/dotenv":             {},
	"internal/egress":             {},
	"internal/filelock":           {},
	"internal/format":             {},
	"internal/github":             {},
	"internal/github/githubtest":  {"internal/github"},
	"internal/hub":                {"internal/redact", "internal/runlog"},
	"internal/intake":             {"internal/auth", "internal/config", "internal/dispatch", "internal/format", "internal/ratelimit", "internal/store", "internal/webhook"},
	"internal/localsocket":        {},
	"internal/logsearch":          {"internal/redact", "internal/runlog"},
	"internal/logview":            {"internal/agentcli", "internal/agentcli/registry", "internal/client", "internal/term"},
	"internal/manifest":           {"internal/cron", "internal/naming", "internal/term", "internal/webhook"},
	"internal/metrics":            {"internal/backup", "internal/dispatch", "internal/store"},
	"internal/naming":             {},
	"internal/notices":            {"internal/database", "internal/format", "internal/naming"},
	"internal/notify":             {"internal/cron", "internal/format", "internal/notices", "internal/redact", "internal/store"},
	"internal/policy":             {"internal/format"},
	"internal/postgres":           {"internal/database"},
	"internal/printed":            {"internal/redact", "internal/shim"},
	"internal/proposal":           {"internal/changes"},
	"internal/publish":            {"internal/changes", "internal/format", "internal/github", "internal/proposal", "internal/remove", "internal/store", "internal/webhook", "internal/workspace"},
	"internal/pull":               {"internal/config", "internal/github", "internal/intake", "internal/notices", "internal/store"},
	"internal/ratelimit":          {},
	"internal/redact":             {},
	"internal/remove":             {},
	"internal/report":             {"internal/format"},
	"internal/reseal":             {"internal/auth", "internal/notices", "internal/secret", "internal/store", "internal/vault"},
	"internal/retention":          {"internal/remove", "internal/shim", "internal/store"},
	"internal/runlog":             {"internal/disk", "internal/filelock"},
	"internal/sandbox":            {},
	"internal/scheduler":          {"internal/cron", "internal/dispatch", "internal/format", "internal/store"},
	"internal/searchpath":         {},
	"internal/secret":             {"internal/disk", "internal/filelock"},
	"internal/serverlog":          {"internal/config", "internal/redact", "internal/report", "internal/term", "internal/trace"},
	"internal/service":            {"internal/config", "internal/disk", "internal/filelock"},
	"internal/shim":               {"internal/broker", "internal/disk", "internal/filelock", "internal/format", "internal/redact", "internal/runlog", "internal/sandbox"},
	"internal/sqlite":             {"internal/database", "internal/filelock"},
	"internal/store":              {"internal/database", "internal/deadman", "internal/format", "internal/naming", "internal/notices", "internal/policy", "internal/postgres", "internal/sqlite"},
	"internal/term":               {"internal/config", "internal/format"},
	"internal/store/storetest":    {"internal/store", "internal/testrun"},
	"internal/testrun":            {},
	"internal/testrun/pgtest":     {},
	"internal/trace":              {},
	"internal/vault":              {"internal/redact", "internal/searchpath", "internal/secret", "internal/store"},
	"internal/webhook":            {"internal/format"},
	"internal/workspace":          {"internal/agentcli/registry", "internal/disk", "internal/filelock", "internal/format", "internal/remove"},
	"scripts/contain":             {"internal/testrun"},
	"scripts/pack":                {},
	"scripts/notices":             {},
	"scripts/testtable":           {},
	"web":                         {},
}

// noInit lists packages that must have no init: the shim is the same program,
// and one runs for each attempt.
var noInit = []string{"", "internal/disk", "internal/format", "internal/redact", "internal/runlog", "internal/sandbox", "internal/shim"}

// noDomain lists packages that must not import the root: they can be used
// without the product.
var noDomain = []string{"internal/database", "internal/postgres", "internal/sqlite"}

const module = "github.com/agented/agented"

// files returns every Go file of the module by folder.
func files(t *testing.T) map[string]map[string]*ast.File {
	t.Helper()
	all, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// positions holds the positions of all files.
var positions = token.NewFileSet()

// parsed parses the files once for all tests.
var parsed = sync.OnceValues(func() (map[string]map[string]*ast.File, error) {
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
		f, err := parser.ParseFile(positions, path, nil, parser.ParseComments|parser.SkipObjectResolution)
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
	return out, err
})

func TestImports(t *testing.T) {
	t.Parallel()
	for dir, parsed := range files(t) {
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
				case name == module && slices.Contains(noDomain, dir):
					t.Errorf("%s: %s may not import the root", path, dir)
				case isOurs && !test && !slices.Contains(allowed, ours):
					t.Errorf("%s: %s may not import %s", path, dir, ours)
				case dir == "" && !test && name != module && strings.Contains(strings.Split(name, "/")[0], "."):
					t.Errorf("%s: the root imports only the standard library, not %s", path, name)
				}
			}
		}
	}
}

// TestStore_engine_seam keeps the dialects apart: only these files of store name
// an engine.
func TestStore_engine_seam(t *testing.T) {
	t.Parallel()
	seam := []string{"errors.go", "file.go", "store.go"}
	for path, f := range files(t)["internal/store"] {
		if strings.HasSuffix(path, "_test.go") || slices.Contains(seam, filepath.Base(path)) {
			continue
		}
		for _, spec := range f.Imports {
			if name, _ := strconv.Unquote(spec.Path.Value); name == module+"/internal/sqlite" || name == module+"/internal/postgres" || strings.Contains(name, "modernc.org/sqlite") || strings.Contains(name, "jackc/pgx") {
				t.Errorf("%s imports %s: statements use the declarations of engine.go", path, name)
			}
		}
	}
}

func TestPackages_have_doc_comments(t *testing.T) {
	t.Parallel()
	for dir, parsed := range files(t) {
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

func TestShim_packages_have_no_init(t *testing.T) {
	t.Parallel()
	all := files(t)
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

func TestEnvironment_is_read_by_config_only(t *testing.T) {
	t.Parallel()
	// bench starts servers with their own environment; testrun is only in test binaries.
	exempt := []string{"internal/config", "internal/testrun", "internal/testrun/pgtest", "bench"}
	for dir, parsed := range files(t) {
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

func TestGitignore_secrets_and_data(t *testing.T) {
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
