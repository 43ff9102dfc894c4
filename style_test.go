package agented_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// rejected lists phrases that docs/contributing/style.md rejects, with what to
// write instead.
var rejected = []struct{ pattern, better string }{
	{`whoever`, `name the client, user or process`},
	{`(?:somebody|nobody)(?: else)?`, `name the person or process`},
	{`(?:goes|go|went|going) on`, `continues, resumes, runs`},
	{`mend(?:s|ed|ing)?`, `fix`},
	{`likewise`, `also`},
	{`shall`, `must, or the present tense`},
	{`torments?`, `faults`},
	{`(?:is|are|was|were) told`, `is notified, logged, returned`},
	{`wait(?:s|ed|ing)? for the disk`, `fsync`},
	{`(?:gives?|gave) (?:its|the|their) slots? free`, `releases its slot`},
	{`anew`, `again; reopen, reread`},
	{`for ever`, `without limit, permanently`},
	{`stands? still`, `is stopped, hangs`},
	{`asked to end`, `terminated, stopped`},
	{`of (?:then|old|before)`, `earlier, stored`},
	{`talks? with`, `converses with, sends messages to`},
	{`has come round`, `has completed a cycle`},
	{`is at it|are at it`, `is running`},
	{`lets? go of`, `releases`},
	{`all the same`, `nevertheless; or leave it out`},
	{`the more so`, `especially`},
	{`by hand`, `manually`},
	{`everybody|anybody`, `all users, any client`},
	{`beside`, `next to, in addition to`},
	{`whose doing`, `who is responsible`},
	{`in so many words`, `explicitly`},
	{`is there twice`, `is repeated`},
	{`(?:says?|said) (?:so|why|no|yes)`, `reports, returns, explains`},
	{`cannot stand`, `is invalid, cannot be combined`},
	{`takes? (?:its|their) place`, `replaces`},
	{`begins? afresh`, `starts a new session`},
	{`in (?:vain|disorder)`, `without effect`},
	{`rests? (?:until|for a while)`, `cools down until`},
	{`has to be there`, `must exist`},
	{`comes? to (?:its|their|an) end`, `ends`},
	{`nobody knows`, `is unknown`},
	{`the asker`, `the client`},
	{`a stranger|strangers`, `outside user, external text`},
}

var rejectedPattern = func() *regexp.Regexp {
	parts := make([]string, len(rejected))
	for i, r := range rejected {
		parts[i] = "(" + r.pattern + ")"
	}
	return regexp.MustCompile(`(?i)\b(?:` + strings.Join(parts, "|") + `)\b`)
}()

// TestStyle checks texts against the style guide.
func TestStyle(t *testing.T) {
	t.Parallel()
	for _, path := range styledFiles(t) {
		if list := styleFindings(t, path); len(list) > 0 {
			t.Errorf("%s has rejected phrases (see docs/contributing/style.md):\n  %s", path, strings.Join(list, "\n  "))
		}
	}
}

// maxTestName is the most characters in the name of a test.
const maxTestName = 60

// styledFiles lists the tracked files that people read.
func styledFiles(t *testing.T) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "git", "ls-files", "*.md", "*.html", "*.go", "*.vue", "*.ts", "*.mjs", "*.yaml", "*.yml").Output()
	if err != nil {
		t.Skipf("SKIPPED: the style was not checked, since git cannot list the files: %v", err)
	}
	return slices.DeleteFunc(strings.Fields(string(out)), func(path string) bool {
		return strings.Contains(path, "testdata/") || path == "docs/contributing/style.md" || path == "docs/glossary.md" || path == "style_test.go" || path == "web/src/api/schema.d.ts" || path == "THIRD_PARTY_NOTICES.md"
	})
}

// styleFindings returns the rejected phrases and long test names of one file,
// with line and advice.
func styleFindings(t *testing.T, path string) (out []string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil // removed and not committed yet
	}
	if err != nil {
		t.Fatal(err)
	}
	check := func(line int, text string) {
		for _, m := range rejectedPattern.FindAllStringSubmatch(text, -1) {
			i := slices.IndexFunc(m[1:], func(s string) bool { return s != "" })
			out = append(out, fmt.Sprintf("%d: %q: write %s", line, m[0], rejected[i].better))
		}
	}
	if filepath.Ext(path) != ".go" {
		for i, line := range strings.Split(string(b), "\n") {
			check(i+1, line)
		}
		return out
	}
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, path, b, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range f.Comments {
		for _, c := range group.List {
			check(set.Position(c.Pos()).Line, c.Text)
		}
	}
	if strings.HasSuffix(path, "_test.go") {
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && len(fn.Name.Name) > maxTestName {
				out = append(out, fmt.Sprintf("%d: %s has %d characters: use at most %d, with subtests or TestNoun_condition", set.Position(fn.Pos()).Line, fn.Name.Name, len(fn.Name.Name), maxTestName))
			}
		}
		return out // their texts are data
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if text, err := strconv.Unquote(lit.Value); err == nil && strings.Contains(text, " ") {
				check(set.Position(lit.Pos()).Line, text)
			}
		}
		return true
	})
	return out
}
