package contract

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/changes"
	"github.com/agented/agented/internal/redact"
)

func TestCompile_hostile(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		fmt.Fprint(w, `{}`)
	}))
	defer server.Close()
	file := filepath.Join(t.TempDir(), "schema.json")
	if err := os.WriteFile(file, []byte(`{}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ schema, want string }{
		"fine":             {`{"type":"object"}`, ""},
		"meta-schema":      {`{"$ref":"https://json-schema.org/draft/2020-12/schema"}`, ""},
		"own definitions":  {`{"$defs":{"a":{"type":"string"}},"$ref":"#/$defs/a"}`, ""},
		"remote reference": {`{"$ref":"` + server.URL + `/x.json"}`, "are not fetched"},
		"file":             {`{"$ref":"file://` + file + `"}`, "are not fetched"},
		"relative":         {`{"$ref":"other.json"}`, "are not fetched"},
		"remote dialect":   {`{"$schema":"` + server.URL + `/dialect","type":"object"}`, "are not fetched"},
		"remote by $id":    {`{"$id":"` + server.URL + `/","$ref":"x.json"}`, "are not fetched"},
		"no type":          {`{"type":"banana"}`, "is not a JSON Schema: at \"/type\""},
		"bad pattern":      {`{"pattern":"(?!x)"}`, "is not a JSON Schema"},
		"huge repetition":  {`{"pattern":"((a{1000}){1000}){1000}"}`, "is not a JSON Schema"},
		"missing target":   {`{"$ref":"#/$defs/none"}`, "is not a JSON Schema"},
		"huge number":      {`{"multipleOf":1e999999999}`, "out of range"},
		"deep":             {strings.Repeat(`{"not":`, 500) + "{}" + strings.Repeat("}", 500), "nested deeper"},
		"long":             {`{"title":"` + strings.Repeat("x", agented.MaxResultSchema) + `"}`, "too long"},
		"two values":       {`{} {}`, "text after the JSON value"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Compile([]byte(c.schema))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	t.Cleanup(func() {
		if n := calls.Load(); n > 0 {
			t.Errorf("%d documents were fetched", n)
		}
	})
}

// Schemas that refer to themselves, and values that are made to be slow, end in time.
func TestValidate_hostile(t *testing.T) {
	t.Parallel()
	var doubling strings.Builder
	for i := range 60 {
		fmt.Fprintf(&doubling, `"d%d":{"allOf":[{"$ref":"#/$defs/d%d"},{"$ref":"#/$defs/d%d"}]},`, i, i+1, i+1)
	}
	tree := `{"properties":{"a":{"$ref":"#"}},"allOf":[{"properties":{"a":{"$ref":"#"}}},{"properties":{"a":{"$ref":"#"}}}]}`
	for name, c := range map[string]struct{ schema, value, want string }{
		"endless":         {`{"$ref":"#"}`, `1`, ""},
		"doubling":        {`{"$defs":{` + doubling.String() + `"d60":{}},"$ref":"#/$defs/d0"}`, `1`, "takes too long"},
		"growing by data": {tree, strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100), "takes too long"},
		"huge number":     {`{"multipleOf":0.01}`, `1e400000000`, "out of range"},
		"many digits":     {`{"type":"integer"}`, "1" + strings.Repeat("0", 5000), "more than 400 digits"},
		"deep":            {`{}`, strings.Repeat("[", 5000) + strings.Repeat("]", 5000), "nested deeper"},
		"slow pattern":    {`{"pattern":"^(a+)+$"}`, `"` + strings.Repeat("a", 100_000) + `!"`, "does not match"},
		"many":            {`{"uniqueItems":true}`, "[" + strings.Repeat("{},", 20_000) + "1]", "equal"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			clauses, out := Evaluate(&agented.Expect{ResultSchema: json.RawMessage(c.schema)}, Facts{Output: json.RawMessage(c.value)})
			if got := clauses[0]; got.Met || out != nil || !strings.Contains(got.Text, c.want) || len(got.Text) > 1000 || len(got.Evidence) > agented.MaxClauseEvidence {
				t.Errorf("met %v: %.500s; want %q", got.Met, got.Text, c.want)
			}
			if took := time.Since(began); took > time.Minute {
				t.Errorf("it took %s", took)
			}
		})
	}
}

func TestEvaluate_huge_result(t *testing.T) {
	t.Parallel()
	x := &agented.Expect{ResultSchema: json.RawMessage(`{"type":"object"}`), Text: &agented.ExpectedText{Matches: `(x+x+)+y`}}
	text := strings.Repeat("x", agented.MaxResult)
	clauses, _ := Evaluate(x, Facts{Text: text})
	for _, c := range clauses {
		if c.Met || len(c.Evidence) > agented.MaxClauseEvidence || len(c.Text) > 1000 {
			t.Errorf("%s: met %v, %d bytes of evidence, %.200s", c.Name, c.Met, len(c.Evidence), c.Text)
		}
	}
	if !strings.Contains(clauses[0].Text, "longer than") {
		t.Errorf("%s", clauses[0].Text)
	}
}

func TestLastBlock(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a":                                  "none",
		"```json\n1\n```":                    "1\n",
		"```\n1\n```\n```go\nx\n```":         "1\n",
		"~~~JSON\n1\n~~~":                    "1\n",
		"````json\n```\n````":                "```\n",
		"```json\n1\n":                       "none",
		"```json\n1\n```\n```json\n2\n```  ": "2\n",
		"  ```json\n  1\n  ```":              "  1\n",
	} {
		got, ok := lastBlock(text)
		if !ok {
			got = "none"
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// What cannot be known is not met.
func TestEvaluate_unknown_changes(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]*changes.Record{
		"no record":    nil,
		"no git":       {Artifacts: []changes.Artifact{{Path: "x"}}},
		"not recorded": {Git: true, Truncated: true, Reason: "it took too long."},
	} {
		for _, x := range []agented.ExpectedChanges{{None: true}, {MinFiles: 1}, {MaxFiles: 1}, {Paths: []string{"**"}}} {
			clauses, _ := Evaluate(&agented.Expect{Changes: &x}, Facts{Changes: r})
			if len(clauses) != 1 || clauses[0].Met || !clauses[0].Failed {
				t.Errorf("%s %+v: %+v", name, x, clauses)
			}
		}
	}
	clauses, _ := Evaluate(&agented.Expect{Changes: &agented.ExpectedChanges{Paths: []string{"**"}}}, Facts{Changes: &changes.Record{Git: true, FileCount: 60_000, Truncated: true, Files: []changes.File{{Path: "a"}}}})
	if clauses[0].Met {
		t.Errorf("files that are not listed match: %+v", clauses)
	}
}

func TestStrict(t *testing.T) {
	t.Parallel()
	for schema, want := range map[string]bool{
		`{"type":"object","properties":{"a":{"type":"string"}},"required":["a"],"additionalProperties":false}`: true,
		`{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}`:                              false,
		`{"type":"object","properties":{"a":{"type":"string"}},"required":[],"additionalProperties":false}`:    false,
		`{"type":"array","items":{}}`: false,
		`{"type":"object","properties":{"a":{"type":"object"}},"required":["a"],"additionalProperties":false}`:                                                             false,
		`{"type":"object","properties":{"a":{"oneOf":[{"type":"string"}]}},"required":["a"],"additionalProperties":false}`:                                                 false,
		`{"type":"object","properties":{"a":{"type":"array","items":{"$ref":"#/$defs/x"}}},"required":["a"],"additionalProperties":false,"$defs":{"x":{"type":"string"}}}`: true,
	} {
		if got := Strict([]byte(schema)); got != want {
			t.Errorf("%s: %v", schema, got)
		}
	}
}

func TestMask(t *testing.T) {
	t.Parallel()
	const secret = `a "quoted" secret`
	m := redact.New([]string{secret, "123456789012"})
	masked, bad := Mask(m, json.RawMessage(`{"a \"quoted\" secret":["x a \"quoted\" secret y",{"<b>":1}]}`))
	if bad != "" || !json.Valid(masked) || strings.Contains(string(masked), "quoted") || !strings.Contains(string(masked), `{"<b>":1}`) {
		t.Errorf("%s %s", masked, bad)
	}
	if masked, bad = Mask(m, json.RawMessage(`{"n":123456789012}`)); masked != nil || bad == "" {
		t.Errorf("a number that is a secret: %s %s", masked, bad)
	}
}

func FuzzEvaluate(f *testing.F) {
	f.Add("```json\n{\"a\":1}\n```", `{"type":"object"}`)
	f.Add(`[1]`, `{"items":{"type":"string"}}`)
	f.Fuzz(func(t *testing.T, text, schema string) {
		if schema == "" {
			return // no schema, and no clause of one
		}
		x := &agented.Expect{ResultSchema: json.RawMessage(schema), Text: &agented.ExpectedText{NotEmpty: true, Matches: "x"}}
		clauses, out := Evaluate(x, Facts{Text: text})
		if clauses[0].Met && !json.Valid(out) || !clauses[0].Met && out != nil {
			t.Errorf("met %v with %q", clauses[0].Met, out)
		}
		_ = RepairPrompt(clauses)
	})
}

func TestEvaluate_published(t *testing.T) {
	t.Parallel()
	pr := func(s agented.PublicationStatus, rule string) agented.Publication {
		return agented.Publication{Kind: agented.PublishesPullRequest, Status: s, Rule: rule, Reason: "It is why."}
	}
	comment := agented.Publication{Kind: agented.PublishesComment, Status: agented.PublicationPending}
	for name, c := range map[string]struct {
		list        []agented.Publication
		met, failed bool
		text        string
	}{
		"nothing":           {nil, false, false, "no pull request was proposed"},
		"another kind":      {[]agented.Publication{comment}, false, false, "no pull request was proposed"},
		"queued":            {[]agented.Publication{comment, pr(agented.PublicationPending, "")}, true, false, "passed the checks"},
		"refused":           {[]agented.Publication{pr(agented.PublicationRefused, "symlink")}, false, false, "refused by the rule symlink"},
		"refused, queued":   {[]agented.Publication{pr(agented.PublicationRefused, "subject"), pr(agented.PublicationPending, "")}, true, false, "passed the checks"},
		"queued, refused":   {[]agented.Publication{pr(agented.PublicationPending, ""), pr(agented.PublicationRefused, "count")}, true, false, "passed the checks"},
		"not repairable":    {[]agented.Publication{pr(agented.PublicationRefused, "repository")}, false, true, "refused by the rule repository"},
		"not a proposal":    {[]agented.Publication{{Status: agented.PublicationRefused, Rule: "schema", Reason: "It is why."}}, false, false, "refused by the rule schema"},
		"comment is a fail": {[]agented.Publication{{Kind: agented.PublishesComment, Status: agented.PublicationRefused, Rule: "schema"}}, false, false, "no pull request was proposed"},
	} {
		clauses, _ := Evaluate(&agented.Expect{Published: agented.PublishesPullRequest}, Facts{
			Published: c.list, Repairable: func(rule string) bool { return rule != "repository" },
		})
		if got := clauses[0]; len(clauses) != 1 || got.Met != c.met || got.Pending != c.met || got.Failed != c.failed || !strings.Contains(got.Text, c.text) {
			t.Errorf("%s: %+v", name, clauses)
		}
	}
}
