package api

import (
	"context"
	"net/http"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/store"
)

// retentions handles the requests about retention.
type retentions struct {
	db   *store.DB
	keep Maintenance
}

// RetentionView is the retention policy, and what it would remove now.
type RetentionView struct {
	ExecutionsDays  int64              `json:"executions_days" doc:"Days after its end for which an execution is kept; 0 means without limit, here and below"`
	ExecutionsMax   int64              `json:"executions_max" doc:"Number of ended executions that are kept; 0 means no limit"`
	LogsDays        int64              `json:"logs_days" doc:"Days after its end for which an execution keeps its folder with the log"`
	LogsMaxBytes    int64              `json:"logs_max_bytes" doc:"Limit in bytes of the folders of all ended executions; 0 means no limit"`
	DeliveriesDays  int64              `json:"deliveries_days"`
	BodiesDays      int64              `json:"bodies_days"`
	TicksDays       int64              `json:"ticks_days"`
	AuditDays       int64              `json:"audit_days"`
	IdempotencyDays int64              `json:"idempotency_days"`
	ExecutionBytes  int64              `json:"execution_bytes" doc:"Size in bytes of the folders of all ended executions"`
	DatabaseBytes   int64              `json:"database_bytes"`
	Expired         store.Expired      `json:"expired" doc:"Objects beyond the limits; after a prune, the removed ones"`
	FailedRemovals  FailedRemovalsView `json:"failed_removals" doc:"Folders that retention could not remove; it retries every hour"`
}

// failedRemovalsShown is how many folders that could not be removed are listed.
const failedRemovalsShown = 200

// FailedRemovalsView summarises the folders that could not be removed.
type FailedRemovalsView struct {
	Folders int64           `json:"folders"`
	Bytes   int64           `json:"bytes" doc:"Their size on disk in bytes; part of execution_bytes"`
	Items   []FailedRemoval `json:"items" doc:"The first 200, oldest failure first"`
}

// FailedRemoval is a folder that could not be removed.
type FailedRemoval struct {
	ID       string    `json:"id" doc:"The execution or conversation that it belonged to"`
	Bytes    int64     `json:"bytes"`
	Attempts int       `json:"attempts" doc:"Failed removals so far"`
	FailedAt time.Time `json:"failed_at" doc:"Time of the first failed removal"`
	Error    string    `json:"error" doc:"Error of the latest failed removal; the path is relative to the data folder"`
}

func (h *retentions) get(ctx context.Context, _ *struct{}) (*rest.Output[RetentionView], error) {
	if h.keep.Expirable == nil {
		return nil, agented.Errorf(agented.Unavailable, "this server has no retention")
	}
	would, err := h.keep.Expirable(ctx)
	if err != nil {
		return nil, err
	}
	return h.show(ctx, would)
}

func (h *retentions) prune(ctx context.Context, _ *struct{}) (*rest.Output[RetentionView], error) {
	if h.keep.Prune == nil {
		return nil, agented.Errorf(agented.Unavailable, "this server has no retention")
	}
	went, err := h.keep.Prune(ctx)
	if err != nil {
		return nil, err
	}
	return h.show(ctx, went)
}

func (h *retentions) show(ctx context.Context, e store.Expired) (*rest.Output[RetentionView], error) {
	days := func(d time.Duration) int64 { return int64(d / (24 * time.Hour)) }
	r := h.keep.Retention()
	v := RetentionView{
		ExecutionsDays: days(r.Executions), ExecutionsMax: r.MaxExecutions, LogsDays: days(r.Logs), LogsMaxBytes: r.MaxLogBytes,
		DeliveriesDays: days(r.Deliveries), BodiesDays: days(r.Bodies), TicksDays: days(r.Ticks), AuditDays: days(r.Audit),
		IdempotencyDays: days(r.Keys), Expired: e,
	}
	var err error
	if v.ExecutionBytes, err = h.db.ExecutionBytes(ctx); err != nil {
		return nil, err
	}
	if v.DatabaseBytes, err = h.db.Bytes(ctx); err != nil {
		return nil, err
	}
	v.FailedRemovals.Items = []FailedRemoval{}
	if h.keep.FailedRemovals != nil {
		failed, err := h.keep.FailedRemovals(ctx, failedRemovalsShown)
		if err != nil {
			return nil, err
		}
		v.FailedRemovals.Folders, v.FailedRemovals.Bytes = failed.Folders, failed.Bytes
		for _, r := range failed.Items {
			v.FailedRemovals.Items = append(v.FailedRemovals.Items, FailedRemoval{ID: r.ID, Bytes: r.Bytes, Attempts: r.Attempts, FailedAt: r.FailedAt, Error: r.Error})
		}
	}
	return rest.Reply(v), nil
}

// routes returns the routes of retention.
func (h *retentions) routes() []rest.Route {
	const viewer, admin = agented.RoleViewer, agented.RoleAdmin
	return []rest.Route{
		rest.Op("GET /api/v1/retention", viewer, h.get, rest.About{
			ID: "get-retention", Tag: "server", Summary: "Preview retention",
			Text: "Returns the configured limits and the objects that exceed them. Nothing is removed.",
		}),
		rest.Op("POST /api/v1/retention/prune", admin, h.prune, rest.About{
			ID: "run-retention", Tag: "server", Summary: "Run retention now", Status: http.StatusOK, Errors: []int{http.StatusConflict},
			Text: "Removes the objects that exceed the limits, as the server does every hour. Returns 409 while a backup is running.",
		}),
	}
}
