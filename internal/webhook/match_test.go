package webhook_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/agented/agented/internal/webhook"
)

func TestEvaluate_reasons(t *testing.T) {
	t.Parallel()
	type m = webhook.Match
	bot := strings.Replace(pullRequest, `"sender": {"login": "mona", "type": "User"}`, `"sender": {"login": "dependabot[bot]", "type": "Bot"}`, 1)
	namedBot := strings.Replace(pullRequest, `"sender": {"login": "mona", "type": "User"}`, `"sender": {"login": "x[bot]", "type": "User"}`, 1)
	labeled := strings.Replace(strings.Replace(pullRequest, `"synchronize"`, `"labeled"`, 1), `"number": 7,`, `"number": 7, "label": {"name": "agent"},`, 1)
	removed := `{"ref":"refs/heads/old","deleted":true,"repository":{"full_name":"octo/gate"}}`
	edited := strings.Replace(issueComment, `"created"`, `"edited"`, 1)
	stranger := strings.Replace(issueComment, `"MEMBER"`, `"CONTRIBUTOR"`, 1)
	for _, c := range []struct {
		name, event, body string
		match             m
		rule, reason      string // rule "" means that it fires
	}{
		{"everything", "pull_request", pullRequest, m{}, "", ""},
		{"ping", "ping", `{"zen":"x"}`, m{Events: []string{"ping"}}, "ping", "ping"},
		{"event", "pull_request", pullRequest, m{Events: []string{"push", "pull_request"}}, "", ""},
		{"event with action", "pull_request", pullRequest, m{Events: []string{"pull_request.synchronize"}}, "", ""},
		{"pattern of events", "pull_request", pullRequest, m{Events: []string{"pull_*"}}, "", ""},
		{"other event", "pull_request", pullRequest, m{Events: []string{"push", "issues"}}, "events", `the event is "pull_request.synchronize", wanted is one of "push", "issues"`},
		{"other action of it", "pull_request", pullRequest, m{Events: []string{"pull_request.opened"}}, "events", `wanted is "pull_request.opened"`},
		{"action", "pull_request", pullRequest, m{Actions: []string{"synchronize"}}, "", ""},
		{"other action", "pull_request", pullRequest, m{Actions: []string{"opened"}}, "actions", `the action is "synchronize", wanted is "opened"`},
		{"repository", "pull_request", pullRequest, m{Repositories: []string{"Octo/*"}}, "", ""},
		{"excluded repository", "pull_request", pullRequest, m{Repositories: []string{"octo/*", "!octo/gate"}}, "repositories", `the repository is "octo/gate"`},
		{"no repository", "", `{}`, m{Repositories: []string{"**"}}, "repositories", "the repository is unknown"},
		{"branch", "pull_request", pullRequest, m{Branches: []string{"mend/*"}, Bases: []string{"main", "release/**"}}, "", ""},
		{"star stops at a slash", "pull_request", pullRequest, m{Branches: []string{"m*"}}, "branches", `the branch is "mend/gate", wanted is "m*"`},
		{"base", "pull_request", pullRequest, m{Bases: []string{"dev"}}, "bases", `the base branch is "main", wanted is "dev"`},
		{"author", "pull_request", pullRequest, m{Authors: []string{"MONA"}}, "", ""},
		{"other author", "pull_request", pullRequest, m{Authors: []string{"hubot"}}, "authors", `the author is "mona"`},
		{"a comment's author", "issue_comment", issueComment, m{Authors: []string{"hubot"}}, "authors", `the author is "mona"`},
		{"excluded author", "pull_request", pullRequest, m{ExcludeAuthors: []string{"mo*"}}, "exclude_authors", `the author "mona" is excluded`},
		{"label", "pull_request", pullRequest, m{Labels: []string{"agent", "BUG"}}, "", ""},
		{"no label", "pull_request", pullRequest, m{Labels: []string{"agent"}}, "labels", `the labels are "bug", "needs review", wanted is "agent"`},
		{"the label that was added", "pull_request", labeled, m{Labels: []string{"agent"}}, "", ""},
		{"another was added", "pull_request", labeled, m{Labels: []string{"bug"}}, "labels", `the labels are "agent", wanted is "bug"`},
		{"paths", "push", push, m{Paths: []string{"docs/**"}}, "", ""},
		{"all but some paths", "push", push, m{Paths: []string{"!docs/**", "!**/*.go", "!web/**"}}, "paths", `the changed files are "docs/a.md", "main.go", "web/old.js"`},
		{"stars before a slash", "push", push, m{Paths: []string{"**/main.go"}}, "", ""},
		{"paths of what is no push", "pull_request", pullRequest, m{Paths: []string{"**"}}, "paths", "the changed files are none"},
		{"bot", "pull_request", bot, m{}, "bots", `a bot caused the event ("dependabot[bot]")`},
		{"bot by its name", "pull_request", namedBot, m{}, "bots", "a bot"},
		{"bot, allowed", "pull_request", bot, m{AllowBots: true}, "", ""},
		{"own account", "pull_request", strings.ReplaceAll(pullRequest, `"mona"`, `"Our-Account"`), m{}, "own", "own account caused"},
		{"draft", "pull_request", pullRequest, m{SkipDrafts: true}, "drafts", "is a draft"},
		{"removed branch", "push", removed, m{}, "deleted", `the push deletes "old"`},
		{"removed branch, wanted", "push", removed, m{Actions: []string{"deleted"}}, "", ""},
		{"command", "issue_comment", issueComment, m{Command: "/review"}, "", ""},
		{"other command", "issue_comment", issueComment, m{Command: "/rev"}, "command", `no line of the comment starts with "/rev"`},
		{"command of a stranger", "issue_comment", stranger, m{Command: "/review"}, "associations", `the author "mona" is "CONTRIBUTOR" to the repository, wanted is one of "OWNER", "MEMBER", "COLLABORATOR"`},
		{"command of a stranger, allowed", "issue_comment", stranger, m{Command: "/review", Associations: []string{"CONTRIBUTOR"}}, "", ""},
		{"edited comment", "issue_comment", edited, m{Command: "/review"}, "command", `the action is "edited"`},
		{"edited comment, wanted", "issue_comment", edited, m{Command: "/review", Actions: []string{"created", "edited"}}, "", ""},
		{"writers only", "pull_request", pullRequest, m{Associations: []string{"OWNER"}}, "associations", `"CONTRIBUTOR"`},
		{"condition", "pull_request", pullRequest, m{Conditions: &webhook.Group{All: []webhook.Condition{{Field: "pull_request.draft", Op: "equals", Value: false}}}}, "conditions", "the field pull_request.draft is true, not false"},
	} {
		if c.event == "pull_request" && c.match.Associations == nil {
			c.match.Associations = []string{"*"} // see TestEvaluate_external_pull_request
		}
		v := webhook.Evaluate(c.match, mustParse(t, c.event, c.body), []string{"our-account"})
		if v.Fires != (c.rule == "") || v.Rule != c.rule || !strings.Contains(v.Reason, c.reason) || !v.Fires && v.Reason == "" {
			t.Errorf("%s: %+v", c.name, v)
		}
		if bad := c.match.Validate(webhook.KindGitHub); bad != nil {
			t.Errorf("%s: the match is refused: %v", c.name, bad)
		}
	}
}

func TestEvaluate_command(t *testing.T) {
	t.Parallel()
	for comment, want := range map[string]string{ // "-": none
		"/review":                          "",
		"/review  with care ":              "with care",
		"text\r\n/review now\r\nmore":      "now",
		"please /review":                   "-",
		"> /review":                        "-",
		" /review":                         "-",
		"/reviewer":                        "-",
		"/Review":                          "-",
		"```\n/review\n```":                "-",
		"~~~sh\n/review\n~~~\n/review me":  "me",
		"```\n/review":                     "-",
		"/review \u202eevil\u200b\x1b[31m": "evil",
		"":                                 "-",
	} {
		body, _ := json.Marshal(map[string]any{"action": "created", "comment": map[string]any{"body": comment, "author_association": "OWNER"}})
		v := webhook.Evaluate(webhook.Match{Command: "/review"}, mustParse(t, "issue_comment", string(body)), nil)
		if v.Fires != (want != "-") || v.Fires && v.Arguments != want {
			t.Errorf("%q: %+v", comment, v)
		}
	}
}

func TestEvaluate_conditions(t *testing.T) {
	t.Parallel()
	const body = `{"n":4,"big":12345678901234567890,"s":"Hello","t":true,"z":null,"l":["a",2,{"k":"v"}],"o":{"x.y":1},"issues":[{"id":1,"sev":"low"},{"id":2,"sev":"high"}]}`
	for _, c := range []struct {
		condition string
		want      string // "" means that it matches
	}{
		{`{"field":"n","op":"equals","value":4}`, ""},
		{`{"field":"n","op":"equals","value":4.0}`, ""},
		{`{"field":"n","op":"equals","value":"4"}`, ""},
		{`{"field":"n","op":"equals","value":5}`, "the field n is 4, not 5"},
		{`{"field":"big","op":"equals","value":12345678901234567890}`, ""},
		{`{"field":"big","op":"equals","value":12345678901234567891}`, "not 12345678901234567891"},
		{`{"field":"s","op":"equals","value":"Hello"}`, ""},
		{`{"field":"s","op":"equals","value":"hello"}`, `the field s is "Hello", not "hello"`},
		{`{"field":"t","op":"equals","value":true}`, ""},
		{`{"field":"t","op":"equals","value":"true"}`, ""},
		{`{"field":"t","op":"equals","value":1}`, "is true, not 1"},
		{`{"field":"z","op":"equals","value":null}`, ""},
		{`{"field":"no","op":"equals","value":null}`, "is missing, not null"},
		{`{"field":"no","op":"not_equals","value":"x"}`, ""},
		{`{"field":"s","op":"not_equals","value":"Hello"}`, "but must not be"},
		{`{"field":"z","op":"exists"}`, "the field z does not exist"},
		{`{"field":"z","op":"not_exists"}`, ""},
		{`{"field":"o","op":"exists"}`, ""},
		{`{"field":"o","op":"not_exists"}`, "the field o exists (an object)"},
		{`{"field":"o.x\\.y","op":"equals","value":1}`, ""},
		{`{"field":"l.1","op":"equals","value":2}`, ""},
		{`{"field":"l[2].k","op":"equals","value":"v"}`, ""},
		{`{"field":"l.9","op":"exists"}`, "does not exist"},
		{`{"field":"l","op":"contains","value":2}`, ""},
		{`{"field":"l","op":"contains","value":"b"}`, `the field l (a list of 3) does not contain "b"`},
		{`{"field":"s","op":"contains","value":"ell"}`, ""},
		{`{"field":"s","op":"contains","value":"x"}`, "does not contain"},
		{`{"field":"issues.*.sev","op":"equals","value":"high"}`, ""},
		{`{"field":"issues[*].sev","op":"equals","value":"none"}`, `is "low" and 1 more, not "none"`},
		{`{"field":"issues.*.sev","op":"not_equals","value":"high"}`, "must not be"},
		{`{"field":"*.*.sev","op":"equals","value":"high"}`, ""},
		{`{"field":"s","op":"regex","value":"^H.*o$"}`, ""},
		{`{"field":"n","op":"regex","value":"^[0-9]$"}`, ""},
		{`{"field":"s","op":"regex","value":"^x"}`, `does not match the pattern "^x"`},
		{`{"field":"s","op":"regex","value":"(?=x)"}`, "is not a regular expression"},
		{`{"any":[{"field":"n","op":"equals","value":1},{"field":"n","op":"equals","value":4}]}`, ""},
		{`{"any":[{"field":"n","op":"equals","value":1},{"field":"n","op":"equals","value":2}]}`, "none of 2 alternatives matches; the first: the field n is 4, not 1"},
		{`{"all":[{"field":"n","op":"equals","value":4},{"any":[{"field":"s","op":"exists"}]}]}`, ""},
		{`{"all":[{"field":"n","op":"equals","value":4},{"any":[{"field":"q","op":"exists"}]}]}`, "the field q does not exist"},
		{`{"field":"s","op":"like","value":"x"}`, "unknown operation"},
		{`{"field":"","op":"exists"}`, "cannot be read"},
	} {
		var cond webhook.Condition
		if err := json.Unmarshal([]byte(c.condition), &cond); err != nil {
			t.Fatalf("%s: %v", c.condition, err)
		}
		v := webhook.Evaluate(webhook.Match{Conditions: &webhook.Group{All: []webhook.Condition{cond}}}, mustParse(t, "", body), nil)
		if v.Fires != (c.want == "") || !strings.Contains(v.Reason, c.want) {
			t.Errorf("%s: %+v", c.condition, v)
		}
		again, err := json.Marshal(cond)
		if err != nil {
			t.Fatal(err)
		}
		var back webhook.Condition
		if err := json.Unmarshal(again, &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(cond, back); diff != "" {
			t.Errorf("%s does not survive writing and reading:\n%s", c.condition, diff)
		}
	}
	if err := json.Unmarshal([]byte(`{"feild":"x"}`), &webhook.Condition{}); err == nil {
		t.Error("an unknown name in a condition is not noticed")
	}
}

func TestEvaluate_pattern_work_limit(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 1<<20)
	body, _ := json.Marshal(map[string]any{"l": []string{long, long, long, long}})
	e := mustParse(t, "", string(body))
	var all []webhook.Condition
	for range 50 {
		all = append(all, webhook.Condition{Field: "l.*", Op: "not_exists"}, webhook.Condition{Field: "l.*", Op: "regex", Value: `(x+x+)+y|(a|aa)+$b|(.{20}){20}z`})
	}
	start := time.Now()
	v := webhook.Evaluate(webhook.Match{Conditions: &webhook.Group{Any: all}}, e, nil)
	took := time.Since(start)
	t.Log(took, v.Reason)
	if v.Fires || took > 30*time.Second {
		t.Errorf("%v %+v", took, v)
	}
}

func TestMatchValidate(t *testing.T) {
	t.Parallel()
	type m = webhook.Match
	conditions := func(text string) *webhook.Group {
		var g webhook.Group
		if err := json.Unmarshal([]byte(text), &g); err != nil {
			t.Fatal(err)
		}
		return &g
	}
	deep := `{"all":[{"field":"x","op":"exists"}]}`
	for range 10 {
		deep = `{"all":[` + deep + `]}`
	}
	for _, c := range []struct {
		match m
		want  []string // "path: part of the text"
	}{
		{m{}, nil},
		{m{Events: []string{"pull_requests"}}, []string{`events.0: did you mean "pull_request"?`}},
		{m{Events: []string{"pull_request.synchronise"}}, []string{`events.0: did you mean "synchronize"?`}},
		{m{Events: []string{"", "a b", "check_*", "!x*"}}, []string{"events.0: is not the name", "events.1: is not the name", "events.3: is not a pattern"}},
		{m{Actions: []string{"open", "merged"}}, []string{`actions.0: did you mean "opened"?`, "actions.1: pull_request.merged"}},
		{m{Repositories: []string{"gate", "octo/*", ""}}, []string{"repositories.0: write owner/name", "repositories.2: is empty"}},
		{m{Branches: []string{"refs/heads/main"}}, []string{`branches.0: "main"`}},
		{m{Paths: []string{"/src/**", "./x", "src/**", `a\`}}, []string{"paths.0: relative", "paths.1: relative", `paths.3: ends with \`}},
		{m{Authors: []string{"@mona"}, ExcludeAuthors: []string{" x"}}, []string{`authors.0: "mona"`, "exclude_authors.0: white space"}},
		{m{Labels: []string{" "}}, []string{"labels.0: is not a label"}},
		{m{Command: "review"}, []string{`command: "/review"`}},
		{m{Command: "/a b"}, []string{"command: one word"}},
		{m{Associations: []string{"MEMBERS"}}, []string{`associations.0: did you mean "MEMBER"?`}},
		{m{Labels: make([]string, 201)}, []string{"labels: too many"}},
		{m{Conditions: conditions(`{}`)}, []string{"conditions: is empty"}},
		{m{Conditions: conditions(`{"all":[{"field":"a","op":"equal","value":1},{"field":"","op":"exists"},{"field":"a..b","op":"exists","value":1},{"field":"a"}]}`)}, []string{
			`conditions.all.0.op: did you mean "equals"?`, "conditions.all.1.field: is empty", "conditions.all.2.field: empty segment", "conditions.all.2.value: does not apply", "conditions.all.3.op: is required",
		}},
		{m{Conditions: conditions(`{"any":[{"field":"a","op":"regex","value":"("},{"field":"a","op":"regex","value":"(.{100}){10}(.{100}){10}"},{"field":"a","op":"equals","value":{}},{"field":"a","op":"contains","value":""}]}`)}, []string{
			"conditions.any.0.value: is not a regular", "conditions.any.1.value: repeats too often", "conditions.any.2.value: must be a text", "conditions.any.3.value: is required",
		}},
		{m{Conditions: conditions(`{"all":[{"field":"x","op":"exists","all":[{"field":"x","op":"exists"}]}]}`)}, []string{"conditions.all.0: both"}},
		{m{Conditions: conditions(deep)}, []string{"conditions.all.0.all.0.all.0.all.0.all.0.all.0.all.0.all.0.all.0: nested too deep"}},
	} {
		got := c.match.Validate(webhook.KindGitHub)
		if len(got) != len(c.want) {
			t.Errorf("%+v: %v", c.match, got)
			continue
		}
		for i, f := range got {
			path, part, _ := strings.Cut(c.want[i], ": ")
			if f.Path != path || !strings.Contains(f.Text, part) {
				t.Errorf("%s: %s; want %s", f.Path, f.Text, c.want[i])
			}
		}
	}
	other := m{Events: []string{"Issue", "invoice.paid"}, Actions: []string{"create"}}
	if bad := other.Validate(webhook.KindHMAC); bad != nil {
		t.Errorf("names of another sender are refused: %v", bad)
	}
	if v := webhook.Evaluate(m{Events: []string{"invoice.paid"}}, mustParse(t, "", `{"type":"invoice.paid"}`), nil); !v.Fires {
		t.Error(v)
	}
}

func TestFromOldRules(t *testing.T) {
	t.Parallel()
	m, notes, err := webhook.FromOldRules(webhook.OldRules{Source: "webhook", MatchFieldPath: "event.group_id", MatchFieldValue: "4", TextFieldPath: "event.text", DetectionKeyword: "주간 보안"})
	if err != nil || len(notes) != 2 {
		t.Fatal(notes, err)
	}
	for body, want := range map[string]bool{
		`{"event":{"group_id":4,"text":"weekly 주간 보안 report"}}`:   true,
		`{"event":{"group_id":"4","text":"weekly 주간 보안 report"}}`: true,
		`{"event":{"group_id":5,"text":"주간 보안"}}`:                 false,
		`{"event":{"group_id":4,"text":"other"}}`:                 false,
		`{"event":{"group_id":4}}`:                                false,
		`[]`:                                                      false,
	} {
		if v := webhook.Evaluate(m, mustParse(t, "", body), nil); v.Fires != want {
			t.Errorf("%s: %+v", body, v)
		}
	}
	m, notes, err = webhook.FromOldRules(webhook.OldRules{Source: "github"})
	if err != nil || len(notes) != 1 || len(m.Events) != 1 || len(m.Actions) != 3 {
		t.Error(m, notes, err)
	}
	if m, notes, err = webhook.FromOldRules(webhook.OldRules{Source: "webhook", TextFieldPath: "a.b"}); err != nil || len(notes) != 2 || m.Conditions != nil {
		t.Error(m, notes, err)
	}
	for _, c := range []struct {
		old  webhook.OldRules
		want string
	}{
		{webhook.OldRules{MatchFieldPath: "a"}, "match_field_value"},
		{webhook.OldRules{MatchFieldValue: "a"}, "match_field_path"},
		{webhook.OldRules{MatchFieldPath: "a..b", MatchFieldValue: "x"}, "match_field_path"},
		{webhook.OldRules{DetectionKeyword: strings.Repeat("x", 5000)}, "detection_keyword"},
		{webhook.OldRules{DetectionKeyword: "x", TextFieldPath: "a."}, "text_field_path"},
	} {
		if _, _, err := webhook.FromOldRules(c.old); err == nil || !strings.HasPrefix(err.Error(), c.want+": ") {
			t.Errorf("%+v: %v", c.old, err)
		}
	}
}

func TestMatch_JSON(t *testing.T) {
	t.Parallel()
	const text = `{"events":["push"],"repositories":["a/*"],"conditions":{"all":[{"field":"id","op":"equals","value":12345678901234567890},{"any":[{"field":"x","op":"equals","value":null}]}]},"allow_bots":true}`
	var m webhook.Match
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(m)
	if err != nil || string(got) != text {
		t.Errorf("%v\n got %s\nwant %s", err, got, text)
	}
}

func TestEvaluate_external_pull_request(t *testing.T) {
	t.Parallel()
	pull := func(association, author, headRepo string) string {
		return `{"action":"opened","repository":{"full_name":"o/r"},"sender":{"login":"` + author + `"},"pull_request":{"number":1,"author_association":"` + association +
			`","user":{"login":"` + author + `"},"head":{"ref":"x","repo":{"full_name":"` + headRepo + `"}},"base":{"ref":"main","repo":{"full_name":"o/r"}}}}`
	}
	yes := true
	for name, c := range map[string]struct {
		match webhook.Match
		body  string
		rule  string
	}{
		"a stranger":                       {webhook.Match{}, pull("NONE", "eve", "eve/r"), "associations"},
		"a former contributor":             {webhook.Match{}, pull("CONTRIBUTOR", "eve", "eve/r"), "associations"},
		"a sender without associations":    {webhook.Match{}, pull("", "eve", "o/r"), ""},
		"a member":                         {webhook.Match{}, pull("MEMBER", "mona", "o/r"), ""},
		"a stranger, asked for":            {webhook.Match{Associations: []string{"NONE"}}, pull("NONE", "eve", "eve/r"), ""},
		"everybody":                        {webhook.Match{Associations: []string{"*"}}, pull("NONE", "eve", "eve/r"), ""},
		"a named author":                   {webhook.Match{Authors: []string{"eve"}}, pull("NONE", "eve", "eve/r"), ""},
		"a fork with a workspace":          {webhook.Match{Associations: []string{"*"}}.WithWorkspace(), pull("NONE", "eve", "eve/r"), "forks"},
		"a member's fork with a workspace": {webhook.Match{}.WithWorkspace(), pull("MEMBER", "mona", "mona/r"), "forks"},
		"a removed fork":                   {webhook.Match{}.WithWorkspace(), strings.Replace(pull("MEMBER", "mona", "x/r"), `"repo":{"full_name":"x/r"}`, `"repo":null`, 1), "forks"},
		"a fork, asked for":                {webhook.Match{Forks: &yes}.WithWorkspace(), pull("MEMBER", "mona", "mona/r"), ""},
		"a branch with a workspace":        {webhook.Match{}.WithWorkspace(), pull("OWNER", "mona", "o/r"), ""},
	} {
		v := webhook.Evaluate(c.match, mustParse(t, "pull_request", c.body), nil)
		if v.Rule != c.rule || v.Fires != (c.rule == "") {
			t.Errorf("%s: %+v", name, v)
		}
	}
}
