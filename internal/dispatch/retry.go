package dispatch

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
)

// Retry runs a final execution again with the same prompt and settings. It returns Conflict if
// the execution is not final, and Denied if RetryNeeds requires a higher role than that of by.
func (d *Dispatcher) Retry(ctx context.Context, id agented.ExecutionID, by agented.Principal) (*agented.Execution, error) {
	old, err := d.o.DB.Execution(ctx, id)
	if err != nil {
		return nil, err
	}
	if !old.State.Final() {
		return nil, agented.Errorf(agented.Conflict, "%s is %s: only an execution that has ended can be retried", id, old.State)
	}
	live, err := d.liveTrigger(ctx, old)
	if err != nil {
		return nil, err
	}
	needed, reason, err := d.retryNeeds(ctx, old, live)
	if err != nil {
		return nil, err
	}
	if !by.May(needed) {
		return nil, agented.Errorf(agented.Denied, "%s", reason)
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
		Snapshot:    d.withLiveValues(old.Snapshot, live),
		RetryOf:     old.ID,
		CreatedAt:   now,
		ScheduledAt: now,
	}
	// A manual retry is queued, whatever the trigger's overlap rule is.
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

// RetryNeeds returns the role that may retry an execution, and the reason if that role is above
// operator.
//
// An operator may repeat what the trigger would run now. Otherwise an operator could run a
// command that an admin has changed, disabled or deleted since, or that only an admin may start.
func (d *Dispatcher) RetryNeeds(ctx context.Context, e *agented.Execution) (agented.Role, string, error) {
	live, err := d.liveTrigger(ctx, e)
	if err != nil {
		return agented.RoleAdmin, "", err
	}
	return d.retryNeeds(ctx, e, live)
}

func (d *Dispatcher) retryNeeds(ctx context.Context, e *agented.Execution, live *agented.Trigger) (agented.Role, string, error) {
	first, err := d.firstFired(ctx, e)
	if err != nil {
		return agented.RoleAdmin, "", err
	}
	admin := func(reason string) (agented.Role, string, error) {
		return agented.RoleAdmin, reason, nil
	}
	switch {
	case e.Trigger == "" && e.Cause != nil && e.Cause.Kind == agented.SourceTurn:
		a := d.agentOf(agented.AgentID(e.Snapshot.Agent))
		if a == nil || !a.Enabled || !a.UpdatedAt.Before(first) {
			return admin("the agent of this turn was changed, disabled or deleted: only an admin may retry it; send a new message instead")
		}
		return agented.RoleOperator, "", nil
	case e.Trigger == "":
		return admin("this execution was started without a trigger: only an admin can start or retry such an execution")
	case live == nil:
		return admin("the trigger of this execution was deleted: only an admin may retry it")
	case !live.Enabled:
		return admin("the trigger of this execution is disabled: enable it, or have an admin retry it")
	}
	now, err := d.withAgent(live.Spec.WithDefaults())
	if err != nil {
		return admin("the agent of this execution's trigger is disabled or was deleted: only an admin may retry it")
	}
	changed := !live.UpdatedAt.Before(first)
	if a := d.agentOf(agented.AgentID(now.Agent)); now.Agent != "" && (a == nil || !a.UpdatedAt.Before(first)) {
		changed = true
	}
	if changed && !sameWork(e.Snapshot, now) {
		return admin("the trigger of this execution was changed, and a retry uses the old settings: run the trigger instead, or have an admin retry it")
	}
	return agented.RoleOperator, "", nil
}

// liveTrigger returns the current trigger of an execution, or nil if it has none or the trigger
// was deleted.
func (d *Dispatcher) liveTrigger(ctx context.Context, e *agented.Execution) (*agented.Trigger, error) {
	if e.Trigger == "" {
		return nil, nil
	}
	t, err := d.o.DB.Trigger(ctx, e.Trigger)
	if agented.KindOf(err) == agented.NotFound {
		return nil, nil
	}
	return t, err
}

// maxRetryDepth is the maximum length of a chain of retries that is followed.
const maxRetryDepth = 100

// firstFired returns when the settings of an execution were copied from its trigger: the creation
// time of the first execution of its chain of retries. It returns the zero time if that one is no
// longer stored.
func (d *Dispatcher) firstFired(ctx context.Context, e *agented.Execution) (time.Time, error) {
	for range maxRetryDepth {
		if e.RetryOf == "" {
			return e.CreatedAt, nil
		}
		before, err := d.o.DB.Execution(ctx, e.RetryOf)
		if agented.KindOf(err) == agented.NotFound {
			return time.Time{}, nil
		}
		if err != nil {
			return time.Time{}, err
		}
		e = before
	}
	return time.Time{}, nil
}

// sameWork reports whether two specs run the same. It ignores values of variables, because a
// retry uses the current ones, and limits of the queue.
//
// The placeholders of a workspace are filled in a snapshot but not in a trigger, so a workspace
// with placeholders never compares equal.
func sameWork(a, b agented.Spec) bool {
	plain := func(s agented.Spec) []byte {
		s.Resume, s.PublishTo, s.MaxConcurrent, s.Overlap = nil, nil, 0, ""
		names := make(map[string]*string, len(s.Env))
		for name, value := range s.Env {
			if names[name] = nil; value != nil {
				names[name] = new(string)
			}
		}
		s.Env, s.PlainEnv = names, nil // PlainEnv affects masking only
		text, _ := json.Marshal(s)     // texts and finite numbers only: cannot fail
		return text
	}
	return bytes.Equal(plain(a), plain(b))
}

// withLiveValues returns the spec of a retry with the current values of its variables, so that a
// rotated secret is used.
func (d *Dispatcher) withLiveValues(s agented.Spec, live *agented.Trigger) agented.Spec {
	var from agented.Spec
	if live != nil {
		from = live.Spec
	}
	if a := d.agentOf(agented.AgentID(s.Agent)); a != nil && s.Agent != "" {
		from = a.Spec // the variables of a trigger with an agent are the agent's
	}
	s.Env, s.PlainEnv = maps.Clone(s.Env), slices.Clone(s.PlainEnv)
	for name, value := range s.Env {
		now := from.Env[name]
		if value == nil || now == nil {
			continue
		}
		s.Env[name] = now
		s.PlainEnv = slices.DeleteFunc(s.PlainEnv, func(plain string) bool { return plain == name && from.SecretEnv(name) })
		if !from.SecretEnv(name) && !slices.Contains(s.PlainEnv, name) {
			s.PlainEnv = append(s.PlainEnv, name)
		}
	}
	slices.Sort(s.PlainEnv)
	return s
}
