package dispatch

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
)

// inboxInPrompt bounds the {inbox} of a prompt in bytes, and in messages.
const (
	inboxInPrompt = 64 << 10
	inboxItems    = 50
)

// Send stores a message with its places in the inboxes and with what it fires,
// in one transaction, and starts that. The message's chain is what it was
// caused by; zero when somebody began it.
func (d *Dispatcher) Send(ctx context.Context, m agented.BusMessage) (store.MessageResult, error) {
	for {
		triggers, version, err := d.o.DB.MessageTriggers(ctx, m.To)
		if err != nil {
			return store.MessageResult{}, err
		}
		now := d.now()
		if m.ID == "" {
			m.ID = agented.MessageID(agented.NewID("msg", now)) // the same for prompt and row
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
			d.stop(id)
		}
		if len(got.Fired) > 0 {
			d.Wake()
		}
		return got, nil
	}
}

// chainLimits bounds what one cause may set going.
func (d *Dispatcher) chainLimits() agented.ChainLimits {
	if d.o.Chains != nil {
		return d.o.Chains()
	}
	return agented.DefaultChainLimits
}

// fromMessage makes the execution that a message fires.
func (d *Dispatcher) fromMessage(ctx context.Context, t *agented.Trigger, m agented.BusMessage) (*agented.Execution, error) {
	e, err := d.admissible(Firing{
		Trigger: t, Source: agented.SourceMessage, Actor: m.From.String(), Message: m.Body,
		Values: map[string]string{"subject": m.Subject, "from": m.From.String(), "message_id": string(m.ID), "message_type": string(m.Type)},
	}, d.now())
	if err != nil {
		return nil, err
	}
	e.Cause = &agented.Origin{Kind: agented.SourceMessage, Message: m.ID}
	return e, nil
}

// inboxMark stands for the inbox in a prompt until the execution starts. Its
// characters are of a private area, and are taken out of what fills a prompt.
const inboxMark = "\uE000inbox\uE000"

// fillInbox puts the messages that wait for the execution's agent into its
// prompt, and gives them to it.
func (d *Dispatcher) fillInbox(ctx context.Context, e *agented.Execution) error {
	if !strings.Contains(e.Prompt, inboxMark) {
		return nil
	}
	if e.Snapshot.Agent == "" {
		e.Prompt = strings.ReplaceAll(e.Prompt, inboxMark, "(no inbox: the trigger names no agent)")
		return nil
	}
	owner := agented.Address{Kind: agented.ToAgent, Name: e.Snapshot.Agent}
	prompt, err := d.o.DB.TakeInbox(ctx, e.ID, owner, inboxItems, d.now(), func(items []agented.InboxItem) string {
		return strings.ReplaceAll(e.Prompt, inboxMark, inboxText(items))
	})
	if err == nil {
		e.Prompt = prompt
	}
	return err
}

// inboxText is what waits in an inbox, for a prompt. It ends with a note when
// there is more.
func inboxText(items []agented.InboxItem) string {
	if len(items) == 0 {
		return "(no messages)"
	}
	var b strings.Builder
	for i, item := range items {
		m := &item.Message
		text := fmt.Sprintf("[%d] %s from %s, %s", item.Seq, m.Type, m.From, m.CreatedAt.UTC().Format("2006-01-02 15:04:05 UTC"))
		if m.Priority != agented.PriorityNormal {
			text += ", priority " + string(m.Priority)
		}
		if m.ReplyTo != "" {
			text += ", in reply to " + string(m.ReplyTo)
		}
		text += ", id " + string(m.ID) + "\n"
		if m.Subject != "" {
			text += "Subject: " + m.Subject + "\n"
		}
		text += m.Body + "\n\n"
		if b.Len()+len(text) > inboxInPrompt && i > 0 {
			fmt.Fprintf(&b, "(%s more: ask for the inbox)\n", plural(len(items)-i, "message"))
			break
		}
		b.WriteString(text)
	}
	return strings.TrimRight(b.String(), "\n")
}

// token is what an attempt that plays an agent sends messages with; empty for
// all others.
func (d *Dispatcher) token(e *agented.Execution) string {
	if d.o.Token == nil || d.o.URL == nil || e.Snapshot.Agent == "" {
		return ""
	}
	return d.o.Token(e.ID, e.AttemptNo)
}

// giveBus gives an attempt that plays an agent the command to send messages
// with, in front of its PATH, and what the command needs to know.
func (d *Dispatcher) giveBus(e *agented.Execution, vars map[string]string) error {
	token := d.token(e)
	if token == "" {
		return nil
	}
	bin := d.o.Layout.Bin()
	if err := linkSelf(bin); err != nil {
		return agented.Errorf(agented.Unavailable, "the folder with the command for messages could not be made").Because(err)
	}
	vars["AGENTED_URL"], vars["AGENTED_API_KEY"] = d.o.URL(), token
	vars["PATH"] = strings.TrimSuffix(bin+string(os.PathListSeparator)+vars["PATH"], string(os.PathListSeparator))
	return nil
}

// linkSelf puts a link to the running program into a folder as agented.
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
	// Beside it and then over it, so that it is there at every moment.
	next := link + "." + strconv.Itoa(os.Getpid()) + strconv.FormatInt(time.Now().UnixNano(), 36)
	if err := os.Symlink(self, next); err != nil {
		return err
	}
	return os.Rename(next, link)
}
