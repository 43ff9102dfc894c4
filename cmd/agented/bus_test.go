package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agented/agented/internal/testrun"
)

// answering imitates claude: it answers each message of its inbox with a message to the agent in
// PEER, and prints the messages it received.
const answering = `#!/bin/sh
case "$1" in --version) echo "2.1.330 (Claude Code)"; exit 0;; esac
prompt=$(cat)
session=11111111-2222-4333-8444-555555555555
echo '{"type":"system","subtype":"init","session_id":"'$session'","model":"m","claude_code_version":"2.1.330"}'
n=$(printf '%s\n' "$prompt" | sed -n 's/.*ball \([0-9]*\)$/\1/p' | tail -1)
printf '%s\n' "$prompt" | grep -c 'ball' >> "$HOME/taken.$SELF"
printf '%s\n' "$prompt" | sed -n 's/.*ball \([0-9]*\)$/\1/p' >> "$HOME/balls.$SELF"
if out=$(agented message send "$PEER" --key "$AGENTED_EXECUTION_ID" "ball $((n+1))" 2>&1); then :; else echo "$out" >&2; echo "$out" > "$HOME/refused.$SELF"; fi
i=0
until agented trigger list > "$HOME/forbidden.$SELF" 2>&1 || grep -q "can only send messages" "$HOME/forbidden.$SELF" || [ $i -ge 100 ]; do
	i=$((i+1))
	sleep 0.1 # the test kills the server at times
done
echo '{"type":"result","subtype":"success","is_error":false,"result":"passed '$n'","session_id":"'$session'","num_turns":1,"usage":{"input_tokens":1,"output_tokens":1},"total_cost_usd":0.01}'
`

// pingPong creates two agents that answer each other, each fired by its messages.
func pingPong(t *testing.T, env ...string) (s *server, home string) {
	home = t.TempDir()
	bin := t.TempDir()
	if err := testrun.WriteProgram(filepath.Join(bin, "claude"), []byte(answering), 0o700); err != nil {
		t.Fatal(err)
	}
	s = newServer(t, append([]string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + home, "ANTHROPIC_API_KEY=sk-ant-" + strings.Repeat("x", 40)}, env...)...)
	for name, peer := range map[string]string{"ann": "Bob", "Bob": "agent:ann"} {
		s.call("POST", "/api/v1/agents", map[string]any{
			"name": name, "backend": "claude", "role": "passes the ball", "env": map[string]any{"PEER": peer, "SELF": name, "HOME": home},
		}, nil)
		s.trigger(map[string]any{"name": "mail for " + name, "agent": name, "prompt": "Your inbox:\n{inbox}", "messages": []any{map[string]any{"to": name}}})
	}
	return s, home
}

// balls returns the numbers that an agent received, in order.
func balls(t *testing.T, home, agent string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(home, "balls."+agent))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Fields(string(b))
}

func TestMessages_chain_limit_with_kill(t *testing.T) {
	t.Parallel()
	s, home := pingPong(t, "AGENTED_CHAIN_DEPTH=20")
	_, stderr, code := s.cli("message", "send", "ann", "ball 1")
	if code != 0 {
		t.Fatalf("send: %s", stderr)
	}
	for i := range 5 {
		s.waitFor(fmt.Sprintf("ball %d", 2*i+1), func() bool { return len(balls(t, home, "ann")) > i })
		s.kill()
		s.start()
	}
	refusal := func() string {
		a, _ := os.ReadFile(filepath.Join(home, "refused.ann"))
		b, _ := os.ReadFile(filepath.Join(home, "refused.Bob"))
		return string(a) + string(b)
	}
	s.waitFor("the refusal", func() bool { return refusal() != "" })
	if got := refusal(); !strings.Contains(got, "causes deep") {
		t.Errorf("the reason is %q", got)
	}
	// A message has depth 2n, the execution it fires 2n+1: up to depth 20, ten messages are
	// answered.
	s.waitFor("the last execution", func() bool {
		var got struct{ Items []execution }
		s.call("GET", "/api/v1/executions?source=message&limit=100", nil, &got)
		n := 0
		for _, e := range got.Items {
			if e.final() {
				n++
			}
		}
		return n == len(got.Items) && n >= 10
	})
	want := map[string][]string{}
	for n := 1; n <= len(balls(t, home, "ann"))+len(balls(t, home, "Bob")); n++ {
		who := "Bob"
		if n%2 == 1 {
			who = "ann"
		}
		want[who] = append(want[who], fmt.Sprint(n))
	}
	for who, list := range want {
		if got := balls(t, home, who); strings.Join(got, " ") != strings.Join(list, " ") {
			t.Errorf("%s took %v, want %v", who, got, list)
		}
		forbidden, _ := os.ReadFile(filepath.Join(home, "forbidden."+who))
		if !strings.Contains(string(forbidden), "can only send messages") {
			t.Errorf("%s could list triggers: %s", who, forbidden)
		}
		var inbox struct {
			Items []struct {
				Seq     int64
				State   string
				Message struct{ ID, Body string }
			}
		}
		s.call("GET", "/api/v1/agents/"+who+"/inbox?limit=200", nil, &inbox)
		for i, item := range inbox.Items {
			if item.State != "read" || item.Seq != int64(i+1) || item.Message.Body != "ball "+list[i] {
				t.Errorf("%s, inbox item %d: %+v", who, i, item)
			}
		}
		if len(inbox.Items) != len(list) {
			t.Errorf("%s has %d messages and took %d", who, len(inbox.Items), len(list))
		}
		var chain struct {
			Links   []struct{ Kind, ID, Parent string }
			CostUSD float64 `json:"cost_usd"`
		}
		s.call("GET", "/api/v1/chains/"+inbox.Items[len(inbox.Items)-1].Message.ID, nil, &chain)
		if n := len(want["ann"]) + len(want["Bob"]); len(chain.Links) != 2*n || chain.CostUSD < 0.009*float64(n) {
			t.Errorf("the chain has %d links and cost %g", len(chain.Links), chain.CostUSD)
		}
	}
}
