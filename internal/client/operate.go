package client

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"time"
)

const (
	keysPath    = "/api/v1/auth/keys"
	budgetsPath = "/api/v1/budgets"
	drainPath   = "/api/v1/drain"
)

// Ready returns an error unless the server is ready.
func (c *Client) Ready(ctx context.Context) error {
	return c.Do(ctx, http.MethodGet, "/health/readiness", nil, nil, nil)
}

// Sandbox describes the sandbox levels that a server can create.
type Sandbox struct {
	Setting   string   `json:"setting"`
	Default   string   `json:"default"`
	Available []string `json:"available"`
	Missing   string   `json:"missing"`
	Fix       string   `json:"fix"`
	Problem   string   `json:"problem"`
}

// Sandbox fetches the state of sandboxes.
func (c *Client) Sandbox(ctx context.Context) (Sandbox, error) {
	var out struct {
		Sandbox Sandbox `json:"sandbox"`
	}
	err := c.Do(ctx, http.MethodGet, "/api/v1/info", nil, nil, &out)
	return out.Sandbox, err
}

// Me returns an error unless the server accepts the API key.
func (c *Client) Me(ctx context.Context) error {
	return c.Do(ctx, http.MethodGet, "/api/v1/auth/me", nil, nil, nil)
}

// Key is an API key, without its secret part.
type Key struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Prefix    string     `json:"prefix"`
	Role      string     `json:"role"`
	CreatedBy string     `json:"created_by"`
	CreatedAt *time.Time `json:"created_at"`
	UsedAt    *time.Time `json:"used_at"`
	RevokedAt *time.Time `json:"revoked_at"`
	ExpiresAt *time.Time `json:"expires_at"`
	Owner     string     `json:"owner"`
	Triggers  []string   `json:"triggers"`
	Addresses []string   `json:"addresses"`
}

// Revoked reports whether the key was revoked.
func (k *Key) Revoked() bool { return k.RevokedAt != nil && !k.RevokedAt.IsZero() }

// Expired reports whether the key has expired.
func (k *Key) Expired(now time.Time) bool { return k.ExpiresAt != nil && !k.ExpiresAt.After(now) }

// KeyCreate describes a new API key.
type KeyCreate struct {
	Name      string     `json:"name"`
	Role      string     `json:"role"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	Triggers  []string   `json:"triggers,omitempty"`  // ids or names
	Addresses []string   `json:"addresses,omitempty"` // addresses or networks
	Owner     string     `json:"owner,omitempty"`     // id or name of a user
}

// NewKey is a new API key with its secret part.
type NewKey struct {
	Key
	Secret string `json:"key"`
}

// Keys lists the API keys.
func (c *Client) Keys(ctx context.Context, limit int) iter.Seq2[Response[Key], error] {
	return list[Key](ctx, c, keysPath, values(), limit)
}

// CreateKey creates an API key.
func (c *Client) CreateKey(ctx context.Context, k KeyCreate) (Response[NewKey], error) {
	return do[NewKey](ctx, c, http.MethodPost, keysPath, k)
}

// RevokeKey revokes an API key.
func (c *Client) RevokeKey(ctx context.Context, id string) error {
	return c.Do(ctx, http.MethodDelete, at(keysPath, id, ""), nil, nil, nil)
}

// Budget is a limit of costs.
type Budget struct {
	ID      string     `json:"id"`
	Name    string     `json:"name"`
	Enabled bool       `json:"enabled"`
	Scope   string     `json:"scope"`
	Target  string     `json:"target"`
	Period  string     `json:"period"`
	Limit   float64    `json:"limit_usd"`
	Hard    bool       `json:"hard"`
	Pause   bool       `json:"pause"`
	Spent   float64    `json:"spent_usd"`
	Unknown int64      `json:"unknown_cost"`
	State   string     `json:"state"`
	Ends    *time.Time `json:"period_ends"`
}

// BudgetChange holds the fields of a budget to set; nil and empty fields stay unchanged.
type BudgetChange struct {
	Name        string   `json:"name,omitempty"`
	Enabled     *bool    `json:"enabled,omitempty"`
	Scope       string   `json:"scope,omitempty"`
	Target      string   `json:"target,omitempty"`
	Period      *string  `json:"period,omitempty"`
	Limit       *float64 `json:"limit_usd,omitempty"`
	Hard        *bool    `json:"hard,omitempty"`
	Pause       *bool    `json:"pause,omitempty"`
	WarnPercent *int     `json:"warn_percent,omitempty"`
}

// Budgets holds all budgets.
type Budgets struct {
	Items []Budget `json:"items"`
}

// Budgets fetches all budgets and their usage.
func (c *Client) Budgets(ctx context.Context) (Response[Budgets], error) {
	return do[Budgets](ctx, c, http.MethodGet, budgetsPath, nil)
}

// CreateBudget creates a budget.
func (c *Client) CreateBudget(ctx context.Context, b BudgetChange) (Response[Budget], error) {
	return do[Budget](ctx, c, http.MethodPost, budgetsPath, b)
}

// UpdateBudget changes a budget.
func (c *Client) UpdateBudget(ctx context.Context, id string, b BudgetChange) (Response[Budget], error) {
	return do[Budget](ctx, c, http.MethodPatch, at(budgetsPath, id, ""), b)
}

// DeleteBudget deletes a budget.
func (c *Client) DeleteBudget(ctx context.Context, id string) error {
	return c.Do(ctx, http.MethodDelete, at(budgetsPath, id, ""), nil, nil, nil)
}

// UsageReport sums up tokens and costs by day, trigger, account, model or backend.
type UsageReport struct {
	Items []struct {
		Key       string   `json:"key"`
		Name      string   `json:"name"`
		Attempts  int64    `json:"attempts"`
		Unknown   int64    `json:"unknown_cost"`
		Estimated int64    `json:"estimated_cost"`
		Input     *int64   `json:"input_tokens"`
		Output    *int64   `json:"output_tokens"`
		Cost      *float64 `json:"cost_usd"`
	} `json:"items"`
}

// Usage fetches the tokens and costs since a time.
func (c *Client) Usage(ctx context.Context, by string, from time.Time) (Response[UsageReport], error) {
	query := url.Values{"by": {by}, "from": {from.UTC().Format(time.RFC3339)}}
	return do[UsageReport](ctx, c, http.MethodGet, "/api/v1/usage?"+query.Encode(), nil)
}

// Drain is the state of drain mode.
type Drain struct {
	Drained bool       `json:"drained"`
	Since   *time.Time `json:"since"`
	By      string     `json:"by"`
	Running int64      `json:"running"`
	Pending int64      `json:"pending"`
}

// Drain fetches the state of drain mode.
func (c *Client) Drain(ctx context.Context) (Response[Drain], error) {
	return do[Drain](ctx, c, http.MethodGet, drainPath, nil)
}

// SetDrain switches drain mode on or off.
func (c *Client) SetDrain(ctx context.Context, on bool) (Response[Drain], error) {
	return do[Drain](ctx, c, http.MethodPut, drainPath, struct {
		Drained bool `json:"drained"`
	}{on})
}

// Reloaded is the result of a reload of the settings.
type Reloaded struct {
	Changed  []string `json:"changed"`
	Restart  []string `json:"restart"`
	Warnings []string `json:"warnings"`
	File     string   `json:"file"`
}

// Reload makes the server reload its settings.
func (c *Client) Reload(ctx context.Context) (Response[Reloaded], error) {
	return do[Reloaded](ctx, c, http.MethodPost, "/api/v1/reload", nil)
}

// Retention holds the retention limits, and how much is beyond them.
type Retention struct {
	ExecutionsDays  int64 `json:"executions_days"`
	ExecutionsMax   int64 `json:"executions_max"`
	LogsDays        int64 `json:"logs_days"`
	LogsMaxBytes    int64 `json:"logs_max_bytes"`
	DeliveriesDays  int64 `json:"deliveries_days"`
	TicksDays       int64 `json:"ticks_days"`
	AuditDays       int64 `json:"audit_days"`
	IdempotencyDays int64 `json:"idempotency_days"`
	ExecutionBytes  int64 `json:"execution_bytes"`
	DatabaseBytes   int64 `json:"database_bytes"`
	Expired         struct {
		Executions int64 `json:"executions"`
		Logs       int64 `json:"logs"`
		Bytes      int64 `json:"bytes"`
		Deliveries int64 `json:"deliveries"`
		Ticks      int64 `json:"ticks"`
		Audit      int64 `json:"audit"`
		Keys       int64 `json:"idempotency_keys"`
	} `json:"expired"`
	FailedRemovals FailedRemovals `json:"failed_removals"`
}

// FailedRemovals counts and names folders that could not be removed.
type FailedRemovals struct {
	Folders int64 `json:"folders"`
	Bytes   int64 `json:"bytes"`
	Items   []struct {
		ID    string `json:"id"`
		Error string `json:"error"`
	} `json:"items"`
}

// PullSource is a webhook whose missed deliveries the server fetches from GitHub.
type PullSource struct {
	Name          string     `json:"name"`
	LastSuccessAt *time.Time `json:"last_success_at"`
	Waiting       int        `json:"waiting"`
	Problem       string     `json:"problem"`
}

// PullSources returns the webhooks whose missed deliveries are fetched.
func (c *Client) PullSources(ctx context.Context) ([]PullSource, error) {
	got, err := do[struct {
		Items []PullSource `json:"items"`
	}](ctx, c, http.MethodGet, "/api/v1/pull-sources", nil)
	return got.Value.Items, err
}

// Retention previews what retention would remove.
func (c *Client) Retention(ctx context.Context) (Response[Retention], error) {
	return do[Retention](ctx, c, http.MethodGet, "/api/v1/retention", nil)
}

// Prune removes what is beyond the retention limits.
func (c *Client) Prune(ctx context.Context) (Response[Retention], error) {
	return do[Retention](ctx, c, http.MethodPost, "/api/v1/retention/prune", nil)
}

// AuditEntry is an entry of the audit log.
type AuditEntry struct {
	ID      string     `json:"id"`
	At      *time.Time `json:"at"`
	Actor   string     `json:"actor"`
	Action  string     `json:"action"`
	Subject string     `json:"subject"`
	Detail  string     `json:"detail"`
	Address string     `json:"address"`
}

// Audit lists the audit log, newest first.
func (c *Client) Audit(ctx context.Context, limit int) iter.Seq2[Response[AuditEntry], error] {
	return list[AuditEntry](ctx, c, "/api/v1/audit", values(), limit)
}
