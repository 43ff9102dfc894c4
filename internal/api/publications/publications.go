// Package publications has the handlers of what executions publish: their list, and the decision
// about those that wait for a person.
package publications

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/redact"
	"github.com/agented/agented/internal/store"
)

// Options are what the handlers work with.
type Options struct {
	DB      *store.DB
	Masker  func() *redact.Masker
	Now     func() time.Time
	Note    func(ctx context.Context, action, subject, detail string) // adds an audit entry
	Decided func()                                                    // is called after a decision; may be nil
}

// decideWithin is how long an approved publication is tried.
const decideWithin = 24 * time.Hour

// Routes returns the routes of publications.
func Routes(o Options) []rest.Route {
	const viewer, operator = agented.RoleViewer, agented.RoleOperator
	h := &publications{o}
	errors := []int{http.StatusNotFound, http.StatusConflict}
	return []rest.Route{
		rest.Op("GET /api/v1/executions/{id}/publications", viewer, h.list, rest.About{
			ID: "list-publications", Tag: "changes", Summary: "List what an execution publishes", Errors: []int{http.StatusNotFound},
			Text: "Returns the proposals of the execution with their status and their texts as they are written to the forge, in order.",
		}).Reaching(rest.OwnExecution),
		rest.Op("POST /api/v1/executions/{id}/publications/{number}/approve", operator, h.approve, rest.About{
			ID: "approve-publication", Tag: "changes", Summary: "Approve a held publication", Status: http.StatusOK, Errors: errors,
			Text: "The server writes it to the forge, unless the pull request has newer commits by then. Returns 409 if it is not held.",
		}).Reaching(rest.OwnExecution),
		rest.Op("POST /api/v1/executions/{id}/publications/{number}/reject", operator, h.reject, rest.About{
			ID: "reject-publication", Tag: "changes", Summary: "Reject a held publication", Status: http.StatusOK, Errors: errors,
			Text: "Nothing is written. Returns 409 if it is not held.",
		}).Reaching(rest.OwnExecution),
	}
}

// PublicationView is a publication.
type PublicationView struct {
	Number      int                       `json:"number" doc:"From 1, within the execution"`
	Attempt     int                       `json:"attempt" doc:"The attempt that proposed it"`
	Kind        agented.PublicationKind   `json:"kind" doc:"What is written, such as pull_request or comment; empty if the proposal could not be read"`
	Status      agented.PublicationStatus `json:"status" enum:"pending,held,published,superseded,refused,failed,rejected"`
	Rule        string                    `json:"rule,omitempty" doc:"The rule that refused it, such as secret or forbidden_paths"`
	Reason      string                    `json:"reason" doc:"Why it has its status, or waits"`
	Repository  string                    `json:"repository" doc:"owner/name"`
	Subject     int                       `json:"subject,omitempty" doc:"Number of the pull request or issue that it is written to"`
	Title       string                    `json:"title" doc:"Title, or the beginning of the text"`
	Proposal    json.RawMessage           `json:"proposal" doc:"The proposal as it is written"`
	URL         string                    `json:"url,omitempty" doc:"Address of what was written"`
	Branch      string                    `json:"branch,omitempty" doc:"Branch of the pull request"`
	Commit      string                    `json:"commit,omitempty" doc:"Commit on that branch"`
	Tries       int                       `json:"tries,omitempty" doc:"Failed tries"`
	NextTryAt   *time.Time                `json:"next_try_at,omitempty"`
	DecidedBy   string                    `json:"decided_by,omitempty" doc:"Who approved or rejected it"`
	DecidedAt   *time.Time                `json:"decided_at,omitempty"`
	CreatedAt   time.Time                 `json:"created_at"`
	UpdatedAt   time.Time                 `json:"updated_at"`
	NeedsPerson bool                      `json:"needs_person" doc:"It waits for an approval"`
}

// PublicationList is the list of an execution.
type PublicationList struct {
	Items []PublicationView `json:"items"`
}

type publications struct{ Options }

type listInput struct {
	ID string `path:"id" maxLength:"100" doc:"The execution's id, exec-…"`
}

type decideInput struct {
	ID     string `path:"id" maxLength:"100" doc:"The execution's id, exec-…"`
	Number int    `path:"number" minimum:"1" maximum:"1000" doc:"Number of the publication"`
}

func validID(id string) (agented.ExecutionID, error) {
	if !agented.ValidID("exec", id) {
		return "", agented.Errorf(agented.NotFound, "no execution has this id")
	}
	return agented.ExecutionID(id), nil
}

func (h *publications) list(ctx context.Context, in *listInput) (*rest.Output[PublicationList], error) {
	id, err := validID(in.ID)
	if err != nil {
		return nil, err
	}
	if _, err := h.DB.TriggerOf(ctx, id); err != nil {
		return nil, err
	}
	list, err := h.DB.Publications(ctx, id)
	if err != nil {
		return nil, err
	}
	out := PublicationList{Items: []PublicationView{}}
	for i := range list {
		out.Items = append(out.Items, h.view(&list[i]))
	}
	return rest.Reply(out), nil
}

func (h *publications) view(p *agented.Publication) PublicationView {
	m := h.Masker()
	text := []byte(m.MaskString(string(p.Proposal)))
	if !json.Valid(text) {
		text = []byte("{}")
	}
	v := PublicationView{
		Number: p.Number, Attempt: p.Attempt, Kind: p.Kind, Status: p.Status, Rule: p.Rule, Reason: m.MaskString(p.Reason), Repository: p.Repository,
		Subject: p.Subject, Title: m.MaskString(p.Title), Proposal: text, URL: p.URL, Branch: p.Branch, Commit: p.Commit, Tries: p.Tries, DecidedBy: p.DecidedBy,
		DecidedAt: rest.OptionalTime(p.DecidedAt), CreatedAt: rest.Time(p.CreatedAt), UpdatedAt: rest.Time(p.UpdatedAt),
		NeedsPerson: p.Status == agented.PublicationHeld,
	}
	if p.Tries > 0 {
		v.NextTryAt = rest.OptionalTime(p.DueAt)
	}
	return v
}

func (h *publications) approve(ctx context.Context, in *decideInput) (*rest.Output[PublicationView], error) {
	return h.decide(ctx, in, true, "publication.approve")
}

func (h *publications) reject(ctx context.Context, in *decideInput) (*rest.Output[PublicationView], error) {
	return h.decide(ctx, in, false, "publication.reject")
}

func (h *publications) decide(ctx context.Context, in *decideInput, approve bool, action string) (*rest.Output[PublicationView], error) {
	id, err := validID(in.ID)
	if err != nil {
		return nil, err
	}
	now := h.Now()
	by := rest.Principal(ctx).Name
	if by == "" {
		by = "an operator"
	}
	p, err := h.DB.DecidePublication(ctx, id, in.Number, approve, by, now.Add(decideWithin), now)
	if err != nil {
		return nil, err
	}
	h.Note(ctx, action, in.ID, string(p.Kind)+" in "+p.Repository+": "+p.Title)
	if h.Decided != nil {
		h.Decided()
	}
	return rest.Reply(h.view(p)), nil
}
