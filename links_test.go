package agented_test

import (
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

var (
	// markdownLink is the target of an inline link or image.
	markdownLink = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	// pageName is the path of a page or picture, as Go, Vue and other files
	// name it.
	pageName = regexp.MustCompile(`(?:^|[^\w/.-])(?:\./|(?:\.\./)*)(docs/[\w./-]+\.(?:md|png|svg|json|yaml))(#[\w-]+)?`)
)

// inventedPages are files whose docs/ paths belong to the repositories of their
// test cases.
var inventedPages = []string{"internal/webhook/", "internal/workspace/", "web/src/components/MatchEditor.vue", "links_test.go"}

// TestLinks checks that every relative link of a Markdown file and every docs/
// path in any text file leads to a file of the repository, and every anchor to a
// heading.
func TestLinks(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "git", "ls-files").Output()
	if err != nil {
		t.Skipf("SKIPPED: links were not checked, since git cannot list the files: %v", err)
	}
	pages := map[string]map[string]bool{} // anchors by page
	anchors := func(file string) map[string]bool {
		if pages[file] == nil {
			pages[file] = headings(t, file)
		}
		return pages[file]
	}
	check := func(from, target, anchor string) {
		if _, err := os.Stat(target); err != nil {
			t.Errorf("%s refers to %s, which does not exist", from, target)
			return
		}
		if anchor != "" && path.Ext(target) == ".md" && !anchors(target)[anchor] {
			t.Errorf("%s refers to %s#%s, a heading that does not exist", from, target, anchor)
		}
	}
	for file := range strings.SplitSeq(strings.TrimSpace(string(out)), "\n") {
		text, ok := readableText(file)
		if !ok {
			continue
		}
		if path.Ext(file) == ".md" {
			for _, m := range markdownLink.FindAllStringSubmatch(withoutCode(text), -1) {
				target, anchor, _ := strings.Cut(m[1], "#")
				switch {
				case strings.Contains(m[1], ":") || strings.HasPrefix(m[1], "/"):
				case target == "":
					check(file, file, anchor)
				default:
					check(file, path.Join(path.Dir(file), target), anchor)
				}
			}
		}
		if hasPrefixOf(file, inventedPages) {
			continue
		}
		for _, m := range pageName.FindAllStringSubmatch(text, -1) {
			check(file, m[1], strings.TrimPrefix(m[2], "#"))
		}
	}
}

func hasPrefixOf(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

// readableText returns the content of a file that people write.
func readableText(file string) (string, bool) {
	if strings.Contains(file, "testdata/") || filepath.Base(file) == "package-lock.json" {
		return "", false
	}
	switch filepath.Ext(file) {
	case ".png", ".svg", ".ico", ".woff2", ".gz", ".zst":
		return "", false
	}
	b, err := os.ReadFile(file)
	return string(b), err == nil
}

// withoutCode blanks fenced blocks and code spans, which hold no links.
func withoutCode(text string) string {
	var b strings.Builder
	fenced := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		if fenced {
			continue
		}
		b.WriteString(codeSpan.ReplaceAllString(line, "`"))
	}
	return b.String()
}

var codeSpan = regexp.MustCompile("`[^`]*`")

// headings returns the anchors that a Markdown page offers.
func headings(t *testing.T, file string) map[string]bool {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	fenced := false
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
		}
		title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " ")
		if fenced || !ok || !strings.HasPrefix(line, "#") {
			continue
		}
		out[slug(title)] = true
	}
	return out
}

// slug is the anchor of a heading: lower case, blanks as hyphens, no punctuation.
func slug(title string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(strings.TrimSpace(title)) {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			b.WriteRune(r)
		case r == ' ':
			b.WriteByte('-')
		}
	}
	return b.String()
}
