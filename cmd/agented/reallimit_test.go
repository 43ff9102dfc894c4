package main_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented/internal/clireal"

	"github.com/agented/agented/internal/testrun"
)

// limited holds the fields of an execution that the tests of limits read.
type limited struct {
	ID          string     `json:"id"`
	Status      string     `json:"status"`
	Reason      string     `json:"reason"`
	Result      string     `json:"result"`
	WaitingOn   string     `json:"waiting_on"`
	ParkedUntil *time.Time `json:"parked_until"`
	Usage       struct {
		Input *int64   `json:"input_tokens"`
		Cost  *float64 `json:"cost_usd"`
	} `json:"usage"`
	Attempts []struct {
		Account     string     `json:"account"`
		Status      string     `json:"status"`
		Class       string     `json:"class"`
		Reason      string     `json:"reason"`
		Evidence    string     `json:"evidence"`
		SessionID   string     `json:"session_id"`
		ResumedFrom string     `json:"resumed_from"`
		RetryAt     *time.Time `json:"retry_at"`
	} `json:"attempts"`
}

// realBench is a server with real CLIs on its PATH and a stand-in for their APIs.
type realBench struct {
	*server
	standIn *clireal.StandIn
	url     string // address of the stand-in with the scenario
	work    string
}

// newRealBench skips the test if the CLI is not installed. The stand-in listens at addr, or at
// any address if it is empty.
func newRealBench(t *testing.T, cli string, scenario clireal.Scenario, addr string, env ...string) *realBench {
	t.Helper()
	clis := os.Getenv("AGENTED_TEST_CLIS")
	if clis == "" {
		t.Skipf("%s is not driven: AGENTED_TEST_CLIS names no folder of CLIs; make test-cli installs them and sets it", cli)
	}
	bin := filepath.Join(clis, cli, "node_modules", ".bin")
	if _, err := os.Stat(filepath.Join(bin, cli)); err != nil {
		reason, _ := os.ReadFile(filepath.Join(clis, cli, "reason.txt"))
		t.Skipf("%s is not driven: %v %s", cli, err, bytes.TrimSpace(reason))
	}
	b := &realBench{standIn: &clireal.StandIn{Command: "echo " + clireal.ToolContent + " >> " + clireal.ToolFile}}
	if addr == "" {
		addr = testrun.FreeAddress(t)
		b.listen(t, addr)
	}
	b.url = "http://" + addr + "/" + string(scenario)
	b.server = newServer(t, append(env, "PATH="+bin+":"+os.Getenv("PATH"), "ANTHROPIC_BASE_URL="+b.url, "OPENAI_BASE_URL="+b.url+"/v1")...)
	b.work = filepath.Join(b.dir, "cwd")
	return b
}

// listen starts the stand-in.
func (b *realBench) listen(t *testing.T, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	api := httptest.NewUnstartedServer(b.standIn)
	_ = api.Listener.Close()
	api.Listener = l
	api.Start()
	t.Cleanup(func() {
		api.CloseClientConnections()
		api.Close()
	})
}

// account creates an account of the backend and returns its id.
func (b *realBench) account(backend, name, variable, key string) string {
	b.t.Helper()
	var got struct {
		ID string `json:"id"`
	}
	b.call("POST", "/api/v1/accounts", map[string]any{"backend": backend, "name": name, "credentials": map[string]string{variable: key}}, &got)
	return got.ID
}

// accountState returns the state of an account and its end.
func (b *realBench) accountState(id string) (state string, until *time.Time) {
	b.t.Helper()
	var got struct {
		State string     `json:"state"`
		Until *time.Time `json:"until"`
	}
	b.call("GET", "/api/v1/accounts/"+id, nil, &got)
	return got.State, got.Until
}

// run fires a trigger on the backend.
func (b *realBench) run(backend string, more map[string]any) string {
	b.t.Helper()
	body := map[string]any{
		"name": fmt.Sprint("agent ", time.Now().UnixNano()), "backend": backend, "prompt": "Write the file about rhubarb.", "working_dir": b.work,
		"permission": "edit", "timeout_seconds": 180, "retry": map[string]any{"base_seconds": 1, "cap_seconds": 5},
	}
	if backend == "claude" {
		body["args"] = []string{"--allowedTools", "Bash"}
	}
	for name, value := range more {
		body[name] = value
	}
	return b.fire(b.trigger(body))
}

// until polls the execution until ok returns true.
func (b *realBench) until(id, what string, ok func(limited) bool) limited {
	b.t.Helper()
	return b.untilWithin(3*time.Minute, id, what, ok)
}

func (b *realBench) untilWithin(patience time.Duration, id, what string, ok func(limited) bool) limited {
	b.t.Helper()
	var e limited
	for deadline := time.Now().Add(patience); ; {
		e = limited{}
		if _, err := b.try("GET", "/api/v1/executions/"+id, nil, &e); err == nil && ok(e) {
			return e
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("gave up waiting for %s: %+v\n%s", what, e, b.logText(id))
		}
		time.Sleep(20 * time.Millisecond) // interval of the poll
	}
}

func done(e limited) bool { return e.Status != "pending" && e.Status != "running" }

func parked(e limited) bool {
	return e.Status == "pending" && len(e.Attempts) > 0
}

// onceDone checks that the work was done once and that the model received its result.
func (b *realBench) onceDone(text string) {
	b.t.Helper()
	b.onceDoneIn(b.work, text)
}

// onceDoneIn is like onceDone for work in another folder.
func (b *realBench) onceDoneIn(work, text string) {
	b.t.Helper()
	wrote, err := os.ReadFile(filepath.Join(work, clireal.ToolFile))
	if err != nil || strings.Count(string(wrote), "\n") != 1 {
		b.t.Errorf("the file holds %q (%v)", wrote, err)
	}
	var last []byte
	for _, r := range b.standIn.Requests() {
		if r.Method == http.MethodPost && r.Status == http.StatusOK && bytes.Contains(r.Body, []byte(text)) {
			last = r.Body
		}
	}
	if !bytes.Contains(last, []byte(clireal.ToolFile)) {
		b.t.Error("the model did not see again what had been done")
	}
}

func TestRealCLI_resumes_after_limit(t *testing.T) {
	for cli, c := range map[string]struct{ variable, key string }{
		"claude": {"CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-stand-in-a-0123456789"},
		"codex":  {"OPENAI_API_KEY", "sk-stand-in-a-0123456789"},
	} {
		t.Run(cli, func(t *testing.T) {
			b := newRealBench(t, cli, clireal.Once, "")
			account := b.account(cli, "a", c.variable, c.key)
			lifts := time.Now().Add(25 * time.Second)
			b.standIn.Set(c.key, clireal.Rule{Scenario: clireal.UsageLimit, After: 1, Until: lifts})
			id := b.run(cli, map[string]any{"account": account})
			e := b.until(id, "the limit", parked)
			first := e.Attempts[0]
			if first.Class != "account_limit" || first.SessionID == "" || first.Evidence == "" || e.WaitingOn == "" || e.Reason == "" {
				t.Fatalf("parked: %+v", e)
			}
			t.Logf("parked until %v, limit lifts at %v: %s", e.ParkedUntil, lifts.UTC(), e.Reason)
			if state, until := b.accountState(account); state != "cooling" || until == nil || until.Before(lifts.Add(-time.Minute)) || until.After(lifts.Add(2*time.Minute)) {
				t.Errorf("the account is %s until %v, the limit lifts at %v", state, until, lifts)
			}
			b.kill() // while it is parked
			b.start()
			e = b.until(id, "the next attempt", func(e limited) bool { return len(e.Attempts) > 1 })
			b.kill() // while it resumes
			b.start()
			e = b.until(id, "the end", done)
			last := e.Attempts[len(e.Attempts)-1]
			if e.Status != "success" || e.Result != clireal.ToolAnswer || last.SessionID != first.SessionID || last.ResumedFrom != first.SessionID {
				t.Errorf("in the end: %+v", e)
			}
			if len(e.Attempts) > 3 {
				t.Errorf("%d attempts", len(e.Attempts))
			}
			b.onceDone("rhubarb")
			if state, _ := b.accountState(account); state != "ready" {
				t.Errorf("the account is %s", state)
			}
			if left := marked([]string{id}); len(left) > 0 {
				t.Errorf("processes left: %v", left)
			}
		})
	}
}

func TestRealCLI_next_account(t *testing.T) {
	for _, c := range []struct {
		name, cli, variable, a, b string
		scenario                  clireal.Scenario
		class, state              string
	}{
		{"claude limit", "claude", "CLAUDE_CODE_OAUTH_TOKEN", "sk-ant-oat01-stand-in-a-0123456789", "sk-ant-oat01-stand-in-b-0123456789", clireal.UsageLimit, "account_limit", "cooling"},
		{"claude refused", "claude", "ANTHROPIC_API_KEY", "sk-ant-stand-in-a-0123456789", "sk-ant-stand-in-b-0123456789", clireal.Refused, "auth", "needs_login"},
		{"claude credit", "claude", "ANTHROPIC_API_KEY", "sk-ant-stand-in-a-0123456789", "sk-ant-stand-in-b-0123456789", clireal.Quota, "billing", "out_of_credit"},
		{"codex limit", "codex", "OPENAI_API_KEY", "sk-stand-in-a-0123456789", "sk-stand-in-b-0123456789", clireal.UsageLimit, "account_limit", "cooling"},
		{"codex refused", "codex", "OPENAI_API_KEY", "sk-stand-in-a-0123456789", "sk-stand-in-b-0123456789", clireal.Refused, "auth", "needs_login"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newRealBench(t, c.cli, clireal.Once, "")
			one, two := b.account(c.cli, "a", c.variable, c.a), b.account(c.cli, "b", c.variable, c.b)
			b.standIn.Set(c.a, clireal.Rule{Scenario: c.scenario, After: 1})
			chain := map[string]any{"account": one, "fallback": []map[string]any{{"backend": c.cli, "account": two}}}
			e := b.until(b.run(c.cli, chain), "the end", done)
			if e.Status != "success" || len(e.Attempts) != 2 {
				t.Fatalf("%+v", e)
			}
			first, second := e.Attempts[0], e.Attempts[1]
			if first.Account != one || first.Class != c.class || second.Account != two || second.ResumedFrom != first.SessionID || second.SessionID != first.SessionID {
				t.Errorf("%+v", e.Attempts)
			}
			b.onceDone("rhubarb")
			if state, _ := b.accountState(one); state != c.state {
				t.Errorf("account a is %s, want %s", state, c.state)
			}
			if state, _ := b.accountState(two); state != "ready" {
				t.Errorf("account b is %s", state)
			}
			// A later execution does not try the first account.
			if e = b.until(b.run(c.cli, chain), "another's end", done); e.Status != "success" || len(e.Attempts) != 1 || e.Attempts[0].Account != two {
				t.Errorf("the next: %+v", e)
			}
		})
	}
}

func TestRealCLI_waits_for_overload_and_network(t *testing.T) {
	for cli, key := range map[string]string{"claude": "sk-ant-stand-in-a-0123456789", "codex": "sk-stand-in-a-0123456789"} {
		variable := map[string]string{"claude": "ANTHROPIC_API_KEY", "codex": "OPENAI_API_KEY"}[cli]
		t.Run(cli+" overload", func(t *testing.T) {
			b := newRealBench(t, cli, clireal.Once, "")
			account := b.account(cli, "a", variable, key)
			b.standIn.Set(key, clireal.Rule{Scenario: clireal.Overloaded, After: 1, Until: time.Now().Add(12 * time.Second)})
			e := b.until(b.run(cli, map[string]any{"account": account}), "the end", done)
			if e.Status != "success" || len(e.Attempts) < 2 || e.Attempts[0].Class != "overload" || e.Attempts[1].ResumedFrom != e.Attempts[0].SessionID {
				t.Errorf("%+v", e)
			}
			b.onceDone("rhubarb")
			if state, _ := b.accountState(account); state != "ready" {
				t.Errorf("the account is %s though the provider was overloaded", state)
			}
		})
	}
	// The network is unavailable while the CLI works, for longer than the CLI retries.
	for cli, key := range map[string]string{"claude": "sk-ant-stand-in-a-0123456789", "codex": "sk-stand-in-a-0123456789"} {
		variable := map[string]string{"claude": "ANTHROPIC_API_KEY", "codex": "OPENAI_API_KEY"}[cli]
		t.Run(cli+" cut off", func(t *testing.T) {
			b := newRealBench(t, cli, clireal.Once, "")
			account := b.account(cli, "a", variable, key)
			b.standIn.Set(key, clireal.Rule{Scenario: clireal.Cut, After: 1})
			id := b.run(cli, map[string]any{"account": account, "env": map[string]string{"CLAUDE_CODE_MAX_RETRIES": "1"}})
			e := b.until(id, "the first attempt's end", func(e limited) bool { return len(e.Attempts) > 0 && e.Attempts[0].Class != "" })
			if e.Attempts[0].Class != "network" || e.Attempts[0].SessionID == "" {
				t.Errorf("%+v", e)
			}
			b.standIn.Set(key, clireal.Rule{Scenario: clireal.Once, Until: time.Now()}) // the network is back
			e = b.until(id, "the end", done)
			if last := e.Attempts[len(e.Attempts)-1]; e.Status != "success" || last.SessionID != e.Attempts[0].SessionID || last.ResumedFrom != last.SessionID {
				t.Errorf("%+v", e)
			}
			b.onceDone("rhubarb")
		})
	}
	t.Run("claude network", func(t *testing.T) {
		addr := testrun.FreeAddress(t)
		b := newRealBench(t, "claude", clireal.Once, addr)
		account := b.account("claude", "a", "ANTHROPIC_API_KEY", "sk-ant-stand-in-a-0123456789")
		id := b.run("claude", map[string]any{"account": account, "env": map[string]string{"CLAUDE_CODE_MAX_RETRIES": "1"}})
		e := b.until(id, "the first attempt's end", func(e limited) bool { return len(e.Attempts) > 0 && e.Attempts[0].Class != "" })
		if e.Attempts[0].Class != "network" {
			t.Errorf("%+v", e)
		}
		b.listen(t, addr)
		if e = b.until(id, "the end", done); e.Status != "success" || e.Result != clireal.ToolAnswer {
			t.Errorf("%+v", e)
		}
		b.onceDone("rhubarb")
	})
}

// TestRealClaude_ten_runs covers the main case: ten runs on one subscription reach its five-hour
// limit, the server is killed while they are parked and while they resume, and all of them
// succeed.
func TestRealClaude_ten_runs(t *testing.T) {
	const runs, token = 10, "sk-ant-oat01-stand-in-a-0123456789"
	b := newRealBench(t, "claude", clireal.Once, "", "AGENTED_MAX_CONCURRENT="+fmt.Sprint(runs))
	account := b.account("claude", "a", "CLAUDE_CODE_OAUTH_TOKEN", token)
	b.standIn.Set(token, clireal.Rule{Scenario: clireal.UsageLimit, Together: runs, Lasts: 20 * time.Second})
	ids, works, words := make([]string, runs), make([]string, runs), make([]string, runs)
	began := time.Now()
	for i := range runs {
		words[i] = fmt.Sprintf("task-%d-of-the-night", i)
		works[i] = filepath.Join(b.dir, words[i])
		if err := os.Mkdir(works[i], 0o700); err != nil {
			t.Fatal(err)
		}
		ids[i] = b.run("claude", map[string]any{"account": account, "working_dir": works[i], "prompt": "Do " + words[i] + "."})
	}
	met := func(e limited) bool { return parked(e) || len(e.Attempts) > 1 } // or resumed already, on a slow machine
	b.untilWithin(5*time.Minute, ids[0], "the limit", met)
	lifts := b.standIn.Until(token)
	t.Logf("%d runs met the limit after %v", runs, lifts.Add(-20*time.Second).Sub(began).Round(time.Second))
	sessions := map[string]bool{}
	firsts := make([]limited, runs)
	for i, id := range ids {
		e := b.until(id, "the limit", met)
		if first := e.Attempts[0]; first.Class != "account_limit" || first.SessionID == "" || !strings.Contains(first.Reason, "limit") {
			t.Errorf("%d met the limit: %+v", i, e)
		}
		firsts[i] = e
		sessions[e.Attempts[0].SessionID] = true
	}
	if len(sessions) != runs {
		t.Errorf("%d runs are in %d sessions", runs, len(sessions))
	}
	t.Logf("all are parked %v before the limit lifts: %s", time.Until(lifts).Round(100*time.Millisecond), firsts[0].Reason)
	if n := marked(ids); len(n) > 0 && time.Now().Before(lifts) {
		t.Errorf("processes of what is parked: %v", n)
	}
	other := b.await(b.fire(b.trigger(map[string]any{"name": "other", "backend": "command", "command": []string{"true"}})))
	if other.Status != "success" {
		t.Errorf("another's run in a slot that was given free: %+v", other)
	}
	b.kill() // while they are parked
	b.start()
	woken := func() bool {
		for _, id := range ids {
			var e limited
			if _, err := b.try("GET", "/api/v1/executions/"+id, nil, &e); err == nil && len(e.Attempts) > 1 {
				return true
			}
		}
		return false
	}
	b.waitFor("the first to wake", woken)
	b.kill() // while it resumes
	b.start()
	for i, id := range ids {
		e := b.untilWithin(5*time.Minute, id, "the end", done)
		first, last := e.Attempts[0], e.Attempts[len(e.Attempts)-1]
		if e.Status != "success" || e.Result != clireal.ToolAnswer || len(e.Attempts) != 2 || last.SessionID != first.SessionID || last.ResumedFrom != first.SessionID {
			t.Errorf("%d in the end: %+v", i, e)
		}
		b.onceDoneIn(works[i], words[i])
		if e.Usage.Input == nil || e.Usage.Cost == nil {
			t.Errorf("the cost of %d is not known", i)
		} else if i == 0 {
			t.Logf("cost of one: %v USD, %d tokens in", *e.Usage.Cost, *e.Usage.Input)
		}
		says := false
		for _, l := range b.lines(id) {
			says = says || l.Stream == "system" && strings.Contains(l.Content, "resumes the same session ("+first.SessionID+")")
		}
		if !says {
			t.Errorf("the log of %d does not say how it went on", i)
		}
	}
	t.Logf("all are done %v after the limit lifted", time.Since(lifts).Round(time.Second))
	refused, early := 0, 0
	for _, r := range b.standIn.Requests() {
		if r.Status == http.StatusTooManyRequests {
			refused++
		}
		if r.Method == http.MethodPost && r.At.After(lifts.Add(-10*time.Second)) && r.At.Before(lifts) {
			early++
		}
	}
	if early > 0 {
		t.Errorf("%d calls within the last ten seconds of the limit", early)
	}
	t.Logf("%d calls were refused, of %d", refused, len(b.standIn.Requests()))
	if state, _ := b.accountState(account); state != "ready" {
		t.Errorf("the account is %s", state)
	}
	if left := marked(ids); len(left) > 0 {
		t.Errorf("processes left: %v", left)
	}
}

func TestRealCLI_waits_for_login(t *testing.T) {
	for cli, c := range map[string]struct{ variable, old, fresh string }{
		"claude": {"ANTHROPIC_API_KEY", "sk-ant-stand-in-a-0123456789", "sk-ant-stand-in-b-0123456789"},
		"codex":  {"OPENAI_API_KEY", "sk-stand-in-a-0123456789", "sk-stand-in-b-0123456789"},
	} {
		t.Run(cli, func(t *testing.T) {
			b := newRealBench(t, cli, clireal.Once, "")
			account := b.account(cli, "a", c.variable, c.old)
			b.standIn.Set(c.old, clireal.Rule{Scenario: clireal.Refused, After: 1})
			id := b.run(cli, map[string]any{"account": account})
			e := b.until(id, "the refusal", parked)
			if e.Attempts[0].Class != "auth" || e.ParkedUntil != nil || !strings.Contains(e.WaitingOn, "needs a login") {
				t.Errorf("parked: %+v", e)
			}
			b.kill() // while it waits for an answer
			b.start()
			b.call("PATCH", "/api/v1/accounts/"+account, map[string]any{"credentials": map[string]string{c.variable: c.fresh}}, &struct{}{})
			e = b.until(id, "the end", done)
			if e.Status != "success" || len(e.Attempts) != 2 || e.Attempts[1].SessionID != e.Attempts[0].SessionID || e.Attempts[1].ResumedFrom != e.Attempts[0].SessionID {
				t.Errorf("in the end: %+v", e)
			}
			b.onceDone("rhubarb")
		})
	}
}
