package dispatch_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/testrun"
)

// fakeClaude imitates Claude Code: it stores sessions in its folder and prints recorded output.
// The file limit contains the second at which its limit resets; the file auth makes it reject its
// credentials.
const fakeClaude = `#!/bin/sh
if [ "$1" = --version ]; then
	echo "2.1.330 (Claude Code)"
	exit
fi
prompt=$(cat)
mode=new
for a; do
	case "$last" in
	--session-id) id=$a ;;
	--resume) id=$a; mode=resume ;;
	esac
	last=$a
done
home=$CLAUDE_CONFIG_DIR
echo "$mode $id" >>"$home/calls"
echo "$prompt" >>"$home/prompts"
echo "key=$ANTHROPIC_API_KEY"
if [ $mode = resume ] && [ ! -e "$home/session-$id" ]; then
	echo "No conversation found with session ID: $id" >&2
	echo '{"type":"result","subtype":"error_during_execution","is_error":true,"num_turns":0,"session_id":"'$id'","total_cost_usd":0,"errors":["No conversation found with session ID: '$id'"]}'
	exit 1
fi
echo "$mode" >>"$home/session-$id"
echo '{"type":"system","subtype":"init","session_id":"'$id'","model":"m","tools":[],"claude_code_version":"2.1.330"}'
if [ -e "$home/auth" ]; then
	echo '{"type":"assistant","message":{"id":"x","model":"<synthetic>","role":"assistant","type":"message","content":[{"type":"text","text":"Failed to authenticate. API Error: 401 invalid x-api-key"}]},"session_id":"'$id'","error":"authentication_failed"}'
	echo '{"type":"result","subtype":"success","is_error":true,"api_error_status":401,"result":"Failed to authenticate. API Error: 401 invalid x-api-key","session_id":"'$id'","num_turns":1,"total_cost_usd":0,"terminal_reason":"api_error"}'
	exit 1
fi
until=$(cat "$home/limit" 2>/dev/null || echo 0)
if [ "$(date +%s)" -lt "$until" ]; then
	echo '{"type":"rate_limit_event","rate_limit_info":{"status":"rejected","resetsAt":'$until',"rateLimitType":"five_hour"},"session_id":"'$id'"}'
	echo '{"type":"assistant","message":{"id":"x","model":"<synthetic>","role":"assistant","type":"message","content":[{"type":"text","text":"You'"'"'ve hit your 5-hour limit"}]},"session_id":"'$id'","error":"rate_limit"}'
	echo '{"type":"result","subtype":"success","is_error":true,"api_error_status":429,"result":"You'"'"'ve hit your 5-hour limit","session_id":"'$id'","num_turns":1,"total_cost_usd":0,"terminal_reason":"api_error"}'
	exit 1
fi
echo "$id" >>"$home/done"
echo '{"type":"assistant","message":{"id":"y","model":"m","role":"assistant","type":"message","content":[{"type":"text","text":"done"}],"usage":{"input_tokens":1,"output_tokens":1}},"session_id":"'$id'"}'
echo '{"type":"result","subtype":"success","is_error":false,"result":"done","session_id":"'$id'","num_turns":1,"total_cost_usd":0.01,"usage":{"input_tokens":1,"output_tokens":1},"terminal_reason":"completed"}'
`

const fakeCodex = `#!/bin/sh
if [ "$1" = --version ]; then
	echo "codex-cli 0.169.0"
	exit
fi
cat >/dev/null
echo '{"type":"thread.started","thread_id":"019a0000-0000-7000-8000-000000000001"}'
echo '{"type":"turn.started"}'
echo '{"type":"item.completed","item":{"id":"item_0","type":"agent_message","text":"done by codex"}}'
echo '{"type":"turn.completed","usage":{"input_tokens":1,"cached_input_tokens":0,"output_tokens":1}}'
`

// clis puts the stand-ins on the PATH of executions.
func (h *house) clis(o *dispatch.Options) {
	h.t.Helper()
	bin := filepath.Join(h.layout.Root, "bin")
	if err := os.MkdirAll(bin, 0o700); err != nil {
		h.t.Fatal(err)
	}
	for name, text := range map[string]string{"claude": fakeClaude, "codex": fakeCodex} {
		if err := testrun.WriteProgram(filepath.Join(bin, name), []byte(text), 0o700); err != nil {
			h.t.Fatal(err)
		}
	}
	o.Lookup = func(name string) (string, bool) { return bin + ":/usr/bin:/bin", name == "PATH" }
	o.Account = func(string) map[string]string { return map[string]string{"ANTHROPIC_API_KEY": "servers-own-key-123"} }
}

// account creates an account with a folder of its own, or with that of another one.
func (h *house) account(name, folder string) *agented.Account {
	h.t.Helper()
	dir := filepath.Join(h.layout.Root, "home-"+folder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		h.t.Fatal(err)
	}
	a := &agented.Account{
		Backend: agented.BackendClaude, Name: name, Enabled: true, Config: dir,
		Credentials: map[string]string{"ANTHROPIC_API_KEY": "the-key-of-" + name},
	}
	if err := h.db.CreateAccount(h.t.Context(), a, "test"); err != nil {
		h.t.Fatal(err)
	}
	return a
}

func (h *house) write(a *agented.Account, name, text string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(a.Config, name), []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) lines(a *agented.Account, name string) []string {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(a.Config, name))
	if err != nil && !os.IsNotExist(err) {
		h.t.Fatal(err)
	}
	return strings.Fields(string(b))
}

// noDefault disables the default account.
func (h *house) noDefault() {
	h.t.Helper()
	a, err := h.db.Account(h.t.Context(), agented.DefaultAccount(agented.BackendClaude))
	if err != nil {
		h.t.Fatal(err)
	}
	a.Enabled = false
	if err := h.db.UpdateAccount(h.t.Context(), a, "test"); err != nil {
		h.t.Fatal(err)
	}
}

// until waits until ok returns true for an execution.
func (h *house) until(id agented.ExecutionID, what string, ok func(*agented.Execution) bool) *agented.Execution {
	h.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		e, err := h.db.Execution(h.t.Context(), id)
		if err != nil {
			h.t.Fatal(err)
		}
		if ok(e) {
			return e
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("%s is not %s: %+v", id, what, e)
		}
		time.Sleep(5 * time.Millisecond) // interval of the poll
	}
}

func parked(e *agented.Execution) bool {
	return e.State == agented.StatePending && e.AttemptNo > 0 && e.WaitingOn != ""
}

// system returns the system lines of an execution's log.
func (h *house) system(id agented.ExecutionID) string {
	h.t.Helper()
	r, err := runlog.OpenReader(h.layout.Execution(id))
	if err != nil {
		h.t.Fatal(err)
	}
	defer r.Close()
	lines, err := r.Next(nil, 10000, 16<<20)
	if err != nil {
		h.t.Fatal(err)
	}
	var b strings.Builder
	last := agented.Seq(0)
	for _, l := range lines {
		if l.Seq != last+1 {
			h.t.Errorf("line %d follows %d", l.Seq, last)
		}
		last = l.Seq
		if l.Stream == agented.System {
			fmt.Fprintf(&b, "%s\n", l.Content)
		}
	}
	return b.String()
}

func claudeSpec() *agented.Spec {
	return &agented.Spec{Backend: agented.BackendClaude, Prompt: "Do the work.", TimeoutSeconds: 60}
}

func TestLimit_ten_executions_resume(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.noDefault()
	a := h.account("main", "main")
	lifts := time.Now().Add(4 * time.Second)
	h.write(a, "limit", fmt.Sprint(lifts.Unix()+1))
	d := h.dispatcher(h.clis)
	defer h.run(d)()
	var ids []agented.ExecutionID
	for range 10 {
		ids = append(ids, h.fire(d, claudeSpec()))
	}
	for _, id := range ids {
		e := h.until(id, "parked", func(e *agented.Execution) bool {
			return e.State == agented.StatePending && e.WaitingOn != "" || e.AttemptNo > 1
		})
		if !strings.Contains(e.Reason, "limit") || e.ParkedUntil.Before(lifts) {
			t.Errorf("parked until %v because %q", e.ParkedUntil, e.Reason)
		}
		if e.AttemptNo == 1 && !strings.Contains(e.Reason, "resumes in the same session at") {
			t.Errorf("reason %q does not say what happens next", e.Reason)
		}
	}
	// All ten slots are free for others. A machine that is too slow to leave two seconds for the
	// check skips it.
	left := time.Until(lifts)
	if e := h.await(h.fire(d, command("true"))); left > 2*time.Second && e.FinishedAt.After(lifts) {
		t.Error("what is parked takes the slots of others")
	}
	for _, id := range ids {
		e := h.await(id)
		if e.State != agented.StateSuccess {
			t.Errorf("%s ended %s: %s", id, e.State, e.Reason)
		}
		last := e.Attempts[len(e.Attempts)-1]
		for _, x := range e.Attempts {
			if x.SessionID != e.Attempts[0].SessionID || x.Account != a.ID {
				t.Errorf("attempt %d ran in session %s with %s, the first one in %s", x.Number, x.SessionID, x.Account, e.Attempts[0].SessionID)
			}
		}
		if len(e.Attempts) > 1 {
			first := e.Attempts[0]
			if last.ResumedFrom != first.SessionID || first.Class != agented.ClassAccountLimit || first.RetryAt.IsZero() || !strings.Contains(h.system(id), "resumes the same session") {
				t.Errorf("first attempt %+v, last %+v\n%s", first, last, h.system(id))
			}
		}
		if !last.StartedAt.After(lifts) && len(e.Attempts) > 1 {
			t.Errorf("attempt %d began at %v, before the limit lifted at %v", last.Number, last.StartedAt, lifts)
		}
		if raw, _ := filepath.Glob(filepath.Join(h.layout.Attempt(id, 1), "std*")); len(raw) > 0 && len(e.Attempts) > 1 {
			t.Errorf("raw output of an attempt that ended is left: %v", raw)
		}
	}
	done := h.lines(a, "done")
	seen := map[string]int{}
	for _, id := range done {
		seen[id]++
	}
	if len(done) != 10 || len(seen) != 10 {
		t.Errorf("work was done %d times in %d sessions, want 10 in 10", len(done), len(seen))
	}
	if acc, err := h.db.Account(t.Context(), a.ID); err != nil || acc.State != agented.AccountReady || acc.ConsecutiveLimits != 0 || acc.Running != 0 {
		t.Errorf("account %+v, %v", acc, err)
	}
	// Only the probe called while the limit applied.
	if calls := len(h.lines(a, "calls")) / 2; calls > 20 {
		t.Errorf("%d calls for ten executions with one limit", calls)
	}
}

func TestLimit_next_account(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, folder string
		same         bool
	}{{"that keeps its own sessions", "b", false}, {"that shares the folder", "a", true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.noDefault()
			a := h.account("a", "a")
			a.Order = -1
			if err := h.db.UpdateAccount(t.Context(), a, "test"); err != nil {
				t.Fatal(err)
			}
			b := h.account("b", c.folder)
			h.write(a, "limit", fmt.Sprint(time.Now().Add(time.Hour).Unix()))
			d := h.dispatcher(func(o *dispatch.Options) {
				h.clis(o)
				if c.same { // the limit is the account's, not the folder's
					o.OpenCredential = func(id agented.AccountID, _, sealed string) (string, error) {
						if id == b.ID {
							os.Remove(filepath.Join(a.Config, "limit"))
						}
						return sealed, nil
					}
				}
			})
			defer h.run(d)()
			spec := claudeSpec()
			if c.same {
				spec.Account = "a"
				spec.Fallback = []agented.Choice{{Backend: agented.BackendClaude, Account: "b"}}
			}
			id := h.fire(d, spec)
			e := h.await(id)
			if e.State != agented.StateSuccess || len(e.Attempts) != 2 || e.Attempts[0].Account != a.ID || e.Attempts[1].Account != b.ID {
				t.Fatalf("%s: %+v\n%s", e.Reason, e.Attempts, h.text(id))
			}
			if same := e.Attempts[1].ResumedFrom == e.Attempts[0].SessionID; same != c.same {
				t.Errorf("resumed from %q after %q", e.Attempts[1].ResumedFrom, e.Attempts[0].SessionID)
			}
			if says := strings.Contains(h.system(id), "starts a new session: account claude/b stores its sessions in another folder"); says == c.same {
				t.Errorf("the log says:\n%s", h.system(id))
			}
			if text := h.text(id); strings.Contains(text, "the-key-of-") || strings.Contains(text, "servers-own") || !strings.Contains(text, "key=") {
				t.Errorf("credentials are in the log, or the CLI had none:\n%s", text)
			}
			if acc, err := h.db.Account(t.Context(), a.ID); err != nil || acc.State != agented.AccountCooling || acc.Evidence == "" {
				t.Errorf("account %+v, %v", acc, err)
			}
		})
	}
}

func TestLimit_next_backend(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.noDefault()
	a := h.account("a", "a")
	h.write(a, "limit", fmt.Sprint(time.Now().Add(time.Hour).Unix()))
	d := h.dispatcher(h.clis)
	defer h.run(d)()
	spec := claudeSpec()
	spec.Fallback = []agented.Choice{{Backend: agented.BackendCodex, Model: "gpt-x"}}
	e := h.await(h.fire(d, spec))
	if e.State != agented.StateSuccess || len(e.Attempts) != 2 || e.Attempts[1].Backend != agented.BackendCodex || e.Attempts[1].Model != "gpt-x" {
		t.Fatalf("%s: %+v", e.Reason, e.Attempts)
	}
	if text := h.system(e.ID); !strings.Contains(text, "starts a new session: the earlier session belongs to another CLI") {
		t.Errorf("the log says:\n%s", text)
	}
}

func TestResume_missing_session(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.noDefault()
	a := h.account("a", "a")
	h.write(a, "limit", fmt.Sprint(time.Now().Add(time.Hour).Unix()))
	d := h.dispatcher(h.clis)
	defer h.run(d)()
	id := h.fire(d, claudeSpec())
	e := h.until(id, "parked", parked)
	os.Remove(filepath.Join(a.Config, "session-"+e.Attempts[0].SessionID))
	os.Remove(filepath.Join(a.Config, "limit"))
	if _, err := h.db.ResetAccount(t.Context(), a.ID, "test", time.Now().UTC()); err != nil {
		t.Fatal(err)
	}
	d.Wake()
	got := h.await(id)
	if got.State != agented.StateSuccess || len(got.Attempts) != 3 || !got.Attempts[1].SessionGone || got.Attempts[2].ResumedFrom != "" {
		t.Fatalf("%s: %+v", got.Reason, got.Attempts)
	}
	if text := h.system(id); !strings.Contains(text, "starts a new session: the earlier session no longer exists") {
		t.Errorf("the log says:\n%s", text)
	}
	prompts := strings.Join(h.lines(a, "prompts"), " ")
	if strings.Count(prompts, "Do the work.") != 2 || strings.Count(prompts, "Continue where you were interrupted") != 1 || strings.Count(prompts, "Note: an earlier attempt") != 1 {
		t.Errorf("prompts: %s", prompts)
	}
}

func TestPark_rejected_credentials(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.noDefault()
	a := h.account("a", "a")
	h.account("other", "other")
	h.write(a, "auth", "")
	d := h.dispatcher(h.clis)
	defer h.run(d)()
	spec := claudeSpec()
	spec.Account = "A" // names ignore case
	id := h.fire(d, spec)
	e := h.until(id, "parked", parked)
	if !e.ParkedUntil.IsZero() || !strings.Contains(e.Reason, "needs a login") {
		t.Errorf("parked until %v: %s", e.ParkedUntil, e.Reason)
	}
	spec.Account = "other"
	if e := h.await(h.fire(d, spec)); e.State != agented.StateSuccess {
		t.Errorf("the other account: %s", e.Reason)
	}
	os.Remove(filepath.Join(a.Config, "auth"))
	a.Credentials = map[string]string{"ANTHROPIC_API_KEY": "another-key-of-a"}
	if err := h.db.UpdateAccount(t.Context(), a, "test"); err != nil {
		t.Fatal(err)
	}
	d.Wake()
	if e := h.await(id); e.State != agented.StateSuccess || len(e.Attempts) != 2 {
		t.Errorf("%s: %+v", e.Reason, e.Attempts)
	}
}

func TestProbe_any_state(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.noDefault()
	a := h.account("a", "a")
	h.write(a, "auth", "")
	d := h.dispatcher(h.clis)
	defer h.run(d)()
	probe := func() agented.Execution {
		e, _, err := d.Fire(t.Context(), dispatch.Firing{Spec: claudeSpec(), Name: "probe", Source: agented.SourceManual, ProbeAccount: a.ID})
		if err != nil {
			t.Fatal(err)
		}
		return h.await(e.ID)
	}
	if e := probe(); e.State != agented.StateFailed || len(e.Attempts) != 1 {
		t.Errorf("%s: %+v", e.Reason, e.Attempts)
	}
	if acc, _ := h.db.Account(t.Context(), a.ID); acc.State != agented.AccountNeedsLogin {
		t.Errorf("account %+v", acc)
	}
	os.Remove(filepath.Join(a.Config, "auth"))
	if e := probe(); e.State != agented.StateSuccess {
		t.Errorf("%s: %+v", e.Reason, e.Attempts)
	}
	if acc, _ := h.db.Account(t.Context(), a.ID); acc.State != agented.AccountReady {
		t.Errorf("account %+v", acc)
	}
}

func TestResume_with_new_prompt(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.noDefault()
	a := h.account("a", "a")
	d := h.dispatcher(h.clis)
	defer h.run(d)()
	first := h.await(h.fire(d, claudeSpec()))
	spec := claudeSpec()
	spec.Prompt = "And now the rest."
	spec.Resume = &agented.ResumePoint{
		Session: first.Attempts[0].SessionID, Backend: agented.BackendClaude, Account: a.ID, Execution: first.ID, Dir: h.layout.Work(first.ID),
	}
	e := h.await(h.fire(d, spec))
	if e.State != agented.StateSuccess || len(e.Attempts) != 1 || e.Attempts[0].SessionID != first.Attempts[0].SessionID || e.Attempts[0].ResumedFrom != first.Attempts[0].SessionID {
		t.Errorf("%s: %+v, want session %s", e.Reason, e.Attempts, first.Attempts[0].SessionID)
	}
	if prompts := strings.Join(h.lines(a, "prompts"), " "); prompts != "Do the work. And now the rest." {
		t.Errorf("prompts: %s", prompts)
	}
}
