package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/store"
)

// Executions starts, stops and repeats executions.
type Executions interface {
	Fire(ctx context.Context, f dispatch.Firing) (e *agented.Execution, repeated bool, err error)
	Cancel(ctx context.Context, id agented.ExecutionID, by agented.Principal) (*agented.Execution, error)
	Retry(ctx context.Context, id agented.ExecutionID, by agented.Principal) (*agented.Execution, error)
	RetryNeeds(ctx context.Context, e *agented.Execution) (role agented.Role, reason string, err error)
	Pause(ctx context.Context, id agented.ExecutionID, p dispatch.Pausing) (*agented.Execution, error)
	Continue(ctx context.Context, id agented.ExecutionID, c dispatch.Continuing) (*agented.Execution, error)
}

// RunInput is the optional body of a manual run.
type RunInput struct {
	Message string            `json:"message,omitempty" doc:"Value of {message} in the prompt"`
	Vars    map[string]string `json:"vars,omitempty" doc:"Values of {vars.NAME} in the prompt"`
}

type runTriggerInput struct {
	ID   string `path:"id" maxLength:"100" doc:"The trigger's id, trg-…"`
	Key  string `header:"Idempotency-Key" doc:"Identifies this firing, at most 255 printable ASCII characters. A request with the same key and body returns the same execution and starts nothing. With another body it is rejected with 422"`
	Body *RunInput
}

// Accepted is an execution that is stored durably and will run even if the
// server crashes.
type Accepted struct {
	ExecutionID agented.ExecutionID `json:"execution_id" example:"exec-01jdc4q7zv8m3k2n5p6r7s8t9w"`
}

type acceptedOutput struct {
	Location string `header:"Location" doc:"Path of the execution"`
	Replayed string `header:"Idempotent-Replayed" doc:"true if the Idempotency-Key was already used and the execution is the first one's"`
	Body     Accepted
}

func accepted(e *agented.Execution, repeated bool) *acceptedOutput {
	out := &acceptedOutput{Location: "/api/v1/executions/" + string(e.ID), Body: Accepted{ExecutionID: e.ID}}
	if repeated {
		out.Replayed = "true"
	}
	return out
}

func (s *Server) runTrigger(ctx context.Context, in *runTriggerInput) (*acceptedOutput, error) {
	if err := rest.CheckKey(in.Key); err != nil {
		return nil, err
	}
	t, err := s.trigger(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	f := dispatch.Firing{Trigger: t, Source: agented.SourceManual, Actor: rest.Principal(ctx).Name, IdempotencyKey: in.Key, KeyDigest: rest.KeyDigest(in.Body)}
	if in.Body != nil {
		f.Message, f.Vars = in.Body.Message, in.Body.Vars
	}
	e, repeated, err := s.executions.Fire(ctx, f)
	if err != nil {
		return nil, err
	}
	s.logFired(ctx, e, repeated)
	if !repeated {
		s.noteAction(ctx, "trigger.run", string(t.ID), t.Name+": "+string(e.ID))
	}
	return accepted(e, repeated), nil
}

// ExecutionCreate is the request to start an execution without a trigger.
type ExecutionCreate struct {
	Name rest.Optional[string] `json:"name,omitzero" doc:"Display name. Default: the program, or the backend"`
	SpecFields
	Message string            `json:"message,omitempty" doc:"Value of {message} in the prompt"`
	Vars    map[string]string `json:"vars,omitempty" doc:"Values of {vars.NAME} in the prompt"`

	FailWithoutLogin bool `json:"fail_without_login,omitempty" doc:"Fail immediately, with the commands that fix it, if only a login can help. Default: wait"`
}

type createExecutionInput struct {
	Key  string `header:"Idempotency-Key" doc:"Identifies this firing, at most 255 printable ASCII characters. A request with the same key and body returns the same execution and starts nothing. With another body it is rejected with 422"`
	Body ExecutionCreate
}

func (s *Server) createExecution(ctx context.Context, in *createExecutionInput) (*acceptedOutput, error) {
	if err := rest.CheckKey(in.Key); err != nil {
		return nil, err
	}
	// Ad-hoc executions are limited only by the node: two commands of one user
	// are independent of each other.
	t := agented.Trigger{Spec: newSpec(0)}
	if err := in.Body.apply(&t.Spec, 0); err != nil {
		return nil, err
	}
	in.Body.Name.Into(&t.Name, "")
	if t.Name == "" {
		t.Name = adHocName(&t.Spec)
	}
	bad := t.Validate()
	if in.Body.Name.Set && in.Body.Name.Value != "" {
		bad = checkName(bad, "", t.Name)
	}
	if len(bad) > 0 {
		return nil, agented.InvalidFields(bad)
	}
	if err := s.checkAccountRefs(ctx, &t.Spec, nil); err != nil {
		return nil, err
	}
	if err := s.nameAgent(&t.Spec); err != nil {
		return nil, err
	}
	s.sealer.SealEnv(&t.Spec, nil)
	t.Spec.NeedsLogin = in.Body.FailWithoutLogin
	e, repeated, err := s.executions.Fire(ctx, dispatch.Firing{
		Spec: &t.Spec, Name: t.Name, Source: agented.SourceManual, Actor: rest.Principal(ctx).Name,
		Message: in.Body.Message, Vars: in.Body.Vars, IdempotencyKey: in.Key, KeyDigest: rest.KeyDigest(in.Body),
	})
	if err != nil {
		return nil, err
	}
	s.logFired(ctx, e, repeated)
	if !repeated {
		s.noteAction(ctx, "execution.create", string(e.ID), e.TriggerName+", "+e.Backend)
	}
	return accepted(e, repeated), nil
}

// adHocName names an execution after its program. Arguments are left out
// because they can be secrets.
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
	}, rest.Clip(name, 100)))
	if name == "" {
		return "ad hoc"
	}
	return name
}

type executionPath struct {
	ID string `path:"id" maxLength:"100" doc:"The execution's id, exec-…"`
}

// executionID validates an id from a path before it becomes part of a file
// path.
func executionID(id string) (agented.ExecutionID, error) {
	if !agented.ValidID("exec", id) {
		return "", agented.Errorf(agented.NotFound, "no execution has this id")
	}
	return agented.ExecutionID(id), nil
}

type executionListInput struct {
	Limit         int       `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Page size"`
	Cursor        string    `query:"cursor" maxLength:"2000" doc:"next_cursor of the previous page; omit it for the first page"`
	TriggerID     string    `query:"trigger_id" maxLength:"100" doc:"Only firings of this trigger"`
	Status        []string  `query:"status" doc:"Only these statuses, separated by commas: pending, running, success, failed, timeout, cancelled, interrupted"`
	Source        string    `query:"source" enum:"manual,schedule,webhook,github,retry,message,conversation" doc:"Only those fired by this source"`
	CreatedAfter  time.Time `query:"created_after" doc:"Only those created at this time or later"`
	CreatedBefore time.Time `query:"created_before" doc:"Only those created before this time"`
	Query         string    `query:"q" maxLength:"200" doc:"Only those whose trigger name or id starts with this text"`
}

// showExecution converts an execution for a response and masks secrets in the
// output of the agent or its CLI.
func (s *Server) showExecution(e *agented.Execution, withText bool) ExecutionView {
	v := viewExecution(e, withText)
	m := s.masker()
	v.Reason, v.ErrorMessage = m.MaskString(v.Reason), m.MaskString(v.ErrorMessage)
	for _, text := range []**string{&v.Prompt, &v.Result} {
		if *text != nil {
			masked := m.MaskString(**text) // e must not be modified
			*text = &masked
		}
	}
	for i := range v.Attempts {
		v.Attempts[i].Reason = m.MaskString(v.Attempts[i].Reason)
	}
	return v
}

func (s *Server) listExecutions(ctx context.Context, in *executionListInput) (*rest.ListOutput[ExecutionView], error) {
	f := store.ExecutionFilter{
		Trigger: agented.TriggerID(in.TriggerID), Source: agented.Source(in.Source),
		CreatedAfter: in.CreatedAfter, CreatedBefore: in.CreatedBefore, Query: in.Query,
	}
	for _, text := range in.Status {
		state := agented.State(strings.TrimSpace(text))
		if !state.Valid() {
			return nil, rest.InQuery(&agented.Error{
				Kind: agented.Invalid, Text: "status: unknown status",
				Fields: []agented.Field{{Path: "status", Text: "must be some of pending, running, success, failed, timeout, cancelled, interrupted, separated by commas"}},
			})
		}
		f.States = append(f.States, state)
	}
	items, next, err := s.o.DB.Executions(ctx, f, store.Page{Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, rest.InQuery(err)
	}
	return rest.List(items, next, func(e *agented.Execution) ExecutionView { return s.showExecution(e, false) }), nil
}

func (s *Server) getExecution(ctx context.Context, in *executionPath) (*rest.Output[ExecutionView], error) {
	id, err := executionID(in.ID)
	if err != nil {
		return nil, err
	}
	e, err := s.o.DB.Execution(ctx, id)
	if err != nil {
		return nil, err
	}
	v := s.showExecution(e, true)
	if e.State.Final() {
		if v.RetryRole, v.RetryNote, err = s.executions.RetryNeeds(ctx, e); err != nil {
			return nil, err
		}
	}
	return rest.Reply(v), nil
}

func (s *Server) cancelExecution(ctx context.Context, in *executionPath) (*rest.Output[ExecutionView], error) {
	id, err := executionID(in.ID)
	if err != nil {
		return nil, err
	}
	e, err := s.executions.Cancel(ctx, id, rest.Principal(ctx))
	if err != nil {
		return nil, err
	}
	s.noteAction(ctx, "execution.cancel", in.ID, e.TriggerName)
	return rest.Reply(s.showExecution(e, false)), nil
}

// Retried is a new execution that retries a final one.
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
	e, err := s.executions.Retry(ctx, id, rest.Principal(ctx))
	if err != nil {
		return nil, err
	}
	s.noteAction(ctx, "execution.retry", in.ID, e.TriggerName+": "+string(e.ID))
	return &retriedOutput{
		Location: "/api/v1/executions/" + string(e.ID),
		Body:     Retried{ExecutionID: e.ID, RetryOf: id},
	}, nil
}

const (
	maxRunning    = 50 // executions whose last lines are sent
	timeToLookRun = 5 * time.Second
)

// running returns the running executions whose last lines are sent.
func (s *Server) running(ctx context.Context) ([]agented.ExecutionID, error) {
	ctx, cancel := context.WithTimeout(ctx, timeToLookRun)
	defer cancel()
	list, err := s.o.DB.Running(ctx, maxRunning)
	ids := make([]agented.ExecutionID, len(list))
	for i := range list {
		ids[i] = list[i].ID
	}
	return ids, err
}

// executionRoutes returns the routes of executions.
func (s *Server) executionRoutes() []rest.Route {
	const viewer, operator, admin = agented.RoleViewer, agented.RoleOperator, agented.RoleAdmin
	return []rest.Route{
		rest.Op("GET /api/v1/executions", viewer, s.listExecutions, rest.About{
			ID: "list-executions", Tag: "executions", Summary: "List executions",
			Text: "Lists executions without prompt and result, newest first.",
		}),
		rest.Op("POST /api/v1/executions", admin, s.createExecution, rest.About{
			ID: "create-execution", Tag: "executions", Summary: "Run an ad-hoc execution", Status: http.StatusAccepted,
			Text: "Takes the body of a trigger; the name is optional. Responds once the execution is stored.", Errors: []int{http.StatusConflict},
		}),
		rest.Op("GET /api/v1/executions/{id}", viewer, s.getExecution, rest.About{
			ID: "get-execution", Tag: "executions", Summary: "Show an execution", Errors: []int{http.StatusNotFound},
			Text: "Returns one execution with its attempts, prompt and result.",
		}),
		rest.Op("POST /api/v1/executions/{id}/cancel", operator, s.cancelExecution, rest.About{
			ID: "cancel-execution", Tag: "executions", Summary: "Cancel an execution", Status: http.StatusAccepted, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Cancels a pending execution immediately. The processes of a running one are terminated, and killed if they do not exit. Returns 409 if it has ended.",
		}),
		rest.Op("POST /api/v1/executions/{id}/retry", operator, s.retryExecution, rest.About{
			ID: "retry-execution", Tag: "executions", Summary: "Retry an execution", Status: http.StatusAccepted, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Creates a new execution with the prompt and the settings of one that has ended; values of variables are the trigger's current ones. Returns 409 if it has not ended. Requires `admin` if it had no trigger, or if its trigger was changed, disabled or deleted since; see `retry_role` of the execution.",
		}),

		rest.Op("POST /api/v1/executions/{id}/pin", operator, s.pinExecution, rest.About{
			ID: "pin-execution", Tag: "executions", Summary: "Pin an execution", Status: http.StatusOK, Errors: []int{http.StatusNotFound},
			Text: "Excludes the execution and its log from retention.",
		}),
		rest.Op("POST /api/v1/executions/{id}/unpin", operator, s.unpinExecution, rest.About{
			ID: "unpin-execution", Tag: "executions", Summary: "Unpin an execution", Status: http.StatusOK, Errors: []int{http.StatusNotFound},
			Text: "Retention limits apply to it again.",
		}),
	}
}
