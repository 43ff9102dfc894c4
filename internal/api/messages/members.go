package messages

import (
	"context"
	"net/http"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/api/sse"
	"github.com/agented/agented/internal/store"
)

// members handles the requests about the members of groups and topics.
type members struct {
	db      *store.DB
	changes *sse.Changes
}

// routes returns the routes of groups and topics.
func (h *members) routes() []rest.Route {
	const viewer, operator = agented.RoleViewer, agented.RoleOperator
	return []rest.Route{
		rest.Op("GET /api/v1/members", viewer, h.list, rest.About{
			ID: "list-members", Tag: "messages", Summary: "List groups and topics", Text: "Lists every membership of every group and topic.",
		}),
		rest.Op("POST /api/v1/members", operator, h.join, rest.About{
			ID: "add-list-member", Tag: "messages", Summary: "Add an inbox to a list", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound},
			Text: "Only an admin can change a group. An operator can subscribe any inbox to a topic, and an execution its own agent. Repeating it is not an error.",
		}).ForAgents(),
		rest.Op("DELETE /api/v1/members", operator, h.leave, rest.About{
			ID: "remove-list-member", Tag: "messages", Summary: "Remove an inbox from a list", Status: http.StatusNoContent, Errors: []int{http.StatusNotFound}, Text: "Requires the same permissions as adding one. Returns 404 if the inbox is not a member.",
		}).ForAgents(),
	}
}

// MemberView is the membership of one inbox in one list.
type MemberView struct {
	List   string `json:"list" doc:"group:NAME or topic:NAME"`
	Member string `json:"member" doc:"Address of an agent or a user, with its id"`
	Name   string `json:"name" doc:"Name of the agent or user; empty if it was deleted"`
}

func (h *members) list(ctx context.Context, _ *struct{}) (*rest.Output[rest.ListOf[MemberView]], error) {
	members, err := h.db.Members(ctx)
	if err != nil {
		return nil, err
	}
	names, err := h.db.AddressNames(ctx)
	if err != nil {
		return nil, err
	}
	out := rest.ListOf[MemberView]{Items: []MemberView{}}
	for _, m := range members {
		out.Items = append(out.Items, MemberView{List: m.List.String(), Member: m.Owner.String(), Name: names[m.Owner]})
	}
	return rest.Reply(out), nil
}

// MemberInput is a membership in requests.
type MemberInput struct {
	List   string `json:"list" maxLength:"100" doc:"group:NAME or topic:NAME"`
	Member string `json:"member" maxLength:"300" doc:"agent:NAME or user:NAME"`
}

func (h *members) join(ctx context.Context, in *struct{ Body MemberInput }) (*struct{}, error) {
	l, owner, err := h.membership(ctx, in.Body.List, in.Body.Member)
	if err != nil {
		return nil, err
	}
	defer h.changes.Notify(sse.ChangedMembers)
	return nil, h.db.Join(ctx, l, owner, rest.Principal(ctx).Name)
}

type leaveInput struct {
	List   string `query:"list" required:"true" maxLength:"100" doc:"group:NAME or topic:NAME"`
	Member string `query:"member" required:"true" maxLength:"300" doc:"agent:NAME or user:NAME"`
}

func (h *members) leave(ctx context.Context, in *leaveInput) (*struct{}, error) {
	l, owner, err := h.membership(ctx, in.List, in.Member)
	if err != nil {
		return nil, err
	}
	defer h.changes.Notify(sse.ChangedMembers)
	return nil, h.db.Leave(ctx, l, owner, rest.Principal(ctx).Name)
}

// membership parses a list and a member, and rejects callers who may not change
// it.
func (h *members) membership(ctx context.Context, listText, memberText string) (l, owner agented.Address, err error) {
	who := rest.Principal(ctx)
	if l, err = agented.ParseAddress(listText); err != nil || l.Kind != agented.ToGroup && l.Kind != agented.ToTopic {
		return l, owner, agented.InvalidFields([]agented.Field{{Path: "list", Text: "must be group:NAME or topic:NAME"}})
	}
	member, err := agented.ParseAddress(memberText)
	if err != nil || member.Kind != agented.ToAgent && member.Kind != agented.ToUser {
		return l, owner, agented.InvalidFields([]agented.Field{{Path: "member", Text: "must be agent:NAME or user:NAME"}})
	}
	if l.Kind == agented.ToGroup && !who.May(agented.RoleAdmin) {
		return l, owner, agented.Errorf(agented.Denied, "only an admin can change a group: ask an admin")
	}
	owners, err := h.db.Recipients(ctx, member)
	if err != nil {
		return l, owner, err
	}
	if who.Execution != "" && owners[0] != (agented.Address{Kind: agented.ToAgent, Name: string(who.Agent)}) {
		return l, owner, agented.Errorf(agented.Denied, "the token of an execution can only subscribe its own agent: use an API key")
	}
	return l, owners[0], nil
}
