package agented_test

import (
	"fmt"
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pagesIn returns the Markdown files of the documentation with their content.
func pagesIn(t *testing.T, patterns ...string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, pattern := range patterns {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			out[path] = string(b)
		}
	}
	return out
}

// TestDocumentedTests checks that the tests which pages name exist, and that
// every requirement names one.
func TestDocumentedTests(t *testing.T) {
	t.Parallel()
	exists := map[string]bool{}
	for _, parsed := range files(t) {
		for path, f := range parsed {
			for _, decl := range f.Decls {
				if fn, ok := decl.(*ast.FuncDecl); ok && strings.HasSuffix(path, "_test.go") {
					exists[fn.Name.Name] = true
				}
			}
		}
	}
	name := regexp.MustCompile("`(Test[A-Z]\\w*)[`/]")
	pages := pagesIn(t, "*.md", "docs/*.md", "docs/*/*.md")
	for path, text := range pages {
		for _, m := range name.FindAllStringSubmatch(text, -1) {
			if !exists[m[1]] && m[1] != "TestX" && m[1] != "TestPark" && m[1] != "TestNoun" { // forms of names
				t.Errorf("%s names %s, which is no test", path, m[1])
			}
		}
	}
	const requirements = "docs/contributing/requirements.md"
	items := regexp.MustCompile(`\n\d+\. `).Split(pages[requirements], -1)
	if len(items) < 50 {
		t.Fatalf("%s has %d requirements", requirements, len(items)-1)
	}
	for i, item := range items[1:] {
		if !strings.Contains(item, "MUST") || !name.MatchString(item) {
			t.Errorf("%s: requirement %d lacks MUST or a test", requirements, i+1)
		}
	}
}

// TestDecisionRecords checks that the records have one form and no gaps in
// their numbers, and that the index lists them.
func TestDecisionRecords(t *testing.T) {
	t.Parallel()
	records := pagesIn(t, "docs/adr/0*.md")
	index := pagesIn(t, "docs/adr/README.md")["docs/adr/README.md"]
	var paths []string
	for path := range records {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for i, path := range paths {
		if want := fmt.Sprintf("docs/adr/%04d-", i+1); !strings.HasPrefix(path, want) {
			t.Fatalf("%s: the number after %d is missing", path, i)
		}
		if want := fmt.Sprintf("# %d. ", i+1); !strings.HasPrefix(records[path], want) {
			t.Errorf("%s does not start with %q", path, want)
		}
		at := 0
		for _, part := range []string{"\n- Status: ", "\n- Date: ", "\n## Context\n", "\n## Options\n", "\n## Decision\n", "\n## Consequences\n"} {
			n := strings.Index(records[path][at:], part)
			if n < 0 {
				t.Errorf("%s lacks %q, or has it in another place", path, strings.TrimSpace(part))
				continue
			}
			at += n
		}
		if !strings.Contains(index, "("+filepath.Base(path)+")") {
			t.Errorf("docs/adr/README.md does not list %s", path)
		}
	}
}

// TestIndexes checks that the index of the documentation lists every page, the
// architecture every package, and the guarantees at most 15 promises.
func TestIndexes(t *testing.T) {
	t.Parallel()
	pages := pagesIn(t, "docs/*.md", "docs/*/*.md")
	for path := range pages {
		link := "(" + strings.TrimPrefix(path, "docs/") + ")"
		if path != "docs/README.md" && !strings.HasPrefix(path, "docs/adr/0") && !strings.Contains(pages["docs/README.md"], link) {
			t.Errorf("docs/README.md does not list %s", path)
		}
	}
	for dir := range files(t) {
		if name, ok := strings.CutPrefix(dir, "internal/"); ok && !strings.Contains(pages["docs/contributing/architecture.md"], "`"+name+"`") {
			t.Errorf("docs/contributing/architecture.md does not list the package %s", name)
		}
	}
	if n := len(regexp.MustCompile(`(?m)^\d+\. `).FindAllString(pages["docs/guarantees.md"], -1)); n == 0 || n > 15 {
		t.Errorf("docs/guarantees.md has %d promises", n)
	}
}
