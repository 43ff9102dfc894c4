package messages

import (
	"context"
	"net/http"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/store"
)

// chains handles the requests about chains of causes.
type chains struct {
	db   *store.DB
	mask func(string) string
}

// routes returns the routes of chains.
func (h *chains) routes() []rest.Route {
	const viewer = agented.RoleViewer
	return []rest.Route{
		rest.Op("GET /api/v1/chains/{id}", viewer, h.get, rest.About{
			ID: "get-chain", Tag: "messages", Summary: "Show a chain of causes", Errors: []int{http.StatusNotFound},
			Text: "Returns all messages and executions that one cause led to, by time, each with its own cause. Takes the id of any of them.",
		}),
	}
}

// ChainView is a chain of causes.
type ChainView struct {
	ID        string      `json:"id" doc:"Id of the object that began the chain"`
	CostUSD   *float64    `json:"cost_usd" nullable:"true" doc:"Known cost of its executions; null if unknown"`
	Links     []ChainLink `json:"links" doc:"Messages and executions by time"`
	Truncated bool        `json:"truncated" doc:"The list is truncated"`
}

// ChainLink is one message or execution of a chain.
type ChainLink struct {
	Kind      string        `json:"kind" enum:"message,execution"`
	ID        string        `json:"id"`
	Parent    string        `json:"parent" doc:"Id of its cause; empty for the first"`
	Depth     int           `json:"depth"`
	Title     string        `json:"title" doc:"Sender and subject of a message, or name of an execution"`
	Status    agented.State `json:"status,omitempty" doc:"Status of an execution"`
	CreatedAt time.Time     `json:"created_at"`
}

func (h *chains) get(ctx context.Context, in *struct {
	ID string `path:"id" maxLength:"100" doc:"Id of any message or execution of the chain"`
},
) (*rest.Output[ChainView], error) {
	c, err := h.db.Chain(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	names, err := h.db.AddressNames(ctx)
	if err != nil {
		return nil, err
	}
	out := ChainView{ID: c.ID, CostUSD: c.CostUSD, Truncated: c.Truncated, Links: []ChainLink{}}
	for _, l := range c.Links {
		title := l.Title
		if l.Kind == "message" {
			title = addressName(names, l.From) + " → " + addressName(names, l.To)
			if l.Title != "" {
				title += ": " + h.mask(l.Title)
			}
		}
		out.Links = append(out.Links, ChainLink{Kind: l.Kind, ID: l.ID, Parent: l.Parent, Depth: l.Depth, Title: title, Status: l.State, CreatedAt: rest.Time(l.CreatedAt)})
	}
	return rest.Reply(out), nil
}

// addressName returns an address with names instead of ids.
func addressName(names map[agented.Address]string, a agented.Address) string {
	if n := names[a]; n != "" {
		return n
	}
	return a.String()
}
