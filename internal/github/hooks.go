package github

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// HookSource is the place of a webhook whose deliveries GitHub records: the App
// (the zero HookSource), a repository or an organization.
type HookSource struct {
	Repository Repository
	Org        string
	Hook       int64 // id of the webhook of the repository or the organization
}

func (s HookSource) path(parts ...string) string {
	switch hook := strconv.FormatInt(s.Hook, 10); {
	case s.Org != "":
		return join(append([]string{"orgs", s.Org, "hooks", hook, "deliveries"}, parts...)...)
	case s.Repository != Repository{}:
		return s.Repository.path(append([]string{"hooks", hook, "deliveries"}, parts...)...)
	}
	return join(append([]string{"app", "hook", "deliveries"}, parts...)...)
}

// credential: an App may read the webhooks of a repository with its installation
// there; those of an organization need the token.
func (s HookSource) credential() credential {
	switch {
	case s.Org != "":
		return credential{user: true}
	case s.Repository != Repository{}:
		return credential{repo: s.Repository}
	}
	return credential{jwt: true}
}

// Hook is a webhook.
type Hook struct {
	ID     int64    `json:"id"`
	Name   string   `json:"name"`
	Active bool     `json:"active"`
	Events []string `json:"events"`
	Config struct {
		URL         string `json:"url"`
		ContentType string `json:"content_type"`
	} `json:"config"`
}

// RepositoryHooks returns the webhooks of a repository.
func (c *Client) RepositoryHooks(ctx context.Context, r Repository) ([]Hook, error) {
	return list[Hook](ctx, c, credential{repo: r}, r.path("hooks"), nil, pageSize)
}

// OrgHooks returns the webhooks of an organization.
func (c *Client) OrgHooks(ctx context.Context, org string) ([]Hook, error) {
	return list[Hook](ctx, c, credential{user: true}, join("orgs", org, "hooks"), nil, pageSize)
}

// DeliverySummary is a delivery of a webhook in a list.
type DeliverySummary struct {
	ID             int64     `json:"id"`
	GUID           string    `json:"guid"` // the same for redeliveries
	DeliveredAt    time.Time `json:"delivered_at"`
	Redelivery     bool      `json:"redelivery"`
	Status         string    `json:"status"`
	StatusCode     int       `json:"status_code"`
	Event          string    `json:"event"`
	Action         string    `json:"action"`
	InstallationID int64     `json:"installation_id"`
	RepositoryID   int64     `json:"repository_id"`
}

// Delivery is a delivery with its request.
type Delivery struct {
	DeliverySummary
	Request struct {
		Headers map[string]string `json:"headers"`
		// Payload is the body as JSON. It is not byte for byte what was signed.
		Payload json.RawMessage `json:"payload"`
	} `json:"request"`
}

// Deliveries returns one page of the deliveries of a webhook, newest first, and
// the cursor of the next page; an empty cursor is that of the first page, and is
// returned after the last one.
func (c *Client) Deliveries(ctx context.Context, s HookSource, cursor string) (page []DeliverySummary, next string, err error) {
	q := url.Values{"per_page": {strconv.Itoa(pageSize)}}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	var link string
	if err := c.do(ctx, call{method: http.MethodGet, path: s.path(), query: q, out: &page, as: s.credential(), next: &link}); err != nil {
		return nil, "", err
	}
	values, err := url.ParseQuery(link)
	if err != nil {
		return page, "", nil
	}
	return page, values.Get("cursor"), nil
}

// Delivery returns a delivery with its body. GitHub keeps it for a few days;
// later the error's Gone is true, or its Kind is NotFound.
func (c *Client) Delivery(ctx context.Context, s HookSource, id int64) (Delivery, error) {
	var out Delivery
	err := c.do(ctx, call{method: http.MethodGet, path: s.path(strconv.FormatInt(id, 10)), out: &out, as: s.credential()})
	return out, err
}
