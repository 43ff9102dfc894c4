package dispatch_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/dispatch"
)

// turnOf prints a message of a model with the given number of input tokens.
func turnOf(model string, tokens int) string {
	return fmt.Sprintf(`echo '{"type":"assistant","session_id":"s","message":{"id":"%d","model":"%s","usage":{"input_tokens":%d,"output_tokens":1},"content":[{"type":"text","text":"x"}]}}'`+"\n", tokens, model, tokens)
}

func TestCeiling(t *testing.T) {
	t.Parallel()
	priced := func(h *house, script string) func(*dispatch.Options) {
		fake := h.fakeClaude(script)
		return func(o *dispatch.Options) { fake(o); o.Costs = h.costs(agentcli.DefaultPrices(), nil) }
	}
	t.Run("holds for a model that only its family prices", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		d := h.dispatcher(priced(h, turnOf("claude-opus-9-9", 10_000)+"sleep 1000\n"))
		defer h.run(d)()
		spec := agent()
		spec.CeilingUSD = 0.01
		id := h.fire(d, spec)
		until(t, "the cost guard", func() bool { return h.now(id).Pause != nil })
		defer h.end(d, id)
		if p := h.now(id).Pause; p.Question != agented.QuestionCeiling || p.SpentUSD < 0.05 || !strings.Contains(p.Reason, `"claude-opus-9-9" has no price`) {
			t.Errorf("it asks %+v", p)
		}
	})
	t.Run("asks at the first use without any price", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		gate := filepath.Join(t.TempDir(), "gate")
		d := h.dispatcher(priced(h, turnOf("house-model", 1)+gateLine(gate)+turnOf("house-model", 2)+`echo '{"type":"result","subtype":"success","result":"done","usage":{"input_tokens":3,"output_tokens":2}}'`+"\n"))
		defer h.run(d)()
		spec := agent()
		spec.CeilingUSD = 5
		id := h.fire(d, spec)
		until(t, "the cost guard", func() bool { return h.now(id).Pause != nil })
		if p := h.now(id).Pause; p.Question != agented.QuestionCeiling || !strings.Contains(p.Reason, `"house-model" has no price`) || !strings.Contains(p.Reason, "AGENTED_PRICES") {
			t.Errorf("it asks %+v", p)
		}
		accepted := 6.0
		if _, err := d.Continue(t.Context(), id, dispatch.Continuing{By: somebody, Ceiling: &accepted}); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(gate, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		e := h.await(id)
		if e.State != agented.StateSuccess || !strings.Contains(e.Reason, "the ceiling of $6.00 could not be enforced") {
			t.Errorf("it ended as %s: %s", e.State, e.Reason)
		}
	})
	t.Run("could not be enforced is said", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		d := h.dispatcher(priced(h, `echo '{"type":"result","subtype":"success","result":"done","total_cost_usd":0.68,"usage":{"input_tokens":3,"output_tokens":2}}'`+"\n"))
		defer h.run(d)()
		spec := agent()
		spec.CeilingUSD = 0.01
		if e := h.await(h.fire(d, spec)); e.State != agented.StateSuccess || !strings.Contains(e.Reason, "reached $0.68: the ceiling of $0.01 could not be enforced") {
			t.Errorf("it ended as %s: %s", e.State, e.Reason)
		}
	})
	t.Run("is given to claude, which is asked about again after it", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		// It stops at the budget that it receives; without one it would continue.
		script := `case "$*" in *--max-budget-usd=2*)
	echo '{"type":"result","subtype":"error_max_budget_usd","is_error":true,"session_id":"s","total_cost_usd":2.5,"usage":{"input_tokens":3,"output_tokens":2}}'
	exit 1;; esac
sleep 1000
`
		d := h.dispatcher(priced(h, script))
		defer h.run(d)()
		spec := agent()
		spec.CeilingUSD = 2
		for try := 1; ; try++ {
			id := h.fire(d, spec)
			until(t, "the question", func() bool { return h.now(id).Pause != nil })
			defer h.end(d, id)
			e := h.now(id)
			if len(e.Attempts) == 1 && try < 5 {
				continue // on a busy machine the cost guard may pause the first attempt before it has ended
			}
			if p := e.Pause; p.Question != agented.QuestionCeiling || p.SpentUSD != 2.5 || p.LimitUSD != 2 || len(e.Attempts) != 2 || e.Attempts[0].State != agented.StateInterrupted {
				t.Errorf("it asks %+v after %+v", p, e.Attempts)
			}
			return
		}
	})
	t.Run("of a trigger's own budget stays its own", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		d := h.dispatcher(priced(h, `echo '{"type":"result","subtype":"error_max_budget_usd","is_error":true,"session_id":"s","total_cost_usd":1,"usage":{"input_tokens":3,"output_tokens":2}}'; exit 1`+"\n"))
		defer h.run(d)()
		spec := agent()
		spec.CeilingUSD, spec.Args = 2, []string{"--max-budget-usd=1"}
		if e := h.await(h.fire(d, spec)); e.State != agented.StateFailed || len(e.Attempts) != 1 {
			t.Errorf("it ended as %s: %s", e.State, e.Reason)
		}
	})
}

func TestOwnCredentials(t *testing.T) {
	t.Parallel()
	own := func(value string) *agented.Spec {
		spec := claudeSpec()
		spec.Env = map[string]*string{"ANTHROPIC_API_KEY": &value}
		return spec
	}
	t.Run("neither wait for an account nor spoil it", func(t *testing.T) {
		t.Parallel()
		h := newHouse(t)
		h.noDefault()
		a := h.account("a", "a")
		home := filepath.Join(t.TempDir(), "home")
		if err := os.Mkdir(home, 0o700); err != nil {
			t.Fatal(err)
		}
		d := h.dispatcher(func(o *dispatch.Options) {
			h.clis(o)
			o.Account = func(string) map[string]string { return map[string]string{"CLAUDE_CONFIG_DIR": home} }
		})
		defer h.run(d)()
		if err := os.WriteFile(filepath.Join(home, "auth"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		e := h.await(h.fire(d, own("bad-key-0123456789")))
		if e.State != agented.StateFailed && e.State != agented.StateInterrupted || !strings.Contains(e.Reason, "credentials from the trigger's env") || e.Attempts[0].Account != "" {
			t.Errorf("refused credentials of its own: %s: %s (%+v)", e.State, e.Reason, e.Attempts)
		}
		if now, err := h.db.Account(t.Context(), a.ID); err != nil || now.State != agented.AccountReady {
			t.Errorf("the account is %+v, %v", now, err)
		}
		// The reverse: the account needs a login, and its own key works.
		h.write(a, "auth", "")
		h.until(h.fire(d, claudeSpec()), "parked", parked)
		if err := os.Remove(filepath.Join(home, "auth")); err != nil {
			t.Fatal(err)
		}
		if e := h.await(h.fire(d, own("good-key-0123456789"))); e.State != agented.StateSuccess {
			t.Errorf("with a key of its own: %s: %s", e.State, e.Reason)
		}
	})
}

func TestFailWithoutLogin(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.noDefault()
	a := h.account("a", "a")
	h.write(a, "auth", "")
	d := h.dispatcher(h.clis)
	defer h.run(d)()
	for _, when := range []string{"its own attempt is refused", "the account needs a login already"} {
		spec := claudeSpec()
		spec.NeedsLogin = true
		e := h.await(h.fire(d, spec))
		if e.State != agented.StateFailed || !strings.Contains(e.Reason, "needs a login") || !strings.Contains(e.Reason, "agented account reset claude/a") {
			t.Errorf("%s: %s: %s", when, e.State, e.Reason)
		}
	}
}

// end cancels an execution, so that the test leaves no process.
func (h *house) end(d *dispatch.Dispatcher, id agented.ExecutionID) {
	if _, err := d.Cancel(h.t.Context(), id, somebody); err != nil {
		h.t.Error(err)
	}
	h.await(id)
}
