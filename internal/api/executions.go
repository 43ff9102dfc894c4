package api

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/auth"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/format"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/store"
)

// Starter starts executions.
type Starter interface {
	Fire(ctx context.Context, f dispatch.Firing) (e *agented.Execution, repeated bool, err error)
}

// Executions starts, stops and repeats executions.
type Executions interface {
	Starter
	Cancel(ctx context.Context, id agented.ExecutionID, by agented.Principal) (*agented.Execution, error)
	Retry(ctx context.Context, id agented.ExecutionID, by agented.Principal) (*agented.Execution, error)
	RetryNeeds(ctx context.Context, e *agented.Execution) (role agented.Role, reason string, err error)
	Pause(ctx context.Context, id agented.ExecutionID, p dispatch.Pausing) (*agented.Execution, error)
	Continue(ctx context.Context, id agented.ExecutionID, c dispatch.Continuing) (*agented.Execution, error)
}

// executions handles the requests about executions.
type executions struct {
	db     *store.DB
	runs   Executions
	agents AgentDirectory
	sealer auth.Sealer
	audit  *auditLog
	log    *slog.Logger
	now    func() time.Time
	masker func() *redact.Masker
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

func (h *executions) create(ctx context.Context, in *createExecutionInput) (*acceptedOutput, error) {
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
	if err := checkAccountRefs(ctx, h.db, &t.Spec, nil); err != nil {
		return nil, err
	}
	if err := h.db.CheckSecretRefs(ctx, t.Spec.SecretRefs()); err != nil {
		return nil, err
	}
	if err := nameAgent(h.agents, &t.Spec); err != nil {
		return nil, err
	}
	h.sealer.SealEnv(&t.Spec, nil)
	t.Spec.NeedsLogin = in.Body.FailWithoutLogin
	e, repeated, err := h.runs.Fire(ctx, dispatch.Firing{
		Spec: &t.Spec, Name: t.Name, Source: agented.SourceManual, Actor: rest.Principal(ctx).Name,
		Message: in.Body.Message, Vars: in.Body.Vars, IdempotencyKey: in.Key, KeyDigest: rest.KeyDigest(in.Body),
	})
	if err != nil {
		return nil, err
	}
	logFired(ctx, h.log, e, repeated)
	if !repeated {
		h.audit.note(ctx, "execution.create", string(e.ID), e.TriggerName+", "+e.Backend)
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
	}, format.Clip(name, 100)))
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
	Status        []string  `query:"status" doc:"Only these statuses, separated by commas: pending, running, success, failed, timeout, cancelled, interrupted. paused selects running executions that are paused"`
	Source        string    `query:"source" enum:"manual,schedule,webhook,github,retry,message,conversation" doc:"Only those fired by this source"`
	Class         string    `query:"class" maxLength:"40" doc:"Only those with an attempt that ended with this class, such as no_effect or account_limit"`
	CreatedAfter  time.Time `query:"created_after" doc:"Only those created at this time or later"`
	CreatedBefore time.Time `query:"created_before" doc:"Only those created before this time"`
	Query         string    `query:"q" maxLength:"200" doc:"Only those whose trigger name contains this text, ignoring case, or whose id starts with it"`
}

func (h *executions) list(ctx context.Context, in *executionListInput) (*rest.ListOutput[ExecutionView], error) {
	f := store.ExecutionFilter{
		Trigger: agented.TriggerID(in.TriggerID), Source: agented.Source(in.Source), Class: agented.Class(in.Class),
		CreatedAfter: in.CreatedAfter, CreatedBefore: in.CreatedBefore, Query: in.Query,
	}
	for _, text := range in.Status {
		state := agented.State(strings.TrimSpace(text))
		if !state.Valid() && state != store.FilterPaused {
			return nil, rest.InQuery(&agented.Error{
				Kind: agented.Invalid, Text: "status: unknown status",
				Fields: []agented.Field{{Path: "status", Text: "must be some of pending, running, paused, success, failed, timeout, cancelled, interrupted, separated by commas"}},
			})
		}
		f.States = append(f.States, state)
	}
	if f.Class != "" && !slices.Contains(agented.Classes, f.Class) {
		names := make([]string, len(agented.Classes))
		for i, c := range agented.Classes {
			names[i] = string(c)
		}
		return nil, rest.InQuery(agented.InvalidFields([]agented.Field{{Path: "class", Text: "must be one of " + strings.Join(names, ", ")}}))
	}
	who := rest.Principal(ctx)
	if f.Only = who.Triggers; f.Trigger != "" && !who.Reaches(f.Trigger) {
		return rest.List(nil, "", func(*agented.Execution) ExecutionView { return ExecutionView{} }), nil
	}
	items, next, err := h.db.Executions(ctx, f, store.Page{Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, rest.InQuery(err)
	}
	return rest.List(items, next, func(e *agented.Execution) ExecutionView { return showExecution(h.masker(), e, false) }), nil
}

func (h *executions) get(ctx context.Context, in *executionPath) (*rest.Output[ExecutionView], error) {
	id, err := executionID(in.ID)
	if err != nil {
		return nil, err
	}
	e, err := h.db.Execution(ctx, id)
	if err != nil {
		return nil, err
	}
	v := showExecution(h.masker(), e, true)
	if e.State.Final() {
		if v.RetryRole, v.RetryNote, err = h.runs.RetryNeeds(ctx, e); err != nil {
			return nil, err
		}
	}
	return rest.Reply(v), nil
}

func (h *executions) cancel(ctx context.Context, in *executionPath) (*rest.Output[ExecutionView], error) {
	id, err := executionID(in.ID)
	if err != nil {
		return nil, err
	}
	e, err := h.runs.Cancel(ctx, id, rest.Principal(ctx))
	if err != nil {
		return nil, err
	}
	h.audit.note(ctx, "execution.cancel", in.ID, e.TriggerName)
	return rest.Reply(showExecution(h.masker(), e, false)), nil
}

func (h *executions) pin(ctx context.Context, in *executionPath) (*rest.Output[ExecutionView], error) {
	return h.setPin(ctx, in.ID, true)
}

func (h *executions) unpin(ctx context.Context, in *executionPath) (*rest.Output[ExecutionView], error) {
	return h.setPin(ctx, in.ID, false)
}

func (h *executions) setPin(ctx context.Context, text string, on bool) (*rest.Output[ExecutionView], error) {
	id, err := executionID(text)
	if err != nil {
		return nil, err
	}
	e, err := h.db.Pin(ctx, id, on, rest.Principal(ctx).Name, h.now())
	if err != nil {
		return nil, err
	}
	return rest.Reply(showExecution(h.masker(), e, false)), nil
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

func (h *executions) retry(ctx context.Context, in *executionPath) (*retriedOutput, error) {
	id, err := executionID(in.ID)
	if err != nil {
		return nil, err
	}
	e, err := h.runs.Retry(ctx, id, rest.Principal(ctx))
	if err != nil {
		return nil, err
	}
	h.audit.note(ctx, "execution.retry", in.ID, e.TriggerName+": "+string(e.ID))
	return &retriedOutput{
		Location: "/api/v1/executions/" + string(e.ID),
		Body:     Retried{ExecutionID: e.ID, RetryOf: id},
	}, nil
}

// routes returns the routes of executions.
func (h *executions) routes() []rest.Route {
	const viewer, operator, admin = agented.RoleViewer, agented.RoleOperator, agented.RoleAdmin
	return []rest.Route{
		rest.Op("GET /api/v1/executions", viewer, h.list, rest.About{
			ID: "list-executions", Tag: "executions", Summary: "List executions",
			Text: "Lists executions without prompt and result, newest first.",
		}).Reaching(rest.Filtered),
		rest.Op("POST /api/v1/executions", admin, h.create, rest.About{
			ID: "create-execution", Tag: "executions", Summary: "Run an ad-hoc execution", Status: http.StatusAccepted,
			Text: "Takes the body of a trigger; the name is optional. Responds once the execution is stored.", Errors: []int{http.StatusConflict},
		}),
		rest.Op("GET /api/v1/executions/{id}", viewer, h.get, rest.About{
			ID: "get-execution", Tag: "executions", Summary: "Show an execution", Errors: []int{http.StatusNotFound},
			Text: "Returns one execution with its attempts, prompt and result.",
		}).Reaching(rest.OwnExecution),
		rest.Op("POST /api/v1/executions/{id}/cancel", operator, h.cancel, rest.About{
			ID: "cancel-execution", Tag: "executions", Summary: "Cancel an execution", Status: http.StatusAccepted, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Cancels a pending execution immediately. The processes of a running one are terminated, and killed if they do not exit. Returns 409 if it has ended.",
		}).Reaching(rest.OwnExecution),
		rest.Op("POST /api/v1/executions/{id}/retry", operator, h.retry, rest.About{
			ID: "retry-execution", Tag: "executions", Summary: "Retry an execution", Status: http.StatusAccepted, Errors: []int{http.StatusNotFound, http.StatusConflict},
			Text: "Creates a new execution with the prompt and the settings of one that has ended; values of variables are the trigger's current ones. Returns 409 if it has not ended. Requires `admin` if it had no trigger, or if its trigger was changed, disabled or deleted since; see `retry_role` of the execution.",
		}).Reaching(rest.OwnExecution),

		rest.Op("POST /api/v1/executions/{id}/pin", operator, h.pin, rest.About{
			ID: "pin-execution", Tag: "executions", Summary: "Pin an execution", Status: http.StatusOK, Errors: []int{http.StatusNotFound},
			Text: "Excludes the execution and its log from retention.",
		}).Reaching(rest.OwnExecution),
		rest.Op("POST /api/v1/executions/{id}/unpin", operator, h.unpin, rest.About{
			ID: "unpin-execution", Tag: "executions", Summary: "Unpin an execution", Status: http.StatusOK, Errors: []int{http.StatusNotFound},
			Text: "Retention limits apply to it again.",
		}).Reaching(rest.OwnExecution),
	}
}
