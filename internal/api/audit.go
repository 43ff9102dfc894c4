package api

import (
	"context"
	"log/slog"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/store"
)

// auditLog adds entries to the audit log, and shows it.
type auditLog struct {
	db   *store.DB
	log  *slog.Logger
	now  func() time.Time
	mask func(string) string
}

// routes returns the route of the audit log.
func (h *auditLog) routes() []rest.Route {
	return []rest.Route{
		rest.Op("GET /api/v1/audit", agented.RoleAdmin, h.list, rest.About{
			ID: "list-audit", Tag: "server", Summary: "List the audit log", Text: "Lists changes of triggers, users and keys, logins and similar actions, newest first.",
		}),
	}
}

// AuditView is one entry of the audit log.
type AuditView struct {
	ID      string    `json:"id" example:"aud-01jdc4q7zv8m3k2n5p6r7s8t9w"`
	At      time.Time `json:"at"`
	Actor   string    `json:"actor" doc:"User name, or key NAME"`
	Action  string    `json:"action" doc:"Noun and verb" example:"trigger.create"`
	Subject string    `json:"subject" doc:"Id of the affected object; empty when there is none"`
	Detail  string    `json:"detail" doc:"Details; never contains a secret"`
	Address string    `json:"address" doc:"Client address; empty when unknown"`
}

type auditListInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Page size"`
	Cursor string `query:"cursor" maxLength:"2000" doc:"next_cursor of the previous page; omit it for the first page"`
}

func (h *auditLog) list(ctx context.Context, in *auditListInput) (*rest.ListOutput[AuditView], error) {
	items, next, err := h.db.AuditLog(ctx, store.Page{Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, rest.InQuery(err)
	}
	return rest.List(items, next, func(a *store.AuditEntry) AuditView {
		return AuditView{
			ID: a.ID, At: rest.Time(a.At), Actor: a.Actor, Action: a.Action, Subject: a.Subject, Detail: h.mask(a.Detail), Address: a.Address,
		}
	}), nil
}

// write adds an audit entry for an action of a user or a key that the
// store does not audit itself. Tokens of executions are skipped: messages of
// agents are recorded with the messages.
func (h *auditLog) note(ctx context.Context, action, subject, detail string) {
	who := rest.Principal(ctx)
	if who.Execution != "" {
		return
	}
	h.write(context.WithoutCancel(ctx), action, func(ctx context.Context) error {
		return h.db.Audit(ctx, store.AuditEntry{At: h.now(), Actor: who.Name, Action: action, Subject: subject, Detail: detail})
	})
}

// operation adds an audit entry for an operation on the server.
func (h *auditLog) operation(ctx context.Context, action, detail string) {
	h.write(ctx, "operation", func(ctx context.Context) error {
		return h.db.Audit(ctx, store.AuditEntry{At: h.now(), Actor: rest.Principal(ctx).Name, Action: action, Detail: detail})
	})
}

// write records an action. If the write fails, for example on a full disk, it
// logs the error.
func (h *auditLog) write(ctx context.Context, what string, write func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := write(ctx); err != nil {
		h.log.Debug("could not record the use of a "+what, "err", err)
	}
}
