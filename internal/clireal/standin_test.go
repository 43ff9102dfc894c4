package clireal_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/agented/agented/internal/clireal"
)

func TestTheStandInSpeaksTheFourAPIs(t *testing.T) {
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
