package api

import (
	"context"
	"time"

	"github.com/agented/agented/internal/store"
)

// AuditView is one line of who did what.
type AuditView struct {
	ID      string    `json:"id" example:"aud-01jdc4q7zv8m3k2n5p6r7s8t9w"`
	At      time.Time `json:"at"`
	Actor   string    `json:"actor" doc:"A user's name, or key NAME"`
	Action  string    `json:"action" doc:"Noun and verb" example:"trigger.create"`
	Subject string    `json:"subject" doc:"Id of what it was done to; empty when there is none"`
	Detail  string    `json:"detail" doc:"Never a secret"`
	Address string    `json:"address" doc:"Where the request came from; empty when it is not known"`
}

type auditListInput struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"200" default:"50" doc:"Items in a page"`
	Cursor string `query:"cursor" maxLength:"2000" doc:"next_cursor of the page before; leave it out for the first page"`
}

func (s *Server) listAudit(ctx context.Context, in *auditListInput) (*listOutput[AuditView], error) {
	items, next, err := s.o.DB.AuditLog(ctx, store.Page{Limit: in.Limit, Cursor: in.Cursor})
	if err != nil {
		return nil, inQuery(err)
	}
	return page(items, next, func(a *store.AuditEntry) AuditView {
		return AuditView{
			ID: a.ID, At: shown(a.At), Actor: a.Actor, Action: a.Action, Subject: a.Subject, Detail: s.mask(a.Detail), Address: a.Address,
		}
	}), nil
}
