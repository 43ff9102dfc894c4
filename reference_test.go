package agented_test

import (
	"go/ast"
	"go/token"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/agented/agented"
)

// TestReferencePages checks that the reference describes every field of a
// trigger, every placeholder, every metric and every change event.
func TestReferencePages(t *testing.T) {
	t.Parallel()
	pages := pagesIn(t, "docs/reference/*.md")
	for _, c := range []struct{ dir, kind, page, prefix string }{
		{"internal/api", "TriggerFields", "trigger-file.md", ""},
		{"internal/api", "SpecFields", "trigger-file.md", ""},
		{"internal/api", "MessageRuleFields", "trigger-file.md", ""},
		{".", "Choice", "trigger-file.md", ""},
		{".", "Workspace", "trigger-file.md", ""},
		{".", "RetryPolicy", "trigger-file.md", "retry."},
		{"internal/api", "ScheduleFields", "schedules.md", ""},
		{"internal/api/hooks", "WebhookFields", "webhooks.md", ""},
		{"internal/webhook", "Auth", "webhooks.md", ""},
		{"internal/webhook", "Match", "webhooks.md", ""},
	} {
		names := jsonNames(t, c.dir, c.kind)
		if len(names) < 2 {
			t.Errorf("%s has no type %s with JSON fields", c.dir, c.kind)
		}
		for _, name := range names {
			described := strings.Contains(pages["docs/reference/"+c.page], "`"+c.prefix+name+"`")
			if inTable := name == "kind" || name == "unsigned"; !described && !inTable { // the table of senders
				t.Errorf("docs/reference/%s does not describe the field %s of %s", c.page, name, c.kind)
			}
		}
	}
	for _, p := range agented.Placeholders {
		if !strings.Contains(pages["docs/reference/trigger-file.md"], "`{"+p.Name+"}`") {
			t.Errorf("docs/reference/trigger-file.md does not describe the placeholder {%s}", p.Name)
		}
	}
	metrics := stringsIn(t, "internal/metrics", regexp.MustCompile(`^agented_[a-z_]+$`))
	if len(metrics) < 20 {
		t.Errorf("only %d metrics were found", len(metrics))
	}
	for _, name := range metrics {
		if !strings.Contains(pages["docs/reference/metrics.md"], "`"+name+"`") {
			t.Errorf("docs/reference/metrics.md does not describe %s", name)
		}
	}
	events := constantsOf(t, "internal/api/sse", "Change")
	if len(events) < 5 {
		t.Errorf("only %d change events were found", len(events))
	}
	for _, name := range events {
		if !strings.Contains(pages["docs/reference/streams.md"], "\n| `"+name+"` |") {
			t.Errorf("docs/reference/streams.md does not describe the change event %s", name)
		}
	}
}

// inPackage calls visit for every node of a package, tests left out.
func inPackage(t *testing.T, dir string, visit func(ast.Node) bool) {
	t.Helper()
	found := false
	for at, parsed := range files(t) {
		if at != strings.TrimPrefix(dir, ".") && at != dir {
			continue
		}
		for path, f := range parsed {
			if !strings.HasSuffix(path, "_test.go") {
				found = true
				ast.Inspect(f, visit)
			}
		}
	}
	if !found {
		t.Fatalf("%s has no Go files", dir)
	}
}

// jsonNames lists the JSON names of the fields of a struct.
func jsonNames(t *testing.T, dir, kind string) (out []string) {
	t.Helper()
	inPackage(t, dir, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok || spec.Name.Name != kind {
			return true
		}
		s, ok := spec.Type.(*ast.StructType)
		if !ok {
			return true
		}
		for _, f := range s.Fields.List {
			if f.Tag == nil {
				continue
			}
			tag, _ := strconv.Unquote(f.Tag.Value)
			if name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ","); name != "" && name != "-" {
				out = append(out, name)
			}
		}
		return false
	})
	return out
}

// stringsIn lists the string literals of a package that have a form.
func stringsIn(t *testing.T, dir string, form *regexp.Regexp) (out []string) {
	t.Helper()
	inPackage(t, dir, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil && form.MatchString(s) && !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
		return true
	})
	return out
}

// constantsOf lists the values of the string constants of a type.
func constantsOf(t *testing.T, dir, kind string) (out []string) {
	t.Helper()
	inPackage(t, dir, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); !ok || id.Name != kind {
			return true
		}
		for _, v := range spec.Values {
			if lit, ok := v.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				s, _ := strconv.Unquote(lit.Value)
				out = append(out, s)
			}
		}
		return true
	})
	return out
}
