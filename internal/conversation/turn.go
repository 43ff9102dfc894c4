package conversation

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
)

// beginTurn admits the execution that answers a post. If it cannot start, an error is added to
// the conversation and the post is withdrawn.
func (m *Manager) beginTurn(ctx context.Context, c *agented.Conversation, p *store.PostMessage) error {
	now := m.now()
	e, err := m.turn(c, p, now)
	if err == nil {
		_, err = m.o.DB.BeginTurn(ctx, c.ID, p.Number, store.Admission{Execution: e, MaxConcurrent: 0, Overlap: agented.OverlapQueue}, now)
	}
	switch agented.KindOf(err) {
	case agented.Conflict, agented.Invalid, agented.NotFound:
		if err == nil {
			break
		}
		text, merr := json.Marshal(map[string]any{"number": p.Number, "message": agented.Message(err)})
		if merr != nil {
			return merr
		}
		if err := m.o.DB.RefusePost(ctx, c.ID, p.Number, []agented.ConversationEvent{{Kind: agented.EventError, Data: text}}, now); err != nil {
			return err
		}
		m.notifyEvents(c.ID)
		return nil
	}
	if err != nil {
		return err
	}
	m.notifyEvents(c.ID)
	m.o.Executions.Wake()
	return nil
}

// turn builds the execution that answers a post.
func (m *Manager) turn(c *agented.Conversation, p *store.PostMessage, now time.Time) (*agented.Execution, error) {
	a, err := m.o.Executions.EnabledAgent(string(c.Agent))
	if err != nil {
		return nil, err
	}
	spec := a.Fill(agented.Spec{
		TimeoutSeconds: a.Spec.TimeoutSeconds, SilenceSeconds: a.Spec.SilenceSeconds, Overlap: agented.OverlapQueue,
	}).WithDefaults()
	home := m.o.Layout.Conversation(c.ID)
	if spec.WorkingDir == "" && spec.Workspace == nil {
		spec.WorkingDir = filepath.Join(home, "work")
		if err := os.MkdirAll(spec.WorkingDir, 0o700); err != nil {
			return nil, agented.Errorf(agented.Unavailable, "the conversation's folder could not be created").Because(err)
		}
	}
	spec.Resume = c.Resume
	if c.Resume != nil && spec.Workspace != nil && c.Resume.Dir != "" {
		// It uses the checkout of the first turn, or a new one if that was removed.
		if info, err := os.Stat(c.Resume.Dir); err == nil && info.IsDir() {
			spec.Workspace, spec.WorkingDir = nil, c.Resume.Dir
		}
	}
	prompt := p.Text
	if len(p.Files) > 0 {
		prompt += "\n\nAttached files:\n"
		for _, name := range p.Files {
			prompt += "- " + filepath.Join(home, "files", name) + "\n"
		}
		spec.Paths = append(append([]string(nil), spec.Paths...), filepath.Join(home, "files"))
	}
	return &agented.Execution{
		ID: agented.ExecutionID(agented.NewID("exec", now)), TriggerName: c.AgentName, Backend: spec.Backend,
		State: agented.StatePending, Source: agented.SourceTurn, Actor: p.Actor,
		Cause:    &agented.Origin{Kind: agented.SourceTurn, Conversation: c.ID},
		Snapshot: spec, Prompt: prompt, CreatedAt: now, ScheduledAt: now,
	}, nil
}

// endTurn records the answer and the end of a turn, and the point where the next turn resumes. e
// is nil if the execution no longer exists.
func (m *Manager) endTurn(ctx context.Context, c *agented.Conversation, e *agented.Execution, lost string) error {
	var events []agented.ConversationEvent
	var resume *agented.ResumePoint
	fields := map[string]any{"execution_id": c.Turn, "status": agented.StateInterrupted, "reason": lost}
	if e != nil {
		fields = map[string]any{
			"execution_id": e.ID, "status": e.State, "reason": e.Reason, "duration_ms": e.Duration().Milliseconds(),
			"usage": e.Usage, "attempts": len(e.Attempts),
		}
		resume = resumePoint(e, m.o.Layout.WorkDir(e))
		if e.Result != "" {
			events = append(events, *conversationEvent(agented.EventMessage, e.ID, 0, map[string]any{
				"role": "agent", "text": e.Result, "execution_id": e.ID, "agent": c.AgentName,
			}))
		}
	}
	if e == nil || e.State != agented.StateSuccess && e.State != agented.StateCancelled {
		why := lost
		if e != nil {
			why = e.Reason
			if why == "" {
				why = "the turn ended with status " + string(e.State)
			}
		}
		events = append(events, *conversationEvent(agented.EventError, c.Turn, 0, map[string]any{"execution_id": c.Turn, "message": why}))
	}
	events = append(events, *conversationEvent(agented.EventFinish, c.Turn, 0, fields))
	err := m.o.DB.EndTurn(ctx, c.ID, c.Turn, events, resume, m.now())
	if agented.KindOf(err) == agented.Conflict {
		return nil // it was already ended
	}
	if err != nil {
		return fmt.Errorf("end turn: %w", err)
	}
	m.notifyEvents(c.ID)
	m.work.Go(func() { m.o.Executions.CleanUp(context.WithoutCancel(ctx), c.Turn) })
	return nil
}

// resumePoint returns where a conversation resumes after a turn: in the last session of its
// attempts, or nil if there was none.
func resumePoint(e *agented.Execution, dir string) *agented.ResumePoint {
	for i := len(e.Attempts) - 1; i >= 0; i-- {
		a := &e.Attempts[i]
		if a.SessionID != "" && !a.SessionGone {
			return &agented.ResumePoint{
				Session: a.SessionID, Backend: a.Backend, Account: a.Account, Execution: e.ID,
				Dir: dir, Repository: repositoryOf(e),
			}
		}
	}
	return nil
}

// repositoryOf returns the address of the repository whose checkout a turn worked in, or "".
func repositoryOf(e *agented.Execution) string {
	switch {
	case e.Snapshot.Workspace != nil:
		return e.Snapshot.Workspace.Repository
	case e.Snapshot.Resume != nil:
		return e.Snapshot.Resume.Repository
	}
	return ""
}
