package api

import (
	"context"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/store"
)

// logFired logs a line that connects the request id with the execution that it
// fired. Later log lines have only the execution id, and the access log only
// the request id.
func (s *Server) logFired(ctx context.Context, e *agented.Execution, repeated bool) {
	s.o.Log.Info("execution accepted", "request", rest.ID(ctx), "execution", e.ID, "trigger", e.Trigger, "by", e.Actor, "repeated", repeated)
}

// logDelivered logs a delivery and the executions that it fired.
func (s *Server) logDelivered(ctx context.Context, got store.DeliveryResult) {
	d := &got.Delivery
	s.o.Log.Info("delivery accepted", "request", rest.ID(ctx), "delivery", d.ID, "endpoint", d.Endpoint,
		"verdict", got.Verdict(), "executions", d.Executions())
}
