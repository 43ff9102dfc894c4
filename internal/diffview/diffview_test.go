package diffview

import (
	"strings"
	"testing"

	"github.com/agented/agented/internal/client"
)

func brackets(colour, s string) string {
	if s == "" {
		return ""
	}
	return "<" + colour + ">" + s
}

func TestPatch_colours_and_control_characters(t *testing.T) {
	t.Parallel()
	patch := "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@ f\n same\ttab\n-old\x1b[31m\n+new\u202eevil\xff\r\n\\ No newline"
	want := "<33>diff --git a/x b/x\n<2>--- a/x\n<2>+++ b/x\n<36>@@ -1,2 +1,2 @@ f\n same\ttab\n<31>-old\uFFFD[31m\n<32>+new\uFFFDevil\uFFFD\uFFFD\n\\ No newline\n"
	var out strings.Builder
	if err := coloured(&out, strings.NewReader(patch), brackets); err != nil || out.String() != want {
		t.Errorf("printed %q, want %q, %v", out.String(), want, err)
	}
}

func TestStat(t *testing.T) {
	t.Parallel()
	size := int64(12)
	c := &client.Changes{
		Commits: []client.ChangeCommit{{ID: "0123456789abcdef", Subject: "first\x1b"}},
		Files: []client.ChangedFile{
			{Path: "a\nb", Status: "added", Added: 60},
			{Path: "new", Old: "old", Status: "renamed", Removed: 1},
			{Path: "bin", Status: "modified", Binary: true, Size: &size},
			{Path: strings.Repeat("d/", 40) + "x", Status: "deleted"},
		},
		FileCount: 4, Added: 60, Removed: 1, Reason: "Something is missing.",
		Artifacts: []client.Artifact{{Path: "r.txt", Size: 3}},
	}
	pad := func(s string) string { return s + strings.Repeat(" ", 60-len([]rune(s))) }
	want := "<33>0123456789ab first\uFFFD\n" +
		" A " + pad("a\uFFFDb") + " | 60 <32>" + strings.Repeat("+", 30) + "\n" +
		" R " + pad("old → new") + " | 1 <31>-\n" +
		" M " + pad("bin") + " | binary, 0 → 12 bytes\n" +
		" D …" + strings.Repeat("d/", 29) + "x | 0 \n" +
		" 4 files +60 −1\n artifact 0: r.txt, 3 bytes\n <33>Something is missing.\n"
	var out strings.Builder
	if err := stat(&out, c, brackets); err != nil || out.String() != want {
		t.Errorf("printed\n%q, want\n%q, %v", out.String(), want, err)
	}
	out.Reset()
	if err := Names(&out, c); err != nil || !strings.HasPrefix(out.String(), "a\uFFFDb\nnew\nbin\n") {
		t.Errorf("names %q, %v", out.String(), err)
	}
	if got := Summary(1, 2, 3); got != "1 file +2 −3" {
		t.Errorf("summary %q", got)
	}
}
