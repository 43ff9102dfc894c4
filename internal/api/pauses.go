package api

import (
	"context"
	"net/http"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/dispatch"
)

// pauseRoutes returns the routes that pause and continue an execution.
func (h *executions) pauseRoutes() []rest.Route {
	const operator = agented.RoleOperator
	conflict := []int{http.StatusNotFound, http.StatusConflict}
	return []rest.Route{
		rest.Op("POST /api/v1/executions/{id}/pause", operator, h.pause, rest.About{
			ID: "pause-execution", Tag: "executions", Summary: "Pause an execution", Status: http.StatusOK, Errors: conflict,
			Text: "Stops all processes of the execution until it is continued or until its pause ends, when it is terminated. Paused time does not count toward its limits of time and silence. Its status stays running. Returns 409 if it is not running or already paused.",
		}).Reaching(rest.OwnExecution),
		rest.Op("POST /api/v1/executions/{id}/continue", operator, h.resume, rest.About{
			ID: "continue-execution", Tag: "executions", Summary: "Continue a paused execution", Status: http.StatusOK, Errors: conflict,
			Text: "If it asks about its cost ceiling, send a higher ceiling, or 0 for none. To end it instead, cancel it.",
		}).Reaching(rest.OwnExecution),
	}
}

// PauseBody is the request to pause an execution.
type PauseBody struct {
	Reason  string `json:"reason,omitempty" maxLength:"500" doc:"Reason, for display"`
	Seconds int    `json:"seconds,omitempty" minimum:"0" maximum:"2592000" doc:"Longest pause before the execution is ended. Default: AGENTED_PAUSE_LIMIT"`
}

type pauseInput struct {
	ID   string     `path:"id" maxLength:"100" doc:"The execution's id, exec-…"`
	Body *PauseBody `doc:"Optional"`
}

func (h *executions) pause(ctx context.Context, in *pauseInput) (*rest.Output[ExecutionView], error) {
	id, err := executionID(in.ID)
	if err != nil {
		return nil, err
	}
	p := dispatch.Pausing{By: rest.Principal(ctx)}
	if in.Body != nil {
		p.Reason, p.For = in.Body.Reason, time.Duration(in.Body.Seconds)*time.Second
	}
	e, err := h.runs.Pause(ctx, id, p)
	if err != nil {
		return nil, err
	}
	detail := e.TriggerName
	if p.Reason != "" {
		detail += ": " + p.Reason
	}
	h.audit.note(ctx, "execution.pause", in.ID, detail)
	return rest.Reply(showExecution(h.masker(), e, false)), nil
}

// ContinueBody is the request to continue a paused execution.
type ContinueBody struct {
	CeilingUSD *float64 `json:"ceiling_usd,omitempty" doc:"New cost ceiling; 0 means none. Required if the execution asks about its ceiling"`
}

type continueInput struct {
	ID   string        `path:"id" maxLength:"100" doc:"The execution's id, exec-…"`
	Body *ContinueBody `doc:"Optional"`
}

func (h *executions) resume(ctx context.Context, in *continueInput) (*rest.Output[ExecutionView], error) {
	id, err := executionID(in.ID)
	if err != nil {
		return nil, err
	}
	c := dispatch.Continuing{By: rest.Principal(ctx)}
	if in.Body != nil {
		c.Ceiling = in.Body.CeilingUSD
	}
	e, err := h.runs.Continue(ctx, id, c)
	if err != nil {
		return nil, err
	}
	detail := e.TriggerName
	if c.Ceiling != nil {
		detail += ": ceiling " + agented.Dollars(*c.Ceiling)
	}
	h.audit.note(ctx, "execution.continue", in.ID, detail)
	return rest.Reply(showExecution(h.masker(), e, false)), nil
}

// PauseView is the pause of a running execution.
type PauseView struct {
	PausedAt time.Time        `json:"paused_at"`
	Until    time.Time        `json:"paused_until" doc:"When the execution is ended"`
	Reason   string           `json:"paused_reason"`
	By       string           `json:"paused_by" doc:"Empty: the server"`
	Question agented.Question `json:"question" enum:",ceiling,budget" doc:"Question for a person; empty: none. Continue the execution (ceiling: with a higher ceiling_usd), or cancel it"`
	SpentUSD *float64         `json:"spent_usd,omitempty" doc:"For a question: the cost so far"`
	LimitUSD *float64         `json:"limit_usd,omitempty" doc:"For a question: the ceiling or the budget's limit"`
}

func viewPause(p *agented.Pause) *PauseView {
	if p == nil {
		return nil
	}
	v := &PauseView{PausedAt: rest.Time(p.At), Until: rest.Time(p.Until), Reason: p.Reason, By: p.By, Question: p.Question}
	if p.Question != agented.QuestionNone {
		spent, limit := p.SpentUSD, p.LimitUSD
		v.SpentUSD, v.LimitUSD = &spent, &limit
	}
	return v
}
