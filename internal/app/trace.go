package app

import (
	"context"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api"
	"github.com/agented/agented/internal/dispatch"
	"github.com/agented/agented/internal/store"
	"github.com/agented/agented/internal/trace"
)

// traced returns the dispatcher for the API. With tracing on, it records the request that an
// execution comes from.
func (a *App) traced() api.Dispatcher {
	if a.o.Trace == nil {
		return a.dispatch
	}
	return tracedDispatcher{a.dispatch, a.o.Trace}
}

type tracedDispatcher struct {
	*dispatch.Dispatcher
	t *trace.Tracer
}

func (d tracedDispatcher) Fire(ctx context.Context, f dispatch.Firing) (*agented.Execution, bool, error) {
	e, repeated, err := d.Dispatcher.Fire(ctx, f)
	if err == nil && e != nil {
		d.t.Fired(ctx, e.ID)
	}
	return e, repeated, err
}

func (d tracedDispatcher) Deliver(ctx context.Context, in dispatch.Inbound) (store.DeliveryResult, error) {
	began := time.Now()
	got, err := d.Dispatcher.Deliver(ctx, in)
	if err == nil && !got.Stale {
		var fired []agented.ExecutionID
		for _, t := range got.Delivery.Triggers {
			if t.Execution != "" {
				fired = append(fired, t.Execution)
			}
		}
		d.t.Delivered(ctx, got.Delivery.ID, got.Delivery.Verdict, began, fired)
	}
	return got, err
}
