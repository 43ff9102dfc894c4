package main_test

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/agented/agented/internal/clireal"
)

// TestRealClaude_messages_with_kills lets two agents on the Claude Code CLI from npm exchange ten
// messages: the stand-in model makes each agent send the next message with `agented message
// send`.
func TestRealClaude_messages_with_kills(t *testing.T) {
	clis := os.Getenv("AGENTED_TEST_CLIS")
	if clis == "" {
		t.Skip("claude is not driven: AGENTED_TEST_CLIS names no folder of CLIs; make test-cli installs them and sets it")
	}
	bin := filepath.Join(clis, "claude", "node_modules", ".bin")
	if _, err := os.Stat(filepath.Join(bin, "claude")); err != nil {
		reason, _ := os.ReadFile(filepath.Join(clis, "claude", "reason.txt"))
		t.Skipf("claude is not driven: %v %s", err, bytes.TrimSpace(reason))
	}
	const messages = 10
	var mu sync.Mutex // guards asked
	var asked []int   // numbers that the model received, in order
	ball := regexp.MustCompile(`ball (\d+)`)
	stand := &clireal.StandIn{Ask: func(text string) string {
		found := ball.FindAllStringSubmatch(text, -1)
		mu.Lock()
		defer mu.Unlock()
		n := 0
		for _, one := range found {
			n, _ = strconv.Atoi(one[1])
			asked = append(asked, n)
		}
		if n == 0 || n >= messages {
			return ""
		}
		return fmt.Sprintf(`agented message send "$PEER" --key "$AGENTED_EXECUTION_ID" "ball %d"`, n+1)
	}}
	api := httptest.NewServer(stand)
	t.Cleanup(func() {
		api.CloseClientConnections()
		api.Close()
	})
	s := newServer(t, "ANTHROPIC_API_KEY=sk-ant-api03-stand-in-key-0123456789", "ANTHROPIC_BASE_URL="+api.URL+"/tool", "PATH="+bin+":"+os.Getenv("PATH"))
	for name, peer := range map[string]string{"ann": "Bob", "Bob": "ann"} {
		s.call("POST", "/api/v1/agents", map[string]any{
			"name": name, "backend": "claude", "role": "passes the ball", "env": map[string]any{"PEER": peer}, "args": []string{"--allowedTools", "Bash"},
		}, nil)
		s.trigger(map[string]any{"name": "mail for " + name, "agent": name, "prompt": "Your inbox:\n{inbox}", "timeout_seconds": 240, "messages": []any{map[string]any{"to": name}}})
	}
	seen := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(asked)
	}
	patiently := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(4 * time.Minute); !ok(); time.Sleep(20 * time.Millisecond) { // interval of the poll
			if time.Now().After(end) {
				t.Fatalf("gave up waiting for %s; the model was asked %v", what, asked)
			}
		}
	}
	if _, stderr, code := s.cli("message", "send", "ann", "ball 1"); code != 0 {
		t.Fatalf("send: %s", stderr)
	}
	for i := range 5 {
		patiently(fmt.Sprintf("ball %d", 2*i+1), func() bool { return seen() > 2*i })
		s.kill()
		s.start()
	}
	var got struct{ Items []execution }
	patiently("the last execution", func() bool {
		s.call("GET", "/api/v1/executions?source=message&limit=100", nil, &got)
		n := 0
		for _, e := range got.Items {
			if e.final() {
				n++
			}
		}
		return n >= messages && n == len(got.Items)
	})
	if want := fmt.Sprint([]int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}); fmt.Sprint(asked) != want {
		t.Errorf("the model was given %v, want each once and in order: %s", asked, want)
	}
	var ids []string
	for _, e := range got.Items {
		ids = append(ids, e.ID)
		var whole execution
		s.call("GET", "/api/v1/executions/"+e.ID, nil, &whole)
		if whole.Status != "success" || len(whole.Attempts) != 1 {
			t.Errorf("execution %+v", whole)
		}
	}
	if len(ids) != messages {
		t.Errorf("%d executions, want %d", len(ids), messages)
	}
	for i, who := range []string{"ann", "Bob"} {
		var inbox struct{ Items []inboxItem }
		s.call("GET", "/api/v1/agents/"+who+"/inbox", nil, &inbox)
		var said []string
		for _, item := range inbox.Items {
			said = append(said, item.Message.Body)
			if item.State != "read" {
				t.Errorf("%s: %+v", who, item)
			}
		}
		var want []string
		for n := 1 + i; n <= messages; n += 2 {
			want = append(want, fmt.Sprint("ball ", n))
		}
		if strings.Join(said, "|") != strings.Join(want, "|") {
			t.Errorf("%s has %q, want %q", who, said, want)
		}
	}
	s.waitFor("the shims to end", func() bool { return len(marked(ids)) == 0 })
}
