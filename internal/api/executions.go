package api

import (
	"context"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/store"
)

// RunInput is what a person may say when firing a trigger. All of it is
// optional, and so is the body.
type RunInput struct {
	Message string            `json:"message,omitempty" doc:"Fills {message} in the prompt"`
	Vars    map[string]string `json:"vars,omitempty" doc:"Fill {vars.NAME} in the prompt"`
}

type runTriggerInput struct {
	ID   string `path:"id" maxLength:"100" doc:"The trigger's id, trg-…"`
	Key  string `header:"Idempotency-Key" doc:"Names this firing, at most 255 printable ASCII characters. Sent again, the same key is the same execution: nothing is started twice"`
	Body *RunInput
}

// Accepted is an execution that is stored and will run, whatever happens to the
// server.
type Accepted struct {
	ExecutionID agented.ExecutionID `json:"execution_id" example:"exec-01jdc4q7zv8m3k2n5p6r7s8t9w"`
}

type acceptedOutput struct {
	Location string `header:"Location" doc:"Path of the execution"`
	Replayed string `header:"Idempotent-Replayed" doc:"true when the Idempotency-Key was seen before, and the execution is the first one's"`
	Body     Accepted
}

func accepted(e *agented.Execution, repeated bool) *acceptedOutput {
	out := &acceptedOutput{Location: "/api/v1/executions/" + string(e.ID), Body: Accepted{ExecutionID: e.ID}}
	if repeated {
		out.Replayed = "true"
	}
	return out
}

// checkKey refuses an Idempotency-Key that cannot be one.
func checkKey(key string) error {
	bad := len(key) > 255
	for i := range len(key) {
		bad = bad || key[i] < 0x20 || key[i] > 0x7e
	}
	if bad {
		return agented.InvalidFields([]agented.Field{{
			Path: "header.Idempotency-Key", Text: "must be at most 255 printable ASCII characters",
		}})
	}
	return nil
}

func (s *Server) runTrigger(ctx context.Context, in *runTriggerInput) (*acceptedOutput, error) {
	if err := checkKey(in.Key); err != nil {
		return nil, err
	}
	t, err := s.trigger(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	f := dispatch.Firing{Trigger: t, Source: agented.SourceManual, Actor: principal(ctx).Name, IdempotencyKey: in.Key}
	if in.Body != nil {
		f.Message, f.Vars = in.Body.Message, in.Body.Vars
	}
	e, repeated, err := s.o.Dispatch.Fire(ctx, f)
	if err != nil {
		return nil, err
	}
	s.logFired(ctx, e, repeated)
	return accepted(e, repeated), nil
}

// ExecutionCreate is an execution without a trigger.
type ExecutionCreate struct {
	Name optional[string] `json:"name,omitzero" doc:"A name for people. Default: the program, or the backend"`
	SpecFields
	Message string            `json:"message,omitempty" doc:"Fills {message} in the prompt"`
	Vars    map[string]string `json:"vars,omitempty" doc:"Fill {vars.NAME} in the prompt"`
}

type createExecutionInput struct {
	Key  string `header:"Idempotency-Key" doc:"Names this firing, at most 255 printable ASCII characters. Sent again, the same key is the same execution: nothing is started twice"`
	Body ExecutionCreate
}

func (s *Server) createExecution(ctx context.Context, in *createExecutionInput) (*acceptedOutput, error) {
	if err := checkKey(in.Key); err != nil {
		return nil, err
	}
	// The node's limit is enough for what has no trigger: nothing says that two
	// commands of one person have anything to do with one another.
	t := agented.Trigger{Spec: newSpec(0)}
	if err := in.Body.apply(&t.Spec, 0); err != nil {
		return nil, err
	}
	in.Body.Name.into(&t.Name, "")
	if t.Name == "" {
		t.Name = adHocName(&t.Spec)
	}
	if bad := t.Validate(); len(bad) > 0 {
		return nil, agented.InvalidFields(bad)
	}
	if err := s.nameAgent(&t.Spec); err != nil {
		return nil, err
	}
	s.sealEnv(&t.Spec, nil)
	e, repeated, err := s.o.Dispatch.Fire(ctx, dispatch.Firing{
		Spec: &t.Spec, Name: t.Name, Source: agented.SourceManual, Actor: principal(ctx).Name,
		Message: in.Body.Message, Vars: in.Body.Vars, IdempotencyKey: in.Key,
	})
	if err != nil {
		return nil, err
	}
	s.logFired(ctx, e, repeated)
	return accepted(e, repeated), nil
}

// adHocName names an execution after what it runs. Arguments can be secrets, so
// only the program counts.
func adHocName(s *agented.Spec) string {
	name := s.Backend
	if len(s.Command) > 0 {
		name = s.Command[0]
		name = name[strings.LastIndexByte(name, '/')+1:]
	}
	name = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return -1
		}
		return r
	}, clip(name, 100)))
	if name == "" {
		return "ad hoc"
	}
	return name
}

type executionPath struct {
	ID string `path:"id" maxLength:"100" doc:"The execution's id, exec-…"`
}

// executionID checks an id from a path before it becomes a path name.
func executionID(id string) (agented.ExecutionID, error) {
	if !agented.ValidID("exec", id) {
		return "", agented.Errorf(agented.NotFound, "no execution has this id")
	}
	return agented.ExecutionID(id), nil
}

type executionListInput struct {
	Limit         int       `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Items in a page"`
	Cursor        string    `query:"cursor" maxLength:"2000" doc:"next_cursor of the page before; leave it out for the first page"`
	TriggerID     string    `query:"trigger_id" maxLength:"100" doc:"Only firings of this trigger"`
	Status        []string  `query:"status" doc:"Only these, separated by commas: pending, running, success, failed, timeout, cancelled, interrupted"`
	Source        string    `query:"source" enum:"manual,schedule,webhook,github,retry,message,conversation" doc:"Only what this fired"`
	CreatedAfter  time.Time `query:"created_after" doc:"Only those created at this time or later"`
	CreatedBefore time.Time `query:"created_before" doc:"Only those created before this time"`
	Query         string    `query:"q" maxLength:"200" doc:"Only those whose trigger's name, or whose id, starts with this"`
}

// showExecution is an execution as answers show it: secrets that the server
// knows are taken out of what an agent or its CLI said.
func (s *Server) showExecution(e *agented.Execution, withText bool) ExecutionView {
	v := viewExecution(e, withText)
	m := s.masker()
	v.Reason, v.ErrorMessage = m.MaskString(v.Reason), m.MaskString(v.ErrorMessage)
	for _, text := range []**string{&v.Prompt, &v.Result} {
		if *text != nil {
			masked := m.MaskString(**text) // e itself is not ours to change
			*text = &masked
		}
	}
	for i := range v.Attempts {
		v.Attempts[i].Reason = m.MaskString(v.Attempts[i].Reason)
	}
	return v
}

func (s *Server) listExecutions(ctx context.Context, in *executionListInput) (*listOutput[ExecutionView], error) {
	f := store.ExecutionFilter{
		Trigger: agented.TriggerID(in.TriggerID), Source: agented.Source(in.Source),
		CreatedAfter: in.CreatedAfter, CreatedBefore: in.CreatedBefore, Query: in.Query,
	}
	for _, text := range in.Status {
		state := agented.State(strings.TrimSpace(text))
		if !state.Valid() {
			return nil, inQuery(&agented.Error{
				Kind: agented.Invalid, Text: "status: this is not a status",
				Fields: []agented.Field{{Path: "status", Text: "must be some of pending, running, success, failed, timeout, cancelled, interrupted, separated by commas"}},
			})
		}
		f.States = append(f.States, state)
	}
	items, next, err := s.o.DB.Executions(ctx, f, store.Page{Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, inQuery(err)
	}
	return page(items, next, func(e *agented.Execution) ExecutionView { return s.showExecution(e, false) }), nil
}

func (s *Server) getExecution(ctx context.Context, in *executionPath) (*output[ExecutionView], error) {
	id, err := executionID(in.ID)
	if err != nil {
		return nil, err
	}
	e, err := s.o.DB.Execution(ctx, id)
	if err != nil {
		return nil, err
	}
	return &output[ExecutionView]{s.showExecution(e, true)}, nil
}

func (s *Server) cancelExecution(ctx context.Context, in *executionPath) (*output[ExecutionView], error) {
	id, err := executionID(in.ID)
	if err != nil {
		return nil, err
	}
	e, err := s.o.Dispatch.Cancel(ctx, id, principal(ctx))
	if err != nil {
		return nil, err
	}
	return &output[ExecutionView]{s.showExecution(e, false)}, nil
}

// Retried is a new execution that repeats one that has ended.
type Retried struct {
	ExecutionID agented.ExecutionID `json:"execution_id" example:"exec-01jdc4q7zv8m3k2n5p6r7s8t9w"`
	RetryOf     agented.ExecutionID `json:"retry_of"`
}

type retriedOutput struct {
	Location string `header:"Location" doc:"Path of the new execution"`
	Body     Retried
}

func (s *Server) retryExecution(ctx context.Context, in *executionPath) (*retriedOutput, error) {
	id, err := executionID(in.ID)
	if err != nil {
		return nil, err
	}
	e, err := s.o.Dispatch.Retry(ctx, id, principal(ctx))
	if err != nil {
		return nil, err
	}
	return &retriedOutput{
		Location: "/api/v1/executions/" + string(e.ID),
		Body:     Retried{ExecutionID: e.ID, RetryOf: id},
	}, nil
}
