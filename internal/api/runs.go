package api

import (
	"context"
	"log/slog"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/dispatch"
)

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

func (h *triggers) run(ctx context.Context, in *runTriggerInput) (*acceptedOutput, error) {
	if err := rest.CheckKey(in.Key); err != nil {
		return nil, err
	}
	t, err := findTrigger(ctx, h.db, in.ID)
	if err != nil {
		return nil, err
	}
	f := dispatch.Firing{Trigger: t, Source: agented.SourceManual, Actor: rest.Principal(ctx).Name, IdempotencyKey: in.Key, KeyDigest: rest.KeyDigest(in.Body)}
	if in.Body != nil {
		f.Message, f.Vars = in.Body.Message, in.Body.Vars
	}
	e, repeated, err := h.runs.Fire(ctx, f)
	if err != nil {
		return nil, err
	}
	logFired(ctx, h.log, e, repeated)
	if !repeated {
		h.audit.note(ctx, "trigger.run", string(t.ID), t.Name+": "+string(e.ID))
	}
	return accepted(e, repeated), nil
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

// logFired logs a line that connects the request id with the execution that it
// fired. Later log lines have only the execution id, and the access log only
// the request id.
func logFired(ctx context.Context, log *slog.Logger, e *agented.Execution, repeated bool) {
	log.Info("execution accepted", "request", rest.ID(ctx), "execution", e.ID, "trigger", e.Trigger, "by", e.Actor, "repeated", repeated)
}
