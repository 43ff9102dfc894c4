package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented/internal/client"
	"github.com/agented/agented/internal/testrun"
)

// fakeClaude imitates claude: it answers in pieces, remembers its session, and waits for a file on
// request.
const fakeClaude = `#!/bin/sh
case "$1" in --version) echo "2.1.330 (Claude Code)"; exit 0;; esac
session=; mode=new; next=
for a in "$@"; do
  case "$next" in session) session=$a;; resume) session=$a; mode=resumed;; esac
  case "$a" in --session-id) next=session;; --resume) next=resume;; *) next=;; esac
done
prompt=$(cat)
if [ $mode = resumed ] && [ ! -f "$HOME/$session" ]; then
  echo '{"type":"result","subtype":"error_during_execution","is_error":true,"errors":["No conversation found with session ID: '$session'"],"session_id":"x"}'; exit 1
fi
echo "$prompt" >> "$HOME/$session"
n=$(wc -l < "$HOME/$session" | tr -d ' ')
echo '{"type":"system","subtype":"init","session_id":"'$session'","model":"m","claude_code_version":"2.1.330"}'
piece() { echo '{"type":"stream_event","event":{"type":"content_block_delta","delta":{"type":"text_delta","text":"'"$1"'"}},"session_id":"'$session'"}'; }
echo '{"type":"stream_event","event":{"type":"message_start"}}'
piece "turn $n"
case "$prompt" in *wait*) while [ ! -f "$HOME/go" ]; do sleep 0.05; done;; esac
for i in 1 2 3; do piece " $mode"; done
echo '{"type":"assistant","message":{"content":[{"type":"text","text":"turn '$n' '$mode' '$mode' '$mode'"},{"type":"tool_use","id":"t1","name":"Bash","input":{"command":"true"}}]}}'
echo '{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"t1","content":"done"}]}}'
echo '{"type":"result","subtype":"success","is_error":false,"result":"turn '$n' '$mode' '$mode' '$mode'","session_id":"'$session'","num_turns":1,"usage":{"input_tokens":1,"output_tokens":1},"total_cost_usd":0.01}'
`

// conversationEvent holds the fields that the tests read of a conversation's event.
type conversationEvent struct {
	ID   int64  `json:"id"`
	Kind string `json:"event"`
	Data struct {
		Role      string `json:"role"`
		Text      string `json:"text"`
		Status    string `json:"status"`
		Message   string `json:"message"`
		Execution string `json:"execution_id"`
		State     string `json:"state"`
	} `json:"data"`
}

type conversationTest struct {
	*server
	home string
	id   string
}

func newConversationTest(t *testing.T, env ...string) *conversationTest {
	home, bin := t.TempDir(), t.TempDir()
	if err := testrun.WriteProgram(filepath.Join(bin, "claude"), []byte(fakeClaude), 0o700); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, append([]string{"PATH=" + bin + ":" + os.Getenv("PATH"), "ANTHROPIC_API_KEY=sk-ant-" + strings.Repeat("y", 40)}, env...)...)
	s.call("POST", "/api/v1/agents", map[string]any{"name": "helper", "backend": "claude", "role": "helps", "env": map[string]any{"HOME": home}}, nil)
	var c struct{ ID string }
	s.call("POST", "/api/v1/conversations", map[string]any{"agent": "helper"}, &c)
	return &conversationTest{s, home, c.ID}
}

func (k *conversationTest) post(text string) {
	k.t.Helper()
	if status := k.call("POST", "/api/v1/conversations/"+k.id+"/messages", map[string]any{"text": text}, nil); status != 202 {
		k.t.Fatalf("say %q: %d", text, status)
	}
}

func (k *conversationTest) events() []conversationEvent {
	k.t.Helper()
	var got struct{ Events []conversationEvent }
	if _, err := k.try("GET", "/api/v1/conversations/"+k.id+"/events?limit=1000", nil, &got); err != nil {
		return nil // it is being restarted
	}
	return got.Events
}

// answers returns the agent's answers turn by turn, as messages and as pieces.
func answers(events []conversationEvent) (whole, pieces []string) {
	var text strings.Builder
	for _, e := range events {
		switch {
		case e.Kind == "content_delta":
			text.WriteString(e.Data.Text)
		case e.Kind == "message" && e.Data.Role == "agent":
			whole = append(whole, e.Data.Text)
		case e.Kind == "finish":
			pieces = append(pieces, text.String())
			text.Reset()
		}
	}
	return whole, pieces
}

func (k *conversationTest) finishes() int {
	n := 0
	for _, e := range k.events() {
		if e.Kind == "finish" {
			n++
		}
	}
	return n
}

func TestConversation_survives_kill(t *testing.T) {
	t.Parallel()
	k := newConversationTest(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := client.New("http://"+k.addr, testKey)
	if err != nil {
		t.Fatal(err)
	}
	var seen []conversationEvent
	followed := make(chan error, 1)
	go func() {
		followed <- c.FollowFeed(ctx, "/api/v1/conversations/"+k.id+"/stream", "0", func(event, id string, data []byte) error {
			e := conversationEvent{Kind: event}
			fmt.Sscan(id, &e.ID)
			if err := json.Unmarshal(data, &e.Data); err != nil {
				return err
			}
			seen = append(seen, e)
			if n, _ := answers(seen); len(n) == 3 && event == "finish" {
				return io.EOF
			}
			return nil
		}, nil)
	}()
	for _, text := range []string{"one, and wait", "two", "three"} {
		k.post(text)
	}
	k.waitFor("the first piece", func() bool {
		for _, e := range k.events() {
			if e.Kind == "content_delta" {
				return true
			}
		}
		return false
	})
	k.kill()
	if err := os.WriteFile(filepath.Join(k.home, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	k.start()
	if err := testrun.Receive(t, followed, "the reader to end"); err != nil {
		t.Fatal(err)
	}
	for i, e := range seen {
		if e.ID != int64(i+1) {
			t.Fatalf("event %d has the id %d", i+1, e.ID)
		}
	}
	want := []string{"turn 1 new new new", "turn 2 resumed resumed resumed", "turn 3 resumed resumed resumed"}
	whole, pieces := answers(seen)
	if strings.Join(whole, "|") != strings.Join(want, "|") || strings.Join(pieces, "|") != strings.Join(want, "|") {
		t.Errorf("answers %q, in pieces %q", whole, pieces)
	}
	if stored := k.events(); len(stored) != len(seen) {
		t.Errorf("%d events are stored, %d were seen", len(stored), len(seen))
	}
}

func TestTurn_interrupt_and_redirect(t *testing.T) {
	t.Parallel()
	k := newConversationTest(t)
	k.post("hello")
	k.waitFor("the first answer", func() bool { return k.finishes() == 1 })
	k.post("wait for ever")
	k.post("never said")
	k.waitFor("the second turn", func() bool {
		for _, e := range k.events() {
			if e.Kind == "content_delta" && e.Data.Text == "turn 2" {
				return true
			}
		}
		return false
	})
	var got struct {
		Stopped bool
		Number  int64
	}
	k.call("POST", "/api/v1/conversations/"+k.id+"/interrupt", map[string]any{"text": "something else"}, &got)
	if !got.Stopped || got.Number != 4 {
		t.Errorf("interrupt: %+v", got)
	}
	k.waitFor("the redirected turn", func() bool { return k.finishes() == 3 })
	var ends []string
	for _, e := range k.events() {
		if e.Kind == "finish" {
			ends = append(ends, e.Data.Status)
		}
	}
	if strings.Join(ends, " ") != "success cancelled success" {
		t.Errorf("turns ended as %v", ends)
	}
	if whole, _ := answers(k.events()); len(whole) == 0 || whole[len(whole)-1] != "turn 3 resumed resumed resumed" {
		t.Errorf("answers: %q", whole)
	}
}

func TestConversation_idle_and_reopen(t *testing.T) {
	t.Parallel()
	k := newConversationTest(t, "STALE_CONVERSATION_THRESHOLD_SECS=1")
	status := func() string {
		var c struct{ Status string }
		k.call("GET", "/api/v1/conversations/"+k.id, nil, &c)
		return c.Status
	}
	k.post("hello")
	k.waitFor("the first answer", func() bool { return k.finishes() == 1 })
	k.waitFor("it to close", func() bool { return status() == "closed" })
	k.post("again")
	k.waitFor("the second answer", func() bool { return k.finishes() == 2 })
	if whole, _ := answers(k.events()); strings.Join(whole, "|") != "turn 1 new new new|turn 2 resumed resumed resumed" {
		t.Errorf("answers: %q", whole)
	}
}

func TestChat_one_message(t *testing.T) {
	t.Parallel()
	k := newConversationTest(t)
	out, stderr, code := k.cli("chat", "helper", "hello")
	if code != 0 || out != "turn 1 new new new\n" {
		t.Fatalf("exit %d, said %q, %s", code, out, stderr)
	}
	id, _, _ := strings.Cut(strings.TrimPrefix(stderr, "conversation "), " ")
	out, stderr, code = k.cli("chat", "helper", "-c", id, "and more")
	if code != 0 || out != "turn 2 resumed resumed resumed\n" {
		t.Errorf("exit %d, said %q, %s", code, out, stderr)
	}
	if _, stderr, code = k.cli("chat", "nobody", "hello"); code != 3 {
		t.Errorf("with nobody: exit %d, %s", code, stderr)
	}
}
