package client

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// PublicationSummary is what an execution publishes, in short.
type PublicationSummary struct {
	Number     int    `json:"number"`
	Kind       string `json:"kind"`
	Status     string `json:"status"`
	Rule       string `json:"rule"`
	Reason     string `json:"reason"`
	Repository string `json:"repository"`
	Title      string `json:"title"`
	URL        string `json:"url"`
}

// Publication is what an execution publishes.
type Publication struct {
	PublicationSummary
	Subject   int        `json:"subject"`
	Tries     int        `json:"tries"`
	NextTryAt *time.Time `json:"next_try_at"`
	DecidedBy string     `json:"decided_by"`
}

// Publications is the list of an execution.
type Publications struct {
	Items []Publication `json:"items"`
}

// Publications fetches what an execution publishes.
func (c *Client) Publications(ctx context.Context, id string) (Response[Publications], error) {
	return do[Publications](ctx, c, http.MethodGet, at(executionsPath, id, "/publications"), nil)
}

// DecidePublication approves or rejects a held publication.
func (c *Client) DecidePublication(ctx context.Context, id string, number int, approve bool) (Response[Publication], error) {
	action := "/reject"
	if approve {
		action = "/approve"
	}
	return do[Publication](ctx, c, http.MethodPost, at(executionsPath, id, "/publications/"+strconv.Itoa(number)+action), nil)
}
