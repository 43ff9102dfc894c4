package webhook

import (
	"regexp"
	"strings"
	"testing"

	"github.com/bmatcuk/doublestar/v4"
	"pgregory.net/rapid"
)

// The library doublestar is a second opinion. other is its answer where it differs; ADR 16 explains the
// differences.
func TestGlobs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, text string
		want          bool
		other         string // "yes" or "no"; empty: the same
	}{
		{"main", "main", true, ""},
		{"main", "mainline", false, ""},
		{"release-*", "release-1.2", true, ""},
		{"release-*", "release-1/2", false, ""},
		{"*", "a/b", false, ""},
		{"**", "a/b", true, ""},
		{"owner/*", "owner/name", true, ""},
		{"check_*", "check_run", true, ""},
		{"v?", "v1", true, ""},
		{"v?", "v12", false, ""},
		{"v?", "v/", false, ""},
		{"src/**/*.go", "src/a.go", true, ""},
		{"src/**/*.go", "src/a/b/c.go", true, ""},
		{"**/go.mod", "go.mod", true, ""},
		{"**/go.mod", "a/b/go.mod", true, ""},
		{"src/**", "src/a/b", true, ""},
		{`a\*b`, "a*b", true, ""},
		{`a\*b`, "axb", false, ""},
		{"é?", "éü", true, ""},

		// ** is any text at each place, as in the filters of GitHub's workflows.
		{"**.md", "docs/a.md", true, "no"},
		{"docs/**.md", "docs/a/b.md", true, "no"},
		{"feature**", "feature/one", true, "no"},
		{"a**z", "a/b/z", true, "no"},
		// The folder itself is not one of the files in it.
		{"src/**", "src", false, "yes"},
		// Brackets and braces are ordinary characters: logins and paths contain them.
		{"dependabot[bot]", "dependabot[bot]", true, "no"},
		{"*[bot]", "renovate[bot]", true, "no"},
		{"app/[slug]/page.tsx", "app/[slug]/page.tsx", true, "no"},
		{"v[12]", "v1", false, "yes"},
		{"{a,b}", "a", false, "yes"},
		{"{a,b}", "{a,b}", true, "no"},
		// A pattern that the library rejects matches nothing there.
		{"a[", "a[", true, "no"},
		{"a{", "a{", true, "no"},
	} {
		if got := compileGlobs([]string{c.pattern}, false).match(c.text); got != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.text, got)
		}
		want := c.want
		if c.other != "" {
			if want = c.other == "yes"; want == c.want {
				t.Errorf("%q, %q: the library does not differ", c.pattern, c.text)
			}
		}
		if got := doublestar.MatchUnvalidated(c.pattern, c.text); got != want {
			t.Errorf("the library: %q matches %q: %v", c.pattern, c.text, got)
		}
	}
	for list, want := range map[string]string{
		"a*,!ab": "a ac", "!ab": "a ac b", "a*,!ab,ab": "a ab ac", "!a*,ab": "ab b",
	} {
		var got []string
		for _, text := range []string{"a", "ab", "ac", "b"} {
			if compileGlobs(strings.Split(list, ","), false).match(text) {
				got = append(got, text)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s selects %q, want %q", list, got, want)
		}
	}
	if !compileGlobs([]string{"Ann-*"}, true).match("ann-É") || compileGlobs([]string{"ann"}, false).match("Ann") {
		t.Error("case of letters")
	}
}

// Where both give a pattern the same meaning, they agree.
func TestGlobs_agree_with_library(t *testing.T) {
	t.Parallel()
	inner := regexp.MustCompile(`\*\*\*|[^/]\*\*|\*\*[^/]|/\*\*$`)
	part := rapid.StringOfN(rapid.SampledFrom([]rune("ab*?é")), 1, 5, -1)
	text := rapid.StringOfN(rapid.SampledFrom([]rune("abé")), 1, 5, -1)
	rapid.Check(t, func(t *rapid.T) {
		pattern := strings.Join(rapid.SliceOfN(rapid.OneOf(part, rapid.Just("**"), rapid.Just("*")), 1, 4).Draw(t, "pattern"), "/")
		if inner.MatchString(pattern) {
			t.Skip("another meaning")
		}
		path := strings.Join(rapid.SliceOfN(text, 1, 4).Draw(t, "text"), "/")
		if ours, theirs := compileGlobs([]string{pattern}, false).match(path), doublestar.MatchUnvalidated(pattern, path); ours != theirs {
			t.Fatalf("%q matches %q: %v, the library: %v", pattern, path, ours, theirs)
		}
	})
}

func BenchmarkGlobs(b *testing.B) {
	const pattern, text = "src/**/test/*.go", "src/one/two/three/test/reading_test.go"
	b.Run("compiled", func(b *testing.B) {
		g := compileGlobs([]string{pattern}, false)
		for b.Loop() {
			g.match(text)
		}
	})
	b.Run("compile_and_match", func(b *testing.B) {
		for b.Loop() {
			compileGlobs([]string{pattern}, false).match(text)
		}
	})
	b.Run("library", func(b *testing.B) {
		for b.Loop() {
			doublestar.MatchUnvalidated(pattern, text)
		}
	})
}
