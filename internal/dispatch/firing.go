package dispatch

import (
	"context"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
)

// Firing is a request to run something, from any source.
type Firing struct {
	Trigger        *agented.Trigger // nil for an ad-hoc execution, which has a Spec
	Spec           *agented.Spec    // used if Trigger is nil
	Name           string           // name of an ad-hoc execution
	Source         agented.Source
	Actor          string            // the user or system that fired it, for display
	Message        string            // value of {message}
	Vars           map[string]string // values of {vars.NAME}
	Values         map[string]string // values of the source's own placeholders, such as {pr_url}
	Raw            map[string]string // the unfenced values, for the workspace; nil means Values
	IdempotencyKey string            // one execution per trigger and key; empty means no key
	KeyDigest      string            // digest of the request that uses the key; another request with the same key is rejected; empty means unknown
	RetryOf        agented.ExecutionID
	ProbeAccount   agented.AccountID // account to probe, whatever its state; empty means none
	PublishTo      *agented.PublishTarget
}

// Fire stores the execution durably and returns it. repeated is true if the idempotency key was
// used before; the execution is then the first one's. A disabled trigger, and overlap skip for a
// manual firing, are Conflict errors.
func (d *Dispatcher) Fire(ctx context.Context, f Firing) (e *agented.Execution, repeated bool, err error) {
	if f.IdempotencyKey != "" && f.Trigger != nil && !f.Trigger.Enabled {
		// A key that was accepted once returns the same execution, even if the trigger would no
		// longer fire.
		if e, err := d.o.DB.Repeated(ctx, f.Trigger.ID, f.IdempotencyKey, f.KeyDigest); e != nil || err != nil {
			return e, e != nil, err
		}
	}
	now := d.now()
	e, err = d.Admissible(f, now)
	if err != nil {
		return nil, false, err
	}
	work, leave := d.alive()
	defer leave()
	got, err := d.o.DB.Admit(ctx, store.Admission{
		Claim:          d.claimAtOnce(work),
		Execution:      e,
		IdempotencyKey: f.IdempotencyKey,
		KeyDigest:      f.KeyDigest,
		MaxConcurrent:  e.Snapshot.MaxConcurrent,
		Overlap:        e.Snapshot.Overlap,
		SkipIsConflict: f.Source == agented.SourceManual || f.Source == agented.SourceRetry,
	}, now)
	if err != nil {
		return nil, false, err
	}
	for _, id := range got.Replaced {
		d.Stop(id)
	}
	if got.Claimed != nil {
		d.claimed(work, got.Claimed, now)
	}
	d.Wake()
	return got.Execution, got.Repeated, nil
}

// RefusedFiring returns a failed execution that records why a firing could not run. It returns
// nil if err is not a defect of the firing itself: a disabled trigger and a missing agent leave
// no execution.
func RefusedFiring(e *agented.Execution, err error) *store.Admission {
	if e == nil || agented.KindOf(err) != agented.Invalid {
		return nil
	}
	return &store.Admission{Execution: e, Refusal: agented.Message(err)}
}

// Admissible builds the execution of a firing. With an Invalid error it also returns the
// incomplete execution, for RefusedFiring.
func (d *Dispatcher) Admissible(f Firing, now time.Time) (*agented.Execution, error) {
	e := &agented.Execution{
		ID:           agented.ExecutionID(agented.NewID("exec", now)),
		State:        agented.StatePending,
		Source:       f.Source,
		Actor:        f.Actor,
		RetryOf:      f.RetryOf,
		ProbeAccount: f.ProbeAccount,
		CreatedAt:    now,
		ScheduledAt:  now,
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
	values["inbox"] = inboxMark // replaced when the execution starts
	markChanges(&e.Snapshot, values)
	if n := agented.RenderedSize(e.Snapshot.Prompt, values); n > agented.MaxPrompt {
		return e, agented.Errorf(agented.Invalid,
			"the prompt is %d bytes once its placeholders are filled; the limit is %d: send a shorter message", n, agented.MaxPrompt)
	}
	e.Prompt = agented.Render(e.Snapshot.Prompt, values)
	if e.Snapshot.Publish != nil {
		e.Snapshot.PublishTo = f.PublishTo
		e.Prompt = withPublishing(&e.Snapshot, e.Prompt)
	}
	if strings.ContainsRune(e.Prompt, 0) {
		e.Prompt = strings.ReplaceAll(e.Prompt, "\x00", "")
		return e, agented.Errorf(agented.Invalid, "the message contains a NUL byte, which a prompt cannot contain: remove it")
	}
	// Repository and ref have their own validation and use the values as the sender wrote them.
	raw := values
	if f.Raw != nil {
		raw = maps.Clone(values)
		maps.Copy(raw, f.Raw)
	}
	if e.Snapshot, err = fillWorkspace(e.Snapshot, raw); err != nil {
		return e, err
	}
	return e, nil
}

// Cancel cancels an execution. A pending one is cancelled when Cancel returns; a running one is
// being stopped. A final one is a Conflict.
func (d *Dispatcher) Cancel(ctx context.Context, id agented.ExecutionID, by agented.Principal) (*agented.Execution, error) {
	e, err := d.o.DB.RequestCancel(ctx, id, by.Name, d.now())
	if err != nil {
		return nil, err
	}
	if e.State == agented.StateRunning {
		d.Stop(id)
	} else {
		d.finishing.Go(func() { d.CleanUp(context.WithoutCancel(ctx), e.ID) })
	}
	d.Wake()
	return e, nil
}

// workDir returns the working directory of the execution's command.
func (d *Dispatcher) workDir(e *agented.Execution) string {
	return d.o.Layout.WorkDir(e)
}

// plain formats a number.
func plain(n int) string { return strconv.Itoa(n) }
