package conversation_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/conversation"
	"github.com/agented/agented/internal/printed"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/store/storetest"
)

const node = agented.NodeID("node-00000000000000000000000000")

// executions runs turns without a process: the test claims and ends them.
type executions struct {
	db      *store.DB
	layout  agented.Layout
	agent   *agented.Agent
	woken   chan struct{}
	cleaned chan agented.ExecutionID
}

func (x *executions) EnabledAgent(id string) (*agented.Agent, error) {
	if x.agent == nil || id != string(x.agent.ID) {
		return nil, agented.Errorf(agented.Conflict, "there is no agent %q", id)
	}
	return x.agent, nil
}

func (x *executions) Wake() { x.woken <- struct{}{} }

func (x *executions) Cancel(ctx context.Context, id agented.ExecutionID, by agented.Principal) (*agented.Execution, error) {
	return x.db.RequestCancel(ctx, id, by.Name, time.Now())
}

func (x *executions) Printed(e *agented.Execution) *printed.Text {
	return printed.New(printed.Source{
		Bundle: func(n int) string { return x.layout.Attempt(e.ID, n) },
		Masker: func(context.Context) (*redact.Masker, error) { return redact.New(nil), nil },
		Log:    slog.New(slog.DiscardHandler),
	})
}

func (x *executions) CleanUp(_ context.Context, id agented.ExecutionID) { x.cleaned <- id }

// scene is a running manager with one open conversation.
type scene struct {
	t        *testing.T
	x        *executions
	m        *conversation.Manager
	c        *agented.Conversation
	notified atomic.Int64
}

func newScene(t *testing.T) *scene {
	t.Helper()
	layout := agented.Layout{Root: t.TempDir()}
	path := filepath.Join(layout.Root, "agented.db")
	log := slog.New(slog.DiscardHandler)
	db := storetest.Open(t, path, store.Options{Log: log})
	agent := &agented.Agent{ID: "agt-x", Name: "x", Enabled: true, Spec: agented.Spec{Backend: agented.BackendClaude, TimeoutSeconds: 60}}
	s := &scene{t: t, x: &executions{db: db, layout: layout, agent: agent, woken: make(chan struct{}, 8), cleaned: make(chan agented.ExecutionID, 8)}}
	s.m = conversation.New(conversation.Options{
		DB: db, Layout: layout, Executions: s.x, Log: log,
		Notified: func(agented.ConversationID) { s.notified.Add(1) },
	})
	db.OnChange(s.m.Changed)
	s.c = &agented.Conversation{Agent: agent.ID, AgentName: agent.Name, CreatedAt: time.Now()}
	if err := db.CreateConversation(t.Context(), s.c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.m.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

func (s *scene) say(text string) {
	s.t.Helper()
	if _, err := s.m.Say(s.t.Context(), &store.PostMessage{Conversation: s.c.ID, Text: text, Actor: "ann"}); err != nil {
		s.t.Fatal(err)
	}
}

// claim returns the execution of the turn that was admitted.
func (s *scene) claim() *agented.Execution {
	s.t.Helper()
	receive(s.t, "the turn", s.x.woken)
	e, err := s.x.db.Claim(s.t.Context(), node, 10, time.Now(), time.Minute)
	if err != nil || e == nil {
		s.t.Fatalf("claim: %v, %v", e, err)
	}
	return e
}

// print appends lines to the log of a turn.
func (s *scene) print(e *agented.Execution, lines ...string) {
	s.t.Helper()
	w, err := runlog.OpenWriter(s.x.layout.Execution(e.ID), time.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	var recs []runlog.Record
	for _, line := range lines {
		recs = append(recs, runlog.Record{LogLine: agented.LogLine{Attempt: e.AttemptNo, Stream: agented.Stdout, At: time.Now(), Content: []byte(line)}})
	}
	if err := w.Append(recs); err != nil {
		s.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		s.t.Fatal(err)
	}
}

// end records the end of a turn.
func (s *scene) end(e *agented.Execution, state agented.State, result, session string) {
	s.t.Helper()
	now := time.Now()
	_, err := s.x.db.EndAttempt(s.t.Context(), store.AttemptEnd{
		Attempt: agented.Attempt{
			Execution: e.ID, Number: e.AttemptNo, Backend: agented.BackendClaude, State: state, SessionID: session,
			StartedAt: now, FinishedAt: now,
		},
		Next: state, Result: result, Retry: &agented.RetryPolicy{}, Now: now, LastSeq: 1,
	}, e.Lease, now)
	if err != nil {
		s.t.Fatal(err)
	}
}

// events returns the kinds and data of the conversation's events.
func (s *scene) events() string {
	s.t.Helper()
	list, _, err := s.x.db.ConversationEvents(s.t.Context(), s.c.ID, 0, 1000)
	if err != nil {
		s.t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range list {
		fmt.Fprintf(&b, "%s %s\n", e.Kind, e.Data)
	}
	return b.String()
}

func receive[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(time.Minute):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

func TestTurn(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.say("hello")
	e := s.claim()
	if e.Source != agented.SourceTurn || e.Prompt != "hello" || e.Snapshot.TimeoutSeconds != 60 || e.Snapshot.WorkingDir != filepath.Join(s.x.layout.Conversation(s.c.ID), "work") {
		t.Errorf("the turn is %+v", e)
	}
	s.say("and more") // waits for the end of the turn
	s.print(e, `{"type":"assistant","session_id":"s1","message":{"id":"m","content":[{"type":"text","text":"good day"}]}}`)
	s.end(e, agented.StateSuccess, "good day", "s1")
	if id := receive(t, "clean-up", s.x.cleaned); id != e.ID {
		t.Errorf("cleaned up %s instead of %s", id, e.ID)
	}
	if got := s.events(); !strings.Contains(got, string(agented.EventContentDelta)) || !strings.Contains(got, `"role":"agent"`) || !strings.Contains(got, string(agented.EventFinish)) {
		t.Errorf("events:\n%s", got)
	}
	next := s.claim()
	if r := next.Snapshot.Resume; next.Prompt != "and more" || r == nil || r.Session != "s1" || r.Execution != e.ID {
		t.Errorf("the next turn is %q, resumes %+v", next.Prompt, r)
	}
	if s.notified.Load() == 0 {
		t.Error("no client was notified")
	}
}

func TestTurn_failed(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.say("hello")
	e := s.claim()
	s.end(e, agented.StateFailed, "", "")
	receive(t, "clean-up", s.x.cleaned)
	if got := s.events(); !strings.Contains(got, string(agented.EventError)) || strings.Contains(got, `"role":"agent"`) {
		t.Errorf("events:\n%s", got)
	}
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.say("hello")
	e := s.claim()
	s.say("withdrawn")
	if stopped, err := s.m.Interrupt(t.Context(), s.c.ID, agented.Principal{Name: "ann"}); err != nil || !stopped {
		t.Fatalf("stopped %v, %v", stopped, err)
	}
	if asked, err := s.x.db.CancelAsked(t.Context(), e.ID); err != nil || !asked {
		t.Errorf("the turn is cancelled: %v, %v", asked, err)
	}
	s.end(e, agented.StateCancelled, "", "")
	receive(t, "clean-up", s.x.cleaned)
	c, err := s.x.db.Conversation(t.Context(), s.c.ID)
	if err != nil || c.Turn != "" || c.Queued != 0 {
		t.Errorf("afterwards: %+v, %v", c, err)
	}
}

func TestAgent_missing(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.x.agent = nil
	s.say("hello")
	deadline := time.Now().Add(time.Minute)
	for !strings.Contains(s.events(), "there is no agent") {
		if time.Now().After(deadline) {
			t.Fatalf("events:\n%s", s.events())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Each turn works in the checkout of the first, and may use what is limited to its repository.
func TestTurn_repository(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	const repository = "https://github.com/acme/web"
	s.x.agent.Spec.Workspace = &agented.Workspace{Repository: repository}
	own := agented.Secret{Name: "own", Repositories: []string{"acme/web"}}
	other := agented.Secret{Name: "other", Repositories: []string{"acme/other"}}
	for turn := range 3 {
		s.say("hello")
		e := s.claim()
		if turn == 0 {
			if e.Snapshot.Workspace == nil {
				t.Fatal("the first turn has no workspace")
			}
			if err := os.MkdirAll(s.x.layout.WorkDir(e), 0o700); err != nil {
				t.Fatal(err)
			}
		} else if e.Snapshot.Workspace != nil || e.Snapshot.Resume == nil || e.Snapshot.Resume.Repository != repository {
			t.Errorf("turn %d has workspace %+v and resumes %+v", turn, e.Snapshot.Workspace, e.Snapshot.Resume)
		}
		if why := own.OutOfScope(e); why != "" {
			t.Errorf("turn %d: %s", turn, why)
		}
		if other.OutOfScope(e) == "" {
			t.Errorf("turn %d may use a secret of another repository", turn)
		}
		s.end(e, agented.StateSuccess, "done", "s1")
		receive(t, "clean-up", s.x.cleaned)
	}
}
