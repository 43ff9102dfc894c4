package clireal_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agented/agented/internal/clireal"
)

func TestStandIn_four_apis(t *testing.T) {
	t.Parallel()
	standIn := &clireal.StandIn{}
	server := httptest.NewServer(standIn)
	t.Cleanup(server.Close)
	tools := `"tools":[{"name":"Bash","type":"function"}]`
	ask := func(path, body string) (int, string) {
		t.Helper()
		res, err := http.Post(server.URL+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(text)
	}
	for path, c := range map[string]struct{ body, end, tool string }{
		"/v1/messages":                           {`{"stream":true,` + tools + `,"messages":[{"role":"user","content":"hi"}]}`, "message_stop", `"name":"Bash"`},
		"/v1/responses":                          {`{` + tools + `,"input":[]}`, "response.completed", "function_call"},
		"/v1/chat/completions":                   {`{` + tools + `,"messages":[]}`, "[DONE]", `"name":"bash"`},
		"/v1beta/models/m:streamGenerateContent": {`{"contents":[]}`, "STOP", "run_shell_command"},
	} {
		if status, text := ask("/text"+path, c.body); status != 200 || !strings.Contains(text, "he stand-in.") || !strings.Contains(text, c.end) {
			t.Errorf("text%s: %d %s", path, status, text)
		}
		if status, text := ask("/tool"+path, c.body); status != 200 || !strings.Contains(text, c.tool) || !strings.Contains(text, clireal.ToolFile) {
			t.Errorf("tool%s: %d %s", path, status, text)
		}
		if status, _ := ask("/refused"+path, c.body); status != 401 && status != 400 {
			t.Errorf("refused%s: %d", path, status)
		}
		for _, want := range []int{429, 429, 200} {
			if status, _ := ask("/limited"+path, c.body); status != want {
				t.Errorf("limited%s: %d, want %d", path, status, want)
			}
		}
	}
	if status, _ := ask("/text/v1/nothing", "{}"); status != 404 {
		t.Errorf("an API that is not there answers %d", status)
	}
	if n := len(standIn.Requests()); n != 4*6+1 {
		t.Errorf("%d requests noted", n)
	}
}

func TestStandIn_rule_per_key(t *testing.T) {
	t.Parallel()
	standIn := &clireal.StandIn{}
	server := httptest.NewServer(standIn)
	t.Cleanup(server.Close)
	ask := func(key string) int {
		t.Helper()
		req, err := http.NewRequest(http.MethodPost, server.URL+"/text/v1/messages", strings.NewReader(`{"stream":true,"tools":[{"name":"Bash"}],"messages":[]}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Api-Key", key)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0
		}
		defer res.Body.Close()
		_, _ = io.Copy(io.Discard, res.Body)
		return res.StatusCode
	}
	standIn.Set("a", clireal.Rule{Scenario: clireal.UsageLimit, After: 1})
	standIn.Set("b", clireal.Rule{Scenario: clireal.Refused, Until: time.Now().Add(-time.Second)})
	standIn.Set("c", clireal.Rule{Scenario: clireal.Cut})
	for _, c := range []struct {
		key  string
		want int
	}{{"a", 200}, {"a", 429}, {"a", 429}, {"b", 200}, {"c", 0}, {"d", 200}} {
		if got := ask(c.key); got != c.want {
			t.Errorf("key %s: %d, want %d", c.key, got, c.want)
		}
	}
	for _, r := range standIn.Requests() {
		if r.Key == "" {
			t.Errorf("%s has no key", r.Path)
		}
	}
}

func TestStandIn_limit_together(t *testing.T) {
	t.Parallel()
	standIn := &clireal.StandIn{}
	server := httptest.NewServer(standIn)
	t.Cleanup(server.Close)
	ask := func(messages string) int {
		res, err := http.Post(server.URL+"/once/v1/messages?beta=true", "application/json", strings.NewReader(`{"stream":true,"tools":[{"name":"Bash"}],"messages":[`+messages+`]}`))
		if err != nil {
			t.Error(err)
			return 0
		}
		defer res.Body.Close()
		_, _ = io.Copy(io.Discard, res.Body)
		return res.StatusCode
	}
	const worked = `{"role":"user","content":[{"type":"tool_result","content":"ok"}]}`
	standIn.Set("", clireal.Rule{Scenario: clireal.UsageLimit, Together: 3, Lasts: 2 * time.Second})
	var met sync.WaitGroup
	for range 3 {
		if got := ask(`{"role":"user","content":"hi"}`); got != 200 {
			t.Errorf("before its tool has answered: %d", got)
		}
		met.Go(func() {
			if got := ask(worked); got != 429 {
				t.Errorf("with the others: %d", got)
			}
		})
	}
	met.Wait()
	lifts := standIn.Until("")
	if got := ask(`{"role":"user","content":"hi"}`); got != 429 && time.Now().Before(lifts) {
		t.Errorf("while the limit lasts: %d", got)
	}
	time.Sleep(time.Until(lifts)) // the limit lifts by the clock
	if got := ask(worked); got != 200 {
		t.Errorf("when it has lifted: %d", got)
	}
}
