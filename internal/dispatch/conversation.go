package dispatch

import (
	"bytes"
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
	"github.com/agented/agented/internal/backend"
	"github.com/agented/agented/internal/runlog"
	"github.com/agented/agented/internal/store"
)

// talks carries conversations: who is at work on which, and who wants to know
// of their events.
type talks struct {
	mu     sync.Mutex // guards what follows
	active map[agented.ConversationID]chan struct{}
	wake   chan struct{}
}

// wakeTalk has a conversation looked at: a post came, or its turn changed.
func (d *Dispatcher) wakeTalk(id agented.ConversationID) {
	d.talks.mu.Lock()
	c := d.talks.active[id]
	d.talks.mu.Unlock()
	if c == nil {
		c = d.talks.wake // nobody is at it: the loop finds it
	}
	select {
	case c <- struct{}{}:
	default:
	}
}

// Changed is told of each change of an execution, right after it was stored.
// It takes no time.
func (d *Dispatcher) Changed(e agented.ExecutionEvent) {
	if c := e.Execution.Cause; c != nil && c.Conversation != "" {
		d.wakeTalk(c.Conversation)
	}
}

// Say stores what somebody says in a conversation; its turn follows by itself.
// The same key is the same post, and repeated is true.
func (d *Dispatcher) Say(ctx context.Context, p *store.Post) (repeated bool, err error) {
	repeated, err = d.o.DB.AddPost(ctx, p, d.now())
	if err == nil {
		d.told(p.Conversation)
		d.wakeTalk(p.Conversation)
	}
	return repeated, err
}

// Interrupt stops the turn under way and takes back what waits. It reports
// whether there was anything to stop.
func (d *Dispatcher) Interrupt(ctx context.Context, id agented.ConversationID, by agented.Principal) (bool, error) {
	c, err := d.o.DB.Conversation(ctx, id)
	if err != nil {
		return false, err
	}
	n, err := d.o.DB.TakeBack(ctx, id, by.Name, d.now())
	if err != nil {
		return false, err
	}
	d.told(id)
	if c.Turn == "" {
		return n > 0, nil
	}
	_, err = d.Cancel(ctx, c.Turn, by)
	if agented.KindOf(err) == agented.Conflict {
		err = nil // it ended by itself
	}
	d.wakeTalk(id)
	return true, err
}

// CloseConversation closes a conversation; it opens again when somebody writes.
func (d *Dispatcher) CloseConversation(ctx context.Context, id agented.ConversationID, by agented.Principal) error {
	err := d.o.DB.CloseConversation(ctx, id, by.Name, d.now())
	if err == nil {
		d.told(id)
	}
	return err
}

// told says that a conversation has new events.
func (d *Dispatcher) told(id agented.ConversationID) {
	if d.o.Observe.Told != nil {
		d.o.Observe.Told(id)
	}
}

// Times of conversations.
const (
	talkLook  = 5 * time.Second        // a conversation under way is looked at so often, whatever happens
	tellEvery = 100 * time.Millisecond // pieces of an answer are stored at most so often
	staleLook = time.Minute
	keepWords = 24 * time.Hour // pieces of ended answers are kept so long for who resumes
)

// talkLoop goes on with every conversation that has a turn under way or a post
// that waits, and closes those that nobody goes on with.
func (d *Dispatcher) talkLoop(ctx context.Context) error {
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
			d.attend(ctx, id)
		}
		select {
		case <-ctx.Done():
			return errDraining
		case <-d.talks.wake:
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
		d.told(id)
		if err := d.o.DB.Compact(ctx, id, now.Add(-keepWords)); err != nil && ctx.Err() == nil {
			d.o.Log.Error("compact a conversation", "conversation", id, "err", err)
		}
	}
}

// attend begins to work on a conversation unless somebody does.
func (d *Dispatcher) attend(ctx context.Context, id agented.ConversationID) {
	d.talks.mu.Lock()
	defer d.talks.mu.Unlock()
	if d.talks.active[id] != nil {
		return
	}
	wake := make(chan struct{}, 1)
	d.talks.active[id] = wake
	d.attempts.Go(func() {
		err := d.talk(ctx, id, wake)
		d.talks.mu.Lock()
		delete(d.talks.active, id)
		d.talks.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			d.o.Log.Error("conversation", "conversation", id, "err", err)
			return // the loop comes round again
		}
		select { // what came while it was leaving
		case <-wake:
			select {
			case d.talks.wake <- struct{}{}:
			default:
			}
		default:
		}
	})
}

// talk carries one conversation until it has no turn and no post.
func (d *Dispatcher) talk(ctx context.Context, id agented.ConversationID, wake chan struct{}) error {
	for ctx.Err() == nil {
		c, err := d.o.DB.Conversation(ctx, id)
		if agented.KindOf(err) == agented.NotFound && err != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if c.Turn != "" {
			if err := d.tell(ctx, c, wake); err != nil {
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

// beginTurn admits the execution that answers a post. What cannot begin is an
// error in the conversation, and the post is taken back.
func (d *Dispatcher) beginTurn(ctx context.Context, c *agented.Conversation, p *store.Post) error {
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
		d.told(c.ID)
		return nil
	}
	if err != nil {
		return err
	}
	d.told(c.ID)
	d.Wake()
	return nil
}

// turn makes the execution that answers a post.
func (d *Dispatcher) turn(c *agented.Conversation, p *store.Post, now time.Time) (*agented.Execution, error) {
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
			return nil, agented.Errorf(agented.Unavailable, "the conversation's folder could not be made").Because(err)
		}
	}
	spec.Resume = c.Resume
	if c.Resume != nil && spec.Workspace != nil && c.Resume.Dir != "" {
		// It goes on in the checkout of its first turn, unless that has been
		// swept: then in a new one.
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

// agentOf is an agent by its id, nil when there is none.
func (d *Dispatcher) agentOf(id agented.AgentID) *agented.Agent {
	if book := d.agents.Load(); book != nil {
		return (*book)[string(id)]
	}
	return nil
}

// telling is how far the log of a turn has been told to its conversation.
type telling struct {
	d       *Dispatcher
	c       *agented.Conversation
	e       *agented.Execution
	dir     string
	at      agented.Seq
	attempt int
	script  *backend.Transcript
	open    bytes.Buffer // of a line that was cut, what has come
	status  string
}

// tell tells a turn's log to its conversation until the turn has ended.
func (d *Dispatcher) tell(ctx context.Context, c *agented.Conversation, wake <-chan struct{}) error {
	e, err := d.o.DB.Execution(ctx, c.Turn)
	if agented.KindOf(err) == agented.NotFound && err != nil {
		return d.endTurn(ctx, c, nil, "the turn's execution is gone")
	}
	if err != nil {
		return err
	}
	t := &telling{d: d, c: c, e: e, dir: d.o.Layout.Execution(e.ID)}
	told, err := d.o.DB.Told(ctx, c.ID, c.Turn)
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
	look := time.NewTicker(talkLook)
	defer look.Stop()
	for {
		e, err := d.o.DB.Execution(ctx, c.Turn)
		if err != nil {
			return err
		}
		t.e = e
		final := e.State.Final()
		events, err := t.read(told)
		if err != nil {
			return err
		}
		if s := t.standing(); s != nil {
			events = append(events, *s)
		}
		if len(events) > 0 {
			if err := d.o.DB.Tell(ctx, c.ID, c.Turn, events, d.now()); err != nil {
				return err
			}
			told = max(told, t.at)
			d.told(c.ID)
		}
		if len(events) >= maxTold {
			continue // there is more
		}
		if final {
			return d.endTurn(ctx, c, e, "")
		}
		// A little pause makes one transaction of many pieces.
		pause := time.NewTimer(tellEvery)
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

// standing is the event that says where the turn stands, nil when that is as it
// was.
func (t *telling) standing() *agented.ConversationEvent {
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
			return nil // the beginning of the turn has said so
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
		data = []byte("{}") // only a number that JSON cannot write
	}
	return &agented.ConversationEvent{Kind: kind, Data: data, Execution: e, Source: source}
}

// maxTold bounds the events that one step stores.
const maxTold = 2000

// read turns the lines behind what was read into events. Those up to told have
// been told before: they are read for what they mean to the lines after them.
func (t *telling) read(told agented.Seq) ([]agented.ConversationEvent, error) {
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
	for len(out) < maxTold {
		batch, err = r.Next(batch[:0], 500, 1<<20)
		if err != nil || len(batch) == 0 {
			return out, err
		}
		for i := range batch {
			l := &batch[i]
			t.at = l.Seq
			if l.Stream != agented.Stdout {
				continue
			}
			if l.Attempt != t.attempt {
				t.attempt = l.Attempt
				t.open.Reset()
				t.script = backend.NewTranscript(backendAt(t.e, l.Attempt))
			}
			line := l.Content
			if l.Part != agented.PartWhole {
				if l.Part == agented.PartFirst {
					t.open.Reset()
				}
				t.open.Write(line[:min(len(line), maxJoined-min(maxJoined, t.open.Len()))])
				if l.Part != agented.PartLast {
					continue
				}
				line = t.open.Bytes()
			}
			for _, s := range t.script.Line(line) {
				if l.Seq > told {
					out = append(out, t.event(l, s))
				}
			}
			if t.open.Cap() > 1<<20 {
				t.open = bytes.Buffer{}
			}
		}
	}
	return out, nil
}

// backendAt is the backend that an attempt used.
func backendAt(e *agented.Execution, attempt int) string {
	for i := range e.Attempts {
		if e.Attempts[i].Number == attempt && e.Attempts[i].Backend != "" {
			return e.Attempts[i].Backend
		}
	}
	return e.Backend
}

// maxDelta bounds the text of one event; a longer piece is cut into several by
// the reader of it, who finds the whole in the message at the end.
const maxDelta = 64 << 10

func (t *telling) event(l *agented.LogLine, s backend.Saying) agented.ConversationEvent {
	fields := map[string]any{"execution_id": t.e.ID, "line": l.Seq}
	kind := agented.EventToolCall
	switch s.Kind {
	case backend.SaidText, backend.SaidThink:
		kind = agented.EventContentDelta
		text := strings.ToValidUTF8(s.Text, "\uFFFD")
		if len(text) > maxDelta {
			text = strings.ToValidUTF8(text[:maxDelta], "") + "…"
			fields["cut"] = true
		}
		fields["text"] = text
		fields["thinking"] = s.Kind == backend.SaidThink
		fields["end"] = s.Whole
	case backend.SaidCall:
		fields["id"], fields["tool"], fields["state"] = s.ID, s.Tool, "called"
		if s.Input != nil {
			fields["input"] = s.Input
		}
	case backend.SaidAnswer:
		fields["id"], fields["state"], fields["output"] = s.ID, "answered", strings.ToValidUTF8(s.Text, "\uFFFD")
		if s.Error {
			fields["state"] = "failed"
		}
	}
	return *conversationEvent(kind, t.e.ID, l.Seq, fields)
}

// endTurn writes the answer and the end of a turn, and where the next one goes
// on. e is nil when the execution is gone.
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
				why = "the turn ended as " + string(e.State)
			}
		}
		events = append(events, *conversationEvent(agented.EventError, c.Turn, 0, map[string]any{"execution_id": c.Turn, "message": why}))
	}
	events = append(events, *conversationEvent(agented.EventFinish, c.Turn, 0, fields))
	err := d.o.DB.EndTurn(ctx, c.ID, c.Turn, events, resume, d.now())
	if agented.KindOf(err) == agented.Conflict && err != nil {
		return nil // somebody else has ended it
	}
	if err != nil {
		return fmt.Errorf("end turn: %w", err)
	}
	d.told(c.ID)
	return nil
}

// resumePoint is where a conversation goes on after a turn: in the session of
// the last attempt that had one. Nil when there was none.
func resumePoint(e *agented.Execution, dir string) *agented.ResumePoint {
	for i := len(e.Attempts) - 1; i >= 0; i-- {
		a := &e.Attempts[i]
		if a.SessionID != "" && !a.SessionGone {
			return &agented.ResumePoint{Session: a.SessionID, Backend: a.Backend, Account: a.Account, Execution: e.ID, Dir: dir}
		}
	}
	return nil
}
