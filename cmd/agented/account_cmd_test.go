package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented/internal/testrun"
)

// limitedClaude imitates Claude Code on an account whose limit resets at the second in the file
// limit. Its work takes a second.
const limitedClaude = `#!/bin/sh
if [ "$1" = --version ]; then
	echo "2.1.330 (Claude Code)"
	exit
fi
cat >/dev/null
mode=new
for a; do
	case "$last" in
	--session-id) id=$a ;;
	--resume) id=$a; mode=resume ;;
	esac
	last=$a
done
home=$CLAUDE_CONFIG_DIR
echo "$mode-$id" >>"$home/calls"
echo '{"type":"system","subtype":"init","session_id":"'$id'","model":"m","tools":[],"claude_code_version":"2.1.330"}'
echo "the key is $ANTHROPIC_API_KEY"
until=$(cat "$home/limit" 2>/dev/null || echo 0)
if [ "$(date +%s)" -lt "$until" ]; then
	echo '{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":'$until',"rateLimitType":"five_hour"},"session_id":"'$id'"}'
	echo '{"type":"result","subtype":"success","is_error":true,"api_error_status":429,"result":"You have hit your 5-hour limit","session_id":"'$id'","num_turns":1,"total_cost_usd":0,"terminal_reason":"api_error"}'
	exit 1
fi
sleep 1
echo "$id" >>"$home/done"
echo '{"type":"assistant","message":{"id":"y","model":"m","role":"assistant","type":"message","content":[{"type":"text","text":"done"}],"usage":{"input_tokens":1,"output_tokens":1}},"session_id":"'$id'"}'
echo '{"type":"result","subtype":"success","is_error":false,"result":"done","session_id":"'$id'","num_turns":1,"total_cost_usd":0.01,"usage":{"input_tokens":1,"output_tokens":1},"terminal_reason":"completed"}'
`

// parkedExecution holds the fields that this test reads of an execution.
type parkedExecution struct {
	Status      string     `json:"status"`
	Reason      string     `json:"reason"`
	WaitingOn   string     `json:"waiting_on"`
	ParkedUntil *time.Time `json:"parked_until"`
	Attempts    []struct {
		Number      int    `json:"number"`
		Status      string `json:"status"`
		Account     string `json:"account"`
		Class       string `json:"class"`
		SessionID   string `json:"session_id"`
		ResumedFrom string `json:"resumed_from"`
	} `json:"attempts"`
}

func TestPark_resumes_session_after_kill(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	if err := testrun.WriteProgram(filepath.Join(bin, "claude"), []byte(limitedClaude), 0o700); err != nil {
		t.Fatal(err)
	}
	s := newServer(t, "PATH="+bin+":"+os.Getenv("PATH"))
	home := filepath.Join(s.dir, "claude-home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	lifts := time.Now().Add(8 * time.Second).Truncate(time.Second)
	if err := os.WriteFile(filepath.Join(home, "limit"), []byte(fmt.Sprint(lifts.Unix())), 0o600); err != nil {
		t.Fatal(err)
	}
	const secret = "sk-of-the-account-0123456789"
	key := filepath.Join(s.dir, "key")
	if err := os.WriteFile(key, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := s.cli("account", "create", "claude", "main", "--config", home, "--credential", "ANTHROPIC_API_KEY=@"+key); code != 0 {
		t.Fatal(errs)
	}
	if _, errs, code := s.cli("account", "disable", "claude/default"); code != 0 {
		t.Fatal(errs)
	}
	trigger := s.trigger(map[string]any{
		"name": "night", "backend": "claude", "prompt": "Do the work.", "max_concurrent": 0,
		"account": "main", "retry": map[string]any{"give_up_after_seconds": 3600},
	})
	var ids []string
	for range 3 {
		ids = append(ids, s.fire(trigger))
	}
	read := func(id string) (e parkedExecution) {
		s.try("GET", "/api/v1/executions/"+id, nil, &e)
		return e
	}
	for _, id := range ids {
		s.waitFor(id+" to be parked", func() bool { return read(id).WaitingOn != "" })
		if e := read(id); e.Status != "pending" || e.ParkedUntil == nil || e.ParkedUntil.Before(lifts) {
			t.Errorf("parked: %+v", e)
		}
	}
	s.kill()
	s.start()
	for _, id := range ids {
		if e := read(id); e.Status != "pending" || e.WaitingOn == "" || len(e.Attempts) > 1 {
			t.Errorf("after a kill while parked: %+v", e)
		}
	}
	if out, _, _ := s.cli("account", "list"); !strings.Contains(out, "cooling down until") || strings.Contains(out, secret) {
		t.Errorf("account list:\n%s", out)
	}
	s.waitFor("one to wake", func() bool {
		for _, id := range ids {
			if e := read(id); len(e.Attempts) == 2 || len(e.Attempts) == 1 && e.Attempts[0].Class == "" {
				return true
			}
		}
		return false
	})
	s.kill()
	s.start()
	for _, id := range ids {
		e := s.await(id)
		x := read(id)
		if e.Status != "success" || len(x.Attempts) > 2 {
			t.Errorf("%s ended %s after %d attempts: %s", id, e.Status, len(x.Attempts), e.Reason)
		}
		for _, a := range x.Attempts {
			if a.SessionID != x.Attempts[0].SessionID {
				t.Errorf("attempt %d of %s was in session %s, the first one in %s", a.Number, id, a.SessionID, x.Attempts[0].SessionID)
			}
		}
		for _, l := range s.lines(id) {
			if strings.Contains(l.Content, secret) {
				t.Errorf("the log of %s has the account's credential: %s", id, l.Content)
			}
		}
	}
	done, err := os.ReadFile(filepath.Join(home, "done"))
	if lines := strings.Fields(string(done)); err != nil || len(lines) != len(ids) {
		t.Errorf("work was done %d times for %d executions: %v", len(lines), len(ids), err)
	}
	if out, errs, code := s.cli("account", "probe", "main", "--json"); code != 0 || !strings.Contains(out, `"ready"`) || strings.Contains(out, secret) {
		t.Errorf("probe: %d\n%s\n%s", code, out, errs)
	}
	if _, errs, code := s.cli("account", "delete", "default-claude"); code == 0 || !strings.Contains(errs, "disable it instead") {
		t.Errorf("delete of the default account: %d, %s", code, errs)
	}
	for _, args := range [][]string{{"update", "main", "--max-concurrent", "2"}, {"reset", "claude/main"}, {"show", "main"}, {"delete", "main"}} {
		if out, errs, code := s.cli(append([]string{"account"}, args...)...); code != 0 || strings.Contains(out+errs, secret) {
			t.Errorf("account %v: %d\n%s\n%s", args, code, out, errs)
		}
	}
}
