package hooks

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/agented/agented"
	"github.com/agented/agented/internal/api/rest"
	"github.com/agented/agented/internal/github"
)

// Pulls is what the server fetches from GitHub.
type Pulls struct {
	Every   time.Duration
	Sources []agented.PullStatus
	Quotas  map[string]github.Quota // by credential
}

// PullSources is the response about fetched deliveries.
type PullSources struct {
	Enabled      bool             `json:"enabled" doc:"A credential is set, and AGENTED_GITHUB_PULL is not 0"`
	EverySeconds float64          `json:"every_seconds" doc:"Time between two looks at GitHub's lists"`
	Items        []PullSource     `json:"items"`
	Limits       []PullSourceRate `json:"limits" doc:"GitHub's rate limits as of the last calls"`
}

// PullSource is a webhook whose deliveries are fetched.
type PullSource struct {
	Name          string     `json:"name" doc:"app, OWNER/NAME, or the name of an organization"`
	HookID        int64      `json:"hook_id,omitempty" doc:"GitHub's id of the webhook; omitted for that of an App"`
	HandledUntil  *time.Time `json:"handled_until" doc:"Deliveries before this time of GitHub's clock are stored"`
	LastSuccessAt *time.Time `json:"last_success_at" doc:"When all deliveries were last stored"`
	Waiting       int        `json:"waiting" doc:"Deliveries that are listed and not yet stored"`
	LagSeconds    float64    `json:"lag_seconds" doc:"Age of the oldest delivery that is not yet stored"`
	Pulled        int64      `json:"pulled" doc:"Deliveries that were stored"`
	Lost          int64      `json:"lost" doc:"Deliveries whose body GitHub no longer had"`
	Problem       string     `json:"problem,omitempty" doc:"Why the last try failed"`
	RetryAt       *time.Time `json:"retry_at,omitempty" doc:"End of GitHub's rate limit"`
}

// PullSourceRate is a rate limit of GitHub's.
type PullSourceRate struct {
	Credential string    `json:"credential" example:"app"`
	Limit      int       `json:"limit" doc:"Calls per hour"`
	Remaining  int       `json:"remaining"`
	ResetAt    time.Time `json:"reset_at"`
}

func (h *Hooks) listPullSources(context.Context, *struct{}) (*rest.Output[PullSources], error) {
	out := PullSources{Items: []PullSource{}, Limits: []PullSourceRate{}}
	got := h.o.Pulls()
	if got == nil {
		return rest.Reply(out), nil
	}
	out.Enabled, out.EverySeconds = true, got.Every.Seconds()
	optional := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		t = rest.Time(t)
		return &t
	}
	for _, s := range got.Sources {
		v := PullSource{
			Name: s.Name, HookID: s.Hook, HandledUntil: optional(s.Position), LastSuccessAt: optional(s.LastSuccess), Waiting: s.Waiting,
			Pulled: s.Pulled, Lost: s.Lost, Problem: h.o.Mask(s.Problem), RetryAt: optional(s.RetryAt),
		}
		if !s.OldestWait.IsZero() {
			v.LagSeconds = max(h.o.Now().Sub(s.OldestWait).Seconds(), 0)
		}
		out.Items = append(out.Items, v)
	}
	for name, q := range got.Quotas {
		out.Limits = append(out.Limits, PullSourceRate{name, q.Limit, q.Remaining, rest.Time(q.Reset)})
	}
	slices.SortFunc(out.Limits, func(a, b PullSourceRate) int { return strings.Compare(a.Credential, b.Credential) })
	return rest.Reply(out), nil
}
