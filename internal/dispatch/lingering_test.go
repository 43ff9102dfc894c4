package dispatch

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
)

const (
	claudeInit   = `{"type":"system","subtype":"init","session_id":"s1"}`
	claudeResult = `{"type":"result","subtype":"success","is_error":false,"result":"done","session_id":"s1","total_cost_usd":0.1}`
	claudeBad    = `{"type":"result","subtype":"success","is_error":true,"result":"API Error: 400 bad request","session_id":"s1"}`
	taskStarted  = `{"type":"system","subtype":"task_started","task_id":"b1","session_id":"s1"}`
	taskEnded    = `{"type":"system","subtype":"task_notification","task_id":"b1","status":"completed","session_id":"s1"}`
	claudeSays   = `{"type":"assistant","message":{"content":[{"type":"text","text":"more"}]}}`
)

// lingering is a running attempt whose CLI has printed its result.
type lingering struct {
	*silent
	causes chan agented.Cause
}

func newLingering(t *testing.T, root, cli string) *lingering {
	s := &silent{t: t, d: New(Options{Layout: agented.Layout{Root: root}, Log: slog.New(slog.DiscardHandler)})}
	s.e = &agented.Execution{ID: "exec_1", Backend: cli, AttemptNo: 1, Attempts: []agented.Attempt{{Number: 1, StartedAt: time.Now()}}}
	s.e.Snapshot.Backend = cli
	if err := os.MkdirAll(s.d.o.Layout.Execution(s.e.ID), 0o700); err != nil {
		t.Fatal(err)
	}
	l := &lingering{silent: s, causes: make(chan agented.Cause, 10)}
	ctx, cancel := context.WithCancel(t.Context())
	s.quit, s.done = cancel, make(chan struct{})
	go func() {
		defer close(s.done)
		s.d.detectStall(ctx, s.e, cli, func(c agented.Cause) error { l.causes <- c; return nil }, func(context.Context) bool { return s.held.Load() })
	}()
	return l
}

// cause returns why the attempt was stopped, or "" if it was not.
func (l *lingering) cause() agented.Cause {
	synctest.Wait()
	select {
	case c := <-l.causes:
		return c
	default:
		return ""
	}
}

func TestLingering(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, cli string
		lines     []string
	}{
		{"claude", "claude", []string{claudeInit, claudeResult}},
		{"claude_with_a_long_result", "claude", []string{claudeInit, `{"type":"result","subtype":"success","result":"` + strings.Repeat("x", 3<<19) + `"}`}},
		{"codex", "codex", []string{`{"type":"turn.started"}`, `{"type":"turn.completed","usage":{}}`}},
		{"gemini", "gemini", []string{`{"type":"init"}`, `{"type":"result","status":"success"}`}},
		{"opencode", "opencode", []string{`{"type":"step_start","part":{}}`, `{"type":"step_finish","part":{"reason":"stop"}}`}},
	} {
		t.Run(c.name+"_is_ended_a_minute_after_its_result", func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				l := newLingering(t, root, c.cli)
				l.prints(c.lines...)
				if time.Sleep(59 * time.Second); l.cause() != "" {
					t.Error("ended before a minute had passed")
				}
				if time.Sleep(11 * time.Second); l.cause() != agented.CauseLingered {
					t.Error("not ended 70 s after its result")
				}
				l.away()
			})
		})
	}
	t.Run("background_task_extends_the_grace", func(t *testing.T) {
		t.Parallel()
		root := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			l := newLingering(t, root, "claude")
			l.prints(claudeInit, taskStarted, claudeResult)
			if time.Sleep(20 * time.Minute); l.cause() != "" {
				t.Error("ended while its task ran")
			}
			l.prints(taskEnded, claudeSays)
			if time.Sleep(5 * time.Minute); l.cause() != "" {
				t.Error("ended during the turn that followed")
			}
			l.prints(claudeResult)
			if time.Sleep(70 * time.Second); l.cause() != agented.CauseLingered {
				t.Error("not ended after its second result")
			}
			l.away()
		})
	})
	t.Run("background_task_that_never_ends_is_bounded", func(t *testing.T) {
		t.Parallel()
		root := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			l := newLingering(t, root, "claude")
			l.prints(claudeInit, taskStarted, claudeResult)
			if time.Sleep(31 * time.Minute); l.cause() != agented.CauseLingered {
				t.Error("not ended")
			}
			l.away()
		})
	})
	t.Run("paused_attempt_is_left_alone", func(t *testing.T) {
		t.Parallel()
		root := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			l := newLingering(t, root, "claude")
			l.prints(claudeInit, claudeResult)
			l.held.Store(true)
			if time.Sleep(time.Hour); l.cause() != "" {
				t.Error("ended while it was paused")
			}
			l.held.Store(false)
			if time.Sleep(2 * time.Minute); l.cause() != agented.CauseLingered {
				t.Error("not ended after the pause")
			}
			l.away()
		})
	})
	t.Run("outcome_is_that_of_the_result", func(t *testing.T) {
		t.Parallel()
		for line, want := range map[string]agented.State{claudeResult: agented.StateSuccess, claudeBad: agented.StateFailed} {
			b, _ := registry.ByName("claude")
			r := agentcli.NewReader(b)
			for _, text := range []string{claudeInit, line} {
				r.Add(agentcli.Decode(b, agented.Stdout, []byte(text)))
			}
			exit := itsOwnEnd(agented.Exit{Cause: agented.CauseLingered, Signal: "SIGTERM", Detail: "it had printed its final result and did not exit"})
			if got := r.Result(exit, time.Now()); got.Outcome.State() != want {
				t.Errorf("%s: state %s, reason %q", line, got.Outcome.State(), got.Reason)
			}
		}
	})
}

func TestSilentClaude(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := newLingering(t, root, "claude")
		l.prints(claudeInit)
		if time.Sleep(29 * time.Minute); l.cause() != "" {
			t.Error("ended too early")
		}
		l.prints(`{"type":"assistant","message":{"content":[{"type":"tool_use","id":"t1","name":"Bash"}]}}`)
		if time.Sleep(5 * time.Hour); l.cause() != "" {
			t.Error("ended while its tool ran")
		}
		l.prints(`{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"t1"}]}}`)
		if time.Sleep(32 * time.Minute); l.cause() != agented.CauseStalled {
			t.Error("not ended after half an hour of silence")
		}
		l.away()
	})
}
