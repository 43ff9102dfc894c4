package dispatch

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
)

// Maximum size of {inbox} in a prompt, in bytes and in messages.
const (
	inboxInPrompt = 64 << 10
	inboxItems    = 50
)

// Send stores a message, delivers it to the inboxes, and admits the executions that it fires, in
// one transaction, and starts them. The message's chain is its cause; the zero chain starts a new
// one.
func (d *Dispatcher) Send(ctx context.Context, m agented.BusMessage) (store.MessageResult, error) {
	for {
		triggers, version, err := d.o.DB.MessageTriggers(ctx, m.To)
		if err != nil {
			return store.MessageResult{}, err
		}
		now := d.now()
		if m.ID == "" {
			m.ID = agented.MessageID(agented.NewID("msg", now)) // the prompt and the row must have the same id
		}
		a := store.MessageAdmission{Message: m, Limits: d.chainLimits(), Rules: version}
		for i := range triggers {
			t := &triggers[i]
			if !slices.ContainsFunc(t.Messages, func(r agented.MessageRule) bool {
				return r.Enabled && (len(r.Types) == 0 || slices.Contains(r.Types, m.Type))
			}) {
				continue
			}
			e, err := d.fromMessage(ctx, t, m)
			if err != nil {
				if agented.KindOf(err) == agented.Internal {
					return store.MessageResult{}, err
				}
				d.o.Log.Warn("message does not fire a trigger", "message", m.ID, "trigger", t.ID, "err", err)
				if refused := RefusedFiring(e, err); refused != nil {
					a.Fires = append(a.Fires, *refused)
				}
				continue
			}
			a.Fires = append(a.Fires, store.Admission{Execution: e, MaxConcurrent: e.Snapshot.MaxConcurrent, Overlap: e.Snapshot.Overlap})
		}
		got, err := d.o.DB.SendMessage(ctx, a, now)
		if err != nil {
			return got, err
		}
		if got.Stale {
			continue
		}
		if !m.ExpiresAt.IsZero() {
			d.wakeExpiry()
		}
		for _, id := range got.Replaced {
			d.Stop(id)
		}
		if len(got.Fired) > 0 {
			d.Wake()
		}
		return got, nil
	}
}

// chainLimits returns the limits of what one cause may start.
func (d *Dispatcher) chainLimits() agented.ChainLimits {
	if d.o.Chains != nil {
		return d.o.Chains()
	}
	return agented.DefaultChainLimits
}

// fromMessage builds the execution that a message fires.
func (d *Dispatcher) fromMessage(ctx context.Context, t *agented.Trigger, m agented.BusMessage) (*agented.Execution, error) {
	role := d.senderRole(ctx, m.From)
	body, err := fenceMessage(&m, role, "message", m.Body)
	if err != nil {
		return nil, err
	}
	subject, err := fenceMessage(&m, role, "subject", m.Subject)
	if err != nil {
		return nil, err
	}
	e, err := d.Admissible(Firing{
		Trigger: t, Source: agented.SourceMessage, Actor: m.From.String(), Message: body,
		Values: map[string]string{"subject": subject, "from": senderName(m.From), "message_id": string(m.ID), "message_type": string(m.Type)},
		Raw:    map[string]string{"message": m.Body, "subject": m.Subject, "from": m.From.String()},
	}, d.now())
	if e != nil {
		e.Cause = &agented.Origin{Kind: agented.SourceMessage, Message: m.ID}
	}
	return e, err
}

// inboxMark is the placeholder of the inbox in a prompt until the execution starts. Its
// characters are from a private use area and are removed from values that fill a prompt.
const inboxMark = "\uE000inbox\uE000"

// fillInbox puts the waiting messages of the execution's agent into its prompt, and marks them as
// delivered.
func (d *Dispatcher) fillInbox(ctx context.Context, e *agented.Execution) error {
	if !strings.Contains(e.Prompt, inboxMark) {
		return nil
	}
	if e.Snapshot.Agent == "" {
		e.Prompt = strings.ReplaceAll(e.Prompt, inboxMark, "(no inbox: the trigger names no agent)")
		return nil
	}
	owner := agented.Address{Kind: agented.ToAgent, Name: e.Snapshot.Agent}
	var failed error
	prompt, err := d.o.DB.TakeInbox(ctx, e.ID, owner, inboxItems, d.now(), func(items []agented.InboxItem) string {
		var text string
		text, failed = d.inboxText(ctx, items)
		return strings.ReplaceAll(e.Prompt, inboxMark, text)
	})
	if err == nil {
		err = failed
	}
	if err == nil {
		e.Prompt = prompt
	}
	return err
}

// token returns the bus token of an attempt of an agent; it is empty for other attempts.
func (d *Dispatcher) token(e *agented.Execution) string {
	if d.o.Token == nil || d.o.URL == nil || e.Snapshot.Agent == "" {
		return ""
	}
	return d.o.Token(e.ID, e.AttemptNo)
}

// addMessageTools adds the agented command to the PATH of an attempt of an agent, with the variables that
// the command needs to send messages.
func (d *Dispatcher) addMessageTools(e *agented.Execution, vars map[string]string) error {
	token := d.token(e)
	if token == "" {
		return nil
	}
	bin := d.o.Layout.Bin()
	if err := linkSelf(bin); err != nil {
		return agented.Errorf(agented.Unavailable, "the folder for the agented command could not be created").Because(err)
	}
	vars["AGENTED_URL"], vars["AGENTED_API_KEY"] = d.o.URL(), token
	vars["PATH"] = strings.TrimSuffix(bin+string(os.PathListSeparator)+vars["PATH"], string(os.PathListSeparator))
	return nil
}

// linkSelf creates a link named agented to the running program in dir.
func linkSelf(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	link := filepath.Join(dir, "agented")
	if at, err := os.Readlink(link); err == nil && at == self {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// Rename replaces the link atomically, so it exists at all times.
	next := link + "." + strconv.Itoa(os.Getpid()) + strconv.FormatInt(time.Now().UnixNano(), 36)
	if err := os.Symlink(self, next); err != nil {
		return err
	}
	return os.Rename(next, link)
}
