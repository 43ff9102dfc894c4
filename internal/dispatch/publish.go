package dispatch

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/backoff"
	"github.com/agented/agented/internal/changes"
	"github.com/agented/agented/internal/proposal"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/webhook"
)

// propose adds what a successful attempt publishes. The files of the agent remain until the end is
// recorded, so a crash loses nothing. It returns an error only if ctx has ended.
func (d *Dispatcher) propose(ctx context.Context, e *agented.Execution, end *store.AttemptEnd) error {
	if e.Snapshot.Publish == nil || end.Next != agented.StateSuccess {
		return nil
	}
	for pause := (backoff.Backoff{Pause: 50 * time.Millisecond, Longest: 5 * time.Second}); ; {
		mask, err := d.masker(ctx, e)
		if err == nil {
			end.Publications = d.plan(e, end, mask)
			return nil
		}
		// Without the secrets nothing may be published.
		d.o.Log.Error("read the secrets of an execution", "execution", e.ID, "err", err, "retry_in", pause.Pause.String())
		if err := pause.Wait(ctx); err != nil {
			return err
		}
	}
}

// plan returns what an attempt proposes to publish.
func (d *Dispatcher) plan(e *agented.Execution, end *store.AttemptEnd, mask *redact.Masker) []agented.Publication {
	record, err := changes.Load(d.recordsOf(e.ID), e.AttemptNo)
	if err != nil {
		record = nil // nothing was recorded
	}
	return proposal.Plan(proposal.Input{
		Execution: e, Attempt: e.AttemptNo, Dir: d.recordsOf(e.ID).Out(e.AttemptNo), Record: record, Result: end.Result, Mask: mask,
	})
}

// withPublishing adds to the prompt of an agent how it proposes what the server publishes.
func withPublishing(s *agented.Spec, prompt string) string {
	if s.Backend == agented.BackendCommand || s.Backend == agented.BackendAnthropic {
		return prompt // a program is written for it, and has no files
	}
	return strings.TrimRight(prompt, "\n") + "\n\n" + proposal.Instructions(s.Publish)
}

// publishTo returns what an event is about; nil if the webhook is not that of a forge.
func publishTo(source agented.Source, e *webhook.Event) *agented.PublishTarget {
	if source != agented.SourceGitHub || e == nil || !e.GitHub {
		return nil
	}
	t := &agented.PublishTarget{
		Repository: e.Repository, PullRequest: e.PullRequest, SHA: e.SHA, Branch: e.Branch, Base: e.Base, Fork: e.Fork,
	}
	t.Number, _ = strconv.Atoi(e.Number)
	if !agented.ValidRef(t.Branch) {
		t.Branch = ""
	}
	if !agented.ValidRef(t.Base) {
		t.Base = ""
	}
	return t
}

// causedBy returns the execution that an event names as its cause, if the server's own account
// caused the event.
func (d *Dispatcher) causedBy(e *webhook.Event) agented.ExecutionID {
	if !e.GitHub {
		return ""
	}
	if d.o.PublishesAs != nil {
		if login := d.o.PublishesAs(); login != "" && !strings.EqualFold(login, e.Sender) {
			return ""
		}
	}
	id, _ := agented.PublishedBy(e.OwnText())
	return id
}
