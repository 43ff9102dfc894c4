package proposal

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/redact"
)

func TestMarkdown(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"thanks @octocat":                     "thanks @\u200boctocat",
		"_@a_ `@b` \\@c @@d":                  "_@\u200ba_ `@\u200bb` \\@\u200bc @@\u200bd",
		"mail a@example.com":                  "mail a@example.com",
		"&#64;octocat &commat;octocat":        "&amp;#64;octocat &amp;commat;octocat",
		"@\u200boctocat":                      "@\u200boctocat",
		"see other/repo#12 and #13":           "see other/repo\u200b#12 and #13",
		"<!-- agented:publication x -->":      "&lt;!-- agented:publication x -->",
		"<img src=https://e.example/?x>":      "&lt;img src=https://e.example/?x>",
		"![x](https://e.example/?data)":       `!\[x]\(https://e.example/?data)`,
		"[text](https://e.example/)":          `[text]\(https://e.example/)`,
		"[part](#part)":                       "[part](#part)",
		"[a][b]\n\n[b]: https://e.example":    "[a]\\[b]\n\n[b]\\: https://e.example",
		"```go\nx := a[1](@me)\n```\n@me":     "```go\nx := a[1](@me)\n```\n@\u200bme",
		"```mermaid\ngraph\n```":              "```text\ngraph\n```",
		"- ```\n  ```\n@me":                   "- ```\n  ```\n@\u200bme",
		"> ```\n@me":                          "> ```\n@\u200bme",
		"``` a`b\n@me":                        "``` a`b\n@\u200bme",
		"~~~\n```\n~~~\n@me":                  "~~~\n```\n~~~\n@\u200bme",
		"```\ra\r```\r@me":                    "```\na\n```\n@\u200bme",
		"x\n ```\ny\n```\n@me":                "x\n ```\ny\n```\n@\u200bme",
		"x\n- a\n  ```\n@me\n  ```\n```\n@me": "x\n- a\n  ```\n@\u200bme\n  ```\n```\n@\u200bme",
		"```\na\n  ```\n@me":                  "```\na\n  ```\n@\u200bme",
		"```\na\n    ```\n@me":                "```\na\n    ```\n@me\n```",
		"~~~\n~~~ ~~~\n~~~\n@me":              "~~~\n~~~ ~~~\n~~~\n@\u200bme",
		"- ```Mermaid\n  graph":               "- ```text \n  graph",
		"```\nopen":                           "```\nopen\n```",
		"a\u202eb\x00c\x1b[31m":               "abc[31m",
	} {
		if got := Markdown(in); got != want {
			t.Errorf("Markdown(%q) = %q, want %q", in, got, want)
		}
	}
	if n := utf8.RuneCountInString(Markdown(strings.Repeat("<a @b ", 60_000))); n > MaxText+1000 {
		t.Errorf("%d characters", n)
	}
}

func FuzzMarkdown(f *testing.F) {
	f.Add("```\n@me\n```\n<!-- x -->")
	f.Fuzz(func(t *testing.T, in string) {
		out := Markdown(in)
		if !utf8.ValidString(out) || utf8.RuneCountInString(out) > MaxText+1000 {
			t.Errorf("%d bytes", len(out))
		}
		if _, found := agented.PublishedBy(strings.Split(out, "```")[0]); found && strings.Contains(out, "<!--") && !strings.Contains(out, "```") && !strings.Contains(out, "~~~") {
			t.Errorf("a marker passes: %q", out)
		}
	})
}

func TestPlan_files(t *testing.T) {
	t.Parallel()
	const secret = "v4lue-that-is-secret"
	for name, c := range map[string]struct{ text, rule string }{
		"no json":        {"{", RuleSchema},
		"unknown field":  {`{"kind":"comment","body":"x","to":"other/repo"}`, RuleSchema},
		"unknown kind":   {`{"kind":"release"}`, RuleSchema},
		"two objects":    {`{"kind":"comment","body":"x"}{}`, RuleSchema},
		"no body":        {`{"kind":"comment","body":" "}`, RuleSchema},
		"not allowed":    {`{"kind":"pull_request","title":"x"}`, RuleKind},
		"title lines":    {`{"kind":"pull_request","title":"a\nb"}`, RuleSchema},
		"secret":         {`{"kind":"comment","body":"` + secret + `"}`, RuleSecret},
		"escaped secret": {`{"kind":"comment","body":"\u0076` + secret[1:] + `"}`, RuleSecret},
		"fine":           {`{"kind":"comment","body":"x"}`, ""},
		"comment state":  {`{"kind":"comment","body":"x","state":"success"}`, RuleSchema},
		"status kind":    {`{"kind":"commit_status","state":"success"}`, RuleKind},
		"status state":   {`{"kind":"commit_status","state":"green"}`, RuleSchema},
		"status body":    {`{"kind":"commit_status","state":"success","body":"x"}`, RuleSchema},
		"status lines":   {`{"kind":"commit_status","state":"success","description":"a\nb"}`, RuleSchema},
		"status long":    {`{"kind":"commit_status","state":"success","description":"` + strings.Repeat("x", 141) + `"}`, RuleSchema},
		"status secret":  {`{"kind":"commit_status","state":"` + secret + `"}`, RuleSecret},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "p.json"), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got := Plan(Input{
			Execution: &agented.Execution{ID: "exec-1", Snapshot: agented.Spec{
				Publish: &agented.Publish{Comment: &agented.PublishComment{}}, PublishTo: &agented.PublishTarget{Repository: "o/r", Number: 7},
			}},
			Dir: dir, Result: "text", Mask: redact.New([]string{secret}),
		})
		if len(got) != 1 || got[0].Rule != c.rule || (got[0].Status == agented.PublicationPending) != (c.rule == "") {
			t.Errorf("%s: %+v, want rule %q", name, got, c.rule)
		}
		if len(got) == 1 && strings.Contains(string(got[0].Proposal)+got[0].Reason+got[0].Title, secret) {
			t.Errorf("%s: the secret is stored", name)
		}
	}
}

func TestPlan_special_files(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Symlink("/etc/hostname", filepath.Join(dir, "link.json")); err != nil {
		t.Fatal(err)
	}
	for i := range 25 {
		if err := os.WriteFile(filepath.Join(dir, "z"+strings.Repeat("x", i)+".json"), []byte(strings.Repeat(" ", MaxFileBytes+1)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := Plan(Input{
		Execution: &agented.Execution{ID: "exec-1", Snapshot: agented.Spec{Publish: &agented.Publish{Comment: &agented.PublishComment{}}}},
		Dir:       dir, Mask: redact.New(nil),
	})
	if len(got) != MaxFiles+1 {
		t.Fatalf("%d publications", len(got))
	}
	for _, p := range got {
		if p.Status != agented.PublicationRefused {
			t.Errorf("%+v", p)
		}
	}
}
