package dispatch_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/testrun"
)

// actor is a Claude Code that does what the variable ACT of its trigger says, as a script. The
// script can set result, the text of its result as in JSON, and extra, further fields of it.
const actor = `#!/bin/sh
if [ "$1" = --version ]; then
	echo "2.1.330 (Claude Code)"
	exit
fi
cat >"$AGENTED_OUT/../../prompt-$AGENTED_ATTEMPT"
mode=new
for a; do
	case "$last" in
	--session-id) id=$a ;;
	--resume) id=$a; mode=resume ;;
	esac
	case "$a" in --json-schema=*) schema=${a#--json-schema=} ;; esac
	last=$a
done
echo '{"type":"system","subtype":"init","session_id":"'$id'","model":"m","tools":[],"claude_code_version":"2.1.330"}'
result=Done. extra=
eval "$ACT"
printf '%s\n' '{"type":"result","subtype":"success","is_error":false,"result":"'"$result"'"'"$extra"',"session_id":"'$id'","num_turns":1,"total_cost_usd":0.01,"usage":{"input_tokens":1,"output_tokens":1},"terminal_reason":"completed"}'
`

// actors puts the stand-in on the PATH of executions, in checkouts.
func (h *house) actors(o *dispatch.Options) {
	h.t.Helper()
	bin := filepath.Join(h.t.TempDir(), "bin")
	if err := os.MkdirAll(bin, 0o700); err != nil {
		h.t.Fatal(err)
	}
	if err := testrun.WriteProgram(filepath.Join(bin, "claude"), []byte(actor), 0o700); err != nil {
		h.t.Fatal(err)
	}
	o.Lookup = func(name string) (string, bool) { return bin + ":/usr/bin:/bin", name == "PATH" }
	h.withWorkspaces(o)
}

// acting is a trigger whose agent does what the script says, in a checkout.
func acting(address, script string, x *agented.Expect) *agented.Spec {
	s := claudeSpec()
	s.Workspace, s.Permission, s.Expect = &agented.Workspace{Repository: address}, agented.PermissionEdit, x
	s.Env, s.PlainEnv = map[string]*string{"ACT": &script}, []string{"ACT"}
	return s
}

const verdictSchema = `{"type":"object","properties":{"verdict":{"enum":["good","bad"]}},"required":["verdict"]}`

func TestContract_matrix(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	address, commit := origin(t)
	commit("one")
	d := h.dispatcher(h.actors)
	t.Cleanup(h.run(d))
	schema := &agented.Expect{ResultSchema: json.RawMessage(verdictSchema)}
	edits := &agented.Expect{Changes: &agented.ExpectedChanges{MinFiles: 1, MaxFiles: 2, Paths: []string{"src/**"}}}
	none := &agented.Expect{Changes: &agented.ExpectedChanges{None: true}}
	passes := &agented.Expect{Command: []string{"sh", "-c", `echo "checking $AGENTED_ATTEMPT"; grep -q green src/test || { echo "test is red" >&2; exit 3; }`}}
	quick := &agented.Expect{Command: []string{"sleep", "60"}, CommandSeconds: 1}
	missing := &agented.Expect{Command: []string{"no-such-program-here"}, Repair: 3}
	withRepair := func(x agented.Expect, n int) *agented.Expect { x.Repair = n; return &x }
	for name, c := range map[string]struct {
		expect   *agented.Expect
		act      string
		clause   string // that is not met; empty: all are
		text     string // in the reason
		output   string
		attempts int
	}{
		"no contract":           {nil, ``, "", "", "", 1},
		"result as JSON":        {schema, `result='{\"verdict\": \"good\"}'`, "", "", `{"verdict":"good"}`, 1},
		"last fenced block":     {schema, `result='Bad: {}\n` + "```json" + `\n{\"verdict\": \"nonsense\"}\n` + "```" + `\nSo:\n` + "```json" + `\n{\"verdict\": \"bad\"}\n` + "```" + `\nBye.'`, "", "", `{"verdict":"bad"}`, 1},
		"structured output":     {schema, `test -n "$schema" && extra=',"structured_output":{"verdict":"good"}'`, "", "", `{"verdict":"good"}`, 1},
		"wrong JSON":            {schema, `result='{\"verdict\": \"great\"}'`, "result_schema", `"/verdict"`, "", 1},
		"lies in prose":         {schema, `result='I validated everything and the verdict is good.'`, "result_schema", "has no JSON value", "", 1},
		"did nothing":           {edits, `result='I fixed it.'`, "changes.min_files", "no files were changed; at least 1 expected", "", 1},
		"edited the right":      {edits, `mkdir src; echo x >src/a`, "", "", "", 1},
		"edited the wrong":      {edits, `mkdir src; echo x >src/a; echo y >other`, "changes.paths", "1 changed file does not match paths, for example other", "", 1},
		"moved out":             {edits, `mkdir src; git mv file src/file 2>&1`, "changes.paths", "does not match", "", 1},
		"edited too much":       {edits, `mkdir src; for i in 1 2 3; do echo x >src/$i; done`, "changes.max_files", "3 files were changed; at most 2 expected", "", 1},
		"none and none":         {none, ``, "", "", "", 1},
		"none and an edit":      {none, `echo x >>file`, "changes.none", "1 file was changed", "", 1},
		"none and a commit":     {none, gitPerson + `commit -q --allow-empty -m empty`, "changes.none", "1 commit was added", "", 1},
		"tests red":             {passes, `mkdir src; echo red >src/test`, "command", "exited with code 3", "", 1},
		"tests green":           {passes, `mkdir src; echo green >src/test`, "", "", "", 1},
		"tests hang":            {quick, ``, "command", "it ran longer than the limit of 1s", "", 1},
		"no such check":         {missing, ``, "command", `program "no-such-program-here": not found`, "", 1},
		"red, then green":       {withRepair(*passes, 2), `mkdir -p src; if [ $mode = new ]; then echo red >src/test; else echo green >src/test; fi`, "", "", "", 2},
		"red, however often":    {withRepair(*passes, 2), `mkdir -p src; echo red >src/test`, "command", "gave up after 3 attempts", "", 3},
		"JSON after repair":     {withRepair(*schema, 1), `[ $mode = new ] || result='{\"verdict\":\"good\"}'`, "", "", `{"verdict":"good"}`, 2},
		"nothing, then an edit": {withRepair(*edits, 1), `[ $mode = new ] || { mkdir src; echo x >src/a; }`, "", "", "", 2},
		"no text":               {&agented.Expect{Text: &agented.ExpectedText{NotEmpty: true}}, `echo x >>file; echo '{"type":"assistant","message":{"id":"y","model":"m","role":"assistant","type":"message","content":[{"type":"tool_use","id":"t","name":"Edit","input":{}}]}}'; result=' '`, "text.not_empty", "the result is empty", "", 1},
		"text matches":          {&agented.Expect{Text: &agented.ExpectedText{NotEmpty: true, Matches: `(?i)^done`}}, ``, "", "", "", 1},
		"text does not match":   {&agented.Expect{Text: &agented.ExpectedText{Matches: `LGTM`}}, ``, "text.matches", "does not match LGTM", "", 1},
		"pending work":          {none, `echo x >>file; echo '{"type":"system","subtype":"task_started","task_id":"b1","description":"npm run build"}'`, "changes.none", "background work had not ended when the agent did (npm run build)", "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id := h.fire(d, acting(address, c.act, c.expect))
			h.await(id)
			e, err := h.db.Execution(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			last := e.Attempts[len(e.Attempts)-1]
			if len(e.Attempts) != c.attempts {
				t.Errorf("%d attempts, want %d: %s", len(e.Attempts), c.attempts, e.Reason)
			}
			if got := string(e.Output()); got != c.output {
				t.Errorf("output %s, want %s", got, c.output)
			}
			if n := float64(c.attempts) * 0.01; e.Usage.CostUSD == nil || *e.Usage.CostUSD < n-1e-9 || *e.Usage.CostUSD > n+1e-9 {
				t.Errorf("cost %v, want %v", e.Usage.CostUSD, n)
			}
			if c.clause == "" {
				if e.State != agented.StateSuccess || last.Class != "" || (last.Contract != nil) != (c.expect != nil) {
					t.Errorf("%s %s: %s, contract %+v; log %s", e.State, last.Class, e.Reason, last.Contract, h.system(id))
				}
				return
			}
			if e.State != agented.StateFailed || last.Class != agented.ClassNoEffect || !strings.Contains(e.Reason, c.clause+": ") || !strings.Contains(e.Reason, c.text) {
				t.Errorf("%s %s: %q, want %q and %q; log %s", e.State, last.Class, e.Reason, c.clause, c.text, h.system(id))
			}
			unmet := 0
			for _, clause := range last.Contract.Clauses {
				if !clause.Met {
					unmet++
				}
			}
			if last.Contract.Met || unmet == 0 {
				t.Errorf("contract %+v", last.Contract)
			}
		})
	}
}

// The evidence in the prompt of a repair is what the check printed, without secrets.
func TestContract_repair_prompt(t *testing.T) {
	t.Parallel()
	const secret = "a-secret-value-1234567"
	h := newHouse(t)
	address, commit := origin(t)
	commit("one")
	d := h.dispatcher(h.actors)
	defer h.run(d)()
	spec := acting(address, `echo $AGENTED_ATTEMPT >n; [ $mode = new ] || echo green >test`, &agented.Expect{
		Command: []string{"sh", "-c", `test "$(cat test)" = green || { echo "FAIL: TestX with $MY_TOKEN"; seq 1 20000; exit 1; }`}, Repair: 1,
	})
	value := secret
	spec.Env["MY_TOKEN"] = &value
	id := h.fire(d, spec)
	if e := h.await(id); e.State != agented.StateSuccess {
		t.Fatalf("%s: %s; log %s", e.State, e.Reason, h.system(id))
	}
	e, err := h.db.Execution(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if a := e.Attempts; a[0].Class != agented.ClassNoEffect || a[1].ResumedFrom != a[0].SessionID || a[0].SessionID == "" {
		t.Errorf("attempts %+v", a)
	}
	b, err := os.ReadFile(filepath.Join(h.layout.Execution(id), "prompt-2"))
	if err != nil {
		t.Fatal(err)
	}
	prompt := string(b)
	if !strings.Contains(prompt, "command: it exited with code 1") || !strings.Contains(prompt, "    20000\n") || strings.Contains(prompt, secret) || len(prompt) > 12<<10 {
		t.Errorf("%d bytes: %s", len(prompt), prompt[:min(len(prompt), 2000)])
	}
	if log := h.system(id); strings.Contains(log, secret) || !strings.Contains(log, "Checking the expected outcome: sh -c") || !strings.Contains(log, "FAIL: TestX with ***") {
		t.Errorf("log %s", log[:min(len(log), 2000)])
	}
	// The output of the check is neither the result nor part of what the CLI printed.
	if e.Result != "Done." || strings.Contains(h.text(id), "FAIL: TestX") {
		t.Errorf("result %q", e.Result)
	}
}

func TestContract_cancel_during_check(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	address, commit := origin(t)
	commit("one")
	d := h.dispatcher(h.actors)
	defer h.run(d)()
	here := filepath.Join(t.TempDir(), "here")
	id := h.fire(d, acting(address, ``, &agented.Expect{Command: []string{"sh", "-c", "touch " + here + "; exec sleep 600"}, Repair: 2}))
	h.until(id, "being checked", func(*agented.Execution) bool { _, err := os.Stat(here); return err == nil })
	if _, err := d.Cancel(t.Context(), id, agented.Principal{Name: "ann", Role: agented.RoleAdmin}); err != nil {
		t.Fatal(err)
	}
	if e := h.await(id); e.State != agented.StateCancelled || e.AttemptNo != 1 {
		t.Errorf("%s after attempt %d: %s", e.State, e.AttemptNo, e.Reason)
	}
}

// A server that ends during the check leaves it running; the next one records its end.
func TestContract_next_server(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	address, commit := origin(t)
	commit("one")
	first := h.dispatcher(h.actors)
	stop := h.run(first)
	dir := t.TempDir()
	here, gate := filepath.Join(dir, "here"), filepath.Join(dir, "gate")
	id := h.fire(first, acting(address, `echo x >>file`, &agented.Expect{
		Changes: &agented.ExpectedChanges{MinFiles: 1},
		Command: []string{"sh", "-c", "echo $$ >>" + here + "; while [ ! -e " + gate + " ]; do sleep 0.02; done; echo checked by the check"},
	}))
	h.until(id, "being checked", func(*agented.Execution) bool { _, err := os.Stat(here); return err == nil })
	stop()
	defer h.run(h.dispatcher(h.actors))()
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if e := h.await(id); e.State != agented.StateSuccess || len(e.Attempts) != 1 {
		t.Fatalf("%s: %s; log %s", e.State, e.Reason, h.system(id))
	}
	if b, err := os.ReadFile(here); err != nil || strings.Count(string(b), "\n") != 1 {
		t.Errorf("the check ran more than once: %q, %v", b, err)
	}
	if n := strings.Count(h.system(id), "\nchecked by the check\n"); n != 1 {
		t.Errorf("its output is %d times in the log", n)
	}
}

// An execution that must publish fails if its agent proposes nothing that passes the checks.
func TestContract_published(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	address, commit := origin(t)
	commit("one")
	d := h.dispatcher(h.actors)
	t.Cleanup(h.run(d))
	const propose = `echo '{"kind":"pull_request","title":"Fix it"}' >"$AGENTED_OUT/pr.json"; `
	for name, c := range map[string]struct {
		act, repository, text string
		attempts              int // 0: one
	}{
		"proposed":              {propose + `echo x >>file`, "octo/widgets", "", 1},
		"by default":            {`echo x >>file`, "octo/widgets", "", 1},
		"did nothing":           {``, "octo/widgets", "published: no pull request was proposed", 3},
		"after a repair":        {`[ $mode = new ] || echo x >>file`, "octo/widgets", "", 2},
		"no changes":            {propose, "octo/widgets", "published: the proposed pull request was refused by the rule changes", 3},
		"a link out of it":      {propose + `ln -s ../../../etc/passwd link`, "octo/widgets", "", 1}, // the publisher refuses it
		"nowhere to publish to": {propose + `echo x >>file`, "", "published: the proposed pull request was refused by the rule repository", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := acting(address, c.act, &agented.Expect{Published: agented.PublishesPullRequest, Repair: 2})
			spec.Publish = &agented.Publish{Repository: c.repository, PullRequest: &agented.PublishPullRequest{}}
			id := h.fire(d, spec)
			h.await(id)
			e, err := h.db.Execution(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if len(e.Attempts) != c.attempts {
				t.Errorf("%d attempts, want %d: %s", len(e.Attempts), c.attempts, e.Reason)
			}
			if c.text != "" {
				if e.State != agented.StateFailed || !strings.Contains(e.Reason, c.text) || len(e.Publications) > 0 {
					t.Errorf("%s: %s; %+v", e.State, e.Reason, e.Publications)
				}
				return
			}
			last := e.Attempts[len(e.Attempts)-1].Contract
			if e.State != agented.StateSuccess || len(e.Publications) != 1 || e.Publications[0].Status != agented.PublicationPending || last == nil || !last.Clauses[0].Pending {
				t.Errorf("%s: %s; %+v; %+v", e.State, e.Reason, e.Publications, last)
			}
		})
	}
}
