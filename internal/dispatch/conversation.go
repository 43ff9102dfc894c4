package dispatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/printed"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/store"
)

// conversationLoops tracks the conversations with running loops and wakes those loops.
type conversationLoops struct {
	mu     sync.Mutex // guards the following fields
	active map[agented.ConversationID]chan struct{}
	wake   chan struct{}
}

// wakeConversation wakes the loop of a conversation after a new post or a change of its turn.
func (d *Dispatcher) wakeConversation(id agented.ConversationID) {
	// Send under the lock, because startConversation checks its channel once more after the loop has ended.
	d.conversations.mu.Lock()
	defer d.conversations.mu.Unlock()
	c := d.conversations.active[id]
	if c == nil {
		c = d.conversations.wake // no loop yet: conversationLoop starts one
	}
	select {
	case c <- struct{}{}:
	default:
	}
}

// Changed is called after each stored change of an execution. It does not block.
func (d *Dispatcher) Changed(e agented.ExecutionEvent) {
	if c := e.Execution.Cause; c != nil && c.Conversation != "" {
		d.wakeConversation(c.Conversation)
	}
}

// Say stores a post in a conversation; its turn starts asynchronously. A post with the key of an
// earlier one is not stored again, and repeated is true.
func (d *Dispatcher) Say(ctx context.Context, p *store.PostMessage) (repeated bool, err error) {
	repeated, err = d.o.DB.AddPost(ctx, p, d.now())
	if err == nil {
		d.notifyEvents(p.Conversation)
		d.wakeConversation(p.Conversation)
	}
	return repeated, err
}

// Interrupt stops the running turn and withdraws waiting posts. It reports whether there was
// anything to stop.
func (d *Dispatcher) Interrupt(ctx context.Context, id agented.ConversationID, by agented.Principal) (bool, error) {
	c, err := d.o.DB.Conversation(ctx, id)
	if err != nil {
		return false, err
	}
	n, err := d.o.DB.DiscardQueued(ctx, id, by.Name, d.now())
	if err != nil {
		return false, err
	}
	d.notifyEvents(id)
	if c.Turn == "" {
		return n > 0, nil
	}
	_, err = d.Cancel(ctx, c.Turn, by)
	if agented.KindOf(err) == agented.Conflict {
		err = nil // it has ended meanwhile
	}
	d.wakeConversation(id)
	return true, err
}

// CloseConversation closes a conversation; a new post reopens it.
func (d *Dispatcher) CloseConversation(ctx context.Context, id agented.ConversationID, by agented.Principal) error {
	err := d.o.DB.CloseConversation(ctx, id, by.Name, d.now())
	if err == nil {
		d.notifyEvents(id)
	}
	return err
}

// notifyEvents notifies clients that a conversation has new events.
func (d *Dispatcher) notifyEvents(id agented.ConversationID) {
	if d.o.Observe.Notified != nil {
		d.o.Observe.Notified(id)
	}
}

// Intervals of conversations.
const (
	conversationPoll = 5 * time.Second        // fallback interval for reading an active conversation
	relayInterval    = 100 * time.Millisecond // minimum interval between writes of answer pieces
	staleLook        = time.Minute
	keepPieces       = 24 * time.Hour // how long pieces of ended answers are kept for clients that reconnect
)

// conversationLoop starts a loop for every conversation with a running turn or a waiting post, and closes
// idle conversations.
func (d *Dispatcher) conversationLoop(ctx context.Context) error {
	every := staleLook
	if s := d.o.StaleConversation; s > 0 && s < 2*every {
		every = max(s/4, 100*time.Millisecond)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		ids, err := d.o.DB.UnfinishedConversations(ctx)
		if err != nil && ctx.Err() == nil {
			d.o.Log.Error("conversations", "err", err)
		}
		for _, id := range ids {
			d.startConversation(ctx, id)
		}
		select {
		case <-ctx.Done():
			return errDraining
		case <-d.conversations.wake:
		case <-tick.C:
			d.closeStale(ctx)
		}
	}
}

func (d *Dispatcher) closeStale(ctx context.Context) {
	if d.o.StaleConversation <= 0 {
		return
	}
	now := d.now()
	ids, err := d.o.DB.CloseStale(ctx, now.Add(-d.o.StaleConversation), now, 100)
	if err != nil && ctx.Err() == nil {
		d.o.Log.Error("close idle conversations", "err", err)
	}
	for _, id := range ids {
		d.o.Log.Info("conversation closed: idle for too long", "conversation", id)
		d.notifyEvents(id)
		if err := d.o.DB.Compact(ctx, id, now.Add(-keepPieces)); err != nil && ctx.Err() == nil {
			d.o.Log.Error("compact a conversation", "conversation", id, "err", err)
		}
	}
}

// startConversation starts the loop of a conversation unless it is running.
func (d *Dispatcher) startConversation(ctx context.Context, id agented.ConversationID) {
	d.conversations.mu.Lock()
	defer d.conversations.mu.Unlock()
	if d.conversations.active[id] != nil {
		return
	}
	wake := make(chan struct{}, 1)
	d.conversations.active[id] = wake
	d.attempts.Go(func() {
		err := d.runConversation(ctx, id, wake)
		d.conversations.mu.Lock()
		delete(d.conversations.active, id)
		d.conversations.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			d.o.Log.Error("conversation", "conversation", id, "err", err)
			return // conversationLoop starts it again
		}
		select { // a wake-up that arrived while the loop ended
		case <-wake:
			select {
			case d.conversations.wake <- struct{}{}:
			default:
			}
		default:
		}
	})
}

// runConversation processes one conversation until it has no turn and no post.
func (d *Dispatcher) runConversation(ctx context.Context, id agented.ConversationID, wake chan struct{}) error {
	for ctx.Err() == nil {
		c, err := d.o.DB.Conversation(ctx, id)
		if agented.KindOf(err) == agented.NotFound {
			return nil
		}
		if err != nil {
			return err
		}
		if c.Turn != "" {
			if err := d.relayTurn(ctx, c, wake); err != nil {
				return err
			}
			continue
		}
		p, err := d.o.DB.NextPost(ctx, id)
		if err != nil || p == nil {
			return err
		}
		if err := d.beginTurn(ctx, c, p); err != nil {
			return err
		}
	}
	return nil
}

// beginTurn admits the execution that answers a post. If it cannot start, an error is added to
// the conversation and the post is withdrawn.
func (d *Dispatcher) beginTurn(ctx context.Context, c *agented.Conversation, p *store.PostMessage) error {
	now := d.now()
	e, err := d.turn(c, p, now)
	if err == nil {
		_, err = d.o.DB.BeginTurn(ctx, c.ID, p.Number, store.Admission{Execution: e, MaxConcurrent: 0, Overlap: agented.OverlapQueue}, now)
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
		if err := d.o.DB.RefusePost(ctx, c.ID, p.Number, []agented.ConversationEvent{{Kind: agented.EventError, Data: text}}, now); err != nil {
			return err
		}
		d.notifyEvents(c.ID)
		return nil
	}
	if err != nil {
		return err
	}
	d.notifyEvents(c.ID)
	d.Wake()
	return nil
}

// turn builds the execution that answers a post.
func (d *Dispatcher) turn(c *agented.Conversation, p *store.PostMessage, now time.Time) (*agented.Execution, error) {
	spec, err := d.withAgent(agented.Spec{
		Agent: string(c.Agent), TimeoutSeconds: agented.DefaultTimeoutSeconds, Overlap: agented.OverlapQueue,
	})
	if err != nil {
		return nil, err
	}
	if a := d.agentOf(c.Agent); a != nil {
		spec.TimeoutSeconds, spec.SilenceSeconds = a.Spec.TimeoutSeconds, a.Spec.SilenceSeconds
	}
	spec = spec.WithDefaults()
	home := d.o.Layout.Conversation(c.ID)
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

// agentOf returns an agent by id, or nil if there is none.
func (d *Dispatcher) agentOf(id agented.AgentID) *agented.Agent {
	if book := d.agents.Load(); book != nil {
		return (*book)[string(id)]
	}
	return nil
}

// turnRelay is the state of copying a turn's log to its conversation.
type turnRelay struct {
	d       *Dispatcher
	c       *agented.Conversation
	e       *agented.Execution
	dir     string
	text    *printed.Text
	at      agented.Seq
	attempt int
	cli     string // its name
	script  *agentcli.Transcript
	open    runlog.Joiner
	status  string
}

// relayTurn copies a turn's log to its conversation until the turn has ended.
func (d *Dispatcher) relayTurn(ctx context.Context, c *agented.Conversation, wake <-chan struct{}) error {
	e, err := d.o.DB.Execution(ctx, c.Turn)
	if agented.KindOf(err) == agented.NotFound {
		return d.endTurn(ctx, c, nil, "the execution of the turn no longer exists")
	}
	if err != nil {
		return err
	}
	t := &turnRelay{d: d, c: c, e: e, dir: d.o.Layout.Execution(e.ID), text: d.Printed(e), open: runlog.Joiner{Max: maxJoined}}
	defer t.text.Close()
	relayed, err := d.o.DB.RelayedUpTo(ctx, c.ID, c.Turn)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(t.dir, 0o700); err != nil {
		return err
	}
	watch, err := runlog.Watch(t.dir)
	if err != nil {
		return err
	}
	defer watch.Close()
	look := time.NewTicker(conversationPoll)
	defer look.Stop()
	for {
		e, err := d.o.DB.Execution(ctx, c.Turn)
		if err != nil {
			return err
		}
		t.e = e
		final := e.State.Final()
		events, err := t.read(ctx, relayed)
		if err != nil {
			return err
		}
		if s := t.standing(); s != nil {
			events = append(events, *s)
		}
		if len(events) > 0 {
			if err := d.o.DB.RelayEvents(ctx, c.ID, c.Turn, events, d.now()); err != nil {
				return err
			}
			relayed = max(relayed, t.at)
			d.notifyEvents(c.ID)
		}
		if len(events) >= maxRelayed {
			continue // there is more to read
		}
		if final {
			return d.endTurn(ctx, c, e, "")
		}
		// A short delay batches pieces into one transaction.
		pause := time.NewTimer(relayInterval)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil
		case <-pause.C:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-watch.C():
		case <-wake:
		case <-look.C:
		}
	}
}

// standing returns an event with the turn's status, or nil if the status has not changed.
func (t *turnRelay) standing() *agented.ConversationEvent {
	e := t.e
	status := "queued"
	switch {
	case e.State == agented.StateRunning && e.CancelAsked:
		status = "interrupting"
	case e.State == agented.StateRunning:
		status = "running"
	case e.State == agented.StatePending && e.Reason != "":
		status = "waiting"
	}
	if key := status + "\x00" + e.Reason; e.State.Final() || key == t.status {
		return nil
	} else if first := t.status == ""; true {
		t.status = key
		if first && status == "queued" {
			return nil // the start of the turn has already been sent
		}
	}
	fields := map[string]any{"status": status, "execution_id": e.ID, "attempt": e.AttemptNo}
	if e.Reason != "" {
		fields["reason"] = e.Reason
	}
	if status == "waiting" {
		fields["until"] = e.ScheduledAt
		if !e.ParkedUntil.IsZero() {
			fields["until"] = e.ParkedUntil
		}
	}
	return conversationEvent(agented.EventStatus, e.ID, 0, fields)
}

func conversationEvent(kind agented.ConversationEventKind, e agented.ExecutionID, source agented.Seq, fields map[string]any) *agented.ConversationEvent {
	data, err := json.Marshal(fields)
	if err != nil {
		data = []byte("{}") // reached only for numbers that JSON cannot represent
	}
	return &agented.ConversationEvent{Kind: kind, Data: data, Execution: e, Source: source}
}

// maxRelayed is the maximum number of events stored in one step.
const maxRelayed = 2000

// read converts unread log lines to events. Lines up to stored were stored before; they are read
// again only because later lines depend on them.
func (t *turnRelay) read(ctx context.Context, stored agented.Seq) ([]agented.ConversationEvent, error) {
	r, err := runlog.OpenReader(t.dir)
	if errors.Is(err, agented.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if t.at > 0 {
		if err := r.SeekAfter(t.at); err != nil {
			return nil, err
		}
	}
	var out []agented.ConversationEvent
	var batch []agented.LogLine
	for len(out) < maxRelayed {
		batch, err = r.Next(batch[:0], 500, 1<<20)
		if err != nil || len(batch) == 0 {
			return out, err
		}
		fresh := 0 // attempt of which the unmasked text was refreshed for this batch
		for i := range batch {
			l := &batch[i]
			t.at = l.Seq
			if l.Stream != agented.Stdout {
				continue
			}
			if l.Attempt != t.attempt {
				t.attempt = l.Attempt
				t.open.Reset()
				t.cli, t.script = backendAt(t.e, l.Attempt), agentcli.NewTranscript()
			}
			if l.Attempt != fresh {
				fresh = l.Attempt
				t.text.Refresh(fresh)
			}
			line, complete := t.open.Add(l.Part, l.Stream, t.text.Line(ctx, l))
			if !complete {
				continue
			}
			for _, s := range t.script.Add(registry.Decode(t.cli, line)) {
				if l.Seq > stored {
					out = append(out, t.event(l, s))
				}
			}
		}
	}
	return out, nil
}

// backendAt returns the backend of an attempt.
func backendAt(e *agented.Execution, attempt int) string {
	for i := range e.Attempts {
		if e.Attempts[i].Number == attempt && e.Attempts[i].Backend != "" {
			return e.Attempts[i].Backend
		}
	}
	return e.Backend
}

// maxDelta is the maximum text size of one event, in bytes. A longer piece becomes several
// events; the message at the end contains the whole text.
const maxDelta = 64 << 10

func (t *turnRelay) event(l *agented.LogLine, s agentcli.Saying) agented.ConversationEvent {
	fields := map[string]any{"execution_id": t.e.ID, "line": l.Seq}
	kind := agented.EventToolCall
	switch s.Kind {
	case agentcli.SaidText, agentcli.SaidThink:
		kind = agented.EventContentDelta
		text := t.text.Mask(strings.ToValidUTF8(s.Text, "\uFFFD"))
		if len(text) > maxDelta {
			text = strings.ToValidUTF8(text[:maxDelta], "") + "…"
			fields["truncated"] = true
		}
		fields["text"] = text
		fields["thinking"] = s.Kind == agentcli.SaidThink
		fields["end"] = s.Whole
	case agentcli.SaidCall:
		fields["id"], fields["tool"], fields["state"] = t.text.Mask(s.ID), t.text.Mask(s.Tool), "called"
		if s.Input != nil {
			fields["input"] = t.text.MaskRaw(s.Input)
		}
	case agentcli.SaidAnswer:
		fields["id"], fields["state"], fields["output"] = t.text.Mask(s.ID), "answered", t.text.Mask(strings.ToValidUTF8(s.Text, "\uFFFD"))
		if s.Error {
			fields["state"] = "failed"
		}
	}
	return *conversationEvent(kind, t.e.ID, l.Seq, fields)
}

// endTurn records the answer and the end of a turn, and the point where the next turn resumes. e
// is nil if the execution no longer exists.
func (d *Dispatcher) endTurn(ctx context.Context, c *agented.Conversation, e *agented.Execution, lost string) error {
	var events []agented.ConversationEvent
	var resume *agented.ResumePoint
	fields := map[string]any{"execution_id": c.Turn, "status": agented.StateInterrupted, "reason": lost}
	if e != nil {
		fields = map[string]any{
			"execution_id": e.ID, "status": e.State, "reason": e.Reason, "duration_ms": e.Duration().Milliseconds(),
			"usage": e.Usage, "attempts": len(e.Attempts),
		}
		resume = resumePoint(e, d.workDir(e))
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
	err := d.o.DB.EndTurn(ctx, c.ID, c.Turn, events, resume, d.now())
	if agented.KindOf(err) == agented.Conflict {
		return nil // it was already ended
	}
	if err != nil {
		return fmt.Errorf("end turn: %w", err)
	}
	d.notifyEvents(c.ID)
	d.finishing.Go(func() { d.cleanUp(context.WithoutCancel(ctx), c.Turn) })
	return nil
}

// resumePoint returns where a conversation resumes after a turn: in the last session of its
// attempts, or nil if there was none.
func resumePoint(e *agented.Execution, dir string) *agented.ResumePoint {
	for i := len(e.Attempts) - 1; i >= 0; i-- {
		a := &e.Attempts[i]
		if a.SessionID != "" && !a.SessionGone {
			return &agented.ResumePoint{Session: a.SessionID, Backend: a.Backend, Account: a.Account, Execution: e.ID, Dir: dir}
		}
	}
	return nil
}
