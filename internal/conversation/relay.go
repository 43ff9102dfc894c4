package conversation

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/agentcli"
	"github.com/agented/agented/internal/agentcli/registry"
	"github.com/agented/agented/internal/printed"
	"github.com/agented/agented/internal/runlog"
)

// turnRelay is the state of copying a turn's log to its conversation.
type turnRelay struct {
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
func (m *Manager) relayTurn(ctx context.Context, c *agented.Conversation, wake <-chan struct{}) error {
	e, err := m.o.DB.Execution(ctx, c.Turn)
	if agented.KindOf(err) == agented.NotFound {
		return m.endTurn(ctx, c, nil, "the execution of the turn no longer exists")
	}
	if err != nil {
		return err
	}
	t := &turnRelay{e: e, dir: m.o.Layout.Execution(e.ID), text: m.o.Executions.Printed(e), open: runlog.Joiner{Max: agentcli.MaxLine}}
	defer t.text.Close()
	relayed, err := m.o.DB.RelayedUpTo(ctx, c.ID, c.Turn)
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
	look := time.NewTicker(pollInterval)
	defer look.Stop()
	for {
		e, err := m.o.DB.Execution(ctx, c.Turn)
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
			if err := m.o.DB.RelayEvents(ctx, c.ID, c.Turn, events, m.now()); err != nil {
				return err
			}
			relayed = max(relayed, t.at)
			m.notifyEvents(c.ID)
		}
		if len(events) >= maxRelayed {
			continue // there is more to read
		}
		if final {
			return m.endTurn(ctx, c, e, "")
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

func (t *turnRelay) event(l *agented.LogLine, s agentcli.Item) agented.ConversationEvent {
	fields := map[string]any{"execution_id": t.e.ID, "line": l.Seq}
	kind := agented.EventToolCall
	switch s.Kind {
	case agentcli.ItemText, agentcli.ItemThinking:
		kind = agented.EventContentDelta
		text := t.text.Mask(strings.ToValidUTF8(s.Text, "\uFFFD"))
		if len(text) > maxDelta {
			text = strings.ToValidUTF8(text[:maxDelta], "") + "…"
			fields["truncated"] = true
		}
		fields["text"] = text
		fields["thinking"] = s.Kind == agentcli.ItemThinking
		fields["end"] = s.Whole
	case agentcli.ItemToolCall:
		fields["id"], fields["tool"], fields["state"] = t.text.Mask(s.ID), t.text.Mask(s.Tool), "called"
		if s.Input != nil {
			fields["input"] = t.text.MaskRaw(s.Input)
		}
	case agentcli.ItemToolResult:
		fields["id"], fields["state"], fields["output"] = t.text.Mask(s.ID), "answered", t.text.Mask(strings.ToValidUTF8(s.Text, "\uFFFD"))
		if s.Error {
			fields["state"] = "failed"
		}
	}
	return *conversationEvent(kind, t.e.ID, l.Seq, fields)
}
