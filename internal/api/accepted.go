package api

import (
	"context"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/store"
)

// logFired writes the line that joins a request with the execution that it has
// led to. Later lines know the execution only, and the access log the request.
func (s *Server) logFired(ctx context.Context, e *agented.Execution, repeated bool) {
	s.o.Log.Info("execution accepted", "request", requestIn(ctx).id, "execution", e.ID, "trigger", e.Trigger, "by", e.Actor, "repeated", repeated)
}

// logDelivered does that for a delivery, which may have led to many.
func (s *Server) logDelivered(ctx context.Context, got store.DeliveryResult) {
	d := &got.Delivery
	s.o.Log.Info("delivery accepted", "request", requestIn(ctx).id, "delivery", d.ID, "endpoint", d.Endpoint,
		"verdict", verdictOf(got), "executions", d.Executions())
}
