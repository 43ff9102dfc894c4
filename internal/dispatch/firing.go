package dispatch

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
)

// Firing is a reason to run, whatever brought it.
type Firing struct {
	Trigger        *agented.Trigger // nil for an ad-hoc execution, which then has a Spec
	Spec           *agented.Spec    // what to run when Trigger is nil
	Name           string           // name of an ad-hoc execution, for people
	Source         agented.Source
	Actor          string            // who or what fired it, for people
	Message        string            // fills {message}
	Vars           map[string]string // fill {vars.NAME}
	Values         map[string]string // fill the source's own placeholders, such as {pr_url}
	IdempotencyKey string            // the same key on the same trigger is the same execution; empty: none
	RetryOf        agented.ExecutionID
	Probes         agented.AccountID // account that it tries, whatever its state; empty: none
}

// Fire makes the execution durable and returns it. It answers repeated true
// when the firing's idempotency key was seen before: the execution is then the
// first one's. A disabled trigger, and overlap skip for a manual firing, are
// Conflicts.
func (d *Dispatcher) Fire(ctx context.Context, f Firing) (e *agented.Execution, repeated bool, err error) {
	if f.IdempotencyKey != "" && f.Trigger != nil && !f.Trigger.Enabled {
		// What was accepted once is answered so for ever, even if the trigger
		// would not fire today.
		if e, err := d.o.DB.Repeated(ctx, f.Trigger.ID, f.IdempotencyKey); e != nil || err != nil {
			return e, e != nil, err
		}
	}
	now := d.now()
	e, err = d.admissible(f, now)
	if err != nil {
		return nil, false, err
	}
	work, leave := d.alive()
	defer leave()
	got, err := d.o.DB.Admit(ctx, store.Admission{
		Claim:          d.claimAtOnce(work),
		Execution:      e,
		IdempotencyKey: f.IdempotencyKey,
		MaxConcurrent:  e.Snapshot.MaxConcurrent,
		Overlap:        e.Snapshot.Overlap,
		SkipIsConflict: f.Source == agented.SourceManual || f.Source == agented.SourceRetry,
	}, now)
	if err != nil {
		return nil, false, err
	}
	for _, id := range got.Replaced {
		d.stop(id)
	}
	if got.Claimed != nil {
		d.claimed(work, got.Claimed, now)
	}
	d.Wake()
	return got.Execution, got.Repeated, nil
}

// admissible turns a firing into the execution that it asks for.
func (d *Dispatcher) admissible(f Firing, now time.Time) (*agented.Execution, error) {
	e := &agented.Execution{
		ID:          agented.ExecutionID(agented.NewID("exec", now)),
		State:       agented.StatePending,
		Source:      f.Source,
		Actor:       f.Actor,
		RetryOf:     f.RetryOf,
		Probes:      f.Probes,
		CreatedAt:   now,
		ScheduledAt: now,
	}
	values := map[string]string{"message": f.Message, "execution_id": string(e.ID)}
	if t := f.Trigger; t != nil {
		if !t.Enabled {
			return nil, agented.Errorf(agented.Conflict, "trigger %q is disabled: enable it first", t.Name)
		}
		e.Trigger, e.TriggerName, e.Snapshot = t.ID, t.Name, t.Spec.WithDefaults()
		values["trigger_id"], values["bot_id"], values["trigger_name"] = string(t.ID), string(t.ID), t.Name
	} else {
		e.TriggerName, e.Snapshot = f.Name, f.Spec.WithDefaults()
		values["trigger_name"] = f.Name
		if bad := e.Snapshot.Validate(); len(bad) > 0 {
			return nil, agented.InvalidFields(bad)
		}
	}
	var err error
	if e.Snapshot, err = d.withAgent(e.Snapshot); err != nil {
		return nil, err
	}
	e.Backend = e.Snapshot.Backend
	values["paths"] = "no paths configured"
	if len(e.Snapshot.Paths) > 0 {
		values["paths"] = strings.Join(e.Snapshot.Paths, ", ")
	}
	for k, v := range f.Values {
		values[k] = v
	}
	for k, v := range f.Vars {
		values[agented.VarPrefix+k] = v
	}
	for k, v := range values {
		if strings.Contains(v, "\uE000") {
			values[k] = strings.ReplaceAll(v, "\uE000", "")
		}
	}
	values["inbox"] = inboxMark // filled when it starts
	if e.Snapshot, err = fillWorkspace(e.Snapshot, values); err != nil {
		return nil, err
	}
	if n := agented.RenderedSize(e.Snapshot.Prompt, values); n > agented.MaxPrompt {
		return nil, agented.Errorf(agented.Invalid,
			"the prompt is %d bytes once its placeholders are filled; the limit is %d: send a shorter message", n, agented.MaxPrompt)
	}
	e.Prompt = agented.Render(e.Snapshot.Prompt, values)
	if strings.ContainsRune(e.Prompt, 0) {
		return nil, agented.Errorf(agented.Invalid, "the message holds a NUL byte, which no prompt can: remove it")
	}
	return e, nil
}

// Cancel asks for the end of an execution. A pending one is cancelled when
// Cancel returns; a running one is being stopped. A final one is a Conflict.
func (d *Dispatcher) Cancel(ctx context.Context, id agented.ExecutionID, by agented.Principal) (*agented.Execution, error) {
	e, err := d.o.DB.RequestCancel(ctx, id, by.Name, d.now())
	if err != nil {
		return nil, err
	}
	if e.State == agented.StateRunning {
		d.stop(id)
	} else {
		d.finishing.Go(func() { d.tidy(context.WithoutCancel(ctx), e.ID) })
	}
	d.Wake()
	return e, nil
}

// Retry fires a final execution anew, with the prompt and settings that it
// had. One that is not final is a Conflict.
func (d *Dispatcher) Retry(ctx context.Context, id agented.ExecutionID, by agented.Principal) (*agented.Execution, error) {
	old, err := d.o.DB.Execution(ctx, id)
	if err != nil {
		return nil, err
	}
	if !old.State.Final() {
		return nil, agented.Errorf(agented.Conflict, "%s is %s: only an execution that has ended can be retried", id, old.State)
	}
	now := d.now()
	e := &agented.Execution{
		ID:          agented.ExecutionID(agented.NewID("exec", now)),
		Trigger:     old.Trigger,
		TriggerName: old.TriggerName,
		Backend:     old.Backend,
		State:       agented.StatePending,
		Source:      agented.SourceRetry,
		Actor:       by.Name,
		Prompt:      old.Prompt,
		Snapshot:    old.Snapshot,
		RetryOf:     old.ID,
		CreatedAt:   now,
		ScheduledAt: now,
	}
	// Somebody asked for this one by name: it waits its turn, whatever the
	// trigger does with firings that come by themselves.
	got, err := d.o.DB.Admit(ctx, store.Admission{
		Execution:     e,
		MaxConcurrent: e.Snapshot.MaxConcurrent,
		Overlap:       agented.OverlapQueue,
	}, now)
	if err != nil {
		return nil, err
	}
	d.Wake()
	return got.Execution, nil
}

// workDir returns the directory in which the execution's command runs.
func (d *Dispatcher) workDir(e *agented.Execution) string {
	if r := e.Snapshot.Resume; r != nil && r.Dir != "" {
		return filepath.Clean(r.Dir)
	}
	if e.Snapshot.WorkingDir != "" {
		return filepath.Clean(e.Snapshot.WorkingDir)
	}
	return d.o.Layout.Work(e.ID)
}

// plain writes a number.
func plain(n int) string { return strconv.Itoa(n) }

// plural writes a count with its noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
